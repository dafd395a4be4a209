//! What an endpoint is told of the client, when proxies before us are trusted and when not; whose `Host` it gets.

use crate::support::{Authority, Conf, Connection, Head, Origin, Weir};

const TRUSTED: &str = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\", \"2001:db8:ffff::/48\"]";

fn ask(weir: &Weir, target: &str, fields: &str) {
    let answer = weir.connect().ask(format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n")).unwrap();
    assert_eq!(answer.status(), 200);
}

/// What the origin sees, and whom the access line names.
fn behind_proxy(fields: &str) -> (Head, String) {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).web(TRUSTED));
    ask(&weir, "/", fields);
    (origin.only_head(), weir.line_of("/")["client"].as_str().unwrap().to_owned())
}

#[test]
fn a_trusted_proxy_is_believed_and_added_to_the_chain() {
    for (sent, chain, client) in [
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1, 127.0.0.1", "192.0.2.1"),
        ("X-Forwarded-For: 192.0.2.1, 10.1.1.1\r\n", "192.0.2.1, 10.1.1.1, 127.0.0.1", "192.0.2.1"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n", "6.6.6.6, 192.0.2.1, 127.0.0.1", "192.0.2.1"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.1\r\n", "6.6.6.6, 192.0.2.1, 127.0.0.1", "192.0.2.1"),
        ("X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7, 127.0.0.1", "2001:db8::7"),
        ("X-Forwarded-For: 192.0.2.1, unknown\r\n", "192.0.2.1, unknown, 127.0.0.1", "127.0.0.1"),
        ("", "127.0.0.1", "127.0.0.1"),
    ] {
        let (head, named) = behind_proxy(sent);
        assert_eq!((head.all("x-forwarded-for"), named.as_str()), (vec![chain], client), "{sent}");
    }
}

#[test]
fn what_a_trusted_proxy_says_of_scheme_and_host_goes_on() {
    let (head, _) = behind_proxy(
        "X-Forwarded-Proto: https\r\nX-Forwarded-Host: public.test\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 192.0.2.1\r\n\
         Forwarded: for=192.0.2.1\r\nX-Request-Id: from-the-edge\r\n",
    );
    assert_eq!((head.get("x-forwarded-proto"), head.get("x-forwarded-host")), (Some("https"), Some("public.test")));
    assert_eq!((head.get("x-request-id"), head.get("host")), (Some("from-the-edge"), Some("app.test")));
    let (head, _) = behind_proxy("");
    assert_eq!((head.get("x-forwarded-proto"), head.get("x-forwarded-host")), (Some("http"), Some("app.test")));
}

/// One request id, wherever it is shown.
#[test]
fn the_request_id_is_the_same_everywhere() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).web(TRUSTED));
    ask(&weir, "/id", "X-Request-Id: from-the-edge\r\n");
    assert_eq!(weir.line_of("/id")["request_id"], "from-the-edge");
    let nobody = Weir::start(&Conf::one(crate::support::free_address()).web(TRUSTED));
    let answer = nobody.connect().ask("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine-1\r\n\r\n").unwrap();
    assert_eq!((answer.status(), answer.head.get("x-request-id")), (502, Some("mine-1")));
}

#[test]
fn the_scheme_is_https_over_tls_and_the_host_the_one_asked_for() {
    let (origin, authority) = (Origin::named("v1"), Authority::new());
    let secure = "[listeners.secure]\nbind = \"127.0.0.1:0\"\n\
                  tls = { certificates = [{ cert = \"app.pem\", key = \"app.key\" }] }";
    let conf = Conf::one(origin.address).tail(secure);
    let weir = Weir::start_with(&conf, &[("app", &authority.sign("app.test"))], &[]);
    let mut client = Connection::open_tls(weir.listener("secure"), &authority.client(None), "app.test").unwrap();
    let fields = "X-Forwarded-Proto: http\r\nX-Forwarded-Host: evil.test\r\n";
    client.ask(format!("GET / HTTP/1.1\r\nHost: app.test:8443\r\n{fields}\r\n")).unwrap();
    let head = origin.only_head();
    assert_eq!((head.get("x-forwarded-proto"), head.get("x-forwarded-host")), (Some("https"), Some("app.test:8443")));
}

#[test]
fn a_version_may_want_its_endpoints_own_host() {
    let origin = Origin::named("v1");
    let conf = Conf::one(origin.address).version("v1", "host = \"endpoint\"").workers(1);
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/").unwrap().status(), 200);
    }
    let own = origin.address.to_string();
    let is_right = |h: &Head| h.get("host") == Some(&own) && h.get("x-forwarded-host") == Some("app.test");
    assert!(origin.heads().iter().all(is_right), "{:?}", origin.heads());
}

/// An idle connection that was closed meanwhile: the request goes out once more, with the same `Host`.
#[test]
fn a_request_sent_once_more_names_the_endpoint_too() {
    let origin = Origin::scripted(|exchange| {
        exchange.ok("v1")?;
        // The next request on this connection is lost, as if the origin had just closed it.
        exchange.wire.head().map(|_| crate::support::After::Reset)
    });
    let weir = Weir::start(&Conf::one(origin.address).version("v1", "host = \"endpoint\"").workers(1));
    let mut client = weir.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/").unwrap().status(), 200);
    }
    assert_eq!(origin.connections(), 2);
    let own = origin.address.to_string();
    assert!(origin.heads().iter().all(|h| h.get("host") == Some(&own)), "{:?}", origin.heads());
}
