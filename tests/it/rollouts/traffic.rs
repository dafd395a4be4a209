//! What the tests of rollouts share: versions that behave as told, visitors who come by themselves, a rollout's course.
//!
//! Visitors come at random times at a given rate, whatever became of those before them, so that answers that hang slow
//! nobody else down (as long as there are visitors left who do not wait).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Admin, After, Conf, Connection, Instant, Origin, Weir, wait_for, wait_until};

/// How a version answers; may change while it does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Parts of a million.
    pub(super) errors: u64,
    /// The median; the 99th percentile is eight times that. Zero: at once.
    pub(super) median: Duration,
    pub(super) hangs: bool,
}

/// A version under the test's control.
pub(super) struct Actor {
    pub(super) origin: Origin,
    manner: Arc<Mutex<Manner>>,
}

impl Actor {
    pub(super) fn new(name: &'static str, manner: Manner) -> Self {
        Self::acting(name, Arc::new(Mutex::new(manner)))
    }

    /// Two that behave alike at every moment, whatever either is told.
    pub(super) fn equals(names: [&'static str; 2], manner: Manner) -> [Self; 2] {
        let manner = Arc::new(Mutex::new(manner));
        names.map(|name| Self::acting(name, manner.clone()))
    }

    fn acting(name: &'static str, manner: Arc<Mutex<Manner>>) -> Self {
        let now = manner.clone();
        let origin = Origin::scripted(move |exchange| {
            exchange.body()?;
            let Manner { errors, median, hangs } = *now.lock().unwrap();
            if hangs {
                // Until the proxy gives up, or the test lets go.
                while now.lock().unwrap().hangs && !exchange.wire.is_closed_within(Duration::from_millis(20)) {}
                return Ok(After::Close);
            }
            if !median.is_zero() {
                std::thread::sleep(lognormal(median));
            }
            if fastrand::u64(0..1_000_000) < errors {
                return exchange.answer("500 Internal Server Error", "", name.as_bytes());
            }
            exchange.ok(name)
        });
        Self { origin, manner }
    }

    pub(super) fn fail(&self, parts_of_a_million: u64) {
        self.manner.lock().unwrap().errors = parts_of_a_million;
    }

    /// From the next request on; those that hang are let go if it does not hang.
    pub(super) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

fn lognormal(median: Duration) -> Duration {
    // ln 8 / 2.326, the 99th percentile of the normal distribution.
    const SIGMA: f64 = 0.894;
    let (u, v) = (fastrand::f64().max(1e-12), fastrand::f64());
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    median.mul_f64((SIGMA * normal).exp().min(50.0))
}

/// Visitors; they end when dropped.
pub(super) struct Visitors {
    stop: Arc<AtomicBool>,
    pub(super) answered: Arc<AtomicUsize>,
    /// Answers of 500 and above, and none.
    pub(super) failed: Arc<AtomicUsize>,
    rate: Arc<AtomicU64>,
    all: Vec<JoinHandle<()>>,
}

impl Visitors {
    /// `count` of them, `rate` requests per second together.
    pub(super) fn come(weir: &Weir, count: usize, rate: u64) -> Self {
        Self::visit(weir.web(), "/", count, rate)
    }

    /// The same for a path of the test's own.
    pub(super) fn visit(address: SocketAddr, path: &str, count: usize, rate: u64) -> Self {
        let mut this = Self {
            stop: Arc::default(),
            answered: Arc::default(),
            failed: Arc::default(),
            rate: Arc::new(AtomicU64::new(rate)),
            all: Vec::new(),
        };
        let visitor = |_| {
            let (stop, answered, failed) = (this.stop.clone(), this.answered.clone(), this.failed.clone());
            let (path, rate) = (path.to_owned(), this.rate.clone());
            std::thread::spawn(move || {
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let mean = count as f64 / rate.load(Ordering::Relaxed).max(1) as f64;
                    pause(&stop, Duration::from_secs_f64(-mean * (1.0 - fastrand::f64()).ln()));
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut open: Connection = match connection.take().map_or_else(|| Connection::open(address), Ok) {
                        Ok(open) => open,
                        Err(_) => continue,
                    };
                    match open.get(&path) {
                        Ok(answer) => {
                            answered.fetch_add(1, Ordering::Relaxed);
                            if answer.status() >= 500 {
                                failed.fetch_add(1, Ordering::Relaxed);
                            }
                            if !answer.head.closes() {
                                connection = Some(open);
                            }
                        }
                        Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            })
        };
        let all = (0..count).map(visitor).collect();
        this.all = all;
        this
    }

    /// From each visitor's next pause on.
    pub(super) fn pace(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Until so many more are answered.
    pub(super) fn wait_for(&self, more: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until("visitors are answered", || self.answered.load(Ordering::Relaxed) >= before + more);
    }
}

/// A visitor's own time between two requests: pace, not waiting for anything.
fn pause(stop: &AtomicBool, time: Duration) {
    let until = Instant::now() + time;
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.all.drain(..).for_each(|visitor| drop(visitor.join()));
    }
}

/// A split of stable `v1` with everything and `v2`, with that rollout.
pub(super) fn conf(stable: &Origin, canary: &Origin, rollout: &str) -> Conf {
    Conf::two((100, stable.address), (0, canary.address)).split(&format!("rollout = {{ {rollout} }}"))
}

/// Starts a rollout; gives its id.
#[track_caller]
pub(super) fn start(admin: Admin) -> String {
    let answer = admin.post("/api/v1/splits/shop/rollout", json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["rollout"]["id"].as_str().unwrap().to_owned()
}

pub(super) fn rollout(admin: Admin) -> Value {
    admin.json("/api/v1/splits/shop/rollout")
}

#[track_caller]
pub(super) fn command(admin: Admin, word: &str) -> Value {
    let answer = admin.post(&format!("/api/v1/splits/shop/rollout/{word}"), json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

/// Until its receipt is closed; `patience` from now.
#[track_caller]
pub(super) fn ended(admin: Admin, id: &str, patience: Duration) -> Value {
    let until = Instant::now() + patience;
    let path = format!("/api/v1/rollouts/{id}/receipt");
    loop {
        let receipt = admin.json(&path);
        if receipt["ended_at"].is_string() {
            return receipt;
        }
        assert!(Instant::now() < until, "the rollout does not end: {receipt:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
pub(super) fn wait_state(admin: Admin, state: &str) -> Value {
    wait_for(&format!("the rollout is {state}"), || Some(rollout(admin)).filter(|now| now["state"] == state))
}

/// Requests of a version in a receipt: all, and those with a status that fits.
pub(super) fn counted(receipt: &Value, version: &str, fits: impl Fn(u64) -> bool) -> (u64, u64) {
    let of = receipt["totals"].as_array().unwrap().iter().find(|total| total["version"] == version).unwrap();
    let statuses = of["counters"]["statuses"].as_object().unwrap();
    let sum = |fits: &dyn Fn(u64) -> bool| {
        let fitting = statuses.iter().filter(|(code, _)| fits(code.parse().unwrap()));
        fitting.map(|(_, n)| n.as_u64().unwrap()).sum::<u64>()
    };
    (sum(&|_| true), sum(&fits))
}
