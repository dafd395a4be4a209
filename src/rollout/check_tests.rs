//! Rollouts with checks as scripts: who is asked when, and what comes of the answers.

use super::testing::*;
use super::*;
use crate::analysis::Verdict::{Healthy, Inconclusive};
use crate::config::{CheckAt, OnInconclusive, OnRegressed, Rollout};

fn pass() -> Answer {
    Answer::Pass("0".into())
}

fn fail() -> Answer {
    Answer::Fail("7, at most 5".into())
}

#[test]
fn start_checks_pass_before_the_first_request() {
    let checks = vec![check("smoke", CheckAt::Start, 1), check("migrated", CheckAt::Start, 1)];
    let mut world = World::start(&Rollout { checks, ..short() }, 10);
    assert_eq!(world.questions, [], "not before the version is idle");
    world.settle();
    assert_eq!((world.deeds(), world.parts), (vec!["0 %".to_owned()], 0));
    assert_eq!(world.machine.refusal(What::Promote { full: false }), Some(Refusal::StartChecks));
    assert_eq!(world.questions.len(), 2);
    let (name, question) = world.questions.remove(0);
    world.hear(Event::Answered { check: name, question, answer: pass() });
    world.settle();
    assert_eq!(world.deeds(), ["0 %"], "all of them");
    assert_eq!(world.machine.waits_for().as_deref(), Some("check migrated: has not answered yet"));
    world.answer(&Answer::Wait("migrating".into()));
    world.run(31 * SECOND, Inconclusive);
    assert_eq!(world.questions.len(), 1, "only the one that waits is asked again");
    world.answer(&pass());
    assert_eq!(world.deeds(), ["0 %", "10 %"]);
}

#[test]
fn a_failed_start_check_ends_it_and_nothing_is_rolled_back_that_never_was() {
    let checks = vec![check("smoke", CheckAt::Start, 1)];
    let mut world = World::start(&Rollout { checks, ..short() }, 0);
    world.answer(&fail());
    assert_eq!((world.state(), world.deeds().len(), world.notices()), (State::Failed, 0, vec!["check-failed"]));
    assert_eq!(world.machine.ending(), Some("check:smoke: smoke failed: 7, at most 5"));
}

#[test]
fn step_checks_stand_before_each_advance_and_finish_checks_before_the_end() {
    let checks = vec![check("gate", CheckAt::Step, 1), check("last", CheckAt::Finish, 1)];
    let mut world = World::start(&Rollout { checks, ..short() }, 0);
    world.settle();
    world.run(MINUTE - SECOND, Healthy);
    assert_eq!(world.questions, []);
    world.tick(Healthy);
    assert_eq!((world.questions.len(), world.state()), (1, State::Waiting));
    world.answer(&pass());
    assert_eq!(world.deeds(), ["10 %", "50 %"]);
    world.run(2 * MINUTE, Healthy);
    assert_eq!(world.questions.len(), 1, "asked anew in the next step");
    world.answer(&pass());
    world.run(MINUTE, Healthy);
    assert_eq!(world.questions[0].0.as_str(), "last");
    world.answer(&fail());
    assert_eq!(world.deeds(), ["10 %", "50 %", "100 %", "back to v1 by check:last"]);
}

#[test]
fn an_always_check_regresses_after_failures_in_a_row() {
    let mut world = World::start(&Rollout { checks: vec![check("orders", CheckAt::Always, 2)], ..short() }, 0);
    world.settle();
    world.answer(&fail());
    world.run(31 * SECOND, Healthy);
    world.answer(&pass());
    world.run(30 * SECOND, Healthy);
    assert_eq!(world.deeds(), ["10 %", "50 %"]);
    world.answer(&fail());
    assert_eq!(world.state(), State::Running);
    world.run(31 * SECOND, Healthy);
    world.answer(&fail());
    assert_eq!((world.state(), world.deeds()[2].as_str()), (State::Failed, "back to v1 by check:orders"));
    assert_eq!(world.notices(), ["rolled-back", "check-failed"]);
}

#[test]
fn a_check_that_cannot_be_asked_holds_and_is_told_of_once() {
    let checks = vec![check("orders", CheckAt::Always, 1)];
    let mut world = World::start(&Rollout { checks, on_inconclusive: OnInconclusive::Advance, ..short() }, 0);
    world.settle();
    for _ in 0..10 {
        world.answer(&Answer::Error("connection refused".into()));
        world.run(31 * SECOND, Healthy);
    }
    assert_eq!((world.state(), world.deeds()), (State::Waiting, vec!["10 %".to_owned()]));
    assert_eq!(world.notices(), ["check-failed"]);
    assert_eq!(world.machine.waits_for().as_deref(), Some("check orders: connection refused"));
    world.answer(&pass());
    assert_eq!(world.deeds(), ["10 %", "50 %"]);
}

#[test]
fn on_regressed_pause_tells_of_a_failing_check_once_until_somebody_has_come() {
    let checks = vec![check("orders", CheckAt::Always, 2)];
    let mut world = World::start(&Rollout { checks, on_regressed: OnRegressed::Pause, ..short() }, 0);
    world.settle();
    for _ in 0..5 {
        world.answer(&fail());
        world.run(31 * SECOND, Healthy);
    }
    assert_eq!((world.state(), world.notices()), (State::Paused, vec!["rollout-paused", "check-failed"]));
    world.say(What::Resume);
    world.answer(&fail());
    assert_eq!(world.state(), State::Running, "it counts anew");
    world.run(31 * SECOND, Healthy);
    world.answer(&fail());
    assert_eq!((world.state(), world.notices().len()), (State::Paused, 4));
}

#[test]
fn an_abort_before_the_first_request_rolls_nothing_back() {
    let mut world = World::start(&Rollout { checks: vec![check("smoke", CheckAt::Start, 1)], ..short() }, 0);
    world.say(What::Abort);
    assert_eq!((world.state(), world.deeds().len(), world.notices().len()), (State::Aborted, 0, 0));
}
