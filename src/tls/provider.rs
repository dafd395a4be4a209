//! The cryptography: aws-lc-rs, cheap things first.
//!
//! Suites: AES-128-GCM before AES-256-GCM, since its security is as much as X25519 and P-256 give and it costs a third
//! less; ChaCha20 last, as every client of these years has AES in hardware. Groups: towards endpoints X25519 first; towards
//! clients rustls takes theirs in their order, so whoever puts the post-quantum hybrid first gets it.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, SupportedCipherSuite};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(cost);
    Arc::new(provider)
});

/// The one provider of the process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// Lower is better. Stable within a class: TLS 1.3 stays before 1.2, ECDSA before RSA.
fn cost(suite: &SupportedCipherSuite) -> u8 {
    match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheap_come_first_and_nothing_is_lost() {
        let provider = provider();
        assert_eq!(provider.cipher_suites[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(provider.cipher_suites.len(), aws_lc_rs::default_provider().cipher_suites.len());
        assert_eq!(provider.kx_groups[0].name(), rustls::NamedGroup::X25519);
        assert!(provider.kx_groups.iter().any(|g| g.name() == rustls::NamedGroup::X25519MLKEM768));
    }
}
