//! Handshakes of a real client with what this room makes, in memory.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::KeyPair;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use rustls_pki_types::ServerName;

use super::testing::{Authority, ClientSide, handshake, listener};
use super::*;
use crate::config::{Certificate, ListenerTls, Protocol, TlsVersion};

fn named(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

fn server(tls: &ListenerTls) -> Arc<ServerConfig> {
    server_config(tls, &Shared::new().unwrap()).unwrap()
}

fn client(authority: &Authority) -> Arc<ClientConfig> {
    client_config(&authority.client(None), Protocol::Auto).unwrap()
}

/// The same client as one that knows TLS 1.2 only.
fn old_client(authority: &Authority) -> Arc<ClientConfig> {
    let roots = super::server::roots(&authority.authorities()).unwrap();
    let builder = ClientConfig::builder_with_provider(super::provider::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Which of these the client was shown.
fn shown(side: &ClientSide, among: &[&Arc<Certificate>]) -> Option<usize> {
    let (_, connection) = side.as_ref().unwrap_or_else(|e| panic!("{e}")).get_ref();
    let leaf = connection.peer_certificates().unwrap()[0].clone();
    among.iter().position(|certificate| certificate.chain[0] == leaf)
}

fn kind(side: &ClientSide) -> HandshakeKind {
    side.as_ref().unwrap_or_else(|e| panic!("{e}")).get_ref().1.handshake_kind().unwrap()
}

fn alert(side: &ClientSide) -> String {
    side.as_ref().unwrap_err().to_string()
}

#[tokio::test]
async fn the_certificate_follows_the_name() {
    let authority = Authority::new();
    let first = authority.certificate(&["a.test", "192.0.2.1"]);
    let wild = authority.certificate(&["*.b.test"]);
    let exact = authority.certificate(&["shop.b.test"]);
    let all = [&first, &wild, &exact];
    let (server, client) = (server(&listener(&all)), client(&authority));
    for (name, expected) in [("a.test", 0), ("x.b.test", 1), ("shop.b.test", 2), ("SHOP.B.test", 2), ("192.0.2.1", 0)] {
        let (side, _) = handshake(&server, &client, named(name)).await;
        assert_eq!(shown(&side, &all), Some(expected), "{name}");
    }
    // The first serves whom none fits; that it does not fit is for the client to find.
    for name in ["b.test", "x.y.b.test", "other.test"] {
        let (side, _) = handshake(&server, &client, named(name)).await;
        assert!(alert(&side).contains("not valid for name"), "{name}: {}", alert(&side));
    }
}

#[tokio::test]
async fn a_strict_listener_refuses_names_it_does_not_have_by_an_alert() {
    let authority = Authority::new();
    let (host, ip) = (authority.certificate(&["a.test"]), authority.certificate(&["192.0.2.1"]));
    let client = client(&authority);
    let strict = |all: &[&Arc<Certificate>]| server(&ListenerTls { strict_sni: true, ..listener(all) });
    let both = strict(&[&host, &ip]);
    let (side, _) = handshake(&both, &client, named("a.test")).await;
    assert_eq!(shown(&side, &[&host, &ip]), Some(0));
    let (side, _) = handshake(&both, &client, named("192.0.2.1")).await;
    assert_eq!(shown(&side, &[&host, &ip]), Some(1), "no name in SNI: the certificate for an address");
    let (side, _) = handshake(&both, &client, named("b.test")).await;
    assert!(alert(&side).contains("AccessDenied"), "{}", alert(&side));
    let (side, _) = handshake(&strict(&[&host]), &client, named("192.0.2.1")).await;
    assert!(alert(&side).contains("AccessDenied"), "{}", alert(&side));
}

#[tokio::test]
async fn of_two_kinds_of_key_the_client_gets_one_it_can_verify() {
    let authority = Authority::new();
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let (hard, easy) = (authority.with_key(&["a.test"], &p384), authority.certificate(&["a.test"]));
    let server = server(&listener(&[&hard, &easy]));
    let (side, _) = handshake(&server, &client(&authority), named("a.test")).await;
    assert_eq!(shown(&side, &[&hard, &easy]), Some(0));
    let mut provider = (*super::provider::provider()).clone();
    let known = provider.signature_verification_algorithms.mapping.iter();
    let p256: Vec<_> = known.filter(|(s, _)| *s == rustls::SignatureScheme::ECDSA_NISTP256_SHA256).copied().collect();
    provider.signature_verification_algorithms.mapping = Vec::leak(p256);
    let roots = super::server::roots(&authority.authorities()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions().unwrap();
    let picky = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let (side, _) = handshake(&server, &picky, named("a.test")).await;
    assert_eq!(shown(&side, &[&hard, &easy]), Some(1));
}

#[tokio::test]
async fn a_client_certificate_is_required_and_verified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let certificate = authority.certificate(&["a.test"]);
    let strict = ListenerTls { client_ca: Some(authority.authorities()), ..listener(&[&certificate]) };
    let server = server(&strict);
    let (good, bad) = (authority.certificate(&["weir"]), stranger.certificate(&["weir"]));
    for (shows, alerted) in [(None, "CertificateRequired"), (Some(&bad), "UnknownCA"), (Some(&good), "")] {
        let client = client_config(&authority.client(shows), Protocol::Auto).unwrap();
        let (side, far) = handshake(&server, &client, named("a.test")).await;
        match alerted {
            "" => {
                let chain = far.unwrap().get_ref().1.peer_certificates().unwrap().to_vec();
                assert_eq!(chain, good.chain);
            }
            alerted => assert!(far.is_err() && alert(&side).contains(alerted), "{}", alert(&side)),
        }
    }
}

#[tokio::test]
async fn an_old_client_is_served_or_refused_by_min_version() {
    let authority = Authority::new();
    let certificate = authority.certificate(&["a.test"]);
    let old = old_client(&authority);
    let (side, _) = handshake(&server(&listener(&[&certificate])), &old, named("a.test")).await;
    assert_eq!(side.unwrap().get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let only_13 = ListenerTls { min_version: TlsVersion::V13, ..listener(&[&certificate]) };
    let (side, _) = handshake(&server(&only_13), &old, named("a.test")).await;
    assert!(alert(&side).contains("ProtocolVersion"), "{}", alert(&side));
}

#[tokio::test]
async fn the_protocol_is_agreed_and_the_cheap_suite_taken() {
    let authority = Authority::new();
    let server = server(&listener(&[&authority.certificate(&["a.test"])]));
    for (protocol, agreed) in [(Protocol::Auto, "h2"), (Protocol::Http1, "http/1.1"), (Protocol::Http2, "h2")] {
        let client = client_config(&authority.client(None), protocol).unwrap();
        let (side, _) = handshake(&server, &client, named("a.test")).await;
        let (_, connection) = side.as_ref().unwrap().get_ref();
        assert_eq!(connection.alpn_protocol(), Some(agreed.as_bytes()));
        let suite = connection.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
}

#[tokio::test]
async fn sessions_outlive_a_reload_and_a_renewed_certificate() {
    let authority = Authority::new();
    let shared = Shared::new().unwrap();
    let config = || server_config(&listener(&[&authority.certificate(&["a.test"])]), &shared).unwrap();
    let (before, after) = (config(), config());
    for client in [client(&authority), old_client(&authority)] {
        let (side, _) = handshake(&before, &client, named("a.test")).await;
        assert_eq!(kind(&side), HandshakeKind::Full);
        let (side, _) = handshake(&after, &client, named("a.test")).await;
        assert_eq!(kind(&side), HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn no_session_crosses_to_where_more_or_something_else_is_asked() {
    let (authority, other) = (Authority::new(), Authority::new());
    let shared = Shared::new().unwrap();
    let certificate = authority.certificate(&["a.test"]);
    let open = listener(&[&certificate]);
    let with_ca = |ca: &Authority| ListenerTls { client_ca: Some(ca.authorities()), ..listener(&[&certificate]) };
    let more_names = listener(&[&certificate, &authority.certificate(&["b.test"])]);
    let own = authority.certificate(&["weir"]);
    let (ours, theirs) = (with_ca(&authority), with_ca(&other));
    for (from, to, served) in [(&open, &ours, true), (&ours, &theirs, false), (&open, &more_names, true)] {
        let [from, to] = [from, to].map(|tls| server_config(tls, &shared).unwrap());
        let client = client_config(&authority.client(Some(&own)), Protocol::Auto).unwrap();
        let (side, _) = handshake(&from, &client, named("a.test")).await;
        assert_eq!(kind(&side), HandshakeKind::Full);
        let (side, _) = handshake(&to, &client, named("a.test")).await;
        assert_eq!(side.is_ok(), served);
        assert!(!served || kind(&side) == HandshakeKind::Full);
    }
}

#[test]
fn cached_sessions_stay_behind_their_fence() {
    let authority = Authority::new();
    let shared = Shared::new().unwrap();
    let certificate = authority.certificate(&["a.test"]);
    let open = server_config(&listener(&[&certificate]), &shared).unwrap();
    let strict = ListenerTls { client_ca: Some(authority.authorities()), ..listener(&[&certificate]) };
    let strict = server_config(&strict, &shared).unwrap();
    assert!(open.session_storage.put(b"id".to_vec(), b"secret".to_vec()));
    assert_eq!(strict.session_storage.get(b"id"), None);
    assert_eq!(open.session_storage.take(b"id").as_deref(), Some(&b"secret"[..]));
    let ticket = open.ticketer.encrypt(b"secret").unwrap();
    assert_eq!(strict.ticketer.decrypt(&ticket), None);
    assert_eq!(open.ticketer.decrypt(&ticket).as_deref(), Some(&b"secret"[..]));
    assert_eq!(open.ticketer.decrypt(b"forged"), None);
}

#[test]
fn an_endpoint_is_verified_by_its_name_or_its_address() {
    let tls = |server_name| crate::config::UpstreamTls { ca: None, server_name, client: None };
    let at = "[::ffff:10.0.0.1]:9443".parse().unwrap();
    assert_eq!(server_name(&tls(None), &at, None), Some(ServerName::from(IpAddr::from([10, 0, 0, 1]))));
    let name = |written, host| server_name(&tls(written), &at, host);
    assert_eq!(name(None, Some("shop.test.")), Some(named("shop.test")));
    assert_eq!(name(None, Some("a b")), Some(ServerName::from(IpAddr::from([10, 0, 0, 1]))));
    assert_eq!(name(Some(named("shop.internal")), Some("shop.test")), Some(named("shop.internal")));
    assert_eq!(server_name(&tls(None), &crate::model::Address::Unix("/run/a".into()), None), None);
}

#[tokio::test]
async fn an_endpoint_of_another_authority_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = server(&listener(&[&stranger.certificate(&["a.test"])]));
    let (side, _) = handshake(&server, &client(&authority), named("a.test")).await;
    assert!(alert(&side).contains("UnknownIssuer"), "{}", alert(&side));
}

#[test]
fn a_key_is_shown_by_no_configuration() {
    let authority = Authority::new();
    let certificate = authority.certificate(&["a.test"]);
    let secret = certificate.key.secret_der()[20..60].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let client = client_config(&authority.client(Some(&certificate)), Protocol::Auto).unwrap();
    let shown = format!("{:?} {client:?}", server(&listener(&[&certificate])));
    assert!(!shown.contains(&secret) && shown.contains("a.test"));
}
