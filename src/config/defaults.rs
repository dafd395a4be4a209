//! Sections with everything at its default (surface.md section 4), for code and tests that start from less than a file.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;

use super::types::*;
use crate::model::{ListenerName, RouteName, SplitName, VersionName, Weight};

/// `dns_refresh` of a version.
pub(super) const DNS_REFRESH: Duration = Duration::from_secs(30);

const fn secs(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n))
}

impl Listener {
    /// In cleartext on one address.
    pub fn new(name: ListenerName, address: SocketAddr) -> Self {
        Self {
            name,
            bind: vec![Bind::Tcp(address)],
            redirect_https: None,
            trusted_proxies: Trusted::default(),
            proxy_protocol: false,
            limits: Limits::default(),
            timeouts: ClientTimeouts::default(),
            tls: None,
        }
    }
}

impl Route {
    /// Every request to one split.
    pub fn new(name: RouteName, split: SplitName) -> Self {
        Self {
            name,
            listeners: Vec::new(),
            matches: Vec::new(),
            action: Action::Split { split, strip_prefix: false },
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            rate_limit: None,
        }
    }
}

impl Split {
    /// By weights alone.
    pub fn new(name: SplitName, stable: VersionName, versions: Vec<Version>) -> Self {
        Self {
            name,
            stable,
            weigh_by: WeighBy::default(),
            balance: Balance::default(),
            expose_version: false,
            sticky: None,
            on_unavailable: OnUnavailable::Spill,
            retries: Retries::default(),
            rules: Vec::new(),
            timeouts: UpstreamTimeouts::default(),
            eject: Some(Eject::default()),
            drain: Drain::default(),
            pool: PoolLimits::default(),
            rollout: None,
            versions,
        }
    }
}

impl Version {
    /// HTTP/1.1 in cleartext.
    pub fn new(name: VersionName, weight: Weight, endpoints: Vec<SocketAddr>) -> Self {
        let endpoints = endpoints.into_iter().map(EndpointSpec::from).collect();
        Self {
            name,
            weight,
            endpoints,
            protocol: Protocol::Auto,
            tls: None,
            host: HostHeader::Client,
            dns_refresh: DNS_REFRESH,
            health: None,
        }
    }
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            to: None,
            strategy: Strategy::Canary,
            auto_start: false,
            steps: Strategy::Canary.steps(),
            on_regressed: OnRegressed::Rollback,
            on_inconclusive: OnInconclusive::Hold,
            max_wait: Duration::from_secs(3600),
            analysis: Some(Analysis::default()),
            checks: Vec::new(),
        }
    }
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            false_alarm: 0.001,
            errors: ErrorsAllowed { ratio: 1.1, margin: 0.001, max: None },
            latency: LatencyAllowed { slower: 0.19, max_p99: None },
            warm_up: Duration::from_secs(10),
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self { servers: Vec::new(), hosts: "/etc/hosts".into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 20_000, header_bytes: 32 << 10, body_bytes: None, streams: 128 }
    }
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self { header: secs(10), body: secs(30), idle: secs(75) }
    }
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self { connect: secs(1), first_byte: secs(30), total: None, stall: None, idle: secs(60) }
    }
}

impl Default for Drain {
    fn default() -> Self {
        let (timeout, upgraded_timeout) = (Duration::from_secs(30), Duration::from_secs(3600));
        Self { timeout, upgraded_timeout, slow_start: Duration::ZERO }
    }
}

impl Default for Eject {
    fn default() -> Self {
        Self { errors: 5, duration: Duration::from_secs(10), max_percent: 50 }
    }
}

impl Default for PoolLimits {
    fn default() -> Self {
        let queue_timeout = Duration::from_secs(1);
        Self { idle_per_endpoint: 64, max_in_flight: 1024, queue: 0, queue_timeout, max_age: None }
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), requests: 100 }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: RetryOn { connect: true, reset: true, timeout: false, statuses: vec![502, 503, 504] },
            methods: vec![Method::GET, Method::HEAD, Method::OPTIONS],
            budget: 0.2,
            rescue: false,
            body_bytes: 64 << 10,
        }
    }
}
