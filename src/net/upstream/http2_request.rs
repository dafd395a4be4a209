//! A request in HTTP/1.1's form made into HTTP/2's (RFC 9113 sections 8.2 and 8.3).
//!
//! Pure. Invariant: the original stays as it was, since it may have to be sent elsewhere, in another protocol.

use http::header::{self, HeaderName};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};

use crate::model::Address;

/// Fields that concern an HTTP/1.1 connection, and `Host`, which becomes `:authority`.
const GONE: [HeaderName; 6] = [
    header::HOST,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What goes on the wire; `None` if `Host` cannot be an authority, or for a CONNECT that names no protocol. A request
/// that names no host (HTTP/1.0) is for the endpoint's own address (a Unix socket: `localhost`).
pub(super) fn head<B>(request: &Request<B>, scheme: Scheme, address: &Address) -> Option<Request<()>> {
    let protocol = request.extensions().get::<h2::ext::Protocol>();
    if request.method() == Method::CONNECT && protocol.is_none() {
        return None;
    }
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.version_mut() = Version::HTTP_2;
    *head.uri_mut() = target(request, scheme, address)?;
    *head.headers_mut() = request.headers().clone();
    let fields = head.headers_mut();
    GONE.iter().for_each(|name| drop(fields.remove(name)));
    if fields.get(header::TE).is_some_and(|te| te != "trailers") {
        fields.remove(header::TE);
    }
    if let Some(protocol) = protocol {
        head.extensions_mut().insert(protocol.clone());
    }
    Some(head)
}

fn target<B>(request: &Request<B>, scheme: Scheme, address: &Address) -> Option<Uri> {
    let host = request.headers().get(header::HOST).filter(|host| !host.is_empty());
    let authority = match host {
        Some(host) => Authority::try_from(host.as_bytes()).ok()?,
        None => Authority::try_from(address.authority().as_ref()).ok()?,
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    let path = request.uri().path_and_query().cloned();
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "127.0.0.1:9000";

    fn head_of(request: http::request::Builder) -> Option<Request<()>> {
        head(&request.body(()).unwrap(), Scheme::HTTPS, &ADDRESS.parse().unwrap())
    }

    #[test]
    fn host_becomes_the_authority_and_connection_fields_go() {
        let request = Request::post("/a?b=c").header("host", "shop.test:81").header("te", "trailers");
        let request = request.header("connection", "upgrade").header("upgrade", "x").header("keep-alive", "5");
        let request = request.header("transfer-encoding", "chunked").header("x-a", "1").header("x-a", "2");
        let head = head_of(request).unwrap();
        assert_eq!(head.uri(), "https://shop.test:81/a?b=c");
        let mut names: Vec<_> = head.headers().iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["te", "x-a", "x-a"]);
        assert_eq!(head.version(), Version::HTTP_2);
    }

    #[test]
    fn of_te_only_trailers_is_said() {
        let head = head_of(Request::get("/").header("host", "a").header("te", "gzip, trailers")).unwrap();
        assert!(!head.headers().contains_key("te"));
    }

    #[test]
    fn without_a_host_the_endpoint_is_meant() {
        for request in [Request::get("/x"), Request::get("/x").header("host", "")] {
            assert_eq!(head_of(request).unwrap().uri(), "https://127.0.0.1:9000/x");
        }
    }

    #[test]
    fn the_server_as_a_whole_can_be_asked() {
        let head = head_of(Request::options("*").header("host", "a")).unwrap();
        assert_eq!(head.uri().path(), "*");
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        assert!(head_of(Request::get("/").header("host", "a b")).is_none());
        assert!(head_of(Request::builder().method("CONNECT").uri("/").header("host", "a")).is_none());
    }

    #[test]
    fn an_extended_connect_keeps_its_protocol() {
        let protocol = h2::ext::Protocol::from_static("websocket");
        let request = Request::builder().method("CONNECT").uri("/chat").header("host", "a").extension(protocol);
        let head = head_of(request).unwrap();
        assert_eq!(head.extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
        assert_eq!(head.uri(), "https://a/chat");
    }
}
