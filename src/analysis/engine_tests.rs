//! The whole engine against the specification's rollouts, through a snapshot at every tick, and its edges.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::analysis::settings::{Allowance, LatencyAllowance};
use crate::analysis::snapshot::{RestoreError, Snapshot};
use crate::analysis::testing::{buckets, close, number, vectors, whole};

fn counts(all: u64, bad: u64) -> Counts {
    Counts { all, bad, ..Counts::default() }
}

/// The engine of a rollout in the vectors.
fn engine(config: &Value) -> Engine {
    let latency = config["use_latency"].as_bool().unwrap();
    let latency = latency.then_some(LatencyAllowance { slower: 0.19, max_p99: None });
    assert!(latency.is_none() || config["latency_shift"] == 2);
    let settings = Settings {
        false_alarm: number(&config["alpha"]),
        errors: Allowance {
            ratio: number(&config["rho"]),
            margin: number(&config["delta"]),
            max: config["objective"].as_f64(),
        },
        latency,
        beta: number(&config["beta"]),
        false_healthy: number(&config["alpha_healthy"]),
        split_alarm: number(&config["alpha_split"]),
        warm_up: Duration::ZERO,
    };
    let (all, bad) = (whole(&config["hist_all"]), whole(&config["hist_bad"]));
    let history = History::of(all, bad, buckets(&config["hist_latency"]));
    Engine::new(settings, &history, &[number(&config["healthy_delta"])]).unwrap()
}

fn tick_counts(tick: &Value, side: &str) -> Counts {
    let key = |what: &str| &tick[format!("{side}_{what}")];
    let buckets = if key("latency").is_null() { [0; 164] } else { buckets(key("latency")) };
    Counts { all: whole(key("all")), bad: whole(key("bad")), buckets }
}

#[test]
fn rollouts_are_those_of_the_vectors() {
    for case in vectors()["rollout"].as_array().unwrap() {
        let mut engine = engine(&case["config"]);
        close(engine.against.objective.bound(), number(&case["objective_used"]), &case["name"]);
        for (tick, want) in case["ticks"].as_array().unwrap().iter().zip(case["expect"].as_array().unwrap()) {
            let (canary, stable) = (tick_counts(tick, "canary"), tick_counts(tick, "stable"));
            engine.settle(number(&tick["w"]), &canary, &stable).unwrap();
            let judgment = engine.tick(number(&tick["w"]), &canary, &stable).unwrap();
            close(judgment.log_e, number(&want["log_e"]), &case["name"]);
            assert_eq!(judgment.verdict.as_str(), want["verdict"].as_str().unwrap(), "{}", case["name"]);
            assert_eq!(judgment.reason, want["reason"].as_str().unwrap(), "{}", case["name"]);
        }
    }
}

/// After any tick of any of the vectors a restored engine says the same, to the bit, for the rest of it.
#[test]
fn restored_in_the_middle_the_vectors_go_on_bit_for_bit() {
    for case in vectors()["rollout"].as_array().unwrap() {
        let (mut kept, mut restored) = (engine(&case["config"]), engine(&case["config"]));
        for tick in case["ticks"].as_array().unwrap() {
            let (w, canary, stable) = (number(&tick["w"]), tick_counts(tick, "canary"), tick_counts(tick, "stable"));
            let text = serde_json::to_string(&restored.snapshot()).unwrap();
            assert!(text.len() < 20_000, "{} bytes", text.len());
            restored = Engine::restore(serde_json::from_str(&text).unwrap()).unwrap();
            for engine in [&mut kept, &mut restored] {
                engine.settle(w, &canary, &stable).unwrap();
                engine.tick(w, &canary, &stable).unwrap();
            }
            assert_eq!(restored.judge(), kept.judge());
            assert_eq!(restored.snapshot(), kept.snapshot());
        }
    }
}

#[test]
fn a_tick_that_cannot_be_changes_nothing() {
    let mut engine = Engine::new(Settings::default(), &History::default(), &[]).unwrap();
    engine.tick(0.1, &counts(3, 1), &counts(30, 0)).unwrap();
    let before = engine.snapshot();
    assert_eq!(engine.tick(0.1, &counts(1, 2), &counts(9, 0)), Err(BadTick::MoreBadThanAll));
    assert_eq!(engine.settle(0.1, &counts(1, 0), &counts(9, 10)), Err(BadTick::MoreBadThanAll));
    for w in [-0.1, 1.1, f64::INFINITY, f64::NAN] {
        assert!(matches!(engine.tick(w, &counts(1, 0), &counts(9, 0)), Err(BadTick::NoProbability(_))));
    }
    assert_eq!(engine.snapshot(), before);
}

#[test]
fn empty_ticks_leave_the_evidence_where_it_is() {
    let mut engine = Engine::new(Settings::default(), &History::default(), &[]).unwrap();
    engine.tick(0.1, &counts(30, 2), &counts(300, 0)).unwrap();
    let before = engine.tick(0.1, &counts(0, 0), &counts(0, 0)).unwrap().log_e;
    for w in [0.0, 0.1, 0.5, 1.0] {
        let after = engine.tick(w, &counts(0, 0), &counts(0, 0)).unwrap().log_e;
        assert!((after - before).abs() < 1e-12, "{before} {after}");
    }
}

#[test]
fn each_step_asks_for_its_own_margin() {
    let settings = Settings { latency: None, ..Settings::default() };
    let margins = settings.healthy_margins(&[0.01, 0.05, 0.5]);
    let history = History::of(20_000, 20, [0; 164]);
    let mut engine = Engine::new(settings, &history, &margins).unwrap();
    for _ in 0..10 {
        engine.settle(0.05, &counts(100, 0), &counts(1900, 2)).unwrap();
        engine.tick(0.05, &counts(100, 0), &counts(1900, 2)).unwrap();
    }
    let first = engine.judge();
    assert_eq!(first.verdict, Verdict::Healthy, "{}", first.reason);
    assert!(first.reason.contains("within 1.1 x stable + 1%"), "{}", first.reason);
    engine.enter_step(1);
    let second = engine.judge();
    assert_eq!(second.verdict, Verdict::Inconclusive);
    assert!(second.needed > first.needed, "{:?} {:?}", second.needed, first.needed);
    engine.enter_step(99);
    assert_eq!(engine.judge().verdict, Verdict::Inconclusive);
}

#[test]
fn regressed_is_final() {
    let mut engine = Engine::new(Settings::default(), &History::default(), &[]).unwrap();
    let bad = engine.tick(0.1, &counts(20, 20), &counts(180, 0)).unwrap();
    assert_eq!((bad.verdict, bad.blamed), (Verdict::Regressed, Some(Part::Errors)));
    for _ in 0..50 {
        engine.tick(0.1, &counts(1000, 0), &counts(9000, 0)).unwrap();
    }
    let later = engine.judge();
    assert!(later.log_e < 0.0, "{}", later.log_e);
    assert_eq!((later.verdict, later.reason, later.blamed), (bad.verdict, bad.reason, bad.blamed));
}

/// A bound on p99, alone at 100 %, is enough to judge by; shared with stable it is not.
#[test]
fn slow_calls_break_the_objective() {
    let latency = Some(LatencyAllowance { slower: 100.0, max_p99: Some(Duration::from_millis(500)) });
    let settings = Settings { latency, ..Settings::default() };
    let slow = |all: u64, slow: u64| {
        let mut counts = counts(all, 0);
        (counts.buckets[60], counts.buckets[110]) = (all - slow, slow);
        counts
    };
    let history = History::of(10_000, 0, slow(10_000, 0).buckets);
    let mut alone = Engine::new(settings.clone(), &history, &[]).unwrap();
    let judgment = alone.tick(1.0, &slow(200, 30), &counts(0, 0)).unwrap();
    assert_eq!((judgment.verdict, judgment.blamed), (Verdict::Regressed, Some(Part::Objective)));
    let start = "latency (max_p99): canary 30/200 slower than 500ms breaks the objective of 1%; stable 0/0; e-value ";
    assert!(judgment.reason.starts_with(start), "{}", judgment.reason);
    let mut both = Engine::new(settings, &history, &[]).unwrap();
    let judgment = both.tick(0.5, &slow(200, 30), &slow(200, 30)).unwrap();
    assert_eq!(judgment.verdict, Verdict::Inconclusive, "{}", judgment.reason);
}

/// It is restored at the end of a long way of calls, by a thread with 2 MiB.
#[test]
fn an_engine_is_restored_on_little_stack() {
    let (mut engine, counts) =
        (Engine::new(Settings::default(), &History::default(), &[0.01, 0.001]).unwrap(), counts(500, 5));
    engine.tick(0.1, &counts, &counts).unwrap();
    let (text, kept) = (serde_json::to_value(engine.snapshot()).unwrap(), engine.snapshot());
    let restore = move || Engine::restore(serde_json::from_value(text).unwrap()).unwrap().snapshot();
    let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(restore).unwrap();
    assert_eq!(thread.join().unwrap(), kept);
    assert!(size_of::<Engine>() < 4096, "{}", size_of::<Engine>());
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let engine = Engine::new(Settings::default(), &History::default(), &[0.01, 0.001]).unwrap();
    let text = serde_json::to_value(engine.snapshot()).unwrap();
    let damaged = |edit: &dyn Fn(&mut Value)| {
        let mut text = text.clone();
        edit(&mut text);
        Engine::restore(serde_json::from_value::<Snapshot>(text).unwrap())
    };
    assert!(damaged(&|_| {}).is_ok());
    assert!(matches!(damaged(&|text| text["version"] = 2.into()), Err(RestoreError::UnknownVersion(2))));
    assert!(matches!(damaged(&|text| text["engine"]["w"] = "x".into()), Err(RestoreError::Damaged(_))));
    assert!(matches!(damaged(&|text| text["engine"]["extra"] = 1.into()), Err(RestoreError::Damaged(_))));
    // Not a number; a rung that is not there; a test without alternatives.
    let nan = format!("{:x}", f64::NAN.to_bits());
    assert!(matches!(damaged(&|text| text["engine"]["w"] = nan.as_str().into()), Err(RestoreError::Unsound)));
    let rung = |text: &mut Value| text["engine"]["for_it"]["rungs"][0] = 7.into();
    assert!(matches!(damaged(&rung), Err(RestoreError::Unsound)));
    let none = |text: &mut Value| text["engine"]["against"]["objective"]["evidence"]["log_a"] = Value::Array(vec![]);
    assert!(matches!(damaged(&none), Err(RestoreError::Unsound)));
}

fn any_counts() -> impl Strategy<Value = Counts> {
    let places = prop::collection::vec((0usize..164, any::<u64>()), 0..5);
    (any::<u64>(), any::<u64>(), places, 0u32..64).prop_map(|(a, b, places, down)| {
        let mut counts = counts(a.max(b) >> down, a.min(b) >> down);
        places.into_iter().for_each(|(i, n)| counts.buckets[i] = n >> down);
        counts
    })
}

proptest! {
    #[test]
    fn no_counts_make_a_judgment_that_is_no_number(
        ticks in prop::collection::vec((0.0f64..=1.0, any_counts(), any_counts()), 1..12)
    ) {
        let latency = Some(LatencyAllowance { slower: 0.19, max_p99: Some(Duration::from_millis(500)) });
        let settings = Settings { latency, ..Settings::default() };
        let mut engine = Engine::new(settings, &History::default(), &[0.01, 0.001]).unwrap();
        for (w, canary, stable) in ticks {
            engine.settle(w, &canary, &stable).unwrap();
            let judgment = engine.tick(w, &canary, &stable).unwrap();
            prop_assert!(judgment.log_e.is_finite());
            prop_assert!(judgment.evidence.iter().all(|shown| shown.log_e.is_finite()), "{judgment:?}");
            let restored = Engine::restore(engine.snapshot()).unwrap();
            prop_assert_eq!(restored.judge(), judgment);
        }
    }

    /// Counts of two proxies, added, are counts.
    #[test]
    fn merging_is_adding(parts in prop::collection::vec((any_counts(), any_counts()), 1..5), w in 0.01f64..0.99) {
        let mut merged = (Counts::default(), Counts::default());
        for (canary, stable) in parts.iter().rev() {
            merged.0.add(canary);
            merged.1.add(stable);
        }
        let (mut left, mut right) = (Counts::default(), Counts::default());
        parts.iter().for_each(|(canary, stable)| { left.add(canary); right.add(stable); });
        prop_assert_eq!(&merged, &(left.clone(), right.clone()));
        let engine = Engine::new(Settings::default(), &History::default(), &[]).unwrap();
        prop_assume!(left.bad <= left.all && right.bad <= right.all);
        let (mut a, mut b) = (engine.clone(), engine);
        prop_assert_eq!(a.tick(w, &merged.0, &merged.1), b.tick(w, &left, &right));
    }
}
