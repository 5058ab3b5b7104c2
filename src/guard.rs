//! Catches the panics of users' values when they are dropped.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

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

/// Drop several values one by one, so that two panics cannot abort the process.
pub(crate) fn drop_each<T>(throttle: &mut Throttle, what: &str, values: impl IntoIterator<Item = T>) {
    for value in values {
        drop_guarded(throttle, what, value);
    }
}
