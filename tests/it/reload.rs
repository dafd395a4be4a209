//! A new file takes effect at once, however it is written, and no request notices.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    Backend, Conf, Instant, Load, Weir, pair, run, soak, tell, times, tool, wait_for_within, wait_until,
};

const BAR: Duration = Duration::from_millis(500);

fn all_to(name: &str, v1: &Backend, v2: &Backend) -> Conf {
    let weights = if name == "v1" { (1, 0) } else { (0, 1) };
    Conf::two((weights.0, v1.address), (weights.1, v2.address))
}

/// Flips all requests from one version to the other and back, under load, edit by edit.
fn flip_under_load(weir: &Weir, v1: &Backend, v2: &Backend, edit: impl Fn(&Conf, usize)) {
    let load = Load::steady(weir.web());
    let mut took = Vec::new();
    for n in 0..times(10, 200) {
        let name = if n % 2 == 0 { "v2" } else { "v1" };
        let begun = Instant::now();
        edit(&all_to(name, v1, v2), n);
        // From the end of the edit: a busy disk can hold up the editor for seconds.
        let edited = Instant::now();
        took.push(load.wait_for_version(name, begun).saturating_duration_since(edited));
        // The old version is left for good before the next flip, so each flip is seen by itself.
        let seen = Instant::now();
        load.wait_for_more(8);
        assert_eq!(load.since(seen, |s| s.version != name), 0, "a request that began after the new one was seen");
    }
    load.stop().expect_no_failure();
    took.sort();
    tell(&format!(
        "{} flips under load: median {:?}, worst {:?}",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1]
    ));
    if soak() {
        assert!(took[took.len() - 1] < BAR, "a flip took {:?}", took[took.len() - 1]);
    }
}

#[test]
fn by_rename() {
    let (v1, v2) = pair();
    let weir = Weir::start(&all_to("v1", &v1, &v2));
    flip_under_load(&weir, &v1, &v2, |conf, _| weir.edit(conf));
}

#[test]
fn in_place() {
    let (v1, v2) = pair();
    let weir = Weir::start(&all_to("v1", &v1, &v2));
    flip_under_load(&weir, &v1, &v2, |conf, _| weir.edit_in_place(conf));
}

/// As the kubelet writes a ConfigMap: `weir.toml -> ..data/weir.toml`, `..data -> ..N`, and `..data` is swapped.
fn swap(dir: &Path, text: &str, n: usize) {
    let folder = dir.join(format!("..{n}"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("weir.toml"), text.replace("@DIR@", dir.to_str().unwrap())).unwrap();
    symlink(format!("..{n}"), dir.join("..data_new")).unwrap();
    let old = fs::read_link(dir.join("..data")).ok();
    fs::rename(dir.join("..data_new"), dir.join("..data")).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old)).unwrap();
    }
}

#[test]
fn by_symlink_swap() {
    let (v1, v2) = pair();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    swap(dir.path(), &all_to("v1", &v1, &v2).text(), 0);
    let config: PathBuf = dir.path().join("weir.toml");
    symlink("..data/weir.toml", &config).unwrap();
    let weir = Weir::start_in(dir.clone(), config, 0);
    flip_under_load(&weir, &v1, &v2, |conf, n| swap(dir.path(), &conf.text(), n + 1));
}

#[test]
fn by_delete_and_create() {
    let (v1, v2) = pair();
    let weir = Weir::start(&all_to("v1", &v1, &v2));
    flip_under_load(&weir, &v1, &v2, |conf, _| {
        fs::remove_file(weir.config()).unwrap();
        weir.edit_in_place(conf);
    });
}

#[test]
fn ninety_ten_to_fifty_fifty_and_back() {
    let (v1, v2) = pair();
    let conf = Conf::two((90, v1.address), (10, v2.address));
    let weir = Weir::start(&conf);
    let load = Load::steady(weir.web());
    for n in 0..times(6, 50) {
        let weights = if n % 2 == 0 { (50, 50) } else { (90, 10) };
        weir.edit(&conf.weights(&[weights.0, weights.1]));
        let edited = Instant::now();
        wait_until("the new weights", || weir.admin.weights() == (weights.0.into(), weights.1.into()));
        assert!(!soak() || edited.elapsed() < BAR, "{:?}", edited.elapsed());
        assert_eq!(weir.admin.file_weights(), (weights.0.into(), weights.1.into()));
    }
    load.stop().expect_no_failure();
    let shop = weir.admin.shop();
    assert_eq!((shop["source"].as_str(), shop["state"].as_str()), (Some("file"), Some("steady")), "{shop}");
}

/// An independent client: what `wrk` calls a socket error is one.
#[test]
fn wrk_sees_no_error_while_the_file_changes() {
    let Some(wrk) = tool("wrk") else { return };
    let (v1, v2) = pair();
    let conf = Conf::two((90, v1.address), (10, v2.address));
    let weir = Weir::start(&conf);
    let url = format!("http://{}/", weir.web());
    let seconds = times(3, 20);
    let client = std::thread::spawn(move || {
        run(Command::new(wrk).args(["-t1", "-c16", &format!("-d{seconds}s"), &url]), Duration::from_secs(60))
    });
    let mut edits = 0;
    while !client.is_finished() {
        let weights = [[50, 50], [90, 10]][edits % 2];
        weir.edit(&conf.weights(&weights));
        wait_until("the new weights", || weir.admin.weights() == (weights[0].into(), weights[1].into()));
        edits += 1;
    }
    let done = client.join().unwrap().expect_code(0);
    tell(&format!(
        "wrk beside {edits} edits: {}",
        done.stdout.lines().find(|l| l.contains("Requests/sec")).unwrap_or("?")
    ));
    assert!(edits > 2);
    assert!(!done.stdout.contains("Socket errors") && !done.stdout.contains("Non-2xx"), "{}", done.stdout);
    assert!(done.stdout.contains("Requests/sec"), "{}", done.stdout);
}

#[test]
fn hup_reloads_when_nothing_watches() {
    let (v1, v2) = pair();
    let conf = Conf::two((1, v1.address), (0, v2.address)).top("watch = false");
    let weir = Weir::start(&conf);
    weir.edit(&conf.weights(&[0, 1]));
    weir.signal(Signal::HUP);
    wait_until("the new file", || weir.admin.weights() == (0, 1));
    assert_eq!(weir.connect().get("/").unwrap().text(), "v2");
}

#[test]
fn the_api_and_the_cli_reload() {
    let (v1, v2) = pair();
    let conf = Conf::two((1, v1.address), (0, v2.address)).top("watch = false");
    let weir = Weir::start(&conf);
    weir.edit(&conf.weights(&[0, 1]));
    assert_eq!(weir.admin.weights(), (1, 0), "nobody has looked at the file yet");
    let answer = weir.admin.ask("POST", "/api/v1/config/reload", "", None);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(weir.admin.weights(), (0, 1), "in force when answered");
    weir.edit(&conf.weights(&[1, 1]));
    weir.cli(&["reload"]).expect_code(0);
    assert_eq!(weir.admin.weights(), (1, 1));
}

#[test]
fn a_reload_keeps_connections_and_counters() {
    let (v1, v2) = pair();
    let conf = Conf::two((1, v1.address), (0, v2.address));
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    for _ in 0..10 {
        assert_eq!(client.get("/").unwrap().text(), "v1");
    }
    weir.edit(&conf.weights(&[0, 1]));
    wait_until("the new file", || weir.admin.weights() == (0, 1));
    assert_eq!(client.get("/").unwrap().text(), "v2", "the same connection, the new weights");
    wait_until("all eleven are counted", || {
        let count = |v| weir.admin.metric("weir_requests_total", &[("version", v)]).unwrap_or_default();
        count("v1") == 10.0 && count("v2") == 1.0
    });
}

#[test]
fn an_override_stays_until_the_file_changes_these_weights() {
    let (v1, v2) = pair();
    let conf = Conf::two((90, v1.address), (10, v2.address));
    let weir = Weir::start(&conf);
    weir.admin.shift(70, 30);
    assert_eq!(weir.admin.shop()["state"], "shifted");
    let before = weir.admin.json("/api/v1/status").to_string();
    weir.edit(&conf.clone().split("expose_version = true"));
    wait_until("the reload", || weir.connect().get("/").unwrap().head.has("weir-version"));
    assert_eq!(weir.admin.weights(), (70, 30), "the file's weights are as before; {before}");
    weir.edit(&conf.weights(&[60, 40]));
    wait_until("the file wins", || weir.admin.weights() == (60, 40));
    let shop = weir.admin.shop();
    assert_eq!((shop["source"].as_str(), shop["state"].as_str()), (Some("file"), Some("steady")), "{shop}");
    assert!(weir.admin.json("/api/v1/history").to_string().contains("superseded"));
}

#[test]
fn an_override_outlives_a_restart_and_a_file_changed_meanwhile_wins() {
    let (v1, v2) = pair();
    let conf = Conf::two((90, v1.address), (10, v2.address));
    let mut weir = Weir::start(&conf);
    weir.admin.shift(70, 30);
    weir = weir.kill_and_restart();
    assert_eq!((weir.admin.weights(), weir.admin.file_weights()), ((70, 30), (90, 10)));
    weir.kill();
    weir.edit(&conf.weights(&[60, 40]));
    let weir = weir.restart();
    assert_eq!(weir.admin.weights(), (60, 40), "the file changed the weights while it was down");
}

#[test]
fn a_storm_of_writes_ends_with_the_last() {
    let (v1, v2) = pair();
    let conf = Conf::two((1, v1.address), (1, v2.address));
    let weir = Weir::start(&conf);
    let load = Load::steady(weir.web());
    for n in 1..=200 {
        weir.edit_in_place(&conf.weights(&[n, 1]));
    }
    wait_until("the last write", || weir.admin.weights() == (200, 1));
    load.stop().expect_no_failure();
}

#[test]
fn a_file_that_goes_away_or_is_no_file_changes_nothing() {
    let (v1, v2) = pair();
    let conf = Conf::two((1, v1.address), (0, v2.address));
    let weir = Weir::start(&conf);
    let rejected = || weir.admin.metric("weir_config_last_reload_successful", &[]) == Some(0.0);
    fs::remove_file(weir.config()).unwrap();
    fs::create_dir(weir.config()).unwrap();
    weir.signal(Signal::HUP);
    wait_until("the reload is refused", rejected);
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
    fs::remove_dir(weir.config()).unwrap();
    weir.edit(&conf.weights(&[0, 1]));
    wait_for_within("it is back", Duration::from_secs(10), || (weir.admin.weights() == (0, 1)).then_some(()));
    weir.admin.wait_metric("weir_config_last_reload_successful", &[], 1.0);
}

/// `include`d files are watched too.
#[test]
fn included_files_are_watched() {
    let (v1, v2) = pair();
    let dir: Arc<TempDir> = Arc::new(tempfile::tempdir().unwrap());
    fs::create_dir(dir.path().join("conf.d")).unwrap();
    let part = |w1: u32, w2: u32| {
        let versions = format!(
            "[splits.shop.versions]\nv1 = {{ weight = {w1}, endpoints = [\"{}\"] }}\nv2 = {{ weight = {w2}, endpoints = [\"{}\"] }}\n",
            v1.address, v2.address
        );
        fs::write(dir.path().join("conf.d/shop.toml"), versions).unwrap();
    };
    part(1, 0);
    let main = format!(
        "include = [\"conf.d/*.toml\"]\n[listeners.web]\nbind = \"127.0.0.1:0\"\n[[routes]]\nsplit = \"shop\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\nstate_dir = \"{}/state\"\n",
        dir.path().display()
    );
    let config = dir.path().join("weir.toml");
    fs::write(&config, main).unwrap();
    let weir = Weir::start_in(dir.clone(), config, 0);
    assert_eq!(weir.connect().get("/").unwrap().text(), "v1");
    part(0, 1);
    wait_until("the included file's weights", || weir.admin.weights() == (0, 1));
}

/// There and back in the first instants: a load that was overtaken by an edit must not pass for what was there before
/// it, or the way back is never noticed.
#[test]
fn edits_in_the_first_instants_are_not_lost() {
    let (v1, v2) = pair();
    for n in 0..times(8, 200) {
        let conf = Conf::two((90, v1.address), (10, v2.address));
        let weir = Weir::start(&conf);
        weir.edit(&conf.weights(&[50, 50]));
        wait_until(&format!("there, start {n}"), || weir.admin.weights() == (50, 50));
        weir.edit(&conf);
        wait_until(&format!("and back, start {n}"), || weir.admin.weights() == (90, 10));
    }
}
