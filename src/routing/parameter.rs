//! Parameters of a query, as forms write them (`application/x-www-form-urlencoded`): `a=1&b=x+y%21`.
//!
//! Names are compared while they are decoded; only a value that has something to decode is copied. A broken escape
//! stands for itself, as in browsers. Of parameters of one name the first counts.

use std::borrow::Cow;

/// The first value of a parameter, decoded; `""` if it has no `=`.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    let mut pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
    pairs.find(|(n, _)| decoded(n.as_bytes()).eq(name.bytes())).map(|(_, value)| value_of(value.as_bytes()))
}

fn value_of(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.iter().any(|b| matches!(b, b'%' | b'+')) { decoded(raw).collect() } else { Cow::Borrowed(raw) }
}

fn decoded(mut raw: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (&first, rest) = raw.split_first()?;
        let escape = if first == b'%' { rest.get(..2).and_then(byte) } else { None };
        raw = if escape.is_some() { &rest[2..] } else { rest };
        Some(escape.unwrap_or(if first == b'+' { b' ' } else { first }))
    })
}

fn byte(digits: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(digits[0])? * 16 + digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table_of_queries() {
        for (query, name, value) in [
            ("a=1", "a", Some("1")),
            ("b=2&a=1&a=3", "a", Some("1")),
            ("a", "a", Some("")),
            ("a=", "a", Some("")),
            ("a=b=c", "a", Some("b=c")),
            ("a=x+y%21%2B", "a", Some("x y!+")),
            ("x%20y=1", "x y", Some("1")),
            ("x+y=1", "x y", Some("1")),
            ("%61=1", "a", Some("1")),
            ("a=%zz%4", "a", Some("%zz%4")),
            ("a=%C3%A9", "a", Some("é")),
            ("&&a=1&", "a", Some("1")),
            ("=1", "", Some("1")),
            ("A=1", "a", None),
            ("a;b=1", "b", None),
            ("", "", None),
            ("aa=1", "a", None),
        ] {
            assert_eq!(parameter(query, name).as_deref(), value.map(str::as_bytes), "{query} {name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_found_again(name: String, value: String, before in "[a-z&=%+]{0,9}") {
            let encode = |s: &str| s.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
            let query = format!("{}={}", encode(&name), encode(&value));
            let found = parameter(&query, &name);
            prop_assert_eq!(found.as_deref(), Some(value.as_bytes()));
            let other = format!("{before}&{query}");
            prop_assert!(parameter(&other, &name).is_some());
        }
    }
}
