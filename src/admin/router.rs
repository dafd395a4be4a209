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

use super::api::{Api, change, config, drain, probes, read, rollout, upgrade};
use super::context::AdminContext;
use super::error::{ALL, METHOD_NOT_ALLOWED, NOT_FOUND, NOT_YET, Problem, page};
use super::guard::{Hosts, guard};
use super::idempotency::Replays;
use super::intake::intake;

/// Reserved by the specification and not built: path, and what it will be.
const LATER: [(&str, &str); 8] = [
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
        .routes(routes!(rollout::start, rollout::now))
        .routes(routes!(rollout::command))
        .routes(routes!(rollout::list))
        .routes(routes!(rollout::receipt))
        .routes(routes!(config::effective))
        .routes(routes!(config::schema))
        .routes(routes!(config::check))
        .routes(routes!(config::reload))
        .routes(routes!(upgrade::upgrade));
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use serde_json::Value;

    use super::*;
    use crate::admin::tests::{HOST, request, send};

    /// The real guard, intake and fallbacks around calls that touch no store.
    fn toy() -> Router {
        let echo = |body: String| async move { body };
        let router = Router::new()
            .route("/api/v1/status", get(|| async { "status" }))
            .route("/api/v1/echo", axum::routing::post(echo).put(echo))
            .route("/api/v1/config/check", axum::routing::post(echo))
            .route("/problems/{slug}", get(problem_page))
            .route("/livez", get(|| async { "alive" }));
        guarded(router, Arc::new(|| vec!["weir.example.com".to_owned()]))
    }

    /// Status and slug of a refusal, which must be problem+json.
    async fn refusal(request: Request) -> (u16, String) {
        let (status, headers, body) = send(&toy(), request).await;
        assert_eq!(headers["content-type"], "application/problem+json", "{body}");
        let json: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json["status"], status);
        (status, json["type"].as_str().unwrap().trim_start_matches("/problems/").to_owned())
    }

    #[tokio::test]
    async fn whatever_goes_wrong_is_a_problem() {
        let json = ("content-type", "application/json");
        for (request, status, slug) in [
            (request("GET", "/nothing", &[HOST], ""), 404, "not-found"),
            (request("GET", "/problems/nothing", &[HOST], ""), 404, "not-found"),
            (request("DELETE", "/api/v1/status", &[HOST], ""), 405, "method-not-allowed"),
            (request("GET", "/api/v1/status", &[("host", "evil.example")], ""), 403, "forbidden"),
            (request("GET", "/nothing", &[("host", "evil.example")], ""), 403, "forbidden"),
            (request("GET", "/api/v1/status", &[HOST, ("origin", "http://evil.example")], ""), 403, "bad-origin"),
            (request("PUT", "/api/v1/echo", &[HOST], "{}"), 415, "unsupported-media-type"),
            (
                request("PUT", "/api/v1/echo", &[HOST, ("content-type", "text/plain")], "{}"),
                415,
                "unsupported-media-type",
            ),
            (request("PUT", "/api/v1/echo", &[HOST, json], &"x".repeat((1 << 20) + 1)), 413, "body-too-large"),
            (request("POST", "/api/v1/echo", &[HOST, ("idempotency-key", "")], ""), 400, "bad-request"),
        ] {
            assert_eq!(refusal(request).await, (status, slug.to_owned()));
        }
        let mut remote = request("GET", "/api/v1/status", &[HOST], "");
        remote.extensions_mut().insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 9], 1))));
        assert_eq!(refusal(remote).await, (401, "unauthorized".to_owned()));
    }

    #[tokio::test]
    async fn what_is_allowed_passes() {
        let toy = toy();
        for (request, wanted) in [
            (request("GET", "/api/v1/status", &[("host", "weir.example.com")], ""), "status"),
            (request("POST", "/api/v1/echo", &[HOST], ""), ""),
            (request("PUT", "/api/v1/echo", &[HOST, ("content-type", "application/json")], "{}"), "{}"),
            (request("POST", "/api/v1/config/check", &[HOST], "a = 1"), "a = 1"),
            (request("GET", "/livez", &[("host", "anything.example")], ""), "alive"),
            (request("GET", "/livez", &[], ""), "alive"),
        ] {
            let (status, headers, body) = send(&toy, request).await;
            assert_eq!((status, body.as_str()), (200, wanted));
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert!(!headers.contains_key("access-control-allow-origin"));
        }
        let (_, headers, _) = send(&toy, request("PATCH", "/api/v1/status", &[HOST], "")).await;
        assert_eq!(headers["allow"], "GET,HEAD");
    }

    #[tokio::test]
    async fn a_key_replays_over_the_wire() {
        let toy = toy();
        let post = |body: &str| {
            request(
                "POST",
                "/api/v1/echo",
                &[HOST, ("content-type", "application/json"), ("idempotency-key", "k")],
                body,
            )
        };
        assert_eq!(send(&toy, post("1")).await.2, "1");
        let (status, headers, body) = send(&toy, post("1")).await;
        assert_eq!((status, body.as_str(), headers["idempotency-replayed"].to_str().unwrap()), (200, "1", "true"));
        assert_eq!(send(&toy, post("2")).await.0, 422);
    }

    #[test]
    fn the_document_is_openapi_3_1_and_lists_every_call() {
        let document = serde_json::to_value(openapi()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let mut calls: Vec<String> = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let methods =
                item.as_object().unwrap().keys().filter(|k| ["get", "put", "post", "delete"].contains(&k.as_str()));
            calls.extend(methods.map(|method| format!("{method} {}", path.trim_start_matches("/api/v1"))));
        }
        calls.sort();
        assert_eq!(
            calls,
            [
                "delete /splits/{split}/override",
                "get /config",
                "get /config/schema",
                "get /history",
                "get /livez",
                "get /metrics",
                "get /readyz",
                "get /rollouts",
                "get /rollouts/{id}/receipt",
                "get /splits",
                "get /splits/{split}",
                "get /splits/{split}/rollout",
                "get /splits/{split}/stats",
                "get /splits/{split}/versions/{version}/drain",
                "get /status",
                "post /config/check",
                "post /config/reload",
                "post /splits/{split}/rollback",
                "post /splits/{split}/rollout",
                "post /splits/{split}/rollout/{action}",
                "post /splits/{split}/versions/{version}/drain",
                "post /splits/{split}/versions/{version}/undrain",
                "post /upgrade",
                "put /splits/{split}/weights",
            ]
        );
    }

    #[test]
    fn every_reference_of_the_document_resolves() {
        let document = serde_json::to_value(openapi()).unwrap();
        let mut references = Vec::new();
        collect_references(&document, &mut references);
        assert!(references.contains(&"#/components/schemas/Problem".to_owned()), "{references:?}");
        for reference in references {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }

    fn collect_references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|v| collect_references(v, found));
            }
            Value::Array(list) => list.iter().for_each(|v| collect_references(v, found)),
            _ => {}
        }
    }
}
