//! What a drain is told by the rest of the loop: that a listener has accepted, that a channel is gone; and
//! whether it has anything left to wait for.

use crate::core::map::ChannelMap;
use crate::drain::DrainState;
use crate::link::state::Role;
use crate::reason::Reason;
use crate::sys;
use crate::threads::queue::Queue;
use crate::token::Token;

/// A listener that never comes to the end of its backlog is closed when it has accepted at least so many:
/// all who waited when the drain began, unless the system lets more wait than it does by default.
const BACKLOG: u32 = 4096;

impl ChannelMap {
    /// A listener has accepted so many connections, and closes if nobody else waits.
    #[cold]
    #[inline(never)]
    pub(crate) fn drain_accepted(&mut self, token: Token, taken: u32) {
        let Some(link) = self.link(token).filter(|link| link.role() == Role::User) else { return };
        let others_wait = link.has_in_hand() || link.fd().is_some_and(sys::is_readable);
        let Some(drain) = self.drain.as_mut().filter(|drain| drain.state() == DrainState::Draining) else {
            return;
        };
        if !others_wait || drain.accepted(token, taken) >= BACKLOG {
            self.begin_close(token, Reason::Closed);
        }
    }

    /// A channel is gone; whether it `counts`.
    #[cold]
    #[inline(never)]
    pub(crate) fn drain_ended(&mut self, token: Token, counts: bool) {
        if let Some(drain) = &mut self.drain {
            drain.ended(token, counts);
        }
    }

    /// Whether a drain may end: what other threads were told is accepted, such as a connection that is handed
    /// over, has run, or its deadline has passed.
    #[cold]
    #[inline(never)]
    pub(crate) fn has_run_all_messages(&self) -> bool {
        let is_over = self.drain.as_ref().is_some_and(|drain| drain.has_expired());
        is_over || !self.has_done_draining() || self.queue.as_ref().is_none_or(Queue::shut_if_empty)
    }

    /// Whether a drain is under way, and nothing is left to wait for.
    #[cold]
    #[inline(never)]
    pub(crate) fn has_done_draining(&self) -> bool {
        let is_empty = self.slots.len() == self.background + self.internal && !self.awaits_a_thread();
        self.drain.as_ref().is_some_and(|drain| drain.is_under_way() && (is_empty || drain.has_expired()))
    }
}
