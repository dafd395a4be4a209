//! Origins that flap, hang, reset, accept and never answer, or answer their health check while they fail requests: each
//! is out within its configured bound and back within its bound, and the others carry on.
//!
//! Two endpoints stay well in every test, and retries are on, so no client may see anything. Bounds in time are asserted
//! in the full form; the bound in requests, which ejection has, always.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{
    After, Conf, Exchange, Failure, Instant, Load, Mortal, Origin, Plan, Weir, soak, tell, times, wait_for,
    wait_for_within, wait_until,
};

const INTERVAL: Duration = Duration::from_millis(250);
const TIMEOUT: Duration = Duration::from_millis(200);
const UNHEALTHY_AFTER: u32 = 3;
const HEALTHY_AFTER: u32 = 2;
const ERRORS: usize = 5;
const EJECTED_FOR: Duration = Duration::from_secs(1);
const FIRST_BYTE: Duration = Duration::from_millis(500);
const CLIENTS: usize = 8;
/// What a loaded machine and a checker's jitter may add.
const SLACK: Duration = Duration::from_millis(500);

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Fault {
    None,
    /// Takes connections and requests and says nothing, to its health check neither.
    Silent,
    /// Closes every connection by RST instead of answering.
    Resets,
    /// Its health check is answered, its requests hang.
    Hangs,
    /// Its health check is answered, its requests fail.
    Fails,
}

impl Fault {
    /// Seen by the health check; else only by what becomes of requests.
    fn is_probed(self) -> bool {
        matches!(self, Self::Silent | Self::Resets)
    }

    /// By when it is out, at the latest.
    fn out_within(self) -> Duration {
        let probed = (INTERVAL + TIMEOUT) * UNHEALTHY_AFTER;
        // Hangs show themselves at the end of `first_byte`, all at once; load finds it at any time.
        if self.is_probed() { probed + SLACK } else { FIRST_BYTE * 2 + SLACK }
    }

    /// By when it is back, at the latest. A fault that outlasts an ejection brings another, of twice the length.
    fn back_within() -> Duration {
        ((INTERVAL + TIMEOUT) * HEALTHY_AFTER).max(2 * EJECTED_FOR) + SLACK
    }
}

/// An origin whose fault is switched on and off while it runs.
struct Switched {
    origin: Origin,
    fault: Arc<AtomicU8>,
    /// Requests that a fault has met, health checks not among them.
    harmed: Arc<AtomicUsize>,
}

impl Switched {
    fn new(name: &'static str) -> Self {
        let (fault, harmed) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicUsize::new(0)));
        let (theirs, harm) = (fault.clone(), harmed.clone());
        let origin = Origin::scripted(move |exchange| serve(name, exchange, &theirs, &harm));
        Self { origin, fault, harmed }
    }

    fn set(&self, fault: Fault) {
        self.harmed.store(0, Ordering::SeqCst);
        self.fault.store(fault as u8, Ordering::SeqCst);
    }
}

fn serve(name: &str, exchange: &mut Exchange<'_>, fault: &AtomicU8, harmed: &AtomicUsize) -> Result<After, Failure> {
    exchange.body()?;
    let now = || {
        [Fault::None, Fault::Silent, Fault::Resets, Fault::Hangs, Fault::Fails][fault.load(Ordering::SeqCst) as usize]
    };
    let is_probe = exchange.head.target() == "/healthz";
    let begun = now();
    if begun == Fault::None || (is_probe && !begun.is_probed()) {
        return exchange.ok(name);
    }
    if !is_probe {
        harmed.fetch_add(1, Ordering::SeqCst);
    }
    match begun {
        Fault::Resets => return Ok(After::Reset),
        Fault::Fails => return exchange.answer("503 Service Unavailable", "", b"no"),
        _ => {}
    }
    // Says nothing while the fault lasts, or until the other side gives up.
    let pause = Duration::from_millis(20);
    while now() == begun && !exchange.wire.is_closed_within(pause) {}
    Ok(After::Close)
}

fn conf(endpoints: &[std::net::SocketAddr]) -> Conf {
    let ms = |time: Duration| format!("\"{}ms\"", time.as_millis());
    Conf::shop(&[("v1", 1, endpoints)])
        .split(&format!(
            "health = {{ path = \"/healthz\", interval = {}, timeout = {}, healthy_after = {HEALTHY_AFTER}, \
             unhealthy_after = {UNHEALTHY_AFTER} }}",
            ms(INTERVAL),
            ms(TIMEOUT)
        ))
        .split(&format!("eject = {{ errors = {ERRORS}, for = {}, max_percent = 50 }}", ms(EJECTED_FOR)))
        .split(&format!("timeouts = {{ connect = \"500ms\", first_byte = {} }}", ms(FIRST_BYTE)))
        .split("retries = { attempts = 2, budget = 1.0 }")
}

/// The state of each endpoint, in file order.
#[track_caller]
fn states(weir: &Weir) -> Vec<String> {
    let shop = weir.admin.shop();
    let endpoints = shop["versions"][0]["endpoints"].as_array().unwrap();
    endpoints.iter().map(|e| e["state"].as_str().unwrap().to_owned()).collect()
}

/// How long until the first endpoint's state is as wanted; the others are up all the time.
#[track_caller]
fn until_first(weir: &Weir, what: &str, wanted: impl Fn(&str) -> bool) -> Duration {
    let begun = Instant::now();
    wait_for(what, || {
        let states = states(weir);
        assert!(states[1..].iter().all(|state| state == "up"), "the others are well: {states:?}");
        wanted(&states[0]).then_some(())
    });
    begun.elapsed()
}

fn load(weir: &Weir) -> Load {
    let pace = Some(Duration::from_millis(5));
    let load = Load::start(&Plan { address: weir.web(), connections: CLIENTS, pace, until_refused: false });
    load.wait_for_more(CLIENTS * 4);
    load
}

/// Well for as long as ejections may have lasted, so that the next one is a first one again; requests are served
/// meanwhile. The short form has no
/// bounds in time to be kept, and does not wait.
fn forgiven(load: &Load) {
    let back = Instant::now();
    wait_until("ejections are forgotten", || back.elapsed() > 3 * EJECTED_FOR || !soak());
    load.wait_for_more(CLIENTS);
}

#[track_caller]
fn assert_within(what: &str, took: Duration, bound: Duration) {
    tell(&format!("{what}: {took:?}, bound {bound:?}"));
    assert!(!soak() || took < bound, "{what}: {took:?}, bound {bound:?}");
}

#[track_caller]
fn out_and_back(fault: Fault) {
    let origins = ["a", "b", "c"].map(Switched::new);
    let weir = Weir::start(&conf(&origins.each_ref().map(|o| o.origin.address)));
    wait_until("all are up", || states(&weir) == ["up"; 3]);
    let load = load(&weir);
    for _ in 0..times(1, 10) {
        origins[0].set(fault);
        let took = until_first(&weir, "it is out", |state| matches!(state, "down" | "ejected"));
        let harmed = origins[0].harmed.load(Ordering::SeqCst);
        assert_within(&format!("{fault:?}: out"), took, fault.out_within());
        if !fault.is_probed() {
            // Five in a row take it out; what was on its way to it by then is harmed as well.
            assert!(harmed <= ERRORS + CLIENTS, "{fault:?} has harmed {harmed} requests");
        }
        let since = Instant::now();
        for name in ["b", "c"] {
            load.wait_for_version(name, since);
        }
        load.wait_for_more(CLIENTS * 4);
        origins[0].set(Fault::None);
        let well = Instant::now();
        let took = until_first(&weir, "it is back", |state| state == "up");
        assert_within(&format!("{fault:?}: back"), took, Fault::back_within());
        load.wait_for_version("a", well);
        forgiven(&load);
    }
    load.stop().expect_no_failure();
}

#[test]
fn one_that_never_answers() {
    out_and_back(Fault::Silent);
}

#[test]
fn one_that_resets() {
    out_and_back(Fault::Resets);
}

#[test]
fn one_whose_requests_hang() {
    out_and_back(Fault::Hangs);
}

#[test]
fn one_that_is_healthy_and_fails_its_requests() {
    out_and_back(Fault::Fails);
}

/// Down and up as a process: out each time, back each time.
#[test]
fn one_that_comes_and_goes() {
    let mut flapping = Mortal::start("a");
    let others = ["b", "c"].map(Origin::named);
    let weir = Weir::start(&conf(&[flapping.address, others[0].address, others[1].address]));
    wait_until("all are up", || states(&weir) == ["up"; 3]);
    let load = load(&weir);
    for _ in 0..times(2, 10) {
        flapping.kill();
        let took = until_first(&weir, "it is out", |state| matches!(state, "down" | "ejected"));
        assert_within("killed: out", took, Fault::Resets.out_within());
        load.wait_for_more(CLIENTS * 4);
        let raised = Instant::now();
        flapping.raise();
        let took = until_first(&weir, "it is back", |state| state == "up");
        assert_within("raised: back", took, Fault::back_within());
        load.wait_for_version("a", raised);
        forgiven(&load);
    }
    load.stop().expect_no_failure();
}

/// A health check that fails every other time never fails often enough in a row: nothing happens, and nothing is told.
#[test]
fn one_whose_health_check_flickers_stays() {
    let (probes, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, served) = (probes.clone(), asked.clone());
    let flickers = Origin::scripted(move |exchange| {
        exchange.body()?;
        if exchange.head.target() != "/healthz" {
            served.fetch_add(1, Ordering::SeqCst);
            return exchange.ok("a");
        }
        // Well at first, so that it is taken up; then every other time.
        match counted.fetch_add(1, Ordering::SeqCst) {
            n if n > 4 && n % 2 == 0 => exchange.answer("503 Service Unavailable", "", b"no"),
            _ => exchange.ok("a"),
        }
    });
    let others = ["b", "c"].map(Origin::named);
    let weir = Weir::start(&conf(&[flickers.address, others[0].address, others[1].address]));
    wait_until("all are up", || states(&weir) == ["up"; 3]);
    let load = load(&weir);
    let enough = probes.load(Ordering::SeqCst) + times(12, 100);
    wait_for_within("it was probed often", Duration::from_secs(60), || {
        assert_eq!(states(&weir), ["up"; 3]);
        (probes.load(Ordering::SeqCst) >= enough).then_some(())
    });
    let before = asked.load(Ordering::SeqCst);
    load.wait_for_more(CLIENTS * 4);
    assert!(asked.load(Ordering::SeqCst) > before, "it has its share still");
    load.stop().expect_no_failure();
}

/// With every endpoint failing, ejection stops at `max_percent`: somebody is always asked.
#[test]
fn never_more_than_max_percent() {
    let origins = ["a", "b", "c", "d"].map(Switched::new);
    let weir = Weir::start(&conf(&origins.each_ref().map(|o| o.origin.address)).split("on_unavailable = \"fail\""));
    wait_until("all are up", || states(&weir) == ["up"; 4]);
    origins.iter().for_each(|origin| origin.set(Fault::Fails));
    let mut client = weir.connect();
    let (deadline, mut most) = (Instant::now() + 3 * EJECTED_FOR, 0);
    while Instant::now() < deadline {
        assert_eq!(client.get("/").unwrap().text(), "no", "an endpoint's own answer, none of weir's");
        most = most.max(states(&weir).iter().filter(|state| *state == "ejected").count());
        assert!(most <= 2, "{most} of 4 are ejected");
    }
    assert_eq!(most, 2, "half of them were");
    origins.iter().for_each(|origin| origin.set(Fault::None));
    wait_until("all are back", || states(&weir) == ["up"; 4]);
    assert_eq!(client.get("/").unwrap().status(), 200);
}

/// Nobody is helped by an empty stable version: its last endpoint stays, whatever it answers.
#[test]
fn the_last_endpoint_of_stable_is_never_ejected() {
    let only = Switched::new("a");
    let weir = Weir::start(&conf(&[only.origin.address]));
    wait_until("it is up", || states(&weir) == ["up"]);
    only.set(Fault::Fails);
    let mut client = weir.connect();
    for _ in 0..ERRORS * 4 {
        assert_eq!(client.get("/").unwrap().text(), "no", "its own answer");
        assert_eq!(states(&weir), ["up"]);
    }
}
