//! Outside evidence of a rollout: who is asked, when, and what is a good answer.

use std::time::Duration;

use super::{Context, web};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawCheck, RawCheckAt, RawPrometheus, RawWebhook};
use crate::config::{Check, CheckAt, CheckKind};
use crate::model::CheckName;

const EVERY: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(5);

pub fn checks(raw: &[RawCheck], path: &Path, cx: &mut Context<'_>) -> Vec<Check> {
    let mut found: Vec<(Check, Path)> = Vec::new();
    for (i, raw) in raw.iter().enumerate() {
        let path = path.index(i);
        let Some(check) = check(raw, &path, cx) else { continue };
        if let Some((_, first)) = found.iter().find(|(other, _)| other.name == check.name) {
            let place = cx.tree.place_of(&first.key("name"));
            let message = format!("two checks are named `{}`", check.name);
            let help = "rename one of them; names tell checks apart in metrics and receipts";
            let problem = cx.tell(Code::DuplicateName, &path.key("name"), message, "the same name again", help);
            problem.related = place.map(|p| (p, "first given here".into()));
        }
        found.push((check, path));
    }
    found.into_iter().map(|(check, _)| check).collect()
}

fn check(raw: &RawCheck, path: &Path, cx: &mut Context<'_>) -> Option<Check> {
    let at = match raw.at {
        RawCheckAt::Start => CheckAt::Start,
        RawCheckAt::Step => CheckAt::Step,
        RawCheckAt::Always => CheckAt::Always,
        RawCheckAt::Finish => CheckAt::Finish,
    };
    let every = raw.every.map_or(EVERY, |every| every.0);
    if every < Duration::from_secs(1) {
        let message = format!("{} would be asked without a pause", path.words());
        cx.tell(Code::OutOfRange, &path.key("every"), message, "less than a second", "write for example \"30s\"");
    }
    let ask = ask(raw, path, cx);
    let text = raw.name.as_ref()?;
    let name = cx.name(CheckName::new(text), text, &path.key("name"))?;
    // One odd sample of a number that is looked at all day is no proof.
    let failures = raw.failures.unwrap_or(if at == CheckAt::Always { 2 } else { 1 });
    Some(Check { name, at, ask: ask?, every, failures })
}

/// Exactly one of the three.
fn ask(raw: &RawCheck, path: &Path, cx: &mut Context<'_>) -> Option<CheckKind> {
    let given: Vec<&str> = [
        ("prometheus", raw.prometheus.is_some()),
        ("webhook", raw.webhook.is_some()),
        ("command", raw.command.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, given)| given.then_some(key))
    .collect();
    match given.as_slice() {
        [] if cx.lacks_keys(path) => None,
        [] => {
            let problem = cx.problem_at_key(Code::MissingKey, path, format!("{} asks nobody", path.words()));
            problem.label = Some("who is asked?".into());
            problem.help = Some("add exactly one of: prometheus, webhook, command".into());
            None
        }
        [_] => {
            let bounds = [("min", raw.min.is_some()), ("max", raw.max.is_some())];
            if raw.prometheus.is_none() {
                bounds.into_iter().filter(|(_, given)| *given).for_each(|(key, _)| unmeasured(key, path, cx));
            }
            let prometheus = raw.prometheus.as_ref().and_then(|p| prometheus(p, raw, path, cx));
            let webhook = raw.webhook.as_ref().and_then(|w| webhook(w, &path.key("webhook"), cx));
            let command = raw.command.as_ref().and_then(|c| command(c, &path.key("command"), cx));
            prometheus.or(webhook).or(command)
        }
        [first, second, ..] => {
            let message = format!("{} has both `{first}` and `{second}`", path.words());
            let help = "keep exactly one of: prometheus, webhook, command; make two checks of them";
            let place = cx.tree.key_place_of(&path.key(first));
            let problem = cx.problem_at_key(Code::UnknownKey, &path.key(second), message);
            (problem.label, problem.help) = (Some("a second one".into()), Some(help.into()));
            problem.related = place.map(|p| (p, "the first".into()));
            None
        }
    }
}

fn unmeasured(key: &str, path: &Path, cx: &mut Context<'_>) {
    let problem = cx.problem_at_key(
        Code::UnknownKey,
        &path.key(key),
        format!("{} has a `{key}` that means nothing", path.words()),
    );
    problem.label = Some("only `prometheus` gives a number".into());
    problem.help = Some(format!("take `{key}` out"));
}

fn prometheus(raw: &RawPrometheus, check: &RawCheck, path: &Path, cx: &mut Context<'_>) -> Option<CheckKind> {
    let place = path.key("prometheus");
    match (check.min, check.max) {
        (None, None) if !cx.lacks_keys(path) => {
            let problem = cx.problem_at_key(Code::MissingKey, path, format!("{} accepts every number", path.words()));
            problem.key = Some(path.key("max").to_string());
            problem.label = Some("which number is good?".into());
            problem.help = Some("add `max`, `min` or both".into());
        }
        (Some(min), Some(max)) if min > max => {
            let message = format!("no number is at least {min} and at most {max}");
            cx.tell(Code::OutOfRange, &path.key("min"), message, "above `max`", "exchange `min` and `max`");
        }
        _ => {}
    }
    let query = raw.query.as_ref()?;
    if query.trim().is_empty() {
        let help = "write a query that gives one number, for example \"rate(failed_total[1m])\"";
        cx.tell(Code::OutOfRange, &place.key("query"), "the query is empty".into(), "asks nothing", help);
    }
    let url = web::url(raw.url.as_ref()?, &place.key("url"), cx)?;
    Some(CheckKind::Prometheus { url, query: query.clone(), min: check.min, max: check.max })
}

fn webhook(raw: &RawWebhook, path: &Path, cx: &mut Context<'_>) -> Option<CheckKind> {
    let timeout = raw.timeout.map_or(TIMEOUT, |timeout| timeout.0);
    if timeout.is_zero() {
        let message = format!("{} gets no time to answer", path.words());
        cx.tell(Code::OutOfRange, &path.key("timeout"), message, "not \"no limit\" here", "write for example \"5s\"");
    }
    Some(CheckKind::Webhook { url: web::url(raw.url.as_ref()?, &path.key("url"), cx)?, timeout })
}

fn command(words: &[String], path: &Path, cx: &mut Context<'_>) -> Option<CheckKind> {
    if words.first().is_none_or(|program| program.trim().is_empty()) {
        if !cx.is_flawed(path) {
            let help = "write the program and its arguments, for example [\"./smoke.sh\", \"{endpoint}\"]";
            cx.tell(Code::OutOfRange, path, format!("{} names no program", path.words()), "nothing to run", help);
        }
        return None;
    }
    Some(CheckKind::Command(words.to_vec()))
}
