//! Panics: counted, and told as one event each.
//!
//! A panic is a defect of ours. One in a connection's task ends that connection (its guards give back what it held), and
//! the runtime goes on; what must not end is watched elsewhere (`lifecycle::Vital`).
//! Invariant: nothing a client sent gets into the event. A message made at run time may quote it (an index out of a text
//! shows the text), so only messages that are constants of the program are told.

use std::panic::{Location, PanicHookInfo};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Panics since the start of the process.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// From now on panics of this process are counted and told as events instead of as Rust's text. Once is enough.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| std::panic::set_hook(Box::new(|info| note(&Panic::of(info)))));
}

/// What is told of a panic.
#[derive(Debug, PartialEq, Eq)]
struct Panic {
    location: String,
    message: &'static str,
}

impl Panic {
    fn of(info: &PanicHookInfo<'_>) -> Self {
        let location = info.location().map_or_else(|| "unknown".to_owned(), Location::to_string);
        let message = info.payload().downcast_ref::<&'static str>().copied();
        Self { location, message: message.unwrap_or("its message is not told, since it may quote a request") }
    }
}

fn note(panic: &Panic) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    tracing::error!(event = "panic", thread, location = panic.location, "{}; please report it", panic.message);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_panic_is_counted_and_tells_nothing_that_a_client_sent() {
        static SEEN: Mutex<Vec<Panic>> = Mutex::new(Vec::new());
        // The hook is the process's: other tests' panics go to the one before.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some("panics") {
                note(&Panic::of(info));
                SEEN.lock().unwrap().push(Panic::of(info));
            } else {
                before(info);
            }
        }));
        let counted = count();
        let panics = |run: fn()| std::thread::Builder::new().name("panics".into()).spawn(run).unwrap().join();
        assert!(panics(|| panic!("a constant")).is_err());
        assert!(panics(|| panic!("no such index in {}", std::hint::black_box("password"))).is_err());
        assert!(count() >= counted + 2);
        let seen = SEEN.lock().unwrap();
        assert_eq!(seen[0].message, "a constant");
        assert!(seen[0].location.contains("panics.rs:"), "{seen:?}");
        assert!(!format!("{:?}", seen[1]).contains("password"), "{seen:?}");
    }
}
