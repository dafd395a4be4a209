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
mod archive;
mod books;
#[cfg(test)]
mod check_tests;
mod checks;
mod clock;
mod command;
mod controller;
#[cfg(test)]
mod controller_tests;
mod deeds;
mod desk;
mod document;
mod effect;
mod endings;
mod event;
mod evidence;
mod filing;
mod machine;
#[cfg(test)]
mod machine_tests;
mod operators;
mod outbox;
mod plan;
mod ports;
#[cfg(test)]
mod property_tests;
mod run;
mod saved;
#[cfg(test)]
mod saved_tests;
mod share;
mod status;
mod taking_up;
#[cfg(test)]
mod testing;
mod view;

pub use crate::checks::Answer;
pub use accounts::{Counters, Receipt, Sheet, WentBack};
pub use clock::{LONGEST_LOOK, Moment};
pub use command::{Command, Refusal, What};
pub use controller::Controller;
pub use desk::{Ask, Board, Desk, DeskError, Reply, Start};
pub use document::{Document, Entry, Evidence, Gap, PlannedStep as StepOfDocument, Said, Total};
pub use effect::{Effect, Notice, Order, Tone};
pub use event::{Event, Judged};
pub use machine::{Machine, RolloutId};
pub use plan::{Asked, Judging, Plan, PlanError, PlannedStep, ThinStep, settings, starts_by_itself, thin_steps};
pub use ports::Ports;
pub use saved::{RestoreError, Saved};
pub use share::Share;
pub use status::{Readiness, State, Target, rollback_ready};
pub use view::{CheckView, Judged as Shown, StepView, Tally, View};
