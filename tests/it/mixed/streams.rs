//! HTTP/2 clients: several streams at a time over one connection, over TLS or in cleartext; what runs in a stream is in
//! `stream_kinds`.
//!
//! They honour GOAWAY: what lies above its last stream is sent again over a new connection, what lies below must
//! finish. A connection that takes nothing more and has not said GOAWAY was cut.

use std::io::ErrorKind;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::plan::{Client, HOST};
use super::stream_kinds::{Job, Kind};
use super::tally::End;
use crate::support::{Failure, LIMIT};

/// Why a stream did not come to what it should.
#[derive(Debug)]
pub enum Trouble {
    /// The connection takes no more streams, as its GOAWAY said.
    GoAway,
    /// Not taken up by the other side: to be sent again.
    NotTaken,
    Failed(String),
}

impl Trouble {
    /// Of a stream that no answer has come to yet.
    pub fn before_answer(error: &h2::Error) -> Self {
        let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        if error.is_remote() && (said_goaway(error) || is_refused) { Self::NotTaken } else { Self::failed(error) }
    }

    /// Of a stream that was being answered, or of anything that must not fail.
    pub fn failed(error: &h2::Error) -> Self {
        Self::Failed(format!("{error} ({error:?})"))
    }
}

fn said_goaway(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR)
}

/// Runs until told to stop, connection after connection.
pub async fn run(client: std::sync::Arc<Client>, kind: Kind) {
    // Each place for a stream keeps what it has to send again.
    let mut jobs: Vec<Job> = (0..kind.at_once()).map(|n| kind.job(client.seed + n)).collect();
    while !client.is_over() {
        let sender = match timeout(LIMIT, connect(&client)).await.unwrap_or(Err(Failure::Silent)) {
            Ok(sender) => sender,
            Err(failure) if client.is_done_by(&failure) => return,
            Err(failure) => {
                client.tally.failed(&format!("connecting: {failure}"));
                sleep(client.pace).await;
                continue;
            }
        };
        let mut places = JoinSet::new();
        for job in jobs.drain(..) {
            places.spawn(serve(client.clone(), sender.clone(), job));
        }
        drop(sender);
        let mut end = End::Done;
        while let Some(place) = places.join_next().await {
            let (job, was_told) = place.unwrap();
            jobs.push(job);
            if was_told {
                end = End::GoAway;
            }
        }
        client.tally.ended(end);
    }
}

/// One stream after the other, until the connection takes no more (true if its GOAWAY said so) or all is over.
async fn serve(client: std::sync::Arc<Client>, mut sender: SendRequest<Bytes>, mut job: Job) -> (Job, bool) {
    while !client.is_over() {
        match one(&client, &mut sender, &mut job).await {
            Ok(()) => job.next(),
            Err(Trouble::GoAway) => return (job, true),
            // If the connection is not over, the next turn finds out.
            Err(Trouble::NotTaken) => client.tally.resent(),
            Err(Trouble::Failed(text)) => {
                client.tally.failed(&format!("{}: {text}", job.name()));
                job.next();
                return (job, false);
            }
        }
        sleep(client.pause(&mut job.rng)).await;
    }
    (job, false)
}

async fn one(client: &Client, sender: &mut SendRequest<Bytes>, job: &mut Job) -> Result<(), Trouble> {
    let ready = timeout(LIMIT, std::future::poll_fn(|cx| sender.poll_ready(cx))).await;
    ready.map_err(|_| Trouble::Failed("the connection takes no stream".to_owned()))?.map_err(|error| {
        let text = format!("the connection ended without a GOAWAY: {error} ({error:?})");
        if said_goaway(&error) { Trouble::GoAway } else { Trouble::Failed(text) }
    })?;
    job.run(client, sender).await
}

/// A new connection, whose other side's settings have been heard.
async fn connect(client: &Client) -> Result<SendRequest<Bytes>, Failure> {
    let plan = &client.plan;
    let address = if client.is_secure { plan.secure } else { plan.plain };
    let socket = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused => Failure::Refused,
        _ => Failure::Connect(error.to_string()),
    })?;
    let connect = |error: std::io::Error| Failure::Connect(error.to_string());
    socket.set_nodelay(true).map_err(connect)?;
    client.tally.opened();
    if client.is_secure {
        let name = ServerName::try_from(HOST).unwrap();
        open(TlsConnector::from(plan.http2_tls.clone()).connect(name, socket).await.map_err(connect)?).await
    } else {
        open(socket).await
    }
}

async fn open<S>(io: S) -> Result<SendRequest<Bytes>, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let opened = h2::client::Builder::new().enable_push(false).handshake(io).await;
    let (sender, connection) = opened.map_err(|error| Failure::Connect(error.to_string()))?;
    // How it ends is told to the streams.
    tokio::spawn(async move { _ = connection.await });
    let deadline = Instant::now() + LIMIT;
    // weir allows extended CONNECT, so this is also the sign that its settings are here.
    while !sender.is_extended_connect_protocol_enabled() {
        let ready = sender.clone().ready().await;
        ready.map_err(|error| Failure::Connect(format!("before its settings came: {error}")))?;
        if Instant::now() > deadline {
            return Err(Failure::Silent);
        }
        sleep(std::time::Duration::from_millis(1)).await;
    }
    Ok(sender)
}
