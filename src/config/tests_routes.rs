//! Routes in the file: every key, what it becomes, and what is said about wrong ones.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::tests::{and, check, never_panics, problems, with};
use super::*;

/// The good file with more lines in its route.
fn route(more: &str) -> String {
    with("split = \"shop\"\n", &format!("split = \"shop\"\n{more}\n"))
}

/// The good file with another route, whose lines these are, before its own.
fn before(lines: &str) -> String {
    with("[[routes]]\n", &format!("[[routes]]\n{lines}\n[[routes]]\n"))
}

/// The first route of a file that is right.
fn first(text: &str) -> Route {
    let loaded = check(text);
    assert!(loaded.report.diagnostics.is_empty(), "{}", loaded.report.text(false));
    loaded.config.unwrap().routes.remove(0)
}

fn regex(text: &str) -> ValueMatch {
    ValueMatch::Regex(Pattern(regex::Regex::new(text).unwrap()))
}

#[test]
fn every_condition_becomes_what_requests_are_compared_with() {
    let text = before(
        r#"match = { header = { X-B = "1", x-a = { regex = "^a" } }, cookie = { plan = { present = true }, Plan = "beta" }, query = { "a b" = { present = false }, "" = "" }, client_ip = ["10.1.2.3/8", "::ffff:192.0.2.7", "10.0.0.0/8"] }
split = "shop""#,
    );
    let one = &first(&text).matches[0];
    let name = HeaderName::from_static;
    assert_eq!(one.headers, [(name("x-a"), regex("^a")), (name("x-b"), ValueMatch::Exact("1".into()))]);
    let cookies = [("Plan".to_owned(), ValueMatch::Exact("beta".into())), ("plan".to_owned(), ValueMatch::Present)];
    assert_eq!(one.cookies, cookies);
    let queries = [(String::new(), ValueMatch::Exact(String::new())), ("a b".to_owned(), ValueMatch::Absent)];
    assert_eq!(one.queries, queries);
    assert_eq!(one.client_ip, ["10.0.0.0/8", "192.0.2.7/32"].map(|n| n.parse().unwrap()));
}

#[test]
fn every_action_becomes_what_it_says() {
    let split = |strip_prefix| Action::Split { split: crate::model::SplitName::new("shop").unwrap(), strip_prefix };
    assert_eq!(first(&route("")).action, split(false));
    assert_eq!(first(&route("match = { path_prefix = \"/api/\" }\nstrip_prefix = true")).action, split(true));
    let redirect = |to: &str, code| Action::Redirect(Redirect { to: to.into(), code });
    let text = before("match = { path = \"/old\" }\nredirect = { to = \"/new{path}\" }");
    assert_eq!(first(&text).action, redirect("/new{path}", 308));
    let text = before("match = { path = \"/old\" }\nredirect = { to = \"https://a.test{path}?x=1\", code = 302 }");
    assert_eq!(first(&text).action, redirect("https://a.test{path}?x=1", 302));
    let respond = |code, body: &str| Action::Respond(Respond { code, body: body.into() });
    assert_eq!(first(&before("match = { path = \"/r\" }\nrespond = { code = 204 }")).action, respond(204, ""));
    let text = before("match = { path = \"/r\" }\nrespond = { code = 503, body = \"later\\n\" }");
    assert_eq!(first(&text).action, respond(503, "later\n"));
}

#[test]
fn edits_and_limits_become_what_they_say() {
    let edits = first(&route(
        "request_headers = { set = { X-Env = \"prod é\", host = \"a.test:80\" }, remove = [\"X-Debug\", \"x-debug\"] }",
    ));
    let set = [
        (HeaderName::from_static("x-env"), HeaderValue::from_bytes("prod é".as_bytes()).unwrap()),
        (http::header::HOST, HeaderValue::from_static("a.test:80")),
    ];
    assert_eq!(edits.request_headers.set, set);
    assert_eq!(edits.request_headers.remove, [HeaderName::from_static("x-debug")]);
    assert_eq!(edits.response_headers, HeaderEdits::default());
    let limit = |more: &str| first(&route(&format!("rate_limit = {{ {more} }}"))).rate_limit.unwrap();
    let every = Duration::from_secs(1);
    for (per, key) in [
        ("route", RateKey::Route),
        ("client_ip", RateKey::ClientIp),
        ("header:X-Api-Key", RateKey::Header(HeaderName::from_static("x-api-key"))),
    ] {
        let got = limit(&format!("per = \"{per}\", requests = 100, every = \"1s\""));
        assert_eq!(got, RateLimit { per: key, requests: 100, every, burst: 100 });
    }
    let got = limit("per = \"route\", requests = 1, every = \"1m\", burst = 5");
    assert_eq!(got, RateLimit { per: RateKey::Route, requests: 1, every: 60 * every, burst: 5 });
}

#[test]
fn what_is_wrong_is_told_at_its_place() {
    for (text, expected) in [
        // Exactly one thing to do.
        (before("name = \"x\""), "missing-key 3:1 routes[0].split"),
        (route("redirect = { to = \"/x\" }"), "bad-match 5:1 routes[0].redirect"),
        (
            before("redirect = { to = \"/x\" }\nrespond = { code = 200 }\nmatch = { path = \"/\" }"),
            "bad-match 5:1 routes[0].respond",
        ),
        // Redirects.
        (before("match = { path = \"/\" }\nredirect = {}"), "missing-key 5:1 routes[0].redirect.to"),
        (before("match = { path = \"/\" }\nredirect = { to = \"a.test\" }"), "bad-address 5:19 routes[0].redirect.to"),
        (before("match = { path = \"/\" }\nredirect = { to = \"/{path}\" }"), "bad-address 5:19 routes[0].redirect.to"),
        (
            before("match = { path = \"/\" }\nredirect = { to = \"/x\", code = 304 }"),
            "out-of-range 5:32 routes[0].redirect.code",
        ),
        (
            before("match = { path = \"/\" }\nredirect = { to = \"/x\", code = 200 }"),
            "out-of-range 5:32 routes[0].redirect.code",
        ),
        // Fixed answers.
        (before("match = { path = \"/\" }\nrespond = { body = \"x\" }"), "missing-key 5:1 routes[0].respond.code"),
        (before("match = { path = \"/\" }\nrespond = { code = 100 }"), "out-of-range 5:20 routes[0].respond.code"),
        (
            before("match = { path = \"/\" }\nrespond = { code = 204, body = \"x\" }"),
            "out-of-range 5:32 routes[0].respond.body",
        ),
        // The prefix.
        (route("strip_prefix = true"), "bad-match 5:16 routes[0].strip_prefix"),
        (route("match = { path = \"/\" }\nstrip_prefix = true"), "bad-match 6:16 routes[0].strip_prefix"),
        (route("match = [{ path_prefix = \"/a\" }, {}]\nstrip_prefix = true"), "bad-match 6:16 routes[0].strip_prefix"),
        (
            before("match = { path_prefix = \"/\" }\nredirect = { to = \"/x\" }\nstrip_prefix = true"),
            "bad-match 6:16 routes[0].strip_prefix",
        ),
        (
            before("match = { path = \"/\" }\nrespond = { code = 200 }\nrequest_headers = {}"),
            "bad-match 6:19 routes[0].request_headers",
        ),
        // Conditions.
        (route("match = { header = { \"a b\" = \"1\" } }"), "bad-match 5:22 routes[0].match.header.\"a b\""),
        (route("match = { header = { a = \"1 \" } }"), "bad-match 5:26 routes[0].match.header.a"),
        (route("match = { header = { a = \"1\\n\" } }"), "bad-match 5:26 routes[0].match.header.a"),
        (route("match = { header = { x-a = \"1\", X-A = \"2\" } }"), "duplicate-name 5:33 routes[0].match.header.X-A"),
        (route("match = { header = { a = { regex = \"(\" } } }"), "bad-regex 5:36 routes[0].match.header.a.regex"),
        (route("match = { header = { a = {} } }"), "bad-match 5:26 routes[0].match.header.a"),
        (
            route("match = { cookie = { a = { regex = \"x\", present = true } } }"),
            "bad-match 5:26 routes[0].match.cookie.a",
        ),
        (route("match = { cookie = { a = { regx = \"x\" } } }"), "unknown-key 5:28 routes[0].match.cookie.a.regx"),
        (route("match = { cookie = { a = 1 } }"), "wrong-type 5:26 routes[0].match.cookie.a"),
        (route("match = { cookie = { \"a=b\" = \"1\" } }"), "bad-match 5:22 routes[0].match.cookie.\"a=b\""),
        (route("match = { cookie = { a = \"b;c\" } }"), "bad-match 5:26 routes[0].match.cookie.a"),
        (route("match = [{ query = { a = { regex = \"[\" } } }]"), "bad-regex 5:36 routes[0].match[0].query.a.regex"),
        (route("match = { client_ip = \"10.0.0/8\" }"), "bad-address 5:23 routes[0].match.client_ip"),
        (route("match = { client_ip = [\"::1\", \"x\"] }"), "bad-address 5:31 routes[0].match.client_ip[1]"),
        (route("match = { client_ip = [] }"), "bad-match 5:23 routes[0].match.client_ip"),
        // Edits.
        (
            route("request_headers = { set = { \"a b\" = \"1\" } }"),
            "out-of-range 5:29 routes[0].request_headers.set.\"a b\"",
        ),
        (
            route("request_headers = { set = { a = \"1\\r\\nb: 2\" } }"),
            "out-of-range 5:33 routes[0].request_headers.set.a",
        ),
        (
            route("request_headers = { set = { host = \"a b\" } }"),
            "out-of-range 5:36 routes[0].request_headers.set.host",
        ),
        (
            route("request_headers = { set = { a = \"1\", A = \"2\" } }"),
            "duplicate-name 5:38 routes[0].request_headers.set.A",
        ),
        (
            route("request_headers = { set = { Content-Length = \"1\" } }"),
            "out-of-range 5:29 routes[0].request_headers.set.Content-Length",
        ),
        (
            route("request_headers = { remove = [\"x\", \"te\"] }"),
            "out-of-range 5:36 routes[0].request_headers.remove[1]",
        ),
        (route("request_headers = { remove = [\"host\"] }"), "out-of-range 5:31 routes[0].request_headers.remove[0]"),
        (
            route("response_headers = { set = { host = \"a\" } }"),
            "out-of-range 5:30 routes[0].response_headers.set.host",
        ),
        (
            route("response_headers = { remove = [\"weir-error\"] }"),
            "out-of-range 5:32 routes[0].response_headers.remove[0]",
        ),
        (
            route("response_headers = { remove = [\"transfer-encoding\"] }"),
            "out-of-range 5:32 routes[0].response_headers.remove[0]",
        ),
        // Limits.
        (route("rate_limit = { requests = 1, every = \"1s\" }"), "missing-key 5:1 routes[0].rate_limit.per"),
        (route("rate_limit = { per = \"route\", every = \"1s\" }"), "missing-key 5:1 routes[0].rate_limit.requests"),
        (route("rate_limit = { per = \"route\", requests = 1 }"), "missing-key 5:1 routes[0].rate_limit.every"),
        (
            route("rate_limit = { per = \"clientip\", requests = 1, every = \"1s\" }"),
            "unknown-name 5:22 routes[0].rate_limit.per",
        ),
        (
            route("rate_limit = { per = \"header:\", requests = 1, every = \"1s\" }"),
            "out-of-range 5:22 routes[0].rate_limit.per",
        ),
        (
            route("rate_limit = { per = \"route\", requests = 0, every = \"1s\" }"),
            "out-of-range 5:42 routes[0].rate_limit.requests",
        ),
        (
            route("rate_limit = { per = \"route\", requests = 1, every = \"0s\" }"),
            "out-of-range 5:53 routes[0].rate_limit.every",
        ),
        (
            route("rate_limit = { per = \"route\", requests = 1, every = \"1s\", burst = 0 }"),
            "out-of-range 5:67 routes[0].rate_limit.burst",
        ),
    ] {
        let report = check(&text).report;
        assert_eq!(problems(&text), [expected], "{text}\n{}", report.text(false));
        assert!(report.diagnostics.iter().all(|d| d.label.is_some() && d.help.is_some()), "{}", report.text(false));
    }
}

#[test]
fn a_split_may_be_unused_only_if_some_route_is_broken() {
    let lonely = "[splits.b.versions]\nv1 = { endpoints = [\"127.0.0.1:1\"] }";
    let answers = "[[routes]]\nmatch = { path = \"/r\" }\nrespond = { code = 200 }\n";
    assert_eq!(problems(&and(&format!("{answers}{lonely}"))), ["unused-split 11:9 splits.b"]);
    assert_eq!(problems(&and(&format!("[[routes]]\nname = \"x\"\n{lonely}"))), ["missing-key 8:1 routes[1].split"]);
}

#[test]
fn without_splits_every_route_must_answer_by_itself() {
    let text = "[listeners.web]\nbind = \"127.0.0.1:80\"\n[[routes]]\nredirect = { to = \"https://a.test{path}\" }\n";
    let config = check(text).config.unwrap_or_else(|| panic!("{}", check(text).report.text(false)));
    assert!(config.splits.is_empty());
    assert_eq!(check(&effective(&config)).config.unwrap(), config, "{}", effective(&config));
    assert_eq!(
        problems(&format!("{text}[[routes]]\nname = \"x\"\n")),
        ["missing-key 5:1 routes[1].split", "empty-config"]
    );
    assert_eq!(problems(&text.replace("redirect", "redirekt")), ["unknown-key 4:1 routes[0].redirekt", "empty-config"]);
}

#[test]
fn remedies_of_routes_say_what_to_write() {
    for (text, remedy) in [
        (before("name = \"x\""), "exactly one of split, redirect, respond"),
        (route("rate_limit = { per = \"clientip\", requests = 1, every = \"1s\" }"), "did you mean `client_ip`?"),
        (before("redirect = { to = \"//a.test\" }"), "write the scheme too, \"https://\""),
        (before("redirect = { to = \"/{host}\" }"), "only `{path}` is filled in"),
        (route("match = { header = { a = { present = true, regex = \"\" } } }"), "{ present = true }"),
        (route("match = { client_ip = \"10.0.0.0/33\" }"), "\"10.0.0.0/8\""),
        (route("match = [{ path_prefix = \"/a\" }, {}]\nstrip_prefix = true"), "this one has no path_prefix"),
    ] {
        let report = check(&text).report;
        assert!(report.text(false).contains(remedy), "{remedy}\n{}", report.text(false));
    }
}

#[test]
fn a_route_is_unreachable_only_behind_the_very_same_conditions() {
    let two = |a: &str, b: &str| {
        let one = |m: &str| format!("[[routes]]\nmatch = {m}\nsplit = \"shop\"\n");
        let found = problems(&and(&(one(a) + &one(b))));
        found.iter().any(|p| p.starts_with("unreachable-route"))
    };
    let same = [
        ("{ header = { a = \"1\", b = \"2\" } }", "{ header = { B = \"2\", A = \"1\" } }"),
        ("{ cookie = { a = { regex = \"x\" } } }", "{ cookie = { a = { regex = \"x\" } } }"),
        ("{ query = { a = { present = false } } }", "{ query = { a = { present = false } } }"),
        ("{ client_ip = [\"10.0.0.1/8\", \"::1\"] }", "{ client_ip = [\"::1\", \"10.0.0.0/8\"] }"),
        ("[{ path = \"/a\" }, { header = { a = \"1\" } }]", "{ header = { a = \"1\" } }"),
    ];
    for (a, b) in same {
        assert!(two(a, b), "{a} {b}");
    }
    let other = [
        ("{ header = { a = \"1\" } }", "{ header = { a = \"2\" } }"),
        ("{ header = { a = \"1\" } }", "{ cookie = { a = \"1\" } }"),
        ("{ query = { a = \"1\" } }", "{ query = { A = \"1\" } }"),
        ("{ query = { a = { regex = \"x\" } } }", "{ query = { a = { regex = \"y\" } } }"),
        ("{ client_ip = \"10.0.0.0/8\" }", "{ client_ip = \"10.0.0.0/9\" }"),
    ];
    for (a, b) in other {
        assert!(!two(a, b), "{a} {b}");
    }
}

const EXAMPLE: &str = include_str!("../../config/routes.toml");

#[test]
fn the_effective_routes_give_the_same_configuration_again() {
    let text = route(
        r#"match = [{ path_prefix = "/a", header = { a = { regex = '^$${x' }, b = "$${y}" }, cookie = { c = { present = false } }, query = { "q r" = { present = true } }, client_ip = ["::1", "10.0.0.0/8"] }]
strip_prefix = true
request_headers = { set = { a = "$${b} é" }, remove = ["c"] }
response_headers = { remove = ["d"] }
rate_limit = { per = "header:x-key", requests = 3, every = "1m30s", burst = 9 }"#,
    );
    // `${x` is no pattern: a class that holds `$`, and then the rest.
    let text = text.replace("'^$${x'", "'^[$${x]'");
    for text in [&text, EXAMPLE] {
        let config = check(text).config.unwrap_or_else(|| panic!("{}", check(text).report.text(false)));
        assert_eq!(check(&effective(&config)).config.unwrap(), config, "{}", effective(&config));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_mutated_route_never_panics(
        at in 0..EXAMPLE.len(),
        cut in 0..12_usize,
        put in prop::sample::select(vec![
            "", "-", "\"", "[", "]", "{", "}", "=", "\n", ".", "${", "1e9", "true", "\u{1f600}", "\0", "{path}", "//",
            "9999999999999999999999", "\"\"", "[]", "{}", "\\", "0s", "regex", "/33", ";",
        ]),
    ) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, put.chars());
        never_panics(&text.into_iter().collect::<String>());
    }
}
