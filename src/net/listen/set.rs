//! Which addresses are listened on, and the way to another set of them: new ones are bound aside, handed to the
//! workers only once everything else of a reload has succeeded, and those that left are stopped without loss.
//!
//! The workers are strangers: they hear `ListenerCommand`s through a function the application gives.
//! Invariant: an address that stays keeps its sockets, whatever else of its listener changes.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{BindError, Bound, Inherited, ListeningSocket, bind, bind_beside_own, overlap, unix};
use crate::config::{Bind, UnixBind};
use crate::model::ListenerName;

/// What a worker may take to empty its queue before its socket is closed over it.
const WORKER: Duration = Duration::from_secs(2);

/// What one worker is to do.
#[derive(Debug)]
pub enum ListenerCommand {
    /// Accept from this socket too (connections may wait in it already), also if there is one of that address.
    Add { name: ListenerName, address: Bind, socket: ListeningSocket },
    /// The address belongs to a listener of another name from now on; its socket stays.
    Rename { address: Bind, name: ListenerName },
    /// No new connection comes any more. Take all that waits (`accept_rest`, on the std listener: tokio's readiness
    /// does not tell an empty queue), drop the sockets of that address, and then `done`.
    Remove { address: Bind, done: Done },
}

/// Dropped by a worker when it has emptied and closed its socket.
#[derive(Clone, Debug)]
pub struct Done {
    _held: mpsc::Sender<Infallible>,
}

/// Brings a command to the worker of that index; must not block. A worker that is gone: drop the command.
pub type Sink = Arc<dyn Fn(usize, ListenerCommand) + Send + Sync>;

/// A listener address in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    pub name: ListenerName,
    /// As the file has it; the port may be 0.
    pub configured: Bind,
    /// The real one.
    pub address: Bind,
}

/// A listener whose address cannot be had.
#[derive(Debug)]
pub struct Refused {
    pub name: ListenerName,
    pub error: BindError,
}

/// A new set, its new addresses bound already; dropping it gives them back.
#[derive(Debug)]
pub struct Prepared {
    added: Vec<Fresh>,
    wanted: Vec<(ListenerName, Bind)>,
}

/// An address whose listener is on its way out; `finish` it.
#[must_use = "nothing is closed in order before `finish` has run"]
pub struct Stopping {
    bound: Bound,
    workers: usize,
    send: Sink,
    _entry: Leaving,
}

impl Prepared {
    /// The real addresses of what is new in it.
    pub fn addresses(&self) -> Vec<Bind> {
        self.added.iter().map(|(open, _)| open.bound.address.clone()).collect()
    }
}

/// How an address was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    pub address: Bind,
    /// Clients whose handshake was not complete when the time was over.
    pub half_open: usize,
    /// False if a worker did not empty its queue in time.
    pub emptied: bool,
}

/// An address and what its workers get.
type Fresh = (Open, Vec<ListeningSocket>);

#[derive(Debug)]
struct Open {
    name: ListenerName,
    configured: Bind,
    bound: Bound,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Open>,
    closed: bool,
}

/// See the file's head.
pub struct Listeners {
    workers: usize,
    send: Sink,
    state: Mutex<State>,
    leaving: Arc<watch::Sender<Vec<Bind>>>,
    inherited: Mutex<Inherited>,
}

impl Listeners {
    /// None yet. `workers` is the number of indexes `send` knows.
    pub fn new(workers: usize, send: Sink) -> Self {
        let leaving = Arc::new(watch::Sender::new(Vec::new()));
        Self { workers, send, state: Mutex::default(), leaving, inherited: Mutex::default() }
    }

    /// With sockets that need not be bound.
    #[must_use]
    pub fn inheriting(mut self, inherited: Inherited) -> Self {
        self.inherited = Mutex::new(inherited);
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is listened on now, in the file's order.
    pub fn listening(&self) -> Vec<Listening> {
        self.state().open.iter().map(Open::listening).collect()
    }

    /// Waits (a second or two at most) until no address that `wanted` needs anew is still being stopped.
    pub async fn ready_for(&self, wanted: &[(ListenerName, Bind)]) {
        let new: Vec<Bind> = self.missing(wanted).iter().flat_map(|(_, address)| self.real(address)).collect();
        let free = |leaving: &Vec<Bind>| !leaving.iter().any(|l| new.iter().any(|a| overlap(l, a)));
        // An error means that the sender is gone, and we hold it.
        let _ = self.leaving.subscribe().wait_for(free).await;
    }

    /// Binds the addresses that are not listened on yet. Blocking (it may read `/proc`), but short.
    ///
    /// # Errors
    /// Every address that cannot be had; then nothing has changed.
    pub fn prepare(&self, wanted: &[(ListenerName, Bind)]) -> Result<Prepared, Vec<Refused>> {
        let (mut added, mut refused) = (Vec::new(), Vec::new());
        for (name, configured) in self.missing(wanted) {
            match self.open(&name, &configured) {
                Ok(open) => added.extend(open),
                Err(error) => refused.push(Refused { name, error }),
            }
        }
        if refused.is_empty() { Ok(Prepared { added, wanted: wanted.to_vec() }) } else { Err(refused) }
    }

    fn missing(&self, wanted: &[(ListenerName, Bind)]) -> Vec<(ListenerName, Bind)> {
        let state = self.state();
        wanted.iter().filter(|w| !state.open.iter().any(|open| open.serves(w))).cloned().collect()
    }

    /// One, or as many as the service manager passed by that name.
    fn open(&self, name: &ListenerName, configured: &Bind) -> Result<Vec<Fresh>, BindError> {
        let bounds = match configured {
            Bind::Systemd(_) => self.given(configured)?,
            _ => vec![self.take_over(name, configured)?.map_or_else(|| self.bind(configured), Ok)?],
        };
        let failed = |source| BindError::Other { address: configured.clone(), source };
        let fresh = |bound: Bound| {
            let handles = bound.handles().map_err(failed)?;
            Ok((Open { name: name.clone(), configured: configured.clone(), bound }, handles))
        };
        bounds.into_iter().map(fresh).collect()
    }

    fn bind(&self, configured: &Bind) -> Result<Bound, BindError> {
        let ours = self.listening().iter().any(|l| overlap(&l.address, configured));
        let bind = if ours || self.has_inherited(configured) { bind_beside_own } else { bind };
        bind(configured, self.workers)
    }

    /// Hands the new addresses to the workers and begins to stop those that are not wanted any more: when this
    /// returns no new connection begins there. After `close` it does nothing.
    pub fn commit(&self, prepared: Prepared) -> Vec<Stopping> {
        let mut state = self.state();
        if state.closed {
            return Vec::new();
        }
        let (mut old, mut new) = (std::mem::take(&mut state.open), prepared.added);
        for wanted in &prepared.wanted {
            while let Some(i) = old.iter().position(|open| open.serves(wanted)) {
                state.open.push(self.keep(old.swap_remove(i), wanted));
            }
            while let Some(i) = new.iter().position(|(open, _)| open.serves(wanted)) {
                let (open, handles) = new.swap_remove(i);
                state.open.push(self.add(open, handles));
            }
        }
        drop(state);
        old.into_iter().map(|open| self.stop(open.bound)).collect()
    }

    /// Begins to stop every address, for good.
    pub fn close(&self) -> Vec<Stopping> {
        let open = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.open)
        };
        open.into_iter().map(|open| self.stop(open.bound)).collect()
    }

    fn keep(&self, mut open: Open, (name, configured): &(ListenerName, Bind)) -> Open {
        if open.configured != *configured {
            open.configured = configured.clone();
            open.set_mode();
        }
        if open.name != *name {
            open.name = name.clone();
            for worker in 0..self.workers {
                (self.send)(
                    worker,
                    ListenerCommand::Rename { address: open.bound.address.clone(), name: name.clone() },
                );
            }
        }
        open
    }

    fn add(&self, mut open: Open, handles: Vec<ListeningSocket>) -> Open {
        open.bound.own();
        open.set_mode();
        for (i, socket) in handles.into_iter().enumerate() {
            let (name, address) = (open.name.clone(), open.bound.address.clone());
            (self.send)(i % self.workers, ListenerCommand::Add { name, address, socket });
        }
        open
    }

    fn stop(&self, bound: Bound) -> Stopping {
        if let Err(error) = bound.refuse_new() {
            let address = bound.address.to_string();
            tracing::warn!(event = "listener-filter", address, %error, "new connections may be lost while it closes");
        }
        self.leaving.send_modify(|leaving| leaving.push(bound.address.clone()));
        let entry = Leaving { address: bound.address.clone(), list: self.leaving.clone() };
        Stopping { bound, workers: self.workers, send: self.send.clone(), _entry: entry }
    }
}

impl Open {
    fn serves(&self, (name, address): &(ListenerName, Bind)) -> bool {
        hand_over::is_same((&self.name, &self.configured), (name, address))
    }

    fn listening(&self) -> Listening {
        let (configured, address) = (self.configured.clone(), self.bound.address.clone());
        Listening { name: self.name.clone(), configured, address }
    }

    /// The file of a Unix socket gets the mode that is configured now.
    fn set_mode(&self) {
        let Bind::Unix(UnixBind { path, mode }) = &self.configured else { return };
        if let Err(error) = unix::set_mode(path, *mode) {
            let address = self.configured.to_string();
            tracing::warn!(event = "listener-mode", address, %error, "the socket's mode is as it was");
        }
    }
}

impl Stopping {
    /// Lets begun handshakes complete, has every worker empty its queue, closes. Takes at most about three seconds,
    /// usually a few milliseconds. Dropped half-way it closes at once.
    pub async fn finish(self) -> Stopped {
        let half_open = self.bound.handshakes_done().await;
        let (held, mut all_done) = mpsc::channel(1);
        let (address, done) = (self.bound.address.clone(), Done { _held: held });
        for worker in 0..self.workers {
            (self.send)(worker, ListenerCommand::Remove { address: address.clone(), done: done.clone() });
        }
        drop(done);
        let emptied = tokio::time::timeout(WORKER, all_done.recv()).await.is_ok();
        Stopped { address, half_open, emptied }
    }

    /// `finish` for many, side by side.
    pub async fn finish_all(all: Vec<Self>) -> Vec<Stopped> {
        all.into_iter().map(Self::finish).collect::<JoinSet<_>>().join_all().await
    }
}

/// An entry in the list of addresses on their way out, for as long as it lives.
#[derive(Debug)]
struct Leaving {
    address: Bind,
    list: Arc<watch::Sender<Vec<Bind>>>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.list.send_modify(|list| {
            if let Some(i) = list.iter().position(|a| *a == self.address) {
                list.swap_remove(i);
            }
        });
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").field("workers", &self.workers).field("state", &self.state).finish_non_exhaustive()
    }
}

impl fmt::Debug for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopping").field("bound", &self.bound).finish_non_exhaustive()
    }
}

#[path = "set_hand_over.rs"]
mod hand_over;

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "set_unix_tests.rs"]
mod unix_tests;
