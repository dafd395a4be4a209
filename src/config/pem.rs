//! Certificates and keys out of PEM bytes, and what is wrong with them in words an operator can act on. Pure.
//!
//! Invariant: no message here quotes anything of a key's file.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// What is wrong with a file, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub message: String,
    pub help: String,
}

fn bad(message: impl Into<String>, help: impl Into<String>) -> Bad {
    Bad { message: message.into(), help: help.into() }
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// DNS names, lower case, `*.` included; IP addresses as text.
    pub names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// Every certificate of a file, in order; at least one.
///
/// # Errors
/// There is none, or one is broken.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Bad> {
    let broken = |_| bad("a certificate in it is broken", "write the file again: PEM, from BEGIN to END line");
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(broken)?;
    if !found.is_empty() {
        return Ok(found);
    }
    Err(if pem.first() == Some(&0x30) {
        bad("it is DER, not PEM", "convert it: openssl x509 -inform der -in FILE -out FILE.pem")
    } else if has_key(pem) {
        bad("it holds a key, not a certificate", "name the file of the certificate here")
    } else {
        bad("there is no certificate in it", "it must hold -----BEGIN CERTIFICATE-----, the server's own first")
    })
}

/// The one private key of a file.
///
/// # Errors
/// There is none, or it is encrypted or broken.
pub fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Bad> {
    if contains(pem, b"ENCRYPTED") {
        let help = "weir asks for no passphrase; decrypt it: openssl pkey -in FILE -out FILE.plain";
        return Err(bad("the key in it is encrypted", help));
    }
    match PrivateKeyDer::pem_slice_iter(pem).next() {
        Some(Ok(key)) => Ok(key),
        Some(Err(_)) => Err(bad("the key in it is broken", "write the file again: PEM, from BEGIN to END line")),
        None if pem.first() == Some(&0x30) => {
            Err(bad("it is DER, not PEM", "convert it: openssl pkey -inform der -in FILE -out FILE.pem"))
        }
        None if contains(pem, b"-----BEGIN CERTIFICATE-----") => {
            Err(bad("it holds a certificate, not a key", "name the file of the private key here"))
        }
        None => Err(bad("there is no private key in it", "it must hold -----BEGIN PRIVATE KEY-----")),
    }
}

fn has_key(pem: &[u8]) -> bool {
    contains(pem, b"PRIVATE KEY-----")
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// What a certificate says about itself.
///
/// # Errors
/// It is not X.509.
pub fn facts(certificate: &CertificateDer<'_>) -> Result<Facts, Bad> {
    let broken = || bad("a certificate in it is not valid X.509", "have it issued again");
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| broken())?;
    let alternatives = parsed.subject_alternative_name().map_err(|_| broken())?;
    let names = alternatives.iter().flat_map(|san| &san.value.general_names).filter_map(name).collect();
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = parsed.validity();
    let (not_before, not_after) = (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()));
    Ok(Facts { names, not_before, not_after })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the key belongs to the first certificate.
///
/// # Errors
/// It does not, or TLS cannot use one of them.
pub fn fits(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) -> Result<(), Bad> {
    let unusable = |_| {
        bad("this kind of key cannot be used", "use ECDSA (P-256, P-384, P-521), RSA of 2048 bits or more, or Ed25519")
    };
    let key = any_supported_type(key).map_err(unusable)?;
    let Some(own) = key.public_key() else { return Ok(()) };
    let belongs = |certificate: &CertificateDer<'_>| {
        ParsedCertificate::try_from(certificate).map(|c| c.subject_public_key_info() == own)
    };
    match chain.first().map(belongs) {
        Some(Ok(true)) => Ok(()),
        Some(Err(_)) | None => Err(bad("the certificate cannot be used for TLS", "it must be X.509 version 3")),
        Some(Ok(false)) => {
            let help = match chain.iter().position(|c| matches!(belongs(c), Ok(true))) {
                Some(i) => format!("it belongs to certificate {} of the file: put that one first", i + 1),
                None => "name the key that the certificate was requested with; files are replaced in pairs".to_owned(),
            };
            Err(bad("the key does not belong to this certificate", help))
        }
    }
}
