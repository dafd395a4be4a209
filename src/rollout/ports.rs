//! What the controller works with.

use std::sync::Arc;

use crate::notices::Notices;
use crate::state::Store;
use crate::telemetry::{Cells, Windows};

/// See the file's head.
#[derive(Clone, Debug)]
pub struct Ports {
    pub store: Arc<Store>,
    /// What the workers count.
    pub cells: Arc<Cells>,
    /// What they have counted lately.
    pub windows: Windows,
    /// Tells people.
    pub notices: Notices,
}
