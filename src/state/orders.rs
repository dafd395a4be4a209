//! What an order does to one split: checked against the file's versions, carried out on what is remembered. Pure.
//!
//! Invariant: on an error `kept` is as before; `Ok(false)` means that all was so already, and `kept` is as before too.

use super::ApplyError;
use super::book::{DrainedEndpoint, Kept};
use super::names::Names;
use super::precedence::in_order;
use super::{Order, Override};
use crate::config::{NameTarget, Split, Version};
use crate::model::{Address, Revision, Source, VersionName, Weight, Weights};

pub(super) type Changed = Result<bool, ApplyError>;

/// Who put an override, when and why.
pub(super) struct Mark<'a> {
    pub order: &'a Order,
    pub at: &'a str,
}

impl Mark<'_> {
    pub(super) fn over(&self, weights: Weights, hold: bool) -> Override {
        let Order { by, source, reason, .. } = self.order;
        let (by, at, reason) = (by.clone(), self.at.to_owned(), reason.clone());
        Override { weights, hold, by, source: *source, at, reason }
    }
}

/// Where a rollback is asked to go.
pub(super) struct Goal<'a> {
    pub to: Option<&'a VersionName>,
    /// A revision with the weights that were in force then.
    pub past: Option<(Revision, Weights)>,
    /// Some endpoint of the version may answer, as far as the checks go.
    pub is_able: &'a dyn Fn(&VersionName) -> bool,
    pub force: bool,
    pub names: &'a Names,
}

pub(super) fn set_weights(kept: &mut Kept, split: &Split, wanted: &Weights, hold: bool, mark: &Mark<'_>) -> Changed {
    for (name, _) in wanted.iter() {
        version(split, name)?;
    }
    let missing: Vec<_> = split.versions.iter().map(|v| &v.name).filter(|v| wanted.weight(v).is_none()).collect();
    if !missing.is_empty() {
        return Err(ApplyError::BadWeights(format!(
            "split `{}` has {}; no weight is given for {}: name every version, 0 for none",
            split.name,
            list(split.versions.iter().map(|v| &v.name)),
            list(missing.into_iter())
        )));
    }
    if wanted.total() == 0 {
        let text = format!("all weights of split `{}` would be 0: at least one must be above 0", split.name);
        return Err(ApplyError::BadWeights(text));
    }
    let weights = in_order(wanted, &kept.file_weights);
    let same = |o: &Override| o.hold == hold && o.weights == weights && kept.closed.is_empty();
    if kept.override_.as_ref().is_some_and(same) {
        return Ok(false);
    }
    kept.override_ = Some(mark.over(weights, hold));
    kept.closed.clear();
    Ok(true)
}

pub(super) fn rollback(kept: &mut Kept, split: &Split, target: &Goal<'_>, mark: &Mark<'_>) -> Changed {
    let weights = goal(kept, split, target)?;
    let closed: Vec<_> = weights.iter().filter(|(_, w)| w.is_zero()).map(|(v, _)| v.clone()).collect();
    // A rollout that has not begun to shift yet hears of it and ends.
    let runs = kept.rollout.as_ref().is_some_and(|rollout| rollout.running);
    let is_news = runs && !matches!(mark.order.source, Source::Analysis | Source::Check | Source::Rollout);
    if kept.is_held() && *kept.weights() == weights && kept.closed == closed && !is_news {
        return Ok(false);
    }
    let receives = |v: &&Version| weights.weight(&v.name).is_some_and(|w| !w.is_zero());
    let why = |v: &Version| unhealthy(kept, v, target).map(|why| format!("version `{}` {why}", v.name));
    if let Some(why) = split.versions.iter().filter(receives).find_map(why).filter(|_| !target.force) {
        return Err(ApplyError::TargetUnhealthy(why));
    }
    kept.override_ = Some(mark.over(weights, true));
    kept.closed = closed;
    Ok(true)
}

/// Why a version would answer nobody, and what to do.
fn unhealthy(kept: &Kept, version: &Version, target: &Goal<'_>) -> Option<String> {
    let has_none = target.names.places(version).is_empty();
    let why = match version.names().next() {
        Some(name) if has_none => return Some(unresolved(name)),
        None if has_none => "has no endpoint; choose another target, or force it",
        _ if !kept.is_usable(version, target.names) => {
            "takes no requests: it is drained; undrain it, choose another target, or force it"
        }
        _ if !(target.is_able)(&version.name) => {
            "has no healthy endpoint: none has passed its checks; choose another target, or force it"
        }
        _ => return None,
    };
    Some(why.to_owned())
}

fn unresolved(name: &NameTarget) -> String {
    format!("has no endpoint: `{name}` has no address yet; choose another target, or force it")
}

/// The weights a rollback is to reach.
fn goal(kept: &Kept, split: &Split, target: &Goal<'_>) -> Result<Weights, ApplyError> {
    match (target.to, &target.past) {
        (Some(_), Some(_)) => {
            Err(ApplyError::BadWeights("a rollback goes to a version or to a revision, not to both".into()))
        }
        (Some(to), None) => version(split, to).map(|v| all_to(kept, &v.name)),
        (None, Some((revision, past))) => {
            let gone = past.iter().find(|(v, w)| !w.is_zero() && kept.file_weights.weight(v).is_none());
            let text = |v| format!("revision {revision} gave weight to `{v}`, which is no longer in the file");
            gone.map_or(Ok(in_order(past, &kept.file_weights)), |(v, _)| Err(ApplyError::BadWeights(text(v))))
        }
        (None, None) => default_target(kept).map(|v| all_to(kept, v)).ok_or_else(|| {
            ApplyError::NothingToRollBack(format!(
                "split `{}`: stable `{}` has everything already and no earlier stable is known; name a version",
                split.name, kept.stable
            ))
        }),
    }
}

/// Stable; the one before if stable has everything. But a split that is rolled back to either stays there: whoever
/// presses the button twice must not be sent on to somewhere else by the second press.
fn default_target(kept: &Kept) -> Option<&VersionName> {
    let everything =
        |v: &&VersionName| kept.weights().weight(v).is_some_and(|w| u64::from(w.value()) == kept.weights().total());
    let previous = kept.previous_stable.as_ref();
    let rolled_back = kept.is_held() && (!kept.closed.is_empty() || kept.file_weights.len() == 1);
    if rolled_back && let Some(there) = [Some(&kept.stable), previous].into_iter().flatten().find(everything) {
        return Some(there);
    }
    if everything(&&kept.stable) { previous } else { Some(&kept.stable) }
}

fn all_to(kept: &Kept, target: &VersionName) -> Weights {
    let full = |v: &VersionName| if v == target { Weight::new(100).unwrap_or_default() } else { Weight::default() };
    kept.file_weights.iter().map(|(v, _)| (v.clone(), full(v))).collect()
}

pub(super) fn release(kept: &mut Kept) -> bool {
    kept.closed.clear();
    kept.override_.take().is_some()
}

pub(super) fn drain(
    kept: &mut Kept,
    split: &Split,
    names: &Names,
    name: &VersionName,
    endpoint: Option<&str>,
) -> Changed {
    let version = version(split, name)?;
    let Some(text) = endpoint else {
        let new = !kept.drained.contains(name);
        kept.drained.extend(new.then(|| name.clone()));
        return Ok(new);
    };
    let address = address(version, names, text)?;
    let new = !kept.drains_alone(name, &address);
    kept.drained_endpoints.extend(new.then(|| DrainedEndpoint { version: name.clone(), address }));
    Ok(new)
}

pub(super) fn undrain(
    kept: &mut Kept,
    split: &Split,
    names: &Names,
    name: &VersionName,
    endpoint: Option<&str>,
) -> Changed {
    let version = version(split, name)?;
    let Some(text) = endpoint else {
        let before = kept.drained.len();
        kept.drained.retain(|v| v != name);
        return Ok(kept.drained.len() < before);
    };
    let address = undrained(kept, version, text).map_or_else(|| address(version, names, text), Ok)?;
    if kept.drained.contains(name) {
        return Err(ApplyError::DrainedAsVersion { version: name.clone(), endpoint: text.to_owned() });
    }
    let before = kept.drained_endpoints.len();
    kept.drained_endpoints.retain(|d| d.version != *name || d.address != address);
    Ok(kept.drained_endpoints.len() < before)
}

fn version<'a>(split: &'a Split, name: &VersionName) -> Result<&'a Version, ApplyError> {
    split.versions.iter().find(|v| v.name == *name).ok_or_else(|| ApplyError::UnknownVersion {
        split: split.name.clone(),
        version: name.to_string(),
        known: split.versions.iter().map(|v| v.name.to_string()).collect(),
    })
}

/// An address that is drained may be given free also while no name leads to it.
fn undrained(kept: &Kept, version: &Version, text: &str) -> Option<Address> {
    text.parse().ok().filter(|address| kept.drains_alone(&version.name, address))
}

fn address(version: &Version, names: &Names, text: &str) -> Result<Address, ApplyError> {
    let places = names.places(version);
    let known = |a: &Address| places.iter().any(|place| place.address == *a);
    text.parse().ok().filter(known).ok_or_else(|| ApplyError::UnknownEndpoint {
        version: version.name.clone(),
        endpoint: text.to_owned(),
        known: if places.is_empty() {
            vec!["none".to_owned()]
        } else {
            places.iter().map(|place| place.address.to_string()).collect()
        },
    })
}

fn list<'a>(names: impl Iterator<Item = &'a VersionName>) -> String {
    names.map(VersionName::as_str).collect::<Vec<_>>().join(", ")
}
