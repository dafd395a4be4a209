//! Where a latency is counted: the 164 buckets of the analysis and the exact ones of the Prometheus histograms.
//!
//! Analysis bucket `i` ends at 100 us * 2^(i/8), inclusive; the last one takes the rest. The ends are whole
//! nanoseconds rounded down, which decides every whole-nanosecond latency as the real-valued ends would.
//!
//! Invariant: one analysis bucket holds at most one Prometheus bound, and one cell of the guess table at most one
//! analysis end; so each index is one table look and one comparison.

use std::time::Duration;

/// Number of analysis buckets.
pub const BUCKETS: usize = 164;
/// Number of Prometheus buckets, `+Inf` included.
pub(super) const PROM_BUCKETS: usize = 15;

/// The finite `le` values as they are printed.
pub(super) const PROM_LABELS: [&str; PROM_BUCKETS - 1] =
    ["0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10"];

const FIRST_END: u64 = 100_000;
/// 2^(j/8) with 64 binary places.
const ROOTS: [u128; 8] = [
    0x1_0000_0000_0000_0000,
    0x1_172b_83c7_d517_adcd,
    0x1_306f_e0a3_1b71_52de,
    0x1_4bfd_ad53_62a2_71d4,
    0x1_6a09_e667_f3bc_c908,
    0x1_8ace_5422_aa0d_b5ba,
    0x1_ae89_f995_ad3a_d5e8,
    0x1_d581_8dcf_ba48_725d,
];

static ENDS: [u64; BUCKETS] = ends();
static PROM_ENDS: [u64; PROM_BUCKETS] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    u64::MAX,
];
/// The Prometheus bucket of the smallest latency of each analysis bucket.
static PROM_OF: [u8; BUCKETS] = prom_of();

/// The guess table has a row per power of two from 2^16 ns (below the first end) to 2^37 ns (above the last), of 16
/// cells each: a cell is at most 1/16 wide, an analysis bucket 1/11.
const LOW_POWER: u32 = 16;
const ROWS: usize = 22;
static GUESS: [u8; ROWS * 16] = guesses();

/// Index of the bucket a latency is counted in: the smallest `i` whose end is not below it.
pub fn bucket_index(latency: Duration) -> usize {
    index(nanos(latency))
}

/// The inclusive end of bucket `i`; that of the last bucket is only a name for it.
///
/// # Panics
/// When `i` is not below `BUCKETS`.
pub fn bucket_end(i: usize) -> Duration {
    Duration::from_nanos(ENDS[i])
}

/// A latency as the cells count it; 584 years is as long as any.
pub(super) fn nanos(latency: Duration) -> u64 {
    latency.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(latency.subsec_nanos()))
}

pub(super) fn index(ns: u64) -> usize {
    if ns <= FIRST_END {
        return 0;
    }
    let power = 63 - ns.leading_zeros();
    let cell = (power - LOW_POWER) as usize * 16 + ((ns >> (power - 4)) & 15) as usize;
    let guess = GUESS.get(cell).map_or(BUCKETS - 1, |&g| usize::from(g));
    (guess + usize::from(ns > ENDS[guess])).min(BUCKETS - 1)
}

/// Index of the Prometheus bucket, given the index of the analysis bucket.
pub(super) fn prom_index(index: usize, ns: u64) -> usize {
    let low = usize::from(PROM_OF[index]);
    low + usize::from(ns > PROM_ENDS[low])
}

const fn ends() -> [u64; BUCKETS] {
    let mut ends = [0; BUCKETS];
    let mut i = 0;
    while i < BUCKETS {
        ends[i] = ((FIRST_END as u128 * ROOTS[i % 8]) << (i / 8) >> 64) as u64;
        i += 1;
    }
    ends
}

const fn first_not_below(ends: &[u64], ns: u64) -> usize {
    let mut i = 0;
    while i < ends.len() - 1 && ends[i] < ns {
        i += 1;
    }
    i
}

const fn prom_of() -> [u8; BUCKETS] {
    let ends = ends();
    let mut of = [0; BUCKETS];
    let mut i = 1;
    while i < BUCKETS {
        of[i] = first_not_below(&PROM_ENDS, ends[i - 1] + 1) as u8;
        i += 1;
    }
    of
}

const fn guesses() -> [u8; ROWS * 16] {
    let ends = ends();
    let mut guesses = [0; ROWS * 16];
    let mut cell = 0;
    while cell < ROWS * 16 {
        let power = LOW_POWER as usize + cell / 16;
        let smallest = (16 + cell as u64 % 16) << (power - 4);
        guesses[cell] = first_not_below(&ends, smallest) as u8;
        cell += 1;
    }
    guesses
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition of analysis.md section 3, in floating point.
    fn by_definition(ns: u64) -> usize {
        let end = |i: usize| 1e5 * 2f64.powf(i as f64 / 8.0);
        (0..BUCKETS - 1).find(|&i| end(i) >= ns as f64).unwrap_or(BUCKETS - 1)
    }

    fn prom_by_definition(ns: u64) -> usize {
        PROM_ENDS.iter().position(|&end| ns <= end).unwrap()
    }

    #[test]
    fn every_edge_falls_as_defined() {
        for end in ENDS.into_iter().chain(PROM_ENDS) {
            for ns in [end.saturating_sub(1), end, end.saturating_add(1)] {
                assert_eq!(index(ns), by_definition(ns), "{ns}");
                assert_eq!(prom_index(index(ns), ns), prom_by_definition(ns), "{ns}");
            }
        }
        for power in 0..64 {
            for ns in [(1u64 << power) - 1, 1 << power, (1 << power) | 1] {
                assert_eq!(index(ns), by_definition(ns), "{ns}");
            }
        }
        assert_eq!(bucket_index(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn vectors_of_the_specification() {
        let vectors = [
            (11.280135551046724, 135),
            (0.06666751635557328, 76),
            (64.6637030767249, 155),
            (0.004040924917711312, 43),
            (1.1526677710540382e-05, 0),
            (0.00020490988893982512, 9),
            (0.001018510389445049, 27),
            (25.925247639026423, 144),
        ];
        for (seconds, bucket) in vectors {
            assert_eq!(bucket_index(Duration::from_secs_f64(seconds)), bucket, "{seconds}");
        }
    }

    #[test]
    fn labels_are_the_bounds() {
        for (label, end) in PROM_LABELS.iter().zip(PROM_ENDS) {
            assert_eq!((label.parse::<f64>().unwrap() * 1e9).round() as u64, end);
        }
    }

    proptest! {
        #[test]
        fn any_latency_falls_as_defined(bits in 0u32..64, noise: u64) {
            let ns = noise >> bits;
            prop_assert_eq!(index(ns), by_definition(ns));
            prop_assert_eq!(prom_index(index(ns), ns), prom_by_definition(ns));
        }
    }
}
