//! What is made of an answer: which addresses a name has from now on, and when it is asked again.
//!
//! Pure: `now` and `rng` are arguments. A look-up has parts (A and AAAA, of each target of an SRV record) that succeed or
//! fail by themselves; a part that fails keeps what it last had, unless the answer is definite (there are no such
//! records) and another part has some. So a server that loses one record type takes nothing away. Invariants: once a name has addresses it has some for ever; they are sorted and unique, at most `LIMIT`;
//! the next question comes between `FLOOR` (less the jitter) and `refresh`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Address, Instant};
use crate::state::Resolved;

/// Addresses of one name; what sorts behind them is left out.
pub(super) const LIMIT: usize = 256;
/// No name is asked for more often, whatever its records say.
const FLOOR: Duration = Duration::from_secs(1);
/// The part of a wait that is left to chance, so that names and processes do not ask in step.
const JITTER: f64 = 0.1;

/// A record type of a host, at a port: SRV records may name a host several times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartOf {
    pub host: Arc<str>,
    pub port: u16,
    pub is_ipv6: bool,
}

/// Why there is no answer, in a few words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The name does not exist, or has no address: a definite answer.
    #[error("{0}")]
    Empty(String),
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// The label in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Empty(_) => "empty",
            Self::Timeout => "timeout",
            Self::Failed(_) => "failed",
        }
    }
}

/// A part of a look-up, and what it came to.
pub(super) type Part = (PartOf, Result<Vec<Resolved>, Failure>);

/// What a look-up came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Of a failure as a whole: none of the parts is known.
    pub parts: Result<Vec<Part>, Failure>,
    /// The shortest life of the records in it.
    pub ttl: Duration,
}

/// What is known of a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    parts: BTreeMap<PartOf, Vec<Resolved>>,
    pub addresses: Arc<[Resolved]>,
    /// When an answer last told everything.
    pub good_at: Option<Instant>,
    /// Why the newest answer did not; `None` after one that did.
    pub failure: Option<Failure>,
    failures: u32,
}

/// Which way a name has turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The first failure after an answer, or after the start.
    Lost,
    /// The first answer after a failure.
    Found,
}

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// There are other addresses.
    pub changed: bool,
    pub turn: Option<Turn>,
    /// Addresses left out, for there were too many.
    pub surplus: usize,
    /// Ask again after this.
    pub wait: Duration,
}

/// What holds for one name.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Asked again after this at the latest.
    pub refresh: Duration,
    /// An address that is never taken: weir's own admin listener.
    pub refused: Option<Address>,
}

impl Known {
    /// Takes an answer in.
    pub fn hear(&mut self, answer: Answer, terms: &Terms, now: Instant, rng: &mut fastrand::Rng) -> Heard {
        let had_failed = self.failure.is_some();
        let before = self.addresses.clone();
        let (failure, surplus) = match answer.parts {
            Ok(parts) => self.merge(parts, terms),
            Err(failure) => (Some(failure), 0),
        };
        let wait = match &failure {
            None => {
                (self.good_at, self.failures) = (Some(now), 0);
                answer.ttl.clamp(FLOOR, terms.refresh.max(FLOOR))
            }
            Some(_) => {
                self.failures = self.failures.saturating_add(1);
                backoff(self.failures).min(terms.refresh.max(FLOOR))
            }
        };
        let turn = match (had_failed, failure.is_some()) {
            (false, true) => Some(Turn::Lost),
            (true, false) => Some(Turn::Found),
            _ => None,
        };
        self.failure = failure;
        Heard { changed: self.addresses != before, turn, surplus, wait: wait.mul_f64(1.0 - JITTER * rng.f64()) }
    }

    /// Whether the answer fell short, and how many addresses were too many.
    fn merge(&mut self, parts: Vec<Part>, terms: &Terms) -> (Option<Failure>, usize) {
        let (mut merged, mut short, mut why) = (BTreeMap::new(), None, None);
        for (of, found) in parts {
            match found {
                Ok(addresses) => drop(merged.insert(of, addresses)),
                Err(failure) => {
                    // What it never had it cannot lose: many servers fail on AAAA for ever.
                    if matches!(failure, Failure::Empty(_)) {
                        merged.insert(of, Vec::new());
                    } else if let Some(kept) = self.parts.get(&of).filter(|kept| !kept.is_empty()) {
                        merged.insert(of, kept.clone());
                        short = Some(failure.clone());
                    }
                    why = Some(worse(why, failure));
                }
            }
        }
        let (addresses, surplus) = in_order(merged.values().flatten(), terms.refused.as_ref());
        if addresses.is_empty() {
            let own = merged.values().any(|found| !found.is_empty());
            let none = || Failure::Empty("it has no address".to_owned());
            let admin = || Failure::Failed("its only address is weir's own admin address".to_owned());
            return (Some(if own { admin() } else { why.unwrap_or_else(none) }), surplus);
        }
        (self.parts, self.addresses) = (merged, addresses.into());
        (short, surplus)
    }
}

/// A server that fails says more than one that knows of nothing.
fn worse(one: Option<Failure>, other: Failure) -> Failure {
    match one {
        Some(one @ (Failure::Timeout | Failure::Failed(_))) => one,
        _ => other,
    }
}

fn in_order<'a>(all: impl Iterator<Item = &'a Resolved>, refused: Option<&Address>) -> (Vec<Resolved>, usize) {
    let is_usable = |found: &&Resolved| refused.is_none_or(|refused| !refused.is_same(&found.address));
    let mut addresses: Vec<Resolved> = all.filter(is_usable).cloned().collect();
    addresses.sort();
    addresses.dedup_by(|a, b| a.address == b.address);
    let surplus = addresses.len().saturating_sub(LIMIT);
    addresses.truncate(LIMIT);
    (addresses, surplus)
}

/// 1 s, 2 s, 4 s and so on; who asks bounds it.
fn backoff(failures: u32) -> Duration {
    FLOOR.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    const A: bool = false;
    const AAAA: bool = true;

    fn of(is_ipv6: bool) -> PartOf {
        PartOf { host: "shop.test".into(), port: 80, is_ipv6 }
    }

    fn found(ports: &[u16]) -> Vec<Resolved> {
        let one = |port: &u16| Resolved {
            address: SocketAddr::from(([127, 0, 0, 1], *port)).into(),
            weight: 1,
            host: "shop.test".into(),
        };
        ports.iter().map(one).collect()
    }

    fn timeout<T>() -> Result<T, Failure> {
        Err(Failure::Timeout)
    }

    fn empty() -> Result<Vec<Resolved>, Failure> {
        Err(Failure::Empty("it does not exist".into()))
    }

    fn answer(a: Result<Vec<Resolved>, Failure>, aaaa: Result<Vec<Resolved>, Failure>) -> Answer {
        Answer { parts: Ok(vec![(of(A), a), (of(AAAA), aaaa)]), ttl: Duration::from_secs(10) }
    }

    fn terms(refresh: u64) -> Terms {
        Terms { refresh: Duration::from_secs(refresh), refused: None }
    }

    fn ports(known: &Known) -> Vec<u16> {
        let port = |found: &Resolved| match &found.address {
            Address::Tcp(at) => at.port(),
            Address::Unix(_) => 0,
        };
        known.addresses.iter().map(port).collect()
    }

    #[test]
    fn what_each_answer_leaves() {
        let start = Instant::now();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut known = Known::default();
        let lost = Some(Turn::Lost);
        for (i, (heard, left, turn, is_good)) in [
            (answer(timeout(), timeout()), &[][..], lost, false),
            (answer(empty(), empty()), &[], None, false),
            (answer(Ok(found(&[2, 1, 2])), empty()), &[1, 2], Some(Turn::Found), true),
            (answer(Ok(found(&[2, 1])), timeout()), &[1, 2], None, true),
            (answer(Ok(found(&[1])), Ok(found(&[9]))), &[1, 9], None, true),
            (answer(Ok(found(&[3])), timeout()), &[3, 9], lost, false),
            (answer(Ok(found(&[3])), timeout()), &[3, 9], None, false),
            (answer(Ok(found(&[3])), empty()), &[3], Some(Turn::Found), true),
            (answer(Ok(Vec::new()), Ok(Vec::new())), &[3], lost, false),
            (answer(empty(), empty()), &[3], None, false),
            (Answer { parts: timeout(), ttl: Duration::ZERO }, &[3], None, false),
            (answer(Ok(found(&[4])), empty()), &[4], Some(Turn::Found), true),
        ]
        .into_iter()
        .enumerate()
        {
            let before = ports(&known);
            let now = start + Duration::from_secs(i as u64);
            let heard = known.hear(heard, &terms(30), now, &mut rng);
            assert_eq!((ports(&known).as_slice(), heard.turn), (left, turn), "step {i}");
            assert_eq!(heard.changed, before != left, "step {i}");
            assert_eq!((known.good_at == Some(now), known.failure.is_none()), (is_good, is_good), "step {i}");
        }
    }

    #[test]
    fn the_next_question_follows_the_records_within_bounds() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (ttl, refresh, least, most) in
            [(10, 30, 9.0, 10.0), (3600, 30, 27.0, 30.0), (0, 30, 0.9, 1.0), (10, 1, 0.9, 1.0), (5, 0, 0.9, 1.0)]
        {
            let mut known = Known::default();
            let heard = Answer { ttl: Duration::from_secs(ttl), ..answer(Ok(found(&[1])), empty()) };
            let wait = known.hear(heard, &terms(refresh), Instant::now(), &mut rng).wait.as_secs_f64();
            assert!((least..=most).contains(&wait), "{ttl} {refresh}: {wait}");
        }
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_the_refresh() {
        let (mut known, mut rng) = (Known::default(), fastrand::Rng::with_seed(1));
        let mut wait = |heard| known.hear(heard, &terms(30), Instant::now(), &mut rng).wait.as_secs_f64();
        for most in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            let waited = wait(answer(timeout(), empty()));
            assert!((0.9 * most..=most).contains(&waited), "{waited} of {most}");
        }
        for _ in 0..100 {
            assert!(wait(answer(empty(), empty())) <= 30.0);
        }
        wait(answer(Ok(found(&[1])), empty()));
        assert!(wait(answer(empty(), empty())) <= 1.0, "an answer begins anew");
    }

    #[test]
    fn too_many_addresses_are_cut_in_the_same_way_each_time() {
        let (mut known, mut rng) = (Known::default(), fastrand::Rng::with_seed(1));
        let mut all: Vec<u16> = (1..=1000).collect();
        for _ in 0..5 {
            rng.shuffle(&mut all);
            let heard = known.hear(answer(Ok(found(&all)), empty()), &terms(30), Instant::now(), &mut rng);
            assert_eq!(heard.surplus, 1000 - LIMIT);
            assert_eq!(ports(&known), (1..=LIMIT as u16).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_admin_address_is_never_taken() {
        let (mut known, mut rng) = (Known::default(), fastrand::Rng::with_seed(1));
        let refused = Some("[::ffff:127.0.0.1]:9901".parse().unwrap());
        let terms = Terms { refused, ..terms(30) };
        known.hear(answer(Ok(found(&[9901, 1])), empty()), &terms, Instant::now(), &mut rng);
        assert_eq!(ports(&known), [1]);
        let heard = known.hear(answer(Ok(found(&[9901])), empty()), &terms, Instant::now(), &mut rng);
        assert_eq!((ports(&known).as_slice(), heard.turn), (&[1][..], Some(Turn::Lost)));
        assert!(known.failure.unwrap().to_string().contains("admin"));
    }

    fn part() -> impl Strategy<Value = Result<Vec<Resolved>, Failure>> {
        prop_oneof![
            proptest::collection::vec(1..2000_u16, 0..400).prop_map(|ports| Ok(found(&ports))),
            Just(Err(Failure::Timeout)),
            Just(Err(Failure::Empty("none".into()))),
            Just(Err(Failure::Failed("SERVFAIL".into()))),
        ]
    }

    proptest! {
        #[test]
        fn addresses_never_run_out_and_waits_stay_in_bounds(
            answers in proptest::collection::vec((part(), part(), 0..100_000_u64, any::<bool>()), 1..40),
            refresh in 1..1000_u64,
            seed in any::<u64>(),
        ) {
            let (mut known, mut rng) = (Known::default(), fastrand::Rng::with_seed(seed));
            for (a, aaaa, ttl, is_lost) in answers {
                let had_some = !known.addresses.is_empty();
                let heard = Answer { ttl: Duration::from_secs(ttl), ..answer(a, aaaa) };
                let heard = if is_lost { Answer { parts: timeout(), ..heard } } else { heard };
                let heard = known.hear(heard, &terms(refresh), Instant::now(), &mut rng);
                prop_assert!(!had_some || !known.addresses.is_empty(), "emptied");
                prop_assert!(known.addresses.len() <= LIMIT);
                prop_assert!(known.addresses.windows(2).all(|pair| pair[0].address < pair[1].address));
                prop_assert!(heard.wait >= FLOOR.mul_f64(1.0 - JITTER));
                prop_assert!(heard.wait <= Duration::from_secs(refresh));
                prop_assert!(known.failure.is_some() || known.good_at.is_some());
            }
        }
    }
}
