//! The way down: as on a signal, or behind a successor that serves already.
//!
//! Invariant: nothing accepted is dropped before its deadline; what was handed over is left as it is in the kernel.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::asked::{Asked, End};
use super::control::Ended;
use super::upgrade::{Heirdom, ReportNow, drain_too};
use crate::config::{Config, Shutdown};
use crate::lifecycle::{Ending, Phase, drive};
use crate::model::Instant;
use crate::net::listen::{Listeners, Stopping};
use crate::proxy::{Cut, DataPlane};
use crate::state::Store;
use crate::upgrade::Elsewhere;

/// The data plane's own deadline comes this much before the process's, so that what was cut is still counted.
const MARGIN: Duration = Duration::from_millis(100);

/// How often a process that has handed over tells what it has.
const REPORT: Duration = Duration::from_millis(250);

/// What the way down is about.
pub(super) struct Going<'a> {
    pub(super) config: &'a Shutdown,
    pub(super) listeners: &'a Listeners,
    pub(super) plane: &'a DataPlane,
    pub(super) store: &'a Arc<Store>,
    pub(super) elsewhere: &'a Elsewhere,
    pub(super) phases: &'a watch::Sender<Phase>,
}

impl Going<'_> {
    /// Takes the data plane down in order: delay, listeners, requests.
    pub(super) async fn down(&self, first: End, asked: &mut Asked) -> Ended {
        tracing::info!(event = "shutdown", phase = "begun", timeout_seconds = self.config.timeout.as_secs_f64());
        if let End::AtOnce = first {
            return Ended::Forced;
        }
        let begun = Instant::now();
        let deadline = begun + self.config.timeout.saturating_sub(MARGIN);
        let cut = Cell::new(Cut::default());
        let drained = async {
            Stopping::finish_all(self.listeners.close()).await;
            cut.set(self.plane.drain(begun, deadline).await);
        };
        let again = async {
            asked.asked_to_end(None).await;
        };
        ended(drive(self.config, drained, again, self.phases).await, cut.get())
    }

    /// Finishes what is open after a hand-over, while nobody waits for it: until `until`; or within the time of a shutdown
    /// from when it is asked to end, or its successor is gone.
    pub(super) async fn leave(&self, heirdom: Heirdom, now: ReportNow, until: Instant, asked: &mut Asked) -> Ended {
        let Heirdom { kept, reports, pauses: _pauses, .. } = heirdom;
        self.phases.send_replace(Phase::Draining { deadline: until });
        let mut line = JoinSet::new();
        let store = self.store.clone();
        line.spawn(reports.run(REPORT, move || now(), move |keys| drain_too(&store, keys)));
        let (begun, cut) = (Instant::now(), Cell::new(Cut::default()));
        let mut drained = pin!(async {
            Stopping::finish_all(self.listeners.hand_over(&kept)).await;
            cut.set(self.plane.drain(begun, until).await);
            // Who asks the successor hears through us of the one before us.
            self.elsewhere.gone().await;
        });
        let end = tokio::select! {
            () = &mut drained => return ended(Ending::Drained, cut.get()),
            _ = line.join_next() => End::Drain,
            end = asked.asked_to_end(None) => end,
        };
        tracing::info!(event = "shutdown", phase = "begun", timeout_seconds = self.config.timeout.as_secs_f64());
        if let End::AtOnce = end {
            return Ended::Forced;
        }
        let config = Shutdown { delay: Duration::ZERO, ..self.config.clone() };
        let again = async {
            asked.asked_to_end(None).await;
        };
        ended(drive(&config, drained, again, self.phases).await, cut.get())
    }
}

fn ended(ending: Ending, cut: Cut) -> Ended {
    match ending {
        Ending::Forced => Ended::Forced,
        Ending::Drained | Ending::TimedOut if cut != Cut::default() => Ended::Cut(cut),
        Ending::Drained | Ending::TimedOut => Ended::Drained,
    }
}

/// Until when a process that has handed over stays for its connections: tunnels have long lives, and nobody waits for it.
pub(super) fn leave_until(config: &Config) -> Instant {
    let tunnels = config.splits.iter().map(|split| split.drain.upgraded_timeout);
    Instant::now() + tunnels.fold(config.shutdown.timeout, Duration::max)
}
