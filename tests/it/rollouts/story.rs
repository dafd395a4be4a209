//! One rollout from beginning to end, in each of the ways it may go.

use serde_json::json;

use super::traffic::{Actor, Manner, Visitors, command, conf, counted, ended, rollout, start, wait_state};
use crate::support::{LIMIT, Weir, wait_until};

const QUICK: &str =
    "steps = [{ weight = 10, for = \"1s\" }, { weight = 50, for = \"1s\" }, { weight = 100, for = \"1s\" }]";
const ADVANCE: &str = "on_inconclusive = \"advance\", analysis = { warm_up = \"0s\" }";

fn good() -> (Actor, Actor) {
    (Actor::new("v1", Manner::default()), Actor::new("v2", Manner::default()))
}

#[test]
fn a_good_canary_becomes_stable_and_the_old_one_is_one_call_away() {
    let (v1, v2) = good();
    let weir = Weir::start(&conf(&v1.origin, &v2.origin, &format!("{QUICK}, {ADVANCE}")));
    let visitors = Visitors::come(&weir, 8, 400);
    visitors.wait_for(50);
    let id = start(weir.admin);
    assert_eq!(weir.admin.shop()["state"], "rolling_out");
    let refused = weir.admin.put("/api/v1/splits/shop/weights", json!({"weights": {"v1": 50, "v2": 50}}));
    assert_eq!(refused.status(), 409, "{}", refused.text());
    assert!(refused.text().contains("rollout-running"), "{}", refused.text());
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!(receipt["state"], "finished", "{receipt:#}");
    let shop = weir.admin.shop();
    assert_eq!((shop["stable"].as_str(), shop["rollback_to"].as_str()), (Some("v2"), Some("v1")), "{shop:#}");
    assert_eq!(weir.admin.weights(), (0, 100));
    let steps: Vec<_> =
        receipt["sheets"].as_array().unwrap().iter().map(|s| (s["step"].clone(), s["version"].clone())).collect();
    for step in 0..2 {
        for version in ["v1", "v2"] {
            assert!(steps.contains(&(json!(step), json!(version))), "{steps:?}");
        }
    }
    assert_eq!(visitors.failed.load(std::sync::atomic::Ordering::Relaxed), 0);
    weir.admin.rollback();
    assert_eq!(weir.admin.weights(), (100, 0), "back in one call");
}

#[test]
fn a_bad_canary_is_taken_out_and_held_and_the_receipt_agrees_with_the_metrics() {
    let (v1, v2) = good();
    v2.fail(1_000_000);
    let conf = conf(&v1.origin, &v2.origin, "steps = [{ weight = 10, for = \"5m\" }]");
    let weir = Weir::start(&conf);
    let visitors = Visitors::come(&weir, 8, 400);
    visitors.wait_for(200);
    let id = start(weir.admin);
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!(receipt["state"], "failed", "{receipt:#}");
    let ending = receipt["ending"].as_str().unwrap();
    // Which part weighs more is decided by a request or two.
    assert!(ending.starts_with("analysis:") && ending.contains(": errors: canary "), "{ending}");
    let shop = weir.admin.shop();
    assert_eq!((shop["state"].as_str(), weir.admin.weights()), (Some("held"), (100, 0)), "{shop:#}");
    let (all, bad) = counted(&receipt, "v2", |code| code >= 500);
    assert!(all == bad && (2..=12).contains(&bad), "{bad} of {all} harmed");
    weir.admin.wait_requests("v2", all as usize);
    weir.admin.wait_metric("weir_rollbacks_total", &[("source", "analysis")], 1.0);
    drop(visitors);
    let text = weir.cli(&["rollout", "receipt", "shop"]).expect_code(0);
    assert!(text.stdout.contains("analysis:"), "{}", text.stdout);
}

#[test]
fn steps_wait_for_approval_and_people_pause_resume_and_abort() {
    let (v1, v2) = good();
    let steps = "steps = [{ weight = 10, for = \"100ms\" }, { weight = 50, for = \"5m\", approve = true }]";
    let weir = Weir::start(&conf(&v1.origin, &v2.origin, &format!("{steps}, {ADVANCE}")));
    let _visitors = Visitors::come(&weir, 4, 200);
    let id = start(weir.admin);
    wait_state(weir.admin, "approval");
    assert_eq!(weir.admin.weights(), (90, 10));
    command(weir.admin, "promote");
    wait_until("the step is in force", || weir.admin.weights() == (50, 50));
    let paused = command(weir.admin, "pause");
    assert_eq!((paused["rollout"]["state"].as_str(), paused["state"].as_str()), (Some("paused"), Some("paused")));
    let again = weir.admin.post("/api/v1/splits/shop/rollout/pause", json!({}));
    assert!(again.status() == 200 || again.status() == 409, "{}", again.text());
    command(weir.admin, "resume");
    assert_eq!(rollout(weir.admin)["state"], "running");
    command(weir.admin, "abort");
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!(receipt["state"], "aborted");
    assert_eq!(weir.admin.weights(), (100, 0));
    let refused = weir.admin.post("/api/v1/splits/shop/rollout/resume", json!({}));
    assert_eq!(refused.status(), 409, "{}", refused.text());
}

#[test]
fn a_rollback_past_it_and_a_file_end_it() {
    let (v1, v2) = good();
    let file = conf(&v1.origin, &v2.origin, "steps = [{ weight = 10, for = \"5m\" }]");
    let weir = Weir::start(&file);
    let _visitors = Visitors::come(&weir, 4, 200);
    let id = start(weir.admin);
    weir.admin.rollback();
    assert_eq!(ended(weir.admin, &id, 2 * LIMIT)["state"], "aborted");
    let id = start(weir.admin);
    wait_until("the step is in force", || weir.admin.weights() == (90, 10));
    weir.edit(&file.weights(&[70, 30]));
    assert_eq!(ended(weir.admin, &id, 2 * LIMIT)["state"], "superseded");
    assert_eq!(weir.admin.weights(), (70, 30));
}

#[test]
fn a_canary_that_nobody_visits_ends_as_was_configured() {
    for (then, state) in [("rollback", "failed"), ("advance", "finished")] {
        let (v1, v2) = good();
        let rollout = format!("steps = [{{ weight = 1, for = \"1s\" }}], on_inconclusive = \"{then}\"");
        let weir = Weir::start(&conf(&v1.origin, &v2.origin, &rollout));
        let _visitors = Visitors::come(&weir, 1, 2);
        let id = start(weir.admin);
        let receipt = ended(weir.admin, &id, 3 * LIMIT);
        assert_eq!(receipt["state"], state, "{receipt:#}");
    }
    let (v1, v2) = good();
    let rollout = "steps = [{ weight = 1, for = \"500ms\" }], on_inconclusive = \"hold\", max_wait = \"1s\"";
    let weir = Weir::start(&conf(&v1.origin, &v2.origin, rollout));
    start(weir.admin);
    let paused = wait_state(weir.admin, "paused");
    let why = paused["waits_for"].as_str().unwrap();
    assert!(why.contains("max_wait is over"), "{why}");
    assert_eq!(weir.admin.weights(), (99, 1), "it stays where it is");
}

#[test]
fn a_load_starts_it_and_not_twice() {
    let (v1, v2) = good();
    let rollout = format!("{QUICK}, {ADVANCE}, auto_start = true");
    let weir = Weir::start(&conf(&v1.origin, &v2.origin, &rollout));
    let _visitors = Visitors::come(&weir, 4, 200);
    wait_until("it has begun by itself", || weir.admin.shop()["rollout"]["id"].is_string());
    let id = rollout_id(&weir);
    command(weir.admin, "abort");
    ended(weir.admin, &id, LIMIT);
    weir.admin.delete("/api/v1/splits/shop/override");
    weir.cli(&["reload"]).expect_code(0);
    let weir = weir.kill_and_restart();
    let known = || weir.admin.json("/api/v1/rollouts")["rollouts"].as_array().unwrap().len();
    wait_until("what was before is known", || known() > 0);
    // Whatever a load begins has begun by the time a command is answered.
    let refused = weir.admin.post("/api/v1/splits/shop/rollout/resume", json!({}));
    assert_eq!((refused.status(), known()), (409, 1), "{}", refused.text());
}

fn rollout_id(weir: &Weir) -> String {
    rollout(weir.admin)["id"].as_str().unwrap().to_owned()
}

/// An outage behind both versions rolls nothing back.
#[test]
fn a_shared_outage_is_nobodys_fault() {
    let (v1, v2) = good();
    let plan = "steps = [{ weight = 25, for = \"5m\" }], analysis = { warm_up = \"0s\" }";
    let weir = Weir::start(&conf(&v1.origin, &v2.origin, plan).split("eject = { errors = 0 }"));
    let visitors = Visitors::come(&weir, 8, 400);
    visitors.wait_for(400);
    start(weir.admin);
    visitors.wait_for(200);
    for origin in [&v1, &v2] {
        origin.fail(800_000);
    }
    visitors.wait_for(1500);
    let now = rollout(weir.admin);
    assert_eq!((now["state"].as_str(), weir.admin.weights()), (Some("running"), (75, 25)), "{now:#}");
    for origin in [&v1, &v2] {
        origin.fail(0);
    }
    visitors.wait_for(100);
}
