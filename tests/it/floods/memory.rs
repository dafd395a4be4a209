//! The resident memory of a process, watched.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Looks at the resident memory of a process every few milliseconds.
pub struct Memory {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
    before: u64,
}

impl Memory {
    pub fn watch(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, before) = (stop.clone(), resident(pid));
        let thread = std::thread::spawn(move || {
            let mut most = before;
            while !theirs.load(Ordering::SeqCst) {
                most = most.max(resident(pid));
                std::thread::sleep(Duration::from_millis(10));
            }
            most
        });
        Self { stop, thread, before }
    }

    /// Before, and at most.
    pub fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        (self.before, self.thread.join().unwrap())
    }
}

/// VmRSS in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}
