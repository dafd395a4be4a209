//! A rate limit's buckets, by key, for all workers of the process.
//!
//! Locks: one per shard, held for the few lines of a take, never across a wait; two workers meet only at keys of one
//! shard, and only on routes that have a limit. Memory: it grows with the number of buckets that are not full, up to
//! `KEYS` (2 MiB). Beyond that a new key takes the place of the fullest bucket of its set; the one it replaces starts
//! full when it comes again, so that under a flood of keys somebody who is little over the limit may be let through,
//! while the heaviest stay remembered. The hasher has a secret: nobody can aim at another's set.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::bucket::Pace;
use super::shard::{MAX_KEYS, Shard};
use crate::config::{RateKey, RateLimit};
use crate::model::Instant;

const SHARDS: usize = 64;

/// See the file's head.
#[derive(Debug)]
pub struct Limiter {
    limit: RateLimit,
    pace: Pace,
    start: Instant,
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
}

impl Limiter {
    /// Buckets it remembers at most.
    pub const KEYS: usize = SHARDS * MAX_KEYS;

    /// All buckets full. No `now` given to `take` may lie before this one (it would count as this one).
    pub fn new(limit: &RateLimit, now: Instant, hasher: RandomState) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { pace: Pace::new(limit), limit: limit.clone(), start: now, hasher, shards }
    }

    /// What it was made for: a reload keeps the limiter of a route while this is equal.
    pub fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// Whose bucket a request is let through by, as `limit().per` says. A client is an IPv4 address or an IPv6 /64 (who
    /// has one IPv6 address has all of these); of several fields of a name the first counts. Clients without an address
    /// share a bucket, and so do requests without the field.
    pub fn key(&self, headers: &HeaderMap, client: Option<IpAddr>) -> u64 {
        match &self.limit.per {
            RateKey::Route => self.hasher.hash_one(()),
            RateKey::ClientIp => self.hasher.hash_one(client.map(one_client)),
            RateKey::Header(name) => self.hasher.hash_one(headers.get(name).map(HeaderValue::as_bytes)),
        }
    }

    /// Takes one token of the key's bucket.
    ///
    /// # Errors
    /// The bucket is empty: how long from `now` until a request would be let through (429, `Retry-After`).
    pub fn take(&self, key: u64, now: Instant) -> Result<(), Duration> {
        let since = now.saturating_duration_since(self.start);
        let shard = &self.shards[(key >> 58) as usize % SHARDS];
        // A panic cannot happen within; if it did, the buckets would still be sound.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.bucket(key, self.pace.scaled(since)).take(&self.pace, since)
    }
}

fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn limiter(requests: u32, every: Duration, burst: u32) -> (Limiter, Instant) {
        let now = Instant::now();
        let limit = RateLimit { per: RateKey::ClientIp, requests, every, burst };
        (Limiter::new(&limit, now, RandomState::new()), now)
    }

    fn size(limiter: &Limiter) -> usize {
        limiter.shards.iter().map(|s| s.lock().unwrap().size()).sum()
    }

    #[test]
    fn keys_do_not_share_a_bucket() {
        let (limiter, now) = limiter(1, Duration::from_secs(1), 2);
        for client in ["10.0.0.1", "10.0.0.2", ""] {
            let key = limiter.hasher.hash_one(client);
            assert_eq!(key, limiter.hasher.hash_one(client));
            assert_eq!(limiter.take(key, now), Ok(()));
            assert_eq!(limiter.take(key, now), Ok(()));
            assert_eq!(limiter.take(key, now), Err(Duration::from_secs(1)));
            assert_eq!(limiter.take(key, now + Duration::from_millis(400)), Err(Duration::from_millis(600)));
            assert_eq!(limiter.take(key, now + Duration::from_secs(1)), Ok(()));
        }
        let earlier = now.checked_sub(Duration::from_secs(5)).unwrap();
        assert_eq!(limiter.take(limiter.hasher.hash_one("early"), earlier), Ok(()));
    }

    #[test]
    fn a_request_is_its_route_its_client_or_its_field() {
        let limiter = |per| {
            let limit = RateLimit { per, requests: 1, every: Duration::from_secs(1), burst: 1 };
            Limiter::new(&limit, Instant::now(), RandomState::new())
        };
        let fields = |value: Option<&'static str>| -> HeaderMap {
            let name = http::HeaderName::from_static("x-key");
            value.map(|v| (name, HeaderValue::from_static(v))).into_iter().collect()
        };
        let (a, b, none) = (fields(Some("a")), fields(Some("b")), fields(None));
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let route = limiter(RateKey::Route);
        assert_eq!(route.key(&a, ip("::1")), route.key(&b, None));
        let field = limiter(RateKey::Header(http::HeaderName::from_static("x-key")));
        assert_eq!(field.key(&a, None), field.key(&a, ip("::1")));
        let keys =
            [field.key(&a, None), field.key(&b, None), field.key(&none, None), field.key(&fields(Some("")), None)];
        assert!((0..4).all(|i| (0..i).all(|j| keys[i] != keys[j])));
        let client = limiter(RateKey::ClientIp);
        for (one, other, same) in [
            (ip("10.0.0.1"), ip("10.0.0.1"), true),
            (ip("10.0.0.1"), ip("::ffff:10.0.0.1"), true),
            (ip("10.0.0.1"), ip("10.0.0.2"), false),
            (ip("2001:db8:0:1::1"), ip("2001:db8:0:1:ffff::2"), true),
            (ip("2001:db8:0:1::1"), ip("2001:db8:0:2::1"), false),
            (None, None, true),
            (None, ip("::"), false),
        ] {
            assert_eq!(client.key(&a, one) == client.key(&b, other), same, "{one:?} {other:?}");
        }
    }

    #[test]
    fn any_key_has_a_place() {
        let (limiter, now) = limiter(1, Duration::from_secs(1), 1);
        for key in [0, 1, 63, u64::MAX, 1 << 58, (1 << 58) - 1] {
            assert_eq!(limiter.take(key, now), Ok(()), "{key}");
            assert!(limiter.take(key, now).is_err(), "{key}");
        }
    }

    #[test]
    fn every_busy_bucket_is_remembered_while_there_is_room() {
        let (limiter, now) = limiter(1, Duration::from_secs(3600), 1);
        let keys: Vec<u64> = (0..4096).map(|i| limiter.hasher.hash_one(i)).collect();
        assert!(keys.iter().all(|&key| limiter.take(key, now).is_ok()));
        assert!(keys.iter().all(|&key| limiter.take(key, now).is_err()));
    }

    #[test]
    fn full_buckets_make_room_and_the_table_does_not_grow() {
        let (limiter, mut now) = limiter(1000, Duration::from_secs(1), 1);
        for round in 0..200 {
            (0..64).for_each(|i| _ = limiter.take(limiter.hasher.hash_one((round, i)), now));
            now += Duration::from_secs(1);
        }
        // 12,800 keys were seen, 64 at a time.
        assert!(size(&limiter) <= 2048, "{}", size(&limiter));
    }

    #[test]
    fn a_flood_of_keys_grows_nothing_and_frees_no_heavy_user() {
        let (limiter, now) = limiter(1, Duration::from_secs(60), 10);
        let heavy = limiter.hasher.hash_one("heavy");
        (0..10).for_each(|_| limiter.take(heavy, now).unwrap());
        for i in 0..4 * Limiter::KEYS {
            assert_eq!(limiter.take(limiter.hasher.hash_one(i), now), Ok(()));
        }
        assert_eq!(size(&limiter), Limiter::KEYS);
        assert!(limiter.take(heavy, now).is_err());
    }

    #[test]
    fn a_replaced_key_starts_full() {
        let (limiter, now) = limiter(1, Duration::from_secs(60), 1);
        // One shard and one set: these differ above the bits that choose them.
        let keys: Vec<u64> = (0..9).map(|i| i << 32).collect();
        assert!(keys.iter().all(|&key| limiter.take(key, now).is_ok()));
        let again = keys.iter().filter(|&&key| limiter.take(key, now).is_ok()).count();
        assert!((1..=9).contains(&again), "eight fit, so one at least was forgotten");
    }

    #[test]
    fn under_threads_no_token_is_taken_twice() {
        const WORKERS: usize = 8;
        let (limiter, start) = limiter(1000, Duration::from_secs(1), 500);
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (limiter, taken) = (&limiter, &taken);
                scope.spawn(move || {
                    for i in 0..20_000_u64 {
                        // Every worker goes through the same 2 s, each at its own pace.
                        let now = start + Duration::from_micros(100 * i + worker as u64);
                        if limiter.take(7, now).is_ok() {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let taken = taken.into_inner();
        // A worker that runs ahead drains the bucket at a later time than another's; the bound holds for the latest.
        assert!(taken <= 500 + 2000, "{taken}");
        assert!(taken >= 2000, "{taken}");
    }
}
