//! What is true right now, for the metrics page: read off the snapshot once a second.

use std::collections::HashMap;
use std::time::SystemTime;

use crate::analysis::Direction;
use crate::config::{Certificate, Config};
use crate::dns::Statuses;
use crate::health::{Board, CheckCounts};
use crate::model::{Instant, Source, SplitName, rfc3339_ms};
use crate::reload::ReloadStatus;
use crate::rollout::{self, Desk};
use crate::state::{Snapshot, SplitState, VersionState};
use crate::telemetry::{
    CertificateGauge, CheckGauge, EndpointGauges, Gauges, NameGauge, Reloads, RolloutGauges, SplitGauges,
    VersionGauges, panics,
};
use crate::tls::{Expiring, ExpiryWatch};
use crate::upgrade::Tally;

/// Rollbacks since the start.
pub(super) type Rollbacks = HashMap<(SplitName, Source), u64>;

/// What others have found out.
pub(super) struct Seen {
    pub(super) checks: Board,
    pub(super) names: Statuses,
    pub(super) desk: Desk,
}

/// See the file's head.
pub(super) fn gauges(
    snapshot: &Snapshot,
    reloads: &ReloadStatus,
    (rollbacks, seen): (&Rollbacks, &Seen),
    (upgrades, dropped): (Tally, u64),
) -> Gauges {
    Gauges {
        upgrades: (upgrades.done, upgrades.failed),
        splits: snapshot.splits.iter().map(|s| split(s, rollbacks, seen)).collect(),
        certificates: snapshot.config.certificates().into_iter().map(|c| certificate(c)).collect(),
        names: seen
            .names
            .stale()
            .into_iter()
            .map(|(name, stale)| NameGauge { name: name.to_string(), stale })
            .collect(),
        lookups: seen.names.lookups(),
        persisted: snapshot.persisted,
        access_lines_dropped: dropped,
        panics: panics::count(),
        reloads: Reloads {
            applied: reloads.applied,
            rejected: reloads.rejected,
            last_successful: !reloads.is_stale(),
            last_success: reloads.last_success_at,
        },
    }
}

fn certificate(certificate: &Certificate) -> CertificateGauge {
    CertificateGauge { name: certificate.path.clone(), not_after: certificate.not_after }
}

/// Tells of certificates that end soon, each once a day.
pub(super) fn tell_expiring(watch: &mut ExpiryWatch, config: &Config) {
    let certificates = config.certificates().into_iter().map(AsRef::as_ref);
    for Expiring { path, not_after, days_left } in watch.due(certificates, Instant::now(), SystemTime::now()) {
        let not_after = rfc3339_ms(not_after);
        tracing::warn!(
            event = "certificate-expiring",
            name = path,
            not_after,
            days_left,
            "renew it; weir takes a new \
            file by itself"
        );
    }
}

fn split(split: &SplitState, rollbacks: &Rollbacks, seen: &Seen) -> SplitGauges {
    let mine = rollbacks.iter().filter(|((name, _), _)| *name == split.name);
    SplitGauges {
        rollbacks: mine.map(|((_, source), n)| (*source, *n)).collect(),
        name: split.name.clone(),
        revision: split.revision,
        held: split.is_held(),
        overridden: split.override_.is_some(),
        versions: split.versions.iter().map(|v| version(split, v, &seen.checks)).collect(),
        rollout: seen.desk.view(&split.name).map(|view| rollout(&view)),
    }
}

fn rollout(view: &rollout::View) -> RolloutGauges {
    let judged = view.judgment.as_ref();
    let direction = |direction| match direction {
        Direction::Against => "against",
        Direction::For => "for",
    };
    let check = |check: &rollout::CheckView| CheckGauge {
        name: check.name.clone(),
        value: check.value,
        has_passed: check.verdict.map(|verdict| verdict == "pass"),
    };
    RolloutGauges {
        step: view.step.map_or(0, |step| step + 1),
        is_running: !view.state.is_end(),
        evidence: judged.iter().flat_map(|j| &j.evidence).map(|e| (e.name, direction(e.direction), e.log_e)).collect(),
        verdict: judged.map(|j| j.verdict.as_str()),
        checks: view.checks.iter().map(check).collect(),
    }
}

fn version(split: &SplitState, version: &VersionState, checks: &Board) -> VersionGauges {
    let endpoints: Vec<_> = version
        .pool
        .endpoints()
        .iter()
        .map(|e| EndpointGauges {
            address: e.address().to_string(),
            up: e.health().is_able() && !e.is_ejected(),
            draining: e.is_draining(),
            ejections: e.ejections().count,
            in_flight: u64::from(e.counts().total()),
        })
        .collect();
    let counts = checks.counts(&split.name, &version.name);
    VersionGauges {
        name: version.name.clone(),
        ratio: split.weights.share(&version.name),
        file_ratio: split.file_weights.share(&version.name),
        in_flight: endpoints.iter().map(|e| e.in_flight).sum(),
        endpoints,
        checks: if counts == CheckCounts::default() { Vec::new() } else { results(counts) },
    }
}

fn results(counts: CheckCounts) -> Vec<(&'static str, u64)> {
    vec![("pass", counts.passed), ("fail", counts.failed), ("error", counts.not_made)]
}
