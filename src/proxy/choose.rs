//! The version of a request: a rule, a sticky bucket, or the coin.
//!
//! What of the request decides is taken out once, so that the choice can be made again in a newer view after the request
//! has been made ready for its endpoint. Invariants: rules come before sticky, sticky before weights; a closed or
//! draining version is never chosen but by a `test` rule; the client keeps a bucket number, never a version.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use super::view::{SplitView, View};
use super::worker::Worker;
use crate::balance::hash_of;
use crate::config::{Balance, Config, HashKey, Split, Sticky};
use crate::routing::{Bucket, Query, bucket_of, bucket_of_ip, cookie, fits, parse_cookie, pick_by_bucket, set_cookie};

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
#[derive(Debug, Default)]
pub(super) struct Selector {
    bucket: Option<Bucket>,
    /// For `balance = "hash"`.
    key: Option<u64>,
    /// The client has no bucket yet, or one of an earlier rollout: it is told.
    is_new: bool,
    /// The rules that match, and the configuration they are of.
    rules: Option<(Arc<Config>, Vec<usize>)>,
}

impl Selector {
    /// Looks at a request for a split. Nothing is looked at where the split has neither rules nor sticky.
    pub(super) fn of(worker: &Worker, view: &View, split: usize, query: &Query<'_>) -> Self {
        let config = &view.snapshot.config.splits[split];
        let mut selector = Self::default();
        if let Some(sticky) = &config.sticky {
            selector.find_bucket(worker, &view.splits[split], sticky, query);
        }
        if let Balance::Hash(key) = &config.balance {
            selector.key = hash_key(key, query);
        }
        if !config.rules.is_empty() {
            selector.rules = Some((view.snapshot.config.clone(), matching(config, query)));
        }
        selector
    }

    /// What chooses among the endpoints of the version, hashed.
    pub(super) fn key(&self) -> Option<u64> {
        self.key
    }

    /// Whether its version is decided by a coin of its own: without stickiness, or at a client's first request of the
    /// rollout. Who sticks by a header or an address always counts: nothing is compared there.
    pub(super) fn is_fresh(&self, view: &View, split: usize) -> bool {
        self.is_new || !matches!(view.snapshot.config.splits[split].sticky, Some(Sticky::Cookie { .. }))
    }

    fn find_bucket(&mut self, worker: &Worker, split: &SplitView, sticky: &Sticky, query: &Query<'_>) {
        match sticky {
            Sticky::Header(name) => self.bucket = query.headers.get(name).map(|value| bucket_of(value.as_bytes())),
            Sticky::ClientIp => self.bucket = query.client.map(bucket_of_ip),
            Sticky::Cookie { name, .. } => {
                let known = cookie(query.headers, name).and_then(parse_cookie);
                self.is_new = known.is_none_or(|(_, tag)| *tag != *split.state.rollout_tag);
                let bucket = known.map(|(bucket, _)| bucket);
                self.bucket = Some(bucket.unwrap_or_else(|| Bucket::random(&mut worker.rng.borrow_mut())));
            }
        }
    }

    /// The version for a route's request; `None` when none is open.
    pub(super) fn choose(&self, worker: &Worker, view: &View, route: usize) -> Option<(Choice, Picked)> {
        let split = view.snapshot.routes.targets()[route].split()?;
        let at = &view.splits[split];
        let (version, picked) = self
            .by_rule(worker, view, at)
            .or_else(|| self.by_bucket(at).map(|version| (version, Picked::Sticky)))
            .or_else(|| at.pick(&mut worker.rng.borrow_mut()).map(|version| (version, Picked::Weight)))?;
        Some((Choice { route, split, version }, picked))
    }

    fn by_bucket(&self, split: &SplitView) -> Option<usize> {
        Some(split.state.owners.as_ref()?.owner(self.bucket?))
    }

    fn by_rule(&self, worker: &Worker, view: &View, split: &SplitView) -> Option<(usize, Picked)> {
        // Rules of another configuration were not looked at; the next request sees the new ones.
        let (_, matching) = self.rules.as_ref().filter(|(config, _)| Arc::ptr_eq(config, &view.snapshot.config))?;
        let rule = split.state.rules.iter().find(|rule| matching.contains(&rule.index))?;
        let bucket = self.bucket.unwrap_or_else(|| Bucket::random(&mut worker.rng.borrow_mut()));
        pick_by_bucket(&rule.choices, bucket).map(|version| (version, Picked::Rule(rule.index)))
    }

    /// `Set-Cookie`, if the client is to remember its bucket.
    pub(super) fn cookie(&self, view: &View, split: usize, is_secure: bool) -> Option<HeaderValue> {
        let Some(Sticky::Cookie { name, ttl }) = &view.snapshot.config.splits[split].sticky else { return None };
        let (bucket, tag) = (self.bucket.filter(|_| self.is_new)?, &view.splits[split].state.rollout_tag);
        HeaderValue::from_str(&set_cookie(name, bucket, tag, *ttl, is_secure)).ok()
    }
}

fn hash_key(key: &HashKey, query: &Query<'_>) -> Option<u64> {
    match key {
        HashKey::Header(name) => query.headers.get(name).map(|value| hash_of(value.as_bytes())),
        HashKey::Cookie(name) => cookie(query.headers, name).map(|value| hash_of(value.as_bytes())),
        HashKey::ClientIp => query.client.map(|ip| match ip.to_canonical() {
            IpAddr::V4(ip) => hash_of(&ip.octets()),
            IpAddr::V6(ip) => hash_of(&ip.octets()),
        }),
    }
}

fn matching(split: &Split, query: &Query<'_>) -> Vec<usize> {
    let matches = |rule: &crate::config::Rule| rule.matches.iter().any(|one| fits(one, query));
    split.rules.iter().enumerate().filter(|(_, rule)| matches(rule)).map(|(index, _)| index).collect()
}
