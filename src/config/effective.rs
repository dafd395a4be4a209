//! The configuration in force, written as a file: every default filled in, every variable replaced.
//!
//! Invariant: loading the text gives the same `Config` again, from whatever folder: files are written with their full
//! path (so that is what names a certificate then). No certificate or key is in it, but the addresses of those outside
//! who are asked or told are, with their secrets: `effective_shown` is for people.

mod health;
mod notify;
mod rollout;
mod routes;
mod splits;

use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::{
    Balance, Bind, Config, Level, Listener, ListenerTls, LogFormat, OnUnavailable, Split, TlsVersion, Trusted,
    UpstreamTls, Version, durations, sizes,
};

/// TOML text for `GET /config`: without the secrets that addresses have in them.
pub fn effective_shown(config: &Config) -> String {
    effective(&notify::masked(config))
}

/// TOML text from which the same configuration can be loaded again.
pub fn effective(config: &Config) -> String {
    let mut root = Table::new();
    root.insert("workers".into(), integer(config.workers));
    root.insert("watch".into(), config.watch.into());
    root.insert(
        "shutdown".into(),
        table([("delay", time(config.shutdown.delay)), ("timeout", time(config.shutdown.timeout))]),
    );
    root.insert("listeners".into(), named(&config.listeners, |l| (l.name.as_str(), listener(l))));
    root.insert("routes".into(), Value::Array(config.routes.iter().map(routes::route).collect()));
    root.insert("splits".into(), named(&config.splits, |s| (s.name.as_str(), split(s))));
    root.insert("dns".into(), dns(config));
    root.insert("admin".into(), admin(config));
    root.insert("telemetry".into(), telemetry(config));
    if !config.notify.is_empty() {
        root.insert("notify".into(), Value::Array(config.notify.iter().map(notify::notify).collect()));
    }
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

/// A file that is found from any folder.
fn file(path: &Path) -> Value {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    text(&full.to_string_lossy())
}

fn listener(l: &Listener) -> Value {
    let mut limits = vec![
        ("connections", integer(l.limits.connections)),
        ("header_bytes", Value::String(sizes::format(l.limits.header_bytes as u64))),
        ("streams", Value::Integer(l.limits.streams.into())),
    ];
    limits.extend(l.limits.body_bytes.map(|n| ("body_bytes", Value::String(sizes::format(n)))));
    let t = &l.timeouts;
    let timeouts = [("header", limit(t.header)), ("body", limit(t.body)), ("idle", limit(t.idle))];
    let mut entries = vec![
        ("bind", texts(&l.bind)),
        ("trusted_proxies", trusted(&l.trusted_proxies)),
        ("proxy_protocol", l.proxy_protocol.into()),
        ("limits", table(limits)),
        ("timeouts", table(timeouts)),
    ];
    let mode = l.bind.iter().find_map(|b| if let Bind::Unix(unix) = b { Some(unix.mode) } else { None });
    entries.extend(mode.map(|mode| ("socket_mode", Value::String(format!("{mode:04o}")))));
    entries.extend(l.redirect_https.map(|port| ("redirect_https", Value::Integer(port.into()))));
    entries.extend(l.tls.as_ref().map(|tls| ("tls", listener_tls(tls))));
    table(entries)
}

fn trusted(t: &Trusted) -> Value {
    let unix = t.unix.then(|| "unix".to_owned());
    texts(&t.networks.iter().map(ToString::to_string).chain(unix).collect::<Vec<_>>())
}

fn listener_tls(tls: &ListenerTls) -> Value {
    let pairs = tls.certificates.iter().map(|c| table([("cert", file(&c.file)), ("key", file(&c.key_file))]));
    let min_version = match tls.min_version {
        TlsVersion::V12 => "1.2",
        TlsVersion::V13 => "1.3",
    };
    let mut entries = vec![
        ("certificates", Value::Array(pairs.collect())),
        ("min_version", text(min_version)),
        ("strict_sni", tls.strict_sni.into()),
    ];
    entries.extend(tls.client_ca.as_ref().map(|ca| ("client_ca", file(&ca.file))));
    table(entries)
}

fn split(s: &Split) -> Value {
    let pool = [
        ("idle_per_endpoint", integer(s.pool.idle_per_endpoint)),
        ("max_in_flight", Value::Integer(s.pool.max_in_flight.into())),
        ("queue", Value::Integer(s.pool.queue.into())),
        ("queue_timeout", time(s.pool.queue_timeout)),
        ("max_age", limit(s.pool.max_age)),
    ];
    let drain = [
        ("timeout", time(s.drain.timeout)),
        ("upgraded_timeout", time(s.drain.upgraded_timeout)),
        ("slow_start", time(s.drain.slow_start)),
    ];
    let mut entries = vec![
        ("stable", text(s.stable.as_str())),
        ("weigh_by", text(splits::weigh_by(s.weigh_by))),
        ("balance", text(splits::balance(&s.balance))),
        ("expose_version", s.expose_version.into()),
        ("on_unavailable", text(splits::unavailable(&s.on_unavailable))),
        ("timeouts", splits::timeouts(&s.timeouts)),
        ("retries", splits::retries(&s.retries)),
        ("eject", splits::eject(s.eject.as_ref())),
        ("drain", table(drain)),
        ("pool", table(pool)),
    ];
    entries.extend(s.sticky.as_ref().map(|sticky| ("sticky", splits::sticky(sticky))));
    if let Balance::Hash(key) = &s.balance {
        entries.push(("hash", splits::hash(key)));
    }
    if let OnUnavailable::Hold(hold) = &s.on_unavailable {
        entries.push(("hold", splits::hold(hold)));
    }
    entries.extend(s.rollout.as_ref().map(|r| ("rollout", rollout::rollout(r))));
    entries.push(("versions", named(&s.versions, |v| (v.name.as_str(), version(v)))));
    if !s.rules.is_empty() {
        entries.push(("rules", Value::Array(s.rules.iter().map(|r| splits::rule(r, s)).collect())));
    }
    table(entries)
}

fn version(v: &Version) -> Value {
    let scheme = if v.tls.is_some() { "https://" } else { "" };
    let endpoints = v.endpoints.iter().map(|spec| splits::endpoint(spec, scheme)).collect();
    let mut entries = vec![("weight", Value::Integer(v.weight.value().into())), ("endpoints", Value::Array(endpoints))];
    if v.names().next().is_some() {
        entries.push(("dns_refresh", time(v.dns_refresh)));
    }
    entries.push(("protocol", text(splits::protocol(v.protocol))));
    entries.push(("host", text(splits::host(v.host))));
    entries.extend(v.tls.as_ref().map(|tls| ("tls", upstream_tls(tls))));
    entries.extend(v.health.as_ref().map(|check| ("health", health::check(check))));
    table(entries)
}

fn upstream_tls(tls: &UpstreamTls) -> Value {
    let mut entries = Vec::new();
    entries.extend(tls.ca.as_ref().map(|ca| ("ca", file(&ca.file))));
    entries.extend(tls.server_name.as_ref().map(|name| ("server_name", text(&name.to_str()))));
    if let Some(client) = &tls.client {
        entries.extend([("cert", file(&client.file)), ("key", file(&client.key_file))]);
    }
    table(entries)
}

fn dns(config: &Config) -> Value {
    let dns = &config.dns;
    table([("servers", texts(&dns.servers)), ("hosts", text(&dns.hosts.to_string_lossy()))])
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
