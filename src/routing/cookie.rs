//! The cookies of a request (RFC 6265 section 5.4), over all its `cookie` fields: HTTP/2 clients send crumbs of one in
//! several (RFC 9113 section 8.2.3).
//!
//! Tolerant, as servers are: what is no pair is passed over, quotes belong to the value. Of cookies of one name the
//! first counts, which is the one browsers know to be the most specific. One pass over the bytes, nothing allocated.

use http::{HeaderMap, header};

/// All pairs whose bytes are UTF-8, in order.
pub fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    pairs(headers).filter_map(|(name, value)| Some((text(name)?, text(value)?)))
}

/// The first cookie of a name (case counts); `None` too if its value is not UTF-8.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    raw_cookie(headers, name).and_then(text)
}

/// The same, whatever its bytes.
pub(super) fn raw_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    pairs(headers).find(|(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let fields = headers.get_all(header::COOKIE).iter();
    fields.flat_map(|field| field.as_bytes().split(|&b| b == b';')).filter_map(pair)
}

fn pair(crumb: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = crumb.iter().position(|&b| b == b'=')?;
    let name = crumb[..at].trim_ascii();
    (!name.is_empty()).then(|| (name, crumb[at + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn fields<T: AsRef<[u8]>>(values: &[T]) -> HeaderMap {
        let value = |v: &T| HeaderValue::from_bytes(v.as_ref()).unwrap();
        values.iter().map(|v| (header::COOKIE, value(v))).collect()
    }

    #[test]
    fn crumbs_and_oddities() {
        for (values, expected) in [
            (&[][..], &[][..]),
            (&["a=1"], &[("a", "1")]),
            (&["a=1; b=2;c=3"], &[("a", "1"), ("b", "2"), ("c", "3")]),
            (&["a=1", "b=2; a=3"], &[("a", "1"), ("b", "2"), ("a", "3")]),
            (&[" a = 1 ;; ; =x; novalue; b="], &[("a", "1"), ("b", "")]),
            (&["a=b=c; q=\"x y\"; A=2"], &[("a", "b=c"), ("q", "\"x y\""), ("A", "2")]),
            (&["é=ü"], &[("é", "ü")]),
        ] {
            assert_eq!(cookies(&fields(values)).collect::<Vec<_>>(), expected, "{values:?}");
        }
    }

    #[test]
    fn the_first_of_a_name_counts() {
        let headers = fields(&["a=1; b=2", "a=3; B=4"]);
        for (name, value) in [("a", Some("1")), ("b", Some("2")), ("B", Some("4")), ("c", None), ("", None)] {
            assert_eq!(cookie(&headers, name), value, "{name}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_spoil_only_their_own_cookie() {
        let headers = fields(&[&b"a=1; b=\xff; c=3"[..]]);
        assert_eq!(cookies(&headers).collect::<Vec<_>>(), [("a", "1"), ("c", "3")]);
        assert_eq!(cookie(&headers, "b"), None);
        assert_eq!(raw_cookie(&headers, "b"), Some(&b"\xff"[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(values in prop::collection::vec("[a-c=; \"\u{80}-\u{ff}]{0,20}", 0..4), name in "[a-c]") {
            let headers = fields(&values);
            let first = cookies(&headers).find(|(n, _)| *n == name).map(|(_, v)| v);
            prop_assert_eq!(cookie(&headers, &name), first);
        }
    }
}
