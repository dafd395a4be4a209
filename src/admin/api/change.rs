//! Calls that change a split: weights, rollback, release, drain, undrain. Each is an `Order` to the store, and is
//! answered with the split as it is afterwards.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::{Api, blocking, unknown_split};
use crate::admin::dto::SplitDto;
use crate::admin::error::{BAD_REQUEST, BAD_WEIGHTS, Problem, ProblemDto, UNKNOWN_VERSION};
use crate::admin::request::{
    Call, DrainBody, DryRun, Fields as _, Json, Pairs, Path, ReasonBody, RollbackBody, WeightsBody, reason,
};
use crate::admin::view::View;
use crate::model::{Revision, SplitName, VersionName, Weight, Weights};
use crate::state::{Applied, Change, Order, SplitState};

/// Sets the weights of every version.
#[utoipa::path(
    put, path = "/splits/{split}/weights", tag = "changes", request_body = WeightsBody,
    params(("split" = String, Path, description = "name of the split"),
        ("if-match" = Option<String>, Header, description = "only at this revision, quoted"), DryRun),
    responses(
        (status = 200, body = SplitDto, description = "the split as it is now; all workers use it and it is on disk"),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn weights(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    call: Call,
    Json(body): Json<WeightsBody>,
) -> Result<Response, Problem> {
    let hold = body.hold;
    let why = reason(body.reason)?;
    carry_out(&api, &name, call, why, |split| {
        let weights = parse_weights(split, body.weights)?;
        Ok(Change::SetWeights { split: split.name.clone(), weights, hold })
    })
    .await
}

/// Sends everything to the target at once, closes the other versions and holds that against the file.
#[utoipa::path(
    post, path = "/splits/{split}/rollback", tag = "changes", request_body = Option<RollbackBody>,
    params(("split" = String, Path, description = "name of the split"),
        ("if-match" = Option<String>, Header, description = "only at this revision, quoted"),
        ("idempotency-key" = Option<String>, Header, description = "a repeat gets the first answer, for 24 h"), DryRun),
    responses(
        (status = 200, body = SplitDto),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn rollback(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    call: Call,
    Json(body): Json<RollbackBody>,
) -> Result<Response, Problem> {
    if body.to.is_some() && body.to_revision.is_some() {
        let allowed = RollbackBody::FIELDS;
        return Err(Problem::new(BAD_REQUEST, "give `to` or `to_revision`, not both").allowed(allowed));
    }
    let why = reason(body.reason)?;
    carry_out(&api, &name, call, why, |split| {
        let to = body.to.map(|to| version_name(split, &to)).transpose()?;
        let (to_revision, force) = (body.to_revision.map(Revision), body.force);
        Ok(Change::Rollback { split: split.name.clone(), to, to_revision, force })
    })
    .await
}

/// Back to the file's weights.
#[utoipa::path(
    delete, path = "/splits/{split}/override", tag = "changes", request_body = Option<ReasonBody>,
    params(("split" = String, Path, description = "name of the split"),
        ("if-match" = Option<String>, Header, description = "only at this revision, quoted"), DryRun),
    responses(
        (status = 200, body = SplitDto),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn release(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    call: Call,
    Json(body): Json<ReasonBody>,
) -> Result<Response, Problem> {
    let why = reason(body.reason)?;
    carry_out(&api, &name, call, why, |split| Ok(Change::Release { split: split.name.clone() })).await
}

/// No new requests for a version, or for one of its endpoints.
#[utoipa::path(
    post, path = "/splits/{split}/versions/{version}/drain", tag = "drain", request_body = Option<DrainBody>,
    params(("split" = String, Path, description = "name of the split"),
        ("version" = String, Path, description = "name of the version"),
        ("if-match" = Option<String>, Header, description = "only at this revision, quoted"),
        ("idempotency-key" = Option<String>, Header, description = "a repeat gets the first answer, for 24 h"), DryRun),
    responses(
        (status = 200, body = SplitDto),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn drain(
    State(api): State<Arc<Api>>,
    Path((name, version)): Path<(String, String)>,
    call: Call,
    Json(body): Json<DrainBody>,
) -> Result<Response, Problem> {
    let (why, endpoint) = (reason(body.reason)?, body.endpoint);
    carry_out(&api, &name, call, why, |split| {
        Ok(Change::Drain { split: split.name.clone(), version: version_name(split, &version)?, endpoint })
    })
    .await
}

/// Takes a drain back.
#[utoipa::path(
    post, path = "/splits/{split}/versions/{version}/undrain", tag = "drain", request_body = Option<DrainBody>,
    params(("split" = String, Path, description = "name of the split"),
        ("version" = String, Path, description = "name of the version"),
        ("if-match" = Option<String>, Header, description = "only at this revision, quoted"),
        ("idempotency-key" = Option<String>, Header, description = "a repeat gets the first answer, for 24 h"), DryRun),
    responses(
        (status = 200, body = SplitDto),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn undrain(
    State(api): State<Arc<Api>>,
    Path((name, version)): Path<(String, String)>,
    call: Call,
    Json(body): Json<DrainBody>,
) -> Result<Response, Problem> {
    let (why, endpoint) = (reason(body.reason)?, body.endpoint);
    carry_out(&api, &name, call, why, |split| {
        Ok(Change::Undrain { split: split.name.clone(), version: version_name(split, &version)?, endpoint })
    })
    .await
}

async fn carry_out(
    api: &Arc<Api>,
    name: &str,
    call: Call,
    reason: Option<String>,
    change: impl FnOnce(&SplitState) -> Result<Change, Problem>,
) -> Result<Response, Problem> {
    api.check_open()?;
    let snapshot = api.ctx.store.snapshot();
    let split = snapshot.split(name).ok_or_else(|| unknown_split(name, &snapshot))?;
    let Call { by, source, if_match, dry_run } = call;
    let if_match = if_match.map(|tags| tags.resolve(name, split.revision)).transpose()?.flatten();
    let change = change(split)?;
    let order = Order { id: fastrand::u128(..), change, by, source, reason, if_match, dry_run };
    let store = api.ctx.store.clone();
    let applied = blocking(move || store.apply(order)).await??;
    answer(api, &split.name, &applied, dry_run)
}

fn answer(api: &Api, name: &SplitName, applied: &Applied, dry_run: bool) -> Result<Response, Problem> {
    let snapshot = &applied.snapshot;
    let split = snapshot.split(name.as_str()).ok_or_else(|| unknown_split(name.as_str(), snapshot))?;
    let mut dto: SplitDto = View::new(&api.ctx, applied.persisted).split(split);
    dto.changed = Some(applied.changed);
    dto.dry_run = dry_run.then_some(true);
    Ok(with_etag(split.revision, axum::Json(dto).into_response()))
}

/// Adds the split's revision as `ETag`.
pub(super) fn with_etag(revision: Revision, mut response: Response) -> Response {
    if let Ok(tag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Values are checked here, because a number out of range is about weights, not about JSON; that every version is named
/// and some weight is above 0 is for the store to say.
fn parse_weights(split: &SplitState, pairs: Pairs) -> Result<Weights, Problem> {
    let mut weights = Weights::default();
    for (name, value) in pairs.0 {
        let version = version_name(split, &name)?;
        if weights.weight(&version).is_some() {
            return Err(Problem::new(BAD_WEIGHTS, format!("`{name}` is named twice")));
        }
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).and_then(|n| Weight::new(n).ok());
        let Some(weight) = number else {
            let detail =
                format!("the weight of `{name}` is {value}; a weight is a whole number from 0 to {}", Weight::MAX);
            return Err(Problem::new(BAD_WEIGHTS, detail));
        };
        weights.set(version, weight);
    }
    Ok(weights)
}

pub(super) fn version_name(split: &SplitState, text: &str) -> Result<VersionName, Problem> {
    let known = || split.versions.iter().map(|v| v.name.as_str());
    split.version(text).map(|v| v.name.clone()).ok_or_else(|| {
        let list = known().collect::<Vec<_>>().join(", ");
        let detail = format!("split `{}` has {list}; not `{}`", split.name, text.escape_default());
        Problem::new(UNKNOWN_VERSION, detail).allowed(known())
    })
}
