//! A running rollout's receipt in the making: who, when, what happened, and the counts of every request.
//!
//! Invariant: a request is in the sheet of the step whose coin sent it; requests of coins that are not this rollout's
//! are in none.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::accounts::{Counters, Receipt};
use super::archive::Filed;
use super::document::{Document, Entry, Evidence, Gap, PlannedStep, Said, Total};
use super::machine::Machine;
use super::view;
use crate::analysis::Direction;
use crate::model::{Actor, rfc3339_ms};
use crate::telemetry::{Counter, RULE_EPOCHS, Totals, Watch};

/// Lines of a receipt; a rollout that waits for weeks repeats itself.
const ENTRIES: usize = 2000;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) by: Actor,
    pub(super) reason: Option<String>,
    pub(super) started_at: SystemTime,
    pub(super) ended_at: Option<SystemTime>,
    log: Vec<Entry>,
    gaps: Vec<Gap>,
    receipt: Receipt<Counter>,
    /// The coins of this rollout and the step each is of.
    steps: BTreeMap<u64, Option<usize>>,
    step: Option<usize>,
}

impl Books {
    pub(super) fn begin(by: Actor, reason: Option<String>) -> Self {
        Self {
            by,
            reason,
            started_at: SystemTime::now(),
            ended_at: None,
            log: Vec::new(),
            gaps: Vec::new(),
            receipt: Receipt::default(),
            steps: BTreeMap::new(),
            step: None,
        }
    }

    /// Goes on with what an earlier process has filed of rollout `id`, if it has.
    pub(super) fn restore(id: &str, filed: Option<&Filed>) -> Self {
        let mut books = Self::begin(Actor("rollout".into()), None);
        // The time is in the id (ULID).
        let milliseconds = id.parse::<ulid::Ulid>().map(|id| id.timestamp_ms()).unwrap_or_default();
        books.started_at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(milliseconds);
        let mut from = rfc3339_ms(books.started_at);
        if let Some(Filed { document, at, .. }) = filed {
            (books.by, books.reason) = (document.by.clone(), document.reason.clone());
            books.log.clone_from(&document.log);
            books.gaps.clone_from(&document.gaps);
            books.receipt = Receipt::of(document.sheets.clone());
            from.clone_from(at);
        }
        books.gaps.push(Gap { from, until: rfc3339_ms(SystemTime::now()) });
        books
    }

    /// What is counted before is none of the rollout's.
    pub(super) fn baseline(&mut self, watch: &mut Watch) {
        watch.totals(|counter, totals| self.receipt.begin(counter.clone(), counters(totals)));
    }

    /// The coin with this epoch is of the rollout, and of this step.
    pub(super) fn enter(&mut self, epoch: u64, step: Option<usize>) {
        self.step = step;
        self.steps.insert(epoch, step);
    }

    /// Whether requests by this coin are the rollout's.
    pub(super) fn knows(&self, epoch: u64) -> bool {
        self.steps.contains_key(&epoch)
    }

    /// Takes in the counts. True if requests of the rollout may still be on their way by another coin than `epoch`'s.
    pub(super) fn count(&mut self, watch: &mut Watch, epoch: u64) -> bool {
        let mut is_open = false;
        watch.totals(|counter, totals| {
            let is_by_rule = counter.2 >= RULE_EPOCHS;
            let Some(step) = is_by_rule.then_some(self.step).or_else(|| self.steps.get(&counter.2).copied()) else {
                return;
            };
            is_open |= counter.2 != epoch && !is_by_rule;
            if let Err(why) = self.receipt.take(counter.clone(), step, &counter.1, &counters(totals)) {
                tracing::error!(event = "rollout.bad_counts", %why, "left out of the receipt");
            }
        });
        is_open
    }

    pub(super) fn note(&mut self, event: &str, text: String) {
        let event = event.strip_prefix("rollout.").unwrap_or(event).to_owned();
        if self.log.len() < ENTRIES {
            self.log.push(Entry { at: rfc3339_ms(SystemTime::now()), event, text, step: self.step });
        }
    }

    /// Something of this kind is in the log.
    pub(super) fn has(&self, event: &str) -> bool {
        self.log.iter().any(|entry| entry.event == event)
    }

    pub(super) fn document(&self, machine: &Machine, judged: Option<&view::Judged>) -> Document {
        let plan = machine.plan();
        let steps = plan.steps.iter().enumerate().map(|(i, step)| PlannedStep {
            weight: plan.percent(i).unwrap_or_default(),
            for_seconds: step.hold.as_secs_f64(),
            approve: step.approve,
        });
        let total = |version: &crate::model::VersionName| {
            let counters = self.receipt.total(version);
            Total { version: version.clone(), requests: counters.requests(), counters }
        };
        Document {
            id: machine.id().0.clone(),
            split: plan.split.clone(),
            to: plan.to.clone(),
            stable: plan.stable.clone(),
            state: machine.state().as_str().to_owned(),
            by: self.by.clone(),
            reason: self.reason.clone(),
            started_at: rfc3339_ms(self.started_at),
            ended_at: self.ended_at.map(rfc3339_ms),
            ending: machine.ending().map(str::to_owned),
            steps: steps.collect(),
            log: self.log.clone(),
            sheets: self.receipt.sheets().to_vec(),
            totals: [&plan.stable, &plan.to].map(total).to_vec(),
            verdict: judged.map(said),
            gaps: self.gaps.clone(),
        }
    }
}

fn said(judged: &view::Judged) -> Said {
    let evidence = judged.evidence.iter().map(|shown| Evidence {
        name: shown.name.to_owned(),
        direction: match shown.direction {
            Direction::Against => "against".to_owned(),
            Direction::For => "for".to_owned(),
        },
        log_e: shown.log_e,
        limit: shown.limit,
    });
    Said { verdict: judged.verdict.as_str().to_owned(), reason: judged.reason.clone(), evidence: evidence.collect() }
}

fn counters(totals: Totals) -> Counters {
    Counters {
        statuses: totals.statuses,
        causes: totals.causes.into_iter().map(|(cause, n)| (cause.as_str().to_owned(), n)).collect(),
        retried: totals.retried,
        rescued: totals.rescued,
        spilled: totals.spilled,
        cut: totals.cut,
    }
}
