//! An engine as it lies in `state.json`: everything it has learned and what it was started with, with a version.
//!
//! Invariant: a restored engine goes on bit for bit; what cannot have come from an engine is refused, never guessed at.

use serde::{Deserialize, Serialize};

use super::engine::Engine;

/// Rises whenever what is written means something else.
const VERSION: u32 = 1;

/// A saved engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    /// Read only after the version is known to be ours.
    engine: serde_json::Value,
}

/// A snapshot that no engine can be made of; the rollout's analysis has to begin anew.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the saved analysis has version {0}; this weir reads version {VERSION}")]
    UnknownVersion(u32),
    #[error("the saved analysis is damaged")]
    Damaged(#[source] serde_json::Error),
    #[error("the saved analysis holds numbers that no analysis comes to")]
    Unsound,
}

impl Engine {
    /// Everything a later process needs to go on.
    pub fn snapshot(&self) -> Snapshot {
        let engine = serde_json::to_value(self).expect("maps have text for keys, numbers are written as text");
        Snapshot { version: VERSION, engine }
    }

    /// Goes on where `snapshot` was taken.
    ///
    /// # Errors
    /// It is of another version, or damaged.
    pub fn restore(snapshot: Snapshot) -> Result<Self, RestoreError> {
        if snapshot.version != VERSION {
            return Err(RestoreError::UnknownVersion(snapshot.version));
        }
        let engine: Self = serde_json::from_value(snapshot.engine).map_err(RestoreError::Damaged)?;
        if engine.is_sound() { Ok(engine) } else { Err(RestoreError::Unsound) }
    }
}
