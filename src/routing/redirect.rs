//! The `Location` of a redirect.
//!
//! Invariant: visible ASCII only, so that nothing a client sends can end the field or begin another; and, with a `to`
//! that `config` lets pass, nothing it sends can name the host.

/// `to` with `{path}` filled in; the query goes with it, unless `to` has one. `normal_path` is a routed path.
///
/// Within a query `{path}` is escaped, so that it stays one parameter's value: `/login?next={path}`.
pub fn location(to: &str, normal_path: &str, query: Option<&str>) -> String {
    let (target, fragment) = match to.split_once('#') {
        Some((target, fragment)) => (target, Some(fragment)),
        None => (to, None),
    };
    let (base, own_query) = match target.split_once('?') {
        Some((base, query)) => (base, Some(query)),
        None => (target, None),
    };
    let mut out = String::with_capacity(to.len() + normal_path.len() + query.map_or(0, str::len) + 1);
    fill_in(&mut out, base, normal_path, |_| true);
    match (own_query, query) {
        (Some(own), _) => {
            out.push('?');
            fill_in(&mut out, own, normal_path, is_value_byte);
        }
        (None, Some(query)) => {
            out.push('?');
            push(&mut out, query, |_| true);
        }
        (None, None) => {}
    }
    if let Some(fragment) = fragment {
        out.push('#');
        fill_in(&mut out, fragment, normal_path, is_value_byte);
    }
    out
}

fn fill_in(out: &mut String, template: &str, path: &str, keep: impl Fn(u8) -> bool) {
    for (i, part) in template.split("{path}").enumerate() {
        if i > 0 {
            push(out, path, &keep);
        }
        push(out, part, |_| true);
    }
}

/// Escapes what is not kept, and whatever is not visible ASCII.
fn push(out: &mut String, text: &str, keep: impl Fn(u8) -> bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for b in text.bytes() {
        if b.is_ascii_graphic() && keep(b) {
            out.push(char::from(b));
        } else {
            let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
            out.extend(['%', digit(b >> 4), digit(b & 15)]);
        }
    }
}

/// Unreserved, and `/` (RFC 3986 sections 2.3 and 3.4).
fn is_value_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~/".contains(&b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table_of_locations() {
        for (to, path, query, expected) in [
            ("https://a.test{path}", "/x/y", None, "https://a.test/x/y"),
            ("https://a.test{path}", "/x", Some("a=1&b=2"), "https://a.test/x?a=1&b=2"),
            ("https://a.test{path}", "/x", Some(""), "https://a.test/x?"),
            ("https://a.test{path}?from=old", "/x", Some("a=1"), "https://a.test/x?from=old"),
            ("/new{path}", "/x%2Fy", None, "/new/x%2Fy"),
            ("/new", "/x", Some("a=1"), "/new?a=1"),
            ("/new#top", "/x", Some("a=1"), "/new?a=1#top"),
            ("/login?next={path}", "/a&b=c%2Fd", Some("x=1"), "/login?next=/a%26b%3Dc%252Fd"),
            ("/a{path}/b{path}", "/x", None, "/a/x/b/x"),
            ("/#{path}", "/x", None, "/#/x"),
            ("/a{path}", "//evil.test", None, "/a//evil.test"),
            ("/a{path}", "/{path}", Some("{path}"), "/a/{path}?{path}"),
        ] {
            assert_eq!(location(to, path, query), expected, "{to} {path} {query:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_can_be_broken(path in "\\PC{0,20}|[\r\n\t /a]{0,9}", query in "\\PC{0,20}|[\r\n\0]{0,9}") {
            for to in ["https://a.test{path}", "/n{path}", "/n?x={path}", "/n#{path}"] {
                let location = location(to, &path, Some(&query));
                prop_assert!(location.bytes().all(|b| b.is_ascii_graphic()));
                prop_assert!(http::HeaderValue::from_str(&location).is_ok());
            }
        }
    }
}
