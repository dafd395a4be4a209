//! A worker's coarse clock: read from the system once per tick, used where a tenth of a second is fine.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

use http::HeaderValue;

use crate::model::Instant;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Clock {
    now: Cell<Instant>,
    wall: Cell<SystemTime>,
    date: RefCell<(u64, HeaderValue)>,
}

impl Clock {
    pub(super) fn new() -> Self {
        let date = RefCell::new((0, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT")));
        let clock = Self { now: Cell::new(Instant::now()), wall: Cell::new(SystemTime::now()), date };
        clock.tick();
        clock
    }

    /// Reads the system's clocks.
    pub(super) fn tick(&self) {
        self.now.set(Instant::now());
        self.wall.set(SystemTime::now());
        let second = self.wall.get().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut date = self.date.borrow_mut();
        if date.0 != second
            && let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(self.wall.get()))
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
