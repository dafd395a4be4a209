//! Time as a rollout counts it: only what was watched.
//!
//! Why not deadlines alone: a deadline passes while nobody looks, after a day's jump of a clock as well as during a
//! night switched off, and then a step is over that no request has judged. So time is added up from look to look.
//! Invariant: between two looks at most `LONGEST_LOOK` counts, and over a restart at most what both clocks agree on; so
//! no jump of either clock, in either direction, ends a step, and none holds one up by more than the time of the jump.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::model::Instant;

/// The most that counts between two looks. A controller looks each second.
pub const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Since the machine was switched on; never set, stands still while it sleeps. The process adds to the kernel's
    /// value at its start what `model::Instant` has gone on since, so that tests move it.
    pub monotonic: Duration,
    /// Since 1970 (before it: 0). For people, and to be compared with over a restart.
    pub wall: Duration,
}

impl Moment {
    /// What counts of the time since an earlier look of the same process.
    pub(super) fn since(self, earlier: Self) -> Duration {
        self.monotonic.saturating_sub(earlier.monotonic).min(LONGEST_LOOK)
    }

    /// What counts of the time since a look of an earlier process. After the computer was switched off the monotonic
    /// clock is behind, and nothing counts.
    pub(super) fn since_restart(self, earlier: Self) -> Duration {
        self.since(earlier).min(self.wall.saturating_sub(earlier.wall))
    }
}

/// Where moments come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Of the kernel, when the process began to count.
    started: Duration,
    since: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
        Self { started: Duration::new(seconds, nanoseconds), since: Instant::now() }
    }

    pub(super) fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Moment { monotonic: self.started + self.since.elapsed(), wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn moment(monotonic: u64, wall: u64) -> Moment {
        Moment { monotonic: Duration::from_secs(monotonic), wall: Duration::from_secs(wall) }
    }

    #[test]
    fn only_what_was_watched_counts() {
        let earlier = moment(100_000, 1_000_000);
        for (monotonic, wall, within, over) in [
            (100_003, 1_000_003, 3, 3),
            // The wall clock is set a day ahead, or back.
            (100_003, 1_000_003 + DAY, 3, 3),
            (100_003, 1_000_003 - DAY, 3, 0),
            // The process stood still for a day.
            (100_000 + DAY, 1_000_000 + DAY, 10, 10),
            // The machine slept: only the wall clock went on.
            (100_001, 1_000_000 + DAY, 1, 1),
            // It was switched off.
            (20, 1_000_000 + 60, 0, 0),
        ] {
            let now = moment(monotonic, wall);
            assert_eq!(now.since(earlier).as_secs(), within, "{now:?}");
            assert_eq!(now.since_restart(earlier).as_secs(), over, "{now:?}");
        }
    }
}
