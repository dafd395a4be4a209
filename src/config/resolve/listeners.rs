//! Listeners, and that no two things want the same address.

use super::{Context, address, trust};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawConfig, RawLimits, RawListener};
use crate::config::{Admin, Bind, ClientTimeouts, Limits, Listener, Telemetry, sizes};
use crate::model::ListenerName;

/// Heads smaller than this are sent by no browser; larger than this would let clients fill the memory.
const HEADER_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 20;

/// Of a Unix socket: owner and group.
const SOCKET_MODE: u32 = 0o660;

pub fn listeners(raw: &RawConfig, cx: &mut Context<'_>) -> Vec<Listener> {
    let group = Path::root().key("listeners");
    raw.listeners.iter().filter_map(|(name, raw)| listener(name, raw, &group.key(name), cx)).collect()
}

fn listener(name: &str, raw: &RawListener, path: &Path, cx: &mut Context<'_>) -> Option<Listener> {
    let bind = addresses(raw, path, cx);
    let redirect_https = trust::redirect_https(raw, path, cx);
    let trusted_proxies = trust::trusted(raw, path, cx);
    let tls = trust::listener_tls(raw, path, cx);
    let limits = limits(&raw.limits, path, cx);
    let name = cx.name(ListenerName::new(name), name, path)?;
    let timeouts = ClientTimeouts {
        header: raw.timeouts.header.limit(),
        body: raw.timeouts.body.limit(),
        idle: raw.timeouts.idle.limit(),
    };
    let proxy_protocol = raw.proxy_protocol;
    Some(Listener { name, bind, redirect_https, trusted_proxies, proxy_protocol, limits, timeouts, tls })
}

fn addresses(raw: &RawListener, path: &Path, cx: &mut Context<'_>) -> Vec<Bind> {
    let mode = socket_mode(raw, path, cx);
    let Some(bind) = &raw.bind else { return Vec::new() };
    let path = path.key("bind");
    if bind.as_slice().is_empty() {
        let problem = cx.problem(Code::MissingKey, &path, format!("`{path}` is an empty list"));
        problem.label = Some("no address".into());
        problem.help = Some("add an address, for example \"127.0.0.1:8080\"".into());
    }
    let mut found = Vec::new();
    for (i, text) in bind.as_slice().iter().enumerate() {
        match address::bind(text, mode) {
            Ok(address) => found.push(address),
            Err(error) => error.fill(cx.problem(Code::BadAddress, &bind_path(&path, bind.is_list(), i), "")),
        }
    }
    found
}

fn socket_mode(raw: &RawListener, path: &Path, cx: &mut Context<'_>) -> u32 {
    let path = path.key("socket_mode");
    let Some(text) = &raw.socket_mode else { return SOCKET_MODE };
    let has_socket = raw.bind.iter().flat_map(|b| b.as_slice()).any(|text| text.starts_with("unix:"));
    if !has_socket && raw.bind.is_some() {
        let message = format!("{} has a `socket_mode` but no Unix socket", path.parent().words());
        let problem = cx.problem_at_key(Code::OutOfRange, &path, message);
        problem.label = Some("of no use".into());
        problem.help = Some("take it out, or add \"unix:/path\" to `bind`".into());
    }
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777) {
        Some(mode) => mode,
        None => {
            let problem = cx.problem(Code::OutOfRange, &path, format!("`{path}` cannot be {text:?}"));
            problem.label = Some("not permission bits".into());
            problem.help = Some("write them in octal, \"0600\" to \"0777\"; the default is \"0660\"".into());
            SOCKET_MODE
        }
    }
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
        body_bytes: raw.body_bytes.map(|size| size.0),
        streams: raw.streams,
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
    let mut taken: Vec<(Bind, Path)> = Vec::new();
    let own = |section: &str| root.key(section).key("bind");
    let mut wanted: Vec<(Bind, Path)> = Vec::new();
    for listener in listeners {
        let path = root.key("listeners").key(listener.name.as_str()).key("bind");
        let is_list =
            raw.listeners.get(listener.name.as_str()).and_then(|l| l.bind.as_ref()).is_some_and(|b| b.is_list());
        wanted.extend(listener.bind.iter().enumerate().map(|(i, bind)| (bind.clone(), bind_path(&path, is_list, i))));
    }
    wanted.extend(telemetry.and_then(|t| t.bind).map(|a| (Bind::Tcp(a), own("telemetry"))));
    wanted.extend(admin.map(|a| (Bind::Tcp(a.bind), own("admin"))));
    for (bind, path) in wanted {
        if let Some((_, first)) = taken.iter().find(|(other, _)| collide(&bind, other)) {
            let first = first.clone();
            collision(&bind, &path, &first, cx);
        }
        taken.push((bind, path));
    }
}

fn collision(bind: &Bind, path: &Path, first: &Path, cx: &mut Context<'_>) {
    let place = cx.tree.place_of(first);
    // A default is in no file: point at the one that is.
    let (path, first, place) = match (cx.tree.find(path), place) {
        (None, Some(_)) => (first, path, None),
        (_, place) => (path, first, place),
    };
    let problem = cx.problem(Code::BadAddress, path, format!("`{path}` and `{first}` both want {bind}"));
    problem.label = Some(format!("already wanted by `{first}`"));
    problem.related = place.map(|p| (p, "first here".into()));
    problem.help = Some(match bind {
        Bind::Tcp(_) => "give one of them another port".into(),
        Bind::Unix(_) => "give one of them another path".into(),
        Bind::Systemd(_) => "a socket belongs to one listener: name another one, or take one of them out".into(),
    });
}

/// Port 0 is a free port each time, and never collides.
fn collide(a: &Bind, b: &Bind) -> bool {
    let (a, b) = match (a, b) {
        (Bind::Tcp(a), Bind::Tcp(b)) => (*a, *b),
        (Bind::Unix(a), Bind::Unix(b)) => return a.path == b.path,
        (Bind::Systemd(a), Bind::Systemd(b)) => return a == b,
        _ => return false,
    };
    let wildcard = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() != 0 && (address::same(a, b) || wildcard && a.port() == b.port())
}
