//! The counters and gauges of `/metrics`, as handles of the crate `metrics`.
//!
//! Counter handles are made when a configuration is taken, from its names, so that a rate is right from a series'
//! first request; only status codes come on demand. The exporter forgets a series an hour after its last touch: what
//! the configuration names is touched at every flush (adding 0 counts as a touch), what it names no more is not.
//!
//! Invariant: labels are names of the file, addresses and status codes, never anything a client sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::cells::{CodeCounts, ListenerCounts, VersionCounts};
use super::gauges::{CertificateGauge, EndpointGauges, Gauges, SplitGauges, VersionGauges};
use super::registry::{Collected, RequestKey, ResponseKey, VersionKey};
use super::rollouts::{self, RolloutGauges};
use crate::config::Config;
use crate::model::{AcceptFault, Cause, Kind, ListenerName, Refusal, Shed, Source, SplitName};

pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// Where a rollback can come from.
const ROLLBACK_SOURCES: [Source; 5] = [Source::Api, Source::Cli, Source::Dashboard, Source::Analysis, Source::Check];

const COUNTERS: &[(&str, &str)] = &[
    ("weir_requests_total", "Requests by the version the coin chose and the outcome of its first attempt."),
    ("weir_responses_total", "Answers as clients got them."),
    ("weir_refused_requests_total", "Requests that never reached a version."),
    ("weir_errors_total", "Failed attempts by reason."),
    ("weir_retries_total", "Attempts at another endpoint of the same version."),
    ("weir_spilled_requests_total", "Requests that went to other versions, since theirs had no endpoint to use."),
    ("weir_rescued_requests_total", "Requests that failed at their version and were answered by stable."),
    ("weir_drain_aborted_total", "Requests, streams and tunnels that a drain or the end of the process has cut."),
    ("weir_ejections_total", "Times the endpoint was set aside for failures in a row."),
    ("weir_tls_handshakes_total", "TLS handshakes of clients by result."),
    ("weir_accept_errors_total", "Times that accepting failed or had to wait, by what was lacking."),
    ("weir_shed_connections_total", "Client connections closed for the sake of others."),
    ("weir_panics_total", "Defects that ended a connection or a task."),
    ("weir_rollbacks_total", "Rollbacks by who asked for them."),
    ("weir_config_reloads_total", "Reloads of the configuration by result."),
    ("weir_dns_lookups_total", "Names looked up, by result."),
    ("weir_health_checks_total", "Active checks of endpoints by result."),
    ("weir_upgrades_total", "Binary upgrades by result, those of the processes before this one included."),
    ("weir_access_lines_dropped_total", "Access lines not written because the output was too slow or failed."),
];
const GAUGES: &[(&str, &str)] = &[
    ("weir_requests_in_flight", "Requests, streams and tunnels not yet ended."),
    ("weir_version_weight_ratio", "Share of the split's requests in force, 0 to 1."),
    ("weir_version_file_weight_ratio", "Share of the split's requests by the file, 0 to 1."),
    ("weir_split_override", "Weights set at runtime are in force."),
    ("weir_split_held", "Weights are held against the file by a rollback."),
    ("weir_split_revision", "Number of the change that last touched the split."),
    ("weir_endpoint_up", "The endpoint has passed its checks, or has none, and is not ejected."),
    ("weir_endpoint_draining", "The endpoint takes no new request."),
    ("weir_endpoint_requests_in_flight", "Requests, streams and tunnels of the endpoint not yet ended."),
    ("weir_connections", "Open client connections."),
    ("weir_dns_stale_seconds", "Since a name's last good answer, 0 while its newest is good."),
    ("weir_tls_certificate_expiry_timestamp_seconds", "When a certificate in use ends."),
    ("weir_config_last_reload_successful", "The last reload was taken."),
    ("weir_config_last_reload_success_timestamp_seconds", "When a configuration was last taken."),
    ("weir_state_persisted", "Overrides and history are on disk."),
    ("weir_build_info", "Version and revision of this weir."),
];

/// See the file's head.
#[derive(Debug)]
pub(super) struct Series {
    recorder: PrometheusRecorder,
    versions: HashMap<VersionKey, VersionSeries>,
    requests: HashMap<RequestKey, CodeSeries>,
    responses: HashMap<ResponseKey, CodeSeries>,
    listeners: HashMap<ListenerName, ListenerSeries>,
    /// Gauges that have to fall to 0 when their subject is gone.
    shown: HashSet<Shown>,
}

/// The subject of a gauge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Shown {
    Split(SplitName),
    Version(VersionKey),
    Endpoint(VersionKey, String),
    Name(String),
    Rollout(SplitName),
    Evidence(SplitName, rollouts::Shown),
}

#[derive(Debug)]
struct VersionSeries {
    causes: [Counter; Cause::ALL.len()],
    retries: Counter,
    spilled: Counter,
    rescued: Counter,
    cut: [Counter; Kind::ALL.len()],
}

impl VersionSeries {
    fn add(&self, counts: &VersionCounts) {
        self.causes.iter().zip(counts.causes).for_each(|(counter, n)| counter.increment(n));
        self.retries.increment(counts.retries);
        self.spilled.increment(counts.spilled);
        self.rescued.increment(counts.rescued);
        self.cut.iter().zip(counts.cut).for_each(|(counter, n)| counter.increment(n));
    }
}

#[derive(Debug, Default)]
struct CodeSeries(BTreeMap<u16, Counter>);

impl CodeSeries {
    fn add(&mut self, counts: &CodeCounts, register: impl Fn(&str) -> Counter) {
        for code in counts.keys() {
            self.0.entry(*code).or_insert_with(|| register(&code.to_string()));
        }
        self.0.iter().for_each(|(code, counter)| counter.increment(counts.get(code).copied().unwrap_or(0)));
    }
}

#[derive(Debug)]
struct ListenerSeries {
    refused: [Counter; Refusal::ALL.len()],
    handshakes: [Counter; 2],
    accept_faults: [Counter; AcceptFault::ALL.len()],
    shed: [Counter; Shed::ALL.len()],
    open: u64,
    is_configured: bool,
}

impl Series {
    pub(super) fn new(recorder: PrometheusRecorder) -> Self {
        for &(name, help) in COUNTERS {
            recorder.describe_counter(name.into(), Some(Unit::Count), help.into());
        }
        for &(name, help) in GAUGES.iter().chain(rollouts::HELP) {
            recorder.describe_gauge(name.into(), None, help.into());
        }
        Self {
            recorder,
            versions: HashMap::new(),
            requests: HashMap::new(),
            responses: HashMap::new(),
            listeners: HashMap::new(),
            shown: HashSet::new(),
        }
    }

    /// Makes the handles of a configuration and lets go of those it does not name.
    pub(super) fn register(&mut self, config: &Config) {
        let versions = config.splits.iter().flat_map(|s| s.versions.iter().map(|v| (s.name.clone(), v.name.clone())));
        let versions: HashSet<VersionKey> = versions.collect();
        keep(&mut self.versions, &versions, |key| version_series(&self.recorder, key));
        let of_split =
            |split: &SplitName| versions.iter().filter(move |(s, _)| s == split).cloned().collect::<Vec<_>>();
        let requests = config.routes.iter().flat_map(|r| {
            r.split()
                .map(of_split)
                .unwrap_or_default()
                .into_iter()
                .map(|(split, version)| (r.name.clone(), split, version))
        });
        keep(&mut self.requests, &requests.collect(), |_| CodeSeries::default());
        let responses = config.routes.iter().filter_map(|r| Some((r.name.clone(), r.split()?.clone())));
        keep(&mut self.responses, &responses.collect(), |_| CodeSeries::default());
        self.register_listeners(config);
    }

    fn register_listeners(&mut self, config: &Config) {
        self.listeners.values_mut().for_each(|listener| listener.is_configured = false);
        for listener in &config.listeners {
            let name = listener.name.clone();
            let series = self.listeners.entry(name).or_insert_with_key(|name| listener_series(&self.recorder, name));
            series.is_configured = true;
        }
    }

    /// Adds what came since the last flush. Counts of what the configuration names no more (late ends of requests) go to
    /// series made for the moment; the exporter adds them to the series it still has.
    pub(super) fn add(&mut self, came: &Collected) {
        let nothing = VersionCounts::default();
        self.versions.iter().for_each(|(key, series)| series.add(came.versions.get(key).unwrap_or(&nothing)));
        let late = came.versions.iter().filter(|(key, _)| !self.versions.contains_key(key));
        late.for_each(|(key, counts)| version_series(&self.recorder, key).add(counts));
        add_codes(&mut self.requests, &came.requests, |(route, split, version), code| {
            let labels: Labels<'_> =
                &[("route", route.as_str()), ("split", split.as_str()), ("version", version.as_str()), ("code", code)];
            counter(&self.recorder, "weir_requests_total", labels)
        });
        add_codes(&mut self.responses, &came.responses, |(route, split), code| {
            let labels: Labels<'_> = &[("route", route.as_str()), ("split", split.as_str()), ("code", code)];
            counter(&self.recorder, "weir_responses_total", labels)
        });
        self.add_listeners(&came.listeners);
    }

    fn add_listeners(&mut self, came: &HashMap<ListenerName, ListenerCounts>) {
        for name in came.keys() {
            self.listeners.entry(name.clone()).or_insert_with_key(|name| listener_series(&self.recorder, name));
        }
        let nothing = ListenerCounts::default();
        for (name, series) in &mut self.listeners {
            let counts = came.get(name).unwrap_or(&nothing);
            series.refused.iter().zip(counts.refused).for_each(|(counter, n)| counter.increment(n));
            series.handshakes.iter().zip(counts.handshakes).for_each(|(counter, n)| counter.increment(n));
            series.accept_faults.iter().zip(counts.accept_faults).for_each(|(counter, n)| counter.increment(n));
            series.shed.iter().zip(counts.shed).for_each(|(counter, n)| counter.increment(n));
            series.open = series.open.wrapping_add(counts.opened).wrapping_sub(counts.closed);
            // An opening may be read a flush later than its closing: shown as none open meanwhile.
            let open = series.open.cast_signed().max(0);
            gauge(&self.recorder, "weir_connections", &[("listener", name.as_str())], open as f64);
        }
        self.listeners.retain(|_, series| series.is_configured || series.open != 0);
    }

    /// Shows the state of everything; what was shown before and is gone falls to 0.
    pub(super) fn show(&mut self, gauges: &Gauges) {
        let mut shown = HashSet::new();
        for split in &gauges.splits {
            shown.insert(Shown::Split(split.name.clone()));
            self.show_split(split);
            if let Some(rollout) = &split.rollout {
                rollouts::show(&self.recorder, &split.name, rollout);
                let of = |&(name, direction, _): &_| Shown::Evidence(split.name.clone(), (name, direction));
                shown.extend(rollout.evidence.iter().map(of));
                shown.insert(Shown::Rollout(split.name.clone()));
            }
            for version in &split.versions {
                let key = (split.name.clone(), version.name.clone());
                self.show_version(&key, version);
                for endpoint in &version.endpoints {
                    self.show_endpoint(&key, endpoint);
                    shown.insert(Shown::Endpoint(key.clone(), endpoint.address.clone()));
                }
                shown.insert(Shown::Version(key));
            }
        }
        for one in &gauges.names {
            gauge(&self.recorder, "weir_dns_stale_seconds", &[("name", &one.name)], one.stale.as_secs_f64());
            shown.insert(Shown::Name(one.name.clone()));
        }
        self.shown.difference(&shown).for_each(|gone| self.show_gone(gone));
        self.shown = shown;
        self.show_certificates(&gauges.certificates);
        self.show_process(gauges);
    }

    /// One that is gone keeps its value until it is forgotten: an end at 0 would wake somebody.
    fn show_certificates(&self, certificates: &[CertificateGauge]) {
        for one in certificates {
            let labels: Labels<'_> = &[("name", one.name.as_str())];
            gauge(&self.recorder, "weir_tls_certificate_expiry_timestamp_seconds", labels, seconds(one.not_after));
        }
    }

    fn show_split(&self, split: &SplitGauges) {
        let labels: Labels<'_> = &[("split", split.name.as_str())];
        gauge(&self.recorder, "weir_split_override", labels, f64::from(split.overridden));
        gauge(&self.recorder, "weir_split_held", labels, f64::from(split.held));
        gauge(&self.recorder, "weir_split_revision", labels, split.revision.0 as f64);
        for source in ROLLBACK_SOURCES {
            let rollbacks = split.rollbacks.iter().filter(|(by, _)| *by == source).map(|(_, n)| n).sum();
            let labels: Labels<'_> = &[("split", split.name.as_str()), ("source", source.as_str())];
            counter(&self.recorder, "weir_rollbacks_total", labels).absolute(rollbacks);
        }
    }

    fn show_version(&self, (split, version): &VersionKey, shows: &VersionGauges) {
        let labels: Labels<'_> = &[("split", split.as_str()), ("version", version.as_str())];
        gauge(&self.recorder, "weir_version_weight_ratio", labels, shows.ratio);
        gauge(&self.recorder, "weir_version_file_weight_ratio", labels, shows.file_ratio);
        gauge(&self.recorder, "weir_requests_in_flight", labels, shows.in_flight as f64);
        for &(result, n) in &shows.checks {
            let labels: Labels<'_> = &[labels[0], labels[1], ("result", result)];
            counter(&self.recorder, "weir_health_checks_total", labels).absolute(n);
        }
    }

    fn show_endpoint(&self, (split, version): &VersionKey, shows: &EndpointGauges) {
        let labels: Labels<'_> =
            &[("split", split.as_str()), ("version", version.as_str()), ("endpoint", shows.address.as_str())];
        gauge(&self.recorder, "weir_endpoint_up", labels, f64::from(shows.up));
        counter(&self.recorder, "weir_ejections_total", labels).absolute(shows.ejections);
        gauge(&self.recorder, "weir_endpoint_draining", labels, f64::from(shows.draining));
        gauge(&self.recorder, "weir_endpoint_requests_in_flight", labels, shows.in_flight as f64);
    }

    fn show_gone(&self, gone: &Shown) {
        match gone {
            Shown::Split(split) => {
                let labels: Labels<'_> = &[("split", split.as_str())];
                gauge(&self.recorder, "weir_split_override", labels, 0.0);
                gauge(&self.recorder, "weir_split_held", labels, 0.0);
            }
            Shown::Version(key) => {
                let name = key.1.clone();
                let (endpoints, checks) = (Vec::new(), Vec::new());
                let nothing = VersionGauges { name, ratio: 0.0, file_ratio: 0.0, in_flight: 0, endpoints, checks };
                self.show_version(key, &nothing);
            }
            Shown::Rollout(split) => rollouts::show(&self.recorder, split, &RolloutGauges::default()),
            Shown::Evidence(split, test) => rollouts::show_evidence(&self.recorder, split, *test, 0.0),
            Shown::Name(name) => gauge(&self.recorder, "weir_dns_stale_seconds", &[("name", name)], 0.0),
            // Still up: "down" would wake somebody for an endpoint that was taken away on purpose.
            Shown::Endpoint(key, address) => {
                let gone = EndpointGauges { address: address.clone(), up: true, ..EndpointGauges::default() };
                self.show_endpoint(key, &gone);
            }
        }
    }

    fn show_process(&self, gauges: &Gauges) {
        let reloads = &gauges.reloads;
        for (result, n) in [("applied", reloads.applied), ("rejected", reloads.rejected)] {
            counter(&self.recorder, "weir_config_reloads_total", &[("result", result)]).absolute(n);
        }
        // None at all where there is no name to look up.
        for (result, n) in gauges.lookups.iter().filter(|(_, n)| *n > 0) {
            counter(&self.recorder, "weir_dns_lookups_total", &[("result", result)]).absolute(*n);
        }
        for (result, n) in [("done", gauges.upgrades.0), ("failed", gauges.upgrades.1)] {
            counter(&self.recorder, "weir_upgrades_total", &[("result", result)]).absolute(n);
        }
        counter(&self.recorder, "weir_access_lines_dropped_total", &[]).absolute(gauges.access_lines_dropped);
        counter(&self.recorder, "weir_panics_total", &[]).absolute(gauges.panics);
        let shows = |name, value| gauge(&self.recorder, name, &[], value);
        shows("weir_config_last_reload_successful", f64::from(reloads.last_successful));
        shows("weir_config_last_reload_success_timestamp_seconds", seconds(reloads.last_success));
        shows("weir_state_persisted", f64::from(gauges.persisted));
        let revision = option_env!("WEIR_REVISION").unwrap_or("unknown");
        let labels: Labels<'_> = &[("version", env!("CARGO_PKG_VERSION")), ("revision", revision)];
        gauge(&self.recorder, "weir_build_info", labels, 1.0);
    }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn keep<K: Clone + Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, keys: &HashSet<K>, make: impl Fn(&K) -> V) {
    map.retain(|key, _| keys.contains(key));
    for key in keys {
        map.entry(key.clone()).or_insert_with_key(&make);
    }
}

fn add_codes<K: Eq + std::hash::Hash>(
    series: &mut HashMap<K, CodeSeries>,
    came: &HashMap<K, CodeCounts>,
    register: impl Fn(&K, &str) -> Counter,
) {
    let nothing = CodeCounts::new();
    for (key, codes) in series.iter_mut() {
        codes.add(came.get(key).unwrap_or(&nothing), |code| register(key, code));
    }
    for (key, counts) in came.iter().filter(|(key, _)| !series.contains_key(key)) {
        CodeSeries::default().add(counts, |code| register(key, code));
    }
}

fn version_series(recorder: &PrometheusRecorder, (split, version): &VersionKey) -> VersionSeries {
    let labels = [("split", split.as_str()), ("version", version.as_str())];
    VersionSeries {
        causes: Cause::ALL
            .map(|cause| counter(recorder, "weir_errors_total", &[labels[0], labels[1], ("reason", cause.as_str())])),
        retries: counter(recorder, "weir_retries_total", &labels),
        spilled: counter(recorder, "weir_spilled_requests_total", &labels),
        rescued: counter(recorder, "weir_rescued_requests_total", &labels),
        cut: Kind::ALL.map(|kind| {
            counter(recorder, "weir_drain_aborted_total", &[labels[0], labels[1], ("kind", kind.as_str())])
        }),
    }
}

fn listener_series(recorder: &PrometheusRecorder, listener: &ListenerName) -> ListenerSeries {
    let refused = Refusal::ALL.map(|why| {
        let labels: Labels<'_> = &[("listener", listener.as_str()), ("reason", why.as_str())];
        counter(recorder, "weir_refused_requests_total", labels)
    });
    let handshakes = ["ok", "failed"].map(|result| {
        let labels: Labels<'_> = &[("listener", listener.as_str()), ("result", result)];
        counter(recorder, "weir_tls_handshakes_total", labels)
    });
    let by_reason = |name, reason| counter(recorder, name, &[("listener", listener.as_str()), ("reason", reason)]);
    let accept_faults = AcceptFault::ALL.map(|why| by_reason("weir_accept_errors_total", why.as_str()));
    let shed = Shed::ALL.map(|why| by_reason("weir_shed_connections_total", why.as_str()));
    ListenerSeries { refused, handshakes, accept_faults, shed, open: 0, is_configured: false }
}

const METADATA: Metadata<'static> = Metadata::new("weir", Level::INFO, None);

fn key(name: &'static str, labels: Labels<'_>) -> Key {
    Key::from_parts(name, labels.iter().map(|&(key, value)| Label::new(key, value.to_owned())).collect::<Vec<_>>())
}

fn counter(recorder: &PrometheusRecorder, name: &'static str, labels: Labels<'_>) -> Counter {
    recorder.register_counter(&key(name, labels), &METADATA)
}

pub(super) fn gauge(recorder: &PrometheusRecorder, name: &'static str, labels: Labels<'_>, value: f64) {
    recorder.register_gauge(&key(name, labels), &METADATA).set(value);
}
