//! The rollout that judges itself: a plan of steps that moves a split's weights, as far as the evidence lets it.
//!
//! Here is its pure heart. [`Plan`] is what was agreed at the start, [`Machine`] decides, [`Effect`] is what is to be
//! done, [`Receipt`] accounts for every request. The task that feeds it (ticks, judgments, answers, commands) and
//! carries its effects out is not here.
//!
//! Invariants: the machine performs nothing. What must happen stands numbered in its outbox until it is reported done,
//! and the outbox is part of what is written down; so after a crash it is done again, never forgotten, and whoever
//! does it takes a repetition for the same deed. A rollback empties the outbox of everything that leads upward.
//! An ended rollout never runs again. Refuses: clocks, chance, files, sockets.

mod accounts;
mod advance;
#[cfg(test)]
mod check_tests;
mod checks;
mod clock;
mod command;
mod effect;
mod endings;
mod event;
mod machine;
#[cfg(test)]
mod machine_tests;
mod outbox;
mod plan;
#[cfg(test)]
mod property_tests;
mod saved;
#[cfg(test)]
mod saved_tests;
mod share;
mod status;
#[cfg(test)]
mod testing;

pub use crate::checks::Answer;
pub use accounts::{Counters, Receipt, Sheet, WentBack};
pub use clock::{LONGEST_LOOK, Moment};
pub use command::{Command, Refusal, What};
pub use effect::{Effect, Notice, Order, Tone};
pub use event::{Event, Judged};
pub use machine::{Machine, RolloutId};
pub use plan::{Asked, Judging, Plan, PlanError, PlannedStep, ThinStep, settings, starts_by_itself, thin_steps};
pub use saved::{RestoreError, Saved};
pub use share::Share;
pub use status::{Readiness, State, Target, rollback_ready};
