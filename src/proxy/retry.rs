//! What follows a failed attempt: another one, another version, or the client's answer. Pure.
//!
//! Invariants (amendments.md 1.4): what was sent goes out a second time only if its method is listed, its body can be
//! replayed and nothing has reached the client; what was not sent may always go elsewhere; `attempts` counts what
//! follows the first.

use http::Method;

use super::deadlines::TOTAL;
use super::error::ProxyError;
use crate::config::{OnUnavailable, Retries};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The endpoint got nothing of the request.
    Unsent(ProxyError),
    /// It may have got it.
    Sent(ProxyError),
    /// It answered with this.
    Status(u16),
}

/// Where the request stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing<'a> {
    pub(super) retries: &'a Retries,
    pub(super) on_unavailable: &'a OnUnavailable,
    pub(super) method: &'a Method,
    /// It could be sent again as a whole.
    pub(super) is_replayable: bool,
    /// An earlier attempt may have got it.
    pub(super) was_sent: bool,
    /// Attempts after the first.
    pub(super) retried: u32,
    /// The version has an endpoint that was not tried.
    pub(super) has_untried: bool,
    pub(super) stage: Stage,
    pub(super) is_stable: bool,
}

/// Whose endpoints are being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Those of the version that was chosen.
    Own,
    /// Those of others, since its own could not be used.
    Spill,
    /// Stable's, since its own failed.
    Rescue,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another endpoint of the same version; `within_budget` if the endpoint before may have worked for it.
    Retry {
        within_budget: bool,
    },
    /// Another version, since this one has nobody.
    Spill,
    /// The same, should the endpoint that broke off take no connection any more.
    SpillIfGone,
    Rescue,
    /// Wait for an endpoint.
    Hold,
    /// The client gets what there is.
    GiveUp,
}

impl Standing<'_> {
    /// The same without a place in the budget: no other endpoint gets what one may have worked for.
    pub(super) fn without_budget(self) -> Self {
        Self { retried: u32::MAX, ..self }
    }
}

/// Decides.
pub(super) fn next(standing: &Standing<'_>, failure: Failure) -> Next {
    match failure {
        Failure::Unsent(ProxyError::Connect | ProxyError::Tls | ProxyError::NoEndpoint) => unsent(standing, failure),
        // Of what is lacking here the next endpoint would lack it too.
        Failure::Unsent(_) => Next::GiveUp,
        Failure::Sent(_) | Failure::Status(_) => sent(standing, failure),
    }
}

fn unsent(standing: &Standing<'_>, failure: Failure) -> Next {
    let failed_to_connect = failure != Failure::Unsent(ProxyError::NoEndpoint);
    if failed_to_connect && standing.retries.on.connect && standing.has_untried && may_retry(standing) {
        return Next::Retry { within_budget: false };
    }
    let may_go_again = !standing.was_sent || may_repeat(standing);
    if may_go_again && standing.stage != Stage::Rescue { unavailable(standing) } else { Next::GiveUp }
}

fn unavailable(standing: &Standing<'_>) -> Next {
    match standing.on_unavailable {
        OnUnavailable::Spill => Next::Spill,
        OnUnavailable::Hold(_) => Next::Hold,
        OnUnavailable::Fail if may_rescue(standing) => Next::Rescue,
        OnUnavailable::Fail => Next::GiveUp,
    }
}

fn sent(standing: &Standing<'_>, failure: Failure) -> Next {
    if !is_listed(standing.retries, failure) || !may_repeat(standing) {
        return Next::GiveUp;
    }
    if standing.has_untried && may_retry(standing) {
        return Next::Retry { within_budget: true };
    }
    let may_spill = *standing.on_unavailable == OnUnavailable::Spill && standing.stage != Stage::Rescue;
    match failure {
        _ if may_rescue(standing) => Next::Rescue,
        // An endpoint that died took the requests on its new connections with it. One that lives and resets is answered
        // for by its version.
        Failure::Sent(ProxyError::Reset) if may_spill => Next::SpillIfGone,
        _ => Next::GiveUp,
    }
}

/// An own timeout or broken answer is as good as the status the client would get for it.
fn is_listed(retries: &Retries, failure: Failure) -> bool {
    let on = &retries.on;
    let status = |status: u16| on.statuses.contains(&status);
    match failure {
        Failure::Status(code) => status(code),
        Failure::Sent(ProxyError::Reset) => on.reset,
        // Whatever the next endpoint says, the exchange's time is over.
        Failure::Sent(ProxyError::Timeout(TOTAL)) => false,
        Failure::Sent(ProxyError::Timeout(_)) => on.timeout || status(504),
        Failure::Sent(ProxyError::Protocol) => status(502),
        Failure::Sent(_) | Failure::Unsent(_) => false,
    }
}

fn may_repeat(standing: &Standing<'_>) -> bool {
    standing.is_replayable && standing.retries.methods.contains(standing.method)
}

fn may_retry(standing: &Standing<'_>) -> bool {
    standing.retried < standing.retries.attempts && standing.stage != Stage::Rescue
}

fn may_rescue(standing: &Standing<'_>) -> bool {
    standing.retries.rescue && !standing.is_stable && standing.stage == Stage::Own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Hold, RetryOn};

    const CONNECT: Failure = Failure::Unsent(ProxyError::Connect);
    const NOBODY: Failure = Failure::Unsent(ProxyError::NoEndpoint);
    const RESET: Failure = Failure::Sent(ProxyError::Reset);
    const LATE: Failure = Failure::Sent(ProxyError::Timeout("first_byte"));

    fn with(change: impl FnOnce(&mut Retries, &mut OnUnavailable, &mut Standing<'_>), failure: Failure) -> Next {
        let (mut retries, mut on_unavailable) = (Retries::default(), OnUnavailable::Fail);
        let (spare_retries, spare_unavailable) = (Retries::default(), OnUnavailable::Fail);
        let mut standing = Standing {
            retries: &spare_retries,
            on_unavailable: &spare_unavailable,
            method: &Method::GET,
            is_replayable: true,
            was_sent: false,
            retried: 0,
            has_untried: true,
            stage: Stage::Own,
            is_stable: false,
        };
        change(&mut retries, &mut on_unavailable, &mut standing);
        next(&Standing { retries: &retries, on_unavailable: &on_unavailable, ..standing }, failure)
    }

    #[test]
    fn another_endpoint_of_the_same_version_comes_first() {
        assert_eq!(with(|_, _, _| (), CONNECT), Next::Retry { within_budget: false });
        for failure in [RESET, LATE, Failure::Status(503), Failure::Sent(ProxyError::Protocol)] {
            assert_eq!(with(|_, _, _| (), failure), Next::Retry { within_budget: true }, "{failure:?}");
        }
        assert_eq!(with(|_, _, s| s.method = &Method::POST, CONNECT), Next::Retry { within_budget: false });
    }

    #[test]
    fn what_may_have_been_seen_is_sent_once() {
        assert_eq!(with(|_, _, s| s.method = &Method::POST, RESET), Next::GiveUp);
        assert_eq!(with(|_, _, s| s.is_replayable = false, RESET), Next::GiveUp);
        assert_eq!(with(|_, _, _| (), Failure::Status(500)), Next::GiveUp);
        assert_eq!(with(|r, _, _| r.on = RetryOn::default(), RESET), Next::GiveUp);
        assert_eq!(with(|_, _, s| s.retried = 1, RESET), Next::GiveUp);
        assert_eq!(with(|_, _, s| s.has_untried = false, RESET), Next::GiveUp);
        let spent = |_: &mut Retries, _: &mut OnUnavailable, s: &mut Standing<'_>| {
            (s.was_sent, s.method, s.has_untried) = (true, &Method::POST, false);
        };
        assert_eq!(with(spent, CONNECT), Next::GiveUp);
    }

    #[test]
    fn a_version_without_endpoints_is_handled_as_its_split_says() {
        let none_left = |s: &mut Standing<'_>| s.has_untried = false;
        for failure in [CONNECT, NOBODY] {
            assert_eq!(with(|_, _, s| none_left(s), failure), Next::GiveUp);
            let spill = |_: &mut Retries, on: &mut OnUnavailable, s: &mut Standing<'_>| {
                *on = OnUnavailable::Spill;
                none_left(s);
            };
            assert_eq!(with(spill, failure), Next::Spill);
            let hold = |_: &mut Retries, on: &mut OnUnavailable, s: &mut Standing<'_>| {
                *on = OnUnavailable::Hold(Hold { timeout: std::time::Duration::from_secs(1), requests: 1 });
                none_left(s);
            };
            assert_eq!(with(hold, failure), Next::Hold);
        }
        assert_eq!(with(|_, on, _| *on = OnUnavailable::Spill, NOBODY), Next::Spill);
        let broken = |_: &mut Retries, on: &mut OnUnavailable, s: &mut Standing<'_>| {
            *on = OnUnavailable::Spill;
            (s.was_sent, s.retried, s.has_untried) = (true, 1, false);
        };
        assert_eq!(with(broken, RESET), Next::SpillIfGone);
        assert_eq!(with(broken, CONNECT), Next::Spill, "the next endpoint was gone too");
        assert_eq!(with(broken, Failure::Status(503)), Next::GiveUp);
        assert_eq!(with(|r, on, s| (broken(r, on, s), s.method = &Method::POST).0, RESET), Next::GiveUp);
        assert_eq!(with(|r, on, s| (broken(r, on, s), s.method = &Method::POST).0, CONNECT), Next::GiveUp);
        assert_eq!(with(|r, on, s| (broken(r, on, s), s.stage = Stage::Rescue).0, RESET), Next::GiveUp);
        assert_eq!(with(|_, on, _| *on = OnUnavailable::Spill, Failure::Unsent(ProxyError::Overloaded)), Next::GiveUp);
    }

    #[test]
    fn rescue_is_one_last_attempt_of_a_version_that_is_not_stable() {
        let rescue = |r: &mut Retries, s: &mut Standing<'_>| (r.rescue, s.retried) = (true, 1);
        for failure in [RESET, LATE, Failure::Status(503)] {
            assert_eq!(with(|r, _, s| rescue(r, s), failure), Next::Rescue);
        }
        let alone = |r: &mut Retries, s: &mut Standing<'_>| (r.rescue, s.has_untried) = (true, false);
        assert_eq!(with(|r, _, s| alone(r, s), Failure::Status(503)), Next::Rescue);
        assert_eq!(with(|r, _, s| alone(r, s), CONNECT), Next::Rescue);
        let unbudgeted = |r: &mut Retries, s: &mut Standing<'_>| (r.rescue, *s) = (true, s.without_budget());
        assert_eq!(with(|r, _, s| unbudgeted(r, s), RESET), Next::Rescue, "it is outside the budget");
        assert_eq!(with(|r, _, s| (rescue(r, s), s.is_stable = true).1, RESET), Next::GiveUp);
        assert_eq!(with(|r, _, s| (rescue(r, s), s.stage = Stage::Rescue).1, RESET), Next::GiveUp);
        assert_eq!(with(|r, _, s| (rescue(r, s), s.method = &Method::POST).1, RESET), Next::GiveUp);
    }
}
