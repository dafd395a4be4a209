//! Listeners' and endpoints' TLS as the operator writes it, on certificates made for the moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A folder with a configuration and files around it.
struct Folder(tempfile::TempDir);

impl Folder {
    /// With `shop.pem` and `shop.key`, good for a year, and the authority `ca.pem` that issued them.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.issue("shop", &["Shop.example.com", "*.shop.example.com", "127.0.0.1"], 365);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes `NAME.pem` and `NAME.key` of an authority of its own, `NAME-ca.pem`, valid until `days` from now.
    fn issue(&self, name: &str, names: &[&str], days: i64) {
        let issuer = authority();
        let key = KeyPair::generate().unwrap();
        let cert = params(names, days).signed_by(&key, &issuer).unwrap();
        self.write(&format!("{name}.pem"), &cert.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}-ca.pem"), &issuer.pem());
    }

    /// A file of one listener with these lines and one version with these keys.
    fn load(&self, listener: &str, version: &str) -> Loaded {
        let version = if version.is_empty() { "endpoints = [\"127.0.0.1:9001\"]" } else { version };
        let text = format!(
            "[listeners.web]\n{listener}\n[[routes]]\nsplit = \"shop\"\n[splits.shop.versions]\nv1 = {{ {version} }}\n"
        );
        self.write("weir.toml", &text);
        load(&self.path("weir.toml"), &|_| None)
    }

    /// The configuration of a file that must be good.
    fn config(&self, listener: &str, version: &str) -> Config {
        let loaded = self.load(listener, version);
        loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.text(false)))
    }

    /// `code key: message; advice` of every problem, without the folder's name.
    fn problems(&self, listener: &str, version: &str) -> Vec<String> {
        let report = self.load(listener, version).report;
        let show = |d: &Diagnostic| {
            let (key, advice) = (d.key.clone().unwrap_or_default(), d.advice().unwrap_or_default());
            format!("{} {key}: {}; {advice}", d.code, d.message).replace(&format!("{}/", self.0.path().display()), "")
        };
        report.diagnostics.iter().map(show).collect()
    }

    #[track_caller]
    fn refuses(&self, listener: &str, version: &str, start: &str, part: &str) {
        let problems = self.problems(listener, version);
        assert!(problems.len() == 1 && problems[0].starts_with(start), "{start}\n{problems:#?}");
        assert!(problems[0].contains(part), "{part}\n{problems:#?}");
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn days_from_now(days: i64) -> SystemTime {
    let (now, span) = (SystemTime::now(), DAY * u32::try_from(days.abs()).unwrap());
    if days < 0 { now - span } else { now + span + Duration::from_secs(60) }
}

fn params(names: &[&str], days: i64) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    params.not_before = days_from_now(-400).into();
    params.not_after = days_from_now(days).into();
    params
}

const BIND: &str = "bind = \"127.0.0.1:8443\"\n";

fn tls(more: &str) -> String {
    format!("{BIND}tls = {{ certificates = [{{ cert = \"shop.pem\", key = \"shop.key\" }}]{more} }}")
}

#[test]
fn a_listener_is_resolved_in_full() {
    let folder = Folder::new();
    let listener = "bind = [\"0.0.0.0:8080\", \"unix:/run/weir/web.sock\"]\nsocket_mode = \"0600\"\n\
        redirect_https = 8443\ntrusted_proxies = [\"10.1.2.3/8\", \"192.0.2.7\", \"2001:db8::/32\", \"unix\"]\n\
        proxy_protocol = true\nlimits = { body_bytes = \"10MiB\", streams = 7 }\ntimeouts = { body = \"3s\" }";
    let config = folder.config(listener, "");
    let web = &config.listeners[0];
    let unix = UnixBind { path: "/run/weir/web.sock".into(), mode: 0o600 };
    assert_eq!(web.bind, [Bind::Tcp(([0, 0, 0, 0], 8080).into()), Bind::Unix(unix)]);
    assert_eq!((web.redirect_https, web.proxy_protocol, web.trusted_proxies.unix), (Some(8443), true, true));
    let networks: Vec<_> = web.trusted_proxies.networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]);
    assert_eq!((web.limits.body_bytes, web.limits.streams), (Some(10 << 20), 7));
    assert_eq!(web.timeouts.body, Some(Duration::from_secs(3)));
    folder.write("again.toml", &effective(&config));
    assert_eq!(load(&folder.path("again.toml"), &|_| None).config, Some(config));
}

#[test]
fn mistakes_of_a_listener_have_their_remedy() {
    let folder = Folder::new();
    for (listener, start, part) in [
        ("bind = \"unix:web.sock\"", "bad-address listeners.web.bind", "not an absolute path"),
        ("bind = [\"unix:/a\", \"unix:/a\"]", "bad-address listeners.web.bind[1]", "another path"),
        ("bind = \"systemd:\"", "bad-address listeners.web.bind", "FileDescriptorName="),
        ("bind = [\"systemd:web\", \"systemd:web\"]", "bad-address listeners.web.bind[1]", "one listener"),
        ("bind = \"unix:/a\"\nsocket_mode = \"0999\"", "out-of-range listeners.web.socket_mode", "octal"),
        ("bind = \"unix:/a\"\nsocket_mode = \"7777\"", "out-of-range listeners.web.socket_mode", "octal"),
        ("bind = \"127.0.0.1:1\"\nsocket_mode = \"0600\"", "out-of-range listeners.web.socket_mode", "no Unix socket"),
        ("bind = \"127.0.0.1:1\"\nproxy_protocol = true", "missing-key listeners.web.trusted_proxies", "10.0.0.0/8"),
        (
            "bind = \"127.0.0.1:1\"\ntrusted_proxies = [\"unix\", \"lb.example.com\"]",
            "bad-address listeners.web.trusted_proxies[1]",
            "10.0.0.0/8",
        ),
        ("bind = \"127.0.0.1:1\"\nlimits = { streams = 0 }", "out-of-range listeners.web.limits.streams", "1 to 1000"),
        ("bind = \"127.0.0.1:1\"\nredirect_https = 0", "out-of-range listeners.web.redirect_https", "1 to 65535"),
        ("bind = \"127.0.0.1:1\"\ntls = {}", "missing-key listeners.web.tls.certificates", "add for example"),
        (
            "bind = \"127.0.0.1:1\"\ntls = { certificates = [{ cert = \"shop.pem\" }] }",
            "missing-key listeners.web.tls.certificates[0].key",
            "private key",
        ),
        (
            "bind = \"127.0.0.1:1\"\ntls = { certificates = [] }",
            "missing-key listeners.web.tls.certificates",
            "add one",
        ),
        (&(tls("") + "\nredirect_https = 8443"), "out-of-range listeners.web.redirect_https", "take it out"),
        (&tls(", min_version = \"1.1\""), "unknown-name listeners.web.tls.min_version", "1.2, 1.3"),
    ] {
        folder.refuses(listener, "", start, part);
    }
}

#[test]
fn certificates_are_read_with_their_names_and_end() {
    let folder = Folder::new();
    folder.write("conf.d/x.toml", "");
    let config = folder.config(&tls(", min_version = \"1.3\", client_ca = \"shop-ca.pem\", strict_sni = true"), "");
    let tls = config.listeners[0].tls.as_ref().unwrap();
    let one = &tls.certificates[0];
    assert_eq!(one.names, ["shop.example.com", "*.shop.example.com", "127.0.0.1"]);
    assert_eq!(
        (one.path.as_str(), &one.file, &one.key_file),
        ("shop.pem", &folder.path("shop.pem"), &folder.path("shop.key"))
    );
    let left = one.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(left > DAY * 364 && left < DAY * 366, "{left:?}");
    assert_eq!((tls.min_version, tls.strict_sni), (TlsVersion::V13, true));
    assert_eq!(tls.client_ca.as_ref().unwrap().certificates.len(), 1);
}

#[test]
fn bad_certificates_are_named_with_cause_and_remedy() {
    let folder = Folder::new();
    folder.issue("other", &["other.example.com"], 365);
    folder.issue("old", &["old.example.com"], -1);
    let read = |name: &str| fs::read_to_string(folder.path(name)).unwrap();
    folder.write("turned.pem", &(read("shop-ca.pem") + &read("shop.pem")));
    folder.write("cut.pem", &read("shop.pem")[..200]);
    folder.write("cut.key", &read("shop.key")[..60]);
    folder.write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    folder.write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder.write("odd.key", "-----BEGIN PRIVATE KEY-----\nMAAAAAAA\n-----END PRIVATE KEY-----\n");
    folder.write("empty", "");
    fs::write(folder.path("shop.der"), [0x30, 0x82, 0, 0]).unwrap();
    fs::create_dir(folder.path("sub")).unwrap();
    let fifo = folder.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for (cert, key, start, part) in [
        ("shop.pem", "other.key", "bad-certificate .key: other.key: the key does not belong", "requested with"),
        (
            "turned.pem",
            "shop.key",
            "bad-certificate .key: shop.key: the key does not",
            "certificate 2 of the file: put",
        ),
        ("old.pem", "old.key", "bad-certificate .cert: old.pem: the certificate expired on 20", "renew it"),
        ("cut.pem", "shop.key", "bad-certificate .cert: cut.pem: a certificate in it is broken", "BEGIN to END"),
        ("junk.pem", "shop.key", "bad-certificate .cert: junk.pem: a certificate in it is not valid", "issued again"),
        ("shop.pem", "cut.key", "bad-certificate .key: cut.key: the key in it is broken", "BEGIN to END"),
        ("shop.pem", "odd.key", "bad-certificate .key: odd.key: this kind of key cannot be used", "ECDSA"),
        ("shop.pem", "locked.key", "bad-certificate .key: locked.key: the key in it is encrypted", "openssl pkey"),
        ("shop.key", "shop.key", "bad-certificate .cert: shop.key: it holds a key", "certificate here"),
        ("shop.pem", "shop.pem", "bad-certificate .key: shop.pem: it holds a certificate", "private key here"),
        ("shop.der", "shop.key", "bad-certificate .cert: shop.der: it is DER", "openssl x509"),
        ("empty", "shop.key", "bad-certificate .cert: empty: there is no certificate in it", "BEGIN CERTIFICATE"),
        ("shop.pem", "empty", "bad-certificate .key: empty: there is no private key in it", "BEGIN PRIVATE KEY"),
        ("gone.pem", "shop.key", "file-unreadable .cert: gone.pem cannot be read: No such file", "relative to"),
        ("sub", "shop.key", "file-unreadable .cert: sub cannot be read: it is a folder", "named here"),
        ("shop.pem", "fifo", "file-unreadable .key: fifo cannot be read: it is not a regular file", "named here"),
    ] {
        let listener = format!("{BIND}tls = {{ certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}] }}");
        let start = start.replacen(" .", " listeners.web.tls.certificates[0].", 1);
        folder.refuses(&listener, "", &start, part);
    }
    folder.refuses(&tls(", client_ca = \"empty\""), "", "bad-certificate listeners.web.tls.client_ca: empty", "BEGIN");
    folder.refuses(
        &tls(", client_ca = \"no\""),
        "",
        "file-unreadable listeners.web.tls.client_ca: no cannot",
        "relative",
    );
}

#[test]
fn both_files_of_a_pair_are_told_of_in_one_run() {
    let folder = Folder::new();
    let listener = format!("{BIND}tls = {{ certificates = [{{ cert = \"no.pem\", key = \"no.key\" }}] }}");
    assert_eq!(folder.problems(&listener, "").len(), 2);
}

#[test]
fn the_last_days_are_a_warning() {
    let folder = Folder::new();
    folder.issue("shop", &["shop.example.com"], 13);
    let Loaded { config, report, .. } = folder.load(&tls(""), "");
    assert!(config.is_some());
    let found: Vec<_> = report.diagnostics.iter().map(|d| (d.code.as_str(), d.severity)).collect();
    assert_eq!(found, [("certificate-expiring", Severity::Warning)]);
    assert!(report.diagnostics[0].message.contains("in 13 days"), "{}", report.diagnostics[0].message);
    folder.issue("shop", &["shop.example.com"], 15);
    assert!(folder.load(&tls(""), "").report.diagnostics.is_empty());
}

#[test]
fn a_certificate_of_the_future_is_refused() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let mut future = params(&["shop.example.com"], 365);
    future.not_before = days_from_now(2).into();
    folder.write("shop.pem", &future.self_signed(&key).unwrap().pem());
    folder.write("shop.key", &key.serialize_pem());
    folder.refuses(&tls(""), "", "bad-certificate listeners.web.tls.certificates[0].cert", "is not valid before 20");
}

#[test]
fn paths_are_relative_to_the_file_that_names_them() {
    let folder = Folder::new();
    let part = "[listeners.b]\nbind = \"127.0.0.1:2\"\ntls = { certificates = [{ cert = \"b.pem\", key = \"../shop.key\" }] }\n";
    folder.write("conf.d/b.toml", part);
    fs::rename(folder.path("shop.pem"), folder.path("conf.d/b.pem")).unwrap();
    let text = "include = [\"conf.d/b.toml\"]\n[[routes]]\nsplit = \"s\"\n[splits.s.versions]\nv1 = { endpoints = [\"127.0.0.1:1\"] }\n";
    folder.write("weir.toml", text);
    let loaded = load(&folder.path("weir.toml"), &|_| None);
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.text(false)));
    assert_eq!(config.listeners[0].tls.as_ref().unwrap().certificates[0].file, folder.path("conf.d/b.pem"));
}

#[test]
fn certificates_are_watched_and_a_new_one_is_another_configuration() {
    let folder = Folder::new();
    let listener = tls(", client_ca = \"shop-ca.pem\"");
    let first = folder.load(&listener, "");
    for name in ["weir.toml", "shop.pem", "shop.key", "shop-ca.pem"] {
        assert!(first.files.contains(&folder.path(name)), "{name} in {:?}", first.files);
    }
    let again = folder.load(&listener, "");
    assert_eq!((again.digest, &again.config), (first.digest, &first.config));
    assert_eq!(read_digest(&folder.path("weir.toml")).unwrap(), first.digest);
    folder.issue("shop", &["shop.example.com"], 365);
    let renewed = folder.load(&listener, "");
    assert!(renewed.digest != first.digest && renewed.config != first.config);
    fs::remove_file(folder.path("shop.key")).unwrap();
    let broken = folder.load(&listener, "");
    assert!(broken.config.is_none() && broken.digest != renewed.digest);
    assert!(broken.files.contains(&folder.path("shop.key")), "what is missing is watched for");
}

#[test]
fn keys_are_shown_nowhere() {
    let folder = Folder::new();
    let version = "endpoints = [\"https://127.0.0.1:9443\"], tls = { cert = \"shop.pem\", key = \"shop.key\" }";
    let config = folder.config(&tls(""), version);
    let pem = fs::read_to_string(folder.path("shop.key")).unwrap();
    let der = config.listeners[0].tls.as_ref().unwrap().certificates[0].key.secret_der().to_vec();
    // As in a list of bytes that `Debug` would print.
    let bytes = der[20..60].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    for shown in [format!("{config:?}"), effective(&config)] {
        assert!(!shown.contains(&bytes) && !shown.contains(pem.lines().nth(1).unwrap()), "{shown}");
    }
}

#[test]
fn the_effective_file_is_found_from_another_folder() {
    let (folder, elsewhere) = (Folder::new(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path(name).display().to_string();
    let listener = format!(
        "{BIND}tls = {{ certificates = [{{ cert = \"{0}\", key = \"{1}\" }}], client_ca = \"{2}\", min_version = \"1.3\", strict_sni = true }}",
        at("shop.pem"),
        at("shop.key"),
        at("shop-ca.pem"),
    );
    let version = format!(
        "endpoints = [\"https://127.0.0.1:9443\"], tls = {{ ca = \"{2}\", server_name = \"a.test\", cert = \"{0}\", key = \"{1}\" }}",
        at("shop.pem"),
        at("shop.key"),
        at("shop-ca.pem"),
    );
    let config = folder.config(&listener, &version);
    let copy = elsewhere.path().join("last-good.toml");
    fs::write(&copy, effective(&config)).unwrap();
    assert_eq!(load(&copy, &|_| None).config, Some(config));
}

#[test]
fn a_text_that_was_sent_reads_no_files() {
    let text = format!(
        "[listeners.web]\n{}\n[[routes]]\nsplit = \"s\"\n[splits.s.versions]\nv1 = {{ endpoints = [\"127.0.0.1:1\"] }}\n",
        tls("").replace("shop.pem", "/etc/passwd").replace("shop.key", "/etc/shadow")
    );
    let Loaded { config, report, files, .. } = check_text("weir.toml", &text, &|_| None);
    assert!(config.is_none() && report.diagnostics.is_empty(), "{}", report.text(false));
    assert!(files.iter().all(|f| f != Path::new("/etc/passwd") && f != Path::new("/etc/shadow")));
}

#[test]
fn https_endpoints_make_a_version_secure() {
    let folder = Folder::new();
    let upstream = |version: &str| folder.config(BIND, version).splits[0].versions[0].tls.clone();
    assert_eq!(upstream("endpoints = [\"127.0.0.1:9001\"]"), None);
    let plain = upstream("endpoints = [\"https://127.0.0.1:9443\", { address = \"https://127.0.0.1:9444\" }]").unwrap();
    assert_eq!(*plain, UpstreamTls { ca: None, server_name: None, client: None });
    let full =
        "tls = { ca = \"shop-ca.pem\", server_name = \"shop.internal\", cert = \"shop.pem\", key = \"shop.key\" }";
    let tls = upstream(&format!("endpoints = [\"https://127.0.0.1:9443\"], {full}")).unwrap();
    assert_eq!(tls.server_name.as_ref().unwrap().to_str(), "shop.internal");
    assert_eq!(tls.ca.as_ref().unwrap().file, folder.path("shop-ca.pem"));
    assert_eq!(tls.client.as_ref().unwrap().path, "shop.pem");
}

#[test]
fn mistakes_of_a_version_have_their_remedy() {
    let folder = Folder::new();
    folder.issue("other", &["other.example.com"], 365);
    let https = "endpoints = [\"https://127.0.0.1:9443\"]";
    for (version, start, part) in [
        (
            "endpoints = [\"https://127.0.0.1:1\", \"127.0.0.1:2\"]".to_owned(),
            "bad-address splits.shop.versions.v1.endpoints[1]",
            "all of them or none",
        ),
        (
            "endpoints = [\"127.0.0.1:1\"], tls = {}".to_owned(),
            "bad-address splits.shop.versions.v1.tls",
            "write \"https://127.0.0.1:1\"",
        ),
        (format!("{https}, tls = {{ ca = \"no.pem\" }}"), "file-unreadable splits.shop.versions.v1.tls.ca", "relative"),
        (format!("{https}, tls = {{ ca = \"shop.key\" }}"), "bad-certificate splits.shop.versions.v1.tls.ca", "a key"),
        (
            format!("{https}, tls = {{ server_name = \"a b\" }}"),
            "bad-address splits.shop.versions.v1.tls.server_name",
            "without scheme",
        ),
        (
            format!("{https}, tls = {{ cert = \"shop.pem\" }}"),
            "missing-key splits.shop.versions.v1.tls.key",
            "is a pair",
        ),
        (
            format!("{https}, tls = {{ cert = \"shop.pem\", key = \"other.key\" }}"),
            "bad-certificate splits.shop.versions.v1.tls.key",
            "does not belong",
        ),
        (
            "endpoints = [\"https://shop-:9443\"]".to_owned(),
            "bad-address splits.shop.versions.v1.endpoints[0]",
            "server_name",
        ),
    ] {
        folder.refuses(BIND, &version, start, part);
    }
}
