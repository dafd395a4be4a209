//! What operators may say to a running rollout, and when it is refused.

use super::machine::{Machine, Phase};
use crate::model::{Actor, Source};

#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    pub what: What,
    pub by: Actor,
    pub source: Source,
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The next step may begin.
    Approve,
    /// The next step begins now, whatever the evidence; `full`: all traffic.
    Promote {
        full: bool,
    },
    Pause,
    Resume,
    /// Roll back.
    Abort,
}

/// Why a command changes nothing (409). The text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no rollout runs")]
    Ended,
    #[error("no approval is asked for")]
    NothingToApprove,
    #[error("the rollout is paused: resume it first")]
    Paused,
    #[error("the rollout is not paused")]
    NotPaused,
    #[error("the checks at the start have not passed: no request may go to the new version yet")]
    StartChecks,
    /// So that a command given twice does not lead two steps up.
    #[error("the weights of the step are just being set")]
    Entering,
    #[error("the rollout is over but for the label")]
    Finishing,
}

impl Machine {
    /// Whether a command would be refused now, for answers and dry runs; `step` then ignores it.
    pub fn refusal(&self, what: What) -> Option<Refusal> {
        match (what, self.phase) {
            (_, Phase::Ended(_)) => Some(Refusal::Ended),
            (What::Approve, Phase::Approval) => self.paused.as_ref().map(|_| Refusal::Paused),
            (What::Approve, _) => Some(Refusal::NothingToApprove),
            (What::Promote { .. }, Phase::Starting) => Some(Refusal::StartChecks),
            (What::Promote { .. }, Phase::Entering) => Some(Refusal::Entering),
            (What::Promote { .. } | What::Pause, Phase::Finishing) => Some(Refusal::Finishing),
            (What::Resume, _) if self.paused.is_none() => Some(Refusal::NotPaused),
            (What::Promote { .. } | What::Pause | What::Resume | What::Abort, _) => None,
        }
    }
}
