//! Certificates made for a test, and rustls as client and origin with them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Signs certificates of a test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, as PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for that name, from yesterday for a hundred days.
    pub fn sign(&self, name: &str) -> Pair {
        let (key, day) = (KeyPair::generate().unwrap(), Duration::from_secs(86_400));
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let now = SystemTime::now();
        (params.not_before, params.not_after) = ((now - day).into(), (now + 100 * day).into());
        Pair { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }

    /// A client that trusts this authority, and shows `own` if it is asked for a certificate.
    pub fn client(&self, own: Option<&Pair>) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(self.roots());
        Arc::new(match own {
            Some(own) => config.with_client_auth_cert(own.chain(), own.key()).unwrap(),
            None => config.with_no_client_auth(),
        })
    }

    /// A server with that certificate, which asks for clients of this authority if `asks`.
    pub fn server(&self, own: &Pair, asks: bool) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let config = if asks {
            let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider()).build().unwrap();
            config.with_client_cert_verifier(verifier)
        } else {
            config.with_no_client_auth()
        };
        Arc::new(config.with_single_cert(own.chain(), own.key()).unwrap())
    }
}

impl Pair {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.cert.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// The certificate's bytes.
    pub fn der(&self) -> Vec<u8> {
        self.chain()[0].to_vec()
    }

    /// Writes `NAME.key` and `NAME.pem`, each by rename.
    pub fn write(&self, dir: &Path, name: &str) {
        replace(dir, &format!("{name}.key"), &self.key);
        replace(dir, &format!("{name}.pem"), &self.cert);
    }
}

/// Writes a file by rename.
pub fn replace(dir: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(dir).unwrap();
    let new = dir.join(format!("{name}.new"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, dir.join(name)).unwrap();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
