//! A version without an endpoint to use: its share spills, fails or waits, as its split says, and is billed to it.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use crate::support::{
    Admin, Answer, Conf, Connection, Failure, Instant, Load, Mortal, Origin, Plan, Report, Weir, free_address, soak,
    times, wait_until,
};

const POST: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi";
/// Without ejection each request tries, so that those that wait can be counted.
const HOLD: &str = "on_unavailable = \"hold\"\nhold = { timeout = \"10s\", requests = 5 }\neject = { errors = 0 }";

/// Load while a canary of 20 % loses its only endpoint.
fn load_over_a_death(line: &str) -> (Report, Weir) {
    let (stable, mut canary) = (Origin::named("v1"), Mortal::start("v2"));
    let weir = Weir::start(&Conf::two((80, stable.address), (20, canary.address)).split(line));
    let load = Load::start(&Plan { address: weir.web(), connections: 8, pace: None, until_refused: false });
    let begun = Instant::now();
    load.wait_for_version("v2", begun);
    canary.kill();
    let since = Instant::now();
    wait_until("the load is through", || load.since(since, |_| true) >= times(1_000, 20_000));
    (load.stop(), weir)
}

fn requests(admin: Admin, version: &str, code: &str) -> usize {
    admin.count("weir_requests_total", &[("version", version), ("code", code)]) as usize
}

/// Requests of a dead version: the first ones found nobody listening (502), then it was ejected (503).
fn failed(admin: Admin, version: &str) -> usize {
    requests(admin, version, "502") + requests(admin, version, "503")
}

/// Failed attempts of the canary, of both kinds.
fn errors(admin: Admin) -> usize {
    let count = |reason| admin.count("weir_errors_total", &[("version", "v2"), ("reason", reason)]) as usize;
    // Some may have been under way when it died.
    assert!(count("connect") + count("reset") >= 5, "it takes five to be ejected");
    count("connect") + count("no-endpoint") + count("reset")
}

fn responses(admin: Admin, code: &str) -> usize {
    admin.count("weir_responses_total", &[("code", code)]) as usize
}

/// Until all are on the books.
fn wait_for_books(admin: Admin, total: usize) {
    wait_until("all are on the books", || admin.count("weir_requests_total", &[]) as usize == total);
}

#[test]
fn spill_hides_a_dead_canary_from_clients_and_not_from_its_books() {
    let (report, weir) = load_over_a_death("on_unavailable = \"spill\"");
    report.expect_no_failure();
    let (total, admin) = (report.served.len(), weir.admin);
    wait_for_books(admin, total);
    let (served, spilled) = (report.by_version()["v2"], failed(admin, "v2"));
    assert!(spilled > 0 && requests(admin, "v2", "200") == served, "{spilled}, {served}");
    assert_eq!(admin.count("weir_spilled_requests_total", &[("version", "v2")]) as usize, spilled);
    assert_eq!(errors(admin), spilled);
    let share = (served + spilled) as f64 - total as f64 / 5.0;
    assert!(share.abs() <= 2.0 * 128.0, "it keeps its share: off by {share} of {total}");
    assert_eq!((responses(admin, "200"), responses(admin, "502") + responses(admin, "503")), (total, 0));
    assert_eq!(admin.count("weir_errors_total", &[("version", "v1")]), 0.0);
    assert_eq!(admin.count("weir_retries_total", &[]), 0.0, "a spill is no retry");
    let spills = || weir.stdout().lines().filter(|line| line.contains("\"picked\":\"spill\"")).count();
    wait_until("each has its access line", || spills() == spilled);
}

#[test]
fn fail_costs_exactly_the_canarys_share() {
    let (report, weir) = load_over_a_death("on_unavailable = \"fail\"");
    wait_for_books(weir.admin, report.served.len() + report.failures.len());
    let failed = report.failures.len();
    let is_ours = |f: &String| f.contains(" 502 ") || f.contains(" 503 ");
    assert!(failed > 0 && report.failures.iter().all(is_ours), "{:?}", report.failures.first());
    assert_eq!(self::failed(weir.admin, "v2"), failed);
    assert_eq!(responses(weir.admin, "502") + responses(weir.admin, "503"), failed);
    assert_eq!(errors(weir.admin), failed);
    assert_eq!(requests(weir.admin, "v1", "200"), report.by_version()["v1"], "stable is not touched");
    assert_eq!(weir.admin.count("weir_spilled_requests_total", &[]), 0.0);
}

#[test]
fn a_spill_takes_any_request_and_goes_where_somebody_is() {
    let (dead, other_dead, alive) = (free_address(), free_address(), Origin::named("v3"));
    let conf = Conf::shop(&[("v1", 1, &[dead]), ("v2", 1, &[other_dead]), ("v3", 1, &[alive.address])]);
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    assert!((0..30).all(|_| client.ask(POST).unwrap().text() == "v3"), "over two dead versions, POST too");
    wait_for_books(weir.admin, 30);
    let failed = failed(weir.admin, "v1") + failed(weir.admin, "v2");
    assert!((10..30).contains(&failed), "{failed} of 30 were those of dead versions");
    assert_eq!(weir.admin.count("weir_spilled_requests_total", &[]) as usize, failed, "once a request");
    let weir = Weir::start(&Conf::two((1, dead), (1, other_dead)));
    let answer = weir.connect().get("/nobody").unwrap();
    assert_eq!((answer.status(), answer.head.get("weir-error")), (502, Some("connect-failed")));
    // A version of weight 0 gets nothing, not even so.
    let weir = Weir::start(&Conf::two((1, dead), (0, alive.address)));
    assert_eq!(weir.connect().get("/").unwrap().status(), 502);
}

/// An endpoint that takes one request and resets it. `dies`: it listens no more by then.
fn breaks_off(dies: bool) -> (SocketAddr, JoinHandle<Option<TcpListener>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let broken = std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let kept = if dies { None } else { Some(listener) };
        assert!((&client).read(&mut [0; 1024]).unwrap() > 0);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        kept
    });
    (address, broken)
}

#[test]
fn a_request_that_died_with_its_endpoint_spills_and_one_that_was_only_reset_does_not() {
    for (dies, method, status) in [(true, "GET", 200), (false, "GET", 502), (true, "POST", 502)] {
        let (alive, (canary, broken)) = (Origin::named("v1"), breaks_off(dies));
        let conf = Conf::two((0, alive.address), (1, canary)).weights(&[1, 1_000_000]);
        let weir = Weir::start(&conf.split("on_unavailable = \"spill\""));
        let answer = weir.connect().ask(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(answer.unwrap().status(), status, "{method}, dies: {dies}");
        assert_eq!(broken.join().unwrap().is_none(), dies);
        wait_for_books(weir.admin, 1);
        assert_eq!(requests(weir.admin, "v2", "502"), 1, "it is on the canary's books");
        let reset = [("version", "v2"), ("reason", "reset")];
        assert_eq!(weir.admin.count("weir_errors_total", &reset), 1.0);
        assert_eq!(weir.admin.count("weir_spilled_requests_total", &[]), if status == 200 { 1.0 } else { 0.0 });
    }
}

/// The client's own `Host` goes to a version that wants it, even after an attempt where the endpoint's was wanted.
#[test]
fn a_spill_leaves_nothing_of_the_first_attempt_behind() {
    let alive = Origin::named("v1");
    let conf = Conf::two((0, alive.address), (1, free_address())).weights(&[1, 1_000_000]);
    let weir = Weir::start(&conf.version("v2", "host = \"endpoint\""));
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
    let head = alive.only_head();
    assert_eq!(head.get("host"), Some("app.test"), "{}", head.raw);
}

fn ask_behind(weir: &Weir, path: &'static str) -> JoinHandle<Result<Answer, Failure>> {
    let address = weir.web();
    std::thread::spawn(move || Connection::open(address)?.get(path))
}

/// A weir all of whose requests go to `v2`, which is dead and held for.
fn holding(stable: SocketAddr, canary: SocketAddr, line: &str) -> Weir {
    Weir::start(&Conf::two((0, stable), (1, canary)).split("stable = \"v1\"").split(line))
}

/// Until that many requests wait: each has failed to connect once, and only once on the books.
fn wait_for_waiting(weir: &Weir, count: usize) {
    let failed = || weir.admin.count("weir_errors_total", &[("version", "v2"), ("reason", "connect")]) as usize;
    wait_until("they wait", || failed() == count);
}

#[test]
fn hold_answers_when_an_endpoint_is_back() {
    let (stable, mut canary) = (Origin::named("v1"), Mortal::dead("v2"));
    let weir = holding(stable.address, canary.address, HOLD);
    let waiting: Vec<_> = (0..5).map(|_| ask_behind(&weir, "/held")).collect();
    wait_for_waiting(&weir, 5);
    assert!(waiting.iter().all(|w| !w.is_finished()));
    canary.raise();
    assert!(waiting.into_iter().all(|w| w.join().unwrap().unwrap().text() == "v2"));
    assert_eq!((canary.requests(), stable.requests()), (5, 0));
    wait_for_books(weir.admin, 5);
    assert_eq!((requests(weir.admin, "v2", "502"), responses(weir.admin, "200")), (5, 5), "it was down, and is billed");
    assert_eq!(weir.admin.count("weir_retries_total", &[]), 0.0);
    assert!(weir.stdout().lines().all(|line| line.contains("\"attempts\":1")), "{}", weir.stdout());
}

#[test]
fn hold_ends_in_time() {
    let bounds = |line: &str| holding(free_address(), free_address(), line);
    let timeout = "on_unavailable = \"hold\"\nhold = { timeout = \"400ms\" }";
    let total = &format!("{HOLD}\ntimeouts = {{ total = \"400ms\" }}");
    for line in [timeout, total] {
        let weir = bounds(line);
        let began = Instant::now();
        let answer = weir.connect().get("/").unwrap();
        assert_eq!((answer.status(), answer.head.get("weir-error")), (503, Some("no-endpoint")), "{line}");
        let waited = began.elapsed().as_millis();
        assert!((400..5_000).contains(&waited), "{line}: {waited} ms");
    }
}

#[test]
fn hold_is_for_so_many_and_who_leaves_makes_room() {
    let mut canary = Mortal::dead("v2");
    let weir = holding(free_address(), canary.address, HOLD);
    let mut leaving = weir.connect();
    leaving.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    let waiting: Vec<_> = (0..4).map(|_| ask_behind(&weir, "/")).collect();
    wait_for_waiting(&weir, 5);
    let answer = weir.connect().get("/sixth").unwrap();
    assert_eq!((answer.status(), answer.head.get("weir-error")), (503, Some("no-endpoint")));
    assert_eq!(waiting.iter().filter(|w| w.is_finished()).count(), 0);
    drop(leaving);
    wait_until("its place is free", || requests(weir.admin, "v2", "502") == 2);
    let late = ask_behind(&weir, "/late");
    wait_for_waiting(&weir, 7);
    canary.raise();
    assert!(waiting.into_iter().chain([late]).all(|w| w.join().unwrap().unwrap().status() == 200));
}

/// A rollback is for everybody, those that wait included.
#[test]
fn hold_sees_a_new_snapshot_at_once() {
    let (stable, canary) = (Origin::named("v1"), free_address());
    let weir = holding(stable.address, canary, HOLD);
    let waiting: Vec<_> = (0..3).map(|_| ask_behind(&weir, "/")).collect();
    wait_for_waiting(&weir, 3);
    let began = Instant::now();
    weir.admin.rollback();
    assert!(waiting.into_iter().all(|w| w.join().unwrap().unwrap().text() == "v1"));
    let took = began.elapsed();
    assert!(took.as_millis() < if soak() { 100 } else { 5_000 }, "{took:?}");
    wait_for_books(weir.admin, 3);
    assert_eq!(requests(weir.admin, "v2", "502"), 3, "the books stay with what was chosen");
}

/// The file changes while requests wait, so that no version is where it was.
#[test]
fn hold_over_a_reload_keeps_the_books_right() {
    let (canary, other) = (Mortal::dead("v2"), Origin::named("v0"));
    let weir = Weir::start(&Conf::shop(&[("v2", 1, &[canary.address])]).split(HOLD).split("expose_version = true"));
    let waiting = ask_behind(&weir, "/moved");
    wait_for_waiting(&weir, 1);
    let nobody = free_address();
    let conf = Conf::shop(&[("va", 0, &[nobody]), ("vb", 0, &[nobody]), ("v0", 1, &[other.address])]);
    weir.edit(&conf.split(HOLD).split("expose_version = true"));
    let answer = waiting.join().unwrap().unwrap();
    assert_eq!((answer.text().as_str(), answer.head.get("weir-version")), ("v0", Some("v0")));
    let line = weir.line_of("/moved");
    assert_eq!((&line["version"], &line["endpoint"]), (&"v0".into(), &other.address.to_string().into()));
    wait_for_books(weir.admin, 1);
    assert_eq!((requests(weir.admin, "v2", "502"), responses(weir.admin, "200")), (1, 1));
}
