//! Who listens on a port, as `/proc` tells it.
//!
//! Only after a bind has failed: it reads a line per socket of the machine. A `/proc` that says nothing costs a name.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

const TABLES: [(&str, bool); 2] = [("/proc/net/tcp", false), ("/proc/net/tcp6", true)];
const LISTEN: &str = "0A";

/// The process that listens where `address` wants to, as `name (process id)`.
pub(super) fn find(address: SocketAddr) -> Option<String> {
    let inodes = listening(address);
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    if links.is_empty() {
        return None;
    }
    let pid = fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        holds(&entry.path(), &links).then_some(pid)
    })?;
    Some(describe(pid))
}

/// `name (process id)`.
pub(super) fn describe(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = if name.trim().is_empty() { "a program" } else { name.trim() };
    format!("{name} (process {pid})")
}

/// Somebody listens there, and it is this process alone.
pub(super) fn all_ours(address: SocketAddr) -> bool {
    let inodes = listening(address);
    let ours = |inode: &u64| holds(Path::new("/proc/self"), &[format!("socket:[{inode}]")]);
    !inodes.is_empty() && inodes.iter().all(ours)
}

fn listening(address: SocketAddr) -> Vec<u64> {
    let mut inodes = Vec::new();
    for (_, six) in TABLES {
        // A wildcard of IPv6 may hold the port for IPv4 too.
        let blocks = |local: SocketAddr| {
            let crosses = six && address.is_ipv4() && local.ip().is_unspecified() && local.port() == address.port();
            crosses || super::tcp::overlap(local, address)
        };
        let _ = each_row(six, &mut |row| {
            if row.state == LISTEN && blocks(row.local) {
                inodes.push(row.inode);
            }
        });
    }
    inodes
}

fn holds(process: &Path, links: &[String]) -> bool {
    let Ok(open) = fs::read_dir(process.join("fd")) else { return false };
    open.flatten().any(|fd| {
        let target = fs::read_link(fd.path()).unwrap_or_default();
        target.to_str().is_some_and(|target| links.iter().any(|link| link == target))
    })
}

struct Row<'a> {
    local: SocketAddr,
    state: &'a str,
    inode: u64,
}

fn each_row(six: bool, see: &mut dyn FnMut(Row<'_>)) -> Option<()> {
    let mut table = BufReader::new(fs::File::open(TABLES[usize::from(six)].0).ok()?);
    let mut line = String::new();
    while table.read_line(&mut line).ok()? > 0 {
        if let Some(row) = parse(&line) {
            see(row);
        }
        line.clear();
    }
    Some(())
}

/// `  0: 0100007F:1F90 00000000:0000 0A ... uid timeout inode ...`
fn parse(line: &str) -> Option<Row<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let local = parse_address(fields.nth(1)?)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Row { local, state, inode })
}

/// The address is printed word by word in the machine's own byte order.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |i: usize| u32::from_str_radix(ip.get(8 * i..8 * i + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (i, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(i)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn rows_of_both_tables_are_read() {
        let four =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0";
        let row = parse(four).unwrap();
        assert_eq!((row.local, row.state, row.inode), ("127.0.0.1:8080".parse().unwrap(), "0A", 4711));
        let six = "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 03 00000000:00000000 00:00000000 00000000     0        0 0 1 0";
        let row = parse(six).unwrap();
        assert_eq!((row.local, row.state), ("[::1]:80".parse().unwrap(), "03"));
    }

    #[test]
    fn a_heading_or_rubbish_is_no_row() {
        for line in ["  sl  local_address rem_address   st tx_queue", "", "0: zz:1 0:0 0A", "0: 01é0007F:1F90 x 0A"] {
            assert!(parse(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_free_port_has_no_holder() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(find(port), None);
        assert!(!all_ours(port));
    }
}
