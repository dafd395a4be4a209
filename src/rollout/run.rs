//! One rollout as it runs: the machine, its evidence and its books, and what each event makes of them.
//!
//! Waits for nothing; what is to be done is given back, in order, to the controller. Invariant: the machine changes only
//! in `step`, and every line it logs is in the receipt.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::archive::Filed;
use super::books::Books;
use super::clock::Moment;
use super::document::Document;
use super::effect::{Effect, Tone};
use super::event::Event;
use super::evidence::Evidence;
use super::machine::{Machine, RolloutId};
use super::plan::{Judging, Plan};
use super::saved::Saved;
use super::status::{Readiness, Target, rollback_ready};
use super::view::{CheckView, StepView, View};
use crate::analysis::History;
use crate::checks::Finding;
use crate::config;
use crate::model::{Actor, CheckName, Instant, Revision, VersionName};
use crate::pool::EndpointState;
use crate::state::{RolloutMark, SplitState};
use crate::telemetry::{Cells, Watch};

/// How long requests of a rollout's last coin may take before its receipt is closed without them.
const LAST: Duration = Duration::from_secs(30);
/// How often the receipt takes in what was counted.
const COUNT: Duration = Duration::from_secs(1);

/// See the file's head.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) machine: Machine,
    pub(super) evidence: Option<Evidence>,
    pub(super) books: Books,
    watch: Watch,
    /// The split's revision when it was last looked at.
    pub(super) revision: Revision,
    /// The turn that is on disk.
    pub(super) noted: u64,
    /// Effects that wait for the disk.
    pub(super) held: Vec<Effect>,
    /// The receipt's order, while requests are on their way.
    pub(super) closing: Option<(u64, Instant)>,
    counted: Instant,
    findings: HashMap<CheckName, Finding>,
    pub(super) is_persisted: bool,
}

/// What a rollout is begun with.
pub(super) struct Begin<'a> {
    pub(super) plan: Plan,
    pub(super) analysis: Option<&'a config::Analysis>,
    pub(super) history: History,
    pub(super) by: Actor,
    pub(super) reason: Option<String>,
}

impl Run {
    /// # Errors
    /// Settings no analysis can be run with.
    pub(super) fn begin(
        begin: Begin<'_>,
        cells: &Arc<Cells>,
        split: &SplitState,
        (now, moment): (Instant, Moment),
    ) -> Result<(Self, Vec<Effect>), String> {
        let Begin { plan, analysis, history, by, reason } = begin;
        let analysis = analysis.filter(|_| plan.judging != Judging::Off);
        let evidence = analysis.map(|analysis| Evidence::begin(&plan, analysis, &history, now)).transpose();
        let evidence = evidence.map_err(|why| why.to_string())?;
        let id = RolloutId(ulid::Ulid::from_parts(millis(SystemTime::now()), fastrand::u128(..)).to_string());
        let (machine, effects) = Machine::start(id, plan, &split.weights, by.clone(), moment);
        let mut run = Self::with(machine, evidence, Books::begin(by, reason), cells, (split, now));
        run.books.baseline(&mut run.watch, split.epoch);
        run.log(&effects);
        Ok((run, effects))
    }

    /// Takes up what an earlier process has left.
    ///
    /// # Errors
    /// It cannot be read; the weights stay as they are.
    pub(super) fn restore(
        (saved, filed): (Saved, Option<&Filed>),
        found: impl FnOnce(&Machine) -> Option<Event>,
        cells: &Arc<Cells>,
        split: &SplitState,
        (now, moment): (Instant, Moment),
    ) -> Result<(Self, Vec<Effect>), String> {
        let found = Machine::peek(&saved).map_err(|why| why.to_string()).map(|machine| found(&machine))?;
        let (machine, effects) = Machine::restore(saved, found, moment).map_err(|why| why.to_string())?;
        let history = History::default();
        let snapshot = filed.and_then(|filed| filed.evidence.clone());
        let evidence = match snapshot.map(|snapshot| Evidence::restore(machine.plan(), snapshot, &history, now)) {
            Some(Ok(evidence)) => Some(evidence),
            Some(Err(why)) => {
                tracing::warn!(event = "rollout.evidence_lost", %why, "the analysis begins anew");
                None
            }
            None => None,
        };
        let analysis = config::Analysis::default();
        let anew = || {
            (machine.plan().judging != Judging::Off).then(|| Evidence::begin(machine.plan(), &analysis, &history, now))
        };
        let evidence = evidence.or_else(|| anew()?.ok());
        let by = Actor("rollout".into());
        let books = filed.map_or_else(|| Books::begin(by, None), |filed| Books::restore(&filed.document));
        let mut run = Self::with(machine, evidence, books, cells, (split, now));
        run.books.enter(split.epoch, run.machine.at_step());
        run.books.note("rollout.restored", "weir was started anew".into());
        run.noted = run.machine.turn();
        run.log(&effects);
        Ok((run, effects))
    }

    fn with(
        machine: Machine,
        evidence: Option<Evidence>,
        books: Books,
        cells: &Arc<Cells>,
        (split, now): (&SplitState, Instant),
    ) -> Self {
        Self {
            watch: Watch::begin(cells.clone(), split.name.clone(), now),
            machine,
            evidence,
            books,
            revision: split.revision,
            noted: 0,
            held: Vec::new(),
            closing: None,
            counted: now,
            findings: HashMap::new(),
            is_persisted: false,
        }
    }

    /// A check has answered.
    pub(super) fn heard(&mut self, check: &CheckName, finding: Finding) {
        let (verdict, said) = (finding.answer.as_str(), finding.answer.text());
        let output = finding.output.as_deref().map(|output| format!("\n{output}")).unwrap_or_default();
        self.books.note("check", format!("{check}: {verdict}: {said}{output}"));
        self.findings.insert(check.clone(), finding);
    }

    /// The one way on.
    pub(super) fn step(&mut self, event: Event, moment: Moment) -> Vec<Effect> {
        let (machine, effects) = self.machine.clone().step(event, moment);
        self.machine = machine;
        self.log(&effects);
        effects
    }

    fn log(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Log { tone, event, text } = effect else { continue };
            let (split, id) = (&self.machine.plan().split, &self.machine.id().0);
            match tone {
                Tone::Info => tracing::info!(event, %split, rollout = id, "{text}"),
                Tone::Warn => tracing::warn!(event, %split, rollout = id, "{text}"),
            }
            self.books.note(event, text.clone());
        }
    }

    /// Time has passed: what the analysis says, if it was time for a look.
    pub(super) fn tick(&mut self, split: &SplitState, per_second: f64, now: Instant) -> Option<Event> {
        let is_running = !self.machine.state().is_end();
        let due = match &self.evidence {
            Some(evidence) => evidence.is_due(&self.watch, now),
            None => now.saturating_duration_since(self.counted) >= COUNT,
        };
        if now.saturating_duration_since(self.counted) >= COUNT {
            self.count(split, now);
        }
        if !due {
            return None;
        }
        match &mut self.evidence {
            Some(evidence) if is_running => {
                Some(Event::Tick(Some(evidence.look(&mut self.watch, split, per_second, now))))
            }
            _ => Some(Event::Tick(None)),
        }
    }

    /// Takes the counts into the receipt. True if requests of the rollout are still on their way by earlier coins.
    pub(super) fn count(&mut self, split: &SplitState, now: Instant) -> bool {
        self.counted = now;
        self.books.count(&mut self.watch, split.epoch)
    }

    /// The weights of a step are in force.
    pub(super) fn enter_step(&mut self, step: usize, split: &SplitState, now: Instant) {
        // What earlier coins have sent so far belongs to the step before.
        self.count(split, now);
        self.books.enter(split.epoch, Some(step));
        if let Some(evidence) = &mut self.evidence {
            evidence.enter_step(step, &self.watch, now);
        }
    }

    /// Whether the receipt can be closed: nothing of the rollout is on its way, or it takes too long.
    pub(super) fn may_close(&mut self, split: &SplitState, now: Instant) -> bool {
        let is_late = self.closing.is_some_and(|(_, since)| now.saturating_duration_since(since) >= LAST);
        // Its last coin is in force still: there is no end to wait for.
        let is_last = self.books.knows(split.epoch);
        !self.count(split, now) || is_late || is_last
    }

    pub(super) fn mark(&self) -> RolloutMark {
        let is_over = self.machine.is_over();
        RolloutMark {
            id: self.machine.id().0.clone(),
            to: self.machine.plan().to.clone(),
            running: !self.machine.state().is_end(),
            progress: (!is_over).then(|| serde_json::to_value(self.machine.save()).unwrap_or_default()),
        }
    }

    pub(super) fn filed(&self) -> Filed {
        let is_running = !self.machine.state().is_end();
        let evidence = self.evidence.as_ref().filter(|_| is_running).map(Evidence::snapshot);
        Filed { document: self.document(), evidence }
    }

    pub(super) fn document(&self) -> Document {
        self.books.document(&self.machine, self.evidence.as_ref().and_then(Evidence::shown).as_ref())
    }

    pub(super) fn view(&self, split: &SplitState) -> View {
        let (machine, plan) = (&self.machine, self.machine.plan());
        let step = |(i, step): (usize, &super::PlannedStep)| StepView {
            weight: plan.percent(i).unwrap_or_default(),
            hold: step.hold,
            approve: step.approve,
        };
        View {
            id: machine.id().0.clone(),
            split: plan.split.clone(),
            to: plan.to.clone(),
            stable: plan.stable.clone(),
            state: machine.state(),
            by: self.books.by.clone(),
            reason: self.books.reason.clone(),
            started_at: self.books.started_at,
            step: machine.at_step(),
            steps: plan.steps.iter().enumerate().map(step).collect(),
            time_left: machine.time_left(),
            waits_for: machine.waits_for(),
            next: machine.next_step(),
            ending: machine.ending().map(str::to_owned),
            ended_at: self.books.ended_at,
            commands: machine.commands(),
            judgment: self.evidence.as_ref().and_then(Evidence::shown),
            checks: self.checks(),
            rollback_ready: ready(split, &plan.stable),
            persisted: self.is_persisted,
        }
    }

    fn checks(&self) -> Vec<CheckView> {
        let one = |(asked, checking): (&super::Asked, &super::checks::Checking)| {
            let finding = self.findings.get(&asked.name);
            CheckView {
                name: asked.name.clone(),
                at: asked.at,
                verdict: finding.map(|finding| finding.answer.as_str()),
                value: finding.and_then(|finding| finding.value),
                said: finding.map_or_else(|| checking.said_last(), |finding| Some(finding.answer.text().to_owned())),
            }
        };
        self.machine.checks_seen().map(one).collect()
    }
}

pub(super) fn ready(split: &SplitState, stable: &VersionName) -> Readiness {
    let target = split.version(stable.as_str()).map(|version| {
        let endpoints = version.pool.endpoints();
        Target {
            version: stable.clone(),
            up: endpoints.iter().filter(|endpoint| endpoint.state() == EndpointState::Up).count(),
            endpoints: endpoints.len(),
            is_draining: version.draining,
        }
    });
    rollback_ready(target.as_ref())
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
