//! Debian's nginx as a version; the scripted origin where it is missing.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::process::KillOnDrop;
use super::{Connection, Origin, free_address, tool, wait_until};

/// A version's only endpoint, which answers with the version's name.
pub struct Backend {
    pub address: SocketAddr,
    // Held for their drop.
    _kind: Kind,
}

enum Kind {
    Nginx { _process: KillOnDrop, _dir: TempDir },
    Scripted { _origin: Origin },
}

/// `v1` and `v2`.
#[track_caller]
pub fn pair() -> (Backend, Backend) {
    (Backend::start("v1"), Backend::start("v2"))
}

impl Backend {
    #[track_caller]
    pub fn start(name: &str) -> Self {
        match tool("nginx") {
            Some(nginx) => Self::nginx(&nginx, name),
            None => {
                let origin = Origin::named(name);
                Self { address: origin.address, _kind: Kind::Scripted { _origin: origin } }
            }
        }
    }

    fn nginx(nginx: &Path, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let file = dir.path().join("nginx.conf");
        fs::write(&file, config(dir.path(), address, name)).unwrap();
        let mut command = Command::new(nginx);
        command.arg("-p").arg(dir.path()).arg("-c").arg(&file).arg("-e").arg(dir.path().join("error.log"));
        let process = KillOnDrop(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_until("nginx answers its name", || {
            Connection::open(address).and_then(|mut c| c.get("/")).is_ok_and(|a| a.text() == name)
        });
        Self { address, _kind: Kind::Nginx { _process: process, _dir: dir } }
    }
}

/// One process, nothing written outside its folder, connections kept for ever.
fn config(dir: &Path, address: SocketAddr, name: &str) -> String {
    let dir = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .concat();
    format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;\n{temporary}\
         server {{ listen {address}; location / {{ return 200 \"{name}\\n\"; }} }} }}\n"
    )
}
