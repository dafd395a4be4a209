//! What is to be told, and the queue it waits in.
//!
//! Invariant: a notice that is not taken is counted, wherever it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::model::SplitName;

/// Notices that may wait to be handed out. They come with steps of rollouts, not with requests.
const ROOM: usize = 256;

/// Something people should know.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// As in `notify.on`; another word reaches nobody.
    pub event: String,
    pub split: Option<SplitName>,
    pub text: String,
    /// The rollout's id.
    pub rollout: Option<String>,
    /// Unique, so that receivers can tell repetitions: a try whose answer was lost is made again.
    pub key: String,
    pub at: SystemTime,
}

/// Takes notices; a cheap clone. When all are gone, `run` ends as soon as everything is told.
#[derive(Clone, Debug)]
pub struct Notices {
    queue: mpsc::Sender<Notice>,
    dropped: Dropped,
}

/// The other end, for `run`.
#[derive(Debug)]
pub struct Inbox {
    pub(super) queue: mpsc::Receiver<Notice>,
    pub(super) dropped: Dropped,
}

#[cfg(test)]
impl Inbox {
    /// What waits first.
    pub(crate) fn try_next(&mut self) -> Option<Notice> {
        self.queue.try_recv().ok()
    }
}

/// Both ends of a new queue.
pub fn channel() -> (Notices, Inbox) {
    let (sender, receiver) = mpsc::channel(ROOM);
    let dropped = Dropped::default();
    (Notices { queue: sender, dropped: dropped.clone() }, Inbox { queue: receiver, dropped })
}

impl Notices {
    /// Never blocks: if there is no room, it is dropped, counted and logged.
    pub fn send(&self, notice: Notice) {
        if let Err(refused) = self.queue.try_send(notice) {
            let why = match &refused {
                mpsc::error::TrySendError::Full(_) => "too many wait",
                mpsc::error::TrySendError::Closed(_) => "nobody tells them any more",
            };
            self.dropped.count(&refused.into_inner(), None, why);
        }
    }

    /// Notices dropped before their first try, since the start: each once for the whole queue, or once per target.
    pub fn dropped(&self) -> u64 {
        self.dropped.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Dropped(Arc<AtomicU64>);

impl Dropped {
    pub(super) fn count(&self, notice: &Notice, target: Option<String>, why: &str) {
        self.0.fetch_add(1, Ordering::Relaxed);
        let (to, notice, key) = (target.unwrap_or_default(), &notice.event, &notice.key);
        tracing::warn!(event = "notice-dropped", to, notice, key, "people are not told: {why}");
    }
}
