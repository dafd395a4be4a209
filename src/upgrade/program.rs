//! Which file to start again, and how: as this process was started, from the same path, so that a file that was replaced
//! meanwhile is the new one.
//!
//! Not `/proc/self/exe`: that leads to the file as it was, and through links to where they led. Invariant: what is
//! started has the arguments, the environment and the priority this process had at its own start.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tells a successor that it is one, and of which process.
pub(super) const FROM: &str = "WEIR_UPGRADE_FROM";
/// What a service manager said to this process only.
const NOT_FOR_IT: [&str; 5] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_PID"];

/// See the file's head.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
    nice: i32,
}

impl Program {
    /// How this process was started; to be asked at the start, before the folder or the priority may change.
    pub fn of_this_process() -> Self {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_else(|| "weir".into());
        Self {
            path: resolve(&name),
            name,
            arguments: arguments.collect(),
            nice: rustix::process::getpriority_process(None).unwrap_or(0),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What starts it; from a thread of its own, whose priority becomes that of the successor.
    pub(super) fn command(&self) -> Command {
        // Less urgent is always allowed; else it is as it was.
        let _ = rustix::process::setpriority_process(None, self.nice);
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.arguments).env(FROM, std::process::id().to_string());
        for name in NOT_FOR_IT {
            command.env_remove(name);
        }
        command
    }
}

/// As a shell finds it.
fn resolve(name: &OsString) -> PathBuf {
    let path = Path::new(name);
    if path.components().count() > 1 || path.is_absolute() {
        return std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    }
    let places = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&places).map(|place| place.join(path)).find(|path| path.is_file());
    found.or_else(|| env::current_exe().ok()).unwrap_or_else(|| path.to_owned())
}
