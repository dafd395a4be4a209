//! From an order to the whole next state, aside: nothing is touched until the plan stands.
//!
//! Pure. Invariants: a plan's revision is one above the book's; every split of its configuration is in its book;
//! `None` means that nothing would change, and then no revision is used up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::book::{Book, Kept};
use super::names::{Names, Resolved};
use super::orders::{self, Goal, Mark};
use super::precedence::{Verdict, held_conflict, reconcile};
use super::rollouts::{self, RolloutMark};
use super::{ApplyError, Change, HistoryEntry, Order};
use crate::config::{Config, NameTarget, Split, WeighBy};
use crate::model::{Revision, SplitName, VersionName, Weights};
use crate::pool::Rules;

/// How many of the newest history entries the state file carries.
const RECENT: usize = 20;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Plan {
    pub book: Book,
    pub config: Arc<Config>,
    pub touched: BTreeSet<SplitName>,
    pub events: Vec<HistoryEntry>,
    pub names: Names,
}

/// What an order starts from.
pub(super) struct Before<'a> {
    pub book: &'a Book,
    pub config: &'a Arc<Config>,
    pub names: &'a Names,
    /// The weights a split had at a revision of its history.
    pub past: &'a dyn Fn(&SplitName, Revision) -> Option<Weights>,
    /// Some endpoint of the version may answer, as far as the checks go.
    pub is_able: &'a dyn Fn(&SplitName, &VersionName) -> bool,
    /// Now, as it goes into history.
    pub at: &'a str,
}

/// The state after `order`.
///
/// # Errors
/// Whatever makes the order impossible; see `ApplyError`.
pub(super) fn plan(before: &Before<'_>, order: &Order) -> Result<Option<Plan>, ApplyError> {
    match &order.change {
        Change::Reload { config } => {
            let known = Some(before.config.as_ref());
            reload((before.book, before.names), known, config, order, before.at).map_err(ApplyError::HeldConflict)
        }
        Change::Resolved { name, addresses } => Ok(resolved(before, name, addresses)),
        Change::Available { split, available } => Ok(weigh(before, split, available)),
        Change::Note { split, rollout } => Ok(note(before, split, rollout)),
        Change::SetWeights { split, .. }
        | Change::Promote { split, .. }
        | Change::Rollback { split, .. }
        | Change::Release { split }
        | Change::Drain { split, .. }
        | Change::Undrain { split, .. } => on_split(before, order, split),
    }
}

/// The book stays as it is, its revision too: whoever looks for what somebody changed finds nothing.
fn resolved(before: &Before<'_>, name: &NameTarget, addresses: &Arc<[Resolved]>) -> Option<Plan> {
    let names_it = |split: &&Split| split.versions.iter().any(|version| version.names().any(|n| n == name));
    let is_configured = |name: &NameTarget| {
        before.config.splits.iter().any(|s| s.versions.iter().any(|v| v.names().any(|known| known == name)))
    };
    let names = before.names.with(name, addresses, is_configured)?;
    Some(Plan {
        book: before.book.clone(),
        config: before.config.clone(),
        touched: before.config.splits.iter().filter(names_it).map(|split| split.name.clone()).collect(),
        events: Vec::new(),
        names,
    })
}

fn on_split(before: &Before<'_>, order: &Order, name: &SplitName) -> Result<Option<Plan>, ApplyError> {
    let split = before.config.splits.iter().find(|s| s.name == *name);
    let (Some(split), Some(was)) = (split, before.book.splits.get(name)) else {
        let known = before.config.splits.iter().map(|s| s.name.to_string()).collect();
        return Err(ApplyError::UnknownSplit { split: name.to_string(), known });
    };
    if let Some(wanted) = order.if_match.filter(|r| *r != was.revision) {
        return Err(ApplyError::RevisionChanged { split: name.clone(), wanted, now: was.revision });
    }
    let mut kept = was.clone();
    if !carry_out(&mut kept, split, before, order)? {
        return Ok(None);
    }
    kept.settle(split);
    let mut draft = Draft::new(before.book, before.names, order, before.at);
    let event = HistoryEntry { split: Some(name.clone()), ..draft.event(kind(&order.change)) };
    let event = match target(&order.change) {
        Some(target) => HistoryEntry { target: Some(target), ..event },
        None => HistoryEntry { from: Some(was.weights().clone()), to: Some(kept.weights().clone()), ..event },
    };
    draft.touch(name, Some(was), kept, event);
    Ok(Some(draft.done(before.config.clone())))
}

fn carry_out(kept: &mut Kept, split: &Split, before: &Before<'_>, order: &Order) -> Result<bool, ApplyError> {
    let mark = Mark { order, at: before.at };
    if matches!(order.change, Change::SetWeights { .. } | Change::Release { .. }) {
        rollouts::refuse(kept, split, order)?;
    }
    match &order.change {
        Change::SetWeights { weights, hold, .. } => orders::set_weights(kept, split, weights, *hold, &mark),
        Change::Promote { to, weights, .. } => rollouts::promote(kept, split, to, weights, &mark),
        Change::Rollback { to, to_revision, force, .. } => {
            let known =
                |r: Revision| (before.past)(&split.name, r).map(|w| (r, w)).ok_or(ApplyError::UnknownRevision(r));
            let past = to_revision.map(known).transpose()?;
            let is_able = |version: &VersionName| (before.is_able)(&split.name, version);
            let (to, names, is_able) = (to.as_ref(), before.names, &is_able);
            orders::rollback(kept, split, &Goal { to, past, is_able, force: *force, names }, &mark)
        }
        Change::Release { .. } => Ok(orders::release(kept)),
        Change::Drain { version, endpoint, .. } => {
            orders::drain(kept, split, before.names, version, endpoint.as_deref())
        }
        Change::Undrain { version, endpoint, .. } => {
            orders::undrain(kept, split, before.names, version, endpoint.as_deref())
        }
        Change::Reload { .. } | Change::Resolved { .. } | Change::Available { .. } | Change::Note { .. } => Ok(false),
    }
}

/// The state with a rollout's progress: no revision is used up.
fn note(before: &Before<'_>, name: &SplitName, mark: &RolloutMark) -> Option<Plan> {
    let mut book = before.book.clone();
    if !rollouts::note(book.splits.get_mut(name)?, mark) {
        return None;
    }
    let touched = [name.clone()].into();
    let (config, names) = (before.config.clone(), before.names.clone());
    Some(Plan { book, config, touched, events: Vec::new(), names })
}

/// The state with other endpoints available: no revision is used up, and nothing is told, since nobody asked for it.
fn weigh(before: &Before<'_>, name: &SplitName, available: &BTreeMap<VersionName, u64>) -> Option<Plan> {
    let split = before.config.splits.iter().find(|s| s.name == *name && s.weigh_by == WeighBy::Endpoints)?;
    let was = before.book.splits.get(name)?;
    let mut kept = Kept { available: available.clone(), ..was.clone() };
    kept.settle(split);
    if kept == *was {
        return None;
    }
    let mut book = before.book.clone();
    if kept.coin != was.coin {
        book.epoch += 1;
        kept.epoch = book.epoch;
    }
    book.splits.insert(name.clone(), kept);
    let touched = [name.clone()].into();
    let (config, names) = (before.config.clone(), before.names.clone());
    Some(Plan { book, config, touched, events: Vec::new(), names })
}

/// The state under a new file. `was` is the file before it; at start there is none, and only what is remembered
/// counts as changed.
///
/// # Errors
/// A held override and the file cannot both be true.
pub(super) fn reload(
    (book, names): (&Book, &Names),
    was: Option<&Config>,
    config: &Arc<Config>,
    order: &Order,
    at: &str,
) -> Result<Option<Plan>, String> {
    let mut draft = Draft::new(book, names, order, at);
    draft.book.splits.retain(|name, _| config.splits.iter().any(|s| s.name == *name));
    for (name, gone) in book.splits.iter().filter(|(name, _)| config.splits.iter().all(|s| s.name != **name)) {
        draft.events.push(leaving(&draft, name, gone)?);
    }
    for split in &config.splits {
        let before = book.splits.get(&split.name);
        let (kept, verdict) = before.map_or_else(|| Ok((Kept::fresh(split), None)), |k| reconcile(k, split))?;
        let old = was.and_then(|c| c.splits.iter().find(|s| s.name == split.name));
        if before != Some(&kept) || old.is_some_and(|old| requests_differ(old, split)) {
            let event = reloaded(&draft, split, before, &kept, verdict);
            draft.touch(&split.name, before, kept, event);
        }
    }
    let same = was.map_or(draft.events.is_empty(), |was| draft.events.is_empty() && *was == **config);
    if same {
        return Ok(None);
    }
    if draft.events.is_empty() {
        draft.events.push(draft.event("reload"));
    }
    Ok(Some(draft.done(config.clone())))
}

/// A split that leaves keeps nothing; but a hold must be released first, else a file that is missing for a moment
/// (an include being replaced) would undo it when it comes back.
fn leaving(draft: &Draft<'_>, name: &SplitName, gone: &Kept) -> Result<HistoryEntry, String> {
    if let Some(held) = gone.override_.as_ref().filter(|o| o.hold) {
        return Err(held_conflict(name, held, &format!("`{name}`")));
    }
    let kind = if gone.override_.is_some() { "superseded" } else { "reload" };
    let reason = Some("the split left the file".to_owned());
    Ok(HistoryEntry { split: Some(name.clone()), from: Some(gone.weights().clone()), reason, ..draft.event(kind) })
}

fn reloaded(
    draft: &Draft<'_>,
    split: &Split,
    before: Option<&Kept>,
    kept: &Kept,
    verdict: Option<Verdict>,
) -> HistoryEntry {
    let (kind, why) = match verdict {
        Some(Verdict::Superseded(why)) => ("superseded", Some(why)),
        Some(Verdict::Held(why)) => ("held", Some(why)),
        Some(Verdict::Moved(why)) => ("reload", Some(why)),
        None => ("reload", None),
    };
    let event = draft.event(kind);
    HistoryEntry {
        split: Some(split.name.clone()),
        from: before.map(|k| k.weights().clone()),
        to: Some(kept.weights().clone()),
        reason: why.or(event.reason),
        ..event
    }
}

/// Whether requests would see other endpoints, limits or rules.
fn requests_differ(a: &Split, b: &Split) -> bool {
    let seen = |s: &Split| s.versions.iter().map(|v| (v.name.clone(), v.endpoints.clone())).collect::<Vec<_>>();
    a.weigh_by != b.weigh_by || Rules::from(a) != Rules::from(b) || a.rules != b.rules || seen(a) != seen(b)
}

/// A plan in the making.
struct Draft<'a> {
    book: Book,
    names: Names,
    order: &'a Order,
    at: &'a str,
    touched: BTreeSet<SplitName>,
    events: Vec<HistoryEntry>,
}

impl<'a> Draft<'a> {
    fn new(book: &Book, names: &Names, order: &'a Order, at: &'a str) -> Self {
        let book = Book { revision: Revision(book.revision.0 + 1), ..book.clone() };
        Self { book, names: names.clone(), order, at, touched: BTreeSet::new(), events: Vec::new() }
    }

    fn event(&self, kind: &str) -> HistoryEntry {
        HistoryEntry {
            revision: self.book.revision,
            at: self.at.to_owned(),
            kind: kind.to_owned(),
            split: None,
            from: None,
            to: None,
            target: None,
            by: self.order.by.clone(),
            source: self.order.source,
            reason: self.order.reason.clone(),
            id: format!("{:032x}", self.order.id),
        }
    }

    fn touch(&mut self, name: &SplitName, before: Option<&Kept>, mut kept: Kept, event: HistoryEntry) {
        if before.is_none_or(|b| b.coin != kept.coin) {
            self.book.epoch += 1;
            kept.epoch = self.book.epoch;
        }
        kept.revision = self.book.revision;
        self.book.splits.insert(name.clone(), kept);
        self.touched.insert(name.clone());
        self.events.push(event);
    }

    fn done(mut self, config: Arc<Config>) -> Plan {
        // A reload may touch more splits than `RECENT`; all of the newest revision are needed after a crash.
        self.book.recent.extend(self.events.iter().cloned());
        let surplus = self.book.recent.len().saturating_sub(RECENT.max(self.events.len()));
        self.book.recent.drain(..surplus);
        Plan { book: self.book, config, touched: self.touched, events: self.events, names: self.names }
    }
}

fn kind(change: &Change) -> &'static str {
    match change {
        Change::Reload { .. } => "reload",
        Change::SetWeights { .. } => "weights",
        Change::Promote { .. } => "promote",
        Change::Rollback { .. } => "rollback",
        Change::Release { .. } => "release",
        Change::Drain { .. } => "drain",
        Change::Undrain { .. } => "undrain",
        // Has no history.
        Change::Resolved { .. } => "resolved",
        Change::Available { .. } => "available",
        Change::Note { .. } => "note",
    }
}

fn target(change: &Change) -> Option<String> {
    let name = |version: &VersionName, endpoint: &Option<String>| match endpoint {
        Some(endpoint) => format!("{version}/{endpoint}"),
        None => version.to_string(),
    };
    match change {
        Change::Drain { version, endpoint, .. } | Change::Undrain { version, endpoint, .. } => {
            Some(name(version, endpoint))
        }
        _ => None,
    }
}
