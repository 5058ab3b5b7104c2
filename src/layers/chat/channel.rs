//! What the hooks of a chat are given: its channel, and what is collected.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::time::Duration;

use super::super::terminator::Splitter;
use super::Terminator;
use super::incoming::{Change, Incoming};
use crate::{Address, Channel, ChannelMap, Dispatcher, Handle, Producer, Source, Token};

/// What the hooks of a [`Chat`](super::Chat) are given: its [`Channel`], and what is collected.
///
/// It reads ahead: while a message is handled, others that came with it wait here. So it does not turn
/// into a [`Channel`] by itself, which would know nothing of them: [`channel_mut`](ChatChannel::channel_mut)
/// gives that.
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
///         ch.set_timeout(Some(Duration::from_secs(60)));
///         ch.channel_mut().set_auto_pause(true);                  // what is the channel's own
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
    pub(super) channel: Channel<'a>,
    pub(super) incoming: &'a mut Incoming,
    /// What was read already, after the message that is being handled.
    pub(super) rest: &'a [u8],
}

impl<'a> ChatChannel<'a> {
    /// The channel itself, to look at.
    pub fn channel(&self) -> &Channel<'a> {
        &self.channel
    }

    /// The channel itself: for what has no method here, and for a function that takes a [`Channel`].
    ///
    /// The input that was read already and not yet handed on goes back to the channel first, as if it
    /// had never been read. So the channel's methods do here what they do in a [`Dispatcher`]:
    /// `wrap_source` lets the new source read what follows the message that is being handled, `unread`
    /// puts something before it, `detach` takes it along. What is
    /// [collected](ChatChannel::collected) stays with the chat. When the hook has returned, the chat
    /// reads on, in another turn.
    ///
    /// That costs a copy of what was read ahead. It is meant for what is set once, or happens
    /// rarely; what is done for every message is better done with the methods of this type.
    pub fn channel_mut(&mut self) -> &mut Channel<'a> {
        self.incoming.hold_back();
        if !self.rest.is_empty() || !self.incoming.held.is_empty() {
            self.channel.unread(mem::take(&mut self.rest));
            self.channel.unread(&mem::take(&mut self.incoming.held));
            self.incoming.rest_is_gone = true;
        }
        &mut self.channel
    }

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
    /// in any case. [`handle_overlong`](super::Chat::handle_overlong) runs for the first byte more. A count
    /// that is taken as it comes, by an own `collect_incoming_data`, has no limit.
    pub fn set_input_limit(&mut self, bytes: usize) {
        self.incoming.limit = bytes;
    }

    pub(super) fn input_limit(&self) -> usize {
        self.incoming.limit
    }

    /// As [`Channel::unread`]: `bytes` are searched before what was read already and not yet handed
    /// on.
    pub fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.incoming.hold_back();
            self.incoming.held.splice(..0, bytes.iter().copied());
            self.incoming.change = Change::Reopened;
        }
    }

    /// As [`Channel::wrap_source`]. What was read already after the message that is being handled
    /// goes to the new source: after STARTTLS nothing that came in the clear counts as encrypted.
    ///
    /// # Errors
    /// As [`Channel::wrap_source`].
    pub fn wrap_source<F>(&mut self, f: F) -> io::Result<()>
    where
        F: FnOnce(Box<dyn Source>) -> io::Result<Box<dyn Source>>,
    {
        self.channel_mut().wrap_source(f)
    }

    /// As [`Channel::replace_dispatcher`]. What was read already after the message that is being
    /// handled goes to `dispatcher`; what is collected does not.
    ///
    /// # Errors
    /// As [`Channel::replace_dispatcher`].
    pub fn replace_dispatcher<D: Dispatcher>(&mut self, dispatcher: D) -> io::Result<Handle<D>> {
        self.channel.replace_dispatcher(dispatcher)
    }

    /// Forget what is collected and what was read and not yet handed on, and drop what is queued:
    /// asynchat's method of that name.
    pub fn discard_buffers(&mut self) {
        self.incoming.splitter.start_anew();
        self.incoming.begin();
        self.incoming.held.clear();
        self.incoming.rest_is_gone = true;
        self.incoming.change = Change::Dropped;
        self.channel.discard_unread();
        self.channel.discard_queued();
    }
}

/// What a chat does for each message, and what decides whether another one comes. These methods are
/// those of the [`Channel`], and leave what was read ahead where it is.
impl ChatChannel<'_> {
    /// The name of the channel.
    pub fn token(&self) -> Token {
        self.channel.token()
    }

    /// The map that the channel is in, and through it every other channel. This one's input is the
    /// chat's own: what concerns that is done here, not through the map.
    pub fn map(&mut self) -> &mut ChannelMap {
        self.channel.map()
    }

    /// The other end: [`Channel::peer_address`].
    pub fn peer_address(&self) -> Option<Address> {
        self.channel.peer_address()
    }

    /// Send all of `bytes`: [`Channel::push`].
    ///
    /// # Errors
    /// Those of [`Channel::push`], here and in its variants.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.channel.push(bytes)
    }

    /// As [`push`](ChatChannel::push), without a copy of what does not fit: [`Channel::push_vec`].
    pub fn push_vec(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.channel.push_vec(bytes)
    }

    /// As [`push`](ChatChannel::push), for bytes in several places: [`Channel::push_vectored`].
    pub fn push_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.channel.push_vectored(slices)
    }

    /// Queue what makes its bytes when there is room: [`Channel::push_producer`], asynchat's
    /// `push_with_producer`.
    pub fn push_producer(&mut self, producer: impl Producer) -> io::Result<()> {
        self.channel.push_producer(producer)
    }

    /// Bytes that wait to be sent: [`Channel::queued`].
    pub fn queued(&self) -> usize {
        self.channel.queued()
    }

    /// Handle no more messages, send what is queued, then close: [`Channel::close`], asynchat's
    /// `close_when_done`.
    pub fn close(&mut self) {
        self.channel.close();
    }

    /// Drop what is queued and reset the connection: [`Channel::abort`].
    pub fn abort(&mut self) {
        self.channel.abort();
    }

    /// Send what is queued, then FIN, and go on with the messages: [`Channel::shutdown_write`].
    pub fn shutdown_write(&mut self) {
        self.channel.shutdown_write();
    }

    /// No further message until [`resume_reading`](ChatChannel::resume_reading), not even one that
    /// was read already: [`Channel::pause_reading`].
    pub fn pause_reading(&mut self) {
        self.channel.pause_reading();
    }

    /// End a [`pause_reading`](ChatChannel::pause_reading).
    pub fn resume_reading(&mut self) {
        self.channel.resume_reading();
    }

    /// How long the connection may be silent: [`Channel::set_timeout`].
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.channel.set_timeout(timeout);
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

/// A function that takes a channel is not handed a chat's by coercion.
///
/// ```compile_fail,E0308
/// fn helper(_: &mut dispatch_loop::Channel<'_>) {}
/// fn hook(ch: &mut dispatch_loop::chat::ChatChannel<'_>) {
///     helper(ch);
/// }
/// ```
#[cfg(doctest)]
struct NoChannel;
