//! From single checks to a state: rise and fall counters, so that one lost packet takes nobody out. Pure.
//!
//! Invariants: a new endpoint is admitted by its first pass and by nothing else; one that is up goes down only after
//! `unhealthy_after` failures in a row, one that is down comes back only after `healthy_after` passes in a row; a state
//! that does not change is not told again.

use crate::pool::Health;

/// As the log calls it (the API asks the endpoint for its whole state). Whoever is not checked is taken for up.
pub(super) fn word(health: Health) -> &'static str {
    match health {
        Health::Unchecked | Health::Up => "up",
        Health::Checking => "checking",
        Health::Down => "down",
    }
}

/// When a state changes; both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub healthy_after: u32,
    pub unhealthy_after: u32,
}

/// What came in a row last; one of the two is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streak {
    passes: u32,
    failures: u32,
}

impl Streak {
    /// Takes one more check into account; `now` is what the endpoint is. Returns what it becomes, if that is new.
    pub(super) fn step(self, rule: Rule, now: Health, passed: bool) -> (Self, Option<Health>) {
        let next = match passed {
            true => Self { passes: self.passes.saturating_add(1), failures: 0 },
            false => Self { passes: 0, failures: self.failures.saturating_add(1) },
        };
        let to = match now {
            Health::Checking if passed => Some(Health::Up),
            Health::Down if next.passes >= rule.healthy_after => Some(Health::Up),
            Health::Checking | Health::Up if next.failures >= rule.unhealthy_after => Some(Health::Down),
            _ => None,
        };
        (next, to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: Rule = Rule { healthy_after: 2, unhealthy_after: 3 };

    /// The states after each check (`+` passed, `-` failed).
    fn run(rule: Rule, mut now: Health, checks: &str) -> Vec<Health> {
        let mut streak = Streak::default();
        let mut step = |check| {
            let (next, to) = streak.step(rule, now, check == '+');
            assert_ne!(to, Some(now), "told again");
            (streak, now) = (next, to.unwrap_or(now));
            now
        };
        checks.chars().map(&mut step).collect()
    }

    #[test]
    fn the_table() {
        use Health::{Checking as C, Down as D, Unchecked as N, Up as U};
        for (from, checks, states) in [
            (C, "+", vec![U]),
            (C, "--+", vec![C, C, U]),
            (C, "---+++", vec![C, C, D, D, U, U]),
            (U, "--+--+", vec![U; 6]),
            (U, "---", vec![U, U, D]),
            (U, "----+-++", vec![U, U, D, D, D, D, D, U]),
            (D, "+-+-+", vec![D; 5]),
            (D, "++---", vec![D, U, U, U, D]),
            // Nobody's business any more: whoever switched the check off has the last word.
            (N, "+---+", vec![N; 5]),
        ] {
            assert_eq!(run(RULE, from, checks), states, "{from:?} {checks}");
        }
        let at_once = Rule { healthy_after: 1, unhealthy_after: 1 };
        assert_eq!(run(at_once, U, "-+-+"), [D, U, D, U]);
    }

    proptest! {
        #[test]
        fn a_change_needs_its_whole_streak(
            checks in "[+-]{1,200}",
            healthy_after in 1u32..6,
            unhealthy_after in 1u32..6,
        ) {
            let rule = Rule { healthy_after, unhealthy_after };
            let states = run(rule, Health::Checking, &checks);
            let checks: Vec<char> = checks.chars().collect();
            let in_a_row = |end: usize| checks[..=end].iter().rev().take_while(|c| **c == checks[end]).count() as u32;
            let mut before = Health::Checking;
            for (i, &now) in states.iter().enumerate() {
                let expected = match (before, checks[i]) {
                    (Health::Checking, '+') => Health::Up,
                    (Health::Down, '+') if in_a_row(i) >= healthy_after => Health::Up,
                    (Health::Up | Health::Checking, '-') if in_a_row(i) >= unhealthy_after => Health::Down,
                    (same, _) => same,
                };
                prop_assert_eq!(now, expected, "{} {:?}", i, rule);
                before = now;
            }
        }
    }
}
