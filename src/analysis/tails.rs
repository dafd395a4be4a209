//! The proofs that a canary's slow calls are no more than allowed, for a rollout that goes up by steps.
//!
//! Section 7's own proofs bet near stable's rate, within a margin of 0.1 points, at every step. But the tolerance is a
//! shift by whole buckets: a canary that is as fast as stable has far fewer calls above the shifted cut than stable has
//! above its own, and bets that do not know it need some 11,000 canary requests. These bet on what stable's own latencies
//! say of that share; and, as the proofs of errors do, they ask at each step only for the margin that the next step's
//! traffic calls for (the ladder of section 9). Nothing else differs: the same line, the same nearest allowed pair
//! (section 5.1), the same mixture over start times (section 4), so they are as valid.
//!
//! Invariant: what is bet in a tick is known before it: alternatives change only when stable is read anew.

use serde::{Deserialize, Serialize};

use super::bets::Line;
use super::counts::{Buckets, Tally, total};
use super::evidence::Evidence;
use super::histogram::Histogram;
use super::interval::needed_of;

/// Which cuts are proved.
const NAMES: [&str; 2] = ["p90", "p99"];
/// How much of the way from an equal canary's share to stable's an alternative goes, and its part of the stake.
const PLACES: [(f64, f64); 3] = [(0.0, 0.5), (0.25, 0.3), (0.5, 0.2)];

/// See the file's head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tails {
    /// The tolerance in buckets.
    shift: usize,
    stable: Histogram,
    /// For each margin that some step asks for, p90 and p99.
    rungs: Vec<[Proof; NAMES.len()]>,
    #[serde(skip)]
    bets: Option<Bets>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Proof {
    line: Line,
    evidence: Evidence,
    /// Canary requests that it takes on average, as last read.
    needed: Option<u64>,
}

/// Kept until stable is read anew or the weight changes.
#[derive(Clone, Debug)]
struct Bets {
    w: f64,
    /// By rung and cut: what a bad and a good canary request, a bad and a good stable one are worth in each alternative.
    factors: Vec<[[[f64; 4]; PLACES.len()]; NAMES.len()]>,
}

impl Tails {
    /// A proof for each of these margins.
    pub(super) fn new(shift: usize, history: &Buckets, margins: &[f64]) -> Self {
        let proof = |delta: f64| Proof {
            line: Line { ratio: 1.0, delta },
            evidence: Evidence::new(PLACES.len()),
            needed: None,
        };
        let rungs = margins.iter().map(|&delta| std::array::from_fn(|_| proof(delta))).collect();
        Self { shift, stable: Histogram::new(history), rungs, bets: None }
    }

    pub(super) fn step(&mut self, w: f64, canary: &Buckets, stable: &Buckets, false_healthy: f64) {
        let Self { shift, stable: past, rungs, bets } = self;
        let (canary_all, weights) = (total(canary), PLACES.map(|(_, weight)| weight.ln()));
        match past.renew() {
            (None, _) => {
                let all = rungs.iter_mut().flatten();
                all.for_each(|proof| proof.evidence.idle(&weights, canary_all));
            }
            (Some(reading), is_new) => {
                let kept = bets.take().filter(|bets| !is_new && bets.w == w);
                let cuts = [0, 1].map(|i| reading.cuts[i]);
                let own = cuts.map(|cut| past.rate_from(cut.from + *shift));
                let kept = kept.unwrap_or_else(|| {
                    let of = |proof: &mut Proof, i: usize| proof.bets(cuts[i].rate, own[i], w, false_healthy);
                    Bets { w, factors: rungs.iter_mut().map(|[a, b]| [of(a, 0), of(b, 1)]).collect() }
                });
                for (rung, factors) in rungs.iter_mut().zip(&kept.factors) {
                    for (i, proof) in rung.iter_mut().enumerate() {
                        let canary = Tally::tail(canary, cuts[i].from + *shift);
                        let stable = Tally::tail(stable, cuts[i].from);
                        let gains = factors[i].map(|factors| gain(&factors, &canary, &stable));
                        proof.evidence.step(&weights, &gains, canary_all);
                    }
                }
                *bets = Some(kept);
            }
        }
        past.learn(stable);
    }

    /// The logarithms of the e-values for the canary at a rung.
    pub(super) fn proofs(&self, rung: usize) -> impl Iterator<Item = (&'static str, f64)> {
        let at = self.rungs.get(rung).or(self.rungs.last());
        at.into_iter().flat_map(|proofs| NAMES.into_iter().zip(proofs.iter().map(|proof| proof.evidence.log_e())))
    }

    /// Canary requests that the proofs of a rung take on average; `None` while that is not known.
    pub(super) fn needed(&self, rung: usize) -> Option<u64> {
        self.rungs.get(rung).or(self.rungs.last())?.iter().filter_map(|proof| proof.needed).max()
    }

    pub(super) fn is_sound(&self) -> bool {
        let is_line = |line: &Line| line.ratio == 1.0 && (0.0..=1.0).contains(&line.delta);
        let is_proof = |proof: &Proof| is_line(&proof.line) && proof.evidence.is_sound(PLACES.len());
        !self.rungs.is_empty() && self.stable.is_sound() && self.rungs.iter().flatten().all(is_proof)
    }
}

impl Proof {
    /// `own`: the share of an equal canary's calls that count as slow.
    fn bets(&mut self, q_s: f64, own: f64, w: f64, false_healthy: f64) -> [[f64; 4]; PLACES.len()] {
        self.needed = needed_of(own.min(q_s), self.line.bound(q_s), false_healthy);
        let own = own.min(q_s);
        PLACES.map(|(place, _)| self.line.log_factors(q_s, own + place * (q_s - own), w).unwrap_or_default())
    }
}

fn gain([canary_bad, canary_good, stable_bad, stable_good]: &[f64; 4], canary: &Tally, stable: &Tally) -> f64 {
    canary.bad * canary_bad + canary.good() * canary_good + stable.bad * stable_bad + stable.good() * stable_good
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::counts::BUCKETS;

    /// Latencies spread over the buckets as a lognormal of median 20 ms and p99 eight times that.
    fn latency(rng: &mut fastrand::Rng, slower: usize) -> usize {
        let normal = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        let seconds = 0.02 * (0.894 * normal).exp();
        let bucket = (0..BUCKETS - 1).find(|&i| crate::analysis::bucket_seconds(i) >= seconds).unwrap_or(BUCKETS - 1);
        (bucket + slower).min(BUCKETS - 1)
    }

    /// Canary requests until both are proved at 5 %, or how many were seen.
    fn run(seed: u64, slower: usize, delta: f64, limit: u64) -> (bool, u64) {
        let (mut rng, w) = (fastrand::Rng::with_seed(seed), 0.05);
        let mut history = [0; BUCKETS];
        (0..20_000).for_each(|_| history[latency(&mut rng, 0)] += 1);
        let (mut test, mut seen) = (Tails::new(2, &history, &[delta]), 0);
        while seen < limit {
            let mut counts = [[0; BUCKETS]; 2];
            for _ in 0..100 {
                let is_canary = rng.f64() < w;
                counts[usize::from(!is_canary)][latency(&mut rng, if is_canary { slower } else { 0 })] += 1;
                seen += u64::from(is_canary);
            }
            test.step(w, &counts[0], &counts[1], 0.05);
            assert!(test.is_sound());
            if test.proofs(0).all(|(_, log_e)| log_e >= 20.0f64.ln()) {
                return (true, seen);
            }
        }
        (false, seen)
    }

    #[test]
    fn an_equal_canary_is_proved_within_what_is_said_to_be_needed() {
        for (delta, most) in [(0.01, 2_000.0), (0.002, 4_500.0)] {
            let runs: Vec<_> = (0..10).map(|seed| run(seed, 0, delta, 20_000)).collect();
            assert!(runs.iter().all(|(is_proved, _)| *is_proved), "{delta}: {runs:?}");
            let mean = runs.iter().map(|(_, seen)| *seen as f64).sum::<f64>() / 10.0;
            assert!(mean <= most, "{delta}: {mean} canary requests");
        }
    }

    /// At the edge of what is allowed (and it is worse at both cuts) a proof is a mistake: at most 5 % of runs.
    #[test]
    fn one_that_is_too_slow_is_hardly_ever_proved() {
        let wrong = (0..40).filter(|&seed| run(seed, 3, 0.002, 4_000).0).count();
        assert!(wrong <= 4, "{wrong} of 40");
    }

    proptest! {
        #[test]
        fn no_counts_make_an_e_value_that_is_no_number(
            ticks in prop::collection::vec((0.0f64..=1.0, any::<[(usize, u64); 6]>(), 0u32..64), 1..12),
            shift in 0usize..40, delta in 0.0f64..=1.0
        ) {
            let mut test = Tails::new(shift, &[0; BUCKETS], &[delta, 0.001]);
            for (w, places, down) in ticks {
                let mut counts = [[0; BUCKETS]; 2];
                places.iter().enumerate().for_each(|(i, (at, n))| counts[i % 2][at % BUCKETS] = n >> down);
                test.step(w, &counts[0], &counts[1], 0.05);
                prop_assert!(test.is_sound() && test.proofs(1).all(|(_, log_e)| log_e.is_finite()));
                let text = serde_json::to_string(&test).unwrap();
                let again: Vec<_> = serde_json::from_str::<Tails>(&text).unwrap().proofs(0).collect();
                prop_assert_eq!(again, test.proofs(0).collect::<Vec<_>>());
            }
        }
    }
}
