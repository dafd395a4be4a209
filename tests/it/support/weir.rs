//! The binary under test.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::process::KillOnDrop;
use super::{Admin, Conf, Connection, Done, LIMIT, run, wait_for_within};

/// A command line of ours, run to its end.
#[track_caller]
pub fn weir(arguments: &[&str]) -> Done {
    run(command().args(arguments), 2 * LIMIT)
}

fn command() -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_weir")))
}

fn command_of(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for name in ["WEIR_ADMIN", "WEIR_TOKEN", "WEIR_CONFIG", "STATE_DIRECTORY", "NOTIFY_SOCKET", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
    command
}

/// A running `weir run`, with its folder: `weir.toml`, `state/`, and what it printed.
pub struct Weir {
    process: KillOnDrop,
    dir: Arc<TempDir>,
    config: PathBuf,
    run: usize,
    /// Listener names and addresses from the ready line.
    listeners: Vec<(String, SocketAddr)>,
    pub admin: Admin,
    /// Processes that have taken over, by upgrades; they end with this.
    heirs: Mutex<Vec<u32>>,
}

impl Weir {
    /// Writes the configuration, starts, waits until ready.
    #[track_caller]
    pub fn start(conf: &Conf) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let config = dir.path().join("weir.toml");
        fs::write(&config, in_dir(&dir, &conf.text())).unwrap();
        Self::start_in(dir, config, 0)
    }

    /// `start` with a text that `Conf` cannot write.
    #[track_caller]
    pub fn start_text(text: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let config = dir.path().join("weir.toml");
        fs::write(&config, in_dir(&dir, text)).unwrap();
        Self::start_in(dir, config, 0)
    }

    /// `start`, with files of the test beside the configuration: PEM pairs by their paths without ending.
    #[track_caller]
    pub fn start_with(conf: &Conf, pairs: &[(&str, &super::Pair)], texts: &[(&str, &str)]) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        pairs.iter().for_each(|(name, pair)| pair.write(dir.path(), name));
        texts.iter().for_each(|(name, text)| super::replace(dir.path(), name, text));
        let config = dir.path().join("weir.toml");
        fs::write(&config, in_dir(&dir, &conf.text())).unwrap();
        Self::start_in(dir, config, 0)
    }

    /// Starts with the configuration as the test has laid it out in `dir`.
    #[track_caller]
    pub fn start_in(dir: Arc<TempDir>, config: PathBuf, run: usize) -> Self {
        let nowhere = Admin { address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let process = spawn(&dir, &config, run);
        let mut this =
            Self { process, dir, config, run, listeners: Vec::new(), admin: nowhere, heirs: Mutex::default() };
        let line = wait_for_within("the ready line", LIMIT, || {
            if let Some(status) = this.process.0.try_wait().unwrap() {
                panic!("ended before it was ready: {status}");
            }
            this.stderr().lines().find(|l| l.starts_with("weir ") && l.contains("ready in")).map(str::to_owned)
        });
        (this.listeners, this.admin) = addresses(&line);
        this
    }

    /// `start`, by way of a link that `replace_binary` can make lead elsewhere.
    #[track_caller]
    pub fn start_replaceable(conf: &Conf) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        fs::create_dir(dir.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weir"), dir.path().join("bin/weir")).unwrap();
        let config = dir.path().join("weir.toml");
        fs::write(&config, in_dir(&dir, &conf.text())).unwrap();
        Self::start_in(dir, config, 0)
    }

    /// What is at the path of the binary from now on: a script, or the real one.
    pub fn replace_binary(&self, script: Option<&str>) {
        let (new, path) = (self.dir().join("bin/new"), self.dir().join("bin/weir"));
        match script {
            Some(text) => {
                fs::write(&new, text).unwrap();
                fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
            }
            None => std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weir"), &new).unwrap(),
        }
        fs::rename(new, path).unwrap();
    }

    /// Upgrades by the API, which must succeed; gives the new process.
    #[track_caller]
    pub fn upgrade(&self) -> u32 {
        let answer = self.admin.ask("POST", "/api/v1/upgrade", "", None);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let pid = u32::try_from(answer.json()["pid"].as_u64().unwrap()).unwrap();
        self.heirs.lock().unwrap().push(pid);
        pid
    }

    /// Waits until another process than that one answers on the admin address.
    #[track_caller]
    pub fn wait_heir(&self, before: u32) -> u32 {
        let pid = wait_for_within("another process answers", 2 * LIMIT, || {
            let answer = self.admin.try_ask("GET", "/api/v1/status", "", None).ok()?;
            u32::try_from(answer.json()["pid"].as_u64()?).ok().filter(|pid| *pid != before)
        });
        self.heirs.lock().unwrap().push(pid);
        pid
    }

    /// Signals another process than the first.
    pub fn signal_to(&self, pid: u32, signal: Signal) {
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }

    /// Starts what must not come up; gives its exit and output.
    #[track_caller]
    pub fn start_refused(text: &str) -> Done {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let config = dir.path().join("weir.toml");
        fs::write(&config, in_dir(&dir, text)).unwrap();
        weir(&["run", "--config", config.to_str().unwrap()])
    }

    /// The address of listener `web`.
    pub fn web(&self) -> SocketAddr {
        self.listener("web")
    }

    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        let found = self.listeners.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("no listener {name} in {:?}", self.listeners)).1
    }

    /// A new client connection to `web`.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.web()).unwrap()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn state_file(&self) -> PathBuf {
        self.dir().join("state/state.json")
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(log_file(&self.dir, "stdout", self.run)).unwrap_or_default()
    }

    /// The access line of the only request for that path.
    #[track_caller]
    pub fn line_of(&self, path: &str) -> serde_json::Value {
        wait_for_within(&format!("the access line of {path}"), LIMIT, || {
            let lines = self.stdout();
            let lines = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let lines: Vec<_> = lines.filter(|line| line["path"] == path).collect();
            assert!(lines.len() < 2, "{lines:?}");
            lines.into_iter().next()
        })
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(log_file(&self.dir, "stderr", self.run)).unwrap_or_default()
    }

    /// Replaces the configuration by rename, as editors do.
    pub fn edit(&self, conf: &Conf) {
        self.edit_text(&conf.text());
    }

    pub fn edit_text(&self, text: &str) {
        let new = self.dir().join("weir.toml.new");
        fs::write(&new, in_dir(&self.dir, text)).unwrap();
        fs::rename(&new, &self.config).unwrap();
    }

    /// Overwrites the configuration in place, as `sed -i`'s opposite does.
    pub fn edit_in_place(&self, conf: &Conf) {
        fs::write(&self.config, in_dir(&self.dir, &conf.text())).unwrap();
    }

    /// A command line that talks to this weir.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Done {
        let admin = format!("http://{}", self.admin.address);
        run(command().args(arguments).args(["--admin", &admin]), 2 * LIMIT)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.0), signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Its exit, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.0.try_wait().unwrap()
    }

    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        wait_for_within("the process ends", limit, || self.exited())
    }

    /// `kill -9`, then starts again in the same folder.
    #[track_caller]
    pub fn kill_and_restart(mut self) -> Self {
        self.kill();
        self.restart()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// Starts again in the same folder after it ended.
    #[track_caller]
    pub fn restart(self) -> Self {
        assert!(self.heirs.lock().unwrap().is_empty(), "its heirs would hold the lock");
        Self::start_in(self.dir.clone(), self.config.clone(), self.run + 1)
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        for pid in std::mem::take(&mut *self.heirs.lock().unwrap()) {
            self.signal_to(pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("--- weir's stderr:\n{}", tail(&self.stderr(), 40));
            eprintln!("--- weir's stdout:\n{}", tail(&self.stdout(), 8));
        }
    }
}

/// Fills in the folder.
pub fn in_dir(dir: &TempDir, text: &str) -> String {
    text.replace("@DIR@", dir.path().to_str().unwrap())
}

fn spawn(dir: &TempDir, config: &Path, run: usize) -> KillOnDrop {
    // Not beside the configuration: every line would be an event of the folder that is watched.
    fs::create_dir_all(dir.path().join("out")).unwrap();
    let file = |name| File::create(log_file(dir, name, run)).unwrap();
    let replaceable = dir.path().join("bin/weir");
    let mut command = if replaceable.exists() { command_of(&replaceable) } else { command() };
    command.arg("run").arg("--config").arg(config).current_dir(dir.path());
    if let Ok(path) = fs::read_to_string(dir.path().join("notify")) {
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "500000");
    }
    command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
    KillOnDrop(command.spawn().unwrap())
}

fn log_file(dir: &TempDir, name: &str, run: usize) -> PathBuf {
    dir.path().join("out").join(format!("{name}.{run}"))
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// `weir 0.1  web http://127.0.0.1:8080   dashboard http://127.0.0.1:9901   shop: ...   ready in 12 ms`
fn addresses(line: &str) -> (Vec<(String, SocketAddr)>, Admin) {
    let mut name = "";
    let mut all = Vec::new();
    for word in line.split_whitespace() {
        match word.strip_prefix("http://").or_else(|| word.strip_prefix("https://")) {
            Some(address) => {
                let address = address.trim_end_matches([',', '/']);
                all.push((name.to_owned(), address.parse().unwrap_or_else(|e| panic!("{address}: {e} in {line}"))));
            }
            None => name = word,
        }
    }
    let at = all.iter().position(|(n, _)| n == "dashboard").unwrap_or_else(|| panic!("no dashboard in {line}"));
    let admin = Admin { address: all.remove(at).1 };
    (all, admin)
}
