//! Refusals: the one table from what went wrong to status, title and page, and the answer made of it.
//!
//! Invariant: the slugs are a contract with scripts (surface.md section 7); a status belongs to its slug alone.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::rollout::{DeskError, Refusal};
use crate::state::ApplyError;

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) slug: &'static str,
    pub(super) status: u16,
    pub(super) title: &'static str,
    /// What to do about it; the text of the page `/problems/<slug>`.
    pub(super) remedy: &'static str,
}

macro_rules! problems {
    ($($name:ident = $slug:literal $status:literal $title:literal $remedy:literal;)+) => {
        $(pub(super) const $name: &Kind = &Kind { slug: $slug, status: $status, title: $title, remedy: $remedy };)+
        /// Every row.
        pub(super) const ALL: &[&Kind] = &[$($name),+];
    };
}

problems! {
    BAD_JSON = "bad-json" 400 "The body is not the JSON this call takes"
        "Send the fields the detail names, as JSON. Unknown fields are refused, so that a misspelt one is not ignored.";
    BAD_REQUEST = "bad-request" 400 "The request is malformed"
        "A path, query parameter or header has a value this call does not take; the detail says which and what it takes.";
    UNAUTHORIZED = "unauthorized" 401 "Only local callers may use this API"
        "Without tokens the admin API answers connections from the loopback address only. Call it from the same machine.";
    FORBIDDEN = "forbidden" 403 "The Host header names a host this API does not serve"
        "Use a loopback name, an IP address, or a name listed in `admin.hosts`. This keeps foreign web pages out.";
    BAD_ORIGIN = "bad-origin" 403 "The request comes from a foreign web page"
        "Browsers may call this API only from pages it served itself.";
    NOT_FOUND = "not-found" 404 "There is nothing at this path"
        "The API is under /api/v1; /api/v1/openapi.json lists every path.";
    UNKNOWN_SPLIT = "unknown-split" 404 "There is no split of that name"
        "The allowed names are in `allowed`; they come from [splits.*] of the configuration in force.";
    UNKNOWN_ROLLOUT = "unknown-rollout" 404 "There is no rollout of that id"
        "GET /api/v1/rollouts lists those that are remembered, with their ids.";
    UNKNOWN_ENDPOINT = "unknown-endpoint" 404 "The version has no endpoint of that address"
        "Write the address as in the file, `host:port`. A removed endpoint is known until it is empty plus 1 hour.";
    METHOD_NOT_ALLOWED = "method-not-allowed" 405 "The path does not take this method"
        "The `Allow` header of the answer lists the methods it takes.";
    BODY_TIMEOUT = "body-timeout" 408 "The body did not arrive in time"
        "Send the whole body within 10 seconds of the head.";
    NOTHING_TO_ROLL_BACK = "nothing-to-roll-back" 409 "There is nothing to roll back to"
        "The target has all the traffic already and no other is known. Name one with `to` or `to_revision`.";
    TARGET_UNHEALTHY = "target-unhealthy" 409 "The target of the rollback has no usable endpoint"
        "Send `\"force\": true` to roll back nevertheless, or name another target.";
    HELD_CONFLICT = "held-conflict" 409 "The file would remove what a held rollback stands on"
        "Keep that version in the file, or release the split first: DELETE /api/v1/splits/{split}/override.";
    DRAINED_AS_VERSION = "drained-as-version" 409 "The endpoint drains because its whole version does"
        "Undrain the version: POST the same call without `endpoint`.";
    NO_ROLLOUT = "no-rollout" 409 "No rollout runs in this split"
        "Start one: POST /api/v1/splits/{split}/rollout. GET /api/v1/rollouts lists past ones.";
    ROLLOUT_REFUSED = "rollout-refused" 409 "The rollout does not take this command now"
        "GET /api/v1/splits/{split}/rollout lists in `commands` what it takes, and in `waits_for` what it waits for.";
    NOT_DRAINING = "not-draining" 409 "There is no drain to wait for"
        "Start it first: POST /api/v1/splits/{split}/versions/{version}/drain.";
    UPGRADE_RUNNING = "upgrade-running" 409 "An upgrade is under way already"
        "Wait until it has ended; GET /api/v1/status tells which process answers.";
    UPGRADE_IMPOSSIBLE = "upgrade-impossible" 409 "This process cannot hand over to another one"
        "As process 1 of a container its end is the container's: replace the container, the orchestrator does it without loss.";
    ROLLOUT_RUNNING = "rollout-running" 409 "A rollout runs in this split"
        "It sets the weights: pause or abort it first, or roll back.";
    REVISION_CHANGED = "revision-changed" 412 "Someone else changed the split first"
        "Read the split again, look at what changed, and repeat with its new ETag.";
    BODY_TOO_LARGE = "body-too-large" 413 "The body is larger than 1 MiB"
        "No call needs a larger one.";
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type" 415 "The body has the wrong content type"
        "Send JSON bodies as `application/json`; TOML for /config as `application/toml` or `text/plain`.";
    UNKNOWN_VERSION = "unknown-version" 422 "The split has no version of that name"
        "The allowed names are in `allowed`; they come from [splits.*.versions] of the configuration in force.";
    UNKNOWN_REVISION = "unknown-revision" 422 "The history has no such revision of this split"
        "GET /api/v1/history?split={split} lists those that are known.";
    BAD_WEIGHTS = "bad-weights" 422 "The weights cannot be used"
        "Name every version of the split, each with a whole number from 0 to 1000000, at least one of an open version above 0.";
    BAD_ROLLOUT = "bad-rollout" 422 "There can be no such rollout"
        "It moves requests from the stable version to one other, in steps whose weights rise from 0 to 100 percent, each with its time.";
    INVALID_CONFIG = "invalid-config" 422 "The configuration has errors"
        "The old configuration stays in force. `diagnostics` lists every problem with its place.";
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused" 422 "The Idempotency-Key was used for another request"
        "A key stands for one request (path and body). Use a new one for each change.";
    INTERNAL = "internal" 500 "Something went wrong inside weir"
        "This is a bug: please report it with the log lines around it.";
    UPGRADE_FAILED = "upgrade-failed" 500 "The new process did not come up"
        "This process goes on as before, and takes changes again. Mend what the detail names and repeat.";
    NOT_YET = "not-yet" 501 "This part of weir is not built yet"
        "The name is reserved by the specification; a later version answers it.";
    TOO_MANY_WAITS = "too-many-waits" 503 "Too many calls wait for a drain"
        "Ask without `wait`, or let some of the waiting calls end.";
    SHUTTING_DOWN = "shutting-down" 503 "weir is shutting down"
        "Changes are refused from the signal on. Ask the process that takes over.";
    UPGRADING = "upgrading" 503 "A new process is being started"
        "Changes are refused until it has taken over, or has failed: repeat in a second.";
    NOT_PERSISTED = "not-persisted" 507 "The change could not be written to disk"
        "Nothing was changed. Free or repair the disk that holds `admin.state_dir` and repeat.";
}

/// The page of a slug.
pub(super) fn page(slug: &str) -> Option<String> {
    let kind = ALL.iter().find(|kind| kind.slug == slug)?;
    Some(format!("{} ({})\n\n{}\n\n{}\n", kind.slug, kind.status, kind.title, kind.remedy))
}

/// A refusal on its way to the caller.
#[derive(Debug)]
pub(super) struct Problem {
    kind: &'static Kind,
    detail: String,
    allowed: Vec<String>,
    diagnostics: Option<serde_json::Value>,
}

/// The JSON of a refusal (RFC 9457).
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDto {
    /// `/problems/<slug>`: a page that explains it.
    #[schema(example = "/problems/unknown-version")]
    r#type: String,
    title: &'static str,
    status: u16,
    /// What happened this time.
    detail: String,
    /// What would have been taken instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed: Vec<String>,
    /// With `invalid-config`: every problem of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    diagnostics: Option<serde_json::Value>,
}

impl Problem {
    pub(super) fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), allowed: Vec::new(), diagnostics: None }
    }

    /// Names what would have been taken.
    pub(super) fn allowed<T: ToString>(mut self, allowed: impl IntoIterator<Item = T>) -> Self {
        self.allowed = allowed.into_iter().map(|a| a.to_string()).collect();
        self
    }

    /// Adds the problems of a configuration.
    pub(super) fn diagnostics(mut self, diagnostics: serde_json::Value) -> Self {
        self.diagnostics = Some(diagnostics);
        self
    }

    #[cfg(test)]
    pub(super) fn slug(&self) -> &'static str {
        self.kind.slug
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { kind, detail, allowed, diagnostics } = self;
        let status = StatusCode::from_u16(kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let r#type = format!("/problems/{}", kind.slug);
        let dto = ProblemDto { r#type, title: kind.title, status: kind.status, detail, allowed, diagnostics };
        let body = serde_json::to_vec(&dto).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if kind == UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        let detail = error.to_string();
        match error {
            ApplyError::UnknownSplit { known, .. } => Self::new(UNKNOWN_SPLIT, detail).allowed(known),
            ApplyError::UnknownVersion { known, .. } => Self::new(UNKNOWN_VERSION, detail).allowed(known),
            ApplyError::UnknownEndpoint { known, .. } => Self::new(UNKNOWN_ENDPOINT, detail).allowed(known),
            ApplyError::BadWeights(_) => Self::new(BAD_WEIGHTS, detail),
            ApplyError::NothingToRollBack(_) => Self::new(NOTHING_TO_ROLL_BACK, detail),
            ApplyError::TargetUnhealthy(_) => Self::new(TARGET_UNHEALTHY, detail),
            ApplyError::RolloutRunning { .. } => Self::new(ROLLOUT_RUNNING, detail),
            ApplyError::RevisionChanged { .. } => Self::new(REVISION_CHANGED, detail),
            ApplyError::UnknownRevision(_) => Self::new(UNKNOWN_REVISION, detail),
            ApplyError::DrainedAsVersion { .. } => Self::new(DRAINED_AS_VERSION, detail),
            ApplyError::HeldConflict(_) => Self::new(HELD_CONFLICT, detail),
            ApplyError::BadTls { .. } => Self::new(INVALID_CONFIG, detail),
            ApplyError::Frozen => Self::new(UPGRADING, detail),
            ApplyError::NotPersisted { .. } => Self::new(NOT_PERSISTED, detail),
        }
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        let detail = error.to_string();
        match error {
            DeskError::UnknownSplit { known, .. } => Self::new(UNKNOWN_SPLIT, detail).allowed(known),
            // The same to whoever asks: there is nothing that could hear the command.
            DeskError::NoRollout(_) | DeskError::Refused(Refusal::Ended) => Self::new(NO_ROLLOUT, detail),
            DeskError::Running { .. } => Self::new(ROLLOUT_RUNNING, detail),
            DeskError::Refused(_) => Self::new(ROLLOUT_REFUSED, detail),
            DeskError::Plan(_) | DeskError::Settings(_) => Self::new(BAD_ROLLOUT, detail),
            DeskError::Store(error) => error.into(),
            DeskError::Gone => Self::new(SHUTTING_DOWN, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StepsFlaw;
    use crate::model::{Revision, SplitName, VersionName};
    use crate::rollout::PlanError;

    #[test]
    fn every_slug_is_one_row_with_a_status_and_a_page() {
        for (i, kind) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|other| other.slug != kind.slug), "{} twice", kind.slug);
            assert!(StatusCode::from_u16(kind.status).unwrap().as_u16() >= 400);
            assert!(kind.slug.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            assert!(page(kind.slug).unwrap().contains(kind.remedy));
        }
        assert_eq!(page("nonsense"), None);
    }

    #[tokio::test]
    async fn a_refusal_is_problem_json_with_what_is_allowed() {
        let split = SplitName::new("shop").unwrap();
        let known = vec!["v1".to_owned(), "v2".to_owned()];
        let problem = Problem::from(ApplyError::UnknownVersion { split, version: "v9".into(), known });
        let response = problem.into_response();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"type": "/problems/unknown-version", "title": UNKNOWN_VERSION.title, "status": 422,
                "detail": "split `shop` has v1, v2; not `v9`", "allowed": ["v1", "v2"]})
        );
    }

    #[test]
    fn statuses_are_those_of_the_contract() {
        let io = || std::io::Error::other("disk full");
        let split = || SplitName::new("shop").unwrap();
        let version = || VersionName::new("v2").unwrap();
        for (error, slug, status) in [
            (ApplyError::UnknownSplit { split: "x".into(), known: vec![] }, "unknown-split", 404),
            (ApplyError::BadWeights("b".into()), "bad-weights", 422),
            (ApplyError::NothingToRollBack("n".into()), "nothing-to-roll-back", 409),
            (ApplyError::TargetUnhealthy("t".into()), "target-unhealthy", 409),
            (
                ApplyError::RevisionChanged { split: split(), wanted: Revision(1), now: Revision(2) },
                "revision-changed",
                412,
            ),
            (ApplyError::HeldConflict("h".into()), "held-conflict", 409),
            (ApplyError::RolloutRunning { split: split(), to: version() }, "rollout-running", 409),
            (ApplyError::Frozen, "upgrading", 503),
            (ApplyError::NotPersisted { path: "/x".into(), source: io() }, "not-persisted", 507),
        ] {
            let problem = Problem::from(error);
            assert_eq!(problem.slug(), slug);
            assert_eq!(problem.into_response().status(), status);
        }
    }
    #[test]
    fn refusals_of_the_desk_have_their_slugs() {
        let split = || SplitName::new("shop").unwrap();
        let to = VersionName::new("v2").unwrap();
        for (error, slug, status) in [
            (DeskError::UnknownSplit { split: "x".into(), known: vec!["shop".into()] }, "unknown-split", 404),
            (DeskError::NoRollout(split()), "no-rollout", 409),
            (DeskError::Refused(Refusal::Ended), "no-rollout", 409),
            (DeskError::Running { split: split(), to: to.clone() }, "rollout-running", 409),
            (DeskError::Refused(Refusal::Paused), "rollout-refused", 409),
            (DeskError::Plan(PlanError::IsStable(to)), "bad-rollout", 422),
            (DeskError::Plan(StepsFlaw::Empty.into()), "bad-rollout", 422),
            (DeskError::Settings("false_alarm".into()), "bad-rollout", 422),
            (DeskError::Store(ApplyError::Frozen), "upgrading", 503),
            (DeskError::Gone, "shutting-down", 503),
        ] {
            let problem = Problem::from(error);
            assert_eq!(problem.slug(), slug);
            assert_eq!(problem.into_response().status(), status);
        }
    }
}
