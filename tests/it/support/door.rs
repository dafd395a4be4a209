//! A Unix socket in front of an origin that listens on TCP: every scripted origin can be reached over a path.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempfile::TempDir;

/// See the file's head. Its path is gone with it.
pub struct Door {
    path: PathBuf,
    shared: Arc<Shared>,
    _dir: Option<TempDir>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    accepted: AtomicUsize,
}

impl Door {
    /// In a folder of its own.
    pub fn to(origin: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut door = Self::at(&dir.path().join("origin.sock"), origin);
        door._dir = Some(dir);
        door
    }

    /// At this path, on which nobody listens.
    pub fn at(path: &Path, origin: SocketAddr) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Arc::<Shared>::default();
        let theirs = shared.clone();
        std::thread::spawn(move || accept(&listener, origin, &theirs));
        Self { path: path.to_owned(), shared, _dir: None }
    }

    /// As an endpoint in a configuration.
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Connections ever accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accept loop, which then sees the flag.
        drop(UnixStream::connect(&self.path));
        drop(std::fs::remove_file(&self.path));
    }
}

fn accept(listener: &UnixListener, origin: SocketAddr, shared: &Shared) {
    for client in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let origin = TcpStream::connect(origin).unwrap();
        origin.set_nodelay(true).unwrap();
        let (from, to) = (client.try_clone().unwrap(), origin.try_clone().unwrap());
        std::thread::spawn(move || copy(from, to));
        std::thread::spawn(move || copy(origin, client));
    }
}

/// The end of one side is the end of the other; an end that is no end is not told from one.
fn copy(mut from: impl Read, mut to: impl Write + HalfClose) {
    drop(std::io::copy(&mut from, &mut to));
    to.close_write();
}

trait HalfClose {
    fn close_write(&self);
}

impl HalfClose for TcpStream {
    fn close_write(&self) {
        drop(self.shutdown(Shutdown::Write));
    }
}

impl HalfClose for UnixStream {
    fn close_write(&self) {
        drop(self.shutdown(Shutdown::Write));
    }
}
