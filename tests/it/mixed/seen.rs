//! The harness itself: a load that saw nothing would prove nothing. A process killed with all it has open, without a
//! drain, is seen by every client.

use super::origin::OriginProcess;
use super::stage::{Stage, conf};
use super::tally::End;
use crate::support::wait_until;

#[test]
fn a_kill_without_a_drain_fails_every_client() {
    // A version's only endpoint: nothing can take its place, and nothing ejects it.
    let origin = [OriginProcess::start("v1-0")];
    let stage = Stage::start(&conf(&[("v1", 1, &origin)]));
    let mix = stage.load();
    origin.into_iter().for_each(OriginProcess::kill);
    mix.wait_for_failures_of_all();
    let failures = mix.stop_anyhow().total.failures;
    let cuts = failures.iter().filter(|text| text.contains("Cut(") || text.contains("old: ")).count();
    assert!(cuts > 0, "some were cut in the middle: {failures:#?}");
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
