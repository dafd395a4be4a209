//! The rules of a split: who gets which version whatever the weights say.

use indexmap::IndexMap;

use super::{Context, matches};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawRule, RawSplit, RawVersion};
use crate::config::{Rule, RuleChoice, Version};
use crate::model::{RouteName, Weight};

/// The versions a rule may name, as written and as resolved: it speaks in indexes of the latter.
#[derive(Clone, Copy)]
struct Known<'a> {
    written: &'a IndexMap<String, RawVersion>,
    versions: &'a [Version],
    /// Something is wrong with a version: a name that is missing may be its.
    flawed: bool,
}

pub fn rules(raw: &RawSplit, versions: &[Version], path: &Path, cx: &mut Context<'_>) -> Vec<Rule> {
    let Some(written) = &raw.versions else { return Vec::new() };
    let known = Known { written, versions, flawed: cx.lacks_keys(&path.key("versions")) };
    let group = path.key("rules");
    let mut rules: Vec<(Rule, Path)> = Vec::new();
    for (i, one) in raw.rules.iter().enumerate() {
        let path = group.index(i);
        let Some(rule) = rule(one, known, &path, cx) else { continue };
        if let Some((_, first)) = rules.iter().find(|(other, _)| other.name == rule.name) {
            duplicate_name(&rule, &path, first, cx);
        }
        rules.push((rule, path));
    }
    rules.into_iter().map(|(rule, _)| rule).collect()
}

fn rule(raw: &RawRule, known: Known<'_>, path: &Path, cx: &mut Context<'_>) -> Option<Rule> {
    let matches = matches::alternatives(&raw.matches, &path.key("match"), cx);
    let choice = choice(raw, known, path, cx);
    // Access lines show it: it must be as harmless as other names.
    let name = cx.name(RouteName::new(&raw.name), &raw.name, &path.key("name"))?;
    Some(Rule { name: name.as_str().to_owned(), matches, choice: choice?, test: raw.test })
}

fn duplicate_name(rule: &Rule, path: &Path, first: &Path, cx: &mut Context<'_>) {
    let place = cx.tree.place_of(&first.key("name"));
    let message = format!("two rules of the split are named `{}`", rule.name);
    let problem = cx.problem(Code::DuplicateName, &path.key("name"), message);
    problem.label = Some("the same name again".into());
    problem.related = place.map(|p| (p, "first given here".into()));
    problem.help = Some("rename one of them; names tell rules apart in logs".into());
}

fn choice(raw: &RawRule, known: Known<'_>, path: &Path, cx: &mut Context<'_>) -> Option<RuleChoice> {
    match (&raw.version, &raw.weights) {
        (Some(name), None) => index(name, known, &path.key("version"), cx).map(RuleChoice::Version),
        (None, Some(written)) => weights(written, known, &path.key("weights"), cx),
        (Some(_), Some(_)) => {
            let message = format!("rule `{}` has both `version` and `weights`", raw.name);
            let problem = cx.problem_at_key(Code::BadMatch, &path.key("weights"), message);
            problem.label = Some("a second choice".into());
            problem.help = Some("give exactly one of version, weights".into());
            None
        }
        (None, None) => {
            if !cx.lacks_keys(path) {
                let message = format!("rule `{}` chooses no version", raw.name);
                let problem = cx.problem_at_key(Code::MissingKey, path, message);
                problem.key = Some(path.key("version").to_string());
                problem.label = Some("`version` is missing here".into());
                problem.help = Some("a rule needs exactly one of version, weights".into());
            }
            None
        }
    }
}

fn index(name: &String, known: Known<'_>, path: &Path, cx: &mut Context<'_>) -> Option<usize> {
    if !known.written.contains_key(name) && !known.flawed {
        cx.unknown_name(format!("the split has no version `{name}`"), name, known.written.keys(), path);
    }
    known.versions.iter().position(|v| v.name.as_str() == name)
}

fn weights(written: &IndexMap<String, u32>, known: Known<'_>, path: &Path, cx: &mut Context<'_>) -> Option<RuleChoice> {
    let mut weights = Vec::new();
    let mut sound = true;
    for (name, &number) in written {
        let path = path.key(name);
        let weight = weight(number, &path, cx);
        let version = index(name, known, &path, cx);
        sound &= weight.is_some() && version.is_some();
        weights.extend(version.zip(weight).filter(|(_, weight)| !weight.is_zero()));
    }
    if sound && weights.is_empty() && !cx.is_flawed(path) {
        let problem = cx.problem_at_key(Code::NoWeight, path, format!("`{path}` gives weight to no version"));
        problem.label = Some("nothing above 0".into());
        problem.help = Some("give at least one version a weight above 0, or take the rule out".into());
    }
    // By version, so that a user's version does not depend on the order in which the weights are written.
    weights.sort_unstable_by_key(|(version, _)| *version);
    (!weights.is_empty()).then_some(RuleChoice::Weights(weights))
}

fn weight(number: u32, path: &Path, cx: &mut Context<'_>) -> Option<Weight> {
    let weight = Weight::new(number).ok();
    if weight.is_none() {
        let problem = cx.problem(Code::OutOfRange, path, format!("`{path}` is {number}"));
        problem.label = Some(format!("allowed: 0 to {}", Weight::MAX));
        problem.help = Some("weights are relative: smaller numbers divide as well".into());
    }
    weight
}
