//! Certificates on disk: read at the start, taken when they change, refused when they are bad, told of when they end.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::support::{Authority, Conf, Connection, Failure, Instant, Origin, Weir, times, wait_for, wait_until, weir};

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
    crate::support::replace(dir, name, text);
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

/// A listener `secure` with a pair of that authority, and more lines of its `tls` table.
fn secure(authority: &Authority, more: &str) -> (Weir, Origin) {
    let origin = Origin::named("v1");
    let tls = format!(
        "[listeners.secure]\nbind = \"127.0.0.1:0\"\n\
         [listeners.secure.tls]\ncertificates = [{{ cert = \"app.pem\", key = \"app.key\" }}]\n{more}"
    );
    let conf = Conf::one(origin.address).tail(&tls);
    let weir = Weir::start_with(&conf, &[("app", &authority.sign("app.test"))], &[("ca.pem", &authority.pem)]);
    (weir, origin)
}

/// What issue 3 promises: handshakes without a pause while the pair is replaced again and again.
#[test]
fn replaced_under_load_no_handshake_fails_and_the_new_one_is_shown_soon() {
    let authority = Authority::new();
    let (weir, _origin) = secure(&authority, "");
    let address = weir.listener("secure");
    let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    // Each client is new to the server, so that every handshake is a full one.
    let connect = || Connection::open_tls(address, &authority.client(None), "app.test");
    std::thread::scope(|threads| {
        let clients = (0..2).map(|_| {
            threads.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let answer = connect().and_then(|mut client| client.get("/"));
                    assert_eq!(answer.map(|a| a.status()), Ok(200));
                    made.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let clients: Vec<_> = clients.into_iter().collect();
        let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..times(3, 20) {
                let pair = authority.sign("app.test");
                let (before, written) = (made.load(Ordering::SeqCst), Instant::now());
                pair.write(weir.dir(), "app");
                wait_for("the new one is shown", || (connect().unwrap().tls_peer().0 == pair.der()).then_some(()));
                let limit = Duration::from_secs(if crate::support::soak() { 3 } else { 10 });
                assert!(written.elapsed() < limit, "{:?}", written.elapsed());
                wait_until("the load goes on", || {
                    made.load(Ordering::SeqCst) > before + 10 || clients.iter().any(|c| c.is_finished())
                });
            }
        }));
        stop.store(true, Ordering::SeqCst);
        rounds.unwrap();
    });
    let failed = weir.admin.count("weir_tls_handshakes_total", &[("listener", "secure"), ("result", "failed")]);
    assert_eq!(failed, 0.0);
}

#[test]
fn a_bad_pair_leaves_the_old_one_in_use() {
    let authority = Authority::new();
    let (weir, _origin) = secure(&authority, "");
    let shown = || {
        let mut client = Connection::open_tls(weir.listener("secure"), &authority.client(None), "app.test").unwrap();
        assert_eq!(client.get("/").unwrap().status(), 200);
        client.tls_peer().0
    };
    let old = shown();
    for bad in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "garbage"] {
        let told = weir.stderr().matches("config-rejected").count();
        write(weir.dir(), "app.pem", bad);
        wait_until("it is told", || weir.stderr().matches("config-rejected").count() > told);
        assert_eq!(shown(), old, "{bad:?}");
    }
    let new = authority.sign("app.test");
    new.write(weir.dir(), "app");
    wait_until("a good one is taken again", || shown() == new.der());
}

#[test]
fn clients_must_show_a_certificate_where_they_are_asked_for_one() {
    let (authority, strange) = (Authority::new(), Authority::new());
    let (weir, origin) = secure(&authority, "client_ca = \"ca.pem\"\n");
    let ask = |own: Option<&crate::support::Pair>| -> Result<u16, Failure> {
        let config = authority.client(own);
        Ok(Connection::open_tls(weir.listener("secure"), &config, "app.test")?.get("/")?.status())
    };
    assert_eq!(ask(Some(&authority.sign("client.test"))), Ok(200));
    assert!(ask(None).is_err());
    assert!(ask(Some(&strange.sign("client.test"))).is_err());
    assert_eq!(origin.requests(), 1);
    let failed = || weir.admin.count("weir_tls_handshakes_total", &[("listener", "secure"), ("result", "failed")]);
    wait_until("the failures are counted", || failed() == 2.0);
}

/// A client that was here before a reload need not prove everything again, whatever changed but the certificate.
#[test]
fn sessions_are_taken_up_again_over_a_reload() {
    let authority = Authority::new();
    let (weir, origin) = secure(&authority, "");
    let config = authority.client(None);
    let connect = || {
        let mut client = Connection::open_tls(weir.listener("secure"), &config, "app.test").unwrap();
        // Tickets come behind the handshake, so something must be read.
        assert_eq!(client.get("/").unwrap().status(), 200);
        client.tls_peer().1
    };
    assert!(!connect(), "the first is new");
    assert!(connect());
    let text = fs::read_to_string(weir.config()).unwrap();
    weir.edit_text(&text.replace("[splits.shop]\n", "[splits.shop]\nexpose_version = true\n"));
    wait_until("the file is taken", || weir.connect().get("/").unwrap().head.has("weir-version"));
    assert!(connect(), "over a reload");
    drop(origin);
}
