//! `Idempotency-Key`: a POST that is sent again gets the first answer instead of being carried out twice.
//!
//! The first request runs in a task of its own, so that it ends and is remembered even when its caller has gone; a
//! second one that comes meanwhile waits for it. Invariant: at most `CAPACITY` keys of at most `KEEP` age; answers that
//! say "nothing was done, try again" (5xx) are not kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::error::{IDEMPOTENCY_KEY_REUSED, INTERNAL, Problem};
use crate::model::Instant;

const KEEP: Duration = Duration::from_secs(24 * 3600);
const CAPACITY: usize = 10_000;

/// What makes two requests the same.
pub(super) type Fingerprint = [u8; 32];

/// The fingerprint of a request.
pub(super) fn fingerprint(method: &str, target: &str, body: &[u8]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in [method.as_bytes(), b" ", target.as_bytes(), b"\n", body] {
        hash.update(part);
    }
    hash.finalize().into()
}

#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

type Slot = Arc<OnceCell<Answer>>;

#[derive(Debug)]
struct Entry {
    born: Instant,
    fingerprint: Fingerprint,
    slot: Slot,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<String, Entry>,
    /// Oldest first. A key that was forgotten and used again is in it twice; `born` tells them apart.
    by_age: VecDeque<(Instant, String)>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Replays(Mutex<Entries>);

impl Replays {
    /// Runs `run` if the key is new, else gives the first answer again.
    pub(super) async fn answer_once<F>(self: &Arc<Self>, key: String, print: Fingerprint, run: F) -> Response
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let slot = match self.claim(&key, print, Instant::now()) {
            Ok(slot) => slot,
            Err(problem) => return problem.into_response(),
        };
        let this = self.clone();
        let task = tokio::spawn(async move {
            let mut first = false;
            let init = || {
                first = true;
                async { Answer::of(run.await).await }
            };
            let answer = slot.get_or_init(init).await.clone();
            if answer.status.is_server_error() {
                this.forget(&key, &slot);
            }
            answer.into_response(!first)
        });
        task.await.unwrap_or_else(|_| Problem::new(INTERNAL, "the change ended in a panic").into_response())
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, key: &str, fingerprint: Fingerprint, now: Instant) -> Result<Slot, Problem> {
        let mut entries = self.entries();
        entries.expire(now);
        if let Some(known) = entries.by_key.get(key) {
            let detail = format!("the key `{key}` belongs to another request of the last 24 hours");
            let same = known.fingerprint == fingerprint;
            return if same { Ok(known.slot.clone()) } else { Err(Problem::new(IDEMPOTENCY_KEY_REUSED, detail)) };
        }
        let slot = Slot::default();
        entries.by_key.insert(key.to_owned(), Entry { born: now, fingerprint, slot: slot.clone() });
        entries.by_age.push_back((now, key.to_owned()));
        Ok(slot)
    }

    fn forget(&self, key: &str, slot: &Slot) {
        let mut entries = self.entries();
        if entries.by_key.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.slot, slot)) {
            entries.by_key.remove(key);
        }
    }
}

impl Entries {
    /// Drops what is too old, and the oldest while there is no room for one more.
    fn expire(&mut self, now: Instant) {
        while let Some((born, key)) = self.by_age.front() {
            if now.duration_since(*born) < KEEP && self.by_age.len() < CAPACITY {
                return;
            }
            if self.by_key.get(key).is_some_and(|entry| entry.born == *born) {
                self.by_key.remove(key);
            }
            self.by_age.pop_front();
        }
    }
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        match axum::body::to_bytes(body, usize::MAX).await {
            Ok(body) => Self { status: parts.status, headers: parts.headers, body },
            // Our bodies are in memory; should one ever fail, a 5xx is not kept.
            Err(_) => Self { status: StatusCode::INTERNAL_SERVER_ERROR, headers: HeaderMap::new(), body: Bytes::new() },
        }
    }

    fn into_response(self, replayed: bool) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if replayed {
            response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn call(
        replays: &Arc<Replays>,
        key: &str,
        body: &str,
        runs: &Arc<AtomicU32>,
        status: u16,
    ) -> (u16, String, bool) {
        let counter = runs.clone();
        let run = async move {
            let n = counter.fetch_add(1, Ordering::SeqCst) + 1;
            (StatusCode::from_u16(status).unwrap(), format!("answer {n}")).into_response()
        };
        let print = fingerprint("POST", "/x", body.as_bytes());
        let response = replays.answer_once(key.into(), print, run).await;
        let (status, replayed) = (response.status().as_u16(), response.headers().contains_key("idempotency-replayed"));
        let bytes = axum::body::to_bytes(response.into_body(), 9999).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap(), replayed)
    }

    #[tokio::test]
    async fn the_first_answer_is_replayed_and_another_body_refused() {
        let (replays, runs) = (Arc::new(Replays::default()), Arc::new(AtomicU32::new(0)));
        assert_eq!(call(&replays, "a", "1", &runs, 409).await, (409, "answer 1".into(), false));
        assert_eq!(call(&replays, "a", "1", &runs, 409).await, (409, "answer 1".into(), true));
        assert_eq!(call(&replays, "a", "2", &runs, 409).await.0, 422);
        assert_eq!(call(&replays, "b", "2", &runs, 200).await.1, "answer 2");
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_server_error_is_tried_again() {
        let (replays, runs) = (Arc::new(Replays::default()), Arc::new(AtomicU32::new(0)));
        assert_eq!(call(&replays, "a", "1", &runs, 507).await.0, 507);
        assert_eq!(call(&replays, "a", "1", &runs, 200).await, (200, "answer 2".into(), false));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_does_not_cause_a_second_run() {
        let (replays, runs) = (Arc::new(Replays::default()), Arc::new(AtomicU32::new(0)));
        let (go, gate) = tokio::sync::oneshot::channel::<()>();
        let counter = runs.clone();
        let slow = async move {
            gate.await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            "first".into_response()
        };
        let print = fingerprint("POST", "/x", b"1");
        let theirs = replays.clone();
        let caller = tokio::spawn(async move { theirs.answer_once("a".into(), print, slow).await });
        while replays.entries().by_key.is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        go.send(()).unwrap();
        assert_eq!(call(&replays, "a", "1", &runs, 200).await, (200, "first".into(), true));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn keys_are_bounded_in_age_and_number() {
        let (replays, now) = (Replays::default(), Instant::now());
        for i in 0..CAPACITY + 50 {
            replays.claim(&i.to_string(), [0; 32], now).unwrap();
        }
        assert_eq!(replays.entries().by_key.len(), CAPACITY);
        assert!(!replays.entries().by_key.contains_key("0"), "the oldest goes first");
        assert!(replays.claim("60", [1; 32], now).is_err());
        assert!(replays.claim("60", [1; 32], now + KEEP).is_ok());
        assert_eq!(replays.entries().by_key.len(), 1);
    }
}
