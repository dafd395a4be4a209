//! A small client of the admin API: one connection, one call.
//!
//! Invariants: every call ends within its time limit; an answer's body is bounded; the operator's name and the way the
//! change came in go with every call, so that the history can say who and how.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, IF_MATCH};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::address::Address;
use super::args::Common;
use super::exit::{Exit, Failure};
use crate::model::Instant;

const MAX_BODY: usize = 64 << 20;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// See the file's head.
#[derive(Debug)]
pub struct Client {
    address: Address,
    by: HeaderValue,
    token: Option<HeaderValue>,
    timeout: Duration,
    verbose: bool,
}

/// One call, before it is made.
#[derive(Debug)]
pub struct Call {
    method: Method,
    path: String,
    body: Option<serde_json::Value>,
    if_match: Option<String>,
    /// On top of the client's own limit, for calls that block by design.
    longer: Duration,
}

/// What came back, whatever the status.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub etag: Option<String>,
    pub body: Bytes,
    pub took: Duration,
}

impl Call {
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, if_match: None, longer: Duration::ZERO }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    #[must_use]
    pub fn body(mut self, body: serde_json::Value) -> Self {
        self.body = Some(body);
        self
    }

    #[must_use]
    pub fn if_match(mut self, etag: Option<String>) -> Self {
        self.if_match = etag;
        self
    }

    #[must_use]
    pub fn longer(mut self, by: Duration) -> Self {
        self.longer = by;
        self
    }
}

impl Client {
    /// `timeout`: for one call.
    pub fn new(common: &Common, timeout: Option<Duration>) -> Result<Self, Failure> {
        Ok(Self {
            address: Address::find(common)?,
            by: by(),
            token: token(common)?,
            timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
            verbose: common.verbose,
        })
    }

    /// Makes the call; a status outside 2xx is a failure.
    pub async fn call(&self, call: Call) -> Result<Answer, Failure> {
        let answer = self.send(call).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(problem(&answer)) }
    }

    /// Makes the call; any status is an answer.
    pub async fn send(&self, call: Call) -> Result<Answer, Failure> {
        let line = format!("{} http://{}{}", call.method, self.address.authority, call.path);
        let limit = self.timeout + call.longer;
        let late = |_| {
            let text = format!("http://{} did not answer within {limit:?}", self.address.authority);
            Err(Failure::new(Exit::Unreachable, "admin-timeout", text).note("wait longer with --timeout"))
        };
        let result = tokio::time::timeout(limit, self.exchange(call)).await.unwrap_or_else(late);
        if self.verbose {
            let end = match &result {
                Ok(answer) => format!("{} in {:?}", answer.status, answer.took),
                Err(failure) => failure.code.clone(),
            };
            super::print::to_stderr(&format!("{line}: {end}\n"));
        }
        result
    }

    async fn exchange(&self, call: Call) -> Result<Answer, Failure> {
        let request = self.request(call)?;
        let start = Instant::now();
        let stream = TcpStream::connect(&self.address.authority).await.map_err(|e| self.unreachable(&e))?;
        let broken = |e: hyper::Error| self.broken(&e);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| self.broken(&*e))?;
            let etag = head.headers.get(ETAG).and_then(|v| v.to_str().ok()).map(str::to_owned);
            Ok(Answer { status: head.status, etag, body: body.to_bytes(), took: start.elapsed() })
        };
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // The connection may end with the answer already in our hands; its own error is told by the exchange.
            _ = connection => exchange.await,
        }
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>, Failure> {
        let bad = |e: http::Error| Failure::usage(format!("`{}` cannot be asked for: {e}", call.path));
        let mut request = Request::builder()
            .method(call.method)
            .uri(&call.path)
            .header(HOST, &self.address.authority)
            .header("weir-by", &self.by)
            .header("weir-source", "cli");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if let Some(etag) = call.if_match {
            request = request.header(IF_MATCH, etag);
        }
        let Some(body) = call.body else { return request.body(Full::default()).map_err(bad) };
        let body = Full::new(Bytes::from(body.to_string()));
        request.header(CONTENT_TYPE, "application/json").body(body).map_err(bad)
    }

    fn unreachable(&self, e: &io::Error) -> Failure {
        let Address { authority, from } = &self.address;
        let text = format!("no answer from http://{authority} ({from}): {e}");
        Failure::new(Exit::Unreachable, "admin-unreachable", text).note("is weir running? try --admin URL")
    }

    fn broken(&self, e: &(dyn std::error::Error + 'static)) -> Failure {
        let causes = std::iter::successors(Some(e), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>();
        let text = format!("http://{} did not speak HTTP to the end: {}", self.address.authority, causes.join(": "));
        Failure::new(Exit::Unreachable, "admin-unreachable", text).note("is it weir's admin address? try --admin URL")
    }
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Failure::bad_answer(format!("the answer is not understood: {e}")))
    }
}

/// A segment of a path, so that no name given on the command line can become another path.
pub fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:".contains(&b);
    let escape = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    // `.` and `..` would be resolved away.
    if text.bytes().all(|b| b == b'.') { "%2E".repeat(text.len()) } else { text.bytes().map(escape).collect() }
}

/// `application/problem+json`, or whatever else was said.
fn problem(answer: &Answer) -> Failure {
    #[derive(serde::Deserialize)]
    struct Problem {
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(default)]
        title: String,
        #[serde(default)]
        detail: String,
        #[serde(default)]
        allowed: Vec<String>,
    }
    let exit = exit_of(answer.status);
    let Ok(Problem { kind, title, detail, allowed }) = serde_json::from_slice(&answer.body) else {
        let mut failure = Failure::new(exit, "bad-answer", format!("the admin address answered {}", answer.status))
            .note("is it weir's admin address? try --admin URL");
        failure.body = Some(answer.body.clone());
        return failure;
    };
    let code =
        kind.rsplit('/').next().filter(|c| !c.is_empty()).map_or_else(|| answer.status.to_string(), str::to_owned);
    let mut failure = Failure::new(exit, &code, if detail.is_empty() { title } else { detail });
    failure.body = Some(answer.body.clone());
    if !allowed.is_empty() {
        failure = failure.note(format!("allowed: {}", allowed.join(", ")));
    }
    failure
}

fn exit_of(status: StatusCode) -> Exit {
    match status {
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED | StatusCode::UNPROCESSABLE_ENTITY => Exit::Refused,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NotAuthorised,
        _ => Exit::Failed,
    }
}

/// `local:alice`: behind sudo the person, not root.
fn by() -> HeaderValue {
    let named = |key| std::env::var(key).ok().filter(|v| !v.is_empty());
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(named);
    let user = user.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    // What the API takes as a name; anything else would be logged as nobody.
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-.@+".contains(c) { c } else { '_' };
    let plain: String = user.chars().take(64).map(plain).collect();
    HeaderValue::from_str(&format!("local:{plain}")).unwrap_or(HeaderValue::from_static("local:unknown"))
}

fn token(common: &Common) -> Result<Option<HeaderValue>, Failure> {
    let (text, from) = match &common.token_file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| {
                Failure::new(Exit::NotAuthorised, "file-unreadable", format!("--token-file {}: {e}", file.display()))
            })?;
            (text, format!("--token-file {}", file.display()))
        }
        None => (std::env::var("WEIR_TOKEN").unwrap_or_default(), "$WEIR_TOKEN".to_owned()),
    };
    let text = text.trim();
    if text.is_empty() && common.token_file.is_none() {
        return Ok(None);
    }
    let value = HeaderValue::from_str(&format!("Bearer {text}")).ok().filter(|_| !text.is_empty());
    let mut value = value.ok_or_else(|| {
        Failure::new(Exit::NotAuthorised, "bad-token", format!("{from} is empty or more than one line"))
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, etag: None, body: Bytes::copy_from_slice(body.as_bytes()), took: Duration::ZERO }
    }

    #[test]
    fn problems_keep_their_code_detail_and_remedy() {
        let body = r#"{"type":"/problems/unknown-version","title":"t","status":422,
            "detail":"split `shop` has v1, v2; not `v9`","allowed":["v1","v2"]}"#;
        let failure = problem(&answer(422, body));
        assert_eq!((failure.exit, failure.code.as_str()), (Exit::Refused, "unknown-version"));
        assert_eq!(failure.text, "split `shop` has v1, v2; not `v9`");
        assert_eq!(failure.notes, ["allowed: v1, v2"]);
        assert_eq!(failure.body.unwrap(), body);
    }

    #[test]
    fn exit_codes_follow_the_status() {
        let exit = |status| problem(&answer(status, "<html>")).exit;
        assert_eq!([409, 412, 422].map(exit), [Exit::Refused; 3]);
        assert_eq!([401, 403].map(exit), [Exit::NotAuthorised; 2]);
        assert_eq!([400, 404, 500, 503, 507, 301].map(exit), [Exit::Failed; 6]);
    }

    #[test]
    fn no_name_becomes_another_path() {
        assert_eq!(segment("shop-1.eu_x"), "shop-1.eu_x");
        assert_eq!(segment("../x?a#b%"), "..%2Fx%3Fa%23b%25");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("é x\r\n"), "%C3%A9%20x%0D%0A");
        assert_eq!(segment("10.0.0.1:9000"), "10.0.0.1:9000");
    }
}
