//! A notice as it is posted, and what its receiver's answer means.
//!
//! Invariant: a receiver that has understood and refuses is not asked again; one that is busy, broken or away is.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::Notice;
use crate::config::{NotifyFormat, WebUrl};
use crate::model::rfc3339_ms;
use crate::net::fetch::{Ask, Fetched, Limits, excerpt, fetch};
use crate::tls;

const LIMITS: Limits = Limits { time: Duration::from_secs(10), bytes: 16 * 1024 };
/// Characters of a refusal that are logged.
const WORDS: usize = 300;
/// Longer than a receiver may ask us to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What came of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    Taken,
    /// Why not, and how long the receiver wants to be left alone.
    NotNow(String, Duration),
    /// Why it will never be.
    Refused(String),
}

/// Tries once; never longer than ten seconds. Cancel safe.
pub(super) async fn post(url: &WebUrl, format: NotifyFormat, notice: &Notice) -> Posted {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("weir-notify"));
    let ask = Ask { url, method: Method::POST, headers, body: body(format, notice) };
    match fetch(ask, LIMITS, tls::web_client).await {
        Ok(fetched) => heard(&fetched),
        Err(error) => Posted::NotNow(error.to_string(), Duration::ZERO),
    }
}

pub(super) fn body(format: NotifyFormat, notice: &Notice) -> Bytes {
    let split = notice.split.as_ref().map(|split| split.as_str());
    let body = match format {
        NotifyFormat::Json => json!({
            "event": notice.event,
            "split": split,
            "text": notice.text,
            "rollout": notice.rollout,
            "key": notice.key,
            "at": rfc3339_ms(notice.at),
        }),
        NotifyFormat::Slack => {
            let about = split.map_or(String::new(), |split| format!("{split}: "));
            json!({ "text": plain(&format!("{about}{}: {}", notice.event, notice.text)) })
        }
    };
    body.to_string().into()
}

/// A check's words may come from anybody, and `<!channel>` would call everybody.
fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn heard(fetched: &Fetched) -> Posted {
    let status = fetched.status;
    let words = excerpt(&fetched.body, WORDS);
    let text = if words.is_empty() { words } else { format!(": {words}") };
    let text = format!("status {}{text}", status.as_u16());
    match status {
        _ if status.is_success() => Posted::Taken,
        _ if status.is_redirection() => {
            Posted::Refused(format!("status {}: redirects are not followed", status.as_u16()))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Posted::NotNow(text, retry_after(fetched)),
        _ if status.is_client_error() => Posted::Refused(text),
        _ => Posted::NotNow(text, retry_after(fetched)),
    }
}

/// Seconds only; a date is as good as nothing.
fn retry_after(fetched: &Fetched) -> Duration {
    let written = fetched.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    written.map_or(Duration::ZERO, Duration::from_secs).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(status: u16, retry_after: &str) -> Fetched {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_str(retry_after).unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        Fetched { status, headers, body: Bytes::from_static(b"no_service\n"), is_whole: true }
    }

    #[test]
    fn who_refuses_is_not_asked_again_and_who_is_busy_is() {
        let later = |text: &str, seconds| Posted::NotNow(text.into(), Duration::from_secs(seconds));
        for (status, wait, expected) in [
            (200, "", Posted::Taken),
            (204, "", Posted::Taken),
            (302, "", Posted::Refused("status 302: redirects are not followed".into())),
            (404, "7", Posted::Refused("status 404: no_service".into())),
            (408, "", later("status 408: no_service", 0)),
            (429, "7", later("status 429: no_service", 7)),
            (429, "86400", later("status 429: no_service", 60)),
            (503, "Fri, 31 Dec 1999 23:59:59 GMT", later("status 503: no_service", 0)),
            (500, "-1", later("status 500: no_service", 0)),
        ] {
            assert_eq!(heard(&fetched(status, wait)), expected);
        }
    }
}
