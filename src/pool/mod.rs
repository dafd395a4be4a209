//! Endpoints and the counts that decide whether they may take one more request.
//!
//! Owns: which endpoints exist (`Registry`), what each has in flight, whether it drains, how it fares and whether it is set
//! aside for that (`ejection`); which of them takes a request (`Pool`); who waits for a place (`Line`); how many retries
//! and waiting requests a split may have (`RetryBudget`, `Waiting`). Refuses: sockets; the connections to an endpoint belong to the
//! worker that opened them.
//! Invariants: an endpoint outlives every snapshot that names it; a claim is counted before the choice is final and
//! ends exactly once, when its guard is dropped; once an endpoint drains no claim succeeds.

mod bounded;
mod budget;
mod crowd;
mod deadlines;
mod drain;
mod ejection;
mod endpoint;
mod hold;
mod in_flight;
mod observed;
mod registry;
mod rules;
mod slow_start;
mod version;

pub use budget::{RetryBudget, RetryPermit};
pub use crowd::Place;
pub use deadlines::Deadlines;
pub use drain::{Drained, wait_drained};
pub use endpoint::{Claim, Endpoint, EndpointState};
pub use hold::{Waiting, WaitingGuard};
pub use in_flight::{Counts, Refused};
pub use observed::{Ejections, Health};
pub use registry::{EndpointKey, Registry};
pub use rules::Rules;
pub use version::{By, Member, Outcome, Pool, Unavailable};
