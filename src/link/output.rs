//! The write side of one channel: `send`, `push` and flush, within the budget of the turn. They run no
//! hook; the settle does.

use std::io::{self, ErrorKind, IoSlice};

use crate::clock::Turn;
use crate::error::clone_error;
use crate::link::due::Step;
use crate::link::producer::Producer;
use crate::link::pushed::{LARGE, Pushed};
use crate::link::room::CROWDED;
use crate::link::sending::{Flushed, left_of, slices_of};
use crate::link::state::{Connecting, Life, Link, WRITE_BUDGET, Way};
use crate::reason::Reason;
use crate::sys::errno::{is_shortage, would_block};

/// Whether something may be pushed.
pub(super) enum Admitted {
    Yes,
    /// Nothing more can be sent, which `handle_close` reports; or the limit has ended the channel.
    Ignored,
}

impl Link {
    pub(super) fn queued_more(&mut self) {
        self.due.set(Step::Flush);
        self.note_marks();
    }

    /// Send as much as fits now. What was gathered has been sent before.
    pub(crate) fn send(&mut self, turn: Turn, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.lost_error() {
            return Err(clone_error(error));
        }
        self.check_open_for_output()?;
        if self.is_datagram() {
            return Err(no_bytes());
        }
        if bytes.is_empty() || !self.output.is_empty() || !self.takes_output() {
            return Ok(0);
        }
        match self.offer(turn, &[], &Pushed::Bytes(bytes)) {
            Ok((sent, _)) => Ok(sent),
            Err(error) if is_shortage(&error) => {
                self.meets_shortage();
                Ok(0)
            }
            Err(error) => {
                let copy = clone_error(&error);
                self.write_lost(error);
                Err(copy)
            }
        }
    }

    /// Push, after `before`, which was gathered; `true` if that was sent or queued as well. `limited`:
    /// within the hard limit.
    pub(crate) fn push(
        &mut self,
        turn: Turn,
        before: &[u8],
        pushed: Pushed<'_>,
        limited: bool,
    ) -> io::Result<bool> {
        if self.is_datagram() {
            self.push_datagram(turn, &pushed.to_bytes(), None, limited)?;
            return Ok(false);
        }
        let len = pushed.len();
        match self.admit(turn, before.len(), len, limited && len > 0)? {
            Admitted::Yes if len > 0 => {}
            _ => return Ok(false),
        }
        let at_once = len >= LARGE || !before.is_empty();
        self.put(turn, before, pushed, at_once);
        Ok(true)
    }

    /// As [`push`](Link::push).
    pub(crate) fn push_producer(
        &mut self,
        turn: Turn,
        before: &[u8],
        producer: Box<dyn Producer>,
    ) -> io::Result<bool> {
        if let Admitted::Ignored = self.admit(turn, before.len(), 0, false)? {
            return Ok(false);
        }
        if self.is_datagram() {
            return Err(no_bytes());
        }
        if let Admitted::Ignored = self.admit(turn, before.len(), 0, true)? {
            return Ok(false);
        }
        let queue = self.output.queue();
        queue.push(before);
        queue.push_producer(producer);
        self.queued_more();
        Ok(true)
    }

    pub(super) fn admit(
        &mut self,
        turn: Turn,
        before: usize,
        len: usize,
        limited: bool,
    ) -> io::Result<Admitted> {
        let open = self.check_open_for_output().is_ok();
        if limited && open && !self.has_room(turn, before.saturating_add(len)) {
            return self.over_limit(before, len).map(|()| Admitted::Ignored);
        }
        if self.is_broken() || self.connect_has_failed() {
            return Ok(Admitted::Ignored);
        }
        self.check_open_for_output().map(|()| Admitted::Yes)
    }

    fn connect_has_failed(&self) -> bool {
        matches!(self.life, Life::Connecting(Connecting::Failed(_)))
    }

    /// Offer the bytes to the socket, if `at_once` and nothing is queued; queue the rest.
    pub(super) fn put(&mut self, turn: Turn, before: &[u8], pushed: Pushed<'_>, at_once: bool) {
        let mut sent = 0;
        if at_once && self.output.is_empty() && !self.output.blocked && self.takes_output() {
            match self.offer(turn, before, &pushed) {
                Ok((taken, offered)) => {
                    sent = taken;
                    self.output.blocked = taken < offered && (taken == 0 || !self.has_own_source());
                }
                Err(error) if is_shortage(&error) => self.meets_shortage(),
                Err(error) => return self.write_lost(error),
            }
        }
        let left = before.len() + pushed.len() - sent;
        if left > 0 {
            let queue = self.output.queue();
            queue.push(&before[sent.min(before.len())..]);
            pushed.queue_into(queue, sent.saturating_sub(before.len()));
            self.queued_more();
        }
    }

    /// Offer bytes to the socket; the queue is empty. Returns how many it took, of how many offered.
    fn offer(&mut self, turn: Turn, before: &[u8], pushed: &Pushed<'_>) -> io::Result<(usize, usize)> {
        let most = (*self.write_budget(turn) as usize).min(before.len() + pushed.len());
        let most = self.admit_output(most);
        if most == 0 {
            return Ok((0, 0));
        }
        let Some(source) = &mut self.socket else { return Ok((0, 0)) };
        let whole = [IoSlice::new(pushed.bytes())];
        let parts = match pushed {
            Pushed::Slices(slices) => slices,
            _ => &whole[..],
        };
        let all = std::iter::once(before).chain(parts.iter().map(|part| &**part));
        let (pieces, count) = slices_of(all, most);
        let offered = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let result = match &pieces[..count] {
            [one] => source.as_dyn().send(one),
            several => source.as_dyn().send_vectored(several),
        };
        let sent = result.map(|sent| sent.min(offered));
        self.write_left = left_of(self.write_left, *sent.as_ref().unwrap_or(&0));
        match sent {
            Ok(0) => Ok((0, offered)),
            Ok(sent) => {
                self.sent += sent as u64;
                self.output_passed(sent);
                if self.output_pending() {
                    self.output.undrained = true;
                    self.note_marks();
                }
                self.moved(turn);
                Ok((sent, offered))
            }
            Err(error) if would_block(&error) => Ok((0, offered)),
            Err(error) => Err(error),
        }
    }

    /// Whether the source can be offered bytes: connected, and any handshake done.
    pub(super) fn takes_output(&self) -> bool {
        (matches!(self.life, Life::Opening | Life::Open) || self.is_flushing()) && self.is_established()
    }

    pub(crate) fn check_open_for_output(&self) -> io::Result<()> {
        if self.is_listening() {
            return Err(no_stream());
        }
        if !self.output.is_open() || self.is_ending() {
            return Err(io::Error::new(
                ErrorKind::BrokenPipe,
                "the channel is closing: nothing can be sent after close, abort or shutdown_write",
            ));
        }
        Ok(())
    }

    // The queue.

    /// Bytes that wait to be sent.
    pub(crate) fn queued(&self) -> usize {
        self.output.queue.as_ref().map_or(0, |queue| queue.queued())
    }

    pub(crate) fn queue_is_empty(&self) -> bool {
        self.output.is_empty()
    }

    pub(crate) fn discard_queued(&mut self) {
        let upgrade = self.output.queue_if_any().and_then(|queue| queue.take_upgrade());
        self.output.clear();
        if let Some(upgrade) = upgrade {
            self.output.queue().push_upgrade(upgrade);
        }
        self.note_marks();
        self.note_drained();
        self.due.set(Step::Flush);
    }

    pub(crate) fn queued_pieces(&self) -> usize {
        self.output.queue.as_ref().map_or(0, |queue| queue.pieces())
    }

    /// Take out what is queued, as bytes; `None`, with nothing changed, if that includes a producer, a
    /// datagram or an upgrade.
    pub(crate) fn take_queued(&mut self) -> Option<Vec<u8>> {
        let bytes = match self.output.queue_if_any() {
            Some(queue) => queue.take_bytes()?,
            None => Vec::new(),
        };
        self.output.trim();
        Some(bytes)
    }

    pub(crate) fn wake_producer(&mut self) {
        if let Some(queue) = self.output.queue_if_any() {
            queue.wake_producer();
            self.due.set(Step::Flush);
        }
    }

    // Flushing.

    /// There is room again.
    pub(crate) fn unblock(&mut self) {
        if !self.output_is_held_back() {
            self.output.blocked = false;
        }
    }

    /// Whether something queued could be sent at once.
    pub(crate) fn is_unsent(&self) -> bool {
        self.output.queue.as_ref().is_some_and(|queue| queue.is_due())
            && !self.output.blocked
            && !self.is_connecting()
            && self.is_established()
    }

    /// Whether to try to flush.
    pub(crate) fn may_flush(&self) -> bool {
        !self.output.is_empty()
            && (!self.output.blocked || (self.is_datagram() && !self.output_is_held_back()))
    }

    /// Send what is queued, as far as the socket and the budget of the turn allow.
    pub(crate) fn flush(&mut self, turn: Turn) -> Flushed {
        let mut flushed = self.flush_as_far_as(turn, true);
        for _ in 0..CROWDED {
            if !matches!(flushed, Flushed::Budget) || !self.is_crowded() {
                break;
            }
            self.write_left = WRITE_BUDGET;
            flushed = self.flush_as_far_as(turn, true);
        }
        flushed
    }

    /// Producers are asked only if `produces`.
    pub(super) fn flush_as_far_as(&mut self, turn: Turn, produces: bool) -> Flushed {
        let flushed = match self.is_datagram() {
            true => self.flush_datagrams(turn),
            false => self.flush_bytes(turn, produces),
        };
        match flushed {
            Flushed::Empty => self.note_drained(),
            Flushed::Budget => self.due.set(Step::Flush),
            _ => {}
        }
        self.output.trim();
        self.note_marks();
        flushed
    }

    /// The settle is done with the channel: what it has left in the queue has to wait.
    pub(super) fn note_undrained(&mut self) {
        self.output.undrained |= !self.output.is_empty();
    }

    /// If everything that had to wait was sent, also from inside the source, `handle_drained` is due.
    pub(crate) fn note_drained(&mut self) {
        if self.output.undrained && self.output.is_empty() && !self.output_pending() {
            self.output.undrained = false;
            self.due.set(Step::Drained);
        }
    }

    /// Whether `handle_drained` is to run now. If something was queued since it became due, it runs once
    /// that is sent, too.
    pub(crate) fn takes_drained(&mut self) -> bool {
        self.due.clear(Step::Drained);
        self.output.undrained = !self.output.is_empty() || self.output_pending();
        !self.output.undrained
    }

    // FIN.

    /// Send FIN when all is sent.
    pub(crate) fn shutdown_write(&mut self) {
        if self.is_broken() && !self.is_ending() {
            return self.end(Reason::Closed);
        }
        if self.output.is_open() && !self.is_listening() && !self.is_datagram() {
            self.output.way = Way::FinDue;
            self.due.set(Step::Flush);
        }
    }

    /// Whether FIN, or the source's own end, is to be sent now that the queue is empty; the caller then
    /// sends it.
    pub(crate) fn takes_fin(&mut self) -> bool {
        let farewell = self.is_flushing() && self.has_own_source() && self.output.is_open();
        let due = self.output.way == Way::FinDue || farewell;
        if due {
            self.output.way = Way::FinSent;
        }
        due
    }

    pub(crate) fn fin_is_sent(&self) -> bool {
        self.output.way == Way::FinSent
    }

    /// Both directions have ended.
    pub(crate) fn both_ways_ended(&self) -> bool {
        self.fin_is_sent() && self.end_is_told()
    }

    /// Nothing more can be pushed, because of `shutdown_write` or the end.
    pub(crate) fn is_shut(&self) -> bool {
        self.output.way != Way::Open || self.is_ending()
    }

    /// Whether the write budget of this turn is used up.
    pub(super) fn write_budget_is_used_up(&mut self, turn: Turn) -> bool {
        debug_assert!(self.write_left <= WRITE_BUDGET);
        *self.write_budget(turn) == 0
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.output.blocked
    }

    pub(super) fn set_blocked(&mut self, blocked: bool) {
        self.output.blocked = blocked;
    }
}

pub(super) fn no_bytes() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "this channel carries datagrams, not a stream")
}

#[cold]
pub(super) fn nothing_now() -> io::Error {
    ErrorKind::WouldBlock.into()
}

pub(crate) fn no_stream() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "a listener carries no data")
}
