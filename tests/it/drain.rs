//! Drain: what leaves finishes what it has and takes nothing new; the wait call tells the truth.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use serde_json::json;

use crate::support::{Admin, After, Answer, Conf, Connection, Failure, Gate, Instant, Origin, Weir, wait_until};

/// A request in the background.
fn ask_behind(address: SocketAddr, path: &'static str) -> JoinHandle<Result<Answer, Failure>> {
    std::thread::spawn(move || Connection::open(address)?.get(path))
}

fn wait_call(admin: Admin, version: &str, endpoint: SocketAddr, wait: &str) -> JoinHandle<(Answer, Instant)> {
    let path = format!("/api/v1/splits/shop/versions/{version}/drain?endpoint={endpoint}&wait={wait}");
    std::thread::spawn(move || {
        let answer = admin.get(&path);
        (answer, Instant::now())
    })
}

/// Two endpoints whose `/hold` requests wait at their own gates.
struct Busy {
    gates: [Gate; 2],
    origins: [Origin; 2],
}

impl Busy {
    fn new() -> Self {
        let gates = [Gate::default(), Gate::default()];
        let origins = [Origin::gated("a", &gates[0]), Origin::gated("b", &gates[1])];
        Self { gates, origins }
    }

    fn both(&self) -> [SocketAddr; 2] {
        [self.origins[0].address, self.origins[1].address]
    }

    /// Slow requests until `b` has at least two of them.
    fn occupy(&self, weir: &Weir) -> Vec<JoinHandle<Result<Answer, Failure>>> {
        let mut held = Vec::new();
        while self.gates[1].waiting() < 2 {
            assert!(held.len() < 50, "50 requests and not two at b");
            held.push(ask_behind(weir.web(), "/hold"));
            wait_until("they arrive", || self.gates[0].waiting() + self.gates[1].waiting() == held.len());
        }
        held
    }
}

#[test]
fn a_busy_endpoint_removed_from_the_file() {
    let busy = Busy::new();
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &busy.both())]));
    let held = busy.occupy(&weir);
    let b = busy.both()[1];
    weir.edit(&Conf::shop(&[("v1", 1, &[busy.both()[0]])]));
    wait_until("b drains", || {
        let answer = weir.admin.get(&format!("/api/v1/splits/shop/versions/v1/drain?endpoint={b}&wait=1ms"));
        answer.status() == 202
    });
    let waiting = wait_call(weir.admin, "v1", b, "30s");

    let before = busy.origins[1].requests();
    let mut client = weir.connect();
    assert!((0..100).all(|_| client.get("/").unwrap().text() == "a"), "a new request reached the leaving endpoint");
    assert_eq!(busy.origins[1].requests(), before);

    while busy.gates[1].waiting() > 1 {
        let left = busy.gates[1].waiting();
        busy.gates[1].let_one();
        wait_until("one is through", || busy.gates[1].waiting() < left);
    }
    assert!(!waiting.is_finished(), "one is still in flight");
    let released = Instant::now();
    busy.gates.iter().for_each(Gate::open);
    let (answer, answered) = waiting.join().unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(answered >= released, "answered before the last request was over");
    for request in held {
        assert_eq!(request.join().unwrap().unwrap().status(), 200, "slow requests finish");
    }
    wait_until("its connections are closed", || busy.origins[1].open() == 0);
}

#[test]
fn the_wait_call_times_out_with_counts() {
    let busy = Busy::new();
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &busy.both())]));
    let held = busy.occupy(&weir);
    let b = busy.both()[1];
    let answer = weir.admin.post("/api/v1/splits/shop/versions/v1/drain", json!({"endpoint": b.to_string()}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let (answer, _) = wait_call(weir.admin, "v1", b, "100ms").join().unwrap();
    assert_eq!(answer.status(), 202, "{}", answer.text());
    let count = busy.gates[1].waiting();
    assert!(answer.text().contains(&format!(":{count}")), "{count} requests in {}", answer.text());
    busy.gates.iter().for_each(Gate::open);
    for request in held {
        assert_eq!(request.join().unwrap().unwrap().status(), 200);
    }
    assert_eq!(wait_call(weir.admin, "v1", b, "10s").join().unwrap().0.status(), 200);
}

#[test]
fn by_api_endpoint_and_version() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let [a, b, c] = origins.each_ref().map(|o| o.address);
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &[a, b]), ("v2", 1, &[c])]));
    let mut client = weir.connect();
    let mut seen = || -> Vec<String> {
        let mut names: Vec<String> = (0..300).map(|_| client.get("/").unwrap().text()).collect();
        names.sort();
        names.dedup();
        names
    };
    let shop = weir.admin.post("/api/v1/splits/shop/versions/v1/drain", json!({"endpoint": b.to_string()})).json();
    assert_eq!(endpoint_state(&shop, "v1", b), "draining", "{shop}");
    assert_eq!(seen(), ["a", "c"]);
    let shop = weir.admin.post("/api/v1/splits/shop/versions/v2/drain", json!({})).json();
    assert_eq!(shop["versions"][1]["state"], "draining", "{shop}");
    assert_eq!(seen(), ["a"]);
    weir.admin.post("/api/v1/splits/shop/versions/v2/undrain", json!({}));
    weir.admin.post("/api/v1/splits/shop/versions/v1/undrain", json!({"endpoint": b.to_string()}));
    assert_eq!(seen(), ["a", "b", "c"]);
    let answer = weir.admin.post("/api/v1/splits/shop/versions/v1/drain", json!({"endpoint": c.to_string()}));
    assert!(matches!(answer.status(), 404 | 422), "c is not of v1: {}", answer.text());
    assert_eq!(answer.head.get("content-type"), Some("application/problem+json"));
}

#[track_caller]
fn endpoint_state(shop: &serde_json::Value, version: &str, endpoint: SocketAddr) -> String {
    let versions = shop["versions"].as_array().unwrap();
    let version = versions.iter().find(|v| v["name"] == version).unwrap();
    let endpoints = version["endpoints"].as_array().unwrap();
    let found = endpoints.iter().find(|e| e["address"] == endpoint.to_string());
    found.unwrap_or_else(|| panic!("no {endpoint} in {shop}"))["state"].as_str().unwrap().to_owned()
}

#[test]
fn by_cli_and_over_a_restart() {
    let origins = ["a", "b"].map(Origin::named);
    let [a, b] = origins.each_ref().map(|o| o.address);
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &[a, b])]));
    let target = format!("shop/v1/{b}");
    weir.cli(&["drain", &target]).expect_code(0);
    let only_a = |weir: &Weir| {
        let mut client = weir.connect();
        (0..100).all(|_| client.get("/").unwrap().text() == "a")
    };
    assert!(only_a(&weir));
    let weir = weir.kill_and_restart();
    assert!(only_a(&weir), "an acknowledged drain is not forgotten");
    weir.cli(&["undrain", &target]).expect_code(0);
    assert!(!only_a(&weir));
    let done = weir.cli(&["drain", "shop/v1/127.0.0.1:1"]);
    assert!(matches!(done.code, Some(1 | 6)) && done.stderr.contains(&a.to_string()), "{done:?}");
    weir.cli(&["drain", "nonsense"]).expect_code(2);
}

#[test]
fn what_is_left_at_the_deadline_is_visibly_cut() {
    let gate = Gate::default();
    let theirs = gate.clone();
    let slow = Origin::scripted(move |exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        exchange.chunk(b"first")?;
        theirs.wait();
        exchange.wire.send("0\r\n\r\n")?;
        Ok(After::Close)
    });
    let other = Origin::named("other");
    let conf = |e: &[SocketAddr]| Conf::shop(&[("v1", 1, e)]).split("drain = { timeout = \"300ms\" }");
    let weir = Weir::start(&conf(&[slow.address]));
    let mut client = weir.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    client.head().unwrap();
    assert_eq!(client.chunk().unwrap().as_deref(), Some(&b"first"[..]));
    weir.edit(&conf(&[other.address]));
    let end = client.chunk();
    assert!(matches!(end, Err(Failure::Cut(_) | Failure::ClosedBeforeHead)), "no clean end: {end:?}");
    assert_eq!(weir.connect().get("/").unwrap().text(), "other");
    gate.open();
}

#[test]
fn removed_under_load_no_request_fails() {
    let origins = ["v1", "v1", "v1"].map(Origin::named);
    let all = origins.each_ref().map(|o| o.address);
    let weir = Weir::start(&Conf::shop(&[("v1", 1, &all)]));
    let load = crate::support::Load::steady(weir.web());
    for n in 0..crate::support::times(6, 60) {
        let gone = n % 3;
        let left: Vec<SocketAddr> = (0..3).filter(|i| *i != gone).map(|i| all[i]).collect();
        weir.edit(&Conf::shop(&[("v1", 1, &left)]));
        wait_until("the endpoint is gone", || {
            !weir.admin.shop()["versions"][0]["endpoints"]
                .to_string()
                .contains(&format!("{}\",\"state\":\"up", all[gone]))
                && origins[gone].open() == 0
        });
        let before = origins[gone].requests();
        load.wait_for_more(20);
        assert_eq!(origins[gone].requests(), before, "a removed endpoint got a request");
        weir.edit(&Conf::shop(&[("v1", 1, &all)]));
        wait_until("it is back", || origins[gone].requests() > before);
    }
    load.stop().expect_no_failure();
}

#[test]
fn in_flight_counts_are_true() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&Conf::one(origin.address));
    let held: Vec<_> = (0..5).map(|_| ask_behind(weir.web(), "/hold")).collect();
    let in_flight = || weir.admin.shop()["versions"][0]["endpoints"][0]["in_flight"].as_u64().unwrap();
    wait_until("five are in flight", || in_flight() == 5);
    gate.let_one();
    wait_until("four are in flight", || in_flight() == 4);
    gate.open();
    wait_until("none is in flight", || in_flight() == 0);
    assert!(held.into_iter().all(|h| h.join().unwrap().unwrap().status() == 200));
}
