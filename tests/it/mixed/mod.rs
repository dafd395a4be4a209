//! Mixed load: clients of every kind at the same time (keep-alive HTTP/1.1, HTTP/2 streams, TLS, WebSocket, server-sent
//! events, gRPC) before origins that are processes, while endpoints, versions, files and weir itself come and go.
//!
//! Invariant of every scenario: 0 failed requests, and 0 connections that end without having been asked to. The short
//! forms run by default, the full ones with `WEIR_SOAK=1`; all of them are bounded in time and count.

mod echo;
mod events;
mod fence;
mod keep_alive;
mod mix;
mod origin;
mod origin_http2;
mod plan;
mod socket;
mod stage;
mod stream_kinds;
mod streams;
mod tally;

mod blue_green;
mod combined;
mod reloads;
mod rolling;
mod seen;
mod shutdown;
mod upgrades;
