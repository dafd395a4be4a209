//! One active check: over a connection of its own, which is closed afterwards.
//!
//! Invariants: it is over after the check's timeout, whatever the endpoint does; redirects are not followed; of a body
//! little is read, and no verdict hangs on it (but gRPC's, whose answer it is); what failed for want of our own means
//! is told apart from what the endpoint did.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::grpc;
use crate::config::{GrpcCheck, HealthCheck, HealthKind, HttpCheck, Protocol};
use crate::model::Address;
use crate::net::fetch::{drive, in_words};
use crate::net::upstream::{self, DialError, HEAD_LIMIT, Settings, Speaks, Stream};

const AGENT: HeaderValue = HeaderValue::from_static("weir-health");
/// So much of a body is read, for so long, so that an endpoint sees its answer taken and not a reset.
const BODY: usize = 16 * 1024;
const LINGER: Duration = Duration::from_millis(100);

/// Whom to ask, and how.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub address: Address,
    /// The name that led to the address.
    pub host: Option<std::sync::Arc<str>>,
    pub settings: Settings,
    pub check: std::sync::Arc<HealthCheck>,
}

impl Target {
    /// The same check, so that what it has counted so far still counts.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.address == other.address
            && self.host == other.host
            && self.check == other.check
            && self.settings.connects_like(&other.settings)
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    Passed,
    /// Why, in words.
    Failed(String),
    /// Not the endpoint's fault: we had no descriptor or port left.
    NotMade(String),
}

impl Probed {
    fn failed(why: impl ToString) -> Self {
        Self::Failed(why.to_string())
    }
}

impl From<DialError> for Probed {
    fn from(error: DialError) -> Self {
        if error.is_local() { Self::NotMade(error.to_string()) } else { Self::failed(error) }
    }
}

/// Checks once. Cancel safe.
pub(super) async fn probe(target: &Target) -> Probed {
    let limit = target.check.timeout;
    match tokio::time::timeout(limit, ask(target)).await {
        Ok(Ok(())) => Probed::Passed,
        Ok(Err(probed)) => probed,
        Err(_) => Probed::Failed(format!("no answer within {limit:?}")),
    }
}

async fn ask(target: &Target) -> Result<(), Probed> {
    let mut settings = target.settings.clone();
    if let HealthKind::Grpc(_) = target.check.kind {
        settings.protocol = Protocol::Http2;
    }
    let scheme = if settings.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let (stream, speaks) = upstream::connect(&target.address, settings).await?;
    match &target.check.kind {
        HealthKind::Tcp => Ok(()),
        HealthKind::Http(check) => {
            let host = authority(check.host.as_ref(), target)?;
            let status = match speaks {
                Speaks::Http1 => over_http1(stream, http1_request(check, &host)?).await?,
                Speaks::Http2 => {
                    let request = http2_request(&check.method, (scheme, host), &check.path, &check.headers)?;
                    over_http2(stream, request).await?
                }
            };
            if check.expect.contains(status) {
                return Ok(());
            }
            Err(Probed::Failed(format!("status {status}, not {}", check.expect)))
        }
        HealthKind::Grpc(check) => {
            let host = authority(check.host.as_ref(), target)?;
            let request = grpc_request(check, (scheme, host), target.check.timeout)?;
            over_grpc(stream, request, grpc::request(&check.service)).await
        }
    }
}

/// As written; else as a client that knows the endpoint by its name, or by its address alone, would say it.
fn authority(written: Option<&Authority>, target: &Target) -> Result<Authority, Probed> {
    let own = || match (&target.host, &target.address) {
        (Some(name), Address::Tcp(address)) => format!("{name}:{}", address.port()).parse(),
        _ => target.address.authority().parse(),
    };
    written.cloned().map_or_else(own, Ok).map_err(Probed::failed)
}

fn http1_request(check: &HttpCheck, host: &Authority) -> Result<Request<Empty<Bytes>>, Probed> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = check.method.clone();
    *request.uri_mut() = Uri::from(check.path.clone());
    let host = HeaderValue::from_str(host.as_str()).map_err(Probed::failed)?;
    request.headers_mut().insert(HOST, host);
    add(request.headers_mut(), &check.headers);
    Ok(request)
}

fn http2_request(
    method: &Method,
    (scheme, host): (Scheme, Authority),
    path: &PathAndQuery,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<Request<()>, Probed> {
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(path.clone()).build();
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.map_err(Probed::failed)?;
    add(request.headers_mut(), headers);
    Ok(request)
}

/// What the file says wins.
fn add(fields: &mut HeaderMap, headers: &[(HeaderName, HeaderValue)]) {
    fields.insert(USER_AGENT, AGENT);
    headers.iter().for_each(|(name, value)| drop(fields.insert(name, value.clone())));
}

fn grpc_request(check: &GrpcCheck, place: (Scheme, Authority), limit: Duration) -> Result<Request<()>, Probed> {
    let path = PathAndQuery::from_static(grpc::PATH);
    let mut request = http2_request(&Method::POST, place, &path, &check.headers)?;
    let fields = request.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(TE, HeaderValue::from_static("trailers"));
    // Eight digits at most.
    let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).clamp(1, 99_999_999);
    let timeout = HeaderValue::from_str(&format!("{millis}m")).map_err(Probed::failed)?;
    fields.insert(HeaderName::from_static("grpc-timeout"), timeout);
    Ok(request)
}

/// The status of the answer.
async fn over_http1(stream: Stream, request: Request<Empty<Bytes>>) -> Result<u16, Probed> {
    let handshake =
        hyper::client::conn::http1::Builder::new().max_header_size(HEAD_LIMIT).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(Probed::failed)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| Probed::failed(in_words(&error)))?;
        let status = answer.status().as_u16();
        let _ = tokio::time::timeout(LINGER, read_some(answer)).await;
        Ok(status)
    };
    drive(connection, exchange).await
}

async fn read_some(answer: Response<Incoming>) {
    let (mut body, mut left) = (answer.into_body(), BODY);
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

/// The status of the answer.
async fn over_http2(stream: Stream, request: Request<()>) -> Result<u16, Probed> {
    let (sender, connection) = h2::client::handshake(stream).await.map_err(Probed::failed)?;
    let exchange = async {
        let mut sender = sender.ready().await.map_err(Probed::failed)?;
        let (answer, _) = sender.send_request(request, true).map_err(Probed::failed)?;
        answer.await.map(|answer| answer.status().as_u16()).map_err(Probed::failed)
    };
    drive(connection, exchange).await
}

async fn over_grpc(stream: Stream, request: Request<()>, message: Bytes) -> Result<(), Probed> {
    let (sender, connection) = h2::client::handshake(stream).await.map_err(Probed::failed)?;
    let exchange = async {
        let mut sender = sender.ready().await.map_err(Probed::failed)?;
        let (answer, mut upload) = sender.send_request(request, false).map_err(Probed::failed)?;
        upload.send_data(message, true).map_err(Probed::failed)?;
        let (head, mut body) = answer.await.map_err(Probed::failed)?.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(Probed::Failed(format!("status {}, not 200", head.status.as_u16())));
        }
        let answer = read_answer(&mut body).await?;
        let trailers = body.trailers().await.map_err(Probed::failed)?;
        // Without a message all is said in the head.
        status_ok(trailers.as_ref().unwrap_or(&head.headers))?;
        match grpc::answer(&answer) {
            Some(serving) if serving.is_serving() => Ok(()),
            Some(serving) => Err(Probed::failed(serving.as_str())),
            None => Err(Probed::failed("the answer is not one of grpc.health.v1")),
        }
    };
    drive(connection, exchange).await
}

async fn read_answer(body: &mut h2::RecvStream) -> Result<BytesMut, Probed> {
    let mut answer = BytesMut::new();
    while let Some(piece) = body.data().await {
        answer.extend_from_slice(&piece.map_err(Probed::failed)?);
        if answer.len() > grpc::LONGEST {
            return Err(Probed::failed("the answer is not one of grpc.health.v1"));
        }
    }
    Ok(answer)
}

fn status_ok(fields: &HeaderMap) -> Result<(), Probed> {
    match fields.get("grpc-status").map(|status| status.to_str().unwrap_or("?").parse::<u16>()) {
        Some(Ok(0)) => Ok(()),
        Some(Ok(5)) => Err(Probed::failed("grpc-status 5: the service is not known there")),
        Some(Ok(12)) => Err(Probed::failed("grpc-status 12: it has no grpc.health.v1.Health")),
        Some(Ok(status)) => Err(Probed::Failed(format!("grpc-status {status}"))),
        Some(Err(_)) | None => Err(Probed::failed("no grpc-status")),
    }
}
