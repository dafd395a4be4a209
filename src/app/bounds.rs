//! The bounds within which this process lives: descriptors taken in full, and told at the start with what they allow.
//!
//! Invariant: nothing that a client or an endpoint sends is kept beyond what is counted here; so the memory told is the
//! worst case, and not what is usual (a few kilobytes for an idle connection).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, Limits, Listener};
use crate::proxy::{ConnectionBytes, client_places};

/// Raises the number of descriptors to what the system lets us have.
pub(super) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused only by a sandbox: then it stays as it is, and is told.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// Tells the bounds, and what does not fit.
pub(super) fn tell(config: &Config) {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let bounds = Bounds::of(config, descriptors);
    tracing::info!(
        event = "bounds",
        descriptors = shown(bounds.descriptors),
        client_places = shown(bounds.places),
        connections = bounds.listed(),
        workers = config.workers as u64,
        http1_connection_bytes = shown(bounds.of_one.http1),
        http2_connection_bytes = shown(bounds.of_one.http2),
        memory_http1_bytes = shown(bounds.http1),
        memory_http2_bytes = shown(bounds.http2),
        "what clients can take at most"
    );
    if let Some(lacking) = bounds.lacking() {
        tracing::warn!(
            event = "bounds-too-small",
            descriptors = shown(bounds.descriptors),
            connections = shown(bounds.connections),
            "`limits.connections` allow more clients than there are descriptors for; set LimitNOFILE (or ulimit -n) to \
            at least {lacking}, or lower `limits.connections`"
        );
    }
}

fn shown(n: usize) -> u64 {
    n as u64
}

#[derive(Debug)]
struct Bounds {
    descriptors: usize,
    /// Clients there are descriptors for.
    places: usize,
    /// By listener: `limits.connections`.
    listeners: Vec<(String, usize)>,
    /// Their sum.
    connections: usize,
    /// Of the listener whose connections are largest.
    of_one: ConnectionBytes,
    /// If every client speaks it and uses all it may.
    http1: usize,
    http2: usize,
}

impl Bounds {
    fn of(config: &Config, descriptors: usize) -> Self {
        let places = client_places(descriptors);
        let connections = |l: &Listener| l.limits.connections;
        let sum = config.listeners.iter().map(connections).fold(0, usize::saturating_add);
        let most = |bytes: fn(&ConnectionBytes) -> usize| {
            let all =
                config.listeners.iter().map(|l| bytes(&bytes_of(&l.limits)).saturating_mul(connections(l).min(places)));
            all.fold(0, usize::saturating_add)
        };
        let largest = |bytes: fn(&ConnectionBytes) -> usize| {
            config.listeners.iter().map(|l| bytes(&bytes_of(&l.limits))).max().unwrap_or_default()
        };
        Self {
            descriptors,
            places,
            listeners: config.listeners.iter().map(|l| (l.name.to_string(), connections(l))).collect(),
            connections: sum,
            of_one: ConnectionBytes { http1: largest(|b| b.http1), http2: largest(|b| b.http2) },
            http1: most(|b| b.http1),
            http2: most(|b| b.http2),
        }
    }

    fn listed(&self) -> String {
        self.listeners.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
    }

    /// Descriptors that would do, if these do not.
    fn lacking(&self) -> Option<usize> {
        (self.connections > self.places).then(|| enough_for(self.connections))
    }
}

fn bytes_of(limits: &Limits) -> ConnectionBytes {
    ConnectionBytes::of(limits)
}

/// The smallest number of descriptors with so many places: a quarter of them is set aside, 1024 at most, 96 at least.
fn enough_for(connections: usize) -> usize {
    let by_share = connections.saturating_add(connections.div_ceil(3)).saturating_add(1);
    by_share.min(connections.saturating_add(1024)).max(connections.saturating_add(96))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(connections: usize) -> Config {
        let text = format!(
            "[listeners.web]\nbind = \"127.0.0.1:0\"\nlimits = {{ connections = {connections} }}\n\
            [[routes]]\nsplit = \"shop\"\n[splits.shop]\n[splits.shop.versions]\n\
            v1 = {{ weight = 1, endpoints = [\"127.0.0.1:1\"] }}\n"
        );
        let loaded = config::check_text("weir.toml", &text, &|_| None);
        loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.text(false)))
    }

    #[test]
    fn what_does_not_fit_is_told_with_a_number_that_does() {
        for (connections, descriptors) in [(20_000, 20_000), (1000, 1024), (225, 256), (7000, 8000), (1, 24)] {
            let bounds = Bounds::of(&config(connections), descriptors);
            let enough = bounds.lacking();
            assert_eq!(enough.is_some(), connections > client_places(descriptors), "{connections} of {descriptors}");
            if let Some(enough) = enough {
                assert!(client_places(enough) >= connections, "{enough} for {connections}");
                assert!(Bounds::of(&config(connections), enough).lacking().is_none());
            }
        }
    }

    #[test]
    fn memory_is_what_the_clients_that_fit_can_take() {
        let bounds = Bounds::of(&config(20_000), 1024);
        assert_eq!((bounds.places, bounds.connections, bounds.listed().as_str()), (768, 20_000, "web 20000"));
        assert_eq!((bounds.http1, bounds.http2), (768 * bounds.of_one.http1, 768 * bounds.of_one.http2));
        assert!(bounds.of_one.http1 >= 64 << 10 && bounds.of_one.http2 > bounds.of_one.http1);
        assert_eq!(Bounds::of(&config(10), 1024).http1, 10 * bounds.of_one.http1);
    }
}
