//! Log lines about failures: throttled, so that repeated ones do not flood the log, and with text that a
//! peer may have influenced escaped.

use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::error::panicked;

/// Lines per second of each map; further ones are only counted.
const LINES: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct Throttle {
    since: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl Throttle {
    pub(crate) const fn new() -> Throttle {
        Throttle { since: None, lines: 0, unsaid: 0 }
    }

    /// Whether a line about a failure may be written now. If some were suppressed before it, that is
    /// logged first.
    pub(crate) fn admits(&mut self) -> bool {
        let now = Instant::now();
        if self.since.is_none_or(|since| now.duration_since(since) >= SECOND) {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES {
            self.unsaid += 1;
            return false;
        }
        self.lines += 1;
        match std::mem::take(&mut self.unsaid) {
            0 => {}
            unsaid => log::warn!("{unsaid} more failures were not logged"),
        }
        true
    }
}

/// Displays without control characters, so that it stays on one line of the log.
pub(crate) struct Escaped<T>(pub(crate) T);

/// What `value` says, or that it panicked.
pub(crate) fn text_of(value: &dyn fmt::Display) -> String {
    catch_unwind(AssertUnwindSafe(|| value.to_string()))
        .unwrap_or_else(|payload| panicked(payload).to_string())
}

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Filter<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Filter<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|c| match c.is_control() {
                    true => write!(self.0, "{}", c.escape_default()),
                    false => self.0.write_char(c),
                })
            }
        }
        write!(Filter(f), "{}", self.0)
    }
}
