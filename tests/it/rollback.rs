//! Rollback: one call, true when answered, kept over `kill -9`, and held against the file.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::{Backend, Conf, Instant, Load, Weir, pair, run, soak, tell, times, tool, wait_until};

const BAR: Duration = Duration::from_millis(10);

fn half_and_half(v1: &Backend, v2: &Backend) -> Conf {
    Conf::two((90, v1.address), (10, v2.address))
}

/// Rolls back again and again under load. `roll_back` gives how long the call took; it returns once answered.
fn again_and_again(tries: usize, label: &str, roll_back: impl Fn(&Weir) -> Duration) {
    let (v1, v2) = pair();
    let weir = Weir::start(&half_and_half(&v1, &v2));
    let load = Load::steady(weir.web());
    let mut took = Vec::new();
    let mut quiet = Vec::new();
    for _ in 0..tries {
        let shifting = Instant::now();
        weir.admin.shift(50, 50);
        load.wait_for_version("v2", shifting);
        took.push(roll_back(&weir));
        let answered = Instant::now();
        load.wait_for_more(20);
        quiet.push((answered, Instant::now()));
    }
    let report = load.stop();
    report.expect_no_failure();
    let late = report.served.iter().filter(|s| s.version == "v2");
    // One that had begun but was not answered when the next shift was asked for may rightly see that shift.
    let late = late.filter(|s| quiet.iter().any(|(from, to)| s.began > *from && s.ended < *to)).count();
    assert_eq!(late, 0, "requests that began after the answer and before the next shift reached v2");
    took.sort();
    let p99 = took[(took.len() * 99).div_ceil(100) - 1];
    tell(&format!(
        "{tries} rollbacks by {label} under load: median {:?}, p99 {p99:?}, worst {:?}",
        took[tries / 2],
        took[tries - 1]
    ));
    tell(&format!(
        "of that a rollback waits for two fsyncs; one costs here {:?} (median of 50)",
        fsync_cost(weir.dir())
    ));
    assert!(!soak() || p99 < BAR, "p99 {p99:?}");
}

/// What one fsync of a page costs where the state lies.
fn fsync_cost(dir: &Path) -> Duration {
    let mut file = File::create(dir.join("fsync")).unwrap();
    let mut took: Vec<Duration> = (0..50)
        .map(|_| {
            file.write_all(&[b'x'; 4096]).unwrap();
            let begun = Instant::now();
            file.sync_all().unwrap();
            begun.elapsed()
        })
        .collect();
    took.sort();
    took[25]
}

#[test]
fn by_api_under_load() {
    again_and_again(times(50, 1000), "API", |weir| {
        let asked = Instant::now();
        let shop = weir.admin.rollback();
        let took = asked.elapsed();
        assert_eq!((shop["weights"]["v2"].as_u64(), shop["persisted"].as_bool()), (Some(0), Some(true)), "{shop}");
        took
    });
}

#[test]
fn by_curl_under_load() {
    let Some(curl) = tool("curl") else { return };
    again_and_again(times(20, 200), "curl", |weir| {
        let url = format!("http://{}/api/v1/splits/shop/rollback", weir.admin.address);
        let mut command = Command::new(&curl);
        command.args(["-sS", "-X", "POST", "-w", "\n%{http_code} %{time_total}", &url]);
        let done = run(&mut command, Duration::from_secs(20)).expect_code(0);
        let (code, seconds) = done.stdout.lines().last().unwrap().split_once(' ').unwrap();
        assert_eq!(code, "200", "{}", done.stdout);
        Duration::from_secs_f64(seconds.parse().unwrap())
    });
}

#[test]
fn it_holds_over_kill_and_against_the_file_until_released() {
    let (v1, v2) = pair();
    let conf = half_and_half(&v1, &v2);
    let weir = Weir::start(&conf);
    weir.admin.rollback();
    let weir = weir.kill_and_restart();
    assert_held(&weir, (90, 10));

    weir.edit(&conf.weights(&[50, 50]));
    wait_until("the file is read", || weir.admin.file_weights() == (50, 50));
    assert_held(&weir, (50, 50));
    wait_until("the held reload is told", || weir.admin.json("/api/v1/history").to_string().contains("\"held\""));

    let weir = weir.kill_and_restart();
    assert_held(&weir, (50, 50));

    weir.cli(&["release", "shop"]).expect_code(0);
    let shop = weir.admin.shop();
    assert_eq!((weir.admin.weights(), shop["state"].as_str()), ((50, 50), Some("steady")), "{shop}");
    let weir = weir.kill_and_restart();
    assert_eq!(weir.admin.weights(), (50, 50), "a release is remembered as well");
}

#[track_caller]
fn assert_held(weir: &Weir, file: (u64, u64)) {
    let shop = weir.admin.shop();
    assert_eq!(shop["state"], "held", "{shop}");
    assert_eq!(shop["override"]["hold"], true, "{shop}");
    assert_eq!(shop["versions"][1]["state"], "closed", "{shop}");
    assert_eq!(weir.admin.file_weights(), file, "{shop}");
    assert_eq!(shop["weights"]["v2"], 0, "{shop}");
    let mut client = weir.connect();
    assert!((0..300).all(|_| client.get("/").unwrap().text() == "v1"));
    weir.admin.wait_metric("weir_split_held", &[("split", "shop")], 1.0);
}

#[test]
fn when_stable_has_everything_there_is_nothing_to_roll_back() {
    let (v1, v2) = pair();
    let weir = Weir::start(&Conf::two((100, v1.address), (0, v2.address)));
    assert!(weir.admin.shop()["rollback_to"].is_null());
    let answer = weir.admin.post("/api/v1/splits/shop/rollback", json!({}));
    assert_eq!(answer.status(), 409, "{}", answer.text());
    assert_eq!(answer.json()["type"], "/problems/nothing-to-roll-back");
}

/// Whoever presses the button twice is not sent on to somewhere else.
#[test]
fn a_second_rollback_stays_where_the_first_led() {
    let (v1, v2) = pair();
    let weir = Weir::start(&half_and_half(&v1, &v2));
    let first = weir.admin.rollback();
    let second = weir.admin.rollback();
    assert_eq!((&second["changed"], &second["revision"]), (&json!(false), &first["revision"]), "{second}");
    assert_eq!(second["state"], "held");
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
}

#[test]
fn to_a_version_or_a_revision_by_name() {
    let (v1, v2) = pair();
    let weir = Weir::start(&half_and_half(&v1, &v2));
    let first = weir.admin.shift(70, 30)["revision"].as_u64().unwrap();
    weir.admin.shift(20, 80);
    let answer = weir.admin.post("/api/v1/splits/shop/rollback", json!({"to": "v2"}));
    assert_eq!((answer.status(), weir.admin.weights().0), (200, 0), "{}", answer.text());
    let answer = weir.admin.post("/api/v1/splits/shop/rollback", json!({"to_revision": first}));
    assert_eq!((answer.status(), weir.admin.weights()), (200, (70, 30)), "{}", answer.text());
    assert_eq!(weir.admin.shop()["state"], "held");
    let answer = weir.admin.post("/api/v1/splits/shop/rollback", json!({"to": "v9"}));
    assert_eq!(answer.json()["type"], "/problems/unknown-version", "{}", answer.text());
}

#[test]
fn stable_is_what_the_file_says() {
    let (v1, v2) = pair();
    let weir = Weir::start(&half_and_half(&v1, &v2).split("stable = \"v2\""));
    assert_eq!(weir.admin.shop()["stable"], "v2");
    weir.admin.rollback();
    assert_eq!(weir.connect().get("/").unwrap().text(), "v2");
    assert_eq!(weir.admin.weights().0, 0);
}

#[test]
fn an_explicit_shift_may_follow_a_rollback() {
    let (v1, v2) = pair();
    let weir = Weir::start(&half_and_half(&v1, &v2));
    weir.admin.rollback();
    let shop = weir.admin.shift(0, 100);
    assert_eq!((shop["state"].as_str(), shop["override"]["hold"].as_bool()), (Some("shifted"), Some(false)), "{shop}");
    assert_eq!(weir.connect().get("/").unwrap().text(), "v2");
}

#[test]
fn a_version_that_a_held_rollback_stands_on_cannot_leave_the_file() {
    let (v1, v2) = pair();
    let weir = Weir::start(&half_and_half(&v1, &v2));
    weir.admin.rollback();
    weir.edit(&Conf::shop(&[("v2", 1, &[v2.address])]));
    weir.admin.wait_metric("weir_config_last_reload_successful", &[], 0.0);
    assert!(weir.stderr().contains("held-conflict"));
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
}

#[test]
fn without_a_writable_state_dir_it_still_works_and_says_so() {
    let (v1, v2) = pair();
    // A file where the folder should be: unusable for root as well.
    let text = half_and_half(&v1, &v2).text().replace("@DIR@/state", "@DIR@/weir.toml/state");
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let config = dir.path().join("weir.toml");
    std::fs::write(&config, text.replace("@DIR@", dir.path().to_str().unwrap())).unwrap();
    let weir = Weir::start_in(dir, config, 0);
    let shop = weir.admin.rollback();
    assert_eq!((shop["persisted"].as_bool(), shop["weights"]["v2"].as_u64()), (Some(false), Some(0)), "{shop}");
    weir.admin.wait_metric("weir_state_persisted", &[], 0.0);
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
}
