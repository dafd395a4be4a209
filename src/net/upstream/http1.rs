//! A connection that speaks HTTP/1.1: one exchange at a time, over hyper.
//!
//! Invariants: it is given back only when its answer was read to the end and nothing odd happened; it is ended as soon
//! as its lease is dropped, so an answer that is not waited for is never read as the next one's.

use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::task::AbortHandle;

use super::dial::Stream;
use super::error::{DialError, SendError, SendFault};
use super::interim::{Watch, Watched};
use super::{HEAD_LIMIT, SendBody, Upstream};
use crate::model::Instant;
use crate::net::body::Received;

/// How long an upload may go on after its early answer (faults.md 3.2).
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// And how many bytes of it still go out.
pub(super) const LINGER_BYTES: usize = 64 * 1024;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Http1<B> {
    sender: SendRequest<B>,
    /// Ends the connection.
    task: AbortHandle,
    watch: Arc<Watch>,
    /// Of the settings it was made with.
    pub(super) generation: u32,
    /// When it is too old for a new request.
    pub(super) ends: Option<Instant>,
}

impl<B: SendBody> Http1<B> {
    /// Starts to speak over a new stream.
    pub(super) async fn new(
        upstream: &Rc<Upstream<B>>,
        stream: Stream,
        (generation, ends): (u32, Option<Instant>),
    ) -> Result<Self, DialError> {
        let watch = Arc::new(Watch::default());
        let io = TokioIo::new(Watched::new(stream, watch.clone()));
        let handshake = Builder::new().writev(false).max_header_size(HEAD_LIMIT).handshake(io).await;
        let (sender, connection) = handshake.map_err(DialError::handshake)?;
        let task = upstream.spawn(
            async move {
                // Its error reaches whoever waits for the answer; an idle one that ends concerns nobody.
                let _ = connection.with_upgrades().await;
            },
            None,
        );
        Ok(Self { sender, task, watch, generation, ends })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| now >= ends)
    }

    /// The future is the head of the answer. (Not an async function: that would copy the request twice more.)
    pub(super) fn send<'a>(
        &'a mut self,
        request: Request<B>,
        interim: &'a mut dyn FnMut(Response<()>),
    ) -> Answer<'a, impl Future<Output = Sent<B>> + use<B>> {
        self.watch.arm();
        Answer { answer: self.sender.try_send_request(request), watch: &self.watch, interim }
    }

    /// Its answer was read to the end. It may serve again at once, after its task's next turn, or after the rest of
    /// an upload that the endpoint answered early; the latter must not wait for ever.
    pub(super) fn give_back(mut self, upstream: Rc<Upstream<B>>) {
        if self.is_ready() {
            return upstream.put_idle(self);
        }
        if !self.is_closed() {
            self.watch.allow(LINGER_BYTES);
            tokio::task::spawn_local(async move {
                match tokio::time::timeout(LINGER, self.sender.ready()).await {
                    Ok(Ok(())) => {
                        self.watch.allow(usize::MAX);
                        upstream.put_idle(self);
                    }
                    _ => self.task.abort(),
                }
            });
        }
    }

    /// Ends the connection, whatever it is doing.
    pub(super) fn abort(&self) {
        self.task.abort();
    }
}

/// What hyper says of a request.
pub(super) type Sent<B> = Result<Response<Incoming>, TrySendError<Request<B>>>;

pin_project! {
    /// The head of an answer that is awaited.
    pub(super) struct Answer<'a, F> {
        #[pin]
        answer: F,
        watch: &'a Watch,
        interim: &'a mut dyn FnMut(Response<()>),
    }
}

impl<B: SendBody, F: Future<Output = Sent<B>>> Future for Answer<'_, F> {
    type Output = Result<Response<Received>, SendError<B>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = this.answer.poll(cx);
        // They came before it.
        this.watch.take().into_iter().for_each(this.interim);
        match &answer {
            Poll::Pending => this.watch.register(cx.waker()),
            Poll::Ready(_) => this.watch.forget(),
        }
        Poll::Ready(match ready!(answer) {
            Ok(head) if !is_valid(&head) => Err(SendError::sent(SendFault::Protocol)),
            Ok(head) => Ok(head.map(Received::from)),
            Err(mut error) => match error.take_message() {
                Some(request) => Err(SendError::unsent(request, SendFault::Closed)),
                None => Err(SendError::sent(fault::<B>(error.error(), this.watch))),
            },
        })
    }
}

/// What hyper takes and the next reader may not: a status above 599, and a length said twice (`2, 2`, or two lines),
/// which may be refused even if both are the same (RFC 9112 section 6.3).
fn is_valid(head: &Response<Incoming>) -> bool {
    let mut lengths = head.headers().get_all(header::CONTENT_LENGTH).iter();
    let is_one_number = lengths.next().is_none_or(|length| is_number(length.as_bytes()));
    head.status().as_u16() <= 599 && is_one_number && lengths.next().is_none()
}

fn is_number(length: &[u8]) -> bool {
    !length.is_empty() && length.iter().all(u8::is_ascii_digit)
}

fn fault<B: SendBody>(error: &hyper::Error, watch: &Watch) -> SendFault {
    let is_of_body = error.source().is_some_and(|source| source.is::<B::Error>());
    if watch.is_storm() {
        SendFault::TooManyInterim
    } else if error.is_parse_too_large() {
        SendFault::HeadTooLarge
    } else if error.is_body_write_aborted() || (error.is_user() && is_of_body) {
        SendFault::Body
    } else if error.is_parse() || watch.has_begun() {
        SendFault::Protocol
    } else {
        SendFault::Closed
    }
}
