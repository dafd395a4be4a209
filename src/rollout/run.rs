//! One rollout as it runs: the machine, its evidence and its books, and what each event makes of them.
//!
//! Waits for nothing; what is to be done is given back, in order, to the controller. Invariant: the machine changes only
//! in `step`, and every line it logs is in the receipt.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::archive::Filed;
use super::books::Books;
use super::clock::Moment;
use super::document::Document;
use super::effect::{Effect, Tone};
use super::event::{Event, Judged};
use super::evidence::{EVERY, Evidence};
use super::machine::{Machine, RolloutId};
use super::plan::{Judging, Plan};
use super::saved::{RestoreError, Saved};
use super::status::{Readiness, Target, rollback_ready};
use super::view::{CheckView, StepView, View};
use crate::analysis::History;
use crate::checks::Finding;
use crate::config;
use crate::model::{Actor, CheckName, Instant, Revision, VersionName, rfc3339_ms};
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
    /// Boxed, for it is large and a run is moved: a thread's stack has no room for copies of it.
    pub(super) evidence: Option<Box<Evidence>>,
    pub(super) books: Books,
    watch: Watch,
    /// The split's revision when it was last looked at.
    pub(super) revision: Revision,
    /// The turn that is on disk.
    pub(super) noted: u64,
    /// Effects that wait for the disk.
    pub(super) held: VecDeque<Effect>,
    /// Those that found a hand-over going on.
    pub(super) stalled: Vec<Effect>,
    /// The turn that the disk refused last, and when.
    pub(super) unnoted: Option<(u64, Instant)>,
    /// The order that was refused last, and when.
    pub(super) refused: Option<(u64, Instant)>,
    /// When the disk refused the last receipt.
    pub(super) unfiled: Option<Instant>,
    /// The receipt's order, while requests are on their way.
    pub(super) closing: Option<(u64, Instant)>,
    counted: Instant,
    ticked: Instant,
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

/// What an earlier process has left of a rollout, and what a new analysis would be begun with.
pub(super) struct Left<'a> {
    pub(super) saved: Saved,
    pub(super) filed: Option<&'a Filed>,
    pub(super) analysis: config::Analysis,
    pub(super) history: &'a dyn Fn(&Plan) -> History,
}

impl Left<'_> {
    /// What was learned, else a new analysis.
    fn evidence(&self, plan: &Plan, now: Instant) -> Option<Box<Evidence>> {
        if plan.judging == Judging::Off {
            return None;
        }
        let history = (self.history)(plan);
        let learned = self.filed.and_then(|filed| Some((filed.evidence.clone()?, filed.judged)));
        if let Some(learned) = learned {
            match Evidence::restore(plan, learned, &history, now) {
                Ok(evidence) => return Some(evidence),
                Err(why) => tracing::warn!(event = "rollout.evidence_lost", %why, "the analysis begins anew"),
            }
        }
        Evidence::begin(plan, &self.analysis, &history, now).ok()
    }
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
        run.books.baseline(&mut run.watch);
        run.books.enter(split.epoch, None);
        Ok((run, effects))
    }

    /// Takes up what an earlier process has left.
    ///
    /// # Errors
    /// It cannot be read; the weights stay as they are.
    pub(super) fn restore(
        left: Left<'_>,
        found: impl FnOnce(&Machine) -> Option<Event>,
        cells: &Arc<Cells>,
        split: &SplitState,
        (now, moment): (Instant, Moment),
    ) -> Result<(Self, Vec<Effect>), String> {
        let (saved, filed) = (left.saved.clone(), left.filed);
        let progress = filed.and_then(|filed| filed.progress.as_ref());
        let (saved, was) = Machine::latest(saved, progress).map_err(|why| why.to_string())?;
        let (machine, effects) =
            Machine::restore(saved, found(&was), moment).map_err(|why: RestoreError| why.to_string())?;
        let evidence = left.evidence(machine.plan(), now);
        let by = Actor("rollout".into());
        let mut run = Self::with(machine, evidence, Books::begin(by, None), cells, (split, now));
        // After the watch has begun: the gap ends where counting begins.
        run.books = Books::restore(&run.machine.id().0, filed);
        run.books.baseline(&mut run.watch);
        if !was.state().is_end() {
            run.books.enter(split.epoch, was.step_in_force());
        }
        run.books.note("rollout.restored", "weir was started anew".into());
        // What was found since is not on disk yet.
        run.noted = was.turn();
        run.log(&effects);
        if let Some(ending) = was.ending().filter(|_| !run.books.has("ended")) {
            run.books.note("rollout.ended", format!("{}: {ending}", was.state().as_str()));
        }
        Ok((run, effects))
    }

    fn with(
        machine: Machine,
        evidence: Option<Box<Evidence>>,
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
            held: VecDeque::new(),
            stalled: Vec::new(),
            unnoted: None,
            refused: None,
            unfiled: None,
            closing: None,
            counted: now,
            ticked: now,
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

    /// Also what was done by `begin`, once it counts.
    pub(super) fn log(&mut self, effects: &[Effect]) {
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
        if now.saturating_duration_since(self.counted) >= COUNT {
            self.count(split, now);
        }
        let is_time = now.saturating_duration_since(self.ticked) >= EVERY;
        if !is_time && !self.watched().is_some_and(|evidence| evidence.is_due(&self.watch, now)) {
            return None;
        }
        self.ticked = now;
        Some(Event::Tick(self.learn(split, per_second, now)))
    }

    fn watched(&self) -> Option<&Evidence> {
        self.evidence.as_deref().filter(|_| !self.machine.state().is_end())
    }

    /// Takes in all that is new, into the receipt only when that is due.
    pub(super) fn learn(&mut self, split: &SplitState, per_second: f64, now: Instant) -> Option<Judged> {
        let is_running = !self.machine.state().is_end();
        let evidence = self.evidence.as_deref_mut().filter(|_| is_running)?;
        Some(evidence.look(&mut self.watch, split, per_second, now))
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
            revision: self.revision,
            progress: (!is_over).then(|| serde_json::to_value(self.machine.save()).unwrap_or_default()),
        }
    }

    pub(super) fn filed(&self) -> Filed {
        let document = self.document();
        let Some(evidence) = self.watched() else {
            return Filed {
                progress: Some(self.machine.save()),
                at: rfc3339_ms(SystemTime::now()),
                ..Filed::closed(document)
            };
        };
        Filed {
            document,
            evidence: Some(evidence.snapshot()),
            judged: evidence.tallies(),
            progress: Some(self.machine.save()),
            at: rfc3339_ms(SystemTime::now()),
        }
    }

    pub(super) fn document(&self) -> Document {
        self.books.document(&self.machine, self.evidence.as_deref().and_then(Evidence::shown).as_ref())
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
            judgment: self.evidence.as_deref().and_then(Evidence::shown),
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
