//! The demo's file, state folder and ports.
//!
//! Invariant: the folder is readable by this user alone and removed on drop, whatever has been added to it.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::DemoError;

/// How many ports are tried from the usual one on.
const TRIES: u16 = 100;

/// Where the proxy listens.
#[derive(Debug)]
pub struct Ports {
    pub web: u16,
    pub admin: u16,
}

impl Ports {
    pub fn find() -> Result<Self, DemoError> {
        Ok(Self { web: free(8080)?, admin: free(9901)? })
    }
}

/// The first free port from the given one on. Another process may take it before the proxy does; then the proxy says so.
fn free(first: u16) -> Result<u16, DemoError> {
    let last = first + TRIES - 1;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (first..=last).find(is_free).ok_or(DemoError::NoPort(first, last))
}

/// A temporary folder with `weir.toml` in it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(ports: &Ports, v1: SocketAddr, v2: SocketAddr) -> io::Result<Self> {
        let name = format!("weir-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        // Fails if it is there: nobody can have prepared it for us.
        DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Self(path);
        fs::write(folder.file(), folder.text(ports, v1, v2))?;
        Ok(folder)
    }

    pub fn file(&self) -> PathBuf {
        self.0.join("weir.toml")
    }

    fn text(&self, ports: &Ports, v1: SocketAddr, v2: SocketAddr) -> String {
        let Ports { web, admin } = ports;
        let state = toml::Value::String(self.0.join("state").display().to_string());
        format!(
            r#"# The demo's file: change a weight, save, and watch. It goes away with the demo.
[listeners.web]
bind = "127.0.0.1:{web}"

[[routes]]
split = "shop"

[splits.shop.versions]
v1 = {{ weight = 90, endpoints = ["{v1}"] }}
v2 = {{ weight = 10, endpoints = ["{v2}"] }}

[admin]
bind = "127.0.0.1:{admin}"
state_dir = {state}

[telemetry]
log = {{ level = "warn", access = false }}
"#
        )
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let mut taken = Vec::new();
        let first = free(20_080).unwrap();
        taken.push(TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap());
        assert!(free(20_080).unwrap() > first);
    }

    #[test]
    fn the_folder_goes_with_all_that_is_in_it() {
        let address = "127.0.0.1:1".parse().unwrap();
        let folder = Folder::new(&Ports { web: 1, admin: 2 }, address, address).unwrap();
        let path = folder.0.clone();
        let table: toml::Table = fs::read_to_string(folder.file()).unwrap().parse().unwrap();
        assert_eq!(table["admin"]["bind"].as_str(), Some("127.0.0.1:2"));
        fs::create_dir(path.join("state")).unwrap();
        fs::write(path.join("state/state.json"), "{}").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
