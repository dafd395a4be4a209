//! Active health: who is checked and how, who is taken out, who comes back, and what operators see of it.

mod kinds;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{After, Conf, Exchange, Failure, Gate, Load, Origin, Weir, free_address, wait_for, wait_until};

/// Often enough for a test; the counters are the default's.
const FAST: &str = "path = \"/healthz\", interval = \"50ms\", timeout = \"1s\"";

fn checked(versions: &[(&str, u32, &[SocketAddr])]) -> Conf {
    Conf::shop(versions).split(&format!("health = {{ {FAST} }}"))
}

/// An origin with a page for its checks, apart from what it answers to others.
struct Patient {
    origin: Origin,
    status: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

const HANG: u16 = 1;
const RESET: u16 = 2;

impl Patient {
    fn new(name: &str) -> Self {
        Self::with(name, 200)
    }

    fn with(name: &str, status: u16) -> Self {
        let name = name.to_owned();
        let status = Arc::new(AtomicU16::new(status));
        let (checks, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (s, c, r) = (status.clone(), checks.clone(), requests.clone());
        let origin = Origin::scripted(move |exchange| {
            if exchange.head.target() != "/healthz" {
                r.fetch_add(1, Ordering::SeqCst);
                return exchange.ok(&name);
            }
            c.fetch_add(1, Ordering::SeqCst);
            check_page(exchange, s.load(Ordering::SeqCst))
        });
        Self { origin, status, checks, requests }
    }

    fn address(&self) -> SocketAddr {
        self.origin.address
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Until it was checked so many times more.
    fn wait_checks(&self, more: usize) {
        let goal = self.checks.load(Ordering::SeqCst) + more;
        wait_until("more checks", || self.checks.load(Ordering::SeqCst) >= goal);
    }
}

fn check_page(exchange: &mut Exchange<'_>, status: u16) -> Result<After, Failure> {
    match status {
        // Until the peer gives up.
        HANG => exchange.wire.head().map(|_| After::Close),
        RESET => Ok(After::Reset),
        status => exchange.answer(&format!("{status} Status"), "", b"checked"),
    }
}

/// What the API says of an endpoint.
fn endpoint(weir: &Weir, version: &str, address: impl ToString) -> Value {
    let shop = weir.admin.shop();
    let versions = shop["versions"].as_array().unwrap();
    let version = versions.iter().find(|v| v["name"] == version).unwrap();
    let address = address.to_string();
    let found = version["endpoints"].as_array().unwrap().iter().find(|e| e["address"] == address);
    found.unwrap_or_else(|| panic!("no {address} in {shop}")).clone()
}

#[track_caller]
fn wait_state(weir: &Weir, version: &str, address: impl ToString, state: &str) -> Value {
    wait_for(&format!("{} is {state}", address.to_string()), || {
        let endpoint = endpoint(weir, version, address.to_string());
        (endpoint["state"] == state).then_some(endpoint)
    })
}

fn health_events(weir: &Weir) -> Vec<Value> {
    let lines = weir.stderr();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event"] == "health").collect()
}

#[test]
fn a_failing_page_takes_an_endpoint_out_and_back_and_no_request_fails() {
    let (a, b) = (Patient::new("a"), Patient::new("b"));
    let weir = Weir::start(&checked(&[("v1", 1, &[a.address(), b.address()])]));
    wait_state(&weir, "v1", a.address(), "up");
    wait_state(&weir, "v1", b.address(), "up");
    let load = Load::steady(weir.web());
    for _ in 0..crate::support::times(2, 20) {
        b.set(503);
        let down = wait_state(&weir, "v1", b.address(), "down");
        assert_eq!(down["reason"], "status 503, not 200-399");
        assert!(down["last_check"].as_str().is_some_and(|at| at.ends_with('Z')), "{down}");
        load.wait_for_more(10);
        let before = b.requests();
        load.wait_for_more(50);
        assert_eq!(b.requests(), before, "down, and still asked");
        b.set(200);
        let up = wait_state(&weir, "v1", b.address(), "up");
        assert!(up.get("reason").is_none(), "{up}");
        wait_until("it is used again", || b.requests() > before);
    }
    load.stop().expect_no_failure();
    let transitions: Vec<_> = health_events(&weir).iter().map(|e| format!("{} {}", e["from"], e["to"])).collect();
    let first: Vec<_> = transitions.iter().filter(|t| *t == "\"checking\" \"up\"").collect();
    assert_eq!(first.len(), 2, "{transitions:?}");
    let event = health_events(&weir).into_iter().find(|e| e["to"] == "down").unwrap();
    let expected = json!({"split": "shop", "version": "v1", "endpoint": b.address().to_string(), "from": "up",
        "to": "down", "reason": "status 503, not 200-399", "level": "warn"});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&event[key], value, "{key} of {event}");
    }
}

#[test]
fn a_new_endpoint_takes_nothing_before_its_first_pass() {
    let (a, b) = (Patient::new("a"), Patient::with("b", 500));
    let patient = format!("health = {{ {FAST}, unhealthy_after = 1000 }}");
    let conf = |endpoints: &[SocketAddr]| Conf::shop(&[("v1", 1, endpoints)]).split(&patient);
    let weir = Weir::start(&conf(&[a.address()]));
    wait_state(&weir, "v1", a.address(), "up");
    let load = Load::steady(weir.web());
    weir.edit(&conf(&[a.address(), b.address()]));
    wait_for("it is there", || weir.admin.shop()["versions"][0]["endpoints"][1].as_object().map(drop));
    let shown = wait_state(&weir, "v1", b.address(), "checking");
    assert!(shown["reason"].is_null() || shown["reason"] == "status 500, not 200-399", "{shown}");
    b.wait_checks(4);
    load.wait_for_more(50);
    assert_eq!(b.requests(), 0, "not yet checked, and asked already");
    weir.admin.wait_metric("weir_endpoint_up", &[("endpoint", &b.address().to_string())], 0.0);
    let table = weir.cli(&["status", "shop"]).stdout;
    assert!(table.contains("1/2 up, 1 checking"), "{table}");
    b.set(200);
    wait_until("one pass is enough", || b.requests() > 0);
    assert_eq!(endpoint(&weir, "v1", b.address())["state"], "up");
    load.stop().expect_no_failure();
}

#[test]
fn a_reload_keeps_what_is_known_and_switches_checks_on_and_off() {
    let (a, b) = (Patient::new("a"), Patient::with("b", 503));
    let versions: [(&str, u32, &[SocketAddr]); 1] = [("v1", 1, &[a.address(), b.address()])];
    let (with, without) = (checked(&versions), Conf::shop(&versions));
    let weir = Weir::start(&with);
    wait_state(&weir, "v1", a.address(), "up");
    wait_state(&weir, "v1", b.address(), "down");
    let events = health_events(&weir).len();
    let reload = |conf: &Conf| {
        let before = weir.admin.json("/api/v1/status")["revision"].as_u64();
        weir.edit(conf);
        wait_until("it is taken", || weir.admin.json("/api/v1/status")["revision"].as_u64() > before);
    };
    // Something else changes: down stays down, and nobody is asked to prove it anew.
    reload(&with.clone().split("expose_version = true"));
    assert_eq!(endpoint(&weir, "v1", b.address())["state"], "down");
    b.wait_checks(3);
    assert_eq!(health_events(&weir).len(), events, "{:?}", health_events(&weir));
    // Its check changes: the state is kept until the new one decides.
    reload(&Conf::shop(&versions).split(&format!("health = {{ {FAST}, expect = \"503\" }}")));
    wait_state(&weir, "v1", b.address(), "up");
    wait_state(&weir, "v1", a.address(), "down");
    // Off: everybody is able.
    reload(&without);
    let up = wait_state(&weir, "v1", a.address(), "up");
    assert!(up.get("last_check").is_none(), "{up}");
    let mut client = weir.connect();
    wait_until("both are used", || client.get("/").unwrap().text() == "a");
    wait_until("both are used", || client.get("/").unwrap().text() == "b");
    // On, for endpoints that take requests: until its failures decide, `b` goes on.
    let b_before = b.requests();
    reload(&Conf::shop(&versions).split(&format!("health = {{ {FAST}, unhealthy_after = 1000 }}")));
    b.wait_checks(3);
    assert_eq!(endpoint(&weir, "v1", b.address())["state"], "up");
    wait_until("it goes on", || client.get("/").unwrap().text() == "b");
    assert!(b.requests() > b_before);
}

#[test]
fn draining_and_health_are_two_axes() {
    let (a, b) = (Patient::new("a"), Patient::new("b"));
    let weir = Weir::start(&checked(&[("v1", 1, &[a.address(), b.address()])]));
    wait_state(&weir, "v1", b.address(), "up");
    let path = |verb: &str| format!("/api/v1/splits/shop/versions/v1/{verb}");
    let which = json!({"endpoint": b.address().to_string()});
    weir.admin.post(&path("drain"), which.clone());
    assert_eq!(endpoint(&weir, "v1", b.address())["state"], "draining");
    b.wait_checks(4);
    assert_eq!(endpoint(&weir, "v1", b.address())["state"], "draining", "a pass has undone it");
    let before = b.requests();
    let mut client = weir.connect();
    assert!((0..50).all(|_| client.get("/").unwrap().text() == "a"));
    assert_eq!(b.requests(), before);
    // It falls ill while it drains: the drain's end does not make it well.
    b.set(503);
    b.wait_checks(5);
    weir.admin.post(&path("undrain"), which);
    assert_eq!(endpoint(&weir, "v1", b.address())["state"], "down");
    assert!((0..50).all(|_| client.get("/").unwrap().text() == "a"));
    b.set(200);
    wait_state(&weir, "v1", b.address(), "up");
}

#[test]
fn a_version_without_an_able_endpoint_is_spilled_or_fails_or_is_held_for() {
    let (stable, canary) = (Patient::new("v1"), Patient::with("v2", 503));
    let conf = |on: &str| {
        let conf = checked(&[("v1", 0, &[stable.address()]), ("v2", 1, &[canary.address()])]);
        conf.split("stable = \"v1\"").split(&format!("on_unavailable = \"{on}\""))
    };
    let weir = Weir::start(&conf("fail"));
    wait_state(&weir, "v2", canary.address(), "down");
    let answer = weir.connect().get("/").unwrap();
    assert_eq!((answer.status(), answer.head.get("weir-error")), (503, Some("no-endpoint")));
    assert_eq!(weir.admin.get("/readyz").status(), 200, "readiness is about weir");
    weir.edit(&conf("spill").weights(&[1, 1_000_000]));
    wait_until("it is spilled", || weir.connect().get("/").unwrap().text() == "v1");
    weir.edit(&conf("hold").split("hold = { timeout = \"30s\" }"));
    wait_until("the file is in force", || weir.admin.weights() == (0, 1));
    let address = weir.web();
    let waiting = std::thread::spawn(move || crate::support::Connection::open(address)?.get("/held"));
    canary.wait_checks(2);
    assert!(!waiting.is_finished());
    canary.set(200);
    assert_eq!(waiting.join().unwrap().unwrap().text(), "v2");
}

#[test]
fn a_rollback_to_the_ill_is_refused_unless_forced() {
    let (stable, canary) = (Patient::with("v1", 503), Patient::new("v2"));
    let weir = Weir::start(&checked(&[("v1", 50, &[stable.address()]), ("v2", 50, &[canary.address()])]));
    wait_state(&weir, "v1", stable.address(), "down");
    wait_state(&weir, "v2", canary.address(), "up");
    let refused = weir.admin.post("/api/v1/splits/shop/rollback", json!({}));
    assert_eq!(refused.status(), 409, "{}", refused.text());
    let problem = refused.json();
    assert_eq!(problem["type"], "/problems/target-unhealthy");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("`v1` has no healthy endpoint")), "{problem}");
    assert_eq!(weir.admin.weights(), (50, 50));
    let done = weir.cli(&["rollback", "shop"]);
    assert_eq!(done.code, Some(6), "{done:?}");
    weir.cli(&["rollback", "shop", "--force"]).expect_code(0);
    assert_eq!(weir.admin.weights(), (100, 0));
    // To the one that is able nothing stands in the way.
    assert_eq!(weir.admin.post("/api/v1/splits/shop/rollback", json!({"to": "v2"})).status(), 200);
    stable.set(200);
    wait_state(&weir, "v1", stable.address(), "up");
    assert_eq!(weir.admin.post("/api/v1/splits/shop/rollback", json!({"to": "v1"})).status(), 200);
}

/// What requests get is not what its page says: that is for ejection to notice.
#[test]
fn a_page_that_passes_keeps_its_endpoint_up_whatever_requests_get() {
    let origin = Origin::scripted(|exchange| match exchange.head.target() {
        "/healthz" => exchange.ok("fine"),
        _ => exchange.answer("500 No", "", b"broken"),
    });
    let weir = Weir::start(&checked(&[("v1", 1, &[origin.address])]));
    wait_state(&weir, "v1", origin.address, "up");
    let mut client = weir.connect();
    assert!((0..3).all(|_| client.get("/").unwrap().status() == 500));
    assert_eq!(endpoint(&weir, "v1", origin.address)["state"], "up");
}

#[test]
fn counts_of_checks_are_on_the_page() {
    let (good, bad) = (Patient::new("v1"), free_address());
    let weir = Weir::start(&checked(&[("v1", 1, &[good.address()]), ("v2", 1, &[bad])]));
    good.wait_checks(3);
    let count = |version, result| {
        weir.admin.count("weir_health_checks_total", &[("split", "shop"), ("version", version), ("result", result)])
    };
    wait_until("v1 passes", || count("v1", "pass") >= 3.0);
    wait_until("v2 fails", || count("v2", "fail") >= 3.0);
    assert_eq!((count("v2", "pass"), count("v2", "error")), (0.0, 0.0));
    weir.admin.wait_metric("weir_endpoint_up", &[("endpoint", &good.address().to_string())], 1.0);
    weir.admin.wait_metric("weir_endpoint_up", &[("endpoint", &bad.to_string())], 0.0);
}

/// The start waits for nobody: ready at once, and what cannot be asked yet is `checking`.
#[test]
fn a_start_is_not_held_up_by_checks() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let slow = "health = { path = \"/hold\", interval = \"50ms\", timeout = \"20s\" }";
    let weir = Weir::start(&Conf::one(origin.address).split(slow));
    assert_eq!(weir.admin.get("/readyz").status(), 200);
    wait_until("it is being asked", || gate.waiting() == 1);
    assert_eq!(endpoint(&weir, "v1", origin.address)["state"], "checking");
    assert_eq!(weir.connect().get("/").unwrap().status(), 503);
    gate.open();
    wait_state(&weir, "v1", origin.address, "up");
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
}
