//! Origins that answer before they have the request's body.

use std::time::Duration;

use super::assert_idle;
use crate::support::{After, Conf, Failure, Gate, Instant, Origin, Weir, wait_until};

/// Answers as soon as it has the head; the body is read once the gate opens.
fn early_origin(reads: &Gate) -> Origin {
    let reads = reads.clone();
    Origin::scripted(move |exchange| {
        if exchange.head.target() != "/early" {
            exchange.body()?;
            return exchange.ok("fine");
        }
        exchange.answer("413 Too Large", "", b"no")?;
        reads.wait();
        if exchange.head.has("content-length") {
            return exchange.body().map(|_| After::Keep);
        }
        while exchange.wire.chunk()?.is_some() {}
        Ok(After::Keep)
    })
}

/// The answer is forwarded at once. A client that then ends its upload is in step again or told to go.
#[test]
fn an_early_answer_to_an_upload_that_ends() {
    let reads = Gate::default();
    reads.open();
    let origin = early_origin(&reads);
    let weir = Weir::start(&Conf::one(origin.address).workers(1));
    let mut client = weir.connect();
    client.send("POST /early HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nfirst").unwrap();
    let answer = client.answer(false).unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "no"));
    assert!(!answer.head.has("weir-error"), "{}", answer.head.raw);
    let _ = client.send("last.");
    match client.get("/") {
        Ok(next) => assert_eq!(next.text(), "fine"),
        Err(failure) => assert!(matches!(failure, Failure::ClosedBeforeHead | Failure::Send(_)), "{failure}"),
    }
    drop(client);
    assert_eq!(weir.connect().get("/").unwrap().text(), "fine");
    assert_eq!(
        weir.admin.metric("weir_errors_total", &[("version", "v1"), ("reason", "reset")]).unwrap_or_default(),
        0.0
    );
}

/// A client that goes on and on is not read for ever after its answer, whether the origin would take it or not.
#[test]
fn an_early_answer_to_an_upload_that_does_not_end() {
    for reads_on in [false, true] {
        let gate = Gate::default();
        if reads_on {
            gate.open();
        }
        let origin = early_origin(&gate);
        let weir = Weir::start(&Conf::one(origin.address).workers(1));
        let mut client = weir.connect();
        let first = "POST /early HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        client.send(first).unwrap();
        let answer = client.answer(false).unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (413, "no"));
        let block = [b"10000\r\n".to_vec(), vec![b'x'; 1 << 16], b"\r\n".to_vec()].concat();
        let (began, mut sent) = (Instant::now(), 0);
        while client.send(&block).is_ok() {
            sent += block.len();
            assert!(began.elapsed() < Duration::from_secs(10), "{sent} bytes, and no end (origin reads: {reads_on})");
        }
        drop(client);
        gate.open();
        wait_until("the early connection is given up", || origin.open() == 0);
        assert_idle(&weir, &origin);
        assert_eq!(weir.connect().get("/").unwrap().text(), "fine");
    }
}
