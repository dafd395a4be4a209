//! Checks and notices end to end: who is asked and told, when, and what comes of the answers.

use super::receiver::Receiver;
use super::traffic::{Actor, Manner, Visitors, command, conf, counted, ended, rollout, start, wait_state};
use crate::support::{Conf, LIMIT, Weir, free_address, wait_until};

const ADVANCE: &str = "on_inconclusive = \"advance\", analysis = { warm_up = \"0s\" }";

fn good() -> (Actor, Actor) {
    (Actor::new("v1", Manner::default()), Actor::new("v2", Manner::default()))
}

/// Two short steps and one check, asked once a second if need be.
fn with_check((v1, v2): &(Actor, Actor), check: &str) -> Conf {
    let steps = "steps = [{ weight = 10, for = \"200ms\" }, { weight = 100, for = \"200ms\" }]";
    let check = format!("checks = [{{ name = \"gate\", every = \"1s\", {check} }}]");
    conf(&v1.origin, &v2.origin, &format!("{steps}, {ADVANCE}, {check}"))
}

fn told(receiver: &Receiver) -> String {
    let on = "[\"rolled-back\", \"check-failed\", \"rollout-finished\", \"approval-needed\"]";
    format!("[[notify]]\nurl = \"{}\"\nformat = \"json\"\non = {on}", receiver.url())
}

/// What the check has answered, by a receipt.
fn answers(receipt: &serde_json::Value) -> Vec<String> {
    let log = receipt["log"].as_array().unwrap().iter();
    log.map(|line| line["text"].as_str().unwrap().to_owned()).filter(|text| text.starts_with("gate: ")).collect()
}

#[test]
fn a_failed_start_check_keeps_every_request_away() {
    let (actors, people) = (good(), Receiver::answering(|_| "204 No Content"));
    let check = "at = \"start\", command = [\"sh\", \"-c\", \"echo it burns; exit 1\", \"{endpoint}\"]";
    let weir = Weir::start(&with_check(&actors, check).tail(&told(&people)));
    let visitors = Visitors::come(&weir, 8, 400);
    visitors.wait_for(50);
    let id = start(weir.admin);
    let receipt = ended(weir.admin, &id, LIMIT);
    visitors.wait_for(100);
    assert_eq!(receipt["state"], "failed", "{receipt:#}");
    let ending = receipt["ending"].as_str().unwrap();
    assert!(ending.starts_with("check:gate: gate failed: ") && ending.contains("it burns"), "{ending}");
    assert_eq!((actors.1.origin.connections(), counted(&receipt, "v2", |_| true).0), (0, 0), "nobody has reached v2");
    let shop = weir.admin.shop();
    assert_eq!((shop["stable"].as_str(), weir.admin.weights()), (Some("v1"), (100, 0)), "{shop:#}");
    people.wait_for(1);
    assert_eq!(people.all("event"), ["check-failed"], "nothing was rolled back, for nothing had gone up");
    weir.admin.wait_metric("weir_check_pass", &[("check", "gate")], 0.0);
}

#[test]
fn a_start_check_may_wait_before_it_lets_the_rollout_begin() {
    let actors = good();
    // The first time it is not ready.
    let script = "test -e @DIR@/ready && exit 0; touch @DIR@/ready; echo \"$0 not ready\"; exit 75";
    let check = format!("at = \"start\", command = [\"sh\", \"-c\", '{script}', \"{{endpoint}}\"]");
    let weir = Weir::start(&with_check(&actors, &check));
    let _visitors = Visitors::come(&weir, 4, 200);
    let id = start(weir.admin);
    let waits = wait_state(weir.admin, "waiting");
    assert_eq!((weir.admin.weights(), actors.1.origin.connections()), ((100, 0), 0), "{waits:#}");
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!(receipt["state"], "finished", "{receipt:#}");
    let endpoint = actors.1.origin.address;
    let said = answers(&receipt);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with(&format!("gate: wait: {endpoint}: exit 75: {endpoint} not ready")), "{said:?}");
    assert!(said[1].starts_with(&format!("gate: pass: {endpoint}: exit 0")), "{said:?}");
}

#[test]
fn a_step_waits_for_its_webhook() {
    let actors = good();
    let gate = Receiver::answering(|n| if n < 2 { "202 Accepted" } else { "200 OK" });
    let weir = Weir::start(&with_check(&actors, &format!("at = \"step\", webhook = {{ url = \"{}\" }}", gate.url())));
    let _visitors = Visitors::come(&weir, 4, 200);
    let id = start(weir.admin);
    gate.wait_for(2);
    assert_eq!(weir.admin.weights(), (90, 10), "it waits");
    let now = wait_state(weir.admin, "waiting");
    assert!(now["waits_for"].as_str().unwrap().starts_with("check gate: "), "{now:#}");
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!(receipt["state"], "finished", "{receipt:#}");
    let asked = gate.seen();
    assert_eq!(asked.len(), 3, "not before the finish: {asked:?}");
    for question in &asked {
        assert_eq!(question["check"], "gate");
        assert_eq!(
            (&question["split"], &question["to"], &question["stable"]),
            (&"shop".into(), &"v2".into(), &"v1".into())
        );
        assert_eq!((question["rollout"].as_str(), question["weight"].as_f64()), (Some(id.as_str()), Some(10.0)));
    }
    let verdicts: Vec<String> =
        answers(&receipt).iter().map(|said| said.split(": ").nth(1).unwrap().to_owned()).collect();
    assert_eq!(verdicts, ["wait", "wait", "pass"]);
}

/// Somebody who is not there says nothing against the new version, and nothing for it.
#[test]
fn a_webhook_that_is_down_holds_and_is_told_of_once_and_ends_nothing() {
    let (actors, people) = (good(), Receiver::answering(|_| "200 OK"));
    let check = format!("at = \"step\", webhook = {{ url = \"http://{}/\" }}", free_address());
    let weir = Weir::start(&with_check(&actors, &check).tail(&told(&people)));
    let _visitors = Visitors::come(&weir, 4, 200);
    let id = start(weir.admin);
    let posts = people.wait_for(1);
    assert_eq!((&posts[0]["event"], &posts[0]["split"]), (&"check-failed".into(), &"shop".into()), "{posts:?}");
    let text = posts[0]["text"].as_str().unwrap();
    assert!(text.starts_with("gate could not be asked: ") && text.ends_with("the rollout stays where it is"), "{text}");
    let log = || weir.admin.json(&format!("/api/v1/rollouts/{id}/receipt"));
    wait_until("it is asked again and again", || answers(&log()).len() >= 3);
    assert!(answers(&log()).iter().all(|said| said.starts_with("gate: error: ")), "{:?}", answers(&log()));
    let now = rollout(weir.admin);
    assert_eq!((now["state"].as_str(), weir.admin.weights()), (Some("waiting"), (90, 10)), "{now:#}");
    // A person may go on without it.
    command(weir.admin, "promote");
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!(receipt["state"], "finished", "{receipt:#}");
    people.wait_for(2);
    assert_eq!(people.all("event"), ["check-failed", "rollout-finished"]);
}

#[test]
fn the_finish_waits_for_its_check() {
    let actors = good();
    let gate = Receiver::answering(|n| if n < 1 { "202 Accepted" } else { "200 OK" });
    let check = format!("at = \"finish\", webhook = {{ url = \"{}\" }}", gate.url());
    let weir = Weir::start(&with_check(&actors, &check));
    let _visitors = Visitors::come(&weir, 4, 200);
    let id = start(weir.admin);
    gate.wait_for(1);
    let shop = weir.admin.shop();
    assert_eq!((weir.admin.weights(), shop["stable"].as_str()), ((0, 100), Some("v1")), "{shop:#}");
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!((receipt["state"].as_str(), gate.seen().len()), (Some("finished"), 2), "{receipt:#}");
    assert_eq!(weir.admin.shop()["stable"], "v2");
}

#[test]
fn a_finish_check_that_fails_leads_back() {
    let actors = good();
    let gate = Receiver::answering(|_| "409 Conflict");
    let check = format!("at = \"finish\", webhook = {{ url = \"{}\" }}", gate.url());
    let weir = Weir::start(&with_check(&actors, &check));
    let _visitors = Visitors::come(&weir, 4, 200);
    let id = start(weir.admin);
    let receipt = ended(weir.admin, &id, 2 * LIMIT);
    assert_eq!(receipt["state"], "failed", "{receipt:#}");
    let ending = receipt["ending"].as_str().unwrap();
    assert!(ending.starts_with("check:gate: gate failed: 409: as the test says"), "{ending}");
    let shop = weir.admin.shop();
    assert_eq!((weir.admin.weights(), &shop["stable"], &shop["state"]), ((100, 0), &"v1".into(), &"held".into()));
    weir.admin.wait_metric("weir_rollbacks_total", &[("source", "check")], 1.0);
}

/// What people hear of three rollouts, in this order, each thing once.
#[test]
fn people_are_told_once() {
    let ((v1, v2), people) = (good(), Receiver::answering(|_| "200 OK"));
    let steps = "steps = [{ weight = 10, for = \"1s\" }, { weight = 100, for = \"200ms\", approve = true }]";
    let conf = conf(&v1.origin, &v2.origin, &format!("{steps}, {ADVANCE}"));
    // What has failed in one rollout is not to be ejected in the next.
    let weir = Weir::start(&conf.split("eject = { errors = 0 }").tail(&told(&people)));
    let visitors = Visitors::come(&weir, 8, 400);
    let mut ids = vec![start(weir.admin)];
    people.wait_for(1);
    command(weir.admin, "promote");
    assert_eq!(ended(weir.admin, &ids[0], 2 * LIMIT)["state"], "finished");
    people.wait_for(2);
    // Now `v2` is stable, and `v1` is what is rolled out.
    v1.fail(1_000_000);
    ids.push(start(weir.admin));
    assert_eq!(ended(weir.admin, &ids[1], 2 * LIMIT)["state"], "failed");
    v1.fail(0);
    visitors.wait_for(100);
    ids.push(start(weir.admin));
    let posts = people.wait_for(4);
    let expected = ["approval-needed", "rollout-finished", "rolled-back", "approval-needed"];
    assert_eq!(people.all("event"), expected, "{posts:#?}");
    assert_eq!(people.all("rollout"), [&ids[0], &ids[0], &ids[1], &ids[2]].map(String::as_str));
    let text = posts[2]["text"].as_str().unwrap();
    assert!(text.starts_with("back to v2: errors: canary "), "{text}");
    assert!(posts[0]["text"].as_str().unwrap().starts_with("step 2 gives v2 100 %: "), "{:#}", posts[0]);
    // The process that comes after says nothing new of what has been said; what it may say again has the same key.
    let weir = weir.kill_and_restart();
    wait_until("it is taken up", || weir.admin.shop()["rollout"]["state"] == "approval");
    command(weir.admin, "promote");
    let told = || {
        let mut told: Vec<(String, String)> = people.all("key").into_iter().zip(people.all("event")).collect();
        told.dedup();
        told
    };
    wait_until("the last one is told", || told().last().is_some_and(|(_, event)| event == "rollout-finished"));
    let told = told();
    assert_eq!(told.iter().map(|(_, event)| event.as_str()).collect::<Vec<_>>()[..4], expected);
    assert_eq!(told.len(), 5, "{told:#?}");
}
