//! What a client asks for, made into what the endpoint gets.
//!
//! Invariants: one host and one path, both in a form that can be read in one way only, are matched and forwarded; a
//! request that may be sent a second time (idempotent, RFC 9110 section 9.2.2, and without a body) has a spare head,
//! taken before our own fields are added because that is the cheaper moment.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header, uri};
use hyper::body::Body as _;

use super::body::{RequestBody, Upload};
use super::client::Client;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::headers;
use super::view::View;
use crate::net::body::Received;
use crate::routing::{Query, normal_host, normal_path};

/// A request on its way to an endpoint, and what it takes to send it again.
pub(super) struct Outgoing {
    /// Taken while it is being sent; back if nothing of it was.
    pub(super) request: Option<Request<RequestBody>>,
    spare: Option<Spare>,
}

struct Spare {
    method: Method,
    uri: Uri,
    /// As the client sent them.
    headers: HeaderMap,
    received: Version,
    host: HeaderValue,
}

impl Outgoing {
    /// # Errors
    /// When the target cannot be written in origin form.
    pub(super) fn new(request: Request<Received>, target: Target, exchange: &Exchange) -> Result<Self, ProxyError> {
        let (mut parts, body) = request.into_parts();
        let received = std::mem::replace(&mut parts.version, Version::HTTP_11);
        if target.uri.authority().is_some() {
            parts.headers.insert(header::HOST, target.host.clone());
        }
        let host = target.host.clone();
        parts.uri = target.forwarded_uri()?;
        let is_repeatable = parts.method.is_idempotent() && body.is_end_stream();
        let spare = is_repeatable.then(|| Spare {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            received,
            host: host.clone(),
        });
        headers::prepare_request(&mut parts.headers, received, exchange.forwarded(&host));
        Ok(Self { request: Some(Request::from_parts(parts, RequestBody::new(body))), spare })
    }

    /// How far its upload has come; none if it has no body.
    pub(super) fn upload(&self) -> Option<&Rc<Upload>> {
        self.request.as_ref().and_then(|r| r.body().upload())
    }

    /// Makes a request that was lost ready to be sent once more; false if it must not be.
    pub(super) fn restore(&mut self, exchange: &Exchange) -> bool {
        let Some(mut spare) = self.spare.take() else { return false };
        headers::prepare_request(&mut spare.headers, spare.received, exchange.forwarded(&spare.host));
        let mut request = Request::new(RequestBody::none());
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (spare.method, spare.uri, spare.headers);
        self.request = Some(request);
        true
    }
}

/// Where a request wants to go.
pub(super) struct Target {
    /// As it goes upstream in `Host`.
    host: HeaderValue,
    /// The normal form, if that is not the path as it came.
    path: Option<String>,
    uri: Uri,
}

impl Target {
    /// Refuses what could be read in two ways (faults.md 1.2).
    pub(super) fn of(request: &Request<Received>) -> Result<Self, ProxyError> {
        if request.method() == http::Method::CONNECT {
            return Err(ProxyError::BadRequest("CONNECT is not proxied"));
        }
        let (host, uri) = (authority(request)?, request.uri().clone());
        // `OPTIONS *` asks about the server as a whole; it is matched as `/` and goes on as it is.
        let raw = if uri.path() == "*" { "/" } else { uri.path() };
        let path = normal_path(raw).map_err(|_| ProxyError::BadRequest("the path can be read in two ways"))?;
        let path = (path != raw).then(|| path.into_owned());
        Ok(Self { host, path, uri })
    }

    fn path(&self) -> &str {
        match &self.path {
            Some(path) => path,
            None if self.uri.path() == "*" => "/",
            None => self.uri.path(),
        }
    }

    pub(super) fn route(&self, view: &View, client: &Client, method: &str) -> Result<usize, ProxyError> {
        const NO_HOST: ProxyError = ProxyError::BadRequest("Host is not a host name");
        let host = normal_host(self.host.to_str().map_err(|_| NO_HOST)?).map_err(|_| NO_HOST)?;
        let listener = view.listener(&client.listener).map(|(index, _)| index);
        let query = Query { listener, host: &host, path: self.path(), method };
        view.snapshot.routes.find(&query).ok_or(ProxyError::NoRoute)
    }

    /// Origin form (RFC 9112 section 3.2.1), with the path that was matched.
    fn forwarded_uri(self) -> Result<Uri, ProxyError> {
        if self.uri.authority().is_none() && self.path.is_none() {
            return Ok(self.uri);
        }
        let unreadable = |_| ProxyError::BadRequest("the target can be read in two ways");
        let target = match (self.path, self.uri.query()) {
            (Some(path), Some(query)) => uri::PathAndQuery::try_from(format!("{path}?{query}")).map_err(unreadable)?,
            (Some(path), None) => uri::PathAndQuery::try_from(path).map_err(unreadable)?,
            (None, _) => self.uri.path_and_query().cloned().unwrap_or_else(|| uri::PathAndQuery::from_static("/")),
        };
        Ok(Uri::from(target))
    }
}

/// The one host a request names: the target's authority wins over `Host` (RFC 9112 section 3.2.2).
fn authority(request: &Request<Received>) -> Result<HeaderValue, ProxyError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(ProxyError::BadRequest("more than one Host"));
    }
    if let Some(authority) = request.uri().authority() {
        let text = authority.as_str();
        return HeaderValue::from_str(text).map_err(|_| ProxyError::BadRequest("the target names no host"));
    }
    match first {
        Some(host) => Ok(host.clone()),
        None if request.version() == Version::HTTP_10 => Ok(HeaderValue::from_static("")),
        None => Err(ProxyError::BadRequest("no Host")),
    }
}
