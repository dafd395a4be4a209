//! The parts of a split: who gets which version, and what happens when an endpoint fails.

use toml::Value;

use super::routes::one_match;
use super::{limit, table, text, texts, time};
use crate::config::{
    Balance, Eject, EndpointSpec, HashKey, Hold, HostHeader, OnUnavailable, Protocol, Retries, RetryOn, Rule,
    RuleChoice, Split, Sticky, UpstreamTimeouts, WeighBy, sizes,
};

pub fn weigh_by(by: WeighBy) -> &'static str {
    match by {
        WeighBy::Weight => "weight",
        WeighBy::Endpoints => "endpoints",
    }
}

pub fn balance(b: &Balance) -> &'static str {
    match b {
        Balance::LeastRequests => "least_requests",
        Balance::RoundRobin => "round_robin",
        Balance::Hash(_) => "hash",
    }
}

pub fn hash(key: &HashKey) -> Value {
    match key {
        HashKey::ClientIp => table([("by", text("client_ip"))]),
        HashKey::Header(name) => table([("by", text("header")), ("name", text(name.as_str()))]),
        HashKey::Cookie(name) => table([("by", text("cookie")), ("name", text(name))]),
    }
}

pub fn eject(e: Option<&Eject>) -> Value {
    let Some(e) = e else { return table([("errors", Value::Integer(0))]) };
    table([
        ("errors", Value::Integer(e.errors.into())),
        ("for", time(e.duration)),
        ("max_percent", Value::Integer(e.max_percent.into())),
    ])
}

pub fn unavailable(on: &OnUnavailable) -> &'static str {
    match on {
        OnUnavailable::Spill => "spill",
        OnUnavailable::Fail => "fail",
        OnUnavailable::Hold(_) => "hold",
    }
}

pub fn hold(h: &Hold) -> Value {
    table([("timeout", time(h.timeout)), ("requests", Value::Integer(h.requests.into()))])
}

pub fn timeouts(t: &UpstreamTimeouts) -> Value {
    table([
        ("connect", limit(t.connect)),
        ("first_byte", limit(t.first_byte)),
        ("total", limit(t.total)),
        ("stall", limit(t.stall)),
        ("idle", limit(t.idle)),
    ])
}

pub fn sticky(s: &Sticky) -> Value {
    match s {
        Sticky::Cookie { name, ttl } => table([("by", text("cookie")), ("name", text(name)), ("ttl", time(*ttl))]),
        Sticky::Header(name) => table([("by", text("header")), ("name", text(name.as_str()))]),
        Sticky::ClientIp => table([("by", text("client_ip"))]),
    }
}

pub fn retries(r: &Retries) -> Value {
    table([
        ("attempts", Value::Integer(r.attempts.into())),
        ("on", on(&r.on)),
        ("methods", texts(&r.methods)),
        ("budget", Value::Float(r.budget)),
        ("rescue", r.rescue.into()),
        ("body_bytes", Value::String(sizes::format(r.body_bytes as u64))),
    ])
}

fn on(on: &RetryOn) -> Value {
    let words = [("connect", on.connect), ("reset", on.reset), ("timeout", on.timeout)];
    let given = words.iter().filter(|(_, given)| *given).map(|(word, _)| text(word));
    Value::Array(given.chain(on.statuses.iter().map(|s| text(&s.to_string()))).collect())
}

pub fn rule(r: &Rule, split: &Split) -> Value {
    let name = |version: usize| split.versions.get(version).map_or("", |v| v.name.as_str());
    let choice = match &r.choice {
        RuleChoice::Version(version) => ("version", text(name(*version))),
        RuleChoice::Weights(weights) => {
            let weight = |(version, weight): &(usize, crate::model::Weight)| {
                (name(*version), Value::Integer(weight.value().into()))
            };
            ("weights", table(weights.iter().map(weight)))
        }
    };
    let matches = Value::Array(r.matches.iter().map(one_match).collect());
    table([("name", text(&r.name)), ("match", matches), choice, ("test", r.test.into())])
}

/// A table only where there is more to say than the address.
pub fn endpoint(spec: &EndpointSpec, scheme: &str) -> Value {
    let address = text(&format!("{scheme}{}", spec.target));
    match spec.weight {
        1 => address,
        weight => table([("address", address), ("weight", Value::Integer(weight.into()))]),
    }
}

pub fn protocol(p: Protocol) -> &'static str {
    match p {
        Protocol::Auto => "auto",
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
    }
}

pub fn host(h: HostHeader) -> &'static str {
    match h {
        HostHeader::Client => "client",
        HostHeader::Endpoint => "endpoint",
    }
}
