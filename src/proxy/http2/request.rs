//! An HTTP/2 request made into the form every request has here: origin form with `Host`, as HTTP/1.1 brings it, so that
//! whatever reads it later reads one form only.
//!
//! h2 has refused by then: fields of a connection and `te` other than `trailers`, upper case and control characters,
//! pseudo-fields that are missing, doubled, unknown or late, a `content-length` that is no number, is two numbers or
//! differs from the data. What it lets pass is refused here (RFC 9113 section 8, faults.md 1.2).

use h2::RecvStream;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};

use crate::net::body::Received;

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Reset with PROTOCOL_ERROR (RFC 9113 section 8.1.1).
    Malformed,
    /// More than `limits.header_bytes`.
    TooLarge,
}

/// What h2 is told to bear: more than the limit, since it counts 32 bytes for each field besides, and since what it
/// refuses by itself is refused without a word.
pub(super) fn list_limit(header_bytes: usize) -> u32 {
    u32::try_from(header_bytes.saturating_mul(2)).unwrap_or(u32::MAX)
}

/// See the file's head. `header_bytes` is the limit of the head as HTTP/1.1 would write it, so that it means the same
/// for all clients.
pub(super) fn admit(request: Request<RecvStream>, header_bytes: usize) -> Result<Request<Received>, Refused> {
    let (mut parts, body) = request.into_parts();
    let seen = look(&parts.headers)?;
    if seen.size + target_size(&parts.uri) > header_bytes {
        return Err(Refused::TooLarge);
    }
    // CONNECT of its old form has no path; it is answered, not served.
    if parts.method != Method::CONNECT || parts.extensions.get::<h2::ext::Protocol>().is_some() {
        to_origin_form(&parts.method, &mut parts.uri, &mut parts.headers)?;
    }
    if seen.cookies > 1 {
        join_cookies(&mut parts.headers);
    }
    let length = if seen.lengths > 0 { one_length(&mut parts.headers) } else { None };
    Ok(Request::from_parts(parts, Received::http2(body, length)))
}

/// What one look over the fields tells.
#[derive(Default)]
struct Seen {
    /// As HTTP/1.1 writes them.
    size: usize,
    cookies: usize,
    lengths: usize,
}

/// Refuses a value with blanks around it, which would be another one in HTTP/1.1 (RFC 9113 8.2.1).
fn look(headers: &HeaderMap) -> Result<Seen, Refused> {
    const COLON_AND_LINE_END: usize = 4;
    let is_blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    let mut seen = Seen::default();
    for (name, value) in headers {
        let bytes = value.as_bytes();
        if is_blank(bytes.first()) || is_blank(bytes.last()) {
            return Err(Refused::Malformed);
        }
        seen.size += name.as_str().len() + bytes.len() + COLON_AND_LINE_END;
        seen.cookies += usize::from(name == header::COOKIE);
        seen.lengths += usize::from(name == header::CONTENT_LENGTH);
    }
    Ok(seen)
}

fn target_size(uri: &Uri) -> usize {
    uri.authority().map_or(0, |a| a.as_str().len()) + uri.path_and_query().map_or(0, |p| p.as_str().len())
}

/// `:authority` becomes `Host`, whatever `Host` said: it wins, as the target's authority does in HTTP/1.1.
fn to_origin_form(method: &Method, uri: &mut Uri, headers: &mut HeaderMap) -> Result<(), Refused> {
    let target = std::mem::take(uri).into_parts();
    let path = target.path_and_query.ok_or(Refused::Malformed)?;
    if !is_path(method, &path) {
        return Err(Refused::Malformed);
    }
    if let Some(authority) = target.authority {
        if authority.as_str().contains('@') {
            return Err(Refused::Malformed);
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refused::Malformed)?;
        headers.insert(header::HOST, host);
    }
    *uri = Uri::from(path);
    Ok(())
}

/// RFC 9113 section 8.3.1: it starts with `/`, or is `*` for OPTIONS.
fn is_path(method: &Method, path: &PathAndQuery) -> bool {
    path.as_str().starts_with('/') || (path.as_str() == "*" && method == Method::OPTIONS)
}

/// Crumbs become one field before they go where only one is allowed (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// `content-length`, said once. Several that say the same have come this far.
fn one_length(headers: &mut HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    let length = value.to_str().ok()?.parse().ok();
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        let value = value.clone();
        headers.insert(header::CONTENT_LENGTH, value);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin_form(
        method: Method,
        uri: &str,
        fields: &[(&'static str, &'static str)],
    ) -> Result<(Uri, HeaderMap), Refused> {
        let (mut uri, mut headers) = (uri.parse().unwrap(), map(fields));
        to_origin_form(&method, &mut uri, &mut headers)?;
        Ok((uri, headers))
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn the_authority_becomes_the_host_and_wins() {
        let two_hosts = [("host", "other.test"), ("host", "third.test")];
        let (uri, headers) = origin_form(Method::GET, "http://app.test:8080/a?b=c", &two_hosts).unwrap();
        assert_eq!(uri, "/a?b=c");
        assert_eq!(headers.get_all("host").iter().collect::<Vec<_>>(), ["app.test:8080"]);
        let (uri, headers) = origin_form(Method::GET, "/a", &[("host", "app.test")]).unwrap();
        assert_eq!((uri.path(), &headers["host"]), ("/a", &HeaderValue::from_static("app.test")));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_malformed() {
        assert_eq!(origin_form(Method::GET, "http://user@app.test/", &[]).unwrap_err(), Refused::Malformed);
        assert_eq!(origin_form(Method::GET, "*", &[]).unwrap_err(), Refused::Malformed);
        assert!(origin_form(Method::OPTIONS, "*", &[]).is_ok());
        for value in [" a", "a\t"] {
            assert_eq!(look(&map(&[("x-a", value)])).err(), Some(Refused::Malformed));
        }
        let seen = look(&map(&[("x-a", "b c"), ("cookie", "1"), ("cookie", "2"), ("content-length", "3")])).unwrap();
        let text = "x-a: b c\r\ncookie: 1\r\ncookie: 2\r\ncontent-length: 3\r\n";
        assert_eq!((seen.size, seen.cookies, seen.lengths), (text.len(), 2, 1));
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4")]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn a_length_said_twice_is_said_once() {
        let mut headers = map(&[("content-length", "3"), ("content-length", "3")]);
        assert_eq!(one_length(&mut headers), Some(3));
        assert_eq!(headers.get_all("content-length").iter().count(), 1);
        assert_eq!(one_length(&mut map(&[])), None);
    }
}
