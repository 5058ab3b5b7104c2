//! The write side of a channel's view; passes what is pushed to the channel, after what the running hook has
//! gathered.

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::error::LookupError;
use crate::link::chunk::Broadcast;
use crate::link::marks::{Limits, OnLimit};
use crate::link::producer::Producer;
use crate::link::pushed::Pushed;
use crate::link::state::Link;
use crate::reason::Reason;
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
    /// taken, over the hard limit (see [`set_limit`](Channel::set_limit)). A hook that returns that error
    /// about another channel ends the other one with [`Reason::Limit`], by a reset:
    /// bytes are missing in its stream. [`auto_pause_with`](Channel::auto_pause_with) keeps it from
    /// happening.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.map.gather.push(self.token, bytes) {
            true => Ok(()),
            false => self.push_after(bytes),
        }
    }

    /// The short way of a push was not for this one.
    #[cold]
    #[inline(never)]
    fn push_after(&mut self, bytes: &[u8]) -> io::Result<()> {
        let result = self.map.put(self.token, Pushed::Bytes(bytes), true);
        self.named(result)
    }

    /// As [`push`](Channel::push); if it cannot be sent now, it is queued without a copy, from 2 KiB on.
    /// Room that the vector has beyond its bytes is given back; the vector, when all of it is sent.
    pub fn push_vec(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.put(Pushed::Vec(bytes))
    }

    /// As [`push_vec`](Channel::push_vec), for bytes that go to several channels. For small ones use
    /// [`broadcast`](crate::ChannelMap::broadcast), which shares those, too.
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

    /// Bytes that were pushed and have not left for the peer: those that are queued, and those that the system
    /// still holds (`SIOCOUTQ`, `SO_NWRITE`, `FIONWRITE`): over TCP, because the peer's system has not
    /// acknowledged them; on a Unix-domain socket, because the peer has not read them, with what the system
    /// needs to keep them. At least 1 while a producer is unfinished, or the source still holds something.
    /// Each call asks the system; where that does not tell (OpenBSD), it counts as holding nothing.
    ///
    /// A relay asks before it passes on a reset, which would destroy what is unsent:
    ///
    /// ```
    /// use dispatch_loop::{ChannelMap, Token};
    /// use std::time::Duration;
    ///
    /// /// Reset the connection once nothing is unsent, or once nothing has left for 30 s.
    /// fn pass_on_reset(map: &mut ChannelMap, token: Token) {
    ///     let Ok(mut ch) = map.channel(token) else { return };
    ///     let (mut before, mut stuck) = (ch.unsent(), 0);
    ///     if before == 0 {
    ///         return ch.abort();
    ///     }
    ///     ch.pause_reading();
    ///     ch.call_every(Duration::from_millis(50), move |ch| {
    ///         let unsent = ch.unsent();
    ///         stuck = if unsent < before { 0 } else { stuck + 1 };
    ///         before = unsent;
    ///         if unsent == 0 || stuck == 600 {
    ///             ch.abort();
    ///         }
    ///         Ok(())
    ///     });
    /// }
    /// ```
    pub fn unsent(&self) -> usize {
        self.link().map_or(0, Link::unsent) + self.map.gather.bytes_of(self.token).len()
    }

    /// `handle_high` runs when more than `high` bytes (default 64 KiB) are queued, `handle_low` when
    /// the queue is down to `low` (default 32 KiB). asyncio's `set_write_buffer_limits`. A `low` above
    /// `high` is lowered to it.
    pub fn set_watermarks(&mut self, low: usize, high: usize) {
        self.change(|link| link.set_limits(Limits { low: low.min(high), high, ..link.limits() }));
    }

    /// The hard limit for what is queued, in bytes (default 16 MiB), and what happens to a push that
    /// would exceed it (default [`OnLimit::Refuse`]). It bounds the memory: small pieces are gathered, a
    /// datagram counts as 512 bytes at least, a producer as 4 KiB. [`ChannelMap::set_limit`] bounds what all
    /// channels hold together.
    ///
    /// Before a push counts as too much, the socket is offered what is queued, up to the first producer,
    /// also beyond the 64 KiB of a turn: a peer that takes what it is sent never meets the limit. (A push
    /// asks no producer. The loop does, for as long as producers alone use up half of the limit.)
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
    /// Push the same bytes to several channels. Never fails: channels that are gone or ending, and
    /// listeners, are skipped; a channel that would exceed its hard limit, though its socket was offered
    /// what is queued, ends with [`Reason::Limit`], whatever its [`OnLimit`].
    ///
    /// What channels have to wait for is held once for all of them, small pieces included.
    pub fn broadcast(&mut self, tokens: impl IntoIterator<Item = Token>, bytes: &[u8]) {
        let mut broadcast = Broadcast::new(&self.total.account);
        self.keep_time();
        for token in tokens {
            self.offer_gathered(token, bytes.len());
            let (turn, gathered) = (self.turn, self.gather.bytes_of(token).len());
            let Some(link) = self.link_mut(token) else { continue };
            if link.is_shut() || link.is_listening() {
                continue;
            }
            if link.has_room(turn, gathered + bytes.len()) {
                drop(self.put_uncounted(token, Pushed::Broadcast(bytes, &mut broadcast), true));
                self.enter_queue(token);
            } else {
                link.end_by_reset(Reason::Limit);
                self.touch(token);
            }
        }
        // It holds the bytes, whichever channels end.
        drop(broadcast);
        self.keep_to_the_limit();
    }

    /// Push to a channel, from any caller.
    pub(crate) fn put(&mut self, token: Token, pushed: Pushed<'_>, limited: bool) -> io::Result<()> {
        self.put_uncounted(token, pushed, limited)?;
        self.count_queue(token);
        Ok(())
    }

    fn put_uncounted(&mut self, token: Token, pushed: Pushed<'_>, limited: bool) -> io::Result<()> {
        self.touch(token);
        let Some(seat) = self.slots.get_mut(token) else { return Err(LookupError::Gone(token).into()) };
        if self.gather.is_of(token) && seat.link.gathers() {
            self.gather.unseal();
            if self.gather.push_small(token, &pushed) {
                return Ok(());
            }
        }
        self.offer_gathered(token, pushed.len());
        let Some(seat) = self.slots.get_mut(token) else { return Ok(()) };
        let before = self.gather.bytes_of(token);
        if seat.link.push(self.turn, before, pushed, limited)? {
            self.gather.sent(token);
        }
        Ok(())
    }

    pub(crate) fn push_producer(&mut self, token: Token, producer: Box<dyn Producer>) -> io::Result<()> {
        self.offer_gathered(token, 0);
        let Some(seat) = self.slots.get_mut(token) else { return Err(LookupError::Gone(token).into()) };
        if seat.link.push_producer(self.turn, self.gather.bytes_of(token), producer)? {
            self.gather.sent(token);
        }
        self.count_queue(token);
        Ok(())
    }

    /// If `bytes` more would be over the hard limit of the channel, send what its running hook has pushed: the
    /// socket is offered that before a limit is declared.
    pub(crate) fn offer_gathered(&mut self, token: Token, bytes: usize) {
        let gathered = self.gather.bytes_of(token).len();
        if gathered > 0 && self.link(token).is_some_and(|link| !link.takes(gathered.saturating_add(bytes))) {
            self.send_gathered(token);
        }
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
