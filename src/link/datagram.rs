//! Output of a datagram channel: each datagram is sent whole or not at all, and an error of the network
//! does not end the channel.

use std::io::{self, ErrorKind};

use crate::clock::Turn;
use crate::link::due::Step;
use crate::link::sending::{Flushed, left_of};
use crate::link::state::Link;
use crate::net::address::Address;
use crate::sys;
use crate::sys::errno::{is_shortage, would_block};

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
        let to = self.receiver(to)?;
        if limited && !self.has_room(turn, bytes.len()) {
            return self.over_limit(0, bytes.len());
        }
        let may = self.queue_is_empty() && !self.is_blocked() && !self.write_budget_is_used_up(turn);
        if may && self.admit_output(bytes.len().max(1)) > 0 {
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
                Sent::Short => self.meets_shortage(),
            }
        }
        self.output.queue().push_datagram(bytes, to);
        self.queued_more();
        Ok(())
    }

    /// A channel with one peer sends to it alone, and names it to nobody.
    fn receiver<'a>(&self, to: Option<&'a Address>) -> io::Result<Option<&'a Address>> {
        let (Some(given), Some(peer)) = (to, self.peer()) else { return Ok(to) };
        let is_peer = match (given.ip(), peer.ip()) {
            // What is in one address and not in the other, such as the scope, need not be the same.
            (Some(given), Some(peer)) => (given.ip(), given.port()) == (peer.ip(), peer.port()),
            _ => *given == peer,
        };
        match is_peer {
            true => Ok(None),
            false => Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("this channel exchanges datagrams with {peer} alone, not with {given}"),
            )),
        }
    }

    /// Send what is queued, a datagram at a time.
    pub(super) fn flush_datagrams(&mut self, turn: Turn) -> Flushed {
        self.set_blocked(false);
        while let Some((bytes, to)) = self.output.queue_if_any().and_then(|queue| queue.take_datagram()) {
            let used_up = self.write_budget_is_used_up(turn);
            if !used_up && self.admit_output(bytes.len().max(1)) == 0 {
                self.output.queue().put_datagram_back(bytes, to);
                return Flushed::Blocked;
            }
            let sent = match used_up {
                true => None,
                false => Some(self.send_datagram(turn, &bytes, to.as_deref())),
            };
            match sent {
                Some(Sent::Whole) => self.sent(turn, bytes.len()),
                Some(Sent::Not(error)) => self.note_network_error(turn, error),
                Some(Sent::Later | Sent::Short) | None => {
                    self.output.queue().put_datagram_back(bytes, to);
                    self.set_blocked(sent.is_some());
                    if let Some(Sent::Short) = sent {
                        self.meets_shortage();
                    }
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
            Err(error)
                if (would_block(&error) || is_shortage(&error)) && to.is_some_and(|to| to.ip().is_none()) =>
            {
                Sent::Not(io::Error::new(
                    ErrorKind::ResourceBusy,
                    "the receiver takes no more: it does not read",
                ))
            }
            Err(error) if would_block(&error) => Sent::Later,
            Err(error) if is_shortage(&error) => Sent::Short,
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
        *left = left_of(*left, len);
        self.sent += len as u64;
        self.output_passed(len);
        self.forget_shortage();
        self.moved(turn);
    }
}

enum Sent {
    Whole,
    Later,
    /// The system is short of buffers or memory.
    Short,
    Not(io::Error),
}
