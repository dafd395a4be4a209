//! The addresses that names have now, and a version's endpoints put together from them and from the file.
//!
//! Pure, and not persisted: a restart asks again. Invariants: what a name once had stays until there is another answer,
//! also while no configuration names it; a version has each address once, as its first entry has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{EndpointSpec, NameTarget, Target, Version};
use crate::model::Address;

/// Names remembered although the configuration has none of them; beyond it all of those are forgotten.
const REMEMBERED: usize = 1024;
/// As large as a weight in the file may be.
const LARGEST_WEIGHT: u32 = 1_000_000;

/// One address of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Resolved {
    pub address: Address,
    /// Multiplies the entry's weight: an SRV record's own, else 1.
    pub weight: u32,
    /// Whom a certificate is asked of: the name, or an SRV record's target.
    pub host: Arc<str>,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<BTreeMap<NameTarget, Arc<[Resolved]>>>);

/// One endpoint of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub address: Address,
    pub weight: u32,
    /// The name that led to it.
    pub host: Option<Arc<str>>,
}

impl Names {
    /// With another answer for one name; `None` if that is the present one.
    pub fn with(
        &self,
        name: &NameTarget,
        addresses: &Arc<[Resolved]>,
        is_configured: impl Fn(&NameTarget) -> bool,
    ) -> Option<Self> {
        if self.0.get(name).is_some_and(|known| known == addresses) {
            return None;
        }
        let mut next = BTreeMap::clone(&self.0);
        next.insert(name.clone(), addresses.clone());
        if next.len() > REMEMBERED {
            next.retain(|name, _| is_configured(name));
        }
        Some(Self(Arc::new(next)))
    }

    /// What another process of us had.
    pub fn of_another(all: &[(NameTarget, Vec<Resolved>)]) -> Self {
        Self(Arc::new(all.iter().map(|(name, addresses)| (name.clone(), addresses.clone().into())).collect()))
    }

    /// For another process of us.
    pub fn all(&self) -> Vec<(NameTarget, Vec<Resolved>)> {
        self.0.iter().map(|(name, addresses)| (name.clone(), addresses.to_vec())).collect()
    }

    /// The version's endpoints, in the order of its entries and, within a name, of the answer.
    pub fn places(&self, version: &Version) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for place in version.endpoints.iter().flat_map(|spec| self.of(spec)) {
            if !places.iter().any(|known| known.address == place.address) {
                places.push(place);
            }
        }
        places
    }

    fn of<'a>(&'a self, spec: &'a EndpointSpec) -> impl Iterator<Item = Place> + 'a {
        let written = match &spec.target {
            Target::Address(address) => Some(Place { address: address.clone(), weight: spec.weight, host: None }),
            Target::Name(_) => None,
        };
        let resolved = match &spec.target {
            Target::Name(name) => self.0.get(name).map(|addresses| addresses.iter()),
            Target::Address(_) => None,
        };
        let resolved = resolved.into_iter().flatten().map(|found| Place {
            address: found.address.clone(),
            weight: spec.weight.saturating_mul(found.weight).min(LARGEST_WEIGHT),
            host: Some(found.host.clone()),
        });
        written.into_iter().chain(resolved)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::NameOf;
    use crate::model::{VersionName, Weight};

    fn name(text: &str) -> NameTarget {
        NameTarget { name: text.into(), of: NameOf::Hosts(80) }
    }

    fn resolved(of: &str, all: &[(u16, u32)]) -> Arc<[Resolved]> {
        all.iter().map(|(port, weight)| Resolved { address: at(*port), weight: *weight, host: of.into() }).collect()
    }

    fn at(port: u16) -> Address {
        SocketAddr::from(([127, 0, 0, 1], port)).into()
    }

    fn version(specs: Vec<EndpointSpec>) -> Version {
        let name = VersionName::new("v1").unwrap();
        Version { endpoints: specs, ..Version::new(name, Weight::default(), Vec::new()) }
    }

    #[test]
    fn each_address_is_there_once_as_its_first_entry_has_it() {
        let spec = |target, weight| EndpointSpec { target, weight };
        let version = version(vec![
            spec(Target::Name(name("a")), 2),
            spec(Target::Address(at(2)), 7),
            spec(Target::Name(name("b")), 1),
            spec(Target::Name(name("unknown")), 1),
        ]);
        let names = Names::default().with(&name("a"), &resolved("a", &[(1, 1), (2, 10)]), |_| true).unwrap();
        let names = names.with(&name("b"), &resolved("b", &[(2, 1), (3, 2_000_000)]), |_| true).unwrap();
        let found = names.places(&version);
        let found: Vec<_> = found.iter().map(|p| (p.address.clone(), p.weight, p.host.as_deref())).collect();
        assert_eq!(found, [(at(1), 2, Some("a")), (at(2), 20, Some("a")), (at(3), LARGEST_WEIGHT, Some("b"))]);
    }

    #[test]
    fn the_same_answer_changes_nothing_and_memory_is_bounded() {
        let answer = resolved("a", &[(1, 1)]);
        let mut names = Names::default().with(&name("kept"), &answer, |_| true).unwrap();
        assert!(names.with(&name("kept"), &answer, |_| true).is_none());
        for i in 0..3 * REMEMBERED {
            let is_configured = |name: &NameTarget| &*name.name == "kept";
            names = names.with(&name(&format!("n{i}")), &answer, is_configured).unwrap();
            assert!(names.0.len() <= REMEMBERED + 1 && names.0.contains_key(&name("kept")));
        }
    }
}
