//! Rollouts as scripts: what happens, and what has been done by then.

use std::time::Duration;

use super::testing::*;
use super::*;
use crate::analysis::Verdict::{Healthy, Inconclusive, Regressed};
use crate::config::{CheckAt, OnInconclusive, OnRegressed, Rollout, Strategy};
use crate::model::Actor;

fn fail() -> Answer {
    Answer::Fail("7, at most 5".into())
}

fn pass() -> Answer {
    Answer::Pass("0".into())
}

#[test]
fn a_healthy_canary_climbs_every_step_and_becomes_stable() {
    let mut world = World::start(&rollout(), 0);
    world.settle();
    assert_eq!((world.state(), world.deeds()), (State::Running, vec!["1 %".to_owned()]));
    assert_eq!(world.machine.time_left(), Some(5 * MINUTE));
    world.run(5 * MINUTE - SECOND, Healthy);
    assert_eq!(world.deeds().len(), 1, "not a second early");
    world.tick(Healthy);
    assert_eq!(world.deeds(), ["1 %", "5 %"]);
    assert_eq!(world.machine.next_step().as_deref(), Some("25 % for v2"));
    world.run(4 * 5 * MINUTE, Healthy);
    assert_eq!(world.deeds(), ["1 %", "5 %", "25 %", "50 %", "100 %", "v2 is stable"]);
    assert_eq!(world.entered, [0, 1, 2, 3, 4]);
    assert_eq!((world.state(), world.notices()), (State::Finished, vec!["rollout-finished"]));
    assert_eq!(world.machine.ending(), Some("v2 is stable; v1 stays warm"));
    assert!(world.machine.is_over());
}

#[test]
fn a_steps_time_begins_when_its_weights_are_in_force() {
    let mut world = World::start(&short(), 0);
    for _ in 0..300 {
        world.pass(SECOND);
        world.hear(Event::Tick(Some(judged(0, Healthy))));
    }
    assert_eq!((world.state(), world.machine.time_left(), world.deeds().len()), (State::Running, None, 0));
    world.settle();
    assert_eq!(world.machine.time_left(), Some(MINUTE));
}

#[test]
fn a_step_is_approved_before_it_begins() {
    let mut world = World::start(&Rollout { steps: steps(&[(10.0, 1, false), (50.0, 1, true)]), ..rollout() }, 0);
    world.settle();
    assert_eq!(world.machine.refusal(What::Approve), Some(Refusal::NothingToApprove));
    assert_eq!(world.machine.next_step().as_deref(), Some("50 % for v2, once somebody agrees"));
    world.run(10 * MINUTE, Healthy);
    assert_eq!((world.state(), world.deeds()), (State::Approval, vec!["10 %".to_owned()]));
    assert_eq!(world.notices(), ["approval-needed"]);
    world.run(300 * MINUTE, Healthy);
    assert_eq!(world.state(), State::Approval, "max_wait is not for people");
    world.say(What::Approve);
    assert_eq!(world.deeds(), ["10 %", "50 %"]);
    world.run(MINUTE, Healthy);
    assert_eq!(world.deeds(), ["10 %", "50 %", "v2 is stable"]);
}

#[test]
fn the_first_step_may_need_approval_too() {
    let mut world = World::start(&Rollout { steps: steps(&[(10.0, 1, true), (50.0, 1, false)]), ..rollout() }, 0);
    world.run(MINUTE, Healthy);
    assert_eq!((world.state(), world.deeds().len()), (State::Approval, 0));
    world.say(What::Approve);
    assert_eq!(world.deeds(), ["10 %"]);
}

#[test]
fn what_regresses_while_it_waits_for_approval_is_rolled_back() {
    let mut world = World::start(&Rollout { steps: steps(&[(10.0, 1, false), (50.0, 1, true)]), ..rollout() }, 0);
    world.run(2 * MINUTE, Healthy);
    world.tick(Regressed);
    assert_eq!(world.deeds(), ["10 %", "back to v1 by analysis:errors"]);
    assert_eq!(world.machine.refusal(What::Approve), Some(Refusal::Ended));
}

#[test]
fn a_pause_keeps_the_steps_clock() {
    let mut world = World::start(&short(), 0);
    world.settle();
    world.run(40 * SECOND, Healthy);
    world.say(What::Pause);
    world.run(60 * MINUTE, Healthy);
    assert_eq!((world.state(), world.machine.time_left()), (State::Paused, Some(20 * SECOND)));
    assert_eq!(world.machine.waits_for().as_deref(), Some("by token:ci"));
    world.say(What::Resume);
    assert_eq!(world.machine.refusal(What::Resume), Some(Refusal::NotPaused));
    world.run(19 * SECOND, Healthy);
    assert_eq!(world.deeds(), ["10 %"]);
    world.tick(Healthy);
    assert_eq!(world.deeds(), ["10 %", "50 %"]);
}

#[test]
fn a_paused_rollout_is_still_rolled_back() {
    let mut world = World::start(&short(), 0);
    world.settle();
    world.say(What::Pause);
    world.tick(Regressed);
    assert_eq!((world.state(), world.deeds().len()), (State::Failed, 2));
}

#[test]
fn a_regression_rolls_back_exactly_once_whatever_else_comes() {
    let mut world = World::start(&Rollout { checks: vec![check("orders", CheckAt::Always, 1)], ..short() }, 0);
    world.settle();
    world.run(2 * SECOND, Healthy);
    let (name, question) = world.questions[0].clone();
    world.hear(Event::Tick(Some(judged(0, Regressed))));
    world.hear(Event::Tick(Some(judged(0, Regressed))));
    world.hear(Event::Answered { check: name, question, answer: fail() });
    world.hear(command(What::Abort));
    world.hear(Event::FileChangedWeights);
    world.hear(command(What::Promote { full: true }));
    world.hear(Event::NewerVersion { to: version("v3"), by: Actor("file".into()) });
    world.settle();
    assert_eq!(world.deeds(), ["10 %", "back to v1 by analysis:errors"]);
    assert_eq!(world.notices(), ["rolled-back"]);
    assert_eq!((world.state(), world.parts, world.is_held), (State::Failed, 0, true));
    assert_eq!(world.machine.ending(), Some("analysis:errors: counts"));
}

#[test]
fn a_regression_overtakes_weights_and_label_that_are_still_on_their_way() {
    let mut world = World::start(&short(), 0);
    world.settle();
    world.run(MINUTE - SECOND, Healthy);
    world.pass(SECOND);
    world.hear(Event::Tick(Some(judged(0, Healthy))));
    assert_eq!(world.todo.len(), 1, "50 % is ordered");
    let (seq, _) = world.todo.pop().unwrap();
    world.hear(Event::Tick(Some(judged(1, Regressed))));
    world.hear(Event::Done { seq });
    world.settle();
    assert_eq!(world.deeds(), ["10 %", "back to v1 by analysis:errors"]);
    assert_eq!(world.entered, [0], "the late report leads nowhere");

    let mut world = World::start(&short(), 0);
    world.settle();
    world.run(3 * MINUTE - SECOND, Healthy);
    world.pass(SECOND);
    world.hear(Event::Tick(Some(judged(2, Healthy))));
    world.act();
    world.hear(Event::Tick(Some(judged(2, Regressed))));
    world.settle();
    assert_eq!(world.deeds().last().unwrap(), "back to v1 by analysis:errors", "by name, not as stable");
    assert_eq!(world.state(), State::Failed);
}

#[test]
fn on_regressed_pause_calls_somebody_who_decides() {
    let mut world = World::start(&Rollout { on_regressed: OnRegressed::Pause, ..short() }, 0);
    world.settle();
    world.run(5 * SECOND, Regressed);
    assert_eq!((world.state(), world.notices()), (State::Paused, vec!["rollout-paused"]));
    assert_eq!(world.machine.waits_for().as_deref(), Some("regressed: counts"));
    world.say(What::Resume);
    world.run(10 * MINUTE, Regressed);
    assert_eq!((world.state(), world.deeds()), (State::Waiting, vec!["10 %".to_owned()]), "but never up by itself");
    world.run(60 * MINUTE, Regressed);
    assert_eq!(world.state(), State::Paused);
    world.say(What::Promote { full: false });
    assert_eq!(world.deeds(), ["10 %", "50 %"]);
    world.say(What::Abort);
    assert_eq!((world.state(), world.deeds().last().unwrap().as_str()), (State::Aborted, "back to v1 by token:ci"));
}

#[test]
fn thin_evidence_holds_up_to_max_wait_then_somebody_is_called() {
    let mut world = World::start(&Rollout { max_wait: 10 * MINUTE, ..short() }, 0);
    world.settle();
    world.run(MINUTE, Inconclusive);
    assert_eq!((world.state(), world.machine.waits_for().as_deref()), (State::Waiting, Some("evidence: counts")));
    world.run(10 * MINUTE - SECOND, Inconclusive);
    assert_eq!(world.state(), State::Waiting);
    world.tick(Inconclusive);
    assert_eq!((world.state(), world.notices()), (State::Paused, vec!["rollout-paused"]));
    world.run(MINUTE, Healthy);
    assert_eq!(world.state(), State::Paused, "that somebody decides");
    world.say(What::Resume);
    world.run(10 * MINUTE - SECOND, Inconclusive);
    assert_eq!(world.state(), State::Waiting, "as long again");
    world.tick(Healthy);
    assert_eq!(world.deeds(), ["10 %", "50 %"]);
}

#[test]
fn thin_evidence_advances_or_rolls_back_if_so_asked() {
    let mut world = World::start(&Rollout { on_inconclusive: OnInconclusive::Advance, ..short() }, 0);
    world.settle();
    world.run(2 * MINUTE, Inconclusive);
    assert_eq!(world.deeds(), ["10 %", "50 %", "100 %"]);
    let mut world = World::start(&Rollout { on_inconclusive: OnInconclusive::Rollback, ..short() }, 0);
    world.settle();
    world.run(MINUTE - SECOND, Inconclusive);
    assert_eq!(world.state(), State::Running);
    world.tick(Inconclusive);
    assert_eq!((world.state(), world.deeds()[1].as_str()), (State::Failed, "back to v1 by analysis"));
    assert!(world.machine.ending().unwrap().contains("the evidence is thin"), "{:?}", world.machine.ending());
}

#[test]
fn a_proof_of_another_step_and_a_wrong_split_lead_nowhere() {
    let mut world = World::start(&short(), 0);
    world.settle();
    world.run(MINUTE, Healthy);
    for _ in 0..120 {
        world.pass(SECOND);
        world.hear(Event::Tick(Some(judged(0, Healthy))));
    }
    assert_eq!((world.state(), world.deeds().len()), (State::Waiting, 2), "that was proved for 10 %");
    for on_inconclusive in [OnInconclusive::Advance, OnInconclusive::Rollback] {
        let mut world = World::start(&Rollout { on_inconclusive, ..short() }, 0);
        world.settle();
        for _ in 0..120 {
            world.pass(SECOND);
            world.hear(Event::Tick(Some(Judged { is_split_wrong: true, ..judged(0, Inconclusive) })));
        }
        assert_eq!((world.state(), world.deeds().len()), (State::Waiting, 1));
    }
}

#[test]
fn at_a_hundred_percent_nothing_is_compared_and_not_to_be_broken_is_enough() {
    let blue_green = Rollout { strategy: Strategy::BlueGreen, steps: Strategy::BlueGreen.steps(), ..rollout() };
    let checks = vec![check("smoke", CheckAt::Start, 1)];
    let mut world = World::start(&Rollout { checks, ..blue_green.clone() }, 0);
    world.run(MINUTE, Inconclusive);
    assert_eq!((world.state(), world.deeds().len()), (State::Waiting, 0), "the idle version is looked at first");
    world.answer(&pass());
    assert_eq!(world.deeds(), ["100 %"], "one switch");
    world.run(10 * MINUTE - SECOND, Inconclusive);
    assert_eq!(world.deeds(), ["100 %"], "watched");
    world.tick(Inconclusive);
    assert_eq!(world.deeds(), ["100 %", "v2 is stable"]);

    let mut world = World::start(&blue_green, 0);
    world.settle();
    world.tick(Regressed);
    assert_eq!(world.deeds(), ["100 %", "back to v1 by analysis:errors"]);
}

#[test]
fn without_analysis_time_and_checks_decide() {
    let mut world = World::start(&Rollout { analysis: None, ..short() }, 0);
    world.settle();
    for _ in 0..180 {
        world.pass(SECOND);
        world.hear(Event::Tick(None));
        world.settle();
    }
    assert_eq!(world.deeds(), ["10 %", "50 %", "100 %", "v2 is stable"]);
}

#[test]
fn promote_goes_past_a_hold_and_full_to_all_traffic() {
    let mut world = World::start(&short(), 0);
    assert_eq!(world.machine.refusal(What::Promote { full: false }), Some(Refusal::Entering), "given twice, done once");
    world.settle();
    world.say(What::Promote { full: false });
    assert_eq!(world.deeds(), ["10 %", "50 %"]);
    world.run(2 * MINUTE, Inconclusive);
    world.say(What::Pause);
    world.say(What::Promote { full: true });
    assert_eq!((world.deeds(), world.state()), (vec!["10 %".into(), "50 %".into(), "100 %".into()], State::Running));
    world.say(What::Promote { full: true });
    assert_eq!((world.deeds().last().unwrap().as_str(), world.state()), ("v2 is stable", State::Finished));

    let mut world = World::start(&Rollout { steps: steps(&[(10.0, 1, false), (50.0, 1, true)]), ..rollout() }, 0);
    world.settle();
    world.say(What::Promote { full: true });
    assert_eq!(world.deeds(), ["10 %", "v2 is stable"]);
}

#[test]
fn the_file_a_newer_version_and_a_hand_take_its_place() {
    let begun = || {
        let mut world = World::start(&short(), 0);
        world.settle();
        world.run(MINUTE - SECOND, Healthy);
        world.pass(SECOND);
        world.hear(Event::Tick(Some(judged(0, Healthy))));
        // 50 % is ordered and must not come any more.
        world.todo.clear();
        world
    };
    let end = |event: Event| {
        let mut world = begun();
        world.hear(event);
        world.settle();
        world.run(MINUTE, Healthy);
        assert!(world.machine.is_over());
        (world.deeds().split_off(1), world.state())
    };
    assert_eq!(end(Event::FileChangedWeights), (vec![], State::Superseded));
    assert_eq!(end(Event::VersionLeft(version("v2"))), (vec![], State::Superseded));
    assert_eq!(
        end(Event::RolledBack { by: Actor("local:a".into()), source: crate::model::Source::Cli, reason: None }),
        (vec![], State::Aborted)
    );
    let newer = |to| Event::NewerVersion { to: version(to), by: Actor("file".into()) };
    assert_eq!(end(newer("v3")), (vec!["0 %".to_owned()], State::Superseded));
    let mut world = begun();
    world.hear(newer("v2"));
    world.hear(Event::VersionLeft(version("v9")));
    assert_eq!(world.state(), State::Running);
}

#[test]
fn what_is_refused_is_tried_again_and_told_once() {
    let mut world = World::start(&short(), 0);
    world.settle();
    world.hear(Event::Tick(Some(judged(0, Regressed))));
    for _ in 0..5 {
        let at = world.todo.iter().position(|(_, order)| matches!(order, Order::Rollback { .. })).unwrap();
        let (seq, _) = world.todo.remove(at);
        world.hear(Event::Refused { seq, why: "no endpoint of v1 is up".into() });
        world.pass(SECOND);
        world.hear(Event::Tick(None));
    }
    assert!(!world.machine.is_over());
    world.settle();
    assert_eq!(
        (world.deeds(), world.machine.is_over()),
        (vec!["10 %".into(), "back to v1 by analysis:errors".into()], true)
    );
    assert_eq!(world.notices(), ["rolled-back", "rollout-stuck"]);
}

#[test]
fn no_jump_of_a_clock_skips_a_step() {
    const DAY: Duration = Duration::from_secs(86_400);
    let jumps: [fn(&mut World); 5] = [
        |w| w.now.wall += DAY,
        |w| w.now.wall -= DAY / 2,
        |w| w.now.monotonic += DAY,
        // The computer was switched off for a night.
        |w| (w.now.monotonic, w.now.wall) = (5 * SECOND, w.now.wall + DAY),
        |w| (w.now.monotonic, w.now.wall) = (w.now.monotonic + DAY, w.now.wall + DAY),
    ];
    for (i, jump) in jumps.into_iter().enumerate() {
        for restart in [false, true] {
            let mut world = World::start(&rollout(), 0);
            world.settle();
            world.run(MINUTE, Healthy);
            jump(&mut world);
            if restart {
                world.crash(None);
            }
            world.tick(Healthy);
            let left = world.machine.time_left().unwrap();
            let expected = 4 * MINUTE - SECOND;
            assert!(left <= 4 * MINUTE && left + 2 * LONGEST_LOOK >= expected, "jump {i}, restart {restart}: {left:?}");
            world.run(4 * MINUTE, Healthy);
            assert_eq!(world.deeds(), ["1 %", "5 %"], "jump {i}, restart {restart}");
        }
    }
}
