//! The shuffled deck that deals a worker's requests to versions (analysis.md section 2.1).
//!
//! 128 strata in random order; the i-th draw is `u = (stratum + uniform) / 128`, and `u` decides by cumulative weight.
//! Invariant: each draw alone is uniform on [0, 1), so a version's chance is exactly its share, and in each deck of
//! 128 draws every version comes up its share to within one, yet nobody can foresee the next draw.

use crate::model::Weight;

const STRATA: usize = 128;

/// One worker's deck for one split.
#[derive(Clone, Debug)]
pub struct Deck {
    strata: [u8; STRATA],
    next: usize,
}

impl Deck {
    /// A shuffled deck, begun at a random place: workers and reloads must not start in step (faults.md 4.3).
    pub fn new(rng: &mut fastrand::Rng) -> Self {
        let mut strata = std::array::from_fn(|i| i as u8);
        rng.shuffle(&mut strata);
        Self { strata, next: rng.usize(..STRATA) }
    }

    /// The next draw, as a fraction of 2^64.
    pub fn deal(&mut self, rng: &mut fastrand::Rng) -> u64 {
        if self.next == STRATA {
            rng.shuffle(&mut self.strata);
            self.next = 0;
        }
        let stratum = u64::from(self.strata[self.next]);
        self.next += 1;
        (stratum << 57) | (rng.u64(..) >> 7)
    }
}

/// Cumulative weights: turns a draw into a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    upto: Vec<(u64, usize)>,
    total: u64,
}

impl Shares {
    /// Pairs of (version index, weight); weights of 0 get nothing.
    pub fn new(weights: &[(usize, Weight)]) -> Self {
        let mut total = 0;
        let mut upto = Vec::with_capacity(weights.len());
        for &(version, weight) in weights.iter().filter(|(_, weight)| !weight.is_zero()) {
            total += u64::from(weight.value());
            upto.push((total, version));
        }
        Self { upto, total }
    }

    /// The version a draw falls on; `None` when no version has weight.
    pub fn pick(&self, draw: u64) -> Option<usize> {
        let at = ((u128::from(draw) * u128::from(self.total)) >> 64) as u64;
        self.upto.iter().find(|(upto, _)| at < *upto).map(|&(_, version)| version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(weights: &[u32]) -> Shares {
        Shares::new(&weights.iter().map(|&w| Weight::new(w).unwrap()).enumerate().collect::<Vec<_>>())
    }

    #[test]
    fn the_ends_of_the_range_belong_to_somebody() {
        let shares = shares(&[0, 3, 0, 1]);
        assert_eq!(shares.pick(0), Some(1));
        assert_eq!(shares.pick(u64::MAX), Some(3));
        assert_eq!(Shares::default().pick(0), None);
    }

    #[test]
    fn the_deck_is_carried_over_any_boundary() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut deck = Deck::new(&mut rng);
        let first_part = STRATA - deck.next;
        (0..first_part).for_each(|_| _ = deck.deal(&mut rng));
        let mut strata: Vec<_> = (0..STRATA).map(|_| deck.deal(&mut rng) >> 57).collect();
        strata.sort_unstable();
        assert_eq!(strata, (0..STRATA as u64).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn a_deck_gives_every_version_its_share_to_within_one(
            seed: u64, weights in prop::collection::vec(0u32..=1_000_000, 1..6)
        ) {
            prop_assume!(weights.iter().any(|&w| w > 0));
            let shares = shares(&weights);
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut deck = Deck::new(&mut rng);
            deck.next = STRATA;
            let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
            let mut got = vec![0u32; weights.len()];
            (0..STRATA).for_each(|_| got[shares.pick(deck.deal(&mut rng)).unwrap()] += 1);
            for (got, weight) in got.iter().zip(&weights) {
                let due = f64::from(*weight) / total as f64 * STRATA as f64;
                // A version between two others has a cut stratum at either end.
                prop_assert!((f64::from(*got) - due).abs() <= 2.0, "{got} of {due}");
            }
        }

        #[test]
        fn two_versions_are_exact_to_within_one(seed: u64, canary in 0u32..=100) {
            let shares = shares(&[100 - canary, canary]);
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut deck = Deck::new(&mut rng);
            deck.next = STRATA;
            let got = (0..STRATA).filter(|_| shares.pick(deck.deal(&mut rng)) == Some(1)).count();
            prop_assert!((got as f64 - f64::from(canary) * 1.28).abs() <= 1.0);
        }
    }
}
