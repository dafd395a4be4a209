//! Who may ask the process for something: signals, the program it is a guest in, and successors that are ready.
//!
//! Invariant: one task listens, so that what comes first is what happens.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::upgrade::{Candidate, Heirdom, ReportNow, Upgrades};
use crate::lifecycle::{Signal, Signals};
use crate::model::{Actor, Source};
use crate::reload::ReloadHandle;

/// What was asked.
pub(super) enum End {
    Drain,
    AtOnce,
    /// Another process serves.
    HandedOver(Box<Heirdom>),
}

/// See the file's head.
pub(super) struct Asked {
    pub(super) signals: Option<Signals>,
    pub(super) stopped: Option<oneshot::Receiver<()>>,
    pub(super) reloads: ReloadHandle,
    pub(super) upgrades: Arc<Upgrades>,
    pub(super) candidates: mpsc::Receiver<Candidate>,
}

impl Asked {
    /// From here on no other process takes over.
    pub(super) async fn call_off_upgrades(&mut self) {
        self.candidates.close();
        // Dropping one ends it.
        while self.candidates.try_recv().is_ok() {}
        self.upgrades.call_off().await;
    }

    /// Waits until the process is asked to end, or another one serves; obeys everything else on the way. `now` is for
    /// successors; without it none is let serve.
    pub(super) async fn asked_to_end(&mut self, now: Option<&ReportNow>) -> End {
        loop {
            let signal = tokio::select! {
                Some(candidate) = self.candidates.recv() => {
                    let Some(now) = now else { continue };
                    match candidate.go(now()).await {
                        Some(heirdom) => return End::HandedOver(Box::new(heirdom)),
                        None => continue,
                    }
                }
                signal = Self::next(&mut self.signals, &mut self.stopped) => signal,
            };
            match signal {
                Signal::Terminate => return End::Drain,
                Signal::Quit => return End::AtOnce,
                Signal::Reload => {
                    let reloads = self.reloads.clone();
                    tokio::spawn(async move { drop(reloads.reload(Actor("signal".to_owned()), Source::File).await) });
                }
                Signal::ReopenLogs => tracing::info!(event = "logs", "logs go to stdout and stderr: nothing to reopen"),
                Signal::Upgrade => {
                    let upgrades = self.upgrades.clone();
                    tokio::spawn(async move { drop(upgrades.upgrade(Actor("signal".to_owned())).await) });
                }
            }
        }
    }

    async fn next(signals: &mut Option<Signals>, stop: &mut Option<oneshot::Receiver<()>>) -> Signal {
        let stopped = async {
            match stop {
                Some(stopped) => drop(stopped.await),
                None => std::future::pending().await,
            }
        };
        let signal = async {
            match signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stopped => {
                *stop = None;
                Signal::Terminate
            }
            signal = signal => signal,
        }
    }
}
