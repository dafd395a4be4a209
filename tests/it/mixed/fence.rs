//! What the clients may see from a moment on: "only v2 from here", "never again that endpoint".
//!
//! A request is held to the rule only if the rule stood when it was begun and still stands when it is answered; so a
//! scenario sets a rule once a change is confirmed, and lifts it before it asks for the next.

use std::sync::{Arc, Mutex};

/// Which endpoints may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    Anybody,
    /// Names that begin with this.
    Only(String),
    /// Any but that name.
    Not(String),
}

/// Clones are the same fence.
#[derive(Clone)]
pub struct Fence(Arc<Mutex<(u64, Rule)>>);

/// The rule as a request found it when it was begun.
#[derive(Clone)]
pub struct Seen(u64, Rule);

impl Fence {
    pub fn open() -> Self {
        Self(Arc::new(Mutex::new((0, Rule::Anybody))))
    }

    pub fn set(&self, rule: Rule) {
        let mut this = self.0.lock().unwrap();
        *this = (this.0 + 1, rule);
    }

    /// To be taken before the first byte of a request.
    pub fn seen(&self) -> Seen {
        let this = self.0.lock().unwrap();
        Seen(this.0, this.1.clone())
    }

    /// # Errors
    /// When that endpoint should not have answered a request begun then.
    pub fn check(&self, seen: &Seen, endpoint: &str) -> Result<(), String> {
        let allowed = match &seen.1 {
            Rule::Anybody => true,
            Rule::Only(prefix) => endpoint.starts_with(prefix),
            Rule::Not(name) => endpoint != name,
        };
        if allowed || self.0.lock().unwrap().0 != seen.0 {
            return Ok(());
        }
        Err(format!("answered by {endpoint}, although {:?} was in force before it was begun", seen.1))
    }
}

#[test]
fn a_rule_holds_for_requests_within_it() {
    let fence = Fence::open();
    assert!(fence.check(&fence.seen(), "v1-0").is_ok());
    fence.set(Rule::Only("v2".to_owned()));
    let within = fence.seen();
    assert!(fence.check(&within, "v1-0").is_err() && fence.check(&within, "v2-5").is_ok());
    fence.set(Rule::Not("v2-5".to_owned()));
    assert!(fence.check(&within, "v1-0").is_ok(), "the change after it may have come first");
    assert!(fence.check(&fence.seen(), "v2-5").is_err() && fence.check(&fence.seen(), "v2-4").is_ok());
}
