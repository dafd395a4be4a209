//! One direction of a WebSocket tunnel: bytes as they come and, when weir ends the tunnel, a close frame between two
//! frames of the side that speaks.
//!
//! Invariants: nothing is put amid a frame, and nothing at all behind a close frame; after ours what the side still says
//! is read, so that its own close is seen, and goes nowhere; a message is only interrupted by who is in a hurry.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ws_frames::Frames;

/// Bytes read at once.
const BUFFER: usize = 8 << 10;
/// Room behind them for a close frame of ours.
const CLOSE: usize = 8;

/// Our own close frame.
#[derive(Debug)]
enum Close {
    /// Not wanted, or needless: the side has said its own, or has ended.
    No,
    /// Waits for a place between two frames, or messages.
    Wanted(Vec<u8>),
    Said,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Flow {
    buffer: Box<[u8]>,
    /// What of it is not written yet.
    from: usize,
    to: usize,
    /// The side that speaks has ended.
    is_over: bool,
    is_shut: bool,
    /// Written and not flushed.
    is_dirty: bool,
    frames: Frames,
    close: Close,
    is_ending: bool,
    is_hurried: bool,
    written: u64,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER + CLOSE].into(),
            from: 0,
            to: 0,
            is_over: false,
            is_shut: false,
            is_dirty: false,
            frames: Frames::default(),
            close: Close::No,
            is_ending: false,
            is_hurried: false,
            written: 0,
        }
    }

    /// Bytes that went through.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Says `frame` as soon as there is a place between two messages, or no more than frames once hurried.
    pub(super) fn close(&mut self, frame: Vec<u8>) {
        self.is_ending = true;
        if !self.is_over && !self.frames.has_close() {
            self.close = Close::Wanted(frame);
            self.say_if_place();
        }
    }

    /// From now on a place between two frames will do, also amid a message.
    pub(super) fn hurry(&mut self) {
        self.is_hurried = true;
        self.say_if_place();
    }

    /// The side that speaks has closed, and all before that has gone out, ours included.
    pub(super) fn is_closed(&self) -> bool {
        let is_quiet = self.from == self.to && !self.is_dirty && !matches!(self.close, Close::Wanted(_));
        is_quiet && (self.frames.has_close() || self.is_over)
    }

    /// Carries on; ready when the side that speaks has ended and the other one was told.
    pub(super) fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.from < self.to {
                let n = ready!(Pin::new(&mut *writer).poll_write(cx, &self.buffer[self.from..self.to]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                (self.from, self.written, self.is_dirty) = (self.from + n, self.written + n as u64, true);
            } else if self.is_over {
                if !self.is_shut {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                    (self.is_shut, self.is_dirty) = (true, false);
                }
                return Poll::Ready(Ok(()));
            } else if self.poll_read(cx, reader)?.is_pending() {
                if self.is_dirty {
                    ready!(Pin::new(&mut *writer).poll_flush(cx))?;
                    self.is_dirty = false;
                }
                return Poll::Pending;
            }
        }
    }

    fn poll_read<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, reader: &mut R) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.buffer[..BUFFER]);
        let read = ready!(Pin::new(reader).poll_read(cx, &mut buffer));
        match (read, buffer.filled().len()) {
            (Ok(()), n @ 1..) => self.take(n),
            // A side that was told to go may do so rudely.
            (Err(error), _) if !self.is_ending => return Poll::Ready(Err(error)),
            _ => {
                self.say_if_place();
                (self.is_over, self.close) = (true, Close::Said);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// That many bytes have come.
    fn take(&mut self, n: usize) {
        (self.from, self.to) = (0, n);
        match self.close {
            Close::No => self.frames.see(&self.buffer[..n]),
            Close::Said => {
                self.frames.see(&self.buffer[..n]);
                self.to = 0;
            }
            Close::Wanted(_) => self.look_for_place(n),
        }
    }

    fn look_for_place(&mut self, n: usize) {
        let mut at = 0;
        while at < n && !self.frames.has_close() {
            at += self.frames.next(&self.buffer[at..n]);
            if self.is_place() {
                self.frames.see(&self.buffer[at..n]);
                self.to = at;
                return self.say();
            }
        }
        self.frames.see(&self.buffer[at..n]);
        if self.frames.has_close() {
            self.close = Close::No;
        }
    }

    fn is_place(&self) -> bool {
        let is_free = if self.is_hurried { self.frames.is_boundary() } else { self.frames.is_between_messages() };
        is_free && !self.frames.has_close()
    }

    fn say_if_place(&mut self) {
        if self.is_place() {
            self.say();
        }
    }

    /// Behind what is to be written.
    fn say(&mut self) {
        let Close::Wanted(frame) = &self.close else { return };
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        }
        self.buffer[self.to..self.to + frame.len()].copy_from_slice(frame);
        self.to += frame.len();
        self.close = Close::Said;
    }
}

#[cfg(test)]
mod tests;
