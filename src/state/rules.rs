//! What a split's rules may choose now. Pure.

use super::RuleState;
use super::book::Kept;
use crate::config::{Rule, RuleChoice, Split};
use crate::model::Weight;

/// The rules with their choices, in order; a rule that has none left does not match any more. A version that drains
/// takes no request at all; one that a rollback has closed still those of `test` rules.
pub(super) fn rules(split: &Split, kept: &Kept) -> Vec<RuleState> {
    let takes = |test: bool, version: usize| {
        let takes = |v| !kept.is_draining(v) && (test || !kept.closed.contains(&v.name));
        split.versions.get(version).is_some_and(takes)
    };
    let state = |(index, rule): (usize, &Rule)| {
        let mut choices = written(&rule.choice);
        choices.retain(|(version, _)| takes(rule.test, *version));
        (!choices.is_empty()).then_some(RuleState { index, choices })
    };
    split.rules.iter().enumerate().filter_map(state).collect()
}

fn written(choice: &RuleChoice) -> Vec<(usize, Weight)> {
    match choice {
        // Of one version any weight is all.
        RuleChoice::Version(version) => Weight::new(1).map(|w| (*version, w)).into_iter().collect(),
        RuleChoice::Weights(weights) => weights.clone(),
    }
}
