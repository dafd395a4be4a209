//! How a command ends: the exit code, and the one shape of every error line.
//!
//! Invariant: the numbers are a contract with scripts (surface.md section 8).

use std::process::ExitCode;

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    ConfigInvalid = 3,
    /// An address is in use or may not be bound.
    Address = 4,
    /// The admin API does not answer.
    Unreachable = 5,
    /// The admin API said no: 409, 412, 422.
    Refused = 6,
    NotAuthorised = 7,
    /// `--wait`: the rollout failed or was rolled back.
    RolledBack = 8,
    /// `--wait`: the time is over.
    WaitTimeout = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that did not do what was asked: `error[code]: text`, with further lines below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub code: String,
    pub text: String,
    /// Printed below, each as `  = line`.
    pub notes: Vec<String>,
    /// The API's own words, for `-o json`.
    pub body: Option<bytes::Bytes>,
}

impl Failure {
    pub fn new(exit: Exit, code: &str, text: impl Into<String>) -> Self {
        Self { exit, code: code.to_owned(), text: text.into(), notes: Vec::new(), body: None }
    }

    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", text)
    }

    /// What the program said is not what this CLI understands.
    pub fn bad_answer(text: impl Into<String>) -> Self {
        Self::new(Exit::Failed, "bad-answer", text).note("are this CLI and the running weir of the same version?")
    }

    #[must_use]
    pub fn note(mut self, line: impl Into<String>) -> Self {
        self.notes.push(line.into());
        self
    }
}
