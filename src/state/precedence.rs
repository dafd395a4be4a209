//! Who wins when the file speaks: the table of surface.md section 6, as pure functions.
//!
//! Invariant: a file never undoes a held override; it is refused if the two cannot both be true. `kept` stands for
//! the file as it was when the override was last seen to agree with it, so the table holds over restarts too.

use super::Override;
use super::book::Kept;
use super::rollouts;
use crate::config::{Split, Version};
use crate::model::{Address, SplitName, VersionName, Weight, Weights};

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
    let (stable, promoted) = rollouts::stable(kept.promoted.as_ref(), split);
    let has = |v: &VersionName| file.weight(v).is_some();
    let listed = |names: &[VersionName]| file.iter().map(|(v, _)| v.clone()).filter(|v| names.contains(v)).collect();
    // What a name leads to is not known after a restart: such a drain stays until it is taken back.
    let may_have = |f: &Version, a: &Address| f.names().next().is_some() || f.addresses().any(|known| known == a);
    let in_file = |v: &VersionName, a: &Address| split.versions.iter().any(|f| f.name == *v && may_have(f, a));
    let mut next = Kept {
        previous_stable: previous_stable(kept, &stable, split).filter(|v| has(v)),
        stable,
        promoted,
        rolled_out: rollouts::still_known(kept, split),
        closed: if override_.as_ref().is_some_and(|o| o.hold) { listed(&kept.closed) } else { Vec::new() },
        override_,
        drained: kept.drained.iter().filter(|v| has(v)).cloned().collect(),
        drained_endpoints: kept.drained_endpoints.iter().filter(|d| in_file(&d.version, &d.address)).cloned().collect(),
        file_weights: file.clone(),
        ..kept.clone()
    };
    next.settle(split);
    Ok((next, verdict))
}

fn held_verdict(kept: &Kept, held: &Override, file: &Weights, split: &Split) -> Result<Option<Verdict>, String> {
    let lost = leaving(&held.weights, file);
    if !lost.is_empty() {
        return Err(held_conflict(&split.name, held, &lost));
    }
    let says = || format!("the file wants {file}; held at {} by {} since {}", held.weights, held.by.0, held.at);
    Ok((!file.same_as(&kept.file_weights)).then(|| Verdict::Held(says())))
}

/// Why a file without `lost` is refused, and what to do.
pub(super) fn held_conflict(split: &SplitName, held: &Override, lost: &str) -> String {
    let Override { weights, by, at, reason, .. } = held;
    let reason = reason.as_ref().map(|r| format!(", {r}")).unwrap_or_default();
    format!(
        "split `{split}` is held at {weights} (by {}, {at}{reason}), but the file no longer has {lost}; put {lost} \
         back into the file, or release the hold first: weir release {split}",
        by.0
    )
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
fn previous_stable(kept: &Kept, stable: &VersionName, split: &Split) -> Option<VersionName> {
    let known = |v: &&VersionName| *v != stable && split.versions.iter().any(|f| f.name == **v);
    [Some(&kept.stable), kept.previous_stable.as_ref()].into_iter().flatten().find(known).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Actor;
    use crate::state::testing::{name, split, weights};

    fn kept(file: &[(&str, u32)], over: Option<(&[(&str, u32)], bool)>) -> Kept {
        let over = over.map(|(w, hold)| Override {
            weights: weights(w),
            hold,
            by: Actor("local:alice".into()),
            at: "2026-03-01T12:00:00.000Z".into(),
            reason: Some("bad".into()),
            source: crate::model::Source::Cli,
        });
        Kept { override_: over, ..Kept::fresh(&split("shop", file)) }
    }

    /// In force afterwards, and the verdict's kind.
    fn after(kept: &Kept, file: &[(&str, u32)]) -> (String, &'static str) {
        let (next, verdict) = reconcile(kept, &split("shop", file)).unwrap();
        let kind = match verdict {
            None => "none",
            Some(Verdict::Superseded(_)) => "superseded",
            Some(Verdict::Held(_)) => "held",
            Some(Verdict::Moved(_)) => "moved",
        };
        (next.weights().to_string(), kind)
    }

    const FILE: &[(&str, u32)] = &[("v1", 90), ("v2", 10)];
    const OVER: &[(&str, u32)] = &[("v1", 75), ("v2", 25)];

    #[test]
    fn without_an_override_the_file_counts() {
        assert_eq!(after(&kept(FILE, None), &[("v1", 1), ("v3", 2)]), ("v1 1, v3 2".into(), "none"));
    }

    #[test]
    fn a_file_with_the_same_weights_leaves_both_kinds() {
        for hold in [false, true] {
            let kept = kept(FILE, Some((OVER, hold)));
            assert_eq!(after(&kept, FILE), ("v1 75, v2 25".into(), "none"));
            assert_eq!(after(&kept, &[("v2", 10), ("v1", 90)]), ("v2 25, v1 75".into(), "none"), "another order");
            assert_eq!(after(&kept, &[("v1", 90), ("v2", 10), ("v3", 0)]), ("v1 75, v2 25, v3 0".into(), "none"));
        }
    }

    #[test]
    fn a_file_that_changes_the_weights_beats_a_plain_override_only() {
        assert_eq!(
            after(&kept(FILE, Some((OVER, false))), &[("v1", 1), ("v2", 1)]),
            ("v1 1, v2 1".into(), "superseded")
        );
        let held = kept(FILE, Some((OVER, true)));
        assert_eq!(after(&held, &[("v1", 1), ("v2", 1)]), ("v1 75, v2 25".into(), "held"));
        let (held, verdict) = reconcile(&held, &split("shop", &[("v1", 1), ("v2", 1)])).unwrap();
        let text = "the file wants v1 1, v2 1; held at v1 75, v2 25 by local:alice since 2026-03-01T12:00:00.000Z";
        assert_eq!(verdict, Some(Verdict::Held(text.into())));
        assert_eq!(held.file_weights, weights(&[("v1", 1), ("v2", 1)]));
        assert_eq!(after(&held, &[("v1", 1), ("v2", 1)]).1, "none", "said once");
    }

    #[test]
    fn the_weight_of_a_version_that_leaves_goes_to_the_others_in_proportion() {
        let file: &[_] = &[("v1", 90), ("v2", 10), ("v3", 0)];
        let third = |over: &[(&str, u32)]| after(&kept(file, Some((over, false))), FILE);
        assert_eq!(third(&[("v1", 40), ("v2", 40), ("v3", 20)]), ("v1 50, v2 50".into(), "moved"));
        assert_eq!(
            third(&[("v1", 50), ("v2", 25), ("v3", 25)]),
            ("v1 50, v2 25".into(), "moved"),
            "exact, not 67 to 33"
        );
        assert_eq!(third(&[("v1", 1), ("v2", 0), ("v3", 999_999)]), ("v1 1000000, v2 0".into(), "moved"));
        assert_eq!(
            third(&[("v1", 1), ("v2", 0), ("v3", 1_000_000)]),
            ("v1 1, v2 0".into(), "moved"),
            "never above MAX"
        );
        assert_eq!(third(&[("v1", 0), ("v2", 0), ("v3", 9)]), ("v1 90, v2 10".into(), "superseded"));
        assert_eq!(third(&[("v1", 3), ("v2", 1), ("v3", 0)]), ("v1 3, v2 1".into(), "none"));
    }

    #[test]
    fn a_held_override_refuses_to_lose_a_version_with_weight() {
        let held = Kept { closed: vec![name("v2")], ..kept(FILE, Some((&[("v1", 100), ("v2", 0)], true))) };
        let refused = reconcile(&held, &split("shop", &[("v2", 1)])).unwrap_err();
        assert_eq!(
            refused,
            "split `shop` is held at v1 100, v2 0 (by local:alice, 2026-03-01T12:00:00.000Z, bad), but the file no \
             longer has `v1`; put `v1` back into the file, or release the hold first: weir release shop"
        );
        assert_eq!(after(&held, &[("v1", 90), ("v3", 10)]), ("v1 100, v3 0".into(), "held"));
        let (next, _) = reconcile(&held, &split("shop", &[("v1", 90), ("v3", 10)])).unwrap();
        assert!(next.closed.is_empty());
    }

    #[test]
    fn the_stable_before_is_remembered_while_it_is_in_the_file() {
        let to = |kept: &Kept, file: &[(&str, u32)]| reconcile(kept, &split("shop", file)).unwrap().0;
        let v2 = to(&kept(FILE, None), &[("v1", 0), ("v2", 9)]);
        assert_eq!((v2.stable.as_str(), v2.previous_stable.clone()), ("v2", Some(name("v1"))));
        assert_eq!(to(&v2, &[("v1", 1), ("v2", 9)]).previous_stable, Some(name("v1")));
        assert_eq!(to(&v2, &[("v1", 1), ("v2", 0), ("v3", 9)]).previous_stable, Some(name("v2")));
        assert_eq!(to(&v2, &[("v1", 1), ("v3", 9)]).previous_stable, Some(name("v1")), "v2 is gone, v1 is left");
        assert_eq!(to(&v2, &[("v2", 9)]).previous_stable, None);
    }
}
