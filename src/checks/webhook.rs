//! Somebody's own judge, asked by POST: 200 pass, 202 wait, 4xx fail, else it could not be asked.
//!
//! Invariant: only 200 is a pass. A redirect is not followed: the question may not end up with somebody else.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::json;

use super::{Answer, Question, redirected};
use crate::config::WebUrl;
use crate::model::CheckName;
use crate::net::fetch::{Ask, Fetched, Limits, excerpt, fetch};
use crate::tls;

/// Characters of the answer that are told.
const WORDS: usize = 300;
/// Enough for them.
const BYTES: usize = 16 * 1024;

/// Never longer than `timeout`.
pub(super) async fn ask(url: &WebUrl, timeout: Duration, name: &CheckName, question: &Question) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("weir-check"));
    let ask = Ask { url, method: Method::POST, headers, body: body(name, question) };
    match fetch(ask, Limits { time: timeout, bytes: BYTES }, tls::web_client).await {
        Ok(fetched) => heard(url, &fetched),
        Err(error) => Answer::Error(format!("{url}: {error}")),
    }
}

fn body(name: &CheckName, question: &Question) -> Bytes {
    let body = json!({
        "check": name.as_str(),
        "split": question.split.as_str(),
        "to": question.to.as_str(),
        "stable": question.stable.as_str(),
        "rollout": question.rollout,
        "step": question.step.map(|_| question.step_number()),
        "weight": question.weight_percent,
    });
    body.to_string().into()
}

fn heard(url: &WebUrl, fetched: &Fetched) -> Answer {
    let status = fetched.status;
    let words = excerpt(&fetched.body, WORDS);
    let text = if words.is_empty() { status.as_u16().to_string() } else { format!("{}: {words}", status.as_u16()) };
    match status.as_u16() {
        200 => Answer::Pass(text),
        202 => Answer::Wait(text),
        400..=499 => Answer::Fail(text),
        _ => match redirected(status) {
            Some(why) => Answer::Error(format!("{url}: {why}")),
            None => Answer::Error(format!("{url}: status {text}; 200 means pass, 202 wait, 4xx fail")),
        },
    }
}
