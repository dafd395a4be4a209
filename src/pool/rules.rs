//! What the file says of how a version's endpoints are used.

use std::time::Duration;

use crate::config::{Balance, Eject, Split};

/// See the file's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Per endpoint.
    pub max_in_flight: u32,
    pub balance: Balance,
    /// `None`: no endpoint is ever ejected.
    pub eject: Option<Eject>,
    /// Zero: none.
    pub slow_start: Duration,
    /// Requests that may wait in line.
    pub queue: u32,
}

impl From<&Split> for Rules {
    fn from(split: &Split) -> Self {
        Self {
            max_in_flight: split.pool.max_in_flight,
            balance: split.balance.clone(),
            eject: split.eject,
            slow_start: split.drain.slow_start,
            queue: split.pool.queue,
        }
    }
}
