//! Retries: another endpoint of the same version, only what may be repeated, within the budget, and never hidden from
//! the books (amendments.md 1.4 and 1.5).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{
    Admin, After, Answer, Conf, Connection, Exchange, Failure, Gate, Instant, Origin, Weir, free_address, times,
    wait_until,
};

const POST: &str = "POST /post HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello";

/// Two endpoints, each with its own fault, which only the first of them to be asked shows.
struct Twice {
    origins: [Origin; 2],
}

impl Twice {
    /// The first request to either gets `first`, all later ones `later`.
    fn new(
        first: impl Fn(&mut Exchange<'_>) -> Result<After, Failure> + Send + Sync + 'static,
        later: impl Fn(&mut Exchange<'_>) -> Result<After, Failure> + Send + Sync + 'static,
    ) -> Self {
        let (asked, first, later) = (Arc::new(AtomicUsize::new(0)), Arc::new(first), Arc::new(later));
        let origin = || {
            let (asked, first, later) = (asked.clone(), first.clone(), later.clone());
            Origin::scripted(move |exchange| match asked.fetch_add(1, Ordering::SeqCst) {
                0 => first(exchange),
                _ => later(exchange),
            })
        };
        Self { origins: [origin(), origin()] }
    }

    fn conf(&self) -> Conf {
        Conf::shop(&[("v1", 1, &[self.origins[0].address, self.origins[1].address])])
    }

    fn requests(&self) -> [usize; 2] {
        self.origins.each_ref().map(Origin::requests)
    }
}

fn status(status: &'static str) -> impl Fn(&mut Exchange<'_>) -> Result<After, Failure> {
    move |exchange| {
        exchange.body()?;
        exchange.answer(status, "", b"no")
    }
}

fn fine(exchange: &mut Exchange<'_>) -> Result<After, Failure> {
    let body = exchange.body()?;
    exchange.answer("200 OK", "", &[b"got ", body.as_slice()].concat())
}

fn errors(admin: Admin, reason: &str) -> f64 {
    admin.count("weir_errors_total", &[("version", "v1"), ("reason", reason)])
}

/// What each request of `v1` came to: requests (first attempts) and answers (as clients got them) of that code.
fn books(admin: Admin, code: &str) -> (f64, f64) {
    let requests = admin.count("weir_requests_total", &[("version", "v1"), ("code", code)]);
    (requests, admin.count("weir_responses_total", &[("split", "shop"), ("code", code)]))
}

#[test]
fn a_bad_answer_is_asked_for_again_at_the_other_endpoint_and_stays_on_the_books() {
    for (code, line) in [("502", "502 Bad Gateway"), ("503", "503 Service Unavailable"), ("504", "504 Gateway Timeout")]
    {
        let twice = Twice::new(status(line), fine);
        let weir = Weir::start(&twice.conf());
        assert_eq!(weir.connect().get("/again").unwrap().status(), 200, "{line}");
        assert_eq!(twice.requests(), [1, 1], "the other endpoint");
        weir.admin.wait_requests("v1", 1);
        assert_eq!((books(weir.admin, code), books(weir.admin, "200")), ((1.0, 0.0), (0.0, 1.0)));
        assert_eq!(weir.admin.count("weir_retries_total", &[("version", "v1")]), 1.0);
        assert_eq!(errors(weir.admin, "status"), 1.0);
        let line = weir.line_of("/again");
        assert_eq!((&line["attempts"], &line["status"], &line["picked"]), (&2.into(), &200.into(), &"weight".into()));
    }
}

#[test]
fn what_is_not_listed_is_not_tried_again() {
    let twice = Twice::new(status("500 Internal Server Error"), fine);
    let weir = Weir::start(&twice.conf());
    assert_eq!(weir.connect().get("/").unwrap().status(), 500);
    weir.admin.wait_requests("v1", 1);
    assert_eq!((books(weir.admin, "500"), errors(weir.admin, "status")), ((1.0, 1.0), 1.0));
    let listed = Twice::new(status("500 Internal Server Error"), fine);
    let weir = Weir::start(&listed.conf().split("retries = { on = [\"500\"] }"));
    assert_eq!(weir.connect().get("/").unwrap().status(), 200);
    let none = Twice::new(status("503 Service Unavailable"), fine);
    let weir = Weir::start(&none.conf().split("retries = { attempts = 0 }"));
    let answer = weir.connect().get("/none").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (503, "no"), "the endpoint's own answer");
    assert!(!answer.head.has("weir-error"));
    assert_eq!(weir.line_of("/none")["attempts"], 1);
    assert_eq!(weir.admin.count("weir_retries_total", &[]), 0.0);
}

#[test]
fn a_reset_and_a_late_answer_are_asked_for_again() {
    let twice = Twice::new(|exchange| exchange.body().map(|_| After::Reset), fine);
    let weir = Weir::start(&twice.conf());
    assert_eq!(weir.connect().get("/").unwrap().status(), 200);
    weir.admin.wait_requests("v1", 1);
    assert_eq!((books(weir.admin, "502"), errors(weir.admin, "reset")), ((1.0, 0.0), 1.0));
    let gate = Gate::default();
    let theirs = gate.clone();
    let late = Twice::new(move |_| Ok(if theirs.wait() { After::Close } else { After::Reset }), fine);
    let weir = Weir::start(&late.conf().split("timeouts = { first_byte = \"300ms\" }"));
    assert_eq!(weir.connect().get("/").unwrap().status(), 200);
    weir.admin.wait_requests("v1", 1);
    assert_eq!((books(weir.admin, "504"), errors(weir.admin, "timeout")), ((1.0, 0.0), 1.0));
    gate.open();
}

/// `first_byte` is each attempt's own: a second one over a connection that is open already has all of it.
#[test]
fn the_second_attempt_has_its_own_time() {
    let gate = Gate::default();
    let theirs = gate.clone();
    let slow = move |exchange: &mut Exchange<'_>| {
        if exchange.head.target() == "/late" && theirs.waiting() == 0 {
            theirs.wait();
            return Ok(After::Close);
        }
        exchange.ok("fine")
    };
    let origins = [Origin::scripted(slow.clone()), Origin::scripted(slow)];
    let conf = Conf::shop(&[("v1", 1, &[origins[0].address, origins[1].address])]).workers(1);
    let weir = Weir::start(&conf.split("timeouts = { first_byte = \"300ms\" }"));
    let mut client = weir.connect();
    let mut is_warm = || {
        assert_eq!(client.get("/warm").unwrap().status(), 200);
        origins.iter().all(|o| o.requests() > 0)
    };
    wait_until("both have an idle connection", &mut is_warm);
    let answer = client.get("/late").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "fine"));
    assert_eq!(weir.line_of("/late")["attempts"], 2);
    gate.open();
}

#[test]
fn what_was_sent_is_repeated_only_by_listed_methods() {
    for first in [After::Reset, After::Close] {
        let twice = Twice::new(move |exchange| exchange.body().map(|_| first), fine);
        let weir = Weir::start(&twice.conf());
        let answer = weir.connect().ask(POST).unwrap();
        assert_eq!((answer.status(), answer.head.get("weir-error")), (502, Some("upstream-reset")));
        assert_eq!(twice.requests().iter().sum::<usize>(), 1, "a POST is sent at most once");
    }
    let twice = Twice::new(status("503 Service Unavailable"), fine);
    let weir = Weir::start(&twice.conf());
    assert_eq!(weir.connect().ask(POST).unwrap().status(), 503);
    assert_eq!(twice.requests().iter().sum::<usize>(), 1);
    // HEAD and OPTIONS are listed, DELETE is not, however idempotent it may be.
    for (method, wanted) in [("HEAD", 200), ("OPTIONS", 200), ("DELETE", 503)] {
        let twice = Twice::new(status("503 Service Unavailable"), fine);
        let weir = Weir::start(&twice.conf());
        let answer = weir.connect().ask(format!("{method} / HTTP/1.1\r\nHost: app.test\r\n\r\n")).unwrap();
        assert_eq!(answer.status(), wanted, "{method}");
    }
}

#[test]
fn what_nobody_got_goes_to_the_other_endpoint_whatever_its_method() {
    let alive = Origin::scripted(fine);
    let dead = free_address();
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &[dead, alive.address])]));
    let mut client = weir.connect();
    for _ in 0..50 {
        assert_eq!(client.ask(POST).unwrap().text(), "got hello");
    }
    weir.admin.wait_requests("v1", 50);
    assert_eq!((alive.requests(), books(weir.admin, "200").1), (50, 50.0));
    let (failed, refused) = (books(weir.admin, "502").0, errors(weir.admin, "connect"));
    assert!(failed > 0.0 && failed == refused, "{failed} {refused}");
    assert_eq!(weir.admin.count("weir_retries_total", &[("version", "v1")]), refused);
    let off = Conf::shop(&[("v1", 1, &[dead, alive.address])]).split("retries = { attempts = 0 }");
    let weir = Weir::start(&off);
    let failed = (0..50).filter(|_| weir.connect().get("/").unwrap().status() == 502).count();
    assert!((5..50).contains(&failed), "{failed} of 50");
}

#[test]
fn a_small_body_is_sent_again_as_it_was_and_a_large_one_is_not() {
    let conf = |twice: &Twice| twice.conf().split("retries = { methods = [\"PUT\"], body_bytes = \"1KiB\" }");
    let chunked =
        "PUT / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    let put = |n: usize| format!("PUT / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {n}\r\n\r\n{}", "x".repeat(n));
    let small = put(1024);
    for (request, body) in [(chunked, "hello".to_owned()), (&small, "x".repeat(1024))] {
        let twice = Twice::new(status("503 Service Unavailable"), fine);
        let weir = Weir::start(&conf(&twice));
        let answer = weir.connect().ask(request).unwrap();
        assert_eq!((answer.status(), answer.text()), (200, format!("got {body}")));
        assert_eq!(twice.requests(), [1, 1]);
        let heads: Vec<_> = twice.origins.iter().map(Origin::only_head).collect();
        for name in ["host", "content-length", "transfer-encoding", "x-request-id", "x-forwarded-for", "via"] {
            assert_eq!(heads[0].get(name), heads[1].get(name), "{name}");
        }
    }
    // One byte more is not kept; nor can what was lost in the middle of it be sent again.
    let twice = Twice::new(status("503 Service Unavailable"), fine);
    let weir = Weir::start(&conf(&twice));
    assert_eq!(weir.connect().ask(put(1025)).unwrap().status(), 503);
    assert_eq!(twice.requests().iter().sum::<usize>(), 1);
    let twice = Twice::new(|exchange| exchange.wire.take(2000).map(|_| After::Reset), fine);
    let weir = Weir::start(&conf(&twice));
    let answer = weir.connect().ask(put(100_000));
    assert!(answer.as_ref().map_or(true, |a| a.status() == 502), "{answer:?}");
    assert_eq!(twice.requests().iter().sum::<usize>(), 1);
}

/// An endpoint that fails before it has the body whole: the other one still gets all of it.
#[test]
fn a_body_still_on_its_way_is_sent_again_from_its_first_byte() {
    let twice = Twice::new(|exchange| exchange.wire.take(3).map(|_| After::Reset), fine);
    let weir = Weir::start(&twice.conf().split("retries = { methods = [\"PUT\"] }"));
    let mut client = weir.connect();
    client.send("PUT / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nhello").unwrap();
    wait_until("it is at the other endpoint", || twice.requests() == [1, 1]);
    client.send("world").unwrap();
    assert_eq!(client.answer(false).unwrap().text(), "got helloworld");
}

#[test]
fn attempts_are_what_follows_the_first_and_each_is_on_the_books() {
    let origins: Vec<_> = (0..4).map(|_| Origin::scripted(status("503 Service Unavailable"))).collect();
    let addresses: Vec<SocketAddr> = origins.iter().map(|o| o.address).collect();
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &addresses)]).split("retries = { attempts = 2 }"));
    let answer = weir.connect().get("/three").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (503, "no"), "the last endpoint's own answer");
    assert_eq!(origins.iter().map(Origin::requests).sum::<usize>(), 3);
    assert!(origins.iter().all(|o| o.requests() <= 1), "never the same endpoint twice");
    weir.admin.wait_requests("v1", 1);
    assert_eq!((books(weir.admin, "503"), errors(weir.admin, "status")), ((1.0, 1.0), 3.0));
    assert_eq!(weir.admin.count("weir_retries_total", &[("version", "v1")]), 2.0);
    assert_eq!(weir.line_of("/three")["attempts"], 3);
}

#[test]
fn the_total_time_ends_all_attempts() {
    let gate = Gate::default();
    let origins = [Origin::gated("a", &gate), Origin::gated("b", &gate), Origin::gated("c", &gate)];
    let addresses = origins.each_ref().map(|o| o.address);
    let conf = Conf::shop(&[("v1", 1, &addresses)]).split("retries = { attempts = 5 }");
    let weir = Weir::start(&conf.split("timeouts = { first_byte = \"400ms\", total = \"600ms\" }"));
    let began = Instant::now();
    let answer = weir.connect().get("/hold").unwrap();
    assert_eq!((answer.status(), answer.head.get("weir-error")), (504, Some("timeout")));
    assert!(began.elapsed().as_millis() >= 600, "{:?}", began.elapsed());
    assert_eq!(origins.iter().map(Origin::requests).sum::<usize>(), 2, "no time for a third");
    assert_eq!(weir.line_of("/hold")["attempts"], 2);
    gate.open();
}

/// Many requests that fail slowly: at most three retries, or a fifth of what is in flight, are under way at a time.
#[test]
fn the_budget_bounds_the_retries_in_flight() {
    let requests = times(30, 100);
    let allowed = (requests / 5).max(3);
    let (firsts, seconds) = (Gate::default(), Gate::default());
    // Every request's first attempt waits at one gate and fails; its second waits at the other.
    let (first, second) = (firsts.clone(), seconds.clone());
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let script = move |exchange: &mut Exchange<'_>| {
        let is_first = seen.lock().unwrap().insert(exchange.head.get("x-request-id").map(str::to_owned));
        let _ = if is_first { first.wait() } else { second.wait() };
        exchange.answer("503 Service Unavailable", "", b"")
    };
    let origins = [Origin::scripted(script.clone()), Origin::scripted(script)];
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &[origins[0].address, origins[1].address])]));
    let web = weir.web();
    let ask = move || -> Result<Answer, Failure> { Connection::open(web)?.get("/slow") };
    let asked: Vec<_> = (0..requests).map(|_| std::thread::spawn(ask)).collect();
    wait_until("all first attempts are under way", || firsts.waiting() == requests);
    firsts.open();
    let done = || asked.iter().filter(|a| a.is_finished()).count();
    wait_until("each is answered or has its retry", || done() + seconds.waiting() == requests);
    assert!(seconds.waiting() <= allowed && seconds.waiting() >= 3, "{} retries of {requests}", seconds.waiting());
    seconds.open();
    assert!(asked.into_iter().all(|a| a.join().unwrap().unwrap().status() == 503));
    weir.admin.wait_requests("v1", requests);
    let retries = weir.admin.count("weir_retries_total", &[("version", "v1")]);
    assert!(retries >= 3.0 && retries <= allowed as f64, "{retries} of {requests}");
}
