//! The normal form of a host: lower case, without port and final dot.
//!
//! Why strict: two readings of one authority are how requests are smuggled past a route (faults.md 1.2), so a host
//! with user information, spaces, or characters outside a name or an address literal is refused.

use std::borrow::Cow;

/// A `Host` (or authority) that is not `name`, `name:port`, `1.2.3.4:port` or `[v6]:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host")]
pub struct BadHost;

/// RFC 9110 section 7.2 `Host`, as routes compare it. An empty host is allowed by HTTP and matches no named route.
///
/// # Errors
/// `BadHost` for anything that could be read in two ways.
pub fn normal_host(host: &str) -> Result<Cow<'_, str>, BadHost> {
    let name = without_port(host)?;
    let name = match name.strip_suffix('.') {
        // The next reader would take one more dot off, and read another host.
        Some(rest) if rest.is_empty() || rest.ends_with('.') => return Err(BadHost),
        rest => rest.unwrap_or(name),
    };
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Ok(Cow::Owned(name.to_ascii_lowercase()))
    } else {
        Ok(Cow::Borrowed(name))
    }
}

fn without_port(host: &str) -> Result<&str, BadHost> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(BadHost)?;
        let literal = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
        let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return if literal && port_ok { Ok(&host[..address.len() + 2]) } else { Err(BadHost) };
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    // A port alone names no host.
    if name.is_empty() && !host.is_empty() {
        return Err(BadHost);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~');
    if name.bytes().all(plain) && is_port(port) { Ok(name) } else { Err(BadHost) }
}

fn is_port(port: &str) -> bool {
    port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_for_all_spellings() {
        for (text, normal) in [
            ("shop.example.com", "shop.example.com"),
            ("Shop.Example.COM:8080", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("a_b.test", "a_b.test"),
            ("host:", "host"),
            ("", ""),
        ] {
            assert_eq!(normal_host(text).unwrap(), normal, "{text}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for bad in [
            "a@app.test",
            "a b",
            "a/b",
            "a:b",
            "a:80:80",
            "[::1",
            "[]",
            "[::1]x",
            "a,b",
            "a:123456",
            "é",
            "a%41",
            ":80",
            ":",
            ".",
            "a..",
            "a..:80",
        ] {
            assert_eq!(normal_host(bad), Err(BadHost), "{bad}");
        }
    }
}
