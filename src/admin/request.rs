//! What handlers read out of a request: path, query, JSON, and the conditions every change may carry.
//!
//! Invariant: nothing is ignored. An unknown field or parameter, or a precondition that cannot be held, is refused,
//! because a caller who misspelt `dry_run` must not get the real thing.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use utoipa::{IntoParams, ToSchema};

use super::error::{BAD_JSON, BAD_REQUEST, Problem, REVISION_CHANGED};
use crate::config::durations;
use crate::model::{Actor, Revision, Source};

/// Parts of the path.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = axum::extract::Path::from_request_parts(parts, state).await;
        found.map(|path| Self(path.0)).map_err(|e| Problem::new(BAD_REQUEST, e.body_text()))
    }
}

/// Query parameters.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = axum::extract::Query::from_request_parts(parts, state).await;
        found.map(|query| Self(query.0)).map_err(|e| Problem::new(BAD_REQUEST, e.body_text()))
    }
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

/// What a JSON body may hold.
pub(super) trait Fields: DeserializeOwned {
    /// Named in refusals.
    const FIELDS: &'static [&'static str];
    /// What no body at all means; `None` if one is needed.
    fn when_empty() -> Option<Self>;
}

impl<S: Send + Sync, T: Fields> FromRequest<S> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|e| Problem::new(BAD_REQUEST, e.body_text()))?;
        parse(&body).map(Self)
    }
}

fn parse<T: Fields>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        let missing = || Problem::new(BAD_JSON, "this call needs a JSON body").allowed(T::FIELDS);
        return T::when_empty().ok_or_else(missing);
    }
    serde_json::from_slice(body).map_err(|e| {
        let problem = Problem::new(BAD_JSON, e.to_string());
        if e.is_data() { problem.allowed(T::FIELDS) } else { problem }
    })
}

/// New weights.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightsBody {
    /// Every version of the split, each 0..1000000.
    #[schema(value_type = std::collections::BTreeMap<String, u32>, example = json!({"v1": 75, "v2": 25}))]
    pub(super) weights: Pairs,
    /// Also defy a file that changes.
    #[serde(default)]
    pub(super) hold: bool,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

impl Fields for WeightsBody {
    const FIELDS: &'static [&'static str] = &["weights", "hold", "reason"];
    fn when_empty() -> Option<Self> {
        None
    }
}

/// Where to roll back to; all optional.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RollbackBody {
    /// A version that gets everything.
    pub(super) to: Option<String>,
    /// A revision whose weights come back; not together with `to`.
    pub(super) to_revision: Option<u64>,
    /// Even if the target has no usable endpoint.
    pub(super) force: bool,
    pub(super) reason: Option<String>,
}

impl Fields for RollbackBody {
    const FIELDS: &'static [&'static str] = &["to", "to_revision", "force", "reason"];
    fn when_empty() -> Option<Self> {
        Some(Self::default())
    }
}

/// What to drain; without `endpoint` the whole version.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DrainBody {
    /// `host:port` as in the file.
    #[schema(example = "10.0.0.11:9000")]
    pub(super) endpoint: Option<String>,
    pub(super) reason: Option<String>,
}

impl Fields for DrainBody {
    const FIELDS: &'static [&'static str] = &["endpoint", "reason"];
    fn when_empty() -> Option<Self> {
        Some(Self::default())
    }
}

/// Why; optional.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReasonBody {
    pub(super) reason: Option<String>,
}

impl Fields for ReasonBody {
    const FIELDS: &'static [&'static str] = &["reason"];
    fn when_empty() -> Option<Self> {
        Some(Self::default())
    }
}

/// The pairs of a JSON object in order, names that occur twice included, so that the caller can refuse them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pairs(pub(super) Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of version: weight")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Pairs::default();
                while let Some(pair) = map.next_entry()? {
                    pairs.0.push(pair);
                }
                Ok(pairs)
            }
        }
        d.deserialize_map(Collect)
    }
}

/// The query of every change.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct DryRun {
    /// Say what would happen, do nothing.
    pub(super) dry_run: bool,
}

/// Who calls, and on what condition.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) by: Actor,
    pub(super) source: Source,
    pub(super) if_match: Option<IfMatch>,
    pub(super) dry_run: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(DryRun { dry_run }) = Query::from_request_parts(parts, state).await?;
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let is_local = peer.is_some_and(|info| info.0.ip().to_canonical().is_loopback());
        let (by, source) = if is_local { caller(&parts.headers) } else { (Actor("api".into()), Source::Api) };
        Ok(Self { by, source, if_match: IfMatch::of(&parts.headers)?, dry_run })
    }
}

/// Our own command line says who runs it. Only `local:` names are taken, so that nobody poses as a token or as the
/// analysis; what is not short and plain is not taken either, since it ends up in logs and tables.
fn caller(headers: &HeaderMap) -> (Actor, Source) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.@+".contains(&b);
    let is_fit = |name: &str| (1..=64).contains(&name.len()) && name.bytes().all(plain);
    let local = text("weir-by").filter(|by| by.strip_prefix("local:").is_some_and(is_fit));
    let source = match text("weir-source") {
        Some("cli") => Source::Cli,
        Some("dashboard") => Source::Dashboard,
        _ => Source::Api,
    };
    (Actor(local.unwrap_or("api").to_owned()), source)
}

/// The reason as it is kept: one line, without control characters; nothing if empty.
pub(super) fn reason(text: Option<String>) -> Result<Option<String>, Problem> {
    const MAX: usize = 500;
    let Some(text) = text else { return Ok(None) };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > MAX || line.chars().any(char::is_control) {
        return Err(Problem::new(BAD_REQUEST, format!("`reason` is at most {MAX} characters of plain text")));
    }
    Ok((!line.is_empty()).then_some(line))
}

/// The precondition `If-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// `*`: whatever the revision is.
    Any,
    /// One of these. A tag that is no revision matches nothing and is kept as `None`.
    Tags(Vec<Option<Revision>>),
}

impl IfMatch {
    /// Reads the header.
    ///
    /// # Errors
    /// `bad-request` when it is neither `*` nor a list of quoted tags.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let bad = || Problem::new(BAD_REQUEST, "If-Match is `*` or a quoted revision like `\"17\"`");
        let mut tags = Vec::new();
        for line in headers.get_all(header::IF_MATCH) {
            let line = line.to_str().map_err(|_| bad())?.trim();
            if line == "*" {
                return Ok(Some(Self::Any));
            }
            for tag in line.split(',') {
                tags.push(parse_tag(tag.trim()).ok_or_else(bad)?);
            }
        }
        Ok((!tags.is_empty()).then_some(Self::Tags(tags)))
    }

    /// The revision to hold the change to, given the one in force.
    ///
    /// # Errors
    /// `revision-changed` when no tag is the one in force.
    pub(super) fn resolve(&self, split: &str, now: Revision) -> Result<Option<Revision>, Problem> {
        match self {
            Self::Any => Ok(None),
            Self::Tags(tags) if tags.contains(&Some(now)) => Ok(Some(now)),
            Self::Tags(_) => {
                let detail = format!("split `{split}` is at revision {now}, which If-Match does not name");
                Err(Problem::new(REVISION_CHANGED, detail).allowed([format!("\"{now}\"")]))
            }
        }
    }
}

/// `None` if malformed. A weak tag is well-formed but never matches (RFC 9110: `If-Match` compares strongly).
fn parse_tag(tag: &str) -> Option<Option<Revision>> {
    let (weak, rest) = tag.strip_prefix("W/").map_or((false, tag), |rest| (true, rest));
    let inner = rest.strip_prefix('"')?.strip_suffix('"')?;
    if inner.bytes().any(|b| b == b'"' || b <= b' ' || b == 0x7f) {
        return None;
    }
    let plain = !weak && inner.bytes().all(|b| b.is_ascii_digit());
    Some(if plain { inner.parse().ok().map(Revision) } else { None })
}

/// A duration as in the file: `250ms`, `10s`, `1h30m`.
///
/// # Errors
/// `bad-request` naming the parameter, when it is no duration or outside `min..=max`.
pub(super) fn duration(name: &str, text: &str, min: Duration, max: Duration) -> Result<Duration, Problem> {
    let parsed = durations::parse(text).ok().filter(|d| (min..=max).contains(d));
    parsed.ok_or_else(|| {
        let range = format!("from {}s to {}s", min.as_secs(), max.as_secs());
        Problem::new(
            BAD_REQUEST,
            format!("`{name}` is a duration like `30s`, {range}; not `{}`", text.escape_default()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn if_match_is_a_revision_a_star_or_refused() {
        let parse = |value: &str| IfMatch::of(&headers(&[("if-match", value)]));
        let resolve = |value: &str| parse(value).unwrap().unwrap().resolve("shop", Revision(17));
        assert_eq!(IfMatch::of(&headers(&[])).unwrap(), None);
        assert_eq!(resolve("\"17\"").unwrap(), Some(Revision(17)));
        assert_eq!(resolve("\"16\", \"17\"").unwrap(), Some(Revision(17)));
        assert_eq!(resolve("*").unwrap(), None);
        for stale in ["\"16\"", "W/\"17\"", "\"abc\"", "\"\"", "\"99999999999999999999\""] {
            assert_eq!(resolve(stale).unwrap_err().slug(), "revision-changed", "{stale}");
        }
        for bad in ["17", "\"17", "\"17\" \"18\"", "", "\"1\",", "'17'"] {
            assert_eq!(parse(bad).unwrap_err().slug(), "bad-request", "{bad}");
        }
    }

    #[test]
    fn durations_have_units_and_bounds() {
        let read = |text| duration("wait", text, Duration::ZERO, Duration::from_secs(3600)).ok();
        assert_eq!(read("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(read("30s"), Some(Duration::from_secs(30)));
        assert_eq!(read("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(read("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(read("0s"), Some(Duration::ZERO));
        for bad in ["", "30", "s", "-1s", "1 s", "1d", "1h1s", "99999999999s", "1.5s", "5sé"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_plain_local_names_are_believed() {
        let who = |by, source| {
            let (by, source) = caller(&headers(&[("weir-by", by), ("weir-source", source)]));
            (by.0, source)
        };
        assert_eq!(who("local:alice", "cli"), ("local:alice".into(), Source::Cli));
        assert_eq!(who("token:ci", "dashboard"), ("api".into(), Source::Dashboard));
        assert_eq!(who("local:", "file"), ("api".into(), Source::Api));
        assert_eq!(who("local:a b", "analysis").0, "api");
        assert_eq!(who(&format!("local:{}", "x".repeat(65)), "cli").0, "api");
    }

    #[test]
    fn a_misspelt_field_is_refused_with_those_allowed() {
        let problem = parse::<RollbackBody>(br#"{"too":"v1"}"#).unwrap_err();
        assert_eq!(problem.slug(), "bad-json");
        assert!(format!("{problem:?}").contains("unknown field `too`"));
        assert!(format!("{problem:?}").contains("to_revision"));
        assert!(parse::<RollbackBody>(b"").unwrap().to.is_none());
        assert_eq!(parse::<WeightsBody>(b"").unwrap_err().slug(), "bad-json");
        assert_eq!(parse::<WeightsBody>(b"{").unwrap_err().slug(), "bad-json");
        assert_eq!(parse::<WeightsBody>(br#"{"hold":true}"#).unwrap_err().slug(), "bad-json");
    }

    #[test]
    fn reasons_are_one_plain_line() {
        let read = |text: &str| reason(Some(text.to_owned()));
        assert_eq!(reason(None).unwrap(), None);
        assert_eq!(read("  ").unwrap(), None);
        assert_eq!(read("release 42\nby ci").unwrap().unwrap(), "release 42 by ci");
        assert!(read("\u{1b}[31mred").is_err());
        assert!(read(&"x".repeat(501)).is_err());
    }
}
