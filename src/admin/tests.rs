//! Whole calls: the real router over a real store in a temporary directory.

mod rollout;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderMap;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{AdminContext, LastReload, ReloadAsk, ReloadDone, ReloadResult, StatsDto, UpgradeResult};
use crate::config;
use crate::model::{Actor, Instant, ListenerName, Revision, RouteName, Source, SplitName, VersionName, Weight};
use crate::pool::{Claim, Registry};
use crate::rollout::Desk;
use crate::state::{Change, OpenOptions, Order, Store};

pub(super) const HOST: (&str, &str) = ("host", "127.0.0.1:9901");

pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let peer: SocketAddr = "127.0.0.1:40000".parse().unwrap();
    request.extension(ConnectInfo(peer)).body(Body::from(body.to_owned())).unwrap()
}

pub(super) async fn send(router: &axum::Router, request: Request) -> (u16, HeaderMap, String) {
    let response = TowerToHyperService::new(router.clone()).call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (parts.status.as_u16(), parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

/// A weir without a data plane: split `shop`, v1 90 on port 9001, v2 10 on ports 9002 and 9003.
struct House {
    router: axum::Router,
    ctx: Arc<AdminContext>,
    down: Arc<AtomicBool>,
    reload: Arc<Mutex<(Option<ReloadAsk>, ReloadResult)>>,
    dir: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        Self::with(Desk::new().0)
    }

    fn with(desk: Desk) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Arc::new(config(dir.path(), &[9002, 9003]));
        let store = Store::open(config, Arc::new(Registry::default()), &OpenOptions::default()).unwrap();
        let down = Arc::new(AtomicBool::new(false));
        let reload = Arc::new(Mutex::new((None, ReloadResult::Failed("not set".into()))));
        let ctx = Arc::new(context(store, desk, down.clone(), reload.clone()));
        Self { router: super::router(ctx.clone()), ctx, down, reload, dir }
    }

    /// Sends JSON (or nothing) and reads JSON.
    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> (u16, Value) {
        let mut all = vec![HOST];
        all.extend(body.is_some().then_some(("content-type", "application/json")));
        all.extend_from_slice(headers);
        let body = body.map_or_else(String::new, |body| body.to_string());
        let (status, _, text) = send(&self.router, request(method, &format!("/api/v1{path}"), &all, &body)).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, &[], None).await
    }

    async fn put_weights(&self, v1: u32, v2: u32, headers: &[(&str, &str)]) -> (u16, Value) {
        let body = json!({"weights": {"v1": v1, "v2": v2}, "reason": "release 42"});
        self.call("PUT", "/splits/shop/weights", headers, Some(body)).await
    }

    /// Status and slug.
    async fn refused(&self, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
        let (status, json) = self.call(method, path, &[], body).await;
        (status, slug(&json))
    }

    fn claim(&self, version: &str, endpoint: usize) -> Claim {
        let snapshot = self.ctx.store.snapshot();
        let version = snapshot.split("shop").unwrap().version(version).unwrap();
        version.pool.endpoints()[endpoint].claim(9).unwrap()
    }

    fn reload_to(&self, v2_ports: &[u16]) {
        let config = Arc::new(config(self.dir.path(), v2_ports));
        let (by, source) = (Actor("file".into()), Source::File);
        let change = Change::Reload { config };
        let order = Order { id: 1, change, by, source, reason: None, if_match: None, dry_run: false };
        self.ctx.store.apply(order).unwrap();
    }
}

fn slug(json: &Value) -> String {
    json["type"].as_str().unwrap_or_else(|| panic!("no problem: {json}")).trim_start_matches("/problems/").to_owned()
}

fn context(
    store: Store,
    rollouts: Desk,
    down: Arc<AtomicBool>,
    reload: Arc<Mutex<(Option<ReloadAsk>, ReloadResult)>>,
) -> AdminContext {
    AdminContext {
        store: Arc::new(store),
        rollouts,
        checks: crate::health::Board::default(),
        stats: Arc::new(|_, _, window| StatsDto { window_seconds: window.as_secs(), ..StatsDto::default() }),
        rule_stats: Arc::new(|_, _, _, _| StatsDto::default()),
        names: Arc::new(|_, _| Vec::new()),
        render_metrics: Arc::new(|| "weir_build_info 1\n".to_owned()),
        reload: Arc::new(move |ask| {
            let mut shared = reload.lock().unwrap();
            shared.0 = Some(ask);
            let result = shared.1.clone();
            Box::pin(async move { result })
        }),
        check: Arc::new(|text| json!([{"code": "syntax", "message": text}])),
        effective: Arc::new(|| "workers = 1\n".to_owned()),
        schema: Arc::new(|| json!({"type": "object"})),
        is_ready: Arc::new({
            let down = down.clone();
            move || if down.load(Ordering::SeqCst) { Err(vec!["shutdown".to_owned()]) } else { Ok(()) }
        }),
        last_reload: Arc::new(|| LastReload { accepted: true, at: "2026-03-01T12:00:00.000Z".into(), message: None }),
        is_shutting_down: Arc::new(move || down.load(Ordering::SeqCst)),
        upgrade: Arc::new(|_| Box::pin(async { UpgradeResult::Running })),
        elsewhere: Default::default(),
        started: Instant::now(),
    }
}

fn config(dir: &std::path::Path, v2_ports: &[u16]) -> config::Config {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let version = |name: &str, weight, ports: &[u16]| {
        let endpoints = ports.iter().map(|p| address(*p)).collect();
        config::Version::new(VersionName::new(name).unwrap(), Weight::new(weight).unwrap(), endpoints)
    };
    let shop = SplitName::new("shop").unwrap();
    let versions = vec![version("v1", 90, &[9001]), version("v2", 10, v2_ports)];
    let split = config::Split::new(shop.clone(), VersionName::new("v1").unwrap(), versions);
    config::Config {
        workers: 1,
        watch: false,
        shutdown: config::Shutdown { delay: Duration::ZERO, timeout: Duration::from_secs(25) },
        listeners: vec![config::Listener::new(ListenerName::new("web").unwrap(), address(8080))],
        routes: vec![config::Route::new(RouteName::new("route-1").unwrap(), shop)],
        splits: vec![split],
        dns: config::Dns::default(),
        admin: config::Admin { bind: address(9901), hosts: Vec::new(), state_dir: dir.to_owned() },
        telemetry: config::Telemetry {
            bind: None,
            log: config::Log {
                level: config::Level::Info,
                format: config::LogFormat::Auto,
                access: false,
                sample: 1.0,
            },
        },
        notify: Vec::new(),
    }
}

#[tokio::test]
async fn a_shift_answers_with_the_split_as_it_now_is() {
    let house = House::new();
    let before = house.get("/splits/shop").await.1["revision"].as_u64().unwrap();
    let (status, split) = house.put_weights(75, 25, &[("weir-by", "local:alice"), ("weir-source", "cli")]).await;
    assert_eq!(status, 200, "{split}");
    assert_eq!(split["weights"], json!({"v1": 75, "v2": 25}));
    assert_eq!(split["file_weights"], json!({"v1": 90, "v2": 10}));
    assert_eq!((&split["state"], &split["source"]), (&json!("shifted"), &json!("cli")));
    assert_eq!((&split["changed"], &split["persisted"]), (&json!(true), &json!(true)));
    assert_eq!(split["override"]["by"], "local:alice");
    assert_eq!(split["override"]["reason"], "release 42");
    assert_eq!(split["revision"], before + 1);
    let (status, seen) = house.get("/splits/shop").await;
    assert_eq!((status, &seen["weights"], &seen["revision"]), (200, &split["weights"], &split["revision"]));
    assert!(seen.get("changed").is_none() && seen.get("dry_run").is_none() && seen.get("rollout").is_none());

    let (status, page) = house.get("/history?split=shop&limit=1").await;
    assert_eq!(status, 200);
    let entry = &page["history"][0];
    assert_eq!(
        (&entry["kind"], &entry["by"], &entry["source"]),
        (&json!("weights"), &json!("local:alice"), &json!("cli"))
    );
    assert_eq!((&entry["to"], &entry["revision"]), (&json!({"v1": 75, "v2": 25}), &split["revision"]));
}

#[tokio::test]
async fn weights_that_cannot_be_used_are_refused_and_change_nothing() {
    let house = House::new();
    let before = house.get("/splits/shop").await.1;
    let weights = "/splits/shop/weights";
    for (body, status, wanted) in [
        (r#"{"weights":{"v1":75}}"#, 422, "bad-weights"),
        (r#"{"weights":{"v1":0,"v2":0}}"#, 422, "bad-weights"),
        (r#"{"weights":{"v1":-1,"v2":1}}"#, 422, "bad-weights"),
        (r#"{"weights":{"v1":1.5,"v2":1}}"#, 422, "bad-weights"),
        (r#"{"weights":{"v1":"1","v2":1}}"#, 422, "bad-weights"),
        (r#"{"weights":{"v1":1000001,"v2":1}}"#, 422, "bad-weights"),
        (r#"{"weights":{"v1":4294967297,"v2":1}}"#, 422, "bad-weights"),
        (r#"{"weights":{"v1":1,"v1":2,"v2":1}}"#, 422, "bad-weights"),
        (r#"{"weights":{"v1":1,"v9":1}}"#, 422, "unknown-version"),
        (r#"{"weights":{"v1":1,"a b":1}}"#, 422, "unknown-version"),
        (r#"{"weights":[1,2]}"#, 400, "bad-json"),
        (r#"{"wieghts":{"v1":1,"v2":1}}"#, 400, "bad-json"),
        (r#"{"weights":{"v1":1,"v2":1},"hold":1}"#, 400, "bad-json"),
        ("{", 400, "bad-json"),
    ] {
        let headers = [HOST, ("content-type", "application/json")];
        let (got, _, text) = send(&house.router, request("PUT", &format!("/api/v1{weights}"), &headers, body)).await;
        assert_eq!((got, slug(&serde_json::from_str(&text).unwrap()).as_str()), (status, wanted), "{body}: {text}");
    }
    let good = || Some(json!({"weights": {"v1": 1, "v2": 1}}));
    assert_eq!(house.refused("PUT", "/splits/nope/weights", good()).await, (404, "unknown-split".into()));
    assert_eq!(house.refused("PUT", weights, None).await, (400, "bad-json".into()));
    assert_eq!(house.refused("PUT", &format!("{weights}?dryrun=true"), good()).await, (400, "bad-request".into()));
    assert_eq!(house.get("/splits/shop").await.1, before);
}

#[tokio::test]
async fn an_etag_decides_who_was_first() {
    let house = House::new();
    let (_, headers, _) = send(&house.router, request("GET", "/api/v1/splits/shop", &[HOST], "")).await;
    let etag = headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(house.put_weights(80, 20, &[("if-match", &etag)]).await.0, 200);
    let (status, problem) = house.put_weights(70, 30, &[("if-match", &etag)]).await;
    assert_eq!((status, slug(&problem)), (412, "revision-changed".into()));
    let (status, problem) = house.put_weights(70, 30, &[("if-match", "17")]).await;
    assert_eq!((status, slug(&problem)), (400, "bad-request".into()));
    assert_eq!(house.get("/splits/shop").await.1["weights"], json!({"v1": 80, "v2": 20}));
    assert_eq!(house.put_weights(70, 30, &[("if-match", "*")]).await.0, 200);
}

#[tokio::test]
async fn a_dry_run_shows_and_does_nothing() {
    let house = House::new();
    let before = house.get("/splits/shop").await.1;
    for (method, path, body) in [
        ("PUT", "/splits/shop/weights?dry_run=true", Some(json!({"weights": {"v1": 1, "v2": 1}}))),
        ("POST", "/splits/shop/rollback?dry_run=true", None),
        ("POST", "/splits/shop/versions/v2/drain?dry_run=true", None),
    ] {
        let (status, split) = house.call(method, path, &[], body).await;
        assert_eq!((status, &split["dry_run"], &split["changed"]), (200, &json!(true), &json!(true)), "{split}");
        assert_ne!(split["revision"], before["revision"]);
    }
    assert_eq!(house.get("/splits/shop").await.1, before);
}

#[tokio::test]
async fn a_rollback_holds_until_released() {
    let house = House::new();
    let (status, split) = house.call("POST", "/splits/shop/rollback", &[], Some(json!({"reason": "p99 up"}))).await;
    assert_eq!((status, &split["state"]), (200, &json!("held")), "{split}");
    assert_eq!(split["weights"], json!({"v1": 100, "v2": 0}));
    assert_eq!((&split["versions"][1]["state"], &split["versions"][0]["share"]), (&json!("closed"), &json!(1.0)));
    assert_eq!(split["rollback_to"], "v1");
    let (status, again) = house.call("POST", "/splits/shop/rollback", &[], None).await;
    assert_eq!((status, &again["changed"], &again["revision"]), (200, &json!(false), &split["revision"]));
    let (status, released) = house.call("DELETE", "/splits/shop/override", &[], None).await;
    assert_eq!((status, &released["state"], &released["source"]), (200, &json!("steady"), &json!("file")));
    assert_eq!(released["weights"], json!({"v1": 90, "v2": 10}));

    let both = Some(json!({"to": "v1", "to_revision": 1}));
    assert_eq!(house.refused("POST", "/splits/shop/rollback", both).await, (400, "bad-request".into()));
    let unknown = Some(json!({"to": "v9"}));
    assert_eq!(house.refused("POST", "/splits/shop/rollback", unknown).await, (422, "unknown-version".into()));
    let unknown = Some(json!({"to_revision": 999}));
    assert_eq!(house.refused("POST", "/splits/shop/rollback", unknown).await, (422, "unknown-revision".into()));
}

#[tokio::test]
async fn a_repeated_post_is_carried_out_once() {
    let house = House::new();
    let key = [("idempotency-key", "deploy-7")];
    let (_, first) = house.call("POST", "/splits/shop/rollback", &key, None).await;
    house.call("DELETE", "/splits/shop/override", &[], None).await;
    let (status, again) = house.call("POST", "/splits/shop/rollback", &key, None).await;
    assert_eq!((status, &again), (200, &first));
    assert_eq!(house.get("/splits/shop").await.1["state"], "steady", "the repeat must not roll back again");
    let (status, other) = house.call("POST", "/splits/shop/rollback", &key, Some(json!({"to": "v2"}))).await;
    assert_eq!((status, slug(&other)), (422, "idempotency-key-reused".into()));
}

#[tokio::test]
async fn the_wait_call_returns_at_zero_and_not_before() {
    let house = House::new();
    let drain = "/splits/shop/versions/v2/drain";
    assert_eq!(house.refused("GET", drain, None).await, (409, "not-draining".into()));
    let claim = house.claim("v2", 0);
    let (status, split) = house.call("POST", drain, &[], None).await;
    assert_eq!((status, &split["versions"][1]["state"]), (200, &json!("draining")), "{split}");
    let (status, state) = house.get(drain).await;
    assert_eq!((status, &state["drained"]), (202, &json!(false)));
    assert_eq!(state["in_flight"], json!({"total": 1, "requests": 1, "streams": 0, "upgrades": 0}));
    assert_eq!(house.get(&format!("{drain}?endpoint=127.0.0.1:9003")).await.0, 200, "the other one is empty");

    let path = format!("/api/v1{drain}?wait=1h");
    let mut wait = std::pin::pin!(send(&house.router, request("GET", &path, &[HOST], "")));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut wait).await.is_err(), "returned with work left");
    assert_eq!(house.get("/splits/shop").await.0, 200, "others are answered meanwhile");
    drop(claim);
    let (status, _, text) = tokio::time::timeout(Duration::from_secs(5), wait).await.unwrap();
    assert_eq!((status, serde_json::from_str::<Value>(&text).unwrap()["drained"].clone()), (200, json!(true)));
}

#[tokio::test]
async fn a_wait_ends_with_its_time_or_with_the_drain() {
    let house = House::new();
    let drain = "/splits/shop/versions/v2/drain";
    let claim = house.claim("v2", 1);
    let body = Some(json!({"endpoint": "127.0.0.1:9003"}));
    assert_eq!(house.call("POST", drain, &[], body.clone()).await.0, 200);
    assert_eq!(house.refused("GET", drain, None).await, (409, "not-draining".into()), "9002 does not drain");
    let one = format!("{drain}?endpoint=127.0.0.1:9003");
    assert_eq!(house.get(&format!("{one}&wait=10ms")).await.0, 202);
    let path = format!("/api/v1{one}&wait=1h");
    let mut wait = std::pin::pin!(send(&house.router, request("GET", &path, &[HOST], "")));
    assert!(tokio::time::timeout(Duration::from_millis(10), &mut wait).await.is_err());
    assert_eq!(house.call("POST", "/splits/shop/versions/v2/undrain", &[], body).await.0, 200);
    let (status, _, text) = tokio::time::timeout(Duration::from_secs(5), wait).await.unwrap();
    assert_eq!((status, slug(&serde_json::from_str(&text).unwrap())), (409, "not-draining".into()));
    drop(claim);

    for (query, status, wanted) in [
        ("?endpoint=127.0.0.1:1", 404, "unknown-endpoint"),
        ("?endpoint=nonsense", 404, "unknown-endpoint"),
        ("?wait=30", 400, "bad-request"),
        ("?wait=2h", 400, "bad-request"),
        ("?wiat=30s", 400, "bad-request"),
    ] {
        assert_eq!(house.refused("GET", &format!("{drain}{query}"), None).await, (status, wanted.into()), "{query}");
    }
    let elsewhere = house.refused("GET", "/splits/shop/versions/v9/drain", None).await;
    assert_eq!(elsewhere, (422, "unknown-version".into()));
    assert_eq!(house.refused("GET", "/splits/nope/versions/v1/drain", None).await, (404, "unknown-split".into()));
}

#[tokio::test]
async fn an_endpoint_that_left_the_file_can_be_waited_for() {
    let house = House::new();
    let claim = house.claim("v2", 1);
    house.reload_to(&[9002]);
    let shown = house.get("/splits/shop").await.1;
    let left = &shown["versions"][1]["endpoints"][1];
    assert_eq!(left, &json!({"address": "127.0.0.1:9003", "state": "draining", "in_flight": 1}));
    let path = "/splits/shop/versions/v2/drain?endpoint=127.0.0.1:9003&wait=1h";
    let full = format!("/api/v1{path}");
    let mut wait = std::pin::pin!(send(&house.router, request("GET", &full, &[HOST], "")));
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut wait).await.is_err());
    drop(claim);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), wait).await.unwrap().0, 200);
    let (status, late) = house.get(path).await;
    assert_eq!((status, &late["endpoints"][0]["removed"]), (200, &json!(true)), "asked late, answered still");
    assert_eq!(house.get("/splits/shop").await.1["versions"][1]["endpoints"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_process_that_goes_down_refuses_changes_and_says_so() {
    let house = House::new();
    house.down.store(true, Ordering::SeqCst);
    assert_eq!(house.put_weights(1, 1, &[]).await.0, 503);
    assert_eq!(house.refused("POST", "/splits/shop/rollback", None).await, (503, "shutting-down".into()));
    assert_eq!(house.refused("POST", "/config/reload", None).await, (503, "shutting-down".into()));
    let (status, seen) = house.get("/status").await;
    assert_eq!((status, &seen["shutting_down"], &seen["ready"]), (200, &json!(true), &json!(false)));
    let (status, _, text) = send(&house.router, request("GET", "/readyz", &[], "")).await;
    assert_eq!((status, text.as_str()), (503, "not ready: shutdown\n"));
}

#[tokio::test]
async fn a_reload_tells_what_came_of_it() {
    let house = House::new();
    let set = |result| house.reload.lock().unwrap().1 = result;
    set(ReloadResult::Done(ReloadDone {
        revision: Revision(7),
        changed: true,
        persisted: true,
        held: vec![SplitName::new("shop").unwrap()],
        superseded: Vec::new(),
        warnings: json!([]),
    }));
    let by = [("weir-by", "local:alice")];
    let (status, done) = house.call("POST", "/config/reload?dry_run=true", &by, None).await;
    assert_eq!(status, 200);
    assert_eq!((&done["result"], &done["held"], &done["dry_run"]), (&json!("applied"), &json!(["shop"]), &json!(true)));
    let asked = house.reload.lock().unwrap().0.clone().unwrap();
    assert_eq!(asked, ReloadAsk { by: Actor("local:alice".into()), reason: None, dry_run: true });

    let diagnostics = json!([{"code": "unknown-key", "line": 7}]);
    set(ReloadResult::Invalid { text: "unknown key `wieght`".into(), diagnostics: diagnostics.clone() });
    let (status, problem) = house.call("POST", "/config/reload", &[], None).await;
    assert_eq!((status, slug(&problem), &problem["diagnostics"]), (422, "invalid-config".into(), &diagnostics));
    set(ReloadResult::HeldConflict("release it first".into()));
    assert_eq!(house.refused("POST", "/config/reload", None).await, (409, "held-conflict".into()));
    let toml = request("POST", "/api/v1/config/reload", &[HOST, ("content-type", "application/toml")], "workers = 1");
    assert_eq!(send(&house.router, toml).await.0, 400, "a text must not be taken for the file");
}

#[tokio::test]
async fn what_is_not_about_one_split() {
    let house = House::new();
    let (status, all) = house.get("/status").await;
    assert_eq!((status, &all["persisted"], &all["config"]["result"]), (200, &json!(true), &json!("ok")));
    assert_eq!(all["listeners"], json!([{"name": "web", "bind": ["127.0.0.1:8080"]}]));
    assert_eq!(all["splits"], house.get("/splits").await.1["splits"]);
    assert_eq!(house.get("/splits/shop/stats?window=5m").await.1["window_seconds"], 300);
    assert_eq!(house.refused("GET", "/splits/shop/stats?window=5", None).await, (400, "bad-request".into()));
    assert_eq!(house.refused("GET", "/history?limit=0", None).await, (400, "bad-request".into()));
    assert_eq!(house.refused("GET", "/history?split=nope", None).await, (404, "unknown-split".into()));
    assert_eq!(house.get("/config").await, (200, json!("workers = 1\n")));
    assert_eq!(house.get("/config/schema").await.1, json!({"type": "object"}));
    assert_eq!(house.get("/openapi.json").await.1["openapi"], "3.1.0");
    for later in ["/events", "/explain", "/flags", "/fleet"] {
        assert_eq!(house.refused("POST", later, None).await, (501, "not-yet".into()), "{later}");
    }
    let check = request("POST", "/api/v1/config/check", &[HOST], "a = ");
    assert_eq!(send(&house.router, check).await.2, r#"[{"code":"syntax","message":"a = "}]"#);
    for (path, start) in
        [("/", "weir"), ("/problems/bad-weights", "bad-weights (422)"), ("/metrics", "weir_build_info")]
    {
        let (status, headers, text) = send(&house.router, request("GET", path, &[HOST], "")).await;
        assert!(status == 200 && text.starts_with(start), "{path}: {text}");
        assert!(headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    }
}

#[tokio::test]
async fn the_page_of_history_leads_to_the_next() {
    let house = House::new();
    for v2 in 11..16 {
        assert_eq!(house.put_weights(100 - v2, v2, &[]).await.0, 200);
    }
    let (mut before, mut seen) = (String::new(), Vec::new());
    loop {
        let (_, page) = house.get(&format!("/history?split=shop&limit=2{before}")).await;
        seen.extend(page["history"].as_array().unwrap().iter().map(|e| e["revision"].as_u64().unwrap()));
        let Some(next) = page["next_before"].as_u64() else { break };
        before = format!("&before={next}");
    }
    assert!(seen.len() >= 5 && seen.windows(2).all(|w| w[0] > w[1]), "{seen:?}");
}

#[tokio::test]
async fn the_server_answers_over_a_socket_and_ends_when_told() {
    let house = House::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let over = async move {
        drop(stopped.await);
        super::GRACE
    };
    let server = tokio::spawn(super::serve(listener, house.router.clone(), over));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    client.write_all(get("/api/v1/splits/shop").as_bytes()).await.unwrap();
    let mut head = [0; 15];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_probe_address_serves_probes_only() {
    let house = House::new();
    let router = super::probes_router(house.ctx.clone());
    let mut remote = request("GET", "/metrics", &[("host", "prometheus.example")], "");
    remote.extensions_mut().remove::<ConnectInfo<SocketAddr>>();
    assert_eq!(send(&router, remote).await.0, 200);
    let (status, _, text) = send(&router, request("GET", "/api/v1/status", &[HOST], "")).await;
    assert_eq!((status, slug(&serde_json::from_str(&text).unwrap())), (404, "not-found".into()));
}
