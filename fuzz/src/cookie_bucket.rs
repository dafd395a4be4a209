//! Cookies, buckets and parameters of a query: any bytes are read, and what weir or a browser writes is read as it was.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use weir::routing::{BUCKETS, Bucket, bucket_of, cookie, cookies, parameter, parse_cookie, set_cookie};

/// Input: a name, LF, then a `Cookie` field (and query) a line.
pub fn check(data: &[u8]) {
    let (name, rest) = crate::first_line(data);
    assert!(bucket_of(data).value() < BUCKETS);
    read_fields(name, rest);
    for line in rest.split(|b| *b == b'\n') {
        if let Ok(text) = std::str::from_utf8(line) {
            write_and_read(text);
            read_query(name, text);
        }
        write_query(name, line);
    }
}

fn read_fields(name: &[u8], lines: &[u8]) {
    let mut headers = HeaderMap::new();
    let values = lines.split(|b| *b == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.for_each(|value| {
        headers.append(header::COOKIE, value);
    });
    let all: Vec<_> = cookies(&headers).collect();
    for (name, value) in &all {
        assert!(!name.is_empty() && !name.contains([';', '=']) && !value.contains(';'), "{name:?} {value:?}");
        let known = cookie(&headers, name).is_none_or(|first| all.contains(&(name, first)));
        assert!(known, "cookie and cookies disagree about {name:?}");
    }
    let Ok(name) = std::str::from_utf8(name) else { return };
    if let Some(value) = cookie(&headers, name) {
        let first = all.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        assert_eq!(first, Some(value), "not the first of {name:?}");
    }
}

fn write_and_read(text: &str) {
    let Some((bucket, tag)) = parse_cookie(text) else { return };
    assert_eq!(Bucket::new(bucket.value()), Some(bucket));
    assert!(text == bucket.value().to_string() || text == format!("{}.{tag}", bucket.value()), "{text:?}");
    if !tag.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return;
    }
    for secure in [false, true] {
        let set = set_cookie("c", bucket, tag, Duration::from_secs(1), secure);
        let value = HeaderValue::from_str(set.split(';').next().unwrap_or("")).expect("no header value");
        let headers: HeaderMap = [(header::COOKIE, value)].into_iter().collect();
        assert_eq!(cookie(&headers, "c").and_then(parse_cookie), Some((bucket, tag)), "{set}");
    }
}

fn read_query(name: &[u8], query: &str) {
    let Ok(name) = std::str::from_utf8(name) else { return };
    let read = parameter(query, name);
    let naive = query.split('&').filter(|part| !part.is_empty()).find_map(|part| {
        let (n, value) = part.split_once('=').unwrap_or((part, ""));
        (naive_decoded(n) == name.as_bytes()).then(|| naive_decoded(value))
    });
    assert_eq!(read.as_deref(), naive.as_deref(), "{name:?} in {query:?}");
}

/// By the letter of the URL standard's "percent-decode", and slowly.
fn naive_decoded(text: &str) -> Vec<u8> {
    let (bytes, mut out, mut i) = (text.as_bytes(), Vec::new(), 0);
    while i < bytes.len() {
        let digits = bytes.get(i + 1..i + 3).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        match (bytes[i], digits.and_then(|d| std::str::from_utf8(d).ok())) {
            (b'%', Some(digits)) => {
                out.push(u8::from_str_radix(digits, 16).unwrap_or(0));
                i += 2;
            }
            (b'+', _) => out.push(b' '),
            (b, _) => out.push(b),
        }
        i += 1;
    }
    out
}

fn write_query(name: &[u8], value: &[u8]) {
    let Ok(text) = std::str::from_utf8(name) else { return };
    let escaped = |bytes: &[u8]| bytes.iter().map(|b| format!("%{b:02x}")).collect::<String>();
    let query = format!("&{}={}&{}=second", escaped(name), escaped(value), escaped(name));
    assert_eq!(parameter(&query, text).as_deref(), Some(value), "{query}");
}
