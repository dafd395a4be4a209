//! Interim answers (1xx) of HTTP/1.1, seen on their way to hyper, and whether an answer has begun.
//!
//! Why not `hyper::ext::on_informational`: its extension costs every request three allocations, for something that
//! nearly no answer has; and hyper does not tell a connection that was closed before an answer from one cut in its
//! head. So the bytes are looked at as they are read: one comparison for each answer, and only a head that says 1xx is
//! copied and parsed. Invariants: hyper alone frames messages, nothing here changes a byte; what is kept is bounded;
//! bytes that come when no answer is awaited are not looked at.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{HEAD_LIMIT, INTERIM_LIMIT};

/// A connection's eye on its answers. The connection's task writes it, the request's future reads it; both live on
/// one thread, and it could be shared only because hyper wants connections that are.
#[derive(Debug)]
pub(super) struct Watch {
    phase: AtomicU8,
    /// A byte of the awaited answer has come.
    has_begun: AtomicBool,
    /// `news` holds answers.
    has_news: AtomicBool,
    /// Interim answers since `arm`.
    count: AtomicUsize,
    /// Bytes that may still be written.
    allowance: AtomicUsize,
    news: Mutex<News>,
}

#[derive(Debug, Default)]
struct News {
    /// The beginning of a head.
    head: Vec<u8>,
    answers: Vec<Response<()>>,
    waker: Option<Waker>,
}

/// No answer is awaited, or its head is past 1xx.
const PAST: u8 = 0;
/// The next byte begins a head.
const AWAITED: u8 = 1;
/// `News::head` holds the beginning of one.
const PARTIAL: u8 = 2;

impl Default for Watch {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(PAST),
            has_begun: AtomicBool::new(false),
            has_news: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            allowance: AtomicUsize::new(usize::MAX),
            news: Mutex::default(),
        }
    }
}

impl Watch {
    /// An answer is awaited from now on.
    pub(super) fn arm(&self) {
        self.has_begun.store(false, Relaxed);
        self.count.store(0, Relaxed);
        self.phase.store(AWAITED, Relaxed);
    }

    /// A byte of an answer has come since `arm`.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Relaxed)
    }

    /// There were more interim answers than anybody needs.
    pub(super) fn is_storm(&self) -> bool {
        self.count.load(Relaxed) > INTERIM_LIMIT
    }

    /// The interim answers since the last call.
    pub(super) fn take(&self) -> Vec<Response<()>> {
        if !self.has_news.load(Relaxed) {
            return Vec::new();
        }
        self.has_news.store(false, Relaxed);
        mem::take(&mut self.news().answers)
    }

    /// Wakes the caller's task at the next interim answer.
    pub(super) fn register(&self, waker: &Waker) {
        let mut news = self.news();
        match &mut news.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Nobody waits any more. A waker kept for longer would keep its task's memory.
    pub(super) fn forget(&self) {
        self.news().waker = None;
    }

    /// From now on at most so many bytes are written; then the connection fails.
    pub(super) fn allow(&self, bytes: usize) {
        self.allowance.store(bytes, Relaxed);
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at bytes that were read.
    fn see(&self, bytes: &[u8]) -> io::Result<()> {
        let phase = self.phase.load(Relaxed);
        if phase == PAST || bytes.is_empty() {
            return Ok(());
        }
        self.has_begun.store(true, Relaxed);
        if phase == AWAITED && Start::of(bytes) == Start::Final {
            self.phase.store(PAST, Relaxed);
            return Ok(());
        }
        self.collect(bytes)
    }

    /// The rare way: a head in pieces, or an interim one.
    #[cold]
    fn collect(&self, bytes: &[u8]) -> io::Result<()> {
        let mut news = self.news();
        news.head.extend_from_slice(bytes);
        let phase = loop {
            let blank = news.head.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            news.head.drain(..blank);
            match Start::of(&news.head) {
                Start::Final => break PAST,
                Start::Short if news.head.is_empty() => break AWAITED,
                Start::Short => break PARTIAL,
                Start::Interim => match parse(&news.head) {
                    // hyper will refuse it, too.
                    Err(_) => break PAST,
                    Ok(None) if news.head.len() > HEAD_LIMIT => break PAST,
                    Ok(None) => break PARTIAL,
                    Ok(Some((len, answer))) => {
                        news.head.drain(..len);
                        self.tell(&mut news, answer)?;
                    }
                },
            }
        };
        if phase == PAST {
            news.head = Vec::new();
        }
        self.phase.store(phase, Relaxed);
        Ok(())
    }

    fn tell(&self, news: &mut News, answer: Response<()>) -> io::Result<()> {
        self.count.store(self.count.load(Relaxed) + 1, Relaxed);
        if let Some(waker) = news.waker.take() {
            waker.wake();
        }
        if self.is_storm() {
            return Err(io::Error::other("too many interim answers"));
        }
        news.answers.push(answer);
        self.has_news.store(true, Relaxed);
        Ok(())
    }
}

/// What a head begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Too short to tell.
    Short,
    /// 1xx, but for 101, which ends HTTP on its connection.
    Interim,
    /// Anything else, nonsense included.
    Final,
}

impl Start {
    /// `HTTP/1.1 1`: the status is in the same place in every head that hyper takes.
    fn of(head: &[u8]) -> Self {
        const NAME: &[u8] = b"HTTP/1.";
        match head.first_chunk::<12>() {
            // Blank lines before a head are allowed, and looked at without hurry.
            _ if matches!(head.first(), Some(b'\r' | b'\n')) => Self::Short,
            Some(start) if !start.starts_with(NAME) || start[9] != b'1' || start[9..] == *b"101" => Self::Final,
            Some(_) => Self::Interim,
            None => Self::Short,
        }
    }
}

/// A whole head and its length, or `None` if there is more to come.
fn parse(head: &[u8]) -> Result<Option<(usize, Response<()>)>, httparse::Error> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(len) = parsed.parse(head)? else { return Ok(None) };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(httparse::Error::Status)?;
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.version_mut() = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    *answer.headers_mut() = fields_of(parsed.headers).ok_or(httparse::Error::HeaderValue)?;
    Ok(Some((len, answer)))
}

fn fields_of(parsed: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let field = |h: &httparse::Header<'_>| {
        Some((HeaderName::from_bytes(h.name.as_bytes()).ok()?, HeaderValue::from_bytes(h.value).ok()?))
    };
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for header in parsed {
        let (name, value) = field(header)?;
        fields.append(name, value);
    }
    Some(fields)
}

/// A stream whose reads are watched, and whose writes can be limited.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, watch: Arc<Watch>) -> Self {
        Self { stream, watch }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.watch.see(&buf.filled()[before..]))
    }
}

/// Not vectored: hyper is told to write one buffer at a time, which is quicker for heads.
impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let left = self.watch.allowance.load(Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::other("the upload goes on for too long after its answer")));
        }
        let n = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..buf.len().min(left)]))?;
        if left != usize::MAX {
            self.watch.allow(left - n);
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nlink: </b.css>\r\n\r\n";
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nHTTP/1.1 100 in a body";

    fn armed() -> Watch {
        let watch = Watch::default();
        watch.arm();
        watch
    }

    fn statuses(watch: &Watch) -> Vec<u16> {
        watch.take().iter().map(|answer| answer.status().as_u16()).collect()
    }

    #[test]
    fn interim_answers_are_found_wherever_reads_cut_them() {
        let all = [b"\r\n", CONTINUE, EARLY, OK].concat();
        for size in 1..=all.len() {
            let watch = armed();
            all.chunks(size).for_each(|chunk| watch.see(chunk).unwrap());
            let answers = watch.take();
            let found: Vec<_> = answers.iter().map(|a| a.status().as_u16()).collect();
            assert_eq!(found, [100, 103], "reads of {size}");
            assert_eq!(answers[1].headers().get_all("link").iter().count(), 2);
            assert_eq!(watch.phase.load(Relaxed), PAST);
        }
    }

    #[test]
    fn a_final_answer_is_not_copied_and_what_follows_is_not_looked_at() {
        let watch = armed();
        assert!(!watch.has_begun());
        watch.see(OK).unwrap();
        watch.see(CONTINUE).unwrap();
        assert!(watch.has_begun());
        assert!(statuses(&watch).is_empty());
        assert_eq!(watch.news().head.capacity(), 0);
    }

    #[test]
    fn a_switch_of_protocols_is_final() {
        let watch = armed();
        watch.see(b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 100 \r\n\r\n").unwrap();
        assert!(statuses(&watch).is_empty());
    }

    #[test]
    fn what_comes_unasked_is_not_looked_at() {
        let watch = Watch::default();
        watch.see(EARLY).unwrap();
        assert!(statuses(&watch).is_empty() && !watch.has_begun());
    }

    #[test]
    fn an_endless_row_of_them_ends_the_connection() {
        let watch = armed();
        for _ in 0..INTERIM_LIMIT {
            watch.see(CONTINUE).unwrap();
        }
        assert!(!watch.is_storm());
        assert!(watch.see(CONTINUE).is_err() && watch.is_storm());
        assert_eq!(statuses(&watch).len(), INTERIM_LIMIT);
    }

    #[test]
    fn the_count_begins_anew_with_each_request() {
        let watch = Watch::default();
        for _ in 0..3 {
            watch.arm();
            for _ in 0..INTERIM_LIMIT {
                watch.see(CONTINUE).unwrap();
            }
            watch.see(OK).unwrap();
        }
        assert!(!watch.is_storm());
    }

    #[test]
    fn a_head_without_end_is_not_kept() {
        let watch = armed();
        watch.see(b"HTTP/1.1 103 Early Hints\r\n").unwrap();
        for _ in 0..HEAD_LIMIT / 8 {
            watch.see(b"a: 1234\r\n").unwrap();
        }
        assert!(watch.news().head.len() < HEAD_LIMIT);
    }
}
