//! Active checks: what a version's check comes to, and what is said about mistakes.

use std::time::Duration;

use http::Method;

use super::tests::{and, check, problems};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// The good file with these lines in `[splits.shop]`, its versions' extra keys, and lines behind it.
fn file(split: &str, v1: &str, more: &str) -> String {
    let text = and(&format!("[splits.shop]\n{split}\n{more}"));
    text.replacen("weight = 90,", &format!("weight = 90, {v1}"), 1)
}

/// The checks of `v1` and `v2`; the file must be faultless, and `effective` able to say it again.
fn checks(text: &str) -> [Option<HealthCheck>; 2] {
    let loaded = check(text);
    let config = loaded.config.unwrap_or_else(|| panic!("{text}\n{}", loaded.report.text(false)));
    assert!(loaded.report.diagnostics.is_empty(), "{}", loaded.report.text(false));
    assert_eq!(check(&effective(&config)).config.as_ref(), Some(&config), "{}", effective(&config));
    [0, 1].map(|i| config.splits[0].versions[i].health.as_deref().cloned())
}

fn http(path: &str) -> HttpCheck {
    HttpCheck {
        path: path.parse().unwrap(),
        method: Method::GET,
        host: None,
        headers: Vec::new(),
        expect: Statuses(vec![(200, 399)]),
    }
}

fn with_defaults(kind: HealthKind) -> Option<HealthCheck> {
    let (healthy_after, unhealthy_after) = (2, 3);
    Some(HealthCheck { kind, interval: 5 * SECOND, timeout: 2 * SECOND, healthy_after, unhealthy_after })
}

#[test]
fn off_until_a_path_is_given_and_then_as_in_the_reference() {
    assert_eq!(checks(&file("", "", "")), [None, None]);
    let page = with_defaults(HealthKind::Http(http("/healthz")));
    assert_eq!(checks(&file("health = { path = \"/healthz\" }", "", "")), [page.clone(), page.clone()]);
    assert_eq!(checks(&file("", "", "[defaults.health]\npath = \"/healthz\"")), [page.clone(), page]);
    assert_eq!(checks(&file("", "", "[defaults.health]\ninterval = \"1s\"")), [None, None]);
}

#[test]
fn every_key_is_read() {
    let keys = r#"health = { path = "/h?a=1", method = "head", host = "shop.test:81", headers = { X-A = "${HOME}" }, expect = "200, 204-206,301", interval = "10ms", timeout = "1s", healthy_after = 1, unhealthy_after = 9 }"#;
    let [Some(found), _] = checks(&file(keys, "", "")) else { panic!("no check") };
    assert_eq!((found.interval, found.timeout), (Duration::from_millis(10), SECOND));
    assert_eq!((found.healthy_after, found.unhealthy_after), (1, 9));
    let HealthKind::Http(http) = found.kind else { panic!("not http") };
    assert_eq!((http.path.as_str(), &http.method), ("/h?a=1", &Method::HEAD));
    assert_eq!(http.host.as_ref().map(|h| h.as_str()), Some("shop.test:81"));
    assert_eq!((http.headers[0].0.as_str(), http.headers[0].1.as_bytes()), ("x-a", &b"/home/op"[..]));
    assert_eq!(http.expect.to_string(), "200,204-206,301");
    assert!([200, 205, 301].iter().all(|s| http.expect.contains(*s)) && !http.expect.contains(207));
}

#[test]
fn a_version_takes_over_what_means_the_same_for_its_kind() {
    let split = "health = { path = \"/healthz\", expect = \"200\", interval = \"1s\" }";
    let [v1, v2] = checks(&file(split, "health = { kind = \"tcp\" },", ""));
    assert_eq!((v1.as_ref().unwrap().kind.clone(), v1.unwrap().interval), (HealthKind::Tcp, SECOND));
    let expect = Statuses(vec![(200, 200)]);
    assert_eq!(v2.unwrap().kind, HealthKind::Http(HttpCheck { expect: expect.clone(), ..http("/healthz") }));
    let [v1, _] = checks(&file(split, "health = { path = \"/other\", timeout = \"3s\" },", ""));
    let v1 = v1.unwrap();
    assert_eq!((v1.kind, v1.timeout), (HealthKind::Http(HttpCheck { expect, ..http("/other") }), 3 * SECOND));
    assert_eq!(checks(&file(split, "health = { kind = \"off\" },", ""))[0], None);
    let [v1, v2] = checks(&file("health = { kind = \"grpc\", service = \"shop\" }", "health = { path = \"/\" },", ""));
    assert_eq!(v1.unwrap().kind, HealthKind::Http(http("/")));
    let grpc = GrpcCheck { service: "shop".into(), host: None, headers: Vec::new() };
    assert_eq!(v2.unwrap().kind, HealthKind::Grpc(grpc));
    let defaults = "[defaults.health]\npath = \"/d\"\ninterval = \"7s\"";
    let [v1, _] = checks(&file("health = { kind = \"tcp\" }", "", defaults));
    assert_eq!((v1.as_ref().unwrap().kind.clone(), v1.unwrap().interval), (HealthKind::Tcp, 7 * SECOND));
}

#[test]
fn mistakes_are_told_once_and_where_they_are_written() {
    let at = "splits.shop.health";
    for (keys, expected) in [
        ("path = \"healthz\"", format!("out-of-range 9:19 {at}.path")),
        ("path = \"/a#b\"", format!("out-of-range 9:19 {at}.path")),
        ("path = \"/\", expect = \"2xx\"", format!("out-of-range 9:33 {at}.expect")),
        ("path = \"/\", expect = \"399-200\"", format!("out-of-range 9:33 {at}.expect")),
        ("path = \"/\", expect = \"600\"", format!("out-of-range 9:33 {at}.expect")),
        ("path = \"/\", expect = 200", format!("wrong-type 9:33 {at}.expect")),
        ("path = \"/\", method = \"CONNECT\"", format!("out-of-range 9:33 {at}.method")),
        ("path = \"/\", host = \"a b\"", format!("out-of-range 9:31 {at}.host")),
        ("path = \"/\", headers = { Host = \"a\" }", format!("unknown-key 9:36 {at}.headers.Host")),
        ("path = \"/\", headers = { te = \"a\" }", format!("out-of-range 9:36 {at}.headers.te")),
        ("path = \"/\", interval = \"9ms\"", format!("out-of-range 9:35 {at}.interval")),
        ("path = \"/\", timeout = \"0s\"", format!("out-of-range 9:34 {at}.timeout")),
        ("path = \"/\", healthy_after = 0", format!("out-of-range 9:40 {at}.healthy_after")),
        ("kind = \"http\"", format!("missing-key 9:1 {at}")),
        ("kind = \"tcp\", path = \"/\"", format!("unknown-key 9:26 {at}.path")),
        ("kind = \"grpc\", expect = \"200\"", format!("unknown-key 9:27 {at}.expect")),
        ("path = \"/\", service = \"a\"", format!("unknown-key 9:24 {at}.service")),
        ("kind = \"icmp\"", format!("unknown-name 9:19 {at}.kind")),
        ("pth = \"/\"", format!("unknown-key 9:12 {at}.pth")),
    ] {
        let text = file(&format!("health = {{ {keys} }}"), "", "");
        assert_eq!(problems(&text), [expected], "{text}\n{}", check(&text).report.text(false));
    }
    let inherited = file("", "", "[defaults.health]\npath = \"x\"");
    assert_eq!(problems(&inherited), ["out-of-range 11:8 defaults.health.path"]);
    let grpc = file("health = { kind = \"grpc\" }", "protocol = \"http1\",", "");
    assert_eq!(problems(&grpc), ["out-of-range 6:32 splits.shop.versions.v1.protocol"]);
}

#[test]
fn a_check_that_is_missing_is_told_of() {
    let page = "health = { path = \"/\" },";
    assert_eq!(problems(&file("", page, "")), ["no-health-check 7:1 splits.shop.versions.v2"]);
    assert_eq!(problems(&file("health = { interval = \"1s\" }", "", "")), ["no-health-check 9:1 splits.shop.health"]);
    let v2 = "v2 = { weight = 10,";
    let off = file("", page, "").replacen(v2, &format!("{v2} health = {{ kind = \"off\" }},"), 1);
    for text in [file("", "", ""), file("health = { kind = \"off\" }", "", ""), off] {
        assert_eq!(problems(&text), [""; 0], "{text}");
    }
    let two = file("", "", "").replacen("[\"127.0.0.1:9001\"]", "[\"127.0.0.1:9001\", \"127.0.0.1:9003\"]", 1);
    assert_eq!(problems(&two), [""; 0], "ejection looks after them");
}
