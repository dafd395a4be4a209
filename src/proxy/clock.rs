//! A worker's coarse clock: read from the system once per tick, used where a tenth of a second is fine.
//!
//! Invariant: what waits, waits by the monotonic clock. The wall clock, which may jump by days, is for what people read:
//! logs, `Date`, identifiers; it is read anew with each tick, so that they follow a jump within one.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

use crate::model::Instant;

/// The last second of the year 9999: a `Date` has four digits.
const LAST: u64 = 253_402_300_799;

/// See the file's head.
pub(super) struct Clock {
    read_wall: Box<dyn Fn() -> SystemTime>,
    now: Cell<Instant>,
    wall: Cell<SystemTime>,
    date: RefCell<(u64, HeaderValue)>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self::with_wall(SystemTime::now)
    }

    fn with_wall(read_wall: impl Fn() -> SystemTime + 'static) -> Self {
        let date = RefCell::new((0, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT")));
        let (now, wall) = (Cell::new(Instant::now()), Cell::new(read_wall()));
        let clock = Self { read_wall: Box::new(read_wall), now, wall, date };
        clock.tick();
        clock
    }

    /// Reads the system's clocks.
    pub(super) fn tick(&self) {
        self.now.set(Instant::now());
        self.wall.set((self.read_wall)());
        let second = self.wall.get().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().min(LAST);
        let mut date = self.date.borrow_mut();
        if date.0 != second
            // Not of the wall's time itself: before 1970 and after 9999 it cannot be written.
            && let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second)))
        {
            *date = (second, value);
        }
    }

    /// At most a tick old.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// The wall clock's time of a recent instant, exact to the tick's own drift.
    pub(super) fn wall(&self, at: Instant) -> SystemTime {
        let (now, wall) = (self.now.get(), self.wall.get());
        match at.checked_duration_since(now) {
            Some(after) => wall + after,
            None => wall.checked_sub(now - at).unwrap_or(wall),
        }
    }

    /// Milliseconds since 1970, for identifiers.
    pub(super) fn unix_ms(&self, at: Instant) -> u64 {
        let since = self.wall(at).duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        since.as_millis() as u64
    }

    /// The value of a `Date` field (RFC 9110 section 6.6.1).
    pub(super) fn date(&self) -> HeaderValue {
        self.date.borrow().1.clone()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now", &self.now).field("wall", &self.wall).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_people_read_follows_a_jump_with_the_next_tick_and_what_waits_does_not() {
        // 2026-03-01 12:00:00.
        let noon = UNIX_EPOCH + Duration::from_secs(1_772_366_400);
        let wall = Rc::new(Cell::new(noon));
        let theirs = wall.clone();
        let clock = Clock::with_wall(move || theirs.get());
        let begun = clock.now();
        assert_eq!(clock.date(), "Sun, 01 Mar 2026 12:00:00 GMT");
        for (jumped, date) in [
            (noon + DAY, "Mon, 02 Mar 2026 12:00:00 GMT"),
            (noon - DAY, "Sat, 28 Feb 2026 12:00:00 GMT"),
            (UNIX_EPOCH - DAY, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (UNIX_EPOCH + 4_000_000 * DAY, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (noon, "Sun, 01 Mar 2026 12:00:00 GMT"),
        ] {
            let before = clock.now();
            wall.set(jumped);
            tokio::time::advance(SECOND).await;
            clock.tick();
            assert_eq!(clock.now() - before, SECOND, "timers do not see it");
            assert_eq!((clock.date(), clock.wall(clock.now())), (HeaderValue::from_static(date), jumped));
            // A request that began before the jump is told in the new time too.
            assert_eq!(clock.wall(before), jumped - SECOND);
            clock.unix_ms(before);
        }
        assert_eq!(clock.now() - begun, 5 * SECOND);
    }
}
