//! Where operators speak to rollouts and look at them: the one handle of the controller, which lives elsewhere.
//!
//! Invariant: a look never waits for anything; what is asked is answered once the machine has taken it and it is on
//! disk (or told that it is not). Dropping a call gives up the answer, not the command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use super::command::{Command, Refusal};
use super::document::Document;
use super::plan::PlanError;
use super::view::View;
use crate::config::Step;
use crate::model::{Actor, Revision, Source, SplitName, VersionName};
use crate::state::ApplyError;

/// Questions that may wait for the controller.
const WAITING: usize = 64;
/// How long a hand-over waits for rollouts to be written down.
const PARKING: Duration = Duration::from_secs(2);

/// A rollout that somebody asks for.
#[derive(Clone, Debug)]
pub struct Start {
    pub to: Option<VersionName>,
    /// Instead of the file's.
    pub steps: Option<Vec<Step>>,
    pub by: Actor,
    pub source: Source,
    pub reason: Option<String>,
    /// Only if the split's revision is still this one.
    pub if_match: Option<Revision>,
    pub dry_run: bool,
}

/// Why nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error("there is no split `{split}`; known: {}", known.join(", "))]
    UnknownSplit { split: String, known: Vec<String> },
    /// 409 `no-rollout`.
    #[error("no rollout runs in split `{0}`")]
    NoRollout(SplitName),
    /// 409 `rollout-running`.
    #[error("a rollout to `{to}` runs in split `{split}`: abort it first, or wait for its end")]
    Running { split: SplitName, to: VersionName },
    /// 409 `rollout-refused`.
    #[error("{0}")]
    Refused(Refusal),
    /// 422 `bad-rollout`.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// 422 `bad-rollout`.
    #[error("the analysis cannot be run so: {0}")]
    Settings(String),
    /// 507 `not-persisted`.
    #[error("the rollout could not be written to the state directory: nothing has begun; free or repair the disk")]
    NotPersisted,
    #[error(transparent)]
    Store(#[from] ApplyError),
    /// 503 `shutting-down`.
    #[error("rollouts are not taken any more: weir is ending, or a new process takes over")]
    Gone,
}

/// What the desk hands to the controller.
#[derive(Debug)]
pub enum Ask {
    Start { split: SplitName, start: Start, answer: Reply },
    Command { split: SplitName, command: Command, dry_run: bool, answer: Reply },
    Park { answer: oneshot::Sender<()> },
}

/// The rollout as it is after the deed, or would be.
pub type Reply = oneshot::Sender<Result<Arc<View>, DeskError>>;

/// What can be looked at, replaced whole.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// The running rollout of a split, or its last one.
    pub views: BTreeMap<SplitName, Arc<View>>,
    /// Newest first: of all rollouts that are remembered.
    pub documents: Vec<Arc<Document>>,
}

/// See the file's head. A cheap clone.
#[derive(Clone, Debug)]
pub struct Desk {
    asks: mpsc::Sender<Ask>,
    board: Arc<ArcSwap<Board>>,
}

impl Desk {
    /// The desk, and what the controller serves it with.
    pub fn new() -> (Self, mpsc::Receiver<Ask>, Arc<ArcSwap<Board>>) {
        let (asks, asked) = mpsc::channel(WAITING);
        let board = Arc::new(ArcSwap::from_pointee(Board::default()));
        (Self { asks, board: board.clone() }, asked, board)
    }

    /// Begins a rollout.
    ///
    /// # Errors
    /// See `DeskError`; nothing has begun.
    pub async fn start(&self, split: SplitName, start: Start) -> Result<Arc<View>, DeskError> {
        self.ask(|answer| Ask::Start { split, start, answer }).await
    }

    /// Says something to the running rollout.
    ///
    /// # Errors
    /// See `DeskError`; nothing has changed.
    pub async fn command(&self, split: SplitName, command: Command, dry_run: bool) -> Result<Arc<View>, DeskError> {
        self.ask(|answer| Ask::Command { split, command, dry_run, answer }).await
    }

    /// Writes down all that is known, for a successor that takes the rollouts up. A disk that refuses is told of in the
    /// log; nothing runs otherwise than before.
    pub async fn park(&self) {
        let (answer, parked) = oneshot::channel();
        if self.asks.send(Ask::Park { answer }).await.is_ok() {
            // Nobody runs rollouts any more, or a disk hangs: what was written last must do.
            let _ = tokio::time::timeout(PARKING, parked).await;
        }
    }

    /// The running rollout of a split, or its last one.
    pub fn view(&self, split: &SplitName) -> Option<Arc<View>> {
        self.board.load().views.get(split).cloned()
    }

    /// Newest first: running ones and past ones.
    pub fn documents(&self) -> Vec<Arc<Document>> {
        self.board.load().documents.clone()
    }

    /// The receipt of a rollout, also while it runs.
    pub fn receipt(&self, id: &str) -> Option<Arc<Document>> {
        self.board.load().documents.iter().find(|document| document.id == id).cloned()
    }

    async fn ask(&self, ask: impl FnOnce(Reply) -> Ask) -> Result<Arc<View>, DeskError> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(ask(answer)).await.map_err(|_| DeskError::Gone)?;
        answered.await.map_err(|_| DeskError::Gone)?
    }
}
