//! What the tests of this room share: a plan, and a world that carries orders out as the store would.

use std::time::Duration;

use super::*;
use crate::analysis::{Part, Verdict};
use crate::config::{
    Analysis, Check, CheckAt, CheckKind, ErrorsAllowed, LatencyAllowed, OnInconclusive, OnRegressed, Rollout, Split,
    Step, Strategy, Version,
};
use crate::model::{Actor, CheckName, Source, SplitName, VersionName, Weight, Weights};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

pub(super) fn split(versions: &[&str]) -> Split {
    let weight = |i: usize| Weight::new(if i == 0 { 100 } else { 0 }).unwrap();
    let versions = versions.iter().enumerate().map(|(i, v)| Version::new(version(v), weight(i), Vec::new())).collect();
    Split::new(SplitName::new("shop").unwrap(), version("v1"), versions)
}

/// That of a file with an empty table.
pub(super) fn rollout() -> Rollout {
    Rollout {
        to: None,
        strategy: Strategy::Canary,
        auto_start: false,
        steps: Strategy::Canary.steps(),
        on_regressed: OnRegressed::Rollback,
        on_inconclusive: OnInconclusive::Hold,
        max_wait: 60 * MINUTE,
        analysis: Some(Analysis {
            false_alarm: 0.001,
            errors: ErrorsAllowed { ratio: 1.1, margin: 0.001, max: None },
            latency: LatencyAllowed { slower: 0.19, max_p99: None },
            warm_up: 10 * SECOND,
        }),
        checks: Vec::new(),
    }
}

pub(super) fn steps(all: &[(f64, u64, bool)]) -> Vec<Step> {
    all.iter().map(|&(weight, minutes, approve)| Step { weight, hold: MINUTE * minutes as u32, approve }).collect()
}

/// Three steps of a minute.
pub(super) fn short() -> Rollout {
    Rollout { steps: steps(&[(10.0, 1, false), (50.0, 1, false), (100.0, 1, false)]), ..rollout() }
}

pub(super) fn check(name: &str, at: CheckAt, failures: u32) -> Check {
    let ask = CheckKind::Command(vec!["true".into()]);
    Check { name: CheckName::new(name).unwrap(), at, ask, every: 30 * SECOND, failures }
}

pub(super) fn command(what: What) -> Event {
    Event::Command(Command { what, by: Actor("token:ci".into()), source: Source::Api, reason: None })
}

pub(super) fn judged(step: usize, verdict: Verdict) -> Judged {
    let blamed = (verdict == Verdict::Regressed).then_some(Part::Errors);
    Judged { step, verdict, reason: "counts".into(), blamed, is_split_wrong: false }
}

/// A split and its rollout, with a store that does what it is asked and a disk that takes what it is given.
#[derive(Debug)]
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Moment,
    pub(super) disk: Saved,
    /// Ordered and not yet carried out.
    pub(super) todo: Vec<(u64, Order)>,
    /// Carried out, without repetitions in a row.
    pub(super) acts: Vec<(u64, Order)>,
    /// Asked and not yet answered.
    pub(super) questions: Vec<(CheckName, u64)>,
    pub(super) entered: Vec<usize>,
    /// Weight of the new version in millionths, as the store has it.
    pub(super) parts: u32,
    pub(super) is_held: bool,
}

impl World {
    /// The new version has `percent` of the weight before.
    pub(super) fn start(rollout: &Rollout, percent: u32) -> Self {
        let split = split(&["v1", "v2"]);
        let weights: Weights = [("v1", 100 - percent), ("v2", percent)]
            .map(|(v, w)| (version(v), Weight::new(w).unwrap()))
            .into_iter()
            .collect();
        let plan = Plan::new(&split, rollout, (&version("v1"), &weights), (None, None)).unwrap();
        let now = Moment { monotonic: 1000 * SECOND, wall: 1_000_000 * SECOND };
        let by = Actor("token:ci".into());
        let (machine, effects) = Machine::start(RolloutId("r1".into()), plan, &weights, by, now);
        let disk = machine.save();
        let mut world = Self {
            machine,
            now,
            disk,
            todo: Vec::new(),
            acts: Vec::new(),
            questions: Vec::new(),
            entered: Vec::new(),
            parts: percent * 10_000,
            is_held: false,
        };
        world.take(effects);
        world
    }

    /// The machine hears an event; what it orders is noted, not carried out.
    pub(super) fn hear(&mut self, event: Event) {
        let (turn, next) = (self.machine.turn(), self.machine.outbox.next);
        let (machine, effects) = self.machine.clone().step(event, self.now);
        self.machine = machine;
        let is_new = |e: &Effect| matches!(e, Effect::Do { seq, .. } if *seq >= next);
        assert!(self.machine.turn() > turn || !effects.iter().any(is_new), "unwritten: {effects:?}");
        self.disk = self.machine.save();
        self.take(effects);
    }

    pub(super) fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Do { seq, order } => {
                    if order.leads_upward() {
                        assert!(!self.machine.state().is_end() || self.machine.state() == State::Superseded);
                    }
                    self.todo.push((seq, order));
                }
                Effect::EnterStep(step) => self.entered.push(step),
                Effect::Ask { check, question, .. } => self.questions.push((check, question)),
                Effect::Log { text, .. } => assert!(!text.is_empty()),
            }
        }
    }

    /// The first order is carried out; it is not yet reported done.
    pub(super) fn act(&mut self) -> Option<u64> {
        if self.todo.is_empty() {
            return None;
        }
        let (seq, order) = self.todo.remove(0);
        match &order {
            Order::Weights { share, .. } | Order::Relabel { share } => self.parts = share.parts,
            Order::Rollback { .. } => (self.parts, self.is_held) = (0, true),
            Order::Notify { .. } | Order::Receipt { .. } => {}
        }
        if !self.acts.contains(&(seq, order.clone())) {
            self.acts.push((seq, order));
        }
        Some(seq)
    }

    /// Everything ordered is carried out and reported done.
    pub(super) fn settle(&mut self) {
        while let Some(seq) = self.act() {
            self.hear(Event::Done { seq });
        }
    }

    /// Everybody asked says this.
    pub(super) fn answer(&mut self, answer: &Answer) {
        for (check, question) in std::mem::take(&mut self.questions) {
            self.hear(Event::Answered { check, question, answer: answer.clone() });
        }
        self.settle();
    }

    pub(super) fn say(&mut self, what: What) {
        assert_eq!(self.machine.refusal(what), None);
        self.hear(command(what));
        self.settle();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += time;
    }

    /// A second passes; the analysis says this of the step in force.
    pub(super) fn tick(&mut self, verdict: Verdict) {
        self.pass(SECOND);
        let step = self.machine.at_step().unwrap_or(0);
        self.hear(Event::Tick(Some(judged(step, verdict))));
        self.settle();
    }

    /// So long, second by second, or until it is no longer in this state.
    pub(super) fn run(&mut self, time: Duration, verdict: Verdict) {
        for _ in 0..time.as_secs() {
            self.tick(verdict);
        }
    }

    pub(super) fn crash(&mut self, found: Option<Event>) {
        (self.todo, self.questions) = (Vec::new(), Vec::new());
        let (machine, effects) = Machine::restore(self.disk.clone(), found, self.now).unwrap();
        self.machine = machine;
        self.disk = self.machine.save();
        self.take(effects);
    }

    /// What was carried out, in words; notices and receipts apart.
    pub(super) fn deeds(&self) -> Vec<String> {
        let word = |order: &Order| match order {
            Order::Weights { share, .. } => Some(format!("{} %", share.percent())),
            Order::Rollback { to, by, .. } => Some(format!("back to {to} by {}", by.0)),
            Order::Relabel { share } => Some(format!("{} is stable", share.to)),
            Order::Notify { .. } | Order::Receipt { .. } => None,
        };
        self.acts.iter().filter_map(|(_, order)| word(order)).collect()
    }

    pub(super) fn notices(&self) -> Vec<&'static str> {
        let word = |order: &Order| match order {
            Order::Notify { notice, .. } => Some(notice.as_str()),
            _ => None,
        };
        self.acts.iter().filter_map(|(_, order)| word(order)).collect()
    }

    pub(super) fn state(&self) -> State {
        self.machine.state()
    }
}
