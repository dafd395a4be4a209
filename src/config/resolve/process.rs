//! What concerns the process as a whole: workers, shutdown, admin, telemetry.

use std::path::{Path as FsPath, PathBuf};

use super::{Context, address, matches};
use crate::config::error::Code;
use crate::config::load::Env;
use crate::config::path::Path;
use crate::config::raw::{RawAdmin, RawDns, RawLevel, RawLog, RawLogFormat, RawShutdown, RawTelemetry};
use crate::config::{Admin, Dns, Level, Log, LogFormat, Shutdown, Telemetry};

pub fn workers(written: usize) -> usize {
    if written > 0 { written } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

pub fn shutdown(raw: &RawShutdown, cx: &mut Context<'_>) -> Shutdown {
    let shutdown = Shutdown { delay: raw.delay.0, timeout: raw.timeout.0 };
    if shutdown.delay > shutdown.timeout {
        let path = Path::root().key("shutdown").key("delay");
        let problem = cx.problem(Code::OutOfRange, &path, "`shutdown.delay` is longer than `shutdown.timeout`");
        problem.label = Some("`timeout` counts from the signal, `delay` included".into());
        problem.help = Some("shorten `delay` or lengthen `timeout` (25s unless given)".into());
    }
    shutdown
}

pub fn admin(raw: &RawAdmin, folder: &FsPath, env: Env<'_>, cx: &mut Context<'_>) -> Option<Admin> {
    let path = Path::root().key("admin");
    let hosts = raw.hosts.iter().enumerate().filter_map(|(i, host)| admin_host(host, &path.key("hosts").index(i), cx));
    let hosts = hosts.collect();
    let bind_path = path.key("bind");
    let bind = bind(&raw.bind, &bind_path, cx)?;
    if !bind.ip().to_canonical().is_loopback() {
        let message = format!("the admin API would be open to everybody who reaches {bind}");
        let problem = cx.problem(Code::UnsafeAdmin, &bind_path, message);
        problem.label = Some("not a loopback address".into());
        problem.help = Some(format!("write \"127.0.0.1:{}\"; tokens are not built yet", bind.port()));
    }
    Some(Admin { bind, hosts, state_dir: state_dir(raw.state_dir.as_deref(), folder, env) })
}

pub fn dns(raw: &RawDns, folder: &FsPath, cx: &mut Context<'_>) -> Dns {
    let path = Path::root().key("dns").key("servers");
    let server = |(i, text): (usize, &String)| match address::name_server(text) {
        Ok(server) => Some(server),
        Err(error) => {
            error.fill(cx.problem(Code::BadAddress, &path.index(i), ""));
            None
        }
    };
    Dns { servers: raw.servers.iter().enumerate().filter_map(server).collect(), hosts: folder.join(&raw.hosts) }
}

fn admin_host(host: &str, path: &Path, cx: &mut Context<'_>) -> Option<String> {
    match matches::host_name(host) {
        Ok(host) => Some(host),
        Err(why) => {
            let problem = cx.problem(Code::BadAddress, path, format!("{host:?} is not a host name: {why}"));
            problem.label = Some("not a host name".into());
            problem.help = Some("write the name alone, for example \"weir.internal\"".into());
            None
        }
    }
}

/// As written, relative to the file; else systemd's folder, else the user's, else the system's.
pub fn state_dir(written: Option<&str>, folder: &FsPath, env: Env<'_>) -> PathBuf {
    let set = |name: &str| env(name).filter(|v| !v.is_empty());
    match written.filter(|w| !w.is_empty()) {
        Some(written) => folder.join(written),
        // systemd separates several folders with `:`; the first is the one for state.
        None => match set("STATE_DIRECTORY") {
            Some(given) => PathBuf::from(given.split(':').next().unwrap_or_default()),
            None => set("XDG_STATE_HOME")
                .map(PathBuf::from)
                .or_else(|| set("HOME").map(|home| FsPath::new(&home).join(".local/state")))
                .map_or_else(|| "/var/lib/weir".into(), |state| state.join("weir")),
        },
    }
}

pub fn telemetry(raw: &RawTelemetry, cx: &mut Context<'_>) -> Option<Telemetry> {
    let bind = match &raw.bind {
        Some(text) => Some(bind(text, &Path::root().key("telemetry").key("bind"), cx)?),
        None => None,
    };
    Some(Telemetry { bind, log: log(&raw.log) })
}

fn bind(text: &str, path: &Path, cx: &mut Context<'_>) -> Option<std::net::SocketAddr> {
    match address::tcp(text) {
        Ok(address) => Some(address),
        Err(error) => {
            error.fill(cx.problem(Code::BadAddress, path, ""));
            None
        }
    }
}

fn log(raw: &RawLog) -> Log {
    Log {
        level: match raw.level {
            RawLevel::Error => Level::Error,
            RawLevel::Warn => Level::Warn,
            RawLevel::Info => Level::Info,
            RawLevel::Debug => Level::Debug,
            RawLevel::Trace => Level::Trace,
        },
        format: match raw.format {
            RawLogFormat::Auto => LogFormat::Auto,
            RawLogFormat::Text => LogFormat::Text,
            RawLogFormat::Json => LogFormat::Json,
        },
        access: raw.access,
        sample: raw.sample,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder_is_found_in_the_usual_order() {
        let with = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned())
        };
        let all = with(&[("STATE_DIRECTORY", "/s:/t"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")]);
        let folder = FsPath::new("/etc/weir");
        assert_eq!(state_dir(Some("state"), folder, &all), FsPath::new("/etc/weir/state"));
        assert_eq!(state_dir(Some("/abs"), folder, &all), FsPath::new("/abs"));
        assert_eq!(state_dir(None, folder, &all), FsPath::new("/s"));
        assert_eq!(state_dir(None, folder, &with(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")])), FsPath::new("/x/weir"));
        assert_eq!(state_dir(None, folder, &with(&[("HOME", "/h")])), FsPath::new("/h/.local/state/weir"));
        assert_eq!(state_dir(None, folder, &with(&[])), FsPath::new("/var/lib/weir"));
    }
}
