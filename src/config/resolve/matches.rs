//! The `match` tables of routes and rules: hosts, paths, methods; the rest is in `conditions`.

use super::{Context, conditions};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{OneOrMany, RawMatch};
use crate::config::{HostMatch, Match, PathMatch};

pub fn alternatives(raw: &OneOrMany<RawMatch>, path: &Path, cx: &mut Context<'_>) -> Vec<Match> {
    if raw.as_slice().is_empty() {
        let problem = cx.problem(Code::BadMatch, path, format!("`{path}` is an empty list: it matches nothing"));
        problem.label = Some("no alternative".into());
        problem.help = Some("leave `match` out to match every request".into());
    }
    let all = raw.as_slice().iter().enumerate();
    all.map(|(i, one)| alternative(one, &if raw.is_list() { path.index(i) } else { path.clone() }, cx)).collect()
}

fn alternative(raw: &RawMatch, path: &Path, cx: &mut Context<'_>) -> Match {
    Match {
        host: host(raw, path, cx),
        path: path_match(raw, path, cx),
        methods: methods(raw, path, cx),
        headers: conditions::headers(&raw.header, path, cx),
        cookies: conditions::cookies(&raw.cookie, path, cx),
        queries: conditions::queries(&raw.query, path, cx),
        client_ip: conditions::client_ip(raw, path, cx),
    }
}

fn bad(cx: &mut Context<'_>, path: &Path, message: String, label: &str, help: &str) {
    cx.tell(Code::BadMatch, path, message, label, help);
}

fn host(raw: &RawMatch, path: &Path, cx: &mut Context<'_>) -> Option<HostMatch> {
    let text = raw.host.as_deref()?;
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    match host_name(name) {
        Ok(name) if wildcard && !name.starts_with('[') => Some(HostMatch::Suffix(format!(".{name}"))),
        Ok(name) if !wildcard => Some(HostMatch::Exact(name)),
        problem => {
            let why = problem.err().unwrap_or("an address has no subdomains");
            let message = format!("{text:?} is not a host to match: {why}");
            let help = "write a name such as \"shop.example.com\", or \"*.example.com\" for all below it";
            bad(cx, &path.key("host"), message, why, help);
            None
        }
    }
}

/// A host name or IP address as `Host` carries it, lower case, without final dot.
///
/// # Errors
/// What is wrong with it.
pub fn host_name(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if let Some(inner) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().map(|ip| format!("[{ip}]")).map_err(|_| "not an IPv6 address");
    }
    if let Ok(ip) = name.parse::<std::net::Ipv6Addr>() {
        return Ok(format!("[{ip}]"));
    }
    match () {
        () if name.is_empty() => Err("it is empty"),
        () if name.contains(':') => Err("it must not have a port"),
        () if name.contains('/') => Err("it must not have a scheme or path"),
        () if name.contains('*') => Err("`*` is allowed only as the whole first label"),
        () if name.len() > 253 => Err("it is longer than 253 characters"),
        () if name.split('.').any(str::is_empty) => Err("it has an empty label"),
        () if name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) => Ok(name),
        () => Err("it has characters no host name has"),
    }
}

fn path_match(raw: &RawMatch, path: &Path, cx: &mut Context<'_>) -> Option<PathMatch> {
    let given = [("path", &raw.path), ("path_prefix", &raw.path_prefix), ("path_regex", &raw.path_regex)];
    let mut given = given.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?)));
    let (key, text) = given.next()?;
    if let Some((second, _)) = given.next() {
        let message = format!("`{key}` and `{second}` cannot stand together");
        let help = "give one of path, path_prefix, path_regex; for \"or\" make `match` a list";
        bad(cx, &path.key(second), message, "a second condition on the path", help);
    }
    let path = path.key(key);
    match key {
        "path_regex" => conditions::pattern(text, &path, cx).map(PathMatch::Regex),
        "path_prefix" => plain_path(text, &path, cx).then(|| PathMatch::Prefix(text.trim_end_matches('/').to_owned())),
        _ => plain_path(text, &path, cx).then(|| PathMatch::Exact(text.to_owned())),
    }
}

/// A path that a request can have after it has been normalised.
fn plain_path(text: &str, path: &Path, cx: &mut Context<'_>) -> bool {
    let (label, help) = match () {
        () if !text.starts_with('/') => ("does not start with `/`", format!("write \"/{text}\"")),
        () if text.contains(['?', '#']) => ("`?` and `#` are not part of a path", "write the path alone".to_owned()),
        () if text.split('/').any(|s| s == "." || s == "..") => {
            ("dot segments are resolved before matching", "write the path without them".to_owned())
        }
        () if text.contains(|c: char| c.is_ascii_control() || c == ' ' || c == '\\') => {
            ("no request has this character in its path", "write it percent-encoded".to_owned())
        }
        () => return true,
    };
    bad(cx, path, format!("{text:?} is not a path that can match"), label, &help);
    false
}

fn methods(raw: &RawMatch, path: &Path, cx: &mut Context<'_>) -> Vec<String> {
    let Some(method) = &raw.method else { return Vec::new() };
    let path = path.key("method");
    if method.as_slice().is_empty() {
        let message = format!("`{path}` is an empty list: it matches nothing");
        bad(cx, &path, message, "no method", "leave `method` out to match every method");
    }
    for text in method.as_slice() {
        if http::Method::from_bytes(text.as_bytes()).is_err() {
            bad(cx, &path, format!("{text:?} is not a method"), "not a method", "write for example \"GET\"");
        }
    }
    method.as_slice().iter().map(|m| m.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_as_in_the_host_field() {
        for (text, name) in [
            ("Shop.Example.COM.", "shop.example.com"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
            ("[::1]", "[::1]"),
            ("a_b-c", "a_b-c"),
        ] {
            assert_eq!(host_name(text).as_deref(), Ok(name));
        }
        for text in ["", ".", "a..b", "shop:80", "http://shop", "*", "a*b", "sh op", "é", "[x]"] {
            assert!(host_name(text).is_err(), "{text}");
        }
    }
}
