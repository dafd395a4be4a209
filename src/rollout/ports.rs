//! What the controller needs of rooms it does not know.

use std::sync::Arc;

use crate::analysis::History;
use crate::model::{SplitName, VersionName};
use crate::notices::Notices;
use crate::state::Store;
use crate::telemetry::Cells;

/// What is known of a version's requests.
pub type Histories = dyn Fn(&SplitName, &VersionName) -> History + Send + Sync;

/// See the file's head.
#[derive(Clone)]
pub struct Ports {
    pub store: Arc<Store>,
    pub cells: Arc<Cells>,
    pub history: Arc<Histories>,
    /// Requests of a split per second.
    pub per_second: Arc<dyn Fn(&SplitName) -> f64 + Send + Sync>,
    /// Tells people.
    pub notices: Notices,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}
