//! SIGTERM behind clients that follow `Connection: close` and GOAWAY: every request that was begun gets its answer, every
//! stream its end, and then the process is gone. That a connect is refused afterwards is the end that is waited for.

use std::time::Duration;

use rustix::process::Signal;

use super::origin::OriginProcess;
use super::stage::{Stage, conf};
use super::tally::{Counts, End};
use crate::support::{tell, times, wait_until};

#[test]
fn a_term_loses_nobody() {
    let origins = [0, 1].map(|n| OriginProcess::start(&format!("v1-{n}")));
    let mut total = Counts::default();
    for n in 0..times(2, 20) {
        let mut stage = Stage::start(&conf(&[("v1", 1, &origins)]));
        let mix = stage.load();
        mix.wait_for_more(n % 3);
        mix.end_when_refused();
        stage.weir.signal(Signal::TERM);
        let status = stage.weir.wait_exit(Duration::from_secs(30));
        mix.check();
        assert_eq!(status.code(), Some(0), "{status}");
        wait_until("every client is refused at last", || mix.is_over());
        let summary = mix.stop();
        assert!(summary.of("http1 a").ended(End::SaidClose) + summary.of("http1 a").ended(End::Crossed) > 0);
        for client in ["h2c", "h2-tls", "h2-tls idle", "grpc", "grpc-tls"] {
            assert!(summary.of(client).ended(End::GoAway) > 0, "{client} was not told");
        }
        summary.expect_closed_with(1012);
        summary.tell("SIGTERM");
        total.add(&summary.total);
    }
    tell(&format!("SIGTERM: {} crossed a FIN, {} streams sent again", total.ended(End::Crossed), total.resent));
}
