//! Keys that only a restart can change: their old values stay in force, and the operator is told.

use std::sync::Arc;

use super::load::Problem;
use crate::config::Config;

/// The new configuration as far as the running process can take it, and a warning for each key it cannot.
pub(super) fn keep_what_needs_a_restart(running: &Config, new: &Arc<Config>) -> (Arc<Config>, Vec<Problem>) {
    let mut kept = Config::clone(new);
    let mut problems = Vec::new();
    let mut keep = |key: &str, in_file: String, in_force: String| {
        problems.push(Problem {
            code: "restart-needed",
            is_warning: true,
            key: key.to_owned(),
            message: format!("`{key}` is {in_file} in the file, but {in_force} is in force until weir is restarted"),
            help: "restart weir to change it; everything else in the file is in force".to_owned(),
        });
    };
    if new.workers != running.workers {
        keep("workers", new.workers.to_string(), running.workers.to_string());
        kept.workers = running.workers;
    }
    if new.admin.bind != running.admin.bind {
        keep("admin.bind", new.admin.bind.to_string(), running.admin.bind.to_string());
        kept.admin.bind = running.admin.bind;
    }
    if new.admin.state_dir != running.admin.state_dir {
        let (in_file, in_force) = (&new.admin.state_dir, &running.admin.state_dir);
        keep("admin.state_dir", in_file.display().to_string(), in_force.display().to_string());
        kept.admin.state_dir.clone_from(in_force);
    }
    if new.telemetry.bind != running.telemetry.bind {
        let text = |bind: Option<std::net::SocketAddr>| bind.map_or_else(|| "unset".to_owned(), |at| at.to_string());
        keep("telemetry.bind", text(new.telemetry.bind), text(running.telemetry.bind));
        kept.telemetry.bind = running.telemetry.bind;
    }
    if problems.is_empty() { (new.clone(), problems) } else { (Arc::new(kept), problems) }
}
