//! Origins that misbehave: what they send beside the point is never seen, and their connections are not used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{After, Conf, Origin, Weir};

/// First answers `odd` on each path `/odd`, then properly; gives what two requests in a row see.
fn odd_then_fine(odd: &'static str) -> (crate::support::Answer, Origin) {
    let origin = Origin::scripted(move |exchange| {
        if exchange.head.target() == "/odd" {
            exchange.wire.send(odd)?;
            return Ok(After::Keep);
        }
        exchange.ok("fine")
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    let first = client.get("/odd").unwrap();
    let mut next = if first.head.closes() { weir.connect() } else { client };
    let second = next.get("/").unwrap();
    assert_eq!((second.status(), second.text().as_str()), (200, "fine"), "after {odd:?}");
    assert_eq!(origin.connections(), 2, "the odd connection was used again after {odd:?}");
    (first, origin)
}

#[test]
fn bytes_behind_an_answer_reach_nobody() {
    let (first, _) =
        odd_then_fine("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    assert_eq!(first.text(), "ok");
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    for odd in [
        "complete nonsense\r\n\r\n",
        "HTTP/1.1 99 Too Low\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 1000 Too High\r\nContent-Length: 0\r\n\r\n",
        "HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let (first, _) = odd_then_fine(odd);
        assert_eq!(first.status(), 502, "{odd:?}: {}", first.head.raw);
        assert_eq!(first.head.get("weir-error"), Some("upstream-protocol"), "{odd:?}");
    }
}

#[test]
fn both_framings_in_an_answer() {
    let (first, _) = odd_then_fine(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n",
    );
    assert!(first.status() == 502 || (first.text() == "whole" && !first.head.has("content-length")), "{first:?}");
}

#[test]
fn an_origin_that_says_close_is_not_asked_again() {
    let (first, _) = odd_then_fine("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye");
    assert_eq!(first.text(), "bye");
    assert!(!first.head.closes(), "the origin's wish is not the client's business");
}

#[test]
fn an_early_answer_is_passed_on_and_the_connection_left() {
    let origin = Origin::scripted(|exchange| {
        if exchange.head.method() == "POST" {
            return exchange.answer("413 Too Large", "", b"no");
        }
        exchange.ok("fine")
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000\r\n\r\nonly the beginning").unwrap();
    let answer = client.answer(false).unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "no"));
    drop(client);
    assert_eq!(weir.connect().get("/").unwrap().text(), "fine");
    assert_eq!(origin.connections(), 2, "half a request was sent on the first");
}

#[test]
fn interim_answers_do_not_confuse() {
    let origin = Origin::scripted(|exchange| {
        exchange.wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")?;
        exchange.ok("final")
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    let mut answer = client.answer(false).unwrap();
    while answer.status() < 200 {
        answer = client.answer(false).unwrap();
    }
    assert_eq!(answer.text(), "final");
}

/// The idle race: the origin closes after each answer without a word, so every pooled connection may be stale.
#[test]
fn stale_pooled_connections_fail_no_get() {
    let origin = Origin::scripted(|exchange| exchange.ok("v1").map(|_| After::Close));
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    for n in 0..200 {
        let answer = client.get("/").unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "v1"), "request {n}");
    }
}

/// The same race with the request already written: the origin takes it and closes without a byte of an answer. On a
/// reused connection an idempotent request is sent once more, on a fresh one, and that is on nobody's books.
#[test]
fn a_get_that_met_the_end_of_a_reused_connection_is_sent_once_more() {
    let seen = AtomicUsize::new(0);
    let origin = Origin::scripted(move |exchange| match seen.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => exchange.ok("v1"),
        _ => Ok(After::Close),
    });
    let weir = Weir::start(&Conf::one(origin.address).workers(1));
    let mut client = weir.connect();
    for n in 0..10 {
        let answer = client.get("/").unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "v1"), "request {n}");
    }
    assert_eq!((origin.requests(), origin.connections()), (19, 10));
    weir.admin.wait_metric("weir_requests_total", &[("version", "v1"), ("code", "200")], 10.0);
    assert_eq!(weir.admin.metric("weir_errors_total", &[("version", "v1")]).unwrap_or_default(), 0.0);
}

#[test]
fn a_post_is_never_sent_twice() {
    let seen = Arc::new(AtomicUsize::new(0));
    let theirs = seen.clone();
    let origin = Origin::scripted(move |exchange| {
        exchange.body()?;
        if exchange.head.method() == "POST" {
            theirs.fetch_add(1, Ordering::SeqCst);
            return Ok(After::Close);
        }
        exchange.ok("warm")
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    for n in 1..=20 {
        assert_eq!(client.get("/").unwrap().text(), "warm", "a pooled connection stands ready");
        let answer = client.ask("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!(answer.status(), 502);
        assert_eq!(seen.load(Ordering::SeqCst), n, "it was written, so it is not repeated");
    }
}

#[test]
fn connections_idle_for_too_long_are_closed() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).split("timeouts = { idle = \"300ms\" }"));
    assert_eq!(weir.connect().get("/").unwrap().status(), 200);
    crate::support::wait_until("the pooled connection is closed", || origin.open() == 0);
}
