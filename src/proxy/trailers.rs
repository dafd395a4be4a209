//! What may stand behind a body (RFC 9110 section 6.5.1). Pure.
//!
//! An origin that merges trailers into the head would believe there what is taken off the head. Invariant: no field
//! crosses in trailers that would not cross in a head, nor one that frames, routes, guards or changes a message whose
//! head has gone before.

use http::header::{self, HeaderMap, HeaderName};

use super::headers::{is_request_only, remove_connection_fields};

/// Fields of requests that have their meaning at the beginning only: conditions and controls, who asks, and what the body
/// is.
const BEFORE_A_BODY: [HeaderName; 22] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::MAX_FORWARDS,
    header::ORIGIN,
    header::PRAGMA,
    header::RANGE,
    header::REFERER,
    header::USER_AGENT,
    header::VIA,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
    super::headers::X_REQUEST_ID,
];

/// Takes off a request's trailers what the endpoint must not see in them.
pub(super) fn clean_request(trailers: &mut HeaderMap) {
    remove_connection_fields(trailers, |name| {
        frames_or_routes(name) || is_request_only(name) || BEFORE_A_BODY.contains(name)
    });
}

/// Takes off an answer's trailers what concerns the connection or the framing. The rest is the endpoint's word, and the
/// client's to believe.
pub(super) fn clean_answer(trailers: &mut HeaderMap) {
    remove_connection_fields(trailers, frames_or_routes);
}

fn frames_or_routes(name: &HeaderName) -> bool {
    name == header::CONTENT_LENGTH || name == header::TRAILER || name == header::HOST
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn left(clean: fn(&mut HeaderMap), names: &[&'static str]) -> Vec<String> {
        let field = |name: &&'static str| (HeaderName::from_static(name), HeaderValue::from_static("x-listed"));
        let mut trailers: HeaderMap = names.iter().map(field).collect();
        clean(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(ToString::to_string).collect();
        left.sort_unstable();
        left
    }

    const ALWAYS: [&str; 9] = [
        "connection",
        "x-listed",
        "keep-alive",
        "te",
        "transfer-encoding",
        "content-length",
        "trailer",
        "host",
        "upgrade",
    ];

    #[test]
    fn of_a_request_what_would_be_believed_is_gone() {
        let forged = ["x-forwarded-for", "x_forwarded_for", "x-real-ip", "forwarded", "authorization", "cookie"];
        let plain = ["grpc-status", "x-checksum"];
        assert_eq!(left(clean_request, &[&ALWAYS[..], &forged, &plain].concat()), plain);
    }

    #[test]
    fn of_an_answer_only_what_frames_it_is_gone() {
        let plain = ["etag", "grpc-status", "x_checksum"];
        assert_eq!(left(clean_answer, &[&ALWAYS[..], &plain].concat()), plain);
    }
}
