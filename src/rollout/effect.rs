//! What is to be done because of an event.
//!
//! [`Effect::Do`] is an order out of the outbox: numbered, written down with the state before it is carried out, and
//! given again until it is reported done. The others are of the moment and lost with it.

use serde::{Deserialize, Serialize};

use super::share::Share;
use crate::config::CheckAt;
use crate::model::{Actor, CheckName, Source, VersionName};

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Carry out, then send `Done` or `Refused`. It may come again after a crash. Weights, rollback and label are the
    /// same deed when done twice; notices and receipts are told apart by the rollout's id, `seq` and kind.
    ///
    /// Weights and label are set only if nobody has changed the split since the rollout last looked (`if_match`); if
    /// somebody has, that is told first, as an event.
    Do { seq: u64, order: Order },
    /// The step's weights are in force: the analysis judges for it from now on.
    EnterStep(usize),
    /// Ask, and send `Answered` with the same number whatever happens.
    Ask { check: CheckName, question: u64, at: CheckAt },
    /// One line of the log.
    Log { tone: Tone, event: &'static str, text: String },
}

/// A deed that must not be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Set the split's weights.
    Weights { share: Share, by: Actor, reason: String },
    /// All to `to`, the rest closed, held.
    Rollback { to: VersionName, source: Source, by: Actor, reason: String },
    /// All to the new version, which is stable from now on; the old one stays warm.
    Relabel { share: Share },
    /// Tell people.
    Notify { notice: Notice, text: String },
    /// Close and keep the receipt.
    Receipt { ending: String },
}

/// What people are told of, as in `notify.on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    RolledBack,
    CheckFailed,
    RolloutFinished,
    ApprovalNeeded,
    RolloutPaused,
    RolloutSuperseded,
    /// Something could not be carried out and is tried again.
    RolloutStuck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Info,
    Warn,
}

impl Effect {
    /// Must the new state be on disk first? A rollback does not wait for a disk (amendments 1.2): should both be lost,
    /// the evidence is still there and asks for it again.
    pub fn waits_for_journal(&self) -> bool {
        matches!(self, Self::Do { order, .. } if !matches!(order, Order::Rollback { .. }))
    }
}

impl Order {
    /// Moves traffic or labels upward, so that a rollback makes it void.
    pub(super) fn leads_upward(&self) -> bool {
        matches!(self, Self::Weights { .. } | Self::Relabel { .. })
    }
}

impl Notice {
    /// As in `notify.on`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RolledBack => "rolled-back",
            Self::CheckFailed => "check-failed",
            Self::RolloutFinished => "rollout-finished",
            Self::ApprovalNeeded => "approval-needed",
            Self::RolloutPaused => "rollout-paused",
            Self::RolloutSuperseded => "rollout-superseded",
            Self::RolloutStuck => "rollout-stuck",
        }
    }
}
