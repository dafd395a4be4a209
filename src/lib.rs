//! weir: a Layer-7 reverse proxy for shipping new versions without anybody noticing.

pub mod admin;
pub mod app;
pub mod balance;
pub mod cli;
pub mod config;
pub mod demo;
pub mod lifecycle;
pub mod model;
pub mod net;
pub mod pool;
pub mod proxy;
pub mod reload;
pub mod routing;
pub mod state;
pub mod telemetry;
