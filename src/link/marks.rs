//! The watermarks of a queue: the dispatcher is told in turn when it rises above the high one and falls to
//! the low one.

/// What happens to a push that would exceed the hard limit of the queue.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, OnLimit};
/// use std::io;
///
/// struct Feed;
///
/// impl Dispatcher for Feed {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.set_limit(1024 * 1024, OnLimit::End);   // cut off slow readers
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnLimit {
    /// The push queues nothing and fails with `QuotaExceeded`.
    #[default]
    Refuse,
    /// The channel ends with [`Reason::Limit`](crate::Reason::Limit), and the connection is reset.
    End,
}

/// In bytes.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) hard: usize,
}

/// Small pushes of one hook are gathered up to this many bytes.
pub(crate) const GATHERED: usize = 4 * 1024;

impl Limits {
    pub(crate) const DEFAULT: Limits = Limits { low: 32 * 1024, high: 64 * 1024, hard: 16 * 1024 * 1024 };

    /// Whether small pushes need not be checked against the hard limit one by one.
    pub(super) fn exceed_a_gathering(&self) -> bool {
        self.hard >= GATHERED
    }
}

/// A watermark that the dispatcher is to be told about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Watermark {
    High,
    Low,
}

pub(super) struct Marks {
    /// Above the high watermark, and not yet down to the low one.
    above: bool,
    /// It has risen above the high one since the dispatcher was last told.
    crossed: bool,
    told_high: bool,
}

impl Marks {
    pub(super) const NEW: Marks = Marks { above: false, crossed: false, told_high: false };

    pub(super) fn is_above(&self) -> bool {
        self.above
    }

    pub(super) fn has_news(&self) -> bool {
        if self.told_high { !self.above } else { self.crossed }
    }

    /// What is queued, or a limit, has changed.
    pub(super) fn watch(&mut self, weight: usize, limits: Limits) {
        if !self.above && weight > limits.high {
            self.above = true;
            // It rose again before the fall was told: nothing to tell.
            self.crossed = !self.told_high;
        } else if self.above && weight <= limits.low {
            self.above = false;
        }
    }

    /// What the dispatcher is to be told next: high and low in turn, whatever happened in between.
    pub(super) fn news(&mut self) -> Option<Watermark> {
        if !self.has_news() {
            return None;
        }
        self.crossed = false;
        self.told_high = !self.told_high;
        Some(if self.told_high { Watermark::High } else { Watermark::Low })
    }
}
