//! One rollout from its first request to its end, as the controller would lead it.
//!
//! Counts reach the engine each 100 ms, and at the end of a slice of 10 ms in which a failure of the canary became known;
//! the machine looks each second, and at once when the engine says regressed. What the machine orders is done at once:
//! neither a disk nor a store stands between.

use std::time::Duration;

use super::setup::Prepared;
use super::traffic::{Request, Stream};
use crate::analysis::{
    BIN, BUCKETS, BinCounts, Buckets, Direction, Engine, Feed, Judgment, Order, Part, Shown, Side, Verdict,
};
use crate::model::Actor;
use crate::rollout::{self, Effect, Event, Judged, Machine, Moment, RolloutId, State};

/// In microseconds, as all times here.
const SLICE: u64 = 10_000;
const BIN_MICROS: u64 = BIN.as_micros() as u64;
const LOOK: u64 = 1_000_000;

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) end: End,
    /// When each step began.
    pub(super) entered: Vec<u64>,
    /// For each of them the proof that was furthest from its limit, if the step's time was over and it could not be left.
    pub(super) lacked: Vec<Option<&'static str>>,
    pub(super) took: u64,
    /// Requests that began on the canary, and those of them that fail.
    pub(super) canary: u64,
    pub(super) harmed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    /// By the analysis, which blames this part; or paused for it.
    RolledBack(Part),
    /// For want of evidence, as `on_inconclusive = "rollback"` has it.
    Thin,
    /// Paused, for its patience was over.
    Waiting,
}

impl Run {
    /// How long the step at this index took; `None` if it was not left upward.
    pub(super) fn step_took(&self, step: usize) -> Option<Duration> {
        let began = *self.entered.get(step)?;
        let last = self.end == End::Finished && step + 1 == self.entered.len();
        let left = self.entered.get(step + 1).copied().or(last.then_some(self.took))?;
        Some(Duration::from_micros(left - began))
    }
}

pub(super) fn run(setup: &Prepared, seed: u64) -> Run {
    let mut world = World::new(setup, seed);
    loop {
        if let Some(end) = world.slice() {
            let World { entered, lacked, now, canary, harmed, .. } = world;
            return Run { end, entered, lacked, took: now, canary, harmed };
        }
    }
}

struct World<'a> {
    setup: &'a Prepared,
    stream: Stream,
    feed: Feed,
    engine: Engine,
    machine: Machine,
    now: u64,
    epoch: u64,
    /// Not yet fed: by bin and epoch of the start, and version.
    counts: Vec<((u64, u64, Side), BinCounts)>,
    /// Latencies of stable's failures, not yet fed.
    failures: Buckets,
    entered: Vec<u64>,
    lacked: Vec<Option<&'static str>>,
    canary: u64,
    harmed: u64,
}

impl<'a> World<'a> {
    fn new(setup: &'a Prepared, seed: u64) -> Self {
        let mut stream = Stream::new(&setup.traffic, seed);
        let history = stream.history(setup.history);
        let engine = Engine::by_steps(setup.settings.clone(), &history, &setup.margins);
        let engine = engine.expect("settings were checked, and their own margins are shares");
        let by = Actor("simulate".into());
        let id = RolloutId("simulated".into());
        let (machine, effects) = Machine::start(id, setup.plan.clone(), &setup.weights, by, moment(0));
        let mut world = Self {
            setup,
            stream,
            feed: Feed::new(&setup.settings, Order::Auto, &history),
            engine,
            machine,
            now: 0,
            epoch: 0,
            counts: Vec::new(),
            failures: [0; BUCKETS],
            entered: Vec::new(),
            lacked: Vec::new(),
            canary: 0,
            harmed: 0,
        };
        world.carry_out(effects);
        world
    }

    /// Ten milliseconds; how it ended, if it did.
    fn slice(&mut self) -> Option<End> {
        let bin = self.now / BIN_MICROS;
        self.now += SLICE;
        while let Some(request) = self.stream.begin(self.now) {
            self.counts_of(&request).began += 1;
            self.canary += u64::from(request.is_canary);
            self.harmed += u64::from(request.is_canary && request.is_bad);
        }
        let mut is_alarming = false;
        while let Some(request) = self.stream.end(self.now) {
            self.ended(&request);
            is_alarming |= request.is_canary && request.is_bad;
        }
        let is_bin_over = self.now.is_multiple_of(BIN_MICROS);
        if is_bin_over || is_alarming {
            let judgment = self.feed(bin + u64::from(is_bin_over));
            let is_regressed = judgment.is_some_and(|judgment| judgment.verdict == Verdict::Regressed);
            if is_regressed || self.now.is_multiple_of(LOOK) {
                return self.look();
            }
        }
        None
    }

    fn ended(&mut self, request: &Request) {
        let ended = &mut self.counts_of(request).ended;
        ended.all += 1;
        ended.bad += u64::from(request.is_bad);
        ended.buckets[request.bucket] += 1;
        if request.is_bad && !request.is_canary {
            self.failures[request.bucket] += 1;
        }
    }

    /// Few at a time, the latest last.
    fn counts_of(&mut self, request: &Request) -> &mut BinCounts {
        let key = (request.began / BIN_MICROS, request.epoch, request.side());
        let at = self.counts.iter().rposition(|(known, _)| *known == key).unwrap_or_else(|| {
            self.counts.push((key, BinCounts::default()));
            self.counts.len() - 1
        });
        &mut self.counts[at].1
    }

    /// What is new goes to the engine; bins below `until` are over.
    fn feed(&mut self, until: u64) -> Option<Judgment> {
        for ((bin, epoch, side), counts) in self.counts.drain(..) {
            let taken = self.feed.add(bin, epoch, side, &counts);
            debug_assert!(taken.is_ok(), "requests of an epoch follow its weights");
        }
        let judged = self.engine.take(&self.feed.release(until));
        debug_assert!(judged.is_ok(), "{judged:?}");
        judged.ok().flatten()
    }

    /// The machine hears what the engine says now.
    fn look(&mut self) -> Option<End> {
        let Judgment { verdict, reason, blamed, is_split_wrong, evidence, .. } = self.engine.judge();
        let judged = |step| Judged { step, verdict, reason, blamed, is_split_wrong };
        self.hear(Event::Tick(self.machine.at_step().map(judged)));
        let state = self.machine.state();
        if let (State::Waiting, Some(lacked @ None)) = (state, self.lacked.last_mut()) {
            *lacked = weakest_proof(&evidence);
        }
        match (state, blamed) {
            (State::Finished, _) => Some(End::Finished),
            (State::Failed | State::Paused, Some(part)) => Some(End::RolledBack(part)),
            (State::Failed, None) => Some(End::Thin),
            (State::Paused | State::Aborted | State::Superseded, _) => Some(End::Waiting),
            (State::Running | State::Waiting | State::Approval, _) => None,
        }
    }

    fn hear(&mut self, event: Event) {
        let (machine, effects) = self.machine.clone().step(event, moment(self.now));
        self.machine = machine;
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Do { seq, order } => {
                    if let rollout::Order::Weights { share, .. } = order {
                        self.set_share(share.parts, share.percent() / 100.0);
                    }
                    self.hear(Event::Done { seq });
                }
                Effect::EnterStep(step) => {
                    self.engine.enter_step(step);
                    self.entered.push(self.now);
                    self.lacked.push(None);
                }
                // There are no checks, and nobody reads along.
                Effect::Ask { .. } | Effect::Log { .. } => {}
            }
        }
    }

    /// Weights change between two bins, for the machine looks then.
    fn set_share(&mut self, parts: u32, w: f64) {
        self.epoch += 1;
        self.stream.set_share(parts, self.epoch);
        self.feed.learn_failures(&std::mem::replace(&mut self.failures, [0; BUCKETS]));
        self.feed.begin_epoch(self.epoch, w, self.setup.traffic.per_second);
        self.feed.warm_up(self.now / BIN_MICROS);
    }
}

/// Of those that must all be won; the objective is only shown.
fn weakest_proof(evidence: &[Shown]) -> Option<&'static str> {
    let proofs = evidence.iter().filter(|shown| shown.direction == Direction::For && shown.name != "objective");
    proofs.min_by(|a, b| a.log_e.total_cmp(&b.log_e)).map(|shown| shown.name)
}

/// Virtual time on both clocks.
fn moment(micros: u64) -> Moment {
    let time = Duration::from_micros(micros);
    Moment { monotonic: time, wall: time }
}
