//! Binding a Unix socket: one listening socket for all workers, since a path cannot be bound twice.
//!
//! The socket is bound under a name nobody knows, gets its mode, listens, and only then takes the path, so that no
//! client ever meets a socket that refuses it or is open to more users than it should be. A path that is left over
//! from a process that was killed is taken over; one on which somebody answers is not. Both are decided by what the
//! path holds at the moment it changes hands (a swap that is looked at afterwards), not by an earlier look: else two
//! processes that start together would both get in.
//! Invariant: a path is removed by us only while the socket behind it is ours.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{BACKLOG, BindError, holder};
use crate::config::{Bind, UnixBind};

/// A file by what it is, not by its name: device and inode.
pub(super) type Identity = (u64, u64);

/// The file of a listening socket. Dropped, it takes the file away if it is still its own.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
    /// It is somebody else's too, or not ours yet, and stays.
    shared: bool,
}

impl SocketFile {
    /// The file of a socket that came from another process, which keeps it until `own`.
    pub(super) fn inherited(path: &Path, identity: Identity) -> Self {
        Self { path: path.to_owned(), identity, shared: true }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether to take the file away at the end is from now on for somebody else to say, or for us again.
    pub(super) fn set_shared(&mut self, shared: bool) {
        self.shared = shared;
    }

    /// Takes the path away unless somebody else has it by now: no new client finds us from here on.
    pub(super) fn remove(&self) {
        if !self.shared && identity(&self.path).is_ok_and(|there| there == self.identity) {
            // Whoever removed it in between has done what we want.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// What is at the path before we are.
enum Found {
    Nothing,
    /// A socket on which nobody listens any more.
    Stale(Identity),
}

/// Listens on a path. Connections wait in the kernel from here on.
///
/// # Errors
/// `BindError`; then the path is as it was.
pub(super) fn bind(unix: &UnixBind) -> Result<(UnixListener, SocketFile), BindError> {
    let address = || Bind::Unix(unix.clone());
    let folder = unix.path.parent().unwrap_or(Path::new("/"));
    let failed = |source| BindError::unix(address(), folder, source);
    let found = look(unix)?;
    // Shorter than most names, and unlikely to be somebody's.
    let aside = folder.join(format!(".w{:06x}", fastrand::u32(..) >> 8));
    let listener = listen_aside(&aside, unix)?;
    let published = identity(&aside).map_err(failed).and_then(|identity| {
        publish(&aside, unix, &found).map(|()| SocketFile { path: unix.path.clone(), identity, shared: false })
    });
    match published {
        Ok(file) => Ok((listener, file)),
        Err(error) => {
            let _ = fs::remove_file(&aside);
            Err(error)
        }
    }
}

/// Gives a listening socket's file another mode.
///
/// # Errors
/// When the file is gone or not ours to change.
pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn look(unix: &UnixBind) -> Result<Found, BindError> {
    let address = || Bind::Unix(unix.clone());
    let metadata = match fs::symlink_metadata(&unix.path) {
        Ok(metadata) => metadata,
        // That the folder is missing shows when we bind in it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(BindError::unix(address(), unix.path.parent().unwrap_or(Path::new("/")), e)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket { address: address() });
    }
    match knock(&unix.path) {
        Ok(holder) => Err(BindError::InUse { address: address(), holder }),
        Err(e) => match e.kind() {
            io::ErrorKind::ConnectionRefused => Ok(Found::Stale((metadata.dev(), metadata.ino()))),
            io::ErrorKind::NotFound => Ok(Found::Nothing),
            io::ErrorKind::PermissionDenied => Err(BindError::NotPermitted { address: address() }),
            // Its queue is full, or it is a socket of another type: somebody has it.
            _ => Err(BindError::InUse { address: address(), holder: None }),
        },
    }
}

/// Who answers on a path: the process that listens there, if it can be seen.
fn knock(path: &Path) -> io::Result<Option<String>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(listener_of(socket.into()))
}

/// By tokio, whose call alone is safe with a process that another PID namespace hides (its number is 0).
fn listener_of(stream: UnixStream) -> Option<String> {
    let _runtime = tokio::runtime::Handle::try_current().ok()?;
    let cred = tokio::net::UnixStream::from_std(stream).ok()?.peer_cred().ok()?;
    cred.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0).map(holder::describe)
}

fn listen_aside(aside: &Path, unix: &UnixBind) -> Result<UnixListener, BindError> {
    let address = || Bind::Unix(unix.clone());
    let folder = unix.path.parent().unwrap_or(Path::new("/"));
    let failed = |source| BindError::unix(address(), folder, source);
    let too_long = |_| BindError::TooLong { address: address() };
    let (_, name) = (SockAddr::unix(&unix.path).map_err(too_long)?, SockAddr::unix(aside).map_err(too_long)?);
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(failed)?;
    socket.bind(&name).map_err(failed)?;
    let ready = set_mode(aside, unix.mode).and_then(|()| socket.listen(BACKLOG));
    if let Err(error) = ready {
        let _ = fs::remove_file(aside);
        return Err(failed(error));
    }
    Ok(socket.into())
}

/// Gives the socket its path. What was looked at must still be what is there.
fn publish(aside: &Path, unix: &UnixBind, found: &Found) -> Result<(), BindError> {
    let path = &unix.path;
    let address = || Bind::Unix(unix.clone());
    let failed = |source| BindError::unix(address(), path.parent().unwrap_or(Path::new("/")), source);
    let overtaken = || BindError::InUse { address: address(), holder: knock(path).ok().flatten() };
    if let Found::Stale(stale) = found {
        match rename(aside, path, RenameFlags::EXCHANGE) {
            Ok(()) if identity(aside).map_err(failed)? == *stale => return fs::remove_file(aside).map_err(failed),
            Ok(()) => {
                rename(aside, path, RenameFlags::EXCHANGE).map_err(failed)?;
                return Err(overtaken());
            }
            // Somebody has tidied up.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
    }
    match rename(aside, path, RenameFlags::NOREPLACE) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(overtaken()),
        result => result.map_err(failed),
    }
}

fn rename(from: &Path, to: &Path, how: RenameFlags) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, how)?)
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
#[path = "unix_tests.rs"]
mod tests;
