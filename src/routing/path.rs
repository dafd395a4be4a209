//! The normal form of a path: what is matched and what is forwarded.
//!
//! Dot segments are resolved (RFC 3986 section 5.2.4), escapes of unreserved characters are undone (6.2.2.2), so
//! that `/%61dmin` and `/x/../admin` cannot pass a route that guards `/admin`. `//`, `%2F` and `;` mean different
//! things to different origins and stay as they are.

use std::borrow::Cow;

/// A path with a backslash, a control or non-ASCII byte, or a broken escape.
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
    Ok(if decoded.contains("/.") { Cow::Owned(without_dot_segments(&decoded)) } else { decoded })
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
            ("/%7euser", "/~user"),
        ] {
            assert_eq!(normal_path(path).unwrap(), normal, "{path}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for bad in
            ["", "cart", "*", "/a\\b", "/a%5cb", "/a b", "/a\u{7f}", "/a%0", "/a%zz", "/%00", "/a%+1", "/é", "/a#b"]
        {
            assert_eq!(normal_path(bad), Err(BadPath), "{bad}");
        }
    }

    proptest! {
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
