//! The set's part in hand-overs: what it gives to a successor, and what it takes from a predecessor or from the service
//! manager instead of binding it.

use std::io;
use std::sync::{MutexGuard, PoisonError};

use super::{BindError, Bound, Inherited, Listeners, Stopping, overlap};
use crate::config::Bind;
use crate::model::ListenerName;
use crate::net::listen::{Activated, Handed, Sockets};

impl Listeners {
    fn inherited(&self) -> MutexGuard<'_, Inherited> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Second handles to everything, for a successor. Nothing changes here.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn share(&self) -> io::Result<Inherited> {
        let state = self.state();
        let own = state.open.iter().filter(|open| !matches!(open.bound.sockets, Sockets::Given { .. }));
        let handed = own.map(|open| {
            let (sockets, file) = open.bound.share()?;
            let (configured, address) = (open.configured.clone(), open.bound.address.clone());
            Ok(Handed { name: open.name.clone(), configured, address, file, sockets })
        });
        let handed = handed.collect::<io::Result<_>>()?;
        let given = |a: &Activated| Ok(Activated { name: a.name.clone(), socket: a.socket.try_clone()? });
        let activated = self.inherited().activated.iter().map(given).collect::<io::Result<_>>()?;
        Ok(Inherited { handed, activated })
    }

    /// As `close`, once a successor accepts from the addresses in `kept`: there nothing is closed in the kernel.
    pub fn hand_over(&self, kept: &[Bind]) -> Vec<Stopping> {
        let open = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.open)
        };
        let leave = |mut open: super::Open| {
            if kept.contains(&open.bound.address) {
                open.bound.disown();
            }
            self.stop(open.bound)
        };
        let stopping = open.into_iter().map(leave).collect();
        self.inherited().activated.clear();
        stopping
    }

    /// Closes what a predecessor handed over and nobody asked for: it is for the predecessor to stop it without loss.
    pub fn forget_inherited(&self) {
        self.inherited().handed.clear();
    }

    /// Something that was handed over overlaps this address.
    pub(super) fn has_inherited(&self, address: &Bind) -> bool {
        self.inherited().handed.iter().any(|handed| overlap(&handed.address, address))
    }

    /// The address a predecessor handed over.
    pub(super) fn take_over(&self, name: &ListenerName, configured: &Bind) -> Result<Option<Bound>, BindError> {
        let handed = {
            let mut inherited = self.inherited();
            let found = inherited.handed.iter().position(|h| is_same((&h.name, &h.configured), (name, configured)));
            found.map(|i| inherited.handed.swap_remove(i))
        };
        handed.map(|handed| handed.into_bound(self.workers)).transpose()
    }

    /// The sockets the service manager passed by that name.
    pub(super) fn given(&self, configured: &Bind) -> Result<Vec<Bound>, BindError> {
        let failed = |source| BindError::Other { address: configured.clone(), source };
        let inherited = self.inherited();
        let found: Vec<_> = inherited.activated.iter().filter(|a| is_named(a, configured)).collect();
        if found.is_empty() {
            let mut passed: Vec<String> = inherited.activated.iter().map(|a| a.name.clone()).collect();
            passed.dedup();
            return Err(BindError::NotPassed { address: configured.clone(), passed });
        }
        let workers = self.workers.max(1);
        let bound = |a: &Activated| {
            let sockets = Sockets::Given { socket: a.socket.try_clone()?, workers };
            Ok(Bound { address: a.address()?, sockets, shared: true })
        };
        found.into_iter().map(bound).collect::<io::Result<_>>().map_err(failed)
    }

    /// Where an address of the file really is.
    pub(super) fn real(&self, configured: &Bind) -> Vec<Bind> {
        let Bind::Systemd(_) = configured else { return vec![configured.clone()] };
        let inherited = self.inherited();
        inherited.activated.iter().filter(|a| is_named(a, configured)).filter_map(|a| a.address().ok()).collect()
    }
}

fn is_named(activated: &Activated, configured: &Bind) -> bool {
    matches!(configured, Bind::Systemd(name) if *name == activated.name)
}

/// Two listeners may both ask for any free port: then the name tells them apart.
pub(super) fn is_same((name, mine): (&ListenerName, &Bind), (other, theirs): (&ListenerName, &Bind)) -> bool {
    match (mine, theirs) {
        (Bind::Tcp(a), Bind::Tcp(b)) => a == b && (a.port() != 0 || name == other),
        (mine, theirs) => overlap(mine, theirs),
    }
}
