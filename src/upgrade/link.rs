//! The line between two processes: JSON, one message per line, and descriptors beside them.
//!
//! Blocking, since on both sides it is used where nothing else can go on; every wait has an end. Invariant: descriptors
//! come out in the order they went in, and before the line that was sent after them.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::Instant;

/// Descriptors at a time; the kernel takes 253.
const AT_ONCE: usize = 200;
/// Above any state file.
const MAX_LINE: usize = 256 << 20;
/// What the other side may take to read.
const WRITE: Duration = Duration::from_secs(10);

/// See the file's head.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Link {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(WRITE))?;
        Ok(Self { stream, bytes: Vec::new(), fds: VecDeque::new() })
    }

    pub fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.stream.write_all(&line)
    }

    pub fn send_fds(&mut self, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        for some in fds.chunks(AT_ONCE) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(some));
            // They need a byte to travel with: an empty line.
            sendmsg(&self.stream, &[IoSlice::new(b"\n")], &mut control, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// The next message.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other side has gone, `TimedOut`, or what is not understood.
    pub fn receive<T: DeserializeOwned>(&mut self, until: Instant) -> io::Result<T> {
        loop {
            while let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                if line.len() > 1 {
                    return Ok(serde_json::from_slice(&line)?);
                }
            }
            self.read(until)?;
        }
    }

    /// The next so many descriptors.
    pub fn take_fds(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        if self.fds.len() < count {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "fewer descriptors came than were announced"));
        }
        Ok(self.fds.drain(..count).collect())
    }

    /// For those who go on without blocking. What was read ahead is lost: nothing may be under way.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }

    fn read(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut bytes = [0; 16 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let read = recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let read = match read.map_err(io::Error::from) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            read => read?.bytes,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.bytes.extend_from_slice(&bytes[..read]);
        match read {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ if self.bytes.len() > MAX_LINE => Err(io::Error::new(io::ErrorKind::InvalidData, "an endless line")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn pair() -> (Link, Link) {
        let (a, b) = UnixStream::pair().unwrap();
        (Link::new(a).unwrap(), Link::new(b).unwrap())
    }

    #[test]
    fn messages_and_many_descriptors_come_in_order() {
        let (mut a, mut b) = pair();
        let files: Vec<_> = (0..450).map(|_| tempfile::tempfile().unwrap()).collect();
        for (i, mut file) in files.iter().enumerate() {
            write!(file, "{i}").unwrap();
        }
        let long = "x".repeat(1 << 20);
        let sent = long.clone();
        let sender = std::thread::spawn(move || {
            let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            a.send_fds(&fds).unwrap();
            a.send(&sent).unwrap();
            a.send(&"second").unwrap();
        });
        assert_eq!(b.receive::<String>(soon()).unwrap(), long);
        assert_eq!(b.receive::<String>(soon()).unwrap(), "second");
        sender.join().unwrap();
        for (i, fd) in b.take_fds(450).unwrap().into_iter().enumerate() {
            use std::io::{Read, Seek};
            let mut file = std::fs::File::from(fd);
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, i.to_string());
        }
        assert!(b.take_fds(1).is_err());
    }

    #[test]
    fn an_end_a_silence_and_rubbish_are_told_apart() {
        let (mut a, mut b) = pair();
        let kind = |b: &mut Link, until| b.receive::<u32>(until).unwrap_err().kind();
        assert_eq!(kind(&mut b, Instant::now() + Duration::from_millis(20)), io::ErrorKind::TimedOut);
        a.send(&"text").unwrap();
        assert_eq!(kind(&mut b, soon()), io::ErrorKind::InvalidData);
        drop(a);
        assert_eq!(kind(&mut b, soon()), io::ErrorKind::UnexpectedEof);
    }
}
