//! Origins that speak HTTP/2, and refuse.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Conf, Weir};

/// An origin that answers the first request of each connection and refuses the others.
fn first_only() -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    address
}

async fn serve(stream: TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut is_first = true;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        if std::mem::take(&mut is_first) {
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"first"), true).unwrap();
        } else {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    }
}

#[test]
fn a_request_that_a_shared_connection_refuses_goes_over_a_new_one() {
    let address = first_only();
    let version = format!("v1 = {{ weight = 1, endpoints = [\"{address}\"], protocol = \"http2\" }}\n");
    let conf = Conf::one(address)
        .routes("[[routes]]\nsplit = \"modern\"")
        .tail(&format!("[splits.modern.versions]\n{version}"));
    let weir = Weir::start(&conf);
    let mut client = weir.connect();
    for _ in 0..3 {
        let answer = client.get("/").unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "first"));
    }
}
