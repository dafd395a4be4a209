//! The operator's API, the metrics page and the probes, over HTTP on `admin.bind`.
//!
//! Owns: the JSON of surface.md section 7, who may ask (loopback, Host, Origin), and how refusals look. Refuses:
//! deciding; every change is an `Order` given to `state::Store`, every number comes from a room below or from a closure
//! that `app` hands over in `AdminContext`.
//! Invariants: whatever goes wrong, the answer is `application/problem+json`; a change is answered only after
//! `Store::apply` returned; nothing of a refused request is carried out.

mod api;
mod context;
mod dto;
mod error;
mod guard;
mod idempotency;
mod intake;
mod request;
mod reserve;
mod rollout;
mod router;
mod rules;
mod serve;
#[cfg(test)]
mod tests;
mod view;

pub use context::{
    AdminContext, BoxFuture, LastReload, ReloadAsk, ReloadDone, ReloadResult, RuleStatsOf, StatsOf, UpgradeResult,
};
pub use dto::{NameDto, StatsDto};
pub use router::{openapi, probes_router, router};
pub use serve::{GRACE, serve};
