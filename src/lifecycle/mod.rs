//! The life of the process: may traffic come (`Readiness`), what the system asks of us (`Signals`), how it ends
//! (`shutdown`), and what it cannot live without (`Vital`).
//!
//! Owns: the phase of the shutdown. Refuses: sockets and requests; whoever has those follows the phase.
//! Invariant: readiness is what is held and dropped, so a forgotten `true` cannot be; a shutdown ends by its timeout.

mod notify;
mod readiness;
mod shutdown;
mod signals;
mod vital;

pub use notify::Notifier;
pub use readiness::{Blocker, Readiness};
pub use shutdown::{Ending, Phase, drive, next_phase};
pub use signals::{Signal, Signals};
pub use vital::{Vital, VitalGuard};
