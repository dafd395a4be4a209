//! One question to a web server outside: over a connection of its own, which is closed afterwards.
//!
//! For those who are asked (checks) and told (notices), not for requests that pass through. Invariants: it is over within
//! its limits of time and bytes, whatever the server does; redirects are not followed; what is said of a failure names
//! the server, never its path, user or password (see [`WebUrl`]). Names are looked up as the system does it; a look-up
//! that is given up ends by itself, on a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use crate::config::{Protocol, WebUrl};
use crate::model::Instant;
use crate::net::upstream::{self, DialError, HEAD_LIMIT, Settings, Stream};

/// Addresses of a name that are tried; more would get too little time each.
const ADDRESSES: usize = 8;

/// What is asked of whom.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    pub url: &'a WebUrl,
    pub method: Method,
    /// `Host` and, if the URL has a user, `Authorization` are added.
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// How long, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For all of it: look-up, connection, handshake, answer.
    pub time: Duration,
    /// Of the answer's body; more is not read.
    pub bytes: usize,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body is not longer than the limit.
    pub is_whole: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("its name leads nowhere: {0}")]
    Lookup(#[source] io::Error),
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Nothing to verify a server by, or a name that no certificate can have.
    #[error("tls: {0}")]
    Trust(String),
    #[error("{0}")]
    Answer(String),
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// Asks once; `trust` is called only if TLS is to be spoken, and says whom to believe. Cancel safe: what was begun is
/// dropped.
///
/// # Errors
/// See [`FetchError`]. A status is no error.
pub async fn fetch<E: std::fmt::Display>(
    ask: Ask<'_>,
    limits: Limits,
    trust: impl FnOnce() -> Result<Arc<ClientConfig>, E>,
) -> Result<Fetched, FetchError> {
    let settings = settings(ask.url, trust)?;
    let asked = async {
        let stream = connect(ask.url, &settings, Instant::now() + limits.time).await?;
        exchange(stream, ask, limits.bytes).await
    };
    tokio::time::timeout(limits.time, asked).await.unwrap_or(Err(FetchError::Timeout(limits.time)))
}

fn settings<E: std::fmt::Display>(
    url: &WebUrl,
    trust: impl FnOnce() -> Result<Arc<ClientConfig>, E>,
) -> Result<Settings, FetchError> {
    let tls = if url.is_https() {
        let config = trust().map_err(|error| FetchError::Trust(error.to_string()))?;
        let name = ServerName::try_from(url.host().to_owned());
        let no_name = |_| FetchError::Trust(format!("`{}` is no name a certificate can have", url.host()));
        Some((config, name.map_err(no_name)?))
    } else {
        None
    };
    Ok(Settings { idle_cap: 0, idle_for: None, max_age: None, protocol: Protocol::Http1, tls })
}

/// To the first address that takes it. Each has its share of the time that is left, so that one which says nothing does
/// not take it all.
async fn connect(url: &WebUrl, settings: &Settings, ends: Instant) -> Result<Stream, FetchError> {
    let found = tokio::net::lookup_host((url.host(), url.port())).await.map_err(FetchError::Lookup)?;
    let addresses: Vec<SocketAddr> = found.take(ADDRESSES).collect();
    let mut last = FetchError::Lookup(io::Error::other("it has no address"));
    for (i, address) in addresses.iter().enumerate() {
        let share = ends.saturating_duration_since(Instant::now()) / (addresses.len() - i) as u32;
        let address = (*address).into();
        match tokio::time::timeout(share, upstream::connect(&address, settings.clone())).await {
            Ok(Ok((stream, _))) => return Ok(stream),
            Ok(Err(error)) => last = error.into(),
            Err(_) => last = DialError::Timeout.into(),
        }
    }
    Err(last)
}

async fn exchange(stream: Stream, ask: Ask<'_>, most: usize) -> Result<Fetched, FetchError> {
    let request = request(ask)?;
    let builder = hyper::client::conn::http1::Builder::new().max_header_size(HEAD_LIMIT).to_owned();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(no_answer)?.into_parts();
        let (body, is_whole) = read(body, most).await?;
        Ok(Fetched { status: head.status, headers: head.headers, body, is_whole })
    };
    drive(connection, exchange).await
}

fn request(ask: Ask<'_>) -> Result<Request<Full<Bytes>>, FetchError> {
    let unfit = |what: &str| FetchError::Answer(format!("its URL has {what} that cannot be sent"));
    let mut request = Request::new(Full::new(ask.body));
    *request.method_mut() = ask.method;
    *request.uri_mut() = ask.url.target().parse().map_err(|_| unfit("a path"))?;
    *request.headers_mut() = ask.headers;
    let fields = request.headers_mut();
    fields.insert(HOST, HeaderValue::from_str(&ask.url.authority()).map_err(|_| unfit("a host"))?);
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    fields.extend(ask.url.basic_auth().map(|value| (AUTHORIZATION, value)));
    Ok(request)
}

async fn read(mut body: Incoming, most: usize) -> Result<(Bytes, bool), FetchError> {
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FetchError::Broken(in_words(&error)))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = most - kept.len();
        if data.len() > room {
            kept.extend_from_slice(&data[..room]);
            return Ok((kept.freeze(), false));
        }
        kept.extend_from_slice(data);
    }
    Ok((kept.freeze(), true))
}

fn no_answer(error: hyper::Error) -> FetchError {
    FetchError::Answer(in_words(&error))
}

/// What went wrong with an exchange; hyper's own words say what happened to hyper.
pub fn in_words(error: &hyper::Error) -> String {
    match () {
        () if error.is_parse_too_large() => "the answer's head is too large".to_owned(),
        () if error.is_parse() => "the answer is not valid HTTP".to_owned(),
        () if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            "the connection was closed before an answer".to_owned()
        }
        () => std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string),
    }
}

/// Runs a connection for as long as an exchange over it takes, and drops it.
pub async fn drive<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => return answer,
        _ = connection => {}
    }
    // It has ended, perhaps right behind the answer.
    exchange.await
}

/// The beginning of a text from outside, fit for one line of a log: at most so many characters, white space folded, control
/// characters and what turns the direction of writing left out.
pub fn excerpt(bytes: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(most.saturating_mul(8))]).into_owned();
    let folded: Vec<&str> = text.split_whitespace().collect();
    let is_plain = |c: &char| {
        !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    folded.join(" ").chars().filter(is_plain).take(most).collect()
}
