//! Is the canary worse than allowed? Counts in, a verdict out (analysis.md, whose section numbers the files name).
//!
//! The proxy chose each request's version with a coin of known bias, so the analysis may bet, request by request, on
//! which version produced an outcome. While the canary is no worse than allowed nobody wins at that game, whatever the
//! traffic does; the wealth won is the e-value, and above `1 / false_alarm` the canary is called regressed.
//!
//! From cells to a verdict: a [`Meter`] turns cumulative counters of workers and processes into what is new, the
//! [`Feed`] orders it (as known, or by start), the [`Engine`] bets on it and gives a [`Judgment`].
//!
//! Invariants: a bet is fixed by what was known before its tick; nothing is tuned during a rollout; counts of the same
//! epoch add up, in any order of sources; no e-value is ever NaN; a restored engine goes on bit for bit.
//! Refuses: clocks, chance, and to know what a request was.

mod bets;
mod bins;
mod counts;
mod engine;
mod errors;
mod evidence;
mod exact;
mod feed;
mod histogram;
mod history;
mod interval;
mod judge;
mod latency;
mod math;
mod meter;
mod objective;
mod plug_in;
mod reason;
mod settings;
mod share;
mod snapshot;
mod tails;
#[cfg(test)]
mod testing;
mod verdict;

pub use bets::Direction;
pub use counts::{BUCKETS, Buckets, Counts, bucket_of, bucket_seconds};
pub use engine::{BadTick, Engine};
pub use feed::{BIN, BinCounts, Feed, Order, Portion, Released, Side, UnknownEpoch};
pub use history::History;
pub use interval::{RateInterval, needed_requests, rate_interval};
pub use meter::{Meter, Origin, WentBack};
pub use reason::{e_limit, e_value};
pub use settings::{Allowance, BadSettings, LatencyAllowance, Settings};
pub use snapshot::{RestoreError, Snapshot};
pub use verdict::{Judgment, Part, Shown, Verdict};
