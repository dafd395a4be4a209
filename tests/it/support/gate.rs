//! A gate that scripted origins wait at until the test lets them through.

use std::sync::{Arc, Condvar, Mutex};

use super::{Instant, LIMIT};

/// Clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    open: bool,
    permits: usize,
    waiting: usize,
}

impl Gate {
    /// Blocks until opened or let through; true if so, false after twice the usual limit.
    pub fn wait(&self) -> bool {
        let (state, changed) = &*self.0;
        let deadline = Instant::now() + 2 * LIMIT;
        let mut state = state.lock().unwrap();
        state.waiting += 1;
        while !state.open && state.permits == 0 && Instant::now() < deadline {
            state = changed.wait_timeout(state, deadline - Instant::now()).unwrap().0;
        }
        state.waiting -= 1;
        let through = state.open || state.permits > 0;
        state.permits = state.permits.saturating_sub(1);
        through
    }

    /// Lets exactly one through.
    pub fn let_one(&self) {
        self.0.0.lock().unwrap().permits += 1;
        self.0.1.notify_one();
    }

    /// Lets all through, now and later.
    pub fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }

    /// How many stand before it.
    pub fn waiting(&self) -> usize {
        self.0.0.lock().unwrap().waiting
    }
}
