//! The rule of checks: when each is asked, and what its answers come to.
//!
//! A failure that repeats is a regression; "wait" and an error only hold the rollout where it is. Invariant: an answer
//! counts only for the question it belongs to, and no question outlives the step it was asked in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::plan::Asked;
use crate::checks::Answer;
use crate::config::CheckAt;
use crate::model::CheckName;

/// What comes of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing to speak of.
    Noted,
    /// It failed, not often enough yet.
    Warned(String),
    /// For the first time in a row it could not be asked.
    Mute(String),
    /// It has failed so often in a row.
    Regressed(String),
}

/// One check of a running rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checking {
    pub(super) name: CheckName,
    /// Number of the last question.
    question: u64,
    /// In a row.
    failures: u32,
    /// The last answer of this step was to pass.
    has_passed: bool,
    /// The last answer was none, and people have been told.
    is_mute: bool,
    /// Why it does not pass; shown only.
    said: Option<String>,
    #[serde(skip)]
    is_asked: bool,
    #[serde(skip)]
    due_in: Duration,
}

impl Checking {
    pub(super) fn new(name: CheckName) -> Self {
        Self {
            name,
            question: 0,
            failures: 0,
            has_passed: false,
            is_mute: false,
            said: None,
            is_asked: false,
            due_in: Duration::ZERO,
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.due_in = self.due_in.saturating_sub(time);
    }

    /// A new step: what was said of the old one proves nothing, but failures still count on.
    pub(super) fn begin_step(&mut self) {
        (self.has_passed, self.is_asked, self.due_in) = (false, false, Duration::ZERO);
        self.question += 1;
    }

    /// Somebody has decided to go on in spite of it.
    pub(super) fn pardon(&mut self) {
        self.failures = 0;
    }

    pub(super) fn has_room(&self) -> bool {
        self.question < u64::MAX / 2
    }

    pub(super) fn has_passed(&self) -> bool {
        self.has_passed
    }

    /// It need not be asked again in this step.
    pub(super) fn is_settled(&self, at: CheckAt) -> bool {
        self.has_passed && at != CheckAt::Always
    }

    /// Why it does not pass.
    pub(super) fn said(&self) -> &str {
        self.said.as_deref().unwrap_or("has not answered yet")
    }

    /// What it said last, if it has said anything.
    pub(super) fn said_last(&self) -> Option<String> {
        self.said.clone()
    }

    /// The question, if it is time for one.
    pub(super) fn ask(&mut self, at: CheckAt) -> Option<Effect> {
        if self.is_asked || !self.due_in.is_zero() {
            return None;
        }
        self.is_asked = true;
        self.question += 1;
        Some(Effect::Ask { check: self.name.clone(), question: self.question, at })
    }

    /// `None`: the answer to some other question.
    pub(super) fn answered(&mut self, question: u64, answer: Answer, plan: &Asked) -> Option<Outcome> {
        if !self.is_asked || question != self.question {
            return None;
        }
        (self.is_asked, self.due_in) = (false, plan.every);
        self.has_passed = matches!(answer, Answer::Pass(_));
        let was_mute = std::mem::replace(&mut self.is_mute, matches!(answer, Answer::Error(_)));
        let (Answer::Pass(said) | Answer::Fail(said) | Answer::Wait(said) | Answer::Error(said)) = &answer;
        self.said = Some(said.clone());
        Some(match answer {
            Answer::Pass(_) => {
                self.failures = 0;
                Outcome::Noted
            }
            Answer::Wait(_) => Outcome::Noted,
            Answer::Error(_) if was_mute => Outcome::Noted,
            Answer::Error(why) => Outcome::Mute(why),
            Answer::Fail(why) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= plan.failures { Outcome::Regressed(why) } else { Outcome::Warned(why) }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Asked {
        let name = CheckName::new("orders").unwrap();
        Asked { name, at: CheckAt::Always, every: Duration::from_secs(30), failures: 2 }
    }

    fn ask(check: &mut Checking) -> Option<u64> {
        match check.ask(CheckAt::Always)? {
            Effect::Ask { question, .. } => Some(question),
            other => panic!("{other:?}"),
        }
    }

    fn say(check: &mut Checking, answer: Answer) -> Outcome {
        let question = ask(check).expect("it is time to ask");
        let outcome = check.answered(question, answer, &plan()).expect("this question was asked");
        assert_eq!(ask(check), None, "not again at once");
        check.pass(Duration::from_secs(30));
        outcome
    }

    #[test]
    fn only_failures_in_a_row_regress() {
        let mut check = Checking::new(plan().name);
        let (fail, pass) = (|| Answer::Fail("0.7".into()), || Answer::Pass("0.1".into()));
        assert_eq!(say(&mut check, fail()), Outcome::Warned("0.7".into()));
        assert_eq!(say(&mut check, pass()), Outcome::Noted);
        assert!(check.has_passed());
        assert_eq!(say(&mut check, fail()), Outcome::Warned("0.7".into()));
        assert_eq!(say(&mut check, Answer::Wait("busy".into())), Outcome::Noted);
        assert_eq!(say(&mut check, Answer::Error("refused".into())), Outcome::Mute("refused".into()));
        assert_eq!(say(&mut check, Answer::Error("refused".into())), Outcome::Noted, "told once");
        assert!(!check.has_passed());
        assert_eq!(say(&mut check, fail()), Outcome::Regressed("0.7".into()), "nothing passed in between");
    }

    #[test]
    fn answers_to_other_questions_are_not_heard() {
        let mut check = Checking::new(plan().name);
        let first = ask(&mut check).unwrap();
        assert_eq!(check.answered(first + 1, Answer::Pass(String::new()), &plan()), None);
        check.begin_step();
        assert_eq!(check.answered(first, Answer::Pass(String::new()), &plan()), None, "asked in the step before");
        let second = ask(&mut check).unwrap();
        assert!(check.answered(second, Answer::Pass(String::new()), &plan()).is_some());
        assert_eq!(check.answered(second, Answer::Fail(String::new()), &plan()), None, "answered already");
    }
}
