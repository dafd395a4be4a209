//! TLS comes into force with its configuration, whole or not at all, and stays where nothing changed.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::testing::{config, done, open, order, shift, split};
use super::{ApplyError, Change, Snapshot};
use crate::config::{Certificate, Config, Listener, ListenerTls, Protocol};
use crate::model::ListenerName;
use crate::tls::testing::{Authority, listener};

fn listening(name: &str, tls: Option<ListenerTls>) -> Listener {
    let plain = Listener::new(ListenerName::new(name).unwrap(), ([127, 0, 0, 1], 0).into());
    Listener { tls: tls.map(Arc::new), ..plain }
}

/// Two listeners, the second with TLS; one version of two with TLS.
fn secured(dir: &std::path::Path, authority: &Authority, certificate: &Arc<Certificate>, name: &str) -> Config {
    let mut config = Config::clone(&config(dir, vec![split("shop", &[("v1", 90), ("v2", 10)])]));
    config.listeners = vec![listening("web", None), listening(name, Some(listener(&[certificate])))];
    config.splits[0].versions[1].tls = Some(Arc::new(authority.client(Some(certificate))));
    config
}

fn reload(config: Config) -> Change {
    Change::Reload { config: Arc::new(config) }
}

fn server(snapshot: &Snapshot) -> &Arc<rustls::ServerConfig> {
    assert!(snapshot.tls.len() == 2 && snapshot.tls[0].is_none());
    snapshot.tls[1].as_ref().unwrap()
}

fn client(snapshot: &Snapshot) -> &Arc<rustls::ClientConfig> {
    assert!(snapshot.upstream_tls.len() == 1 && snapshot.upstream_tls[0][0].is_none());
    snapshot.upstream_tls[0][1].as_ref().unwrap()
}

#[test]
fn what_did_not_change_is_the_same() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let certificate = authority.certificate(&["a.test"]);
    let first = secured(dir.path(), &authority, &certificate, "secure");
    let store = open(Arc::new(first.clone()));
    let start = store.snapshot();
    let weights = done(&store, shift(&[("v1", 50), ("v2", 50)])).snapshot;
    let renamed = done(&store, reload(secured(dir.path(), &authority, &certificate, "other"))).snapshot;
    for later in [&weights, &renamed] {
        assert!(Arc::ptr_eq(server(&start), server(later)) && Arc::ptr_eq(client(&start), client(later)));
    }
    let mut protocol = first;
    protocol.splits[0].versions[1].protocol = Protocol::Http1;
    let protocol = done(&store, reload(protocol)).snapshot;
    assert!(Arc::ptr_eq(server(&start), server(&protocol)) && !Arc::ptr_eq(client(&start), client(&protocol)));
    let renewed = authority.certificate(&["a.test"]);
    let renewed = done(&store, reload(secured(dir.path(), &authority, &renewed, "secure"))).snapshot;
    assert!(!Arc::ptr_eq(server(&start), server(&renewed)) && !Arc::ptr_eq(client(&start), client(&renewed)));
}

#[test]
fn a_pair_that_rustls_refuses_changes_nothing() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let certificate = authority.certificate(&["a.test"]);
    let store = open(Arc::new(secured(dir.path(), &authority, &certificate, "secure")));
    let (start, files) = (store.snapshot(), std::fs::read(dir.path().join("state.json")).unwrap());
    let broken = |chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>| {
        Arc::new(Certificate {
            path: "a.pem".into(),
            file: "a.pem".into(),
            key_file: "a.key".into(),
            chain,
            key,
            names: Vec::new(),
            not_after: certificate.not_after,
        })
    };
    let other = authority.certificate(&["b.test"]);
    let mixed = broken(certificate.chain.clone(), other.key.clone_key());
    let junk = broken(vec![vec![1, 2, 3].into()], other.key.clone_key());
    for bad in [mixed, junk] {
        let mut config = secured(dir.path(), &authority, &certificate, "secure");
        config.listeners[1] = listening("secure", Some(listener(&[&bad])));
        for dry_run in [true, false] {
            let order = super::Order { dry_run, ..order(reload(config.clone())) };
            let error = store.apply(order).unwrap_err();
            assert!(matches!(&error, ApplyError::BadTls { key, .. } if key == "listeners.secure.tls"), "{error}");
            assert!(error.to_string().contains("a.pem") && error.to_string().ends_with(')'), "{error}");
        }
        let mut config = secured(dir.path(), &authority, &certificate, "secure");
        config.splits[0].versions[1].tls = Some(Arc::new(authority.client(Some(&bad))));
        let error = store.apply(order(reload(config))).unwrap_err();
        assert!(matches!(&error, ApplyError::BadTls { key, .. } if key == "splits.shop.versions.v2.tls"), "{error}");
    }
    assert!(Arc::ptr_eq(&start, &store.snapshot()));
    assert_eq!(std::fs::read(dir.path().join("state.json")).unwrap(), files);
}
