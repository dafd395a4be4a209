//! Bodies flow while they are made, with back-pressure, and an end that was cut never looks like an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{After, Conf, Connection, Failure, Gate, Instant, LIMIT, Origin, Weir, wait_for, wait_until};

#[test]
fn the_first_chunk_of_a_request_arrives_before_the_last_is_sent() {
    let arrived = Gate::default();
    let theirs = arrived.clone();
    let origin = Origin::scripted(move |exchange| {
        assert_eq!(exchange.wire.chunk()?.as_deref(), Some(&b"first"[..]));
        theirs.open();
        let rest = exchange.wire.body(&exchange.head)?;
        exchange.answer("200 OK", "", &rest)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
    assert!(arrived.wait(), "the first chunk has not arrived");
    client.send("4\r\nlast\r\n0\r\n\r\n").unwrap();
    assert_eq!(client.answer(false).unwrap().text(), "last");
}

#[test]
fn the_first_bytes_of_a_request_with_a_length_arrive_before_the_last_are_sent() {
    let arrived = Gate::default();
    let theirs = arrived.clone();
    let origin = Origin::scripted(move |exchange| {
        exchange.wire.take(5)?;
        theirs.open();
        let rest = exchange.wire.take(4)?;
        exchange.answer("200 OK", "", &rest)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n\r\nfirst").unwrap();
    assert!(arrived.wait(), "the first bytes have not arrived");
    client.send("last").unwrap();
    assert_eq!(client.answer(false).unwrap().text(), "last");
}

#[test]
fn the_first_chunk_of_an_answer_arrives_before_the_last_is_sent() {
    let arrived = Gate::default();
    let theirs = arrived.clone();
    let origin = Origin::scripted(move |exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        exchange.chunk(b"first")?;
        if theirs.wait() {
            exchange.chunk(b"last")?;
            exchange.wire.send("0\r\n\r\n")?;
        }
        Ok(After::Keep)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    let head = client.head().unwrap();
    assert!(head.is_chunked());
    assert_eq!(client.chunk().unwrap().as_deref(), Some(&b"first"[..]));
    arrived.open();
    assert_eq!(client.body(&head).unwrap(), b"last");
}

#[test]
fn an_answer_without_any_framing_ends_with_the_connection() {
    let origin = Origin::scripted(|exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\n\r\nuntil the end")?;
        Ok(After::Close)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    assert_eq!(weir.connect().get("/").unwrap().text(), "until the end");
}

#[test]
fn a_client_that_does_not_read_stops_the_origin() {
    let sent = Arc::new(AtomicUsize::new(0));
    let theirs = sent.clone();
    let origin = Origin::scripted(move |exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let block = vec![b'x'; 64 * 1024];
        while theirs.load(Ordering::SeqCst) < 256 << 20 {
            exchange.chunk(&block)?;
            theirs.fetch_add(block.len(), Ordering::SeqCst);
        }
        exchange.wire.send("0\r\n\r\n")?;
        Ok(After::Close)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    client.head().unwrap();
    let mut last = (0, Instant::now());
    wait_for("the origin stands still", || {
        let now = sent.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > Duration::from_millis(500)).then_some(())
    });
    assert!(last.0 < 64 << 20, "{} bytes went into a client that does not read", last.0);
}

/// The origin tells when its side of the connection ends.
fn origin_that_watches(head: &'static str, released: &Gate) -> Origin {
    let released = released.clone();
    Origin::scripted(move |exchange| {
        exchange.wire.send(head)?;
        if exchange.wire.is_closed_within(LIMIT) {
            released.open();
        }
        Ok(After::Close)
    })
}

#[track_caller]
fn assert_released_after_client_leaves(answer_so_far: &'static str) {
    let released = Gate::default();
    let origin = origin_that_watches(answer_so_far, &released);
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    if answer_so_far.is_empty() {
        wait_until("the request is at the origin", || origin.requests() == 1);
    } else {
        client.head().unwrap();
    }
    let left = Instant::now();
    drop(client);
    assert!(released.wait(), "the origin's connection was never released");
    assert!(left.elapsed() < Duration::from_secs(if crate::support::soak() { 1 } else { 5 }), "{:?}", left.elapsed());
    wait_until("nothing is in flight", || {
        weir.admin.shop()["versions"][0]["endpoints"][0]["in_flight"].as_u64() == Some(0)
    });
}

#[test]
fn a_client_gone_before_the_answer_releases_the_origin() {
    assert_released_after_client_leaves("");
}

#[test]
fn a_client_gone_inside_the_answer_releases_the_origin() {
    assert_released_after_client_leaves("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
}

#[test]
fn a_cut_upload_is_never_completed() {
    let outcome = Arc::new(std::sync::Mutex::new(None));
    let theirs = outcome.clone();
    let origin = Origin::scripted(move |exchange| {
        let body = exchange.body();
        *theirs.lock().unwrap() = Some(body.clone());
        body.map(|_| After::Close)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    for framing in ["Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n", "Content-Length: 100\r\n\r\nfirst"] {
        let before = origin.requests();
        let mut client = weir.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: app.test\r\n{framing}")).unwrap();
        wait_until("the request is at the origin", || origin.requests() > before);
        drop(client);
        let body = wait_for("the origin sees the end", || outcome.lock().unwrap().take());
        assert!(body.is_err(), "{framing:?} looked complete: {body:?}");
    }
}

/// The origin sends this and closes (or resets); gives what the client sees.
fn seen_of(answer: &'static str, after: After) -> Result<Vec<u8>, Failure> {
    let origin = Origin::scripted(move |exchange| {
        exchange.wire.send(answer)?;
        Ok(after)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = Connection::open(weir.web())?;
    client.get("/").map(|a| a.body)
}

#[test]
fn a_cut_answer_is_visibly_cut() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst";
    for (answer, after) in [
        (chunked, After::Close),
        (chunked, After::Reset),
        (length, After::Close),
        (length, After::Reset),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\nzz\r\n", After::Close),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nfirst", After::Close),
    ] {
        let seen = seen_of(answer, after);
        assert!(seen.is_err(), "{answer:?} with {after:?} looked complete: {seen:?}");
    }
}
