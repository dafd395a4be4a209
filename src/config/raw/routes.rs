//! `[[routes]]`, and the `match` tables that rules of a split share with them.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dur, OneOrMany};

/// Which requests go to which split. Exactly one of `split`, `redirect`, `respond`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// Shown in metrics and logs; default: `route-1`, `route-2` by place in the file.
    pub name: Option<String>,
    /// Names of the listeners it applies to; default: all.
    pub listeners: Option<Vec<String>>,
    /// Which requests; a list means "or". Default: every request.
    #[serde(rename = "match")]
    pub matches: Option<OneOrMany<RawMatch>>,
    /// Where they go.
    pub split: Option<String>,
    /// Answer with another address.
    pub redirect: Option<RawRedirect>,
    /// Answer with a fixed text.
    pub respond: Option<RawRespond>,
    /// Cut the matched prefix off the path.
    #[serde(default)]
    pub strip_prefix: bool,
    /// Changes to the request's fields.
    pub request_headers: Option<RawHeaders>,
    /// Changes to the answer's fields.
    pub response_headers: Option<RawHeaders>,
    /// How many requests are let through.
    pub rate_limit: Option<RawRateLimit>,
}

/// All parts that are given must hold.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawMatch {
    /// A host name, or `*.example.com`.
    pub host: Option<String>,
    /// The whole path.
    pub path: Option<String>,
    /// The beginning of the path, by whole segments.
    pub path_prefix: Option<String>,
    /// A regular expression over the path.
    pub path_regex: Option<String>,
    /// A method, or a list of them.
    pub method: Option<OneOrMany<String>>,
    /// Fields of the request, by name.
    pub header: Option<IndexMap<String, RawValueMatch>>,
    /// Cookies, by name.
    pub cookie: Option<IndexMap<String, RawValueMatch>>,
    /// Parameters of the query, by name.
    pub query: Option<IndexMap<String, RawValueMatch>>,
    /// Networks the client is in.
    pub client_ip: Option<OneOrMany<String>>,
}

/// An exact value, `{ regex = "..." }` or `{ present = true }`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawValueMatch {
    Exact(String),
    Test(RawValueTest),
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawValueTest {
    pub regex: Option<String>,
    pub present: Option<bool>,
}

/// Answer with another address.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRedirect {
    /// A URL, or a path of the same host; `{path}` stands for the path of the request. The query goes with it, unless
    /// this has one.
    #[schemars(required)]
    pub to: Option<String>,
    /// 301, 302, 303, 307 or 308 (the default).
    #[serde(default = "permanent")]
    pub code: u32,
}

fn permanent() -> u32 {
    308
}

/// Answer with a fixed text.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRespond {
    #[schemars(required, range(min = 200, max = 599))]
    pub code: Option<u32>,
    #[serde(default)]
    pub body: String,
}

/// Changes to header fields: first `remove`, then `set`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawHeaders {
    /// Instead of whatever they were.
    pub set: IndexMap<String, String>,
    pub remove: Vec<String>,
}

/// A token bucket.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRateLimit {
    /// What has a bucket of its own: `route`, `client_ip` or `header:NAME`.
    #[schemars(required)]
    pub per: Option<String>,
    #[schemars(required, range(min = 1, max = 1_000_000_000))]
    pub requests: Option<u32>,
    #[schemars(required)]
    pub every: Option<Dur>,
    /// So many at once; default: `requests`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<u32>,
}
