//! Certificates made for the moment, and handshakes in memory, for the tests of this room and those above.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::config::{Authorities, Certificate, ListenerTls, TlsVersion, UpstreamTls};

/// A day, in seconds.
const DAY: u64 = 86_400;

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, format!("authority {:x}", fastrand::u64(..)));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Good for 90 days; named after its first name.
    pub(crate) fn certificate(&self, names: &[&str]) -> Arc<Certificate> {
        self.with_key(names, &KeyPair::generate().unwrap())
    }

    pub(crate) fn with_key(&self, names: &[&str], key: &KeyPair) -> Arc<Certificate> {
        // Whole seconds, as X.509 has them.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(now + 90 * DAY);
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        (params.not_before, params.not_after) = ((not_after - Duration::from_secs(91 * DAY)).into(), not_after.into());
        let cert = params.signed_by(key, &self.0).unwrap();
        Arc::new(Certificate {
            path: names[0].to_owned(),
            file: names[0].into(),
            key_file: "key".into(),
            chain: vec![cert.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            not_after,
        })
    }

    pub(crate) fn authorities(&self) -> Authorities {
        Authorities { file: "ca.pem".into(), certificates: vec![self.0.der().clone()] }
    }

    /// A client that believes this authority and shows `client`.
    pub(crate) fn client(&self, client: Option<&Arc<Certificate>>) -> UpstreamTls {
        UpstreamTls { ca: Some(self.authorities()), server_name: None, client: client.cloned() }
    }
}

pub(crate) fn listener(certificates: &[&Arc<Certificate>]) -> ListenerTls {
    ListenerTls {
        certificates: certificates.iter().map(|c| (*c).clone()).collect(),
        min_version: TlsVersion::V12,
        client_ca: None,
        strict_sni: false,
    }
}

type Wire = tokio::io::DuplexStream;
pub(crate) type ClientSide = std::io::Result<client::TlsStream<Wire>>;
pub(crate) type ServerSide = std::io::Result<server::TlsStream<Wire>>;

/// What comes of a handshake at both ends; each end then reads the other's one byte, so that alerts and tickets arrive.
pub(crate) async fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: ServerName<'static>,
) -> (ClientSide, ServerSide) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let connect = async {
        let mut stream = TlsConnector::from(client.clone()).connect(name, near).await?;
        exchange(&mut stream).await?;
        Ok(stream)
    };
    let accept = async {
        let mut stream = TlsAcceptor::from(server.clone()).accept(far).await?;
        exchange(&mut stream).await?;
        Ok(stream)
    };
    tokio::join!(connect, accept)
}

async fn exchange(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(b"x").await?;
    stream.flush().await?;
    stream.read_u8().await.map(drop)
}
