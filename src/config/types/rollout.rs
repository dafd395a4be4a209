//! The plan of a split's rollouts: steps, what is allowed, and who else is asked.
//!
//! Plain numbers: what they mean is decided above, in the rooms `analysis` and `rollout`.

use std::time::Duration;

use super::Sticky;
use crate::config::WebUrl;
use crate::model::{CheckName, VersionName};

/// `[splits.NAME.rollout]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// As written; `None`: the one version that is not stable at the start. Which that is may change while we run, for
    /// a finished rollout sets stable.
    pub to: Option<VersionName>,
    pub strategy: Strategy,
    /// Starts when a load brings a `to` that has not been rolled out yet.
    pub auto_start: bool,
    /// At least one; see [`steps_flaw`].
    pub steps: Vec<Step>,
    pub on_regressed: OnRegressed,
    pub on_inconclusive: OnInconclusive,
    /// So long a step may go on after its time before somebody is called.
    pub max_wait: Duration,
    /// `None`: checks alone decide.
    pub analysis: Option<Analysis>,
    /// Names unique.
    pub checks: Vec<Check>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    Canary,
    /// One step, all at once.
    BlueGreen,
}

/// One weight and the time it is watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Percent for `to`, 0..=100; the rest is stable's.
    pub weight: f64,
    /// At least.
    pub hold: Duration,
    /// Somebody must agree before it begins.
    pub approve: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRegressed {
    Rollback,
    Pause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    Hold,
    Advance,
    Rollback,
}

/// What is allowed of the new version. Ranges are those of `analysis::Settings`.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    pub false_alarm: f64,
    pub errors: ErrorsAllowed,
    pub latency: LatencyAllowed,
    pub warm_up: Duration,
}

/// `ratio` times stable's rate plus `margin`, never more than `max`.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorsAllowed {
    pub ratio: f64,
    pub margin: f64,
    /// `None`: adaptive.
    pub max: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LatencyAllowed {
    /// Share by which it may be slower than stable.
    pub slower: f64,
    pub max_p99: Option<Duration>,
}

/// Outside evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    pub name: CheckName,
    pub at: CheckAt,
    pub ask: CheckKind,
    /// How often; for one that is not asked always, again after "wait" or an error. At least a second.
    pub every: Duration,
    /// Failed so often in a row: regressed. At least 1.
    pub failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckAt {
    /// Before the first request goes to `to`.
    Start,
    /// Before each advance.
    Step,
    Always,
    /// Before `to` becomes stable.
    Finish,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CheckKind {
    /// At least one of `min` and `max` is given, and `min` is not above `max`.
    Prometheus {
        url: WebUrl,
        query: String,
        min: Option<f64>,
        max: Option<f64>,
    },
    Webhook {
        url: WebUrl,
        timeout: Duration,
    },
    /// At least the program.
    Command(Vec<String>),
}

impl Strategy {
    /// The steps of a rollout that names none.
    pub fn steps(self) -> Vec<Step> {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let step = |weight, hold| Step { weight, hold, approve: false };
        match self {
            Self::Canary => [1.0, 5.0, 25.0, 50.0, 100.0].map(|weight| step(weight, minutes(5))).to_vec(),
            Self::BlueGreen => vec![step(100.0, minutes(10))],
        }
    }

    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::BlueGreen => "blue_green",
        }
    }
}

impl CheckAt {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Step => "step",
            Self::Always => "always",
            Self::Finish => "finish",
        }
    }
}

/// What no list of steps may have, from the file or from an operator's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepsFlaw {
    #[error("there is no step")]
    Empty,
    #[error("step {}: a weight is 0, or 0.0001 to 100", .0 + 1)]
    Weight(usize),
    #[error("step {}: its weight is not above that of the step before", .0 + 1)]
    NotRising(usize),
    #[error("blue_green switches once, to 100")]
    NotOneSwitch,
}

impl StepsFlaw {
    /// The step to blame, if one is.
    pub fn step(self) -> Option<usize> {
        match self {
            Self::Weight(i) | Self::NotRising(i) => Some(i),
            Self::Empty | Self::NotOneSwitch => None,
        }
    }
}

/// The first flaw of a list of steps: it is not empty, weights are real shares and rise, `blue_green` has one, to 100.
pub fn steps_flaw(strategy: Strategy, steps: &[Step]) -> Option<StepsFlaw> {
    let is_share = |w: f64| w == 0.0 || (0.0001..=100.0).contains(&w);
    if steps.is_empty() {
        return Some(StepsFlaw::Empty);
    }
    if let Some(i) = steps.iter().position(|s| !is_share(s.weight)) {
        return Some(StepsFlaw::Weight(i));
    }
    if strategy == Strategy::BlueGreen && !matches!(steps, [only] if only.weight == 100.0) {
        return Some(StepsFlaw::NotOneSwitch);
    }
    let rises = |pair: &[Step]| pair[0].weight < pair[1].weight;
    steps.windows(2).position(|pair| !rises(pair)).map(|i| StepsFlaw::NotRising(i + 1))
}

impl Sticky {
    /// Whether the coin alone decides who tries the new version first, so that versions may be compared (by a header
    /// or an address people choose themselves, in a way).
    pub fn allows_comparison(&self) -> bool {
        matches!(self, Self::Cookie { .. })
    }
}
