//! `proxy_protocol`: trusted peers say who their client is, in both versions; nobody else is served.

use std::time::Duration;

use crate::support::{Conf, Connection, LIMIT, Origin, Weir, wait_for, wait_until};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
const FOUR: &str = "PROXY TCP4 192.0.2.44 198.51.100.1 56324 443\r\n";

fn conf(origin: &Origin, trusted: &str) -> Conf {
    Conf::one(origin.address).web("proxy_protocol = true").web(&format!("trusted_proxies = {trusted}"))
}

/// Version 2: command and family, and what follows.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, body].concat()
}

/// What the origin hears the client is, of a request behind this header.
fn client_behind(weir: &Weir, origin: &Origin, header: &[u8]) -> String {
    let answer = weir.connect().ask([header, REQUEST.as_bytes()].concat()).unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "v1"));
    origin.heads().last().unwrap().get("x-forwarded-for").unwrap().to_owned()
}

fn refused(weir: &Weir, reason: &str) -> f64 {
    let labels = [("listener", "web"), ("reason", reason)];
    weir.admin.metric("weir_refused_requests_total", &labels).unwrap_or_default()
}

/// The connection ends without an answer, nothing reaches the origin, and it is counted as that and nothing else.
#[track_caller]
fn expect_refused(conf: &Conf, origin: &Origin, bytes: &[u8], reason: &str) {
    let weir = Weir::start(conf);
    let mut client = weir.connect();
    // It may be closed before all is sent.
    let _ = client.send(bytes);
    assert!(client.is_closed_within(LIMIT), "{:?}", String::from_utf8_lossy(bytes));
    wait_until("it is counted", || refused(&weir, reason) == 1.0);
    for other in ["bad-request", "client-timeout", "proxy-header", "untrusted"] {
        assert!(other == reason || refused(&weir, other) == 0.0, "{other}");
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn the_client_is_whom_the_header_names() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&conf(&origin, "[\"127.0.0.0/8\"]"));
    assert_eq!(client_behind(&weir, &origin, FOUR.as_bytes()), "192.0.2.44");
    assert_eq!(client_behind(&weir, &origin, b"PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n"), "2001:db8::7");
    assert_eq!(client_behind(&weir, &origin, b"PROXY UNKNOWN whatever\r\n"), "127.0.0.1");
    let four = [192, 0, 2, 45, 198, 51, 100, 1, 0, 80, 1, 187];
    assert_eq!(client_behind(&weir, &origin, &binary(0x21, 0x11, &four)), "192.0.2.45");
    let with_tlv = [&four[..], &[4, 0, 3, 0, 0, 0]].concat();
    assert_eq!(client_behind(&weir, &origin, &binary(0x21, 0x11, &with_tlv)), "192.0.2.45");
    assert_eq!(client_behind(&weir, &origin, &binary(0x20, 0, &[])), "127.0.0.1");
    let line =
        wait_for("its access line", || weir.stdout().lines().find(|l| l.contains("192.0.2.44")).map(str::to_owned));
    assert!(line.contains("\"client\":\"192.0.2.44\""), "{line}");
}

/// The header comes once a connection, in any pieces.
#[test]
fn a_header_in_pieces_is_read_once() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&conf(&origin, "[\"127.0.0.1\"]"));
    let mut client = weir.connect();
    for byte in FOUR.as_bytes() {
        client.send([*byte]).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(client.get("/").unwrap().text(), "v1");
    }
    assert!(origin.heads().iter().all(|head| head.get("x-forwarded-for") == Some("192.0.2.44")));
    // A second header is a malformed request like any other.
    assert_eq!(client.ask(format!("{FOUR}{REQUEST}")).unwrap().status(), 400);
}

#[test]
fn without_a_good_header_nobody_is_heard() {
    let origin = Origin::named("v1");
    let conf = conf(&origin, "[\"127.0.0.1\"]");
    let bad = |text: &str| [text.as_bytes(), REQUEST.as_bytes()].concat();
    expect_refused(&conf, &origin, REQUEST.as_bytes(), "proxy-header");
    expect_refused(&conf, &origin, &bad("PROXY TCP4 192.0.2.444 198.51.100.1 56324 443\r\n"), "proxy-header");
    expect_refused(&conf, &origin, &bad(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(200))), "proxy-header");
    expect_refused(&conf, &origin, &binary(0x22, 0, &[]), "proxy-header");
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for_for_ever() {
    let origin = Origin::named("v1");
    let conf = conf(&origin, "[\"127.0.0.1\"]").web("timeouts = { header = \"300ms\" }");
    expect_refused(&conf, &origin, b"", "proxy-header");
    expect_refused(&conf, &origin, b"PROXY TCP4 192.0.2.44", "proxy-header");
}

#[test]
fn who_is_not_trusted_is_not_heard_even_with_a_header() {
    let origin = Origin::named("v1");
    let conf = conf(&origin, "[\"10.0.0.0/8\", \"unix\"]");
    expect_refused(&conf, &origin, format!("{FOUR}{REQUEST}").as_bytes(), "untrusted");
    expect_refused(&conf, &origin, REQUEST.as_bytes(), "untrusted");
}

#[test]
fn peers_on_a_path_may_be_trusted_too() {
    let origin = Origin::named("v1");
    let local =
        "[listeners.local]\nbind = \"unix:@DIR@/weir.sock\"\nproxy_protocol = true\ntrusted_proxies = [\"unix\"]";
    let weir = Weir::start(&Conf::one(origin.address).tail(local));
    let mut client = Connection::open_unix(&weir.dir().join("weir.sock")).unwrap();
    assert_eq!(client.ask(format!("{FOUR}{REQUEST}")).unwrap().status(), 200);
    assert_eq!(origin.only_head().get("x-forwarded-for"), Some("192.0.2.44"));
}

/// A look whether the port is open is no refusal, and leaves nothing behind.
#[test]
fn a_connection_that_says_nothing_is_not_counted() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&conf(&origin, "[\"127.0.0.1\"]"));
    drop(weir.connect());
    assert_eq!(client_behind(&weir, &origin, FOUR.as_bytes()), "192.0.2.44");
    assert_eq!(refused(&weir, "proxy-header"), 0.0);
}

/// Its header is on the way when the signal comes.
#[test]
fn a_client_that_is_arriving_is_served_at_shutdown() {
    let origin = Origin::named("v1");
    let mut weir = Weir::start(&conf(&origin, "[\"127.0.0.1\"]"));
    let mut client = weir.connect();
    client.send(&FOUR[..20]).unwrap();
    wait_until("it is accepted", || connections_of(&weir) > 0);
    weir.signal(rustix::process::Signal::TERM);
    wait_until("nobody new is accepted", || Connection::open(weir.web()).is_err());
    let answer = client.ask(format!("{}{REQUEST}", &FOUR[20..])).unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.head.closes(), "{}", answer.head.raw);
    assert_eq!(weir.wait_exit(Duration::from_secs(30)).code(), Some(0));
}

/// Sockets of the process that are connected to `web`, as the kernel sees them: the queue is not among them.
fn connections_of(weir: &Weir) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", weir.pid())).unwrap();
    let links = fds.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let sockets: Vec<String> = links.filter_map(|link| link.to_str().map(str::to_owned)).collect();
    let port = format!(":{:04X}", weir.web().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let established = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        (fields[1].ends_with(&port) && fields[3] == "01").then(|| format!("socket:[{}]", fields[9]))
    });
    established.filter(|socket| sockets.contains(socket)).count()
}
