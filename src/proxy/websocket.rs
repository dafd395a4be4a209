//! WebSocket handshakes, from either protocol to either protocol (RFC 6455 section 4, RFC 8441). Pure.
//!
//! Over HTTP/1.1 a GET with `Upgrade: websocket` is answered by 101 and a proof made of the client's key; over HTTP/2 a
//! CONNECT with `:protocol = websocket` is answered by 200, without key and proof. Everything else of the two heads is
//! the same and goes through. Invariant: no other upgrade is ever asked for (faults.md 1.2: h2c), and a tunnel begins
//! only with the endpoint's consent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode, Version};
use sha1::{Digest as _, Sha1};

use super::error::ProxyError;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A client's wish for a tunnel.
#[derive(Clone, Debug)]
pub(super) struct Handshake {
    /// The client's; for an HTTP/2 client one of ours, which the endpoint has to answer.
    key: HeaderValue,
    is_http2: bool,
}

/// Whether a request is a handshake. `None`: it is an ordinary request, whatever else it wants to upgrade to.
///
/// # Errors
/// For a CONNECT we do not carry.
pub(super) fn wanted(
    parts: &Parts,
    has_body: bool,
    chance: impl FnOnce() -> u128,
) -> Result<Option<Handshake>, ProxyError> {
    if parts.method == Method::CONNECT {
        return match parts.extensions.get::<Protocol>() {
            Some(protocol) if protocol.as_str() == "websocket" => {
                let key = HeaderValue::from_str(&STANDARD.encode(chance().to_ne_bytes()));
                let key = key.map_err(|_| ProxyError::NotImplemented("no key"))?;
                Ok(Some(Handshake { key, is_http2: true }))
            }
            Some(_) => Err(ProxyError::NotImplemented("no tunnel but WebSocket is carried")),
            None => Err(ProxyError::NotImplemented("CONNECT is not proxied")),
        };
    }
    let asks = parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && !has_body
        && has_token(&parts.headers, &header::UPGRADE, "websocket")
        && has_token(&parts.headers, &header::CONNECTION, "upgrade");
    let key = parts.headers.get(KEY).filter(|_| asks);
    Ok(key.map(|key| Handshake { key: key.clone(), is_http2: false }))
}

impl Handshake {
    /// Makes the request into one for an HTTP/1.1 endpoint.
    pub(super) fn ask_http1<B>(&self, request: &mut Request<B>) {
        *request.method_mut() = Method::GET;
        request.extensions_mut().remove::<Protocol>();
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, WEBSOCKET);
        headers.insert(KEY, self.key.clone());
        headers.entry(header::SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
    }

    /// Makes the request into one for an HTTP/2 endpoint.
    pub(super) fn ask_http2<B>(&self, request: &mut Request<B>) {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let headers = request.headers_mut();
        for name in [header::CONNECTION, header::UPGRADE, KEY] {
            headers.remove(name);
        }
    }

    /// Whether the endpoint has consented.
    ///
    /// # Errors
    /// When it says yes without having understood, which a client of the other protocol would take for a tunnel.
    pub(super) fn is_agreed(
        &self,
        by_http2: bool,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<bool, ProxyError> {
        if by_http2 {
            return Ok(status.is_success());
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let proof = headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes() == self.proof().as_bytes());
            return if proof { Ok(true) } else { Err(ProxyError::Protocol) };
        }
        if self.is_http2 && status.is_success() { Err(ProxyError::Protocol) } else { Ok(false) }
    }

    /// Makes the head of a consenting answer into the client's, after connection fields were taken off it.
    pub(super) fn answer(&self, status: &mut StatusCode, headers: &mut HeaderMap) {
        headers.remove(header::CONTENT_LENGTH);
        if self.is_http2 {
            *status = StatusCode::OK;
            headers.remove(ACCEPT);
            return;
        }
        *status = StatusCode::SWITCHING_PROTOCOLS;
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, WEBSOCKET);
        if let Ok(proof) = HeaderValue::from_str(&self.proof()) {
            headers.insert(ACCEPT, proof);
        }
    }

    fn proof(&self) -> String {
        let digest = Sha1::new().chain_update(self.key.as_bytes()).chain_update(GUID).finalize();
        STANDARD.encode(digest)
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.flat_map(|v| v.split(|b| *b == b',')).any(|v| v.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http1(fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::get("/chat");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const ASKED: &[(&str, &str)] = &[
        ("upgrade", "h2c, WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn handshake(parts: &Parts) -> Handshake {
        wanted(parts, false, || 7).unwrap().unwrap()
    }

    #[test]
    fn only_a_whole_handshake_is_one() {
        assert!(wanted(&http1(ASKED), false, || 7).unwrap().is_some());
        assert!(wanted(&http1(ASKED), true, || 7).unwrap().is_none());
        for missing in 0..3 {
            let rest: Vec<_> = ASKED.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, f)| *f).collect();
            assert!(wanted(&http1(&rest), false, || 7).unwrap().is_none(), "{rest:?}");
        }
        let h2c = [("upgrade", "h2c"), ("connection", "upgrade, http2-settings"), ("http2-settings", "AAA")];
        assert!(wanted(&http1(&h2c), false, || 7).unwrap().is_none());
    }

    #[test]
    fn a_connect_is_carried_for_websockets_only() {
        let connect = |protocol: Option<&'static str>| {
            let mut parts = Request::connect("http://a/chat").body(()).unwrap().into_parts().0;
            protocol.map(|p| parts.extensions.insert(Protocol::from_static(p)));
            wanted(&parts, true, || 7)
        };
        assert!(connect(Some("websocket")).unwrap().unwrap().is_http2);
        assert!(matches!(connect(Some("connect-udp")), Err(ProxyError::NotImplemented(_))));
        assert!(matches!(connect(None), Err(ProxyError::NotImplemented(_))));
    }

    #[test]
    fn the_proof_is_that_of_the_rfc() {
        assert_eq!(handshake(&http1(ASKED)).proof(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_endpoint_agrees_in_its_own_protocol() {
        let asked = handshake(&http1(ASKED));
        let proof = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))]);
        let none = HeaderMap::new();
        assert_eq!(asked.is_agreed(false, StatusCode::SWITCHING_PROTOCOLS, &proof), Ok(true));
        assert!(asked.is_agreed(false, StatusCode::SWITCHING_PROTOCOLS, &none).is_err());
        assert_eq!(asked.is_agreed(false, StatusCode::OK, &none), Ok(false));
        assert_eq!(asked.is_agreed(true, StatusCode::OK, &none), Ok(true));
        assert_eq!(asked.is_agreed(true, StatusCode::FORBIDDEN, &none), Ok(false));
        let bridged = Handshake { is_http2: true, ..asked };
        assert!(bridged.is_agreed(false, StatusCode::OK, &none).is_err());
        assert_eq!(bridged.is_agreed(false, StatusCode::FORBIDDEN, &none), Ok(false));
    }

    #[test]
    fn heads_are_translated_both_ways() {
        let asked = handshake(&http1(ASKED));
        let mut request = Request::get("/chat").header("upgrade", "websocket").body(()).unwrap();
        asked.ask_http2(&mut request);
        assert_eq!(request.method(), Method::CONNECT);
        assert!(request.extensions().get::<Protocol>().is_some() && request.headers().is_empty());
        asked.ask_http1(&mut request);
        assert_eq!((request.method(), &request.headers()["upgrade"]), (&Method::GET, &WEBSOCKET));
        let (mut status, mut headers) = (StatusCode::OK, HeaderMap::new());
        asked.answer(&mut status, &mut headers);
        assert_eq!((status, headers.len()), (StatusCode::SWITCHING_PROTOCOLS, 3));
        Handshake { is_http2: true, ..asked }.answer(&mut status, &mut headers);
        assert_eq!(status, StatusCode::OK);
        assert!(!headers.contains_key(ACCEPT));
    }
}
