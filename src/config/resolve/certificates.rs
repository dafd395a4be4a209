//! Files of certificates, keys and authorities: read through the load's own reader, so that a watcher sees them and a
//! digest covers them, and checked here, so that a bad pair fails the load and whatever serves goes on serving.
//!
//! A pair is refused if it does not fit, is expired, or begins to be valid in more than `SKEW`; its last days are a
//! warning. An expired certificate further up the chain is a warning only: cross-signed ones are sent for old clients.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Context;
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::pem::{self, Bad, Facts};
use crate::config::{Authorities, Certificate};
use crate::model::rfc3339_ms;

/// From here on an expiry is warned of.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Clocks differ; a certificate that was issued a moment ago may be of the future.
const SKEW: Duration = Duration::from_secs(3600);

/// A text of the file, and where it stands.
pub struct Named<'a> {
    pub text: &'a str,
    pub path: &'a Path,
}

/// A chain and its key; nothing if they are bad (which is reported) or may not be read.
pub fn certificate(cert: &Named<'_>, key: &Named<'_>, cx: &mut Context<'_>) -> Option<Arc<Certificate>> {
    // Both are read and judged, so that one run tells of both.
    let chain = read(cert, pem::certificates, cx);
    let private = read(key, pem::key, cx);
    let (file, chain) = chain?;
    let facts = valid(cert, &file, &chain, cx)?;
    let (key_file, private) = private?;
    if let Err(problem) = pem::fits(&chain, &private) {
        let place = cx.tree.place_of(cert.path);
        let problem = bad(problem, &key_file, key, cx);
        problem.related = place.map(|p| (p, "the certificate".into()));
        return None;
    }
    let Facts { names, not_after, .. } = facts;
    let path = cert.text.to_owned();
    Some(Arc::new(Certificate { path, file, key_file, chain, key: private, names, not_after }))
}

/// Certificates that are believed; nothing if there is none (which is reported) or they may not be read.
pub fn authorities(named: &Named<'_>, cx: &mut Context<'_>) -> Option<Authorities> {
    let (file, certificates) = read(named, pem::certificates, cx)?;
    let mut roots = rustls::RootCertStore::empty();
    if let Some(n) = certificates.iter().position(|c| roots.add(c.clone()).is_err()) {
        let message = format!("certificate {} in it cannot be an authority", n + 1);
        bad(Bad { message, help: "it must be X.509 version 3, of a CA".into() }, &file, named, cx);
        return None;
    }
    Some(Authorities { file, certificates })
}

fn read<T>(named: &Named<'_>, parse: fn(&[u8]) -> Result<T, Bad>, cx: &mut Context<'_>) -> Option<(PathBuf, T)> {
    let file = folder(named.path, cx).join(named.text);
    let Some(files) = cx.files.as_mut() else {
        cx.unread = true;
        return None;
    };
    match files.shared(&file).map(|bytes| parse(&bytes)) {
        Ok(Ok(parsed)) => Some((file, parsed)),
        Ok(Err(problem)) => {
            bad(problem, &file, named, cx);
            None
        }
        Err(error) => {
            let message = format!("{} cannot be read: {error}", file.display());
            let problem = cx.problem(Code::FileUnreadable, named.path, message);
            problem.label = Some("named here".into());
            problem.help = Some(match error.kind() {
                std::io::ErrorKind::PermissionDenied => "the user that weir runs as must be allowed to read it".into(),
                _ => "paths are relative to the file they stand in".into(),
            });
            None
        }
    }
}

/// The folder of the file in which a path stands; an include may lie elsewhere than the main file.
fn folder(path: &Path, cx: &Context<'_>) -> PathBuf {
    let source = cx.tree.place_of(path).and_then(|place| cx.report.sources.get(place.source));
    let parent = source.and_then(|source| FsPath::new(&source.name).parent());
    parent.unwrap_or(FsPath::new("")).to_owned()
}

fn bad<'c>(
    problem: Bad,
    file: &FsPath,
    named: &Named<'_>,
    cx: &'c mut Context<'_>,
) -> &'c mut crate::config::Diagnostic {
    let message = format!("{}: {}", file.display(), problem.message);
    let diagnostic = cx.problem(Code::BadCertificate, named.path, message);
    diagnostic.label = Some("this file".into());
    diagnostic.help = Some(problem.help);
    diagnostic
}

/// The facts of the leaf, if it can be served now.
fn valid(
    named: &Named<'_>,
    file: &FsPath,
    chain: &[rustls_pki_types::CertificateDer<'_>],
    cx: &mut Context<'_>,
) -> Option<Facts> {
    let now = cx.now;
    let facts = match chain.iter().map(pem::facts).collect::<Result<Vec<_>, _>>() {
        Ok(facts) => facts,
        Err(problem) => {
            bad(problem, file, named, cx);
            return None;
        }
    };
    let (leaf, above) = facts.split_first()?;
    if let Some(problem) = refusal(leaf, now) {
        bad(problem, file, named, cx);
        return None;
    }
    if leaf.not_after < now + SOON {
        let days = leaf.not_after.duration_since(now).unwrap_or_default().as_secs() / 86_400;
        let when = format!("expires on {}, in {days} days", date(leaf.not_after));
        expiring(named, format!("{} {when}", file.display()), "renew it; a new file is taken by itself", cx);
    }
    if let Some(i) = above.iter().position(|f| f.not_after < now) {
        let message =
            format!("{}: certificate {} of the chain expired on {}", file.display(), i + 2, date(above[i].not_after));
        expiring(named, message, "clients that need it will refuse the chain: get a new one, or take it out", cx);
    }
    Some(leaf.clone())
}

fn refusal(leaf: &Facts, now: SystemTime) -> Option<Bad> {
    if leaf.not_after < now {
        let message = format!("the certificate expired on {}", date(leaf.not_after));
        return Some(Bad { message, help: "renew it; no client would accept it".into() });
    }
    (leaf.not_before > now + SKEW).then(|| Bad {
        message: format!("the certificate is not valid before {}", rfc3339_ms(leaf.not_before)),
        help: "use the present one until then, or set this machine's clock right".into(),
    })
}

fn expiring(named: &Named<'_>, message: String, help: &str, cx: &mut Context<'_>) {
    let problem = cx.problem(Code::CertificateExpiring, named.path, message);
    problem.label = Some("this file".into());
    problem.help = Some(help.into());
}

/// `2026-03-01`.
fn date(at: SystemTime) -> String {
    rfc3339_ms(at).split('T').next().unwrap_or_default().to_owned()
}
