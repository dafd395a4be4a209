//! One look-up: the hosts file, else the name servers, over UDP and, where an answer does not fit, over TCP.
//!
//! Invariants: a look-up ends within `LIMIT` (SRV: twice that); the answer says of each part by itself whether it is known, so that
//! `rule` can keep what was not answered.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Resolver, TokioResolver};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::hosts;
use super::rule::{Answer, Failure, PartOf};
use crate::config::{Dns, NameOf, NameTarget};
use crate::state::Resolved;

/// A record type that was not answered by then is not known.
const LIMIT: Duration = Duration::from_secs(5);
/// For one server; then another, or the same again.
const TRY: Duration = Duration::from_secs(2);
/// How long the other address family is waited for once one has given addresses.
const GRACE: Duration = Duration::from_secs(1);
/// Look-ups at a time: a start with thousands of names must not be a flood.
const AT_ONCE: usize = 64;
/// SRV records that are followed.
const TARGETS: usize = 64;
/// Of a hosts file: as long as the operator lets it.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// See the file's head.
pub(super) struct Asker {
    resolver: Result<TokioResolver, String>,
    hosts: PathBuf,
    places: Semaphore,
}

/// A host's addresses, by part.
struct Host {
    parts: Vec<(PartOf, Result<Vec<IpAddr>, Failure>)>,
    ttl: Duration,
}

impl Asker {
    /// Reads `/etc/resolv.conf` if no servers are named.
    pub fn new(dns: &Dns) -> Self {
        let resolver = resolver(&dns.servers).map_err(|error| format!("no name server: {error}"));
        Self { resolver, hosts: dns.hosts.clone(), places: Semaphore::new(AT_ONCE) }
    }

    /// Asks once. Cancel safe.
    pub async fn ask(self: &Arc<Self>, name: &NameTarget) -> Answer {
        // Never closed.
        let _place = self.places.acquire().await;
        match name.of {
            NameOf::Hosts(port) => {
                let host = self.host(&name.name, port).await;
                answer(host, |ip| Resolved { address: at(ip, port), weight: 1, host: name.name.clone() })
            }
            NameOf::Services => self.services(&name.name).await,
        }
    }

    async fn host(&self, name: &Arc<str>, port: u16) -> Host {
        let of = |is_ipv6| PartOf { host: name.clone(), port, is_ipv6 };
        let known = hosts::look_up(&self.hosts, name).await;
        if !known.is_empty() {
            let (v6, v4) = known.into_iter().partition(IpAddr::is_ipv6);
            return Host { parts: vec![(of(false), Ok(v4)), (of(true), Ok(v6))], ttl: FOR_EVER };
        }
        let (v4, v6) = self.both(name).await;
        let ttl = [&v4, &v6].into_iter().flatten().filter(|(found, _)| !found.is_empty()).map(|(_, ttl)| *ttl).min();
        let parts = [(false, v4), (true, v6)].map(|(is_ipv6, found)| (of(is_ipv6), found.map(|(ips, _)| ips)));
        Host { parts: parts.into(), ttl: ttl.unwrap_or_default() }
    }

    /// A and AAAA at once; when one of them has addresses the other one is not waited for long.
    async fn both(&self, name: &str) -> (Found, Found) {
        let (v4, v6) = (self.addresses(name, RecordType::A), self.addresses(name, RecordType::AAAA));
        tokio::pin!(v4, v6);
        tokio::select! {
            first = &mut v4 => {
                let other = within(patience(&first), v6).await;
                (first, other)
            }
            first = &mut v6 => {
                let other = within(patience(&first), v4).await;
                (other, first)
            }
        }
    }

    async fn addresses(&self, name: &str, record: RecordType) -> Found {
        let lookup = match self.records(name, record).await {
            Ok(lookup) => lookup,
            Err(failure) => return Err(failure),
        };
        let addresses = lookup.answers().iter().filter_map(|r| r.data.ip_addr()).collect();
        Ok((addresses, ttl(&lookup)))
    }

    async fn records(&self, name: &str, record: RecordType) -> Result<Lookup, Failure> {
        let resolver = self.resolver.as_ref().map_err(|why| Failure::Failed(why.clone()))?;
        let lookup = tokio::time::timeout(LIMIT, resolver.lookup(name, record)).await;
        lookup.unwrap_or(Err(NetError::Timeout)).map_err(|error| failure(&error))
    }

    async fn services(self: &Arc<Self>, name: &str) -> Answer {
        let lookup = match self.records(name, RecordType::SRV).await {
            Ok(lookup) => lookup,
            Err(failure) => return Answer { parts: Err(failure), ttl: Duration::ZERO },
        };
        let targets = targets(&lookup);
        if targets.is_empty() {
            let none = Failure::Empty("its SRV records name no host".to_owned());
            return Answer { parts: Err(none), ttl: Duration::ZERO };
        }
        let mut asked = JoinSet::new();
        for (target, service) in targets {
            let asker = self.clone();
            asked.spawn(async move { (asker.host(&target, service.port).await, target, service) });
        }
        let mut whole = Answer { parts: Ok(Vec::new()), ttl: ttl(&lookup) };
        while let Some(done) = asked.join_next().await {
            let Ok((host, target, service)) = done else { continue };
            let weight = u32::from(service.weight).max(1);
            let found = answer(host, |ip| Resolved { address: at(ip, service.port), weight, host: target.clone() });
            whole.ttl = if found.ttl.is_zero() { whole.ttl } else { whole.ttl.min(found.ttl) };
            if let (Ok(all), Ok(parts)) = (&mut whole.parts, found.parts) {
                all.extend(parts);
            }
        }
        whole
    }
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// Addresses of one type, and how long they live.
type Found = Result<(Vec<IpAddr>, Duration), Failure>;

fn patience(first: &Found) -> Duration {
    if first.as_ref().is_ok_and(|(found, _)| !found.is_empty()) { GRACE } else { LIMIT }
}

async fn within(limit: Duration, other: impl Future<Output = Found>) -> Found {
    tokio::time::timeout(limit, other).await.unwrap_or(Err(Failure::Timeout))
}

fn at(ip: IpAddr, port: u16) -> crate::model::Address {
    SocketAddr::new(ip, port).into()
}

fn answer(host: Host, resolved: impl Fn(IpAddr) -> Resolved) -> Answer {
    let parts =
        host.parts.into_iter().map(|(of, found)| (of, found.map(|ips| ips.into_iter().map(&resolved).collect())));
    Answer { parts: Ok(parts.collect()), ttl: host.ttl }
}

/// Those of the lowest priority; `.` means that there is no such service (RFC 2782).
fn targets(lookup: &Lookup) -> Vec<(Arc<str>, SRV)> {
    let services = || {
        lookup.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(service) if !service.target.is_root() && service.port != 0 => Some(service),
            _ => None,
        })
    };
    let Some(lowest) = services().map(|service| service.priority).min() else { return Vec::new() };
    let mut targets: Vec<(Arc<str>, SRV)> = services()
        .filter(|service| service.priority == lowest)
        .map(|service| (service.target.to_string().to_ascii_lowercase().into(), service.clone()))
        .collect();
    targets.sort_by(|(a, x), (b, y)| (a, x.port).cmp(&(b, y.port)));
    targets.truncate(TARGETS);
    targets
}

fn ttl(lookup: &Lookup) -> Duration {
    let shortest = lookup.answers().iter().map(|record| record.ttl).min();
    Duration::from_secs(shortest.unwrap_or_default().into())
}

fn failure(error: &NetError) -> Failure {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            Failure::Empty("it does not exist (NXDOMAIN)".to_owned())
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError => {
            Failure::Empty("it has no address".to_owned())
        }
        NetError::Dns(DnsError::NoRecordsFound(none)) => refused(none.response_code),
        NetError::Dns(DnsError::ResponseCode(code)) => refused(*code),
        NetError::Timeout => Failure::Timeout,
        other => Failure::Failed(other.to_string()),
    }
}

fn refused(code: ResponseCode) -> Failure {
    Failure::Failed(format!("the name server says: {code}"))
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let (config, mut options) = if servers.is_empty() { system()? } else { (named(servers), ResolverOpts::default()) };
    // We keep what was answered, and for how long is ours to say.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = options.timeout.min(TRY);
    options.attempts = options.attempts.min(2);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}

/// As other programs do it: without a server in the file, or without the file, this machine's own is asked.
fn system() -> Result<(ResolverConfig, ResolverOpts), NetError> {
    read_system_conf().or_else(|_| Ok((named(&[SocketAddr::from(([127, 0, 0, 1], 53))]), ResolverOpts::default())))
}

fn named(servers: &[SocketAddr]) -> ResolverConfig {
    let one = |server: &SocketAddr| {
        let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
        (udp.port, tcp.port) = (server.port(), server.port());
        NameServerConfig::new(server.ip(), true, vec![udp, tcp])
    };
    ResolverConfig::from_name_servers(servers.iter().map(one).collect())
}
