//! When a change of the files is to be taken. Pure.
//!
//! A change is taken when two looks `AGREE` apart see the same, so that a file is not taken half-written; but a file
//! that never rests delays a load by `LIMIT` at most. What has gone gets `GONE` to come back: editors and scripts
//! delete and create again.

use std::time::Duration;

use super::sight::Sight;
use crate::model::Instant;

/// Between two looks that must agree.
pub(super) const AGREE: Duration = Duration::from_millis(100);
/// From the first sight of a change to the load, a look and the load itself left over to make up one second.
const LIMIT: Duration = Duration::from_millis(900);
/// From the first sight of a change to when even a file that cannot be loaded, and never rests, is told about.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a file may be away before that counts as a change.
const GONE: Duration = Duration::from_millis(900);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All is as it was taken last.
    Rest,
    /// Look again then.
    LookAt(Instant),
    /// Load. `rested`: the files stand still; else they have been moving for too long.
    Take { rested: bool },
}

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Settle {
    taken: Option<Sight>,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    since: Instant,
    seen: Sight,
    seen_at: Instant,
}

impl Settle {
    /// A look has seen this.
    pub(super) fn step(&mut self, now: Instant, seen: Sight) -> Step {
        let Some(taken) = &self.taken else { return Step::Take { rested: true } };
        if seen == *taken {
            self.pending = None;
            return Step::Rest;
        }
        let lost = seen.has_lost(taken);
        let Some(pending) = &mut self.pending else {
            self.pending = Some(Pending { since: now, seen, seen_at: now });
            return Step::LookAt(now + AGREE);
        };
        if !seen.rests_since(&pending.seen) {
            (pending.seen, pending.seen_at) = (seen, now);
        }
        let agreed = now >= pending.seen_at + AGREE && (!lost || now >= pending.since + GONE);
        if agreed || now >= pending.since + LIMIT { Step::Take { rested: agreed } } else { Step::LookAt(now + AGREE) }
    }

    /// Whether a load counts that was made while the files were moving. One that failed was most likely made of a
    /// half-written file.
    pub(super) fn counts(&self, now: Instant, loaded: bool) -> bool {
        let limit = if loaded { LIMIT } else { PATIENCE };
        self.pending.as_ref().is_none_or(|pending| now >= pending.since + limit)
    }

    /// What was loaded: from here on this is what counts as unchanged.
    pub(super) fn taken(&mut self, seen: Sight) {
        *self = Self { taken: Some(seen), pending: None };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const RESTED: Step = Step::Take { rested: true };

    fn sight(text: &str) -> Sight {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, text).unwrap();
        // The path is part of a sight, so it has to be the same for all.
        Sight::renamed(&Sight::of(&[file], &[]))
    }

    fn gone() -> Sight {
        Sight::renamed(&Sight::of(&["/nonexistent/weir/f".into()], &[]))
    }

    impl Sight {
        fn renamed(&self) -> Self {
            Self { seen: self.seen.values().map(|seen| ("f".into(), seen.clone())).collect(), ..Self::default() }
        }
    }

    fn rested(text: &str) -> (Settle, Instant) {
        let mut settle = Settle::default();
        assert_eq!(settle.step(Instant::now(), sight(text)), RESTED, "the first look is always taken");
        settle.taken(sight(text));
        (settle, Instant::now())
    }

    #[test]
    fn two_looks_that_agree_take_a_change() {
        let (mut settle, t) = rested("a");
        assert_eq!(settle.step(t, sight("a")), Step::Rest);
        assert_eq!(settle.step(t, sight("b")), Step::LookAt(t + AGREE));
        assert_eq!(settle.step(t + AGREE, sight("c")), Step::LookAt(t + 2 * AGREE), "still being written");
        assert_eq!(settle.step(t + 2 * AGREE, sight("c")), RESTED);
    }

    #[test]
    fn there_and_back_is_no_change() {
        let (mut settle, t) = rested("a");
        settle.step(t, sight("b"));
        assert_eq!(settle.step(t + AGREE, sight("a")), Step::Rest);
        assert_eq!(settle.step(t + 2 * AGREE, sight("b")), Step::LookAt(t + 3 * AGREE), "counts afresh");
    }

    #[test]
    fn writing_without_end_is_taken_within_a_second() {
        let (mut settle, t) = rested("a");
        let takes = (0..40)
            .find(|i| settle.step(t + *i * 50 * MS, sight(&format!("{i}"))) == Step::Take { rested: false })
            .unwrap();
        assert_eq!(takes * 50, 900);
        assert!(settle.counts(t + 900 * MS, true) && !settle.counts(t + 899 * MS, true));
        assert!(settle.counts(t + PATIENCE, false) && !settle.counts(t + 900 * MS, false), "half-written");
    }

    #[test]
    fn a_file_that_has_gone_gets_time_to_come_back() {
        let (mut settle, t) = rested("a");
        settle.step(t, gone());
        assert_eq!(settle.step(t + 500 * MS, gone()), Step::LookAt(t + 600 * MS));
        assert_eq!(settle.step(t + 600 * MS, sight("b")), Step::LookAt(t + 700 * MS));
        assert_eq!(settle.step(t + 700 * MS, sight("b")), RESTED);
        settle.taken(sight("b"));
        settle.step(t, gone());
        assert_eq!(settle.step(t + GONE, gone()), RESTED);
        settle.taken(gone());
        assert_eq!(settle.step(t + 2 * GONE, gone()), Step::Rest, "told once");
    }
}
