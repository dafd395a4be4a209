//! TLS: certificates that must be refused, and what ALPN decides.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::*;

struct Identity {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Identity {
    fn new(name: &str, until_year: i32) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until_year, 1, 1);
        Self { certificate: params.self_signed(&key).unwrap().der().clone(), key }
    }

    fn server(&self, alpn: &[&str]) -> TlsAcceptor {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(vec![self.certificate.clone()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Settings that trust this identity and no other.
    fn trusted(&self, name: &'static str, protocol: Protocol) -> Settings {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        Settings { tls: Some((Arc::new(config), name)), ..cleartext(protocol) }
    }
}

fn shop() -> Identity {
    Identity::new("shop.test", 2100)
}

/// Answers every request over whatever was negotiated; counts the connections.
async fn serve(acceptor: TlsAcceptor) -> (SocketAddr, Rc<Cell<usize>>) {
    let (listener, address) = listener().await;
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    origin(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.set(counted.get() + 1);
            let acceptor = acceptor.clone();
            origin(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        assert_eq!(request.uri().scheme_str(), Some("https"));
                        http2::answer(request, respond).await;
                    }
                } else {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    }
                }
            });
        }
    });
    (address, count)
}

async fn refused(server: TlsAcceptor, settings: Settings) {
    let (address, _) = serve(server).await;
    let upstream = upstream_with(address, settings);
    let result = upstream.dial(Some(Duration::from_secs(5))).await;
    assert!(matches!(result, Err(DialError::Tls(_))), "{result:?}");
    assert_eq!(live(&upstream), 0);
}

#[test]
fn certificates_that_prove_nothing_are_refused() {
    local(async {
        let good = shop();
        refused(good.server(&[]), good.trusted("other.test", Protocol::Auto)).await;
        refused(good.server(&[]), shop().trusted("shop.test", Protocol::Auto)).await;
        let expired = Identity::new("shop.test", 2021);
        refused(expired.server(&[]), expired.trusted("shop.test", Protocol::Auto)).await;
    });
}

#[test]
fn what_is_not_tls_is_never_spoken_to_in_cleartext() {
    local(async {
        let (listener, address) = listener().await;
        let upstream = upstream_with(address, shop().trusted("shop.test", Protocol::Auto));
        origin(async move {
            let mut wire = Wire::accept(&listener).await;
            wire.write("HTTP/1.1 400 Bad Request\r\n\r\n").await;
            wire.ended().await;
            assert!(!wire.ahead.starts_with(b"GET"));
        });
        assert!(matches!(upstream.dial(None).await, Err(DialError::Tls(_))));
    });
}

#[test]
fn a_handshake_that_hangs_counts_against_the_limit() {
    local(async {
        let (listener, address) = listener().await;
        let upstream = upstream_with(address, shop().trusted("shop.test", Protocol::Http1));
        let result = upstream.dial(Some(Duration::from_millis(20))).await;
        assert!(matches!(result, Err(DialError::Timeout)), "{result:?}");
        drop(listener);
    });
}

#[test]
fn alpn_decides() {
    use Protocol::{Auto, Http1, Http2};
    local(async {
        let both = ["h2", "http/1.1"];
        for (protocol, offered, is_http2) in [
            (Auto, &both[..], true),
            (Auto, &both[1..], false),
            (Auto, &[], false),
            (Http1, &both, false),
            (Http1, &[], false),
            (Http2, &both, true),
        ] {
            let identity = shop();
            let (address, _) = serve(identity.server(offered)).await;
            let upstream = upstream_with(address, identity.trusted("shop.test", protocol));
            let mut lease = upstream.dial(None).await.unwrap();
            assert_eq!(lease.is_http2(), is_http2, "{protocol:?} of {offered:?}");
            assert_eq!(read(send(&mut lease, get("/")).await.unwrap()).await.0, "ok");
            lease.give_back();
            drained(&upstream).await;
        }
        let identity = shop();
        for offered in [&both[1..], &[]] {
            refused(identity.server(offered), identity.trusted("shop.test", Http2)).await;
        }
    });
}

#[test]
fn a_herd_shares_one_connection_as_soon_as_it_turns_out_to_be_http2() {
    local(async {
        for (offered, connections) in [(&["h2"][..], 1), (&["http/1.1"], 20)] {
            let identity = shop();
            let (address, count) = serve(identity.server(offered)).await;
            let upstream = upstream_with(address, identity.trusted("shop.test", Protocol::Auto));
            let dial = |_| {
                let upstream = upstream.clone();
                tokio::task::spawn_local(async move { upstream.dial(None).await.unwrap() })
            };
            let tasks: Vec<_> = (0..20).map(dial).collect();
            let mut leases = Vec::new();
            for task in tasks {
                leases.push(task.await.unwrap());
            }
            assert_eq!((count.get(), live(&upstream)), (connections, connections), "{offered:?}");
        }
    });
}

#[test]
fn new_tls_settings_are_for_new_connections() {
    local(async {
        let identity = shop();
        let (address, count) = serve(identity.server(&["h2"])).await;
        let upstream = upstream_with(address, identity.trusted("shop.test", Protocol::Auto));
        upstream.dial(None).await.unwrap().give_back();
        assert!(upstream.checkout().is_some());
        upstream.configure(identity.trusted("shop.test", Protocol::Auto));
        assert!(upstream.checkout().is_none());
        upstream.dial(None).await.unwrap().give_back();
        assert_eq!(count.get(), 2);
        until("the old one is gone", || live(&upstream) == 1).await;
    });
}

/// An endpoint that opens no tunnel, and what it was offered: `Some` of the first protocol it has in common with the
/// client, in its own order. `is_strict`: without one it refuses, as RFC 7301 wants; else it goes on with its first.
async fn chooser(
    identity: &Identity,
    offered: &[&'static str],
    is_strict: bool,
) -> (SocketAddr, Rc<RefCell<Vec<Seen>>>) {
    let known: Vec<&'static str> = offered.to_vec();
    let seen: Rc<RefCell<Vec<Seen>>> = Rc::default();
    let (listener, address) = listener().await;
    let (told, [with, without]) = (seen.clone(), [identity.server(offered), identity.server(&[])]);
    origin(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let start = tokio_rustls::LazyConfigAcceptor::new(Default::default(), stream).await.unwrap();
            let asked: Seen = start
                .client_hello()
                .alpn()
                .into_iter()
                .flatten()
                .map(|name| String::from_utf8(name.to_vec()).unwrap())
                .collect();
            let is_common = known.iter().any(|known| asked.iter().any(|asked| asked == known));
            told.borrow_mut().push(asked);
            let acceptor = if is_common || is_strict { &with } else { &without };
            let (config, is_http2) = (acceptor.config().clone(), known.first() == Some(&"h2"));
            origin(async move {
                let Ok(stream) = start.into_stream(config).await else { return };
                if is_http2 {
                    let mut builder = h2::server::Builder::new();
                    // What is no HTTP/2 fails here.
                    let Ok(mut connection) = builder.enable_connect_protocol().handshake::<_, Bytes>(stream).await
                    else {
                        return;
                    };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        http2::answer(request, respond).await;
                    }
                } else {
                    let mut stream = stream;
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    }
                }
            });
        }
    });
    (address, seen)
}

/// What one connection was offered.
type Seen = Vec<String>;

#[test]
fn tunnels_prefer_http1_and_take_what_there_is() {
    local(async {
        let (alone, choice) = (vec!["http/1.1"], vec!["h2", "http/1.1"]);
        for (knows, is_strict, is_http2, offers) in [
            (&["http/1.1"][..], true, false, vec![alone.clone(), alone.clone()]),
            (&["h2"], true, true, vec![alone.clone(), choice.clone()]),
            // It should have refused; the one that knows no ALPN at all looks the same at first.
            (&["h2"], false, true, vec![alone.clone(), choice.clone()]),
            (&[], true, false, vec![alone.clone(), choice.clone(), choice.clone()]),
        ] {
            let identity = shop();
            let (address, seen) = chooser(&identity, knows, is_strict).await;
            let settings = identity.trusted("shop.test", Protocol::Auto);
            let upstream = Rc::new(Upstream::<TestBody>::for_tunnels(address, settings));
            // The second has learned from the first.
            for _ in 0..2 {
                let mut lease = match upstream.checkout() {
                    Some(lease) => lease,
                    None => upstream.dial(None).await.unwrap(),
                };
                assert_eq!(lease.is_http2(), is_http2, "{knows:?}");
                assert_eq!(read(send(&mut lease, get("/")).await.unwrap()).await.0, "ok");
                if is_http2 { lease.give_back() } else { drop(lease) }
            }
            assert_eq!(*seen.borrow(), offers, "{knows:?}");
        }
    });
}

#[test]
fn both_at_hand_tunnels_take_http1() {
    local(async {
        let identity = shop();
        let (address, count) = serve(identity.server(&["h2", "http/1.1"])).await;
        let upstream =
            Rc::new(Upstream::<TestBody>::for_tunnels(address, identity.trusted("shop.test", Protocol::Auto)));
        assert!(!upstream.dial(None).await.unwrap().is_http2());
        assert_eq!(count.get(), 1);
    });
}

/// It knew only HTTP/2, without tunnels; it may have learned HTTP/1.1 since.
#[test]
fn where_http2_opens_no_tunnel_http1_is_asked_for_again() {
    local(async {
        let identity = shop();
        let (address, count) = serve(identity.server(&["h2"])).await;
        let upstream =
            Rc::new(Upstream::<TestBody>::for_tunnels(address, identity.trusted("shop.test", Protocol::Auto)));
        for round in 1..=2 {
            let mut lease = upstream.dial(None).await.unwrap();
            let mut request = get("/chat");
            *request.method_mut() = http::Method::CONNECT;
            request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
            assert_eq!(fault_of(&mut lease, request).await, SendFault::NoExtendedConnect);
            assert!(upstream.checkout().is_none());
            assert_eq!(count.get(), 2 * round);
        }
    });
}

#[test]
fn a_certificate_that_proves_nothing_is_not_tried_twice() {
    local(async {
        let (address, count) = serve(shop().server(&["http/1.1"])).await;
        let upstream = Rc::new(Upstream::<TestBody>::for_tunnels(address, shop().trusted("shop.test", Protocol::Auto)));
        assert!(matches!(upstream.dial(None).await, Err(DialError::Tls(_))));
        assert_eq!(count.get(), 1);
    });
}
