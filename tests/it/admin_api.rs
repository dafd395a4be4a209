//! The admin API: every change is checked, conditional, told, and refused from foreign pages.

use serde_json::{Value, json};

use crate::support::{Answer, Conf, Origin, Weir};

const WEIGHTS: &str = "/api/v1/splits/shop/weights";

fn start() -> (Weir, Origin) {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::two((90, origin.address), (10, origin.address)));
    (weir, origin)
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, name: &str) -> Value {
    assert_eq!(answer.status(), status, "{}{}", answer.head.raw, answer.text());
    assert_eq!(answer.head.get("content-type"), Some("application/problem+json"), "{}", answer.head.raw);
    let problem = answer.json();
    assert_eq!(problem["type"], format!("/problems/{name}"), "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    problem
}

#[test]
fn a_shift_answers_with_the_split_as_it_is_now() {
    let (weir, _origin) = start();
    let shop = weir.admin.shift(75, 25);
    assert_eq!(shop["name"], "shop");
    assert_eq!(shop["weights"], json!({"v1": 75, "v2": 25}));
    assert_eq!(shop["file_weights"], json!({"v1": 90, "v2": 10}));
    assert_eq!((&shop["changed"], &shop["persisted"]), (&json!(true), &json!(true)));
    assert_eq!((shop["state"].as_str(), shop["source"].as_str()), (Some("shifted"), Some("api")));
    assert_eq!((shop["stable"].as_str(), shop["rollback_to"].as_str()), (Some("v1"), Some("v1")));
    let over = &shop["override"];
    assert_eq!((&over["hold"], over["reason"].as_str()), (&json!(false), Some("test")), "{over}");
    assert!(over["by"].as_str().is_some_and(|by| !by.is_empty()), "{over}");
    assert!(over["at"].as_str().unwrap().ends_with('Z'), "{over}");
    let v2 = &shop["versions"][1];
    assert_eq!((v2["name"].as_str(), &v2["weight"], &v2["share"]), (Some("v2"), &json!(25), &json!(0.25)), "{v2}");
    assert_eq!((v2["state"].as_str(), v2["endpoints"][0]["state"].as_str()), (Some("open"), Some("up")), "{v2}");
    let again = weir.admin.shift(75, 25);
    assert_eq!((&again["changed"], &again["revision"]), (&json!(false), &shop["revision"]), "nothing changed");
}

#[test]
fn revisions_guard_against_others() {
    let (weir, _origin) = start();
    let shop = weir.admin.get("/api/v1/splits/shop");
    let etag = shop.head.get("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", shop.json()["revision"]));
    let put = |etag: &str, v1: u32| {
        let body = json!({"weights": {"v1": v1, "v2": 100 - v1}}).to_string();
        weir.admin.ask("PUT", WEIGHTS, &format!("If-Match: {etag}\r\n"), Some(&body))
    };
    let answer = put(&etag, 80);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_ne!(answer.head.get("etag"), Some(etag.as_str()));
    assert_problem(&put(&etag, 70), 412, "revision-changed");
    assert_eq!(weir.admin.weights(), (80, 20));
    assert_eq!(put(answer.head.get("etag").unwrap(), 60).status(), 200);
    assert_eq!(put("*", 50).status(), 200);
}

#[test]
fn wrong_weights_are_refused_and_change_nothing() {
    let (weir, _origin) = start();
    let put = |weights: Value| weir.admin.put(WEIGHTS, json!({"weights": weights}));
    let problem = assert_problem(&put(json!({"v1": 50, "v9": 50})), 422, "unknown-version");
    assert_eq!(problem["allowed"], json!(["v1", "v2"]));
    for weights in
        [json!({"v1": 100}), json!({"v1": 0, "v2": 0}), json!({"v1": -1, "v2": 2}), json!({"v1": 1_000_001, "v2": 1})]
    {
        let answer = put(weights.clone());
        assert!(matches!(answer.status(), 400 | 422), "{weights}: {}", answer.text());
        assert_eq!(answer.head.get("content-type"), Some("application/problem+json"));
    }
    assert_problem(&put(json!({"v1": 0, "v2": 0})), 422, "bad-weights");
    assert_problem(&put(json!({"v1": 100})), 422, "bad-weights");
    assert_problem(&weir.admin.ask("PUT", WEIGHTS, "", Some("{not json")), 400, "bad-json");
    assert_problem(&weir.admin.put("/api/v1/splits/nope/weights", json!({"weights": {"v1": 1}})), 404, "unknown-split");
    assert_problem(&weir.admin.get("/api/v1/splits/nope"), 404, "unknown-split");
    let unknown = weir.admin.put(WEIGHTS, json!({"weights": {"v1": 1, "v2": 1}, "wieght": 1}));
    assert!(matches!(unknown.status(), 400 | 422), "an unknown key is told: {}", unknown.text());
    assert_eq!(weir.admin.weights(), (90, 10));
}

#[test]
fn a_dry_run_does_nothing() {
    let (weir, _origin) = start();
    let revision = weir.admin.shop()["revision"].clone();
    let answer = weir.admin.put(&format!("{WEIGHTS}?dry_run=true"), json!({"weights": {"v1": 1, "v2": 1}}));
    assert_eq!(
        (answer.status(), &answer.json()["weights"]["v1"]),
        (200, &json!(1)),
        "what would be: {}",
        answer.text()
    );
    let answer = weir.admin.post("/api/v1/splits/shop/rollback?dry_run=true", json!({}));
    assert_eq!((answer.status(), &answer.json()["weights"]["v2"]), (200, &json!(0)), "{}", answer.text());
    let answer = weir.admin.post("/api/v1/splits/shop/versions/v2/drain?dry_run=true", json!({}));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let shop = weir.admin.shop();
    assert_eq!((weir.admin.weights(), &shop["revision"], &shop["state"]), ((90, 10), &revision, &json!("steady")));
    assert_eq!(shop["versions"][1]["state"], "open");
}

#[test]
fn foreign_pages_are_refused() {
    let (weir, _origin) = start();
    let body = json!({"weights": {"v1": 1, "v2": 1}}).to_string();
    let put = |fields: &str| weir.admin.ask("PUT", WEIGHTS, fields, Some(&body));
    assert_eq!(put("Host: evil.example\r\n").status(), 403);
    assert_problem(&put("Origin: http://evil.example\r\n"), 403, "bad-origin");
    assert_problem(&put("Origin: null\r\n"), 403, "bad-origin");
    assert_eq!(weir.admin.ask("GET", "/api/v1/status", "Host: evil.example\r\n", None).status(), 403);
    let simple = put("Content-Type: text/plain\r\n");
    assert!((400..500).contains(&simple.status()), "a cross-site form can send text/plain: {}", simple.head.raw);
    assert_eq!(weir.admin.weights(), (90, 10));
    let own = put(&format!("Origin: http://{}\r\n", weir.admin.address));
    assert_eq!(own.status(), 200, "{}", own.text());
    assert!(!own.head.has("access-control-allow-origin"));
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(weir.admin.ask("GET", path, "Host: scraper.example\r\n", None).status(), 200, "{path}");
    }
    let port = weir.admin.address.port();
    assert_eq!(weir.admin.ask("GET", "/api/v1/status", &format!("Host: localhost:{port}\r\n"), None).status(), 200);
}

#[test]
fn an_override_is_held_and_released() {
    let (weir, _origin) = start();
    let answer = weir.admin.put(WEIGHTS, json!({"weights": {"v1": 40, "v2": 60}, "hold": true, "reason": "try"}));
    assert_eq!((answer.status(), answer.json()["state"].as_str()), (200, Some("held")), "{}", answer.text());
    let answer = weir.admin.delete("/api/v1/splits/shop/override");
    assert_eq!((answer.status(), weir.admin.weights()), (200, (90, 10)), "{}", answer.text());
    assert!(answer.json()["override"].is_null(), "{}", answer.text());
}

#[test]
fn history_says_who_when_why_from_to() {
    let (weir, _origin) = start();
    weir.admin.shift(80, 20);
    weir.admin.rollback();
    weir.admin.delete("/api/v1/splits/shop/override");
    let history = weir.admin.json("/api/v1/history?split=shop&limit=3");
    let list = history.as_array().or_else(|| history["entries"].as_array()).or_else(|| history["history"].as_array());
    let list = list.unwrap_or_else(|| panic!("{history}"));
    assert_eq!(list.len(), 3, "{history}");
    let revisions: Vec<u64> = list.iter().map(|e| e["revision"].as_u64().unwrap()).collect();
    assert!(revisions[0] > revisions[1] && revisions[1] > revisions[2], "newest first: {history}");
    assert_eq!(list[2]["from"], json!({"v1": 90, "v2": 10}), "{history}");
    assert_eq!(list[2]["to"], json!({"v1": 80, "v2": 20}), "{history}");
    assert_eq!((list[2]["reason"].as_str(), list[2]["source"].as_str()), (Some("test"), Some("api")), "{history}");
    assert!(list.iter().all(|e| e["by"].is_string() && e["at"].is_string()), "{history}");
    let before = weir.admin.json(&format!("/api/v1/history?limit=1&before={}", revisions[1])).to_string();
    assert!(before.contains(&format!("\"revision\":{}", revisions[2])), "{before}");
}

#[test]
fn views_list_what_there_is() {
    let (weir, _origin) = start();
    let mut client = weir.connect();
    for _ in 0..50 {
        client.get("/").unwrap();
    }
    let status = weir.admin.json("/api/v1/status");
    assert!(status.to_string().contains("\"shop\""), "{status}");
    let splits = weir.admin.json("/api/v1/splits").to_string();
    assert!(splits.contains("\"shop\"") && splits.contains("\"v2\""), "{splits}");
    let config = weir.admin.get("/api/v1/config");
    assert_eq!(config.status(), 200);
    assert!(config.text().contains("shop"), "{}", config.text());
    crate::support::wait_until("the counts are in", || {
        let stats = weir.admin.json("/api/v1/splits/shop/stats?window=1m");
        let text = stats.to_string();
        let of = |v: &Value| v["requests"].as_u64().or_else(|| v["stats"]["requests"].as_u64()).unwrap_or(0);
        let versions = stats["versions"].as_array().cloned().unwrap_or_default();
        text.contains("p99_ms") && versions.iter().map(of).sum::<u64>() == 50
    });
    assert_eq!(weir.admin.get("/api/v1/config/schema").status(), 200);
    assert_eq!(weir.admin.get("/api/v1/nowhere").status(), 404);
    assert_eq!(weir.admin.ask("PATCH", "/api/v1/status", "", None).status(), 405);
}

#[test]
fn the_open_api_page_lists_the_routes() {
    let (weir, _origin) = start();
    let api = weir.admin.json("/api/v1/openapi.json");
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"), "{}", api["openapi"]);
    let paths = api["paths"].as_object().unwrap();
    let has = |path: &str, method: &str| {
        let plain =
            |p: &str| p.split('/').map(|s| if s.starts_with('{') { "{}" } else { s }).collect::<Vec<_>>().join("/");
        let full = format!("/api/v1{path}");
        paths.iter().any(|(p, item)| (plain(p) == plain(&full) || plain(p) == plain(path)) && item[method].is_object())
    };
    for (method, path) in [
        ("get", "/status"),
        ("get", "/splits"),
        ("get", "/splits/{s}"),
        ("get", "/splits/{s}/stats"),
        ("put", "/splits/{s}/weights"),
        ("post", "/splits/{s}/rollback"),
        ("delete", "/splits/{s}/override"),
        ("post", "/splits/{s}/versions/{v}/drain"),
        ("get", "/splits/{s}/versions/{v}/drain"),
        ("post", "/splits/{s}/versions/{v}/undrain"),
        ("get", "/history"),
        ("get", "/config"),
        ("post", "/config/check"),
        ("post", "/config/reload"),
    ] {
        assert!(has(path, method), "{method} {path} is not in {:?}", paths.keys());
    }
}

#[test]
fn what_is_not_built_yet_answers_so() {
    let (weir, _origin) = start();
    let answer = weir.admin.get("/api/v1/events");
    assert!(matches!(answer.status(), 404 | 501), "{}", answer.head.raw);
    assert!(answer.text().contains("not-yet"), "{}", answer.text());
}
