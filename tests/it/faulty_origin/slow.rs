//! Origins that take their time: heads, interim answers and bodies that trickle or stop.

use std::time::Duration;

use super::{assert_idle, final_answer, post};
use crate::support::{After, Conf, Exchange, Failure, Instant, LIMIT, Origin, Weir};

/// Sends piece by piece, `pace` apart, until the other side has enough of it.
fn trickle(exchange: &mut Exchange<'_>, piece: &[u8], pace: Duration) -> Result<After, Failure> {
    loop {
        exchange.wire.send(piece)?;
        // The pace is the fault itself; nothing is awaited by it.
        if exchange.wire.is_closed_within(pace) {
            return Ok(After::Close);
        }
    }
}

/// `first_byte` is for the whole head: a byte now and then does not extend it.
#[test]
fn a_head_that_trickles() {
    let origin = Origin::scripted(|exchange| {
        exchange.body()?;
        exchange.wire.send("HTTP/1.1 200 OK\r\nX: ")?;
        trickle(exchange, b"y", Duration::from_millis(20))
    });
    let weir = Weir::start(&Conf::one(origin.address).split("timeouts = { first_byte = \"500ms\" }"));
    let began = Instant::now();
    let answer = weir.connect().ask(post("/")).unwrap();
    assert_eq!((answer.status(), answer.head.get("weir-error")), (504, Some("timeout")), "{}", answer.head.raw);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    weir.admin.wait_metric("weir_errors_total", &[("version", "v1"), ("reason", "timeout")], 1.0);
    assert_idle(&weir, &origin);
}

/// Interim answers do not extend it either.
#[test]
fn interim_answers_that_trickle() {
    let origin = Origin::scripted(|exchange| {
        exchange.body()?;
        trickle(exchange, b"HTTP/1.1 103 Early Hints\r\n\r\n", Duration::from_millis(100))
    });
    let weir = Weir::start(&Conf::one(origin.address).split("timeouts = { first_byte = \"500ms\" }"));
    let last = final_answer(&mut weir.connect(), &post("/")).unwrap();
    assert!(matches!(last.status(), 502 | 504), "{}", last.head.raw);
    assert_idle(&weir, &origin);
}

#[test]
fn an_origin_silent_inside_a_body_is_cut_after_stall() {
    let origin = Origin::scripted(|exchange| {
        exchange.body()?;
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        exchange.chunk(b"first")?;
        exchange.wire.is_closed_within(2 * LIMIT);
        Ok(After::Close)
    });
    let weir = Weir::start(&Conf::one(origin.address).split("timeouts = { stall = \"300ms\" }"));
    let mut client = weir.connect();
    let began = Instant::now();
    let failure = client.ask(post("/")).unwrap_err();
    assert!(matches!(failure, Failure::Cut(_) | Failure::ClosedBeforeHead), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    weir.admin.wait_metric("weir_errors_total", &[("version", "v1"), ("reason", "timeout")], 1.0);
    assert_idle(&weir, &origin);
}

/// A stream that is slow but alive lives: what counts is the silence, not the length.
#[test]
fn a_body_that_trickles_faster_than_stall_is_whole() {
    let origin = Origin::scripted(|exchange| {
        exchange.body()?;
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..20 {
            exchange.chunk(b"x")?;
            exchange.wire.is_closed_within(Duration::from_millis(100));
        }
        exchange.wire.send("0\r\n\r\n")?;
        Ok(After::Keep)
    });
    let weir = Weir::start(&Conf::one(origin.address).split("timeouts = { stall = \"1500ms\" }"));
    assert_eq!(weir.connect().ask(post("/")).unwrap().text(), "x".repeat(20));
}
