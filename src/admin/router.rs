//! All paths in one place: those of the OpenAPI document, the few beside it, and what answers everything else.
//!
//! Invariant: what is routed with `routes!` is in the document and the other way round, because both come from it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{Api, change, config, drain, probes, read};
use super::context::AdminContext;
use super::error::{ALL, METHOD_NOT_ALLOWED, NOT_FOUND, NOT_YET, Problem, page};
use super::guard::{Hosts, guard};
use super::idempotency::Replays;
use super::intake::intake;

/// Reserved by the specification and not built: path, and what it will be.
const LATER: [(&str, &str); 12] = [
    ("/api/v1/splits/{split}/rollout", "rollouts"),
    ("/api/v1/splits/{split}/rollout/{action}", "rollouts"),
    ("/api/v1/rollouts", "rollouts"),
    ("/api/v1/rollouts/{id}/receipt", "receipts of rollouts"),
    ("/api/v1/events", "the event stream; poll /api/v1/status and /api/v1/history meanwhile"),
    ("/api/v1/explain", "explaining a request's way"),
    ("/api/v1/flags", "feature flags"),
    ("/api/v1/flags/{flag}/override", "feature flags"),
    ("/api/v1/fleet", "fleets"),
    ("/ofrep/v1/evaluate/flags", "feature flags"),
    ("/ofrep/v1/evaluate/flags/{key}", "feature flags"),
    ("/ofrep/v1/events", "feature flags"),
];

const ROOT_PAGE: &str = "weir\n\n\
    There is no dashboard yet: this build has the API it will stand on.\n\n\
    /api/v1/status         everything at once\n\
    /api/v1/openapi.json   every call, as OpenAPI 3.1\n\
    /metrics               Prometheus\n\
    /livez, /readyz        probes\n\n\
    On the command line: weir status\n";

/// The whole admin server: API, metrics, probes, problem pages.
pub fn router(ctx: Arc<AdminContext>) -> Router {
    let store = ctx.store.clone();
    let hosts: Hosts = Arc::new(move || store.snapshot().config.admin.hosts.clone());
    let (router, document) = routes().split_for_parts();
    let document = Arc::new(serde_json::to_value(document).unwrap_or_default());
    let router = router
        .route("/api/v1/openapi.json", get(move || async move { axum::Json(document.as_ref()).into_response() }))
        .route("/", get(|| async { ROOT_PAGE }))
        .route("/problems/{slug}", get(problem_page));
    let router = LATER.into_iter().fold(router, |router, (path, what)| {
        router.route(path, any(move || async move { Problem::new(NOT_YET, format!("not built yet: {what}")) }))
    });
    guarded(router.with_state(Arc::new(Api::new(ctx))), hosts)
}

/// Only `/metrics`, `/livez` and `/readyz`, for `telemetry.bind`.
pub fn probes_router(ctx: Arc<AdminContext>) -> Router {
    let (router, _) = probe_routes().split_for_parts();
    let router = router.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
    router.with_state(Arc::new(Api::new(ctx))).layer(from_fn(harden))
}

/// The OpenAPI 3.1 document of the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// Last added is outermost: who may ask is settled before anything of the request is read.
fn guarded(router: Router, hosts: Hosts) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::new(Replays::default()), intake))
        .layer(from_fn_with_state(hosts, guard))
        .layer(from_fn(harden))
}

fn routes() -> OpenApiRouter<Arc<Api>> {
    let api = OpenApiRouter::default()
        .routes(routes!(read::status))
        .routes(routes!(read::splits))
        .routes(routes!(read::split))
        .routes(routes!(read::stats))
        .routes(routes!(read::history))
        .routes(routes!(change::weights))
        .routes(routes!(change::rollback))
        .routes(routes!(change::release))
        .routes(routes!(change::drain, drain::drain_state))
        .routes(routes!(change::undrain))
        .routes(routes!(config::effective))
        .routes(routes!(config::schema))
        .routes(routes!(config::check))
        .routes(routes!(config::reload));
    let info = utoipa::openapi::InfoBuilder::new().title("weir admin API").version(env!("CARGO_PKG_VERSION"));
    let document = utoipa::openapi::OpenApiBuilder::new().info(info.build()).build();
    OpenApiRouter::with_openapi(document).nest("/api/v1", api).merge(probe_routes())
}

fn probe_routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(probes::metrics))
        .routes(routes!(probes::livez))
        .routes(routes!(probes::readyz))
}

async fn problem_page(Path(slug): Path<String>) -> Result<String, Problem> {
    let slugs = ALL.iter().map(|kind| kind.slug);
    page(&slug).ok_or_else(|| Problem::new(NOT_FOUND, "there is no problem of that name").allowed(slugs))
}

async fn not_found(request: Request) -> Problem {
    let path = request.uri().path().escape_default();
    Problem::new(NOT_FOUND, format!("there is nothing at `{path}`; /api/v1/openapi.json lists every path"))
}

async fn method_not_allowed(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path().escape_default());
    Problem::new(METHOD_NOT_ALLOWED, format!("`{path}` does not take {method}; the Allow header lists what it takes"))
}

/// Headers that keep browsers from storing, guessing at, framing or embedding an answer.
async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
