//! The HTTP/2 half of an origin process: gRPC calls and WebSockets that give every message back.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::echo::{self, CLOSE, Reader};

/// Serves from a thread of its own for as long as the process lives.
pub fn start(name: &str) -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = crate::support::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let name = HeaderValue::from_str(name).unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, name.clone()));
            }
        });
    });
    address
}

async fn serve(stream: TcpStream, name: HeaderValue) {
    let _ = stream.set_nodelay(true);
    let Ok(mut connection) = h2::server::Builder::new().enable_connect_protocol().handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let name = name.clone();
        // What fails is the peer's affair: it sees a reset stream.
        tokio::spawn(async move {
            if request.method() == Method::CONNECT {
                socket(request, respond, name).await
            } else {
                talk(request, respond, name).await
            }
        });
    }
}

async fn talk(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    name: HeaderValue,
) -> Result<(), h2::Error> {
    let head = Response::builder().header("content-type", "application/grpc").header("x-endpoint", name);
    let mut answers = respond.send_response(head.body(()).unwrap_or_default(), false)?;
    let (mut asked, mut reader) = (request.into_body(), Reader::default());
    while let Some(data) = asked.data().await {
        let data = data?;
        asked.flow_control().release_capacity(data.len())?;
        reader.push(&data);
        while let Ok(message) = reader.message() {
            answers.send_data(echo::message(&message).into(), false)?;
        }
    }
    let ok = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    answers.send_trailers(HeaderMap::from_iter([ok]))
}

async fn socket(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    name: HeaderValue,
) -> Result<(), h2::Error> {
    let head = Response::builder().header("x-endpoint", name).body(()).unwrap_or_default();
    let mut answers = respond.send_response(head, false)?;
    let (mut asked, mut reader) = (request.into_body(), Reader::default());
    while let Some(data) = asked.data().await {
        let data = data?;
        asked.flow_control().release_capacity(data.len())?;
        reader.push(&data);
        while let Ok(frame) = reader.frame() {
            answers.send_data(frame.bytes(None).into(), frame.opcode == CLOSE)?;
            if frame.opcode == CLOSE {
                return Ok(());
            }
        }
    }
    answers.send_data(Bytes::new(), true)
}
