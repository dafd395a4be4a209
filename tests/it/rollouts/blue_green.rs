//! Blue-green: checked while idle, one switch over all routes of the split, watched, final, and back in one call.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::receiver::Receiver;
use super::traffic::{Actor, Manner, conf, ended, start};
use crate::support::{Connection, Instant, LIMIT, Weir, tell, times, wait_until};

/// One answered request.
#[derive(Clone, Debug)]
struct Seen {
    began: Instant,
    ended: Instant,
    path: &'static str,
    version: String,
}

/// Clients on both routes who come by themselves and write down what they see.
struct Clients {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    all: Vec<std::thread::JoinHandle<()>>,
}

const PATHS: [&str; 2] = ["/shop", "/api"];
const PER_PATH: usize = 8;
/// Between two requests of one client, on average.
const PAUSE: f64 = 0.02;

impl Clients {
    fn come(address: SocketAddr) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let one = |i: usize| {
            let (stop, seen) = (stop.clone(), seen.clone());
            std::thread::spawn(move || client(address, PATHS[i % 2], &stop, &seen))
        };
        let all = (0..2 * PER_PATH).map(one).collect();
        Self { stop, seen, all }
    }

    fn wait_for(&self, more: usize) {
        let since = Instant::now();
        let new = || self.seen.lock().unwrap().iter().filter(|seen| seen.began >= since).count();
        wait_until("clients are answered", || new() >= more);
    }

    fn end(mut self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.all.drain(..) {
            client.join().unwrap();
        }
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn client(address: SocketAddr, path: &'static str, stop: &AtomicBool, seen: &Mutex<Vec<Seen>>) {
    let mut connection = Connection::open(address).unwrap();
    while !stop.load(Ordering::Relaxed) {
        // Their own pace, not waiting for anything.
        std::thread::sleep(Duration::from_secs_f64(-PAUSE * (1.0 - fastrand::f64()).ln()));
        let began = Instant::now();
        let answer = connection.get(path).unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        seen.lock().unwrap().push(Seen { began, ended: Instant::now(), path, version: answer.text() });
    }
}

/// When the first request was answered by that version of those that began after `since`; none that began later may
/// have been answered by the other, on any route.
#[track_caller]
fn switched(seen: &[Seen], version: &str, since: Instant, until: Instant) -> Instant {
    let within: Vec<&Seen> = seen.iter().filter(|s| s.began >= since && s.began < until).collect();
    let first = within.iter().filter(|s| s.version == version).map(|s| s.ended).min();
    let first = first.unwrap_or_else(|| panic!("nobody was answered by {version}"));
    let late: Vec<_> = within.iter().filter(|s| s.began >= first && s.version != version).collect();
    assert!(late.is_empty(), "{} not by {version} after its first answer: {:?}", late.len(), late[0]);
    for path in PATHS {
        assert!(within.iter().any(|s| s.began >= first && s.path == path), "nobody came to {path}");
    }
    first
}

fn there_and_back() {
    let (v1, v2) = (Actor::new("v1", Manner::default()), Actor::new("v2", Manner::default()));
    let smoke = Receiver::answering(|n| if n < 1 { "202 Accepted" } else { "200 OK" });
    let rollout = format!(
        "strategy = \"blue_green\", steps = [{{ weight = 100, for = \"1s\" }}], checks = [{{ name = \"smoke\", \
         at = \"start\", every = \"1s\", webhook = {{ url = \"{}\" }} }}]",
        smoke.url()
    );
    let route = |path| format!("[[routes]]\nmatch = {{ path_prefix = \"{path}\" }}\nsplit = \"shop\"\n");
    let weir = Weir::start(&conf(&v1.origin, &v2.origin, &rollout).routes(&PATHS.map(route).concat()));
    let clients = Clients::come(weir.web());
    clients.wait_for(100);
    let began = Instant::now();
    let id = start(weir.admin);
    smoke.wait_for(1);
    clients.wait_for(100);
    assert_eq!((v2.origin.connections(), weir.admin.weights()), (0, (100, 0)), "idle while it is checked");
    wait_until("the switch", || weir.admin.weights() == (0, 100));
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!((receipt["state"].as_str(), &weir.admin.shop()["stable"]), (Some("finished"), &"v2".into()));
    clients.wait_for(100);
    let asked = Instant::now();
    weir.admin.rollback();
    let answered = Instant::now();
    clients.wait_for(100);
    assert_eq!(weir.admin.weights(), (100, 0));
    let seen = clients.end();
    let there = switched(&seen, "v2", began, asked);
    let back = switched(&seen, "v1", asked, seen.iter().map(|s| s.ended).max().unwrap());
    let late = seen.iter().filter(|s| s.began >= answered && s.version != "v1").count();
    assert_eq!(late, 0, "answered by v2 although the rollback was confirmed before they began");
    tell(&format!(
        "blue-green | {} requests over {} routes | switched at {:.2} s, back {:.1} ms after it was asked for",
        seen.len(),
        PATHS.len(),
        there.duration_since(began).as_secs_f64(),
        back.saturating_duration_since(asked).as_secs_f64() * 1e3,
    ));
}

#[test]
fn one_switch_over_all_routes_and_back_in_one_call() {
    (0..times(1, 20)).for_each(|_| there_and_back());
}
