//! A version's endpoints, and the choice of one for a request.

use std::sync::Arc;

use super::endpoint::{Claim, Endpoint};
use super::in_flight::Refused;
use crate::balance;

/// Why no endpoint of a version could be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The version has no endpoint, or all are tried or draining.
    None,
    /// At least one would do but for `max_in_flight`.
    Full,
}

/// An endpoint as one version has it. The endpoint itself outlives reloads, what the file says about it does not.
#[derive(Clone, Debug)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    /// Relative share among the version's endpoints, 0 to 1,000,000.
    pub weight: u32,
    /// The name that led to it, if one did: what a certificate is asked of.
    pub host: Option<Arc<str>>,
}

impl From<Arc<Endpoint>> for Member {
    fn from(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, weight: 1, host: None }
    }
}

/// The endpoints of one version.
#[derive(Debug)]
pub struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    /// In the order of `endpoints`.
    weights: Vec<u32>,
    /// In the order of `endpoints`.
    hosts: Vec<Option<Arc<str>>>,
    max_in_flight: u32,
}

impl Pool {
    /// `max_in_flight` is per endpoint.
    pub fn new(members: impl IntoIterator<Item = impl Into<Member>>, max_in_flight: u32) -> Self {
        let members = members.into_iter().map(|member| member.into());
        let (endpoints, weights, hosts) = members.map(|m| (m.endpoint, m.weight, m.host)).collect();
        Self { endpoints, weights, hosts, max_in_flight }
    }

    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The weight of each endpoint, in the order of `endpoints`.
    pub fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// The name that led to each endpoint, in the order of `endpoints`.
    pub fn hosts(&self) -> &[Option<Arc<str>>] {
        &self.hosts
    }

    /// Requests in flight allowed per endpoint.
    pub fn max_in_flight(&self) -> u32 {
        self.max_in_flight
    }

    /// Chooses the less busy of two random endpoints and counts the request in; falls back to the others in order.
    /// Returns the endpoint's index in `endpoints` and the guard. `tried` is left out (bit `i` = endpoint `i`; only
    /// the first 64 endpoints can be told apart, the rest may be tried again).
    ///
    /// # Errors
    /// `Unavailable` when every endpoint is tried, not available or full.
    pub fn claim(&self, tried: u64, rng: &mut fastrand::Rng) -> Result<(usize, Claim), Unavailable> {
        let is_out = |i: usize| i < 64 && tried & (1 << i) != 0 || !self.endpoints[i].is_available();
        let busy = |i: usize| if is_out(i) { u32::MAX } else { self.endpoints[i].counts().total() };
        let Some(first) = balance::p2c(self.endpoints.len(), busy, rng) else { return Err(Unavailable::None) };
        let mut why = Unavailable::None;
        let rest = (0..self.endpoints.len()).filter(|&i| i != first);
        for i in std::iter::once(first).chain(rest).filter(|&i| !is_out(i)) {
            match self.endpoints[i].claim(self.max_in_flight) {
                Ok(claim) => return Ok((i, claim)),
                Err(Refused::Full) => why = Unavailable::Full,
                Err(Refused::Draining) => {}
            }
        }
        Err(why)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Address, Instant};
    use crate::pool::{Deadlines, Health};

    fn pool(n: u16) -> Pool {
        let endpoint = |i| Arc::new(Endpoint::new(Address::Tcp(([127, 0, 0, 1], 9000 + i).into())));
        Pool::new((0..n).map(endpoint), 2)
    }

    #[test]
    fn an_endpoint_that_its_checks_do_not_call_able_gets_nothing() {
        let (pool, mut rng) = (pool(2), fastrand::Rng::with_seed(1));
        for (health, is_used) in
            [(Health::Checking, false), (Health::Down, false), (Health::Up, true), (Health::Unchecked, true)]
        {
            pool.endpoints()[0].set_health(health);
            let used = (0..50).any(|_| pool.claim(0, &mut rng).unwrap().0 == 0);
            assert_eq!(used, is_used, "{health:?}");
        }
        for endpoint in pool.endpoints() {
            endpoint.set_health(Health::Down);
        }
        assert_eq!(pool.claim(0, &mut rng).unwrap_err(), Unavailable::None);
    }

    #[test]
    fn every_free_endpoint_is_found_before_giving_up() {
        let (pool, mut rng) = (pool(3), fastrand::Rng::with_seed(1));
        pool.endpoints()[1].drain(Deadlines::new(Instant::now(), Duration::from_secs(1), Duration::ZERO));
        let claims: Vec<_> = (0..4).map(|_| pool.claim(0, &mut rng).unwrap()).collect();
        assert!(claims.iter().all(|(i, _)| *i != 1));
        assert_eq!(pool.claim(0, &mut rng).unwrap_err(), Unavailable::Full);
        drop(claims);
        assert_eq!(pool.claim(0b101, &mut rng).unwrap_err(), Unavailable::None);
        assert_eq!(pool.claim(0b001, &mut rng).unwrap().0, 2);
    }

    #[test]
    fn load_spreads_evenly() {
        let (pool, mut rng) = (Pool::new(pool(4).endpoints().to_vec(), 1000), fastrand::Rng::with_seed(7));
        let claims: Vec<_> = (0..400).map(|_| pool.claim(0, &mut rng).unwrap()).collect();
        for endpoint in pool.endpoints() {
            assert!((90..=110).contains(&endpoint.counts().requests), "{:?}", endpoint.counts());
        }
        drop(claims);
    }
}
