//! The text of `/metrics`: counters and gauges by the exporter, histograms and process figures by this file.
//!
//! Why histograms are not the exporter's: its handles take one sample at a time (`record_many` is a loop of pushes, each
//! with a look at the clock), and nothing but a sample touches a series, so a live version without traffic would be
//! forgotten after an hour. The cells have the exact buckets and sums already; all that is left is to print them.
//!
//! Invariant: a histogram's buckets are cumulative in the text, `+Inf` equals `_count`, and a series is printed until an
//! hour after the configuration has stopped naming its version.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;

use super::buckets::{PROM_BUCKETS, PROM_LABELS};
use super::cells::{Additive, DurationCounts, VersionCounts};
use super::process;
use super::registry::{VersionKey, lock};
use crate::config::Config;
use crate::model::Instant;

/// What the page behind `/metrics` needs; cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Scrape {
    exporter: PrometheusHandle,
    histograms: Arc<Mutex<Histograms>>,
}

impl Scrape {
    pub(super) fn new(exporter: PrometheusHandle, retention: Duration) -> Self {
        let histograms = Histograms { retention, configured: HashSet::new(), series: BTreeMap::new() };
        Self { exporter, histograms: Arc::new(Mutex::new(histograms)) }
    }

    /// All metrics in the Prometheus text format (`text/plain; version=0.0.4`).
    pub fn render(&self) -> String {
        let mut text = self.exporter.render();
        lock(&self.histograms).write(&mut text);
        process::write(&mut text);
        text
    }

    /// Lets the exporter forget what was not touched; it does so only when asked for its text.
    pub(super) fn forget_old(&self) {
        self.exporter.run_upkeep();
        self.exporter.render();
    }

    pub(super) fn histograms(&self) -> std::sync::MutexGuard<'_, Histograms> {
        lock(&self.histograms)
    }
}

/// The durations of every version.
#[derive(Debug)]
pub(super) struct Histograms {
    retention: Duration,
    configured: HashSet<VersionKey>,
    series: BTreeMap<VersionKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    total: DurationCounts,
    first_byte: DurationCounts,
    touched: Instant,
}

impl Histograms {
    pub(super) fn register(&mut self, config: &Config) {
        let versions = config.splits.iter().flat_map(|s| s.versions.iter().map(|v| (s.name.clone(), v.name.clone())));
        self.configured = versions.collect();
    }

    /// Adds what came, touches what is configured, forgets what was not touched for long.
    pub(super) fn add<'a>(&mut self, came: impl Iterator<Item = (&'a VersionKey, &'a VersionCounts)>, now: Instant) {
        for key in &self.configured {
            entry(&mut self.series, key, now);
        }
        for (key, counts) in came {
            let entry = entry(&mut self.series, key, now);
            entry.total.add(&counts.total);
            entry.first_byte.add(&counts.first_byte);
        }
        self.series.retain(|_, entry| now.duration_since(entry.touched) <= self.retention);
    }

    fn write(&self, out: &mut String) {
        if self.series.is_empty() {
            return;
        }
        head(out, "weir_request_duration_seconds", "Time to the last byte of the answer.");
        self.series.iter().for_each(|(key, e)| write(out, "weir_request_duration_seconds", key, &e.total));
        head(out, "weir_upstream_duration_seconds", "Time to the first byte of the endpoint's answer.");
        self.series.iter().for_each(|(key, e)| write(out, "weir_upstream_duration_seconds", key, &e.first_byte));
        out.push('\n');
    }
}

fn entry<'a>(series: &'a mut BTreeMap<VersionKey, Entry>, key: &VersionKey, now: Instant) -> &'a mut Entry {
    let new = || Entry { total: DurationCounts::default(), first_byte: DurationCounts::default(), touched: now };
    let entry = series.entry(key.clone()).or_insert_with(new);
    entry.touched = now;
    entry
}

fn head(out: &mut String, name: &str, help: &str) {
    // Writing to a string does not fail, here and below.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
}

fn write(out: &mut String, name: &str, (split, version): &VersionKey, counts: &DurationCounts) {
    // Names need no escaping (model::name).
    let labels = format!("split=\"{split}\",version=\"{version}\"");
    let mut below = 0;
    for (le, n) in PROM_LABELS.iter().zip(counts.buckets) {
        below += n;
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{le}\"}} {below}");
    }
    let count = below + counts.buckets[PROM_BUCKETS - 1];
    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", counts.sum as f64 / 1e9);
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}
