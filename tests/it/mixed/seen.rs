//! The harness itself: a load that saw nothing would prove nothing. A process killed with all it has open, without a
//! drain, is seen by the clients of every kind.

use super::origin::OriginProcess;
use super::stage::{Stage, conf};
use super::tally::End;
use crate::support::{wait_for, wait_until};

#[test]
fn a_kill_without_a_drain_fails_somebody_of_every_kind() {
    let kinds = ["http1 ", "http1-tls ", "ws ", "ws-tls ", "ws-h2", "sse", "grpc", "h2"];
    let mut missing: Vec<&str> = kinds.to_vec();
    // What is in flight at the instant of a kill is chance: of every kind somebody, over some kills.
    for _ in 0..5 {
        let mut origins: Vec<OriginProcess> = (0..2).map(|n| OriginProcess::start(&format!("v1-{n}"))).collect();
        let stage = Stage::start(&conf(&[("v1", 1, &origins)]));
        let mix = stage.load();
        let killed = origins.remove(0);
        mix.wait_for_endpoint(&killed.name);
        killed.kill();
        wait_until("it is seen", || !mix.failures().is_empty());
        // A connect to what is gone fails every other request, until the end.
        wait_for("many have failed", || (mix.failures().len() > 20).then_some(()));
        let failures = mix.stop_anyhow().total.failures;
        missing.retain(|kind| !failures.iter().any(|text| text.contains(&format!(" {kind}"))));
        if missing.is_empty() {
            return;
        }
    }
    panic!("nobody of these has seen a kill: {missing:?}");
}

/// And `crossed` is no cover for cuts: only what was open, idle and closed without a byte counts.
#[test]
fn a_weir_that_is_killed_is_no_crossing_for_streams() {
    let origins = [OriginProcess::start("v1-0")];
    let mut stage = Stage::start(&conf(&[("v1", 1, &origins)]));
    let mix = stage.load();
    mix.end_when_refused();
    stage.weir.kill();
    wait_until("every client is refused at last", || mix.is_over());
    let summary = mix.stop_anyhow();
    // One that was just connecting anew has seen nothing but a refusal.
    for two in [["sse", "sse-tls"], ["grpc", "grpc-tls"], ["ws", "ws-tls"], ["ws-h2c", "ws-h2-tls"]] {
        assert!(two.iter().any(|client| !summary.of(client).failures.is_empty()), "neither of {two:?} has seen it");
        assert!(two.iter().all(|client| summary.of(client).ended(End::Crossed) == 0), "{two:?}");
    }
    assert!(!summary.of("h2c").failures.is_empty(), "an end without a GOAWAY is a cut");
}
