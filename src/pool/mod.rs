//! Endpoints and the counts that decide whether they may take one more request.
//!
//! Owns: which endpoints exist (`Registry`), what each has in flight, whether it drains. Refuses: sockets; the
//! connections to an endpoint belong to the worker that opened them.
//! Invariants: an endpoint outlives every snapshot that names it; a claim is counted before the choice is final and
//! ends exactly once, when its guard is dropped; once an endpoint drains no claim succeeds.

mod drain;
mod endpoint;
mod in_flight;
mod registry;
mod version;

pub use drain::{Drained, wait_drained};
pub use endpoint::{Claim, Endpoint};
pub use in_flight::{Counts, Refused};
pub use registry::{EndpointKey, Registry};
pub use version::{Pool, Unavailable};
