//! Interim answers (1xx): hints pass, and a client that asks first sends only once its origin agrees.

use std::time::Duration;

use crate::support::h2wire::H2;
use crate::support::{After, Conf, Connection, Exchange, Gate, Instant, LIMIT, Origin, Weir};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-own\r\nX-Own: 1\r\n\r\n";
const ASKS: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

/// Hints, and the answer once the gate lets it.
fn hinting(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::scripted(move |exchange| {
        exchange.wire.send("HTTP/1.1 102 Processing\r\n\r\n")?;
        exchange.wire.send(HINTS)?;
        gate.wait();
        exchange.ok("final")
    })
}

#[test]
fn hints_pass_before_the_answer_is_there() {
    let gate = Gate::default();
    let origin = hinting(&gate);
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    for turn in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
        assert_eq!(client.head().unwrap().status(), 102, "turn {turn}");
        let hints = client.head().unwrap();
        assert_eq!((hints.status(), hints.get("link")), (103, Some("</a.css>; rel=preload")));
        assert!(!hints.has("x-own") && !hints.has("connection"), "{}", hints.raw);
        gate.let_one();
        assert_eq!(client.answer(false).unwrap().text(), "final");
    }
    assert_eq!(origin.connections(), 1, "such connections are as good as others");
}

#[test]
fn old_clients_get_none() {
    let gate = Gate::default();
    gate.open();
    let origin = hinting(&gate);
    let weir = Weir::start(&Conf::one(origin.address));
    let answer = weir.connect().ask("GET / HTTP/1.0\r\nHost: app.test\r\n\r\n").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "final"));
}

#[test]
fn hints_pass_over_http_2() {
    let gate = Gate::default();
    gate.open();
    let origin = hinting(&gate);
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = H2::open(weir.web(), &[]).unwrap();
    client.get(1, "/").unwrap();
    assert_eq!(client.outcome(1).status(), Some(200));
    let fields = client.interim(1);
    let of = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    // `link` is entry 45 of the static table, which the raw client does not spell out.
    assert_eq!((of(":status"), of("#45")), (vec!["102", "103"], vec!["</a.css>; rel=preload"]));
}

/// True if nothing has come for a while.
fn is_silent(wire: &mut Connection) -> bool {
    !wire.is_closed_within(Duration::from_millis(200)) && wire.left_over().is_empty()
}

#[test]
fn nothing_of_a_body_is_sent_before_the_origin_agrees() {
    let gate = Gate::default();
    let theirs = gate.clone();
    let origin = Origin::scripted(move |exchange| {
        assert_eq!(exchange.head.get("expect"), Some("100-continue"));
        if !is_silent(exchange.wire) {
            return exchange.answer("500 Internal Server Error", "", b"the body came unasked");
        }
        theirs.wait();
        exchange.wire.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        let body = exchange.body()?;
        exchange.answer("200 OK", "", &body)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    // One that waits hears nothing of its own accord from weir.
    let mut patient = weir.connect();
    patient.send(ASKS).unwrap();
    assert!(is_silent(&mut patient));
    gate.let_one();
    assert_eq!(patient.head().unwrap().status(), 100);
    patient.send("body").unwrap();
    assert_eq!(patient.answer(false).unwrap().text(), "body");
    // One that does not wait is held back all the same. Whether it is still told to go on is a matter of taste.
    let mut hasty = weir.connect();
    hasty.send(format!("{ASKS}body")).unwrap();
    gate.let_one();
    let head = hasty.head().unwrap();
    let head = if head.status() == 100 { hasty.head().unwrap() } else { head };
    assert_eq!((head.status(), hasty.body(&head).unwrap()), (200, b"body".to_vec()));
}

#[test]
fn a_refusal_comes_without_the_body_and_ends_both_connections() {
    let (released, theirs) = (Gate::default(), Gate::default());
    let gate = theirs.clone();
    let told = released.clone();
    let origin = Origin::scripted(move |exchange: &mut Exchange<'_>| {
        exchange.answer("417 Expectation Failed", "", b"no")?;
        if exchange.wire.is_closed_within(LIMIT) && exchange.wire.left_over().is_empty() {
            told.open();
        }
        gate.wait();
        Ok(After::Close)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    let answer = client.ask(ASKS).unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (417, "no"));
    assert!(client.is_closed_within(LIMIT), "what follows could be the body or another request");
    assert!(released.wait(), "the origin's connection ends, and nothing of the body was sent");
    theirs.open();
}

#[test]
fn an_origin_that_never_agrees_gets_the_body_after_a_second() {
    let origin = Origin::scripted(|exchange| {
        let body = exchange.body()?;
        exchange.answer("200 OK", "", &body)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    let began = Instant::now();
    client.send(ASKS).unwrap();
    assert_eq!(client.head().unwrap().status(), 100);
    assert!((900..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    client.send("body").unwrap();
    assert_eq!(client.answer(false).unwrap().text(), "body");
}

#[test]
fn an_old_client_that_asks_is_not_answered_with_100() {
    let origin = Origin::scripted(|exchange| {
        assert!(!exchange.head.has("expect"), "HTTP/1.0 has no such thing");
        let body = exchange.body()?;
        exchange.answer("200 OK", "", &body)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let old = ASKS.replace("HTTP/1.1", "HTTP/1.0") + "body";
    let answer = weir.connect().ask(old).unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "body"));
}
