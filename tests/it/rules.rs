//! Rules: who gets which version whatever the weights say, in order, and testers even after a rollback.

use crate::support::{Answer, Conf, Connection, Origin, Weir, wait_until};

fn ask(client: &mut Connection, target: &str, fields: &str) -> Answer {
    let answer = client.ask(format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n")).unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer
}

/// `v1` has all the weight; `v2` and `v3` have none. Rules stand behind the versions.
fn start(origins: &[Origin; 3], head: &str, rules: &str) -> Weir {
    let [v1, v2, v3] = origins.each_ref().map(|o| [o.address]);
    let conf = Conf::shop(&[("v1", 1, &v1), ("v2", 0, &v2), ("v3", 0, &v3)]).split("stable = \"v1\"").split(head);
    Weir::start(&conf.web("trusted_proxies = [\"127.0.0.1\"]").tail(rules))
}

fn origins() -> [Origin; 3] {
    ["v1", "v2", "v3"].map(Origin::named)
}

fn rule(name: &str, matches: &str, then: &str) -> String {
    format!("[[splits.shop.rules]]\nname = \"{name}\"\nmatch = {matches}\n{then}\n")
}

#[test]
fn by_header_cookie_query_and_address_in_order() {
    let origins = origins();
    let rules = [
        rule("testers", "{ header = { x-canary = \"1\" } }", "version = \"v2\""),
        rule("regex", "{ header = { user-agent = { regex = \"^Moz.*\" } } }", "version = \"v2\""),
        rule(
            "beta",
            "[{ cookie = { plan = \"beta\" } }, { query = { beta = { present = true } } }]",
            "version = \"v3\"",
        ),
        rule("office", "{ client_ip = \"10.9.0.0/16\" }", "version = \"v3\""),
        rule("all", "{ header = { x-both = \"1\" }, query = { both = \"1\" } }", "version = \"v3\""),
        rule("late", "{ header = { x-canary = { present = true } } }", "version = \"v3\""),
    ];
    let weir = start(&origins, "", &rules.concat());
    let mut client = weir.connect();
    let cases = [
        ("/header", "X-Canary: 1\r\n", "v2", "rule:testers"),
        ("/present", "X-Canary: 2\r\n", "v3", "rule:late"),
        ("/first-wins", "X-Canary: 1\r\nCookie: plan=beta\r\n", "v2", "rule:testers"),
        ("/regex", "User-Agent: Mozilla/5.0\r\n", "v2", "rule:regex"),
        ("/no-regex", "User-Agent: curl Mozilla\r\n", "v1", "weight"),
        ("/cookie", "Cookie: a=b; plan=beta; c=d\r\n", "v3", "rule:beta"),
        ("/cookie-lines", "Cookie: a=b\r\nCookie: plan=beta\r\n", "v3", "rule:beta"),
        ("/other-cookie", "Cookie: plan=gold; xplan=beta\r\n", "v1", "weight"),
        ("/query?x=1&beta", "", "v3", "rule:beta"),
        ("/address", "X-Forwarded-For: 10.9.8.7\r\n", "v3", "rule:office"),
        ("/other-address", "X-Forwarded-For: 10.10.8.7\r\n", "v1", "weight"),
        ("/both?both=1", "X-Both: 1\r\n", "v3", "rule:all"),
        ("/half", "X-Both: 1\r\n", "v1", "weight"),
        ("/none", "", "v1", "weight"),
    ];
    for (target, fields, version, picked) in cases {
        assert_eq!(ask(&mut client, target, fields).text(), version, "{target} {fields}");
        let path = target.split('?').next().unwrap();
        let line = weir.line_of(path);
        assert_eq!((&line["picked"], &line["version"]), (&picked.into(), &version.into()), "{target}");
    }
}

/// A rule's weights divide by the same bucket as sticky: a user of the group stays where they are.
#[test]
fn weights_of_a_rule_divide_its_group_by_bucket() {
    let origins = origins();
    let rules = rule("group", "{ header = { x-group = \"b\" } }", "weights = { v2 = 25, v3 = 75 }");
    let weir = start(&origins, "sticky = { by = \"header\", name = \"x-user\" }", &rules);
    let mut client = weir.connect();
    let mut home = |user: usize| ask(&mut client, "/", &format!("X-Group: b\r\nX-User: {user}\r\n")).text();
    let first: Vec<String> = (0..400).map(&mut home).collect();
    let second: Vec<String> = (0..400).map(&mut home).collect();
    assert_eq!(first, second);
    let on_v2 = first.iter().filter(|v| *v == "v2").count();
    assert!(first.iter().all(|v| v == "v2" || v == "v3") && on_v2.abs_diff(100) <= 44, "five sigma: {on_v2}");
    assert_eq!(ask(&mut client, "/", "X-User: 1\r\n").text(), "v1", "who is not of the group has the weights");
    // Without a bucket the group is divided by chance.
    let weir = start(&origins, "", &rules);
    let mut client = weir.connect();
    let on_v2 = (0..400).filter(|_| ask(&mut client, "/", "X-Group: b\r\n").text() == "v2").count();
    assert!(on_v2.abs_diff(100) <= 44, "{on_v2}");
}

#[test]
fn after_a_rollback_only_testers_reach_the_closed_version() {
    let origins = origins();
    let rules = [
        rule("testers", "{ header = { x-canary = \"1\" } }", "version = \"v2\"\ntest = true"),
        rule("beta", "{ cookie = { plan = \"beta\" } }", "version = \"v2\""),
        rule("halves", "{ query = { half = \"1\" } }", "weights = { v1 = 1, v2 = 1 }"),
    ];
    let weir = start(&origins, "sticky = { by = \"cookie\" }", &rules.concat());
    let mut client = weir.connect();
    let canary = "X-Canary: 1\r\n";
    for fields in [canary, "Cookie: plan=beta\r\n"] {
        assert_eq!(ask(&mut client, "/", fields).text(), "v2");
    }
    let all = serde_json::json!({"weights": {"v1": 50, "v2": 50, "v3": 0}});
    assert_eq!(weir.admin.put("/api/v1/splits/shop/weights", all).status(), 200);
    weir.admin.rollback();
    assert_eq!(ask(&mut client, "/tester", canary).text(), "v2");
    assert_eq!(weir.line_of("/tester")["picked"], "rule:testers");
    assert_eq!(ask(&mut client, "/beta", "Cookie: plan=beta\r\n").text(), "v1", "the rule is closed with its version");
    let halves = (0..40).map(|_| ask(&mut client, "/?half=1", "").text());
    assert!(halves.into_iter().all(|version| version == "v1"), "what is open takes the rule's whole group");
    weir.admin.delete("/api/v1/splits/shop/override");
    assert_eq!(ask(&mut client, "/", "Cookie: plan=beta\r\n").text(), "v2");
}

/// What rules send is chosen by hand, so it says nothing of the version's share; but it is counted.
#[test]
fn traffic_of_rules_is_counted() {
    let origins = origins();
    let weir = start(&origins, "", &rule("testers", "{ header = { x-canary = \"1\" } }", "version = \"v2\""));
    let mut client = weir.connect();
    (0..20).for_each(|_| drop(ask(&mut client, "/", "X-Canary: 1\r\n")));
    weir.admin.wait_requests("v2", 20);
    assert_eq!(weir.admin.count("weir_request_duration_seconds_count", &[("version", "v2")]), 20.0);
}

/// The results of an A/B test: each rule's own figures, by version; what weights send is in none of them.
#[test]
fn each_rule_has_results_of_its_own() {
    let origins = origins();
    let rules = [
        rule("testers", "{ header = { x-canary = \"1\" } }", "version = \"v2\""),
        rule("beta", "{ cookie = { plan = \"beta\" } }", "weights = { v2 = 50, v3 = 50 }"),
    ];
    let weir = start(&origins, "", &rules.concat());
    let mut client = weir.connect();
    (0..20).for_each(|_| drop(ask(&mut client, "/", "X-Canary: 1\r\n")));
    (0..30).for_each(|_| drop(ask(&mut client, "/", "Cookie: plan=beta\r\n")));
    (0..10).for_each(|_| drop(ask(&mut client, "/", "")));
    let requests = || {
        let stats = weir.admin.json("/api/v1/splits/shop/stats");
        let one = |rule: &serde_json::Value| {
            let text = |key: &str| rule[key].as_str().unwrap().to_owned();
            (text("name"), text("version"), rule["requests"].as_u64().unwrap())
        };
        stats["rules"].as_array().unwrap().iter().map(one).collect::<Vec<_>>()
    };
    wait_until("all are counted", || requests().iter().map(|(_, _, n)| n).sum::<u64>() == 50);
    let found = requests();
    let names: Vec<_> = found.iter().map(|(rule, version, _)| (rule.as_str(), version.as_str())).collect();
    assert_eq!(names, [("testers", "v2"), ("beta", "v2"), ("beta", "v3")]);
    assert_eq!((found[0].2, found[1].2 + found[2].2), (20, 30), "{found:?}");
    assert!(weir.admin.shop()["rules"][0]["p50_ms"].is_number(), "{}", weir.admin.shop());
    let said = weir.cli(&["status", "shop"]).expect_code(0).stdout;
    let words: Vec<_> = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(words.iter().any(|line| line.starts_with("testers v2 20 ")), "{said}");
}
