//! Rules for when descriptors or places run out: what lacks, how long to pause, who has to go, and when it is over. Pure.
//!
//! Invariants: an episode is told twice, when it begins and when it is over, however many errors it has; clients leave
//! descriptors for the rest of the process (endpoints, the admin API, files), so that what is established goes on.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::{AcceptFault, Instant};

/// A connection that has been idle for less is not closed for others: its request may be on its way.
pub(super) const FRESH: Duration = Duration::from_millis(500);

/// Pause after an accept error, doubled up to `MAX_PAUSE` while it lasts: a spin frees no descriptor. Well below the
/// second within which service is to be back.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(320);

/// Without an error for so long, an episode is over.
const QUIET: Duration = Duration::from_secs(5);

// The numbers of Linux.
const NO_MEMORY: i32 = 12;
const SYSTEM_LIMIT: i32 = 23;
const PROCESS_LIMIT: i32 = 24;
const NO_BUFFERS: i32 = 105;

/// What an accept error means; `None`: this one client has gone, the next may be there.
pub(super) fn accept_fault(error: &io::Error) -> Option<AcceptFault> {
    match (error.raw_os_error(), error.kind()) {
        (_, io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => None,
        (Some(PROCESS_LIMIT | SYSTEM_LIMIT), _) => Some(AcceptFault::Descriptors),
        (Some(NO_MEMORY | NO_BUFFERS), _) => Some(AcceptFault::Memory),
        _ => Some(AcceptFault::Other),
    }
}

/// How many clients a process with so many descriptors takes. A quarter is left for the rest, at least 96 (an idle weir has
/// half of these) and at most 1024; what busy clients need beyond for their endpoints is had by closing idle ones.
pub fn client_places(descriptors: usize) -> usize {
    descriptors.saturating_sub((descriptors / 4).clamp(96, 1024)).max(1)
}

/// How many idle connections make room at once when `places` are taken: one look at all of them has to pay.
pub(super) fn batch(places: usize) -> usize {
    (places / 64).clamp(1, MOST_AT_ONCE)
}

/// Of [`batch`].
pub(super) const MOST_AT_ONCE: usize = 32;

/// Leaves the `most` oldest in front and drops the rest.
pub(super) fn oldest<T>(idle: &mut Vec<(Instant, T)>, most: usize) {
    if idle.len() > most {
        idle.select_nth_unstable_by_key(most, |(since, _)| *since);
        idle.truncate(most);
    }
}

/// The pauses of one accept loop.
#[derive(Debug, Default)]
pub(super) struct Pauses(Option<Duration>);

impl Pauses {
    pub(super) fn next(&mut self) -> Duration {
        let next = self.0.map_or(MIN_PAUSE, |last| (last * 2).min(MAX_PAUSE));
        self.0 = Some(next);
        next
    }

    /// It went well again.
    pub(super) fn reset(&mut self) {
        self.0 = None;
    }
}

/// A time in which something is short.
#[derive(Debug, Default)]
pub(super) struct Episode {
    /// So that looking for the end takes no lock when there is none.
    is_open: AtomicBool,
    run: Mutex<Option<Run>>,
}

#[derive(Debug)]
struct Run {
    begun: Instant,
    last: Instant,
    times: u64,
}

/// What there is to say of an episode that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) lasted: Duration,
    /// How often it was met.
    pub(super) times: u64,
}

impl Episode {
    /// The shortage was met; true if this begins an episode.
    pub(super) fn met(&self, now: Instant) -> bool {
        let mut run = self.lock();
        self.is_open.store(true, Ordering::Relaxed);
        match &mut *run {
            Some(run) => {
                (run.last, run.times) = (now.max(run.last), run.times + 1);
                false
            }
            None => {
                *run = Some(Run { begun: now, last: now, times: 1 });
                true
            }
        }
    }

    /// Whether it is over by now; told once.
    pub(super) fn over(&self, now: Instant) -> Option<Over> {
        if !self.is_open.load(Ordering::Relaxed) {
            return None;
        }
        let mut run = self.lock();
        let ended = run.take_if(|run| now.saturating_duration_since(run.last) >= QUIET)?;
        self.is_open.store(false, Ordering::Relaxed);
        Some(Over { lasted: ended.last - ended.begun, times: ended.times })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_accept_errors_mean() {
        for (code, means) in [
            (24, Some(AcceptFault::Descriptors)),
            (23, Some(AcceptFault::Descriptors)),
            (105, Some(AcceptFault::Memory)),
            (12, Some(AcceptFault::Memory)),
            // EPERM: a firewall's rule.
            (1, Some(AcceptFault::Other)),
            // ECONNABORTED, EINTR.
            (103, None),
            (4, None),
        ] {
            assert_eq!(accept_fault(&io::Error::from_raw_os_error(code)), means, "{code}");
        }
        assert_eq!(accept_fault(&io::Error::other("?")), Some(AcceptFault::Other));
    }

    #[test]
    fn clients_leave_descriptors_for_the_rest() {
        for (descriptors, places) in
            [(0, 1), (64, 1), (100, 4), (256, 160), (1024, 768), (20_000, 18_976), (1 << 20, (1 << 20) - 1024)]
        {
            assert_eq!(client_places(descriptors), places, "{descriptors}");
        }
        assert_eq!(client_places(usize::MAX), usize::MAX - 1024);
        assert_eq!([0, 1, 63, 128, 20_000].map(batch), [1, 1, 1, 2, MOST_AT_ONCE]);
    }

    #[test]
    fn pauses_grow_and_stay_below_their_bound() {
        let mut pauses = Pauses::default();
        let first: Vec<_> = (0..7).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(first, [10, 20, 40, 80, 160, 320, 320]);
        pauses.reset();
        assert_eq!(pauses.next(), MIN_PAUSE);
    }

    #[test]
    fn the_oldest_go() {
        let begun = Instant::now();
        let at = |n: u64| (begun + Duration::from_secs(n), n);
        let mut idle: Vec<_> = [5, 1, 4, 2, 3, 0].map(at).into();
        oldest(&mut idle, 3);
        let mut left: Vec<_> = idle.iter().map(|(_, n)| *n).collect();
        left.sort_unstable();
        assert_eq!(left, [0, 1, 2]);
        oldest(&mut idle, 3);
        oldest(&mut idle, 9);
        assert_eq!(idle.len(), 3);
        oldest(&mut idle, 0);
        assert!(idle.is_empty());
    }

    #[test]
    fn an_episode_is_told_twice() {
        let (episode, begun) = (Episode::default(), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        assert_eq!(episode.over(at(0)), None);
        assert!(episode.met(at(0)));
        assert!((1..100).all(|n| !episode.met(at(n * 50))));
        assert_eq!(episode.over(at(9_900)), None, "it may come again");
        assert_eq!(episode.over(at(9_950)), Some(Over { lasted: Duration::from_millis(4_950), times: 100 }));
        assert_eq!(episode.over(at(20_000)), None, "told once");
        assert!(episode.met(at(20_001)), "another one");
    }
}
