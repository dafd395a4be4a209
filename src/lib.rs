//! weir: a Layer-7 reverse proxy for shipping new versions without anybody noticing.
//!
//! This page is the map. A folder is a *room* with one responsibility; its `mod.rs` opens with what it owns, what it
//! refuses, and the invariants it keeps. Rooms stand on floors and import from lower floors only, never sideways
//! (`tests/layering.rs` holds this table and compares it with every `use`).
//!
//! | floor | rooms | in one word |
//! |---|---|---|
//! | 8 | `main` | arguments in, exit code out |
//! | 7 | [`app`] | wiring |
//! | 6 | [`admin`], [`cli`], [`demo`], [`simulate`] | outside voices: operators, scripts, newcomers |
//! | 5 | [`proxy`], [`health`], [`dns`], [`rollout`], [`reload`], [`upgrade`] | workers; strangers to one another |
//! | 4 | [`state`], [`checks`], [`notices`] | the snapshot and its one write path; those outside who are asked and told |
//! | 3 | [`telemetry`], [`pool`], [`net`], [`tls`], [`lifecycle`] | live parts, each usable alone |
//! | 2 | [`routing`], [`balance`], [`analysis`], [`rate`] | rules |
//! | 1 | [`config`] | the operator's text made safe |
//! | 0 | [`model`] | words |
//!
//! # One request
//! A worker thread ([`proxy::DataPlane`]) accepts it, reads the one [`state::Snapshot`] through its own cached view,
//! finds the route ([`routing::RouteTable`]), lets the deck ([`routing::Deck`]) choose the version, claims an endpoint
//! ([`pool::Pool::claim`]: counted and tested for drain in one atomic step), sends it over one of its own connections
//! ([`net::upstream`]), and streams both bodies. The claim and the books live in the response body and end with it.
//! Nothing on that way takes a lock, crosses a thread or looks up a label.
//!
//! # One change
//! Whoever wants one (the file, the API, the command line) writes an [`state::Order`]; [`state::Store::apply`] checks
//! it, writes `state.json`, swaps the snapshot, publishes the event and answers, in that order (a rollback and a
//! reload swap first). There is no other way.
//!
//! # Words
//! *listener*: a bound address. *route*: which requests go to which split. *split*: one application whose requests are
//! divided among its versions. *version*: one release. *endpoint*: one address that answers. *override*: weights set at
//! runtime. *held*: an override that also defies the file. *in-flight*: claimed and not yet ended, body included.
//! *drain*: takes no new claim, finishes what it has. *snapshot*: what requests see. *revision*: its rising number.
//! *epoch*: the number of a split's present coin. *cell*: additive counts of one version on one worker in one epoch.

pub mod admin;
pub mod analysis;
pub mod app;
pub mod balance;
pub mod checks;
pub mod cli;
pub mod config;
pub mod demo;
pub mod dns;
pub mod health;
pub mod lifecycle;
pub mod model;
pub mod net;
pub mod notices;
pub mod pool;
pub mod proxy;
pub mod rate;
pub mod reload;
pub mod rollout;
pub mod routing;
pub mod simulate;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod upgrade;
