//! The version of a request: a rule, a sticky bucket, or the coin.
//!
//! What of the request decides is taken out once, so that the choice can be made again in a newer view after the request
//! has been made ready for its endpoint.

use super::view::View;
use super::worker::Worker;

/// Where a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) route: usize,
    pub(super) split: usize,
    pub(super) version: usize,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Picked {
    Weight,
    /// The rule's index.
    Rule(usize),
    Sticky,
    /// The chosen version had no endpoint to use.
    Spill,
    /// The chosen version failed.
    Rescue,
}

impl Picked {
    /// Traffic that counts in no analysis.
    pub(super) fn is_rule(self) -> bool {
        matches!(self, Self::Rule(_))
    }

    /// As in the access line.
    pub(super) fn word(self, view: &View, split: usize) -> Option<&str> {
        match self {
            Self::Weight => Some("weight"),
            Self::Rule(rule) => view.splits[split].rules.get(rule).map(String::as_str),
            Self::Sticky => Some("sticky"),
            Self::Spill => Some("spill"),
            Self::Rescue => Some("rescue"),
        }
    }
}

/// What of a request decides its version.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Selector {}

impl Selector {
    /// The version for a route's request; `None` when none is open.
    pub(super) fn choose(&self, worker: &Worker, view: &View, route: usize) -> Option<(Choice, Picked)> {
        let split = view.snapshot.routes.targets()[route].split()?;
        let version = view.splits[split].pick(&mut worker.rng.borrow_mut())?;
        Some((Choice { route, split, version }, Picked::Weight))
    }
}
