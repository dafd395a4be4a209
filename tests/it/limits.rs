//! Limits of a listener on what one client may send, hold and wait for; nothing that was refused is ever completed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::h2wire::{END_STREAM, Frame, H2, Outcome};
use crate::support::{
    After, Answer, Authority, Conf, Connection, Failure, Gate, LIMIT, Origin, Weir, hpack, wait_until,
};

const LIMITED: &str = "limits = { body_bytes = \"1KiB\" }";

/// Answers whole bodies with their length; opens the gate when one is cut.
fn counting(cut: &Gate) -> Origin {
    let cut = cut.clone();
    Origin::scripted(move |exchange| match exchange.body() {
        Ok(body) => exchange.ok(&body.len().to_string()),
        Err(failure) => {
            cut.open();
            Err(failure)
        }
    })
}

/// Counts the bodies it has whole.
fn whole(count: &Arc<AtomicUsize>) -> Origin {
    let count = count.clone();
    Origin::scripted(move |exchange| {
        let body = exchange.body()?;
        count.fetch_add(1, Ordering::SeqCst);
        exchange.ok(&body.len().to_string())
    })
}

#[track_caller]
fn assert_too_large(answer: &Answer) {
    assert_eq!((answer.status(), answer.head.get("weir-error")), (413, Some("body-too-large")), "{}", answer.head.raw);
    assert!(answer.head.closes());
}

fn refused(weir: &Weir, reason: &str) -> f64 {
    weir.admin.count("weir_refused_requests_total", &[("listener", "web"), ("reason", reason)])
}

fn chunked(bytes: usize) -> String {
    let chunk = format!("100\r\n{}\r\n", "x".repeat(256));
    format!(
        "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(bytes / 256)
    )
}

#[test]
fn an_announced_body_over_the_limit_is_refused_before_it_is_read() {
    let cut = Gate::default();
    let origin = counting(&cut);
    let weir = Weir::start(&Conf::one(origin.address).web(LIMITED));
    let mut client = weir.connect();
    assert_too_large(&client.ask("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1025\r\n\r\n").unwrap());
    let asks = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1025\r\nExpect: 100-continue\r\n\r\n";
    assert_too_large(&weir.connect().ask(asks).unwrap());
    assert_eq!((origin.connections(), origin.requests()), (0, 0), "nobody was asked");
    let exact = format!("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1024\r\n\r\n{}", "x".repeat(1024));
    assert_eq!(weir.connect().ask(exact).unwrap().text(), "1024");
    wait_until("they are counted", || refused(&weir, "body-too-large") == 2.0);
    assert_eq!(weir.admin.count("weir_errors_total", &[]), 0.0, "no version is to blame");
}

#[test]
fn a_body_that_grows_over_the_limit_is_cut_upstream_and_never_completed() {
    let cut = Gate::default();
    let origin = counting(&cut);
    let weir = Weir::start(&Conf::one(origin.address).web(LIMITED));
    assert_eq!(weir.connect().ask(chunked(1024)).unwrap().text(), "1024");
    let mut client = weir.connect();
    assert_too_large(&client.ask(chunked(4096)).unwrap());
    assert!(client.is_closed_within(LIMIT));
    assert!(cut.wait(), "the origin took the request for whole");
    wait_until("it is counted", || refused(&weir, "body-too-large") == 1.0);
    assert_eq!(weir.connect().ask(chunked(256)).unwrap().text(), "256", "nothing of it is left");
}

#[test]
fn the_same_over_http_2() {
    let count = Arc::default();
    let origin = whole(&count);
    let weir = Weir::start(&Conf::one(origin.address).web(LIMITED));
    let mut client = H2::open(weir.web(), &[]).unwrap();
    let head = |length: Option<&str>| {
        let mut fields = vec![(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "app.test")];
        fields.extend(length.map(|length| ("content-length", length)));
        hpack::block(&fields)
    };
    client.send(&Frame::headers(1, 0, head(Some("1025")))).unwrap();
    assert_eq!(client.outcome(1).status(), Some(413));
    assert_eq!(origin.requests(), 0);
    client.send(&Frame::headers(3, 0, head(None))).unwrap();
    client.send(&Frame::data(3, 0, vec![b'x'; 1024])).unwrap();
    client.send(&Frame::data(3, END_STREAM, vec![b'x'; 1])).unwrap();
    assert_eq!(client.outcome(3).status(), Some(413));
    // Whether its head had gone upstream by then or not.
    wait_until("what was begun is over", || origin.open() == 0);
    client.send(&Frame::headers(5, 0, head(None))).unwrap();
    client.send(&Frame::data(5, END_STREAM, vec![b'x'; 1024])).unwrap();
    assert_eq!(client.outcome(5), Outcome::Answered { status: 200, body: b"1024".to_vec() }, "other streams go on");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_client_that_stops_sending_is_told_and_the_upload_aborted() {
    let cut = Gate::default();
    let origin = counting(&cut);
    let weir = Weir::start(&Conf::one(origin.address).web("timeouts = { body = \"400ms\" }"));
    let heads = ["Content-Length: 9\r\n\r\nfirst", "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"];
    for (n, head) in heads.iter().enumerate() {
        let mut client = weir.connect();
        let answer = client.ask(format!("POST /{n} HTTP/1.1\r\nHost: app.test\r\n{head}")).unwrap();
        assert_eq!((answer.status(), answer.head.get("weir-error")), (408, Some("client-timeout")));
        assert!(client.is_closed_within(LIMIT));
        assert_eq!(weir.line_of(&format!("/{n}"))["status"], 408);
    }
    assert!(cut.wait(), "the origin took the request for whole");
    wait_until("both are counted", || refused(&weir, "client-timeout") == 2.0);
    wait_until("the origin is released", || origin.open() == 0);
    assert_eq!(weir.admin.count("weir_errors_total", &[]), 0.0, "no version is to blame");
    // Slow, but never silent for so long.
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 8\r\n\r\n").unwrap();
    for _ in 0..8 {
        assert!(!client.is_closed_within(Duration::from_millis(100)), "closed in the middle");
        client.send("x").unwrap();
    }
    assert_eq!(client.answer(false).unwrap().text(), "8");
}

#[test]
fn a_client_that_stops_reading_is_cut_after_its_time() {
    let released = Gate::default();
    let theirs = released.clone();
    let origin = Origin::scripted(move |exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        while exchange.chunk(&vec![b'x'; 64 * 1024]).is_ok() {}
        theirs.open();
        Ok(After::Close)
    });
    let weir = Weir::start(&Conf::one(origin.address).web("timeouts = { body = \"400ms\" }"));
    let mut client = weir.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    let head = client.head().unwrap();
    assert!(released.wait(), "the origin was never released");
    let end = client.body(&head);
    assert!(matches!(end, Err(Failure::Cut(_) | Failure::ClosedBeforeHead)), "a visible cut");
    let line = weir.line_of("/slow");
    assert_eq!(line["status"], 499, "the client's doing: {line}");
    weir.admin.wait_requests("v1", 1);
    assert_eq!(weir.admin.count("weir_errors_total", &[]), 0.0);
}

#[test]
fn limits_hold_over_tls_as_well() {
    let cut = Gate::default();
    let origin = counting(&cut);
    let authority = Authority::new();
    let secure = "[listeners.secure]\nbind = \"127.0.0.1:0\"\n\
                  limits = { header_bytes = \"8KiB\", body_bytes = \"1KiB\" }\ntimeouts = { header = \"400ms\", body = \"400ms\" }\n\
                  tls = { certificates = [{ cert = \"app.pem\", key = \"app.key\" }] }";
    let conf = Conf::one(origin.address).tail(secure);
    let weir = Weir::start_with(&conf, &[("app", &authority.sign("app.test"))], &[]);
    let trusting = authority.client(None);
    let connect = || Connection::open_tls(weir.listener("secure"), &trusting, "app.test").unwrap();
    let big = "x".repeat(20_000);
    let answer = connect().ask(format!("GET / HTTP/1.1\r\nHost: app.test\r\nX: {big}\r\n\r\n")).unwrap();
    assert_eq!(answer.status(), 431);
    assert_too_large(&connect().ask(chunked(4096)).unwrap());
    let answer = connect().ask("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n\r\nfirst").unwrap();
    assert_eq!(answer.status(), 408);
    let mut slow = connect();
    slow.send("GET / HTTP/1.1\r\nHost: ap").unwrap();
    match slow.answer(false) {
        Ok(answer) => assert_eq!(answer.status(), 408),
        Err(failure) => assert_eq!(failure, Failure::ClosedBeforeHead),
    }
    assert_eq!(connect().ask(chunked(1024)).unwrap().text(), "1024");
}
