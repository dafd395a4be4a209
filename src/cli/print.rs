//! Where text goes: data to stdout, all else to stderr, colour only where it is wanted.
//!
//! Invariant: a reader that goes away (`weir history | head`) is no error and no panic.

use std::io::{self, IsTerminal, Write};

use super::args::{Color, Common, Output};
use super::exit::Failure;

/// How this command speaks.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    pub json: bool,
    quiet: bool,
    paint: Paint,
    paint_errors: Paint,
}

impl Printer {
    pub fn new(common: &Common) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let paint = |terminal: bool| match common.color {
            Color::Always => Paint(true),
            Color::Never => Paint(false),
            Color::Auto => Paint(terminal && !plain),
        };
        Self {
            json: common.output == Output::Json,
            quiet: common.quiet,
            paint: paint(io::stdout().is_terminal()),
            paint_errors: paint(io::stderr().is_terminal()),
        }
    }

    /// For rendering what goes to stdout.
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// Whether stderr may be coloured.
    pub fn colors_errors(&self) -> bool {
        self.paint_errors.0
    }

    /// What was asked for. False once nobody reads any more.
    pub fn data(&self, text: &str) -> bool {
        self.quiet || to_stdout(text.as_bytes())
    }

    /// The API's body unchanged, with the line end that a terminal and `jq` like.
    pub fn body(&self, body: &[u8]) -> bool {
        let end: &[u8] = if body.ends_with(b"\n") { b"" } else { b"\n" };
        self.quiet || to_stdout(&[body, end].concat())
    }

    /// What is good to know but was not asked for.
    pub fn info(&self, text: &str) {
        if !self.quiet {
            to_stderr(text);
        }
    }

    /// Why it did not work; also with `-q`.
    pub fn failure(&self, failure: &Failure) {
        if let (true, Some(body)) = (self.json, &failure.body) {
            self.body(body);
        }
        let head = self.paint_errors.red(&format!("error[{}]", failure.code));
        let mut text = format!("{head}: {}\n", shown(&failure.text));
        failure.notes.iter().for_each(|note| text += &format!("  = {}\n", shown(note)));
        to_stderr(&text);
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    pub fn bold(self, text: &str) -> String {
        self.sgr("1", text)
    }
    pub fn red(self, text: &str) -> String {
        self.sgr("1;31", text)
    }
    pub fn yellow(self, text: &str) -> String {
        self.sgr("33", text)
    }
    fn sgr(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Texts of others (a reason, an answer) must not steer the terminal.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// False once nobody reads any more.
pub fn to_stdout(text: &[u8]) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).is_ok()
}

pub fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
