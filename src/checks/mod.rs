//! The outside evidence of a rollout: asks one check, and gives its answer.
//!
//! Owns: how a Prometheus, a webhook and a command are asked, and what counts as an answer of theirs. Refuses: when to ask
//! and what an answer leads to (that is `rollout`). Invariants: what is not understood is an [`Answer::Error`], never a
//! pass; every question is bounded in time and bytes, whoever is asked; one that is given up leaves nothing behind (the
//! connection is closed, the command killed with its children).

mod command;
#[cfg(test)]
mod command_tests;
mod process;
mod prometheus;
mod question;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod web_tests;
mod webhook;

use crate::config::{Check, CheckKind};

pub use self::question::Question;

/// What a check said, in words people understand ("0.7, at most 0.5").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Pass(String),
    Fail(String),
    Wait(String),
    /// It could not be asked.
    Error(String),
}

/// An answer, and what there is to keep of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub answer: Answer,
    /// The number that was compared: of `prometheus`.
    pub value: Option<f64>,
    /// What the run of the command that decided had printed, at most 4 KiB of it, for the receipt.
    pub output: Option<String>,
}

/// Asks a check once. Never fails or panics; over after 10 s (`prometheus`), its `timeout` (`webhook`) or 60 s (`command`).
/// Cancel safe: see the file's head. Needs a runtime with I/O and time.
pub async fn ask(check: &Check, question: &Question) -> Answer {
    look(check, question).await.answer
}

/// The same, with what there is to show beside the answer.
pub async fn look(check: &Check, question: &Question) -> Finding {
    match &check.ask {
        CheckKind::Prometheus { url, query, min, max } => {
            let (answer, value) = prometheus::ask(url, query, (*min, *max), question).await;
            Finding { answer, value, output: None }
        }
        CheckKind::Webhook { url, timeout } => {
            let answer = webhook::ask(url, *timeout, &check.name, question).await;
            Finding { answer, value: None, output: None }
        }
        CheckKind::Command(words) => {
            let (answer, output) = command::ask(words, question, command::LIMIT).await;
            Finding { answer, value: None, output }
        }
    }
}

impl Answer {
    /// What was said.
    pub fn text(&self) -> &str {
        let (Self::Pass(text) | Self::Fail(text) | Self::Wait(text) | Self::Error(text)) = self;
        text
    }

    /// As shown to people.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Fail(_) => "fail",
            Self::Wait(_) => "wait",
            Self::Error(_) => "error",
        }
    }
}

/// What is said of a server that sends us elsewhere.
fn redirected(status: http::StatusCode) -> Option<String> {
    status
        .is_redirection()
        .then(|| format!("status {}: redirects are not followed; write the address that it leads to", status.as_u16()))
}
