//! How many requests a bad canary harms before it is out, against analysis.md section 12: 200 requests per second, 5 %
//! of them to the canary, stable with 0.1 % errors and a history of 20,000 requests.
//!
//! Counted from the receipts, so requests that are on their way when the weights change count as harmed too. The short
//! forms show that it works and say why; that it is as fast as the table says takes many rollouts: the full forms.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::traffic::{Actor, Manner, Visitors, conf, counted, ended, start};
use crate::support::{Instant, LIMIT, Weir, soak, tell, times, wait_for_within};

const STABLE: Manner = Manner { errors: 1000, median: Duration::from_millis(5), hangs: false };
/// So that stays of visitors who wait for answers that do not come leave enough of them.
const VISITORS: usize = 128;
/// No rollout here takes longer; those that find nothing must not wait for ever.
const PATIENCE: Duration = Duration::from_secs(90);

/// One weir on which canaries are rolled out one after the other.
struct Lab {
    canary: Actor,
    weir: Weir,
    visitors: Visitors,
    _stable: Actor,
}

/// What came of one rollout.
struct Case {
    /// Requests of the canary, and the failed ones.
    requests: u64,
    failed: u64,
    took: Duration,
    ending: String,
    receipt: Value,
}

impl Lab {
    /// With stable's past.
    fn new(stable: Manner, split: &str) -> Self {
        let (v1, v2) = (Actor::new("v1", stable), Actor::new("v2", stable));
        let rollout = "steps = [{ weight = 5, for = \"30m\" }], analysis = { warm_up = \"0s\" }";
        // An ejected canary would be judged by what it does not answer.
        let split = format!("eject = {{ errors = 0 }}\ntimeouts = {{ first_byte = \"10s\" }}\n{split}");
        let weir = Weir::start(&conf(&v1.origin, &v2.origin, rollout).split(&split));
        // Not so fast that stable's past is slower than its present.
        let visitors = Visitors::come(&weir, VISITORS, times(500, 600) as u64);
        for _ in 0..times(2, 20) {
            visitors.wait_for(1000);
        }
        visitors.pace(times(500, 200) as u64);
        let this = Self { canary: v2, weir, visitors, _stable: v1 };
        this.settle();
        this
    }

    /// Until the history has taken everything in, at the rate that the rollouts will see.
    fn settle(&self) {
        self.visitors.wait_for(times(500, 400));
    }

    /// Rolls out a canary that behaves like that, until it is out.
    fn roll_out(&self, manner: Manner) -> Case {
        self.canary.behave(manner);
        let began = Instant::now();
        let id = start(self.weir.admin);
        wait_for_within("the canary is out", PATIENCE, || (self.weir.admin.weights() == (100, 0)).then_some(()));
        let took = began.elapsed();
        // Those that hang need not wait for the timeout.
        self.canary.behave(Manner { hangs: false, ..manner });
        let receipt = ended(self.weir.admin, &id, 2 * LIMIT);
        assert_eq!(receipt["state"], "failed", "{receipt:#}");
        let (requests, failed) = counted(&receipt, "v2", |code| code >= 500);
        let ending = receipt["ending"].as_str().unwrap().to_owned();
        Case { requests, failed, took, ending, receipt }
    }
}

/// A row of the table: how the canary behaves, what its reason must say, and how many requests it may harm on average.
struct Row {
    name: &'static str,
    stable: Manner,
    manner: Manner,
    reason: &'static str,
    /// The table's cell; its mean over `COUNT` rollouts may be 1.5 times that.
    cell: f64,
    harmed: fn(&Case) -> u64,
}

fn failures(case: &Case) -> u64 {
    case.failed
}

fn requests(case: &Case) -> u64 {
    case.requests
}

fn errors(percent: u64) -> Manner {
    Manner { errors: percent * 10_000, ..STABLE }
}

/// Slow enough for what a busy machine adds to be little.
const SLOWER_STABLE: Manner = Manner { median: Duration::from_millis(20), ..STABLE };

fn slower(stable: Manner, times: u32) -> Manner {
    Manner { errors: 0, median: stable.median * times, hangs: false }
}

/// Rolls it out many times; in the full form the mean must be within 1.5 of the table's.
fn proven(row: &Row, full: usize) {
    let lab = Lab::new(row.stable, "");
    let count = times(3, full);
    let cases: Vec<Case> = (0..count).map(|_| lab.roll_out(row.manner)).collect();
    let mean = |of: &dyn Fn(&Case) -> f64| cases.iter().map(of).sum::<f64>() / count as f64;
    let harmed = mean(&|case| (row.harmed)(case) as f64);
    let late = mean(&|case| (row.harmed)(case) as f64 - blamed(case).unwrap_or_default() as f64);
    let unknown =
        if blamed(&cases[0]).is_some() { format!(", {late:.1} of them not yet known") } else { String::new() };
    let all: Vec<u64> = cases.iter().map(row.harmed).collect();
    tell(&format!(
        "detection | {} | {harmed:.1} harmed (table {}{unknown}) | {:.1} canary requests | {:.2} s | {count} rollouts {all:?}",
        row.name,
        row.cell,
        mean(&|case| case.requests as f64),
        mean(&|case| case.took.as_secs_f64()),
    ));
    // The receipts have every request of the canary, those that ended after the rollback too.
    lab.weir.admin.wait_requests("v2", cases.iter().map(|case| case.requests as usize).sum());
    for case in &cases {
        assert!(case.ending.contains(row.reason), "{}: {}", row.name, case.ending);
        assert_eq!(case.receipt["verdict"]["verdict"], "regressed");
    }
    // Three rollouts say little about a mean, and a machine that is busy with other tests makes stable slow too: in the
    // short form it is enough that each ends, and why.
    if soak() {
        let bound = 1.5 * row.cell;
        assert!(harmed <= bound, "{}: {harmed:.2} harmed, at most {bound:.2}", row.name);
    }
}

/// The failures that the reason speaks of: `errors: canary 3/40 vs stable ...`.
fn blamed(case: &Case) -> Option<u64> {
    let rest = case.ending.split_once("errors: canary ")?.1;
    rest.split_once('/')?.0.parse().ok()
}

#[test]
fn every_answer_an_error() {
    let (name, reason) = ("100 % errors", ": errors: canary ");
    proven(&Row { name, stable: STABLE, manner: errors(100), reason, cell: 2.7, harmed: failures }, 30);
}

#[test]
fn every_other_answer_an_error() {
    let (name, reason) = ("50 % errors", ": errors: canary ");
    proven(&Row { name, stable: STABLE, manner: errors(50), reason, cell: 3.2, harmed: failures }, 30);
}

#[test]
fn every_tenth_answer_an_error() {
    let (name, reason) = ("10 % errors", ": errors: canary ");
    proven(&Row { name, stable: STABLE, manner: errors(10), reason, cell: 4.5, harmed: failures }, 24);
}

#[test]
fn twice_as_slow() {
    let (name, reason) = ("2x latency", "analysis:latency: latency (");
    let (stable, manner) = (SLOWER_STABLE, slower(SLOWER_STABLE, 2));
    proven(&Row { name, stable, manner, reason, cell: 74.0, harmed: requests }, 20);
}

#[test]
fn ten_times_as_slow() {
    let (name, reason) = ("10x latency", "analysis:latency: latency (");
    proven(&Row { name, stable: STABLE, manner: slower(STABLE, 10), reason, cell: 6.0, harmed: requests }, 60);
}

/// A request hangs after `hang_after`, here 1.05 s; ten come in that time and are harmed whatever is done. From then on
/// each is as slow as can be: six more, as with answers ten times as slow, and one for the width of a bin.
#[test]
fn no_answer_at_all() {
    let (name, reason) = ("hanging", "analysis:latency: latency (");
    let manner = Manner { errors: 0, hangs: true, ..STABLE };
    let per_second = 0.05 * times(500, 200) as f64;
    proven(&Row { name, stable: STABLE, manner, reason, cell: 1.15 * per_second + 6.0, harmed: requests }, 20);
}

/// A 500 is an application's own answer, so it has to be listed.
const RESCUE: &str = "retries = { rescue = true, on = [\"connect\", \"reset\", \"500\", \"502\", \"503\", \"504\"] }";

/// The client sees nothing of it, the canary's books all of it.
#[test]
fn with_rescue_nobody_sees_a_failure() {
    let lab = Lab::new(Manner { errors: 0, ..STABLE }, RESCUE);
    for _ in 0..times(3, 20) {
        let case = lab.roll_out(errors(100));
        let of_canary = &case.receipt["totals"][1];
        assert_eq!(of_canary["version"], "v2");
        assert_eq!(of_canary["counters"]["rescued"].as_u64(), Some(case.failed), "{of_canary:#}");
        assert_eq!(case.requests, case.failed);
        assert!(case.ending.contains(": errors: canary "), "{}", case.ending);
    }
    lab.visitors.wait_for(100);
    assert_eq!(lab.visitors.failed.load(Ordering::Relaxed), 0);
}
