//! A moment as people and machines read it: RFC 3339, UTC, milliseconds.
//!
//! Why our own: it is one calendar formula, and a date library would be the largest dependency of the room that needs
//! it. Invariant: the text has always 24 characters for the years 0 to 9999, so it sorts as it reads.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY_MS: i128 = 86_400_000;

/// `2026-03-01T12:00:00.123Z`. What is below a millisecond is cut off.
pub fn rfc3339_ms(t: SystemTime) -> String {
    let since_1970 = match t.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    };
    let ms = since_1970.div_euclid(1_000_000);
    let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let (h, m, s) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", of_day % 1000)
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar. Counted in eras of 400 years
/// that begin on 1 March, so that the leap day is the last of its year and needs no case of its own.
fn civil_from_days(days: i128) -> (i128, i128, i128) {
    let since_0000_03 = days + 719_468;
    let (era, day_of_era) = (since_0000_03.div_euclid(146_097), since_0000_03.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i128::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, ms: u32) -> String {
        rfc3339_ms(UNIX_EPOCH + Duration::new(seconds, ms * 1_000_000))
    }

    #[test]
    fn known_moments() {
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(951_868_799, 999), "2000-02-29T23:59:59.999Z");
        assert_eq!(at(951_868_800, 0), "2000-03-01T00:00:00.000Z");
        assert_eq!(at(1_772_366_400, 123), "2026-03-01T12:00:00.123Z");
        assert_eq!(at(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z", "2100 is no leap year");
    }

    #[test]
    fn before_1970_and_below_a_millisecond() {
        assert_eq!(rfc3339_ms(UNIX_EPOCH - Duration::from_millis(1)), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339_ms(UNIX_EPOCH - Duration::from_nanos(1)), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339_ms(UNIX_EPOCH + Duration::from_nanos(1_999_999)), "1970-01-01T00:00:00.001Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = civil_from_days(-800_000);
        for days in -799_999..800_000 {
            let next = civil_from_days(days);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = [31, 28 + i128::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            (year, month, day) = match (day == length, month) {
                (false, _) => (year, month, day + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
            assert_eq!(next, (year, month, day));
        }
    }
}
