//! One word that holds an endpoint's in-flight counts by kind, its drain bit, and whether somebody waits for a place.
//!
//! Why one word: counting a request and testing the drain bit must be one atomic step, else a request could slip in
//! between "drain is set, count is zero" and its own count. So must finding it full and saying that one waits, else the
//! last place could be given up in between and nobody be told. The word is generic over its atomic so that the same code
//! runs under loom.
//!
//! Layout: bits 0..24 requests, 24..44 streams, 44..62 upgrades, 62 awaited, 63 drain.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Kind;

const STREAMS: u32 = 24;
const UPGRADES: u32 = 44;
const AWAITED: u64 = 1 << 62;
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
        Self { requests: part(0, STREAMS), streams: part(STREAMS, UPGRADES), upgrades: part(UPGRADES, 62) }
    }
}

/// Whom the end of a request concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Freed {
    /// It was the last one of a draining endpoint: those who wait for the drain must be woken.
    pub(super) is_drained: bool,
    /// Somebody waits for its place. Told once; who is woken says again that it waits if it still has to.
    pub(super) is_awaited: bool,
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

    /// The same for a request that waits if there is no place: then the next one given up is told of it.
    pub(super) fn claim_or_wait(&self, max_requests: u32) -> Result<(), Refused> {
        let refused = |word| refusal(word, Kind::Request, max_requests);
        let next = |word| match refused(word) {
            None => Some(word + one(Kind::Request)),
            Some(Refused::Full) => Some(word | AWAITED),
            Some(Refused::Draining) => None,
        };
        let (Ok(before) | Err(before)) = self.0.update(next);
        refused(before).map_or(Ok(()), Err)
    }

    /// Counts one less.
    pub(super) fn release(&self, kind: Kind) -> Freed {
        self.free(kind, 0)
    }

    /// Moves one from `from` to `to`: a request that turned out to be a stream or an upgrade.
    pub(super) fn convert(&self, from: Kind, to: Kind) -> Freed {
        self.free(from, one(to))
    }

    fn free(&self, kind: Kind, more: u64) -> Freed {
        // Only requests take the place of one.
        let told = if kind == Kind::Request { AWAITED } else { 0 };
        let next = |word: u64| (word - one(kind) + more) & !told;
        let (Ok(before) | Err(before)) = self.0.update(|word| Some(next(word)));
        Freed { is_drained: next(before) & !AWAITED == DRAIN, is_awaited: before & told != 0 }
    }

    /// True if nothing is in flight at the moment the bit is set.
    pub(super) fn set_draining(&self, draining: bool) -> bool {
        let flip = |word| Some(if draining { word | DRAIN } else { word & !DRAIN });
        let before = self.0.update(flip).unwrap_or_else(|word| word);
        before & !DRAIN & !AWAITED == 0
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
        assert!(!w.release(Kind::Request).is_drained);
        assert!(w.release(Kind::Stream).is_drained);
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
                Ok(()) => theirs.release(Kind::Request).is_drained,
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
            let other = loom::thread::spawn(move || theirs.release(Kind::Request).is_drained);
            let mine = w.release(Kind::Request).is_drained;
            assert!(mine ^ other.join().unwrap());
        });
    }

    #[test]
    fn only_the_end_of_a_request_makes_a_place_and_it_is_told_once() {
        let w = InFlight::<AtomicU64>::new();
        w.claim(Kind::Request, 9).unwrap();
        w.claim(Kind::Stream, 9).unwrap();
        assert_eq!(w.claim_or_wait(1), Err(Refused::Full));
        assert_eq!(w.release(Kind::Stream), Freed::default());
        assert!(w.convert(Kind::Request, Kind::Upgrade).is_awaited, "a tunnel takes no request's place");
        assert_eq!(w.claim_or_wait(1), Ok(()));
        assert_eq!(w.claim_or_wait(1), Err(Refused::Full));
        w.set_draining(true);
        assert_eq!(w.claim_or_wait(1), Err(Refused::Draining));
        assert_eq!(w.release(Kind::Upgrade), Freed::default());
        assert_eq!(w.release(Kind::Request), Freed { is_drained: true, is_awaited: true });
        assert_eq!(w.counts().total(), 0);
    }

    /// Whatever the interleaving: who finds no place gets the one that is given up, or is told of it.
    #[test]
    fn loom_nobody_waits_for_a_place_that_is_free() {
        loom::model(|| {
            let w = Arc::new(Loom::new());
            w.claim(Kind::Request, 1).unwrap();
            let theirs = w.clone();
            let other = loom::thread::spawn(move || theirs.release(Kind::Request).is_awaited);
            let claimed = w.claim_or_wait(1).is_ok();
            assert!(claimed ^ other.join().unwrap());
        });
    }
}
