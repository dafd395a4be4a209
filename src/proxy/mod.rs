//! The data plane: accepts, routes, splits, forwards, records.
//!
//! Owns: the worker threads and everything on the request path. Refuses: changing anything; it reads the snapshot.
//! Invariants: nothing on the request path takes a lock, crosses a thread, or looks up a label; every accepted request
//! gets exactly one outcome and one entry in the books (`exchange`).

mod arrival;
mod attempt;
mod body;
mod bytes;
mod choose;
mod client;
mod client_io;
mod clock;
mod connection;
mod deadlines;
mod early;
mod error;
mod exchange;
mod fields;
mod flow;
mod flush;
mod framing;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod headers;
mod http1;
mod http2;
mod leaving;
mod listener;
mod local;
mod outgoing;
mod plane;
mod queue;
mod request_id;
mod retry;
mod room;
mod send;
mod service;
mod shortage;
mod stall;
mod trailers;
mod tunnel;
mod upload;
mod view;
mod websocket;
mod worker;
mod ws_frames;

pub use bytes::ConnectionBytes;
pub use plane::{Cut, DataPlane, Parts};
pub use shortage::client_places;
