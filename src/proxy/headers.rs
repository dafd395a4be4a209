//! Header duties of an intermediary (RFC 9110 section 7.6, surface.md section 3, amendments.md 1.14).
//!
//! Invariants: fields that concern one connection only never cross; what a client says about where it came from is
//! removed before we say it; the client's `Connection` list can name neither `Host` nor our own fields away, because
//! its fields are removed first and ours are set afterwards.

use std::net::IpAddr;

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::fields::{Field, Fields};
use crate::config::HeaderEdits;

const VIA: HeaderValue = HeaderValue::from_static("1.1 weir");
const VIA_1_0: HeaderValue = HeaderValue::from_static("1.0 weir");
const VIA_2_0: HeaderValue = HeaderValue::from_static("2.0 weir");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const GRPC_TRAILERS: HeaderValue = HeaderValue::from_static("grpc-status, grpc-message");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request says to the endpoint about its client.
pub(super) struct Forwarded<'a> {
    /// The client's address as text.
    pub(super) client: &'a HeaderValue,
    pub(super) host: &'a HeaderValue,
    pub(super) request_id: HeaderValue,
    /// The client came over TLS.
    pub(super) is_secure: bool,
    /// The peer is a proxy that is believed what it says about its client.
    pub(super) is_trusted: bool,
}

/// Makes a client's header fields into those for the endpoint.
pub(super) fn prepare_request(headers: &mut HeaderMap, received: Version, forwarded: Forwarded<'_>) {
    let fields = Fields::of(headers);
    has_two_framings(headers, fields);
    let takes_trailers = fields.has(Field::Te) && takes_trailers(headers);
    if forwarded.is_trusted {
        remove_connection_fields(headers, is_twin);
    } else {
        remove_connection_fields(headers, is_request_only);
    }
    // The five below, so that the map grows once.
    headers.reserve(5);
    if takes_trailers {
        headers.insert(header::TE, TRAILERS);
    }
    say_who_asks(headers, &forwarded);
    headers.insert(X_REQUEST_ID, forwarded.request_id);
    add_via(headers, received);
}

fn say_who_asks(headers: &mut HeaderMap, forwarded: &Forwarded<'_>) {
    let proto = if forwarded.is_secure { HTTPS } else { HTTP };
    if !forwarded.is_trusted {
        headers.insert(X_FORWARDED_FOR, forwarded.client.clone());
        headers.insert(X_FORWARDED_PROTO, proto);
        headers.insert(X_FORWARDED_HOST, forwarded.host.clone());
        return;
    }
    let chain = chain(headers, forwarded.client);
    headers.insert(X_FORWARDED_FOR, chain);
    headers.entry(X_FORWARDED_PROTO).or_insert(proto);
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| forwarded.host.clone());
}

/// `X-Forwarded-For` with one more: all fields of that name in one, then the peer.
fn chain(headers: &HeaderMap, peer: &HeaderValue) -> HeaderValue {
    let all = headers.get_all(X_FORWARDED_FOR).iter().chain([peer]);
    let all: Vec<&[u8]> = all.map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&all.join(&b", "[..])).unwrap_or_else(|_| peer.clone())
}

/// The client as the trusted proxies before us say: the last address of `X-Forwarded-For` that is not one of theirs.
/// Anything that is no address ends the search, since whoever wrote it is not known.
pub(super) fn client_ip(
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    is_trusted: impl Fn(Option<IpAddr>) -> bool,
) -> Option<IpAddr> {
    let mut client = peer;
    let fields: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    for entry in fields.iter().rev().flat_map(|field| field.rsplit(|b| *b == b',')) {
        if !is_trusted(client) {
            break;
        }
        let Some(before) = str::from_utf8(entry).ok().and_then(|entry| address(entry.trim())) else { break };
        client = Some(before.to_canonical());
    }
    client
}

/// An address as some proxies write it: bare, in brackets, with a port.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(entry);
    bare.parse().ok().or_else(|| entry.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))
}

/// `Connection: close` and nothing else, as clients say it.
pub(super) fn asks_to_close(headers: &HeaderMap) -> bool {
    headers.get(header::CONNECTION).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// The client waits for `100 Continue` before it sends its body (RFC 9110 section 10.1.1).
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// `TE: trailers`, the one thing of `TE` that goes on.
fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter().map(HeaderValue::as_bytes);
    values.flat_map(|v| v.split(|b| *b == b',')).any(|v| v.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Over HTTP/1.1 only announced trailers are sent (amendments.md 2.7).
pub(super) fn announce_grpc_trailers(headers: &mut HeaderMap) {
    headers.entry(header::TRAILER).or_insert(GRPC_TRAILERS);
}

/// The operator's changes to a head.
pub(super) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name.clone(), value.clone());
    }
}

/// Makes an endpoint's header fields into those for the client. An answer without `Date` gets one (RFC 9110 6.6.1).
/// True if the answer was framed in two ways: then its connection must not be used again (faults.md 3.2).
pub(super) fn prepare_response(headers: &mut HeaderMap, received: Version, date: &HeaderValue) -> bool {
    let fields = Fields::of(headers);
    let is_odd = has_two_framings(headers, fields);
    remove_connection_fields(headers, |_| false);
    // Its `Connection` may have named the date away.
    if !fields.has(Field::Date) || fields.has(Field::Connection) && !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date.clone());
    }
    add_via(headers, received);
    is_odd
}

/// A message with `Transfer-Encoding` and `Content-Length` is read by the former; the latter must not go on (RFC 9112
/// section 6.3), since the next reader would believe it.
fn has_two_framings(headers: &mut HeaderMap, fields: Fields) -> bool {
    fields.has(Field::TransferEncoding) && headers.remove(header::CONTENT_LENGTH).is_some()
}

/// Names the protocol the message came in (RFC 9110 section 7.6.3).
fn add_via(headers: &mut HeaderMap, received: Version) {
    let via = match received {
        Version::HTTP_10 => VIA_1_0,
        Version::HTTP_2 => VIA_2_0,
        _ => VIA,
    };
    match headers.entry(header::VIA) {
        header::Entry::Vacant(entry) => drop(entry.insert(via)),
        header::Entry::Occupied(mut entry) => entry.append(via),
    }
}

/// Takes off what concerns one connection only, and what `also` says. One look over the names; nearly always nothing is found, and then nothing is allocated.
pub(super) fn remove_connection_fields(headers: &mut HeaderMap, also: impl Fn(&HeaderName) -> bool) {
    let mut gone: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        if name == header::CONNECTION {
            gone.extend(listed(headers));
        }
        if is_hop_by_hop(name) || also(name) {
            gone.push(name.clone());
        }
    }
    for name in gone {
        headers.remove(name);
    }
}

/// The fields that `Connection` names, but for those a message cannot do without.
fn listed(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> + '_ {
    // As bytes: a field that is no text at one place must not hide what it names at another.
    let values = headers.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    values
        .flat_map(|v| v.split(|b| *b == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| name != header::HOST && name != header::CONTENT_LENGTH)
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Standard names compare as one byte, so this is a handful of integer compares for each field.
    name == header::CONNECTION
        || name == header::TRANSFER_ENCODING
        || name == header::TE
        || name == header::UPGRADE
        || name == header::PROXY_AUTHENTICATE
        || name == header::PROXY_AUTHORIZATION
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// What only a trusted peer may say, and underscore twins that an origin might read as one of ours.
pub(super) fn is_request_only(name: &HeaderName) -> bool {
    let name = name.as_str();
    let first = name.as_bytes().first();
    (first == Some(&b'x') && (name.starts_with("x-forwarded-") || name == "x-real-ip"))
        || (first == Some(&b'f') && name == "forwarded")
        || is_twin_name(name)
}

fn is_twin(name: &HeaderName) -> bool {
    is_twin_name(name.as_str())
}

/// Some origins read `_` as `-`.
fn is_twin_name(name: &str) -> bool {
    name.contains('_')
}

/// A client's own request id is kept if it is short and plain, a trusted proxy's as it is.
pub(super) fn kept_request_id(headers: &HeaderMap, is_trusted: bool) -> Option<&HeaderValue> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = |id: &&HeaderValue| (1..=64).contains(&id.len()) && id.as_bytes().iter().all(plain);
    headers.get(X_REQUEST_ID).filter(|id| fits(id) || is_trusted && !id.is_empty() && id.to_str().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(n, v): &(&str, &str)| (n.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap());
        pairs.iter().map(pair).collect()
    }

    fn prepared(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = map(pairs);
        let (client, host, request_id) = (
            HeaderValue::from_static("203.0.113.7"),
            HeaderValue::from_static("shop.example.com"),
            HeaderValue::from_static("id-1"),
        );
        prepare_request(
            &mut headers,
            Version::HTTP_11,
            Forwarded { client: &client, host: &host, request_id, is_secure: false, is_trusted: false },
        );
        headers
    }

    #[test]
    fn connection_fields_do_not_cross() {
        let headers = prepared(&[
            ("host", "shop.example.com"),
            ("connection", "keep-alive, x-secret, host, content-length"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAA"),
            ("x-secret", "1"),
            ("content-length", "3"),
            ("accept", "*/*"),
        ]);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let ours = ["te", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"];
        assert_eq!(names, [&["accept", "content-length", "host"][..], &ours].concat());
    }

    #[test]
    fn a_list_that_is_no_text_hides_nothing() {
        let mut headers = map(&[("x-secret", "1"), ("host", "a")]);
        headers.insert("connection", HeaderValue::from_bytes(b"x-secret, \xe3").unwrap());
        remove_connection_fields(&mut headers, |_| false);
        assert!(!headers.contains_key("x-secret"));
        let mut chain = map(&[("x-forwarded-for", "6.6.6.6")]);
        chain.append("x-forwarded-for", HeaderValue::from_bytes(b"\xff").unwrap());
        let peer = Some(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(client_ip(&chain, peer, |_| true), peer);
    }

    #[test]
    fn what_the_client_says_of_itself_is_replaced() {
        let headers = prepared(&[
            ("host", "shop.example.com"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-prefix", "/evil"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("connection", "x-forwarded-for"),
        ]);
        assert_eq!(headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["203.0.113.7"]);
        for gone in ["x-forwarded-prefix", "x_forwarded_for", "x-real-ip", "forwarded"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn via_is_appended_and_date_completed() {
        let mut headers = map(&[("via", "1.0 cache"), ("connection", "close"), ("set-cookie", "a=1")]);
        let date = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
        assert!(!prepare_response(&mut headers, Version::HTTP_10, &date));
        assert_eq!(headers.get_all("via").iter().collect::<Vec<_>>(), ["1.0 cache", "1.0 weir"]);
        assert_eq!(headers["date"], date);
        assert!(!headers.contains_key("connection"));
        assert!(headers.contains_key("set-cookie"));
    }

    #[test]
    fn of_two_framings_only_one_goes_on_and_the_answer_counts_as_odd() {
        let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        let date = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
        assert!(prepare_response(&mut headers, Version::HTTP_11, &date));
        assert!(!headers.contains_key("content-length"));
        let request = prepared(&[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "3")]);
        assert!(!request.contains_key("content-length") && !request.contains_key("transfer-encoding"));
    }

    #[test]
    fn only_short_plain_ids_are_kept() {
        assert!(kept_request_id(&map(&[("x-request-id", "abc-1.2_3")]), false).is_some());
        for bad in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert!(kept_request_id(&map(&[("x-request-id", bad)]), false).is_none(), "{bad}");
        }
    }
}
