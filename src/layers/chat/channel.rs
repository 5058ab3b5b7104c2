//! What the hooks of a chat are given: its channel, and what is collected.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};

use super::super::terminator::Splitter;
use super::Terminator;
use super::incoming::Incoming;
use crate::{Channel, Source};

/// What the hooks of a [`Chat`](super::Chat) are given: its [`Channel`], and what is collected.
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
    pub(super) channel: Channel<'a>,
    pub(super) incoming: &'a mut Incoming,
    /// What was read already, after the message that is being handled.
    pub(super) rest: &'a [u8],
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
