//! Where a message ends: the checks of `Transfer-Encoding` and `Content-Length` that the HTTP library leaves to us.
//!
//! hyper reads a body by `Transfer-Encoding` if its last coding is `chunked`, whatever is named before it, and takes a
//! `Content-Length` beside it off without a word (faults.md 4.5). Invariant: a request has one framing that every reader
//! sees, or it is refused, or its connection ends with its answer. Pure.

use http::Version;
use http::header::{self, HeaderMap, HeaderValue};
use memchr::memchr;

use super::error::ProxyError;

/// `Transfer-Encoding` of a request: none, or exactly one field that says `chunked` (RFC 9112 section 6.1).
///
/// # Errors
/// 501 for a coding we do not know, 400 for everything else, and for HTTP/1.0, which has none.
pub(super) fn check(headers: &HeaderMap, version: Version) -> Result<(), ProxyError> {
    let mut fields = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = fields.next() else { return Ok(()) };
    if version == Version::HTTP_10 {
        return Err(ProxyError::BadRequest("HTTP/1.0 has no Transfer-Encoding"));
    }
    if fields.next().is_none() && is_chunked(coding.as_bytes()) {
        return Ok(());
    }
    let all = headers.get_all(header::TRANSFER_ENCODING).iter();
    if all.flat_map(|field| field.as_bytes().split(|b| *b == b',')).all(|one| is_chunked(one.trim_ascii())) {
        return Err(ProxyError::BadRequest("chunked more than once"));
    }
    Err(ProxyError::NotImplemented("a Transfer-Encoding other than chunked"))
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"chunked")
}

/// Makes several equal lengths of an answer, on one line or on several, into one (RFC 9112 section 6.3): the next
/// reader might refuse them, or believe another one.
///
/// # Errors
/// When they differ, or one is no number.
pub(super) fn one_length(headers: &mut HeaderMap) -> Result<(), ProxyError> {
    let Some(first) = headers.get(header::CONTENT_LENGTH) else { return Ok(()) };
    let is_one = headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_none();
    if is_one && is_number(first.as_bytes()) {
        return Ok(());
    }
    let fields = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut all = fields.flat_map(|field| field.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    let length = all.next().filter(|one| is_number(one)).ok_or(ProxyError::Protocol)?;
    if all.any(|other| other != length) {
        return Err(ProxyError::Protocol);
    }
    let length = HeaderValue::from_bytes(length).map_err(|_| ProxyError::Protocol)?;
    headers.insert(header::CONTENT_LENGTH, length);
    Ok(())
}

fn is_number(length: &[u8]) -> bool {
    !length.is_empty() && length.iter().all(u8::is_ascii_digit)
}

/// Whether a head's first line names HTTP/2 or HTTP/3, which are not spoken in text: the answer is 505 (faults.md 4.9).
/// Best effort: a line that comes in pieces is refused by the HTTP library.
pub(super) fn names_other_version(head: &[u8]) -> bool {
    let Some(end) = memchr(b'\n', head) else { return false };
    let line = head[..end].strip_suffix(b"\r").unwrap_or(&head[..end]);
    line.ends_with(b" HTTP/2.0") || line.ends_with(b" HTTP/3.0")
}

/// Counts the lines of a connection that begin with `Content-Length:`, less those the HTTP library has told of. What is
/// left over was taken off a request, or is in one that is still to come, or in a body that looks like a head.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    /// Of `FIELD`, in the line at hand; all of it when the line is no longer of interest.
    matched: usize,
    left: u32,
}

const FIELD: &[u8] = b"content-length:";

impl Lengths {
    /// Looks at bytes as they come in.
    pub(super) fn see(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            let Some(wanted) = FIELD.get(self.matched) else {
                let Some(end) = memchr(b'\n', bytes) else { return };
                (self.matched, bytes) = (0, &bytes[end + 1..]);
                continue;
            };
            bytes = rest;
            if byte.to_ascii_lowercase() == *wanted {
                self.matched += 1;
                self.left = self.left.saturating_add(u32::from(self.matched == FIELD.len()));
            } else {
                self.matched = if byte == b'\n' { 0 } else { FIELD.len() };
            }
        }
    }

    /// A request was read. True if it is chunked and may have had a length as well: then its connection must not be used
    /// again (RFC 9112 section 6.1). At worst it ends without need.
    pub(super) fn may_be_doubled(&mut self, headers: &HeaderMap) -> bool {
        if self.left == 0 {
            return false;
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            self.left -= 1;
        }
        self.left > 0 && headers.contains_key(header::TRANSFER_ENCODING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn one_chunked_and_nothing_else() {
        let check = |codings: &[&'static str], version| {
            let fields: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            check(&map(&fields), version).map_err(|why| why.status().as_u16())
        };
        for good in [&[][..], &["chunked"], &["CHUNKed"]] {
            assert_eq!(check(good, Version::HTTP_11), Ok(()), "{good:?}");
        }
        for bad in [&["chunked, chunked"][..], &["chunked", "chunked"]] {
            assert_eq!(check(bad, Version::HTTP_11), Err(400), "{bad:?}");
        }
        for unknown in [&["cow"][..], &["gzip, chunked"], &["identity", "chunked"], &["chunked, identity"], &[""]] {
            assert_eq!(check(unknown, Version::HTTP_11), Err(501), "{unknown:?}");
        }
        assert_eq!(check(&["chunked"], Version::HTTP_10), Err(400));
    }

    #[test]
    fn equal_lengths_become_one() {
        let one = |lengths: &[&'static str]| {
            let fields: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
            let mut headers = map(&fields);
            one_length(&mut headers).map(|()| headers.get_all("content-length").iter().cloned().collect::<Vec<_>>())
        };
        assert_eq!(one(&[]).unwrap(), [""; 0]);
        for equal in [&["2"][..], &["2, 2"], &["2", "2"], &["2,2", "2"]] {
            assert_eq!(one(equal).unwrap(), ["2"], "{equal:?}");
        }
        for bad in [&["2, 3"][..], &["2", "3"], &["two"], &[""], &["+2"], &["2,"], &["2, 2", "x"]] {
            assert_eq!(one(bad), Err(ProxyError::Protocol), "{bad:?}");
        }
    }

    #[test]
    fn versions_that_are_not_text() {
        assert!(names_other_version(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"));
        assert!(names_other_version(b"GET / HTTP/3.0\n"));
        for other in ["GET / HTTP/1.1\r\nX: HTTP/2.0\r\n", "GET /HTTP/2.0 HTTP/1.1\r\n", "GET / HTTP/2.0", ""] {
            assert!(!names_other_version(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_length_that_was_taken_off_is_missed() {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nCONTENT-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        for cut in 0..head.len() {
            let mut lengths = Lengths::default();
            lengths.see(&head[..cut]);
            lengths.see(&head[cut..]);
            assert!(lengths.may_be_doubled(&map(&[("transfer-encoding", "chunked")])), "{cut}");
        }
    }

    #[test]
    fn honest_requests_of_both_kinds_leave_nothing_over() {
        let mut lengths = Lengths::default();
        for _ in 0..3 {
            lengths.see(b"POST / HTTP/1.1\r\nX-Content-Length: 1\r\nContent-Length: 5\r\n\r\nhello");
            assert!(!lengths.may_be_doubled(&map(&[("content-length", "5")])));
            lengths.see(b"POST / HTTP/1.1\r\nContent-Lengths: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
            assert!(!lengths.may_be_doubled(&map(&[("transfer-encoding", "chunked")])));
        }
    }
}
