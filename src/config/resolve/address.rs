//! Addresses: what to listen on, and where endpoints are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::error::{Code, Diagnostic};
use crate::config::{Bind, NameOf, NameTarget, Target, UnixBind};
use crate::model::Address;

/// Why a text is not an address weir can use, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress {
    code: Code,
    message: String,
    label: &'static str,
    help: String,
}

impl BadAddress {
    fn new(message: String, label: &'static str, help: impl Into<String>) -> Self {
        Self { code: Code::BadAddress, message, label, help: help.into() }
    }

    fn not_yet(message: String, help: impl Into<String>) -> Self {
        Self { code: Code::NotYet, message, label: "not built yet", help: help.into() }
    }

    /// Into a diagnostic that has place and key.
    pub fn fill(self, diagnostic: &mut Diagnostic) {
        diagnostic.code = self.code;
        diagnostic.message = self.message;
        diagnostic.label = Some(self.label.into());
        diagnostic.help = Some(self.help);
    }
}

/// Whether both are the same place, also when one is written as an IPv4 address inside IPv6.
pub fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

/// `ip:port`, `unix:/path` or `systemd:NAME` to listen on; `mode` is that of a Unix socket.
///
/// # Errors
/// With the remedy.
pub fn bind(text: &str, mode: u32) -> Result<Bind, BadAddress> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).map(|path| Bind::Unix(UnixBind { path, mode }));
    }
    match text.strip_prefix("systemd:") {
        Some(name) => systemd(name).map(|()| Bind::Systemd(name.to_owned())),
        None => tcp(text).map(Bind::Tcp),
    }
}

/// What systemd takes as `FileDescriptorName=`.
fn systemd(name: &str) -> Result<(), BadAddress> {
    let plain = |b: u8| b.is_ascii_graphic() && b != b':';
    if !name.is_empty() && name.len() <= 255 && name.bytes().all(plain) {
        return Ok(());
    }
    let message = format!("\"systemd:{name}\" does not name a socket");
    let help = "write the FileDescriptorName= of the socket unit, for example \"systemd:web\"";
    Err(BadAddress::new(message, "not a name", help))
}

/// Bytes of the path of a Unix socket: `sun_path` has 108, the last of them a zero.
const UNIX_BYTES: usize = 107;

fn unix(path: &str) -> Result<PathBuf, BadAddress> {
    let problem = |what: &str, label, help: &str| BadAddress::new(format!("\"unix:{path}\" {what}"), label, help);
    if !path.starts_with('/') {
        return Err(problem(
            "is not an absolute path",
            "not absolute",
            "write for example \"unix:/run/weir/web.sock\"",
        ));
    }
    if path.ends_with('/') || path.contains('\0') {
        return Err(problem("does not name a file", "not a file", "write for example \"unix:/run/weir/web.sock\""));
    }
    if path.len() > UNIX_BYTES {
        let what = format!("is {} bytes long", path.len());
        return Err(problem(&what, "too long", "the system allows 107 bytes: use a shorter path"));
    }
    Ok(path.into())
}

/// `ip:port` to listen on.
///
/// # Errors
/// With the remedy.
pub fn tcp(text: &str) -> Result<SocketAddr, BadAddress> {
    for (scheme, what) in [("unix:", "Unix sockets"), ("systemd:", "sockets of systemd")] {
        if text.starts_with(scheme) {
            let message = format!("{what} are not built yet here in this version of weir: {text:?}");
            return Err(BadAddress::not_yet(message, "write ip:port, for example \"127.0.0.1:8080\""));
        }
    }
    if let Some(port) = text.strip_prefix(':').filter(|p| p.parse::<u16>().is_ok()) {
        let help = format!("write \"0.0.0.0:{port}\" for all addresses, or \"127.0.0.1:{port}\" for this machine only");
        return Err(BadAddress::new(format!("{text:?} does not say on which address"), "no address", help));
    }
    if let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
        let help = format!("write {:?}", rest.trim_end_matches('/'));
        return Err(BadAddress::new(format!("{text:?} is a URL, not an address"), "a URL", help));
    }
    ip_and_port(text).map_err(|problem| match problem {
        Problem::Name => BadAddress::new(
            format!("{text:?} is a name; weir listens on addresses"),
            "a name",
            "write ip:port, for example \"0.0.0.0:8080\"",
        ),
        Problem::Other(error) => error,
    })
}

/// Where an endpoint is, and whether TLS is spoken with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub target: Target,
    pub https: bool,
}

/// `ip:port` or `name:port` of an endpoint, with `http://` or `https://` before it or not; `unix:/path`.
///
/// # Errors
/// With the remedy.
pub fn endpoint(text: &str) -> Result<Endpoint, BadAddress> {
    if let Some(path) = text.strip_prefix("unix:") {
        unix(path)?;
        return Ok(Endpoint { target: Target::Address(Address::Unix(path.into())), https: false });
    }
    let https = text.starts_with("https://");
    let url = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let plain = url.map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
    if let Some(name) = plain.strip_prefix("srv+") {
        return services(name).map(|name| Endpoint { target: Target::Name(name), https });
    }
    let address = match ip_and_port(plain) {
        Ok(address) => address,
        Err(Problem::Name) => return hosts(plain).map(|name| Endpoint { target: Target::Name(name), https }),
        Err(Problem::Other(error)) => return Err(error),
    };
    if address.port() == 0 || address.ip().is_unspecified() {
        let message = format!("nothing can be reached at {text:?}");
        return Err(BadAddress::new(message, "not a place to connect to", "write the endpoint's own address and port"));
    }
    Ok(Endpoint { target: Target::Address(address.into()), https })
}

/// `name:port`, of which it is known that the name looks like one and the port is a number.
fn hosts(text: &str) -> Result<NameTarget, BadAddress> {
    let (name, port) = text.rsplit_once(':').unwrap_or((text, ""));
    match port.parse() {
        Ok(port) if port != 0 => Ok(NameTarget { name: dns_name(name)?, of: NameOf::Hosts(port) }),
        _ => {
            let message = format!("nothing can be reached at {text:?}");
            Err(BadAddress::new(message, "not a place to connect to", "a port is a number from 1 to 65535"))
        }
    }
}

/// The name behind `srv+`.
fn services(text: &str) -> Result<NameTarget, BadAddress> {
    if text.contains(':') {
        let message = format!("\"srv+{text}\" has a port, but SRV records bring their own");
        let help = format!("write \"srv+{}\"", text.split(':').next().unwrap_or_default());
        return Err(BadAddress::new(message, "a port too many", help));
    }
    Ok(NameTarget { name: dns_name(text)?, of: NameOf::Services })
}

/// In lower case. Underscores are allowed: service names begin with one, and container names often have some.
fn dns_name(text: &str) -> Result<Arc<str>, BadAddress> {
    let letters = |label: &str| label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && letters(label);
    let bare = text.strip_suffix('.').unwrap_or(text);
    if bare.len() > 253 || !bare.split('.').all(is_label) {
        let message = format!("{text:?} is not a name that can be asked for");
        return Err(BadAddress::new(message, "not a host name", "write for example \"shop.internal:9000\""));
    }
    Ok(text.to_ascii_lowercase().into())
}

/// `ip` or `ip:port` of a name server.
///
/// # Errors
/// With the remedy.
pub fn name_server(text: &str) -> Result<SocketAddr, BadAddress> {
    const PORT: u16 = 53;
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bracketed.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    ip.or_else(|_| text.parse()).ok().filter(|at| at.port() != 0 && !at.ip().is_unspecified()).ok_or_else(|| {
        let message = format!("{text:?} is not the address of a name server");
        BadAddress::new(message, "not an address", "write ip or ip:port, for example \"10.0.0.2\"")
    })
}

enum Problem {
    Name,
    Other(BadAddress),
}

fn ip_and_port(text: &str) -> Result<SocketAddr, Problem> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|p| p.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    let other = |label, help: String| Problem::Other(BadAddress::new(format!("{text:?} is not ip:port"), label, help));
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(other("no port", format!("add a port: {:?}", SocketAddr::new(ip, 8080).to_string())));
    }
    if text.parse::<u16>().is_ok() {
        return Err(other("no address", format!("write \"127.0.0.1:{text}\"")));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(other("no port", "write ip:port, for example \"127.0.0.1:8080\"".into()));
    };
    if port.parse::<u16>().is_err() {
        return Err(other("not a port", "a port is a number from 1 to 65535".into()));
    }
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(other("IPv6 needs brackets", format!("write \"[{host}]:{port}\"")));
    }
    let is_name = host.contains(|c: char| c.is_ascii_alphabetic())
        && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if is_name {
        Err(Problem::Name)
    } else {
        Err(other("not an address", "write ip:port, for example \"127.0.0.1:8080\"".into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        for (text, address) in
            [("127.0.0.1:8080", "127.0.0.1:8080"), ("[::]:8443", "[::]:8443"), ("localhost:80", "127.0.0.1:80")]
        {
            assert_eq!(bind(text, 0o660).unwrap(), Bind::Tcp(address.parse().unwrap()));
        }
        let socket = Bind::Unix(UnixBind { path: "/run/weir/web.sock".into(), mode: 0o600 });
        assert_eq!(bind("unix:/run/weir/web.sock", 0o600).unwrap(), socket);
        assert_eq!(bind("systemd:web-1", 0o660).unwrap(), Bind::Systemd("web-1".into()));
        let target = Target::Address("10.0.0.1:9000".parse().unwrap());
        for (text, https) in
            [("http://10.0.0.1:9000/", false), ("https://10.0.0.1:9000/", true), ("10.0.0.1:9000", false)]
        {
            assert_eq!(endpoint(text).unwrap(), Endpoint { target: target.clone(), https }, "{text}");
        }
        let target = Target::Address(Address::Unix("/run/shop.sock".into()));
        assert_eq!(endpoint("unix:/run/shop.sock").unwrap(), Endpoint { target, https: false });
    }

    #[test]
    fn names_are_taken_with_a_port_or_as_services() {
        let name = |name: &str, of| Target::Name(NameTarget { name: name.into(), of });
        for (text, target, https) in [
            ("Shop.Internal:9000", name("shop.internal", NameOf::Hosts(9000)), false),
            ("https://shop_v2:9443/", name("shop_v2", NameOf::Hosts(9443)), true),
            ("shop.internal.:80", name("shop.internal.", NameOf::Hosts(80)), false),
            ("srv+_http._tcp.shop", name("_http._tcp.shop", NameOf::Services), false),
            ("https://srv+_http._tcp.shop", name("_http._tcp.shop", NameOf::Services), true),
        ] {
            assert_eq!(endpoint(text).unwrap(), Endpoint { target, https }, "{text}");
        }
    }

    #[test]
    fn name_servers_are_addresses() {
        for (text, wanted) in [
            ("10.0.0.2", "10.0.0.2:53"),
            ("127.0.0.1:5353", "127.0.0.1:5353"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
        ] {
            assert_eq!(name_server(text).unwrap(), wanted.parse().unwrap());
        }
        for bad in ["", "dns.internal", "10.0.0.2:0", "0.0.0.0", "10.0.0.2:dns"] {
            assert!(name_server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_mistake_has_its_remedy() {
        let long = format!("unix:/{}", "x".repeat(UNIX_BYTES));
        for (text, code, help) in [
            (":8080", Code::BadAddress, "write \"0.0.0.0:8080\" for all"),
            ("8080", Code::BadAddress, "write \"127.0.0.1:8080\""),
            ("127.0.0.1", Code::BadAddress, "add a port"),
            ("::1:8080", Code::BadAddress, "add a port: \"[::1:8080]:8080\""),
            ("fe80::1::2:80", Code::BadAddress, "write ip:port"),
            ("127.0.0.1:99999", Code::BadAddress, "a port is a number"),
            ("http://127.0.0.1:80/", Code::BadAddress, "write \"127.0.0.1:80\""),
            ("example.com:80", Code::BadAddress, "write ip:port"),
            ("unix:run/x", Code::BadAddress, "write for example"),
            ("unix:/run/", Code::BadAddress, "write for example"),
            (&long, Code::BadAddress, "the system allows 107"),
            ("systemd:", Code::BadAddress, "write the FileDescriptorName="),
            ("systemd:a b", Code::BadAddress, "write the FileDescriptorName="),
            ("systemd:a:b", Code::BadAddress, "write the FileDescriptorName="),
            ("", Code::BadAddress, "write ip:port"),
        ] {
            let error = bind(text, 0o660).unwrap_err();
            assert_eq!(error.code, code, "{text}");
            assert!(error.help.starts_with(help), "{text}: {}", error.help);
        }
        for (text, code) in [
            ("shop.internal:0", Code::BadAddress),
            ("shop..internal:80", Code::BadAddress),
            ("srv+_http._tcp.shop.internal:80", Code::BadAddress),
            ("srv+", Code::BadAddress),
            ("srv+a b", Code::BadAddress),
            ("https://10.0.0.1", Code::BadAddress),
            ("unix:run/x", Code::BadAddress),
            ("unix:/", Code::BadAddress),
            ("https://unix:/run/x", Code::BadAddress),
            ("10.0.0.1:0", Code::BadAddress),
            ("0.0.0.0:80", Code::BadAddress),
            ("http://10.0.0.1:80/path", Code::BadAddress),
        ] {
            assert_eq!(endpoint(text).unwrap_err().code, code, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (bind(&text, 0o660), endpoint(&text));
        }
    }
}
