//! Whole rollouts in small: the same seed gives the same report, equal versions go through, a bad one is taken back
//! after as few harmed requests as promised.

use std::time::Duration;

use super::*;
use crate::config::{OnInconclusive, OnRegressed, Rollout, Split, Step, Sticky, Version};
use crate::model::{SplitName, VersionName, Weight};

fn split() -> Split {
    let version =
        |name, weight| Version::new(VersionName::new(name).unwrap(), Weight::new(weight).unwrap(), Vec::new());
    let versions = vec![version("v1", 90), version("v2", 10)];
    Split::new(SplitName::new("shop").unwrap(), VersionName::new("v1").unwrap(), versions)
}

fn steps(all: &[(f64, u64)]) -> Vec<Step> {
    all.iter().map(|&(weight, seconds)| Step { weight, hold: Duration::from_secs(seconds), approve: true }).collect()
}

/// 2000 requests a second, and steps of seconds.
fn setup() -> Setup {
    Setup {
        split: split(),
        rollout: Rollout { steps: steps(&[(5.0, 6), (50.0, 4), (100.0, 2)]), ..Rollout::default() },
        traffic: Traffic {
            per_second: 2000.0,
            errors: 0.001,
            canary_errors: 0.001,
            latency: Duration::from_millis(20),
            spread: 8.0,
            canary_slower: 1.0,
        },
        runs: 6,
        seed: 1,
        history: 20_000,
    }
}

/// One step at 5 %, 200 requests a second, the canary fails so often.
fn failing(canary_errors: f64, runs: u32) -> Setup {
    let rollout = Rollout { steps: steps(&[(5.0, 60)]), ..Rollout::default() };
    let traffic = Traffic { per_second: 200.0, canary_errors, ..setup().traffic };
    Setup { rollout, traffic, runs, ..setup() }
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_one_does_not() {
    let setup = Setup { runs: 3, ..failing(0.1, 3) };
    let report = simulate(&setup).unwrap();
    assert_eq!(simulate(&setup).unwrap(), report);
    assert_ne!(simulate(&Setup { seed: 2, ..setup }).unwrap().until_rollback, report.until_rollback);
}

#[test]
fn equal_versions_go_through_and_their_rollbacks_would_be_false_alarms() {
    let report = simulate(&setup()).unwrap();
    assert!(report.is_equal && report.is_allowed);
    assert!(report.ends.rolled_back <= 1, "{:?}", report.ends);
    assert_eq!(report.ends.finished + report.ends.rolled_back, report.runs, "{:?}", report.ends);
    let passed: Vec<u32> = report.steps.iter().map(|step| step.passed).collect();
    assert_eq!(passed, [report.ends.finished; 3]);
    assert!(report.steps[2].needed.is_none(), "all traffic proves nothing");
    let text = report.text();
    assert!(text.contains("false alarms, for the versions are equal; promised are at most 0.1 %"), "{text}");
}

/// analysis.md section 12, w 5 %: harmed requests, first failures counted as they begin, not as they become known.
#[test]
fn a_failing_canary_is_taken_back_after_as_few_harmed_requests_as_promised() {
    for (rate, promised) in [(1.0, 2.7), (0.5, 3.2), (0.1, 4.5)] {
        let report = simulate(&failing(rate, 40)).unwrap();
        assert_eq!(report.ends.rolled_back, 40, "{rate}: {:?}", report.ends);
        assert_eq!(report.ends.by_latency, 0, "{rate}: {:?}", report.ends);
        let harmed = report.until_rollback.unwrap().mean_harmed;
        assert!((promised / 1.5..=promised * 1.5).contains(&harmed), "{rate}: {harmed} harmed, promised {promised}");
        assert!(!report.is_allowed && !report.text().contains("false alarms"), "{}", report.text());
    }
}

#[test]
fn a_slow_canary_is_blamed_for_its_latency() {
    let mut setup = failing(0.001, 4);
    setup.traffic.canary_slower = 10.0;
    let report = simulate(&setup).unwrap();
    assert_eq!((report.ends.rolled_back, report.ends.by_latency), (4, 4), "{:?}", report.ends);
}

#[test]
fn thin_evidence_does_what_the_operator_chose() {
    // 100 canary requests: far from the proof.
    let short = |on_inconclusive| {
        let steps = steps(&[(5.0, 1), (10.0, 1)]);
        let rollout = Rollout { steps, on_inconclusive, max_wait: Duration::from_secs(2), ..Rollout::default() };
        simulate(&Setup { rollout, runs: 2, ..setup() }).unwrap()
    };
    let hold = short(OnInconclusive::Hold);
    assert_eq!((hold.ends.waiting, hold.steps[0].began, hold.steps[0].passed), (2, 2, 0), "{:?}", hold.ends);
    assert_eq!(hold.steps[0].lacked.values().sum::<u32>(), 2, "{:?}", hold.steps[0].lacked);
    let text = hold.text();
    assert!(text.contains("step 1 needs ") && text.contains(" at 2000/s and 5 %; its time is 1s"), "{text}");
    assert!(text.contains("for evidence when max_wait (2s) was over"), "{text}");
    assert_eq!(short(OnInconclusive::Advance).ends.finished, 2);
    let back = short(OnInconclusive::Rollback);
    assert_eq!((back.ends.thin, back.ends.rolled_back), (2, 0), "{:?}", back.ends);
    assert!(back.until_rollback.is_none(), "that is no verdict on the canary");
}

#[test]
fn a_pause_counts_as_a_rollback_and_is_called_so() {
    let mut setup = failing(1.0, 2);
    setup.rollout.on_regressed = OnRegressed::Pause;
    let report = simulate(&setup).unwrap();
    assert_eq!(report.ends.rolled_back, 2);
    assert!(report.text().contains("paused as regressed"), "{}", report.text());
}

#[test]
fn what_cannot_be_simulated_is_refused_with_its_reason() {
    let refused = |change: fn(&mut Setup)| {
        let mut setup = setup();
        change(&mut setup);
        simulate(&setup).unwrap_err().to_string()
    };
    assert!(refused(|s| s.rollout.analysis = None).contains("`analysis = false`"));
    assert!(refused(|s| s.split.sticky = Some(Sticky::ClientIp)).contains("sticky by header or client_ip"));
    assert_eq!(refused(|s| s.rollout.steps.clear()), "there is no step");
    assert_eq!(refused(|s| s.traffic.per_second = f64::NAN), "rps must be 0.001 to 1000000");
    assert_eq!(refused(|s| s.traffic.spread = 0.5), "spread must be 1 to 10000");
    assert_eq!(refused(|s| s.traffic.canary_errors = 1.01), "canary_errors must be 0 to 100 %");
    assert_eq!(refused(|s| s.runs = 0), "runs must be 1 to 1000000");
}

#[test]
fn the_json_holds_what_the_text_says() {
    let report = simulate(&failing(0.5, 2)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["ends"]["rolled_back"], 2);
    assert_eq!(json["on_regressed"], "rollback");
    assert_eq!(json["steps"][0]["canary_requests"], 600);
    assert_eq!(json["until_rollback"]["mean_harmed"], report.until_rollback.unwrap().mean_harmed);
}
