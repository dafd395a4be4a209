//! A rollout as it lies in `state.json`, and how it goes on after a restart.
//!
//! Invariant: whatever was written is taken up where it was, with everything that was ordered and not reported done
//! ordered again; what cannot have come from a machine is refused, never guessed at.

use serde::{Deserialize, Serialize};

use super::checks::Checking;
use super::clock::Moment;
use super::effect::{Effect, Order};
use super::event::Event;
use super::machine::{Machine, Phase};
use super::share::WHOLE;

/// Rises whenever what is written means something else.
const VERSION: u32 = 1;

/// A saved rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    /// Read only after the version is known to be ours.
    rollout: serde_json::Value,
}

/// A rollout that cannot be taken up; its weights stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the saved rollout has version {0}; this weir reads version {VERSION}")]
    UnknownVersion(u32),
    #[error("the saved rollout is damaged")]
    Damaged(#[source] serde_json::Error),
    #[error("the saved rollout is in a state that none comes to")]
    Unsound,
}

impl Machine {
    /// Everything a later process needs to go on.
    pub fn save(&self) -> Saved {
        let rollout = serde_json::to_value(self).expect("maps have text for keys, numbers are whole");
        Saved { version: VERSION, rollout }
    }

    /// What was written, to be looked at.
    ///
    /// # Errors
    /// It is of another version, or damaged.
    pub(super) fn peek(saved: &Saved) -> Result<Self, RestoreError> {
        if saved.version != VERSION {
            return Err(RestoreError::UnknownVersion(saved.version));
        }
        let machine: Self = serde_json::from_value(saved.rollout.clone()).map_err(RestoreError::Damaged)?;
        if machine.is_sound() { Ok(machine) } else { Err(RestoreError::Unsound) }
    }

    /// The later one of the same decisions, with the turn they were: only its clocks have gone on.
    ///
    /// # Errors
    /// `saved` is of another version, or damaged.
    pub(super) fn latest(saved: Saved, filed: Option<&Saved>) -> Result<(Saved, Self), RestoreError> {
        let noted = Self::peek(&saved)?;
        let later = filed.and_then(|filed| Some((filed.clone(), Self::peek(filed).ok()?)));
        let later = later.filter(|(_, machine)| machine.id == noted.id && machine.turn == noted.turn);
        Ok(later.unwrap_or((saved, noted)))
    }

    /// Goes on where it was written. `found`: what has happened to the split since, if something has (it is in the
    /// store's history: a rollback, other weights in the file, a version gone). It is heard before anything is ordered
    /// again, so that no old order is done over it.
    ///
    /// # Errors
    /// It is of another version, or damaged.
    pub fn restore(saved: Saved, found: Option<Event>, now: Moment) -> Result<(Self, Vec<Effect>), RestoreError> {
        let mut machine = Self::peek(&saved)?;
        machine.pass(now.since_restart(machine.seen));
        machine.seen = now;
        let mut out = Vec::new();
        if let Some(event) = found {
            (machine, out) = machine.step(event, now);
            // They are in the outbox.
            out.retain(|effect| !matches!(effect, Effect::Do { .. }));
        }
        out.extend(machine.outbox.all());
        if matches!(machine.phase, Phase::Holding | Phase::Approval) {
            out.extend(machine.step.map(Effect::EnterStep));
        }
        Ok((machine, out))
    }

    fn is_sound(&self) -> bool {
        let plan = &self.plan;
        let steps = plan.steps.iter().map(|s| s.parts);
        let rise = steps.clone().zip(steps.clone().skip(1)).all(|(a, b)| a < b);
        let named = plan.checks.iter().map(|c| &c.name).eq(self.checks.iter().map(|c| &c.name));
        let is_plan = plan.to != plan.stable && !plan.steps.is_empty() && rise && steps.max() <= Some(WHOLE);
        let asks = plan.checks.iter().all(|c| c.failures > 0);
        let is_step = self.step.is_none_or(|step| step < plan.steps.len());
        let orders = |kind: fn(&Order) -> bool| self.outbox.has(kind);
        let is_phase = match self.phase {
            Phase::Starting => self.step.is_none(),
            Phase::Approval => plan.steps.get(self.next()).is_some_and(|next| next.approve),
            Phase::Entering => self.step.is_some() && orders(|o| matches!(o, Order::Weights { .. })),
            Phase::Holding => self.step.is_some(),
            Phase::Finishing => orders(|o| matches!(o, Order::Relabel { .. })),
            Phase::Ended(_) => self.ending.is_some() && self.paused.is_none(),
        };
        // What is counted up has room to be.
        let has_room = self.turn < u64::MAX / 2 && self.checks.iter().all(Checking::has_room);
        is_plan && named && asks && is_step && is_phase && has_room && self.outbox.is_sound()
    }
}
