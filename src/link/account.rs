//! How many bytes the queues of a map hold together.

use std::cell::Cell;
use std::rc::Rc;

/// The sum, kept by the map.
#[derive(Clone, Default)]
pub(crate) struct Account(Rc<Cell<usize>>);

impl Account {
    pub(crate) fn total(&self) -> usize {
        self.0.get()
    }

    pub(crate) fn open(&self) -> Share {
        Share { account: self.clone(), bytes: Cell::new(0) }
    }
}

/// The sum, and its limit.
pub(crate) struct Total {
    pub(crate) account: Account,
    pub(crate) limit: usize,
}

impl Default for Total {
    fn default() -> Total {
        Total { account: Account::default(), limit: 256 * 1024 * 1024 }
    }
}

impl Total {
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.account.total() > self.limit
    }
}

/// What one holder has of it; given back when that is dropped.
pub(crate) struct Share {
    account: Account,
    bytes: Cell<usize>,
}

impl Share {
    /// The holder holds so many bytes now.
    pub(crate) fn set(&self, bytes: usize) {
        let others = self.account.0.get() - self.bytes.replace(bytes);
        self.account.0.set(others + bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}
