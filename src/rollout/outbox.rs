//! Orders given and not yet reported done. It is part of what is written down, so a crash repeats an order and never
//! loses one. Invariant: numbers rise over the whole rollout and are never used twice.

use serde::{Deserialize, Serialize};

use super::effect::{Effect, Order};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outbox {
    pub(super) next: u64,
    waiting: Vec<Waiting>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    seq: u64,
    order: Order,
    /// It was refused, and people have been told.
    is_told: bool,
    /// Nobody is at it. Of this process only.
    #[serde(skip)]
    is_idle: bool,
}

impl Outbox {
    pub(super) fn push(&mut self, order: Order) -> Effect {
        let seq = self.next;
        self.next += 1;
        self.waiting.push(Waiting { seq, order: order.clone(), is_told: false, is_idle: false });
        Effect::Do { seq, order }
    }

    /// Takes out what is done.
    pub(super) fn done(&mut self, seq: u64) -> Option<Order> {
        let at = self.waiting.iter().position(|w| w.seq == seq)?;
        Some(self.waiting.remove(at).order)
    }

    /// Keeps it for another try. The order, if this is its first refusal.
    pub(super) fn refused(&mut self, seq: u64) -> Option<Order> {
        let waiting = self.waiting.iter_mut().find(|w| w.seq == seq)?;
        waiting.is_idle = true;
        (!std::mem::replace(&mut waiting.is_told, true)).then(|| waiting.order.clone())
    }

    /// What was refused, once more.
    pub(super) fn again(&mut self) -> Vec<Effect> {
        let idle = self.waiting.iter_mut().filter(|w| w.is_idle);
        idle.map(|w| {
            w.is_idle = false;
            Effect::Do { seq: w.seq, order: w.order.clone() }
        })
        .collect()
    }

    /// Everything, for a process that knows of nothing done.
    pub(super) fn all(&self) -> Vec<Effect> {
        self.waiting.iter().map(|w| Effect::Do { seq: w.seq, order: w.order.clone() }).collect()
    }

    pub(super) fn forget(&mut self, is_void: impl Fn(&Order) -> bool) {
        self.waiting.retain(|w| !is_void(&w.order));
    }

    pub(super) fn has(&self, is_meant: impl Fn(&Order) -> bool) -> bool {
        self.waiting.iter().any(|w| is_meant(&w.order))
    }

    pub(super) fn has_number(&self, seq: u64) -> bool {
        self.waiting.iter().any(|w| w.seq == seq)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_sound(&self) -> bool {
        let rises = self.waiting.windows(2).all(|pair| pair[0].seq < pair[1].seq);
        rises && self.next < u64::MAX / 2 && self.waiting.iter().all(|w| w.seq < self.next)
    }
}
