//! The toy versions: small HTTP/1.1 servers with a latency and an error rate of their own.
//!
//! Invariant: an answer names its version in `toy-version`, so that the clients count what really answered.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

/// The header that names the version.
pub const TOY_VERSION: &str = "toy-version";

/// How a toy version behaves.
#[derive(Clone, Debug)]
pub struct Toy {
    name: &'static str,
    millis: Range<u64>,
    /// Part of the answers that are a 500, 0..1.
    errors: f64,
}

impl Toy {
    pub const GOOD: Self = Self { name: "v1", millis: 2..8, errors: 0.0 };
    /// Slower, and now and then wrong.
    pub const BAD: Self = Self { name: "v2", millis: 15..60, errors: 0.02 };
}

/// Listens on a free port; serves until the runtime ends.
pub async fn start(toy: Toy) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(accept(listener, toy));
    Ok(address)
}

async fn accept(listener: TcpListener, toy: Toy) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, toy.clone()))),
            // Out of file descriptors, most likely: wait for some to come back rather than spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(stream: TcpStream, toy: Toy) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|_| answer(&toy));
    // A connection that ends badly is the client's to notice.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(toy: &Toy) -> Result<Response<Full<Bytes>>, Infallible> {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(toy.millis.clone()))).await;
    let failed = fastrand::f64() < toy.errors;
    let text = if failed { format!("{} failed\n", toy.name) } else { format!("hello from {}\n", toy.name) };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(TOY_VERSION, HeaderValue::from_static(toy.name));
    if failed {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(response)
}
