//! Active health: asks every endpoint of a checked version whether it is able, again and again.
//!
//! Owns: one task per checked endpoint (`checker`), which asks (`probe`), counts what comes back (`rule`, pure) and says
//! what it means with `Endpoint::set_health`, as the only one who does once an endpoint is in use; who is checked, and
//! how, follows the snapshot (`supervisor`). Refuses: failing requests, which are ejection's business; names, which have
//! become addresses before anybody is checked.
//! Invariants: all of it runs on the control thread, never on a worker; a check that could not be made for want of our
//! own means (no descriptors) says nothing about an endpoint; a check that passes never undoes a drain, which is another
//! axis; state and streak of an endpoint outlive every reload that leaves its check alone, the state all others, too.

mod board;
mod checker;
mod grpc;
mod probe;
#[cfg(test)]
mod probe_tests;
mod rule;
mod supervisor;

pub use board::{Board, CheckCounts, LastCheck};
pub use supervisor::supervise;
