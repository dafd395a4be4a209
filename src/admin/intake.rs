//! What happens to a change before its handler sees it: its body is read whole, within bounds, its content type is
//! checked, and its `Idempotency-Key` looked up.
//!
//! Why JSON only: a web page cannot send `application/json` to another site without asking first, and we never say
//! yes. Invariant: handlers behind this find the body in memory, at most `MAX_BODY` long.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::error::{BAD_REQUEST, BODY_TIMEOUT, BODY_TOO_LARGE, Problem, UNSUPPORTED_MEDIA_TYPE};
use super::idempotency::{Replays, fingerprint};

const MAX_BODY: usize = 1 << 20;
const BODY_TIME: Duration = Duration::from_secs(10);

/// The middleware.
pub(super) async fn intake(State(replays): State<Arc<Replays>>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    match read(request).await {
        Ok((parts, body)) => pass_on(&replays, parts, body, next).await,
        Err(problem) => problem.into_response(),
    }
}

async fn pass_on(replays: &Arc<Replays>, parts: Parts, body: Bytes, next: Next) -> Response {
    let key = match idempotency_key(&parts) {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let print = fingerprint(parts.method.as_str(), target, &body);
    let request = Request::from_parts(parts, Body::from(body));
    match key {
        Some(key) => replays.answer_once(key, print, async move { next.run(request).await }).await,
        None => next.run(request).await,
    }
}

async fn read(request: Request) -> Result<(Parts, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let too_large = || Problem::new(BODY_TOO_LARGE, format!("the body is longer than {MAX_BODY} bytes"));
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > MAX_BODY as u64) {
        return Err(too_large());
    }
    let body = match tokio::time::timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await {
        Err(_) => return Err(Problem::new(BODY_TIMEOUT, "the body was not complete after 10 s")),
        Ok(Err(e)) if e.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(e)) => return Err(Problem::new(BAD_REQUEST, format!("the body could not be read: {e}"))),
        Ok(Ok(body)) => body.to_bytes(),
    };
    if !body.is_empty() {
        check_content_type(parts.uri.path(), &parts.headers)?;
    }
    Ok((parts, body))
}

fn check_content_type(path: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.map(|v| v.to_str().unwrap_or_default());
    let essence = text.map(|t| t.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let is_toml = path.starts_with("/api/v1/config/");
    let allowed: &[&str] = if is_toml { &["application/toml", "text/plain"] } else { &["application/json"] };
    match &essence {
        None if is_toml => Ok(()),
        Some(essence) if allowed.contains(&essence.as_str()) => Ok(()),
        None => Err(Problem::new(UNSUPPORTED_MEDIA_TYPE, "the body has no Content-Type").allowed(allowed)),
        Some(essence) => {
            let detail = format!("the body is announced as `{}`", essence.escape_default());
            Err(Problem::new(UNSUPPORTED_MEDIA_TYPE, detail).allowed(allowed))
        }
    }
}

fn idempotency_key(parts: &Parts) -> Result<Option<String>, Problem> {
    let mut lines = parts.headers.get_all("idempotency-key").iter();
    let (Some(line), true) = (lines.next(), parts.method == Method::POST) else { return Ok(None) };
    let key = line.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > 255 || lines.next().is_some() {
        return Err(Problem::new(BAD_REQUEST, "Idempotency-Key is one line of 1 to 255 visible ASCII characters"));
    }
    Ok(Some(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(path: &str, content_type: Option<&str>) -> &'static str {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        }
        check_content_type(path, &headers).map_or_else(|p| p.slug(), |()| "ok")
    }

    #[test]
    fn json_for_changes_and_toml_for_configurations() {
        let weights = "/api/v1/splits/shop/weights";
        assert_eq!(verdict(weights, Some("application/json")), "ok");
        assert_eq!(verdict(weights, Some("Application/JSON; charset=utf-8")), "ok");
        for bad in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")] {
            assert_eq!(verdict(weights, bad), "unsupported-media-type", "{bad:?}");
        }
        for good in [None, Some("text/plain"), Some("application/toml; charset=utf-8")] {
            assert_eq!(verdict("/api/v1/config/check", good), "ok", "{good:?}");
        }
        assert_eq!(verdict("/api/v1/config/check", Some("application/json")), "unsupported-media-type");
    }

    #[tokio::test]
    async fn a_body_is_bounded_whether_announced_or_not() {
        let request = |body: Body| Request::put("/x").header("content-type", "application/json").body(body).unwrap();
        let stream = |n| Body::new(http_body_util::Full::new(Bytes::from(vec![b' '; n])).map_frame(|frame| frame));
        assert_eq!(read(request(stream(MAX_BODY))).await.unwrap().1.len(), MAX_BODY);
        assert_eq!(read(request(stream(MAX_BODY + 1))).await.unwrap_err().slug(), "body-too-large");
        let mut announced = request(Body::empty());
        announced.headers_mut().insert("content-length", (MAX_BODY + 1).into());
        assert_eq!(read(announced).await.unwrap_err().slug(), "body-too-large");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        struct Silent;
        impl http_body::Body for Silent {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
                std::task::Poll::Pending
            }
        }
        let request = Request::put("/x").body(Body::new(Silent)).unwrap();
        assert_eq!(read(request).await.unwrap_err().slug(), "body-timeout");
    }
}
