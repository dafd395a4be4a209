//! Once a second: from the workers' cells to metrics and windows.
//!
//! Invariant: there is one flusher per `Cells`; it alone takes the differences.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_util::MetricKindMask;

use super::exposition::Scrape;
use super::gauges::Gauges;
use super::registry::Cells;
use super::series::Series;
use super::windows::Windows;
use crate::config::Config;
use crate::model::Instant;

/// How long the series of a removed version stay.
const RETENTION: Duration = Duration::from_secs(3600);
/// How often old series are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// See the file's head.
#[derive(Debug)]
pub struct Flusher {
    cells: Arc<Cells>,
    series: Series,
    scrape: Scrape,
    windows: Windows,
    forgot: Instant,
}

impl Flusher {
    /// `now` is when counting begins.
    pub fn new(cells: Arc<Cells>, now: Instant) -> Self {
        Self::with_retention(cells, now, RETENTION)
    }

    fn with_retention(cells: Arc<Cells>, now: Instant, retention: Duration) -> Self {
        // An own recorder, not the global one: several weirs may run in one (test) process.
        let builder = PrometheusBuilder::new().idle_timeout(MetricKindMask::ALL, Some(retention));
        let recorder = builder.build_recorder();
        let scrape = Scrape::new(recorder.handle(), retention);
        Self { cells, series: Series::new(recorder), scrape, windows: Windows::new(now), forgot: now }
    }

    /// Takes over a configuration: its series exist from now on, those it does not name go in an hour.
    pub fn register(&mut self, config: &Config) {
        self.series.register(config);
        self.scrape.histograms().register(config);
    }

    /// Takes what the workers have counted since the last call. Called once a second.
    pub fn flush(&mut self, gauges: &Gauges, now: Instant) {
        let came = self.cells.collect();
        self.series.add(&came);
        self.series.show(gauges);
        self.scrape.histograms().add(came.versions.iter(), now);
        self.windows.feed(came.versions.iter(), now);
        self.windows.feed_rules(came.rules.iter());
        if now.duration_since(self.forgot) >= FORGET_EVERY {
            self.forgot = now;
            self.scrape.forget_old();
        }
    }

    /// What `/metrics` needs.
    pub fn scrape(&self) -> Scrape {
        self.scrape.clone()
    }

    /// What the page, the API and the CLI need.
    pub fn windows(&self) -> Windows {
        self.windows.clone()
    }

    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        self.scrape.render()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::config;
    use crate::model::{
        AcceptFault, Cause, CheckName, Kind, ListenerName, Refusal, Revision, RouteName, Shed, Source, SplitName,
        VersionName, Weight,
    };
    use crate::telemetry::{
        CertificateGauge, CheckGauge, Counted, EndpointGauges, Finish, NameGauge, Reloads, RolloutGauges, SplitGauges,
        VersionGauges,
    };

    fn config(versions: &[&str]) -> Config {
        let version =
            |name: &&str| config::Version::new(VersionName::new(name).unwrap(), Weight::new(1).unwrap(), Vec::new());
        let split = config::Split::new(
            SplitName::new("shop").unwrap(),
            VersionName::new(versions[0]).unwrap(),
            versions.iter().map(version).collect(),
        );
        Config {
            workers: 1,
            watch: false,
            shutdown: config::Shutdown { delay: Duration::ZERO, timeout: Duration::from_secs(25) },
            listeners: vec![config::Listener::new(ListenerName::new("web").unwrap(), ([127, 0, 0, 1], 0).into())],
            routes: vec![config::Route::new(RouteName::new("all").unwrap(), split.name.clone())],
            splits: vec![split],
            dns: crate::config::Dns::default(),
            admin: config::Admin { bind: ([127, 0, 0, 1], 0).into(), hosts: Vec::new(), state_dir: "/nowhere".into() },
            telemetry: config::Telemetry {
                bind: None,
                log: config::Log {
                    level: config::Level::Info,
                    format: config::LogFormat::Auto,
                    access: true,
                    sample: 1.0,
                },
            },
            notify: Vec::new(),
        }
    }

    fn gauges(versions: &[(&str, f64)]) -> Gauges {
        let version = |&(name, ratio): &(&str, f64)| VersionGauges {
            name: VersionName::new(name).unwrap(),
            ratio,
            file_ratio: 0.5,
            in_flight: 3,
            endpoints: vec![EndpointGauges {
                address: "10.0.0.1:9000".into(),
                up: true,
                draining: true,
                ejections: 4,
                in_flight: 2,
            }],
            checks: vec![("pass", 7), ("fail", 1)],
        };
        Gauges {
            splits: vec![SplitGauges {
                name: SplitName::new("shop").unwrap(),
                revision: Revision(17),
                held: true,
                overridden: true,
                versions: versions.iter().map(version).collect(),
                rollbacks: vec![(Source::Cli, 2)],
                rollout: None,
            }],
            certificates: vec![CertificateGauge {
                name: "certs/shop.pem".into(),
                not_after: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            }],
            names: vec![NameGauge { name: "shop.test:80".into(), stale: Duration::from_secs(7) }],
            lookups: vec![("answered", 5), ("empty", 0)],
            persisted: true,
            upgrades: (2, 1),
            reloads: Reloads {
                applied: 4,
                rejected: 1,
                last_successful: false,
                last_success: UNIX_EPOCH + Duration::from_millis(1500),
            },
            access_lines_dropped: 9,
            panics: 2,
        }
    }

    /// Series with sorted labels, to values.
    #[derive(Debug)]
    struct Page(BTreeMap<String, f64>);

    impl Page {
        /// Every line must be a comment, empty, or `name{labels} value`, and no series may come twice.
        fn parse(text: &str) -> Self {
            let mut series = BTreeMap::new();
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
                let mut labels: Vec<_> = labels.strip_suffix('}').unwrap().split(',').collect();
                labels.sort_unstable();
                let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
                let old = series.insert(format!("{name}{{{}}}", labels.join(",")), value);
                assert!(old.is_none(), "{line} twice");
            }
            Self(series)
        }

        fn get(&self, series: &str) -> Option<f64> {
            self.0.get(&series.replace('\'', "\"")).copied()
        }

        fn assert(&self, expected: &[(&str, f64)]) {
            for &(series, value) in expected {
                assert_eq!(self.get(series), Some(value), "{series} in {:#?}", self.0);
            }
        }
    }

    struct Weir {
        cells: Arc<Cells>,
        flusher: Flusher,
        now: Instant,
    }

    impl Weir {
        fn new(retention: Duration) -> Self {
            let (cells, now) = (Arc::new(Cells::new()), Instant::now());
            let mut flusher = Flusher::with_retention(Arc::clone(&cells), now, retention);
            flusher.register(&config(&["v1", "v2"]));
            Self { cells, flusher, now }
        }

        fn record(&self, version: &str, millis: &[u64]) {
            let (route, split) = (RouteName::new("all").unwrap(), SplitName::new("shop").unwrap());
            let version = VersionName::new(version).unwrap();
            let cell = self.cells.version(0, &split, &version, 1);
            let requests = self.cells.requests(0, &route, &split, &version);
            let responses = self.cells.responses(0, &route, &split);
            for &millis in millis {
                let latency = Duration::from_millis(millis);
                let first_byte = Some(latency / 2);
                let (code, began, watched) = (503, Instant::now(), Counted::No);
                cell.finish(&Finish {
                    latency,
                    first_byte,
                    bad: false,
                    bytes_in: 0,
                    bytes_out: 0,
                    code,
                    began,
                    age: latency,
                    watched,
                });
                requests.count(503);
                responses.count(200);
                cell.error(Cause::NoEndpoint);
                cell.retry();
                cell.cut(Kind::Stream);
            }
        }

        fn flush(&mut self, seconds: u64, versions: &[(&str, f64)]) -> Page {
            self.now += Duration::from_secs(seconds);
            self.flusher.flush(&gauges(versions), self.now);
            Page::parse(&self.flusher.render())
        }
    }

    const BOTH: &[(&str, f64)] = &[("v1", 0.75), ("v2", 0.25)];

    #[test]
    fn known_series_begin_at_zero() {
        let page = Weir::new(RETENTION).flush(1, BOTH);
        page.assert(&[
            ("weir_errors_total{reason='timeout',split='shop',version='v2'}", 0.0),
            ("weir_retries_total{split='shop',version='v1'}", 0.0),
            ("weir_refused_requests_total{listener='web',reason='no-route'}", 0.0),
            ("weir_connections{listener='web'}", 0.0),
            ("weir_tls_handshakes_total{listener='web',result='failed'}", 0.0),
            ("weir_request_duration_seconds_count{split='shop',version='v2'}", 0.0),
            ("weir_rollbacks_total{source='api',split='shop'}", 0.0),
        ]);
    }

    #[test]
    fn counts_reach_the_page_exactly_once() {
        let mut weir = Weir::new(RETENTION);
        weir.record("v1", &[1, 3, 3, 20_000]);
        let web = weir.cells.listener(0, &ListenerName::new("web").unwrap());
        (0..3).for_each(|_| web.opened());
        web.closed();
        (0..2).for_each(|_| web.handshake_ok());
        web.handshake_failed();
        web.refused(Refusal::BadRequest);
        web.accept_failed(AcceptFault::Descriptors);
        web.shed(Shed::Rejected);
        weir.flush(1, BOTH);
        weir.record("v1", &[6000]);
        let page = weir.flush(1, BOTH);
        page.assert(&[
            ("weir_requests_total{code='503',route='all',split='shop',version='v1'}", 5.0),
            ("weir_responses_total{code='200',route='all',split='shop'}", 5.0),
            ("weir_errors_total{reason='no-endpoint',split='shop',version='v1'}", 5.0),
            ("weir_retries_total{split='shop',version='v1'}", 5.0),
            ("weir_drain_aborted_total{kind='stream',split='shop',version='v1'}", 5.0),
            ("weir_drain_aborted_total{kind='upgrade',split='shop',version='v1'}", 0.0),
            ("weir_dns_stale_seconds{name='shop.test:80'}", 7.0),
            ("weir_dns_lookups_total{result='answered'}", 5.0),
            ("weir_connections{listener='web'}", 2.0),
            ("weir_tls_handshakes_total{listener='web',result='ok'}", 2.0),
            ("weir_tls_handshakes_total{listener='web',result='failed'}", 1.0),
            ("weir_refused_requests_total{listener='web',reason='bad-request'}", 1.0),
            ("weir_accept_errors_total{listener='web',reason='descriptors'}", 1.0),
            ("weir_accept_errors_total{listener='web',reason='memory'}", 0.0),
            ("weir_shed_connections_total{listener='web',reason='rejected'}", 1.0),
            ("weir_shed_connections_total{listener='web',reason='conn-limit'}", 0.0),
            ("weir_request_duration_seconds_sum{split='shop',version='v1'}", 26.007),
            ("weir_request_duration_seconds_count{split='shop',version='v1'}", 5.0),
            ("weir_upstream_duration_seconds_sum{split='shop',version='v1'}", 13.0035),
        ]);
        let below = |le: &str| {
            page.get(&format!("weir_request_duration_seconds_bucket{{le='{le}',split='shop',version='v1'}}"))
        };
        let les = "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 +Inf".split(' ');
        let counts: Vec<_> = les.map(|le| below(le).unwrap()).collect();
        assert_eq!(counts, [0., 1., 1., 3., 3., 3., 3., 3., 3., 3., 3., 3., 3., 4., 5.]);
        let stats = weir.flusher.windows().stats(
            &SplitName::new("shop").unwrap(),
            &VersionName::new("v1").unwrap(),
            Duration::from_secs(60),
        );
        assert_eq!((stats.requests, stats.observed_share, stats.rps), (5, Some(1.0), 2.5));
    }

    #[test]
    fn the_state_is_shown() {
        Weir::new(RETENTION).flush(1, BOTH).assert(&[
            ("weir_requests_in_flight{split='shop',version='v1'}", 3.0),
            ("weir_version_weight_ratio{split='shop',version='v1'}", 0.75),
            ("weir_version_file_weight_ratio{split='shop',version='v2'}", 0.5),
            ("weir_split_override{split='shop'}", 1.0),
            ("weir_split_held{split='shop'}", 1.0),
            ("weir_split_revision{split='shop'}", 17.0),
            ("weir_endpoint_up{endpoint='10.0.0.1:9000',split='shop',version='v1'}", 1.0),
            ("weir_endpoint_draining{endpoint='10.0.0.1:9000',split='shop',version='v1'}", 1.0),
            ("weir_ejections_total{endpoint='10.0.0.1:9000',split='shop',version='v1'}", 4.0),
            ("weir_endpoint_requests_in_flight{endpoint='10.0.0.1:9000',split='shop',version='v1'}", 2.0),
            ("weir_health_checks_total{result='pass',split='shop',version='v1'}", 7.0),
            ("weir_health_checks_total{result='fail',split='shop',version='v2'}", 1.0),
            ("weir_rollbacks_total{source='cli',split='shop'}", 2.0),
            ("weir_config_reloads_total{result='applied'}", 4.0),
            ("weir_config_reloads_total{result='rejected'}", 1.0),
            ("weir_upgrades_total{result='done'}", 2.0),
            ("weir_upgrades_total{result='failed'}", 1.0),
            ("weir_config_last_reload_successful{}", 0.0),
            ("weir_config_last_reload_success_timestamp_seconds{}", 1.5),
            ("weir_state_persisted{}", 1.0),
            ("weir_tls_certificate_expiry_timestamp_seconds{name='certs/shop.pem'}", 1_800_000_000.0),
            ("weir_access_lines_dropped_total{}", 9.0),
            ("weir_panics_total{}", 2.0),
        ]);
    }

    fn rolling(rollout: Option<RolloutGauges>) -> Gauges {
        let mut gauges = gauges(BOTH);
        gauges.splits[0].rollout = rollout;
        gauges
    }

    fn rollout() -> RolloutGauges {
        let check = |name, value, has_passed| CheckGauge { name: CheckName::new(name).unwrap(), value, has_passed };
        RolloutGauges {
            step: 2,
            is_running: true,
            evidence: vec![("errors", "against", -0.86), ("errors", "for", f64::INFINITY)],
            verdict: Some("inconclusive"),
            checks: vec![
                check("orders", Some(0.1), Some(true)),
                check("gate", None, Some(false)),
                check("new", None, None),
            ],
        }
    }

    #[test]
    fn a_rollout_is_shown_from_its_first_day_on() {
        let mut weir = Weir::new(RETENTION);
        let mut show = |rollout| {
            weir.now += Duration::from_secs(1);
            weir.flusher.flush(&rolling(rollout), weir.now);
            Page::parse(&weir.flusher.render())
        };
        let before = show(None);
        assert!(
            before.0.keys().all(|series| !series.contains("rollout_") && !series.contains("weir_check_")),
            "{before:?}"
        );
        let page = show(Some(rollout()));
        page.assert(&[
            ("weir_rollout_step{split='shop'}", 2.0),
            ("weir_rollout_running{split='shop'}", 1.0),
            ("weir_rollout_evidence{direction='against',name='errors',split='shop'}", -0.86),
            ("weir_rollout_evidence{direction='for',name='errors',split='shop'}", f64::INFINITY),
            ("weir_rollout_verdict{split='shop',verdict='inconclusive'}", 1.0),
            ("weir_rollout_verdict{split='shop',verdict='regressed'}", 0.0),
            ("weir_check_value{check='orders',split='shop'}", 0.1),
            ("weir_check_pass{check='orders',split='shop'}", 1.0),
            ("weir_check_pass{check='gate',split='shop'}", 0.0),
        ]);
        assert_eq!(page.get("weir_check_pass{check='new',split='shop'}"), None);
        assert_eq!(page.get("weir_check_value{check='gate',split='shop'}"), None);
        let next = RolloutGauges { step: 0, evidence: Vec::new(), verdict: None, ..rollout() };
        show(Some(next)).assert(&[
            ("weir_rollout_step{split='shop'}", 0.0),
            ("weir_rollout_evidence{direction='for',name='errors',split='shop'}", 0.0),
            ("weir_rollout_verdict{split='shop',verdict='inconclusive'}", 0.0),
        ]);
        show(None).assert(&[("weir_rollout_running{split='shop'}", 0.0), ("weir_rollout_step{split='shop'}", 0.0)]);
    }

    #[test]
    fn every_series_has_a_type_and_a_help() {
        let mut weir = Weir::new(RETENTION);
        weir.record("v1", &[1]);
        weir.flusher.flush(&rolling(Some(rollout())), weir.now);
        let page = weir.flush(1, BOTH);
        let text = weir.flusher.render();
        for series in page.0.keys() {
            let name = series.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let comments = [format!("# TYPE {family} "), format!("# HELP {family} ")];
            assert!(comments.iter().all(|comment| text.contains(comment.as_str())), "{family}");
        }
        assert!(text.contains("# TYPE weir_request_duration_seconds histogram"));
        assert!(text.contains("# TYPE weir_requests_total counter"));
    }

    #[test]
    fn a_removed_version_falls_to_zero_and_goes_while_the_idle_stay() {
        let mut weir = Weir::new(Duration::ZERO);
        weir.record("v1", &[1]);
        weir.record("v2", &[1]);
        weir.flush(1, BOTH).assert(&[("weir_version_weight_ratio{split='shop',version='v2'}", 0.25)]);
        weir.flusher.register(&config(&["v1"]));
        let v1 = [
            "weir_requests_total{code='503',route='all',split='shop',version='v1'}",
            "weir_request_duration_seconds_count{split='shop',version='v1'}",
            "weir_retries_total{split='shop',version='v1'}",
        ];
        let page = weir.flush(1, &[("v1", 1.0)]);
        page.assert(&v1.map(|series| (series, 1.0)));
        page.assert(&[("weir_version_weight_ratio{split='shop',version='v2'}", 0.0)]);
        let page = weir.flush(1, &[("v1", 1.0)]);
        page.assert(&v1.map(|series| (series, 1.0)));
        assert!(page.0.keys().all(|series| !series.contains("v2")), "{page:#?}");
    }

    #[test]
    fn a_late_end_of_a_removed_version_is_still_counted() {
        let mut weir = Weir::new(RETENTION);
        weir.record("v2", &[1]);
        weir.flush(1, BOTH);
        weir.flusher.register(&config(&["v1"]));
        weir.record("v2", &[1, 1]);
        weir.flush(1, &[("v1", 1.0)]).assert(&[
            ("weir_requests_total{code='503',route='all',split='shop',version='v2'}", 3.0),
            ("weir_request_duration_seconds_count{split='shop',version='v2'}", 3.0),
            ("weir_retries_total{split='shop',version='v2'}", 3.0),
        ]);
        assert_eq!(
            weir.flush(3601, &[("v1", 1.0)]).get("weir_request_duration_seconds_count{split='shop',version='v2'}"),
            None
        );
    }

    #[test]
    fn two_weirs_in_one_process_do_not_mix() {
        let (mut a, mut b) = (Weir::new(RETENTION), Weir::new(RETENTION));
        a.record("v1", &[1]);
        let retries = "weir_retries_total{split='shop',version='v1'}";
        assert_eq!((a.flush(1, BOTH).get(retries), b.flush(1, BOTH).get(retries)), (Some(1.0), Some(0.0)));
    }
}
