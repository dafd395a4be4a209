//! Calls that only look: status, splits, figures, history.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::change::with_etag;
use super::{Api, blocking, unknown_split};
use crate::admin::context::LastReload;
use crate::admin::dto::{
    BusyDto, ConfigStatusDto, HistoryDto, HistoryEntryDto, ListenerDto, PredecessorDto, SplitDto, SplitStatsDto,
    SplitsDto, StatusDto,
};
use crate::admin::error::{BAD_REQUEST, Problem, ProblemDto};
use crate::admin::request::{Path, Query, duration};
use crate::admin::view::View;
use crate::model::{SplitName, rfc3339_ms};
use crate::state::HistoryEntry;
use crate::upgrade::{Part, Report};

/// Everything at once.
#[utoipa::path(get, path = "/status", tag = "views", responses((status = 200, body = StatusDto)))]
pub(in crate::admin) async fn status(State(api): State<Arc<Api>>) -> Json<StatusDto> {
    let (ctx, snapshot) = (&api.ctx, api.ctx.store.snapshot());
    let view = View::new(ctx, snapshot.persisted);
    let not_ready = (ctx.is_ready)().err().unwrap_or_default();
    let LastReload { accepted, at, message } = (ctx.last_reload)();
    let listener = |l: &crate::config::Listener| ListenerDto {
        name: l.name.to_string(),
        bind: l.bind.iter().map(ToString::to_string).collect(),
    };
    Json(StatusDto {
        weir: env!("CARGO_PKG_VERSION"),
        revision: snapshot.revision.0,
        uptime_seconds: ctx.started.elapsed().as_secs(),
        ready: not_ready.is_empty(),
        not_ready,
        shutting_down: (ctx.is_shutting_down)(),
        pid: std::process::id(),
        predecessor: ctx.elsewhere.now().map(predecessor),
        persisted: snapshot.persisted,
        config: ConfigStatusDto { result: if accepted { "ok" } else { "rejected" }, at, message },
        listeners: snapshot.config.listeners.iter().map(listener).collect(),
        splits: snapshot.splits.iter().map(|s| view.split(s)).collect(),
    })
}

fn predecessor((pid, since, report): (u32, SystemTime, Report)) -> PredecessorDto {
    let in_flight = report.total().into();
    let busy = |Part { key, counts }: Part| BusyDto {
        split: key.split.into(),
        version: key.version.into(),
        address: key.address.to_string(),
        in_flight: counts.into(),
    };
    let endpoints = report.in_flight.into_iter().map(busy).collect();
    PredecessorDto { pid, since: rfc3339_ms(since), connections: report.connections, in_flight, endpoints }
}

/// All splits, in file order.
#[utoipa::path(get, path = "/splits", tag = "views", responses((status = 200, body = SplitsDto)))]
pub(in crate::admin) async fn splits(State(api): State<Arc<Api>>) -> Json<SplitsDto> {
    let snapshot = api.ctx.store.snapshot();
    let view = View::new(&api.ctx, snapshot.persisted);
    Json(SplitsDto { splits: snapshot.splits.iter().map(|s| view.split(s)).collect() })
}

/// One split; its `ETag` is its revision.
#[utoipa::path(
    get, path = "/splits/{split}", tag = "views",
    params(("split" = String, Path, description = "name of the split")),
    responses(
        (status = 200, body = SplitDto, headers(("etag" = String, description = "the split's revision, quoted"))),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn split(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let snapshot = api.ctx.store.snapshot();
    let split = snapshot.split(&name).ok_or_else(|| unknown_split(&name, &snapshot))?;
    let view = View::new(&api.ctx, snapshot.persisted);
    Ok(with_etag(split.revision, Json(view.split(split)).into_response()))
}

/// See `stats`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct StatsQuery {
    /// How far to look back, `1s` to `1h`; default `1m`.
    window: Option<String>,
}

/// Counts, rates and latencies per version. `window_seconds` of the answer says how far back the figures go.
#[utoipa::path(
    get, path = "/splits/{split}/stats", tag = "views",
    params(("split" = String, Path, description = "name of the split"), StatsQuery),
    responses(
        (status = 200, body = SplitStatsDto),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn stats(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Query(query): Query<StatsQuery>,
) -> Result<Json<SplitStatsDto>, Problem> {
    let text = query.window.as_deref().unwrap_or("1m");
    let window = duration("window", text, Duration::from_secs(1), Duration::from_secs(3600))?;
    let snapshot = api.ctx.store.snapshot();
    let split = snapshot.split(&name).ok_or_else(|| unknown_split(&name, &snapshot))?;
    Ok(Json(View::new(&api.ctx, snapshot.persisted).stats(split, window)))
}

/// See `history`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::admin) struct HistoryQuery {
    /// Only this split.
    split: Option<String>,
    /// 1 to 1000; default 50.
    limit: Option<usize>,
    /// Only revisions below this one.
    before: Option<u64>,
}

/// Revisions, newest first: who, when, why, from, to, source.
#[utoipa::path(
    get, path = "/history", tag = "views", params(HistoryQuery),
    responses(
        (status = 200, body = HistoryDto),
        (status = "4XX", body = ProblemDto, content_type = "application/problem+json"),
    )
)]
pub(in crate::admin) async fn history(
    State(api): State<Arc<Api>>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<HistoryDto>, Problem> {
    let limit = query.limit.unwrap_or(50);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::new(BAD_REQUEST, format!("`limit` is a number from 1 to 1000; not {limit}")));
    }
    let unknown = |name: &str| unknown_split(name, &api.ctx.store.snapshot());
    let split = match query.split.as_deref() {
        Some(name) => Some(SplitName::new(name).map_err(|_| unknown(name))?),
        None => None,
    };
    let (store, of) = (api.ctx.store.clone(), split.clone());
    let page =
        blocking(move || page(&|limit, before| store.history(of.as_ref(), limit, before), limit, query.before)).await?;
    let is_gone = |name: &SplitName| api.ctx.store.snapshot().split(name.as_str()).is_none();
    match split.filter(|name| page.history.is_empty() && is_gone(name)) {
        Some(name) => Err(unknown(name.as_str())),
        None => Ok(Json(page)),
    }
}

/// At most `limit` entries, but never a part of a revision: one reload may touch many splits under one revision, and
/// `before` could not lead to the rest of it. A single revision with more entries than `limit` is a page of its own.
fn page(history: &dyn Fn(usize, Option<u64>) -> Vec<HistoryEntry>, limit: usize, before: Option<u64>) -> HistoryDto {
    let mut entries = history(limit + 1, before);
    let cut = entries.get(limit).map(|entry| entry.revision);
    if let Some(cut) = cut {
        let whole = entries.iter().take_while(|entry| entry.revision != cut).count();
        entries.truncate(whole);
        if entries.is_empty() {
            entries = history(usize::MAX, Some(cut.0.saturating_add(1)));
            entries.retain(|entry| entry.revision == cut);
        }
    }
    let next_before = entries.last().filter(|_| cut.is_some()).map(|entry| entry.revision.0);
    HistoryDto { history: entries.into_iter().map(HistoryEntryDto::from).collect(), next_before }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Actor, Revision, Source};

    /// Newest first, as the store gives them: revision 3 touched two splits.
    fn history(limit: usize, before: Option<u64>) -> Vec<HistoryEntry> {
        let all = [4, 3, 3, 2].into_iter().filter(|r| before.is_none_or(|b| *r < b)).take(limit);
        let entry = |r| HistoryEntry {
            revision: Revision(r),
            at: String::new(),
            kind: "reload".into(),
            split: None,
            from: None,
            to: None,
            target: None,
            by: Actor("file".into()),
            source: Source::File,
            reason: None,
            id: String::new(),
        };
        all.map(entry).collect()
    }

    #[test]
    fn pages_lose_no_entry_of_a_shared_revision() {
        for (limit, wanted) in [
            (1, vec![vec![4], vec![3, 3], vec![2]]),
            (2, vec![vec![4], vec![3, 3], vec![2]]),
            (3, vec![vec![4, 3, 3], vec![2]]),
            (4, vec![vec![4, 3, 3, 2]]),
            (9, vec![vec![4, 3, 3, 2]]),
        ] {
            let (mut pages, mut before) = (Vec::new(), None);
            loop {
                let page = page(&history, limit, before);
                pages.push(page.history.iter().map(|e| e.revision).collect::<Vec<u64>>());
                before = page.next_before;
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(pages, wanted, "limit {limit}");
        }
    }
}
