//! Who gets which version, and other attempts: what is written, what comes of it, and what is said about mistakes.

use std::time::Duration;

use http::{HeaderName, Method};

use super::*;
use crate::model::Weight;

const GOOD: &str = r#"[listeners.web]
bind = "127.0.0.1:8080"
[[routes]]
split = "shop"
[splits.shop.versions]
v1 = { weight = 90, endpoints = ["127.0.0.1:9001"] }
v2 = { weight = 10, endpoints = ["127.0.0.1:9002"] }
[splits.shop]
"#;

const SECOND: Duration = Duration::from_secs(1);

/// The good file with these lines in `[splits.shop]`.
fn shop(lines: &str) -> String {
    format!("{GOOD}{lines}\n")
}

fn rule(lines: &str) -> String {
    shop(&format!("[[splits.shop.rules]]\nname = \"r\"\nmatch = {{ path = \"/\" }}\n{lines}"))
}

fn load(text: &str) -> Loaded {
    check_text("weir.toml", text, &|_| None)
}

/// The split of a text without problems, which `effective` must be able to say again.
fn split(text: &str) -> Split {
    let loaded = load(text);
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.text(false)));
    assert!(loaded.report.diagnostics.is_empty(), "{}", loaded.report.text(false));
    assert_eq!(load(&effective(&config)).config.as_ref(), Some(&config), "{}", effective(&config));
    config.splits[0].clone()
}

/// `code key: label; help` of the only problem.
fn problem(text: &str) -> String {
    let report = load(text).report;
    let [one] = report.diagnostics.as_slice() else { panic!("{text}\n{}", report.text(false)) };
    assert!(one.place.is_some(), "{text}");
    format!("{} {}: {}", one.code, one.key.as_deref().unwrap_or_default(), one.advice().unwrap_or_default())
}

#[test]
fn defaults_are_those_of_the_reference() {
    let split = split(GOOD);
    assert_eq!(split.sticky, None);
    assert_eq!(split.on_unavailable, OnUnavailable::Spill);
    assert_eq!(split.retries, Retries::default());
    assert_eq!(split.rules, []);
    assert_eq!(split.timeouts, UpstreamTimeouts::default());
    assert_eq!(split.drain, Drain::default());
    assert_eq!((split.versions[0].protocol, split.versions[0].host), (Protocol::Auto, HostHeader::Client));
}

#[test]
fn every_kind_of_stickiness() {
    let of = |text: &str| split(&shop(&format!("sticky = {text}"))).sticky;
    let cookie = |name: &str, ttl| Some(Sticky::Cookie { name: name.into(), ttl });
    assert_eq!(of("{}"), cookie("weir_shop", 86_400 * SECOND));
    assert_eq!(of("{ by = \"cookie\" }"), cookie("weir_shop", 86_400 * SECOND));
    assert_eq!(of("{ by = \"cookie\", name = \"c\", ttl = \"1h\" }"), cookie("c", 3600 * SECOND));
    assert_eq!(of("{ by = \"header\", name = \"X-User\" }"), Some(Sticky::Header(HeaderName::from_static("x-user"))));
    assert_eq!(of("{ by = \"client_ip\" }"), Some(Sticky::ClientIp));
}

#[test]
fn without_an_endpoint() {
    let of = |text: &str| split(&shop(text)).on_unavailable;
    assert_eq!(of("on_unavailable = \"fail\""), OnUnavailable::Fail);
    assert_eq!(of("on_unavailable = \"hold\""), OnUnavailable::Hold(Hold { timeout: 5 * SECOND, requests: 100 }));
    assert_eq!(
        of("on_unavailable = \"hold\"\nhold = { requests = 7 }"),
        OnUnavailable::Hold(Hold { timeout: 5 * SECOND, requests: 7 })
    );
    assert_eq!(of("hold = { timeout = \"9s\" }"), OnUnavailable::Spill, "bounds are no order to wait");
}

#[test]
fn retries_are_read() {
    let text = r#"retries = { attempts = 10, on = ["timeout", "599", "500", "500"], methods = ["post", "GET", "get"], budget = 0, rescue = true, body_bytes = "16MiB" }"#;
    let on = RetryOn { timeout: true, statuses: vec![500, 599], ..RetryOn::default() };
    let methods = vec![Method::POST, Method::GET];
    let expected = Retries { attempts: 10, on, methods, budget: 0.0, rescue: true, body_bytes: 16 << 20 };
    assert_eq!(split(&shop(text)).retries, expected);
    let none = split(&shop("retries = { attempts = 0, on = [], methods = [], body_bytes = \"0B\" }")).retries;
    assert_eq!((none.attempts, none.on, none.methods.len(), none.body_bytes), (0, RetryOn::default(), 0, 0));
}

#[test]
fn a_versions_protocol_and_host_and_the_splits_times() {
    let text = GOOD.replace("weight = 10,", "weight = 10, protocol = \"http2\", host = \"endpoint\",");
    let lines = "timeouts = { stall = \"30s\" }\ndrain = { timeout = \"5m\", upgraded_timeout = \"2h\" }\n";
    let split = split(&format!("{text}{lines}"));
    assert_eq!((split.versions[1].protocol, split.versions[1].host), (Protocol::Http2, HostHeader::Endpoint));
    assert_eq!(split.timeouts.stall, Some(30 * SECOND));
    let drain = Drain { timeout: 300 * SECOND, upgraded_timeout: 7200 * SECOND, slow_start: Duration::ZERO };
    assert_eq!(split.drain, drain);
}

#[test]
fn rules_keep_their_order_and_speak_in_indexes() {
    let text = shop(
        r#"[[splits.shop.rules]]
name = "testers"
match = [{ host = "a.test" }, { method = "POST" }]
version = "v2"
test = true
[[splits.shop.rules]]
name = "half"
match = {}
weights = { v2 = 1, v1 = 3 }
[[splits.shop.rules]]
name = "one"
match = { path_prefix = "/one" }
weights = { v1 = 0, v2 = 1000000 }"#,
    );
    let rules = split(&text).rules;
    let weight = |w| Weight::new(w).unwrap();
    assert_eq!(rules.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["testers", "half", "one"]);
    assert_eq!(rules[0].matches.len(), 2);
    assert_eq!((&rules[0].choice, rules[0].test), (&RuleChoice::Version(1), true));
    assert_eq!(rules[1].matches, [Match::default()]);
    let by_version = vec![(0, weight(3)), (1, weight(1))];
    assert_eq!((&rules[1].choice, rules[1].test), (&RuleChoice::Weights(by_version), false));
    assert_eq!(rules[2].choice, RuleChoice::Weights(vec![(1, weight(1_000_000))]), "0 is left out");
}

#[test]
fn a_split_overrides_the_defaults_key_by_key() {
    let with = |defaults: &str, lines: &str| split(&format!("{}[defaults]\n{defaults}\n", shop(lines)));
    let one = with("retries = { attempts = 3, budget = 0.5 }", "retries = { attempts = 2, rescue = true }").retries;
    assert_eq!(one, Retries { attempts: 2, budget: 0.5, rescue: true, ..Retries::default() });
    let hold = with("hold = { timeout = \"1s\", requests = 5 }", "on_unavailable = \"hold\"\nhold = { requests = 6 }");
    assert_eq!(hold.on_unavailable, OnUnavailable::Hold(Hold { timeout: SECOND, requests: 6 }));
    let sticky = |defaults: &str, own: &str| with(&format!("sticky = {defaults}"), own).sticky;
    let cookie = |name: &str, ttl| Some(Sticky::Cookie { name: name.into(), ttl });
    assert_eq!(sticky("{ ttl = \"1h\" }", ""), cookie("weir_shop", 3600 * SECOND), "each split has its own cookie");
    assert_eq!(sticky("{ ttl = \"1h\" }", "sticky = { name = \"c\" }"), cookie("c", 3600 * SECOND));
    assert_eq!(sticky("{ ttl = \"1h\" }", "sticky = { by = \"cookie\" }"), cookie("weir_shop", 3600 * SECOND));
    assert_eq!(sticky("{ ttl = \"1h\", name = \"c\" }", "sticky = { by = \"client_ip\" }"), Some(Sticky::ClientIp));
}

#[test]
fn mistakes_are_told_with_their_remedy() {
    for (text, expected) in [
        (
            shop("sticky = { by = \"header\" }"),
            "missing-key splits.shop.sticky.name: which header? add the header that tells users apart, for example name = \"x-user-id\"",
        ),
        (
            shop("sticky = { by = \"header\", name = \"x y\" }"),
            "out-of-range splits.shop.sticky.name: not a header's name; write the name alone, for example \"x-user-id\"",
        ),
        (
            shop("sticky = { name = \"a;b\" }"),
            "out-of-range splits.shop.sticky.name: not a token; use letters, digits, `_`, `-` and `.`, for example \"weir_shop\"",
        ),
        (
            shop("sticky = { name = \"\" }"),
            "out-of-range splits.shop.sticky.name: not a token; use letters, digits, `_`, `-` and `.`, for example \"weir_shop\"",
        ),
        (
            shop("sticky = { ttl = \"999ms\" }"),
            "out-of-range splits.shop.sticky.ttl: the browser would forget it at once; write for example \"24h\", or take `sticky` out",
        ),
        (
            shop("sticky = { by = \"client_ip\", ttl = \"1h\" }"),
            "unknown-key splits.shop.sticky.ttl: only a cookie has a life; take `ttl` out, or write by = \"cookie\"",
        ),
        (
            shop("sticky = { by = \"client_ip\", name = \"c\" }"),
            "unknown-key splits.shop.sticky.name: an address has no name; take `name` out, or write by = \"cookie\"",
        ),
        (
            shop("sticky = { by = \"cokie\" }"),
            "unknown-name splits.shop.sticky.by: did you mean `cookie`? values allowed here: cookie, header, client_ip",
        ),
        (
            shop("on_unavailable = \"wait\""),
            "unknown-name splits.shop.on_unavailable: not known here; values allowed here: spill, fail, hold",
        ),
        (
            shop("on_unavailable = \"hold\"\nhold = { timeout = \"0s\" }"),
            "out-of-range splits.shop.hold.timeout: not \"no limit\" here: waiting must end; write for example \"5s\", or on_unavailable = \"fail\"",
        ),
        (
            shop("hold = { requests = 0 }"),
            "out-of-range splits.shop.hold.requests: allowed: 1 to 1000000; write a number in this range: 1 to 1000000",
        ),
        (
            shop("retries = { attempts = 11 }"),
            "out-of-range splits.shop.retries.attempts: allowed: 0 to 10; write a number in this range: 0 to 10",
        ),
        (
            shop("retries = { budget = 1.5 }"),
            "out-of-range splits.shop.retries.budget: allowed: 0 to 1; write a number in this range: 0 to 1",
        ),
        (
            shop("retries = { on = [\"conect\"] }"),
            "unknown-name splits.shop.retries.on[0]: did you mean `connect`? values allowed here: connect, reset, timeout, and statuses from \"500\" to \"599\"",
        ),
        (
            shop("retries = { on = [\"reset\", \"404\"] }"),
            "unknown-name splits.shop.retries.on[1]: not a status from 500 to 599; values allowed here: connect, reset, timeout, and statuses from \"500\" to \"599\"",
        ),
        (
            shop("retries = { on = [\"+500\"] }"),
            "unknown-name splits.shop.retries.on[0]: not known here; values allowed here: connect, reset, timeout, and statuses from \"500\" to \"599\"",
        ),
        (
            shop("retries = { on = [502] }"),
            "wrong-type splits.shop.retries.on[0]: expected a string; write it in quotes: on = \"502\"",
        ),
        (
            shop("retries = { methods = [\"G T\"] }"),
            "unknown-name splits.shop.retries.methods[0]: not a method; write for example \"GET\"",
        ),
        (
            shop("retries = { body_bytes = \"17MiB\" }"),
            "out-of-range splits.shop.retries.body_bytes: every request in flight may take this much memory; write at most \"16MiB\"; a larger body is sent once and not tried again",
        ),
        (
            GOOD.replace("weight = 10,", "weight = 10, host = \"origin\","),
            "unknown-name splits.shop.versions.v2.host: not known here; values allowed here: client, endpoint",
        ),
        (
            rule(""),
            "missing-key splits.shop.rules[0].version: `version` is missing here; a rule needs exactly one of version, weights",
        ),
        (
            rule("version = \"v1\"\nweights = { v2 = 1 }"),
            "bad-match splits.shop.rules[0].weights: a second choice; give exactly one of version, weights",
        ),
        (rule("version = \"v9\""), "unknown-name splits.shop.rules[0].version: not known; known are: `v1` and `v2`"),
        (
            rule("weights = { v1 = 1, canary = 1 }"),
            "unknown-name splits.shop.rules[0].weights.canary: not known; known are: `v1` and `v2`",
        ),
        (
            rule("weights = { v1 = 0 }"),
            "no-weight splits.shop.rules[0].weights: nothing above 0; give at least one version a weight above 0, or take the rule out",
        ),
        (
            rule("weights = {}"),
            "no-weight splits.shop.rules[0].weights: nothing above 0; give at least one version a weight above 0, or take the rule out",
        ),
        (
            rule("weights = { v1 = 1000001 }"),
            "out-of-range splits.shop.rules[0].weights.v1: allowed: 0 to 1000000; weights are relative: smaller numbers divide as well",
        ),
        (
            shop("[[splits.shop.rules]]\nname = \"r\"\nversion = \"v1\""),
            "missing-key splits.shop.rules[0].match: `match` is missing here; add `match`",
        ),
        (
            rule("version = \"v1\"").replace("\"r\"", "\"a rule\""),
            "out-of-range splits.shop.rules[0].name: not a name; use letters, digits, `_`, `-` and `.`, for example `v1` or `shop-eu`",
        ),
        (
            format!(
                "{}{}",
                rule("version = \"v1\""),
                "[[splits.shop.rules]]\nname = \"r\"\nmatch = {}\nversion = \"v2\""
            ),
            "duplicate-name splits.shop.rules[1].name: the same name again; rename one of them; names tell rules apart in logs",
        ),
        (
            rule("version = \"v1\"").replace("path = \"/\"", "path = \"x\""),
            "bad-match splits.shop.rules[0].match.path: does not start with `/`; write \"/x\"",
        ),
    ] {
        assert_eq!(problem(&text), expected, "{}", load(&text).report.text(false));
    }
}

#[test]
fn a_flawed_version_is_not_blamed_on_the_rule_that_names_it() {
    let text = rule("version = \"v2\"").replace("weight = 10,", "weigth = 10,");
    let report = load(&text).report;
    assert_eq!(report.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), [Code::UnknownKey]);
}

#[test]
fn how_endpoints_share_requests() {
    let of = |text: &str| split(&shop(text));
    let hash = |text: &str| of(&format!("balance = \"hash\"\n{text}")).balance;
    assert_eq!(of("balance = \"round_robin\"").balance, Balance::RoundRobin);
    assert_eq!(hash(""), Balance::Hash(HashKey::ClientIp));
    assert_eq!(hash("hash = { by = \"client_ip\" }"), Balance::Hash(HashKey::ClientIp));
    let header = HashKey::Header(HeaderName::from_static("x-user"));
    assert_eq!(hash("hash = { by = \"header\", name = \"X-User\" }"), Balance::Hash(header));
    assert_eq!(hash("hash = { by = \"cookie\", name = \"sid\" }"), Balance::Hash(HashKey::Cookie("sid".into())));
    assert_eq!(of("weigh_by = \"endpoints\"").weigh_by, WeighBy::Endpoints);
    let eject = Eject { errors: 2, duration: SECOND, max_percent: 100 };
    assert_eq!(of("eject = { errors = 2, for = \"1s\", max_percent = 100 }").eject, Some(eject));
    assert_eq!(of("eject = { errors = 0 }").eject, None);
    let pool = of("pool = { queue = 7, queue_timeout = \"2s\", max_age = \"1h\" }").pool;
    assert_eq!((pool.queue, pool.queue_timeout, pool.max_age), (7, 2 * SECOND, Some(3600 * SECOND)));
    assert_eq!(of("drain = { slow_start = \"9s\" }").drain.slow_start, 9 * SECOND);
}

#[test]
fn mistakes_about_endpoints() {
    for (text, begins) in [
        ("hash = { by = \"client_ip\" }", "unknown-key splits.shop.hash: nothing is hashed"),
        ("balance = \"hash\"\nhash = { by = \"header\" }", "missing-key splits.shop.hash.name: which one?"),
        ("balance = \"hash\"\nhash = { by = \"header\", name = \"a b\" }", "out-of-range splits.shop.hash.name: "),
        ("balance = \"hash\"\nhash = { by = \"cookie\", name = \"a;\" }", "out-of-range splits.shop.hash.name: "),
        ("balance = \"hash\"\nhash = { name = \"x\" }", "unknown-key splits.shop.hash.name: an address has no name"),
        ("eject = { for = \"0s\" }", "out-of-range splits.shop.eject.for: it would be back at once"),
        ("eject = { max_percent = 0 }", "out-of-range splits.shop.eject.max_percent: "),
        ("eject = { errors = 1001 }", "out-of-range splits.shop.eject.errors: "),
        ("pool = { queue_timeout = \"0s\" }", "out-of-range splits.shop.pool.queue_timeout: not \"no limit\" here"),
    ] {
        let found = problem(&shop(text));
        assert!(found.starts_with(begins), "{text}: {found}");
    }
}
