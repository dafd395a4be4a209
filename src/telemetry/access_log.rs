//! Access lines on their way to standard output: a buffer per worker, one thread that writes.
//!
//! A worker never waits for the output. It formats into its own buffer and hands the buffer over when it is full or
//! when the worker says so; if the writing thread is behind (a stuck pipe, a slow disk) the batch is dropped and its
//! lines are counted.
//!
//! Invariant: lines of a worker keep their order, a line is written whole, and every line is either handed to the
//! output or counted as dropped.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

use super::access_line::Line;
use super::format::Format;
use super::stamp::Stamp;

/// A batch is handed over at this size.
const BATCH_BYTES: usize = 16 * 1024;
/// Batches that may wait: 1 MiB, some seconds of a busy proxy.
const WAITING_BATCHES: usize = 64;

/// Whole lines.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

impl Batch {
    fn empty() -> Self {
        Self { bytes: Vec::with_capacity(BATCH_BYTES + 1024), lines: 0 }
    }
}

/// The thread that writes, and the way to it.
#[derive(Debug)]
pub struct AccessWriter {
    batches: SyncSender<Batch>,
    dropped: Arc<AtomicU64>,
    /// Closed by the thread's end.
    done: Receiver<()>,
}

impl AccessWriter {
    /// Starts the thread. It ends when this and every `AccessLog` made by it are gone and all is written.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (batches, waiting) = sync_channel(WAITING_BATCHES);
        let (alive, done) = channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            write_all(&waiting, out, &lost);
            drop(alive);
        })?;
        Ok(Self { batches, dropped, done })
    }

    /// A worker's own log. `sample` is the part of successes that is written, 0 to 1; `seed` decides which.
    pub fn log(&self, format: Format, sample: f64, seed: u64) -> AccessLog {
        AccessLog {
            format: Cell::new(format),
            sample: Cell::new(sample),
            writing: RefCell::new(Writing {
                batch: Batch::empty(),
                stamp: Stamp::default(),
                rng: fastrand::Rng::with_seed(seed),
            }),
            batches: self.batches.clone(),
            dropped: Arc::clone(&self.dropped),
        }
    }

    /// Lines that were not written because the output was too slow or failed (`weir_access_lines_dropped_total`).
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Reads `dropped` from another thread, for as long as it likes.
    pub fn dropped_count(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || dropped.load(Ordering::Relaxed)
    }

    /// Waits until all is written, but no longer than `timeout`; the logs must be gone before. False: time ran out.
    pub fn close(self, timeout: Duration) -> bool {
        drop(self.batches);
        self.done.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }
}

fn write_all(waiting: &Receiver<Batch>, mut out: impl Write, dropped: &AtomicU64) {
    let mut is_failing = false;
    for batch in waiting {
        let result = out.write_all(&batch.bytes).and_then(|()| out.flush());
        if let Err(error) = &result {
            dropped.fetch_add(batch.lines, Ordering::Relaxed);
            // One event for a whole outage: an output that is gone would else give one per batch.
            if !is_failing {
                tracing::warn!(target: "weir", event = "access-log-failed", %error, "access lines are being dropped");
            }
        }
        is_failing = result.is_err();
    }
}

/// One worker's access log; used from its thread only.
#[derive(Debug)]
pub struct AccessLog {
    format: Cell<Format>,
    sample: Cell<f64>,
    writing: RefCell<Writing>,
    batches: SyncSender<Batch>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Writing {
    batch: Batch,
    stamp: Stamp,
    rng: fastrand::Rng,
}

impl AccessLog {
    /// Takes over a reloaded configuration for the lines to come.
    pub fn configure(&self, format: Format, sample: f64) {
        self.format.set(format);
        self.sample.set(sample);
    }

    /// Writes a line, unless it is a success that is sampled out.
    pub fn write(&self, line: &Line<'_>) {
        let Writing { batch, stamp, rng } = &mut *self.writing.borrow_mut();
        let sample = self.sample.get();
        if sample < 1.0 && !line.is_error() && rng.f64() >= sample {
            return;
        }
        match self.format.get() {
            Format::Json => line.write_json(&mut batch.bytes, stamp),
            Format::Text => line.write_text(&mut batch.bytes, stamp),
        }
        batch.lines += 1;
        if batch.bytes.len() >= BATCH_BYTES {
            self.hand_over(batch);
        }
    }

    /// Hands over what there is; the worker calls it every 100 ms.
    pub fn flush(&self) {
        let batch = &mut self.writing.borrow_mut().batch;
        if batch.lines > 0 {
            self.hand_over(batch);
        }
    }

    fn hand_over(&self, batch: &mut Batch) {
        let full = std::mem::replace(batch, Batch::empty());
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = self.batches.try_send(full) {
            self.dropped.fetch_add(batch.lines, Ordering::Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;
    use crate::telemetry::access_line::tests::line;
    use crate::telemetry::registry::lock;

    const LONG: Duration = Duration::from_secs(30);

    /// Takes everything and can be looked at.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn lines(&self) -> Vec<serde_json::Value> {
            let text = String::from_utf8(lock(&self.0).clone()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Stands still until the sender is gone.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_lines_of_all_workers_are_written_whole_and_in_order() {
        let page = Page::default();
        let writer = AccessWriter::start(page.clone()).unwrap();
        let workers: Vec<_> = ["a", "b"].map(|host| (host, writer.log(Format::Json, 1.0, 1))).into();
        let threads = workers.into_iter().map(|(host, log)| {
            std::thread::spawn(move || (0..500).for_each(|n| log.write(&Line { host, bytes_in: n, ..line() })))
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        assert!(writer.close(LONG));
        let lines = page.lines();
        for host in ["a", "b"] {
            let of_host = lines.iter().filter(|line| line["host"] == host);
            let numbers: Vec<_> = of_host.map(|line| line["bytes_in"].as_u64().unwrap()).collect();
            assert_eq!(numbers, (0..500).collect::<Vec<_>>());
        }
    }

    #[test]
    fn only_successes_are_sampled() {
        let page = Page::default();
        let writer = AccessWriter::start(page.clone()).unwrap();
        let log = writer.log(Format::Json, 0.1, 7);
        for _ in 0..1000 {
            log.write(&line());
            log.write(&Line { status: 502, ..line() });
        }
        log.configure(Format::Json, 0.0);
        (0..100).for_each(|_| log.write(&line()));
        drop(log);
        assert!(writer.close(LONG));
        let lines = page.lines();
        let good = lines.iter().filter(|line| line["status"] == 200).count();
        assert_eq!(lines.len() - good, 1000);
        assert!((60..140).contains(&good), "{good}");
    }

    #[test]
    fn a_stuck_output_stops_nobody_and_what_is_lost_is_counted() {
        let (release, stuck) = channel();
        let writer = AccessWriter::start(Stuck(stuck)).unwrap();
        let log = writer.log(Format::Json, 1.0, 1);
        let sent = 2 + WAITING_BATCHES as u64 + 10;
        for _ in 0..sent {
            log.write(&line());
            log.flush();
        }
        // One batch may be in the thread's hands, `WAITING_BATCHES` wait.
        let dropped = writer.dropped();
        assert!((11..=12).contains(&dropped), "{dropped}");
        drop((log, release));
        assert!(writer.close(LONG));
    }

    #[test]
    fn a_closed_output_is_survived() {
        let writer = AccessWriter::start(Gone).unwrap();
        let dropped = Arc::clone(&writer.dropped);
        let log = writer.log(Format::Text, 1.0, 1);
        log.write(&line());
        log.flush();
        log.write(&line());
        drop(log);
        assert!(writer.close(LONG));
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn close_gives_up_on_time() {
        let (release, stuck) = channel();
        let writer = AccessWriter::start(Stuck(stuck)).unwrap();
        let log = writer.log(Format::Json, 1.0, 1);
        log.write(&line());
        drop(log);
        assert!(!writer.close(Duration::ZERO));
        drop(release);
    }
}
