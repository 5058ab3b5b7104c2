//! The limits for what is queued on a channel: the watermarks and the hard limit.

use std::io::{self, ErrorKind};

use crate::link::account::Account;
use crate::link::due::Step;
use crate::link::held::Held;
use crate::link::marks::{Limits, OnLimit, Watermark};
use crate::link::source::Source;
use crate::link::state::Link;
use crate::reason::Reason;

impl Link {
    pub(crate) fn limits(&self) -> Limits {
        self.rare.as_ref().map_or(Limits::DEFAULT, |rare| rare.limits)
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.rare().limits = limits;
        self.note_marks();
    }

    /// Call after every change of the queue or the limits.
    pub(crate) fn note_marks(&mut self) {
        let limits = self.limits();
        self.output.marks.watch(self.output.weight() + self.held_inside(), limits);
        if self.output.marks.has_news() {
            self.due.set(Step::Watermark);
        }
    }

    /// Whether the queue was above the high watermark and is not yet down to the low one.
    pub(super) fn is_above_high(&self, gathered: usize) -> bool {
        self.output.marks.is_above() || gathered > self.limits().high
    }

    /// Whether the partners are to be told to pause (`true`), or that they may read again.
    pub(crate) fn news_for_partners(&self) -> Option<bool> {
        self.rare.as_ref()?.partners.news(self.output.marks.is_above())
    }

    /// Whether the dispatcher is to be told that a watermark was crossed.
    pub(crate) fn has_mark_news(&self) -> bool {
        self.is_open() && !self.is_broken() && self.output.marks.has_news()
    }

    /// The watermark to tell next.
    pub(crate) fn mark_news(&mut self) -> Option<Watermark> {
        match self.is_open() && !self.is_broken() {
            true => self.output.marks.news(),
            false => None,
        }
    }

    /// Whether `bytes` more stay within the hard limit.
    pub(crate) fn takes(&self, bytes: usize) -> bool {
        (self.output.weight() + self.held_inside())
            .checked_add(bytes)
            .is_some_and(|sum| sum <= self.limits().hard)
    }

    /// How much memory waits for the peer.
    pub(crate) fn keeps(&self) -> usize {
        self.output.queue.as_ref().map_or(0, |queue| queue.keeps()) + self.held_inside()
    }

    /// What the source has taken and not yet passed to the socket.
    fn held_inside(&self) -> usize {
        match &self.socket {
            Some(Held::Own(source)) => source.output_held(),
            _ => 0,
        }
    }

    /// The same without what producers are still to make: what an outlet's credit counts.
    pub(crate) fn queued_cost(&self) -> usize {
        self.output.queue.as_ref().map_or(0, |queue| queue.cost())
    }

    /// Enter what is queued in the account of the map; `false` if nothing is.
    #[inline]
    pub(crate) fn count_queue(&mut self, account: &Account) -> bool {
        let inside = match &mut self.socket {
            Some(Held::Own(source)) => source.count(account),
            _ => false,
        };
        let Some(queue) = self.output.queue_if_any() else { return inside };
        queue.count(account);
        true
    }

    /// A push of `len` bytes would be over it; `before` them, the hook that is running has gathered some.
    pub(crate) fn over_limit(&mut self, before: usize, len: usize) -> io::Result<()> {
        match self.rare.as_ref().map_or(OnLimit::Refuse, |rare| rare.on_limit) {
            OnLimit::Refuse => Err(io::Error::new(
                ErrorKind::QuotaExceeded,
                format!(
                    "{len} bytes more than the {} queued would be over the limit of {}; the peer does not take them",
                    self.queued() + before,
                    self.limits().hard
                ),
            )),
            OnLimit::End => {
                self.end_by_reset(Reason::Limit);
                Ok(())
            }
        }
    }
}
