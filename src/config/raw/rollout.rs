//! `[splits.NAME.rollout]`: steps, analysis and checks.
//!
//! The controller is not built yet: the mark above `RawSplit::rollout` refuses the table. Taking that line out switches
//! it on; everything behind it (`resolve`, `effective`) is there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Dur;

/// A plan of steps that moves a split's weights.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRollout {
    /// Default: the one version that is not stable.
    pub to: Option<String>,
    pub strategy: RawStrategy,
    /// Start when a load brings a `to` that has not been rolled out yet.
    pub auto_start: bool,
    /// Percent for `to`, the rest to stable; default: the strategy's.
    pub steps: Option<Vec<RawStep>>,
    pub on_regressed: RawOnRegressed,
    pub on_inconclusive: RawOnInconclusive,
    pub max_wait: Dur,
    /// `false`: none.
    pub analysis: Option<RawAnalysisOrOff>,
    pub checks: Vec<RawCheck>,
}

impl Default for RawRollout {
    fn default() -> Self {
        Self {
            to: None,
            strategy: RawStrategy::Canary,
            auto_start: false,
            steps: None,
            on_regressed: RawOnRegressed::Rollback,
            on_inconclusive: RawOnInconclusive::Hold,
            max_wait: Dur::secs(3600),
            analysis: None,
            checks: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawStrategy {
    Canary,
    BlueGreen,
}

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStep {
    /// Percent for `to`.
    #[schemars(required, range(min = 0, max = 100))]
    pub weight: Option<f64>,
    /// How long it is watched at least.
    #[serde(rename = "for")]
    #[schemars(required)]
    pub hold: Option<Dur>,
    /// A person must agree before it begins.
    #[serde(default)]
    pub approve: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawOnRegressed {
    Rollback,
    Pause,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawOnInconclusive {
    Hold,
    Advance,
    Rollback,
}

/// The table, or `false`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawAnalysisOrOff {
    Off(bool),
    On(RawAnalysis),
}

/// How the canary is judged from weir's own counts.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAnalysis {
    /// Chance that a canary no worse than allowed is ever rolled back.
    #[schemars(range(min = 0, max = 1))]
    pub false_alarm: f64,
    pub errors: RawErrorsAllowed,
    pub latency: RawLatencyAllowed,
    /// Latency of the first seconds of a step counts for neither version.
    pub warm_up: Dur,
}

impl Default for RawAnalysis {
    fn default() -> Self {
        Self {
            false_alarm: 0.001,
            errors: RawErrorsAllowed::default(),
            latency: RawLatencyAllowed::default(),
            warm_up: Dur::secs(10),
        }
    }
}

/// Allowed: `ratio` times stable plus `margin`, and never more than `max`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawErrorsAllowed {
    #[schemars(range(min = 1, max = 100))]
    pub ratio: f64,
    #[schemars(range(min = 0, max = 1))]
    pub margin: f64,
    /// Omitted: adaptive.
    #[schemars(range(min = 0, max = 1))]
    pub max: Option<f64>,
}

impl Default for RawErrorsAllowed {
    fn default() -> Self {
        Self { ratio: 1.1, margin: 0.001, max: None }
    }
}

/// Allowed: so much slower than stable.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLatencyAllowed {
    #[schemars(range(min = 0, max = 100))]
    pub slower: f64,
    pub max_p99: Option<Dur>,
}

impl Default for RawLatencyAllowed {
    fn default() -> Self {
        Self { slower: 0.19, max_p99: None }
    }
}

/// Outside evidence; exactly one of `prometheus`, `webhook`, `command`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCheck {
    #[schemars(required)]
    pub name: Option<String>,
    /// Before the first request goes to `to`, before each advance, all the time, before the end.
    #[serde(default)]
    pub at: RawCheckAt,
    /// A number that must lie within `min` and `max`.
    pub prometheus: Option<RawPrometheus>,
    /// Asked by POST.
    pub webhook: Option<RawWebhook>,
    /// Exit 0 pass, 75 wait, else fail; no shell.
    pub command: Option<Vec<String>>,
    /// Least good number.
    pub min: Option<f64>,
    /// Largest good number.
    pub max: Option<f64>,
    /// How often it is asked; for one that is not asked always: again after "wait" or an error.
    #[schemars(extend("default" = "30s"))]
    pub every: Option<Dur>,
    /// Failed in a row: regressed; default: 2 for one that is asked always, else 1.
    #[schemars(range(min = 1))]
    pub failures: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawCheckAt {
    Start,
    Step,
    #[default]
    Always,
    Finish,
}

/// A query that gives one number.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPrometheus {
    #[schemars(required)]
    pub url: Option<String>,
    /// `{to}`, `{stable}`, `{split}`, `{step}` and `{weight}` stand for what they say.
    #[schemars(required)]
    pub query: Option<String>,
}

/// 200 pass, 202 wait, 4xx fail, else error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawWebhook {
    #[schemars(required)]
    pub url: Option<String>,
    #[schemars(extend("default" = "5s"))]
    pub timeout: Option<Dur>,
}
