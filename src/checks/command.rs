//! A command of the operator's: exit 0 pass, 75 (`EX_TEMPFAIL`) wait, any other fail.
//!
//! Started as it stands, without a shell, so nothing in a name can become code. With `{endpoint}` in one of its words it
//! runs once per endpoint of the new version, one after the other: the runs are for evidence, not for load, and the
//! first that fails ends it. Invariants: all runs together are bounded by one time limit; a failure outweighs an error,
//! an error a wait, a wait a pass.

use std::time::Duration;

use super::process::{Ended, Run, run};
use super::{Answer, Question};
use crate::model::Instant;
use crate::net::fetch::excerpt;

/// For all runs of one question together.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Characters of the output that are told.
const WORDS: usize = 300;
const WAIT: i32 = 75;

/// The answer, and the output of the run that decided (of the first, if all pass). Never longer than `limit`.
pub(super) async fn ask(words: &[String], question: &Question, limit: Duration) -> (Answer, Option<String>) {
    let ends = Instant::now() + limit;
    let endpoints: Vec<Option<&str>> = if words.iter().any(|word| word.contains("{endpoint}")) {
        question.endpoints.iter().map(|endpoint| Some(endpoint.as_str())).collect()
    } else {
        vec![None]
    };
    let mut worst: Option<(Answer, String)> = None;
    for (i, endpoint) in endpoints.iter().enumerate() {
        let (ended, output) = run(&one(words, question, *endpoint), ends).await;
        let is_over = matches!(ended, Ended::Overtime);
        let found = said(ended, &output, *endpoint, (i, endpoints.len()), limit);
        if worst.as_ref().is_none_or(|(so_far, _)| rank(&found) > rank(so_far)) {
            worst = Some((found, output));
        }
        if is_over || matches!(worst, Some((Answer::Fail(_), _))) {
            break;
        }
    }
    match worst {
        Some((Answer::Pass(_), output)) if endpoints.len() > 1 => {
            (Answer::Pass(format!("exit 0 for each of {} endpoints", endpoints.len())), Some(output))
        }
        Some((answer, output)) => (answer, Some(output)),
        None => (Answer::Error(format!("{} has no endpoint to be asked about", question.to)), None),
    }
}

fn one(words: &[String], question: &Question, endpoint: Option<&str>) -> Run {
    Run {
        words: words.iter().map(|word| question.fill_word(word, endpoint)).collect(),
        environment: vec![
            ("WEIR_SPLIT", Some(question.split.to_string())),
            ("WEIR_TO", Some(question.to.to_string())),
            ("WEIR_STABLE", Some(question.stable.to_string())),
            ("WEIR_ENDPOINT", endpoint.map(str::to_owned)),
        ],
    }
}

fn said(ended: Ended, output: &str, endpoint: Option<&str>, (at, of): (usize, usize), limit: Duration) -> Answer {
    let about = endpoint.map_or(String::new(), |endpoint| format!("{endpoint}: "));
    let words = excerpt(output.as_bytes(), WORDS);
    let words = if words.is_empty() { words } else { format!(": {words}") };
    match ended {
        Ended::Exit(0) => Answer::Pass(format!("{about}exit 0{words}")),
        Ended::Exit(WAIT) => Answer::Wait(format!("{about}exit {WAIT}{words}")),
        Ended::Exit(code) => Answer::Fail(format!("{about}exit {code}{words}")),
        Ended::Signal(signal) => Answer::Error(format!("{about}killed by signal {signal}{words}")),
        Ended::NotStarted(why) => Answer::Error(format!("{about}{why}")),
        Ended::Overtime if of > 1 => Answer::Error(format!(
            "{about}all {of} endpoints together were not done within {limit:?} ({at} were); killed with its children{words}"
        )),
        Ended::Overtime => Answer::Error(format!("{about}not done within {limit:?}; killed with its children{words}")),
    }
}

fn rank(answer: &Answer) -> u8 {
    match answer {
        Answer::Pass(_) => 0,
        Answer::Wait(_) => 1,
        Answer::Error(_) => 2,
        Answer::Fail(_) => 3,
    }
}
