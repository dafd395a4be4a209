//! RFC 3339 UTC time stamps with milliseconds.
//!
//! The calendar is worked out once a second; within a second only three digits change.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999: the format has four digits.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// The latest stamp, kept to be changed into the next.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    second: u64,
    text: [u8; 24],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00.000Z" }
    }
}

impl Stamp {
    /// `2026-03-01T12:00:00.123Z`. A time before 1970 or after 9999 is shown as the nearest that can be.
    pub(super) fn of(&mut self, at: SystemTime) -> &[u8; 24] {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
        if since.as_secs() != self.second {
            self.second = since.as_secs();
            self.calendar();
        }
        self.put(20, 3, u64::from(since.subsec_millis()));
        &self.text
    }

    /// The part between `T` and `Z`, for people: `12:00:00.123`.
    pub(super) fn time_of_day(&mut self, at: SystemTime) -> &[u8] {
        &self.of(at)[11..23]
    }

    fn calendar(&mut self) {
        let (year, month, day) = date(self.second / 86_400);
        let second = self.second % 86_400;
        self.put(0, 4, year);
        self.put(5, 2, month);
        self.put(8, 2, day);
        self.put(11, 2, second / 3600);
        self.put(14, 2, second / 60 % 60);
        self.put(17, 2, second % 60);
    }

    fn put(&mut self, at: usize, digits: usize, mut n: u64) {
        for place in self.text[at..at + digits].iter_mut().rev() {
            *place = b'0' + (n % 10) as u8;
            n /= 10;
        }
    }
}

/// Year, month and day of a number of days since 1970-01-01. Years are counted from March, so that the leap day is
/// the last of its year; 400 years are always 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let first = (153 * month + 2) / 5;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day - first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(seconds: u64, millis: u64) -> String {
        let at = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis);
        String::from_utf8(Stamp::default().of(at).to_vec()).unwrap()
    }

    #[test]
    fn known_instants() {
        assert_eq!(stamp(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(stamp(1_772_366_400, 123), "2026-03-01T12:00:00.123Z");
        assert_eq!(stamp(4_107_542_399, 999), "2100-02-28T23:59:59.999Z");
        assert_eq!(stamp(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        assert_eq!(stamp(u64::MAX >> 4, 0), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = date(0);
        for days in 1..200_000 {
            let (y, m, d) = date(days);
            let next_day = (y, m) == (last.0, last.1) && d == last.2 + 1;
            let next_month =
                d == 1 && last.2 >= 28 && ((y, m) == (last.0, last.1 + 1) || (y, m, last.1) == (last.0 + 1, 1, 12));
            assert!(next_day || next_month, "{last:?} then {y}-{m}-{d}");
            last = (y, m, d);
        }
        assert_eq!(last, (2517, 7, 31));
    }

    #[test]
    fn the_kept_second_does_not_stick() {
        let mut stamp = Stamp::default();
        let at = UNIX_EPOCH + Duration::from_secs(1_772_366_400);
        assert_eq!(stamp.time_of_day(at), b"12:00:00.000");
        assert_eq!(stamp.time_of_day(at + Duration::from_millis(999)), b"12:00:00.999");
        assert_eq!(stamp.time_of_day(at + Duration::from_secs(1)), b"12:00:01.000");
        assert_eq!(stamp.of(UNIX_EPOCH - Duration::from_secs(1)), b"1970-01-01T00:00:00.000Z");
    }
}
