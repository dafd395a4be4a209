//! The specification's test vectors, read from the file named by `WEIR_ANALYSIS_VECTORS`, else from `tests/data`.

use std::path::PathBuf;

use serde_json::Value;

use super::bets::Direction;
use super::counts::{BUCKETS, Buckets};

pub(super) fn vectors() -> Value {
    let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/analysis_vectors.json");
    let path = std::env::var_os("WEIR_ANALYSIS_VECTORS").map_or_else(own, PathBuf::from);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(super) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

pub(super) fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

pub(super) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

pub(super) fn direction(value: &Value) -> Direction {
    if value.as_i64() == Some(1) { Direction::Against } else { Direction::For }
}

/// Pairs of bucket and count.
pub(super) fn buckets(value: &Value) -> Buckets {
    let mut buckets = [0; BUCKETS];
    for pair in value.as_array().unwrap() {
        buckets[pair[0].as_u64().unwrap() as usize] = whole(&pair[1]);
    }
    buckets
}

/// To 1e-9, relative, or absolute below 1.
#[track_caller]
pub(super) fn close(got: f64, want: f64, case: &Value) {
    assert!((got - want).abs() <= 1e-9 * want.abs().max(1.0), "{got} instead of {want} in {case}");
}
