//! The view that the hooks of a chat are given: its channel, and the message collected so far.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::time::Duration;

use super::super::terminator::Splitter;
use super::incoming::{Change, Incoming};
use super::{Chat, ChatDispatcher, Terminator};
use crate::{Address, Channel, ChannelMap, Deadlines, Dispatcher, Handle, Producer, Source, TimerId, Token};

/// The view that the hooks of a [`Chat`] are given: its [`Channel`], and the message
/// collected so far.
///
/// A chat reads ahead: while one message is handled, those that arrived with it wait. A [`Channel`] does
/// not know about them. So this type does not deref to one;
/// [`channel_mut`](ChatChannel::channel_mut) gives it back what was read ahead first.
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
///         ch.channel_mut().set_auto_pause(true);              // the channel's own
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
    /// The input that was read together with the message being handled, and follows it.
    pub(super) rest: &'a [u8],
}

impl<'a> ChatChannel<'a> {
    /// The underlying channel, read-only.
    pub fn channel(&self) -> &Channel<'a> {
        &self.channel
    }

    /// The underlying channel, for everything that has no method here, and for functions that take a
    /// [`Channel`].
    ///
    /// The input that the chat has read ahead is put back into the channel first, as if it had never
    /// been read. So the channel's methods do what they do in a [`Dispatcher`]: after `wrap_source` the
    /// new source reads what follows the message being handled, `unread` puts bytes before that, and
    /// `detach` takes it along. What has been [collected](ChatChannel::collected) stays with the chat,
    /// which reads on in a later turn.
    ///
    /// Putting back costs a copy of the input that was read ahead. Call this for settings and upgrades;
    /// what every message needs has a method on this type.
    pub fn channel_mut(&mut self) -> &mut Channel<'a> {
        self.incoming.hold_back();
        if !self.rest.is_empty() || !self.incoming.held.is_empty() {
            self.channel.unread(mem::take(&mut self.rest));
            self.channel.unread(&mem::take(&mut self.incoming.held));
            self.incoming.rest_is_gone = true;
        }
        &mut self.channel
    }

    /// Sets what ends the next message. It applies at once, also to input that was read ahead.
    ///
    /// # Errors
    /// `InvalidInput` for an empty terminator and for a count of 0, which would match for ever. (If a
    /// header announces a body of 0 bytes, that message is already complete.)
    #[doc(alias = "get_terminator")]
    pub fn set_terminator(&mut self, terminator: impl Into<Terminator>) -> io::Result<()> {
        let splitter = Splitter::new(terminator.into())?;
        // What may have been the start of the old terminator is searched for the new one.
        self.incoming.hold_back();
        self.incoming.splitter = splitter;
        self.incoming.len = self.incoming.collected.len();
        Ok(())
    }

    /// The current terminator.
    pub fn terminator(&self) -> &Terminator {
        self.incoming.splitter.terminator()
    }

    /// Keeps `data` for `found_terminator`: asynchat's `_collect_incoming_data`.
    pub fn collect(&mut self, data: &[u8]) {
        self.incoming.collected.extend_from_slice(data);
    }

    /// What has been collected of the current message: asynchat's `_get_data`.
    pub fn collected(&self) -> &[u8] {
        &self.incoming.collected
    }

    /// Sets how many bytes may be collected of a message, and how long a message may be whose end is
    /// marked by bytes. The default is 64 KiB. The first byte over the limit calls
    /// [`handle_overlong`](super::Chat::handle_overlong). A message of a given length that an own
    /// `collect_incoming_data` takes without collecting it has no limit.
    pub fn set_input_limit(&mut self, bytes: usize) {
        self.incoming.limit = bytes;
    }

    pub(super) fn input_limit(&self) -> usize {
        self.incoming.limit
    }

    /// Puts input back, as [`Channel::unread`] does: `bytes` come again as the start of the next
    /// message, before what was read ahead.
    pub fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.incoming.hold_back();
            self.incoming.held.splice(..0, bytes.iter().copied());
            self.incoming.change = Change::Reopened;
        }
    }

    /// Puts another source around the channel's, as [`Channel::wrap_source`] does. What was read ahead
    /// goes to the new source: after STARTTLS nothing that arrived in the clear is taken for encrypted.
    ///
    /// # Errors
    /// As [`Channel::wrap_source`].
    pub fn wrap_source<F>(&mut self, f: F) -> io::Result<()>
    where
        F: FnOnce(Box<dyn Source>) -> io::Result<Box<dyn Source>> + 'static,
    {
        self.channel_mut().wrap_source(f)
    }

    /// Hands the channel to another dispatcher, as [`Channel::replace_dispatcher`] does. What was read
    /// ahead goes to it; what has been collected is dropped.
    ///
    /// # Errors
    /// As [`Channel::replace_dispatcher`].
    pub fn replace_dispatcher<D: Dispatcher>(&mut self, dispatcher: D) -> io::Result<Handle<D>> {
        self.channel.replace_dispatcher(dispatcher)
    }

    /// Drops what has been collected, what was read ahead, and the queued output: asynchat's method of
    /// the same name.
    pub fn discard_buffers(&mut self) {
        self.incoming.splitter.restart();
        self.incoming.begin();
        self.channel.end_message();
        self.incoming.held.clear();
        self.incoming.rest_is_gone = true;
        self.incoming.change = Change::Dropped;
        self.channel.discard_unread();
        self.channel.discard_queued();
    }
}

/// What a chat needs for each message: the [`Channel`]'s methods, which leave what was read ahead where it
/// is.
impl ChatChannel<'_> {
    /// The channel's token.
    pub fn token(&self) -> Token {
        self.channel.token()
    }

    /// The map, to look something up.
    pub fn map(&self) -> &ChannelMap {
        self.channel.map()
    }

    /// The map, and through it every other channel. Do not reach for this chat's own channel that way:
    /// that view does not know what was read ahead.
    pub fn map_mut(&mut self) -> &mut ChannelMap {
        self.channel.map_mut()
    }

    /// The peer's address: [`Channel::peer_addr`].
    ///
    /// # Errors
    /// Those of [`Channel::peer_addr`].
    pub fn peer_addr(&self) -> io::Result<Address> {
        self.channel.peer_addr()
    }

    /// Sends all of `bytes`: [`Channel::push`].
    ///
    /// # Errors
    /// Those of [`Channel::push`]; likewise for its variants.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.channel.push(bytes)
    }

    /// Like [`push`](ChatChannel::push), without copying what does not fit: [`Channel::push_vec`].
    pub fn push_vec(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.channel.push_vec(bytes)
    }

    /// Like [`push`](ChatChannel::push), for bytes in several places: [`Channel::push_vectored`].
    pub fn push_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.channel.push_vectored(slices)
    }

    /// Queues output that is made when there is room for it: [`Channel::push_producer`], asynchat's
    /// `push_with_producer`.
    pub fn push_producer(&mut self, producer: impl Producer) -> io::Result<()> {
        self.channel.push_producer(producer)
    }

    /// The number of bytes waiting to be sent: [`Channel::queued`].
    pub fn queued(&self) -> usize {
        self.channel.queued()
    }

    /// Delivers no further message, sends what is queued, then closes: [`Channel::close`], asynchat's
    /// `close_when_done`.
    pub fn close(&mut self) {
        self.channel.close();
    }

    /// Drops what is queued and resets the connection: [`Channel::abort`].
    pub fn abort(&mut self) {
        self.channel.abort();
    }

    /// Sends what is queued, then FIN. Messages are still delivered: [`Channel::shutdown_write`].
    pub fn shutdown_write(&mut self) {
        self.channel.shutdown_write();
    }

    /// Delivers no further message until [`resume_reading`](ChatChannel::resume_reading), not even one
    /// that was read ahead: [`Channel::pause_reading`].
    pub fn pause_reading(&mut self) {
        self.channel.pause_reading();
    }

    /// Ends a [`pause_reading`](ChatChannel::pause_reading): [`Channel::resume_reading`].
    pub fn resume_reading(&mut self) {
        self.channel.resume_reading();
    }

    /// Sets how long the connection may be idle: [`Channel::set_timeout`].
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.channel.set_timeout(timeout);
    }

    /// Sets how long the peer may take, for what: [`Channel::set_deadlines`].
    pub fn set_deadlines(&mut self, deadlines: &Deadlines) {
        self.channel.set_deadlines(deadlines);
    }

    /// Calls `f` with the chat after `delay`, unless the channel has ended by then:
    /// [`Channel::call_later_with`].
    pub fn call_later<C, F>(&mut self, delay: Duration, f: F) -> TimerId
    where
        C: Chat,
        F: FnOnce(&mut C, &mut ChatChannel<'_>) -> io::Result<()> + 'static,
    {
        self.channel.call_later_with(delay, |chat: &mut ChatDispatcher<C>, ch| chat.with(ch, f))
    }

    /// Calls `f` with the chat every `interval`: [`Channel::call_every_with`].
    pub fn call_every<C, F>(&mut self, interval: Duration, mut f: F) -> TimerId
    where
        C: Chat,
        F: FnMut(&mut C, &mut ChatChannel<'_>) -> io::Result<()> + 'static,
    {
        self.channel.call_every_with(interval, move |chat: &mut ChatDispatcher<C>, ch| chat.with(ch, &mut f))
    }

    /// Cancels a timer; `false` if it has run or was cancelled already: [`Channel::cancel`].
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.channel.cancel(timer)
    }

    /// Says that more is awaited: [`Channel::begin_message`]. For `found_terminator`, when what it was given
    /// announces another part, which may take as long as a message may; the chat itself says when a message has
    /// begun.
    pub fn begin_message(&mut self) {
        self.channel.begin_message();
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

/// A chat's view does not coerce to a channel.
///
/// ```compile_fail,E0308
/// fn helper(_: &mut dispatch_loop::Channel<'_>) {}
/// fn hook(ch: &mut dispatch_loop::chat::ChatChannel<'_>) {
///     helper(ch);
/// }
/// ```
#[cfg(doctest)]
struct NoChannel;
