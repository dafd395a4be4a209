//! What is asked about, and how it is put into the operator's texts.
//!
//! Invariant: every text is gone through once, so that what was put in is never taken for a place to put something in.

use crate::model::{SplitName, VersionName};

/// What a check is asked about.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub split: SplitName,
    pub to: VersionName,
    pub stable: VersionName,
    /// The rollout's id.
    pub rollout: String,
    /// Index, from 0; people and receivers are told the number, from 1. `None`: before the first step.
    pub step: Option<usize>,
    /// Percent of the requests that go to `to`, 0..=100.
    pub weight_percent: f64,
    /// Addresses of `to`.
    pub endpoints: Vec<String>,
}

impl Question {
    /// The step as people count; 0 before the first.
    pub(super) fn step_number(&self) -> usize {
        self.step.map_or(0, |index| index.saturating_add(1))
    }

    /// Puts names and numbers into a query. None of them needs an escape inside a string of PromQL: a name is letters,
    /// digits, `_`, `-` and `.` only.
    pub(super) fn fill_query(&self, query: &str) -> String {
        fill(query, |place| match place {
            "step" => Some(self.step_number().to_string()),
            "weight" => Some(self.weight_percent.to_string()),
            other => self.name(other),
        })
    }

    /// Puts names, and the endpoint if there is one, into a word of a command.
    pub(super) fn fill_word(&self, word: &str, endpoint: Option<&str>) -> String {
        fill(word, |place| match place {
            "endpoint" => endpoint.map(str::to_owned),
            other => self.name(other),
        })
    }

    fn name(&self, place: &str) -> Option<String> {
        Some(match place {
            "to" => self.to.to_string(),
            "stable" => self.stable.to_string(),
            "split" => self.split.to_string(),
            _ => return None,
        })
    }
}

/// Replaces `{place}`; what `value` does not know stays as it is (PromQL has braces of its own).
fn fill(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let found = after.split_once('}').and_then(|(place, behind)| Some((value(place)?, behind)));
        match found {
            Some((value, behind)) => {
                filled.push_str(&value);
                rest = behind;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::question;

    #[test]
    fn places_in_a_query_are_filled_and_braces_of_promql_stay() {
        let mut question = question(&[]);
        for (query, expected) in [
            ("up", "up"),
            ("", ""),
            (r#"rate(failed{version="{to}"}[1m])"#, r#"rate(failed{version="v2"}[1m])"#),
            (r#"a{v="{to}"} / a{v="{stable}",s="{split}"}"#, r#"a{v="v2"} / a{v="v1",s="shop"}"#),
            ("{step} {weight} {endpoint} {nope}", "2 12.5 {endpoint} {nope}"),
            ("{to", "{to"),
            ("{{to}}", "{v2}"),
            ("{ to }{}", "{ to }{}"),
        ] {
            assert_eq!(question.fill_query(query), expected);
        }
        (question.step, question.weight_percent) = (None, 0.0);
        assert_eq!(question.fill_query("{step} {weight}"), "0 0");
    }

    #[test]
    fn what_was_put_in_is_not_looked_at_again() {
        let question = question(&[]);
        assert_eq!(question.fill_word("{endpoint}/{to}", Some("{to}")), "{to}/v2");
        assert_eq!(question.fill_word("{endpoint} {step}", None), "{endpoint} {step}");
    }
}
