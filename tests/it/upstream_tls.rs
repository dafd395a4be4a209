//! TLS towards endpoints: verified or nothing, never in cleartext, with a certificate of our own where they ask for one.

use std::sync::Arc;

use crate::support::{After, Authority, Conf, Origin, Weir};

/// A version `v1` whose endpoint speaks TLS, with these keys in its `tls` table.
fn conf(origin: &Origin, keys: &str) -> Conf {
    let conf = Conf::one(origin.address).https();
    conf.version("v1", &format!("tls = {{ {keys} }}"))
}

#[track_caller]
fn assert_refused(weir: &Weir, origin: &Origin, what: &str) {
    let answer = weir.connect().get("/").unwrap();
    assert_eq!((answer.status(), answer.head.get("weir-error")), (502, Some("upstream-tls")), "{what}");
    assert_eq!(origin.requests(), 0, "{what}");
    weir.admin.wait_metric("weir_errors_total", &[("version", "v1"), ("reason", "tls")], 1.0);
}

#[test]
fn a_verified_endpoint_serves_over_kept_connections() {
    let authority = Authority::new();
    let origin = Origin::secure(authority.server(&authority.sign("inner.test"), false), |exchange| {
        let body = exchange.body()?;
        exchange.answer("200 OK", "", &body)
    });
    let conf = conf(&origin, "ca = \"ca.pem\", server_name = \"inner.test\"").workers(1);
    let weir = Weir::start_with(&conf, &[], &[("ca.pem", &authority.pem)]);
    let mut client = weir.connect();
    for _ in 0..5 {
        let post = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(client.ask(post).unwrap().text(), "hello");
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.heads()[0].get("host"), Some("app.test"), "its name in TLS is not its name in HTTP");
}

#[test]
fn a_wrong_name_or_a_strange_authority_is_refused() {
    let (authority, strange) = (Authority::new(), Authority::new());
    let origin = Origin::secure(authority.server(&authority.sign("inner.test"), false), |e| e.ok("v1"));
    for (keys, pem) in [
        ("ca = \"ca.pem\", server_name = \"other.test\"", &authority.pem),
        ("ca = \"ca.pem\"", &authority.pem),
        ("ca = \"ca.pem\", server_name = \"inner.test\"", &strange.pem),
    ] {
        let weir = Weir::start_with(&conf(&origin, keys), &[], &[("ca.pem", pem)]);
        assert_refused(&weir, &origin, keys);
    }
}

/// Neither an endpoint that speaks cleartext where TLS was asked for, nor one that hangs up, is asked in cleartext.
#[test]
fn never_in_cleartext() {
    let authority = Authority::new();
    let keys = "ca = \"ca.pem\", server_name = \"inner.test\"";
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let theirs = seen.clone();
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = plain.accept() {
            let mut piece = [0; 512];
            let n = std::io::Read::read(&mut stream, &mut piece).unwrap_or(0);
            theirs.lock().unwrap().extend_from_slice(&piece[..n]);
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        }
    });
    let conf = Conf::one(address).https().version("v1", &format!("tls = {{ {keys} }}"));
    let weir = Weir::start_with(&conf, &[], &[("ca.pem", &authority.pem)]);
    let answer = weir.connect().get("/secret").unwrap();
    assert_eq!((answer.status(), answer.head.get("weir-error")), (502, Some("upstream-tls")));
    let seen = seen.lock().unwrap();
    assert!(seen.starts_with(&[22, 3, 1]), "a ClientHello: {seen:?}");
    assert!(!String::from_utf8_lossy(&seen).contains("secret"));
}

#[test]
fn an_endpoint_may_ask_for_our_certificate() {
    let authority = Authority::new();
    let origin = Origin::secure(authority.server(&authority.sign("inner.test"), true), |exchange| {
        exchange.ok("v1").map(|_| After::Keep)
    });
    let keys = "ca = \"ca.pem\", server_name = \"inner.test\"";
    let with = format!("{keys}, cert = \"own.pem\", key = \"own.key\"");
    let (own, ca) = (authority.sign("weir.test"), [("ca.pem", authority.pem.as_str())]);
    let weir = Weir::start_with(&conf(&origin, &with), &[("own", &own)], &ca);
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
    // Over TLS 1.3 the client learns of the refusal only when it reads, so the word may be either.
    let weir = Weir::start_with(&conf(&origin, keys), &[], &ca);
    let answer = weir.connect().get("/").unwrap();
    let word = answer.head.get("weir-error");
    assert!(answer.status() == 502 && matches!(word, Some("upstream-tls" | "upstream-reset")), "{}", answer.head.raw);
    assert_eq!(origin.requests(), 1);
}
