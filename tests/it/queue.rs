//! Requests in line for a full version: in order, for so many, for so long, and free to go when things change.

use std::thread::JoinHandle;

use crate::support::{Answer, Conf, Connection, Failure, Gate, Instant, Origin, Weir, wait_until};

type Asked = JoinHandle<Result<Answer, Failure>>;

fn ask_behind(weir: &Weir) -> Asked {
    let address = weir.web();
    std::thread::spawn(move || Connection::open(address)?.get("/hold"))
}

/// A version with room for one request, and a line for three.
fn narrow(origin: &Origin, timeout: &str) -> Conf {
    let pool = format!("pool = {{ max_in_flight = 1, queue = 3, queue_timeout = \"{timeout}\" }}");
    Conf::one(origin.address).split(&pool)
}

fn is_overloaded(answer: &Answer) -> bool {
    answer.status() == 503 && answer.head.get("weir-error") == Some("overloaded")
}

/// One at the origin, three in line, and of all that were sent one was refused at once.
fn fill(weir: &Weir, gate: &Gate) -> Vec<Asked> {
    let mut asked = vec![ask_behind(weir)];
    wait_until("one is at the origin", || gate.waiting() == 1);
    asked.extend((0..4).map(|_| ask_behind(weir)));
    wait_until("one is refused", || asked.iter().any(JoinHandle::is_finished));
    let at = asked.iter().position(JoinHandle::is_finished).unwrap();
    let refused = asked.remove(at).join().unwrap().unwrap();
    assert!(is_overloaded(&refused), "{}", refused.status());
    assert_eq!(refused.head.get("retry-after"), Some("1"));
    asked
}

#[test]
fn who_waits_is_served_when_there_is_room() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&narrow(&origin, "30s"));
    let asked = fill(&weir, &gate);
    assert_eq!((gate.waiting(), origin.requests()), (1, 1), "the bound holds");
    for served in 1..=4 {
        assert_eq!(gate.waiting(), 1);
        gate.let_one();
        wait_until("one more is through", || asked.iter().filter(|a| a.is_finished()).count() == served);
        wait_until("the next is there", || served == 4 || gate.waiting() == 1);
    }
    assert!(asked.into_iter().all(|a| a.join().unwrap().unwrap().text() == "v1"));
    let count = |code: &str| weir.admin.count("weir_responses_total", &[("code", code)]);
    wait_until("all are on the books", || (count("200"), count("503")) == (4.0, 1.0));
}

#[test]
fn waiting_ends_in_time() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&narrow(&origin, "300ms"));
    let first = ask_behind(&weir);
    wait_until("one is at the origin", || gate.waiting() == 1);
    let began = Instant::now();
    assert!(is_overloaded(&weir.connect().get("/").unwrap()));
    let waited = began.elapsed().as_millis();
    assert!((300..5_000).contains(&waited), "{waited} ms");
    gate.open();
    assert_eq!(first.join().unwrap().unwrap().status(), 200);
}

#[test]
fn who_leaves_the_line_makes_room() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&narrow(&origin, "30s"));
    let mut leaving = weir.connect();
    let first = ask_behind(&weir);
    wait_until("one is at the origin", || gate.waiting() == 1);
    leaving.send("GET /gone HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    let mut asked: Vec<_> = (0..3).map(|_| ask_behind(&weir)).collect();
    wait_until("the line is full", || asked.iter().filter(|a| a.is_finished()).count() == 1);
    asked.retain(|a| !a.is_finished());
    drop(leaving);
    wait_until("it has gone", || weir.admin.count("weir_requests_total", &[("code", "499")]) == 1.0);
    asked.push(ask_behind(&weir));
    gate.open();
    assert!(asked.into_iter().chain([first]).all(|a| a.join().unwrap().unwrap().status() == 200));
    assert!(origin.heads().iter().all(|head| head.target() != "/gone"));
}

#[test]
fn a_rollback_is_for_those_who_wait_too() {
    let gate = Gate::default();
    let (stable, canary) = (Origin::named("v1"), Origin::gated("v2", &gate));
    let conf = Conf::two((0, stable.address), (1, canary.address)).split("stable = \"v1\"");
    let weir = Weir::start(&conf.split("pool = { max_in_flight = 1, queue = 3, queue_timeout = \"30s\" }"));
    let asked = fill(&weir, &gate);
    weir.admin.rollback();
    wait_until("those in line are served", || asked.iter().filter(|a| a.is_finished()).count() == 3);
    assert_eq!((stable.requests(), canary.requests()), (3, 1));
    gate.open();
    let served: Vec<_> = asked.into_iter().map(|a| a.join().unwrap().unwrap().text()).collect();
    assert_eq!(served.iter().filter(|text| *text == "v1").count(), 3);
}

#[test]
fn many_through_a_narrow_door_all_come_through() {
    let origin = Origin::named("v1");
    let conf = Conf::one(origin.address).split("pool = { max_in_flight = 2, queue = 100, queue_timeout = \"30s\" }");
    let weir = Weir::start(&conf);
    let address = weir.web();
    let client =
        move || (0..50).map(|_| Connection::open(address)?.get("/")).all(|a| a.is_ok_and(|a| a.status() == 200));
    let clients: Vec<_> = (0..16).map(|_| std::thread::spawn(client)).collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
    assert_eq!(origin.requests(), 800);
    assert!(origin.connections() <= 800);
}
