//! The room as its users see it: bad texts and what is said about them, good texts and what comes of them, files.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

pub(super) const GOOD: &str = r#"[listeners.web]
bind = "127.0.0.1:8080"
[[routes]]
split = "shop"
[splits.shop.versions]
v1 = { weight = 90, endpoints = ["127.0.0.1:9001"] }
v2 = { weight = 10, endpoints = ["127.0.0.1:9002"] }
"#;

fn env(name: &str) -> Option<String> {
    (name == "HOME").then(|| "/home/op".to_owned())
}

pub(super) fn check(text: &str) -> Loaded {
    check_text("weir.toml", text, &env)
}

/// `code line:column key` of every problem.
pub(super) fn problems(text: &str) -> Vec<String> {
    let report = check(text).report;
    let json = report.json();
    let show = |d: &serde_json::Value| match d["line"].as_u64() {
        Some(line) => {
            format!("{} {line}:{} {}", d["code"].as_str().unwrap(), d["column"], d["key"].as_str().unwrap_or(""))
        }
        None => format!("{} {}", d["code"].as_str().unwrap(), d["key"].as_str().unwrap_or("")),
    };
    json.as_array().unwrap().iter().map(|d| show(d).trim_end().to_owned()).collect()
}

/// The good file with some text replaced.
pub(super) fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

/// The good file with lines behind it.
pub(super) fn and(more: &str) -> String {
    format!("{GOOD}{more}\n")
}

#[test]
fn the_sample_of_the_reference_is_printed_exactly() {
    let text = with("v2 = { weight = 10,", "v2 = { wieght = 10,");
    let expected = r#"error[unknown-key]: unknown key `wieght` in version `v2` of split `shop`
 --> weir.toml:7:8
  |
7 | v2 = { wieght = 10, endpoints = ["127.0.0.1:9002"] }
  |        ^^^^^^ did you mean `weight`?
  |
  = help: keys allowed here: weight, endpoints, dns_refresh, protocol, host, tls, health
weir.toml: 1 error, 0 warnings; the configuration was not loaded
"#;
    let report = check(&text).report;
    assert_eq!(report.text(false), expected);
    assert_eq!(
        report.json(),
        serde_json::json!([{
            "code": "unknown-key",
            "severity": "error",
            "message": "unknown key `wieght` in version `v2` of split `shop`",
            "file": "weir.toml",
            "line": 7,
            "column": 8,
            "end_line": 7,
            "end_column": 14,
            "key": "splits.shop.versions.v2.wieght",
            "help": "did you mean `weight`? keys allowed here: weight, endpoints, dns_refresh, protocol, host, tls, health",
        }])
    );
    let github = "::error file=weir.toml,line=7,endLine=7,col=8,endColumn=14,title=unknown-key::unknown key `wieght` in \
                  version `v2` of split `shop`; did you mean `weight`? keys allowed here: weight, endpoints, \
                  dns_refresh, protocol, host, tls, health\n";
    assert_eq!(report.github(), github);
    let coloured = report.text(true);
    assert!(coloured.contains("\u{1b}[") && coloured.contains("wieght"), "{coloured}");
}

#[test]
fn the_likely_mistakes() {
    for (text, expected) in [
        (with("weight = 10", "wieght = 10"), "unknown-key 7:8 splits.shop.versions.v2.wieght"),
        (with("split = \"shop\"", "split = \"shpo\""), "unknown-name 4:9 routes[0].split"),
        (with("weight = 10", "weight = -1"), "out-of-range 7:17 splits.shop.versions.v2.weight"),
        (and("[shutdown]\ntimeout = 10"), "bad-duration 9:11 shutdown.timeout"),
        (GOOD.replace("= 90", "= 0").replace("= 10", "= 0"), "no-weight 5:14 splits.shop.versions"),
        (String::new(), "empty-config"),
        (with("[[routes]]", "[[routes]"), "syntax 3:10"),
        ("# only a comment\n".into(), "empty-config"),
    ] {
        assert_eq!(problems(&text), [expected], "{text}");
        assert!(check(&text).config.is_none());
    }
}

#[test]
fn remedies_say_what_to_write() {
    for (text, remedy) in [
        (with("\"shop\"", "\"shpo\""), "did you mean `shop`?"),
        (and("[shutdown]\ntimeout = 10"), "write \"10s\""),
        (with("weight = 10", "weight = \"10\""), "write it without quotes: weight = 10"),
        (with("[[routes]]", "[routes]"), "write it with two brackets: [[routes]]"),
        (with("\"127.0.0.1:8080\"", "\":8080\""), "write \"0.0.0.0:8080\""),
        (with("bind", "bnid"), "did you mean `bind`?"),
        (with("weight = 10", "weight = 1000001"), "0 to 1000000"),
        (and("[telemetry.log]\nlevel = \"inof\""), "did you mean `info`?"),
        (and("[admin]\nbind = \"0.0.0.0:9901\""), "write \"127.0.0.1:9901\""),
        (with("split = \"shop\"", "split = \"shop\"\nmatch = { path_regex = \"(\" }"), "unclosed group"),
        (with("\"127.0.0.1:8080\"", "\"${PORT}\""), "${PORT:-default}"),
        (and("[shutdown]\ntimeout = -10"), "for example \"10s\""),
        (with("\"shop\"", "shop"), "write text in \"quotes\""),
        (with("[[routes]]", "[[routes]"), "close the bracket"),
        (and("[listeners.web]"), "may be given only once"),
        (with("\"shop\"", "\"shop"), "close the string"),
        (with("split = \"shop\"", "split"), "write key = value"),
        (with("split = \"shop\"", "split = \"shop\" name = \"x\""), "begin a new line"),
    ] {
        let report = check(&text).report;
        assert!(report.text(false).contains(remedy), "{remedy}\n{}", report.text(false));
    }
}

#[test]
fn every_code_the_file_can_cause_points_at_its_place() {
    let route = |more: &str| with("split = \"shop\"\n", &format!("split = \"shop\"\n{more}\n"));
    for (text, expected) in [
        (and("[splits.shop]\ncolour = 1"), "unknown-key 9:1 splits.shop.colour"),
        (format!("colour = 1\n{GOOD}"), "unknown-key 1:1 colour"),
        (and("[listeners.web.limits]\nconnection = 1"), "unknown-key 9:1 listeners.web.limits.connection"),
        (format!("workers = \"x\"\n{GOOD}"), "wrong-type 1:11 workers"),
        (format!("workers = 1.5\n{GOOD}"), "wrong-type 1:11 workers"),
        (format!("watch = 1\n{GOOD}"), "wrong-type 1:9 watch"),
        (format!("watch = 2024-01-01\n{GOOD}"), "wrong-type 1:9 watch"),
        (format!("workers = 99999999999999999999999\n{GOOD}"), "out-of-range 1:11 workers"),
        (format!("workers = 99999999999999999999999999999999999999999999\n{GOOD}"), "out-of-range 1:11 workers"),
        (and("[telemetry.log]\nsample = 1.5"), "out-of-range 9:10 telemetry.log.sample"),
        (and("[telemetry.log]\nsample = nan"), "out-of-range 9:10 telemetry.log.sample"),
        (and("[shutdown]\ndelay = \"30s\""), "out-of-range 9:9 shutdown.delay"),
        (and("[listeners.\"a b\"]\nbind = \"127.0.0.1:1\""), "out-of-range 8:12 listeners.\"a b\""),
        (and("[listeners.web.limits]\nheader_bytes = \"4GiB\""), "out-of-range 9:16 listeners.web.limits.header_bytes"),
        (and("[listeners.web.limits]\nheader_bytes = 32768"), "bad-size 9:16 listeners.web.limits.header_bytes"),
        (and("[listeners.web.limits]\nheader_bytes = \"32KB\""), "bad-size 9:16 listeners.web.limits.header_bytes"),
        (and("[defaults.timeouts]\nconnect = \"1 sec\""), "bad-duration 9:11 defaults.timeouts.connect"),
        (with("bind = \"127.0.0.1:8080\"\n", ""), "missing-key 1:12 listeners.web.bind"),
        (with("\"127.0.0.1:8080\"", "[]"), "missing-key 2:8 listeners.web.bind"),
        (with("split = \"shop\"", "name = \"x\""), "missing-key 3:1 routes[0].split"),
        (with(", endpoints = [\"127.0.0.1:9002\"]", ""), "missing-key 7:1 splits.shop.versions.v2.endpoints"),
        (with("[\"127.0.0.1:9002\"]", "[{}]"), "missing-key 7:34 splits.shop.versions.v2.endpoints[0].address"),
        (with("127.0.0.1:8080", "8080"), "bad-address 2:8 listeners.web.bind"),
        (with("\"127.0.0.1:8080\"", "[\"127.0.0.1:1\", \":2\"]"), "bad-address 2:24 listeners.web.bind[1]"),
        (with("127.0.0.1:9002", "127.0.0.1"), "bad-address 7:34 splits.shop.versions.v2.endpoints[0]"),
        (with("127.0.0.1:9002", "127.0.0.1:9901"), "bad-address 7:34 splits.shop.versions.v2.endpoints[0]"),
        (with("127.0.0.1:9002", "[::ffff:127.0.0.1]:9901"), "bad-address 7:34 splits.shop.versions.v2.endpoints[0]"),
        (and("[listeners.b]\nbind = \"127.0.0.1:8080\""), "bad-address 9:8 listeners.b.bind"),
        (and("[listeners.b]\nbind = \"0.0.0.0:8080\""), "bad-address 9:8 listeners.b.bind"),
        (and("[listeners.b]\nbind = \"127.0.0.1:9901\""), "bad-address 9:8 listeners.b.bind"),
        (route("match = { path_regex = \"(\" }"), "bad-regex 5:24 routes[0].match.path_regex"),
        (route("match = { path = \"cart\" }"), "bad-match 5:18 routes[0].match.path"),
        (route("match = { path = \"/a/../b\" }"), "bad-match 5:18 routes[0].match.path"),
        (route("match = [{ path = \"/\" }, { host = \"a:80\" }]"), "bad-match 5:35 routes[0].match[1].host"),
        (route("match = { path = \"/\", path_prefix = \"/\" }"), "bad-match 5:37 routes[0].match.path_prefix"),
        (route("match = []"), "bad-match 5:9 routes[0].match"),
        (route("match = { method = [\"G T\"] }"), "bad-match 5:20 routes[0].match.method"),
        (route("listeners = [\"web\", \"wbe\"]"), "unknown-name 5:21 routes[0].listeners[1]"),
        (and("[splits.shop]\nstable = \"v3\""), "unknown-name 9:10 splits.shop.stable"),
        (and("[telemetry.log]\nformat = \"xml\""), "unknown-name 9:10 telemetry.log.format"),
        (
            and("[[routes]]\nname = \"route-1\"\nmatch = { path = \"/\" }\nsplit = \"shop\""),
            "duplicate-name 9:8 routes[1].name",
        ),
        (
            with("\"127.0.0.1:9002\"", "\"127.0.0.1:1\", \"127.0.0.1:1\""),
            "duplicate-name 7:49 splits.shop.versions.v2.endpoints[1]",
        ),
        (with("127.0.0.1:8080", "${NOWHERE}"), "env-unset 2:8 listeners.web.bind"),
        (and("[admin]\nbind = \"192.0.2.1:9901\""), "unsafe-admin 9:8 admin.bind"),
        (format!("include = [\"x.toml\"]\n{GOOD}"), "unknown-key 1:1 include"),
        (with("weight = 10", "weight = 20"), "weights-not-100 5:14 splits.shop.versions"),
        (and("[[routes]]\nsplit = \"shop\""), "unreachable-route 8:1 routes[1]"),
        (and("[splits.b.versions]\nv1 = { endpoints = [\"127.0.0.1:1\"] }"), "unused-split 8:9 splits.b"),
    ] {
        assert_eq!(problems(&text), [expected], "{text}\n{}", check(&text).report.text(false));
    }
}

#[test]
fn what_is_not_built_yet_is_named_with_its_full_key() {
    let split = |more: &str| and(&format!("[splits.shop]\n{more}"));
    for (text, key) in [
        (split("mirror = {}"), "splits.shop.mirror"),
        (and("[flags.x]\ndefault = \"off\""), "flags"),
        (and("[admin]\ntokens = []"), "admin.tokens"),
        (and("[telemetry.metrics]\nnative_histograms = false"), "telemetry.metrics"),
        (and("[telemetry.traces]\nendpoint = \"x\""), "telemetry.traces"),
        (and("[fleet]\nname = \"x\""), "fleet"),
    ] {
        let report = check(&text).report;
        let found: Vec<_> = report.diagnostics.iter().map(|d| (d.code, d.key.as_deref().unwrap_or(""))).collect();
        assert_eq!(found, [(Code::NotYet, key)], "{text}");
        assert!(report.diagnostics[0].help.is_some());
    }
}

#[test]
fn all_problems_are_told_in_one_run() {
    let text = r#"workers = -1
[listeners.web]
bind = ":80"
timeouts = { header = 10 }
[[routes]]
split = "shpo"
colour = "red"
[splits.shop]
stable = "v9"
mirror = { version = "v1" }
[splits.shop.versions]
v1 = { weight = "90", endpoints = ["127.0.0.1:9001"] }
"#;
    let expected = [
        "out-of-range 1:11 workers",
        "bad-address 3:8 listeners.web.bind",
        "bad-duration 4:23 listeners.web.timeouts.header",
        "unknown-name 6:9 routes[0].split",
        "unknown-key 7:1 routes[0].colour",
        "unknown-name 9:10 splits.shop.stable",
        "not-yet 10:1 splits.shop.mirror",
        "wrong-type 12:17 splits.shop.versions.v1.weight",
    ];
    assert_eq!(problems(text), expected);
    let report = check(text).report;
    assert!(report.text(false).ends_with("weir.toml: 8 errors, 0 warnings; the configuration was not loaded\n"));
}

#[test]
fn warnings_load_unless_strict() {
    let Loaded { config, mut report, .. } = check(&with("weight = 10", "weight = 20"));
    assert!(config.is_some());
    assert!(report.text(false).ends_with("weir.toml: 0 errors, 1 warning; the configuration is valid\n"));
    assert!(report.text(false).starts_with("warning[weights-not-100]"));
    report.strict();
    assert!(report.has_errors());
    assert!(report.text(false).starts_with("error[weights-not-100]"));
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = check(GOOD).config.unwrap();
    let secs = Duration::from_secs;
    assert!(config.workers >= 1 && config.watch);
    assert_eq!(config.shutdown, Shutdown { delay: secs(0), timeout: secs(25) });
    assert_eq!(
        config.listeners[0].limits,
        Limits { connections: 20_000, header_bytes: 32 << 10, body_bytes: None, streams: 128 }
    );
    let clients = ClientTimeouts { header: Some(secs(10)), body: Some(secs(30)), idle: Some(secs(75)) };
    assert_eq!(config.listeners[0].timeouts, clients);
    let split = &config.splits[0];
    let timeouts = UpstreamTimeouts {
        connect: Some(secs(1)),
        first_byte: Some(secs(30)),
        total: None,
        stall: None,
        idle: Some(secs(60)),
    };
    assert_eq!(split.timeouts, timeouts);
    assert_eq!(split.drain, Drain { timeout: secs(30), upgraded_timeout: secs(3600), slow_start: secs(0) });
    assert_eq!(split.pool, PoolLimits::default());
    assert_eq!(split.eject, Some(Eject { errors: 5, duration: secs(10), max_percent: 50 }));
    assert_eq!((split.weigh_by, &split.balance), (WeighBy::Weight, &Balance::LeastRequests));
    assert_eq!(split.stable.as_str(), "v1");
    assert_eq!(split.weights().to_string(), "v1 90, v2 10");
    assert_eq!(config.routes[0].name.as_str(), "route-1");
    assert_eq!(config.admin.bind, "127.0.0.1:9901".parse().unwrap());
    assert_eq!(config.admin.state_dir, Path::new("/home/op/.local/state/weir"));
    let log = Log { level: Level::Info, format: LogFormat::Auto, access: true, sample: 1.0 };
    assert_eq!(config.telemetry, Telemetry { bind: None, log });
}

#[test]
fn weights_default_to_one_only_if_nobody_has_one() {
    let weights = |text: &str| check(text).config.unwrap().splits[0].weights().to_string();
    assert_eq!(weights(&GOOD.replace("weight = 90, ", "").replace("weight = 10, ", "")), "v1 1, v2 1");
    assert_eq!(weights(&with("weight = 10, ", "")), "v1 90, v2 0");
}

#[test]
fn a_split_overrides_the_defaults_key_by_key() {
    let text = and(
        "[defaults]\ntimeouts = { connect = \"2s\", total = \"9s\" }\npool = { max_in_flight = 7 }\n[splits.shop]\ntimeouts = { connect = \"3s\", first_byte = \"0s\" }",
    );
    let config = check(&text).config.unwrap();
    let split = &config.splits[0];
    assert_eq!(split.timeouts.connect, Some(Duration::from_secs(3)));
    assert_eq!(split.timeouts.first_byte, None);
    assert_eq!(split.timeouts.total, Some(Duration::from_secs(9)));
    assert_eq!(split.timeouts.idle, Some(Duration::from_secs(60)));
    assert_eq!(split.pool, PoolLimits { max_in_flight: 7, ..PoolLimits::default() });
}

#[test]
fn matches_are_brought_into_the_form_requests_are_compared_with() {
    let text = r#"[listeners.web]
bind = ["localhost:8080", "[::1]:8080"]
[[routes]]
match = [{ host = "Shop.Example.com.", path_prefix = "/cart/" }, { host = "*.example.com", path_prefix = "/" }]
split = "shop"
[[routes]]
match = { path_regex = '^/v[12]/cart$', method = ["get", "HEAD"] }
split = "shop"
[[routes]]
match = { path = "/exact/", method = "POST" }
listeners = ["web"]
split = "shop"
[splits.shop.versions]
v1.endpoints = ["http://127.0.0.1:9001", { address = "localhost:9002" }]
"#;
    let config = check(text).config.unwrap();
    assert_eq!(config.listeners[0].bind, ["127.0.0.1:8080", "[::1]:8080"].map(|a| Bind::Tcp(a.parse().unwrap())));
    assert_eq!(
        config.splits[0].versions[0].endpoints,
        [9001, 9002].map(|port| EndpointSpec::from(SocketAddr::from(([127, 0, 0, 1], port))))
    );
    let host = |h| Some(h);
    assert_eq!(
        config.routes[0].matches,
        [
            Match {
                host: host(HostMatch::Exact("shop.example.com".into())),
                path: Some(PathMatch::Prefix("/cart".into())),
                ..Match::default()
            },
            Match {
                host: host(HostMatch::Suffix(".example.com".into())),
                path: Some(PathMatch::Prefix(String::new())),
                ..Match::default()
            },
        ]
    );
    assert_eq!(
        config.routes[1].matches[0].path,
        Some(PathMatch::Regex(Pattern(regex::Regex::new("^/v[12]/cart$").unwrap())))
    );
    assert_eq!(config.routes[1].matches[0].methods, ["GET", "HEAD"]);
    assert_eq!(config.routes[2].matches[0].path, Some(PathMatch::Exact("/exact/".into())));
    assert_eq!(config.routes[2].listeners[0].as_str(), "web");
}

#[test]
fn versions_and_splits_keep_the_order_of_the_file() {
    let text = r#"[listeners.z]
bind = "127.0.0.1:1"
[listeners.a]
bind = "127.0.0.1:2"
[[routes]]
split = "z"
[splits.z.versions]
z = { endpoints = ["127.0.0.1:3"] }
m = { endpoints = ["127.0.0.1:4"] }
a = { endpoints = ["127.0.0.1:5"] }
"#;
    let config = check(text).config.unwrap();
    assert_eq!(config.listeners.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    assert_eq!(config.splits[0].versions.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["z", "m", "a"]);
}

#[test]
fn every_example_loads_without_a_complaint() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let loaded = load(&path, &env);
        assert!(loaded.report.diagnostics.is_empty(), "{}", loaded.report.text(false));
        let config = loaded.config.unwrap();
        assert_eq!(check(&effective(&config)).config.unwrap(), config, "{}", effective(&config));
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "ab",
            "blue-green",
            "canary",
            "minimal",
            "names",
            "notify",
            "rescue",
            "rolling",
            "rollout",
            "routes",
            "systemd"
        ]
    );
}

#[test]
fn the_effective_file_gives_the_same_configuration_again() {
    let text = r#"workers = 3
watch = false
shutdown = { delay = "1s500ms", timeout = "1m" }
[listeners.web]
bind = ["127.0.0.1:8080", "[::1]:8080"]
limits = { connections = 5, header_bytes = "1025B" }
timeouts = { header = "0s", idle = "1h" }
[[routes]]
name = "x"
listeners = ["web"]
match = [{ host = "*.a.test", path_regex = '^/$${x}' , method = "GET" }, { path_prefix = "/" }, {}]
split = "s"
[splits.s]
stable = "b"
expose_version = true
timeouts = { connect = "0s", first_byte = "250ms", total = "1d", idle = "0s" }
drain = { timeout = "0s", upgraded_timeout = "90m" }
pool = { idle_per_endpoint = 0, max_in_flight = 1 }
versions.a = { weight = 1000000, endpoints = ["127.0.0.1:1"] }
versions.b = { weight = 0, protocol = "http1" }
[admin]
bind = "[::1]:0"
hosts = ["Weir.internal"]
state_dir = "/s ${HOME}"
[telemetry]
bind = "0.0.0.0:9902"
log = { level = "trace", format = "json", access = false, sample = 0.25 }
"#;
    // `{x}` is no repetition, so the pattern does not compile: take another that holds `${`.
    let text = text.replace("^/$${x}", "^/[$${x]");
    let config = check(&text).config.unwrap_or_else(|| panic!("{}", check(&text).report.text(false)));
    assert_eq!(check(&effective(&config)).config.unwrap(), config, "{}", effective(&config));
}

/// A folder with files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn load(&self) -> Loaded {
        load(&self.path("weir.toml"), &env)
    }

    /// The report with the folder's name taken out.
    fn text(&self) -> String {
        self.load().report.text(false).replace(&format!("{}/", self.0.path().display()), "")
    }
}

const MORE: &str = "[[routes]]\nmatch = { host = \"b.test\" }\nsplit = \"b\"\n\
                    [splits.b.versions]\nv1 = { endpoints = [\"127.0.0.1:7\"] }\n";

#[test]
fn includes_are_merged_and_watched() {
    let folder = Folder::new(&[
        ("weir.toml", &format!("include = [\"conf.d/*.toml\", \"extra.toml\"]\n{GOOD}")),
        ("conf.d/b.toml", MORE),
        ("conf.d/.hidden.toml", "broken"),
        ("conf.d/b.toml~", "broken"),
        ("extra.toml", "[telemetry]\nbind = \"127.0.0.1:9902\"\n"),
    ]);
    let loaded = folder.load();
    let config = loaded.config.unwrap_or_else(|| panic!("{}", folder.text()));
    assert_eq!(config.routes.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["route-1", "route-2"]);
    assert_eq!(config.splits.len(), 2);
    assert!(config.telemetry.bind.is_some());
    let expected: Vec<_> = ["weir.toml", "conf.d", "conf.d/b.toml", "extra.toml"].map(|n| folder.path(n)).into();
    assert_eq!(loaded.files, expected);
}

#[test]
fn problems_in_an_include_are_shown_there() {
    let folder = Folder::new(&[
        ("weir.toml", &format!("include = [\"b.toml\"]\n{GOOD}")),
        ("b.toml", "[splits.shop.versions]\nv1 = { endpoints = [\"127.0.0.1:7\"] }\n[listeners.b]\nbnd = 1\n"),
    ]);
    let expected = r#"error[duplicate-name]: there are two of split `shop`
 --> b.toml:1:9
  |
1 | [splits.shop.versions]
  |         ^^^^ the same name again
  |
 ::: weir.toml:6:9
  |
6 | [splits.shop.versions]
  |         ---- first given here
  |
  = help: rename one of them
"#;
    let text = folder.text();
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("unknown key `bnd` in listener `b`\n --> b.toml:4:1\n"), "{text}");
    assert!(text.ends_with("weir.toml: 2 errors, 0 warnings; the configuration was not loaded\n"), "{text}");
}

#[test]
fn includes_that_cannot_be_read_are_named_where_they_are_asked_for() {
    let folder = Folder::new(&[
        (
            "weir.toml",
            &format!("include = [\"none.toml\", \"*/x.toml\", \"sub\", \"bad.toml\", \"gone/*.toml\"]\n{GOOD}"),
        ),
        ("sub/y.toml", ""),
        ("bad.toml", "x = [\n"),
    ]);
    let report = folder.load().report;
    let codes: Vec<_> = report.diagnostics.iter().map(|d| d.code).collect();
    use Code::{FileUnreadable, Syntax};
    assert_eq!(codes, [FileUnreadable, FileUnreadable, FileUnreadable, FileUnreadable, Syntax], "{}", folder.text());
    let text = folder.text();
    for part in
        ["none.toml cannot be read", "sub cannot be read: it is a folder", "`*` is allowed in the file name only"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn an_include_may_not_include_and_a_pattern_never_includes_its_own_file() {
    let folder = Folder::new(&[
        ("weir.toml", &format!("include = [\"*.toml\", \"b.toml\"]\n{GOOD}")),
        ("b.toml", &format!("include = [\"c.toml\"]\n{MORE}")),
    ]);
    let report = folder.load().report;
    let found: Vec<_> =
        report.diagnostics.iter().map(|d| (d.code, report.sources[1].name.ends_with("b.toml"))).collect();
    assert_eq!(found, [(Code::UnknownKey, true)], "{}", folder.text());
}

#[test]
fn the_digest_follows_every_byte_of_every_file() {
    let folder = Folder::new(&[("weir.toml", &format!("include = [\"d/*.toml\"]\n{GOOD}")), ("d/b.toml", MORE)]);
    let root = folder.path("weir.toml");
    let digest = || {
        let read = read_digest(&root).unwrap();
        assert_eq!(folder.load().digest, read);
        read
    };
    let mut seen = vec![digest()];
    assert_eq!(digest(), seen[0], "the same files, the same digest");
    let mut changed = |what: &str| {
        let now = digest();
        assert!(!seen.contains(&now), "{what}");
        seen.push(now);
    };
    folder.write("d/b.toml", &format!("{MORE}# a comment\n"));
    changed("an include changed");
    folder.write("d/c.toml", "");
    changed("a file came");
    fs::remove_file(folder.path("d/b.toml")).unwrap();
    changed("a file went");
    folder.write("weir.toml", "broken [");
    changed("the file itself is broken");
    fs::remove_file(&root).unwrap();
    assert_eq!(read_digest(&root).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn what_is_no_file_is_reported_and_still_watched() {
    let folder = Folder::new(&[]);
    let loaded = folder.load();
    assert_eq!(loaded.report.diagnostics[0].code, Code::FileUnreadable);
    assert_eq!(loaded.files, [folder.path("weir.toml")]);
    assert!(
        folder.text().starts_with("error[file-unreadable]: weir.toml cannot be read: No such file"),
        "{}",
        folder.text()
    );
    let directory = load(folder.0.path(), &env);
    assert_eq!(directory.report.diagnostics[0].code, Code::FileUnreadable);
}

#[test]
fn bytes_that_are_not_utf8_are_a_syntax_error_with_a_place() {
    let folder = Folder::new(&[]);
    fs::write(folder.path("weir.toml"), b"a = 1\nb = \"\xff\"\n").unwrap();
    let report = folder.load().report;
    assert_eq!(report.diagnostics[0].code, Code::Syntax);
    assert!(report.location(&report.diagnostics[0]).ends_with("weir.toml:2:6"));
}

#[test]
fn the_file_is_found_in_the_usual_order() {
    let named = |name: &str| (name == "WEIR_CONFIG").then(|| "/named.toml".to_owned());
    assert_eq!(find(Some(Path::new("/given.toml")), &named), Path::new("/given.toml"));
    assert_eq!(find(None, &named), Path::new("/named.toml"));
}

#[test]
fn the_environment_is_filled_in_everywhere() {
    let text = GOOD.replace("127.0.0.1:8080", "${WEB:-127.0.0.1:8081}").replace("\"shop\"", "\"${APP}\"");
    let loaded = check_text("weir.toml", &text, &|name| (name == "APP").then(|| "shop".to_owned()));
    let config = loaded.config.unwrap();
    assert_eq!(config.listeners[0].bind, [Bind::Tcp("127.0.0.1:8081".parse().unwrap())]);
    assert_eq!(config.routes[0].split().unwrap().as_str(), "shop");
}

#[test]
fn other_rooms_add_their_own_problems() {
    let mut report = Report::about("weir.toml");
    let diagnostic = Diagnostic::new(Code::AddressInUse, "127.0.0.1:8080 is in use by nginx (process 7)");
    report.push(diagnostic.key("listeners.web.bind").help("stop it, or give the listener another port"));
    let expected = "error[address-in-use]: 127.0.0.1:8080 is in use by nginx (process 7)\n--> weir.toml\n \
                    = help: stop it, or give the listener another port\n\
                    weir.toml: 1 error, 0 warnings; the configuration was not loaded\n";
    assert_eq!(report.text(false), expected);
    let github = "::error file=weir.toml,title=address-in-use::127.0.0.1:8080 is in use by nginx (process 7); stop it, or \
                  give the listener another port\n";
    assert_eq!(report.github(), github);
}

#[test]
fn the_schema_knows_every_key_of_the_reference() {
    let schema = schema();
    let keys = |pointer: &str| -> Vec<String> {
        schema.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(
        keys("/properties"),
        [
            "include",
            "workers",
            "watch",
            "shutdown",
            "listeners",
            "routes",
            "defaults",
            "splits",
            "flags",
            "dns",
            "admin",
            "telemetry",
            "notify",
            "fleet"
        ]
    );
    for (raw, key) in [
        ("RawSplit", "mirror"),
        ("RawRollout", "checks"),
        ("RawCheck", "prometheus"),
        ("RawListenerTls", "client_ca"),
        ("RawAnalysis", "false_alarm"),
        ("RawRule", "test"),
        ("RawMatch", "client_ip"),
        ("RawFlagRule", "follows"),
    ] {
        assert!(keys(&format!("/$defs/{raw}/properties")).contains(&key.to_owned()), "{raw}.{key}");
    }
}

#[test]
fn problems_found_later_point_into_the_file_too() {
    let mut report = check(GOOD).report;
    let place = report.locate(&["listeners", "web", "bind"]);
    report.push(Diagnostic::new(Code::AddressInUse, "127.0.0.1:8080 is in use").at(place));
    assert_eq!(report.location(&report.diagnostics[0]), "weir.toml:2:8");
    assert_eq!(report.locate(&["admin", "bind"]), None, "a default is in no file");
}

#[test]
fn deep_nesting_is_refused_and_overflows_nothing() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
        format!("a = {}1{}", "[".repeat(70), "]".repeat(70)),
        format!("{GOOD}{}a = 1", "a.".repeat(79)),
    ] {
        assert!(check(&text).report.has_errors());
    }
}

#[test]
fn a_large_file_of_garbage_is_counted_and_not_printed() {
    let text: String = (0..50_000).map(|i| format!("colour-{i} = 1\n")).collect();
    let report = check(&text).report;
    assert_eq!((report.errors(), report.diagnostics.len()), (50_001, 200));
    let summary = "weir.toml: 50001 errors (49801 more of them not shown), 0 warnings; ";
    assert!(report.summary().starts_with(summary), "{}", report.summary());
    assert!(report.text(false).len() < 100_000);
}

/// Whatever the text, a report and never a panic; a configuration exactly if there is no error; every rendering works.
pub(super) fn never_panics(text: &str) {
    let loaded = check(text);
    assert_eq!(loaded.config.is_some(), !loaded.report.has_errors());
    for format in [Format::Text, Format::Json, Format::Github] {
        assert!(!loaded.report.render(format, true).is_empty() || loaded.report.diagnostics.is_empty());
    }
    if let Some(config) = loaded.config {
        assert_eq!(check(&effective(&config)).config, Some(config));
    }
}

const FULL: &str = include_str!("../../config/canary.toml");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        never_panics(&text);
    }

    #[test]
    fn a_mutated_file_never_panics(
        at in 0..FULL.len(),
        cut in 0..12_usize,
        put in prop::sample::select(vec![
            "", "-", "\"", "[", "]", "{", "}", "=", "\n", ".", "${", "${X}", "1e9", "nan", "true", "\u{1f600}", "\0",
            "[[routes]]\n", "[[notify]]\n", "weight", "'''", "9999999999999999999999", "\"\"", "[]", "{}", "x.y", "#", "0s",
        ]),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, put.chars());
        never_panics(&text.into_iter().collect::<String>());
    }

    #[test]
    fn any_value_at_any_key_never_panics(
        key in prop::sample::select(vec![
            "workers", "watch", "shutdown.delay", "listeners.web.bind", "listeners.web.limits", "routes", "defaults",
            "splits", "splits.shop.versions", "splits.shop.versions.v1.weight", "splits.shop.versions.v1.endpoints",
            "splits.shop.stable", "admin.bind", "admin.hosts", "telemetry.log.sample", "include", "admin",
            "notify",
        ]),
        value in prop::sample::select(vec![
            "1", "-1", "1.5", "inf", "\"\"", "\"x\"", "[]", "{}", "[[]]", "[{}]", "[1, \"a\"]", "true", "1979-05-27",
            "{ a = 1 }", "{ a = { b = [] } }", "[\"127.0.0.1:1\"]", "\"127.0.0.1:1\"", "[{ address = 1 }]",
            "0x7fffffffffffffff", "-0x1", "9223372036854775808",
        ]),
    ) {
        never_panics(&format!("{key} = {value}\n"));
        never_panics(&format!("{key} = {value}\n{GOOD}"));
    }
}
