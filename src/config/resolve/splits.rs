//! Splits and their versions: weights, endpoints, the stable version.

use std::net::SocketAddr;
use std::time::Duration;

use super::upstream::upstream;
use super::{Context, endpoints, health, retries, rollout, rules, sticky};
use crate::config::defaults::DNS_REFRESH;
use crate::config::durations;
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawConfig, RawHostHeader, RawProtocol, RawSplit, RawVersion};
use crate::config::{Drain, HostHeader, Protocol, Split, UpstreamTimeouts, Version};
use crate::model::{SplitName, VersionName, Weight};

pub fn splits(raw: &RawConfig, admin: Option<SocketAddr>, cx: &mut Context<'_>) -> Vec<Split> {
    let group = Path::root().key("splits");
    raw.splits.iter().filter_map(|(name, raw)| split(name, raw, admin, &group.key(name), cx)).collect()
}

fn split(name: &str, raw: &RawSplit, admin: Option<SocketAddr>, path: &Path, cx: &mut Context<'_>) -> Option<Split> {
    let versions = versions(raw, admin, path, cx);
    check_weights(raw, &versions, path, cx);
    let stable = stable(raw, &versions, path, cx);
    let sticky = sticky::sticky(name, raw, path, cx);
    let rules = rules::rules(raw, &versions, path, cx);
    health::warn_unchecked(raw, &versions, path, cx);
    let rollout = rollout::rollout(raw, stable.as_ref(), path, cx);
    let name = cx.name(SplitName::new(name), name, path)?;
    Some(Split {
        name,
        stable: stable?,
        weigh_by: endpoints::weigh_by(raw.weigh_by),
        balance: endpoints::balance(raw, path, cx),
        expose_version: raw.expose_version,
        sticky,
        on_unavailable: sticky::on_unavailable(raw, path, cx),
        retries: retries::retries(&raw.retries, &path.key("retries"), cx),
        rules,
        timeouts: UpstreamTimeouts {
            connect: raw.timeouts.connect.limit(),
            first_byte: raw.timeouts.first_byte.limit(),
            total: raw.timeouts.total.limit(),
            stall: raw.timeouts.stall.limit(),
            idle: raw.timeouts.idle.limit(),
        },
        eject: endpoints::eject(&raw.eject, &path.key("eject"), cx),
        drain: Drain {
            timeout: raw.drain.timeout.0,
            upgraded_timeout: raw.drain.upgraded_timeout.0,
            slow_start: raw.drain.slow_start.0,
        },
        pool: endpoints::pool(&raw.pool, &path.key("pool"), cx),
        rollout,
        versions,
    })
}

fn versions(raw: &RawSplit, admin: Option<SocketAddr>, path: &Path, cx: &mut Context<'_>) -> Vec<Version> {
    let Some(all) = &raw.versions else { return Vec::new() };
    let path = path.key("versions");
    if all.is_empty() && !cx.is_flawed(&path) {
        let problem = cx.problem_at_key(Code::MissingKey, &path, format!("{} has no versions", path.parent().words()));
        problem.label = Some("no version here".into());
        problem.help = Some("add for example v1 = { weight = 100, endpoints = [\"127.0.0.1:9001\"] }".into());
    }
    // Weights default to 1 only if nobody has one.
    let default = u32::from(all.values().all(|v| v.weight.is_none()));
    let version = |(name, raw): (&String, &RawVersion)| version(name, raw, default, admin, &path.key(name), cx);
    all.iter().filter_map(version).collect()
}

fn version(
    name: &str,
    raw: &RawVersion,
    default: u32,
    admin: Option<SocketAddr>,
    path: &Path,
    cx: &mut Context<'_>,
) -> Option<Version> {
    // The schema has checked the range.
    let weight = Weight::new(raw.weight.unwrap_or(default)).unwrap_or_default();
    let upstream = upstream(raw, admin, path, cx);
    let asked_for = raw.endpoints.as_ref().is_some_and(|e| !e.is_empty());
    if !asked_for && !weight.is_zero() && !cx.lacks_keys(path) {
        let message = format!("{} has weight {} but no endpoints", path.words(), weight.value());
        let problem = cx.problem_at_key(Code::MissingKey, path, message);
        problem.key = Some(path.key("endpoints").to_string());
        problem.label = Some("nobody here to answer".into());
        problem.help = Some("add endpoints = [\"127.0.0.1:9001\"], or set weight = 0".into());
    }
    Some(Version {
        name: cx.name(VersionName::new(name), name, path)?,
        weight,
        endpoints: upstream.endpoints,
        protocol: match raw.protocol {
            RawProtocol::Auto => Protocol::Auto,
            RawProtocol::Http1 => Protocol::Http1,
            RawProtocol::Http2 => Protocol::Http2,
        },
        tls: upstream.tls,
        dns_refresh: dns_refresh(raw, path, cx),
        host: match raw.host {
            RawHostHeader::Client => HostHeader::Client,
            RawHostHeader::Endpoint => HostHeader::Endpoint,
        },
        health: health::health(raw, path, cx),
    })
}

/// Below it an operator's mistake would be a load on name servers.
const LEAST_REFRESH: Duration = Duration::from_secs(1);

fn dns_refresh(raw: &RawVersion, path: &Path, cx: &mut Context<'_>) -> Duration {
    let Some(written) = &raw.dns_refresh else { return DNS_REFRESH };
    if written.0 < LEAST_REFRESH {
        let message = format!("`dns_refresh` is {}", durations::format(written.0));
        let problem = cx.problem(Code::OutOfRange, &path.key("dns_refresh"), message);
        problem.label = Some("too often".into());
        problem.help = Some("allowed: 1s or more; records that live shorter are asked for each second anyway".into());
    }
    written.0.max(LEAST_REFRESH)
}

fn check_weights(raw: &RawSplit, versions: &[Version], path: &Path, cx: &mut Context<'_>) {
    let path = path.key("versions");
    if versions.is_empty() || cx.is_flawed(&path) {
        return;
    }
    let total: u64 = versions.iter().map(|v| u64::from(v.weight.value())).sum();
    let is_named = raw.versions.iter().flat_map(|v| v.values()).any(|v| v.weight.is_some());
    if total == 0 {
        let message = format!("every version of {} has weight 0: no request could be answered", path.parent().words());
        let problem = cx.problem_at_key(Code::NoWeight, &path, message);
        problem.label = Some("all weights are 0".into());
        problem.help = Some("give at least one version a weight above 0".into());
    } else if is_named && total != 100 && (80..=120).contains(&total) {
        let message = format!("the weights of {} add up to {total}, not 100", path.parent().words());
        let problem = cx.problem_at_key(Code::WeightsNot100, &path, message);
        problem.label = Some("shares differ from the numbers written".into());
        let share = |v: &Version| {
            let percent = f64::from(v.weight.value()) * 100.0 / total as f64;
            format!("`{}` gets {percent:.1} %", v.name)
        };
        problem.help = Some(versions.iter().map(share).collect::<Vec<_>>().join(", "));
    }
}

/// As written, else the largest weight, the first of equals.
fn stable(raw: &RawSplit, versions: &[Version], path: &Path, cx: &mut Context<'_>) -> Option<VersionName> {
    let Some(written) = &raw.stable else {
        let largest = versions.iter().map(|v| v.weight).max()?;
        return versions.iter().find(|v| v.weight == largest).map(|v| v.name.clone());
    };
    let known = raw.versions.as_ref()?;
    if !known.contains_key(written) {
        if !cx.lacks_keys(&path.key("versions")) {
            let message = format!("{} has no version `{written}`", path.words());
            cx.unknown_name(message, written, known.keys(), &path.key("stable"));
        }
        return None;
    }
    VersionName::new(written).ok()
}
