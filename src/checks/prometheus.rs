//! A number out of a Prometheus (or what speaks like one), compared with what is allowed.
//!
//! Invariant: only exactly one finite number is compared. Nothing found, several series, NaN and infinity are errors: a
//! query with a typing mistake finds nothing, and must not pass for a version without failures.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Question, redirected};
use crate::config::WebUrl;
use crate::net::fetch::{Ask, Fetched, Limits, excerpt, fetch};
use crate::tls;

const LIMITS: Limits = Limits { time: Duration::from_secs(10), bytes: 1024 * 1024 };
/// Characters of somebody else's words.
const WORDS: usize = 300;

/// Least and largest good number.
pub(super) type Bounds = (Option<f64>, Option<f64>);

/// Never longer than ten seconds.
pub(super) async fn ask(url: &WebUrl, query: &str, bounds: Bounds, question: &Question) -> (Answer, Option<f64>) {
    match value(url, &question.fill_query(query)).await {
        Ok((value, warning)) => {
            let answer = judged(value, bounds);
            (warned(answer, warning), Some(value))
        }
        Err(why) => (Answer::Error(format!("{url}: {why}")), None),
    }
}

async fn value(url: &WebUrl, query: &str) -> Result<(f64, Option<String>), String> {
    let encoded = utf8_percent_encode(query, NON_ALPHANUMERIC);
    // So that it, too, stops when nobody waits any more.
    let timeout = LIMITS.time.as_secs();
    let url = url.below("/api/v1/query", &format!("query={encoded}&timeout={timeout}s"));
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("weir-check"));
    let ask = Ask { url: &url, method: Method::GET, headers, body: Bytes::new() };
    let fetched = fetch(ask, LIMITS, tls::web_client).await.map_err(|error| error.to_string())?;
    read(&fetched)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    status: String,
    data: Option<Data>,
    error_type: Option<String>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

/// The one number of an answer, and what the server warns of.
fn read(fetched: &Fetched) -> Result<(f64, Option<String>), String> {
    let status = fetched.status.as_u16();
    if let Some(why) = redirected(fetched.status) {
        return Err(why);
    }
    if !fetched.is_whole {
        return Err(format!("status {status}: the answer is longer than 1 MiB; ask for one number"));
    }
    let reply: Option<Reply> = serde_json::from_slice(&fetched.body).ok();
    match reply {
        Some(reply) if reply.status == "success" && fetched.status.is_success() => {
            let warning = reply.warnings.first().map(|text| excerpt(text.as_bytes(), WORDS));
            let data = reply.data.ok_or_else(|| "the answer has no data".to_owned())?;
            Ok((number(&data)?, warning))
        }
        // It says itself what it does not like about the query.
        Some(reply) => {
            let kind = reply.error_type.unwrap_or_else(|| "no success".into());
            let text = format!("{kind}: {}", reply.error.unwrap_or_default());
            Err(format!("status {status}: {}", excerpt(text.as_bytes(), WORDS)))
        }
        None if fetched.status.is_success() => Err(format!("status {status}: the answer is not that of a Prometheus")),
        None => Err(format!("status {status}: {}", excerpt(&fetched.body, WORDS)).trim_end_matches([':', ' ']).into()),
    }
}

fn number(data: &Data) -> Result<f64, String> {
    let series = data.result.as_array().map(Vec::as_slice).unwrap_or_default();
    let sample = match (data.result_type.as_str(), series) {
        ("scalar", _) => Some(&data.result),
        ("vector", []) => {
            return Err("the query finds nothing; if that means 0, write `(...) or vector(0)`".into());
        }
        ("vector", [one]) if one.get("histogram").is_some() => return Err("the query gives a histogram".into()),
        ("vector", [one]) => one.get("value"),
        ("vector", many) => {
            return Err(format!("the query gives {} series, not one; write for example `sum(...)`", many.len()));
        }
        (other, _) => {
            let other = excerpt(other.as_bytes(), 20);
            return Err(format!("the query gives a {other}, not one number now"));
        }
    };
    let text = sample.and_then(|sample| sample.get(1)).and_then(Value::as_str);
    let number: Option<f64> = text.and_then(|text| text.parse().ok());
    match number {
        Some(number) if number.is_finite() => Ok(number),
        Some(number) => Err(format!("the query gives {number}, which can be compared with nothing")),
        None => Err("the answer has no number".into()),
    }
}

fn judged(value: f64, bounds: Bounds) -> Answer {
    let allowed = match bounds {
        (Some(min), Some(max)) => format!("{} to {}", shown(min), shown(max)),
        (Some(min), None) => format!("at least {}", shown(min)),
        (None, Some(max)) => format!("at most {}", shown(max)),
        // The configuration has refused it.
        (None, None) => return Answer::Error("neither `min` nor `max` is given".into()),
    };
    let text = format!("{}, {allowed}", shown(value));
    let is_good = bounds.0.is_none_or(|min| value >= min) && bounds.1.is_none_or(|max| value <= max);
    if is_good { Answer::Pass(text) } else { Answer::Fail(text) }
}

/// Every digit, for a rounded one might seem to lie on the other side; but not three hundred zeros.
fn shown(number: f64) -> String {
    let is_handy = number == 0.0 || (1e-6..1e15).contains(&number.abs());
    if is_handy { number.to_string() } else { format!("{number:e}") }
}

/// A server that knows its answer may be incomplete says so; people should hear it.
fn warned(answer: Answer, warning: Option<String>) -> Answer {
    let Some(warning) = warning else { return answer };
    match answer {
        Answer::Pass(text) => Answer::Pass(format!("{text} (warning: {warning})")),
        Answer::Fail(text) => Answer::Fail(format!("{text} (warning: {warning})")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_and_said_with_what_is_allowed() {
        let (pass, fail) = (|text: &str| Answer::Pass(text.into()), |text: &str| Answer::Fail(text.into()));
        for (value, bounds, expected) in [
            (0.7, (None, Some(0.5)), fail("0.7, at most 0.5")),
            (0.5, (None, Some(0.5)), pass("0.5, at most 0.5")),
            (0.500_000_000_000_000_1, (None, Some(0.5)), fail("0.5000000000000001, at most 0.5")),
            (-1.0, (Some(0.0), None), fail("-1, at least 0")),
            (3.0, (Some(1.0), Some(5.0)), pass("3, 1 to 5")),
            (0.9, (Some(1.0), Some(5.0)), fail("0.9, 1 to 5")),
            (5.1, (Some(1.0), Some(5.0)), fail("5.1, 1 to 5")),
            (1e300, (None, Some(1e-9)), fail("1e300, at most 1e-9")),
        ] {
            assert_eq!(judged(value, bounds), expected);
        }
        assert!(matches!(judged(1.0, (None, None)), Answer::Error(_)));
    }
}
