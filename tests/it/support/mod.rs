//! What the tests share: the binary under test, scripted origins, raw clients, load.

mod admin;
mod conf;
mod dns;
mod door;
pub mod frames;
mod gate;
pub mod h2wire;
pub mod hpack;
mod load;
mod mortal;
mod nginx;
mod origin;
mod process;
mod recorder;
pub mod strict;
mod tls;
mod tool;
pub mod websocket;
mod weir;
mod wire;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

pub use admin::Admin;
pub use conf::Conf;
pub use dns::{NameServer, Reply};
pub use door::Door;
pub use frames::Frames;
pub use gate::Gate;
pub use load::{Load, Plan, Report};
pub use mortal::Mortal;
pub use nginx::{Backend, pair};
pub use origin::{After, Exchange, Origin};
pub use process::{Done, KillOnDrop, run};
pub use recorder::{Recorder, Seen, Stage};
pub use tls::{Authority, Pair, replace};
pub use tokio::time::Instant;
pub use tool::{tell, tool};
pub use weir::{Weir, in_dir, weir};
pub use wire::{Answer, Connection, Failure, Head};

/// Long enough for a loaded machine, short enough to end.
pub const LIMIT: Duration = Duration::from_secs(15);

/// Full forms and timing bars.
pub fn soak() -> bool {
    std::env::var_os("WEIR_SOAK").is_some_and(|v| v == "1")
}

/// The short form's number, or the full form's.
pub fn times(short: usize, full: usize) -> usize {
    if soak() { full } else { short }
}

/// Asks until there is an answer; fails with `what` when `limit` is over.
#[track_caller]
pub fn wait_for_within<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `wait_for_within` with the usual limit.
#[track_caller]
pub fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_for_within(what, LIMIT, ask)
}

/// `wait_for` for a plain condition.
#[track_caller]
pub fn wait_until(what: &str, mut ask: impl FnMut() -> bool) {
    wait_for(what, || ask().then_some(()));
}

/// A listener as a server has it: the standard library's 128 waiting connections are too few for a burst of load, and a
/// connection that finds no place waits a second for its next try.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// A loopback address nobody listens on at this moment. Only for addresses that must be known before weir (or nginx)
/// binds them, or that must refuse; all else binds port 0.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
