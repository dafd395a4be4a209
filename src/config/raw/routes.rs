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
    #[schemars(extend("x-weir-not-yet" = true))]
    pub redirect: Option<RawRedirect>,
    /// Answer with a fixed text.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub respond: Option<RawRespond>,
    /// Cut the matched prefix off the path.
    #[serde(default)]
    #[schemars(extend("x-weir-not-yet" = true))]
    pub strip_prefix: bool,
    /// Changes to the request's fields.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub request_headers: Option<RawHeaders>,
    /// Changes to the answer's fields.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub response_headers: Option<RawHeaders>,
    /// How many requests are let through.
    #[schemars(extend("x-weir-not-yet" = true))]
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
    #[schemars(extend("x-weir-not-yet" = true))]
    pub header: Option<IndexMap<String, RawValueMatch>>,
    /// Cookies, by name.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub cookie: Option<IndexMap<String, RawValueMatch>>,
    /// Parameters of the query, by name.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub query: Option<IndexMap<String, RawValueMatch>>,
    /// Networks the client is in.
    #[schemars(extend("x-weir-not-yet" = true))]
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
    /// `{path}` stands for the path of the request.
    pub to: String,
    #[schemars(range(min = 300, max = 399))]
    pub code: Option<u32>,
}

/// Answer with a fixed text.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRespond {
    #[schemars(range(min = 200, max = 599))]
    pub code: u32,
    #[serde(default)]
    pub body: String,
}

/// Changes to header fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawHeaders {
    pub set: IndexMap<String, String>,
    pub remove: Vec<String>,
}

/// A token bucket.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRateLimit {
    /// `route`, `client_ip` or `header:NAME`.
    pub per: String,
    #[schemars(range(min = 1))]
    pub requests: u32,
    pub every: Dur,
    pub burst: Option<u32>,
}
