//! The read side of one channel: `recv` within the budget of the turn, input that was put back, the end.

use std::io;

use rustix::io::Errno;

use crate::clock::Turn;
use crate::error::clone_error;
use crate::link::due::Step;
use crate::link::held::Held;
use crate::link::output::{no_bytes, no_stream, nothing_now};
use crate::link::rare::Rest;
use crate::link::source::Source;
use crate::link::state::{InputEnd, Life, Link, READ_BUDGET, Work};
use crate::link::unread::Unread;
use crate::sys;
use crate::sys::errno::would_block;

/// Why the short way of a read returned nothing.
pub(crate) enum Missed {
    NotTried,
    End,
    Error(Errno),
}

impl Link {
    /// The short way of a read, for a channel with nothing due.
    #[inline(always)]
    pub(crate) fn recv_quickly(&mut self, turn: u32, buffer: &mut [u8]) -> Result<usize, Missed> {
        if !self.is_quiet() {
            return Err(Missed::NotTried);
        }
        // Once a turn: most hooks read once, and most reads are short.
        if self.turn == turn || buffer.is_empty() {
            return Err(Missed::NotTried);
        }
        self.new_budgets(turn);
        let most = buffer.len().min(READ_BUDGET as usize);
        let Some(Held::Plain(plain)) = &self.socket else { return Err(Missed::NotTried) };
        match sys::stream::recv_once(plain.fd(), &mut buffer[..most]) {
            Ok(0) => Err(Missed::End),
            Ok(read) if read < most => {
                // A plain socket that returns less than was asked for has no more. This saves the last
                // call of a hook that reads until there is nothing.
                self.read_left = 0;
                self.received += read as u64;
                Ok(read)
            }
            Ok(_) => Ok(self.read_all(most)),
            Err(error) => Err(Missed::Error(error)),
        }
    }

    /// The read has filled its buffer: there may be more.
    #[cold]
    #[inline(never)]
    fn read_all(&mut self, most: usize) -> usize {
        self.read_left = READ_BUDGET - most as u32;
        self.received += most as u64;
        most
    }

    /// The long way, from where the short one ended.
    #[inline(always)]
    pub(crate) fn recv_after(&mut self, missed: Missed, turn: Turn, buffer: &mut [u8]) -> io::Result<usize> {
        match missed {
            Missed::NotTried => self.recv(turn, buffer),
            Missed::End => self.received(turn, Ok(0), 1, true),
            Missed::Error(Errno::INTR) => self.recv(turn, buffer),
            Missed::Error(errno) => {
                // Nothing was read: this is no turn whose budgets were used.
                self.turn = turn.number.wrapping_sub(1);
                if errno == Errno::AGAIN {
                    return Err(nothing_now());
                }
                self.quick_read_lost(errno);
                Err(errno.into())
            }
        }
    }

    pub(crate) fn recv(&mut self, turn: Turn, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv_by(turn, buffer, |source, buffer| source.as_dyn().recv(buffer))
    }

    /// Input as `read` reads it from the source.
    #[inline(always)]
    pub(super) fn recv_by(
        &mut self,
        turn: Turn,
        buffer: &mut [u8],
        read: impl FnOnce(&mut Held, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match &self.life {
            Life::Listening => return Err(no_stream()),
            _ if self.is_datagram() => return Err(no_bytes()),
            Life::Opening if self.is_established() => {}
            // What comes now is for the new source.
            Life::Open if self.is_upgrading() => return Err(nothing_now()),
            Life::Open => {}
            Life::Ending(_) if self.is_over() => {
                return Err(self.lost_error().map_or_else(nothing_now, clone_error));
            }
            _ => return Err(nothing_now()),
        }
        if buffer.is_empty() || self.is_at_end() {
            return Ok(0);
        }
        let most = buffer.len().min(*self.read_budget(turn) as usize);
        if most == 0 {
            return Err(nothing_now());
        }
        if let Some(read) = self.read_again(&mut buffer[..most]) {
            *self.read_budget(turn) -= read as u32;
            return Ok(read);
        }
        let most = self.admit_input(most);
        if most == 0 {
            return Err(nothing_now());
        }
        let Some(source) = &mut self.socket else { return Err(nothing_now()) };
        let plain = source.is_plain();
        let result = read(source, &mut buffer[..most]);
        self.received(turn, result, most, plain)
    }

    /// Handles the result of a read; the budget was renewed before it.
    fn received(
        &mut self,
        turn: Turn,
        result: io::Result<usize>,
        most: usize,
        plain: bool,
    ) -> io::Result<usize> {
        match result {
            Ok(0) => {
                self.moved(turn);
                self.input_ended();
                Ok(0)
            }
            Ok(read) => {
                let read = read.min(most);
                self.received += read as u64;
                self.input_passed(read, read == most);
                self.moved(turn);
                self.read_left = if plain && read < most { 0 } else { self.read_left - read as u32 };
                Ok(read)
            }
            // That is no progress, unless a source has taken in a part of a record: see `guard`.
            Err(error) if would_block(&error) => Err(nothing_now()),
            Err(error) => {
                self.moved(turn);
                Err(self.read_lost(error))
            }
        }
    }

    fn input_ended(&mut self) {
        if self.input.end == InputEnd::NotYet {
            self.input.end = InputEnd::Read;
        }
        self.due.set(Step::Eof);
    }

    pub(crate) fn recv_urgent(&mut self, turn: Turn, buffer: &mut [u8]) -> io::Result<usize> {
        match self.life {
            Life::Listening => return Err(no_stream()),
            Life::Opening | Life::Open => {}
            _ => return Err(nothing_now()),
        }
        let Some(fd) = self.fd() else { return Err(nothing_now()) };
        match sys::stream::recv_urgent(fd, buffer) {
            Ok(read) => {
                self.has_received(turn, read);
                Ok(read)
            }
            // There is no urgent byte, or it was taken, or what is no TCP socket never has one: a terminal
            // reports other things as urgent.
            Err(error) if sys::errno::has_no_urgent_data(&error) => Err(nothing_now()),
            Err(error) => Err(self.read_lost(error)),
        }
    }

    // Input that was put back.

    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        // Reading continues after a failed write. A datagram is delivered by one hook only.
        if !self.is_datagram() && !self.is_ending() {
            self.rare().unread.get_or_insert_default().put_back(bytes);
            self.due.set(Step::Look);
        }
    }

    /// Drop what was put back.
    pub(crate) fn discard_unread(&mut self) {
        drop(self.take_unread());
    }

    pub(crate) fn take_unread(&mut self) -> Option<Unread> {
        let unread = self.rare.as_mut()?.unread.take();
        if self.input.end == InputEnd::Read {
            self.due.set(Step::Eof);
        }
        unread
    }

    /// Reads what was put back first. It does not count as activity of the peer.
    fn read_again(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let unread = self.rare.as_mut()?.unread.as_mut()?;
        let read = unread.take(buffer);
        if unread.len() == 0 {
            self.discard_unread();
        }
        Some(read)
    }

    pub(crate) fn unread_len(&self) -> usize {
        self.rare.as_ref().and_then(|rare| rare.unread.as_ref()).map_or(0, Unread::len)
    }

    // The end.

    /// The end of input was read, and nothing was put back.
    pub(crate) fn is_at_end(&self) -> bool {
        self.input.end != InputEnd::NotYet && self.unread_len() == 0
    }

    pub(crate) fn has_read_end(&self) -> bool {
        self.input.end != InputEnd::NotYet
    }

    /// `handle_eof` has run, or there is no input.
    pub(super) fn end_is_told(&self) -> bool {
        matches!(self.input.end, InputEnd::Told | InputEnd::Never)
    }

    /// Whether `handle_eof` is to run now; `true` once.
    pub(crate) fn tell_end_of_input(&mut self) -> bool {
        if !self.is_open() || !self.is_at_end() || self.input.end != InputEnd::Read {
            return false;
        }
        self.input.end = InputEnd::Told;
        true
    }

    /// A file that cannot be read.
    pub(crate) fn has_no_input(&mut self) {
        self.input.end = InputEnd::Never;
    }

    // Pauses.

    /// Paused by a call, or automatically because the peer, or that of a partner, does not read.
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused_with(0)
    }

    /// The same, counting bytes that the running hook has pushed and that are not queued yet.
    pub(crate) fn is_paused_with(&self, gathered: usize) -> bool {
        self.input.paused
            || (self.input.auto_pause && self.is_above_high(gathered))
            || self.rare.as_ref().is_some_and(|rare| rare.partners.pause_it())
    }

    pub(crate) fn pause_reading(&mut self) {
        self.input.paused = true;
    }

    pub(crate) fn resume_reading(&mut self) {
        self.input.paused = false;
        self.was_changed();
    }

    pub(crate) fn set_auto_pause(&mut self, on: bool) {
        self.input.auto_pause = on;
    }

    /// The answers of `readable` and `writable`.
    pub(crate) fn wants(&mut self, read: bool, write: bool) {
        let read_before = std::mem::replace(&mut self.input.wanted, read);
        let write_before = std::mem::replace(&mut self.output.wanted, write);
        if (read, write) != (read_before, write_before) {
            self.was_changed();
        }
        self.look_again_at_a_hang_up();
    }

    /// If the channel reads again, a hang-up no longer suspends it.
    pub(crate) fn look_again_at_a_hang_up(&mut self) {
        if self.rest() == Rest::HungUp && self.reads() {
            self.set_rest(Rest::No);
        }
    }

    // Work under way.

    pub(crate) fn set_busy(&mut self, on: bool) {
        self.input.work.set(Work::BUSY, on);
    }

    /// A thread does something for the channel that blocks, or has done it.
    pub(crate) fn awaits_another(&mut self) {
        self.rare().awaited += 1;
        self.input.work.set(Work::AWAITS, true);
    }

    pub(crate) fn awaits_one_less(&mut self) {
        let left = self.rare().awaited.saturating_sub(1);
        self.rare().awaited = left;
        self.input.work.set(Work::AWAITS, left > 0);
    }

    /// Whether the result of a call that blocks is awaited.
    pub(crate) fn awaits(&self) -> bool {
        self.input.work.has(Work::AWAITS)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.input.work != Work::NONE
    }

    /// Whether a channel that is not closing is said to be busy, or wants to write.
    pub(crate) fn has_more_to_do(&self) -> bool {
        !self.is_ending() && (self.is_busy() || self.output.wanted)
    }

    /// Whether nothing is under way on an open channel: nothing to be sent or acknowledged, no input that
    /// was not read, no message has begun, and it is not said to be busy, nor wants to write. Asks the system,
    /// if need be.
    pub(crate) fn has_nothing_under_way(&self) -> bool {
        let known = self.is_open() && !self.has_more_to_do() && self.is_established() && !self.is_upgrading();
        let waits = || !self.has_read_end() && self.fd().is_some_and(sys::is_readable);
        known && !self.has_unsent() && !self.has_input_inside() && self.held() == 0 && !waits()
    }

    // Buffered input.

    /// Whether there is input for which the socket need not be ready.
    pub(crate) fn has_input_inside(&self) -> bool {
        let in_source = match &self.socket {
            Some(Held::Own(source)) => source.input_pending(),
            _ => false,
        };
        self.unread_len() > 0 || in_source
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.input.pending
    }

    pub(crate) fn set_pending(&mut self, pending: bool) {
        self.input.pending = pending;
    }

    /// Whether to serve the channel without an event, for its buffered input, or for a connection that its
    /// listener has in hand.
    pub(crate) fn takes_input_inside(&self) -> bool {
        let suspended = matches!(self.rest(), Rest::Input(_) | Rest::All(_));
        let has_input = (self.reads() || self.is_lingering()) && self.has_input_inside();
        !suspended && !self.input.pending && (has_input || (self.accepts() && self.has_in_hand()))
    }
}
