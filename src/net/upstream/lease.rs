//! A connection, or a stream's place on one, in the hands of one exchange.
//!
//! Invariant: an exchange that ends early takes down what carried it and no more: the connection over HTTP/1.1, the
//! stream over HTTP/2, so that the origin hears of it.

use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;

use super::error::{SendError, SendFault};
use super::http1::{self, Http1, Sent};
use super::http2::Slot;
use super::{SendBody, Tunnel, Upstream, http2_answer};
use crate::net::body::Received;

/// See the file's head.
#[derive(Debug)]
pub struct Lease<B: SendBody> {
    upstream: Rc<Upstream<B>>,
    /// Taken when it is given back or becomes a tunnel.
    carrier: Option<Carrier<B>>,
    /// It has carried a request before, so the endpoint may have closed it in the meantime.
    pub reused: bool,
}

#[derive(Debug)]
enum Carrier<B: SendBody> {
    Http1(Http1<B>),
    Http2(Slot<B>),
}

impl<B: SendBody> Lease<B> {
    pub(super) fn http1(upstream: &Rc<Upstream<B>>, connection: Http1<B>, reused: bool) -> Self {
        Self { upstream: upstream.clone(), carrier: Some(Carrier::Http1(connection)), reused }
    }

    pub(super) fn http2(upstream: &Rc<Upstream<B>>, slot: Slot<B>, reused: bool) -> Self {
        Self { upstream: upstream.clone(), carrier: Some(Carrier::Http2(slot)), reused }
    }

    /// Its requests go over HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.carrier, Some(Carrier::Http2(_)))
    }

    /// Sends a request; the future is the head of its answer. `interim` gets every 1xx before it, but 101, which is an
    /// answer (RFC 9110 section 15.2.2). One request for each lease.
    ///
    /// The request is HTTP/1.1's form of it whatever is spoken: origin form, `Host`, version 1.1, and `te: trailers`
    /// if the caller takes trailers. A WebSocket over HTTP/2 is a CONNECT with `h2::ext::Protocol` among its extensions.
    ///
    /// Dropping the future, or the lease, gives the exchange up. (Not an async function: that would copy the request
    /// twice more.)
    ///
    /// # Errors
    /// The future's: [`SendError`], with the request if the endpoint cannot have acted on it.
    pub fn send<'a>(
        &'a mut self,
        mut request: Request<B>,
        interim: &'a mut dyn FnMut(Response<()>),
    ) -> impl Future<Output = Result<Response<Received>, SendError<B>>> + use<'a, B> {
        match &mut self.carrier {
            Some(Carrier::Http1(_)) if request.extensions().get::<h2::ext::Protocol>().is_some() => {
                Sending::failed(SendError::unsent(request, SendFault::NoExtendedConnect))
            }
            Some(Carrier::Http1(connection)) => {
                // Nearly never there, and to find that out by name costs more.
                if request.headers().keys().any(|name| name == header::TE) {
                    request.headers_mut().remove(header::TE);
                }
                frame(&mut request);
                Sending::Http1 { answer: connection.send(request, interim) }
            }
            Some(Carrier::Http2(slot)) => match slot.send(request, &self.upstream.address, interim) {
                Ok(answer) => Sending::Http2 { answer },
                Err(error) => {
                    if error.kind == SendFault::NoExtendedConnect && self.upstream.for_tunnels {
                        // It may speak HTTP/1.1 by now: the next one asks again.
                        self.upstream.shared.retire_all();
                        self.upstream.setup.forget();
                    }
                    Sending::failed(error)
                }
            },
            // Only methods that take the whole lease empty it.
            None => Sending::failed(SendError::unsent(request, SendFault::Closed)),
        }
    }

    /// The answer was read to its end: the connection may serve again.
    pub fn give_back(mut self) {
        match self.carrier.take() {
            Some(Carrier::Http1(connection)) => connection.give_back(self.upstream.clone()),
            Some(Carrier::Http2(slot)) => slot.give_back(),
            None => {}
        }
    }

    /// Leaves HTTP behind, after 101 over HTTP/1.1 or after 2xx to an extended CONNECT over HTTP/2.
    ///
    /// # Errors
    /// `InvalidInput` after any other answer; else those of the connection.
    pub async fn into_tunnel(mut self, response: &mut Response<Received>) -> io::Result<Tunnel> {
        let upstream = self.upstream.clone();
        match &mut self.carrier {
            Some(Carrier::Http1(_)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                // Its connection's task has ended by then, so that the lease, when it is dropped, ends nothing.
                let upgraded = hyper::upgrade::on(&mut *response).await.map_err(io::Error::other)?;
                Ok(Tunnel::http1(upgraded, upstream))
            }
            Some(Carrier::Http2(slot)) if response.status().is_success() => {
                let receive = mem::take(response.body_mut()).into_http2();
                let (Some(receive), Some(send)) = (receive, slot.take_stream()) else { return Err(no_tunnel()) };
                Ok(Tunnel::http2(receive, send, (self.carrier.take(), upstream)))
            }
            _ => Err(no_tunnel()),
        }
    }
}

/// hyper sends no body of unknown length with a GET, HEAD or CONNECT unless it is told how; without it the endpoint would
/// see another request than the one that was made.
fn frame<B: SendBody>(request: &mut Request<B>) {
    if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn no_tunnel() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the answer opens no tunnel")
}

impl<B: SendBody> Drop for Lease<B> {
    fn drop(&mut self) {
        // Over HTTP/2 the slot's own end resets the stream.
        if let Some(Carrier::Http1(connection)) = self.carrier.take() {
            connection.abort();
        }
    }
}

pin_project! {
    /// A request on its way, over either protocol.
    #[project = SendingNow]
    enum Sending<'a, B, F> {
        Http1 { #[pin] answer: http1::Answer<'a, F> },
        Http2 { answer: http2_answer::Answer<'a, B> },
        Failed { error: Option<SendError<B>> },
    }
}

impl<B, F> Sending<'_, B, F> {
    fn failed(error: SendError<B>) -> Self {
        Self::Failed { error: Some(error) }
    }
}

impl<B: SendBody, F: Future<Output = Sent<B>>> Future for Sending<'_, B, F> {
    type Output = Result<Response<Received>, SendError<B>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            SendingNow::Http1 { answer } => answer.poll(cx),
            SendingNow::Http2 { answer } => Pin::new(answer).poll(cx),
            SendingNow::Failed { error } => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

impl<B, F> fmt::Debug for Sending<'_, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sending")
    }
}
