//! Descriptors kept back, so that a rollback is answered although the data plane has taken all others.
//!
//! Invariant: one is given up for each connection that could not be accepted for want of one, and taken back as soon as
//! there is one again: first of all when that connection ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

/// For the connection, what it asks for on disk, and another one beside it.
const KEPT: usize = 6;

/// See the file's head.
#[derive(Clone, Debug)]
pub(super) struct Reserve(Arc<Mutex<Vec<OwnedFd>>>);

impl Reserve {
    pub(super) fn new() -> Self {
        let reserve = Self(Arc::default());
        reserve.refill();
        reserve
    }

    /// Takes what is lacking, if it can be had: second handles to standard error, which need no path.
    pub(super) fn refill(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.len() < KEPT {
            let Ok(fd) = io::stderr().as_fd().try_clone_to_owned() else { return };
            kept.push(fd);
        }
    }

    /// Gives two up after `error`, one for the connection and one for what it asks for; false if that is of no use.
    pub(super) fn give_up(&self, error: &io::Error) -> bool {
        let is_short = error.raw_os_error().map(Errno::from_raw_os_error);
        if !matches!(is_short, Some(Errno::MFILE | Errno::NFILE)) {
            return false;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = kept.len().saturating_sub(2);
        let given = kept.len() - left;
        kept.truncate(left);
        given > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_want_of_descriptors_takes_from_it_and_it_comes_back() {
        let reserve = Reserve::new();
        let kept = || reserve.0.lock().unwrap().len();
        assert!(!reserve.give_up(&io::Error::from(io::ErrorKind::ConnectionAborted)));
        let short = || io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        let given = (0..KEPT).take_while(|_| reserve.give_up(&short())).count();
        assert_eq!((given, kept()), (KEPT / 2, 0));
        reserve.refill();
        assert_eq!(kept(), KEPT);
    }
}
