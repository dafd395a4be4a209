//! Active checks: what a version takes over from its split and that from `[defaults]`, and what comes of it.
//!
//! Invariant: a key that means nothing for the kind of check is only ever complained about where it stands beside the
//! kind; what is inherited for another kind is left out. What several versions inherit is complained about once, at the
//! place where it is written.

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value};

use super::edits::{self, Side};
use super::{Context, redirects};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawHealth, RawHealthKind, RawProtocol, RawSplit, RawVersion};
use crate::config::{GrpcCheck, HealthCheck, HealthKind, HttpCheck, Statuses, Version};

/// More often would be an attack.
const SHORTEST: Duration = Duration::from_millis(10);
/// Mean the same for every kind.
const COMMON: [&str; 4] = ["interval", "timeout", "healthy_after", "unhealthy_after"];
const OF_HTTP: [&str; 5] = ["path", "method", "host", "headers", "expect"];
const OF_GRPC: [&str; 3] = ["host", "headers", "service"];

/// Gives every version the `health` of its split, key by key, under what it says itself.
pub fn inherit(root: &mut Value) {
    let Some(Value::Object(splits)) = root.get_mut("splits") else { return };
    for split in splits.values_mut().filter_map(Value::as_object_mut) {
        let Some(inherited) = split.get("health").and_then(Value::as_object).cloned() else { continue };
        let Some(Value::Object(versions)) = split.get_mut("versions") else { continue };
        for version in versions.values_mut().filter_map(Value::as_object_mut) {
            let own = version.entry("health").or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(own) = own {
                merge(own, &inherited);
            }
        }
    }
}

/// Puts what is inherited under what is there; of a check of another kind only what means the same for both.
pub fn merge(own: &mut Map<String, Value>, inherited: &Map<String, Value>) {
    let kind = kind_of(own).map(str::to_owned);
    let is_same = kind.is_none() || kind.as_deref() == kind_of(inherited);
    for (key, value) in inherited.iter().filter(|(key, _)| is_same || COMMON.contains(&key.as_str())) {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if let Some(kind) = kind {
        own.insert("kind".into(), kind.into());
    }
}

fn kind_of(table: &Map<String, Value>) -> Option<&str> {
    let written = table.get("kind").and_then(Value::as_str);
    written.or_else(|| table.contains_key("path").then_some("http"))
}

/// The check of the version at `path`; `raw` has what it inherits.
pub fn health(version: &RawVersion, path: &Path, cx: &mut Context<'_>) -> Option<Arc<HealthCheck>> {
    let raw = version.health.as_ref()?;
    let at = Places { version: path };
    let kind = match raw.kind.or(raw.path.as_ref().map(|_| RawHealthKind::Http))? {
        RawHealthKind::Off => return None,
        RawHealthKind::Tcp => {
            at.refuse_useless("tcp", &[], cx);
            HealthKind::Tcp
        }
        RawHealthKind::Http => {
            at.refuse_useless("http", &OF_HTTP, cx);
            HealthKind::Http(http(raw, &at, cx)?)
        }
        RawHealthKind::Grpc => {
            at.refuse_useless("grpc", &OF_GRPC, cx);
            needs_http2(version, path, cx);
            let (host, headers) = (host(raw, &at, cx), headers(raw, &at, cx));
            HealthKind::Grpc(GrpcCheck { service: raw.service.clone().unwrap_or_default(), host, headers })
        }
    };
    check_times(raw, &at, cx);
    Some(Arc::new(HealthCheck {
        kind,
        interval: raw.interval.0,
        timeout: raw.timeout.0,
        healthy_after: raw.healthy_after,
        unhealthy_after: raw.unhealthy_after,
    }))
}

/// Where a version's keys of `health` are written: there, in its split, or in `[defaults]`.
struct Places<'a> {
    version: &'a Path,
}

impl Places<'_> {
    fn tables(&self) -> [Path; 3] {
        let split = self.version.parent().parent();
        [self.version.key("health"), split.key("health"), Path::root().key("defaults").key("health")]
    }

    fn of(&self, key: &str, cx: &Context<'_>) -> Path {
        let [own, split, defaults] = self.tables().map(|table| table.key(key));
        let written = [&own, &split, &defaults].into_iter().find(|path| cx.tree.find(path).is_some());
        written.cloned().unwrap_or(own)
    }

    /// The tables that are there, the nearest first.
    fn written(&self, cx: &Context<'_>) -> Vec<Path> {
        self.tables().into_iter().filter(|path| cx.tree.find(path).is_some()).collect()
    }

    /// Once, however many versions inherit it.
    fn tell(&self, key: &str, (message, label, help): (&str, &str, &str), cx: &mut Context<'_>) {
        let path = self.of(key, cx);
        tell_once(Code::OutOfRange, &path, (message, label, help), cx);
    }

    /// Complains about keys that mean nothing for this kind, in the table that says the kind and in those above it.
    fn refuse_useless(&self, kind: &str, known: &[&str], cx: &mut Context<'_>) {
        for table in self.written(cx) {
            let useless =
                OF_HTTP.iter().chain(&["service"]).filter(|key| !known.contains(key)).map(|key| table.key(key));
            for path in useless.filter(|path| cx.tree.find(path).is_some()).collect::<Vec<_>>() {
                let message = format!("`{path}` means nothing for a check of kind {kind}");
                let help = format!("take `{}` out, or write another kind", path.last_key());
                tell_once(Code::UnknownKey, &path, (&message, "of no use", &help), cx);
            }
            if ["kind", "path"].iter().any(|key| cx.tree.find(&table.key(key)).is_some()) {
                return;
            }
        }
    }
}

fn tell_once(code: Code, path: &Path, (message, label, help): (&str, &str, &str), cx: &mut Context<'_>) {
    let key = path.to_string();
    if cx.report.diagnostics.iter().any(|d| d.code == code && d.key.as_ref() == Some(&key)) {
        return;
    }
    let problem = match code {
        Code::OutOfRange => cx.problem(code, path, message),
        _ => cx.problem_at_key(code, path, message),
    };
    (problem.label, problem.help) = (Some(label.into()), Some(help.into()));
}

fn http(raw: &RawHealth, at: &Places<'_>, cx: &mut Context<'_>) -> Option<HttpCheck> {
    let (path, method) = (path(raw, at, cx), method(raw, at, cx));
    let (host, headers) = (host(raw, at, cx), headers(raw, at, cx));
    let expect = expect(raw, at, cx);
    Some(HttpCheck { path: path?, method, host, headers, expect })
}

fn path(raw: &RawHealth, at: &Places<'_>, cx: &mut Context<'_>) -> Option<PathAndQuery> {
    let Some(text) = &raw.path else {
        let table = at.written(cx).into_iter().find(|t| cx.tree.find(&t.key("kind")).is_some());
        if let Some(table) = table.filter(|table| !cx.lacks_keys(table)) {
            let message = format!("`{table}` has no `path`");
            tell_once(Code::MissingKey, &table, (&message, "which page?", "add for example path = \"/healthz\""), cx);
        }
        return None;
    };
    let is_plain = text.starts_with('/') && !text.contains('#');
    let path = text.parse::<PathAndQuery>().ok().filter(|_| is_plain);
    if path.is_none() {
        let message = format!("a check cannot ask for the path {text:?}");
        at.tell("path", (&message, "not a path", "write for example \"/healthz\" or \"/healthz?deep=1\""), cx);
    }
    path
}

fn method(raw: &RawHealth, at: &Places<'_>, cx: &mut Context<'_>) -> Method {
    let Some(text) = &raw.method else { return Method::GET };
    match Method::from_bytes(text.to_ascii_uppercase().as_bytes()) {
        Ok(method) if method != Method::CONNECT => method,
        _ => {
            let message = format!("a check cannot ask with {text:?}");
            at.tell("method", (&message, "not a method of a check", "write for example \"GET\" or \"HEAD\""), cx);
            Method::GET
        }
    }
}

fn host(raw: &RawHealth, at: &Places<'_>, cx: &mut Context<'_>) -> Option<Authority> {
    let text = raw.host.as_ref()?;
    if !redirects::is_authority(text) {
        let message = format!("{text:?} cannot be a host");
        at.tell("host", (&message, "not a host", "write a name, for example \"shop.internal\""), cx);
        return None;
    }
    text.parse().ok()
}

fn headers(raw: &RawHealth, at: &Places<'_>, cx: &mut Context<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (text, value) in raw.headers.iter().flatten() {
        let path = at.of("headers", cx).key(text);
        if cx.report.diagnostics.iter().any(|d| d.key.as_deref() == Some(&*path.to_string())) {
            continue;
        }
        if text.eq_ignore_ascii_case("host") {
            let label = "`host` has a key of its own";
            tell_once(Code::UnknownKey, &path, ("`host` stands among `headers`", label, "write host = \"...\""), cx);
            continue;
        }
        let value = edits::set_value(text, value, &path, cx);
        headers.extend(edits::name(text, Side::Request, true, &path, cx).zip(value));
    }
    headers
}

fn expect(raw: &RawHealth, at: &Places<'_>, cx: &mut Context<'_>) -> Statuses {
    let Some(text) = &raw.expect else { return Statuses(vec![(200, 399)]) };
    let ranges: Option<Vec<_>> = text.split(',').map(|part| range(part.trim())).collect();
    ranges.map(Statuses).unwrap_or_else(|| {
        let message = format!("{text:?} names no statuses");
        let help = "write statuses from 100 to 599 and ranges of them, for example \"200-399\" or \"200,301-302\"";
        at.tell("expect", (&message, "not a list of statuses", help), cx);
        Statuses(vec![(200, 399)])
    })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|status| digits && (100..=599).contains(status))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first.trim())?, status(last.trim())?);
    (first <= last).then_some((first, last))
}

fn needs_http2(version: &RawVersion, path: &Path, cx: &mut Context<'_>) {
    if matches!(version.protocol, RawProtocol::Http1) {
        let message = format!("{} speaks HTTP/1.1 alone, and its check is of kind grpc", path.words());
        let help = "write protocol = \"http2\", or a check of kind http or tcp";
        cx.tell(Code::OutOfRange, &path.key("protocol"), message, "gRPC needs HTTP/2", help);
    }
}

fn check_times(raw: &RawHealth, at: &Places<'_>, cx: &mut Context<'_>) {
    if raw.interval.0 < SHORTEST {
        at.tell("interval", ("checks must be 10ms or more apart", "too often", "write for example \"5s\""), cx);
    }
    if raw.timeout.0.is_zero() {
        let label = "not \"no limit\" here: a check must end";
        at.tell("timeout", ("a check needs a timeout", label, "write for example \"2s\""), cx);
    }
}

/// Tells of a `health` that checks nothing, and of versions that nobody checks beside others that are checked. Where
/// nothing is said of checks none are missed: ejection needs no page to ask for.
pub fn warn_unchecked(raw: &RawSplit, versions: &[Version], path: &Path, cx: &mut Context<'_>) {
    let table = path.key("health");
    let is_silent =
        |v: &Version| raw.versions.as_ref().and_then(|all| all.get(v.name.as_str())).is_none_or(says_nothing);
    if cx.tree.find(&table).is_some() && !cx.is_flawed(&table) && versions.iter().all(is_silent) {
        let message = format!("`health` of {} checks nothing: it has no `path`", path.words());
        return warn(&table, message, "add for example path = \"/healthz\", or kind = \"tcp\"", cx);
    }
    if versions.iter().all(|v| v.health.is_none()) {
        return;
    }
    let unchecked = versions.iter().filter(|v| !v.endpoints.is_empty() && v.health.is_none() && is_silent(v));
    for version in unchecked {
        let path = path.key("versions").key(version.name.as_str());
        let message = format!("nobody checks the endpoints of {}, but those of others", path.words());
        let help = "give `health` to the split, or this version kind = \"off\" to say that it needs none";
        warn(&path, message, help, cx);
    }
}

fn says_nothing(version: &RawVersion) -> bool {
    version.health.as_ref().is_none_or(|h| h.kind.is_none() && h.path.is_none())
}

fn warn(path: &Path, message: String, help: &str, cx: &mut Context<'_>) {
    let problem = cx.problem_at_key(Code::NoHealthCheck, path, message);
    (problem.label, problem.help) = (Some("no check".into()), Some(help.into()));
}
