//! Output of a datagram channel: each datagram is sent whole or not at all, and an error of the network
//! does not end the channel.

use std::io::{self, ErrorKind};

use crate::clock::Turn;
use crate::link::due::Step;
use crate::link::outbox::Flushed;
use crate::link::state::Link;
use crate::net::address::Address;
use crate::sys;
use crate::sys::errno::would_block;

/// The most datagrams that may be queued, however small.
const QUEUED: usize = 64 * 1024;

impl Link {
    pub(crate) fn push_datagram(
        &mut self,
        turn: Turn,
        bytes: &[u8],
        to: Option<&Address>,
        limited: bool,
    ) -> io::Result<()> {
        if !self.is_datagram() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "this channel is a stream, and has no datagrams",
            ));
        }
        self.check_open_for_output()?;
        let queued = self.output.queue_if_any().map_or(0, |queue| queue.len());
        if limited && (!self.takes(bytes.len()) || queued >= QUEUED) {
            return self.over_limit(0, bytes.len());
        }
        if self.queue_is_empty() && !self.is_blocked() && !self.write_budget_is_used_up(turn) {
            match self.send_datagram(turn, bytes, to) {
                Sent::Whole => {
                    self.sent(turn, bytes.len());
                    return Ok(());
                }
                Sent::Not(error) => {
                    self.note_network_error(turn, error);
                    return Ok(());
                }
                Sent::Later => self.set_blocked(true),
            }
        }
        self.output.queue().push_datagram(bytes, to);
        self.queued_more();
        Ok(())
    }

    /// Send what is queued, a datagram at a time.
    pub(super) fn flush_datagrams(&mut self, turn: Turn) -> Flushed {
        self.set_blocked(false);
        while let Some((bytes, to)) = self.output.queue_if_any().and_then(|queue| queue.take_datagram()) {
            let sent = match self.write_budget_is_used_up(turn) {
                true => None,
                false => Some(self.send_datagram(turn, &bytes, to.as_deref())),
            };
            match sent {
                Some(Sent::Whole) => self.sent(turn, bytes.len()),
                Some(Sent::Not(error)) => self.note_network_error(turn, error),
                Some(Sent::Later) | None => {
                    self.output.queue().put_datagram_back(bytes, to);
                    self.set_blocked(sent.is_some());
                    return if self.is_blocked() { Flushed::Blocked } else { Flushed::Budget };
                }
            }
        }
        Flushed::Empty
    }

    /// Tries twice: the error of an earlier datagram waits on the socket, and the next call of any kind
    /// returns it.
    fn send_datagram(&mut self, turn: Turn, bytes: &[u8], to: Option<&Address>) -> Sent {
        let Some(fd) = self.fd() else { return Sent::Later };
        let sent = match sys::datagram::send(fd, bytes, to) {
            Err(error) if sys::errno::is_of_an_earlier_datagram(&error) => {
                let again = sys::datagram::send(fd, bytes, to);
                self.note_network_error(turn, error);
                again
            }
            sent => sent,
        };
        match sent {
            Ok(()) => Sent::Whole,
            // One of several Unix-domain receivers does not read. Nothing reports when it does, and the
            // others must not wait for it.
            Err(error) if would_block(&error) && to.is_some_and(|to| to.ip().is_none()) => Sent::Not(
                io::Error::new(ErrorKind::ResourceBusy, "the receiver takes no more: it does not read"),
            ),
            Err(error) if would_block(&error) => Sent::Later,
            Err(error) => Sent::Not(error),
        }
    }

    /// The settle tells the dispatcher; of several errors, the first.
    fn note_network_error(&mut self, turn: Turn, error: io::Error) {
        self.moved(turn);
        self.rare().network_error.get_or_insert(error);
        self.due.set(Step::NetworkError);
    }

    fn sent(&mut self, turn: Turn, len: usize) {
        let left = self.write_budget(turn);
        // Sending an empty one is work, too.
        *left = left.saturating_sub(len.max(1) as u32);
        self.sent += len as u64;
        self.moved(turn);
    }
}

enum Sent {
    Whole,
    Later,
    Not(io::Error),
}
