//! `weir demo`: two toy versions, gentle load and the real proxy in one process.
//!
//! Owns: the toys, the clients, a temporary folder with the file and the state. Refuses: knowing how the proxy starts;
//! `main` hands that over.
//! Invariants: every number printed was seen by a client; nothing listens beyond loopback; the folder is gone when it
//! ends, and the toys answer until the proxy has drained.

mod folder;
mod load;
mod toys;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use folder::{Folder, Ports};
pub use load::{Seen, Totals};
use tokio::sync::watch;
use toys::Toy;

/// Between two lines of what the clients got.
const REPORT_EVERY: Duration = Duration::from_secs(3);

/// What the demo was told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// End by itself after so many seconds; else on Ctrl-C.
    pub seconds: Option<u64>,
    /// End on Ctrl-C and SIGTERM.
    pub signals: bool,
}

/// Why there was no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("could not make a temporary folder for the demo's file: {0}")]
    Folder(#[source] io::Error),
    #[error("could not start the toy versions: {0}")]
    Toys(#[source] io::Error),
    #[error("no free port from {0} to {1} on 127.0.0.1")]
    NoPort(u16, u16),
    #[error("{0}")]
    Proxy(String),
}

/// Runs the demo to its end and returns what the clients got.
///
/// `start` starts the proxy with the file at the path, returns when it accepts requests, and gives what stops it and
/// returns when it has drained. Both may block; neither is called on a thread that drives tasks.
///
/// # Errors
/// `DemoError` if something it needs could not be started. What is started is stopped again.
pub fn run<Stop, Start, Out>(options: &Options, out: Out, start: Start) -> Result<Totals, DemoError>
where
    Stop: FnOnce() + Send + 'static,
    Start: FnOnce(PathBuf) -> Result<Stop, String> + Send + 'static,
    Out: Write,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DemoError::Toys)?;
    runtime.block_on(demo(options, out, start))
}

async fn demo<Stop, Start, Out>(options: &Options, mut out: Out, start: Start) -> Result<Totals, DemoError>
where
    Stop: FnOnce() + Send + 'static,
    Start: FnOnce(PathBuf) -> Result<Stop, String> + Send + 'static,
    Out: Write,
{
    let (v1, v2) = (toys::start(Toy::GOOD).await, toys::start(Toy::BAD).await);
    let (v1, v2) = (v1.map_err(DemoError::Toys)?, v2.map_err(DemoError::Toys)?);
    let ports = Ports::find()?;
    let folder = Folder::new(&ports, v1, v2).map_err(DemoError::Folder)?;
    let file = folder.file();
    let end = end(options);
    let stop = blocking(move || start(file)).await.and_then(|started| started).map_err(DemoError::Proxy)?;
    // A reader that has gone away (`weir demo | head`) ends the demo as Ctrl-C does.
    let shown = out.write_all(introduction(&ports, &folder).as_bytes()).and_then(|()| out.flush());
    let totals = match shown {
        Ok(()) => under_load(ports.web, out, end).await,
        Err(_) => Totals::default(),
    };
    blocking(stop).await.map_err(DemoError::Proxy)?;
    Ok(totals)
}

/// On a thread that may block, while the toys go on answering.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| format!("the proxy's thread died: {e}"))
}

/// Load until the end, a line every few seconds; returns when the last client has its answer.
async fn under_load(port: u16, mut out: impl Write, end: impl Future<Output = ()>) -> Totals {
    let (stop, stopped) = watch::channel(());
    let mut seen = load::start(port, &stopped);
    drop(stopped);
    let mut stop = Some(stop);
    let (mut totals, mut recent) = (Totals::default(), Totals::default());
    let mut every = tokio::time::interval(REPORT_EVERY);
    let start = every.tick().await;
    tokio::pin!(end);
    loop {
        tokio::select! {
            one = seen.recv() => match one {
                Some(one) => { totals.add(&one); recent.add(&one); }
                None => break,
            },
            now = every.tick() => {
                if say(&mut out, &format!("{:>4} s  {recent}\n", (now - start).as_secs())).is_err() {
                    stop = None;
                }
                recent = Totals::default();
            }
            // Dropping the sender tells every client; their last answers are still counted.
            () = &mut end, if stop.is_some() => stop = None,
        }
    }
    let _ = say(&mut out, &format!("in all  {totals}\n"));
    totals
}

fn say(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Ctrl-C, SIGTERM, or the time asked for. Listens from the call on.
fn end(options: &Options) -> impl Future<Output = ()> + use<> {
    use tokio::signal::unix::{SignalKind, signal};
    let seconds = options.seconds;
    let listen = |kind| if options.signals { signal(kind).ok() } else { None };
    let (terminate, interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    async move {
        let time = async {
            match seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        let (Some(mut terminate), Some(mut interrupt)) = (terminate, interrupt) else { return time.await };
        tokio::select! {
            () = time => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

fn introduction(ports: &Ports, folder: &Folder) -> String {
    let (proxy, admin) = (format!("http://127.0.0.1:{}", ports.web), format!("http://127.0.0.1:{}", ports.admin));
    let (file, weir) = (folder.file(), program());
    let file = file.display();
    format!(
        "weir demo: two toy versions behind the proxy, {rate} requests a second; Ctrl-C ends it

  proxy  {proxy}   v1 90 %, v2 10 %; v2 is slower, and 2 % of its answers are errors
  admin  {admin}   {admin}/api/v1/status, {admin}/metrics
  file   {file}

Try in another terminal:
  export WEIR_ADMIN={admin}
  curl -i {proxy}/
  {weir} status -w
  {weir} shift shop v2=50
  {weir} rollback shop --reason \"v2 is slow\"      # v1 gets all at once, and keeps it whatever the file says
  {weir} release shop                             # the file's weights again
  ${{EDITOR:-vi}} {file}    # change a weight and save: taken at once, no request lost

What the clients get:
",
        rate = load::PER_SECOND
    )
}

/// How this program is called from the present folder.
fn program() -> String {
    let (Ok(exe), Ok(here)) = (std::env::current_exe(), std::env::current_dir()) else { return "weir".to_owned() };
    exe.strip_prefix(&here).map_or_else(|_| exe.display().to_string(), |p| format!("./{}", p.display()))
}

#[cfg(test)]
mod tests;
