//! Any sequence of events and crashes keeps the promises: never two steps at once, never up again after a rollback, no
//! rollback forgotten, no end taken back, always an end or somebody to wait for; and a crash at any instant changes
//! nothing of what is done.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::analysis::Verdict;
use crate::config::{CheckAt, OnInconclusive, OnRegressed, Rollout, Step};
use crate::model::Actor;

#[derive(Clone, Debug)]
enum Act {
    Tick {
        verdict: Verdict,
        stale: bool,
        is_split_wrong: bool,
        seconds: u64,
    },
    Answer(usize, u8),
    Say(What),
    Foreign(u8),
    /// The next order is carried out, or refused.
    CarryOut,
    Refuse,
    /// The oldest of what was carried out is reported.
    Report,
    /// A clock jumps; by a day, forward or back.
    Jump {
        wall: bool,
        back: bool,
    },
    Crash,
    /// A crash between hearing this and writing it down; a rollback may have been done already.
    Torn(Box<Act>, bool),
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![8 => Just(Verdict::Healthy), 4 => Just(Verdict::Inconclusive), 1 => Just(Verdict::Regressed)]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        3 => Just(What::Approve),
        2 => any::<bool>().prop_map(|full| What::Promote { full }),
        1 => Just(What::Pause),
        3 => Just(What::Resume),
        1 => Just(What::Abort),
    ]
}

fn heard() -> impl Strategy<Value = Act> {
    let tick = (verdict(), prop::bool::weighted(0.1), prop::bool::weighted(0.05), 1..15u64);
    prop_oneof![
        30 => tick.prop_map(|(verdict, stale, is_split_wrong, seconds)| Act::Tick { verdict, stale, is_split_wrong, seconds }),
        12 => (0..3usize, 0..12u8).prop_map(|(i, kind)| Act::Answer(i, kind)),
        3 => what().prop_map(Act::Say),
        1 => (0..4u8).prop_map(Act::Foreign),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        46 => heard(),
        14 => Just(Act::CarryOut),
        2 => Just(Act::Refuse),
        14 => Just(Act::Report),
        2 => any::<(bool, bool)>().prop_map(|(wall, back)| Act::Jump { wall, back }),
        4 => Just(Act::Crash),
        4 => (heard(), any::<bool>()).prop_map(|(act, done)| Act::Torn(Box::new(act), done)),
    ]
}

fn any_rollout() -> impl Strategy<Value = Rollout> {
    let step = || (0..30u64, prop::bool::weighted(0.3));
    let failures = prop::array::uniform4(prop::option::of(1..3u32));
    let choice = (0..3u8, any::<bool>(), prop::bool::weighted(0.8), any::<bool>());
    (prop::collection::vec(step(), 1..5), any::<bool>(), failures, choice).prop_map(
        |(steps, is_whole, failures, (inconclusive, pauses, is_judged, begins_at_0))| {
            let count = steps.len();
            let weight = |i: usize| match i {
                0 if begins_at_0 && count > 1 => 0.0,
                i if i + 1 == count && is_whole => 100.0,
                i => 10.0 * (i + 1) as f64,
            };
            let step = |(i, (seconds, approve)): (usize, (u64, bool))| Step {
                weight: weight(i),
                hold: SECOND * seconds as u32,
                approve,
            };
            let kinds = [("a", CheckAt::Start), ("b", CheckAt::Step), ("c", CheckAt::Always), ("d", CheckAt::Finish)];
            let checks =
                kinds.into_iter().zip(failures).filter_map(|((n, at), f)| f.map(|f| check(n, at, f))).collect();
            Rollout {
                steps: steps.into_iter().enumerate().map(step).collect(),
                on_regressed: if pauses { OnRegressed::Pause } else { OnRegressed::Rollback },
                on_inconclusive: [OnInconclusive::Hold, OnInconclusive::Advance, OnInconclusive::Rollback]
                    [usize::from(inconclusive)],
                max_wait: MINUTE,
                analysis: is_judged.then(|| rollout().analysis).flatten(),
                checks,
                ..rollout()
            }
        },
    )
}

/// The world, what has been seen of it, and what must stay true.
struct Watched {
    world: World,
    /// Carried out and not yet reported.
    acted: VecDeque<u64>,
    /// What somebody else has done to the split: the store knows it for good.
    found: Option<Event>,
    /// Of what is on disk.
    ended: Option<State>,
    /// Which order set each weight.
    set_by: BTreeMap<u32, u64>,
}

impl Watched {
    fn new(rollout: &Rollout, percent: u32) -> Self {
        let world = World::start(rollout, percent);
        Self { world, acted: VecDeque::new(), found: None, ended: None, set_by: BTreeMap::new() }
    }

    fn hear(&mut self, event: Event) {
        let (before, ordered) = (self.world.machine.at_step(), self.world.machine.outbox.next);
        self.world.hear(event);
        let upward = self.world.todo.iter().filter(|(seq, order)| *seq >= ordered && order.leads_upward()).count();
        assert!(upward <= 1, "two steps at once");
        let after = self.world.machine.at_step();
        assert!(after >= before, "a step back: {before:?} to {after:?}");
    }

    fn carry_out(&mut self) {
        let Some((seq, order)) = self.world.todo.first().cloned() else { return };
        let before = self.world.parts;
        self.acted.extend(self.world.act());
        match order {
            Order::Weights { share, .. } | Order::Relabel { share } => {
                assert!(!self.world.is_held, "up again after a rollback");
                let is_down = share.parts == 0;
                assert!(is_down || share.parts >= before || self.set_by.is_empty(), "{before} to {}", share.parts);
                if !is_down && share.parts < 1_000_000 {
                    assert_eq!(*self.set_by.entry(share.parts).or_insert(seq), seq, "the same step twice");
                }
            }
            // The store's revision has changed: what was ordered for the old one is refused, and this is told instead.
            Order::Rollback { .. } => self.void_upward(),
            Order::Notify { .. } | Order::Receipt { .. } => {}
        }
    }

    fn void_upward(&mut self) {
        self.world.todo.retain(|(_, order)| !order.leads_upward());
    }

    fn event(&mut self, act: &Act) -> Option<Event> {
        Some(match act {
            Act::Tick { verdict, stale, is_split_wrong, seconds } => {
                self.world.pass(SECOND * *seconds as u32);
                let step = self.world.machine.at_step().unwrap_or(0);
                let step = if *stale { step.saturating_sub(1) } else { step };
                Event::Tick(Some(Judged { is_split_wrong: *is_split_wrong, ..judged(step, *verdict) }))
            }
            Act::Answer(i, kind) => {
                let at = (!self.world.questions.is_empty()).then(|| i % self.world.questions.len())?;
                let (check, question) = self.world.questions.remove(at);
                let answer = match kind {
                    0 => Answer::Fail("7".into()),
                    1 => Answer::Error("refused".into()),
                    2 => Answer::Wait("busy".into()),
                    _ => Answer::Pass("0".into()),
                };
                Event::Answered { check, question, answer }
            }
            Act::Say(what) => command(*what),
            Act::Foreign(kind) => {
                let by = Actor("local:a".into());
                match kind {
                    0 => Event::FileChangedWeights,
                    1 => Event::VersionLeft(version("v2")),
                    2 => Event::NewerVersion { to: version("v3"), by },
                    _ => Event::RolledBack { by, source: crate::model::Source::Api, reason: None },
                }
            }
            _ => return None,
        })
    }

    /// What the store has gone through by the time the machine hears of it.
    fn happen(&mut self, event: &Event) {
        match event {
            Event::RolledBack { .. } => (self.world.parts, self.world.is_held) = (0, true),
            Event::FileChangedWeights | Event::VersionLeft(_) => {}
            _ => return,
        }
        self.void_upward();
        if !self.world.is_held || matches!(event, Event::RolledBack { .. }) {
            self.found = Some(event.clone());
        }
    }

    fn crash(&mut self) {
        self.acted.clear();
        let by = Actor("analysis".into());
        let held =
            self.world.is_held.then_some(Event::RolledBack { by, source: crate::model::Source::Api, reason: None });
        self.world.crash(self.found.clone().or(held));
    }

    fn perform(&mut self, act: &Act) {
        match act {
            Act::CarryOut => self.carry_out(),
            Act::Refuse if !self.world.todo.is_empty() => {
                let (seq, _) = self.world.todo.remove(0);
                self.hear(Event::Refused { seq, why: "disk full".into() });
            }
            Act::Report => {
                if let Some(seq) = self.acted.pop_front() {
                    self.hear(Event::Done { seq });
                }
            }
            Act::Jump { wall, back } => {
                let clock = if *wall { &mut self.world.now.wall } else { &mut self.world.now.monotonic };
                let day = MINUTE * 1440;
                // The monotonic clock goes back only over a restart.
                *clock = if *back && *wall { clock.saturating_sub(day) } else { *clock + day };
            }
            Act::Crash => self.crash(),
            Act::Torn(act, done) => {
                let disk = self.world.disk.clone();
                let Some(event) = self.event(act) else { return };
                self.happen(&event);
                self.hear(event);
                let is_rollback = |(_, order): &(u64, Order)| matches!(order, Order::Rollback { .. });
                self.world.todo.retain(|order| *done && is_rollback(order));
                self.carry_out();
                self.world.disk = disk;
                self.crash();
            }
            heard => {
                let Some(event) = self.event(heard) else { return };
                self.happen(&event);
                self.hear(event);
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let state = self.world.state();
        assert!(!self.world.is_held || state.is_end(), "rolled back and {state:?}");
        assert!(!self.world.is_held || self.world.parts == 0, "rolled back and up again");
        match self.ended {
            Some(ended) => assert_eq!(state, ended, "an end was taken back"),
            None => self.ended = state.is_end().then_some(state),
        }
    }

    fn settle(&mut self) {
        while !(self.world.todo.is_empty() && self.acted.is_empty()) {
            self.carry_out();
            if let Some(seq) = self.acted.pop_front() {
                self.hear(Event::Done { seq });
            }
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("WEIR_SOAK").is_some() { 20_000 } else { 500 }))]

    #[test]
    fn any_sequence_of_events_and_crashes_keeps_the_promises(
        rollout in any_rollout(),
        percent in prop::sample::select(vec![0, 0, 10]),
        acts in prop::collection::vec(act(), 0..200),
        (lasting, answer) in (verdict(), 0..12u8),
    ) {
        let mut watched = Watched::new(&rollout, percent);
        for act in &acts {
            watched.perform(act);
        }
        // From here on the disk works, everybody answers, and nothing new happens.
        for _ in 0..100 {
            watched.settle();
            watched.perform(&Act::Tick { verdict: lasting, stale: false, is_split_wrong: false, seconds: 10 });
            while !watched.world.questions.is_empty() {
                watched.perform(&Act::Answer(0, answer));
                watched.settle();
            }
        }
        watched.settle();
        let (state, machine) = (watched.world.state(), &watched.world.machine);
        prop_assert!(state.is_end() || matches!(state, State::Approval | State::Paused), "stuck: {:?}", machine);
        if state.is_end() {
            prop_assert!(machine.is_over());
        }
        if matches!(state, State::Failed | State::Aborted) && machine.is_exposed {
            prop_assert!(watched.world.is_held, "a rollback was forgotten");
        }
        if state == State::Finished && watched.found.is_none() {
            prop_assert_eq!(watched.world.parts, 1_000_000);
        }
    }
}

/// When a crash strikes while something is heard.
#[derive(Clone, Copy, Debug)]
enum Strike {
    /// Before it is written down.
    Unwritten,
    /// The same, and a rollback was quicker than the disk.
    RolledBack,
    Written,
    CarriedOut,
}

/// Drives a rollout to its end; everything heard is an instant at which it may crash, once.
struct Driver {
    watched: Watched,
    instant: usize,
    strike: Option<(usize, Strike)>,
}

impl Driver {
    fn hear(&mut self, event: Event) {
        let disk = self.watched.world.disk.clone();
        self.watched.happen(&event);
        self.watched.hear(event);
        let strikes = self.strike.filter(|(instant, _)| *instant == self.instant).map(|(_, strike)| strike);
        self.instant += 1;
        match strikes {
            None => return,
            Some(Strike::Unwritten) => self.watched.world.disk = disk,
            Some(Strike::RolledBack) => {
                let is_rollback = |(_, order): &(u64, Order)| matches!(order, Order::Rollback { .. });
                self.watched.world.todo.retain(is_rollback);
                self.watched.carry_out();
                self.watched.world.disk = disk;
            }
            Some(Strike::Written) => {}
            Some(Strike::CarriedOut) => {
                while !self.watched.world.todo.is_empty() {
                    self.watched.carry_out();
                }
            }
        }
        self.watched.crash();
        self.watched.check();
    }

    /// An operator who agrees to everything and resumes what is paused.
    fn drive(mut self, verdict_of: &dyn Fn(usize) -> Verdict) -> (Vec<String>, State, usize) {
        for _ in 0..2000 {
            while !self.watched.world.todo.is_empty() || !self.watched.acted.is_empty() {
                self.watched.carry_out();
                if let Some(seq) = self.watched.acted.pop_front() {
                    self.hear(Event::Done { seq });
                }
            }
            let world = &mut self.watched.world;
            if world.machine.is_over() {
                break;
            }
            let event = if world.questions.is_empty() {
                world.pass(SECOND * 5);
                match world.state() {
                    State::Approval => command(What::Approve),
                    State::Paused => command(What::Promote { full: false }),
                    _ => {
                        let step = world.machine.at_step().unwrap_or(0);
                        Event::Tick(Some(judged(step, verdict_of(step))))
                    }
                }
            } else {
                let (check, question) = world.questions.remove(0);
                Event::Answered { check, question, answer: Answer::Pass("0".into()) }
            };
            self.hear(event);
        }
        (self.watched.world.deeds(), self.watched.world.state(), self.instant)
    }
}

#[test]
fn a_crash_at_any_instant_changes_nothing_of_what_is_done() {
    let step = |weight, approve| Step { weight, hold: SECOND * 20, approve };
    let kinds = [("a", CheckAt::Start), ("b", CheckAt::Step), ("c", CheckAt::Always), ("d", CheckAt::Finish)];
    let plan = Rollout {
        steps: vec![step(1.0, false), step(10.0, true), step(50.0, false), step(100.0, false)],
        checks: kinds.into_iter().map(|(name, at)| check(name, at, 1)).collect(),
        max_wait: MINUTE,
        ..rollout()
    };
    let verdicts: [&dyn Fn(usize) -> Verdict; 3] =
        [&|_| Verdict::Healthy, &|step| if step == 2 { Verdict::Regressed } else { Verdict::Healthy }, &|step| {
            if step == 0 { Verdict::Inconclusive } else { Verdict::Healthy }
        }];
    for (percent, verdict_of) in [0, 10].into_iter().flat_map(|p| verdicts.map(|v| (p, v))) {
        let drive = |strike| Driver { watched: Watched::new(&plan, percent), instant: 0, strike }.drive(verdict_of);
        let (deeds, state, instants) = drive(None);
        assert!(state.is_end() && deeds.len() >= 3 && instants > 20, "{deeds:?} {state:?} {instants}");
        for instant in 0..instants {
            for strike in [Strike::Unwritten, Strike::RolledBack, Strike::Written, Strike::CarriedOut] {
                let (again, end, _) = drive(Some((instant, strike)));
                assert_eq!(again, deeds, "{strike:?} at {instant}");
                // A rollback that was quicker than the disk is found by the next process as somebody's.
                let is_same = end == state || (end == State::Aborted && matches!(strike, Strike::RolledBack));
                assert!(is_same, "{strike:?} at {instant}: {end:?}");
            }
        }
    }
}
