//! The task of one checked endpoint: ask, count, say, wait.
//!
//! An endpoint nobody knows yet is asked at once; all others first at a random point of their interval, so that a
//! reload of a thousand endpoints is no burst; from then on a tenth more or less than the interval apart, so that many
//! weirs do not fall into step. Invariants: never two checks of one endpoint at a time, and never more than the permits
//! of the process; a check that was not made changes nothing; every change of state is one line in the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::sleep_until;

use super::board::Board;
use super::probe::Probed;
use super::rule::{Rule, Streak, word};
use crate::model::Instant;
use crate::pool::{Endpoint, EndpointKey, Health};

/// See the file's head.
#[derive(Debug)]
pub(super) struct Checker {
    pub key: EndpointKey,
    pub endpoint: Arc<Endpoint>,
    pub rule: Rule,
    pub interval: Duration,
    pub board: Board,
    /// Of all checkers together.
    pub permits: Arc<Semaphore>,
}

impl Checker {
    /// Checks until it is dropped.
    pub(super) async fn run<F>(self, mut probe: impl FnMut() -> F, mut rng: fastrand::Rng)
    where
        F: Future<Output = Probed>,
    {
        let mut streak = Streak::default();
        let mut next = Instant::now();
        let mut is_spread = self.endpoint.health() != Health::Checking;
        if is_spread {
            next += self.interval.mul_f64(rng.f64());
        }
        loop {
            sleep_until(next).await;
            // Closed never: then there is nobody to wait for.
            let permit = self.permits.acquire().await;
            let began = Instant::now();
            let probed = probe().await;
            drop(permit);
            streak = self.take(streak, &probed);
            let part = if is_spread { 0.9 + 0.2 * rng.f64() } else { rng.f64() };
            next = began + self.interval.mul_f64(part);
            is_spread = true;
        }
    }

    /// What one check means.
    fn take(&self, streak: Streak, probed: &Probed) -> Streak {
        let now = self.endpoint.health();
        let (next, to) = match probed {
            Probed::Passed => streak.step(self.rule, now, true),
            Probed::Failed(_) => streak.step(self.rule, now, false),
            Probed::NotMade(_) => (streak, None),
        };
        if let Some(to) = to {
            self.endpoint.set_health(to);
            self.tell(now, to, probed);
        }
        let is_up = to.unwrap_or(now).is_able();
        self.board.note(&self.key, probed, is_up, SystemTime::now());
        next
    }

    fn tell(&self, from: Health, to: Health, probed: &Probed) {
        let EndpointKey { split, version, address } = &self.key;
        let Rule { healthy_after, unhealthy_after } = self.rule;
        let reason = match (probed, from) {
            (Probed::Failed(why) | Probed::NotMade(why), _) => {
                tracing::warn!(event = "health", %split, %version, endpoint = %address, from = word(from),
                    to = word(to), reason = why, "failed {unhealthy_after} checks in a row");
                return;
            }
            (Probed::Passed, Health::Checking) => "passed its first check".to_owned(),
            (Probed::Passed, _) => format!("passed {healthy_after} checks in a row"),
        };
        tracing::info!(event = "health", %split, %version, endpoint = %address, from = word(from), to = word(to), reason);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::model::{Address, SplitName, VersionName};
    use crate::pool::Deadlines;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// A checker whose checks give what the script says, one after the other, and then pass for ever.
    struct Scene {
        endpoint: Arc<Endpoint>,
        board: Board,
        permits: Arc<Semaphore>,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    impl Scene {
        fn new(health: Health) -> Self {
            let endpoint = Arc::new(Endpoint::new("127.0.0.1:1".parse::<Address>().unwrap()));
            endpoint.set_health(health);
            Self { endpoint, board: Board::default(), permits: Arc::new(Semaphore::new(1)), asked: Arc::default() }
        }

        fn key(&self) -> EndpointKey {
            let (split, version) = (SplitName::new("shop").unwrap(), VersionName::new("v1").unwrap());
            EndpointKey { split, version, address: self.endpoint.address().clone() }
        }

        fn start(&self, script: &str) -> tokio::task::JoinHandle<()> {
            let checker = Checker {
                key: self.key(),
                endpoint: self.endpoint.clone(),
                rule: Rule { healthy_after: 2, unhealthy_after: 3 },
                interval: INTERVAL,
                board: self.board.clone(),
                permits: self.permits.clone(),
            };
            let (asked, mut script) = (self.asked.clone(), script.to_owned().into_bytes().into_iter());
            let probe = move || {
                asked.lock().unwrap().push(Instant::now());
                let probed = match script.next() {
                    Some(b'-') => Probed::Failed("status 503".into()),
                    Some(b'!') => Probed::NotMade("no descriptors".into()),
                    _ => Probed::Passed,
                };
                async move { probed }
            };
            tokio::spawn(checker.run(probe, fastrand::Rng::with_seed(7)))
        }

        /// Until so many checks are over.
        async fn wait(&self, checks: usize) -> Health {
            while self.done() < checks {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.endpoint.health()
        }

        fn done(&self) -> usize {
            let key = self.key();
            let counts = self.board.counts(&key.split, &key.version);
            (counts.passed + counts.failed + counts.not_made) as usize
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_endpoint_is_asked_at_once_and_admitted_by_one_pass() {
        let (scene, began) = (Scene::new(Health::Checking), Instant::now());
        let _task = scene.start("-+");
        assert_eq!(scene.wait(1).await, Health::Checking);
        assert!(began.elapsed() <= Duration::from_millis(1));
        assert_eq!(scene.board.last(&scene.key()).unwrap().reason.as_deref(), Some("status 503"));
        assert_eq!(scene.wait(2).await, Health::Up);
        assert_eq!(scene.board.last(&scene.key()).unwrap().reason, None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_down_and_comes_back_by_its_streaks() {
        let scene = Scene::new(Health::Up);
        let _task = scene.start("--+---+-++");
        for (checks, health) in [(5, Health::Up), (6, Health::Down), (9, Health::Down), (10, Health::Up)] {
            assert_eq!(scene.wait(checks).await, health, "{checks}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_was_not_made_says_nothing() {
        let scene = Scene::new(Health::Up);
        let _task = scene.start("!!!!!--!-");
        assert_eq!(scene.wait(8).await, Health::Up);
        assert_eq!(scene.wait(9).await, Health::Down, "and breaks no streak");
    }

    #[tokio::test(start_paused = true)]
    async fn checks_are_spread_and_never_in_step() {
        let scene = Scene::new(Health::Up);
        let began = Instant::now();
        let _task = scene.start("");
        scene.wait(50).await;
        let asked = scene.asked.lock().unwrap().clone();
        assert!((1..10_000).contains(&(asked[0] - began).as_millis()), "somewhere in the first interval");
        let gaps: Vec<_> = asked.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        assert!(gaps.iter().all(|gap| (9_000..=11_001).contains(gap)), "{gaps:?}");
        assert!(gaps.iter().any(|gap| *gap < 9_700) && gaps.iter().any(|gap| *gap > 10_300), "{gaps:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_without_a_permit() {
        let scene = Scene::new(Health::Checking);
        let permit = scene.permits.clone().acquire_owned().await.unwrap();
        let task = scene.start("");
        tokio::time::sleep(INTERVAL).await;
        assert_eq!((scene.done(), scene.endpoint.health()), (0, Health::Checking));
        drop(permit);
        assert_eq!(scene.wait(1).await, Health::Up);
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(scene.permits.available_permits(), 1, "who is stopped keeps none");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_does_not_undo_a_drain() {
        let scene = Scene::new(Health::Down);
        scene.endpoint.drain(Deadlines::new(Instant::now(), INTERVAL, INTERVAL));
        let _task = scene.start("++");
        assert_eq!(scene.wait(2).await, Health::Up);
        assert!(scene.endpoint.is_draining() && !scene.endpoint.is_available());
    }
}
