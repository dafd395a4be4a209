//! What requests see, and the one way to change it.
//!
//! Owns: the snapshot, the persisted state (`state.json`, `history.jsonl`), the precedence of file and runtime
//! (surface.md section 6). Refuses: waiting; `apply` is a plain function under a plain lock.
//! Invariants: one writer (`Store::apply`); revisions have no gap; what was acknowledged as persisted is found again
//! after `kill -9`; a held rollback is never undone by a file.

mod book;
mod build;
mod change;
#[cfg(test)]
mod damage_tests;
mod disk;
mod format;
mod hand_over;
#[cfg(test)]
mod health_tests;
mod history;
mod names;
#[cfg(test)]
mod names_tests;
mod orders;
mod owners;
mod plan;
mod precedence;
#[cfg(test)]
mod property_tests;
mod rollouts;
mod rules;
mod secure;
#[cfg(test)]
mod secure_tests;
mod snapshot;
#[cfg(test)]
mod sticky_tests;
mod store;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod testing;

pub use change::{Applied, ApplyError, Change, ChangeEvent, HistoryEntry, Order};
pub use hand_over::{Frozen, Handed, Known};
pub use names::Resolved;
pub use rollouts::RolloutMark;
pub use snapshot::{Coin, Override, RuleState, Snapshot, SplitState, VersionState};
pub use store::{OpenError, OpenOptions, Store};
