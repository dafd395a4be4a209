//! The task that hands notices out: a line per target, each with a task and a queue of its own.
//!
//! A line lives as long as its target is configured. Invariants: a target gets a notice once, however often it is named;
//! in the order in which they came; one that has left the configuration is told nothing more, not even what waits.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::letter::post;
use super::queue::{Dropped, Inbox, Notice};
use super::tries::{Delivered, deliver};
use crate::config::{Notify, NotifyFormat, WebUrl};

/// Notices that may wait for one target.
const ROOM: usize = 64;

/// Posts everything that is sent, to whom `targets` says at that moment. Ends when every `Notices` is gone and all is
/// told or given up, which may take minutes: whoever stops gives it a limit. Cancel safe: what waits is lost.
pub async fn run(mut inbox: Inbox, targets: impl Fn() -> Vec<Notify>) {
    let mut lines = Lines { open: Vec::new(), tasks: JoinSet::new(), dropped: inbox.dropped.clone() };
    while let Some(notice) = inbox.queue.recv().await {
        lines.hand_out(&Arc::new(notice), &targets());
    }
    lines.open.clear();
    while lines.tasks.join_next().await.is_some() {}
}

struct Lines {
    open: Vec<Line>,
    tasks: JoinSet<()>,
    dropped: Dropped,
}

#[derive(Debug)]
struct Line {
    url: WebUrl,
    format: NotifyFormat,
    queue: mpsc::Sender<Arc<Notice>>,
    task: AbortHandle,
}

impl Line {
    fn is_to(&self, target: &Notify) -> bool {
        self.url == target.url && self.format == target.format
    }
}

impl Lines {
    fn hand_out(&mut self, notice: &Arc<Notice>, targets: &[Notify]) {
        while self.tasks.try_join_next().is_some() {}
        let gone = |line: &mut Line| line.queue.is_closed() || !targets.iter().any(|target| line.is_to(target));
        self.open.extract_if(.., gone).for_each(|line| line.task.abort());
        for target in targets {
            if !self.open.iter().any(|line| line.is_to(target)) {
                self.open_to(target);
            }
        }
        let wants = |target: &Notify| target.on.iter().any(|on| on.as_str() == notice.event);
        for line in &self.open {
            if targets.iter().any(|target| line.is_to(target) && wants(target))
                && line.queue.try_send(notice.clone()).is_err()
            {
                self.dropped.count(notice, Some(line.url.to_string()), "too many wait for it");
            }
        }
    }

    fn open_to(&mut self, target: &Notify) {
        let (queue, waiting) = mpsc::channel(ROOM);
        let (url, format) = (target.url.clone(), target.format);
        let task = self.tasks.spawn(tell(url.clone(), format, waiting));
        self.open.push(Line { url, format, queue, task });
    }
}

async fn tell(url: WebUrl, format: NotifyFormat, mut waiting: mpsc::Receiver<Arc<Notice>>) {
    while let Some(notice) = waiting.recv().await {
        let delivered = deliver(|| post(&url, format, &notice), fastrand::f64).await;
        let (to, about, key) = (url.to_string(), &notice.event, &notice.key);
        match delivered {
            Delivered::Yes(tries) => tracing::debug!(event = "notice-sent", to, notice = about, key, tries),
            Delivered::No(error) => tracing::warn!(event = "notice-failed", to, notice = about, key, error, "not told"),
        }
    }
}
