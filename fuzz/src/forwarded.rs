//! What `prepare_request` leaves of any fields: nothing of one connection, nothing forged, and our own words about the
//! client exactly once.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue, Version, header};
use weir::proxy::fuzzing::{Sender, client_ip, kept_request_id, prepare_request};

const PEER: &str = "203.0.113.7";
const HOST: &str = "shop.test";
/// Of one connection (RFC 9110 section 7.6.1) or one hop, however they are spelled. `te` is looked at apart.
const HOPS: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "http2-settings",
    "transfer-encoding",
    "proxy-authorization",
    "proxy-authenticate",
];
/// Ours, or not to be named away by a client.
const OURS: [&str; 8] =
    ["host", "content-length", "via", "te", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// Input: a byte of switches, then `name: value` lines.
pub fn check(data: &[u8]) {
    let Some((&switches, lines)) = data.split_first() else { return };
    let on = |bit: u8| switches >> bit & 1 == 1;
    let received = if on(2) { Version::HTTP_10 } else { Version::HTTP_11 };
    let sent = crate::fields(lines);
    let sender = Sender {
        address: HeaderValue::from_static(PEER),
        host: HeaderValue::from_static(HOST),
        request_id: HeaderValue::from_static("id-1"),
        is_secure: on(1),
        is_trusted: on(0),
    };
    let mut left = sent.clone();
    prepare_request(&mut left, received, &sender);
    of_one_connection(&sent, &left);
    our_words(&sent, &left, &sender);
    who(&sent);
}

fn of_one_connection(sent: &HeaderMap, left: &HeaderMap) {
    for name in left.keys() {
        assert!(!HOPS.contains(&name.as_str()), "{name} crossed");
        assert!(!name.as_str().contains('_'), "a twin crossed: {name}");
    }
    assert!(left.get_all(header::TE).iter().all(|v| v == "trailers"), "{:?}", left.get_all(header::TE));
    for value in sent.get_all(header::CONNECTION) {
        for listed in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            let Ok(name) = http::HeaderName::from_bytes(listed) else { continue };
            assert!(OURS.contains(&name.as_str()) || !left.contains_key(&name), "{name} crossed though listed");
        }
    }
    for name in [header::HOST, header::CONTENT_LENGTH] {
        let is_dropped = name == header::CONTENT_LENGTH && sent.contains_key(header::TRANSFER_ENCODING);
        let (before, after) = (sent.get_all(&name).iter(), left.get_all(&name).iter());
        assert!(before.eq(after) != is_dropped || !sent.contains_key(&name), "{name} was named away");
    }
}

fn our_words(sent: &HeaderMap, left: &HeaderMap, sender: &Sender) {
    let all = |name: &str| left.get_all(name).iter().collect::<Vec<_>>();
    let proto = if sender.is_secure { "https" } else { "http" };
    assert_eq!(all("x-request-id"), ["id-1"]);
    assert!(all("via").last().is_some_and(|via| via.as_bytes().ends_with(b" weir")));
    let chain = all("x-forwarded-for");
    assert_eq!(chain.len(), 1, "{chain:?}");
    if !sender.is_trusted {
        let others = ["x-real-ip", "forwarded"].into_iter().filter(|name| left.contains_key(*name)).count();
        assert_eq!(others, 0, "a client's own word about itself crossed");
        assert_eq!(chain, [PEER]);
        assert_eq!(all("x-forwarded-proto"), [proto]);
        assert_eq!(all("x-forwarded-host"), [HOST]);
        let forged = left.keys().filter(|n| n.as_str().starts_with("x-forwarded-")).count();
        assert_eq!(forged, 3, "{left:?}");
        return;
    }
    assert!(chain[0].as_bytes().ends_with(PEER.as_bytes()), "{chain:?}");
    let is_listed = |name: &str| {
        let lists = sent.get_all(header::CONNECTION).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
        lists.map(<[u8]>::trim_ascii).any(|n| n.eq_ignore_ascii_case(name.as_bytes()))
    };
    for (name, ours) in [("x-forwarded-proto", proto), ("x-forwarded-host", HOST)] {
        let theirs: Vec<_> = sent.get_all(name).iter().collect();
        let expected = if theirs.is_empty() { vec![HeaderValue::from_static(ours)] } else { cloned(theirs) };
        assert!(is_listed(name) || all(name) == expected, "{name}: {:?}", all(name));
    }
}

fn cloned(all: Vec<&HeaderValue>) -> Vec<HeaderValue> {
    all.into_iter().cloned().collect()
}

/// The search for the client ends at whoever is not trusted, and never makes an address up.
fn who(sent: &HeaderMap) {
    let peer = Some(IpAddr::from(Ipv4Addr::new(203, 0, 113, 7)));
    assert_eq!(client_ip(sent, peer, |_| false), peer);
    assert_eq!(client_ip(sent, None, |_| false), None);
    for peer in [peer, None] {
        let found = client_ip(sent, peer, |_| true);
        assert!(found.is_some() || peer.is_none());
        let private = |ip: Option<IpAddr>| ip.is_none_or(|ip| matches!(ip, IpAddr::V4(v4) if v4.is_private()));
        let outside = client_ip(sent, peer, private);
        assert!(peer.is_none() || outside == peer, "the peer is no proxy of ours, and was believed");
        assert!(found.is_none_or(|ip| ip.to_canonical() == ip), "two forms of one address");
    }
    for is_trusted in [false, true] {
        let id = kept_request_id(sent, is_trusted);
        assert!(id.is_none_or(|id| id.to_str().is_ok_and(|id| !id.is_empty())), "{id:?}");
        assert!(is_trusted || id.is_none_or(|id| id.len() <= 64), "{id:?}");
    }
}
