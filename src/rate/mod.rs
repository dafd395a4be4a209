//! How many requests are let through: token buckets, one per key, in bounded memory. Pure: `now` is passed in, and so
//! is the hasher's secret.
//!
//! Invariants: a bucket lets through at most `burst + rate * t` requests in any time `t`, exactly; a limiter never
//! remembers more than `Limiter::KEYS` buckets, whatever clients send. Refuses: to know what a key stands for.

mod bucket;
mod limiter;
mod shard;

pub use bucket::{Bucket, Pace};
pub use limiter::Limiter;
