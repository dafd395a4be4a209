//! Turns by weight, as evenly spread as they can be (the "smooth" round robin of nginx).
//!
//! Each turn everybody earns its weight, and the one who has most pays for all. One per worker, begun at random, so that
//! many workers do not all begin with the same endpoint. Invariant: what all have sums up to 0, but for those who left.

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub struct Turns(Vec<i64>);

impl Turns {
    /// Whose turn it is among `n`; who has weight 0 now is left out. `None` if everybody is.
    pub fn next(&mut self, n: usize, weight: impl Fn(usize) -> u64, rng: &mut fastrand::Rng) -> Option<usize> {
        if self.0.len() != n {
            self.0 = vec![0; n];
            for _ in 0..rng.usize(..n.max(1)) {
                self.turn(&weight);
            }
        }
        self.turn(&weight)
    }

    fn turn(&mut self, weight: &impl Fn(usize) -> u64) -> Option<usize> {
        let (mut total, mut best) = (0, None);
        for (i, has) in self.0.iter_mut().enumerate() {
            let earns = i64::try_from(weight(i)).unwrap_or_default();
            if earns == 0 {
                continue;
            }
            total += earns;
            *has += earns;
            if best.is_none_or(|(_, most)| *has > most) {
                best = Some((i, *has));
            }
        }
        let (best, _) = best?;
        self.0[best] -= total;
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(turns: &mut Turns, weights: &[u64], count: usize) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(5);
        (0..count).map(|_| turns.next(weights.len(), |i| weights[i], &mut rng).unwrap()).collect()
    }

    #[test]
    fn heavy_ones_are_spread_out() {
        let turns = run(&mut Turns(vec![0; 3]), &[5, 1, 1], 7);
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn workers_begin_at_different_places() {
        let first = |seed| Turns::default().next(8, |_| 1, &mut fastrand::Rng::with_seed(seed)).unwrap();
        let mut seen: Vec<_> = (0..100).map(first).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn who_is_out_gets_nothing_and_no_burst_when_back() {
        let mut turns = Turns(vec![0; 3]);
        assert!(run(&mut turns, &[1, 0, 1], 100).iter().all(|i| *i != 1));
        let back = run(&mut turns, &[1, 1, 1], 9);
        assert!((2..=4).contains(&back.iter().filter(|i| **i == 1).count()), "{back:?}");
        assert_eq!(turns.next(3, |_| 0, &mut fastrand::Rng::new()), None);
        assert_eq!(Turns::default().next(0, |_| 1, &mut fastrand::Rng::new()), None);
    }

    proptest! {
        /// In each round of as many turns as the weights sum up to, everybody gets exactly its weight.
        #[test]
        fn every_round_is_exact(weights in prop::collection::vec(0u64..12, 1..8), seed: u64) {
            let total = weights.iter().sum::<u64>() as usize;
            prop_assume!(total > 0);
            let (mut turns, mut rng) = (Turns::default(), fastrand::Rng::with_seed(seed));
            for _ in 0..3 {
                let mut seen = vec![0; weights.len()];
                (0..total).for_each(|_| seen[turns.next(weights.len(), |i| weights[i], &mut rng).unwrap()] += 1);
                prop_assert_eq!(&seen, &weights);
            }
        }
    }
}
