//! Answers that weir makes itself: status, `weir-error`, `x-request-id`, and nothing reaches the origin by mistake.

use std::time::Duration;

use serde_json::json;

use crate::support::{After, Answer, Conf, Failure, Gate, LIMIT, Origin, Weir, free_address, wait_until};

#[track_caller]
fn assert_ours(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status(), status, "{}{}", answer.head.raw, answer.text());
    assert_eq!(answer.head.get("weir-error"), Some(error), "{}", answer.head.raw);
    assert!(answer.head.has("x-request-id"), "{}", answer.head.raw);
}

#[test]
fn no_route() {
    let origin = Origin::named("v1");
    let conf = Conf::one(origin.address)
        .routes("[[routes]]\nmatch = { host = \"app.test\", path_prefix = \"/in\" }\nsplit = \"shop\"");
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    assert_eq!(client.get("/in/side").unwrap().status(), 200);
    assert_ours(&client.get("/inside").unwrap(), 404, "no-route");
    let other = client.ask("GET /in HTTP/1.1\r\nHost: other.test\r\n\r\n").unwrap();
    assert_ours(&other, 404, "no-route");
    assert_eq!(client.get("/in").unwrap().status(), 200, "the connection is kept");
    assert_eq!(origin.requests(), 2);
}

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let names = ["any", "wild", "exact", "prefix", "path"];
    let origins = names.map(Origin::named);
    let split = |i: usize| {
        format!("[splits.{}.versions]\nv1 = {{ weight = 1, endpoints = [\"{}\"] }}\n", names[i], origins[i].address)
    };
    let routes = "[[routes]]\nsplit = \"any\"\n[[routes]]\nmatch = { host = \"*.app.test\" }\nsplit = \"wild\"\n\
        [[routes]]\nmatch = { host = \"a.app.test\" }\nsplit = \"exact\"\n\
        [[routes]]\nmatch = { host = \"a.app.test\", path_prefix = \"/p\" }\nsplit = \"prefix\"\n\
        [[routes]]\nmatch = { host = \"a.app.test\", path = \"/p/x\" }\nsplit = \"path\"";
    let conf = Conf::one(origins[0].address).routes(routes).tail(&(0..5).map(split).collect::<String>());
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    for (host, path, name) in [
        ("other.test", "/", "any"),
        ("b.app.test", "/p", "wild"),
        ("A.App.Test:8080", "/", "exact"),
        ("a.app.test.", "/pp", "exact"),
        ("a.app.test", "/p/y", "prefix"),
        ("a.app.test", "/p/x", "path"),
    ] {
        let answer = client.ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
        assert_eq!(answer.text(), name, "{host}{path}");
    }
}

#[test]
fn missing_double_and_bad_host() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address));
    for fields in ["", "Host: a.test\r\nHost: a.test\r\n", "Host: a@b.test\r\n", "Host: a b\r\n", "Host: a.test/x\r\n"]
    {
        let mut client = weir.connect();
        let answer = client.ask(format!("GET / HTTP/1.1\r\n{fields}\r\n")).unwrap();
        assert_eq!(answer.status(), 400, "{fields:?}");
        assert!(answer.head.closes() && client.is_closed_within(LIMIT), "{fields:?}: closed after a malformed head");
    }
    let answer = weir.connect().ask("GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_ours(&answer, 400, "bad-request");
    assert_eq!(origin.requests(), 0);
}

#[test]
fn malformed_heads_are_refused() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address));
    for head in [
        "GET /a\\b HTTP/1.1\r\nHost: app.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: app.test\r\nBad Name: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: app.test\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: app.test\r\n: empty\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "complete nonsense\r\n\r\n",
    ] {
        let mut client = weir.connect();
        let answer = client.ask(head).unwrap();
        assert!(matches!(answer.status(), 400 | 501), "{head:?}: {}", answer.head.raw);
        assert!(client.is_closed_within(LIMIT), "{head:?}");
    }
    assert_eq!(origin.requests(), 0, "{:?}", origin.heads());
}

/// What was routed is what is sent: the parser may refuse a fragment or drop it, but the origin never sees one.
#[test]
fn a_fragment_in_the_target_goes_no_further() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address));
    let answer = weir.connect().ask("GET /a#/../b HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    assert!(matches!(answer.status(), 200 | 400), "{}", answer.head.raw);
    assert!(origin.heads().iter().all(|h| h.target() == "/a"), "{:?}", origin.heads());
}

#[test]
fn both_framings_never_smuggle() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    let request = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n\
                   0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let answer = client.ask(request).unwrap();
    assert!(matches!(answer.status(), 200 | 400), "{}", answer.head.raw);
    assert!(client.is_closed_within(LIMIT), "refused, or closed after the answer");
    assert!(origin.heads().iter().all(|h| !h.has("content-length") || !h.has("transfer-encoding")));
    assert!(origin.heads().iter().all(|h| h.target() != "/smuggled"), "{:?}", origin.heads());
}

#[test]
fn heads_that_are_too_large() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).web("limits = { header_bytes = \"8KiB\" }"));
    let big = "x".repeat(20_000);
    let answer = weir.connect().ask(format!("GET / HTTP/1.1\r\nHost: app.test\r\nX: {big}\r\n\r\n")).unwrap();
    assert_eq!(answer.status(), 431);
    let answer = weir.connect().ask(format!("GET /{big} HTTP/1.1\r\nHost: app.test\r\n\r\n")).unwrap();
    assert!(matches!(answer.status(), 414 | 431), "{}", answer.head.raw);
    let fine = "x".repeat(4_000);
    let answer = weir.connect().ask(format!("GET / HTTP/1.1\r\nHost: app.test\r\nX: {fine}\r\n\r\n")).unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_slow_head_is_not_waited_for() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).web("timeouts = { header = \"300ms\" }"));
    let mut client = weir.connect();
    client.send("GET / HTTP/1.1\r\nHost: ap").unwrap();
    match client.answer(false) {
        Ok(answer) => assert_eq!(answer.status(), 408),
        Err(failure) => assert_eq!(failure, Failure::ClosedBeforeHead),
    }
    assert_eq!(weir.connect().get("/").unwrap().status(), 200);
}

#[test]
fn an_idle_client_connection_is_closed_after_its_time() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).web("timeouts = { idle = \"300ms\" }"));
    let mut client = weir.connect();
    assert_eq!(client.get("/").unwrap().status(), 200);
    assert!(client.is_closed_within(LIMIT));
}

#[test]
fn no_endpoint_when_all_drain() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address));
    let answer = weir.admin.ask("POST", "/api/v1/splits/shop/versions/v1/drain", "", None);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_ours(&weir.connect().get("/").unwrap(), 503, "no-endpoint");
    let answer = weir.admin.post("/api/v1/splits/shop/versions/v1/undrain", json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(weir.connect().get("/").unwrap().status(), 200);
}

#[test]
fn connect_failed() {
    let weir = Weir::start(&Conf::one(free_address()));
    let mut client = weir.connect();
    assert_ours(&client.get("/").unwrap(), 502, "connect-failed");
    let post = client.ask("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    assert_ours(&post, 502, "connect-failed");
}

#[test]
fn upstream_reset() {
    for after in [After::Close, After::Reset] {
        let origin = Origin::scripted(move |exchange| exchange.body().map(|_| after));
        let weir = Weir::start(&Conf::one(origin.address));
        let post = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi";
        assert_ours(&weir.connect().ask(post).unwrap(), 502, "upstream-reset");
        assert_eq!(origin.requests(), 1, "a POST is sent at most once");
        assert_ours(&weir.connect().get("/").unwrap(), 502, "upstream-reset");
    }
}

#[test]
fn first_byte_timeout() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&Conf::one(origin.address).split("timeouts = { first_byte = \"300ms\" }"));
    let mut client = weir.connect();
    assert_ours(&client.get("/hold").unwrap(), 504, "timeout");
    wait_until("the stalled connection is given up", || origin.connections() == 1);
    assert_eq!(client.get("/").unwrap().text(), "v1");
    assert_eq!(origin.connections(), 2, "a connection that owes an answer is not used again");
    gate.open();
}

#[test]
fn total_timeout_before_the_head() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&Conf::one(origin.address).split("timeouts = { total = \"300ms\" }"));
    assert_ours(&weir.connect().get("/hold").unwrap(), 504, "timeout");
    gate.open();
}

#[test]
fn total_timeout_inside_the_body_is_a_visible_cut() {
    let gate = Gate::default();
    let theirs = gate.clone();
    let origin = Origin::scripted(move |exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        exchange.chunk(b"first")?;
        theirs.wait();
        Ok(After::Close)
    });
    let weir = Weir::start(&Conf::one(origin.address).split("timeouts = { total = \"500ms\" }"));
    let failure = weir.connect().get("/").unwrap_err();
    assert!(matches!(failure, Failure::Cut(_) | Failure::ClosedBeforeHead), "{failure}");
    gate.open();
}

#[test]
fn errors_to_head_have_no_body() {
    let weir = Weir::start(&Conf::one(free_address()));
    let mut client = weir.connect();
    let answer = client.ask("HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    assert_ours(&answer, 502, "connect-failed");
    assert_ours(&client.get("/").unwrap(), 502, "connect-failed");
    assert!(
        !client.is_closed_within(Duration::from_millis(1)),
        "an upstream failure does not end the client's connection"
    );
}
