//! When an exchange is given up (`timeouts` of its split).

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Sleep;

use super::exchange::Exchange;
use super::upload::Upload;
use crate::config::UpstreamTimeouts;
use crate::model::Instant;

/// See the file's head.
pub(super) struct Deadlines {
    begun: Instant,
    first_byte: Option<Duration>,
    total: Option<Instant>,
    /// While the client still sends, the endpoint is not late.
    upload: Option<Rc<Upload>>,
}

/// The whole exchange has taken too long; another attempt has no time left.
pub(super) const TOTAL: &str = "the exchange took too long (timeouts.total)";
const FIRST_BYTE: &str = "no first byte of an answer in time (timeouts.first_byte)";

impl Deadlines {
    pub(super) fn new(begun: Instant, exchange: &Exchange, timeouts: &UpstreamTimeouts) -> Self {
        let total = Self::total(exchange, timeouts);
        Self { begun, first_byte: timeouts.first_byte, total, upload: exchange.upload().cloned() }
    }

    /// When the whole exchange is over, its attempts and waits included.
    pub(super) fn total(exchange: &Exchange, timeouts: &UpstreamTimeouts) -> Option<Instant> {
        timeouts.total.and_then(|limit| exchange.started().checked_add(limit))
    }

    /// Ends when the answer's head is overdue, and says which limit that is.
    pub(super) async fn head(&self) -> &'static str {
        loop {
            let first_byte = self.first_byte.and_then(|limit| self.sent().checked_add(limit));
            let Some(at) = [first_byte, self.total].into_iter().flatten().min() else { std::future::pending().await };
            tokio::time::sleep_until(at).await;
            if self.total.is_some_and(|total| total <= at) {
                return TOTAL;
            }
            let sending = self.upload.as_ref().is_some_and(|u| u.ended.get().is_none());
            if !sending && self.first_byte.is_some_and(|limit| self.sent() + limit <= at) {
                return FIRST_BYTE;
            }
        }
    }

    /// When the request was sent to its end; now, while that is still going on.
    fn sent(&self) -> Instant {
        match &self.upload {
            None => self.begun,
            Some(upload) => upload.ended.get().map_or_else(Instant::now, |ended| ended.max(self.begun)),
        }
    }

    pub(super) fn for_body(&self) -> Option<Pin<Box<Sleep>>> {
        self.total.map(|at| Box::pin(tokio::time::sleep_until(at)))
    }
}
