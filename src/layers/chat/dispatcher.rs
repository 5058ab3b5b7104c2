//! The dispatcher that turns its channel's input into messages for a chat.

use std::fmt;
use std::io;

use super::super::terminator::{Piece, Splitter};
use super::incoming::{Change, Incoming};
use super::{Chat, ChatChannel, Terminator};
use crate::{Channel, Deadline, Dispatcher, Eof, LookupError, OnError, Reason};

/// The dispatcher that turns its channel's input into messages for a [`Chat`].
///
/// From elsewhere, [`map.get_mut(handle)`](crate::ChannelMap::get_mut) gives the dispatcher and
/// [`inner_mut`](ChatDispatcher::inner_mut) the chat; [`with`](ChatDispatcher::with) gives the chat together
/// with its view.
///
/// ```
/// use dispatch_loop::ChannelMap;
/// use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
/// use std::io;
/// use std::os::unix::net::UnixStream;
///
/// struct Guest {
///     name: String,
/// }
///
/// impl Chat for Guest {
///     fn found_terminator(&mut self, _: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
///         println!("{}: {}", self.name, String::from_utf8_lossy(line));
///         Ok(())
///     }
/// }
///
/// let (near, _far) = UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// let guest = Guest { name: "guest1".into() };
/// let handle = map.add(near, ChatDispatcher::new("\r\n", guest)?)?;
/// map.get_mut(handle)?.inner_mut().name = "ada".into();
/// map.with(handle, |guest, ch| guest.with(ch, |_, ch| ch.set_terminator("\n")))?;
/// # io::Result::Ok(())
/// ```
pub struct ChatDispatcher<C> {
    chat: C,
    incoming: Incoming,
}

impl<C: Chat> ChatDispatcher<C> {
    /// Makes a dispatcher for `chat`, whose messages end in `terminator`.
    ///
    /// # Errors
    /// `InvalidInput`, as with [`set_terminator`](ChatChannel::set_terminator).
    pub fn new(terminator: impl Into<Terminator>, chat: C) -> io::Result<ChatDispatcher<C>> {
        let incoming = Incoming::new(Splitter::new(terminator.into())?);
        Ok(ChatDispatcher { chat, incoming })
    }

    /// The chat.
    pub fn inner(&self) -> &C {
        &self.chat
    }

    /// The chat, mutably.
    pub fn inner_mut(&mut self) -> &mut C {
        &mut self.chat
    }

    /// Calls `f` with the chat and its view, from outside its own hooks.
    pub fn with<R>(&mut self, ch: &mut Channel<'_>, f: impl FnOnce(&mut C, &mut ChatChannel<'_>) -> R) -> R {
        let result = self.call(ch, &[], f);
        self.put_back(ch, &[]);
        result
    }

    fn call<R>(
        &mut self,
        ch: &mut Channel<'_>,
        rest: &[u8],
        f: impl FnOnce(&mut C, &mut ChatChannel<'_>) -> R,
    ) -> R {
        let rest = if self.incoming.rest_is_gone { &[] } else { rest };
        f(&mut self.chat, &mut ChatChannel { channel: ch.reborrow(), incoming: &mut self.incoming, rest })
    }

    /// Cut `input` into pieces and deliver them, as long as the chat takes them.
    fn feed(&mut self, ch: &mut Channel<'_>, mut input: &[u8]) -> io::Result<()> {
        self.incoming.rest_is_gone = false;
        while let Some(piece) = self.incoming.splitter.next(&mut input) {
            let result = match piece {
                Piece::Data(data) => self.collect(ch, data, input),
                Piece::Prefix(len) => match self.incoming.splitter.terminator().clone() {
                    Terminator::Bytes(bytes) => self.collect(ch, &bytes[..len], input),
                    _ => Ok(()),
                },
                Piece::Last(data) => self.last_of_a_count(ch, data, input),
                Piece::End => self.end_of_message(ch, input),
            };
            if self.incoming.rest_is_gone {
                self.put_back(ch, &[]);
                return result;
            }
            if result.is_err() || !ch.is_reading() || !self.incoming.held.is_empty() || self.is_replaced(ch) {
                self.put_back(ch, input);
                return result;
            }
        }
        Ok(())
    }

    fn last_of_a_count(&mut self, ch: &mut Channel<'_>, data: &[u8], rest: &[u8]) -> io::Result<()> {
        let collected = self.collect(ch, data, rest);
        if has_ended(ch) || self.incoming.change != Change::None || self.is_replaced(ch) {
            return collected;
        }
        // The message is complete, even if the hook has failed on its last piece.
        let ended = self.end_of_message(ch, rest);
        collected.and(ended)
    }

    /// Whether the channel has been handed to another dispatcher.
    fn is_replaced(&self, ch: &Channel<'_>) -> bool {
        let this = ch.token().typed::<Self>();
        !matches!(ch.map().get(this), Err(LookupError::Running(_)))
    }

    /// Put what was not delivered back into the channel.
    fn put_back(&mut self, ch: &mut Channel<'_>, rest: &[u8]) {
        ch.unread(rest);
        if self.is_replaced(ch) {
            self.incoming.hold_back();
        }
        ch.unread(&std::mem::take(&mut self.incoming.held));
    }

    fn collect(&mut self, ch: &mut Channel<'_>, data: &[u8], rest: &[u8]) -> io::Result<()> {
        self.incoming.change = Change::None;
        if self.incoming.skipping {
            return Ok(());
        }
        let taken = &data[..self.incoming.room(data.len())];
        self.incoming.len += taken.len();
        if !taken.is_empty() {
            self.call(ch, rest, |chat, ch| chat.collect_incoming_data(ch, taken))?;
        }
        let too_much = self.incoming.collected.len() > self.incoming.limit;
        let dropped = self.incoming.change == Change::Dropped;
        if (taken.len() == data.len() && !too_much) || has_ended(ch) || dropped {
            return Ok(());
        }
        self.incoming.skipping = true;
        let result = self.call(ch, rest, |chat, ch| chat.handle_overlong(ch));
        self.incoming.collected = Vec::new();
        result
    }

    fn end_of_message(&mut self, ch: &mut Channel<'_>, rest: &[u8]) -> io::Result<()> {
        ch.end_message();
        if self.incoming.skipping {
            self.incoming.begin();
            return Ok(());
        }
        let data = std::mem::take(&mut self.incoming.collected);
        self.incoming.len = 0;
        let result = self.call(ch, rest, |chat, ch| chat.found_terminator(ch, &data));
        if self.incoming.collected.is_empty() {
            self.incoming.collected = data;
            self.incoming.begin();
        }
        result
    }
}

/// Whether no hook but `handle_close` may still run.
fn has_ended(ch: &Channel<'_>) -> bool {
    !ch.is_reading() && !ch.is_paused()
}

impl<C: Chat> Dispatcher for ChatDispatcher<C> {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            let result = self.feed(ch, data);
            if self.incoming.has_begun() && !self.is_replaced(ch) {
                ch.begin_message();
            }
            result
        })
    }

    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        // What looked like the start of a terminator is the end of the last message.
        let held = self.incoming.splitter.held().to_vec();
        self.incoming.splitter.restart();
        self.collect(ch, &held, &[])?;
        if has_ended(ch) {
            return Ok(Eof::Close);
        }
        ch.end_message();
        let rest = std::mem::take(&mut self.incoming.collected);
        self.call(ch, &[], |chat, ch| chat.handle_eof(ch, &rest))
    }

    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |chat, ch| chat.handle_open(ch))
    }

    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |chat, ch| chat.handle_connect(ch))
    }

    fn handle_high(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |chat, ch| chat.handle_high(ch))
    }

    fn handle_low(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |chat, ch| chat.handle_low(ch))
    }

    fn handle_drained(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |chat, ch| chat.handle_drained(ch))
    }

    fn handle_wrapped(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |chat, ch| chat.handle_wrapped(ch))
    }

    fn handle_drain(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |chat, ch| chat.handle_drain(ch))
    }

    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |chat, ch| chat.handle_timeout(ch))
    }

    fn handle_deadline(&mut self, ch: &mut Channel<'_>, deadline: Deadline) -> io::Result<()> {
        self.with(ch, |chat, ch| chat.handle_deadline(ch, deadline))
    }

    fn handle_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> OnError {
        self.with(ch, |chat, ch| chat.handle_error(ch, error))
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.call(ch, &[], |chat, ch| chat.handle_close(ch, reason));
    }
}

impl<C: fmt::Debug> fmt::Debug for ChatDispatcher<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChatDispatcher").field(&self.chat).finish()
    }
}
