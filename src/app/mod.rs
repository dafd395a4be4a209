//! The wiring: from a configuration file to a running proxy and back. The one room that knows every other.
//!
//! Two planes: the workers (`proxy::DataPlane`) and one control thread with its own runtime, on which everything else
//! runs, so that a rollback is answered while the data plane is saturated.
//! Invariants: all or nothing at start: an error leaves no thread and no socket behind; the process is ready only when
//! every listener is bound and the state is loaded.

mod asked;
mod bounds;
mod check;
mod context;
mod control;
mod fare;
mod gauges;
mod going;
mod load;
mod ready_line;
mod rollouts;
mod simulate;
mod start;
mod thin;
mod upgrade;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::cli::Exit;
use crate::config::Bind;
use crate::demo;
use crate::model::ListenerName;
use crate::telemetry::panics;

pub use check::check;
pub use control::Ended;
pub use simulate::simulate;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: PathBuf,
    /// If the file is bad, start with the last good copy of it.
    pub last_good: bool,
    /// Start although the saved state is of a newer format.
    pub ignore_state: bool,
    /// Diagnostics on stderr may be coloured.
    pub color: bool,
    /// Obey the process's signals; off when weir is a guest in another program.
    pub signals: bool,
}

/// Where a running weir listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub listeners: Vec<(ListenerName, Bind)>,
    pub admin: SocketAddr,
    /// `weir 0.1  web http://...  ready in 12 ms`.
    pub ready_line: String,
}

/// Why there is none.
#[derive(Debug)]
pub struct StartError {
    /// For people; may have several lines.
    pub text: String,
    pub exit: Exit,
}

impl StartError {
    fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { text: text.into(), exit }
    }
}

/// A running weir. Dropping it does not stop it; see `stop`.
#[derive(Debug)]
pub struct Running {
    pub addresses: Addresses,
    stop: oneshot::Sender<()>,
    control: JoinHandle<Ended>,
}

impl Running {
    /// Drains as on SIGTERM and returns when it is over. Blocks.
    pub fn stop(self) -> Ended {
        let _ = self.stop.send(());
        self.control.join().unwrap_or(Ended::Failed)
    }

    /// Returns when it has ended by itself, on a signal. Blocks.
    pub fn wait(self) -> Ended {
        let _keep = self.stop;
        self.control.join().unwrap_or(Ended::Failed)
    }
}

/// Starts everything and returns when it is ready. Blocks.
///
/// # Errors
/// What is wrong with the file, the state or the addresses; then nothing is left running.
pub fn start(options: Options) -> Result<Running, StartError> {
    let (ready, is_ready) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let control = std::thread::Builder::new()
        .name("weir-control".to_owned())
        .spawn(move || control::run(&options, &ready, stopped))
        .map_err(|e| StartError::new(Exit::Failed, format!("error: no thread: {e}")))?;
    match is_ready.recv() {
        Ok(Ok(addresses)) => Ok(Running { addresses, stop, control }),
        Ok(Err(error)) => {
            let _ = control.join();
            Err(error)
        }
        Err(_) => Err(StartError::new(Exit::Failed, "error: the control thread died")),
    }
}

/// `weir run`: starts, says so, and stays until told to end.
pub fn run(options: Options) -> ExitCode {
    panics::install();
    match start(options) {
        Ok(running) => {
            eprint_line(&running.addresses.ready_line);
            running.wait().exit().into()
        }
        Err(error) => {
            eprint_line(error.text.trim_end());
            error.exit.into()
        }
    }
}

/// The one line that is neither event nor data: for the person who started us.
fn eprint_line(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// `weir demo`.
pub fn demo(seconds: Option<u64>) -> ExitCode {
    let start = |config| {
        let options = Options { config, last_good: false, ignore_state: false, color: false, signals: false };
        let running = start(options).map_err(|e| e.text)?;
        Ok(move || {
            running.stop();
        })
    };
    match demo::run(&demo::Options { seconds, signals: true }, std::io::stdout(), start) {
        Ok(_) => Exit::Done.into(),
        Err(error) => {
            eprint_line(&format!("error: {error}"));
            let exit = if matches!(error, demo::DemoError::NoPort(..)) { Exit::Address } else { Exit::Failed };
            exit.into()
        }
    }
}
