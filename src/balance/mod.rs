//! Which of several endpoints takes the next request: weights and loads in, an index out. Pure.
//!
//! Invariants: who has weight 0 is never chosen; over many choices shares follow the weights.

mod hash;
mod round_robin;

pub use hash::{hash_of, highest, mixed};
pub use round_robin::Turns;

/// The less busy of two candidates, with `load` requests each: the second, if with one more it would be no busier for its
/// weight than the first is without it. Two choices come within a small constant of the best (Mitzenmacher 2001) without
/// a look at everybody, and do not herd.
///
/// Why not the smaller of the two loads: with weights 10 and 1 an idle small one would get every second request. Why not
/// the smaller of the loads with one more each: then it would get nothing while there is little to do.
#[inline]
pub fn less_busy((first, load, weight): (usize, u32, u32), (second, load2, weight2): (usize, u32, u32)) -> usize {
    let after = (u64::from(load2) + 1) * u64::from(weight);
    if after <= u64::from(load) * u64::from(weight2) { second } else { first }
}

/// One of `n` by weight, found by a look at all of them; `None` if no weight is above 0.
pub fn by_weight(n: usize, weight: impl Fn(usize) -> u64, rng: &mut fastrand::Rng) -> Option<usize> {
    let total: u64 = (0..n).map(&weight).sum();
    let mut at = if total == 0 { return None } else { rng.u64(..total) };
    (0..n).find(|&i| {
        let here = at < weight(i);
        at = at.saturating_sub(weight(i));
        here
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_busier_of_two_is_left_alone() {
        assert_eq!(less_busy((0, 5, 1), (1, 4, 1)), 1);
        assert_eq!(less_busy((1, 4, 1), (0, 5, 1)), 1);
        assert_eq!(less_busy((0, 4, 1), (1, 4, 1)), 0, "a tie is the first's, who was drawn by weight");
        assert_eq!(less_busy((0, 0, 1), (1, 0, 1_000_000)), 0);
        assert_eq!(less_busy((0, 5, 10), (1, 0, 1)), 0, "half as busy as the small one would be");
        assert_eq!(less_busy((0, 10, 10), (1, 0, 1)), 1);
        assert_eq!(less_busy((0, u32::MAX, 1_000_000), (1, u32::MAX, 1)), 0);
    }

    #[test]
    fn nobody_is_chosen_from_nobody() {
        let mut rng = fastrand::Rng::with_seed(3);
        assert_eq!(by_weight(0, |_| 1, &mut rng), None);
        assert_eq!(by_weight(3, |_| 0, &mut rng), None);
        assert!((0..100).all(|_| by_weight(3, |i| u64::from(i == 1), &mut rng) == Some(1)));
    }

    proptest! {
        #[test]
        fn shares_follow_the_weights(weights in prop::collection::vec(0u64..20, 1..8), seed: u64) {
            let (mut rng, total) = (fastrand::Rng::with_seed(seed), weights.iter().sum::<u64>());
            prop_assume!(total > 0);
            let mut seen = vec![0u32; weights.len()];
            (0..20_000).for_each(|_| seen[by_weight(weights.len(), |i| weights[i], &mut rng).unwrap()] += 1);
            for (seen, weight) in seen.iter().zip(&weights) {
                let wanted = 20_000.0 * *weight as f64 / total as f64;
                // Six standard deviations.
                prop_assert!((f64::from(*seen) - wanted).abs() <= 6.0 * wanted.sqrt() + 1e-9, "{seen} for {wanted}");
            }
        }
    }
}
