//! Replacing the binary of a running weir without losing a request.
//!
//! The old process freezes changes, starts the new one with a socket pair as its standard input, and sends it every
//! listening socket, the lock of the state directory, and what cannot be read from files. The new one makes everything
//! ready, says so, and accepts on the word of the old one, which only then stops accepting and drains. While it drains
//! it tells the new one what is still in flight.
//!
//! Refuses: deciding when, and what happens to the rest of the process (that is `app`).
//! Invariants: until the new process has said that it serves, the old one can go on as if nothing had been, and does; a
//! socket that was handed over is never closed in the kernel by the old one; there are never two that take changes.

mod elsewhere;
mod inherit;
mod link;
mod messages;
mod program;
mod start;
mod successor;

pub use elsewhere::{Elsewhere, Predecessor};
pub use inherit::{Heir, Inheritance, inherit};
pub use messages::{Control, Parcel, Part, Report, Role, Tally};
pub use program::Program;
pub use start::{Failed, start};
pub use successor::{Reports, Successor};
