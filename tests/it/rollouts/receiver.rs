//! Somebody who is posted to: a webhook of checks, or one who wants to be told. Keeps what it was sent.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{Origin, wait_until};

/// See the file's head.
pub(super) struct Receiver {
    origin: Origin,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    /// `say` gives the status line's end for the request of that number, from 0.
    pub(super) fn answering(say: impl Fn(usize) -> &'static str + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = seen.clone();
        let origin = Origin::scripted(move |exchange| {
            let body = exchange.body()?;
            let mut all = all.lock().unwrap();
            let status = say(all.len());
            all.push(serde_json::from_slice(&body).unwrap());
            drop(all);
            exchange.answer(status, "", b"as the test says")
        });
        Self { origin, seen }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook", self.origin.address)
    }

    pub(super) fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    pub(super) fn wait_for(&self, count: usize) -> Vec<Value> {
        wait_until(&format!("{count} posts, {:?}", self.seen()), || self.seen().len() >= count);
        self.seen()
    }

    /// One field of each post.
    pub(super) fn all(&self, field: &str) -> Vec<String> {
        self.seen().iter().map(|post| post[field].as_str().unwrap_or_default().to_owned()).collect()
    }
}
