//! Who wins when the file speaks: the table of surface.md section 6, as pure functions.
//!
//! Invariant: a file never undoes a held override; it is refused if the two cannot both be true. `kept` stands for
//! the file as it was when the override was last seen to agree with it, so the table holds over restarts too.

use super::Override;
use super::book::Kept;
use crate::config::Split;
use crate::model::{VersionName, Weight, Weights};

/// What the file did to an override, with the reason for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Dropped: the file's weights are in force.
    Superseded(String),
    /// Stays although the file wants something else.
    Held(String),
    /// Stays, but the weight of a version that left went to the others.
    Moved(String),
}

/// What is remembered of a split, now that the file says `split`.
///
/// # Errors
/// A held override would lose a version that has weight; the text says which and what to do.
pub(super) fn reconcile(kept: &Kept, split: &Split) -> Result<(Kept, Option<Verdict>), String> {
    let file = split.weights();
    let (override_, verdict) = match &kept.override_ {
        None => (None, None),
        Some(held) if held.hold => {
            let verdict = held_verdict(kept, held, &file, split)?;
            (Some(Override { weights: in_order(&held.weights, &file), ..held.clone() }), verdict)
        }
        Some(plain) => plain_verdict(kept, plain, &file),
    };
    let has = |v: &VersionName| file.weight(v).is_some();
    let listed = |names: &[VersionName]| file.iter().map(|(v, _)| v.clone()).filter(|v| names.contains(v)).collect();
    let in_file = |v: &VersionName, a| split.versions.iter().any(|f| f.name == *v && f.endpoints.contains(&a));
    let next = Kept {
        stable: split.stable.clone(),
        previous_stable: previous_stable(kept, split).filter(|v| has(v)),
        closed: if override_.as_ref().is_some_and(|o| o.hold) { listed(&kept.closed) } else { Vec::new() },
        override_,
        drained: listed(&kept.drained),
        drained_endpoints: kept.drained_endpoints.iter().filter(|d| in_file(&d.version, d.address)).cloned().collect(),
        file_weights: file.clone(),
        ..kept.clone()
    };
    Ok((Kept { coin: next.draw(split), ..next }, verdict))
}

fn held_verdict(kept: &Kept, held: &Override, file: &Weights, split: &Split) -> Result<Option<Verdict>, String> {
    let lost = leaving(&held.weights, file);
    if !lost.is_empty() {
        let reason = held.reason.as_ref().map(|r| format!(", {r}")).unwrap_or_default();
        return Err(format!(
            "split `{0}` is held at {1} (by {2}, {3}{reason}), but the file no longer has {4}; put {4} back into the \
             file, or release the hold first: weir release {0}",
            split.name, held.weights, held.by.0, held.at, lost
        ));
    }
    let says = || format!("the file wants {file}; held at {} by {} since {}", held.weights, held.by.0, held.at);
    Ok((!file.same_as(&kept.file_weights)).then(|| Verdict::Held(says())))
}

fn plain_verdict(kept: &Kept, plain: &Override, file: &Weights) -> (Option<Override>, Option<Verdict>) {
    if !file.same_as(&kept.file_weights) {
        let why = format!("the file's weights changed from {} to {file}", kept.file_weights);
        return (None, Some(Verdict::Superseded(why)));
    }
    let lost = leaving(&plain.weights, file);
    match redistribute(&plain.weights, file) {
        None => (None, Some(Verdict::Superseded(format!("{lost} left the file, and nothing else had weight")))),
        Some(weights) => {
            let moved = || Verdict::Moved(format!("{lost} left the file; its weight went to the others"));
            (Some(Override { weights, ..plain.clone() }), (!lost.is_empty()).then(moved))
        }
    }
}

/// The versions with weight that the file no longer has, for a sentence; empty if none.
fn leaving(weights: &Weights, file: &Weights) -> String {
    let gone = weights.iter().filter(|(v, w)| !w.is_zero() && file.weight(v).is_none());
    gone.map(|(v, _)| format!("`{v}`")).collect::<Vec<_>>().join(" and ")
}

/// The same weights for the file's versions in the file's order; new versions get 0.
pub(super) fn in_order(weights: &Weights, file: &Weights) -> Weights {
    file.iter().map(|(v, _)| (v.clone(), weights.weight(v).unwrap_or_default())).collect()
}

/// The weights of what is left, shares kept exactly among them; `None` if nothing is left. Weights are relative, so
/// leaving the others as they are gives each its part of what became free; the old sum is only restored where that
/// is possible without rounding.
fn redistribute(weights: &Weights, file: &Weights) -> Option<Weights> {
    let left = in_order(weights, file);
    let (was, now) = (weights.total(), left.total());
    if now == 0 {
        return None;
    }
    let scale = |w: Weight| {
        let product = u64::from(w.value()) * was;
        let scaled = u32::try_from(product / now).ok().and_then(|n| Weight::new(n).ok());
        scaled.filter(|_| product % now == 0)
    };
    let scaled: Option<Weights> = left.iter().map(|(v, w)| scale(w).map(|w| (v.clone(), w))).collect();
    Some(scaled.unwrap_or(left))
}

/// Where a rollback goes when stable has everything: the stable before this one that the file still has.
fn previous_stable(kept: &Kept, split: &Split) -> Option<VersionName> {
    let known = |v: &&VersionName| **v != split.stable && split.versions.iter().any(|f| f.name == **v);
    [Some(&kept.stable), kept.previous_stable.as_ref()].into_iter().flatten().find(known).cloned()
}
