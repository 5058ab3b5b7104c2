//! The deadlines of a channel: the calls, and the one timer that they share.

use crate::clock::Time;
use crate::core::action::Action;
use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::link::deadlines::Deadlines;
use crate::link::running::Look;
use crate::link::state::Link;
use crate::token::Token;

impl Channel<'_> {
    /// Set how long the peer may take, for what; replaces what was set before, and counts from now. When a
    /// deadline has passed, [`handle_deadline`](crate::Dispatcher::handle_deadline) runs.
    ///
    /// [`set_timeout`](Channel::set_timeout) is apart from them: nothing read *or* sent. The deadlines stay when
    /// the dispatcher is replaced.
    pub fn set_deadlines(&mut self, deadlines: &Deadlines) {
        self.touch();
        let now = self.map.clock.now();
        let Some(link) = self.map.link_mut(self.token) else { return };
        if let Some(timer) = link.set_deadlines(deadlines, now) {
            self.map.timers.cancel(timer);
        }
        self.map.look_at_deadlines(self.token, now);
    }

    /// A message has begun: its first byte was read, or more is awaited of it.
    /// [`Deadlines::message`](crate::Deadlines::message) and
    /// [`Deadlines::read_rate`](crate::Deadlines::read_rate) count from now. No effect while one has begun.
    ///
    /// For a dispatcher that finds messages in its input itself. Call it when a hook leaves a part of a message
    /// in a buffer. It costs a few instructions.
    ///
    /// ```
    /// use dispatch_loop::{Channel, Dispatcher};
    /// use std::io;
    ///
    /// #[derive(Default)]
    /// struct Lines {
    ///     partial: Vec<u8>,
    /// }
    ///
    /// impl Dispatcher for Lines {
    ///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         ch.read_with(|ch, data| {
    ///             self.partial.extend_from_slice(data);
    ///             while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
    ///                 ch.end_message();
    ///                 let line: Vec<u8> = self.partial.drain(..=end).collect();
    ///                 ch.push(&line)?;
    ///             }
    ///             if !self.partial.is_empty() {
    ///                 ch.begin_message();
    ///             }
    ///             Ok(())
    ///         })
    ///     }
    /// }
    /// ```
    #[inline]
    pub fn begin_message(&mut self) {
        if self.map.link_mut(self.token).is_some_and(Link::begin_message) {
            self.map.message_has_begun(self.token);
        }
    }

    /// The message that had begun is complete. No effect if none had.
    #[inline]
    pub fn end_message(&mut self) {
        if let Some(link) = self.map.link_mut(self.token) {
            link.end_message();
        }
    }

    /// Whether a message has begun that is not complete.
    pub fn has_message_begun(&self) -> bool {
        self.link().is_some_and(Link::has_message_begun)
    }
}

impl ChannelMap {
    #[cold]
    #[inline(never)]
    fn message_has_begun(&mut self, token: Token) {
        // While there is a timer, the time of the turn is good enough.
        let now = if self.timers.is_empty() { self.clock.now() } else { self.turn.time };
        if let Some(next) = self.link_mut(token).and_then(|link| link.time_message(now)) {
            self.set_deadline_timer(token, next);
        }
    }

    /// The settle has looked at a channel: perhaps other deadlines count now.
    pub(crate) fn watch_deadlines(&mut self, token: Token) {
        if self.link(token).is_some_and(Link::has_news_for_deadlines) {
            let now = self.clock.now();
            self.look_at_deadlines(token, now);
        }
    }

    /// See when the deadlines of a channel must be looked at next. What has passed is told by the timer.
    pub(crate) fn look_at_deadlines(&mut self, token: Token, now: Time) {
        let Some(link) = self.link_mut(token) else { return };
        match link.look_at_deadlines(now) {
            Look::Nothing => {}
            Look::Again(next) => self.set_deadline_timer(token, next),
            Look::Passed(_) => self.set_deadline_timer(token, now),
        }
    }

    /// Have the deadlines of a channel looked at then, or sooner if the timer is set to sooner: it sees when
    /// they must be looked at after that.
    fn set_deadline_timer(&mut self, token: Token, next: Time) {
        let Some(link) = self.link_mut(token) else { return };
        let armed = link.deadline_timer();
        if armed.is_some_and(|(_, at)| at <= next) {
            return;
        }
        if let Some((timer, _)) = armed {
            self.timers.cancel(timer);
        }
        let delay = next.since(self.clock.now());
        let timer = self.set_timer(Some(token), delay, Action::Deadline(token));
        if let Some(link) = self.link_mut(token) {
            link.set_deadline_timer(Some((timer, next)));
        }
    }
}
