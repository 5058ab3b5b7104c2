//! Chat, asynchat as it should have been: messages that end in a terminator, collected and handed over
//! one by one, whatever pieces they come in.
//!
//! Implement [`Chat`], and give it to the map in a [`ChatDispatcher`]. Its hooks are those of a
//! [`Dispatcher`], but that it is given messages instead of input, and a [`ChatChannel`] instead of
//! a [`Channel`].
//!
//! ```
//! use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
//! use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Socket};
//! use std::io::{self, BufRead, BufReader, Write};
//!
//! /// Answers each line with its length.
//! struct Length;
//!
//! impl Chat for Length {
//!     fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
//!         ch.push(format!("{}\n", line.len()).as_bytes())
//!     }
//! }
//!
//! struct Server;
//!
//! impl Dispatcher for Server {
//!     fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
//!         ch.map_mut().add(socket, ChatDispatcher::new("\n", Length)?)?;
//! #       ch.close();
//!         Ok(())
//!     }
//! }
//!
//! let mut map = ChannelMap::new()?;
//! let server = map.listen("127.0.0.1:0", Server)?;
//! # let address = map.channel(server)?.local_addr()?.ip().unwrap();
//! # let client = std::thread::spawn(move || -> io::Result<String> {
//! #     let mut stream = std::net::TcpStream::connect(address)?;
//! #     stream.write_all(b"how lo")?;
//! #     stream.write_all(b"ng?\n")?;
//! #     let mut answer = String::new();
//! #     BufReader::new(stream).read_line(&mut answer)?;
//! #     Ok(answer)
//! # });
//! dispatch_loop::run(&mut map)?;
//! # assert_eq!(client.join().unwrap()?, "9\n");
//! # io::Result::Ok(())
//! ```

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};

pub use super::terminator::Terminator;
use super::terminator::{Piece, Splitter};
use crate::{Channel, Dispatcher, Eof, LookupError, OnError, Reason, Source};

/// What a message may have, in bytes.
const LIMIT: usize = 64 * 1024;

/// Between two messages, a buffer of at most this many bytes is kept for the next one.
const KEPT: usize = 1024;

/// The callbacks of a conversation in messages: `asynchat.async_chat`.
///
/// The hooks of the same name are those of [`Dispatcher`], and so are their defaults. An `Err` or a
/// panic of any goes to [`handle_error`](Chat::handle_error).
///
/// ```
/// use dispatch_loop::chat::{Chat, ChatChannel};
/// use std::io;
///
/// /// A header of two bytes says how long the body is.
/// #[derive(Default)]
/// struct Framed {
///     in_body: bool,
/// }
///
/// impl Chat for Framed {
///     fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
///         ch.set_terminator(2)
///     }
///     fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
///         self.in_body = match *data {
///             [high, low] if !self.in_body => {
///                 ch.set_terminator(usize::from(u16::from_be_bytes([high, low])))?;
///                 true
///             }
///             _ => {
///                 println!("a message of {} bytes", data.len());
///                 ch.set_terminator(2)?;
///                 false
///             }
///         };
///         Ok(())
///     }
/// }
/// ```
#[allow(unused_variables)]
pub trait Chat: 'static {
    /// A part of the message, as it came. Default: [`collect`](ChatChannel::collect)s it for
    /// `found_terminator`. Implement this where a message is better not held whole.
    fn collect_incoming_data(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        ch.collect(data);
        Ok(())
    }

    /// The message is whole: `data` is what was collected of it, without the terminator. What comes
    /// after it is searched for the terminator that this hook sets.
    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()>;

    /// A message has more bytes than [the limit](ChatChannel::set_input_limit); once for it.
    ///
    /// `Ok` goes on: the rest of the message, to its terminator, is dropped, and so is what was
    /// collected of it. To answer before the end, push the answer and
    /// [`shutdown_write`](Channel::shutdown_write) (a `close` might reset a peer that is still sending
    /// before it has read it). Default: an error (`InvalidData`), which ends the channel.
    fn handle_overlong(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        let limit = ch.incoming.limit;
        let what = format!("more than {limit} bytes came without the terminator, which is over the limit");
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }

    /// As [`Dispatcher::handle_open`]: asynchat's way to set the terminator, and to greet.
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// As [`Dispatcher::handle_connect`].
    fn handle_connect(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// As [`Dispatcher::handle_eof`]. `rest` is what was collected of a message that will never be
    /// whole; in asynchat it was lost.
    fn handle_eof(&mut self, ch: &mut ChatChannel<'_>, rest: &[u8]) -> io::Result<Eof> {
        Ok(Eof::Close)
    }

    /// As [`Dispatcher::handle_high`].
    fn handle_high(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// As [`Dispatcher::handle_low`].
    fn handle_low(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// As [`Dispatcher::handle_timeout`].
    fn handle_timeout(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.time_out();
        Ok(())
    }

    /// As [`Dispatcher::handle_error`]. With [`OnError::Keep`] the input after the message that was
    /// being handled is not lost.
    fn handle_error(&mut self, ch: &mut ChatChannel<'_>, error: &io::Error) -> OnError {
        OnError::End
    }

    /// As [`Dispatcher::handle_close`]: exactly once, and the last.
    fn handle_close(&mut self, ch: &mut ChatChannel<'_>, reason: &Reason) {}
}

/// What the hooks of a [`Chat`] are given: its [`Channel`], and what is collected.
///
/// asynchat's `push_with_producer` is [`push_producer`](Channel::push_producer), its
/// `close_when_done` is [`close`](Channel::close).
///
/// ```
/// use dispatch_loop::chat::{Chat, ChatChannel};
/// use std::io;
/// use std::time::Duration;
///
/// struct Greeter;
///
/// impl Chat for Greeter {
///     fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
///         ch.set_timeout(Some(Duration::from_secs(60)));       // the channel's own
///         ch.set_terminator("\r\n")?;
///         ch.set_input_limit(512);
///         ch.push(b"220 hello\r\n")
///     }
///     fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, _: &[u8]) -> io::Result<()> {
///         ch.push(b"221 goodbye\r\n")?;
///         ch.close();
///         Ok(())
///     }
/// }
/// ```
pub struct ChatChannel<'a> {
    channel: Channel<'a>,
    incoming: &'a mut Incoming,
    /// What was read already, after the message that is being handled.
    rest: &'a [u8],
}

impl ChatChannel<'_> {
    /// What ends the next message: at once, also for what was read already and not yet handed on.
    ///
    /// # Errors
    /// `InvalidInput` for no bytes and for a count of 0, which would be found for ever. (The body
    /// of 0 bytes that a header announces is whole when it is announced.)
    #[doc(alias = "get_terminator")]
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) -> io::Result<()> {
        let splitter = Splitter::new(terminator.into())?;
        // What may have been the start of the old one is searched for the new one.
        self.incoming.hold_back();
        self.incoming.splitter = splitter;
        self.incoming.len = self.incoming.collected.len();
        Ok(())
    }

    /// The terminator that is looked for.
    pub fn terminator(&self) -> &Terminator {
        self.incoming.splitter.terminator()
    }

    /// Keep `data` for `found_terminator`: asynchat's `_collect_incoming_data`.
    pub fn collect(&mut self, data: &[u8]) {
        self.incoming.collected.extend_from_slice(data);
    }

    /// What is collected of the message that is not whole yet: asynchat's `_get_data`.
    pub fn collected(&self) -> &[u8] {
        &self.incoming.collected
    }

    /// How many bytes a message may have (64 KiB), where bytes end it, and how much may be collected
    /// in any case. [`handle_overlong`](Chat::handle_overlong) runs for the first byte more. A count
    /// that is taken as it comes, by an own `collect_incoming_data`, has no limit.
    pub fn set_input_limit(&mut self, bytes: usize) {
        self.incoming.limit = bytes;
    }

    /// As [`Channel::unread`]: `bytes` are searched before what was read already and not yet handed
    /// on.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.incoming.hold_back();
        self.incoming.held.splice(..0, bytes.iter().copied());
    }

    /// As [`Channel::wrap_source`]. What was read already after the message that is being handled goes to the
    /// new source: after STARTTLS nothing that came in the clear counts as encrypted.
    ///
    /// # Errors
    /// As [`Channel::wrap_source`].
    pub fn wrap_source<F>(&mut self, f: F) -> io::Result<()>
    where
        F: FnOnce(Box<dyn Source>) -> io::Result<Box<dyn Source>>,
    {
        self.incoming.hold_back();
        self.channel.unread(std::mem::take(&mut self.rest));
        self.channel.unread(&std::mem::take(&mut self.incoming.held));
        self.incoming.rest_is_gone = true;
        self.channel.wrap_source(f)
    }

    /// Forget what is collected and what was read and not yet handed on, and drop what is queued:
    /// asynchat's method of that name.
    pub fn discard_buffers(&mut self) {
        self.incoming.splitter.start_anew();
        self.incoming.begin();
        self.incoming.held.clear();
        self.incoming.rest_is_gone = true;
        self.channel.discard_unread();
        self.channel.discard_queued();
    }
}

impl<'a> Deref for ChatChannel<'a> {
    type Target = Channel<'a>;

    fn deref(&self) -> &Channel<'a> {
        &self.channel
    }
}

impl<'a> DerefMut for ChatChannel<'a> {
    fn deref_mut(&mut self) -> &mut Channel<'a> {
        &mut self.channel
    }
}

impl fmt::Debug for ChatChannel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatChannel")
            .field("channel", &self.channel)
            .field("terminator", self.terminator())
            .field("collected", &self.incoming.collected.len())
            .finish()
    }
}

/// The dispatcher that makes messages of the input of its channel, for a [`Chat`].
///
/// It derefs to the chat, so [`map.get_mut(handle)`](crate::ChannelMap::get_mut) leads to it; with its
/// channel as well, [`with`](ChatDispatcher::with) does.
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
/// map.get_mut(handle)?.name = "ada".into();
/// map.with(handle, |guest, ch| guest.with(ch, |_, ch| ch.set_terminator("\n")))?;
/// # io::Result::Ok(())
/// ```
pub struct ChatDispatcher<C> {
    chat: C,
    incoming: Incoming,
}

/// What the dispatcher knows of the input.
struct Incoming {
    splitter: Splitter,
    /// Was held back by a splitter that was replaced, and is searched anew.
    held: Vec<u8>,
    collected: Vec<u8>,
    /// Of the message that is not whole yet.
    len: usize,
    limit: usize,
    /// It is over the limit; the rest of it is dropped.
    skipping: bool,
    /// What follows in the input that is being handed on is no longer to be.
    rest_is_gone: bool,
}

impl Incoming {
    /// Give up the match that the splitter is in the midst of.
    fn hold_back(&mut self) {
        self.held.extend_from_slice(self.splitter.held());
        self.splitter.let_go();
    }

    /// A new message.
    fn begin(&mut self) {
        self.collected.clear();
        if self.collected.capacity() > KEPT {
            self.collected = Vec::new();
        }
        self.len = 0;
        self.skipping = false;
    }

    /// How many of the next `bytes` the message may still have.
    fn room(&self, bytes: usize) -> usize {
        match self.splitter.terminator() {
            Terminator::Bytes(_) => bytes.min(self.limit.saturating_sub(self.len)),
            // What is not collected is not held; what is is looked at afterwards.
            Terminator::Count(_) | Terminator::None => bytes,
        }
    }
}

impl<C: Chat> ChatDispatcher<C> {
    /// A dispatcher for `chat`, whose messages end in `terminator`.
    ///
    /// # Errors
    /// `InvalidInput`, as with [`set_terminator`](ChatChannel::set_terminator).
    pub fn new(terminator: impl Into<Terminator>, chat: C) -> io::Result<ChatDispatcher<C>> {
        let incoming = Incoming {
            splitter: Splitter::new(terminator.into())?,
            held: Vec::new(),
            collected: Vec::new(),
            len: 0,
            limit: LIMIT,
            skipping: false,
            rest_is_gone: false,
        };
        Ok(ChatDispatcher { chat, incoming })
    }

    /// Call `f` with the chat and its view, from outside of its hooks.
    pub fn with<R>(&mut self, ch: &mut Channel<'_>, f: impl FnOnce(&mut C, &mut ChatChannel<'_>) -> R) -> R {
        let result = self.lend(ch, &[], f);
        self.put_back(ch, &[]);
        result
    }

    fn lend<R>(
        &mut self,
        ch: &mut Channel<'_>,
        rest: &[u8],
        f: impl FnOnce(&mut C, &mut ChatChannel<'_>) -> R,
    ) -> R {
        f(&mut self.chat, &mut ChatChannel { channel: ch.reborrow(), incoming: &mut self.incoming, rest })
    }

    /// Cut `input` into pieces and hand them on, as long as the chat takes them.
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
            if std::mem::take(&mut self.incoming.rest_is_gone) {
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
        let over = has_ended(ch) || self.incoming.rest_is_gone || self.is_replaced(ch);
        // Nor if the hook has asked for more of this message.
        if over || !self.incoming.held.is_empty() {
            return collected;
        }
        // The message is whole, whatever the hook thinks of its last part.
        let ended = self.end_of_message(ch, rest);
        collected.and(ended)
    }

    /// Whether another dispatcher has the channel now.
    fn is_replaced(&self, ch: &mut Channel<'_>) -> bool {
        let this = ch.token().typed::<Self>();
        !matches!(ch.map().get(this), Err(LookupError::Running(_)))
    }

    /// Let what was not handed on be read again, when it can be.
    fn put_back(&mut self, ch: &mut Channel<'_>, rest: &[u8]) {
        ch.unread(rest);
        if self.is_replaced(ch) {
            self.incoming.hold_back();
        }
        ch.unread(&std::mem::take(&mut self.incoming.held));
    }

    fn collect(&mut self, ch: &mut Channel<'_>, data: &[u8], rest: &[u8]) -> io::Result<()> {
        if self.incoming.skipping {
            return Ok(());
        }
        let taken = &data[..self.incoming.room(data.len())];
        self.incoming.len += taken.len();
        if !taken.is_empty() {
            self.lend(ch, rest, |chat, ch| chat.collect_incoming_data(ch, taken))?;
        }
        let too_much = self.incoming.collected.len() > self.incoming.limit;
        if (taken.len() == data.len() && !too_much) || has_ended(ch) || self.incoming.rest_is_gone {
            return Ok(());
        }
        self.incoming.skipping = true;
        let result = self.lend(ch, rest, |chat, ch| chat.handle_overlong(ch));
        self.incoming.collected = Vec::new();
        result
    }

    fn end_of_message(&mut self, ch: &mut Channel<'_>, rest: &[u8]) -> io::Result<()> {
        if self.incoming.skipping {
            self.incoming.begin();
            return Ok(());
        }
        let data = std::mem::take(&mut self.incoming.collected);
        self.incoming.len = 0;
        let result = self.lend(ch, rest, |chat, ch| chat.found_terminator(ch, &data));
        if self.incoming.collected.is_empty() {
            self.incoming.collected = data;
            self.incoming.begin();
        }
        result
    }
}

/// Whether no hook but `handle_close` may run any more.
fn has_ended(ch: &Channel<'_>) -> bool {
    !ch.is_reading() && !ch.is_paused()
}

impl<C: Chat> Dispatcher for ChatDispatcher<C> {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| self.feed(ch, data))
    }

    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        // The start of a terminator was none.
        let held = self.incoming.splitter.held().to_vec();
        self.incoming.splitter.start_anew();
        self.collect(ch, &held, &[])?;
        if has_ended(ch) {
            return Ok(Eof::Close);
        }
        let rest = std::mem::take(&mut self.incoming.collected);
        self.lend(ch, &[], |chat, ch| chat.handle_eof(ch, &rest))
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

    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |chat, ch| chat.handle_timeout(ch))
    }

    fn handle_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> OnError {
        self.with(ch, |chat, ch| chat.handle_error(ch, error))
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.lend(ch, &[], |chat, ch| chat.handle_close(ch, reason));
    }
}

impl<C> Deref for ChatDispatcher<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.chat
    }
}

impl<C> DerefMut for ChatDispatcher<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.chat
    }
}

impl<C: fmt::Debug> fmt::Debug for ChatDispatcher<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChatDispatcher").field(&self.chat).finish()
    }
}
