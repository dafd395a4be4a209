//! The call that replaces the binary: answered by the old process, when the new one serves or has failed.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;

use super::Api;
use crate::admin::context::UpgradeResult;
use crate::admin::dto::UpgradeDto;
use crate::admin::error::{
    BAD_REQUEST, Problem, ProblemDto, SHUTTING_DOWN, UPGRADE_FAILED, UPGRADE_IMPOSSIBLE, UPGRADE_RUNNING,
};
use crate::admin::request::Call;
use crate::model::Instant;

/// Starts the binary as it is on disk now and hands everything over to it; this process finishes what it has and ends.
#[utoipa::path(
    post, path = "/upgrade", tag = "process",
    params(("idempotency-key" = Option<String>, Header, description = "a repeat gets the first answer, for 24 h")),
    responses(
        (status = 200, body = UpgradeDto, description = "the new process serves"),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn upgrade(
    State(api): State<Arc<Api>>,
    call: Call,
    body: Bytes,
) -> Result<Json<UpgradeDto>, Problem> {
    if !body.is_empty() || call.if_match.is_some() || call.dry_run {
        return Err(Problem::new(BAD_REQUEST, "an upgrade takes no body, no If-Match, and cannot be rehearsed"));
    }
    api.check_open()?;
    let begun = Instant::now();
    match (api.ctx.upgrade)(call.by).await {
        UpgradeResult::Done { pid } => {
            let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            Ok(Json(UpgradeDto { pid, predecessor: std::process::id(), took_ms }))
        }
        UpgradeResult::Running => Err(Problem::new(UPGRADE_RUNNING, "one is under way; there is one at a time")),
        UpgradeResult::Impossible(why) => Err(Problem::new(UPGRADE_IMPOSSIBLE, why)),
        UpgradeResult::Failed(why) => Err(Problem::new(UPGRADE_FAILED, why)),
        UpgradeResult::ShuttingDown => Err(Problem::new(SHUTTING_DOWN, "this process is going down")),
    }
}
