//! The simulations that analysis.md section 12 promises, with the deck that deals real requests, printed as the tables
//! of `docs/analysis-acceptance.md`.
//!
//! Why not among the ordinary tests: hundreds of millions of requests. Seeds are fixed, so a run is repeatable. Rule:
//! the engine is looked at after every canary failure and at least every hundred requests; where a handful of requests
//! decide, after each.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the whole binary is test code, helpers included")]

use std::time::Duration;

use weir::analysis::{
    Allowance, BUCKETS, Counts, Engine, History, Judgment, LatencyAllowance, Settings, Verdict, bucket_of,
};
use weir::model::Weight;
use weir::routing::{Deck, Shares};

const RUNS: u64 = 1000;
const STABLE_RATE: f64 = 0.001;
/// A table's number is met to within a tenth.
const TOLERANCE: f64 = 0.10;

#[test]
#[ignore = "minutes: cargo test --release --test analysis_acceptance -- --ignored --nocapture"]
fn detection_is_as_fast_as_promised() {
    let mut report = Report::default();
    println!("| canary failures | w 1% | w 5% | w 25% | w 50% |\n|---|---|---|---|---|");
    for (rate, wanted) in [
        (1.0, [(2.0, 2.0), (2.7, 2.7), (3.0, 3.0), (4.1, 4.1)]),
        (0.5, [(5.2, 2.6), (6.4, 3.2), (8.1, 4.0), (12.0, 6.0)]),
        (0.1, [(39.0, 3.9), (46.0, 4.5), (73.0, 7.4), (94.0, 9.3)]),
        (0.05, [(99.0, 5.0), (107.0, 5.4), (180.0, 9.0), (286.0, 14.0)]),
        (0.011, [(1170.0, 13.0), (1190.0, 13.0), (1610.0, 18.0), (2650.0, 29.0)]),
    ] {
        let cells = [1, 5, 25, 50].into_iter().zip(wanted).map(|(w, (requests, harmed))| {
            let (got_requests, got_harmed) = mean_of_two(|seed| World::errors(seed, w, rate).until_regressed());
            report.cell(got_requests, requests) + " / " + &report.cell(got_harmed, harmed)
        });
        println!("| {:.1}% | {} |", 100.0 * rate, cells.collect::<Vec<_>>().join(" | "));
    }
    report.verdict();
}

#[test]
#[ignore = "minutes: cargo test --release --test analysis_acceptance -- --ignored --nocapture"]
fn a_late_break_is_found_as_fast_as_promised() {
    let mut report = Report::default();
    println!("Harmed when the canary fails after 2000 good requests, w 5%:\n");
    for (rate, wanted) in [(1.0, 4.8), (0.1, 6.9), (0.011, 17.0)] {
        let (_, harmed) = mean_of_two(|seed| {
            let mut world = World::errors(seed, 5, STABLE_RATE);
            world.pass(2000);
            world.canary_rate = rate;
            world.until_regressed()
        });
        println!("- {:.1}%: {}", 100.0 * rate, report.cell(harmed, wanted));
    }
    report.verdict();
}

#[test]
#[ignore = "minutes: cargo test --release --test analysis_acceptance -- --ignored --nocapture"]
fn slowness_is_found_as_fast_as_promised() {
    let mut report = Report::default();
    println!("Canary requests until a slow canary is found, w 5%:\n");
    for (name, slower, wanted, slowness) in [
        ("all calls 2x slower", 0.19, 74.0, Slowness { factor: 2.0, rare: 0.0 }),
        ("10x", 0.19, 6.0, Slowness { factor: 10.0, rare: 0.0 }),
        ("1.5x", 0.19, 357.0, Slowness { factor: 1.5, rare: 0.0 }),
        ("only p99 doubled by rare slow calls", 0.19, 1840.0, Slowness { factor: 1.0, rare: 0.009 }),
        ("1.1x with m = 0", 0.0, 2240.0, Slowness { factor: 1.1, rare: 0.0 }),
    ] {
        let (requests, _) = mean_of_two(|seed| World::latency(seed, slower, slowness).until_regressed());
        println!("- {name}: {}", report.cell(requests, wanted));
    }
    report.verdict();
}

#[test]
#[ignore = "minutes: cargo test --release --test analysis_acceptance -- --ignored --nocapture"]
fn a_good_canary_is_proved_as_fast_as_promised() {
    let mut report = Report::default();
    println!("Canary requests until a canary as good as stable is healthy, w 5%:\n");
    for (margin, wanted) in [(0.01, 500.0), (0.005, 1130.0), (0.001, 9950.0)] {
        let mean = mean(RUNS, |seed| World::healthy(seed, margin).until_healthy() as f64);
        println!("- margin {} points: {}", 100.0 * margin, report.cell(mean, wanted));
    }
    report.verdict();
}

#[test]
#[ignore = "minutes: cargo test --release --test analysis_acceptance -- --ignored --nocapture"]
fn equal_versions_raise_no_more_false_alarms_than_promised() {
    for weights in [&[5][..], &[25], &[50], &[5, 25, 50]] {
        assert_few_alarms("errors at 1%", weights, 1.0, false);
    }
}

#[test]
#[ignore = "minutes: cargo test --release --test analysis_acceptance -- --ignored --nocapture"]
fn a_swinging_rate_raises_no_more_false_alarms_than_promised() {
    for weights in [&[5, 25, 50][..], &[5], &[25], &[50]] {
        assert_few_alarms("errors swinging from 0.33% to 3%", weights, 9.0, false);
    }
}

#[test]
#[ignore = "minutes: cargo test --release --test analysis_acceptance -- --ignored --nocapture"]
fn equal_latencies_raise_no_more_false_alarms_than_promised() {
    assert_few_alarms("errors swinging, and latency with m = 0", &[5, 25, 50], 9.0, true);
}

/// At alpha 1 %, rho 1, delta 0.
fn assert_few_alarms(name: &str, weights: &[u32], swing: f64, has_latency: bool) {
    const ROLLOUTS: u64 = 4000;
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    let alarms = |thread: u64| {
        let seeds = (thread..ROLLOUTS).step_by(threads as usize);
        seeds.filter(|&seed| World::equal(seed, has_latency).alarms(weights, swing)).count()
    };
    let alarms: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || alarms(thread))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    let share = alarms as f64 / ROLLOUTS as f64;
    println!("- {name}, w {weights:?}: {:.2}% of {ROLLOUTS} rollouts of 20000 requests", 100.0 * share);
    assert!(share <= 0.013, "{share}");
}

#[test]
#[ignore = "a measurement: cargo test --release --test analysis_acceptance -- --ignored --nocapture"]
fn cost_of_a_tick() {
    const TICKS: usize = 20_000;
    for (name, has_latency) in [("errors alone", false), ("with latency", true)] {
        let mut world = World::equal(1, has_latency);
        let mut ticks = Vec::new();
        for _ in 0..TICKS {
            (0..100).for_each(|_| _ = world.request());
            ticks.push(std::mem::take(&mut world.pending));
        }
        let (engine, w) = (&mut world.engine, world.w);
        let tick = cpu_micros(|| ticks.iter().for_each(|[c, s]| drop(engine.tick(w, c, s).unwrap()))) / TICKS as f64;
        let settle = cpu_micros(|| ticks.iter().for_each(|[c, s]| engine.settle(w, c, s).unwrap())) / TICKS as f64;
        let bytes = serde_json::to_string(&engine.snapshot()).unwrap().len();
        println!("- {name}: tick {tick:.1} us, settle (4 rungs) {settle:.1} us, snapshot {bytes} bytes");
    }
}

/// Time this thread ran for, not the time that passed: other work on the machine does not count.
fn cpu_micros(work: impl FnOnce()) -> f64 {
    let now = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1000.0
    };
    let before = now();
    work();
    now() - before
}

/// How a canary is slower: all its calls by a factor, and some rare ones by very much.
#[derive(Clone, Copy)]
struct Slowness {
    factor: f64,
    rare: f64,
}

/// One rollout: the traffic, the coin, and the engine.
struct World {
    rng: fastrand::Rng,
    deck: Deck,
    shares: Shares,
    w: f64,
    canary_rate: f64,
    stable_rate: f64,
    slowness: Slowness,
    has_latency: bool,
    /// Canary and stable since the last tick.
    pending: [Counts; 2],
    /// Canary requests and failures so far.
    seen: [u64; 2],
    engine: Engine,
}

impl World {
    fn new(seed: u64, settings: Settings, history_rate: f64, margins: &[f64]) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let has_latency = settings.latency.is_some();
        let mut buckets = [0; BUCKETS];
        if has_latency {
            (0..20_000).for_each(|_| buckets[latency(&mut rng, 1.0)] += 1);
        }
        let history = History::of(20_000, (20_000.0 * history_rate) as u64, buckets);
        let mut world = Self {
            deck: Deck::new(&mut rng),
            rng,
            shares: Shares::default(),
            w: 0.0,
            canary_rate: history_rate,
            stable_rate: history_rate,
            slowness: Slowness { factor: 1.0, rare: 0.0 },
            has_latency,
            pending: Default::default(),
            seen: [0; 2],
            engine: Engine::new(settings, &history, margins).unwrap(),
        };
        world.set_weight(5);
        world
    }

    fn errors(seed: u64, w: u32, rate: f64) -> Self {
        let mut world = Self::new(seed, Settings { latency: None, ..Settings::default() }, STABLE_RATE, &[]);
        world.set_weight(w);
        world.canary_rate = rate;
        world
    }

    fn latency(seed: u64, slower: f64, slowness: Slowness) -> Self {
        let latency = Some(LatencyAllowance { slower, max_p99: None });
        let settings = Settings { latency, ..Settings::default() };
        Self { slowness, ..Self::new(seed, settings, STABLE_RATE, &[]) }
    }

    fn healthy(seed: u64, margin: f64) -> Self {
        Self::new(seed, Settings { latency: None, ..Settings::default() }, STABLE_RATE, &[margin])
    }

    fn equal(seed: u64, has_latency: bool) -> Self {
        let settings = Settings {
            false_alarm: 0.01,
            errors: Allowance { ratio: 1.0, margin: 0.0, max: None },
            latency: has_latency.then_some(LatencyAllowance { slower: 0.0, max_p99: None }),
            ..Settings::default()
        };
        Self::new(seed, settings, 0.01, &[0.01, 0.002, 0.001, 0.0005])
    }

    fn set_weight(&mut self, percent: u32) {
        let weights = [(0, Weight::new(percent).unwrap()), (1, Weight::new(100 - percent).unwrap())];
        self.shares = Shares::new(&weights);
        self.w = f64::from(percent) / 100.0;
    }

    /// One request; whether the canary got it, and whether it failed.
    fn request(&mut self) -> (bool, bool) {
        let side = self.shares.pick(self.deck.deal(&mut self.rng)).unwrap();
        let is_canary = side == 0;
        let rate = if is_canary { self.canary_rate } else { self.stable_rate };
        let is_bad = self.rng.f64() < rate;
        let counts = &mut self.pending[side];
        counts.all += 1;
        counts.bad += u64::from(is_bad);
        if self.has_latency {
            let Slowness { factor, rare } = self.slowness;
            let is_rare = is_canary && rare > 0.0 && self.rng.f64() < rare;
            // Five times the 99th percentile of the others, or a bit more or less.
            let bucket = if is_rare { bucket_of(Duration::from_millis(400)) } else { 0 };
            let own = latency(&mut self.rng, if is_canary { factor } else { 1.0 });
            counts.buckets[bucket.max(own)] += 1;
        }
        if is_canary {
            self.seen[0] += 1;
            self.seen[1] += u64::from(is_bad);
        }
        (is_canary, is_bad)
    }

    fn tick(&mut self) -> Judgment {
        let [canary, stable] = std::mem::take(&mut self.pending);
        self.engine.tick(self.w, &canary, &stable).unwrap()
    }

    /// Requests until one after which the engine is looked at.
    fn until_look(&mut self, each: u64) -> Judgment {
        for _ in 0..each {
            let (is_canary, is_bad) = self.request();
            if is_canary && (is_bad || self.has_latency) {
                break;
            }
        }
        self.tick()
    }

    /// Canary requests, and harmed ones among them, until the canary is called regressed.
    fn until_regressed(&mut self) -> (f64, f64) {
        const ONE_BY_ONE: usize = 300;
        let before = self.seen;
        let looks = std::iter::repeat_n(1, ONE_BY_ONE).chain(std::iter::repeat(100));
        for each in looks {
            if self.until_look(each).verdict == Verdict::Regressed {
                break;
            }
        }
        ((self.seen[0] - before[0]) as f64, (self.seen[1] - before[1]) as f64)
    }

    fn until_healthy(&mut self) -> u64 {
        loop {
            (0..100).for_each(|_| _ = self.request());
            let [canary, stable] = self.pending.clone();
            self.engine.settle(self.w, &canary, &stable).unwrap();
            if self.tick().verdict == Verdict::Healthy {
                return self.seen[0];
            }
        }
    }

    /// So many canary requests, the last of them looked at one by one: what a tick of a hundred has just released would
    /// be a head start.
    fn pass(&mut self, canary_requests: u64) {
        while self.seen[0] < canary_requests {
            let each = if self.seen[0] + 20 < canary_requests { 100 } else { 1 };
            self.until_look(each);
        }
    }

    /// Whether a rollout of 20000 requests in steps of these weights ends with a regressed canary.
    fn alarms(&mut self, weights: &[u32], swing: f64) -> bool {
        const REQUESTS: usize = 20_000;
        for i in 0..REQUESTS {
            if i % REQUESTS.div_ceil(weights.len()) == 0 {
                self.tick();
                self.set_weight(weights[i / REQUESTS.div_ceil(weights.len())]);
            }
            let phase = (i as f64 / 2000.0 * std::f64::consts::TAU).sin();
            self.stable_rate = 0.01 * swing.sqrt().powf(phase);
            self.canary_rate = self.stable_rate;
            let (is_canary, is_bad) = self.request();
            let is_regressed = (is_canary && is_bad || i % 100 == 99) && self.tick().verdict == Verdict::Regressed;
            if is_regressed {
                return true;
            }
        }
        false
    }
}

/// The bucket of a lognormal latency, median 10 ms times `factor`, p99 eight times that.
fn latency(rng: &mut fastrand::Rng, factor: f64) -> usize {
    let sigma = 3.0 / 2.326_347_874;
    let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
    // Logarithms to the base 2, in eighths, above 100 us.
    let eighths = 8.0 * ((100.0 * factor).log2() + sigma * normal);
    (eighths.ceil().max(0.0) as usize).min(BUCKETS - 1)
}

fn mean(runs: u64, run: impl Fn(u64) -> f64) -> f64 {
    (0..runs).map(run).sum::<f64>() / runs as f64
}

fn mean_of_two(run: impl Fn(u64) -> (f64, f64)) -> (f64, f64) {
    let sum = (0..RUNS).map(run).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    (sum.0 / RUNS as f64, sum.1 / RUNS as f64)
}

/// What was missed.
#[derive(Default)]
struct Report {
    missed: Vec<String>,
}

impl Report {
    /// The number with the promised one beside it.
    fn cell(&mut self, got: f64, wanted: f64) -> String {
        let text = format!("{} ({wanted})", short(got));
        // Less than promised is better; the table's numbers have two or three digits.
        if got > wanted * (1.0 + TOLERANCE) {
            self.missed.push(text.clone());
        }
        text
    }

    fn verdict(self) {
        assert!(self.missed.is_empty(), "slower than promised: {}", self.missed.join(", "));
    }
}

fn short(x: f64) -> String {
    if x < 10.0 { format!("{x:.2}") } else { format!("{x:.0}") }
}
