//! What is read back is what was written; what cannot have been written is refused and never panics.

use serde_json::Value;

use super::testing::*;
use super::*;
use crate::analysis::Verdict::Healthy;
use crate::config::{CheckAt, Rollout};

/// Rollouts in every phase, by hand.
fn all_phases() -> Vec<World> {
    let checks = vec![check("smoke", CheckAt::Start, 1), check("orders", CheckAt::Always, 2)];
    let mut steps = rollout().steps;
    steps[1].approve = true;
    let plan = Rollout { steps, checks, ..rollout() };
    let starting = World::start(&plan, 0);
    let world = |drive: &dyn Fn(&mut World)| {
        let mut world = World::start(&plan, 0);
        drive(&mut world);
        world
    };
    let begin = |w: &mut World| w.answer(&Answer::Pass("ok".into()));
    let approval = |w: &mut World| {
        begin(w);
        w.answer(&Answer::Pass("ok".into()));
        w.run(5 * MINUTE, Healthy);
    };
    let entering = |w: &mut World| {
        let (check, question) = w.questions.remove(0);
        w.hear(Event::Answered { check, question, answer: Answer::Pass("ok".into()) });
    };
    let paused = |w: &mut World| {
        begin(w);
        w.say(What::Pause);
    };
    let finishing = |w: &mut World| {
        begin(w);
        w.say(What::Promote { full: true });
        w.hear(command(What::Promote { full: true }));
    };
    let aborted = |w: &mut World| {
        begin(w);
        w.hear(command(What::Abort));
    };
    vec![
        starting,
        world(&entering),
        world(&begin),
        world(&approval),
        world(&paused),
        world(&finishing),
        world(&aborted),
    ]
}

#[test]
fn what_is_read_back_is_what_was_written() {
    let mut seen = Vec::new();
    for world in all_phases() {
        seen.push(world.state());
        let text = serde_json::to_string(&world.machine.save()).unwrap();
        let saved: Saved = serde_json::from_str(&text).unwrap();
        let (machine, effects) = Machine::restore(saved, None, world.now).unwrap();
        assert_eq!(machine.save(), world.machine.save());
        let ordered: Vec<_> = effects
            .into_iter()
            .filter_map(|e| if let Effect::Do { seq, order } = e { Some((seq, order)) } else { None })
            .collect();
        assert_eq!(ordered, world.todo, "what was ordered and not done is ordered again");
    }
    use State::{Aborted, Approval, Paused, Running, Waiting};
    assert_eq!(seen, [Waiting, Running, Running, Approval, Paused, Running, Aborted]);
}

#[test]
fn what_has_happened_meanwhile_is_heard_before_anything_is_ordered_again() {
    for world in all_phases() {
        let by = crate::model::Actor("local:a".into());
        let found = Event::RolledBack { by, source: crate::model::Source::Api, reason: Some("p99".into()) };
        let (machine, effects) = Machine::restore(world.machine.save(), Some(found), world.now).unwrap();
        assert_eq!(machine.state(), State::Aborted);
        let upward = |e: &Effect| matches!(e, Effect::Do { order, .. } if order.leads_upward());
        assert!(!effects.iter().any(upward), "{effects:?}");
        let mut numbers: Vec<_> =
            effects.iter().filter_map(|e| if let Effect::Do { seq, .. } = e { Some(seq) } else { None }).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let orders = effects.iter().filter(|e| matches!(e, Effect::Do { .. })).count();
        assert_eq!(numbers.len(), orders, "each once: {effects:?}");
    }
}

#[test]
fn another_version_is_named() {
    let mut saved = serde_json::to_value(all_phases()[0].machine.save()).unwrap();
    saved["version"] = 2.into();
    saved["rollout"] = Value::Null;
    let saved: Saved = serde_json::from_value(saved).unwrap();
    let error = Machine::restore(saved, None, all_phases()[0].now).unwrap_err();
    assert_eq!(error.to_string(), "the saved rollout has version 2; this weir reads version 1");
}

/// Every value of it, with where it stands.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| places(v, &format!("{at}/{k}"), all)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| places(v, &format!("{at}/{i}"), all)),
        _ => {}
    }
    all.push(at.to_owned());
}

#[test]
fn damage_is_refused_or_harmless() {
    let (mut refused, mut harmless) = (0, 0);
    for world in all_phases() {
        let whole = serde_json::to_value(world.machine.save()).unwrap();
        let mut all = Vec::new();
        places(&whole["rollout"], "/rollout", &mut all);
        for place in all {
            for wrong in [Value::Null, 0.into(), u64::MAX.into(), "x".into(), Value::Array(vec![]), true.into()] {
                let mut saved = whole.clone();
                *saved.pointer_mut(&place).unwrap() = wrong;
                let saved: Saved = serde_json::from_value(saved).unwrap();
                match Machine::restore(saved, None, world.now) {
                    Err(_) => refused += 1,
                    Ok((machine, _)) => {
                        harmless += 1;
                        go_on(machine, world.now);
                    }
                }
            }
        }
    }
    assert!(refused > 1000 && harmless > 0, "{refused} refused, {harmless} harmless");
}

/// Nothing it is told makes it panic.
fn go_on(mut machine: Machine, mut now: Moment) {
    let events = [
        Event::Tick(Some(judged(0, Healthy))),
        command(What::Resume),
        command(What::Promote { full: false }),
        Event::Done { seq: 0 },
        Event::Tick(None),
        command(What::Promote { full: true }),
        Event::Refused { seq: u64::MAX, why: String::new() },
        command(What::Abort),
    ];
    for event in events {
        now.monotonic += SECOND;
        let (_, _) = (machine.waits_for(), machine.next_step());
        (machine, _) = machine.step(event, now);
    }
    assert!(machine.state().is_end());
}
