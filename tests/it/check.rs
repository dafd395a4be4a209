//! The likely mistakes in a file: each gets a diagnostic with code, place and remedy, and changes nothing on reload.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use crate::support::{Conf, Origin, Weir, wait_until, weir};

/// A mistake: the good file's line to replace, with what, and what is said about it.
struct Mistake {
    from: &'static str,
    to: &'static str,
    codes: &'static [&'static str],
    /// The marked text; the place is computed from it.
    marks: &'static str,
    says: &'static [&'static str],
}

const GOOD: &str = r#"[listeners.web]
bind = "127.0.0.1:0"
[[routes]]
split = "shop"
[splits.shop]
timeouts = { connect = "1s" }
[splits.shop.versions]
v1 = { weight = 90, endpoints = ["127.0.0.1:9001"] }
v2 = { weight = 10, endpoints = ["127.0.0.1:9002"] }
[admin]
bind = "127.0.0.1:0"
state_dir = "@DIR@/state"
"#;

const MISTAKES: &[Mistake] = &[
    Mistake {
        from: "v2 = { weight",
        to: "v2 = { wieght",
        codes: &["unknown-key"],
        marks: "wieght",
        says: &[
            "unknown key `wieght` in version `v2` of split `shop`",
            "did you mean `weight`?",
            "keys allowed here: weight, endpoints",
        ],
    },
    Mistake {
        from: "split = \"shop\"",
        to: "split = \"shpo\"",
        codes: &["unknown-name"],
        marks: "\"shpo\"",
        says: &["shpo", "`shop`"],
    },
    Mistake {
        from: "weight = 10",
        to: "weight = -10",
        codes: &["out-of-range"],
        marks: "-10",
        says: &["-10", "1000000"],
    },
    Mistake {
        from: "connect = \"1s\"",
        to: "connect = 1",
        codes: &["bad-duration", "wrong-type"],
        marks: "1 }",
        says: &["\"1s\""],
    },
    Mistake { from: "weight = 90", to: "weight = 0", codes: &["no-weight"], marks: "", says: &["shop"] },
    Mistake { from: "[listeners.web]", to: "[listeners.web", codes: &["syntax"], marks: "", says: &[] },
];

impl Mistake {
    fn text(&self) -> String {
        let text = GOOD.replacen(self.from, self.to, 1);
        if self.codes == ["no-weight"] { text.replacen("weight = 10", "weight = 0", 1) } else { text }
    }

    /// Line and column, from 1, of the marked text.
    fn place(&self) -> Option<(usize, usize)> {
        let text = self.text();
        let at = (!self.marks.is_empty()).then(|| text.find(self.marks).unwrap())?;
        let line = text[..at].matches('\n').count() + 1;
        let column = at - text[..at].rfind('\n').map_or(0, |n| n + 1) + 1;
        Some((line, column))
    }
}

fn check(text: &str, arguments: &[&str]) -> crate::support::Done {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weir.toml");
    fs::write(&file, text.replace("@DIR@", dir.path().to_str().unwrap())).unwrap();
    weir(&[&["check"], arguments, &[file.to_str().unwrap()]].concat())
}

#[test]
fn a_good_file_passes() {
    let done = check(GOOD, &[]).expect_code(0);
    assert!(!done.all().contains("error["), "{}", done.all());
    check(&Conf::one("127.0.0.1:9".parse().unwrap()).text(), &[]).expect_code(0);
}

#[test]
fn each_mistake_has_code_place_and_remedy() {
    for mistake in MISTAKES {
        let done = check(&mistake.text(), &[]).expect_code(3);
        let all = done.all();
        assert!(
            mistake.codes.iter().any(|code| all.contains(&format!("error[{code}]: "))),
            "{:?}:\n{all}",
            mistake.codes
        );
        for said in mistake.says {
            assert!(all.contains(said), "{:?} does not say {said:?}:\n{all}", mistake.codes);
        }
        if let Some((line, column)) = mistake.place() {
            assert!(all.contains(&format!("weir.toml:{line}:{column}\n")), "not at {line}:{column}:\n{all}");
        }
        let warnings = all.matches("\nwarning[").count();
        let noun = if warnings == 1 { "warning" } else { "warnings" };
        let sum = format!("weir.toml: 1 error, {warnings} {noun}; the configuration was not loaded");
        assert!(all.contains(&sum), "{all}");
    }
}

#[test]
fn the_picture_is_as_promised() {
    let all = check(&MISTAKES[0].text(), &[]).all();
    let number = MISTAKES[0].place().unwrap().0;
    let picture: Vec<&str> = all.lines().collect();
    let quoted =
        picture.iter().position(|l| l.trim_start().starts_with(&format!("{number} | v2 = {{ wieght"))).unwrap();
    assert!(picture[quoted + 1].contains("^^^^^^ did you mean `weight`?"), "{all}");
    let (column, caret) = (picture[quoted].find("wieght").unwrap(), picture[quoted + 1].find('^').unwrap());
    assert_eq!(column, caret, "{all}");
}

#[test]
fn an_empty_file_is_an_error() {
    for text in ["", "\n# only words\n"] {
        let done = check(text, &[]).expect_code(3);
        assert!(done.all().contains("error[empty-config]"), "{}", done.all());
    }
}

#[test]
fn all_problems_in_one_run() {
    let text = MISTAKES[..4]
        .iter()
        .fold(GOOD.to_owned(), |text, m| text.replacen(m.from, m.to, 1).replacen("weight = 90", "weight = -9", 1));
    let all = check(&text, &[]).expect_code(3).all();
    for code in ["unknown-key", "unknown-name", "out-of-range"] {
        assert!(all.contains(&format!("error[{code}]")), "no {code}:\n{all}");
    }
    assert!(all.contains("error[bad-duration]") || all.contains("error[wrong-type]"), "{all}");
    assert!(all.contains("4 errors"), "{all}");
}

#[test]
fn machine_formats() {
    let mistake = &MISTAKES[0];
    let done = check(&mistake.text(), &["--format", "json"]).expect_code(3);
    let list: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.all()));
    let (line, column) = mistake.place().unwrap();
    let one = &list[0];
    assert_eq!((one["code"].as_str(), one["severity"].as_str()), (Some("unknown-key"), Some("error")), "{list}");
    assert_eq!((one["line"].as_u64(), one["column"].as_u64()), (Some(line as u64), Some(column as u64)), "{list}");
    assert_eq!(one["key"], "splits.shop.versions.v2.wieght");
    for key in ["message", "file", "end_line", "end_column", "help"] {
        assert!(!one[key].is_null(), "no {key} in {list}");
    }
    let done = check(&mistake.text(), &["--format", "github"]).expect_code(3);
    assert!(done.all().contains("::error ") && done.all().contains(&format!("line={line}")), "{}", done.all());
    let done = check(GOOD, &["--format", "json"]).expect_code(0);
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap(), Value::Array(Vec::new()));
}

#[test]
fn what_is_not_built_yet_says_so() {
    let text = format!("{GOOD}[splits.shop.mirror]\nversion = \"v2\"\npercent = 10\n");
    let all = check(&text, &[]).expect_code(3).all();
    assert!(all.contains("error[not-yet]") && all.contains("mirror"), "{all}");
}

#[test]
fn weights_beside_a_hundred_are_a_warning() {
    let text = GOOD.replacen("weight = 10", "weight = 12", 1);
    let done = check(&text, &[]).expect_code(0);
    assert!(done.all().contains("warning[weights-not-100]"), "{}", done.all());
    check(&text, &["--strict"]).expect_code(3);
}

#[test]
fn an_admin_beyond_loopback_is_refused() {
    let text = GOOD.replacen("[admin]\nbind = \"127.0.0.1:0\"", "[admin]\nbind = \"0.0.0.0:0\"", 1);
    let all = check(&text, &[]).expect_code(3).all();
    assert!(all.contains("error[unsafe-admin]"), "{all}");
}

#[test]
fn variables_are_filled_in() {
    let text = GOOD.replacen("\"127.0.0.1:9001\"", "\"${WEIR_TEST_UNSET}\"", 1);
    let all = check(&text, &[]).expect_code(3).all();
    assert!(all.contains("error[env-unset]") && all.contains("WEIR_TEST_UNSET"), "{all}");
    check(&text.replacen("UNSET}", "UNSET:-127.0.0.1:9001}", 1), &[]).expect_code(0);
}

#[test]
fn run_refuses_a_bad_file_with_the_same_words() {
    for mistake in MISTAKES {
        let done = Weir::start_refused(&mistake.text()).expect_code(3);
        assert!(mistake.codes.iter().any(|code| done.all().contains(code)), "{:?}: {}", mistake.codes, done.all());
    }
    assert!(Weir::start_refused("").expect_code(3).all().contains("empty-config"));
    let done = weir(&["run", "--config", "/nonexistent/weir.toml"]).expect_code(3);
    assert!(done.all().contains("/nonexistent/weir.toml"), "{}", done.all());
}

/// On reload a bad file leaves the old world whole: requests, weights, and a clear word everywhere.
#[test]
fn on_reload_the_old_world_stays() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::two((1, origin.address), (0, origin.address)));
    let mut client = weir.connect();
    let texts = MISTAKES.iter().map(|m| (m.codes, m.text())).chain([(&["empty-config"][..], String::new())]);
    for (codes, text) in texts {
        weir.edit_text(&text);
        wait_until(&format!("{codes:?} is rejected"), || {
            let status = weir.admin.json("/api/v1/status").to_string();
            codes.iter().any(|code| status.contains("rejected") && status.contains(code))
        });
        weir.admin.wait_metric("weir_config_last_reload_successful", &[], 0.0);
        assert!(codes.iter().any(|code| weir.stderr().contains(code)), "{codes:?} is not in the log");
        assert_eq!(client.get("/").unwrap().text(), "v1");
        assert_eq!(weir.admin.weights(), (1, 0));
        assert_eq!(weir.admin.get("/readyz").status(), 200);
    }
    weir.edit(&Conf::two((0, origin.address), (1, origin.address)));
    wait_until("a good file is taken again", || weir.admin.weights() == (0, 1));
    weir.admin.wait_metric("weir_config_last_reload_successful", &[], 1.0);
    wait_until("all are counted", || weir.admin.metric("weir_config_reloads_total", &[]).is_some_and(|n| n >= 8.0));
}

#[test]
fn a_port_in_use_at_start() {
    let origin = Origin::named("v1");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let done = Weir::start_refused(&Conf::one(origin.address).bind(address).text()).expect_code(4);
    let all = done.all();
    assert!(all.contains("address-in-use") && all.contains(&address.to_string()), "{all}");
    assert!(all.contains(&std::process::id().to_string()), "the holder is this process, {}: {all}", std::process::id());
}

#[test]
fn two_weirs_never_share_a_port() {
    let origin = Origin::named("v1");
    let first = Weir::start(&Conf::one(origin.address));
    let done = Weir::start_refused(&Conf::one(origin.address).bind(first.web()).text()).expect_code(4);
    assert!(done.all().contains("address-in-use") && done.all().contains(&first.pid().to_string()), "{}", done.all());
    let done = Weir::start_refused(&Conf::one(origin.address).admin_bind(first.admin.address).text()).expect_code(4);
    assert!(done.all().contains("address-in-use"), "{}", done.all());
    assert_eq!(first.connect().get("/").unwrap().text(), "v1");
}

#[test]
fn a_port_in_use_on_reload() {
    let origin = Origin::named("v1");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let conf = Conf::two((1, origin.address), (0, origin.address));
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    assert_eq!(client.get("/").unwrap().text(), "v1");
    let extra = format!("[listeners.extra]\nbind = \"{address}\"");
    weir.edit(&conf.weights(&[0, 1]).tail(&extra));
    wait_until("it is rejected", || weir.admin.json("/api/v1/status").to_string().contains("address-in-use"));
    weir.admin.wait_metric("weir_config_last_reload_successful", &[], 0.0);
    assert_eq!((weir.admin.weights(), weir.admin.file_weights()), ((1, 0), (1, 0)), "all or nothing");
    assert_eq!(client.get("/").unwrap().text(), "v1");
}

#[test]
fn the_api_checks_without_loading() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address));
    let mistake = &MISTAKES[0];
    let answer =
        weir.admin.ask("POST", "/api/v1/config/check", "Content-Type: application/toml\r\n", Some(&mistake.text()));
    assert!(answer.text().contains("unknown-key"), "{}{}", answer.head.raw, answer.text());
    assert!(answer.text().contains("splits.shop.versions.v2.wieght"), "{}", answer.text());
    let answer = weir.admin.ask("POST", "/api/v1/config/check", "Content-Type: application/toml\r\n", Some(GOOD));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(!answer.text().contains("\"error\""), "{}", answer.text());
    weir.admin.wait_metric("weir_config_last_reload_successful", &[], 1.0);
}

#[test]
fn what_needs_a_restart_is_said() {
    let origin = Origin::named("v1");
    let conf = Conf::two((1, origin.address), (0, origin.address));
    let weir = Weir::start(&conf);
    weir.edit(&conf.weights(&[0, 1]).workers(3));
    wait_until("the rest is taken", || weir.admin.weights() == (0, 1));
    wait_until("that `workers` needs a restart is said", || weir.stderr().contains("restart-needed"));
}
