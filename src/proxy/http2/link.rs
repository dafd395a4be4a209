//! What h2 reads from and writes to: the client's socket, its writes deferred, its frames counted.
//!
//! Invariants: nothing more is read from a client whose budget is used up, so that the connection's task, which ends it,
//! comes next; the end is as polite as in `client_io`.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::Meter;
use crate::proxy::client::Client;
use crate::proxy::client_io::{Linger, Transport};
use crate::proxy::flush::Deferred;
use crate::proxy::worker::Worker;

/// See the file's head.
pub(super) struct Link {
    io: Deferred<Transport>,
    client: Rc<Client>,
    meter: Rc<RefCell<Meter>>,
    linger: Linger,
}

impl Link {
    pub(super) fn new(worker: &Worker, client: &Rc<Client>, transport: Transport, meter: &Rc<RefCell<Meter>>) -> Self {
        let theirs = client.clone();
        let on_blocked = move |is_blocked: bool| theirs.blocked.set(is_blocked.then(|| theirs.now()));
        let io = Deferred::new(transport, worker.flusher.clone(), Box::new(on_blocked));
        Self { io, client: client.clone(), meter: meter.clone(), linger: Linger::default() }
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.meter.borrow().is_over() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let mut meter = this.meter.borrow_mut();
        meter.read(&buf.filled()[before..], this.client.now());
        this.client.block_since.set(meter.block_since());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, linger, .. } = self.get_mut();
        ready!(io.poll_empty(cx))?;
        io.with_io(|transport| linger.poll_end(transport, cx))
    }
}
