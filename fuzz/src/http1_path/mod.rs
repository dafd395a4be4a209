//! The whole HTTP/1.1 request path: a client's bytes into a real worker, over a real socket to an origin that reads by
//! the letter. What the origin read must be one reading of what the client sent.
//!
//! Client, worker and origin share one thread whose clock is paused: it moves only when nothing else can, so a few turns
//! of it in which no byte moved mean that everything has come to rest. Nothing waits for a time that really passes.
//! The sockets are the kernel's (a Unix pair, and loopback TCP): the worker knows no others.

mod judge;
mod origin;
mod reading;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::runtime::{Builder, LocalRuntime};
use weir::config::{Config, check_text};
use weir::pool::Registry;
use weir::proxy::Parts;
use weir::proxy::fuzzing::LoneWorker;
use weir::state::{OpenOptions, Store};
use weir::telemetry::{AccessWriter, Cells, Format};

use origin::Origin;

/// Where the client waits until all is quiet before it sends the rest.
const PAUSE: &[u8] = b"\0\xff";
/// An HTTP/2 client; that is another path.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Turns of the clock without a byte. A byte passes from hand to hand in one, or in two when it wakes a task that wakes
/// another; the longest silence that is followed by more is in the middle of client, worker, origin, worker, client.
const QUIET: u32 = 8;
/// Nothing a client does may keep its connection from ending once it is gone.
const END: u32 = 100_000;

/// Input: what a client sends; `PAUSE` divides it.
pub fn check(data: &[u8]) {
    if data.starts_with(PREFACE) {
        return;
    }
    thread_local! {
        // Never dropped: a runtime must not be, among the thread's other locals.
        static WORLD: &'static World = Box::leak(Box::new(World::new()));
    }
    WORLD.with(|world| world.runtime.block_on(world.client(data)));
}

struct World {
    runtime: LocalRuntime,
    worker: Rc<LoneWorker>,
    origin: Rc<Origin>,
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build_local(Default::default());
        let runtime = runtime.expect("no runtime");
        let (worker, origin) = runtime.block_on(async {
            let origin = Origin::start().await.expect("no origin");
            (Rc::new(worker(&origin).expect("no worker")), origin)
        });
        Self { runtime, worker, origin }
    }

    async fn client(&self, data: &[u8]) {
        let (client, accepted) = UnixStream::pair().expect("no sockets");
        let worker = self.worker.clone();
        let serving = tokio::task::spawn_local(async move { worker.serve(accepted).await });
        let mut client = Client { stream: Some(client), got: Vec::new() };
        for piece in pieces(data) {
            client.send(piece).await;
            self.rest(&mut client).await;
        }
        client.half_close().await;
        self.rest(&mut client).await;
        client.stream = None;
        for _ in 0..END {
            if serving.is_finished() {
                break;
            }
            turn().await;
        }
        assert!(serving.is_finished(), "the connection does not end");
        serving.await.expect("the connection's task panicked");
        self.rest(&mut client).await;
        let sent: Vec<u8> = pieces(data).flatten().copied().collect();
        judge::judge(&sent, &client.got, &self.origin.take());
    }

    /// Until no byte has moved for some turns.
    async fn rest(&self, client: &mut Client) {
        let (mut quiet, mut before) = (0, self.origin.moved());
        while quiet < QUIET {
            turn().await;
            let moved = self.origin.moved();
            quiet = if client.receive() || moved != before { 0 } else { quiet + 1 };
            before = moved;
        }
    }
}

/// One move of the clock: everything that was ready before has run.
async fn turn() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let all = rest?;
        let at = all.windows(PAUSE.len()).position(|w| w == PAUSE);
        rest = at.map(|at| &all[at + PAUSE.len()..]);
        Some(&all[..at.unwrap_or(all.len())])
    })
}

fn worker(origin: &Origin) -> Option<LoneWorker> {
    let text = format!(
        "listeners.web.bind = '127.0.0.1:8080'\nlisteners.web.trusted_proxies = []\nroutes = [{{ split = 's' }}]\n\
         splits.s.versions.v.endpoints = ['{}']\nadmin.state_dir = '/dev/null/none'\n",
        origin.address
    );
    let loaded = check_text("weir.toml", &text, &|_| None);
    let config: Config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.text(false)));
    let registry = Arc::new(Registry::default());
    let store = Store::open(Arc::new(config), registry, &OpenOptions::default()).ok()?;
    let access = vec![AccessWriter::start(io::sink()).ok()?.log(Format::Json, 1.0, 1)];
    let parts = Parts { snapshot: store.shared(), swapped: store.swapped(), cells: Arc::new(Cells::new()), access };
    LoneWorker::new(parts)
}

struct Client {
    stream: Option<UnixStream>,
    got: Vec<u8>,
}

impl Client {
    /// As much as the worker takes: it may have closed, or wait for us to read first, which `rest` does.
    async fn send(&mut self, mut bytes: &[u8]) {
        while let (Some(stream), false) = (&self.stream, bytes.is_empty()) {
            match stream.try_write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.receive();
                    turn().await;
                }
                Err(_) => return,
            }
        }
    }

    async fn half_close(&mut self) {
        if let Some(stream) = &mut self.stream {
            // It may be gone already.
            let _ = tokio::io::AsyncWriteExt::shutdown(stream).await;
        }
    }

    /// What is there; whether there was something.
    fn receive(&mut self) -> bool {
        let Some(stream) = &self.stream else { return false };
        let before = self.got.len();
        let mut piece = [0; 16 * 1024];
        while let Ok(n @ 1..) = stream.try_read(&mut piece) {
            self.got.extend_from_slice(&piece[..n]);
        }
        self.got.len() > before
    }
}
