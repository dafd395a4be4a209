//! Everything at once, in an order nobody has thought of: reloads, shifts, rollbacks, releases, drains called off and
//! drains to the end, processes replaced, and at last the stop. Faults that hide in combinations show themselves here.
//!
//! The order comes from a seed that is told; `WEIR_SEED` plays one again.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::fence::Rule;
use super::mix::Mix;
use super::origin::OriginProcess;
use super::reloads::varied;
use super::rolling::leave;
use super::stage::{SPLITS, Stage};
use crate::support::{Answer, tell, times, wait_until};

#[test]
fn in_any_order() {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    tell(&format!("combined: WEIR_SEED={seed}"));
    let mut play = Play::start(fastrand::Rng::with_seed(seed));
    for n in 0..times(12, 300) {
        let step = play.step(n);
        play.mix.check();
        // Now and then the next change comes at once, upon what has not settled.
        if play.rng.bool() {
            play.mix.wait_for_more(1);
        }
        play.steps.push(step);
    }
    let Play { mut stage, mix, steps, .. } = play;
    mix.end_when_refused();
    stage.weir.signal(Signal::TERM);
    let status = stage.weir.wait_exit(Duration::from_secs(30));
    mix.check();
    assert_eq!(status.code(), Some(0), "{status}");
    wait_until("every client is refused at last", || mix.is_over());
    mix.stop().tell(&format!("combined, {steps:?}"));
}

struct Play {
    rng: fastrand::Rng,
    // Before the processes, so that the clients end before what they talk to.
    mix: Mix,
    stage: Stage,
    v1: Vec<OriginProcess>,
    v2: Vec<OriginProcess>,
    /// How many processes there were.
    born: usize,
    /// The file's number.
    file: usize,
    steps: Vec<&'static str>,
}

impl Play {
    fn start(rng: fastrand::Rng) -> Self {
        let v1: Vec<_> = (0..3).map(|n| OriginProcess::start(&format!("v1-{n}"))).collect();
        let v2: Vec<_> = (0..2).map(|n| OriginProcess::start(&format!("v2-{n}"))).collect();
        let stage = Stage::start(&varied(&v1, &v2, 1));
        Self { rng, mix: stage.load(), stage, v1, v2, born: 5, file: 1, steps: Vec::new() }
    }

    fn step(&mut self, n: usize) -> &'static str {
        // The first few are one of each.
        match if n < 6 { n } else { self.rng.usize(..6) } {
            0 => self.reload(),
            1 => self.shift(),
            2 => self.drain_and_undrain(),
            3 => self.roll_back(),
            4 => self.release(),
            _ => self.replace(),
        }
    }

    fn reload(&mut self) -> &'static str {
        self.file += 1;
        self.stage.weir.edit(&varied(&self.v1, &self.v2, self.file));
        expect(&self.stage.weir.admin.ask("POST", "/api/v1/config/reload", "", None), &[200]);
        "reload"
    }

    fn shift(&mut self) -> &'static str {
        let v1 = self.rng.u32(0..=100);
        self.stage.put_weights(v1, 100 - v1);
        "shift"
    }

    fn roll_back(&mut self) -> &'static str {
        for split in SPLITS {
            let path = format!("/api/v1/splits/{split}/rollback");
            // 409: everything is there already.
            expect(&self.stage.weir.admin.post(&path, json!({"to": "v1"})), &[200, 409]);
        }
        "rollback"
    }

    fn release(&mut self) -> &'static str {
        for split in SPLITS {
            expect(&self.stage.weir.admin.delete(&format!("/api/v1/splits/{split}/override")), &[200, 409]);
        }
        "release"
    }

    /// A drain that is called off before it is over, or just after.
    fn drain_and_undrain(&mut self) -> &'static str {
        let one = &self.v1[self.rng.usize(..self.v1.len())];
        self.order("drain", one);
        if self.rng.bool() {
            self.mix.wait_for_more(1);
        }
        self.order("undrain", one);
        "drain and undrain"
    }

    fn order(&self, what: &str, origin: &OriginProcess) {
        for (split, address) in SPLITS.iter().zip([origin.http1, origin.http2]) {
            let path = format!("/api/v1/splits/{split}/versions/v1/{what}");
            expect(&self.stage.weir.admin.post(&path, json!({"endpoint": address.to_string()})), &[200]);
        }
    }

    /// The oldest process of v1 gives way to a new one, and is killed the moment it is empty.
    fn replace(&mut self) -> &'static str {
        self.v1.push(OriginProcess::start(&format!("v1-{}", self.born)));
        self.born += 1;
        self.reload();
        let old = self.v1.remove(0);
        self.order("drain", &old);
        if self.rng.bool() {
            self.reload();
        }
        leave(&self.stage, &self.mix, old);
        self.reload();
        self.mix.plan.fence.set(Rule::Anybody);
        "replace"
    }
}

#[track_caller]
fn expect(answer: &Answer, any: &[u16]) {
    assert!(any.contains(&answer.status()), "{}{}", answer.head.raw, answer.text());
}
