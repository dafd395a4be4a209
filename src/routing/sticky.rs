//! The bucket that keeps a user where they are: a number from 0 to 9999, out of their cookie or from a hash.
//!
//! A version's name never leaves weir: who owns a bucket is decided anew for each request (`Owners`), so a change of
//! weights moves only the users it must and a rollback takes effect on everybody's next request. Invariants: the hash
//! is the same in every version of weir and on every machine; nothing a client sends makes anything here fail.

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::model::Weight;

/// How many buckets there are: a share is exact to a hundredth of a percent.
pub const BUCKETS: u16 = 10_000;

/// A user's number, below `BUCKETS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    /// Checks and takes a number.
    pub fn new(n: u16) -> Option<Self> {
        (n < BUCKETS).then_some(Self(n))
    }

    /// For a user who has none yet.
    pub fn random(rng: &mut fastrand::Rng) -> Self {
        Self(rng.u16(..BUCKETS))
    }

    /// The number.
    pub fn value(self) -> u16 {
        self.0
    }
}

/// The bucket of a header's value: the first 8 bytes of its SHA-256 as a big-endian number, modulo 10,000.
pub fn bucket_of(bytes: &[u8]) -> Bucket {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let head = digest[..8].iter().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
    Bucket((head % u64::from(BUCKETS)) as u16)
}

/// The bucket of a client's address: `bucket_of` its 4 or 16 bytes. An IPv4 address inside IPv6 counts as itself, so
/// that a client keeps its bucket whichever listener it comes to.
pub fn bucket_of_ip(address: IpAddr) -> Bucket {
    match address.to_canonical() {
        IpAddr::V4(v4) => bucket_of(&v4.octets()),
        IpAddr::V6(v6) => bucket_of(&v6.octets()),
    }
}

/// Reads a cookie's value, `1234.TAG`. The tag names the rollout the user was last counted in; whatever stands there
/// is handed on, and a cookie without one has the tag `""`. `None` for everything weir would not have written before
/// the dot.
pub fn parse_cookie(value: &str) -> Option<(Bucket, &str)> {
    let (digits, tag) = value.split_once('.').unwrap_or((value, ""));
    let plain = matches!(digits.as_bytes(), [b'0'] | [b'1'..=b'9', ..]) && digits.bytes().all(|b| b.is_ascii_digit());
    let bucket = plain.then(|| digits.parse().ok()).flatten().and_then(Bucket::new)?;
    Some((bucket, tag))
}

/// The value of a `Set-Cookie` field (RFC 6265, with RFC 6265bis' `SameSite`). `name` and `tag` must be made of
/// characters a cookie may have; the configuration and the rollout see to that. `secure`: the client speaks https.
pub fn set_cookie(name: &str, bucket: Bucket, tag: &str, ttl: Duration, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    let seconds = ttl.as_secs();
    format!("{name}={}.{tag}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}", bucket.0)
}

/// The version a bucket has under a rule's weights: contiguous ranges, in the order given. With two versions nobody
/// moves back while one's share rises. `None` when nobody has weight.
pub fn pick_by_bucket(weights: &[(usize, Weight)], bucket: Bucket) -> Option<usize> {
    let total: u64 = weights.iter().map(|(_, w)| u64::from(w.value())).sum();
    let at = u64::from(bucket.0) * total;
    let mut upto = 0;
    let falls_on = |(version, weight): &(usize, Weight)| {
        upto += u64::from(weight.value()) * u64::from(BUCKETS);
        (at < upto).then_some(*version)
    };
    weights.iter().find_map(falls_on)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights(all: &[u32]) -> Vec<(usize, Weight)> {
        all.iter().map(|&w| Weight::new(w).unwrap()).enumerate().collect()
    }

    fn all() -> impl Iterator<Item = Bucket> {
        (0..BUCKETS).map(Bucket)
    }

    /// These numbers are in users' hands: a change of them moves everybody.
    #[test]
    fn the_hash_never_changes() {
        for (bytes, bucket) in [(&b""[..], 1652), (b"alice", 207), (b"user-42", 5129), (&[0xff, 0], 4569)] {
            assert_eq!(bucket_of(bytes).value(), bucket, "{bytes:?}");
        }
    }

    #[test]
    fn an_address_has_one_bucket_in_all_its_forms() {
        let of = |text: &str| bucket_of_ip(text.parse().unwrap());
        assert_eq!(of("203.0.113.7").value(), 5585);
        assert_eq!(of("::ffff:203.0.113.7"), of("203.0.113.7"));
        assert_eq!(of("2001:db8::1").value(), 6616);
    }

    #[test]
    fn hashes_fall_evenly() {
        let mut counts = [0u32; 10];
        (0..100_000u32).for_each(|n| counts[usize::from(bucket_of(format!("user{n}").as_bytes()).0 / 1000)] += 1);
        // Each is binomial with a standard deviation of 95; all are within five of it.
        assert!(counts.iter().all(|n| n.abs_diff(10_000) < 475), "{counts:?}");
    }

    #[test]
    fn a_cookie_is_strict_before_the_dot_and_lenient_behind_it() {
        for (value, read) in [
            ("0.0", Some((0, "0"))),
            ("9999.01HX", Some((9999, "01HX"))),
            ("17", Some((17, ""))),
            ("17.", Some((17, ""))),
            ("17.a.b \"é\"", Some((17, "a.b \"é\""))),
            ("10000.0", None),
            ("65536.0", None),
            ("99999999999999999999.0", None),
            ("+5.0", None),
            ("-5.0", None),
            ("05.0", None),
            ("00.0", None),
            (" 5.0", None),
            ("5 .0", None),
            ("٥.0", None),
            (".0", None),
            ("", None),
            ("v2.0", None),
        ] {
            assert_eq!(parse_cookie(value).map(|(b, tag)| (b.value(), tag)), read, "{value:?}");
        }
    }

    #[test]
    fn a_cookie_is_written_for_the_whole_site_and_hidden_from_scripts() {
        let day = Duration::from_secs(86_400);
        let set = |secure| set_cookie("weir_shop", Bucket(1234), "0", day, secure);
        let plain = "weir_shop=1234.0; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax";
        assert_eq!(set(false), plain);
        assert_eq!(set(true), format!("{plain}; Secure"));
    }

    #[test]
    fn a_rules_weights_without_weight_choose_nobody() {
        assert_eq!(pick_by_bucket(&[], Bucket(0)), None);
        assert_eq!(pick_by_bucket(&weights(&[0, 0]), Bucket(9999)), None);
        assert!(all().all(|b| pick_by_bucket(&weights(&[0, 7, 0]), b) == Some(1)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(value in "\\PC{0,12}") {
            if let Some((bucket, tag)) = parse_cookie(&value) {
                prop_assert!(bucket.value() < BUCKETS);
                prop_assert!(value.ends_with(tag));
            }
        }

        #[test]
        fn what_is_written_is_read(n in 0..BUCKETS, tag in "[0-9A-Za-z]{1,26}", secure: bool) {
            let set = set_cookie("c", Bucket(n), &tag, Duration::from_secs(1), secure);
            let value = set.strip_prefix("c=").unwrap().split(';').next().unwrap();
            prop_assert_eq!(parse_cookie(value), Some((Bucket(n), tag.as_str())));
        }

        #[test]
        fn a_rules_shares_are_exact_to_one_bucket(raw in prop::collection::vec(0..=Weight::MAX, 1..6)) {
            prop_assume!(raw.iter().any(|&w| w > 0));
            let (weights, total) = (weights(&raw), raw.iter().map(|&w| u64::from(w)).sum::<u64>());
            let mut got = vec![0u64; raw.len()];
            all().for_each(|b| got[pick_by_bucket(&weights, b).unwrap()] += 1);
            for (got, weight) in got.iter().zip(&raw) {
                let due = u64::from(*weight) * u64::from(BUCKETS);
                prop_assert!((got * total).abs_diff(due) < total, "{got} of {due}/{total}");
            }
        }

        #[test]
        fn nobody_leaves_the_version_of_two_whose_share_rises(low in 0u32..=100, high in 0u32..=100) {
            let (low, high) = (low.min(high), low.max(high));
            let on = |percent: u32, b| pick_by_bucket(&weights(&[100 - percent, percent]), b) == Some(1);
            prop_assert!(all().all(|b| !on(low, b) || on(high, b)));
        }
    }
}
