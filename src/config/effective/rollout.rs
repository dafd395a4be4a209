//! `[splits.NAME.rollout]` with every default filled in; `to` only if it is written, for its default changes.

use toml::Value;

use super::{table, text, texts, time};
use crate::config::{Analysis, Check, CheckKind, OnInconclusive, OnRegressed, Rollout, Step};

pub fn rollout(r: &Rollout) -> Value {
    let on_regressed = match r.on_regressed {
        OnRegressed::Rollback => "rollback",
        OnRegressed::Pause => "pause",
    };
    let on_inconclusive = match r.on_inconclusive {
        OnInconclusive::Hold => "hold",
        OnInconclusive::Advance => "advance",
        OnInconclusive::Rollback => "rollback",
    };
    let to = r.to.as_ref().map(|to| ("to", text(to.as_str())));
    let mut entries: Vec<_> = to.into_iter().collect();
    entries.extend([
        ("strategy", text(r.strategy.as_str())),
        ("auto_start", r.auto_start.into()),
        ("steps", Value::Array(r.steps.iter().map(step).collect())),
        ("on_regressed", text(on_regressed)),
        ("on_inconclusive", text(on_inconclusive)),
        ("max_wait", time(r.max_wait)),
        ("analysis", r.analysis.as_ref().map_or(false.into(), analysis)),
    ]);
    if !r.checks.is_empty() {
        entries.push(("checks", Value::Array(r.checks.iter().map(check).collect())));
    }
    table(entries)
}

fn step(s: &Step) -> Value {
    table([("weight", Value::Float(s.weight)), ("for", time(s.hold)), ("approve", s.approve.into())])
}

fn analysis(a: &Analysis) -> Value {
    let mut errors = vec![("ratio", Value::Float(a.errors.ratio)), ("margin", Value::Float(a.errors.margin))];
    errors.extend(a.errors.max.map(|max| ("max", Value::Float(max))));
    let mut latency = vec![("slower", Value::Float(a.latency.slower))];
    latency.extend(a.latency.max_p99.map(|max| ("max_p99", time(max))));
    table([
        ("false_alarm", Value::Float(a.false_alarm)),
        ("errors", table(errors)),
        ("latency", table(latency)),
        ("warm_up", time(a.warm_up)),
    ])
}

fn check(c: &Check) -> Value {
    let mut entries = vec![("name", text(c.name.as_str())), ("at", text(c.at.as_str()))];
    match &c.ask {
        CheckKind::Prometheus { url, query, min, max } => {
            entries.push(("prometheus", table([("url", text(&url.whole())), ("query", text(query))])));
            entries.extend(min.map(|min| ("min", Value::Float(min))));
            entries.extend(max.map(|max| ("max", Value::Float(max))));
        }
        CheckKind::Webhook { url, timeout } => {
            entries.push(("webhook", table([("url", text(&url.whole())), ("timeout", time(*timeout))])));
        }
        CheckKind::Command(words) => entries.push(("command", texts(words))),
    }
    entries.extend([("every", time(c.every)), ("failures", Value::Integer(c.failures.into()))]);
    table(entries)
}
