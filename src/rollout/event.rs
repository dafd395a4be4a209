//! What a rollout is told.

use super::command::Command;
use crate::analysis::{Part, Verdict};
use crate::checks::Answer;
use crate::model::{Actor, CheckName, Source, VersionName};

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed; what the analysis says now, if it has looked.
    Tick(Option<Judged>),
    /// A check's answer to the question with this number.
    Answered {
        check: CheckName,
        question: u64,
        answer: Answer,
    },
    /// The order with this number has been carried out.
    Done {
        seq: u64,
    },
    /// It could not be; nothing has changed. It is given again with the next tick.
    Refused {
        seq: u64,
        why: String,
    },
    Command(Command),
    /// Somebody rolled the split back, past this rollout.
    RolledBack {
        by: Actor,
        /// `Analysis` or `Check`: it was this rollout's own, and the process ended before it was written down.
        source: Source,
        reason: Option<String>,
    },
    /// The file gives this split other weights than before: it wins.
    FileChangedWeights,
    /// A version is no longer in the file.
    VersionLeft(VersionName),
    /// A rollout to another version is to begin in this one's place.
    NewerVersion {
        to: VersionName,
        by: Actor,
    },
}

/// A judgment of the analysis, as far as a rollout goes by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The step the engine had entered when it judged: a proof for one step is none for the next.
    pub step: usize,
    pub verdict: Verdict,
    pub reason: String,
    pub blamed: Option<Part>,
    pub is_split_wrong: bool,
}
