//! The address of somebody outside who is asked or told: `http://` or `https://`, taken apart once.
//!
//! Such an address is often a secret as a whole (a Slack hook) or in part (`user:password@`, a token in the path).
//! Invariant: what is shown of it, by `Display` and `Debug`, is scheme, host and port; who wants more must ask by name.

use std::fmt;

use base64::Engine;
use http::HeaderValue;
use percent_encoding::percent_decode_str;

/// See the file's head.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl {
    is_https: bool,
    userinfo: Option<String>,
    /// Without the brackets of an IPv6 address.
    host: String,
    /// As written.
    port: Option<u16>,
    /// Path and query; starts with `/`.
    target: String,
}

/// Why a text is no such address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWebUrl {
    #[error("not a URL")]
    Syntax,
    #[error("not a URL of a web server: it starts with neither http:// nor https://")]
    Scheme,
    #[error("not a port: 1 to 65535")]
    Port,
}

const MASK: &str = "***";

impl WebUrl {
    /// A fragment (`#...`) is nothing to a server and left out.
    ///
    /// # Errors
    /// See [`BadWebUrl`].
    pub fn parse(text: &str) -> Result<Self, BadWebUrl> {
        let uri: http::Uri = text.parse().map_err(|_| BadWebUrl::Syntax)?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(BadWebUrl::Scheme),
        };
        let authority = uri.authority().ok_or(BadWebUrl::Syntax)?;
        let (userinfo, place) = match authority.as_str().rsplit_once('@') {
            Some((userinfo, place)) => (Some(userinfo.to_owned()), place),
            None => (None, authority.as_str()),
        };
        let host = authority.host();
        let port = place.strip_prefix(host).ok_or(BadWebUrl::Syntax)?;
        let port = match port.strip_prefix(':').unwrap_or(port) {
            "" => None,
            digits => Some(digits.parse().ok().filter(|port| *port > 0).ok_or(BadWebUrl::Port)?),
        };
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(BadWebUrl::Syntax);
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { is_https, userinfo, host: host.to_owned(), port, target })
    }

    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// A name or an IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// As written, else the scheme's.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.is_https { 443 } else { 80 })
    }

    /// What goes into `Host`.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }

    /// What goes into the request line: path and query. May hold secrets.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What goes into `Authorization`, if the address names a user.
    pub fn basic_auth(&self) -> Option<HeaderValue> {
        let userinfo = self.userinfo.as_ref()?;
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let mut pair: Vec<u8> = percent_decode_str(user).collect();
        pair.push(b':');
        pair.extend(percent_decode_str(password));
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The same server, a path put behind its own and a query behind its own; both are percent-encoded already.
    #[must_use]
    pub fn below(&self, path: &str, query: &str) -> Self {
        let (own_path, own_query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let join = if own_query.is_empty() { "" } else { "&" };
        let target = format!("{}{path}?{own_query}{join}{query}", own_path.trim_end_matches('/'));
        Self { target, ..self.clone() }
    }

    /// All of it, secrets too, so that the same address can be read again.
    pub fn whole(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        let user = self.userinfo.as_ref().map_or(String::new(), |userinfo| format!("{userinfo}@"));
        format!("{scheme}://{user}{}{}", self.authority(), self.target)
    }

    /// An address to be shown in the place of this one: without user and password.
    #[must_use]
    pub fn without_user(&self) -> Self {
        Self { userinfo: self.userinfo.as_ref().map(|_| MASK.to_owned()), ..self.clone() }
    }

    /// An address to be shown in the place of this one: its server alone.
    #[must_use]
    pub fn server_alone(&self) -> Self {
        let target = if self.target == "/" { self.target.clone() } else { format!("/{MASK}") };
        Self { target, ..self.without_user() }
    }
}

/// `https://hooks.example.com:8443`.
impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_https { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> WebUrl {
        WebUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_parts_are_those_that_were_written() {
        for (text, (host, port, authority, target), shown) in [
            ("http://prometheus", ("prometheus", 80, "prometheus", "/"), "http://prometheus"),
            ("https://ci/gate?a=b", ("ci", 443, "ci", "/gate?a=b"), "https://ci"),
            ("http://[::1]:9090/x", ("::1", 9090, "[::1]:9090", "/x"), "http://[::1]:9090"),
            ("https://[::1]", ("::1", 443, "[::1]", "/"), "https://[::1]"),
            ("http://u:p@h:8080/x#part", ("h", 8080, "h:8080", "/x"), "http://h:8080"),
            ("http://h:/x", ("h", 80, "h", "/x"), "http://h"),
            ("http://h?q=1", ("h", 80, "h", "/?q=1"), "http://h"),
            ("HTTP://Prom.Example:9090", ("Prom.Example", 9090, "Prom.Example:9090", "/"), "http://Prom.Example:9090"),
        ] {
            let url = url(text);
            assert_eq!(
                (url.host(), url.port(), url.authority().as_str(), url.target()),
                (host, port, authority, target)
            );
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), format!("WebUrl({shown})")), "{text}");
            assert_eq!(WebUrl::parse(&url.whole()).unwrap(), url, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_web_server_is_refused() {
        for (text, expected) in [
            ("", BadWebUrl::Syntax),
            ("http://", BadWebUrl::Syntax),
            ("http://a b/", BadWebUrl::Syntax),
            ("http://[::1", BadWebUrl::Syntax),
            ("ci.example.com", BadWebUrl::Scheme),
            ("/gate", BadWebUrl::Scheme),
            ("ftp://h/", BadWebUrl::Scheme),
            ("http://h:0/", BadWebUrl::Port),
            ("http://h:65536/", BadWebUrl::Port),
        ] {
            assert_eq!(WebUrl::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn user_and_password_are_sent_decoded_and_never_shown() {
        for (userinfo, pair) in [("al:p%40s%3As", "al:p@s:s"), ("al", "al:"), ("al:", "al:"), (":x", ":x")] {
            let url = url(&format!("http://{userinfo}@h/x?token=t"));
            let expected = base64::engine::general_purpose::STANDARD.encode(pair);
            let value = url.basic_auth().unwrap();
            assert_eq!(value.to_str().unwrap(), format!("Basic {expected}"));
            assert!(value.is_sensitive() && !format!("{url} {url:?}").contains("al"), "{url:?}");
            assert_eq!(url.without_user().whole(), "http://***@h/x?token=t");
            assert_eq!(url.server_alone().whole(), "http://***@h/***");
        }
        assert_eq!(url("http://h/").basic_auth(), None);
        assert_eq!(url("http://h").server_alone().whole(), "http://h/");
    }

    #[test]
    fn more_is_put_behind_the_own_path_and_query() {
        for (text, expected) in [
            ("http://h", "/api/v1/query?query=up"),
            ("http://h/", "/api/v1/query?query=up"),
            ("http://h/prom/", "/prom/api/v1/query?query=up"),
            ("http://h/prom?tenant=a", "/prom/api/v1/query?tenant=a&query=up"),
        ] {
            assert_eq!(url(text).below("/api/v1/query", "query=up").target(), expected, "{text}");
        }
    }
}
