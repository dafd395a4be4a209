//! Whether traffic may come, as the sum of reasons why not.
//!
//! Invariant: not ready as long as at least one `Blocker` lives; whoever blocks holds one and drops it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the file's head. Cloned freely; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    reasons: Arc<Mutex<Vec<&'static str>>>,
}

impl Readiness {
    /// Ready, since nothing blocks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready until the guard is dropped. The name is for people: `starting`, `shutting down`.
    pub fn block(&self, name: &'static str) -> Blocker {
        self.lock().push(name);
        Blocker { name, readiness: self.clone() }
    }

    /// # Errors
    /// The names of what blocks, each once, in the order they came.
    pub fn is_ready(&self) -> Result<(), Vec<&'static str>> {
        let mut names: Vec<&'static str> = Vec::new();
        for name in self.lock().iter() {
            if !names.contains(name) {
                names.push(name);
            }
        }
        if names.is_empty() { Ok(()) } else { Err(names) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks readiness for as long as it lives.
#[derive(Debug)]
#[must_use = "readiness is blocked only as long as this lives"]
pub struct Blocker {
    name: &'static str,
    readiness: Readiness,
}

impl Drop for Blocker {
    fn drop(&mut self) {
        let mut reasons = self.readiness.lock();
        if let Some(i) = reasons.iter().position(|name| *name == self.name) {
            reasons.remove(i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_blocker_is_dropped() {
        let readiness = Readiness::new();
        assert_eq!(readiness.is_ready(), Ok(()));
        let (first, second) = (readiness.block("starting"), readiness.clone().block("no listener"));
        let third = readiness.block("starting");
        assert_eq!(readiness.is_ready(), Err(vec!["starting", "no listener"]));
        drop(first);
        assert_eq!(readiness.is_ready(), Err(vec!["no listener", "starting"]), "one of two is left");
        drop((second, third));
        assert_eq!(readiness.is_ready(), Ok(()));
    }
}
