//! The calls themselves, by what they touch.
//!
//! Invariant: a handler reads the snapshot once, and changes something only through `change::carry_out`, the desk of the
//! rollouts or the reload closure.

pub(super) mod change;
pub(super) mod config;
pub(super) mod drain;
pub(super) mod probes;
pub(super) mod read;
pub(super) mod rollout;
pub(super) mod upgrade;

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::context::AdminContext;
use super::error::{INTERNAL, Problem, SHUTTING_DOWN, UNKNOWN_SPLIT};
use crate::state::Snapshot;

/// Calls that may wait for a drain at once; fewer than connections, so that a rollback always finds a free one.
const WAITS: usize = 128;

/// What every handler shares.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) ctx: Arc<AdminContext>,
    pub(super) waits: Semaphore,
}

impl Api {
    pub(super) fn new(ctx: Arc<AdminContext>) -> Self {
        Self { ctx, waits: Semaphore::new(WAITS) }
    }

    /// Refuses a change once the process goes down: it might not reach the disk.
    fn check_open(&self) -> Result<(), Problem> {
        let down = (self.ctx.is_shutting_down)();
        if down { Err(Problem::new(SHUTTING_DOWN, "changes are refused from the signal on")) } else { Ok(()) }
    }
}

fn unknown_split(name: &str, snapshot: &Snapshot) -> Problem {
    let known: Vec<&str> = snapshot.splits.iter().map(|s| s.name.as_str()).collect();
    let detail = format!("there is no split `{}`; known: {}", name.escape_default(), known.join(", "));
    Problem::new(UNKNOWN_SPLIT, detail).allowed(known)
}

/// Runs what may block (a lock held over an fsync, a large text) beside the other calls.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Problem::new(INTERNAL, "the call ended in a panic"))
}
