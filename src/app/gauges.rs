//! What is true right now, for the metrics page: read off the snapshot once a second.

use std::collections::HashMap;
use std::time::SystemTime;

use crate::config::{Certificate, Config};
use crate::model::{Instant, Source, SplitName, rfc3339_ms};
use crate::pool::Health;
use crate::reload::ReloadStatus;
use crate::state::{Snapshot, SplitState, VersionState};
use crate::telemetry::{CertificateGauge, EndpointGauges, Gauges, Reloads, SplitGauges, VersionGauges};
use crate::tls::{Expiring, ExpiryWatch};

/// Rollbacks since the start.
pub(super) type Rollbacks = HashMap<(SplitName, Source), u64>;

/// See the file's head.
pub(super) fn gauges(snapshot: &Snapshot, reloads: &ReloadStatus, rollbacks: &Rollbacks, dropped: u64) -> Gauges {
    Gauges {
        splits: snapshot.splits.iter().map(|s| split(s, rollbacks)).collect(),
        certificates: snapshot.config.certificates().into_iter().map(|c| certificate(c)).collect(),
        persisted: snapshot.persisted,
        access_lines_dropped: dropped,
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

fn split(split: &SplitState, rollbacks: &Rollbacks) -> SplitGauges {
    let mine = rollbacks.iter().filter(|((name, _), _)| *name == split.name);
    SplitGauges {
        rollbacks: mine.map(|((_, source), n)| (*source, *n)).collect(),
        name: split.name.clone(),
        revision: split.revision,
        held: split.is_held(),
        overridden: split.override_.is_some(),
        versions: split.versions.iter().map(|v| version(split, v)).collect(),
    }
}

fn version(split: &SplitState, version: &VersionState) -> VersionGauges {
    let endpoints: Vec<_> = version
        .pool
        .endpoints()
        .iter()
        .map(|e| EndpointGauges {
            address: e.address().to_string(),
            up: e.health() != Health::Down && !e.is_ejected(),
            draining: e.is_draining(),
            ejections: e.ejections().count,
            in_flight: u64::from(e.counts().total()),
        })
        .collect();
    VersionGauges {
        name: version.name.clone(),
        ratio: split.weights.share(&version.name),
        file_ratio: split.file_weights.share(&version.name),
        in_flight: endpoints.iter().map(|e| e.in_flight).sum(),
        endpoints,
    }
}
