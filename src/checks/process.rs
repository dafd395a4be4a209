//! One run of a command, in a process group of its own that does not outlive it.
//!
//! Invariants: when the run is over, or its future is dropped, the whole group gets SIGKILL before its leader is reaped;
//! until then nobody else can have its number. Of the output the first [`KEPT`] bytes are kept and the rest is read and
//! thrown away, so that a talkative command neither stops at a full pipe nor fills our memory. It gets no input and none
//! of our descriptors (they are all close-on-exec). Out of reach: a child that has left the group (`setsid`, a shell's
//! `set -m`). What is killed behind its parent's back is reaped by process 1; if that is weir, give the container an init.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::model::Instant;

/// Bytes of standard output and standard error together, as they came.
const KEPT: usize = 4096;
const BUFFER: usize = 16 * 1024;
/// Between two readings of what is thrown away: a command that floods must not take the thread from a rollback.
const BREATH: Duration = Duration::from_millis(1);

/// What is started.
#[derive(Debug)]
pub(super) struct Run {
    /// Program and arguments; at least the program.
    pub words: Vec<String>,
    /// Beside ours; `None`: not set.
    pub environment: Vec<(&'static str, Option<String>)>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Exit(i32),
    Signal(i32),
    /// Why, in words.
    NotStarted(String),
    /// It was not over in time.
    Overtime,
}

/// Runs it to its end, or until `ends`; gives what it printed. Cancel safe: see the file's head.
pub(super) async fn run(run: &Run, ends: Instant) -> (Ended, String) {
    let mut kept = Vec::new();
    let ended = match attempt(run, ends, &mut kept).await {
        Ok(ended) => ended,
        Err(error) => Ended::NotStarted(not_started(run, &error)),
    };
    (ended, String::from_utf8_lossy(&kept).into_owned())
}

fn not_started(run: &Run, error: &io::Error) -> String {
    let program = run.words.first().map_or("", String::as_str);
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; write its full path, or one seen from weir's working folder",
        io::ErrorKind::PermissionDenied => "; is it executable for weir's user?",
        _ => "",
    };
    format!("{program:?} cannot be started: {error}{remedy}")
}

async fn attempt(run: &Run, ends: Instant, kept: &mut Vec<u8>) -> io::Result<Ended> {
    // Before the start, or its end could be missed.
    let mut child_signals = signal(SignalKind::child())?;
    let (mut group, mut output) = start(run)?;
    let (mut buffer, mut is_open) = (vec![0; BUFFER], true);
    while !group.has_ended() {
        tokio::select! {
            _ = child_signals.recv() => {}
            () = tokio::time::sleep_until(ends) => return Ok(Ended::Overtime),
            read = output.read(&mut buffer), if is_open => {
                let n = read.unwrap_or(0);
                is_open = n > 0;
                if !keep(kept, &buffer[..n]) {
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
    // What it left behind may hold the pipe open, or go on for ever.
    let ended = group.end();
    // Not through the runtime: of a short command it may not know yet that there is something to read.
    while let Ok(n @ 1..) = rustix::io::read(&output, &mut buffer[..]) {
        if !keep(kept, &buffer[..n]) {
            break;
        }
    }
    ended
}

/// Whether there is room for more.
fn keep(kept: &mut Vec<u8>, piece: &[u8]) -> bool {
    let room = KEPT - kept.len();
    kept.extend_from_slice(&piece[..piece.len().min(room)]);
    kept.len() < KEPT
}

/// Both outputs go through one pipe, so that they stay in order.
fn start(run: &Run) -> io::Result<(Group, Receiver)> {
    let (reader, writer) = io::pipe()?;
    let (program, arguments) = run.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    for (name, value) in &run.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = Receiver::from_owned_fd(reader.into())?;
    let child = command.spawn()?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("it has no process id"))?;
    Ok((Group { child, pid, is_reaped: false }, output))
}

/// A started command and those it has started; dropped: killed.
#[derive(Debug)]
struct Group {
    child: Child,
    /// Of the leader, and of the group.
    pid: Pid,
    is_reaped: bool,
}

impl Group {
    /// Without reaping it: that would set its number free.
    fn has_ended(&mut self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let found = rustix::process::waitid(WaitId::Pid(self.pid), look);
        // It is no child of ours any more, so the number may be somebody else's.
        self.is_reaped |= found.is_err();
        !matches!(found, Ok(None))
    }

    /// Kills what is left of the group and says how the leader ended.
    fn end(&mut self) -> io::Result<Ended> {
        self.kill();
        let status = self.child.try_wait();
        self.is_reaped = true;
        let status = status?;
        let status = status.ok_or_else(|| io::Error::other("it has not ended"))?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Exit(code),
            (None, signal) => Ended::Signal(signal.unwrap_or_default()),
        })
    }

    fn kill(&self) {
        if self.is_reaped {
            return;
        }
        // Nobody left in the group, or nobody we may kill (a set-user-id program): nothing more can be done.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The runtime reaps the leader later on.
        self.kill();
    }
}
