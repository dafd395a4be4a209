//! One word that holds an endpoint's in-flight counts by kind and its drain bit.
//!
//! Why one word: counting a request and testing the drain bit must be one atomic step, else a request could slip in
//! between "drain is set, count is zero" and its own count. The word is generic over its atomic so that the same
//! code runs under loom.
//!
//! Layout: bits 0..24 requests, 24..44 streams, 44..63 upgrades, 63 drain.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Kind;

const STREAMS: u32 = 24;
const UPGRADES: u32 = 44;
const DRAIN: u64 = 1 << 63;

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The endpoint takes no new request.
    Draining,
    /// `max_in_flight` requests are in flight.
    Full,
}

/// What is in flight, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    pub requests: u32,
    pub streams: u32,
    pub upgrades: u32,
}

impl Counts {
    /// All kinds together.
    pub fn total(self) -> u32 {
        self.requests + self.streams + self.upgrades
    }

    pub fn add(&mut self, other: Self) {
        *self = self.plus(other);
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            streams: self.streams + other.streams,
            upgrades: self.upgrades + other.upgrades,
        }
    }

    /// One of a kind.
    pub fn one(kind: Kind) -> Self {
        Self::of(one(kind))
    }

    fn of(word: u64) -> Self {
        let part = |from: u32, to: u32| ((word >> from) & ((1 << (to - from)) - 1)) as u32;
        Self { requests: part(0, STREAMS), streams: part(STREAMS, UPGRADES), upgrades: part(UPGRADES, 63) }
    }
}

/// The atomic operations the word needs; one implementation for the product, one for loom.
pub(super) trait Word {
    fn new(value: u64) -> Self;
    fn read(&self) -> u64;
    /// Replaces the value by `f` of it until no other thread interferes; `None` from `f` gives up.
    fn update(&self, f: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64>;
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }
    fn read(&self) -> u64 {
        self.load(Ordering::Acquire)
    }
    fn update(&self, f: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        self.fetch_update(Ordering::AcqRel, Ordering::Acquire, f)
    }
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct InFlight<W = AtomicU64>(W);

impl<W: Word> InFlight<W> {
    pub(super) fn new() -> Self {
        Self(W::new(0))
    }

    /// Counts one more, unless draining or, for requests, `max_requests` are there already.
    pub(super) fn claim(&self, kind: Kind, max_requests: u32) -> Result<(), Refused> {
        self.0
            .update(|word| refusal(word, kind, max_requests).is_none().then(|| word + one(kind)))
            .map(drop)
            .map_err(|word| refusal(word, kind, max_requests).unwrap_or(Refused::Full))
    }

    /// Counts one less; true if that emptied a draining endpoint, so that its waiters must be woken.
    pub(super) fn release(&self, kind: Kind) -> bool {
        let before = self.0.update(|word| Some(word - one(kind))).unwrap_or_else(|word| word);
        before - one(kind) == DRAIN
    }

    /// Moves one from `from` to `to`: a request that turned out to be a stream or an upgrade.
    pub(super) fn convert(&self, from: Kind, to: Kind) {
        let _ = self.0.update(|word| Some(word - one(from) + one(to)));
    }

    /// True if nothing is in flight at the moment the bit is set.
    pub(super) fn set_draining(&self, draining: bool) -> bool {
        let flip = |word| Some(if draining { word | DRAIN } else { word & !DRAIN });
        let before = self.0.update(flip).unwrap_or_else(|word| word);
        before & !DRAIN == 0
    }

    pub(super) fn is_draining(&self) -> bool {
        self.0.read() & DRAIN != 0
    }

    pub(super) fn counts(&self) -> Counts {
        Counts::of(self.0.read())
    }
}

fn one(kind: Kind) -> u64 {
    match kind {
        Kind::Request => 1,
        Kind::Stream => 1 << STREAMS,
        Kind::Upgrade => 1 << UPGRADES,
    }
}

fn refusal(word: u64, kind: Kind, max_requests: u32) -> Option<Refused> {
    if word & DRAIN != 0 {
        Some(Refused::Draining)
    } else if kind == Kind::Request && Counts::of(word).requests >= max_requests {
        Some(Refused::Full)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::Arc;

    impl Word for loom::sync::atomic::AtomicU64 {
        fn new(value: u64) -> Self {
            Self::new(value)
        }
        fn read(&self) -> u64 {
            self.load(Ordering::Acquire)
        }
        fn update(&self, f: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
            self.fetch_update(Ordering::AcqRel, Ordering::Acquire, f)
        }
    }

    type Loom = InFlight<loom::sync::atomic::AtomicU64>;

    #[test]
    fn counts_by_kind_do_not_touch_each_other() {
        let w = InFlight::<AtomicU64>::new();
        for (kind, n) in [(Kind::Request, 3), (Kind::Stream, 2), (Kind::Upgrade, 1)] {
            for _ in 0..n {
                w.claim(kind, 3).unwrap();
            }
        }
        assert_eq!(w.counts(), Counts { requests: 3, streams: 2, upgrades: 1 });
        assert_eq!(w.claim(Kind::Request, 3), Err(Refused::Full));
        w.convert(Kind::Request, Kind::Upgrade);
        assert_eq!(w.counts(), Counts { requests: 2, streams: 2, upgrades: 2 });
    }

    #[test]
    fn only_the_last_release_of_a_draining_endpoint_wakes() {
        let w = InFlight::<AtomicU64>::new();
        w.claim(Kind::Request, 9).unwrap();
        w.claim(Kind::Stream, 9).unwrap();
        assert!(!w.set_draining(true));
        assert_eq!(w.claim(Kind::Request, 9), Err(Refused::Draining));
        assert!(!w.release(Kind::Request));
        assert!(w.release(Kind::Stream));
        assert!(w.set_draining(false));
        assert_eq!(w.claim(Kind::Request, 9), Ok(()));
    }

    /// Whatever the interleaving: either the claim came first and the drain sees it, or it is refused; and somebody
    /// (the setter or the last release) sees the empty draining endpoint.
    #[test]
    fn loom_claim_races_drain() {
        loom::model(|| {
            let w = Arc::new(Loom::new());
            let theirs = w.clone();
            let claimer = loom::thread::spawn(move || match theirs.claim(Kind::Request, 9) {
                Ok(()) => theirs.release(Kind::Request),
                Err(refused) => {
                    assert_eq!(refused, Refused::Draining);
                    false
                }
            });
            let empty_at_once = w.set_draining(true);
            let woke = claimer.join().unwrap();
            assert!(empty_at_once || woke, "nobody saw zero");
            assert_eq!(w.counts().total(), 0);
        });
    }

    #[test]
    fn loom_two_releases_wake_exactly_once() {
        loom::model(|| {
            let w = Arc::new(Loom::new());
            w.claim(Kind::Request, 9).unwrap();
            w.claim(Kind::Request, 9).unwrap();
            w.set_draining(true);
            let theirs = w.clone();
            let other = loom::thread::spawn(move || theirs.release(Kind::Request));
            let mine = w.release(Kind::Request);
            assert!(mine ^ other.join().unwrap());
        });
    }
}
