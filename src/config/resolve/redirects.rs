//! Where a redirect sends clients.
//!
//! Invariant: no text a client sends can choose the host. `{path}`, which begins with `/`, stands behind a host or a
//! path; `//host` and `/{path}` (that is `//...`) would hand the choice over, so they are refused.

use super::Context;
use crate::config::Redirect;
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::RawRedirect;

const CODES: [u16; 5] = [301, 302, 303, 307, 308];
const EXAMPLE: &str = "write for example \"https://shop.example.com{path}\" or \"/new{path}\"";

pub fn redirect(raw: &RawRedirect, path: &Path, cx: &mut Context<'_>) -> Option<Redirect> {
    let code = u16::try_from(raw.code).ok().filter(|code| CODES.contains(code));
    if code.is_none() {
        let message = format!("`{}` is {}, which sends nobody anywhere", path.key("code"), raw.code);
        let help = "use 308, or 307 if it is not for ever; 303 makes every method GET";
        cx.tell(Code::OutOfRange, &path.key("code"), message, "allowed: 301, 302, 303, 307, 308", help);
    }
    let to = raw.to.as_deref()?;
    if let Err((label, help)) = check(to) {
        let path = path.key("to");
        cx.tell(Code::BadAddress, &path, format!("`{path}` is not an address: {to:?}"), label, help);
    }
    Some(Redirect { to: to.to_owned(), code: code? })
}

/// # Errors
/// What is wrong, and what to write.
fn check(to: &str) -> Result<(), (&'static str, &'static str)> {
    let plain = to.replace("{path}", "");
    let is_url_byte = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`|".contains(&b);
    match () {
        () if plain.contains(['{', '}']) => Err(("only `{path}` is filled in", "write other braces as %7B and %7D")),
        () if !plain.bytes().all(is_url_byte) => Err(("it has a character no URL has", "write it percent-encoded")),
        () if to.starts_with("/{path}") => Err(("`{path}` begins with `/` itself: `//` names a host", EXAMPLE)),
        () if to.starts_with("//") => Err(("`//` begins a host", "write the scheme too, \"https://\"")),
        () if to.starts_with('/') => Ok(()),
        () => check_url(to),
    }
}

fn check_url(to: &str) -> Result<(), (&'static str, &'static str)> {
    let rest = to.strip_prefix("https://").or_else(|| to.strip_prefix("http://"));
    let rest = rest.ok_or(("neither https://, http:// nor a path", EXAMPLE))?;
    let host = rest.split(['/', '?', '#', '{']).next().unwrap_or_default();
    if is_authority(host) { Ok(()) } else { Err(("there is no host in it", EXAMPLE)) }
}

/// `host` or `host:port`.
pub fn is_authority(text: &str) -> bool {
    let Ok(authority) = text.parse::<http::uri::Authority>() else { return false };
    let port_ok = authority.host().len() == text.len() || authority.port_u16().is_some();
    !authority.host().is_empty() && !text.contains('@') && port_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_can_choose_the_host() {
        for to in [
            "https://shop.example.com{path}",
            "https://shop.example.com:8443/a{path}?from=old",
            "http://[::1]:80",
            "https://shop.example.com?x={path}",
            "/",
            "/new{path}",
            "/a?b#c",
        ] {
            assert_eq!(check(to), Ok(()), "{to}");
        }
        for to in [
            "",
            "{path}",
            "shop.example.com{path}",
            "/{path}",
            "//shop.example.com",
            "///x",
            "/\\shop.example.com",
            "https://{path}",
            "https:///x",
            "https://a@b/",
            "https://a:b/",
            "https://a:99999/",
            "ftp://a/",
            "javascript:alert(1)",
            "/a b",
            "/a\r\nset-cookie: x",
            "/é",
            "/{host}",
        ] {
            assert!(check(to).is_err(), "{to}");
        }
    }
}
