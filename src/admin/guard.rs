//! Who may ask at all: loopback peers, a Host that is ours, no foreign web page.
//!
//! Why three checks: without tokens the peer address is the only credential, and a browser on the same machine has it
//! too. DNS rebinding shows in `Host`, a foreign page in `Origin` or `Sec-Fetch-Site`. Invariant: nothing behind the
//! guard runs before all three have passed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{BAD_ORIGIN, FORBIDDEN, Problem, UNAUTHORIZED};

/// Paths that tell nothing secret and are asked by machines under any name.
const OPEN: [&str; 3] = ["/metrics", "/livez", "/readyz"];

/// Gives the names of `admin.hosts` that are in force now.
pub(super) type Hosts = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// The middleware.
pub(super) async fn guard(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    match check(peer, request.uri(), request.headers(), &hosts()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(peer: Option<IpAddr>, uri: &Uri, headers: &HeaderMap, hosts: &[String]) -> Result<(), Problem> {
    check_peer(peer)?;
    let host = check_host(uri, headers, hosts)?;
    check_origin(headers, host)
}

fn check_peer(peer: Option<IpAddr>) -> Result<(), Problem> {
    if peer.is_some_and(|ip| ip.to_canonical().is_loopback()) {
        return Ok(());
    }
    let who = peer.map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_string());
    Err(Problem::new(
        UNAUTHORIZED,
        format!("the call comes from {who}; without tokens only loopback callers are answered"),
    ))
}

/// Returns the Host as sent. An absolute request target must pass as well.
fn check_host<'a>(uri: &Uri, headers: &'a HeaderMap, hosts: &[String]) -> Result<&'a str, Problem> {
    let mut lines = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (lines.next().and_then(|h| h.to_str().ok()), lines.next()) else {
        return Err(Problem::new(FORBIDDEN, "exactly one Host header is needed"));
    };
    for authority in [Some(host), uri.authority().map(|a| a.as_str())].into_iter().flatten() {
        if !is_ours(authority, hosts) {
            let detail = format!("`{authority}` is neither a loopback name, nor an IP address, nor in `admin.hosts`");
            return Err(Problem::new(FORBIDDEN, detail)
                .allowed(["localhost"].into_iter().chain(hosts.iter().map(String::as_str))));
        }
    }
    Ok(host)
}

fn is_ours(authority: &str, hosts: &[String]) -> bool {
    let Some(name) = host_of(authority) else { return false };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok() || hosts.contains(&name),
    }
}

/// The name in `name:port`; `None` if the port is no port or there is user information.
fn host_of(authority: &str) -> Option<&str> {
    if authority.contains('@') {
        return None;
    }
    let after_bracket = authority.find(']').map_or(0, |i| i + 1);
    match authority[after_bracket..].find(':') {
        Some(colon) => {
            let (name, port) = authority.split_at(after_bracket + colon);
            port[1..].parse::<u16>().ok().map(|_| name)
        }
        None => Some(authority),
    }
}

fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), Problem> {
    for origin in headers.get_all(header::ORIGIN) {
        let text = origin.to_str().unwrap_or_default();
        let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        if !authority.is_some_and(|a| a.eq_ignore_ascii_case(host)) {
            return Err(Problem::new(BAD_ORIGIN, format!("Origin is `{}`, Host is `{host}`", text.escape_default())));
        }
    }
    for site in headers.get_all("sec-fetch-site") {
        if !["same-origin", "none"].contains(&site.to_str().unwrap_or_default()) {
            return Err(Problem::new(BAD_ORIGIN, format!("the browser calls this request {site:?}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn verdict(peer: Option<IpAddr>, pairs: &[(&'static str, &str)]) -> &'static str {
        let hosts = ["weir.example.com".to_owned()];
        check(peer, &Uri::from_static("/api/v1/status"), &headers(pairs), &hosts).map_or_else(|p| p.slug(), |()| "ok")
    }

    #[test]
    fn hosts_that_are_ours() {
        for host in [
            "localhost",
            "LOCALHOST:9901",
            "localhost.",
            "127.0.0.1:9901",
            "10.1.2.3",
            "[::1]:9901",
            "[::1]",
            "weir.example.com",
            "Weir.Example.com:80",
        ] {
            assert_eq!(verdict(LOCAL, &[("host", host)]), "ok", "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "a@localhost",
            "localhost:x",
            "[::1",
            "127.0.0.1.evil.example",
            "weir.example.com:99999",
            "",
            "2130706433",
            "::1",
        ] {
            assert_eq!(verdict(LOCAL, &[("host", host)]), "forbidden", "{host}");
        }
        assert_eq!(verdict(LOCAL, &[]), "forbidden");
        assert_eq!(verdict(LOCAL, &[("host", "localhost"), ("host", "localhost")]), "forbidden");
        let absolute = Uri::from_static("http://evil.example/api/v1/status");
        assert!(check(LOCAL, &absolute, &headers(&[("host", "localhost")]), &[]).is_err());
    }

    #[test]
    fn foreign_pages_are_refused() {
        let with = |name, value| verdict(LOCAL, &[("host", "127.0.0.1:9901"), (name, value)]);
        assert_eq!(with("origin", "http://127.0.0.1:9901"), "ok");
        assert_eq!(with("origin", "https://127.0.0.1:9901"), "ok");
        for origin in [
            "null",
            "http://127.0.0.1:8080",
            "http://evil.example",
            "http://127.0.0.1:9901.evil.example",
            "127.0.0.1:9901",
        ] {
            assert_eq!(with("origin", origin), "bad-origin", "{origin}");
        }
        assert_eq!(with("sec-fetch-site", "same-origin"), "ok");
        assert_eq!(with("sec-fetch-site", "none"), "ok");
        assert_eq!(with("sec-fetch-site", "cross-site"), "bad-origin");
        assert_eq!(with("sec-fetch-site", "same-site"), "bad-origin");
    }

    #[test]
    fn only_loopback_peers() {
        for (peer, wanted) in [
            ("127.0.0.1", "ok"),
            ("127.9.9.9", "ok"),
            ("::1", "ok"),
            ("::ffff:127.0.0.1", "ok"),
            ("10.0.0.1", "unauthorized"),
            ("::ffff:10.0.0.1", "unauthorized"),
            ("fe80::1", "unauthorized"),
        ] {
            assert_eq!(verdict(Some(peer.parse().unwrap()), &[("host", "localhost")]), wanted, "{peer}");
        }
        assert_eq!(verdict(None, &[("host", "localhost")]), "unauthorized");
    }
}
