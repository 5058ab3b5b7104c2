//! The write side of a channel's view; passes what is pushed to the channel, after what the running hook has
//! gathered.

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::error::LookupError;
use crate::link::marks::{Limits, OnLimit};
use crate::link::producer::Producer;
use crate::link::pushed::Pushed;
use crate::link::state::Link;
use crate::token::Token;

impl Channel<'_> {
    /// Send as much as fits now: Python's `send`. Returns 0 when nothing fits, while output is queued,
    /// and while connecting. [`push`](Channel::push) also sends the rest.
    ///
    /// # Errors
    /// `BrokenPipe` after `close`, `abort` or `shutdown_write`; otherwise the connection is lost.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.touch();
        self.map.send_gathered(self.token);
        let turn = self.map.turn;
        let result = self.link_mut().and_then(|link| link.send(turn, bytes));
        self.named(result)
    }

    /// Send all of `bytes`, in order: at once what fits, the rest when there is room. asynchat's
    /// `push`, asyncio's `write`.
    ///
    /// What a hook pushes to its own channel is sent in one call when the hook returns, however many
    /// pushes it was; a piece of 4 KiB or more is sent at once, with what was pushed before it. What is
    /// pushed to another channel is sent at the end of the turn. `Ok` also when the peer is gone, which
    /// `handle_close` reports.
    ///
    /// # Errors
    /// `BrokenPipe` after `close`, `abort` or `shutdown_write`; `QuotaExceeded`, with nothing
    /// taken, over the hard limit (see [`set_limit`](Channel::set_limit)).
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.map.gather.push(self.token, bytes) {
            true => Ok(()),
            false => self.put(Pushed::Bytes(bytes)),
        }
    }

    /// As [`push`](Channel::push); what cannot be sent now is queued without a copy.
    pub fn push_vec(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.put(Pushed::Vec(bytes))
    }

    /// As [`push_vec`](Channel::push_vec), for bytes that go to several channels.
    pub fn push_shared(&mut self, bytes: Arc<[u8]>) -> io::Result<()> {
        self.put(Pushed::Shared(bytes))
    }

    /// As [`push`](Channel::push), for bytes in several slices, all or none: asyncio's
    /// `writelines`, C's `writev`.
    pub fn push_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.put(Pushed::Slices(slices))
    }

    /// Queue a producer, which makes its bytes when there is room for them: asynchat's
    /// `push_with_producer`. What is pushed after it is sent after it. Until it is done it counts as
    /// 4 KiB towards the watermarks and the hard limit.
    ///
    /// # Errors
    /// Those of [`push`](Channel::push); `InvalidInput` on a channel that carries datagrams.
    pub fn push_producer(&mut self, producer: impl Producer) -> io::Result<()> {
        self.touch();
        let result = self.map.push_producer(self.token, Box::new(producer));
        self.named(result)
    }

    /// Ask the producer again that returned [`More::Later`](crate::More::Later). From another thread,
    /// use a [`Remote`](crate::Remote).
    pub fn wake_producer(&mut self) {
        self.change(Link::wake_producer);
    }

    /// Drop what is queued, including the rest of a piece that is partly sent, and every producer. What
    /// the system has accepted is still sent.
    pub fn discard_queued(&mut self) {
        self.change(Link::discard_queued);
        self.map.gather.sent(self.token);
    }

    /// Bytes that wait to be sent. What producers are still to make is not counted.
    pub fn queued(&self) -> usize {
        self.link().map_or(0, Link::queued) + self.map.gather.bytes_of(self.token).len()
    }

    /// `handle_high` runs when more than `high` bytes (default 64 KiB) are queued, `handle_low` when
    /// the queue is down to `low` (default 32 KiB). asyncio's `set_write_buffer_limits`. A `low` above
    /// `high` is lowered to it.
    pub fn set_watermarks(&mut self, low: usize, high: usize) {
        self.change(|link| link.set_limits(Limits { low: low.min(high), high, ..link.limits() }));
    }

    /// The hard limit for what is queued, in bytes (default 16 MiB), and what happens to a push that
    /// would exceed it (default [`OnLimit::Refuse`]).
    pub fn set_limit(&mut self, bytes: usize, on_limit: OnLimit) {
        self.change(|link| {
            link.set_limits(Limits { hard: bytes, ..link.limits() });
            link.rare().on_limit = on_limit;
        });
    }

    #[inline(never)]
    pub(crate) fn put(&mut self, pushed: Pushed<'_>) -> io::Result<()> {
        if self.map.gather.push_small(self.token, &pushed) {
            return Ok(());
        }
        let result = self.map.put(self.token, pushed, true);
        self.named(result)
    }
}

impl ChannelMap {
    /// Push to a channel, from any caller.
    pub(crate) fn put(&mut self, token: Token, pushed: Pushed<'_>, limited: bool) -> io::Result<()> {
        self.touch(token);
        let Some(seat) = self.slots.get_mut(token) else { return Err(LookupError::Gone(token).into()) };
        if self.gather.is_of(token) && seat.link.gathers() {
            self.gather.unseal();
            if self.gather.push_small(token, &pushed) {
                return Ok(());
            }
        }
        let before = self.gather.bytes_of(token);
        if seat.link.push(self.turn, before, pushed, limited)? {
            self.gather.sent(token);
        }
        Ok(())
    }

    pub(crate) fn push_producer(&mut self, token: Token, producer: Box<dyn Producer>) -> io::Result<()> {
        let Some(seat) = self.slots.get_mut(token) else { return Err(LookupError::Gone(token).into()) };
        if seat.link.push_producer(self.gather.bytes_of(token), producer)? {
            self.gather.sent(token);
        }
        Ok(())
    }

    /// Send what the running hook of this channel has pushed: something that must come after it
    /// follows.
    pub(crate) fn send_gathered(&mut self, token: Token) {
        let bytes = self.gather.bytes_of(token);
        if bytes.is_empty() {
            return;
        }
        if let Some(seat) = self.slots.get_mut(token) {
            seat.link.send_gathered(self.turn, bytes);
        }
        self.gather.sent(token);
    }

    /// Queue it instead: the queue is about to be dropped.
    pub(crate) fn queue_gathered(&mut self, token: Token) {
        let Some(seat) = self.slots.get_mut(token) else { return };
        seat.link.queue_gathered(self.gather.bytes_of(token));
        self.gather.sent(token);
    }
}
