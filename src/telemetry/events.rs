//! Events: what weir has to tell its operator, one line each on standard error.
//!
//! Other rooms write `tracing::info!(target: "weir", event = "reload", revision = 17, "...")`; this layer writes the
//! lines. Only weir's own targets pass: what a library logs is of no use to an operator and may quote what is not to be
//! logged.
//!
//! Invariant: a line is written by one call, so lines of several threads never mix; nothing here can fail or panic.

use std::fmt::{self, Debug, Display};
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{LazyLock, Mutex, Once};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::format::Format;
use super::json::{self, Object};
use super::registry::lock;
use super::stamp::Stamp;
use crate::config::Level;

/// Starts writing events to standard error. A second call (a reload, another weir in a test process) only changes
/// level and format.
pub fn init(level: Level, format: Format) {
    static STARTED: Once = Once::new();
    SETTINGS.set(level, format);
    STARTED.call_once(|| {
        let layer = EventLayer { settings: &SETTINGS, out: Mutex::new((Stamp::default(), std::io::stderr())) };
        // Refused when somebody else set one before: then the events are theirs.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    });
    tracing::callsite::rebuild_interest_cache();
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::default);

/// Changed by a reload while events are written.
#[derive(Debug, Default)]
struct Settings {
    level: AtomicU8,
    is_text: AtomicU8,
}

impl Settings {
    fn set(&self, level: Level, format: Format) {
        self.level.store(level as u8, Ordering::Relaxed);
        self.is_text.store(u8::from(format == Format::Text), Ordering::Relaxed);
    }

    fn format(&self) -> Format {
        if self.is_text.load(Ordering::Relaxed) == 0 { Format::Json } else { Format::Text }
    }

    fn level(&self) -> LevelFilter {
        const LEVELS: [LevelFilter; 5] =
            [LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE];
        LEVELS[usize::from(self.level.load(Ordering::Relaxed)).min(LEVELS.len() - 1)]
    }
}

struct EventLayer<'s, W> {
    settings: &'s Settings,
    out: Mutex<(Stamp, W)>,
}

impl<S: Subscriber, W: Write + Send + 'static> Layer<S> for EventLayer<'static, W> {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let target = metadata.target();
        let is_ours = target.strip_prefix("weir").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        is_ours && *metadata.level() <= self.settings.level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.settings.level())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = event.metadata().level().as_str();
        let (stamp, out) = &mut *lock(&self.out);
        let line = match self.settings.format() {
            Format::Json => parts.json(level, stamp, SystemTime::now()),
            Format::Text => parts.text(level, stamp, SystemTime::now()),
        };
        // Standard error is the last place to tell that standard error is gone.
        let _ = out.write_all(&line);
    }
}

/// An event taken apart: its word, its message, and the other fields in order.
#[derive(Debug, Default)]
struct Parts {
    event: Option<String>,
    message: Option<String>,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    Str(String),
    /// A number or a boolean, as JSON writes it.
    Plain(String),
}

impl Parts {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("event", Value::Str(event)) => self.event = Some(event),
            ("message", Value::Str(message)) => self.message = Some(message),
            // Some words (`target`) are taken in the macros of tracing: there they are written with a `_`.
            (name, value) => self.fields.push((name.trim_end_matches('_'), value)),
        }
    }

    fn plain(&mut self, field: &Field, value: impl Display) {
        self.put(field, Value::Plain(value.to_string()));
    }

    fn json(&self, level: &str, stamp: &mut Stamp, now: SystemTime) -> Vec<u8> {
        let mut line = Vec::with_capacity(256);
        let mut object = Object::new(&mut line);
        object.display("ts", String::from_utf8_lossy(stamp.of(now)));
        object.str("level", &level.to_ascii_lowercase());
        object.str("event", self.event.as_deref().unwrap_or("log"));
        for (name, value) in &self.fields {
            match value {
                Value::Str(text) => object.str(name, text),
                Value::Plain(plain) => object.key(name).extend_from_slice(plain.as_bytes()),
            }
        }
        object.opt("message", self.message.as_deref());
        object.end();
        line
    }

    /// `12:00:00.123 WARN  config-rejected: weir.toml:7:8 unknown key file=weir.toml`
    fn text(&self, level: &str, stamp: &mut Stamp, now: SystemTime) -> Vec<u8> {
        let mut line = stamp.time_of_day(now).to_vec();
        json::push_display(&mut line, format_args!(" {level:<5} {}", self.event.as_deref().unwrap_or("log")));
        if let Some(message) = &self.message {
            json::push_display(&mut line, format_args!(": {message}"));
        }
        for (name, value) in &self.fields {
            match value {
                Value::Str(text) if text.is_empty() || text.contains([' ', '"']) => {
                    json::push_display(&mut line, format_args!(" {name}="));
                    line.push(b'"');
                    json::escape(&mut line, text);
                    line.push(b'"');
                }
                Value::Str(text) | Value::Plain(text) => {
                    json::push_display(&mut line, format_args!(" {name}={text}"));
                }
            }
        }
        line.push(b'\n');
        line
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::Str(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.plain(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.plain(field, "null");
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, Value::Str(format!("{value:?}")));
    }
}

impl<W> Debug for EventLayer<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLayer").field("settings", self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `tell` makes, without their time of day.
    fn lines(level: Level, format: Format, tell: impl FnOnce()) -> Vec<String> {
        let settings: &'static Settings = Box::leak(Box::default());
        settings.set(level, format);
        let page = Page::default();
        let layer = EventLayer { settings, out: Mutex::new((Stamp::default(), page.clone())) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), tell);
        let text = String::from_utf8(lock(&page.0).clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn without_ts(line: &str) -> String {
        let (ts, rest) = line.split_once(',').unwrap();
        assert!(ts.len() == r#"{"ts":"2026-03-01T12:00:00.123Z""#.len() && ts.ends_with("Z\""), "{ts}");
        serde_json::from_str::<serde_json::Value>(line).unwrap();
        rest.to_owned()
    }

    #[test]
    fn json_has_level_event_fields_in_order_and_message() {
        let told = lines(Level::Info, Format::Json, || {
            let error = std::io::Error::other("no \"way\"");
            tracing::warn!(target: "weir", event = "reload", zone = "b", a = 17, ok = true, x = f64::NAN, %error, "say {}", 1);
            tracing::info!(target: "weir", "bare");
        });
        assert_eq!(
            without_ts(&told[0]),
            r#""level":"warn","event":"reload","zone":"b","a":17,"ok":true,"x":null,"error":"no \"way\"","message":"say 1"}"#
        );
        assert_eq!(without_ts(&told[1]), r#""level":"info","event":"log","message":"bare"}"#);
    }

    #[test]
    fn level_and_foreign_targets_are_filtered() {
        let tell = || {
            tracing::debug!(target: "weir", event = "fine");
            tracing::error!(target: "hyper::proto", event = "foreign");
            tracing::error!(target: "weirdo", event = "foreign");
            tracing::error!(event = "own-module");
        };
        assert_eq!(lines(Level::Info, Format::Json, tell).len(), 1);
        assert_eq!(lines(Level::Debug, Format::Json, tell).len(), 2);
    }

    #[test]
    fn text_is_one_safe_line() {
        let told = lines(Level::Info, Format::Text, || {
            tracing::info!(target: "weir", event = "reload", by = "file", why = "two words", n = 3, "all\nwell\u{1b}");
        });
        assert_eq!(&told[0][12..], r#" INFO  reload: all\nwell\u001b by=file why="two words" n=3"#);
    }

    #[test]
    fn init_twice_is_harmless() {
        init(Level::Error, Format::Json);
        init(Level::Warn, Format::Text);
        assert_eq!((SETTINGS.level(), SETTINGS.format()), (LevelFilter::WARN, Format::Text));
    }
}
