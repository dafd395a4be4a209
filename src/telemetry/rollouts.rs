//! The gauges of a split's rollout: where it is, what speaks for and against the new version, what checks say.
//!
//! Invariant: none exists before the split's first rollout; after an end they keep the last state, so that a graph shows
//! how it ended. Evidence that there is no more falls to 0, which is an e-value of 1: nothing is known.

use metrics_exporter_prometheus::PrometheusRecorder;

use super::series::{Labels, gauge};
use crate::model::{CheckName, SplitName};

/// The running rollout of a split, or its last one.
#[derive(Clone, Debug, Default)]
pub struct RolloutGauges {
    /// From 1; 0 before the first.
    pub step: usize,
    pub is_running: bool,
    /// Name, direction (`against`, `for`), natural logarithm of the e-value.
    pub evidence: Vec<(&'static str, &'static str, f64)>,
    /// `None`: the analysis has not looked, or there is none.
    pub verdict: Option<&'static str>,
    pub checks: Vec<CheckGauge>,
}

/// What a check has answered last.
#[derive(Clone, Debug)]
pub struct CheckGauge {
    pub name: CheckName,
    pub value: Option<f64>,
    /// `None`: it has not been asked.
    pub has_passed: Option<bool>,
}

pub(super) const HELP: &[(&str, &str)] = &[
    ("weir_rollout_step", "Step of the rollout, from 1; 0 before the first."),
    ("weir_rollout_running", "A rollout runs in the split."),
    ("weir_rollout_evidence", "Natural logarithm of the e-value against or for the new version."),
    ("weir_rollout_verdict", "1 for what the analysis says last."),
    ("weir_check_value", "What the query of a check has found last."),
    ("weir_check_pass", "The last answer of a check was to pass."),
];

const VERDICTS: [&str; 3] = ["healthy", "inconclusive", "regressed"];

/// A test whose gauge has been shown.
pub(super) type Shown = (&'static str, &'static str);

pub(super) fn show(recorder: &PrometheusRecorder, split: &SplitName, rollout: &RolloutGauges) {
    let labels: Labels<'_> = &[("split", split.as_str())];
    gauge(recorder, "weir_rollout_step", labels, rollout.step as f64);
    gauge(recorder, "weir_rollout_running", labels, f64::from(rollout.is_running));
    for verdict in VERDICTS {
        let labels: Labels<'_> = &[labels[0], ("verdict", verdict)];
        gauge(recorder, "weir_rollout_verdict", labels, f64::from(rollout.verdict == Some(verdict)));
    }
    for &(name, direction, log_e) in &rollout.evidence {
        show_evidence(recorder, split, (name, direction), log_e);
    }
    for check in &rollout.checks {
        let labels: Labels<'_> = &[labels[0], ("check", check.name.as_str())];
        check.value.iter().for_each(|value| gauge(recorder, "weir_check_value", labels, *value));
        check.has_passed.iter().for_each(|pass| gauge(recorder, "weir_check_pass", labels, f64::from(*pass)));
    }
}

pub(super) fn show_evidence(recorder: &PrometheusRecorder, split: &SplitName, (name, direction): Shown, log_e: f64) {
    let labels: Labels<'_> = &[("split", split.as_str()), ("name", name), ("direction", direction)];
    gauge(recorder, "weir_rollout_evidence", labels, log_e);
}
