//! An exchange that a drain, or the end of the process, does not let finish.
//!
//! Invariant: each that was cut is counted once, with the kind it had become by then.

use std::sync::Arc;
use std::time::Duration;

use super::Exchange;
use crate::model::Instant;
use crate::pool::{Claim, Endpoint};

impl Exchange {
    /// A drain has cut it, or the end of the process.
    pub(in crate::proxy) fn is_cut(&self) -> bool {
        let over = |claim: &Claim| claim.endpoint().is_over(claim.kind(), Instant::now());
        self.client.is_cut() || self.claim.as_ref().is_some_and(over)
    }

    /// Counts it as cut: for the endpoint's log line, the version's metric, and the process's last words.
    pub(in crate::proxy) fn note_cut(&self) {
        let Some(claim) = &self.claim else { return };
        claim.endpoint().note_cut(claim.kind());
        self.version_at().into_iter().for_each(|version| version.cell.cut(claim.kind()));
        self.worker.note_cut(claim.kind());
    }

    /// The claimed endpoint, and how long a drain lets a tunnel go on.
    pub(in crate::proxy) fn tunnel(&self) -> Option<(&Arc<Endpoint>, Duration)> {
        let split = &self.view.snapshot.config.splits[self.choice?.split];
        Some((self.claim.as_ref()?.endpoint(), split.drain.upgraded_timeout))
    }
}
