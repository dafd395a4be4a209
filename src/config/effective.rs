//! The configuration in force, written as a file: every default filled in, every variable replaced.
//!
//! Invariant: loading the text gives the same `Config` again.

use std::time::Duration;

use toml::{Table, Value};

use super::{Config, HostMatch, Level, Listener, LogFormat, Match, PathMatch, Route, Split, Version, durations, sizes};

/// TOML text for `GET /config`.
pub fn effective(config: &Config) -> String {
    let mut root = Table::new();
    root.insert("workers".into(), integer(config.workers));
    root.insert("watch".into(), config.watch.into());
    root.insert(
        "shutdown".into(),
        table([("delay", time(config.shutdown.delay)), ("timeout", time(config.shutdown.timeout))]),
    );
    root.insert("listeners".into(), named(&config.listeners, |l| (l.name.as_str(), listener(l))));
    root.insert("routes".into(), Value::Array(config.routes.iter().map(route).collect()));
    root.insert("splits".into(), named(&config.splits, |s| (s.name.as_str(), split(s))));
    root.insert("admin".into(), admin(config));
    root.insert("telemetry".into(), telemetry(config));
    // Only strings, numbers, booleans, lists and tables with string keys are in it: nothing toml could refuse.
    toml::to_string_pretty(&root).unwrap_or_default()
}

fn table<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Table(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

fn named<T>(all: &[T], entry: impl Fn(&T) -> (&str, Value)) -> Value {
    table(all.iter().map(entry))
}

fn integer(n: usize) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

/// `$${` so that the text means the same when it is loaded.
fn text(text: &str) -> Value {
    Value::String(text.replace("${", "$${"))
}

fn texts<T: ToString>(all: &[T]) -> Value {
    Value::Array(all.iter().map(|t| text(&t.to_string())).collect())
}

fn time(duration: Duration) -> Value {
    Value::String(durations::format(duration))
}

fn limit(duration: Option<Duration>) -> Value {
    time(duration.unwrap_or_default())
}

fn listener(l: &Listener) -> Value {
    let limits = [
        ("connections", integer(l.limits.connections)),
        ("header_bytes", Value::String(sizes::format(l.limits.header_bytes as u64))),
    ];
    let timeouts = [("header", limit(l.timeouts.header)), ("idle", limit(l.timeouts.idle))];
    table([("bind", texts(&l.bind)), ("limits", table(limits)), ("timeouts", table(timeouts))])
}

fn route(r: &Route) -> Value {
    let mut entries = vec![("name", text(r.name.as_str()))];
    if !r.listeners.is_empty() {
        entries.push(("listeners", texts(&r.listeners)));
    }
    if !r.matches.is_empty() {
        entries.push(("match", Value::Array(r.matches.iter().map(one_match).collect())));
    }
    entries.push(("split", text(r.split().map_or("", |s| s.as_str()))));
    table(entries)
}

fn one_match(m: &Match) -> Value {
    let mut entries = Vec::new();
    match &m.host {
        Some(HostMatch::Exact(name)) => entries.push(("host", text(name))),
        Some(HostMatch::Suffix(suffix)) => entries.push(("host", text(&format!("*{suffix}")))),
        None => {}
    }
    match &m.path {
        Some(PathMatch::Exact(path)) => entries.push(("path", text(path))),
        Some(PathMatch::Prefix(path)) => entries.push(("path_prefix", text(if path.is_empty() { "/" } else { path }))),
        Some(PathMatch::Regex(pattern)) => entries.push(("path_regex", text(pattern))),
        None => {}
    }
    if !m.methods.is_empty() {
        entries.push(("method", texts(&m.methods)));
    }
    table(entries)
}

fn split(s: &Split) -> Value {
    let timeouts = [
        ("connect", limit(s.timeouts.connect)),
        ("first_byte", limit(s.timeouts.first_byte)),
        ("total", limit(s.timeouts.total)),
        ("idle", limit(s.timeouts.idle)),
    ];
    let pool = [
        ("idle_per_endpoint", integer(s.pool.idle_per_endpoint)),
        ("max_in_flight", Value::Integer(s.pool.max_in_flight.into())),
    ];
    table([
        ("stable", text(s.stable.as_str())),
        ("expose_version", s.expose_version.into()),
        ("timeouts", table(timeouts)),
        ("drain", table([("timeout", time(s.drain.timeout))])),
        ("pool", table(pool)),
        ("versions", named(&s.versions, |v| (v.name.as_str(), version(v)))),
    ])
}

fn version(v: &Version) -> Value {
    table([("weight", Value::Integer(v.weight.value().into())), ("endpoints", texts(&v.endpoints))])
}

fn admin(config: &Config) -> Value {
    let admin = &config.admin;
    table([
        ("bind", text(&admin.bind.to_string())),
        ("hosts", texts(&admin.hosts)),
        ("state_dir", text(&admin.state_dir.to_string_lossy())),
    ])
}

fn telemetry(config: &Config) -> Value {
    let log = &config.telemetry.log;
    let level = match log.level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let format = match log.format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let log = table([
        ("level", text(level)),
        ("format", text(format)),
        ("access", log.access.into()),
        ("sample", Value::Float(log.sample)),
    ]);
    let bind = config.telemetry.bind.map(|b| ("bind", text(&b.to_string())));
    table(bind.into_iter().chain([("log", log)]))
}
