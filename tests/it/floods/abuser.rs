//! A client that floods: it sends one thing over and over, and comes back whenever it is sent away.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::h2wire::{ENHANCE_YOUR_CALM, H2, Outcome};
use crate::support::{Instant, times};

/// Small frames travel in packs of this size.
const PACK: usize = 16 << 10;

/// What one connection of an abuser sends.
pub struct Flood {
    pub settings: Vec<(u16, u32)>,
    /// Sent once.
    pub first: Vec<u8>,
    /// The bytes of round `n`, sent until the connection is lost or the time is over. Streams are odd and rise.
    pub round: Box<dyn Fn(u32) -> Vec<u8>>,
    /// Takes what the server says; without that, the server's own answers pile up.
    pub reads: bool,
}

impl Flood {
    pub fn of(round: impl Fn(u32) -> Vec<u8> + 'static) -> Self {
        Self { settings: Vec::new(), first: Vec::new(), round: Box::new(round), reads: true }
    }
}

/// How the abuser fared.
#[derive(Debug, Default)]
pub struct Fate {
    pub connections: usize,
    pub bytes: usize,
    /// Connections that ended before the abuser wanted it.
    pub sent_away: usize,
    /// Of these, with GOAWAY and ENHANCE_YOUR_CALM.
    pub calmed: usize,
    /// How the last one ended.
    pub last: Option<Outcome>,
}

/// Floods until the time is over; comes back whenever it is sent away.
pub fn abuse(address: SocketAddr, flood: &Flood) -> Fate {
    let until = Instant::now() + Duration::from_secs(times(1, 10) as u64);
    let mut fate = Fate::default();
    while Instant::now() < until {
        fate.connections += 1;
        let Ok(mut client) = H2::open(address, &flood.settings) else { continue };
        client.set_write_limit(Duration::from_millis(200));
        (client.replies, client.gives_back) = (false, false);
        let ear = flood.reads.then(|| listen(&client));
        let is_over = pour(&client, flood, until, &mut fate.bytes);
        // What it was told lies in its buffers, unless an ear has it.
        client.set_read_limit(Duration::from_secs(2));
        let end = match ear {
            Some(ear) => {
                client.shut();
                ear.join().unwrap()
            }
            None => client.drain(),
        };
        // A GOAWAY for an error counts at once: the connection may be read on for a while, so that it is not lost.
        let is_told = matches!(end, Outcome::Gone(code) if code != 0);
        fate.sent_away += usize::from(is_told || !is_over);
        fate.calmed += usize::from(end == Outcome::Gone(ENHANCE_YOUR_CALM));
        fate.last = Some(end);
    }
    fate
}

/// True if the time is over, false if the connection is.
fn pour(client: &H2, flood: &Flood, until: Instant, bytes: &mut usize) -> bool {
    let mut writer = client.writer();
    let mut pending = flood.first.clone();
    for round in 0..u32::MAX / 4 {
        pending.extend((flood.round)(round));
        if pending.len() < PACK {
            continue;
        }
        match write(&mut writer, &pending, until) {
            Ok(()) => *bytes += pending.len(),
            Err(is_over) => return is_over,
        }
        pending.clear();
        if Instant::now() > until {
            return true;
        }
    }
    true
}

/// Writes all, however long the other side does not read; `Err(true)` when the time is over, `Err(false)` when the
/// connection is.
fn write(writer: &mut TcpStream, mut bytes: &[u8], until: Instant) -> Result<(), bool> {
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if Instant::now() > until {
                    return Err(true);
                }
            }
            Err(_) => return Err(false),
        }
    }
    Ok(())
}

/// Reads all that comes, in a thread of its own; says how the connection ended.
fn listen(client: &H2) -> JoinHandle<Outcome> {
    let mut ear = H2::over(client.writer());
    ear.gives_back = false;
    ear.replies = false;
    std::thread::spawn(move || ear.drain())
}
