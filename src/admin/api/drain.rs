//! The call that waits for a drain to end: what a deployment script asks before it stops a server.
//!
//! Invariant: 200 means that nothing is in flight at the endpoints asked for and that nothing can come any more, neither
//! here nor in a process that has handed over to this one.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, unknown_split};
use crate::admin::dto::{CountsDto, DrainDto, DrainEndpointDto};
use crate::admin::error::{NOT_DRAINING, Problem, ProblemDto, TOO_MANY_WAITS, UNKNOWN_ENDPOINT, UNKNOWN_VERSION};
use crate::admin::request::{Path, Query, duration};
use crate::model::{Address, Instant};
use crate::pool::{Counts, Drained, Endpoint, EndpointKey, wait_drained};
use crate::state::Snapshot;
use crate::upgrade::Elsewhere;

/// See `drain_state`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct DrainQuery {
    /// `ip:port` or `unix:/path`; default: all endpoints of the version.
    endpoint: Option<String>,
    /// How long to wait for the end, up to `1h`; default: not at all.
    wait: Option<String>,
}

/// Blocks until nothing is in flight (200) or the time is over (202). Also for endpoints that have left the file.
#[utoipa::path(
    get, path = "/splits/{split}/versions/{version}/drain", tag = "drain",
    params(("split" = String, Path, description = "name of the split"),
        ("version" = String, Path, description = "name of the version"), DrainQuery),
    responses(
        (status = 200, body = DrainDto, description = "nothing is in flight"),
        (status = 202, body = DrainDto, description = "the time is over and some is in flight still"),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn drain_state(
    State(api): State<Arc<Api>>,
    Path((split, version)): Path<(String, String)>,
    Query(query): Query<DrainQuery>,
) -> Result<Response, Problem> {
    let text = query.wait.as_deref().unwrap_or("0s");
    let wait = duration("wait", text, Duration::ZERO, Duration::from_secs(3600))?;
    let targets = Targets::find(&api, &split, &version, query.endpoint.as_deref())?;
    targets.check_draining()?;
    wait_for(&api, &targets, wait).await?;
    // Again: an endpoint that was empty first may have been taken back while another was waited for.
    targets.check_draining()?;
    let dto = targets.describe(&api.ctx.elsewhere, split, version);
    let status = if dto.drained { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(dto)).into_response())
}

async fn wait_for(api: &Api, targets: &Targets, wait: Duration) -> Result<(), Problem> {
    if wait.is_zero() || targets.are_empty(&api.ctx.elsewhere) {
        return Ok(());
    }
    let _slot = api.waits.try_acquire().map_err(|_| Problem::new(TOO_MANY_WAITS, "all places to wait are taken"))?;
    // One after the other: no claim succeeds on a draining endpoint, so an empty one stays empty.
    let all = async {
        for target in &targets.0 {
            api.ctx.elsewhere.wait_empty(&target.key).await;
            if wait_drained(&target.endpoint).await == Drained::CalledOff {
                return Err(Problem::new(NOT_DRAINING, format!("the drain of {} was called off", target.address())));
            }
        }
        Ok(())
    };
    tokio::time::timeout(wait, all).await.unwrap_or(Ok(()))
}

struct Target {
    key: EndpointKey,
    endpoint: Arc<Endpoint>,
    removed: bool,
}

impl Target {
    fn address(&self) -> &Address {
        self.endpoint.address()
    }

    /// Here and in the process before us.
    fn counts(&self, elsewhere: &Elsewhere) -> Counts {
        self.endpoint.counts().plus(elsewhere.counts(&self.key))
    }
}

/// The endpoints a call asks for, those that have left the configuration included.
struct Targets(Vec<Target>);

impl Targets {
    fn find(api: &Api, split: &str, version: &str, endpoint: Option<&str>) -> Result<Self, Problem> {
        let snapshot = api.ctx.store.snapshot();
        let leaving = api.ctx.store.registry().leaving();
        Self::choose(&snapshot, &leaving, split, version)?.only(version, endpoint)
    }

    fn choose(
        snapshot: &Snapshot,
        leaving: &[(EndpointKey, Arc<Endpoint>)],
        split: &str,
        version: &str,
    ) -> Result<Self, Problem> {
        let present = snapshot.split(split);
        let known = present.and_then(|s| s.version(version));
        let gone = leaving.iter().filter(|(key, _)| key.split.as_str() == split && key.version.as_str() == version);
        let gone = gone.map(|(key, e)| Target { key: key.clone(), endpoint: e.clone(), removed: true });
        let gone: Vec<Target> = gone.collect();
        match (present, known) {
            (Some(split), Some(version)) => {
                let key = |e: &Endpoint| EndpointKey {
                    split: split.name.clone(),
                    version: version.name.clone(),
                    address: e.address().clone(),
                };
                let active = version.pool.endpoints().iter();
                let active = active.map(|e| Target { key: key(e), endpoint: e.clone(), removed: false });
                Ok(Self(active.chain(gone).collect()))
            }
            (_, None) if !gone.is_empty() => Ok(Self(gone)),
            (None, _) => Err(unknown_split(split, snapshot)),
            (Some(split), None) => {
                let known: Vec<&str> = split.versions.iter().map(|v| v.name.as_str()).collect();
                let detail =
                    format!("split `{}` has {}; not `{}`", split.name, known.join(", "), version.escape_default());
                Err(Problem::new(UNKNOWN_VERSION, detail).allowed(known))
            }
        }
    }

    fn only(self, version: &str, endpoint: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = endpoint else { return Ok(self) };
        let wanted = text.parse::<Address>().ok();
        let known: Vec<String> = self.0.iter().map(|t| t.address().to_string()).collect();
        let found: Vec<Target> = self.0.into_iter().filter(|t| Some(t.address()) == wanted.as_ref()).collect();
        if found.is_empty() {
            let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let detail = format!("version `{version}` has no endpoint `{}`; it has {has}", text.escape_default());
            return Err(Problem::new(UNKNOWN_ENDPOINT, detail).allowed(known));
        }
        Ok(Self(found))
    }

    fn check_draining(&self) -> Result<(), Problem> {
        let (draining, active): (Vec<&Target>, Vec<&Target>) = self.0.iter().partition(|t| t.endpoint.is_draining());
        if active.is_empty() {
            return Ok(());
        }
        let list = active.iter().map(|t| t.address().to_string()).collect::<Vec<_>>().join(", ");
        let problem = Problem::new(NOT_DRAINING, format!("not draining: {list}"));
        Err(problem.allowed(draining.iter().map(|t| t.address())))
    }

    fn are_empty(&self, elsewhere: &Elsewhere) -> bool {
        self.0.iter().all(|t| t.endpoint.counts().total() == 0 && elsewhere.is_empty(&t.key))
    }

    fn in_flight(&self, elsewhere: &Elsewhere) -> CountsDto {
        self.0.iter().fold(Counts::default(), |sum, t| sum.plus(t.counts(elsewhere))).into()
    }

    fn describe(&self, elsewhere: &Elsewhere, split: String, version: String) -> DrainDto {
        let now = Instant::now();
        let one = |t: &Target| {
            let next_cut = t.endpoint.deadlines().and_then(|deadlines| deadlines.next(t.endpoint.counts()));
            DrainEndpointDto {
                address: t.address().to_string(),
                removed: t.removed,
                in_flight: t.counts(elsewhere).into(),
                cut_in_seconds: next_cut.map(|at| at.saturating_duration_since(now).as_secs()),
            }
        };
        let in_flight = self.in_flight(elsewhere);
        DrainDto {
            split,
            version,
            drained: self.are_empty(elsewhere),
            in_flight,
            endpoints: self.0.iter().map(one).collect(),
        }
    }
}
