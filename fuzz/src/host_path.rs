//! Hosts and paths: a normal form is its own normal form, cannot be read in two ways, and is one for all spellings, so
//! that no spelling takes another route.

use std::borrow::Cow;
use std::sync::OnceLock;

use weir::config::check_text;
use weir::routing::{Query, RouteTable, normal_host, normal_path, strip_prefix};

const ROUTES: &str = r#"
listeners.web.bind = "127.0.0.1:8080"
routes = [
  { name = "exact", match = { host = "a.b", path = "/a" }, respond = { code = 200 } },
  { name = "wildcard", match = { host = "*.b" }, respond = { code = 200 } },
  { name = "prefix", match = { path_prefix = "/a/b" }, respond = { code = 200 } },
  { name = "regex", match = { path_regex = "/[a-z]+/admin(/.*)?" }, respond = { code = 200 } },
  { name = "admin", match = { path_prefix = "/admin" }, respond = { code = 200 } },
  { name = "rest", respond = { code = 200 } },
]
"#;

/// Input: a host, LF, a path, LF, bytes that choose another spelling of both.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let (host, path, choices) = (lines.next().unwrap_or(""), lines.next().unwrap_or("/"), lines.next().unwrap_or(""));
    let name = normal_host(host).ok().inspect(|name| sound_host(name));
    let normal = normal_path(path).ok().inspect(|normal| sound_path(normal));
    let (Some(name), Some(normal)) = (name, normal) else { return };
    let spelled_host = other_host(&name, choices.as_bytes());
    let spelled_path = other_path(&normal, choices.as_bytes());
    let again = normal_host(&spelled_host).expect("another spelling of a host is refused");
    assert_eq!(again, name, "{spelled_host:?}");
    let again_path = normal_path(&spelled_path).unwrap_or_else(|_| panic!("refused: {spelled_path:?} of {normal:?}"));
    assert_eq!(again_path, normal, "{spelled_path:?}");
    assert_eq!(route(&name, &normal), route(&again, &again_path));
}

fn sound_host(name: &str) {
    assert_eq!(normal_host(name).as_deref(), Ok(name), "not stable");
    assert!(name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()), "{name:?}");
    assert!(!name.contains(['/', '\\', '@', '%', '?', '#', ',']) && !name.ends_with('.'), "{name:?}");
    assert!(name.starts_with('[') || !name.contains(':'), "a port in {name:?}");
}

fn sound_path(path: &str) {
    assert_eq!(normal_path(path).as_deref(), Ok(path), "not stable");
    assert!(path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()), "{path:?}");
    assert!(!path.contains(['\\', '?', '#']), "{path:?}");
    for segment in path.split('/') {
        let name = segment.split(';').next().unwrap_or("").to_ascii_lowercase().replace("%2e", ".");
        assert!(name != "." && name != "..", "a dot segment in {path:?}");
    }
    for prefix in 0..=path.len() {
        let rest = strip_prefix(path, prefix);
        assert_eq!(normal_path(rest).as_deref(), Ok(rest), "behind a prefix of {prefix} of {path:?}");
    }
}

fn other_host(name: &str, choices: &[u8]) -> String {
    // No host has one spelling.
    if name.is_empty() {
        return String::new();
    }
    let odd = |i: usize| choices.get(i % choices.len().max(1)).is_some_and(|b| b % 2 == 1);
    let mut spelled: String =
        name.chars().enumerate().map(|(i, c)| if odd(i) { c.to_ascii_uppercase() } else { c }).collect();
    if odd(0) && !name.starts_with('[') {
        spelled.push('.');
    }
    if odd(1) {
        spelled.push_str(":8080");
    }
    spelled
}

/// Escapes letters that need none, and puts in segments that lead nowhere.
fn other_path(path: &str, choices: &[u8]) -> String {
    let mut spelled = String::new();
    for (i, c) in path.chars().enumerate() {
        let choice = choices.get(i % choices.len().max(1)).map_or(0, |b| b % 4);
        let is_in_escape = path[..i].ends_with('%') || (i > 1 && path[..i - 1].ends_with('%'));
        match (c, choice) {
            ('/', 1) => spelled.push_str("/./"),
            ('/', 2) => spelled.push_str("/x/%2E./"),
            (c, 1) if !is_in_escape && (c.is_ascii_alphanumeric() || "-._~".contains(c)) => {
                spelled.push_str(&format!("%{:02X}", c as u32));
            }
            (c, _) => spelled.push(c),
        }
    }
    spelled
}

fn route(host: &Cow<'_, str>, path: &Cow<'_, str>) -> Option<usize> {
    static TABLE: OnceLock<RouteTable> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let loaded = check_text("weir.toml", ROUTES, &|_| None);
        RouteTable::new(&loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.text(false))))
    });
    let headers = http::HeaderMap::new();
    let query = Query { listener: Some(0), host, path, method: "GET", headers: &headers, query: None, client: None };
    table.find(&query).map(|found| found.route)
}
