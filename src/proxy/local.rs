//! Answers a route gives by itself: redirects and fixed texts.
//!
//! Invariant: nothing of the request gets into a header field but its path in normal form and its query, neither of which
//! can hold a line end.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::body::Body;
use super::outgoing::Target;
use crate::config::{Redirect, Respond};
use crate::routing::location;

/// Every request to https on this port; the method stays (308).
pub(super) fn to_https(host: &str, target: &Target, port: u16, date: &HeaderValue) -> Response<Body> {
    let base = if port == 443 { format!("https://{host}") } else { format!("https://{host}:{port}") };
    elsewhere(
        StatusCode::PERMANENT_REDIRECT,
        &location(&format!("{base}{{path}}"), target.path(), target.query()),
        date,
    )
}

/// As the file says.
pub(super) fn redirect(redirect: &Redirect, target: &Target, date: &HeaderValue) -> Response<Body> {
    let status = StatusCode::from_u16(redirect.code).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    elsewhere(status, &location(&redirect.to, target.path(), target.query()), date)
}

/// As the file says.
pub(super) fn respond(respond: &Respond, date: &HeaderValue) -> Response<Body> {
    let mut answer = Response::new(Body::full(Bytes::from(respond.body.clone())));
    *answer.status_mut() = StatusCode::from_u16(respond.code).unwrap_or(StatusCode::OK);
    let headers = answer.headers_mut();
    headers.insert(header::DATE, date.clone());
    if !respond.body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    answer
}

fn elsewhere(status: StatusCode, location: &str, date: &HeaderValue) -> Response<Body> {
    let mut answer = Response::new(Body::full(Bytes::new()));
    let Ok(location) = HeaderValue::from_str(location) else {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        return answer;
    };
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::LOCATION, location);
    answer.headers_mut().insert(header::DATE, date.clone());
    answer
}
