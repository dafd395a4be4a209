//! The data plane as its control sees it: threads, and the commands they take.
//!
//! Each worker is an OS thread with its own current-thread runtime; commands come by an unbounded channel because they
//! are rare and must never block the control plane.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot};

use super::connection::GRACE;
use super::listener::{Door, accept};
use super::room::Pressure;
use super::worker::{Shared, TICK, Worker};
use crate::config::Bind;
use crate::lifecycle::Vital;
use crate::model::{Instant, ListenerName};
use crate::net::listen::{Acceptor, Done, ListenerCommand};
use crate::pool::Counts;
use crate::state::Snapshot;
use crate::telemetry::{AccessLog, Cells};

/// Task turns between two looks at the sockets. More than tokio's 61, because each request takes two turns and a look is
/// a system call: under full load that is one for sixty requests.
const EVENT_INTERVAL: u32 = 127;

/// What a worker can be told.
#[derive(Debug)]
enum Command {
    Listener(ListenerCommand),
    /// Serve what is there until `deadline`, then end the thread. It was asked for at `begun`.
    Drain {
        begun: Instant,
        deadline: Instant,
        done: oneshot::Sender<Cut>,
    },
    /// Answer, as proof that the loop turns.
    Turn(oneshot::Sender<()>),
    #[cfg(test)]
    Panic,
}

/// What the end of the process has cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Client connections open at the deadline.
    pub connections: usize,
    /// What was under way on them, and tunnels that were told to close before.
    pub exchanges: Counts,
}
/// What every worker is given.
#[derive(Debug)]
pub struct Parts {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Woken after every swap of it.
    pub swapped: Arc<Notify>,
    pub cells: Arc<Cells>,
    /// One per worker.
    pub access: Vec<AccessLog>,
}

/// The running workers.
#[derive(Debug)]
pub struct DataPlane {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    pressure: Arc<Pressure>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    vital: Vital,
}

impl DataPlane {
    /// Starts one thread per access log.
    ///
    /// # Errors
    /// When the system gives no thread or runtime.
    pub fn start(parts: Parts) -> io::Result<Self> {
        let of = parts.access.len();
        let (mut workers, mut threads) = (Vec::new(), Vec::new());
        let (pressure, vital) = (Arc::<Pressure>::default(), Vital::default());
        for (index, access) in parts.access.into_iter().enumerate() {
            let (commands, inbox) = mpsc::unbounded_channel();
            let shared = Shared {
                snapshot: parts.snapshot.clone(),
                swapped: parts.swapped.clone(),
                cells: parts.cells.clone(),
                pressure: pressure.clone(),
            };
            let vital = vital.clone();
            let runtime = || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .event_interval(EVENT_INTERVAL)
                    .build_local(Default::default())
            };
            let (ready, is_ready) = std::sync::mpsc::channel();
            let run = move || match runtime() {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    let _guard = vital.guard("worker");
                    runtime.block_on(run(Worker::new(index, of, shared, access), vital, inbox));
                }
                Err(error) => drop(ready.send(Err(error))),
            };
            threads.push(std::thread::Builder::new().name(format!("weir-worker-{index}")).spawn(run)?);
            is_ready.recv().map_err(io::Error::other)??;
            workers.push(commands);
        }
        Ok(Self { workers, pressure, threads: Mutex::new(threads), vital })
    }

    /// Waits until a worker, or a part that it cannot do without, has panicked. Cancel safe.
    pub async fn failed(&self) -> &'static str {
        self.vital.failed().await
    }

    /// Returns when the loop of every worker has turned; never if one is stuck or dead.
    pub async fn turn(&self) {
        let mut turns = Vec::new();
        for worker in &self.workers {
            let (turned, has_turned) = oneshot::channel();
            let _ = worker.send(Command::Turn(turned));
            turns.push(has_turned);
        }
        for has_turned in turns {
            if has_turned.await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Open client connections.
    pub fn connections(&self) -> usize {
        self.pressure.clients.open()
    }

    /// Brings a command to the worker of that index. A worker that is gone needs none.
    pub fn command(&self, worker: usize, command: ListenerCommand) {
        if let Some(worker) = self.workers.get(worker) {
            let _ = worker.send(Command::Listener(command));
        }
    }

    /// Serves what is there until `deadline`; listeners must have been stopped. `begun`: when the process was asked to
    /// end, which is when the time of tunnels begins.
    pub async fn drain(&self, begun: Instant, deadline: Instant) -> Cut {
        let mut draining = Vec::new();
        for worker in &self.workers {
            let (done, is_done) = oneshot::channel();
            let _ = worker.send(Command::Drain { begun, deadline, done });
            draining.push(is_done);
        }
        let mut all = Cut::default();
        for is_done in draining {
            let cut = is_done.await.unwrap_or_default();
            all.connections += cut.connections;
            all.exchanges.add(cut.exchanges);
        }
        all
    }

    /// Waits for the threads, which end after `drain`. Blocks.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// A listening socket that is being accepted from.
struct Accepting {
    name: Rc<RefCell<ListenerName>>,
    stop: oneshot::Sender<Done>,
}

async fn run(worker: Rc<Worker>, vital: Vital, mut inbox: mpsc::UnboundedReceiver<Command>) {
    tokio::task::spawn_local(vital.clone().run("tick", worker.clone().ticks()));
    tokio::task::spawn_local(vital.clone().run("room", worker.clone().gives_way()));
    let flusher = tokio::task::unconstrained(worker.flusher.clone().run());
    tokio::task::spawn_local(vital.clone().run("flusher", flusher));
    let mut accepting: HashMap<Rc<Bind>, Vec<Accepting>> = HashMap::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Listener(command) => obey(&worker, &vital, &mut accepting, command),
            Command::Turn(turned) => drop(turned.send(())),
            Command::Drain { begun, deadline, done } => {
                let cut = turning(&mut inbox, drain(&worker, begun, deadline)).await;
                let _ = done.send(cut);
                return;
            }
            #[cfg(test)]
            Command::Panic => panic!("of a worker"),
        }
    }
}

fn obey(
    worker: &Rc<Worker>,
    vital: &Vital,
    accepting: &mut HashMap<Rc<Bind>, Vec<Accepting>>,
    command: ListenerCommand,
) {
    match command {
        ListenerCommand::Add { name, address, socket } => match Acceptor::new(socket) {
            Ok(acceptor) => {
                // One for all sockets of an address: by it their clients are found.
                let known = accepting.get_key_value(&address).map(|(address, _)| address.clone());
                let address = known.unwrap_or_else(|| Rc::new(address));
                let limit = worker.pressure.listener(&name);
                let name = Rc::new(RefCell::new(name));
                let (stop, stopped) = oneshot::channel();
                let door = Door { name: name.clone(), address: address.clone(), limit };
                let accepts = accept(worker.clone(), acceptor, door, stopped);
                tokio::task::spawn_local(vital.clone().run("accept", accepts));
                accepting.entry(address).or_default().push(Accepting { name, stop });
            }
            Err(error) => tracing::error!(event = "listen-failed", listener = %name, reason = %error),
        },
        ListenerCommand::Rename { address, name } => {
            for socket in accepting.get(&address).into_iter().flatten() {
                *socket.name.borrow_mut() = name.clone();
            }
        }
        ListenerCommand::Remove { address, done } => {
            if let Some((address, sockets)) = accepting.remove_entry(&address) {
                worker.close_listener(&address);
                for socket in sockets {
                    let _ = socket.stop.send(done.clone());
                }
            }
        }
    }
}

/// Does one thing to its end, and answers meanwhile.
async fn turning<T>(inbox: &mut mpsc::UnboundedReceiver<Command>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            Some(command) = inbox.recv() => {
                if let Command::Turn(turned) = command {
                    let _ = turned.send(());
                }
            }
        }
    }
}

/// Turns in which everything that was cut ends: the connections, their streams, and what those have begun.
const LAST_TURNS: usize = 8;

/// Waits until the last client has gone; ends those that are left at the deadline and says what was cut.
async fn drain(worker: &Rc<Worker>, asked: Instant, deadline: Instant) -> Cut {
    worker.close(asked, deadline);
    let mut look = tokio::time::interval(TICK.min(Duration::from_millis(20)));
    let begun = Instant::now();
    let arriving = |now| worker.arriving.get() > 0 && now - begun < GRACE;
    while !worker.clients.borrow().is_empty() || arriving(Instant::now()) {
        if Instant::now() >= deadline {
            let connections = worker.abort_clients() + worker.arriving.get();
            // So that the tasks see their order and the books are written.
            for _ in 0..LAST_TURNS {
                tokio::task::yield_now().await;
            }
            worker.access.flush();
            return Cut { connections, exchanges: worker.cut() };
        }
        look.tick().await;
    }
    worker.access.flush();
    Cut { connections: 0, exchanges: worker.cut() }
}

#[cfg(test)]
#[path = "plane_tests.rs"]
mod tests;
