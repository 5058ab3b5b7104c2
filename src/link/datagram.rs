//! Output of a datagram channel: each is sent whole or not at all, and an error of the network does
//! not end the channel.

use std::io::{self, ErrorKind};

use crate::link::State;
use crate::link::outbox::Flushed;
use crate::net::address::Address;
use crate::sys;

/// Datagrams that may wait to be sent, however small.
const QUEUED: usize = 64 * 1024;

impl State {
    pub(crate) fn push_datagram(
        &mut self,
        turn: u32,
        bytes: &[u8],
        to: Option<&Address>,
        limited: bool,
    ) -> io::Result<()> {
        if !self.datagrams {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "this channel is a stream, and has no datagrams",
            ));
        }
        self.check_open_for_output()?;
        if limited && (!self.outbox.takes(bytes.len()) || self.outbox.len() >= QUEUED) {
            return self.over_limit(bytes.len());
        }
        if self.outbox.is_empty() && !self.blocked && *self.write_budget(turn) > 0 {
            match self.send_datagram(bytes, to) {
                Sent::Whole => {
                    self.sent(turn, bytes.len());
                    return Ok(());
                }
                Sent::Not(error) => {
                    self.note(error);
                    return Ok(());
                }
                Sent::Later => self.blocked = true,
            }
        }
        self.outbox.push_datagram(bytes, to);
        Ok(())
    }

    /// Send what is queued, a datagram at a time.
    pub(crate) fn flush_datagrams(&mut self, turn: u32) -> Flushed {
        self.blocked = false;
        while let Some((bytes, to)) = self.outbox.take_datagram() {
            let sent = match *self.write_budget(turn) {
                0 => None,
                _ => Some(self.send_datagram(&bytes, to.as_deref())),
            };
            match sent {
                Some(Sent::Whole) => self.sent(turn, bytes.len()),
                Some(Sent::Not(error)) => self.note(error),
                Some(Sent::Later) | None => {
                    self.outbox.put_datagram_back(bytes, to);
                    self.blocked = sent.is_some();
                    return if self.blocked { Flushed::Blocked } else { Flushed::Budget };
                }
            }
        }
        Flushed::Empty
    }

    /// The error of an earlier datagram waits on the socket, and the next call of any kind takes it;
    /// so one more try.
    fn send_datagram(&mut self, bytes: &[u8], to: Option<&Address>) -> Sent {
        let Some(fd) = self.fd() else { return Sent::Later };
        let sent = match sys::datagram::send(fd, bytes, to) {
            Err(error) if sys::errno::is_of_an_earlier_datagram(&error) => {
                let again = sys::datagram::send(fd, bytes, to);
                self.note(error);
                again
            }
            sent => sent,
        };
        match sent {
            Ok(()) => Sent::Whole,
            // One of several Unix-domain receivers does not read. Nobody tells when it does, and the
            // others are not to wait for it.
            Err(error) if error.kind() == ErrorKind::WouldBlock && to.is_some_and(|to| to.ip().is_none()) => {
                Sent::Not(io::Error::new(
                    ErrorKind::ResourceBusy,
                    "the receiver takes no more: it does not read",
                ))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Later,
            Err(error) => Sent::Not(error),
        }
    }

    /// The dispatcher is told at the settle; of several errors, the first.
    fn note(&mut self, error: io::Error) {
        self.busy = true;
        self.network_error.get_or_insert(error);
    }

    fn sent(&mut self, turn: u32, len: usize) {
        let left = self.write_budget(turn);
        // An empty one is work as well.
        *left = left.saturating_sub(len.max(1) as u32);
        self.stamp();
    }
}

enum Sent {
    Whole,
    Later,
    Not(io::Error),
}
