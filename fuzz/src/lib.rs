//! What must hold whatever weir is sent, one check per file. `fuzz_targets/` runs them under libFuzzer, `tests/seeds.rs`
//! over the committed seeds. A check panics when its promise is broken.

pub mod cookie_bucket;
pub mod forwarded;
pub mod host_path;
pub mod http1_path;
pub mod proxy_protocol;
pub mod toml_loader;

#[path = "../../tests/it/support/strict.rs"]
mod strict;

/// A header map of the lines `name: value` that can be one.
fn fields(lines: &[u8]) -> http::HeaderMap {
    let line = |line: &[u8]| {
        let at = line.iter().position(|b| *b == b':')?;
        let name = http::HeaderName::from_bytes(&line[..at]).ok()?;
        Some((name, http::HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?))
    };
    let mut map = http::HeaderMap::new();
    lines.split(|b| *b == b'\n').filter_map(line).for_each(|(name, value)| {
        map.append(name, value);
    });
    map
}

/// The first line, and what follows it.
fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|b| *b == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
