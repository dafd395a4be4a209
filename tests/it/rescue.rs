//! Rescue: a failing canary's requests are answered by stable, and the canary's books say what it really did.

use crate::support::{After, Conf, Connection, Gate, Load, Origin, Plan, Weir, free_address, times, wait_until};

const BAD: &str = "503 Service Unavailable";
const POST: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi";

fn failing(status: &'static str) -> Origin {
    Origin::scripted(move |exchange| {
        exchange.body()?;
        exchange.answer(status, "", b"canary")
    })
}

/// Stable `v1` and the canary `v2`, which gets everything.
fn all_to_canary(stable: &Origin, canary: &Origin) -> Conf {
    Conf::two((0, stable.address), (1, canary.address)).split("stable = \"v1\"")
}

const RESCUE: &str = "retries = { rescue = true }";

fn of(version: &str) -> [(&str, &str); 2] {
    [("split", "shop"), ("version", version)]
}

/// What issue 3 promises, word for word.
#[test]
fn a_canary_that_always_fails_is_seen_by_nobody_but_the_books() {
    let (stable, canary) = (Origin::named("v1"), failing(BAD));
    // Else it is ejected after five, and its share spills.
    let conf = Conf::two((80, stable.address), (20, canary.address)).split("eject = { errors = 0 }");
    let weir = Weir::start(&conf.split(RESCUE));
    let load = Load::start(&Plan { address: weir.web(), connections: 8, pace: None, until_refused: false });
    let begun = crate::support::Instant::now();
    let wanted = times(2_000, 50_000);
    wait_until("the load is through", || load.since(begun, |_| true) >= wanted || load.has_failed());
    let report = load.stop();
    report.expect_no_failure();
    let total = report.served.len();
    assert_eq!(report.by_version().len(), 1, "all answers are stable's");
    weir.admin.wait_requests("v1", total - canary.requests());
    let on_books = |name: &str, labels: &[(&str, &str)]| weir.admin.count(name, labels) as usize;
    let (of_canary, of_stable) = (of("v2"), of("v1"));
    let its_requests = on_books("weir_requests_total", &of_canary);
    let share = total as f64 / 5.0;
    assert!((its_requests as f64 - share).abs() <= 2.0 * 128.0, "{its_requests} of {total}");
    assert_eq!(its_requests, canary.requests());
    assert_eq!(on_books("weir_requests_total", &[("version", "v2"), ("code", "503")]), its_requests);
    assert_eq!(on_books("weir_errors_total", &[("version", "v2"), ("reason", "status")]), its_requests);
    assert_eq!(on_books("weir_rescued_requests_total", &of_canary), its_requests);
    assert_eq!(on_books("weir_rescued_requests_total", &of_stable), 0);
    assert_eq!(on_books("weir_errors_total", &of_stable), 0);
    assert_eq!(on_books("weir_retries_total", &[]), 0, "a rescue is no retry");
    assert_eq!(on_books("weir_responses_total", &[("code", "200")]), total);
    assert_eq!(on_books("weir_responses_total", &[]), total);
}

/// With the defaults the canary is ejected after five, and what follows spills: seen by nobody either.
#[test]
fn nor_when_it_is_ejected_meanwhile() {
    let (stable, canary) = (Origin::named("v1"), failing(BAD));
    let weir = Weir::start(&Conf::two((80, stable.address), (20, canary.address)).split(RESCUE));
    let load = Load::start(&Plan { address: weir.web(), connections: 8, pace: None, until_refused: false });
    let begun = crate::support::Instant::now();
    let of_canary = of("v2");
    let spilled = || weir.admin.count("weir_spilled_requests_total", &of_canary) as usize;
    wait_until("its share spills", || spilled() >= 100 || load.has_failed());
    wait_until("the load is through", || load.since(begun, |_| true) >= times(2_000, 50_000) || load.has_failed());
    let report = load.stop();
    report.expect_no_failure();
    let on_books = || weir.admin.count("weir_requests_total", &[]) as usize;
    wait_until("all are on the books", || on_books() == report.served.len());
    let rescued = weir.admin.count("weir_rescued_requests_total", &of_canary) as usize;
    assert_eq!(rescued, canary.requests());
    assert_eq!(rescued + spilled(), weir.admin.count("weir_requests_total", &of_canary) as usize, "none was good");
    assert_eq!(weir.admin.count("weir_requests_total", &[("version", "v2"), ("code", "200")]), 0.0);
}

#[test]
fn whatever_the_failure() {
    let stable = Origin::named("v1");
    let gate = Gate::default();
    let hanging = Origin::gated("v2", &gate);
    let reset = Origin::scripted(|_| Ok(After::Reset));
    let garbage = Origin::scripted(|exchange| exchange.wire.send("garbage\r\n\r\n").map(|()| After::Close));
    for (canary, reason) in [(&hanging, "timeout"), (&reset, "reset"), (&garbage, "protocol")] {
        let conf = all_to_canary(&stable, canary).split(RESCUE).split("timeouts = { first_byte = \"300ms\" }");
        let weir = Weir::start(&conf.workers(1));
        let mut client = weir.connect();
        for _ in 0..3 {
            assert_eq!(client.get("/hold").unwrap().text(), "v1", "{reason}");
        }
        weir.admin.wait_requests("v2", 3);
        assert_eq!(weir.admin.count("weir_rescued_requests_total", &of("v2")), 3.0, "{reason}");
        assert_eq!(weir.admin.count("weir_errors_total", &[("version", "v2"), ("reason", reason)]), 3.0);
    }
    gate.open();
}

#[test]
fn the_access_line_says_so_and_the_answer_shows_who_gave_it() {
    let (stable, canary) = (Origin::named("v1"), failing(BAD));
    let weir = Weir::start(&all_to_canary(&stable, &canary).split(RESCUE).split("expose_version = true"));
    let answer = weir.connect().get("/rescued").unwrap();
    assert_eq!((answer.text().as_str(), answer.head.get("weir-version")), ("v1", Some("v1")));
    let line = weir.line_of("/rescued");
    assert_eq!((&line["picked"], &line["attempts"], &line["version"]), (&"rescue".into(), &2.into(), &"v1".into()));
    assert_eq!(line["endpoint"], stable.address.to_string());
}

/// Its own endpoints come first.
#[test]
fn only_when_the_canary_has_spent_its_attempts() {
    let (stable, bad, good) = (Origin::named("v1"), failing(BAD), Origin::named("v2"));
    let conf = Conf::shop(&[("v1", 0, &[stable.address]), ("v2", 1, &[bad.address, good.address])]);
    let weir = Weir::start(&conf.split("stable = \"v1\"").split(RESCUE));
    let mut client = weir.connect();
    assert!((0..30).all(|_| client.get("/").unwrap().text() == "v2"));
    assert_eq!(stable.requests(), 0);
    weir.admin.wait_requests("v2", 30);
    assert_eq!(weir.admin.count("weir_rescued_requests_total", &[]), 0.0);
}

#[test]
fn what_may_not_be_repeated_is_not_rescued() {
    let (stable, canary) = (Origin::named("v1"), failing(BAD));
    let weir = Weir::start(&all_to_canary(&stable, &canary).split(RESCUE));
    assert_eq!(weir.connect().ask(POST).unwrap().status(), 503);
    let weir = Weir::start(&all_to_canary(&stable, &canary));
    assert_eq!(weir.connect().get("/").unwrap().status(), 503, "off unless asked for");
    let internal = failing("500 Internal Server Error");
    let weir = Weir::start(&all_to_canary(&stable, &internal).split(RESCUE));
    assert_eq!(weir.connect().get("/").unwrap().status(), 500, "not listed");
    assert_eq!(stable.requests(), 0);
    // Nothing of it was sent: with `fail`, a POST may be rescued like everything else.
    let dead = Conf::two((0, stable.address), (1, free_address())).split("stable = \"v1\"\non_unavailable = \"fail\"");
    let weir = Weir::start(&dead.split(RESCUE));
    assert_eq!(weir.connect().ask(POST).unwrap().text(), "v1");
    weir.admin.wait_requests("v2", 1);
    assert_eq!(weir.admin.count("weir_errors_total", &[("version", "v2"), ("reason", "connect")]), 1.0);
    assert_eq!(weir.admin.count("weir_rescued_requests_total", &of("v2")), 1.0);
}

#[test]
fn stable_is_never_rescued_and_its_failures_show() {
    let (stable, canary) = (failing(BAD), Origin::named("v2"));
    let conf = Conf::two((1, stable.address), (0, canary.address)).split("stable = \"v1\"").split(RESCUE);
    let weir = Weir::start(&conf);
    assert_eq!(weir.connect().get("/").unwrap().status(), 503);
    assert_eq!(canary.requests(), 0);
    // Both fail: the client gets stable's answer, each version has its own failure on its books, nobody was rescued.
    let canary = failing("502 Bad Gateway");
    let weir = Weir::start(&all_to_canary(&stable, &canary).split(RESCUE));
    assert_eq!(weir.connect().get("/").unwrap().status(), 503);
    weir.admin.wait_requests("v2", 1);
    let count = |name, labels: &[(&str, &str)]| weir.admin.count(name, labels);
    assert_eq!(count("weir_requests_total", &[("version", "v2"), ("code", "502")]), 1.0);
    assert_eq!(count("weir_responses_total", &[("code", "503")]), 1.0);
    assert_eq!(count("weir_errors_total", &[("version", "v2"), ("reason", "status")]), 1.0);
    assert_eq!(count("weir_errors_total", &[("version", "v1"), ("reason", "status")]), 1.0);
    assert_eq!((count("weir_requests_total", &of("v1")), count("weir_rescued_requests_total", &[])), (0.0, 0.0));
}

/// The budget of retries is not asked: many requests that fail at once are all rescued.
#[test]
fn outside_the_budget_of_retries() {
    let (stable, gate) = (Origin::named("v1"), Gate::default());
    let theirs = gate.clone();
    let canary = Origin::scripted(move |exchange| {
        theirs.wait();
        exchange.answer(BAD, "", b"")
    });
    let weir = Weir::start(&all_to_canary(&stable, &canary).split(RESCUE));
    let web = weir.web();
    let ask = move || Connection::open(web).unwrap().get("/").unwrap().text();
    let asked: Vec<_> = (0..40).map(|_| std::thread::spawn(ask)).collect();
    wait_until("all are at the canary", || gate.waiting() == 40);
    gate.open();
    assert!(asked.into_iter().all(|a| a.join().unwrap() == "v1"));
}
