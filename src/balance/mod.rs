//! Which of several endpoints takes the next request: loads in, an index out. Pure.

/// The less loaded of two different random candidates out of `n`; `None` for no candidate at all. Two choices come
/// within a small constant of the best (Mitzenmacher 2001) without a look at everybody, and do not herd.
pub fn p2c(n: usize, load: impl Fn(usize) -> u32, rng: &mut fastrand::Rng) -> Option<usize> {
    if n <= 1 {
        return (n == 1).then_some(0);
    }
    let a = rng.usize(..n);
    let b = (a + 1 + rng.usize(..n - 1)) % n;
    Some(if load(b) < load(a) { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_candidates_are_always_compared() {
        let mut rng = fastrand::Rng::with_seed(3);
        assert_eq!(p2c(0, |_| 0, &mut rng), None);
        assert_eq!(p2c(1, |_| 9, &mut rng), Some(0));
        for _ in 0..100 {
            assert_eq!(p2c(2, |i| [5, 4][i], &mut rng), Some(1));
        }
    }

    #[test]
    fn ties_are_split_evenly() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut seen = [0; 3];
        (0..3000).for_each(|_| seen[p2c(3, |_| 0, &mut rng).unwrap()] += 1);
        assert!(seen.iter().all(|n| (900..1100).contains(n)), "{seen:?}");
    }
}
