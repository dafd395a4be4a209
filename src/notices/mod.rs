//! Tells people: posts what happens to those who are named under `[[notify]]`.
//!
//! Owns: the queue of what is to be told, who gets it, and the tries. Refuses: to decide what is worth telling (that is
//! whoever sends). Invariants: telling never blocks and never fails whoever tells; what does not fit is dropped, counted
//! and logged; every target has a queue and tries of its own, so that a dead one holds nobody else; of a target's address,
//! which is a secret, only scheme, host and port are ever said.

mod letter;
mod lines;
mod queue;
mod tries;

#[cfg(test)]
mod tests;

pub use self::lines::run;
pub use self::queue::{Inbox, Notice, Notices, channel};
