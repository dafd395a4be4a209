//! What of gRPC a proxy must know: which requests are gRPC, where an answer's status is, and how an error of ours is
//! told (gRPC over HTTP/2, "Responses" and "HTTP2 error codes").

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// `application/grpc`, with or without a suffix. Not grpc-web, which has its trailers in the body.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    let rest = kind.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.first().is_none_or(|b| matches!(b, b'+' | b';')))
}

/// The status in trailers, or in the head of a trailers-only answer.
pub(super) fn status(fields: &HeaderMap) -> Option<u8> {
    fields.get(STATUS)?.to_str().ok()?.trim().parse().ok()
}

/// Counts as an error of the version (amendments.md 1.5): UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL,
/// UNAVAILABLE, DATA_LOSS.
pub(super) fn is_bad(status: u8) -> bool {
    matches!(status, 2 | 4 | 8 | 13 | 14 | 15)
}

/// The gRPC status for an answer of ours.
pub(super) fn status_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 | 408 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        413 | 431 => 8,
        504 => 4,
        429 | 502 | 503 => 14,
        _ => 2,
    }
}

/// Makes an answer of ours one a gRPC client understands: 200, no body, the status in the head.
pub(super) fn make_trailers_only(status: &mut StatusCode, headers: &mut HeaderMap, message: &str) {
    headers.insert(STATUS, HeaderValue::from(u16::from(status_of(*status))));
    headers.insert(MESSAGE, percent_encoded(message));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    *status = StatusCode::OK;
}

/// `grpc-message` is percent-encoded UTF-8 ("Percent-Encoded" in the specification).
fn percent_encoded(message: &str) -> HeaderValue {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' => text.push_str("%25"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(kind: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))])
    }

    #[test]
    fn grpc_is_told_from_its_neighbours() {
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(is_grpc(&typed(kind)), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/json", ""] {
            assert!(!is_grpc(&typed(kind)), "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn only_the_servers_own_faults_are_bad() {
        let bad: Vec<u8> = (0..=16).filter(|s| is_bad(*s)).collect();
        assert_eq!(bad, [2, 4, 8, 13, 14, 15]);
    }

    #[test]
    fn an_error_of_ours_is_trailers_only() {
        let (mut code, mut headers) = (StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new());
        make_trailers_only(&mut code, &mut headers, "no endpoint: 100 %\n");
        assert_eq!(code, 200);
        assert_eq!(headers["grpc-status"], "14");
        assert_eq!(headers["grpc-message"], "no endpoint: 100 %25%0A");
        assert_eq!(status(&headers), Some(14));
    }
}
