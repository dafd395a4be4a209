//! What the operating system asks of us, in our words.
//!
//! Invariant: from `install` on none of these signals ends the process by itself. SIGPIPE is ignored by Rust's start.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// A signal by what it means here (surface.md section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM, INT: drain and go; the second one: go at once.
    Terminate,
    /// HUP: read the configuration again.
    Reload,
    /// USR1: open log files again.
    ReopenLogs,
    /// USR2: hand the sockets to a new binary.
    Upgrade,
    /// QUIT: go at once.
    Quit,
}

/// The signals as they come in. Several of one kind in quick succession may come as one, as with signals themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    user1: unix::Signal,
    user2: unix::Signal,
    quit: unix::Signal,
}

impl Signals {
    /// Takes the signals over; within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
            user1: unix::signal(SignalKind::user_defined1())?,
            user2: unix::signal(SignalKind::user_defined2())?,
            quit: unix::signal(SignalKind::quit())?,
        })
    }

    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.quit.recv() => Signal::Quit,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::ReopenLogs,
            _ = self.user2.recv() => Signal::Upgrade,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal as Raw, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn each_signal_comes_as_its_meaning() {
        let mut signals = Signals::install().unwrap();
        for (raw, meaning) in [
            (Raw::TERM, Signal::Terminate),
            (Raw::INT, Signal::Terminate),
            (Raw::HUP, Signal::Reload),
            (Raw::USR1, Signal::ReopenLogs),
            (Raw::USR2, Signal::Upgrade),
            (Raw::QUIT, Signal::Quit),
        ] {
            kill_process(getpid(), raw).unwrap();
            let got = tokio::time::timeout(Duration::from_secs(10), signals.next()).await.unwrap();
            assert_eq!(got, meaning);
        }
    }
}
