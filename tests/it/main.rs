//! End-to-end tests: the built binary, real sockets, seen as a user sees it.
//!
//! Short forms run by default; `WEIR_SOAK=1` runs the full forms and asserts the timing bars. A test that needs a tool
//! which is missing says so on stderr and is skipped, or fails with `WEIR_REQUIRE_TOOLS=1`.
//! Rule: nothing here sleeps to wait; conditions are polled with a deadline (`support::wait_for`).
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "the whole binary is test code, helpers included")]

mod admin_api;
mod ambiguous;
mod balance;
mod certificates;
mod check;
mod cli;
mod crash;
mod descriptors;
mod dns;
mod drain;
mod drain_protocols;
mod eject;
mod errors;
mod faulty_origin;
mod floods;
mod forwarded;
mod forwarding;
mod headers;
mod health;
mod health_faults;
mod http2;
mod http2_abuse;
mod http2_origin;
mod instruments;
mod interim;
mod limits;
mod listeners;
mod logs;
mod metrics;
mod mixed;
mod oddities;
mod proxy_header;
mod queue;
mod reload;
mod rescue;
mod retries;
mod rollback;
mod rolling;
mod rollouts;
mod routes_full;
mod rules;
mod shutdown;
mod split;
mod sticky;
mod streaming;
mod support;
mod systemd;
mod trailers;
mod unavailable;
mod unix;
mod unix_endpoints;
mod upgrade;
mod upstream_tls;
