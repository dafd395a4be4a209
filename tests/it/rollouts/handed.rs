//! A rollout that is handed from one process to the next, and one whose disk refuses.

use std::fs;

use serde_json::{Value, json};

use super::traffic::{Actor, Manner, Visitors, command, conf, counted, ended, rollout, start, wait_state};
use crate::support::{LIMIT, Weir, wait_until};

fn good() -> (Actor, Actor) {
    (Actor::new("v1", Manner::default()), Actor::new("v2", Manner::default()))
}

fn judged(now: &Value) -> u64 {
    now["judged"]["canary"]["requests"].as_u64().unwrap_or_else(|| panic!("{now:#}"))
}

/// Steps that history knows of, as weights of v2.
fn steps(weir: &Weir) -> Vec<u64> {
    let history = weir.admin.json("/api/v1/history?split=shop&limit=1000");
    let entries = history["history"].as_array().unwrap().iter().rev();
    entries.filter(|entry| entry["kind"] == "weights").map(|entry| entry["to"]["v2"].as_u64().unwrap()).collect()
}

#[test]
fn an_upgrade_goes_on_at_the_same_step_with_the_same_evidence() {
    let (v1, v2) = good();
    let plan = "steps = [{ weight = 20, for = \"1s\" }, { weight = 50, for = \"2s\", approve = true }], \
                on_inconclusive = \"advance\", analysis = { warm_up = \"0s\" }";
    let mut weir = Weir::start(&conf(&v1.origin, &v2.origin, plan));
    let visitors = Visitors::come(&weir, 8, 200);
    let id = start(weir.admin);
    wait_state(weir.admin, "approval");
    visitors.wait_for(100);
    let before = rollout(weir.admin);
    let was = judged(&before);
    weir.upgrade();
    let now = wait_state(weir.admin, "approval");
    assert_eq!((now["id"].as_str(), now["step"].clone()), (Some(&*id), before["step"].clone()));
    assert!(judged(&now) >= was, "{was} were judged before: {now:#}");
    assert_eq!(weir.admin.weights(), (80, 20));
    command(weir.admin, "promote");
    wait_until("the step is in force", || weir.admin.weights() == (50, 50));
    let folder = weir.dir().join("state/rollouts");
    weir.upgrade();
    visitors.wait_for(100);
    assert_eq!(weir.wait_exit(2 * LIMIT).code(), Some(0));
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!(receipt["state"], "finished", "{receipt:#}");
    assert_eq!(receipt["gaps"].as_array().unwrap().len(), 2, "{receipt:#}");
    assert_eq!(steps(&weir), [20, 50], "none twice");
    let text = fs::read_to_string(folder.join(format!("{id}.json"))).unwrap();
    let filed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(filed["document"]["ended_at"], receipt["ended_at"], "nobody has written over it");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(visitors.failed.load(std::sync::atomic::Ordering::Relaxed), 0);
    // What comes in while the old process finishes is counted by nobody; that is all.
    let seen = v1.origin.requests() + v2.origin.requests();
    let all = counted(&receipt, "v1", |_| true).0 + counted(&receipt, "v2", |_| true).0;
    assert!(all <= seen as u64, "{all} counted, {seen} came");
}

#[test]
fn an_upgrade_that_fails_changes_nothing_of_a_rollout() {
    let (v1, v2) = good();
    let plan = "steps = [{ weight = 20, for = \"2s\" }, { weight = 50, for = \"1s\" }], \
                on_inconclusive = \"advance\", analysis = { warm_up = \"0s\" }";
    let weir = Weir::start_replaceable(&conf(&v1.origin, &v2.origin, plan));
    let visitors = Visitors::come(&weir, 8, 200);
    let id = start(weir.admin);
    visitors.wait_for(50);
    let was = judged(&rollout(weir.admin));
    weir.replace_binary(Some("#!/bin/sh\nsleep 0.5\nexit 7\n"));
    let answer = weir.admin.ask("POST", "/api/v1/upgrade", "", None);
    assert_eq!(answer.status(), 500, "{}", answer.text());
    assert!(judged(&rollout(weir.admin)) >= was);
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!(receipt["state"], "finished", "{receipt:#}");
    assert!(receipt["gaps"].is_null(), "no time was lost: {receipt:#}");
    let stuck = |entry: &Value| entry["event"] == "stuck";
    assert!(!receipt["log"].as_array().unwrap().iter().any(stuck), "{receipt:#}");
    assert_eq!(steps(&weir), [20, 50]);
    assert_eq!(visitors.failed.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn without_a_state_dir_it_runs_in_memory_and_says_so() {
    let (v1, v2) = good();
    let plan = "steps = [{ weight = 20, for = \"500ms\" }], on_inconclusive = \"advance\"";
    let text = conf(&v1.origin, &v2.origin, plan).text().replace("@DIR@/state", "@DIR@/weir.toml/state");
    let weir = Weir::start_text(&text);
    let _visitors = Visitors::come(&weir, 4, 100);
    let answer = weir.admin.post("/api/v1/splits/shop/rollout", json!({}));
    assert_eq!((answer.status(), &answer.json()["persisted"]), (200, &json!(false)), "{}", answer.text());
    let id = answer.json()["rollout"]["id"].as_str().unwrap().to_owned();
    assert_eq!(ended(weir.admin, &id, LIMIT)["state"], "finished");
}

#[test]
fn a_disk_that_refuses_holds_a_step_up_but_no_rollback() {
    let (v1, v2) = good();
    let plan = "steps = [{ weight = 20, for = \"500ms\" }, { weight = 50, for = \"500ms\" }, \
                { weight = 60, for = \"5m\" }], on_inconclusive = \"advance\", analysis = { warm_up = \"0s\" }";
    let weir = Weir::start(&conf(&v1.origin, &v2.origin, plan));
    let visitors = Visitors::come(&weir, 8, 200);
    let obstacle = weir.dir().join("state/state.json.tmp");
    let sicken = || {
        let _ = fs::remove_file(&obstacle);
        fs::create_dir(&obstacle).unwrap();
    };
    sicken();
    let refused = weir.admin.post("/api/v1/splits/shop/rollout", json!({}));
    assert_eq!(refused.status(), 507, "{}", refused.text());
    assert!(refused.text().contains("not-persisted"), "{}", refused.text());
    assert_eq!(weir.admin.weights(), (100, 0));
    assert!(weir.admin.json("/api/v1/rollouts")["rollouts"].as_array().unwrap().is_empty());
    fs::remove_dir(&obstacle).unwrap();
    let id = start(weir.admin);
    sicken();
    let view = wait_until_unwritten(&weir);
    assert_eq!(weir.admin.weights(), (80, 20), "the step waits: {view:#}");
    fs::remove_dir(&obstacle).unwrap();
    wait_until("it goes on", || weir.admin.weights() == (40, 60));
    assert_eq!(steps(&weir), [20, 50, 60]);
    sicken();
    v2.fail(1_000_000);
    wait_until("it is taken out", || weir.admin.weights() == (100, 0));
    visitors.wait_for(50);
    fs::remove_dir(&obstacle).unwrap();
    let receipt = ended(weir.admin, &id, LIMIT);
    assert_eq!((receipt["state"].as_str(), weir.admin.weights()), (Some("failed"), (100, 0)), "{receipt:#}");
    let weir = weir.kill_and_restart();
    assert_eq!((weir.admin.weights(), weir.admin.shop()["state"].as_str()), ((100, 0), Some("held")));
}

/// Until something waits for the disk; then for longer than the step would have taken.
fn wait_until_unwritten(weir: &Weir) -> Value {
    wait_until("something waits for the disk", || rollout(weir.admin)["persisted"] == false);
    let errors = || weir.stderr().matches("state_not_written").count();
    let before = errors();
    wait_until("it is tried again", || errors() >= before + 2);
    rollout(weir.admin)
}
