//! A client of HTTP/2 that does everything right.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::PATIENCE;
use crate::support::h2wire::H2;
use crate::support::wait_for;

/// One request after the other, over one connection.
pub struct Honest {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    failure: Arc<Mutex<Option<String>>>,
    thread: JoinHandle<()>,
}

impl Honest {
    pub fn start(address: SocketAddr) -> Self {
        let (stop, served, failure) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let theirs = (stop.clone(), served.clone(), failure.clone());
        let thread = std::thread::spawn(move || {
            let (stop, served, failure) = theirs;
            let mut client = H2::open(address, &[]).unwrap();
            client.set_read_limit(PATIENCE);
            for stream in (1..).step_by(2).take_while(|_| !stop.load(Ordering::SeqCst)) {
                let sent = client.get(stream, "/");
                let outcome = client.outcome(stream);
                if outcome.status() != Some(200) {
                    *failure.lock().unwrap() = Some(format!("stream {stream}: {outcome:?}, sent: {sent:?}"));
                    return;
                }
                served.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, served, failure, thread }
    }

    #[track_caller]
    pub fn wait_for_more(&self, count: usize) {
        let before = self.served.load(Ordering::SeqCst);
        wait_for("more requests over HTTP/2 are answered", || {
            if let Some(failure) = self.failure.lock().unwrap().clone() {
                panic!("the honest HTTP/2 client failed: {failure}");
            }
            (self.served.load(Ordering::SeqCst) >= before + count).then_some(())
        });
    }

    /// How many were served; fails if one was not.
    #[track_caller]
    pub fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        let failure = self.failure.lock().unwrap().take();
        assert_eq!(failure, None, "the honest HTTP/2 client failed");
        self.served.load(Ordering::SeqCst)
    }
}
