//! One rollout's engine: two feeds of counts in, a judgment out (sections 9 and 10).
//!
//! `settle` takes counts in order of start and bets *for* the canary, `tick` takes those known so far and bets against
//! it, then judges. The proofs of all steps run from the first request on, each against its own margin, so that a step
//! does not begin at nothing.
//!
//! Invariants: a rejected tick changes nothing; `Regressed` is final; weights, margins and chances are fixed at the
//! start. The sum of the parts' weights is 1, so no alarm is split over steps or parts.

use serde::{Deserialize, Serialize};

use super::bets::Direction;
use super::counts::{Counts, Tally};
use super::errors::Comparison;
use super::exact;
use super::feed::{Portion, Released};
use super::history::History;
use super::latency::Latency;
use super::objective::{Objective, adaptive_bound};
use super::reason::Sums;
use super::settings::{BadSettings, Settings};
use super::share::SplitCheck;
use super::tails::Tails;
use super::verdict::{Judgment, Part, Verdict};

/// The smallest margin at which shares of slow calls are compared (section 7).
const TAIL_MARGIN: f64 = 0.001;

/// Counts that cannot be; the tick was left out.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BadTick {
    #[error("more failures than requests")]
    MoreBadThanAll,
    #[error("{0} is no probability of the canary")]
    NoProbability(f64),
}

/// The analysis of one rollout.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    pub(super) settings: Settings,
    /// Probability of the canary in the last tick.
    #[serde(with = "exact")]
    pub(super) w: f64,
    pub(super) sums: Sums,
    pub(super) against: Against,
    pub(super) for_it: ForIt,
    /// Once regressed: why.
    pub(super) latched: Option<Latched>,
}

/// What `tick` feeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Against {
    pub(super) share: SplitCheck,
    pub(super) errors: Comparison,
    pub(super) objective: Objective,
    pub(super) max_p99: Option<SlowCalls>,
    pub(super) latency: Option<Latency>,
}

/// The objective "p99 below a bound": not more than 1 % of calls are slower.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SlowCalls {
    /// First bucket that is too slow.
    from: usize,
    pub(super) sums: Sums,
    pub(super) objective: Objective,
}

/// What `settle` feeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForIt {
    /// One for each margin that some step asks for.
    pub(super) proofs: Vec<Comparison>,
    /// For each step, which of them.
    rungs: Vec<usize>,
    step: usize,
    pub(super) latency: Option<Latency>,
    /// The same proofs by steps; they stand in for those of `latency`.
    #[serde(default)]
    pub(super) tails: Option<Tails>,
    /// The objective is met; shown only.
    pub(super) objective: Objective,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Latched {
    pub(super) reason: String,
    pub(super) blamed: Part,
}

impl Engine {
    /// A rollout begins. `history` is what is known of stable, `margins` what is to be proved before each step is left
    /// (`Settings::healthy_margins`); without any, `errors.margin`.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn new(settings: Settings, history: &History, margins: &[f64]) -> Result<Self, BadSettings> {
        settings.check()?;
        if !margins.iter().all(|margin| (0.0..=1.0).contains(margin)) {
            return Err(BadSettings { key: "steps", allowed: "margins of 0 to 1" });
        }
        let (against, for_it) = (Against::new(&settings, history), ForIt::new(&settings, history, margins));
        Ok(Self { settings, w: 0.0, sums: Sums::default(), against, for_it, latched: None })
    }

    /// The same for a rollout that goes up by steps: the proofs of latencies are by steps too (`tails`).
    ///
    /// # Errors
    /// A setting out of range.
    pub fn by_steps(settings: Settings, history: &History, margins: &[f64]) -> Result<Self, BadSettings> {
        let mut engine = Self::new(settings, history, margins)?;
        let shift = engine.settings.latency.as_ref().map(|latency| latency.shift());
        let deltas: Vec<f64> = engine.for_it.proofs.iter().map(|proof| proof.line().delta.max(TAIL_MARGIN)).collect();
        engine.for_it.tails = shift.map(|shift| Tails::new(shift, history.buckets(), &deltas));
        Ok(engine)
    }

    /// What it was begun with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The rollout is at the step with this index: `Healthy` now means that its margin is proved. Beyond the last step
    /// the last one's counts.
    pub fn enter_step(&mut self, step: usize) {
        self.for_it.step = step;
    }

    /// Counts in order of start, for the canary. `w` is the probability with which the coin sent these requests to it.
    ///
    /// # Errors
    /// The counts cannot be; nothing has changed.
    pub fn settle(&mut self, w: f64, canary: &Counts, stable: &Counts) -> Result<(), BadTick> {
        check(w, canary, stable)?;
        let w = if self.against.share.has_fired() { 0.0 } else { w };
        self.for_it.step(w, canary, stable, self.settings.false_healthy);
        Ok(())
    }

    /// Counts as they become known, against the canary; then the verdict.
    ///
    /// # Errors
    /// The counts cannot be; nothing has changed.
    pub fn tick(&mut self, w: f64, canary: &Counts, stable: &Counts) -> Result<Judgment, BadTick> {
        check(w, canary, stable)?;
        Ok(self.tick_of(w, canary, stable))
    }

    /// `tick`, where failures may be of requests that an earlier tick has counted as good.
    fn tick_of(&mut self, w: f64, canary: &Counts, stable: &Counts) -> Judgment {
        self.w = w;
        self.sums.add(&canary.tally(), &stable.tally());
        self.against.step(w, canary, stable);
        let judgment = self.judge();
        if let (Verdict::Regressed, None, Some(blamed)) = (judgment.verdict, &self.latched, judgment.blamed) {
            self.latched = Some(Latched { reason: judgment.reason.clone(), blamed });
        }
        judgment
    }

    /// All that a feed has released, a tick per epoch; the judgment after the last. `None`: nothing was released.
    ///
    /// # Errors
    /// The first portion that cannot be; those before it are taken in, it and those after it are not.
    pub fn take(&mut self, released: &Released) -> Result<Option<Judgment>, BadTick> {
        for Portion { w, canary, stable, .. } in &released.settled {
            self.settle(*w, canary, stable)?;
        }
        let mut last = None;
        for Portion { w, canary, stable, .. } in &released.known {
            if !(0.0..=1.0).contains(w) {
                return Err(BadTick::NoProbability(*w));
            }
            last = Some(self.tick_of(*w, canary, stable));
        }
        Ok(last)
    }

    pub(super) fn is_sound(&self) -> bool {
        self.settings.check().is_ok()
            && (0.0..=1.0).contains(&self.w)
            && self.sums.is_sound()
            && self.against.is_sound()
            && self.for_it.is_sound()
    }
}

impl Against {
    fn new(settings: &Settings, history: &History) -> Self {
        let latency = settings.latency.as_ref();
        let bound = settings.errors.max.unwrap_or_else(|| adaptive_bound(&history.tally()));
        Self {
            share: SplitCheck::new(-settings.split_alarm.ln()),
            errors: Comparison::new(Direction::Against, settings.line(settings.errors.margin), &history.tally()),
            objective: Objective::new(Direction::Against, bound),
            max_p99: latency.and_then(|latency| latency.too_slow()).map(SlowCalls::new),
            latency: latency.map(|latency| Latency::new(Direction::Against, latency.shift(), history.buckets())),
        }
    }

    fn step(&mut self, w: f64, canary: &Counts, stable: &Counts) {
        let (canary_tally, stable_tally) = (canary.tally(), stable.tally());
        self.share.step(w, canary_tally.all, stable_tally.all);
        // A wrong split voids what compares the versions, this tick's counts included.
        let compared = if self.share.has_fired() { 0.0 } else { w };
        self.errors.step(compared, &canary_tally, &stable_tally);
        self.objective.step(w, &canary_tally, &stable_tally);
        if let Some(latency) = &mut self.latency {
            latency.step(compared, &canary.buckets, &stable.buckets);
        }
        if let Some(slow) = &mut self.max_p99 {
            slow.step(w, canary, stable);
        }
    }

    fn is_sound(&self) -> bool {
        self.share.is_sound()
            && self.errors.is_sound()
            && self.objective.is_sound()
            && self.max_p99.as_ref().is_none_or(|slow| slow.sums.is_sound() && slow.objective.is_sound())
            && self.latency.as_ref().is_none_or(Latency::is_sound)
    }
}

impl SlowCalls {
    fn new(from: usize) -> Self {
        Self { from, sums: Sums::default(), objective: Objective::new(Direction::Against, 0.01) }
    }

    fn step(&mut self, w: f64, canary: &Counts, stable: &Counts) {
        let (canary, stable) = (Tally::tail(&canary.buckets, self.from), Tally::tail(&stable.buckets, self.from));
        self.sums.add(&canary, &stable);
        self.objective.step(w, &canary, &stable);
    }
}

impl ForIt {
    fn new(settings: &Settings, history: &History, margins: &[f64]) -> Self {
        let mut asked = if margins.is_empty() { vec![settings.errors.margin] } else { margins.to_vec() };
        let of_steps = asked.clone();
        asked.sort_by(|a, b| b.total_cmp(a));
        asked.dedup();
        let rung = |margin: &f64| asked.iter().position(|asked| asked == margin).unwrap_or(0);
        let proof = |&delta: &f64| Comparison::new(Direction::For, settings.line(delta), &history.tally());
        let latency = settings.latency.as_ref();
        let bound = settings.errors.max.unwrap_or_else(|| adaptive_bound(&history.tally()));
        Self {
            rungs: of_steps.iter().map(rung).collect(),
            proofs: asked.iter().map(proof).collect(),
            step: 0,
            latency: latency.map(|latency| Latency::new(Direction::For, latency.shift(), history.buckets())),
            tails: None,
            objective: Objective::new(Direction::For, bound),
        }
    }

    /// The proof that the present step asks for.
    pub(super) fn proof(&self) -> &Comparison {
        &self.proofs[self.rung()]
    }

    fn rung(&self) -> usize {
        self.rungs[self.step.min(self.rungs.len() - 1)]
    }

    /// The proofs of latencies that the present step asks for.
    pub(super) fn slow_calls(&self) -> Vec<(&'static str, f64)> {
        match (&self.tails, &self.latency) {
            (Some(tails), _) => tails.proofs(self.rung()).collect(),
            (None, Some(latency)) => latency.proofs().to_vec(),
            (None, None) => Vec::new(),
        }
    }

    /// Canary requests that these take on average.
    pub(super) fn slow_calls_need(&self) -> Option<u64> {
        self.tails.as_ref()?.needed(self.rung())
    }

    fn step(&mut self, w: f64, canary: &Counts, stable: &Counts, false_healthy: f64) {
        let (canary_tally, stable_tally) = (canary.tally(), stable.tally());
        self.proofs.iter_mut().for_each(|proof| proof.step(w, &canary_tally, &stable_tally));
        self.objective.step(w, &canary_tally, &stable_tally);
        if let Some(latency) = &mut self.latency {
            latency.step(w, &canary.buckets, &stable.buckets);
        }
        if let Some(tails) = &mut self.tails {
            tails.step(w, &canary.buckets, &stable.buckets, false_healthy);
        }
    }

    fn is_sound(&self) -> bool {
        !self.rungs.is_empty()
            && self.rungs.iter().all(|&rung| rung < self.proofs.len())
            && self.proofs.iter().all(Comparison::is_sound)
            && self.latency.as_ref().is_none_or(Latency::is_sound)
            && self.tails.as_ref().is_none_or(Tails::is_sound)
            && self.objective.is_sound()
    }
}

fn check(w: f64, canary: &Counts, stable: &Counts) -> Result<(), BadTick> {
    if !(0.0..=1.0).contains(&w) {
        return Err(BadTick::NoProbability(w));
    }
    if canary.bad > canary.all || stable.bad > stable.all {
        return Err(BadTick::MoreBadThanAll);
    }
    Ok(())
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
