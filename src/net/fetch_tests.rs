//! Questions to scripted servers on real sockets, good and bad.

// A helper of a test fails it by panicking, as the test itself does; clippy knows only the latter.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::fetch::*;
use crate::config::WebUrl;

const LIMITS: Limits = Limits { time: std::time::Duration::from_secs(10), bytes: 64 };

fn nobody() -> Result<Arc<ClientConfig>, &'static str> {
    Err("nobody is believed")
}

/// Sends `answer` to whatever comes, keeps the connection, and gives what was asked.
async fn server(answer: Vec<u8>) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = head(&mut stream).await;
        // The other side may have had enough before all is written.
        let _ = stream.write_all(&answer).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        asked
    });
    (port, asked)
}

async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(asked).unwrap()
}

async fn get(url: &str, limits: Limits) -> Result<Fetched, FetchError> {
    let url = WebUrl::parse(url).unwrap();
    let ask = Ask { url: &url, method: http::Method::GET, headers: http::HeaderMap::new(), body: bytes::Bytes::new() };
    fetch(ask, limits, nobody).await
}

#[tokio::test]
async fn the_server_is_asked_as_the_url_says() {
    let (port, asked) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec()).await;
    let found = get(&format!("http://al:pw@localhost:{port}/a/b?c=d#e"), LIMITS).await.unwrap();
    assert_eq!((found.status.as_u16(), &found.body[..], found.is_whole), (200, &b"hi"[..], true));
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: localhost:{port}\r\n")), "{asked}");
    assert!(asked.contains("authorization: Basic YWw6cHc=\r\n"), "{asked}");
}

#[tokio::test]
async fn an_ipv6_literal_is_an_address() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        return eprintln!("no IPv6 on this machine: skipped");
    };
    let place = listener.local_addr().unwrap().to_string();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        asked
    });
    assert_eq!(get(&format!("http://{place}/x"), LIMITS).await.unwrap().status, 204);
    assert!(asked.await.unwrap().contains(&format!("host: {place}\r\n")));
}

#[tokio::test]
async fn bodies_are_read_up_to_the_limit() {
    for (length, is_whole) in [(64, true), (65, false), (5_000_000, false)] {
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + length, b'x');
        let (port, _asked) = server(answer).await;
        let found = get(&format!("http://127.0.0.1:{port}"), LIMITS).await.unwrap();
        assert_eq!((found.body.len(), found.is_whole), (64, is_whole), "{length}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other() {
    let (port, _asked) = server(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n".to_vec()).await;
    assert_eq!(get(&format!("http://127.0.0.1:{port}"), LIMITS).await.unwrap().status, 302);
}

#[tokio::test]
async fn failures_are_named_without_path_and_user() {
    for (answer, expected) in [
        (&b""[..], "the connection was closed before an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi", "the answer broke off: "),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "the answer broke off: "),
    ] {
        let (port, _asked) = server(answer.to_vec()).await;
        let error = get(&format!("http://al:pw@127.0.0.1:{port}/s3cret"), LIMITS).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("s3cret") && !error.contains("pw"), "{error}");
    }
    let mut long = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    long.resize(1_000_000, b'x');
    let (port, _asked) = server(long).await;
    let error = get(&format!("http://127.0.0.1:{port}"), LIMITS).await.unwrap_err().to_string();
    assert_eq!(error, "the answer's head is too large");
}

#[tokio::test]
async fn nobody_there_and_no_such_name() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let refused = get(&format!("http://127.0.0.1:{port}"), LIMITS).await.unwrap_err();
    assert!(matches!(&refused, FetchError::Dial(_)), "{refused:?}");
    assert!(refused.to_string().starts_with("connect: Connection refused"), "{refused}");
    let nameless = get(&format!("http://{}.invalid", "a".repeat(64)), LIMITS).await.unwrap_err();
    assert!(matches!(&nameless, FetchError::Lookup(_) | FetchError::Timeout(_)), "{nameless:?}");
}

#[tokio::test]
async fn who_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let limits = Limits { time: std::time::Duration::from_millis(100), ..LIMITS };
    let error = get(&format!("http://127.0.0.1:{port}"), limits).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer within 100ms");
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.starts_with(b"GET / HTTP/1.1\r\n"), "asked, and the connection closed");
}

#[tokio::test]
async fn over_tls_the_server_must_prove_its_name() {
    let (url, asked, trust) = tls_server("localhost").await;
    let ask = |url| Ask { url, method: http::Method::GET, headers: Default::default(), body: Default::default() };
    let found = fetch(ask(&url), LIMITS, || Ok::<_, String>(trust.clone())).await.unwrap();
    assert_eq!(&found.body[..], b"hi");
    assert!(asked.await.unwrap().unwrap().starts_with("GET / HTTP/1.1\r\n"));

    let (url, asked, trust) = tls_server("other.test").await;
    let error = fetch(ask(&url), LIMITS, || Ok::<_, String>(trust)).await.unwrap_err();
    assert!(error.to_string().starts_with("tls: invalid peer certificate"), "{error}");
    assert_eq!(asked.await.unwrap(), None, "it was told nothing");
    let error = fetch(ask(&url), LIMITS, nobody).await.unwrap_err();
    assert_eq!(error.to_string(), "tls: nobody is believed");
}

/// One that takes one request and answers `hi`; what it was asked; and what believes it.
async fn tls_server(name: &str) -> (WebUrl, JoinHandle<Option<String>>, Arc<ClientConfig>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = server.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = WebUrl::parse(&format!("https://localhost:{}", listener.local_addr().unwrap().port())).unwrap();
    let asked = tokio::spawn(serve_tls(listener, TlsAcceptor::from(Arc::new(server))));
    (url, asked, Arc::new(client))
}

async fn serve_tls(listener: TcpListener, acceptor: TlsAcceptor) -> Option<String> {
    let (stream, _): (TcpStream, _) = listener.accept().await.unwrap();
    let mut stream = acceptor.accept(stream).await.ok()?;
    let asked = head(&mut stream).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
    stream.flush().await.unwrap();
    Some(asked)
}

#[test]
fn excerpts_fit_one_line() {
    for (bytes, expected) in [
        (&b"all well"[..], "all well"),
        (b" a\r\n\tb  c\n", "a b c"),
        (b"\x1b[31mred\x07\x00", "[31mred"),
        ("\u{202e}abc".as_bytes(), "abc"),
        (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ("äöü€123456789".as_bytes(), "äöü€123456"),
        (b"", ""),
    ] {
        assert_eq!(excerpt(bytes, 10), expected);
    }
}
