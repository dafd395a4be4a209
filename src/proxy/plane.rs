//! The data plane as its control sees it: threads, and the commands they take.
//!
//! Each worker is an OS thread with its own current-thread runtime; commands come by an unbounded channel because they
//! are rare and must never block the control plane.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::listener::{Limit, Socket, accept};
use super::worker::{TICK, Worker};
use crate::model::{Instant, ListenerName};
use crate::state::Snapshot;
use crate::telemetry::{AccessLog, Cells};

/// What a worker can be told.
enum Command {
    Listen {
        name: ListenerName,
        listener: std::net::TcpListener,
        limit: Arc<Limit>,
    },
    /// Its door is shut already: take what is queued, then close. Connections end with their next answer.
    Stop {
        address: SocketAddr,
        done: oneshot::Sender<()>,
    },
    /// Serve what is there until `deadline`, then end the thread.
    Drain {
        deadline: Instant,
        done: oneshot::Sender<usize>,
    },
}

/// What every worker is given.
pub struct Parts {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub cells: Arc<Cells>,
    /// One per worker.
    pub access: Vec<AccessLog>,
}

/// The running workers.
#[derive(Debug)]
pub struct DataPlane {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
    limits: std::sync::Mutex<HashMap<ListenerName, Arc<Limit>>>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

impl DataPlane {
    /// Starts one thread per access log.
    ///
    /// # Errors
    /// When the system gives no thread or runtime.
    pub fn start(parts: Parts) -> io::Result<Self> {
        let of = parts.access.len();
        let (mut workers, mut threads) = (Vec::new(), Vec::new());
        for (index, access) in parts.access.into_iter().enumerate() {
            let (commands, inbox) = mpsc::unbounded_channel();
            let (snapshot, cells) = (parts.snapshot.clone(), parts.cells.clone());
            let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
            let (ready, is_ready) = std::sync::mpsc::channel();
            let run = move || match runtime() {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(run(Worker::new(index, of, snapshot, cells, access), inbox));
                }
                Err(error) => drop(ready.send(Err(error))),
            };
            threads.push(std::thread::Builder::new().name(format!("weir-worker-{index}")).spawn(run)?);
            is_ready.recv().map_err(io::Error::other)??;
            workers.push(commands);
        }
        Ok(Self { workers, threads, limits: std::sync::Mutex::default() })
    }

    /// Starts accepting on a bound address: one socket per worker, in order.
    pub fn listen(&self, name: &ListenerName, sockets: Vec<std::net::TcpListener>) {
        let mut limits = self.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let limit = limits.entry(name.clone()).or_default().clone();
        for (worker, listener) in self.workers.iter().zip(sockets) {
            let _ = worker.send(Command::Listen { name: name.clone(), listener, limit: limit.clone() });
        }
    }

    /// Empties the queues of an address whose door is shut (`net::listen`), and closes its sockets. Connections that
    /// were accepted end with their next answer.
    pub async fn stop(&self, address: SocketAddr) {
        let stopped: Vec<_> = self.workers.iter().map(|worker| {
            let (done, is_done) = oneshot::channel();
            let _ = worker.send(Command::Stop { address, done });
            is_done
        });
        for is_done in stopped.collect::<Vec<_>>() {
            let _ = is_done.await;
        }
    }

    /// Serves what is there until `deadline`; listeners must have been stopped. Returns how many connections were cut.
    pub async fn drain(&self, deadline: Instant) -> usize {
        let mut cut = 0;
        let drained: Vec<_> = self.workers.iter().map(|worker| {
            let (done, is_done) = oneshot::channel();
            let _ = worker.send(Command::Drain { deadline, done });
            is_done
        });
        for is_done in drained.collect::<Vec<_>>() {
            cut += is_done.await.unwrap_or_default();
        }
        cut
    }

    /// Waits for the threads, which end after `drain`.
    pub fn join(self) {
        drop(self.workers);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// A listening socket that is being accepted from.
struct Accepting {
    name: ListenerName,
    stop: oneshot::Sender<oneshot::Sender<()>>,
}

async fn run(worker: Rc<Worker>, mut inbox: mpsc::UnboundedReceiver<Command>) {
    tokio::task::spawn_local(worker.clone().ticks());
    let mut accepting: HashMap<SocketAddr, Accepting> = HashMap::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Listen { name, listener, limit } => match open(&worker, &name, listener, limit) {
                Ok((address, stop)) => drop(accepting.insert(address, Accepting { name, stop })),
                Err(error) => tracing::error!(event = "listen-failed", listener = %name, reason = %error),
            },
            Command::Stop { address, done } => {
                if let Some(socket) = accepting.remove(&address) {
                    worker.close_listener(&socket.name, address.port());
                    let _ = socket.stop.send(done);
                }
            }
            Command::Drain { deadline, done } => {
                let _ = done.send(drain(&worker, deadline).await);
                return;
            }
        }
    }
}

fn open(
    worker: &Rc<Worker>,
    name: &ListenerName,
    listener: std::net::TcpListener,
    limit: Arc<Limit>,
) -> io::Result<(SocketAddr, oneshot::Sender<oneshot::Sender<()>>)> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    let (stop, stopped) = oneshot::channel();
    let socket = Socket { name: name.clone(), address, listener, limit };
    tokio::task::spawn_local(accept(worker.clone(), socket, stopped));
    Ok((address, stop))
}

/// Waits until the last client has gone; ends those that are left at the deadline and says how many.
async fn drain(worker: &Rc<Worker>, deadline: Instant) -> usize {
    worker.close();
    let mut look = tokio::time::interval(TICK.min(Duration::from_millis(20)));
    while !worker.clients.borrow().is_empty() {
        if Instant::now() >= deadline {
            let cut = worker.abort_clients();
            // One turn, so that the tasks see their order and the books are written.
            tokio::task::yield_now().await;
            worker.access.flush();
            return cut;
        }
        look.tick().await;
    }
    worker.access.flush();
    0
}
