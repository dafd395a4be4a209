//! What the admin API needs of the other rooms, as the closures it asks for.

use std::sync::Arc;
use std::time::Duration;

use super::load;
use super::start::World;
use crate::admin::{AdminContext, LastReload, NameDto, ReloadAsk, ReloadDone, ReloadResult, StatsDto};
use crate::config;
use crate::dns::{NameState, Statuses};
use crate::lifecycle::Phase;
use crate::model::{Instant, Source, SplitName, VersionName, rfc3339_ms};
use crate::reload::{self, Gone, ReloadHandle, ReloadOutcome, ReloadStatus};
use crate::state::{ApplyError, Change, Order, Store};
use crate::telemetry::Stats;
use crate::upgrade::Elsewhere;

/// See the file's head. `phase` is where the process is on its way down.
pub(super) fn context(world: &World, elsewhere: Elsewhere, phase: tokio::sync::watch::Receiver<Phase>) -> AdminContext {
    let (windows, scrape) = (world.flusher.windows(), world.flusher.scrape());
    let (store, reloads, load) = (world.store.clone(), world.reloads.clone(), world.load.clone());
    let upgrades = world.upgrades.clone();
    let (status, readiness) = (world.reloads.status(), world.readiness.clone());
    let file = world.loaded.files.first().map_or_else(|| "weir.toml".to_owned(), |f| f.display().to_string());
    AdminContext {
        store: world.store.clone(),
        rollouts: world.desk.clone(),
        checks: world.checks.clone(),
        stats: {
            let windows = windows.clone();
            Arc::new(move |split, version, window: Duration| stats(windows.stats(split, version, window)))
        },
        rule_stats: Arc::new(move |split, rule, version, window| {
            stats(windows.rule_stats(split, rule, version, window))
        }),
        names: {
            let (store, statuses) = (world.store.clone(), world.names.clone());
            Arc::new(move |split, version| names(&store.snapshot().config, &statuses, split, version))
        },
        render_metrics: Arc::new(move || scrape.render()),
        reload: Arc::new(move |ask| Box::pin(reload_for(reloads.clone(), store.clone(), load.clone(), ask))),
        check: Arc::new(move |text| load::check(&file, &text)),
        effective: {
            let store = world.store.clone();
            Arc::new(move || config::effective_shown(&store.snapshot().config))
        },
        schema: Arc::new(config::schema),
        is_ready: Arc::new(move || {
            readiness.is_ready().map_err(|names| names.into_iter().map(str::to_owned).collect())
        }),
        last_reload: Arc::new(move || last_reload(&status.borrow())),
        is_shutting_down: Arc::new(move || !matches!(*phase.borrow(), Phase::Running)),
        upgrade: Arc::new(move |by| {
            let upgrades = upgrades.clone();
            Box::pin(async move { upgrades.upgrade(by).await })
        }),
        elsewhere,
        started: Instant::now(),
    }
}

fn names(config: &config::Config, statuses: &Statuses, split: &SplitName, version: &VersionName) -> Vec<NameDto> {
    let of_split = config.splits.iter().filter(|known| known.name == *split);
    let found = of_split.flat_map(|known| &known.versions).find(|known| known.name == *version);
    let one = |name: &config::NameTarget| {
        let status = statuses.of(name);
        NameDto {
            name: name.to_string(),
            state: status.as_ref().map_or(NameState::Resolving, |status| status.state).as_str(),
            addresses: status.as_ref().map_or(0, |status| status.addresses),
            age_seconds: status.as_ref().and_then(|status| status.age).map(|age| age.as_secs()),
            error: status.and_then(|status| status.error),
        }
    };
    found.into_iter().flat_map(|version| version.names()).map(one).collect()
}

fn stats(stats: Stats) -> StatsDto {
    StatsDto {
        window_seconds: stats.window_seconds,
        requests: stats.requests,
        rps: stats.rps,
        error_rate: stats.error_rate,
        p50_ms: stats.p50_ms,
        p90_ms: stats.p90_ms,
        p95_ms: stats.p95_ms,
        p99_ms: stats.p99_ms,
        in_flight: 0,
    }
}

fn last_reload(status: &ReloadStatus) -> LastReload {
    match &status.last {
        Some(ReloadOutcome { result: reload::ReloadResult::Rejected { report, .. }, at, .. }) => {
            LastReload { accepted: false, at: rfc3339_ms(*at), message: Some(report.clone()) }
        }
        _ => LastReload { accepted: true, at: rfc3339_ms(status.last_success_at), message: None },
    }
}

async fn reload_for(reloads: ReloadHandle, store: Arc<Store>, load: reload::Loader, ask: ReloadAsk) -> ReloadResult {
    if ask.dry_run {
        let rehearsal = tokio::task::spawn_blocking(move || rehearse(&store, &load, ask));
        return rehearsal.await.unwrap_or_else(|e| ReloadResult::Failed(e.to_string()));
    }
    match reloads.reload(ask.by, Source::Api).await {
        Ok(outcome) => result(outcome.result, &store),
        Err(Gone) => ReloadResult::Failed(Gone.to_string()),
    }
}

/// Everything but the listeners, which are not bound for a rehearsal.
fn rehearse(store: &Store, load: &reload::Loader, ask: ReloadAsk) -> ReloadResult {
    let loaded = load();
    let config = match &loaded.config {
        Ok(config) => config.clone(),
        Err(text) => return ReloadResult::Invalid { text: text.clone(), diagnostics: loaded.diagnostics },
    };
    let order = Order {
        id: fastrand::u128(..),
        change: Change::Reload { config },
        by: ask.by,
        source: Source::Api,
        reason: ask.reason,
        if_match: None,
        dry_run: true,
    };
    match store.apply(order) {
        Ok(applied) => {
            let of =
                |kind: &str| applied.events.iter().filter(|e| e.kind == kind).filter_map(|e| e.split.clone()).collect();
            ReloadResult::Done(ReloadDone {
                revision: applied.snapshot.revision,
                changed: applied.changed,
                persisted: applied.persisted,
                held: of("held"),
                superseded: of("superseded"),
                warnings: loaded.diagnostics,
            })
        }
        Err(error @ ApplyError::BadTls { .. }) => {
            let report = loaded.explain(&[reload::not_applied(&error)]);
            ReloadResult::Invalid { text: report.text, diagnostics: report.diagnostics }
        }
        Err(error) => ReloadResult::HeldConflict(error.to_string()),
    }
}

fn result(result: reload::ReloadResult, store: &Store) -> ReloadResult {
    let now = store.snapshot();
    match result {
        reload::ReloadResult::Applied { revision, changed, persisted, held, diagnostics, .. } => {
            let superseded = store.history(None, 100, None).into_iter();
            let superseded = superseded.filter(|e| e.revision == revision && e.kind == "superseded");
            ReloadResult::Done(ReloadDone {
                revision,
                changed,
                persisted,
                held,
                superseded: superseded.filter_map(|e| e.split).collect(),
                warnings: diagnostics,
            })
        }
        reload::ReloadResult::Rejected { report, diagnostics } => ReloadResult::Invalid { text: report, diagnostics },
        reload::ReloadResult::Unchanged => ReloadResult::Done(ReloadDone {
            revision: now.revision,
            changed: false,
            persisted: now.persisted,
            held: now.splits.iter().filter(|s| s.is_held()).map(|s| s.name.clone()).collect(),
            superseded: Vec::new(),
            warnings: serde_json::json!([]),
        }),
    }
}
