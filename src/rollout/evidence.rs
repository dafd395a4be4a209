//! What the analysis of one rollout is made of while it runs: the feed that orders the watched counts, the engine that
//! judges.
//!
//! Invariants: each request is given to the engine at most once, with the probability its own coin had; the judgment
//! given out names the step it is about; a look costs a few hundred additions and never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::Judged;
use super::plan::{Judging, Plan, settings};
use super::view;
use crate::analysis::{BadSettings, Engine, Feed, History, Judgment, Order, RestoreError, Settings, Side, Snapshot};
use crate::config::Analysis;
use crate::model::{Address, Instant, VersionName};
use crate::state::SplitState;
use crate::telemetry::Watch;

/// Between two looks, unless a failure calls for one.
pub(super) const EVERY: Duration = Duration::from_millis(100);

/// See the file's head.
#[derive(Debug)]
pub(super) struct Evidence {
    engine: Engine,
    feed: Feed,
    to: VersionName,
    stable: VersionName,
    compares: bool,
    epochs: BTreeMap<u64, f64>,
    /// Endpoints of `to` that take requests.
    serving: BTreeSet<Address>,
    step: usize,
    judgment: Option<Judgment>,
    tallies: [view::Tally; 2],
    failures: u64,
    looked: Instant,
}

impl Evidence {
    /// Everything that begins from now on is judged.
    ///
    /// # Errors
    /// A setting no analysis can be run with.
    pub(super) fn begin(
        plan: &Plan,
        analysis: &Analysis,
        history: &History,
        now: Instant,
    ) -> Result<Box<Self>, BadSettings> {
        let settings = settings(analysis);
        let engine = Engine::by_steps(settings.clone(), history, &margins(plan, &settings))?;
        Ok(Self::with(plan, (engine, &settings), history, now))
    }

    /// Goes on with what an earlier process had learned; requests that were in flight then are not judged.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn restore(
        plan: &Plan,
        (snapshot, tallies): (Snapshot, [view::Tally; 2]),
        history: &History,
        now: Instant,
    ) -> Result<Box<Self>, RestoreError> {
        let engine = Engine::restore(snapshot)?;
        let settings = engine.settings().clone();
        let mut evidence = Self::with(plan, (engine, &settings), history, now);
        evidence.tallies = tallies;
        Ok(evidence)
    }

    fn with(plan: &Plan, (engine, settings): (Engine, &Settings), history: &History, now: Instant) -> Box<Self> {
        Box::new(Self {
            feed: Feed::new(settings, Order::Auto, history),
            judgment: Some(engine.judge()),
            engine,
            to: plan.to.clone(),
            stable: plan.stable.clone(),
            compares: plan.judging == Judging::Comparison,
            epochs: BTreeMap::new(),
            serving: BTreeSet::new(),
            step: 0,
            tallies: [view::Tally::default(); 2],
            failures: 0,
            looked: now,
        })
    }

    /// A step's weights are in force.
    pub(super) fn enter_step(&mut self, step: usize, watch: &Watch, now: Instant) {
        self.step = step;
        self.engine.enter_step(step);
        self.feed.warm_up(watch.bin(now));
        self.judgment = Some(self.engine.judge());
    }

    /// Whether a look is due: by time, or since the canary has failed.
    pub(super) fn is_due(&self, watch: &Watch, now: Instant) -> bool {
        now.saturating_duration_since(self.looked) >= EVERY || watch.failures(&self.to) != self.failures
    }

    /// Takes in what is new and judges. `per_second`: requests of the split.
    pub(super) fn look(&mut self, watch: &mut Watch, split: &SplitState, per_second: f64, now: Instant) -> Judged {
        self.looked = now;
        self.note_epoch(split, per_second);
        self.note_serving(split, watch.bin(now));
        self.failures = watch.failures(&self.to);
        let Self { feed, to, stable, .. } = self;
        watch.take(now, |came| {
            let side = match &came.version {
                version if version == to => Side::Canary,
                version if version == stable => Side::Stable,
                _ => return,
            };
            // An epoch that never gave `to` and stable a coin between them says nothing about either.
            let _ = feed.add(came.bin, came.epoch, side, &came.new);
        });
        self.feed.learn_failures(&watch.take_failures(&self.stable));
        // `now` is of before the reading: all that began in earlier bins has been read.
        let released = self.feed.release(watch.bin(now));
        for portion in &released.known {
            for (sum, counts) in self.tallies.iter_mut().zip([&portion.canary, &portion.stable]) {
                (sum.all, sum.bad) = (sum.all + counts.all, sum.bad + counts.bad);
            }
        }
        match self.engine.take(&released) {
            Ok(judgment) => self.judgment = judgment.or(self.judgment.take()),
            Err(why) => tracing::error!(event = "rollout.bad_counts", %why, "left out of the analysis"),
        }
        if !released.settled.is_empty() {
            self.judgment = Some(self.engine.judge());
        }
        self.judged()
    }

    fn judged(&self) -> Judged {
        let judgment = self.judgment.clone().unwrap_or_else(|| self.engine.judge());
        Judged {
            step: self.step,
            verdict: judgment.verdict,
            reason: judgment.reason,
            blamed: judgment.blamed,
            is_split_wrong: judgment.is_split_wrong,
        }
    }

    fn note_epoch(&mut self, split: &SplitState, per_second: f64) {
        if self.epochs.contains_key(&split.epoch) {
            return;
        }
        let weight = |version: &VersionName| {
            let of = |(index, _): &&(usize, _)| split.versions.get(*index).is_some_and(|v| v.name == *version);
            split.coin.0.iter().find(of).map_or(0.0, |(_, weight)| f64::from(weight.value()))
        };
        let (to, stable) = (weight(&self.to), weight(&self.stable));
        if to + stable > 0.0 {
            // Without a coin of the client's own nothing can be compared: at 1 only the objective is judged.
            let w = if self.compares { to / (to + stable) } else { 1.0 };
            self.feed.begin_epoch(split.epoch, w, per_second);
            self.epochs.insert(split.epoch, w);
        }
    }

    /// An endpoint of `to` that has just come is cold.
    fn note_serving(&mut self, split: &SplitState, bin: u64) {
        let Some(version) = split.version(self.to.as_str()) else { return };
        let available = version.pool.endpoints().iter().filter(|endpoint| endpoint.is_available());
        let serving: BTreeSet<_> = available.map(|endpoint| endpoint.address().clone()).collect();
        if serving.difference(&self.serving).next().is_some() {
            self.feed.warm_up(bin);
        }
        self.serving = serving;
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.engine.snapshot()
    }

    /// Requests and failures that were judged: of the canary, of stable.
    pub(super) fn tallies(&self) -> [view::Tally; 2] {
        self.tallies
    }

    pub(super) fn shown(&self) -> Option<view::Judged> {
        let judgment = self.judgment.as_ref()?;
        let [canary, stable] = self.tallies;
        Some(view::Judged {
            verdict: judgment.verdict,
            reason: judgment.reason.clone(),
            log_e: judgment.log_e,
            evidence: judgment.evidence.clone(),
            needed: judgment.needed,
            canary,
            stable,
        })
    }
}

fn margins(plan: &Plan, settings: &Settings) -> Vec<f64> {
    let shares: Vec<f64> = plan.steps.iter().map(|step| f64::from(step.parts) / 1e6).collect();
    settings.healthy_margins(&shares)
}
