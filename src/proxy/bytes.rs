//! What one client can make us keep at most, added up from the bounds that hold each part of it.
//!
//! Invariant: a buffer on the data plane has a bound, and the bound is counted here. Small things (tasks, names, books)
//! are counted by one round number for each exchange.

use super::{flush, http1, http2};
use crate::config::Limits;
use crate::net::upstream::EXCHANGE_BYTES;

/// A task with its request, its answer's head and its books.
const TASK: usize = 16 << 10;
/// What rustls keeps of records, received and to be sent.
const TLS: usize = 96 << 10;

/// Bytes of one connection; by the protocol that the client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionBytes {
    pub http1: usize,
    pub http2: usize,
}

impl ConnectionBytes {
    /// Of a client of a listener with these limits.
    pub fn of(limits: &Limits) -> Self {
        let exchange = TASK + EXCHANGE_BYTES;
        let http1 = TLS + 2 * http1::buffer(limits.header_bytes) + exchange;
        let stream = exchange.saturating_add(http2::SEND_BUFFER).saturating_add(limits.header_bytes);
        let streams = stream.saturating_mul(limits.streams as usize);
        Self { http1, http2: (TLS + flush::LIMIT + http2::SHARED_BYTES).saturating_add(streams) }
    }
}
