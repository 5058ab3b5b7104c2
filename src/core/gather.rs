//! What the running hook has pushed to its own channel: small pieces side by side in one buffer of the
//! map, sent in one call when the hook returns, without an allocation.

use std::sync::Arc;

use crate::link::marks::GATHERED;
use crate::link::pushed::Pushed;
use crate::threads::pulse::Pulse;
use crate::token::Token;

/// A piece as large as the whole is none to be gathered: it is offered to the socket at once.
const ROOM: usize = GATHERED - 1;

pub(crate) struct Gather {
    /// Holds the owner: the channel whose hook is running, if its output is gathered.
    pulse: Arc<Pulse>,
    /// The same while its pushes can take the short way, that is, until something is done with the
    /// channel that must be looked at first.
    open: Token,
    len: usize,
    buffer: Box<[u8; ROOM]>,
}

impl Gather {
    pub(crate) fn new(pulse: Arc<Pulse>) -> Gather {
        let buffer = match vec![0; ROOM].into_boxed_slice().try_into() {
            Ok(buffer) => buffer,
            Err(_) => unreachable!("it has that length"),
        };
        Gather { pulse, open: Token::NONE, len: 0, buffer }
    }

    /// A hook of `owner` begins.
    #[inline]
    pub(crate) fn begin(&mut self, owner: Token) {
        self.pulse.set_owner(owner);
        self.open = owner;
    }

    /// The channel whose output is gathered.
    #[inline]
    pub(crate) fn owner(&self) -> Token {
        self.pulse.owner()
    }

    /// Whether no output is being gathered.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        !self.pulse.has_owner()
    }

    /// Append a small piece; `false`, with nothing done, if this is not the short way.
    #[inline(always)]
    pub(crate) fn push(&mut self, token: Token, bytes: &[u8]) -> bool {
        if self.open != token {
            return false;
        }
        let end = self.len + bytes.len();
        let Some(room) = self.buffer.get_mut(self.len..end) else { return false };
        room.copy_from_slice(bytes);
        self.len = end;
        true
    }

    /// As `push`, for any kind of push that is small enough.
    pub(crate) fn push_small(&mut self, token: Token, pushed: &Pushed<'_>) -> bool {
        match pushed {
            Pushed::Slices(slices) => {
                // Also of no slices: the long way tells whether the channel takes any.
                let fits = self.open == token && self.len + pushed.len() <= ROOM;
                fits && slices.iter().all(|slice| self.push(token, slice))
            }
            pushed => self.push(token, pushed.bytes()),
        }
    }

    /// Something was done with the channel: the next push takes the long way.
    #[inline]
    pub(crate) fn seal(&mut self, token: Token) {
        if self.is_of(token) {
            self.open = Token::NONE;
        }
    }

    /// The long way has found that pushes can still be gathered.
    pub(crate) fn unseal(&mut self) {
        self.open = self.owner();
    }

    #[inline]
    pub(crate) fn is_of(&self, token: Token) -> bool {
        self.owner() == token
    }

    /// What is gathered for `token`.
    pub(crate) fn bytes_of(&self, token: Token) -> &[u8] {
        match self.is_of(token) {
            true => self.bytes(),
            false => &[],
        }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// What was gathered for `token` has been sent, queued or discarded.
    pub(crate) fn sent(&mut self, token: Token) {
        if self.is_of(token) {
            self.len = 0;
            self.open = Token::NONE;
        }
    }

    /// The hook is over.
    #[inline]
    pub(crate) fn end(&mut self) {
        // Clearing the slot is enough: no token has this one.
        self.pulse.clear_owner();
        self.open.slot = Token::NONE.slot;
        self.len = 0;
    }
}
