//! The commands that look: status, history, and reload with what it reports.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use http::Method;

use super::args::{HistoryArgs, ReloadArgs, StatusArgs};
use super::client::{Answer, Call, Client, segment};
use super::exit::{Exit, Failure};
use super::print::{Printer, to_stderr};
use super::render;
use super::views::{Diagnostic, History, Reload, Split, Status, Upgrade};

/// `weir status`.
pub async fn status(client: &Client, printer: Printer, args: &StatusArgs) -> Result<(), Failure> {
    let answer = client.call(status_call(args)).await?;
    if !args.watch {
        return show(&answer, printer, args, Screen::Scroll).map(drop);
    }
    let redraw = stdout().is_terminal() && !printer.json;
    let mut shown = show(&answer, printer, args, if redraw { Screen::Clear } else { Screen::Scroll })?;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    seconds.tick().await;
    while shown {
        seconds.tick().await;
        shown = match client.call(status_call(args)).await {
            Ok(answer) => show(&answer, printer, args, if redraw { Screen::Redraw } else { Screen::Blank })?,
            // A restart of weir is one of the things one watches.
            Err(failure) if failure.exit == Exit::Unreachable => {
                printer.failure(&failure);
                true
            }
            Err(failure) => return Err(failure),
        };
    }
    Ok(())
}

fn status_call(args: &StatusArgs) -> Call {
    Call::get(match &args.split {
        Some(split) => format!("/api/v1/splits/{}", segment(split)),
        None => "/api/v1/status".to_owned(),
    })
}

/// How a block of output relates to the one before.
#[derive(Clone, Copy)]
enum Screen {
    /// Just below it.
    Scroll,
    /// Below it, after a blank line.
    Blank,
    /// On an empty screen.
    Clear,
    /// In its place.
    Redraw,
}

fn show(answer: &Answer, printer: Printer, args: &StatusArgs, screen: Screen) -> Result<bool, Failure> {
    if printer.json {
        return Ok(printer.body(&answer.body));
    }
    let text = match args.split {
        Some(_) => render::split(&answer.json::<Split>()?, printer.paint()),
        None => render::status(&answer.json::<Status>()?, printer.paint()),
    };
    Ok(printer.data(&match screen {
        Screen::Scroll => text,
        Screen::Blank => format!("\n{text}"),
        Screen::Clear => format!("\x1b[H\x1b[2J{text}"),
        // Each line is written over the old one and its tail cleared, which does not flicker as clearing all would.
        Screen::Redraw => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
    }))
}

/// `weir status -q`: ready or not, without a word.
pub async fn is_ready(client: &Client) -> Exit {
    match client.send(Call::get("/readyz")).await {
        Ok(answer) if answer.status.is_success() => Exit::Done,
        Ok(_) => Exit::Failed,
        Err(failure) => failure.exit,
    }
}

/// `weir history`.
pub async fn history(client: &Client, printer: Printer, args: &HistoryArgs) -> Result<(), Failure> {
    let mut path = format!("/api/v1/history?limit={}", args.limit);
    args.split.iter().for_each(|split| path += &format!("&split={}", segment(split)));
    args.before.iter().for_each(|before| path += &format!("&before={before}"));
    let answer = client.call(Call::get(path)).await?;
    if printer.json {
        printer.body(&answer.body);
        return Ok(());
    }
    let history: History = answer.json()?;
    if history.history.is_empty() {
        printer.info("no changes yet\n");
    } else {
        printer.data(&render::history(&history.history));
    }
    Ok(())
}

/// `weir reload`.
pub async fn reload(client: &Client, printer: Printer, args: &ReloadArgs) -> Result<(), Failure> {
    let path = if args.dry_run { "/api/v1/config/reload?dry_run=true" } else { "/api/v1/config/reload" };
    let answer = client.call(Call::new(Method::POST, path)).await.map_err(rejected)?;
    if printer.json {
        printer.body(&answer.body);
        return Ok(());
    }
    let reload: Reload = answer.json()?;
    printer.info(&render::diagnostics(&reload.warnings));
    printer.data(&render::reload(&reload, answer.took));
    Ok(())
}

/// `weir upgrade`.
pub async fn upgrade(client: &Client, printer: Printer) -> Result<(), Failure> {
    // What the new process may take to be ready, and a little more.
    let call = Call::new(Method::POST, "/api/v1/upgrade").longer(Duration::from_secs(40));
    let answer = client.call(call).await?;
    if printer.json {
        printer.body(&answer.body);
    } else {
        let Upgrade { pid, predecessor, took_ms } = answer.json()?;
        let text = format!("process {pid} serves after {took_ms} ms; process {predecessor} finishes what it has\n");
        printer.data(&text);
    }
    Ok(())
}

/// A configuration with errors has its own exit code, and its diagnostics are printed before the refusal.
fn rejected(mut failure: Failure) -> Failure {
    #[derive(serde::Deserialize)]
    struct Diagnostics {
        diagnostics: Vec<Diagnostic>,
    }
    if failure.code != "invalid-config" {
        return failure;
    }
    failure.exit = Exit::ConfigInvalid;
    let body = failure.body.as_deref().unwrap_or_default();
    if let Ok(Diagnostics { diagnostics }) = serde_json::from_slice(body) {
        to_stderr(&render::diagnostics(&diagnostics));
    }
    failure.note("the old configuration stays in force; `weir check` shows the lines")
}
