//! Listeners, and that no two things want the same address.

use std::net::SocketAddr;

use super::{Context, address};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawConfig, RawLimits, RawListener};
use crate::config::{Admin, Bind, ClientTimeouts, Limits, Listener, Telemetry, Trusted, sizes};
use crate::model::ListenerName;

/// Heads smaller than this are sent by no browser; larger than this would let clients fill the memory.
const HEADER_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 20;

pub fn listeners(raw: &RawConfig, cx: &mut Context<'_>) -> Vec<Listener> {
    let group = Path::root().key("listeners");
    raw.listeners.iter().filter_map(|(name, raw)| listener(name, raw, &group.key(name), cx)).collect()
}

fn listener(name: &str, raw: &RawListener, path: &Path, cx: &mut Context<'_>) -> Option<Listener> {
    let bind = addresses(raw, path, cx);
    let limits = limits(&raw.limits, path, cx);
    let name = cx.name(ListenerName::new(name), name, path)?;
    let timeouts = ClientTimeouts {
        header: raw.timeouts.header.limit(),
        body: raw.timeouts.body.limit(),
        idle: raw.timeouts.idle.limit(),
    };
    let bind = bind.into_iter().map(Bind::Tcp).collect();
    Some(Listener {
        name,
        bind,
        redirect_https: None,
        trusted_proxies: Trusted::default(),
        proxy_protocol: false,
        limits,
        timeouts,
        tls: None,
    })
}

fn addresses(raw: &RawListener, path: &Path, cx: &mut Context<'_>) -> Vec<SocketAddr> {
    let Some(bind) = &raw.bind else { return Vec::new() };
    let path = path.key("bind");
    if bind.as_slice().is_empty() {
        let problem = cx.problem(Code::MissingKey, &path, format!("`{path}` is an empty list"));
        problem.label = Some("no address".into());
        problem.help = Some("add an address, for example \"127.0.0.1:8080\"".into());
    }
    let mut found = Vec::new();
    for (i, text) in bind.as_slice().iter().enumerate() {
        match address::bind(text) {
            Ok(address) => found.push(address),
            Err(error) => error.fill(cx.problem(Code::BadAddress, &bind_path(&path, bind.is_list(), i), "")),
        }
    }
    found
}

fn bind_path(path: &Path, is_list: bool, i: usize) -> Path {
    if is_list { path.index(i) } else { path.clone() }
}

fn limits(raw: &RawLimits, path: &Path, cx: &mut Context<'_>) -> Limits {
    if !HEADER_BYTES.contains(&raw.header_bytes.0) {
        let path = path.key("limits").key("header_bytes");
        let message = format!("`{path}` is {}", sizes::format(raw.header_bytes.0));
        let problem = cx.problem(Code::OutOfRange, &path, message);
        problem.label = Some("allowed: 1KiB to 1MiB".into());
        problem.help = Some("32KiB is the default".into());
    }
    Limits {
        connections: raw.connections,
        header_bytes: usize::try_from(raw.header_bytes.0).unwrap_or(usize::MAX),
        body_bytes: None,
        streams: 128,
    }
}

/// Reports every pair of addresses that could not be bound together.
pub fn unique_addresses(
    listeners: &[Listener],
    raw: &RawConfig,
    admin: Option<&Admin>,
    telemetry: Option<&Telemetry>,
    cx: &mut Context<'_>,
) {
    let root = Path::root();
    let mut taken: Vec<(SocketAddr, Path)> = Vec::new();
    let own = |section: &str| root.key(section).key("bind");
    let mut wanted: Vec<(SocketAddr, Path)> = Vec::new();
    for listener in listeners {
        let path = root.key("listeners").key(listener.name.as_str()).key("bind");
        let is_list =
            raw.listeners.get(listener.name.as_str()).and_then(|l| l.bind.as_ref()).is_some_and(|b| b.is_list());
        let tcp = listener.bind.iter().enumerate().filter_map(|(i, bind)| match bind {
            Bind::Tcp(address) => Some((*address, bind_path(&path, is_list, i))),
            Bind::Unix(_) => None,
        });
        wanted.extend(tcp);
    }
    wanted.extend(telemetry.and_then(|t| t.bind).map(|a| (a, own("telemetry"))));
    wanted.extend(admin.map(|a| (a.bind, own("admin"))));
    for (address, path) in wanted {
        if let Some((_, first)) = taken.iter().find(|(other, _)| collide(address, *other)) {
            let first = first.clone();
            collision(address, &path, &first, cx);
        }
        taken.push((address, path));
    }
}

fn collision(address: SocketAddr, path: &Path, first: &Path, cx: &mut Context<'_>) {
    let place = cx.tree.place_of(first);
    // A default is in no file: point at the one that is.
    let (path, first, place) = match (cx.tree.find(path), place) {
        (None, Some(_)) => (first, path, None),
        (_, place) => (path, first, place),
    };
    let problem = cx.problem(Code::BadAddress, path, format!("`{path}` and `{first}` both want {address}"));
    problem.label = Some(format!("already wanted by `{first}`"));
    problem.related = place.map(|p| (p, "first here".into()));
    problem.help = Some("give one of them another port".into());
}

/// Port 0 is a free port each time, and never collides.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let wildcard = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() != 0 && (address::same(a, b) || wildcard && a.port() == b.port())
}
