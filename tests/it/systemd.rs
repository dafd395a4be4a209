//! Under a service manager: it is told what happens, and its sockets are used by their names.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Admin, Conf, Connection, Failure, KillOnDrop, LIMIT, Origin, Weir, free_address, in_dir, tool, wait_for, wait_until,
};

/// A service manager's ear.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message that is not about being alive.
    fn next(&self) -> String {
        loop {
            let text = self.any();
            if text != "WATCHDOG=1" {
                return text;
            }
        }
    }

    fn any(&self) -> String {
        let mut bytes = [0; 4096];
        let read = self.0.recv(&mut bytes).expect("a message");
        String::from_utf8(bytes[..read].to_vec()).unwrap()
    }
}

/// A weir that tells a manager, with a watchdog of half a second.
fn managed(conf: &Conf) -> (Manager, Weir) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let path = dir.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    fs::write(dir.path().join("notify"), path.to_str().unwrap()).unwrap();
    let config = dir.path().join("weir.toml");
    fs::write(&config, in_dir(&dir, &conf.text())).unwrap();
    (Manager(socket), Weir::start_in(dir, config, 0))
}

/// Whether no thread of it runs, by the state that follows the name in proc_pid_stat(5).
fn stands_still(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| {
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

#[test]
fn the_manager_is_told_what_happens_in_order() {
    let origin = Origin::named("v1");
    let conf = Conf::one(origin.address).top("watch = false");
    let (manager, mut weir) = managed(&conf);
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving; revision 1");
    for _ in 0..3 {
        wait_for("it is alive", || (manager.any() == "WATCHDOG=1").then_some(()));
    }
    weir.edit(&conf.clone().split("expose_version = true"));
    weir.signal(Signal::HUP);
    let reloading = manager.next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving; revision 2");
    weir.edit_text("nonsense");
    weir.signal(Signal::HUP);
    assert!(manager.next().starts_with("RELOADING=1\n"));
    assert!(manager.next().starts_with("READY=1\nSTATUS=the configuration was rejected; revision 2"));
    weir.edit(&conf);
    weir.signal(Signal::HUP);
    assert!(manager.next().starts_with("RELOADING=1\n"));
    assert!(manager.next().starts_with("READY=1\n"));

    let heir = weir.upgrade();
    assert_eq!(manager.next(), format!("MAINPID={heir}"));
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving; revision 3");
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    wait_for("the new one is alive", || (manager.any() == "WATCHDOG=1").then_some(()));
    weir.signal_to(heir, Signal::TERM);
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=finishing what is in flight");
    wait_until("it is gone", || matches!(Connection::open(weir.web()), Err(Failure::Refused)));
}

#[test]
fn a_process_that_does_not_turn_lets_the_watchdog_run_out() {
    let origin = Origin::named("v1");
    let (manager, weir) = managed(&Conf::one(origin.address));
    manager.next();
    wait_for("it is alive", || (manager.any() == "WATCHDOG=1").then_some(()));
    // One worker alone cannot be stopped from outside, so all are. The signal only asks for it: what a thread was about
    // to say it says before it stands still.
    weir.signal(Signal::STOP);
    wait_until("every thread stands still", || stands_still(weir.pid()));
    manager.0.set_nonblocking(true).unwrap();
    while manager.0.recv(&mut [0; 4096]).is_ok() {}
    manager.0.set_nonblocking(false).unwrap();
    manager.0.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    assert!(manager.0.recv(&mut [0; 4096]).is_err(), "twice its interval and not a word");
    weir.signal(Signal::CONT);
    manager.0.set_read_timeout(Some(LIMIT)).unwrap();
    wait_for("it is alive again", || (manager.any() == "WATCHDOG=1").then_some(()));
}

/// Opens sockets and passes them as a service manager does: from 3 up, with their names.
const PASS: &str = r#"
import os, socket, sys
opened = []
for place in sys.argv[2].split(","):
    if place.startswith("/"):
        s = socket.socket(socket.AF_UNIX)
        s.bind(place)
    else:
        s = socket.socket(socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host, port = place.split(":")
        s.bind((host, int(port)))
    s.listen(128)
    opened.append(s)
high = [os.dup2(s.fileno(), 100 + i) for i, s in enumerate(opened)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=sys.argv[1])
os.execv(sys.argv[3], sys.argv[3:])
"#;

/// A weir to which sockets were passed.
struct Activated {
    dir: tempfile::TempDir,
    process: KillOnDrop,
    heir: Option<u32>,
    admin: Admin,
}

impl Activated {
    /// With sockets by those names at those places.
    fn start(conf: &Conf, sockets: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let admin = Admin { address: free_address() };
        let text = in_dir(&dir, &conf.clone().admin_bind(admin.address).text());
        fs::write(dir.path().join("weir.toml"), text).unwrap();
        let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
        let places: Vec<String> = sockets.iter().map(|(_, place)| in_dir(&dir, place)).collect();
        let mut command = Command::new("python3");
        command.args(["-c", PASS, &names.join(":"), &places.join(","), env!("CARGO_BIN_EXE_weir"), "run", "--config"]);
        command.arg(dir.path().join("weir.toml")).env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(fs::File::create(dir.path().join("stderr")).unwrap());
        Self { process: KillOnDrop(command.spawn().unwrap()), dir, heir: None, admin }
    }

    fn ready(conf: &Conf, sockets: &[(&str, String)]) -> Self {
        let this = Self::start(conf, sockets);
        wait_until("it is ready", || this.stderr().contains("ready in"));
        this
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    fn edit(&self, conf: &Conf) {
        let text = in_dir(&self.dir, &conf.clone().admin_bind(self.admin.address).text());
        super::support::replace(self.dir.path(), "weir.toml", &text);
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        if let Some(pid) = self.heir.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("--- stderr:\n{}", self.stderr());
        }
    }
}

fn named(origin: &Origin) -> Conf {
    Conf::one(origin.address).workers(3).tail("[listeners.passed]\nbind = [\"systemd:web\", \"systemd:local\"]")
}

#[test]
fn sockets_are_used_by_name_over_reloads_and_upgrades() {
    if tool("python3").is_none() {
        return;
    }
    let origin = Origin::named("v1");
    let [one, two] = [free_address(), free_address()];
    let local = "@DIR@/weir.sock".to_owned();
    let sockets = [("web", one.to_string()), ("local", local), ("web", two.to_string())];
    let mut weir = Activated::ready(&named(&origin), &sockets);
    let path = weir.dir.path().join("weir.sock");
    let serves = |c: Result<Connection, Failure>| c.and_then(|mut c| c.get("/")).is_ok_and(|a| a.text() == "v1");
    let all = || serves(Connection::open(one)) && serves(Connection::open(two)) && serves(Connection::open_unix(&path));
    // Every worker accepts from the one socket.
    (0..30).for_each(|_| assert!(all()));

    weir.edit(&Conf::one(origin.address));
    wait_until("the listener is gone", || {
        weir.admin.json("/api/v1/status")["listeners"].as_array().is_some_and(|l| l.len() == 1)
    });
    weir.edit(&named(&origin));
    wait_until("it is back on the same sockets", all);

    let answer = weir.admin.ask("POST", "/api/v1/upgrade", "", None);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    weir.heir = answer.json()["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    wait_until("the old process is gone", || weir.process.0.try_wait().unwrap().is_some());
    (0..30).for_each(|_| assert!(all()));
    assert!(path.exists(), "its file is the manager's");
}

#[test]
fn a_name_that_was_not_passed_is_told_with_those_that_were() {
    if tool("python3").is_none() {
        return;
    }
    let origin = Origin::named("v1");
    let conf = Conf::one(origin.address).tail("[listeners.passed]\nbind = \"systemd:wbe\"");
    let mut weir =
        Activated::start(&conf, &[("web", free_address().to_string()), ("admin", free_address().to_string())]);
    let status = wait_for("it ends", || weir.process.0.try_wait().unwrap());
    let text = weir.stderr();
    assert_eq!(status.code(), Some(4), "{text}");
    assert!(text.contains("no socket named `systemd:wbe`; it passed web, admin"), "{text}");
    assert!(text.contains("listeners.passed.bind") || text.contains("weir.toml:"), "{text}");
    let done = Weir::start_refused(&conf.text());
    assert!(done.expect_code(4).all().contains("it passed none"));
}
