//! The normal form of a path: what is matched and what is forwarded.
//!
//! Dot segments are resolved (RFC 3986 section 5.2.4), escapes of unreserved characters are undone (6.2.2.2), so
//! that `/%61dmin` and `/x/../admin` cannot pass a route that guards `/admin`. `//`, `%2F` and `;` mean different
//! things to different origins and stay as they are; but `..;` is refused, which some resolve and some do not.

use std::borrow::Cow;

/// A path with a backslash, a control or non-ASCII byte, a broken escape, or a dot segment with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an unambiguous path")]
pub struct BadPath;

/// The normal form; borrowed when the path is in it already, which is nearly always.
///
/// # Errors
/// `BadPath` when the path does not start with `/` or could be read in two ways.
pub fn normal_path(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(BadPath);
    }
    let (mut escaped, mut dotted, mut previous) = (false, false, 0);
    for &b in bytes {
        match b {
            b'\\' | b'#' | b'?' | 0..=b' ' | 0x7f.. => return Err(BadPath),
            b'%' => escaped = true,
            b'.' if previous == b'/' => dotted = true,
            _ => {}
        }
        previous = b;
    }
    if !escaped && !dotted {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = if escaped { unescape_unreserved(path)? } else { Cow::Borrowed(path) };
    if !decoded.contains("/.") {
        return Ok(decoded);
    }
    if decoded.split('/').any(is_dot_with_parameter) {
        Err(BadPath)
    } else {
        Ok(Cow::Owned(without_dot_segments(&decoded)))
    }
}

/// `..;x`: a name to us, the parent folder to origins that take parameters off first.
fn is_dot_with_parameter(segment: &str) -> bool {
    segment.split_once(';').is_some_and(|(name, _)| matches!(name, "." | ".."))
}

/// What is left of a normal path behind a prefix of whole segments: begins with `/`, and is a normal path itself.
///
/// `prefix` is `Found::prefix`; a length that ends no segment of the path (there is none in a `Found`) cuts nothing.
pub fn strip_prefix(path: &str, prefix: usize) -> &str {
    match path.get(prefix..) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

fn unescape_unreserved(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after.get(..2).ok_or(BadPath)?;
        let byte = u8::from_str_radix(digits, 16).map_err(|_| BadPath)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) || byte == 0 || byte == b'\\' {
            return Err(BadPath);
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(digits);
        }
        rest = &after[2..];
    }
    out.push_str(rest);
    Ok(if out == path { Cow::Borrowed(path) } else { Cow::Owned(out) })
}

fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                // `/a/.` and `/a/..` name directories: the final slash stays.
                if last {
                    kept.push("");
                }
            }
            plain => kept.push(plain),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table_of_normal_forms() {
        for (path, normal) in [
            ("/", "/"),
            ("/cart", "/cart"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/%61dmin", "/admin"),
            ("/a//b", "/a//b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/..b/c", "/a/..b/c"),
            ("/a;/..b;x/c", "/a;/..b;x/c"),
            ("/%2e%2e//%2e/b", "//b"),
            ("/a/%2e%2e%2fb", "/a/..%2fb"),
            ("/%7euser", "/~user"),
        ] {
            assert_eq!(normal_path(path).unwrap(), normal, "{path}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for bad in [
            "",
            "cart",
            "*",
            "/a\\b",
            "/a%5cb",
            "/a b",
            "/a\u{7f}",
            "/a%0",
            "/a%zz",
            "/%00",
            "/a%+1",
            "/é",
            "/a#b",
            "/a/..;/b",
            "/a/%2e%2E;x",
            "/.;",
            "/a\tb",
            "/a\0",
        ] {
            assert_eq!(normal_path(bad), Err(BadPath), "{bad}");
        }
    }

    #[test]
    fn a_prefix_is_cut_off_at_a_segment() {
        for (path, prefix, rest) in [
            ("/api/v1/cart", 4, "/v1/cart"),
            ("/api", 4, "/"),
            ("/api/", 4, "/"),
            ("/api", 0, "/api"),
            ("/", 0, "/"),
            ("/api//x", 4, "//x"),
            ("/apix", 4, "/apix"),
            ("/api", 9, "/api"),
        ] {
            assert_eq!(strip_prefix(path, prefix), rest, "{path} {prefix}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_behind_a_prefix_is_normal(path in "/([a.;/]|%2F){0,12}", prefix in 0_usize..14) {
            if let Ok(path) = normal_path(&path) {
                let rest = strip_prefix(&path, prefix);
                prop_assert_eq!(normal_path(rest).unwrap(), rest);
            }
        }

        #[test]
        fn the_normal_form_is_stable(path in "/([a-b./%2eE5]|%2e|%2f){0,12}") {
            if let Ok(once) = normal_path(&path) {
                let twice = normal_path(&once).unwrap();
                prop_assert_eq!(&twice, &once);
                prop_assert!(!once.split('/').any(|s| s == "." || s == ".."));
            }
        }
    }
}
