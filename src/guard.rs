//! Where the panics of the user's values end that are not those of a hook: their drops, and calls that
//! belong to no channel.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::panicked;
use crate::report::{Escaped, Throttle};

/// Drop a value of the user's, which may panic.
pub(crate) fn drop_guarded<T>(throttle: &mut Throttle, what: &str, value: T) {
    if !std::mem::needs_drop::<T>() {
        return;
    }
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        let error = panicked(payload);
        if throttle.admits() {
            log::warn!("the drop of {what} {}", Escaped(error));
        }
    }
}

/// Drop several, each by itself, so that two panics cannot meet.
pub(crate) fn drop_each<T>(throttle: &mut Throttle, what: &str, values: impl IntoIterator<Item = T>) {
    for value in values {
        drop_guarded(throttle, what, value);
    }
}
