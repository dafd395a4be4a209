//! Who a listener believes and what it speaks: trusted proxies, `redirect_https`, TLS towards clients.

use std::sync::Arc;

use super::certificates::{Named, authorities, certificate};
use super::{Context, network, upstream};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawListener, RawListenerTls, RawTlsVersion};
use crate::config::{ListenerTls, TlsVersion, Trusted};

/// `trusted_proxies`, and whether anybody could speak the PROXY protocol.
pub fn trusted(raw: &RawListener, path: &Path, cx: &mut Context<'_>) -> Trusted {
    let mut trusted = Trusted::default();
    for (i, text) in raw.trusted_proxies.iter().enumerate() {
        match network::parse(text) {
            _ if text == "unix" => trusted.unix = true,
            Some(network) => trusted.networks.push(network),
            None => not_a_network(text, &path.key("trusted_proxies").index(i), cx),
        }
    }
    if raw.proxy_protocol && raw.trusted_proxies.is_empty() {
        let message = format!("{} speaks the PROXY protocol and trusts nobody: no one could connect", path.words());
        let problem = cx.problem_at_key(Code::MissingKey, &path.key("proxy_protocol"), message);
        problem.key = Some(path.key("trusted_proxies").to_string());
        problem.label = Some("who may send it?".into());
        problem.help = Some("add the load balancer: trusted_proxies = [\"10.0.0.0/8\"]".into());
    }
    trusted
}

fn not_a_network(text: &str, path: &Path, cx: &mut Context<'_>) {
    let problem = cx.problem(Code::BadAddress, path, format!("{text:?} is not a network"));
    problem.label = Some("not a network".into());
    problem.help = Some("write \"10.0.0.0/8\", \"2001:db8::/32\", an address, or \"unix\"".into());
}

/// The port of `redirect_https`.
pub fn redirect_https(raw: &RawListener, path: &Path, cx: &mut Context<'_>) -> Option<u16> {
    let port = raw.redirect_https?;
    if raw.tls.is_some() {
        let path = path.key("redirect_https");
        let message = format!("{} speaks https already and would redirect to it", path.parent().words());
        let problem = cx.problem_at_key(Code::OutOfRange, &path, message);
        problem.label = Some("not beside `tls`".into());
        problem.help = Some("take it out, or give it to a listener without `tls`".into());
    }
    // The schema has checked the range.
    u16::try_from(port).ok()
}

/// `tls` of a listener.
pub fn listener_tls(raw: &RawListener, path: &Path, cx: &mut Context<'_>) -> Option<Arc<ListenerTls>> {
    let tls = raw.tls.as_ref()?;
    let path = path.key("tls");
    let certificates = certificates(tls, &path, cx);
    let client_ca = tls.client_ca.as_ref().map(|text| {
        let path = path.key("client_ca");
        authorities(&Named { text, path: &path }, cx)
    });
    let min_version = match tls.min_version {
        RawTlsVersion::V12 => TlsVersion::V12,
        RawTlsVersion::V13 => TlsVersion::V13,
    };
    let client_ca = upstream::all_or_nothing(client_ca)?;
    Some(Arc::new(ListenerTls { certificates: certificates?, min_version, client_ca, strict_sni: tls.strict_sni }))
}

/// All of them, or nothing if one is bad.
fn certificates(
    raw: &RawListenerTls,
    path: &Path,
    cx: &mut Context<'_>,
) -> Option<Vec<Arc<crate::config::Certificate>>> {
    let path = path.key("certificates");
    let all = raw.certificates.as_ref()?;
    if all.is_empty() && !cx.is_flawed(&path) {
        let problem = cx.problem(Code::MissingKey, &path, format!("`{path}` is an empty list"));
        problem.label = Some("no certificate".into());
        problem.help = Some("add one: { cert = \"shop.pem\", key = \"shop.key\" }".into());
        return None;
    }
    let one = |(i, raw): (usize, &crate::config::raw::RawCertificate)| {
        let (cert_path, key_path) = (path.index(i).key("cert"), path.index(i).key("key"));
        let cert = Named { text: raw.cert.as_ref()?, path: &cert_path };
        certificate(&cert, &Named { text: raw.key.as_ref()?, path: &key_path }, cx)
    };
    let found: Vec<_> = all.iter().enumerate().map(one).collect();
    found.into_iter().collect()
}
