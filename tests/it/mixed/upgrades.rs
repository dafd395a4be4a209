//! A new binary takes over (SIGUSR2) again and again: the sockets are handed on, the old process finishes what it has
//! and goes, and what was set at runtime is in force in the new one.
//!
//! The new processes are no children of the test. They are found by the folder they run in, which is the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::mix::Mix;
use super::origin::OriginProcess;
use super::stage::{Stage, conf_at};
use super::tally::End;
use crate::support::{free_address, tell, times, wait_for_within, wait_until};

#[test]
fn one_binary_after_the_other() {
    let origins = [0, 1].map(|n| OriginProcess::start(&format!("v1-{n}")));
    let others = [OriginProcess::start("v2-0")];
    let conf = conf_at(free_address(), &[("v1", 90, &origins), ("v2", 10, &others)]);
    let mut stage = Stage::start(&conf.bind(free_address()).admin_bind(free_address()));
    let lineage = Lineage(stage.weir.dir().to_owned());
    stage.put_weights(70, 30);
    let mut plan = stage.plan();
    // Tunnels may stay with an old process for as long as they like; here each one is to end.
    plan.long_sockets = false;
    let mix = Mix::start(plan);
    let mut serving = stage.weir.pid();
    for n in 1..=times(2, 20) {
        kill_process(pid(serving), Signal::USR2).unwrap();
        let new = mix_until(&mix, "a new process", || lineage.members().into_iter().find(|p| *p != serving));
        // Its parent reaps the first one; whoever is left without a parent, the system does.
        mix_until(&mix, &format!("upgrade {n}: {serving} is gone"), || {
            _ = stage.weir.exited();
            (!lineage.members().contains(&serving)).then_some(())
        });
        assert_eq!(lineage.members(), [new], "one process after upgrade {n}");
        wait_until("it is ready", || stage.weir.admin.get("/readyz").status() == 200);
        assert_eq!(stage.weir.admin.weights(), (70, 30), "an override outlives upgrade {n}");
        serving = new;
        mix.wait_for_more(1);
    }
    assert_eq!(stage.weir.exited().and_then(|status| status.code()), Some(0), "the first one has ended well");
    let summary = mix.stop();
    for client in ["h2c", "h2-tls", "grpc", "grpc-tls"] {
        assert!(summary.of(client).ended(End::GoAway) > 0, "{client} was not told");
    }
    summary.tell("binary upgrades");
    tell(&format!(
        "upgrades: {} crossed a FIN, {} sent again",
        summary.total.ended(End::Crossed),
        summary.total.resent
    ));
    kill_process(pid(serving), Signal::TERM).unwrap();
    wait_for_within("the last one ends", Duration::from_secs(30), || lineage.members().is_empty().then_some(()));
}

/// As `Mix::wait`, with an answer: the first failure of any client ends the wait.
#[track_caller]
fn mix_until<T>(mix: &Mix, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    wait_for_within(what, Duration::from_secs(30), || {
        mix.check();
        ask()
    })
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw.cast_signed()).unwrap()
}

/// The processes that run in that folder; none of them outlives the test.
struct Lineage(PathBuf);

impl Lineage {
    /// By number; a process that has ended is none, reaped or not.
    fn members(&self) -> Vec<u32> {
        let is_there = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| is_same(&cwd, &self.0));
        let all = fs::read_dir("/proc").unwrap().flatten();
        let mut members: Vec<u32> = all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(is_there).collect();
        members.sort_unstable();
        members
    }
}

fn is_same(cwd: &Path, dir: &Path) -> bool {
    cwd == dir || dir.canonicalize().is_ok_and(|dir| cwd == dir)
}

impl Drop for Lineage {
    fn drop(&mut self) {
        // Fails only for one that has ended meanwhile.
        self.members().into_iter().for_each(|member| _ = kill_process(pid(member), Signal::KILL));
    }
}
