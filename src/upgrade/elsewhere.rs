//! What the process before us still has in flight, by its own word, until it is gone.
//!
//! Invariant: when its line closes, whatever the reason, nothing of it is in flight any more.

use std::os::unix::net::UnixStream;
use std::time::SystemTime;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

use super::messages::{Report, ToPredecessor, ToSuccessor};
use super::successor::write;
use crate::pool::{Counts, EndpointKey};

/// The predecessor as it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    pid: u32,
    since: SystemTime,
    report: Report,
}

/// Listens to it.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    seen: watch::Sender<Option<Heard>>,
}

/// What is in flight elsewhere. Cloned freely; the default has no predecessor.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere(Option<watch::Receiver<Option<Heard>>>);

impl Predecessor {
    pub(super) fn new(pid: u32, since: SystemTime, report: Report, stream: UnixStream) -> (Self, Elsewhere) {
        let (seen, elsewhere) = watch::channel(Some(Heard { pid, since, report }));
        (Self { stream, seen }, Elsewhere(Some(elsewhere)))
    }

    /// Listens until it is gone. `first` is called at its first word, which it says when we are the main process; `each`
    /// at every word, and says which endpoints it must not use any more.
    pub async fn run(self, first: impl FnOnce(), mut each: impl FnMut(&Report) -> Vec<EndpointKey>) {
        let Self { stream, seen } = self;
        let mut first = Some(first);
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream)) {
            let (theirs, mut ours) = stream.into_split();
            let mut lines = BufReader::new(theirs).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(ToSuccessor::Report(report)) = serde_json::from_str(&line) else { continue };
                first.take().into_iter().for_each(|first| first());
                let drains = each(&report);
                if !drains.is_empty() {
                    // If it does not hear it, it is gone.
                    let _ = write(&mut ours, &ToPredecessor::Drain(drains)).await;
                }
                seen.send_modify(|heard| heard.iter_mut().for_each(|heard| heard.report = report.clone()));
            }
        }
        first.take().into_iter().for_each(|first| first());
        seen.send_replace(None);
    }
}

impl Elsewhere {
    /// Process number, since when it has gone down, and what it has.
    pub fn now(&self) -> Option<(u32, SystemTime, Report)> {
        let heard = self.0.as_ref()?.borrow().clone()?;
        Some((heard.pid, heard.since, heard.report))
    }

    /// What it has in flight at an endpoint.
    pub fn counts(&self, key: &EndpointKey) -> Counts {
        self.0.as_ref().map(|seen| counts(seen.borrow().as_ref(), key)).unwrap_or_default()
    }

    /// It has nothing in flight at an endpoint, and will not have.
    pub fn is_empty(&self, key: &EndpointKey) -> bool {
        self.0.as_ref().is_none_or(|seen| is_empty(seen.borrow().as_ref(), key))
    }

    /// Waits for `is_empty`. Cancel safe.
    pub async fn wait_empty(&self, key: &EndpointKey) {
        let Some(mut seen) = self.0.clone() else { return };
        // An error means that nobody listens to it any more.
        let _ = seen.wait_for(|heard| is_empty(heard.as_ref(), key)).await;
    }

    /// Waits until it is gone. Cancel safe.
    pub async fn gone(&self) {
        let Some(mut seen) = self.0.clone() else { return };
        let _ = seen.wait_for(Option::is_none).await;
    }
}

fn is_empty(heard: Option<&Heard>, key: &EndpointKey) -> bool {
    counts(heard, key).total() == 0 && !heard.is_some_and(|heard| heard.report.open.contains(key))
}

fn counts(heard: Option<&Heard>, key: &EndpointKey) -> Counts {
    let parts = heard.into_iter().flat_map(|heard| &heard.report.in_flight);
    parts.filter(|part| part.key == *key).fold(Counts::default(), |sum, part| sum.plus(part.counts))
}

impl Report {
    /// With what the predecessor of the one that reports has.
    #[must_use]
    pub fn and(mut self, elsewhere: &Elsewhere) -> Self {
        if let Some((_, _, theirs)) = elsewhere.now() {
            self.connections += theirs.connections;
            self.in_flight.extend(theirs.in_flight);
            self.open.extend(theirs.open);
        }
        self
    }

    /// Over all endpoints.
    pub fn total(&self) -> Counts {
        self.in_flight.iter().fold(Counts::default(), |sum, part| sum.plus(part.counts))
    }
}
