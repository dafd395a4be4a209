//! Rollouts of versions that are equal: nothing the traffic or the upstreams do to both may be held against the new one.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::traffic::{Actor, Manner, Visitors, conf, ended, start};
use crate::support::{Admin, Instant, LIMIT, Weir, tell, times};

/// Splits of one weir, each with visitors and rollouts of its own.
const SPLITS: usize = 8;
const MANNER: Manner = Manner { errors: 5000, median: Duration::from_millis(3), hangs: false };
/// Of the visitors of one split, per second: the mean, and how it swings, by nine from low to high.
const RATE: f64 = 60.0;
const SWING: f64 = 0.8;
const PERIOD: Duration = Duration::from_secs(5);
/// Between two incidents, on average.
const QUIET: f64 = 3.0;

/// Splits `s0`, `s1`, ... of the same two upstreams.
fn world(actors: &[Actor; 2], state: &Path) -> String {
    let mut text = "workers = 2\n[listeners.web]\nbind = \"127.0.0.1:0\"\n".to_owned();
    for i in 0..SPLITS {
        let [v1, v2] = actors.each_ref().map(|actor| actor.origin.address);
        let _ = write!(
            text,
            "[[routes]]\nmatch = {{ path_prefix = \"/s{i}\" }}\nsplit = \"s{i}\"\n\
             [splits.s{i}]\nstable = \"v1\"\neject = {{ errors = 0 }}\n\
             rollout = {{ steps = [{{ weight = 5, for = \"2s\" }}, {{ weight = 25, for = \"2s\" }}, \
             {{ weight = 50, for = \"2s\" }}], on_inconclusive = \"advance\", analysis = {{ warm_up = \"0s\" }} }}\n\
             [splits.s{i}.versions]\n\
             v1 = {{ weight = 100, endpoints = [\"{v1}\"] }}\nv2 = {{ weight = 0, endpoints = [\"{v2}\"] }}\n"
        );
    }
    text + &format!("[admin]\nbind = \"127.0.0.1:0\"\nstate_dir = \"{}\"\n", state.display())
}

/// In memory where that can be had: eight rollouts of a few seconds write a great deal, and disks are not what is tried.
fn state_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Until `stop`: rates that swing as over a day, bursts, and outages behind both upstreams at once.
fn weather(visitors: &[Visitors], actors: &[Actor; 2], stop: &AtomicBool) {
    let (began, mut next) = (Instant::now(), QUIET);
    while !stop.load(Ordering::Relaxed) {
        let now = began.elapsed().as_secs_f64();
        let phase = std::f64::consts::TAU * now / PERIOD.as_secs_f64();
        for (i, visitors) in visitors.iter().enumerate() {
            // Each split has its own hour of the day.
            visitors.pace((RATE * (1.0 + SWING * (phase + i as f64).sin())) as u64);
        }
        let mut length = Duration::from_millis(50);
        if now >= next {
            next = now - QUIET * (1.0 - fastrand::f64()).ln();
            length = Duration::from_millis(200);
            match fastrand::bool() {
                // One switch for both: they fail, and are whole again, at the same moment.
                true => actors[0].fail(800_000),
                false => visitors.iter().for_each(|visitors| visitors.pace(5 * RATE as u64)),
            }
        }
        std::thread::sleep(length);
        actors[0].fail(MANNER.errors);
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn roll_out(admin: Admin, split: &str) -> Value {
    let answer = admin.post(&format!("/api/v1/splits/{split}/rollout"), json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let id = answer.json()["rollout"]["id"].as_str().unwrap().to_owned();
    ended(admin, &id, 3 * LIMIT)
}

/// One after the other in a split; gives how those ended that were rolled back.
fn roll_out_again_and_again(admin: Admin, split: &str, count: usize) -> Vec<String> {
    let mut back = Vec::new();
    for _ in 0..count {
        let receipt = roll_out(admin, split);
        match receipt["state"].as_str().unwrap() {
            "finished" => {}
            "failed" => {
                back.push(receipt["ending"].as_str().unwrap().to_owned());
            }
            other => panic!("{other}: {receipt:#}"),
        }
    }
    back
}

#[test]
fn equal_versions_go_through_whatever_the_weather() {
    let actors = Actor::equals(["v1", "v2"], MANNER);
    let state = state_folder();
    let weir = Weir::start_text(&world(&actors, state.path()));
    let (splits, each) = (times(4, SPLITS), times(1, 25));
    let come = |i| Visitors::visit(weir.web(), &format!("/s{i}/"), 12, RATE as u64);
    let visitors: Vec<Visitors> = (0..splits).map(come).collect();
    let stop = AtomicBool::new(false);
    let back: Vec<String> = std::thread::scope(|scope| {
        let weather = scope.spawn(|| weather(&visitors, &actors, &stop));
        // Also if a rollout's thread has panicked.
        let stop = StopOnDrop(&stop);
        let admin = weir.admin;
        let one = |i| scope.spawn(move || roll_out_again_and_again(admin, &format!("s{i}"), each));
        let all: Vec<_> = (0..splits).map(one).collect();
        let back = all.into_iter().flat_map(|split| split.join().unwrap()).collect();
        drop(stop);
        weather.join().unwrap();
        back
    });
    let (answered, failed) = visitors.iter().fold((0, 0), |(answered, failed), visitors| {
        (answered + visitors.answered.load(Ordering::Relaxed), failed + visitors.failed.load(Ordering::Relaxed))
    });
    let count = splits * each;
    tell(&format!(
        "equal versions | {} of {count} rolled back | {answered} requests, {:.2} % failed {back:?}",
        back.len(),
        100.0 * failed as f64 / answered as f64,
    ));
    assert!(failed > 0, "no outage was seen");
    assert!(back.len() <= 1, "{} of {count} rolled back: {back:#?}", back.len());
}

/// About one request in a minute proves nothing, and the receipt says so, whatever was configured to be done then.
#[test]
fn a_canary_that_hardly_anybody_visits_ends_inconclusive() {
    for (then, state) in [("rollback", "failed"), ("advance", "finished")] {
        let (v1, v2) = (Actor::new("v1", MANNER), Actor::new("v2", MANNER));
        let seconds = times(2, 70);
        let rollout = format!("steps = [{{ weight = 1, for = \"{seconds}s\" }}], on_inconclusive = \"{then}\"");
        let weir = Weir::start(&conf(&v1.origin, &v2.origin, &rollout));
        let _visitors = Visitors::visit(weir.web(), "/", 4, 2);
        let id = start(weir.admin);
        let receipt = ended(weir.admin, &id, Duration::from_secs(seconds as u64) + LIMIT);
        assert_eq!(receipt["state"], state, "{receipt:#}");
        assert_eq!(receipt["verdict"]["verdict"], "inconclusive", "{receipt:#}");
        let reason = receipt["verdict"]["reason"].as_str().unwrap();
        assert!(reason.contains("against it: e-value") && reason.contains("for it ("), "{reason}");
    }
}
