//! The same endpoint for the same key: weighted rendezvous hashing.
//!
//! Why not a ring: each endpoint's score for a key depends on nobody else, so that what comes, goes, drains or is ejected
//! moves only the keys that it gains or loses, exactly, with any weights, and nothing has to be built. It costs a look at
//! each endpoint. Invariant: hashes are the same in every worker, process and build.

/// Of a key, or of what names an endpoint (FNV-1a, then spread out).
pub fn hash_of(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mixed(fnv)
}

/// Spreads every bit over all of them (the end of splitmix64).
pub fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Who of those named by these hashes has the highest score for `key`; who has weight 0 is left out. `None` if everybody
/// is.
pub fn highest(names: &[u64], key: u64, weight: impl Fn(usize) -> u64) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, name) in names.iter().enumerate() {
        let weight = weight(i);
        if weight == 0 {
            continue;
        }
        let score = score(mixed(key ^ name), weight as f64);
        if best.is_none_or(|(_, most)| score > most) {
            best = Some((i, score));
        }
    }
    best.map(|(i, _)| i)
}

/// `-weight / ln(u)` with `u` in (0, 1): the highest of such scores falls on each in proportion to its weight.
fn score(bits: u64, weight: f64) -> f64 {
    let u = ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -weight / u.ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: u64 = 4_000;

    fn names(n: usize) -> Vec<u64> {
        (0..n).map(|i| hash_of(format!("10.0.0.{i}:9000").as_bytes())).collect()
    }

    fn owners(names: &[u64], weights: &[u64]) -> Vec<Option<usize>> {
        (0..KEYS).map(|key| highest(names, hash_of(&key.to_le_bytes()), |i| weights[i])).collect()
    }

    #[test]
    fn hashes_do_not_change_with_the_build() {
        assert_eq!(hash_of(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash_of(b"x-user-7"), hash_of(b"x-user-7"));
        assert_ne!(hash_of(b"a"), hash_of(b"b"));
    }

    #[test]
    fn nobody_is_chosen_from_nobody() {
        assert_eq!(highest(&[], 7, |_| 1), None);
        assert_eq!(highest(&names(3), 7, |_| 0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn shares_follow_the_weights(weights in prop::collection::vec(0u64..10, 1..8)) {
            let total: u64 = weights.iter().sum();
            prop_assume!(total > 0);
            let owners = owners(&names(weights.len()), &weights);
            for (i, weight) in weights.iter().enumerate() {
                let wanted = KEYS as f64 * *weight as f64 / total as f64;
                let seen = owners.iter().filter(|owner| **owner == Some(i)).count() as f64;
                prop_assert!((seen - wanted).abs() <= 6.0 * wanted.sqrt() + 1e-9, "{} for {}", seen, wanted);
            }
        }

        /// Whoever leaves, only its keys move; whoever gets more weight only gains.
        #[test]
        fn nothing_moves_but_what_must(weights in prop::collection::vec(1u64..10, 2..8), which: prop::sample::Index) {
            let (names, which) = (names(weights.len()), which.index(weights.len()));
            let before = owners(&names, &weights);
            let mut left = weights.clone();
            left[which] = 0;
            for (was, is) in before.iter().zip(owners(&names, &left)) {
                prop_assert!(*was == Some(which) || *was == is);
                prop_assert!(is != Some(which));
            }
            let mut more = weights;
            more[which] *= 2;
            for (was, is) in before.iter().zip(owners(&names, &more)) {
                prop_assert!(*was == is || is == Some(which));
            }
        }
    }
}
