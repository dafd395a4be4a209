//! What machines ask: metrics and the two probes. Plain text, no guard, the same on `admin.bind` and `telemetry.bind`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Api, blocking};
use crate::admin::error::Problem;

/// Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "probes", responses((status = 200, body = String, content_type = "text/plain")))]
pub(in crate::admin) async fn metrics(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let render = api.ctx.render_metrics.clone();
    let text = blocking(move || render()).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "probes", responses((status = 200, body = String, content_type = "text/plain")))]
pub(in crate::admin) async fn livez() -> &'static str {
    "alive\n"
}

/// The process takes requests; else the answer names what it waits for.
#[utoipa::path(
    get, path = "/readyz", tag = "probes",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = String, content_type = "text/plain", description = "what it waits for"),
    )
)]
pub(in crate::admin) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    match (api.ctx.is_ready)() {
        Ok(()) => "ready\n".into_response(),
        Err(blockers) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", blockers.join(", "))).into_response()
        }
    }
}
