//! Certificates on disk: read at the start, taken when they change, refused when they are bad, told of when they end.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::support::{Conf, Origin, Weir, weir};

const EXPIRY: &str = "weir_tls_certificate_expiry_timestamp_seconds";
const SECURE: &str = "tls = { certificates = [{ cert = \"certs/shop.pem\", key = \"certs/shop.key\" }] }";

/// Writes a pair that ends in so many days, each file by rename; gives the end in seconds since 1970.
fn issue(dir: &Path, days: i64) -> f64 {
    let day = |n: i64| {
        let (now, span) = (SystemTime::now(), Duration::from_secs(86_400 * n.unsigned_abs()));
        if n < 0 { now - span } else { now + span }
    };
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["shop.example.com".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (day(-400).into(), day(days).into());
    write(dir, "shop.key", &key.serialize_pem());
    write(dir, "shop.pem", &params.self_signed(&key).unwrap().pem());
    params.not_after.unix_timestamp() as f64
}

fn write(dir: &Path, name: &str, text: &str) {
    let new = dir.join(format!("{name}.new"));
    fs::create_dir_all(dir).unwrap();
    fs::write(&new, text).unwrap();
    fs::rename(&new, dir.join(name)).unwrap();
}

/// A weir whose listener `secure` has a certificate that ends in so many days.
fn start(days: i64) -> (Weir, Arc<TempDir>, f64) {
    let origin = Origin::named("v1");
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let end = issue(&dir.path().join("certs"), days);
    let conf = Conf::one(origin.address).tail(&format!("[listeners.secure]\nbind = \"127.0.0.1:0\"\n{SECURE}"));
    let config = dir.path().join("weir.toml");
    fs::write(&config, conf.text().replace("@DIR@", dir.path().to_str().unwrap())).unwrap();
    (Weir::start_in(dir.clone(), config, 0), dir, end)
}

#[test]
fn a_new_pair_is_taken_and_a_bad_one_refused_while_the_old_serves() {
    let (weir, dir, end) = start(100);
    let certs = dir.path().join("certs");
    let name = [("name", "certs/shop.pem")];
    weir.admin.wait_metric(EXPIRY, &name, end);
    weir.admin.wait_metric("weir_tls_handshakes_total", &[("listener", "secure"), ("result", "ok")], 0.0);
    let renewed = issue(&certs, 200);
    weir.admin.wait_metric(EXPIRY, &name, renewed);
    weir.admin.wait_metric("weir_config_last_reload_successful", &[], 1.0);
    // A key of somebody else: the pair does not fit.
    write(&certs, "shop.key", &KeyPair::generate().unwrap().serialize_pem());
    weir.admin.wait_metric("weir_config_last_reload_successful", &[], 0.0);
    let told = weir.stderr();
    assert!(told.contains("config-rejected") && told.contains("does not belong to this certificate"), "{told}");
    weir.admin.wait_metric(EXPIRY, &name, renewed);
    let again = issue(&certs, 300);
    weir.admin.wait_metric(EXPIRY, &name, again);
    weir.admin.wait_metric("weir_config_last_reload_successful", &[], 1.0);
}

#[test]
fn the_last_days_are_told_at_once_and_an_expired_pair_does_not_start() {
    let (weir, dir, _) = start(5);
    weir.admin.wait_metric("weir_state_persisted", &[], 1.0);
    crate::support::wait_until("it is told", || weir.stderr().contains("certificate-expiring"));
    let told = weir.stderr();
    assert!(told.contains("\"days_left\":4") && told.contains("config-warning"), "{told}");
    drop(weir);
    issue(&dir.path().join("certs"), -1);
    let config = dir.path().join("weir.toml");
    let done = weir_check(&config);
    assert!(done.contains("error[bad-certificate]") && done.contains("the certificate expired on"), "{done}");
}

fn weir_check(config: &Path) -> String {
    let config = config.to_str().unwrap();
    weir(&["check", "--config", config]).expect_code(3);
    weir(&["run", "--config", config]).expect_code(3).all()
}
