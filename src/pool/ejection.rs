//! When an endpoint is taken out for failing, for how long, and when it is back. Pure: one word in, one word out.
//!
//! All of it is in one word, so that whoever changes it sees the whole: failures in a row, whether and until when it is
//! out, which ejection in a row that is, and a generation. Invariants: the generation rises with each ejection, and a
//! report counts only if it is of an attempt begun in the present one, so that what comes late, from before an ejection,
//! counts neither against the endpoint that is back nor for it; while it is out nothing counts.
//!
//! Layout: bits 0..40 until, 40..50 failures, 50..55 ejections in a row, 55..63 generation, 63 out.

use std::time::Duration;

use crate::config::Eject;

/// No ejection is longer, unless its rule's first one is.
const LONGEST: Duration = Duration::from_secs(300);
const UNTIL: u64 = (1 << 40) - 1;
const MOST_FAILURES: u32 = (1 << 10) - 1;
const MOST_IN_A_ROW: u32 = (1 << 5) - 1;

/// See the file's head. Times are milliseconds since a moment that the endpoint remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) is_out: bool,
    /// When it comes back; if it is not out, when it came back the last time.
    pub(super) until: u64,
    /// In a row.
    pub(super) failures: u32,
    /// Ejections in a row.
    pub(super) row: u32,
    pub(super) generation: u8,
}

impl Standing {
    pub(super) fn of(word: u64) -> Self {
        Self {
            is_out: is_out(word),
            until: word & UNTIL,
            failures: (word >> 40) as u32 & MOST_FAILURES,
            row: (word >> 50) as u32 & MOST_IN_A_ROW,
            generation: generation(word),
        }
    }

    pub(super) fn word(self) -> u64 {
        let failures = u64::from(self.failures.min(MOST_FAILURES)) << 40;
        let row = u64::from(self.row.min(MOST_IN_A_ROW)) << 50;
        let generation = u64::from(self.generation) << 55;
        self.until.min(UNTIL) | failures | row | generation | u64::from(self.is_out) << 63
    }

    /// After an attempt of `generation` that went well; `None` if that changes nothing.
    pub(super) fn succeeded(self, generation: u8) -> Option<Self> {
        let counts = !self.is_out && self.generation == generation && self.failures > 0;
        counts.then_some(Self { failures: 0, ..self })
    }

    /// After one that failed.
    pub(super) fn failed(self, generation: u8) -> Option<Self> {
        let counts = !self.is_out && self.generation == generation && self.failures < MOST_FAILURES;
        counts.then(|| Self { failures: self.failures + 1, ..self })
    }

    /// Out from `now` on, if it is still due.
    pub(super) fn ejected(self, rule: &Eject, generation: u8, now: u64) -> Option<Self> {
        if self.is_out || self.generation != generation || self.failures < rule.errors {
            return None;
        }
        let good = Duration::from_millis(now.saturating_sub(self.until));
        let row = (left(rule, self.row, good) + 1).min(MOST_IN_A_ROW);
        let lasts = duration(rule, row).as_millis() as u64;
        let generation = self.generation.wrapping_add(1);
        Some(Self { is_out: true, until: now.saturating_add(lasts), failures: 0, row, generation })
    }

    /// Back, if its time is over by `now`.
    pub(super) fn readmitted(self, now: u64) -> Option<Self> {
        (self.is_out && now >= self.until).then_some(Self { is_out: false, ..self })
    }
}

/// The same without a look at the rest.
pub(super) fn is_out(word: u64) -> bool {
    word >> 63 != 0
}

/// The same without a look at the rest.
pub(super) fn generation(word: u64) -> u8 {
    (word >> 55) as u8
}

/// How many of `n` endpoints may be out at a time.
pub(super) fn most_out(n: usize, max_percent: u32) -> usize {
    (n * max_percent as usize / 100).max(1)
}

/// How long the `nth` ejection in a row lasts, counted from 1: twice the one before.
fn duration(rule: &Eject, nth: u32) -> Duration {
    let doubled = rule.duration.saturating_mul(1 << (nth - 1).min(30));
    doubled.min(LONGEST.max(rule.duration))
}

/// What is left of a row of ejections after it was good for so long: each is forgotten after as long as it lasted.
fn left(rule: &Eject, mut row: u32, mut good: Duration) -> u32 {
    while row > 0 {
        match good.checked_sub(duration(rule, row)) {
            Some(rest) => (good, row) = (rest, row - 1),
            None => break,
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: Eject = Eject { errors: 3, duration: Duration::from_secs(10), max_percent: 50 };

    fn after(failures: u32) -> Standing {
        Standing { failures, ..Standing::default() }
    }

    /// Ejected at `now` after three failures.
    fn out(standing: Standing, now: u64) -> Standing {
        let due = Standing { failures: 3, ..standing };
        due.ejected(&RULE, due.generation, now).unwrap()
    }

    #[test]
    fn failures_in_a_row_count_and_a_success_forgives_them() {
        let two = after(1).failed(0).unwrap();
        assert_eq!(two.failures, 2);
        assert_eq!(two.ejected(&RULE, 0, 0), None, "not due");
        assert_eq!(two.succeeded(0), Some(Standing::default()));
        assert_eq!(Standing::default().succeeded(0), None, "nothing to write");
        let out = out(two, 100);
        assert_eq!((out.is_out, out.until, out.row, out.generation, out.failures), (true, 10_100, 1, 1, 0));
    }

    #[test]
    fn nothing_counts_while_it_is_out_nor_what_began_before() {
        let out = out(after(0), 0);
        for generation in [0, 1] {
            assert_eq!((out.failed(generation), out.succeeded(generation)), (None, None));
            assert_eq!(Standing { failures: 9, ..out }.ejected(&RULE, generation, 5), None);
        }
        let back = out.readmitted(10_000).unwrap();
        assert_eq!((back.failed(0), back.succeeded(0)), (None, None));
        assert_eq!(back.failed(1).unwrap().failures, 1);
        assert_eq!(Standing { failures: 9, ..back }.ejected(&RULE, 0, 5), None);
    }

    #[test]
    fn it_is_back_when_its_time_is_over_and_once() {
        let out = out(after(0), 100);
        assert_eq!(out.readmitted(10_099), None);
        let back = out.readmitted(10_100).unwrap();
        assert!(!back.is_out);
        assert_eq!(back.readmitted(20_000), None);
    }

    #[test]
    fn each_in_a_row_is_twice_as_long_up_to_a_bound() {
        let (mut standing, mut now, mut lasted) = (after(0), 0, Vec::new());
        for _ in 0..40 {
            standing = out(standing, now);
            lasted.push((standing.until - now) / 1000);
            now = standing.until;
            standing = standing.readmitted(now).unwrap();
        }
        assert_eq!(lasted[..7], [10, 20, 40, 80, 160, 300, 300]);
        assert!(lasted[7..].iter().all(|s| *s == 300));
        let long = Eject { duration: Duration::from_secs(900), ..RULE };
        assert_eq!(duration(&long, 1), long.duration);
        assert_eq!(duration(&long, 31), long.duration);
    }

    #[test]
    fn a_row_is_forgotten_bit_by_bit() {
        let secs = Duration::from_secs;
        for (row, good, rest) in
            [(0, 0, 0), (3, 0, 3), (3, 39, 3), (3, 40, 2), (3, 59, 2), (3, 60, 1), (3, 70, 0), (3, 9999, 0)]
        {
            assert_eq!(left(&RULE, row, secs(good)), rest, "{row} after {good} s");
        }
        let twice = out(out(after(0), 0).readmitted(10_000).unwrap(), 10_000);
        assert_eq!(twice.row, 2);
        let again = out(twice.readmitted(30_000).unwrap(), 30_000 + 20_000);
        assert_eq!((again.row, again.until), (2, 70_000));
    }

    #[test]
    fn one_may_always_go_and_of_many_a_part() {
        for (n, percent, most) in
            [(1, 50, 1), (2, 50, 1), (3, 50, 1), (4, 50, 2), (10, 1, 1), (10, 100, 10), (7, 30, 2)]
        {
            assert_eq!(most_out(n, percent), most, "{percent} % of {n}");
        }
    }

    proptest! {
        #[test]
        fn a_word_says_what_was_written(
            is_out: bool, until in 0..=UNTIL, failures in 0..=MOST_FAILURES, row in 0..=MOST_IN_A_ROW, generation: u8,
        ) {
            let standing = Standing { is_out, until, failures, row, generation };
            prop_assert_eq!(Standing::of(standing.word()), standing);
            prop_assert_eq!((super::is_out(standing.word()), super::generation(standing.word())), (is_out, generation));
        }
    }
}
