//! The instruments themselves: what the support code must notice, it notices without weir in between.

use crate::support::{After, Connection, Failure, Load, Origin, Plan, pair};

#[test]
fn cuts_are_told_from_ends() {
    for (answer, after, whole) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", After::Close, true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nwhole", After::Close, false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n", After::Close, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n", After::Close, false),
        ("HTTP/1.1 200 OK\r\n\r\nwhole", After::Close, true),
        ("HTTP/1.1 200 OK\r\nContent-Len", After::Close, false),
        ("", After::Reset, false),
    ] {
        let origin = Origin::scripted(move |exchange| exchange.wire.send(answer).map(|()| after));
        let seen = Connection::open(origin.address).unwrap().get("/");
        assert_eq!(seen.is_ok_and(|a| a.text() == "whole"), whole, "{answer:?}");
    }
}

#[test]
fn load_counts_failures_and_versions() {
    let (v1, _) = pair();
    let plan = Plan { address: v1.address, connections: 4, pace: None, until_refused: false };
    let load = Load::start(&plan);
    load.wait_for_more(1000);
    let report = load.stop();
    report.expect_no_failure();
    assert_eq!(report.by_version().keys().collect::<Vec<_>>(), [&"v1"]);

    let flaky = Origin::scripted(|exchange| exchange.ok("v1").map(|_| After::Close));
    let load = Load::start(&Plan { address: flaky.address, ..plan });
    crate::support::wait_until("an idle connection that was closed is a failure", || load.has_failed());
    assert!(!load.stop().failures.is_empty());
}

#[test]
fn refusals_are_told() {
    let nobody = crate::support::free_address();
    assert_eq!(Connection::open(nobody).err(), Some(Failure::Refused));
}
