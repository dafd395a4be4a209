//! Where an endpoint is reached: an IP address with a port, or a Unix socket.
//!
//! One type for both because everything about an endpoint (claims, drains, counts, logs) is the same for both; only
//! dialling tells them apart. Invariant: it is written, shown and read back in one form, that of the configuration
//! file: `10.0.0.1:9000`, `[::1]:9000`, `unix:/run/shop.sock`.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

const UNIX: &str = "unix:";

/// See the file's head. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    Tcp(SocketAddr),
    /// The absolute path of the socket.
    Unix(Arc<str>),
}

/// Why a text is not an endpoint's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint's address is ip:port or unix:/path")]
pub struct BadAddress;

impl Address {
    /// What names it in a `Host` field or `:authority`: a path cannot stand there.
    pub fn authority(&self) -> Cow<'static, str> {
        match self {
            Self::Tcp(address) => Cow::Owned(address.to_string()),
            Self::Unix(_) => Cow::Borrowed("localhost"),
        }
    }

    /// Whether both are the same place, also when one is written as an IPv4 address inside IPv6.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical(),
            (a, b) => a == b,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(BadAddress),
            None => text.parse().map(Self::Tcp).map_err(|_| BadAddress),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_shown() {
        for text in ["10.0.0.1:9000", "[::1]:9000", "unix:/run/shop v3.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
            let json = format!("{text:?}");
            assert_eq!(serde_json::from_str::<Address>(&json).unwrap().to_string(), text);
        }
        for bad in ["", "10.0.0.1", "shop:9000", "unix:", "unix:run/x", "/run/x"] {
            assert_eq!(bad.parse::<Address>(), Err(BadAddress), "{bad:?}");
        }
    }

    #[test]
    fn the_same_place_is_found_in_both_forms() {
        let same = |a: &str, b: &str| a.parse::<Address>().unwrap().is_same(&b.parse().unwrap());
        assert!(same("10.0.0.1:80", "[::ffff:10.0.0.1]:80"));
        assert!(same("unix:/a", "unix:/a"));
        assert!(!same("10.0.0.1:80", "10.0.0.1:81"));
        assert!(!same("unix:/a", "unix:/b"));
        assert!(!same("unix:/a", "10.0.0.1:80"));
    }

    #[test]
    fn a_path_never_stands_in_a_host_field() {
        assert_eq!("unix:/run/a".parse::<Address>().unwrap().authority(), "localhost");
        assert_eq!("[::1]:80".parse::<Address>().unwrap().authority(), "[::1]:80");
    }
}
