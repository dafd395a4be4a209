//! The addresses of names: asked for, kept while nobody answers, made into a change when they are others.
//!
//! Owns: one task per name that the configuration has, whoever names it; what is known of each. Refuses: pools and
//! drains; it hands addresses to the one write path (`state::Change::Resolved`) and that is all.
//! Invariants: no start, reload or request ever waits for a name; an answer that is empty, late or an error takes nothing
//! away that an earlier one gave; two answers for one name are never judged at the same time.

mod ask;
mod hosts;
mod rehearsal;
mod rule;
mod status;
mod supervisor;
mod task;

pub use rehearsal::unresolved;
pub use status::{NameState, NameStatus, Statuses};
pub use supervisor::run;
