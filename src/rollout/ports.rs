//! What the controller needs of rooms it does not know.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::checks::Answer;
use super::effect::Notice;
use crate::analysis::History;
use crate::config::Check;
use crate::model::{SplitName, VersionName};
use crate::state::Store;
use crate::telemetry::Cells;

/// See the file's head.
#[derive(Clone)]
pub struct Ports {
    pub store: Arc<Store>,
    pub cells: Arc<Cells>,
    /// What is known of a version's requests.
    pub history: Arc<dyn Fn(&SplitName, &VersionName) -> History + Send + Sync>,
    /// Requests of a split per second.
    pub per_second: Arc<dyn Fn(&SplitName) -> f64 + Send + Sync>,
    /// Asks a check. Bounded in time.
    pub ask: Arc<dyn Fn(Check, Question) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>,
    /// Tells people. Never blocks.
    pub tell: Arc<dyn Fn(Told) + Send + Sync>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// What a check is told.
#[derive(Clone, Debug)]
pub struct Question {
    pub split: SplitName,
    pub to: VersionName,
    pub stable: VersionName,
    pub rollout: String,
    /// From 0; `None` before the first.
    pub step: Option<usize>,
    pub weight_percent: f64,
    /// Those of `to`.
    pub endpoints: Vec<String>,
}

/// What people are told.
#[derive(Clone, Debug)]
pub struct Told {
    pub notice: Notice,
    pub split: SplitName,
    pub rollout: String,
    pub text: String,
    /// The same when it is told again.
    pub key: String,
}
