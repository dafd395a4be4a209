//! Which requests, and what becomes of them before a split has them.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::model::{ListenerName, RouteName, SplitName};

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// As written, else `route-1`, `route-2` by place in the file.
    pub name: RouteName,
    /// Listeners it applies to; empty = all.
    pub listeners: Vec<ListenerName>,
    /// Any of these matches; empty = every request.
    pub matches: Vec<Match>,
    pub action: Action,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub rate_limit: Option<RateLimit>,
}

impl Route {
    /// The split it leads to, if it leads to one.
    pub fn split(&self) -> Option<&SplitName> {
        match &self.action {
            Action::Split { split, .. } => Some(split),
            Action::Redirect(_) | Action::Respond(_) => None,
        }
    }
}

/// What a route does with its requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Split {
        split: SplitName,
        /// The matched prefix is cut off the path that goes on; every match of the route has a prefix.
        strip_prefix: bool,
    },
    Redirect(Redirect),
    Respond(Respond),
}

/// An answer that names another address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http://` or `https://` with a host, or a path of the same host; visible ASCII only. `{path}` stands for the normal form of the path; the query goes with it.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub code: u16,
    pub body: String,
}

/// Changes to header fields; removed first, then set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Names unique. Never hop-by-hop fields, `host` (but on requests) or framing; on answers nothing of weir's own.
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// A token bucket: `requests` per `every`, `burst` at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub per: RateKey,
    /// At least 1.
    pub requests: u32,
    /// Above zero.
    pub every: Duration,
    /// At least 1; default `requests`.
    pub burst: u32,
}

/// What has a bucket of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    Route,
    ClientIp,
    /// By its value; requests without the field share one bucket, so that leaving it out is no way around.
    Header(HeaderName),
}

/// One alternative of a route's `match`: all its parts must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    pub host: Option<HostMatch>,
    pub path: Option<PathMatch>,
    /// Upper case; empty = any.
    pub methods: Vec<String>,
    /// In the order of their names, as are cookies and queries, so that equal conditions are equal.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// By name, which is case-sensitive.
    pub cookies: Vec<(String, ValueMatch)>,
    /// By name, after percent-decoding.
    pub queries: Vec<(String, ValueMatch)>,
    /// Any of these, sorted; IPv4 never as mapped IPv6. Empty = any client.
    pub client_ip: Vec<IpNet>,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    Exact(String),
    /// Searched for anywhere in the value, unless it has anchors; no match in what is not UTF-8.
    Regex(Pattern),
    /// There, whatever it is.
    Present,
    Absent,
}

/// A compiled regular expression; equal if its text is.
#[derive(Clone, Debug)]
pub struct Pattern(pub regex::Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// Lower case, without port and final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    Exact(String),
    /// `*.example.com` is kept as `.example.com`: matches every longer host that ends so.
    Suffix(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// By whole segments; without the final `/` (`""` is the prefix `/`).
    Prefix(String),
    /// Searched for anywhere in the path, unless it has anchors.
    Regex(Pattern),
}
