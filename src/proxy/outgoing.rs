//! What a client asks for, made into what the endpoint gets.
//!
//! Invariants: one host and one path, both in a form that can be read in one way only, are matched and forwarded; a
//! request that may be sent a second time has a spare head, taken before our own fields are added because that is the
//! cheaper moment.

use std::borrow::Cow;
use std::rc::Rc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header, uri};

use super::error::ProxyError;
use super::exchange::Exchange;
use super::fields::Field;
use super::headers;
use super::upload::{RequestBody, Upload};
use super::websocket::Handshake;
use crate::config::HeaderEdits;
use crate::net::body::Received;
use crate::routing::{normal_host, normal_path, strip_prefix};

/// A request on its way to an endpoint, and what it takes to send it again.
pub(super) struct Outgoing {
    /// Taken while it is being sent; back if nothing of it was.
    pub(super) request: Option<Request<RequestBody>>,
    /// Asks for a tunnel.
    pub(super) handshake: Option<Box<Handshake>>,
    method: Method,
    upload: Option<Rc<Upload>>,
    spare: Option<Spare>,
    /// The client's `Host`, while the request names an endpoint instead.
    client_host: Option<HeaderValue>,
}

/// What the route and its split say about it.
pub(super) struct Plan<'a> {
    /// Length of the prefix to be cut off the path.
    pub(super) prefix: usize,
    pub(super) edits: &'a HeaderEdits,
    pub(super) handshake: Option<Box<Handshake>>,
    /// Its method may be sent again whatever the body.
    pub(super) may_repeat: bool,
}

/// A head as the client sent it, but for host and path.
struct Spare {
    uri: Uri,
    headers: HeaderMap,
    received: Version,
    host: HeaderValue,
}

impl Outgoing {
    /// # Errors
    /// When the target cannot be written in origin form.
    pub(super) fn new(
        mut parts: Parts,
        upload: Option<Rc<Upload>>,
        target: Target,
        exchange: &Exchange,
        plan: Plan<'_>,
    ) -> Result<Self, ProxyError> {
        let received = std::mem::replace(&mut parts.version, Version::HTTP_11);
        // HTTP/1.0 need not say `Host`, what we send must (RFC 9112 section 3.2).
        if target.uri.authority().is_some() || !exchange.asked.has(Field::Host) {
            parts.headers.insert(header::HOST, target.host.clone());
        }
        let host = target.host.clone();
        parts.uri = target.forwarded_uri(plan.prefix)?;
        let is_repeatable = plan.may_repeat || upload.is_none() && parts.method.is_idempotent();
        let spare = is_repeatable.then(|| Spare {
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            received,
            host: host.clone(),
        });
        headers::prepare_request(&mut parts.headers, received, exchange.forwarded(&host));
        headers::edit(&mut parts.headers, plan.edits);
        parts.extensions.clear();
        let method = parts.method.clone();
        let body = upload.as_ref().map(Upload::reader).unwrap_or_default();
        let handshake = plan.handshake;
        let request = Some(Request::from_parts(parts, body));
        Ok(Self { request, handshake, method, upload, spare, client_host: None })
    }

    /// Makes `Host` what the version of the present attempt wants: the client's, or its endpoint's own (`host`).
    pub(super) fn name_host(&mut self, host: Option<&HeaderValue>) {
        let Some(request) = &mut self.request else { return };
        let name = match host {
            Some(own) => Some(own.clone()),
            // After an attempt at a version that wanted its own.
            None => self.client_host.take(),
        };
        let Some(name) = name else { return };
        let before = request.headers_mut().insert(header::HOST, name);
        if host.is_some() {
            self.client_host = self.client_host.take().or(before);
        }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// It can be sent (again) as a whole.
    pub(super) fn is_replayable(&self) -> bool {
        let whole = || self.upload.as_ref().is_none_or(|u| u.is_replayable());
        self.request.is_some() || self.spare.is_some() && whole()
    }

    /// Makes a request that was lost on an idle connection ready to be sent once more, to the same endpoint; false if
    /// it must not be.
    pub(super) fn resend(&mut self, host: Option<&HeaderValue>, exchange: &Exchange, edits: &HeaderEdits) -> bool {
        let may = self.method.is_idempotent() && self.is_replayable() && self.make_ready(exchange, edits);
        if may {
            self.name_host(host);
        }
        may
    }

    /// Ready to be sent, from the spare if it was sent before; false if it cannot be.
    pub(super) fn make_ready(&mut self, exchange: &Exchange, edits: &HeaderEdits) -> bool {
        if self.request.is_some() {
            return true;
        }
        let Some(spare) = self.spare.as_ref().filter(|_| self.is_replayable()) else { return false };
        let mut headers = spare.headers.clone();
        headers::prepare_request(&mut headers, spare.received, exchange.forwarded(&spare.host));
        headers::edit(&mut headers, edits);
        let mut request = Request::new(self.upload.as_ref().map(Upload::reader).unwrap_or_default());
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
            (self.method.clone(), spare.uri.clone(), headers);
        (self.request, self.client_host) = (Some(request), None);
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
        let (host, uri) = (authority(request)?, request.uri().clone());
        // `OPTIONS *` asks about the server as a whole; it is matched as `/` and goes on as it is.
        let raw = match uri.path() {
            "*" if request.method() == Method::OPTIONS => "/",
            path => path,
        };
        if uri.query().is_some_and(|query| !query.is_ascii()) {
            return Err(ProxyError::BadRequest("the query holds bytes that must be escaped"));
        }
        let path = normal_path(raw).map_err(|_| ProxyError::BadRequest("the path can be read in two ways"))?;
        let path = (path != raw).then(|| path.into_owned());
        Ok(Self { host, path, uri })
    }

    /// In normal form.
    pub(super) fn path(&self) -> &str {
        match &self.path {
            Some(path) => path,
            None if self.uri.path() == "*" => "/",
            None => self.uri.path(),
        }
    }

    /// Without its question mark.
    pub(super) fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// The host as it is matched: lower case, without port and final dot.
    pub(super) fn name(&self) -> Result<Cow<'_, str>, ProxyError> {
        const NO_HOST: ProxyError = ProxyError::BadRequest("Host is not a host name");
        normal_host(self.host.to_str().map_err(|_| NO_HOST)?).map_err(|_| NO_HOST)
    }

    /// Origin form (RFC 9112 section 3.2.1), with the path that was matched, less a prefix that is cut off.
    fn forwarded_uri(self, prefix: usize) -> Result<Uri, ProxyError> {
        if self.uri.authority().is_none() && self.path.is_none() && prefix == 0 {
            return Ok(self.uri);
        }
        let unreadable = |_| ProxyError::BadRequest("the target can be read in two ways");
        // An absolute target without a path (`http://a#b`) has nothing there, whatever `PathAndQuery::as_str` says.
        let as_it_came = self.uri.path_and_query().cloned().map(Uri::from).filter(|uri| uri.path().starts_with('/'));
        let path = match (&self.path, prefix) {
            (None, 0) if let Some(uri) = as_it_came => return Ok(uri),
            (_, 0) => self.path(),
            _ => strip_prefix(self.path(), prefix),
        };
        let target = match self.uri.query() {
            Some(query) => uri::PathAndQuery::try_from(format!("{path}?{query}")).map_err(unreadable)?,
            None => uri::PathAndQuery::try_from(path).map_err(unreadable)?,
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
