//! The identifier a request carries through logs and services: the client's own if it may be kept, else a new ULID.
//!
//! Kept as bytes until it is needed as a header value, since a header value that is cloned costs two allocations.

use http::{HeaderMap, HeaderValue};

use super::headers::kept_request_id;

/// See the file's head.
#[derive(Debug)]
pub(super) enum RequestId {
    Made([u8; ulid::ULID_LEN]),
    Kept(HeaderValue),
}

impl RequestId {
    /// The client's if it may be kept, else one of this millisecond and `chance`.
    pub(super) fn new(
        headers: Option<&HeaderMap>,
        is_trusted: bool,
        unix_ms: u64,
        chance: impl FnOnce() -> u128,
    ) -> Self {
        match headers.and_then(|headers| kept_request_id(headers, is_trusted)) {
            Some(kept) => Self::Kept(kept.clone()),
            None => {
                let mut text = [0; ulid::ULID_LEN];
                ulid::Ulid::from_parts(unix_ms, chance()).array_to_str(&mut text);
                Self::Made(text)
            }
        }
    }

    /// As a value of `x-request-id`.
    pub(super) fn value(&self) -> HeaderValue {
        match self {
            // A ULID is 26 capital letters and digits: no byte of it is refused.
            Self::Made(text) => HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static("-")),
            Self::Kept(value) => value.clone(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Made(text) => str::from_utf8(text).unwrap_or_default(),
            Self::Kept(value) => value.to_str().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_one_is_kept_and_any_other_replaced() {
        let id = |given: &str| {
            let headers = HeaderMap::from_iter([(crate::proxy::headers::X_REQUEST_ID, given.parse().unwrap())]);
            RequestId::new(Some(&headers), false, 1_700_000_000_000, || 7)
        };
        assert_eq!(id("abc-1").as_str(), "abc-1");
        assert_eq!(id("abc-1").value(), "abc-1");
        let made = id("two words");
        assert_eq!(made.as_str().len(), 26);
        assert_eq!(made.value(), made.as_str());
        assert!(made.as_str().starts_with("01HF"), "{}", made.as_str());
    }
}
