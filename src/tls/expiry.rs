//! When to tell of certificates that end: once a day from two weeks before. Pure.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::config::Certificate;
use crate::model::Instant;

const DAY: Duration = Duration::from_secs(86_400);
/// From here on it is told.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// A certificate to be told of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// As written in the file.
    pub path: String,
    pub not_after: SystemTime,
    /// Whole days; below zero once it has ended.
    pub days_left: i64,
}

/// Remembers what was told when. The monotonic clock says when a day is over; the wall clock only how long is left.
#[derive(Debug, Default)]
pub struct ExpiryWatch {
    told: HashMap<(String, SystemTime), Instant>,
}

impl ExpiryWatch {
    /// What to tell of now, of these that are in force; call it as often as you like.
    pub fn due<'a>(
        &mut self,
        certificates: impl IntoIterator<Item = &'a Certificate>,
        now: Instant,
        wall: SystemTime,
    ) -> Vec<Expiring> {
        let mut told = HashMap::new();
        let mut due = Vec::new();
        for certificate in certificates.into_iter().filter(|c| c.not_after < wall + SOON) {
            let key = (certificate.path.clone(), certificate.not_after);
            let last = self.told.get(&key).copied().filter(|&at| now.duration_since(at) < DAY);
            if last.is_none() && !told.contains_key(&key) {
                due.push(expiring(certificate, wall));
            }
            told.insert(key, last.unwrap_or(now));
        }
        // Who was replaced is forgotten.
        self.told = told;
        due
    }
}

fn expiring(certificate: &Certificate, wall: SystemTime) -> Expiring {
    let days = |span: Duration| i64::try_from(span.as_secs() / DAY.as_secs()).unwrap_or(i64::MAX);
    let days_left = match certificate.not_after.duration_since(wall) {
        Ok(left) => days(left),
        Err(past) => -1 - days(past.duration()),
    };
    Expiring { path: certificate.path.clone(), not_after: certificate.not_after, days_left }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::Authority;

    #[test]
    fn it_is_told_once_a_day_from_two_weeks_before() {
        let certificate = Authority::new().certificate(&["a.test"]);
        let (end, start) = (certificate.not_after, Instant::now());
        let mut watch = ExpiryWatch::default();
        let mut told = Vec::new();
        for hour in 0..24 * 17 {
            let passed = Duration::from_secs(3600) * hour;
            let due = watch.due([&*certificate], start + passed, end - 16 * DAY + passed + Duration::from_secs(1));
            told.extend(due.iter().map(|due| due.days_left));
        }
        assert_eq!(told, [13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -1]);
    }

    #[test]
    fn one_that_was_replaced_is_told_of_anew_and_a_jump_of_the_clock_repeats_nothing() {
        let (certificate, now) = (Authority::new().certificate(&["a.test"]), Instant::now());
        let end = certificate.not_after;
        let mut watch = ExpiryWatch::default();
        let both = [&*certificate, &*certificate];
        assert_eq!(watch.due(both, now, end - DAY).len(), 1, "two listeners, one certificate");
        assert!(watch.due(both, now, end + 3 * DAY).is_empty());
        assert!(watch.due([], now, end).is_empty());
        assert_eq!(watch.due(both, now, end - DAY).len(), 1);
    }
}
