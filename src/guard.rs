//! Catches the panics of users' values when they are dropped.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use crate::error::panicked;
use crate::report::{Escaped, Throttle};

/// Drop a user's value, which may panic.
#[inline(always)]
pub(crate) fn drop_guarded<T>(throttle: &mut Throttle, what: &str, value: T) {
    if !std::mem::needs_drop::<T>() {
        return;
    }
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        report(throttle, what, payload);
    }
}

#[cold]
fn report(throttle: &mut Throttle, what: &str, payload: Box<dyn Any + Send>) {
    let error = panicked(payload);
    if throttle.admits() {
        log::warn!("the drop of {what} {}", Escaped(error));
    }
}

/// As [`drop_guarded`], where no map is at hand.
pub(crate) fn drop_caught<T>(what: &str, value: T) {
    static THROTTLE: Mutex<Throttle> = Mutex::new(Throttle::new());
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        let error = panicked(payload);
        if THROTTLE.lock().unwrap_or_else(PoisonError::into_inner).admits() {
            log::warn!("the drop of {what} {}", Escaped(error));
        }
    }
}

/// A user's value that stands beside others of the user's: wherever it is dropped, it is dropped by itself.
pub(crate) struct Apart<T>(&'static str, Option<T>);

impl<T> Apart<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Apart<T> {
        Apart(what, Some(value))
    }

    /// It is there.
    pub(crate) fn into_inner(mut self) -> Option<T> {
        self.1.take()
    }
}

impl<T> Drop for Apart<T> {
    fn drop(&mut self) {
        if let Some(value) = self.1.take() {
            drop_caught(self.0, value);
        }
    }
}

/// Drop an error that may be a user's.
pub(crate) fn drop_error(error: io::Error) {
    if error.get_ref().is_some() {
        drop_caught("an error", error);
    }
}

/// Drop several values one by one, so that two panics cannot abort the process.
pub(crate) fn drop_each<T>(throttle: &mut Throttle, what: &str, values: impl IntoIterator<Item = T>) {
    for value in values {
        drop_guarded(throttle, what, value);
    }
}
