//! Interim answers (1xx) on their way to the client (RFC 9110 section 15.2).
//!
//! `100 Continue` is not copied: it lets the upload go on, and the client's own protocol says so to the client when its
//! body is first asked for. Invariant: an interim answer never gets between the bytes of another answer; where that
//! cannot be known (a client that pipelines) it is left out, which costs a hint and nothing else.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Response, StatusCode};

use super::client::Client;
use super::headers;
use super::http2::Meter;
use super::upload::Upload;

/// Where interim answers go.
pub(super) enum Early {
    /// The client does not know them (HTTP/1.0).
    None,
    Http1(Rc<Client>),
    /// The way back, and the client's budget, for a tunnel.
    Http2(Rc<RefCell<SendResponse<Bytes>>>, Rc<RefCell<Meter>>),
}

impl Early {
    /// Passes on what the endpoint said.
    pub(super) fn pass(&self, mut answer: Response<()>, upload: Option<&Rc<Upload>>) {
        if answer.status() == StatusCode::CONTINUE {
            return self.go_on(upload);
        }
        headers::remove_connection_fields(answer.headers_mut(), |_| false);
        match self {
            Self::None => {}
            Self::Http1(client) => {
                if client.is_flushed.get() {
                    write(&mut client.interim.borrow_mut(), &answer);
                    client.wake();
                }
            }
            // Fails when the client has gone, which its stream's task hears by itself.
            Self::Http2(respond, _) => drop(respond.borrow_mut().send_informational(answer)),
        }
    }

    fn go_on(&self, upload: Option<&Rc<Upload>>) {
        let Some(upload) = upload else { return };
        if let (true, Self::Http2(respond, _)) = (upload.is_held(), self) {
            let mut answer = Response::new(());
            *answer.status_mut() = StatusCode::CONTINUE;
            let _ = respond.borrow_mut().send_informational(answer);
        }
        upload.go_on();
    }
}

fn write(out: &mut Vec<u8>, answer: &Response<()>) {
    let reason = answer.status().canonical_reason().unwrap_or("");
    out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", answer.status().as_str()).as_bytes());
    for (name, value) in answer.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_written_as_http1_writes_it() {
        let hints = Response::builder().status(103).header("link", "</a.css>").header("link", "</b.js>");
        let mut out = Vec::new();
        write(&mut out, &hints.body(()).unwrap());
        assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nlink: </b.js>\r\n\r\n");
    }
}
