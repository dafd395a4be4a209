//! Requests and answers go through unharmed: methods, framings, sizes, connections, old and odd forms.

use crate::support::{After, Conf, Connection, LIMIT, Origin, Weir, wait_until};

fn start(origin: &Origin) -> Weir {
    Weir::start(&Conf::one(origin.address))
}

/// Answers with what it got: method, target, body.
fn echo() -> Origin {
    Origin::scripted(|exchange| {
        let body = exchange.body()?;
        let text = format!("{} {} ", exchange.head.method(), exchange.head.target());
        exchange.answer("200 OK", "X-Kept: yes\r\n", &[text.as_bytes(), &body].concat())
    })
}

#[test]
fn get_passes_target_and_answer_through() {
    let origin = echo();
    let weir = start(&origin);
    let answer = weir.connect().get("/a/b;c=1?q=%20x&y=%2F").unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text(), "GET /a/b;c=1?q=%20x&y=%2F");
    assert_eq!(answer.head.get("x-kept"), Some("yes"));
    assert!(!answer.head.has("weir-error"), "{}", answer.head.raw);
    assert_eq!(origin.only_head().get("host"), Some("app.test"), "Host goes upstream unchanged");
}

#[test]
fn head_has_the_length_and_no_body() {
    let origin = Origin::scripted(|exchange| exchange.answer("200 OK", "", b"twelve bytes"));
    let weir = start(&origin);
    let mut client = weir.connect();
    let answer = client.ask("HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    assert_eq!((answer.status(), answer.head.content_length()), (200, Some(12)));
    let next = client.get("/").unwrap();
    assert_eq!(next.text(), "twelve bytes", "the connection is still in step");
    assert_eq!(origin.heads()[0].method(), "HEAD");
}

#[test]
fn post_with_content_length() {
    let origin = echo();
    let weir = start(&origin);
    let answer = weir.connect().ask("POST /p HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert_eq!(answer.text(), "POST /p hello");
    assert_eq!(origin.only_head().content_length(), Some(5));
}

#[test]
fn post_with_chunks() {
    let origin = echo();
    let weir = start(&origin);
    let request =
        "POST /p HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
    assert_eq!(weir.connect().ask(request).unwrap().text(), "POST /p hello");
    let head = origin.only_head();
    assert!(head.is_chunked() && !head.has("content-length"), "{}", head.raw);
}

#[test]
fn other_methods_pass() {
    let origin = echo();
    let weir = start(&origin);
    let mut client = weir.connect();
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
        let request = format!("{method} /m HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(client.ask(request).unwrap().text(), format!("{method} /m x"));
    }
}

#[test]
fn answers_without_body_keep_the_connection() {
    let origin = Origin::scripted(|exchange| match exchange.head.target() {
        "/204" => exchange.wire.send("HTTP/1.1 204 No Content\r\n\r\n").map(|()| After::Keep),
        "/304" => {
            let head = "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 99\r\n\r\n";
            exchange.wire.send(head).map(|()| After::Keep)
        }
        _ => exchange.ok("body"),
    });
    let weir = start(&origin);
    let mut client = weir.connect();
    assert_eq!(client.get("/204").unwrap().status(), 204);
    let answer = client.get("/304").unwrap();
    assert_eq!((answer.status(), answer.head.get("etag")), (304, Some("\"x\"")));
    assert_eq!(client.get("/").unwrap().text(), "body");
}

#[test]
fn statuses_and_errors_of_the_origin_are_its_own() {
    let origin = Origin::scripted(|exchange| {
        let status = exchange.head.target()[1..].to_owned();
        exchange.answer(&format!("{status} Whatever"), "", status.as_bytes())
    });
    let weir = start(&origin);
    let mut client = weir.connect();
    for status in [200, 201, 301, 400, 404, 418, 500, 502, 503, 504, 599] {
        let answer = client.get(&format!("/{status}")).unwrap();
        assert_eq!((answer.status(), answer.text()), (status, status.to_string()));
        assert!(!answer.head.has("weir-error"), "{status} is not ours");
    }
}

#[test]
fn connections_are_kept_on_both_sides() {
    let origin = echo();
    let weir = start(&origin);
    let mut client = weir.connect();
    for _ in 0..100 {
        assert_eq!(client.get("/").unwrap().status(), 200);
    }
    assert_eq!((origin.requests(), origin.connections()), (100, 1));
}

#[test]
fn upstream_connections_are_shared_by_clients_of_a_worker() {
    let origin = echo();
    let weir = start(&origin);
    for _ in 0..40 {
        assert_eq!(weir.connect().get("/").unwrap().status(), 200);
    }
    assert!(origin.connections() <= 2, "two workers, one request at a time: {} connections", origin.connections());
}

#[test]
fn large_bodies_both_ways() {
    let origin = Origin::scripted(|exchange| {
        let body = exchange.body()?;
        exchange.answer("200 OK", "", &body)
    });
    let weir = start(&origin);
    let body: Vec<u8> = (0..10_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let head = format!("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = weir.connect().ask([head.as_bytes(), &body].concat()).unwrap();
    assert_eq!(answer.head.content_length(), Some(body.len()));
    assert!(answer.body == body, "the body came back changed");
}

#[test]
fn large_chunked_answer() {
    let origin = Origin::scripted(|exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for i in 0..1000u32 {
            exchange.chunk(&[i as u8; 10_000])?;
        }
        exchange.wire.send("0\r\n\r\n")?;
        Ok(After::Keep)
    });
    let weir = start(&origin);
    let mut client = weir.connect();
    for _ in 0..2 {
        let answer = client.get("/").unwrap();
        assert_eq!(answer.body.len(), 10_000_000);
        assert!(answer.body.chunks(10_000).zip(0u32..).all(|(c, i)| c.iter().all(|b| *b == i as u8)));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn http_1_0_clients() {
    let origin = Origin::scripted(|exchange| {
        if exchange.head.target() == "/plain" {
            return exchange.ok("plain");
        }
        exchange
            .wire
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nchu\r\n4\r\nnked\r\n0\r\n\r\n")?;
        Ok(After::Keep)
    });
    let weir = start(&origin);
    for (path, body) in [("/plain", "plain"), ("/chunked", "chunked")] {
        let mut client = weir.connect();
        let answer = client.ask(format!("GET {path} HTTP/1.0\r\nHost: app.test\r\n\r\n")).unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, body));
        assert!(!answer.head.has("transfer-encoding"), "HTTP/1.0 knows no chunks: {}", answer.head.raw);
        assert!(client.is_closed_within(LIMIT), "closed after the answer");
    }
    assert!(origin.heads().iter().all(|h| h.first.ends_with("HTTP/1.1")), "weir speaks its own version");
}

#[test]
fn connection_close_is_obeyed() {
    let origin = echo();
    let weir = Weir::start(&Conf::one(origin.address).workers(1));
    let mut client = weir.connect();
    let answer = client.ask("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").unwrap();
    assert!(answer.head.closes(), "{}", answer.head.raw);
    assert!(client.is_closed_within(LIMIT));
    assert_eq!(weir.connect().get("/").unwrap().status(), 200);
    assert_eq!(origin.connections(), 1, "the client's wish does not close the connection to the origin");
}

#[test]
fn absolute_form_wins_over_host() {
    let origin = echo();
    let weir = start(&origin);
    let answer = weir.connect().ask("GET http://app.test/x?y HTTP/1.1\r\nHost: other.test\r\n\r\n").unwrap();
    assert_eq!(answer.text(), "GET /x?y");
    assert_eq!(origin.only_head().get("host"), Some("app.test"), "we send what we routed by");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = echo();
    let weir = start(&origin);
    let mut client = weir.connect();
    let request = |n| format!("GET /{n} HTTP/1.1\r\nHost: app.test\r\n\r\n");
    client.send((0..20).map(request).collect::<String>()).unwrap();
    for n in 0..20 {
        assert_eq!(client.answer(false).unwrap().text(), format!("GET /{n}"));
    }
}

#[test]
fn dot_segments_are_resolved_and_the_rest_is_kept() {
    let origin = echo();
    let weir = start(&origin);
    let mut client = weir.connect();
    for (sent, seen) in [("/a/../b", "/b"), ("/a/./b/%2e%2e/c", "/a/c"), ("//a//b", "//a//b"), ("/a%2Fb;x", "/a%2Fb;x")]
    {
        assert_eq!(client.get(sent).unwrap().text(), format!("GET {seen}"), "{sent}");
    }
}

#[test]
fn expect_100_continue() {
    let origin = echo();
    let weir = start(&origin);
    let mut client = weir.connect();
    client.send("POST /e HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").unwrap();
    assert_eq!(client.head().unwrap().status(), 100);
    client.send("body").unwrap();
    assert_eq!(client.answer(false).unwrap().text(), "POST /e body");
}

#[test]
fn an_idle_weir_holds_no_request() {
    let origin = echo();
    let weir = start(&origin);
    let clients: Vec<Connection> = (0..10).map(|_| weir.connect()).collect();
    for mut client in clients {
        assert_eq!(client.get("/").unwrap().status(), 200);
    }
    wait_until("nothing is in flight", || {
        weir.admin.shop()["versions"][0]["endpoints"][0]["in_flight"].as_u64() == Some(0)
    });
}
