//! Parts without which the process is worth nothing: a worker's own loops, the control tasks.
//!
//! A process that has lost one of them still holds its ports and answers some of its clients, and nobody starts it anew.
//! Invariant: a vital part that ends by a panic is heard of, whatever it was doing.

use std::future::pending;

use tokio::sync::watch;

/// Hears of a vital part's panic; cloned into every part. See the file's head.
#[derive(Clone, Debug)]
pub struct Vital(watch::Sender<Option<&'static str>>);

impl Default for Vital {
    fn default() -> Self {
        Self(watch::channel(None).0)
    }
}

impl Vital {
    /// Runs a part; `name` is for people.
    pub async fn run<T>(self, name: &'static str, part: impl Future<Output = T>) -> T {
        let _guard = self.guard(name);
        part.await
    }

    /// While it lives, a panic of its thread is this part's end.
    pub fn guard(&self, name: &'static str) -> VitalGuard {
        VitalGuard { vital: self.clone(), name }
    }

    /// Waits until a part has panicked and gives its name. Cancel safe.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.0.subscribe();
        // `self` holds a sender, so the channel does not close meanwhile.
        let failed = failed.wait_for(Option::is_some).await.ok().and_then(|name| *name);
        match failed {
            Some(name) => name,
            None => pending().await,
        }
    }
}

/// See [`Vital::guard`].
#[derive(Debug)]
pub struct VitalGuard {
    vital: Vital,
    name: &'static str,
}

impl Drop for VitalGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The first: a thread that panics takes its other parts with it.
            self.vital.0.send_if_modified(|failed| {
                let is_first = failed.is_none();
                failed.get_or_insert(self.name);
                is_first
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_panics_is_heard_of_and_one_that_ends_is_not() {
        let vital = Vital::default();
        assert_eq!(vital.clone().run("ends", async { 7 }).await, 7);
        let cut = tokio::spawn(vital.clone().run("cut", pending::<()>()));
        tokio::task::yield_now().await;
        cut.abort();
        assert!(cut.await.unwrap_err().is_cancelled());
        assert!(tokio::time::timeout(Duration::from_secs(1), vital.failed()).await.is_err());

        let part = tokio::spawn(vital.clone().run("part", async { panic!("of a vital part") }));
        assert_eq!(vital.failed().await, "part");
        assert!(part.await.unwrap_err().is_panic());
        assert_eq!(vital.failed().await, "part", "whoever asks later hears of it too");
    }

    #[tokio::test]
    async fn a_thread_is_a_part_too() {
        let vital = Vital::default();
        let theirs = vital.clone();
        let thread = std::thread::spawn(move || {
            let _later = theirs.guard("what it took with it");
            let _guard = theirs.guard("worker");
            panic!("of a worker");
        });
        assert!(thread.join().is_err());
        assert_eq!(vital.failed().await, "worker", "the first, however late one asks");
    }
}
