//! Where a version's endpoints are, and whether TLS is spoken with them: all of them or none.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::ServerName;

use super::certificates::{Named, authorities, certificate};
use super::{Context, address};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{RawEndpoint, RawUpstreamTls, RawVersion};
use crate::config::{Certificate, EndpointSpec, NameOf, Target, UpstreamTls};
use crate::model::Address;

/// See the file's head.
pub struct Upstream {
    pub endpoints: Vec<EndpointSpec>,
    /// Given exactly if the endpoints are `https://`.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// An endpoint and where it stands.
struct Found {
    target: Target,
    weight: u32,
    https: bool,
    path: Path,
}

/// `endpoints` and `tls` of the version at `path`; `admin` is an address that none may have.
pub fn upstream(raw: &RawVersion, admin: Option<SocketAddr>, path: &Path, cx: &mut Context<'_>) -> Upstream {
    let found = endpoints(raw, admin, path, cx);
    let https = found.first().is_some_and(|first| first.https);
    if let Some(other) = found.iter().find(|other| other.https != https) {
        mixed(&found[0], other, path, cx);
    }
    let tls = match &raw.tls {
        Some(tls) => self::tls(tls, &path.key("tls"), cx),
        None => Some(UpstreamTls { ca: None, server_name: None, client: None }),
    };
    check_names(&found, raw, cx);
    if raw.tls.is_some() && !found.is_empty() && found.iter().all(|f| !f.https) {
        let path = path.key("tls");
        let message = format!("{} has `tls`, but its endpoints are plain HTTP", path.parent().words());
        let problem = cx.problem_at_key(Code::BadAddress, &path, message);
        problem.label = Some("of no use".into());
        problem.help = Some(match &found[0].target {
            Target::Address(Address::Unix(_)) => "TLS is not spoken over Unix sockets: take `tls` out".into(),
            other => format!("write \"https://{other}\", or take `tls` out"),
        });
    }
    let tls = tls.filter(|_| https).map(Arc::new);
    check_weights(&found, raw, path, cx);
    let spec = |f: Found| EndpointSpec { target: f.target, weight: f.weight };
    Upstream { endpoints: found.into_iter().map(spec).collect(), tls }
}

fn mixed(first: &Found, other: &Found, path: &Path, cx: &mut Context<'_>) {
    let word = |found: &Found| if found.https { "https" } else { "plain HTTP" };
    let place = cx.tree.place_of(&first.path);
    let message = format!("endpoints of {} are partly https, partly plain HTTP", path.words());
    let problem = cx.problem(Code::BadAddress, &other.path, message);
    problem.label = Some(word(other).into());
    problem.related = place.map(|p| (p, word(first).into()));
    problem.help = Some("write https:// before all of them or none; or make two versions of them".into());
}

fn endpoints(raw: &RawVersion, admin: Option<SocketAddr>, path: &Path, cx: &mut Context<'_>) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (i, raw) in raw.endpoints.iter().flatten().enumerate() {
        let path = path.key("endpoints").index(i);
        let (text, weight, path) = match raw {
            RawEndpoint::Address(text) => (text, 1, path),
            RawEndpoint::Table(table) => match &table.address {
                Some(text) => (text, table.weight.unwrap_or(1), path.key("address")),
                None => continue,
            },
        };
        match address::endpoint(text) {
            Ok(address::Endpoint { target, https }) => {
                check_endpoint(&target, admin, &found, &path, cx);
                found.push(Found { target, weight, https, path });
            }
            Err(error) => error.fill(cx.problem(Code::BadAddress, &path, "")),
        }
    }
    found
}

fn check_endpoint(at: &Target, admin: Option<SocketAddr>, found: &[Found], path: &Path, cx: &mut Context<'_>) {
    if admin.is_some_and(|admin| at.is_same(&Target::Address(admin.into()))) {
        let message = format!("{at} is weir's own admin address: clients would reach the admin API through the proxy");
        let problem = cx.problem(Code::BadAddress, path, message);
        problem.label = Some("the admin address".into());
        problem.help = Some("write the application's address, or move `admin.bind` to another port".into());
    }
    if let Some(first) = found.iter().find(|other| other.target.is_same(at)) {
        let place = cx.tree.place_of(&first.path);
        let problem = cx.problem(Code::DuplicateName, path, format!("endpoint {at} is listed twice"));
        problem.label = Some("the same endpoint again".into());
        problem.related = place.map(|p| (p, "first given here".into()));
        problem.help = Some("take one of them out".into());
    }
}

/// A name that no certificate could have needs another one beside it.
fn check_names(found: &[Found], raw: &RawVersion, cx: &mut Context<'_>) {
    if raw.tls.as_ref().is_some_and(|tls| tls.server_name.is_some()) {
        return;
    }
    for Found { target, https, path, .. } in found {
        let Target::Name(name) = target else { continue };
        if *https && name.of != NameOf::Services && ServerName::try_from(name.name.as_ref()).is_err() {
            let message = format!("{:?} is not a name that a certificate could have", name.name);
            let problem = cx.problem(Code::BadAddress, path, message);
            problem.label = Some("not a TLS server name".into());
            problem.help = Some("add tls = { server_name = \"...\" } with the name in the certificate".into());
        }
    }
}

/// A version that takes requests must have somebody to give them to.
fn check_weights(found: &[Found], raw: &RawVersion, path: &Path, cx: &mut Context<'_>) {
    if found.is_empty() || raw.weight == Some(0) || found.iter().any(|f| f.weight > 0) {
        return;
    }
    let path = path.key("endpoints");
    let message = format!("every endpoint of {} has weight 0: no request could be answered", path.parent().words());
    let problem = cx.problem(Code::NoWeight, &path, message);
    problem.label = Some("all weights are 0".into());
    problem.help = Some("give at least one endpoint a weight above 0, or the version weight = 0".into());
}

/// Nothing if something in it is bad, or may not be read.
fn tls(raw: &RawUpstreamTls, path: &Path, cx: &mut Context<'_>) -> Option<UpstreamTls> {
    let ca = raw.ca.as_ref().map(|text| {
        let path = path.key("ca");
        authorities(&Named { text, path: &path }, cx)
    });
    let server_name = raw.server_name.as_ref().map(|text| server_name(text, &path.key("server_name"), cx));
    let client = client(raw, path, cx);
    Some(UpstreamTls {
        ca: all_or_nothing(ca)?,
        server_name: all_or_nothing(server_name)?,
        client: all_or_nothing(client)?,
    })
}

fn server_name(text: &str, path: &Path, cx: &mut Context<'_>) -> Option<ServerName<'static>> {
    let name = ServerName::try_from(text.to_owned()).ok();
    if name.is_none() {
        let problem = cx.problem(Code::BadAddress, path, format!("{text:?} is not a name a server could have"));
        problem.label = Some("not a host name".into());
        problem.help = Some("write the name in the endpoint's certificate, without scheme and port".into());
    }
    name
}

fn client(raw: &RawUpstreamTls, path: &Path, cx: &mut Context<'_>) -> Option<Option<Arc<Certificate>>> {
    let (cert_path, key_path) = (path.key("cert"), path.key("key"));
    match (&raw.cert, &raw.key) {
        (Some(cert), Some(key)) => {
            let cert = Named { text: cert, path: &cert_path };
            Some(certificate(&cert, &Named { text: key, path: &key_path }, cx))
        }
        (None, None) => None,
        (cert, _) => {
            let (given, other) = if cert.is_some() { (&cert_path, &key_path) } else { (&key_path, &cert_path) };
            if !cx.lacks_keys(path) {
                let (has, lacks) = (given.last_key(), other.last_key());
                let problem = cx.problem_at_key(
                    Code::MissingKey,
                    given,
                    format!("{} has `{has}` but no `{lacks}`", path.words()),
                );
                problem.key = Some(other.to_string());
                problem.label = Some(format!("`{lacks}` is missing beside it"));
                problem.help = Some("a client certificate is a pair: cert = \"weir.pem\", key = \"weir.key\"".into());
            }
            Some(None)
        }
    }
}

/// What was asked for and is bad is nothing; what was not asked for is no fault.
pub fn all_or_nothing<T>(asked: Option<Option<T>>) -> Option<Option<T>> {
    match asked {
        None => Some(None),
        Some(found) => found.map(Some),
    }
}
