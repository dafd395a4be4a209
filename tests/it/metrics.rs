//! `/metrics`: valid text, the promised names, and numbers that agree with what clients saw.

use std::collections::BTreeMap;

use crate::support::{Admin, Conf, Gate, Origin, Weir, free_address, wait_until};

struct Scrape {
    types: BTreeMap<String, String>,
    /// Series as written, `name{labels}`, and its value.
    series: BTreeMap<String, f64>,
}

/// Parses the text format strictly enough to notice nonsense.
#[track_caller]
fn scrape(admin: Admin) -> Scrape {
    let answer = admin.get("/metrics");
    assert_eq!(answer.status(), 200);
    assert!(answer.head.get("content-type").unwrap().starts_with("text/plain"), "{}", answer.head.raw);
    let mut scrape = Scrape { types: BTreeMap::new(), series: BTreeMap::new() };
    for line in answer.text().lines().filter(|l| !l.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(scrape.series.insert(series.to_owned(), value).is_none(), "{series} twice");
        }
    }
    scrape
}

#[test]
fn the_promised_names_are_there() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::two((90, origin.address), (10, origin.address)));
    let mut client = weir.connect();
    for _ in 0..200 {
        client.get("/").unwrap();
    }
    let requests = || weir.admin.metric("weir_requests_total", &[]).unwrap_or_default();
    wait_until("the requests are counted", || requests() == 200.0);
    let scrape = scrape(weir.admin);
    for (name, kind) in [
        ("weir_requests_total", "counter"),
        ("weir_request_duration_seconds", "histogram"),
        ("weir_upstream_duration_seconds", "histogram"),
        ("weir_requests_in_flight", "gauge"),
        ("weir_version_weight_ratio", "gauge"),
        ("weir_version_file_weight_ratio", "gauge"),
        ("weir_split_override", "gauge"),
        ("weir_split_held", "gauge"),
        ("weir_split_revision", "gauge"),
        ("weir_endpoint_up", "gauge"),
        ("weir_endpoint_draining", "gauge"),
        ("weir_endpoint_requests_in_flight", "gauge"),
        ("weir_connections", "gauge"),
        ("weir_config_last_reload_successful", "gauge"),
        ("weir_config_last_reload_success_timestamp_seconds", "gauge"),
        ("weir_state_persisted", "gauge"),
        ("weir_build_info", "gauge"),
        ("weir_responses_total", "counter"),
        ("process_start_time_seconds", "gauge"),
    ] {
        assert_eq!(scrape.types.get(name).map(String::as_str), Some(kind), "{name} among {:?}", scrape.types.keys());
    }
}

#[test]
fn buckets_are_exact_and_hold_every_request() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    for _ in 0..50 {
        client.get("/").unwrap();
    }
    let count = || weir.admin.metric("weir_request_duration_seconds_count", &[("version", "v1")]);
    wait_until("all are counted", || count() == Some(50.0));
    let scrape = scrape(weir.admin);
    let buckets = scrape.series.iter().filter(|(s, _)| s.starts_with("weir_request_duration_seconds_bucket"));
    let mut bounds: Vec<(f64, f64)> = buckets
        .map(|(series, value)| {
            let le = series.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
            (le.replace("+Inf", "inf").parse().unwrap(), *value)
        })
        .collect();
    bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let les: Vec<f64> = bounds.iter().map(|b| b.0).collect();
    let expected =
        [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, f64::INFINITY];
    assert_eq!(les, expected);
    assert!(bounds.windows(2).all(|w| w[0].1 <= w[1].1), "cumulative: {bounds:?}");
    assert_eq!(bounds.last().unwrap().1, 50.0);
    let sum = weir.admin.metric("weir_request_duration_seconds_sum", &[("version", "v1")]).unwrap();
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
}

#[test]
fn requests_are_counted_by_version_and_code() {
    let origin = Origin::scripted(|exchange| {
        let status = exchange.head.target()[1..].to_owned();
        exchange.answer(&format!("{status} X"), "", b"")
    });
    let conf =
        Conf::two((1, origin.address), (0, free_address())).routes("[[routes]]\nname = \"main\"\nsplit = \"shop\"");
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    for path in ["/200", "/200", "/404", "/500", "/503"] {
        client.get(path).unwrap();
    }
    weir.admin.shift(0, 1);
    assert_eq!(client.get("/200").unwrap().status(), 502);
    let count = |version, code| {
        weir.admin.metric(
            "weir_requests_total",
            &[("route", "main"), ("split", "shop"), ("version", version), ("code", code)],
        )
    };
    wait_until("all are counted", || {
        count("v1", "200") == Some(2.0)
            && ["404", "500", "503"].iter().all(|code| count("v1", code) == Some(1.0))
            && count("v2", "502") == Some(1.0)
    });
    weir.admin.wait_metric("weir_errors_total", &[("version", "v1"), ("reason", "status")], 2.0);
    weir.admin.wait_metric("weir_errors_total", &[("version", "v2"), ("reason", "connect")], 1.0);
}

#[test]
fn gauges_follow_weights_and_work_in_flight() {
    let gate = Gate::default();
    let origin = Origin::gated("v1", &gate);
    let weir = Weir::start(&Conf::two((90, origin.address), (10, free_address())));
    let ratio = |name, version| weir.admin.metric(name, &[("split", "shop"), ("version", version)]);
    wait_until("the file's weights", || ratio("weir_version_weight_ratio", "v2") == Some(0.1));
    weir.admin.rollback();
    wait_until("the rollback", || ratio("weir_version_weight_ratio", "v1") == Some(1.0));
    assert_eq!(ratio("weir_version_file_weight_ratio", "v1"), Some(0.9));
    let revision = weir.admin.shop()["revision"].as_f64().unwrap();
    for (name, value) in [("weir_split_held", 1.0), ("weir_split_override", 1.0), ("weir_split_revision", revision)] {
        weir.admin.wait_metric(name, &[("split", "shop")], value);
    }
    weir.admin.wait_metric("weir_rollbacks_total", &[("source", "api")], 1.0);
    let mut client = weir.connect();
    client.send("GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    wait_until("one in flight", || ratio("weir_requests_in_flight", "v1") == Some(1.0));
    weir.admin.wait_metric("weir_endpoint_requests_in_flight", &[("version", "v1")], 1.0);
    weir.admin.wait_metric("weir_connections", &[("listener", "web")], 1.0);
    gate.open();
    client.answer(false).unwrap();
    wait_until("none in flight", || ratio("weir_requests_in_flight", "v1") == Some(0.0));
    drop(client);
    weir.admin.wait_metric("weir_connections", &[("listener", "web")], 0.0);
    weir.admin.post("/api/v1/splits/shop/versions/v1/drain", serde_json::json!({}));
    weir.admin.wait_metric("weir_endpoint_draining", &[("version", "v1")], 1.0);
}
