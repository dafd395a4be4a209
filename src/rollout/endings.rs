//! Downward and out: what ends a rollout. Invariant: each way out empties the outbox of what leads upward first.

use super::effect::{Effect, Notice, Order, Tone};
use super::machine::{End, Machine, Phase, Why};
use crate::analysis::{Part, Verdict};
use crate::config::OnRegressed;
use crate::model::{Actor, Source, VersionName};

impl Machine {
    pub(super) fn look_for_regression(&mut self, out: &mut Vec<Effect>) {
        let Some(judged) = self.judged.as_ref().filter(|j| j.verdict == Verdict::Regressed) else { return };
        if self.is_pardoned {
            return;
        }
        let by = judged.blamed.map_or("analysis".to_owned(), |part: Part| format!("analysis:{}", part.as_str()));
        let reason = judged.reason.clone();
        self.regressed(Source::Analysis, Actor(by), reason, out);
    }

    pub(super) fn regressed(&mut self, source: Source, by: Actor, reason: String, out: &mut Vec<Effect>) {
        match (self.phase, self.plan.on_regressed) {
            (Phase::Ended(_), _) => {}
            (_, OnRegressed::Rollback) => self.roll_back(End::Failed, source, by, reason, out),
            (_, OnRegressed::Pause) => self.pause(Why::Regressed, format!("regressed: {reason}"), out),
        }
    }

    pub(super) fn roll_back(&mut self, end: End, source: Source, by: Actor, reason: String, out: &mut Vec<Effect>) {
        self.outbox.forget(Order::leads_upward);
        if self.is_exposed {
            // Named, for "stable" may mean another version once this is carried out, or has been before.
            let to = self.plan.stable.clone();
            let effect = self.outbox.push(Order::Rollback { to, source, by: by.clone(), reason: reason.clone() });
            out.push(effect);
            self.notify(Notice::RolledBack, format!("back to {}: {reason}", self.plan.stable), out);
        }
        self.end(end, format!("{}: {reason}", by.0), out);
    }

    pub(super) fn rolled_back(&mut self, by: &Actor, source: Source, reason: Option<String>, out: &mut Vec<Effect>) {
        if self.outbox.has(Order::leads_upward) {
            let text = format!("{} rolls back while a step is being set: the rollback stands", by.0);
            out.push(Effect::Log { tone: Tone::Warn, event: "rollout.conflict", text });
        }
        // It stands above anything still on its way, a rollback of our own among it.
        self.outbox.forget(|order| order.leads_upward() || matches!(order, Order::Rollback { .. }));
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        if !matches!(source, Source::Analysis | Source::Check) {
            return self.end(End::Aborted, format!("rolled back by {}{reason}", by.0), out);
        }
        if !matches!(self.phase, Phase::Ended(_)) {
            self.notify(Notice::RolledBack, format!("back to {}{reason}", self.plan.stable), out);
        }
        self.end(End::Failed, format!("{}{reason}", by.0), out);
    }

    pub(super) fn superseded(&mut self, why: String, out: &mut Vec<Effect>) {
        self.outbox.forget(Order::leads_upward);
        if !matches!(self.phase, Phase::Ended(_)) {
            self.notify(Notice::RolloutSuperseded, why.clone(), out);
        }
        self.end(End::Superseded, why, out);
    }

    pub(super) fn version_left(&mut self, version: &VersionName, out: &mut Vec<Effect>) {
        if *version != self.plan.to && *version != self.plan.stable {
            return;
        }
        // Nobody can go back to what is not there.
        let is_gone = |order: &Order| matches!(order, Order::Rollback { to, .. } if to == version);
        self.outbox.forget(is_gone);
        self.superseded(format!("{version} has left the file"), out);
    }

    /// What this one has given goes back to stable first, for a rollout is between two versions.
    pub(super) fn newer_version(&mut self, to: &VersionName, by: Actor, out: &mut Vec<Effect>) {
        if *to == self.plan.to || matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let why = format!("a rollout to {to} takes its place");
        self.superseded(why.clone(), out);
        if self.is_exposed {
            self.order_weights(0, by, why, out);
        }
    }

    pub(super) fn finished(&mut self, out: &mut Vec<Effect>) {
        let text = format!("{} is stable; {} stays warm", self.plan.to, self.plan.stable);
        self.notify(Notice::RolloutFinished, text.clone(), out);
        self.end(End::Finished, text, out);
    }

    /// Once, for good.
    fn end(&mut self, end: End, why: String, out: &mut Vec<Effect>) {
        self.turn += 1;
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        self.phase = Phase::Ended(end);
        self.paused = None;
        self.ending = Some(why.clone());
        let tone = if end == End::Finished { Tone::Info } else { Tone::Warn };
        let text = format!("{}: {why}", self.state().as_str());
        out.push(Effect::Log { tone, event: "rollout.ended", text: text.clone() });
        let effect = self.outbox.push(Order::Receipt { ending: text });
        out.push(effect);
    }
}

/// `check:orders`.
pub(super) fn actor_of(kind: &str, name: &str) -> Actor {
    Actor(format!("{kind}:{name}"))
}
