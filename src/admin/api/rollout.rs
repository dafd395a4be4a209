//! Calls about rollouts: start, command, look, list, receipt. All decisions are the controller's; here they are asked
//! for at its desk.
//!
//! Invariant: `promote` where somebody's consent is asked for is a consent, so that the same button never leads two
//! steps up when two people press it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::change::{version_name, with_etag};
use super::{Api, unknown_split};
use crate::admin::dto::SplitDto;
use crate::admin::error::{BAD_REQUEST, BAD_ROLLOUT, NO_ROLLOUT, NOT_FOUND, Problem, ProblemDto, UNKNOWN_ROLLOUT};
use crate::admin::request::{Call, DryRun, Fields, Json, Path, Query, reason};
use crate::admin::rollout::{RolloutDto, Rollouts, RolloutsDto, SummaryDto, has_changed};
use crate::admin::view::View;
use crate::config::{Step, durations};
use crate::model::Revision;
use crate::rollout::{self, Command, Document, Start, What};
use crate::state::SplitState;

/// What may be said to a running rollout.
const ACTIONS: [&str; 5] = ["pause", "resume", "promote", "approve", "abort"];

/// To which version and how; all optional, by default as the file says.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct RolloutBody {
    /// Default: the file's, else the one version that is not stable.
    to: Option<String>,
    /// Instead of the file's; weights rise.
    steps: Option<Vec<StepBody>>,
    reason: Option<String>,
}

/// One step.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StepBody {
    /// Percent for the new version, 0..100.
    weight: f64,
    /// How long it is watched at least.
    #[serde(rename = "for")]
    #[schema(example = "10m")]
    hold: String,
    /// Somebody must agree before it begins.
    #[serde(default)]
    approve: bool,
}

impl Fields for RolloutBody {
    const FIELDS: &'static [&'static str] = &["to", "steps: [{weight, for, approve}]", "reason"];
    fn when_empty() -> Option<Self> {
        Some(Self::default())
    }
}

/// Why, and how far; optional.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct CommandBody {
    /// Of `promote` only: to the last step at once.
    full: bool,
    reason: Option<String>,
}

impl Fields for CommandBody {
    const FIELDS: &'static [&'static str] = &["full", "reason"];
    fn when_empty() -> Option<Self> {
        Some(Self::default())
    }
}

/// Begins a rollout: the steps of the file, or those given.
#[utoipa::path(
    post, path = "/splits/{split}/rollout", tag = "rollouts", request_body = Option<RolloutBody>,
    params(("split" = String, Path, description = "name of the split"),
        ("if-match" = Option<String>, Header, description = "only at this revision, quoted"),
        ("idempotency-key" = Option<String>, Header, description = "a repeat gets the first answer, for 24 h"), DryRun),
    responses(
        (status = 200, body = SplitDto, description = "the split as it is now, with its rollout"),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn start(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    call: Call,
    Json(body): Json<RolloutBody>,
) -> Result<Response, Problem> {
    let (reason, steps) = (reason(body.reason)?, steps(body.steps)?);
    let (split, if_match) = split(&api, &name, &call)?;
    let to = body.to.map(|to| version_name(&split, &to)).transpose()?;
    let Call { by, source, dry_run, .. } = call;
    let start = Start { to, steps, by, source, reason, if_match, dry_run };
    let after = api.ctx.rollouts.start(split.name.clone(), start).await?;
    answer(&api, &after, true, dry_run)
}

/// Says something to the running rollout: `pause`, `resume`, `promote` (to the next step now, whatever the evidence;
/// where consent is asked for it is that), `approve`, `abort` (a rollback).
#[utoipa::path(
    post, path = "/splits/{split}/rollout/{action}", tag = "rollouts", request_body = Option<CommandBody>,
    params(("split" = String, Path, description = "name of the split"),
        ("action" = String, Path, description = "pause, resume, promote, approve or abort"),
        ("if-match" = Option<String>, Header, description = "only at this revision, quoted"),
        ("idempotency-key" = Option<String>, Header, description = "a repeat gets the first answer, for 24 h"), DryRun),
    responses(
        (status = 200, body = SplitDto, description = "the split as it is now, with its rollout"),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn command(
    State(api): State<Arc<Api>>,
    Path((name, action)): Path<(String, String)>,
    call: Call,
    Json(body): Json<CommandBody>,
) -> Result<Response, Problem> {
    if body.full && action != "promote" {
        return Err(Problem::new(BAD_REQUEST, "`full` belongs to `promote` alone"));
    }
    let reason = reason(body.reason)?;
    let (split, _) = split(&api, &name, &call)?;
    let before = api.ctx.rollouts.view(&split.name);
    let what = what(&action, body.full, before.as_deref())?;
    let Call { by, source, dry_run, .. } = call;
    let command = Command { what, by, source, reason };
    let after = api.ctx.rollouts.command(split.name.clone(), command, dry_run).await?;
    answer(&api, &after, has_changed(before.as_deref(), &after), dry_run)
}

/// The rollout that runs, or the last one: evidence, what it waits for, what comes next.
#[utoipa::path(
    get, path = "/splits/{split}/rollout", tag = "rollouts",
    params(("split" = String, Path, description = "name of the split")),
    responses(
        (status = 200, body = RolloutDto),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn now(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let snapshot = api.ctx.store.snapshot();
    let split = snapshot.split(&name).ok_or_else(|| unknown_split(&name, &snapshot))?;
    let rollout = Rollouts::new(&api.ctx).of(&split.name);
    let never = || Problem::new(NO_ROLLOUT, format!("split `{name}` has not been rolled out yet"));
    Ok(axum::Json(rollout.ok_or_else(never)?).into_response())
}

/// See `list`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct ListQuery {
    /// Only of this split.
    split: Option<String>,
    /// 1 to 1000; default 50.
    limit: Option<usize>,
}

/// Rollouts that are remembered, newest first.
#[utoipa::path(
    get, path = "/rollouts", tag = "rollouts", params(ListQuery),
    responses(
        (status = 200, body = RolloutsDto),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<RolloutsDto>, Problem> {
    let limit = query.limit.unwrap_or(50);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::new(BAD_REQUEST, format!("`limit` is a number from 1 to 1000; not {limit}")));
    }
    let documents = api.ctx.rollouts.documents();
    let is_meant = |d: &&Arc<Document>| query.split.as_deref().is_none_or(|split| d.split.as_str() == split);
    let rollouts: Vec<_> = documents.iter().filter(is_meant).take(limit).map(|d| SummaryDto::from(&**d)).collect();
    let snapshot = api.ctx.store.snapshot();
    // A split that has left the file may still be remembered.
    match query.split.filter(|split| rollouts.is_empty() && snapshot.split(split).is_none()) {
        Some(split) => Err(unknown_split(&split, &snapshot)),
        None => Ok(axum::Json(RolloutsDto { rollouts })),
    }
}

/// The receipt: every request of the rollout by step, version, status and cause; what happened when; the verdict.
#[utoipa::path(
    get, path = "/rollouts/{id}/receipt", tag = "rollouts",
    params(("id" = String, Path, description = "id of the rollout")),
    responses(
        (status = 200, body = Object, description = "id, split, to, stable, state, by, reason, started_at, ended_at, \
            ending, steps, log, sheets, totals, verdict, gaps"),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn receipt(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let unknown = || Problem::new(UNKNOWN_ROLLOUT, format!("there is no rollout `{}`", id.escape_default()));
    let receipt = api.ctx.rollouts.receipt(&id).ok_or_else(unknown)?;
    Ok(axum::Json(&*receipt).into_response())
}

/// The split as it was before the call, which is held to be the one that the caller has seen.
fn split(api: &Api, name: &str, call: &Call) -> Result<(Arc<SplitState>, Option<Revision>), Problem> {
    api.check_open()?;
    let snapshot = api.ctx.store.snapshot();
    let split = snapshot.split(name).ok_or_else(|| unknown_split(name, &snapshot))?;
    let tags = call.if_match.as_ref();
    let if_match = tags.map(|tags| tags.resolve(name, split.revision)).transpose()?.flatten();
    Ok((split.clone(), if_match))
}

fn what(action: &str, full: bool, now: Option<&rollout::View>) -> Result<What, Problem> {
    let asks_for_consent = now.is_some_and(|view| view.state == rollout::State::Approval);
    Ok(match action {
        "pause" => What::Pause,
        "resume" => What::Resume,
        "promote" if asks_for_consent && !full => What::Approve,
        "promote" => What::Promote { full },
        "approve" => What::Approve,
        "abort" => What::Abort,
        other => {
            let detail = format!("a rollout takes no `{}`", other.escape_default());
            return Err(Problem::new(NOT_FOUND, detail).allowed(ACTIONS));
        }
    })
}

fn steps(body: Option<Vec<StepBody>>) -> Result<Option<Vec<Step>>, Problem> {
    let Some(body) = body else { return Ok(None) };
    let step = |(i, StepBody { weight, hold, approve }): (usize, StepBody)| {
        let bad = |why| format!("step {}: `for` is `{}`, not a duration like 10m: {why}", i + 1, hold.escape_default());
        let hold = durations::parse(&hold).map_err(|why| Problem::new(BAD_ROLLOUT, bad(why)))?;
        Ok(Step { weight, hold, approve })
    };
    body.into_iter().enumerate().map(step).collect::<Result<Vec<_>, _>>().map(Some)
}

fn answer(api: &Api, rollout: &rollout::View, changed: bool, dry_run: bool) -> Result<Response, Problem> {
    let snapshot = api.ctx.store.snapshot();
    let name = rollout.split.as_str();
    let split = snapshot.split(name).ok_or_else(|| unknown_split(name, &snapshot))?;
    let view = View::new(&api.ctx, snapshot.persisted && rollout.persisted);
    let mut dto = view.split_with(split, Some(view.rollouts.dto(rollout)));
    dto.changed = Some(changed);
    dto.dry_run = dry_run.then_some(true);
    Ok(with_etag(split.revision, axum::Json(dto).into_response()))
}
