//! `[splits.NAME.rollout]`: what is written, what comes of it, and what is said about mistakes.

use std::time::Duration;

use super::*;
use crate::model::VersionName;

const GOOD: &str = r#"[listeners.web]
bind = "127.0.0.1:8080"
[[routes]]
split = "shop"
[splits.shop.versions]
v1 = { weight = 90, endpoints = ["127.0.0.1:9001"] }
v2 = { weight = 10, endpoints = ["127.0.0.1:9002"] }
"#;

/// That of the reference.
const FULL: &str = r#"[splits.shop.rollout]
to = "v2"
strategy = "canary"
auto_start = true
steps = [{ weight = 1, for = "2m" }, { weight = 50, for = "10m", approve = true }, { weight = 100, for = "10m" }]
on_regressed = "pause"
on_inconclusive = "advance"
max_wait = "2h"
[splits.shop.rollout.analysis]
false_alarm = 0.01
errors = { ratio = 1.2, margin = 0.002, max = 0.01 }
latency = { slower = 0.3, max_p99 = "500ms" }
warm_up = "20s"
[[splits.shop.rollout.checks]]
name = "orders"
prometheus = { url = "http://prometheus:9090", query = "rate(orders_failed_total{version=\"{to}\"}[1m])" }
max = 0.5
every = "20s"
failures = 3
[[splits.shop.rollout.checks]]
name = "smoke"
at = "step"
webhook = { url = "https://ci.example.com/gate", timeout = "2s" }
[[splits.shop.rollout.checks]]
name = "smoke-local"
at = "start"
command = ["./smoke.sh", "{endpoint}"]
"#;

fn load(text: &str) -> Loaded {
    check_text("weir.toml", text, &|_| None)
}

fn shop(lines: &str) -> String {
    format!("{GOOD}[splits.shop.rollout]\n{lines}\n")
}

fn check(lines: &str) -> String {
    shop(&format!("[[splits.shop.rollout.checks]]\nname = \"smoke\"\n{lines}"))
}

/// The rollout of a text without problems, which `effective` must be able to say again.
fn rollout(text: &str) -> Rollout {
    let loaded = load(text);
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.text(false)));
    assert!(loaded.report.diagnostics.is_empty(), "{}", loaded.report.text(false));
    assert_eq!(load(&effective(&config)).config.as_ref(), Some(&config), "{}", effective(&config));
    config.splits[0].rollout.clone().unwrap()
}

/// `code key: label; help` of the only problem.
fn problem(text: &str) -> String {
    let report = load(text).report;
    let [one] = report.diagnostics.as_slice() else { panic!("{text}\n{}", report.text(false)) };
    assert!(one.place.is_some(), "{text}");
    format!("{} {}: {}", one.code, one.key.as_deref().unwrap_or_default(), one.advice().unwrap_or_default())
}

#[test]
fn an_empty_table_is_the_default() {
    assert_eq!(rollout(&shop("")), Rollout::default());
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

#[test]
fn defaults_are_those_of_the_reference() {
    let rollout = rollout(&shop(""));
    assert_eq!((rollout.to, rollout.strategy, rollout.auto_start), (None, Strategy::Canary, false));
    let weights: Vec<f64> = rollout.steps.iter().map(|s| s.weight).collect();
    assert_eq!(weights, [1.0, 5.0, 25.0, 50.0, 100.0]);
    assert!(rollout.steps.iter().all(|s| s.hold == minutes(5) && !s.approve));
    assert_eq!(rollout.on_regressed, OnRegressed::Rollback);
    assert_eq!(rollout.on_inconclusive, OnInconclusive::Hold);
    assert_eq!(rollout.max_wait, minutes(60));
    let analysis = rollout.analysis.unwrap();
    assert_eq!((analysis.false_alarm, analysis.warm_up), (0.001, Duration::from_secs(10)));
    assert_eq!(analysis.errors, ErrorsAllowed { ratio: 1.1, margin: 0.001, max: None });
    assert_eq!(analysis.latency, LatencyAllowed { slower: 0.19, max_p99: None });
    assert_eq!(rollout.checks, []);
}

#[test]
fn blue_green_is_one_switch_watched_for_ten_minutes() {
    let rollout = rollout(&shop("strategy = \"blue_green\"\nanalysis = false"));
    assert_eq!(rollout.steps, [Step { weight: 100.0, hold: minutes(10), approve: false }]);
    assert_eq!(rollout.analysis, None);
    assert_eq!(self::rollout(&shop("analysis = true")), self::rollout(&shop("")), "as if it were left out");
}

#[test]
fn everything_that_can_be_written_is_taken() {
    let rollout = rollout(&format!("{GOOD}{FULL}"));
    assert_eq!(rollout.to, Some(VersionName::new("v2").unwrap()));
    assert!(rollout.auto_start && rollout.steps[1].approve);
    assert_eq!(rollout.steps[2], Step { weight: 100.0, hold: minutes(10), approve: false });
    assert_eq!((rollout.on_regressed, rollout.on_inconclusive), (OnRegressed::Pause, OnInconclusive::Advance));
    let analysis = rollout.analysis.unwrap();
    assert_eq!(analysis.errors.max, Some(0.01));
    assert_eq!(analysis.latency.max_p99, Some(Duration::from_millis(500)));
    let found: Vec<_> = rollout.checks.iter().map(|c| (c.name.as_str(), c.at, c.every.as_secs(), c.failures)).collect();
    let expected =
        [("orders", CheckAt::Always, 20, 3), ("smoke", CheckAt::Step, 30, 1), ("smoke-local", CheckAt::Start, 30, 1)];
    assert_eq!(found, expected);
    assert_eq!(rollout.checks[2].ask, CheckKind::Command(vec!["./smoke.sh".into(), "{endpoint}".into()]));
    let CheckKind::Prometheus { min, max, .. } = &rollout.checks[0].ask else { panic!() };
    assert_eq!((*min, *max), (None, Some(0.5)));
}

#[test]
fn mistakes_are_named_with_place_and_remedy() {
    let three = GOOD.replace("v2 = {", "v3 = { endpoints = [\"127.0.0.1:9003\"] }\nv2 = {");
    for (text, expected) in [
        (shop("to = \"v3\""), "unknown-name splits.shop.rollout.to: not known; known are: `v1` and `v2`"),
        (format!("{three}[splits.shop.rollout]\n"), "missing-key splits.shop.rollout.to: `to` is missing"),
        (shop("steps = []"), "out-of-range splits.shop.rollout.steps: no step; leave `steps` out"),
        (
            shop("steps = [{ weight = 0.00001, for = \"1m\" }]"),
            "out-of-range splits.shop.rollout.steps[0].weight: too sm",
        ),
        (
            shop("steps = [{ weight = 5, for = \"1m\" }, { weight = 5, for = \"1m\" }]"),
            "out-of-range splits.shop.rollout.steps[1].weight: not above the step before; step 1 has 5",
        ),
        (shop("steps = [{ weight = 101, for = \"1m\" }]"), "out-of-range splits.shop.rollout.steps[0].weight: "),
        (shop("steps = [{ weight = 5 }]"), "missing-key splits.shop.rollout.steps[0].for: `for` is missing here"),
        (shop("steps = [{ for = \"1m\" }]"), "missing-key splits.shop.rollout.steps[0].weight: `weight` is missing"),
        (
            shop("strategy = \"blue_green\"\nsteps = [{ weight = 50, for = \"1m\" }, { weight = 100, for = \"1m\" }]"),
            "out-of-range splits.shop.rollout.steps: not one switch; write one step with weight = 100",
        ),
        (shop("analysis.false_alarm = 0"), "out-of-range splits.shop.rollout.analysis.false_alarm: not above 0"),
        (shop("analysis.errors.ratio = 0.9"), "out-of-range splits.shop.rollout.analysis.errors.ratio: "),
        (shop("analysis.errors.margin = 1"), "out-of-range splits.shop.rollout.analysis.errors.margin: not below 1"),
        (shop("analysis.errors.max = 0"), "out-of-range splits.shop.rollout.analysis.errors.max: not above 0"),
        (shop("analysis.latency.max_p99 = \"0s\""), "out-of-range splits.shop.rollout.analysis.latency.max_p99: not a"),
        (shop("on_inconclusive = \"wait\""), "unknown-name splits.shop.rollout.on_inconclusive: "),
    ] {
        let found = problem(&text);
        assert!(found.starts_with(expected), "{text}\n{found}\n{expected}");
    }
}

#[test]
fn mistakes_in_checks_are_named_with_place_and_remedy() {
    let at = |key: &str| format!("splits.shop.rollout.checks[0]{key}");
    let hook = "webhook = { url = \"https://ci/\" }";
    let prometheus = |more: &str| format!("prometheus = {{ url = \"http://p:9090\", query = \"up\" }}\n{more}");
    for (lines, expected) in [
        (String::new(), format!("missing-key {}: who is asked? add exactly one of", at(""))),
        (format!("{hook}\ncommand = [\"x\"]"), format!("unknown-key {}: a second one; keep", at(".command"))),
        (format!("{hook}\nmax = 1.0"), format!("unknown-key {}: only `prometheus` gives a number", at(".max"))),
        (prometheus(""), format!("missing-key {}: which number is good? add", at(".max"))),
        (prometheus("min = 2\nmax = 1"), format!("out-of-range {}: above `max`", at(".min"))),
        (prometheus("max = 1").replace("\"up\"", "\" \""), format!("out-of-range {}", at(".prometheus.query"))),
        (prometheus("max = 1").replace("http:", "ftp:"), format!("bad-address {}: not a URL", at(".prometheus.url"))),
        (hook.replace("https://ci/", "ci"), format!("bad-address {}: not a URL", at(".webhook.url"))),
        (hook.replace(" }", ", timeout = \"0s\" }"), format!("out-of-range {}", at(".webhook.timeout"))),
        ("webhook = {}".into(), format!("missing-key {}: `url` is missing", at(".webhook.url"))),
        ("command = []".into(), format!("out-of-range {}: nothing to run", at(".command"))),
        (format!("{hook}\nevery = \"1ms\""), format!("out-of-range {}: less than a second", at(".every"))),
        (format!("{hook}\nfailures = 0"), format!("out-of-range {}", at(".failures"))),
        (format!("{hook}\nat = \"end\""), format!("unknown-name {}", at(".at"))),
        (
            format!("{hook}\n[[splits.shop.rollout.checks]]\nname = \"smoke\"\n{hook}"),
            "duplicate-name splits.shop.rollout.checks[1].name: the same name again".into(),
        ),
    ] {
        let found = problem(&check(&lines));
        assert!(found.starts_with(&expected), "{lines}\n{found}\n{expected}");
    }
    let bad = check(hook).replace("\"smoke\"", "\"a b\"");
    assert!(problem(&bad).starts_with("out-of-range splits.shop.rollout.checks[0].name: not a name"));
}

#[test]
fn sticky_by_what_users_choose_is_warned_of() {
    for by in ["client_ip", "header\", name = \"x-user"] {
        let sticky = format!("{}[splits.shop]\nsticky = {{ by = \"{by}\" }}\n", shop(""));
        let loaded = load(&sticky);
        assert!(loaded.config.is_some(), "{}", loaded.report.text(false));
        let found = problem(&sticky);
        assert!(found.starts_with("no-comparison splits.shop.rollout: objective and checks only"), "{found}");
        let off = sticky.replace("[splits.shop.rollout]", "[splits.shop.rollout]\nanalysis = false");
        assert!(load(&off).report.diagnostics.is_empty());
    }
    let cookie = format!("{}[splits.shop]\nsticky = {{ by = \"cookie\" }}\n", shop(""));
    assert!(load(&cookie).report.diagnostics.is_empty());
}
