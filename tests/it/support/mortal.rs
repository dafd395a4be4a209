//! An origin that can be killed, connections and all, and raised at the same address.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{Connection, free_address, wait_for};

/// Answers every request with its name, while it lives.
pub struct Mortal {
    pub address: SocketAddr,
    name: String,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
}

impl Mortal {
    pub fn start(name: &str) -> Self {
        let mut this = Self::dead(name);
        this.raise();
        this
    }

    /// Has an address, but does not listen yet.
    pub fn dead(name: &str) -> Self {
        Self { address: free_address(), name: name.to_owned(), shared: Arc::default(), accepting: None }
    }

    /// Refuses connections from now on and closes those it has.
    pub fn kill(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        self.accepting.take().unwrap().join().unwrap();
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens.
    #[track_caller]
    pub fn raise(&mut self) {
        let listener = wait_for("its address is free", || super::listen(self.address).ok());
        let (shared, name) = (self.shared.clone(), self.name.clone());
        shared.stop.store(false, Ordering::SeqCst);
        self.accepting = Some(std::thread::spawn(move || accept(&listener, &shared, &name)));
    }

    /// Requests answered in all its lives.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if self.accepting.is_some() {
            self.kill();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, name: &str) {
    for stream in listener.incoming().flatten() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        shared.streams.lock().unwrap().push(stream.try_clone().unwrap());
        let (shared, name) = (shared.clone(), name.to_owned());
        std::thread::spawn(move || {
            let mut wire = Connection::over(stream);
            while let Ok(head) = wire.head() {
                let body = if head.has("content-length") { wire.body(&head) } else { Ok(Vec::new()) };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                if body.is_err() {
                    return;
                }
                // Before the answer, so that whoever has read it finds it counted.
                shared.requests.fetch_add(1, Ordering::SeqCst);
                if wire.send(answer).is_err() {
                    shared.requests.fetch_sub(1, Ordering::SeqCst);
                    return;
                }
            }
        });
    }
}
