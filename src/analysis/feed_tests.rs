//! The feed's promises: each request once, in order, in its own epoch, and nothing chosen by its outcome.

use proptest::prelude::*;

use super::*;
use crate::analysis::engine::Engine;
use crate::analysis::meter::{Meter, Origin};
use crate::analysis::settings::LatencyAllowance;

const FAST: usize = 50;

fn settings(warm_up: Duration) -> Settings {
    let latency = Some(LatencyAllowance { slower: 0.19, max_p99: None });
    Settings { warm_up, latency, ..Settings::default() }
}

/// A feed that knows stable to be fast, so that requests hang after about a second (11 bins).
fn feed(order: Order, warm_up: Duration) -> Feed {
    let mut buckets = [0; BUCKETS];
    buckets[FAST] = 10_000;
    let mut feed = Feed::new(&settings(warm_up), order, &History::of(10_000, 10, buckets));
    feed.begin_epoch(1, 0.1, 100.0);
    feed
}

fn began(n: u64) -> BinCounts {
    BinCounts { began: n, ..BinCounts::default() }
}

fn ended(all: u64, bad: u64) -> BinCounts {
    let mut counts = Counts { all, bad, ..Counts::default() };
    counts.buckets[FAST] = all;
    BinCounts { ended: counts, ..BinCounts::default() }
}

fn sum(portions: &[Portion]) -> (u64, u64) {
    portions.iter().fold((0, 0), |(all, bad), p| (all + p.canary.all, bad + p.canary.bad))
}

#[test]
fn by_completion_outcomes_are_known_at_once_and_proofs_wait_for_the_slowest() {
    let mut feed = feed(Order::Completion, Duration::ZERO);
    feed.add(0, 1, Side::Canary, &began(2)).unwrap();
    feed.add(0, 1, Side::Canary, &ended(1, 1)).unwrap();
    feed.add(1, 1, Side::Canary, &began(1)).unwrap();
    feed.add(1, 1, Side::Canary, &ended(1, 0)).unwrap();
    let first = feed.release(2);
    assert_eq!((sum(&first.known), first.settled.len()), ((3, 1), 0), "good from the start on, bad when known");
    feed.add(0, 1, Side::Canary, &ended(1, 1)).unwrap();
    let then = feed.release(3);
    assert_eq!((sum(&then.known), sum(&then.settled)), ((0, 1), (3, 2)));
    assert_eq!(feed.release(1000), Released::default());
}

/// Read last, a version would seem to have more requests than the one read first.
#[test]
fn by_completion_nothing_is_given_out_of_a_bin_that_is_not_over() {
    let mut feed = feed(Order::Completion, Duration::ZERO);
    feed.add(0, 1, Side::Canary, &BinCounts::ended(ended(2, 1).ended)).unwrap();
    feed.add(1, 1, Side::Stable, &BinCounts::ended(ended(500, 0).ended)).unwrap();
    let first = feed.release(1).known.remove(0);
    assert_eq!((first.canary.all, first.stable.all), (2, 0));
    feed.add(1, 1, Side::Canary, &BinCounts::ended(ended(50, 0).ended)).unwrap();
    let second = feed.release(2).known.remove(0);
    assert_eq!((second.canary.all, second.stable.all), (50, 500));
}

/// 2000 requests per second; the canary's answers take half a second, stable's no time. Nothing fails, and latencies do
/// not count yet: there is nothing to be said against it.
#[test]
fn an_answer_that_is_late_is_no_failure() {
    let cold = Duration::from_secs(3600);
    let (mut feed, mut engine) =
        (feed(Order::Completion, cold), Engine::new(settings(cold), &History::default(), &[]).unwrap());
    feed.warm_up(0);
    for bin in 0..100 {
        feed.add(bin, 1, Side::Canary, &began(20)).unwrap();
        feed.add(bin, 1, Side::Stable, &BinCounts::ended(ended(180, 0).ended)).unwrap();
        if bin >= 5 {
            feed.add(bin - 5, 1, Side::Canary, &ended(20, 0)).unwrap();
        }
        if let Some(judgment) = engine.take(&feed.release(bin + 1)).unwrap() {
            assert!(judgment.log_e < 0.1 && !judgment.is_split_wrong, "bin {bin}: {}", judgment.reason);
        }
    }
}

/// Where a lateness that is allowed would be many requests, order is by start.
#[test]
fn dense_traffic_of_slow_answers_is_taken_by_start() {
    let mut buckets = [0; BUCKETS];
    buckets[crate::analysis::bucket_of(Duration::from_millis(500))] = 10_000;
    let mut feed = Feed::new(&settings(Duration::ZERO), Order::Auto, &History::of(10_000, 0, buckets));
    feed.release(1);
    for (epoch, per_second, is_by_start) in [(1, 50.0, false), (2, 2000.0, true)] {
        feed.begin_epoch(epoch, 0.05, per_second);
        assert_eq!(feed.is_by_start(epoch), is_by_start, "{per_second}");
    }
}

#[test]
fn by_start_bins_are_released_in_order() {
    let mut feed = feed(Order::Start, Duration::ZERO);
    feed.add(0, 1, Side::Stable, &began(1)).unwrap();
    feed.add(1, 1, Side::Canary, &began(5)).unwrap();
    feed.add(1, 1, Side::Canary, &ended(5, 5)).unwrap();
    assert_eq!(feed.release(2), Released::default());
    feed.add(0, 1, Side::Stable, &ended(1, 0)).unwrap();
    let released = feed.release(2);
    assert_eq!((sum(&released.known), &released.known), ((5, 5), &released.settled));
    // A bin that has not ended is never released, whatever has come of it.
    feed.add(2, 1, Side::Canary, &began(1)).unwrap();
    feed.add(2, 1, Side::Canary, &ended(1, 0)).unwrap();
    assert_eq!(feed.release(2), Released::default());
    assert_eq!(sum(&feed.release(3).known), (1, 0));
}

#[test]
fn what_hangs_is_slow_at_once_and_its_outcome_comes_when_known() {
    let mut feed = feed(Order::Completion, Duration::ZERO);
    let hang = bins_of(feed.hang_after());
    assert_eq!(hang, 11);
    feed.add(0, 1, Side::Canary, &began(3)).unwrap();
    assert_eq!(sum(&feed.release(hang).known), (3, 0));
    let known = feed.release(hang + 1).known;
    assert_eq!((known[0].canary.all, known[0].canary.buckets[BUCKETS - 1]), (0, 3));
    assert!(feed.release(hang + 2).known.is_empty());
    feed.add(0, 1, Side::Canary, &ended(3, 2)).unwrap();
    let released = feed.release(hang + 3);
    let canary = &released.known[0].canary;
    assert_eq!((canary.all, canary.bad, crate::analysis::counts::total(&canary.buckets)), (0, 2, 0.0));
    assert_eq!(sum(&released.settled), (3, 2));
}

#[test]
fn by_start_a_hanging_request_is_no_failure_for_either_but_no_proof_for_the_canary() {
    let mut feed = feed(Order::Start, Duration::ZERO);
    feed.add(0, 1, Side::Canary, &began(2)).unwrap();
    feed.add(0, 1, Side::Stable, &began(2)).unwrap();
    let known = feed.release(12).known.remove(0);
    for counts in [&known.canary, &known.stable] {
        assert_eq!((counts.all, counts.bad, counts.buckets[BUCKETS - 1]), (2, 0, 2));
    }
    // Later failures are ignored against it, not for it.
    feed.add(0, 1, Side::Canary, &ended(1, 1)).unwrap();
    assert_eq!(feed.release(300), Released::default());
    let released = feed.release(301);
    let settled = &released.settled[0];
    assert_eq!((released.known.len(), settled.canary.all, settled.canary.bad), (0, 2, 2));
    assert_eq!((settled.stable.all, settled.stable.bad, settled.stable.buckets[0]), (2, 0, 2));
    // Too late for everybody.
    feed.add(0, 1, Side::Stable, &ended(2, 2)).unwrap();
    assert_eq!(feed.release(400), Released::default());
}

#[test]
fn slow_answers_are_capped_like_hanging_ones() {
    let mut feed = feed(Order::Completion, Duration::ZERO);
    let mut slow = Counts { all: 1, ..Counts::default() };
    slow.buckets[bucket_of(Duration::from_secs(2))] = 1;
    feed.add(0, 1, Side::Canary, &BinCounts::ended(slow)).unwrap();
    let released = feed.release(1);
    assert_eq!(released.known[0].canary.buckets[BUCKETS - 1], 1);
    assert_eq!(released.settled[0].canary.buckets[BUCKETS - 1], 1);
}

#[test]
fn warm_up_drops_latencies_of_both_and_no_errors() {
    for order in [Order::Completion, Order::Start] {
        let mut feed = feed(order, Duration::from_secs(1));
        feed.warm_up(5);
        for bin in [4, 5, 14, 15] {
            for side in [Side::Canary, Side::Stable] {
                feed.add(bin, 1, side, &BinCounts::ended(ended(1, 1).ended)).unwrap();
            }
        }
        let released = feed.release(16);
        for portion in [&released.known[0], &released.settled[0]] {
            for counts in [&portion.canary, &portion.stable] {
                assert_eq!((counts.all, counts.bad, counts.buckets[FAST]), (4, 4, 2));
            }
        }
    }
}

#[test]
fn order_is_chosen_by_how_long_failures_take() {
    let is_by_start = |age: Duration, bad: u64, n: u64, w: f64| {
        let mut history = History::default();
        let mut failures = [0; BUCKETS];
        failures[bucket_of(age)] = n;
        history.learn(&Counts { all: 10_000, bad, ..Counts::default() }, &failures);
        let mut feed = Feed::new(&Settings::default(), Order::Auto, &history);
        feed.begin_epoch(7, w, 1000.0);
        feed.is_by_start(7)
    };
    // 0.1 % errors, 50 canary requests a second: 0.05 failures under way for each second they take.
    assert!(!is_by_start(Duration::from_secs(1), 10, 10, 0.05));
    assert!(!is_by_start(Duration::from_secs(5), 10, 10, 0.05));
    assert!(is_by_start(Duration::from_secs(5), 10, 20, 0.05));
    assert!(!is_by_start(Duration::from_millis(10), 500, 500, 0.05));
    assert!(is_by_start(Duration::from_secs(1), 10, 10, 0.5));
}

#[test]
fn a_request_belongs_to_the_epoch_of_its_own_coin() {
    let mut feed = feed(Order::Completion, Duration::ZERO);
    feed.begin_epoch(2, 0.5, 100.0);
    feed.add(9, 2, Side::Canary, &BinCounts::ended(ended(2, 0).ended)).unwrap();
    feed.add(8, 1, Side::Stable, &BinCounts::ended(ended(3, 0).ended)).unwrap();
    let weights: Vec<_> = feed.release(10).known.iter().map(|p| (p.epoch, p.w, p.canary.all, p.stable.all)).collect();
    assert_eq!(weights, [(1, 0.1, 0, 3), (2, 0.5, 2, 0)]);
    assert_eq!(feed.add(9, 3, Side::Canary, &began(1)), Err(UnknownEpoch(3)));
}

#[test]
fn nothing_is_kept_of_what_is_over() {
    let mut feed = feed(Order::Start, Duration::from_secs(1));
    for bin in 0..2000 {
        feed.warm_up(bin);
        feed.add(bin, 1, Side::Canary, &began(1)).unwrap();
        feed.release(bin);
    }
    assert!(feed.bins.len() <= 302, "{}", feed.bins.len());
    assert!(feed.cold.len() <= 312, "{}", feed.cold.len());
}

/// Two processes of two workers, one of them restarted, read twice: the judgment is that of one who saw it all.
#[test]
fn sources_merge_into_what_one_would_have_seen() {
    let (mut meter, mut totals) = (Meter::default(), BTreeMap::<_, BinCounts>::new());
    let (mut merged, mut alone) = (feed(Order::Auto, Duration::ZERO), feed(Order::Auto, Duration::ZERO));
    let engine = || Engine::new(settings(Duration::ZERO), &History::default(), &[]).unwrap();
    let (mut of_merged, mut of_alone) = (engine(), engine());
    for bin in 0..40 {
        for i in 0..4 {
            let generation = if i >= 2 && bin >= 20 { 2 } else { 1 };
            let origin = Origin { process: u64::from(i / 2), generation, worker: i % 2 };
            for (side, bad) in [(Side::Canary, u64::from(bin % 9 == 0)), (Side::Stable, 0)] {
                let new = BinCounts::ended(ended(u64::from(i) + 1, bad).ended);
                let total = totals.entry((origin, side as u8)).or_default();
                total.add(&new);
                for _ in 0..2 {
                    let difference = meter.take((origin, side as u8), total).unwrap();
                    merged.add(bin, 1, side, &difference).unwrap();
                }
                alone.add(bin, 1, side, &new).unwrap();
            }
        }
        let (merged, alone) = (merged.release(bin + 1), alone.release(bin + 1));
        assert_eq!(merged, alone);
        assert_eq!(of_merged.take(&merged), of_alone.take(&alone));
    }
    // One failure of each of the four workers in the first bin.
    let reason = of_merged.judge().reason;
    assert!(reason.starts_with("errors: canary 4/10 breaks the objective of 1%; stable 0/10; "), "{reason}");
    assert_eq!(of_merged.snapshot(), of_alone.snapshot());
}

proptest! {
    /// Requests of random start, length and outcome, reported each bin: either way gives each out once.
    #[test]
    fn every_request_is_given_out_once_each_way(
        requests in prop::collection::vec((0u64..60, 0u64..400, any::<bool>(), any::<bool>(), 1u64..3), 0..60),
        order in prop::sample::select(vec![Order::Completion, Order::Start])
    ) {
        let mut feed = feed(order, Duration::ZERO);
        feed.begin_epoch(2, 0.5, 100.0);
        let (mut known, mut settled) = (Counts::default(), Counts::default());
        for now in 0..900 {
            for &(start, length, is_bad, is_canary, epoch) in &requests {
                let side = if is_canary { Side::Canary } else { Side::Stable };
                if start == now {
                    feed.add(start, epoch, side, &began(1)).unwrap();
                }
                if start + length == now {
                    feed.add(start, epoch, side, &ended(1, is_bad.into())).unwrap();
                }
            }
            let released = feed.release(now + 1);
            for (sum, portions) in [(&mut known, &released.known), (&mut settled, &released.settled)] {
                portions.iter().for_each(|p| [&p.canary, &p.stable].into_iter().for_each(|c| sum.add(c)));
                prop_assert!(portions.windows(2).all(|pair| pair[0].epoch < pair[1].epoch));
            }
        }
        let all = requests.len() as u64;
        prop_assert_eq!((known.all, settled.all), (all, all));
        prop_assert_eq!((known.buckets.iter().sum::<u64>(), settled.buckets.iter().sum::<u64>()), (all, all));
        // For the canary nothing bad of its own is ever left out.
        let bad = requests.iter().filter(|r| r.2 && r.3).count() as u64;
        prop_assert!(settled.bad >= bad, "{} < {bad}", settled.bad);
        prop_assert!(feed.bins.is_empty());
    }
}
