//! What the service manager is told (`sd_notify`): ready, reloading, stopping, alive, and who the main process is.
//!
//! Own code rather than a crate: a datagram of lines, and the crates at hand know no abstract sockets (`@...`), which
//! containers use. Invariant: telling never blocks and never fails anything; without a service manager it is nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// See the file's head. The default has nobody to tell.
#[derive(Debug, Default)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// By `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_env() -> Self {
        let to = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = match name.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
                _ => SocketAddr::from_pathname(&name),
            };
            let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
            Some((socket.ok()?, address.ok()?))
        });
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && is_ours && to.is_some());
        Self { to, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// How often it wants to hear that we are alive: half of what it waits.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|after| after / 2)
    }

    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// To be followed by `ready`, whatever comes of it.
    pub fn reloading(&self) {
        if self.to.is_none() {
            return;
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reloading"));
    }

    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={}", line(status)));
    }

    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// Another process is the service from now on; only it is listened to then.
    pub fn main_pid(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}"));
    }

    fn tell(&self, text: &str) {
        let Some((socket, address)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::warn!(event = "not-notified", %error, text, "the service manager was not told");
        }
    }
}

fn line(text: &str) -> String {
    text.replace('\n', " ")
}
