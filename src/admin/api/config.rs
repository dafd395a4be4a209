//! The configuration: what is in force, its schema, a check of a text, a reload of the files. The file is never written.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{Api, blocking};
use crate::admin::context::{ReloadAsk, ReloadDone, ReloadResult};
use crate::admin::dto::ReloadDto;
use crate::admin::error::{BAD_REQUEST, HELD_CONFLICT, INTERNAL, INVALID_CONFIG, Problem, ProblemDto};
use crate::admin::request::{Call, DryRun};

/// The configuration in force, as TOML, secrets left out.
#[utoipa::path(
    get, path = "/config", tag = "configuration",
    responses((status = 200, body = String, content_type = "application/toml"))
)]
pub(in crate::admin) async fn effective(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, "application/toml; charset=utf-8")], (api.ctx.effective)()).into_response()
}

/// The JSON schema of `weir.toml`.
#[utoipa::path(
    get, path = "/config/schema", tag = "configuration",
    responses((status = 200, body = Object, content_type = "application/schema+json"))
)]
pub(in crate::admin) async fn schema(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], (api.ctx.schema)().to_string()).into_response()
}

/// Checks a configuration text; the answer lists every problem, and is empty for none.
#[utoipa::path(
    post, path = "/config/check", tag = "configuration",
    request_body(content = String, content_type = "application/toml"),
    responses(
        (status = 200, body = Vec<Object>, description = "diagnostics: code, severity, message, file, line, column, ..."),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn check(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<serde_json::Value>, Problem> {
    let text = String::from_utf8(body.to_vec());
    let text = text.map_err(|e| Problem::new(BAD_REQUEST, format!("the body is not UTF-8: {}", e.utf8_error())))?;
    let check = api.ctx.check.clone();
    Ok(Json(blocking(move || check(text)).await?))
}

/// Reads the files again and applies them, all or nothing.
#[utoipa::path(
    post, path = "/config/reload", tag = "configuration",
    params(("idempotency-key" = Option<String>, Header, description = "a repeat gets the first answer, for 24 h"), DryRun),
    responses(
        (status = 200, body = ReloadDto),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn reload(
    State(api): State<Arc<Api>>,
    call: Call,
    body: Bytes,
) -> Result<Json<ReloadDto>, Problem> {
    if !body.is_empty() {
        let detail =
            "a reload reads the files and takes no body; send a text to /api/v1/config/check to have it checked";
        return Err(Problem::new(BAD_REQUEST, detail));
    }
    if call.if_match.is_some() {
        return Err(Problem::new(BAD_REQUEST, "If-Match is about one split; a reload takes none"));
    }
    api.check_open()?;
    let ask = ReloadAsk { by: call.by, reason: None, dry_run: call.dry_run };
    match (api.ctx.reload)(ask).await {
        ReloadResult::Done(done) => Ok(Json(describe(done, call.dry_run))),
        ReloadResult::Invalid { text, diagnostics } => Err(Problem::new(INVALID_CONFIG, text).diagnostics(diagnostics)),
        ReloadResult::HeldConflict(detail) => Err(Problem::new(HELD_CONFLICT, detail)),
        ReloadResult::Failed(detail) => Err(Problem::new(INTERNAL, detail)),
    }
}

fn describe(done: ReloadDone, dry_run: bool) -> ReloadDto {
    let names = |splits: Vec<crate::model::SplitName>| splits.into_iter().map(String::from).collect();
    ReloadDto {
        result: if done.changed { "applied" } else { "unchanged" },
        revision: done.revision.0,
        changed: done.changed,
        persisted: done.persisted,
        dry_run,
        held: names(done.held),
        superseded: names(done.superseded),
        warnings: done.warnings,
    }
}
