//! The process goes down as it should: nobody who was accepted is lost.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Conf, Connection, Failure, Gate, LIMIT, Load, Origin, Plan, Weir, pair, times, wait_until};

#[test]
fn term_under_load_loses_nobody() {
    for _ in 0..times(2, 30) {
        let (v1, v2) = pair();
        let mut weir = Weir::start(&Conf::two((90, v1.address), (10, v2.address)));
        let pace = (!crate::support::soak()).then_some(Duration::from_millis(1));
        let load = Load::start(&Plan { address: weir.web(), connections: times(16, 64), pace, until_refused: true });
        load.wait_for_more(200);
        weir.signal(Signal::TERM);
        let status = weir.wait_exit(Duration::from_secs(30));
        assert_eq!(status.code(), Some(0), "{status}");
        wait_until("every client is refused at last", || load.is_over());
        load.stop().expect_no_failure();
    }
}

/// Clients that connect anew for each request meet the accept queue.
#[test]
fn term_loses_nobody_in_the_accept_queue() {
    let origin = Origin::named("v1");
    for _ in 0..times(2, 30) {
        let mut weir = Weir::start(&Conf::one(origin.address));
        let address = weir.web();
        let client = move || {
            let mut served = 0;
            loop {
                match Connection::open(address) {
                    Err(Failure::Refused) => return served,
                    Err(failure) => panic!("{failure}"),
                    Ok(mut connection) => {
                        let answer = connection.ask("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
                        assert_eq!(answer.expect("an accepted request is answered").status(), 200);
                        served += 1;
                    }
                }
            }
        };
        let clients: Vec<_> = (0..16).map(|_| std::thread::spawn(client)).collect();
        let before = origin.requests();
        wait_until("they are at it", || origin.requests() > before + 200);
        weir.signal(Signal::TERM);
        assert_eq!(weir.wait_exit(Duration::from_secs(30)).code(), Some(0));
        assert!(clients.into_iter().map(|c| c.join().unwrap()).sum::<usize>() > 200);
    }
}

#[test]
fn slow_requests_finish_before_the_exit() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let mut weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    client.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    wait_until("it is at the origin", || gate.waiting() == 1);
    weir.signal(Signal::TERM);
    wait_until("nobody new is accepted", || Connection::open(weir.web()).is_err());
    assert!(weir.exited().is_none(), "one request is in flight");
    gate.open();
    let answer = client.answer(false).unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "v1"));
    assert!(answer.head.closes(), "{}", answer.head.raw);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
}

/// faults.md section 4.2: a request already on its way on an idle connection is answered, not lost.
#[test]
fn an_idle_connection_is_served_once_more() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let mut weir = Weir::start(&Conf::one(origin.address));
    let mut held = weir.connect();
    let mut idle = weir.connect();
    assert_eq!(idle.get("/").unwrap().status(), 200);
    held.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    wait_until("it is at the origin", || gate.waiting() == 1);
    weir.signal(Signal::TERM);
    wait_until("nobody new is accepted", || Connection::open(weir.web()).is_err());
    let answer = idle.get("/").unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.head.closes(), "{}", answer.head.raw);
    gate.open();
    assert_eq!(held.answer(false).unwrap().status(), 200);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn not_ready_but_serving_during_the_delay() {
    let origin = Origin::named("v1");
    let conf = Conf::one(origin.address).top("shutdown = { delay = \"2s\", timeout = \"10s\" }");
    let mut weir = Weir::start(&conf);
    assert_eq!(weir.admin.get("/readyz").status(), 200);
    assert_eq!(weir.admin.get("/livez").status(), 200);
    weir.signal(Signal::TERM);
    wait_until("not ready", || weir.admin.get("/readyz").status() == 503);
    assert_eq!(weir.connect().get("/").unwrap().status(), 200, "new connections are served during the delay");
    assert_eq!(weir.admin.get("/livez").status(), 200);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn the_timeout_ends_what_does_not_end() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let mut weir = Weir::start(&Conf::one(origin.address).top("shutdown = { timeout = \"500ms\" }"));
    let mut client = weir.connect();
    client.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    wait_until("it is at the origin", || gate.waiting() == 1);
    weir.signal(Signal::TERM);
    assert_eq!(weir.wait_exit(Duration::from_secs(10)).code(), Some(0));
    match client.answer(false) {
        Ok(answer) => assert!(answer.status() >= 500, "{}", answer.head.raw),
        Err(failure) => assert_eq!(failure, Failure::ClosedBeforeHead),
    }
    gate.open();
}

#[test]
fn a_second_term_ends_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let gate = Gate::default();
        let origin = Origin::gated("v1", &gate);
        let mut weir = Weir::start(&Conf::one(origin.address).top("shutdown = { timeout = \"1h\" }"));
        let mut client = weir.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
        wait_until("it is at the origin", || gate.waiting() == 1);
        weir.signal(Signal::TERM);
        wait_until("nobody new is accepted", || Connection::open(weir.web()).is_err());
        assert!(weir.exited().is_none());
        weir.signal(second);
        weir.wait_exit(Duration::from_secs(5));
        gate.open();
    }
}

#[test]
fn int_and_quit_end_an_idle_weir() {
    let origin = Origin::named("v1");
    let mut weir = Weir::start(&Conf::one(origin.address));
    weir.signal(Signal::INT);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    let mut weir = Weir::start(&Conf::one(origin.address));
    weir.signal(Signal::QUIT);
    weir.wait_exit(Duration::from_secs(5));
}

#[test]
fn hup_never_ends_the_process() {
    let origin = Origin::named("v1");
    let mut weir = Weir::start(&Conf::one(origin.address));
    for _ in 0..5 {
        weir.signal(Signal::HUP);
        assert_eq!(weir.connect().get("/").unwrap().status(), 200);
    }
    assert!(weir.exited().is_none());
}
