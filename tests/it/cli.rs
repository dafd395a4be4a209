//! The command line: what it prints, and its exit codes.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Conf, Connection, Origin, Weir, free_address, wait_for, wait_until, weir};

fn start() -> (Weir, [Origin; 2]) {
    let origins = ["v1", "v2"].map(Origin::named);
    let weir = Weir::start(&Conf::two((90, origins[0].address), (10, origins[1].address)));
    (weir, origins)
}

/// Several blanks are one; columns may be of any width.
fn squeezed(text: &str) -> String {
    text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn shift_rollback_release_and_history() {
    let (weir, _origins) = start();
    let said = squeezed(&weir.cli(&["shift", "shop", "v2=25"]).expect_code(0).stdout);
    assert!(said.starts_with("shop v1 90% -> 75% v2 10% -> 25% revision "), "{said}");
    assert!(said.contains(" ms, saved"), "{said}");
    assert_eq!(weir.admin.weights(), (75, 25));
    let said = squeezed(&weir.cli(&["rollback", "shop", "--reason", "p99 up"]).expect_code(0).stdout);
    assert!(said.starts_with("shop v1 75% -> 100% v2 25% -> 0% revision "), "{said}");
    assert!(said.contains("HELD") && said.contains("`weir release shop`"), "{said}");
    assert_eq!(weir.admin.shop()["override"]["reason"], "p99 up");
    let said = squeezed(&weir.cli(&["history"]).expect_code(0).stdout);
    assert!(said.contains("p99 up"), "{said}");
    let said = squeezed(&weir.cli(&["release", "shop"]).expect_code(0).stdout);
    assert!(said.starts_with("shop v1 100% -> 90% v2 0% -> 10% revision "), "{said}");
    assert_eq!(weir.admin.weights(), (90, 10));
    weir.admin.wait_metric("weir_rollbacks_total", &[("split", "shop"), ("source", "cli")], 1.0);
}

#[test]
fn others_share_the_rest_in_their_present_ratio() {
    let origin = Origin::named("v1");
    let e = [origin.address];
    let weir = Weir::start(&Conf::shop(&[("v1", 60, &e), ("v2", 30, &e), ("v3", 10, &e)]));
    weir.cli(&["shift", "shop", "v3=40"]).expect_code(0);
    let shop = weir.admin.shop();
    let share = |n: usize| shop["versions"][n]["share"].as_f64().unwrap();
    assert!((share(0) - 0.4).abs() < 1e-4 && (share(1) - 0.2).abs() < 1e-4 && (share(2) - 0.4).abs() < 1e-4, "{shop}");
}

#[test]
fn status_as_table_and_as_json() {
    let (weir, _origins) = start();
    let mut client = weir.connect();
    for _ in 0..20 {
        client.get("/").unwrap();
    }
    let table = squeezed(&weir.cli(&["status", "shop"]).expect_code(0).stdout);
    assert!(table.starts_with("shop steady"), "{table}");
    assert!(table.contains("VERSION SHARE SEEN RPS 5XX P50 P95 P99 IN-FLIGHT ENDPOINTS"), "{table}");
    assert!(table.contains("\nv1 stable 90%") && table.contains("\nv2 10%") && table.contains("1/1 up"), "{table}");
    let json = weir.cli(&["status", "shop", "-o", "json"]).expect_code(0).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["name"], &json["weights"]), (&"shop".into(), &weir.admin.shop()["weights"]));
    let all = weir.cli(&["status"]).expect_code(0).stdout;
    assert!(all.contains("shop") && all.contains("v2"), "{all}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let (weir, _origins) = start();
    let said = squeezed(&weir.cli(&["shift", "shop", "v2=25", "--dry-run"]).expect_code(0).stdout);
    assert!(said.contains("v2 10% -> 25%"), "{said}");
    assert_eq!(weir.admin.weights(), (90, 10));
}

#[test]
fn exit_codes() {
    let (weir, _origins) = start();
    let nobody = format!("http://{}", free_address());
    let done = crate::support::weir(&["status", "--admin", &nobody]).expect_code(5);
    assert!(done.stderr.contains(&nobody[7..]), "it says where nobody answers: {}", done.stderr);
    assert!(done.stdout.is_empty());
    let done = weir.cli(&["shift", "shop", "v9=5"]).expect_code(6);
    assert!(done.stderr.contains("v1, v2"), "{}", done.stderr);
    weir.cli(&["shift", "shop", "v1=100"]).expect_code(0);
    weir.cli(&["rollback", "shop"]).expect_code(6);
    for usage in [&["shift", "shop"][..], &["shift", "shop", "v2"], &["shift", "shop", "v2=120"], &["frobnicate"], &[]]
    {
        crate::support::weir(usage).expect_code(2);
    }
    let done = weir.cli(&["status", "nope"]);
    assert!(matches!(done.code, Some(1 | 6)), "{done:?}");
    assert!(done.stderr.contains("nope") && done.stderr.contains("shop"), "{}", done.stderr);
}

#[test]
fn the_admin_address_is_found_in_the_configuration() {
    let origin = Origin::named("v1");
    let running = Weir::start(&Conf::one(origin.address).admin_bind(free_address()));
    let done = weir(&["status", "-c", running.config().to_str().unwrap()]).expect_code(0);
    assert!(done.stdout.contains("shop"), "{}", done.stdout);
}

#[test]
fn reload_tells_what_is_wrong() {
    let (running, origins) = start();
    running.cli(&["reload"]).expect_code(0);
    running.edit_text("");
    let done = running.cli(&["reload"]);
    assert!(matches!(done.code, Some(3 | 6)), "{done:?}");
    assert!(done.all().contains("empty-config"), "{}", done.all());
    assert_eq!(running.connect().get("/").unwrap().status(), 200);
    assert!(origins[0].requests() + origins[1].requests() > 0);
}

#[test]
fn help_version_and_schema() {
    let done = weir(&["--help"]).expect_code(0);
    for command in [
        "run", "check", "init", "demo", "status", "shift", "rollback", "release", "drain", "history", "reload",
        "simulate",
    ] {
        assert!(done.stdout.contains(command), "{command} in {}", done.stdout);
    }
    assert!(weir(&["--version"]).expect_code(0).stdout.starts_with("weir 0.1"));
    let schema: Value = serde_json::from_str(&weir(&["schema"]).expect_code(0).stdout).unwrap();
    assert!(schema["properties"]["splits"].is_object(), "{schema}");
}

#[test]
fn init_writes_a_file_that_checks_and_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let init = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.current_dir(dir.path()).args(["init", "shop", "v1=127.0.0.1:9001@90", "v2=127.0.0.1:9002@10"]);
        crate::support::run(&mut command, crate::support::LIMIT)
    };
    init().expect_code(0);
    let file = dir.path().join("weir.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("127.0.0.1:9002") && text.contains('#'), "{text}");
    weir(&["check", file.to_str().unwrap()]).expect_code(0);
    let again = init();
    assert!(again.code != Some(0) && again.stderr.contains("weir.toml"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn simulate_says_what_a_rollout_would_do() {
    let line = "simulate --steps 5:4s,100:1s --rps 500 --canary-errors 50% --runs 4 --seed 7";
    let done = weir(&line.split(' ').collect::<Vec<_>>()).expect_code(0);
    let said = squeezed(&done.stdout);
    assert!(
        said.contains("STEP WEIGHT TIME CANARY REQUESTS NEEDED TAKES IN TIME PASSED TOOK LACKED\n1 5 % 4s 100 "),
        "{said}"
    );
    assert!(said.contains("finished 0 of 4 0 %\nrolled back 4 of 4 100 % errors "), "{said}");
    assert!(said.contains("until a rollback: "), "{said}");
    let json = weir(&format!("{line} -o json").split(' ').collect::<Vec<_>>()).expect_code(0).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["ends"]["rolled_back"], &json["is_allowed"]), (&4.into(), &false.into()), "{json}");
    let harmed = json["until_rollback"]["mean_harmed"].as_f64().unwrap();
    assert!((1.0..10.0).contains(&harmed), "{json}");
}

#[test]
fn simulate_takes_the_rollout_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weir.toml");
    let text = "[listeners.web]\nbind = \"127.0.0.1:0\"\n[[routes]]\nsplit = \"shop\"\n[splits.shop.versions]\n\
        v1 = { weight = 90, endpoints = [\"127.0.0.1:9001\"] }\nv2 = { weight = 10, endpoints = [\"127.0.0.1:9002\"] }\n\
        [splits.shop.rollout]\nmax_wait = \"2s\"\nsteps = [{ weight = 1, for = \"3s\" }]\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let done = weir(&["simulate", file, "--split", "shop", "--runs", "2", "--rps", "20"]).expect_code(0);
    assert!(done.stdout.contains("step 1 needs ") && done.stdout.contains("; its time is 3s"), "{}", done.stdout);
    assert!(squeezed(&done.stdout).contains("still waiting 2 of 2 100 %"), "{}", done.stdout);
    let done = weir(&["simulate", file, "--split", "cart"]).expect_code(1);
    assert!(done.stderr.contains("error[unknown-split]") && done.stderr.contains("shop"), "{}", done.stderr);
    weir(&["check", file, "--rps", "many"]).expect_code(2);
    std::fs::write(file, text.replace("weight = 1,", "wieght = 1,")).unwrap();
    let done = weir(&["simulate", file]).expect_code(3);
    assert!(done.stdout.is_empty() && done.stderr.contains("wieght"), "{done:?}");
}

/// `demo`: two toy versions, load, the proxy and its page; all gone by itself.
#[test]
fn demo_runs_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (stdout, stderr) = (dir.path().join("out"), dir.path().join("err"));
    let file = |path| std::fs::File::create(path).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["demo", "--seconds", "3"]).current_dir(dir.path()).stdin(Stdio::null());
    let mut demo = command.stdout(file(&stdout)).stderr(file(&stderr)).spawn().unwrap();
    let said = || std::fs::read_to_string(&stdout).unwrap() + &std::fs::read_to_string(&stderr).unwrap();
    let urls = wait_for("its URLs", || {
        let said = said();
        let words = said.split_whitespace().filter_map(|w| w.strip_prefix("http://"));
        let urls: Vec<std::net::SocketAddr> =
            words.filter_map(|w| w.split('/').next()?.trim_end_matches([',', '.']).parse().ok()).collect();
        (urls.len() >= 2).then_some(urls).or_else(|| {
            assert!(demo.try_wait().unwrap().is_none(), "it ended at once: {said}");
            None
        })
    });
    let serves = |address: &std::net::SocketAddr| {
        Connection::open(*address).and_then(|mut c| c.get("/")).is_ok_and(|a| matches!(a.status(), 200 | 500))
    };
    wait_until("one of them proxies", || urls.iter().any(serves));
    let status = wait_for("it ends", || demo.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", said());
    assert!(said().contains("weir rollback") || said().contains("weir shift"), "what to try next: {}", said());
}
