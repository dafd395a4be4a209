//! A new configuration file becomes what requests see, or changes nothing at all.
//!
//! Owns: when a file counts as changed (`watch`), the order of a reload (`Reloader`), what came of the last one
//! (`ReloadStatus`), the last good copy on disk. Refuses: reading TOML (it is given a `Loader`), requests, sockets in
//! use (it speaks to `net::listen::Listeners`).
//! Invariants: one reload at a time, whoever asks (file, signal, API); until `Store::apply` has agreed nothing of the
//! old world is touched; a file that is bad, gone or half-written leaves everything as it is.

mod eyes;
mod last_good;
mod links;
mod load;
mod outcome;
mod reloader;
mod restart;
mod settle;
mod sight;
mod watcher;

pub use last_good::last_good_path;
pub use load::{Explain, LoadedConfig, Loader, Problem, Report};
pub use outcome::{ReloadOutcome, ReloadResult, ReloadStatus};
pub use reloader::{Effective, Gone, Paused, ReloadHandle, Reloader, not_applied, not_bound, wanted};
pub use watcher::watch;
