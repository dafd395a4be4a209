//! The task that notices a changed file and has it loaded.
//!
//! Invariant: what it hands on was loaded while the files stood still (or had moved for a second without a rest), and
//! whatever changes after that is noticed again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, sleep_until, timeout};

use super::eyes::Eyes;
use super::load::{LoadedConfig, Loader};
use super::reloader::{Gone, ReloadHandle};
use super::settle::{AGREE, Settle, Step};
use super::sight::Sight;
use crate::model::Instant;

/// Without any notice from the system.
const COMPARE: Duration = Duration::from_secs(2);
/// Between two looks when notices come thick and fast.
const BREATH: Duration = Duration::from_millis(10);
/// Loads in a row while the set of files itself is on the move.
const TRIES: usize = 3;

/// Watches the files of `started` (and those of each later load) until the reloader is gone. Rests while the
/// configuration in force says `watch = false`.
pub async fn watch(load: Loader, started: &LoadedConfig, reloads: ReloadHandle) {
    let wake = Arc::new(Notify::new());
    let theirs = wake.clone();
    // An error means that the runtime is going down.
    if let Ok(eyes) = spawn_blocking(|| Eyes::new(theirs)).await {
        let (files, folders) = (started.files.clone(), started.folders.clone());
        keep_watch(Watched { eyes, load, files, folders }, &wake, &reloads).await;
    }
}

async fn keep_watch(mut watched: Watched, wake: &Notify, reloads: &ReloadHandle) {
    let mut settle = Settle::default();
    while wait_until_wanted(reloads).await.is_ok() {
        let Ok((back, sight)) = in_background(watched, Watched::look).await else { return };
        watched = back;
        match settle.step(Instant::now(), sight) {
            Step::Rest => {
                sleep(BREATH).await;
                // Over time is no failure: it is the comparison that needs no notice.
                let _ = timeout(COMPARE, wake.notified()).await;
            }
            Step::LookAt(at) => sleep_until(at).await,
            Step::Take { rested } => {
                let Ok((back, taken)) = in_background(watched, Watched::load).await else { return };
                watched = back;
                if hand_on(taken, rested, &mut settle, reloads).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn wait_until_wanted(reloads: &ReloadHandle) -> Result<(), Gone> {
    let mut status = reloads.status();
    status.wait_for(|status| status.running.watch).await.map(drop).map_err(|_| Gone)
}

async fn hand_on(taken: Taken, rested: bool, settle: &mut Settle, reloads: &ReloadHandle) -> Result<(), Gone> {
    let Taken { before, loaded, after } = taken;
    let moving = !rested || !after.rests_since(&before);
    if moving && !settle.counts(Instant::now(), loaded.config.is_ok()) {
        // The next look goes on from what is there now.
        settle.step(Instant::now(), after);
        sleep(AGREE).await;
        return Ok(());
    }
    // If it moved meanwhile nobody knows which of the two was loaded: neither may count as seen, or a change back to it
    // would go unnoticed.
    settle.taken(if after.rests_since(&before) { before } else { Sight::default() });
    reloads.take(loaded).await.map(drop)
}

/// The blocking part: looks and loads.
struct Watched {
    eyes: Eyes,
    load: Loader,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

struct Taken {
    before: Sight,
    loaded: LoadedConfig,
    after: Sight,
}

impl Watched {
    fn look(&mut self) -> Sight {
        // Aimed first, so that what changes after the look is noticed.
        self.eyes.aim(&self.files, &self.folders);
        Sight::of(&self.files, &self.folders)
    }

    fn load(&mut self) -> Taken {
        let mut tries = 0;
        loop {
            tries += 1;
            let before = self.look();
            let loaded = (self.load)();
            if self.follow(&loaded) && tries < TRIES {
                continue;
            }
            return Taken { before, loaded, after: self.look() };
        }
    }

    /// Watches what the load has read; true if that is not what was watched before. A load that failed may have read
    /// only some of the files, and the one to be mended may be among the others.
    fn follow(&mut self, loaded: &LoadedConfig) -> bool {
        let (mut files, mut folders) = (loaded.files.clone(), loaded.folders.clone());
        if loaded.config.is_err() {
            keep_known(&mut files, &self.files);
            keep_known(&mut folders, &self.folders);
        }
        let changed = files != self.files || folders != self.folders;
        (self.files, self.folders) = (files, folders);
        changed
    }
}

fn keep_known(new: &mut Vec<PathBuf>, known: &[PathBuf]) {
    for path in known {
        if !new.contains(path) {
            new.push(path.clone());
        }
    }
}

async fn in_background<T: Send + 'static>(
    mut watched: Watched,
    work: impl FnOnce(&mut Watched) -> T + Send + 'static,
) -> Result<(Watched, T), Gone> {
    let done = spawn_blocking(move || {
        let result = work(&mut watched);
        (watched, result)
    });
    done.await.map_err(|error| {
        tracing::error!(event = "watch-ended", %error, "files are no longer watched; use `weir reload`");
        Gone
    })
}

#[cfg(test)]
#[path = "watcher_tests.rs"]
mod tests;
