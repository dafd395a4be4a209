//! What is observed of an endpoint, apart from what the operator wants (house.md section 6): two axes that never mix, so
//! that a check that passes cannot undo a drain.
//!
//! Invariants: `health` is written by its checker alone; everything about ejection is one word (see `ejection`), changed
//! by compare and swap, so that of many who report or look at the same moment one ejects and one readmits.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::ejection::{self, Standing};
use super::in_flight::Word;
use super::slow_start;
use crate::config::Eject;
use crate::model::{Cause, Instant};

/// What the active checks say of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Health {
    /// Nobody checks it: it is taken for able.
    #[default]
    Unchecked,
    /// Checked, but with no answer yet that decides: takes no request.
    Checking,
    Up,
    Down,
}

impl Health {
    /// Takes requests, as far as the checks go.
    pub fn is_able(self) -> bool {
        matches!(self, Self::Unchecked | Self::Up)
    }

    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Checking,
            2 => Self::Up,
            3 => Self::Down,
            _ => Self::Unchecked,
        }
    }
}

/// What has become of an endpoint's failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ejections {
    /// Ejections since the endpoint is known.
    pub count: u64,
    /// Present if it is out: for how much longer.
    pub left: Option<Duration>,
    /// Ejections in a row, the last one included.
    pub row: u32,
    /// The failure that ejected it last.
    pub cause: Option<Cause>,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Observed<W = AtomicU64> {
    /// Times are milliseconds since then.
    base: Instant,
    health: AtomicU8,
    standing: W,
    /// When slow start began, plus 1; 0: it is over, or has never been.
    admitted: AtomicU64,
    ejections: AtomicU64,
    /// Of the last ejection: its place in `Cause::ALL`, plus 1.
    cause: AtomicU8,
}

impl<W: Word> Observed<W> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            base: now,
            health: AtomicU8::new(0),
            standing: W::new(0),
            admitted: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            cause: AtomicU8::new(0),
        }
    }

    #[inline]
    pub(super) fn health(&self) -> Health {
        Health::of(self.health.load(Ordering::Acquire))
    }

    /// Returns what it was.
    pub(super) fn set_health(&self, health: Health) -> Health {
        Health::of(self.health.swap(health as u8, Ordering::AcqRel))
    }

    /// Set aside, perhaps with its time over.
    #[inline]
    pub(super) fn is_out(&self) -> bool {
        ejection::is_out(self.standing.read())
    }

    /// What an attempt that begins now is of.
    #[inline]
    pub(super) fn generation(&self) -> u8 {
        ejection::generation(self.standing.read())
    }

    /// An attempt went well.
    pub(super) fn succeeded(&self, generation: u8) {
        self.change(|standing| standing.succeeded(generation));
    }

    /// An attempt failed; true if that is enough to be ejected.
    pub(super) fn failed(&self, rule: &Eject, generation: u8) -> bool {
        self.change(|standing| standing.failed(generation));
        let now = Standing::of(self.standing.read());
        !now.is_out && now.generation == generation && now.failures >= rule.errors
    }

    /// Sets it aside, if it is still due; true for the one who did.
    pub(super) fn eject(&self, rule: &Eject, generation: u8, cause: Cause, now: Instant) -> bool {
        let now = self.ms(now);
        let is_done = self.change(|standing| standing.ejected(rule, generation, now)).is_some();
        if is_done {
            self.cause.store(Cause::ALL.iter().position(|c| *c == cause).map_or(0, |i| i as u8 + 1), Ordering::Relaxed);
            self.ejections.fetch_add(1, Ordering::Release);
        }
        is_done
    }

    /// Takes it back, if its time is over; true for the one who did. Slow start begins where its time was over.
    pub(super) fn readmit(&self, now: Instant) -> bool {
        let now = self.ms(now);
        let back = self.change(|standing| standing.readmitted(now));
        if let Some(back) = back {
            self.admitted.fetch_max(back.until + 1, Ordering::AcqRel);
        }
        back.is_some()
    }

    /// Slow start begins.
    pub(super) fn admit(&self, now: Instant) {
        self.admitted.fetch_max(self.ms(now) + 1, Ordering::AcqRel);
    }

    /// What part of its weight it has, above 0 to 1. The clock is read only while that grows.
    pub(super) fn part(&self, over: Duration, now: impl FnOnce() -> Instant) -> f64 {
        let admitted = self.admitted.load(Ordering::Acquire);
        if admitted == 0 {
            return 1.0;
        }
        let age = Duration::from_millis((self.ms(now()) + 1).saturating_sub(admitted));
        let part = slow_start::factor(age, over);
        if part >= 1.0 {
            let _ = self.admitted.compare_exchange(admitted, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        part
    }

    pub(super) fn ejections(&self, now: Instant) -> Ejections {
        let count = self.ejections.load(Ordering::Acquire);
        let standing = Standing::of(self.standing.read());
        let left = || Duration::from_millis(standing.until.saturating_sub(self.ms(now)));
        let cause = usize::from(self.cause.load(Ordering::Relaxed)).checked_sub(1);
        Ejections {
            count,
            left: standing.is_out.then(left),
            row: standing.row,
            cause: cause.and_then(|i| Cause::ALL.get(i).copied()),
        }
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.base).as_millis() as u64
    }

    /// What was written, if anything was.
    fn change(&self, next: impl Fn(Standing) -> Option<Standing>) -> Option<Standing> {
        let before = self.standing.update(|word| next(Standing::of(word)).map(Standing::word)).ok()?;
        next(Standing::of(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::Arc;

    type Loom = Observed<loom::sync::atomic::AtomicU64>;

    const RULE: Eject = Eject { errors: 2, duration: Duration::from_secs(1), max_percent: 50 };

    fn after(now: Instant, ms: u64) -> Instant {
        now + Duration::from_millis(ms)
    }

    fn observed(now: Instant) -> Observed {
        Observed::new(now)
    }

    #[test]
    fn health_is_kept_and_told_back() {
        let observed = observed(Instant::now());
        let mut before = Health::Unchecked;
        for health in [Health::Checking, Health::Up, Health::Down, Health::Unchecked] {
            assert_eq!(observed.set_health(health), before);
            assert_eq!(observed.health(), health);
            before = health;
        }
    }

    #[test]
    fn it_is_out_for_its_time_and_then_back_once() {
        let (now, cause) = (Instant::now(), Cause::Connect);
        let observed = observed(now);
        assert!(!observed.failed(&RULE, 0));
        observed.succeeded(0);
        assert!(!observed.failed(&RULE, 0), "forgiven");
        assert!(observed.failed(&RULE, 0));
        assert!(observed.eject(&RULE, 0, cause, now) && !observed.eject(&RULE, 0, cause, now));
        assert!(observed.is_out() && !observed.readmit(after(now, 999)));
        let told = Ejections { count: 1, left: Some(Duration::from_millis(400)), row: 1, cause: Some(cause) };
        assert_eq!(observed.ejections(after(now, 600)), told);
        assert!(observed.readmit(after(now, 1000)) && !observed.readmit(after(now, 1000)));
        assert!(!observed.failed(&RULE, 0) && !observed.failed(&RULE, 0), "both from before");
        assert_eq!(observed.ejections(after(now, 1000)).left, None);
    }

    #[test]
    fn slow_start_begins_when_it_is_back_and_ends() {
        let (now, over) = (Instant::now(), Duration::from_secs(1));
        let observed = observed(now);
        assert_eq!(observed.part(over, || unreachable!("no clock is read")), 1.0);
        observed.failed(&RULE, 0);
        observed.failed(&RULE, 0);
        observed.eject(&RULE, 0, Cause::Status, now);
        assert!(observed.readmit(after(now, 1500)));
        assert!((observed.part(over, || after(now, 1500)) - 0.55).abs() < 0.01, "since its time was over");
        observed.admit(after(now, 1600));
        assert!((observed.part(over, || after(now, 1600)) - 0.1).abs() < 0.01);
        assert_eq!(observed.part(over, || after(now, 2600)), 1.0);
        assert_eq!(observed.part(over, || unreachable!("it is over")), 1.0);
    }

    fn ejected(now: Instant) -> Arc<Loom> {
        let observed = Arc::new(Loom::new(now));
        observed.failed(&RULE, 0);
        observed.failed(&RULE, 0);
        assert!(observed.eject(&RULE, 0, Cause::Connect, now));
        observed
    }

    /// Two who see the last failure at once: one ejects.
    #[test]
    fn loom_two_reports_eject_once() {
        loom::model(|| {
            let now = Instant::now();
            let observed = Arc::new(Loom::new(now));
            observed.failed(&RULE, 0);
            let report =
                move |observed: &Loom| observed.failed(&RULE, 0) && observed.eject(&RULE, 0, Cause::Reset, now);
            let theirs = observed.clone();
            let other = loom::thread::spawn(move || report(&theirs));
            let mine = report(&observed);
            assert!(mine ^ other.join().unwrap(), "ejected by one, and never by none");
            let standing = Standing::of(observed.standing.read());
            assert!(standing.is_out && standing.row == 1 && standing.generation == 1 && standing.failures == 0);
        });
    }

    /// A report from before the ejection comes while the endpoint is taken back: it counts neither way.
    #[test]
    fn loom_a_late_report_does_not_count_after_readmission() {
        loom::model(|| {
            let now = Instant::now();
            let observed = ejected(now);
            let theirs = observed.clone();
            let late =
                loom::thread::spawn(move || theirs.failed(&RULE, 0) && theirs.eject(&RULE, 0, Cause::Reset, now));
            let (is_back, due) = (observed.readmit(after(now, 1000)), observed.failed(&RULE, observed.generation()));
            assert!(is_back && !due && !late.join().unwrap());
            let standing = Standing::of(observed.standing.read());
            assert_eq!((standing.is_out, standing.failures, standing.row), (false, 1, 1));
        });
    }

    /// Two look after its time: one takes it back, and an ejection that follows at once is not undone by the other.
    #[test]
    fn loom_readmission_races_the_next_ejection() {
        loom::model(|| {
            let now = Instant::now();
            let observed = ejected(now);
            let theirs = observed.clone();
            let other = loom::thread::spawn(move || theirs.readmit(after(now, 1000)));
            let mine = observed.readmit(after(now, 1000));
            let generation = observed.generation();
            observed.failed(&RULE, generation);
            let again = observed.failed(&RULE, generation)
                && observed.eject(&RULE, generation, Cause::Connect, after(now, 1000));
            let others = other.join().unwrap();
            assert!(mine ^ others);
            assert!(again, "whoever took it back, it was back by then");
            assert!(observed.is_out(), "the second ejection stands");
        });
    }

    /// A good answer that ends while the last failure is reported: the order decides, nothing is lost or counted twice.
    #[test]
    fn loom_a_success_races_the_last_failure() {
        loom::model(|| {
            let now = Instant::now();
            let observed = Arc::new(Loom::new(now));
            observed.failed(&RULE, 0);
            let theirs = observed.clone();
            let other = loom::thread::spawn(move || theirs.succeeded(0));
            let out = observed.failed(&RULE, 0) && observed.eject(&RULE, 0, Cause::Status, now);
            other.join().unwrap();
            let standing = Standing::of(observed.standing.read());
            assert_eq!(standing.is_out, out);
            assert!(out || standing.failures <= 1);
        });
    }
}
