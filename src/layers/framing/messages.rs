//! Messages of one's own type, cut out of a stream by a parser that looks at all that there is.

use std::io;

use super::{CONTENT, FrameError, possible};
use crate::Channel;

/// What a [`Decode`] makes of the bytes at the start of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decoded<M> {
    /// A message, which is the first `used` bytes of the input.
    Message {
        /// The message.
        message: M,
        /// How many bytes it takes; at least 1.
        used: usize,
    },
    /// It is not complete.
    Incomplete {
        /// How many bytes there must be before it is worth while to look again, no more than the message has; 0 if
        /// that is not known. Then a message that comes byte by byte is looked at again for every byte.
        at_least: usize,
    },
}

impl<M> Decoded<M> {
    /// The message is not complete, and it is not known how much of it is missing.
    pub const MORE: Decoded<M> = Decoded::Incomplete { at_least: 0 };
}

/// A parser of messages: the half of a protocol that [`Messages`] leaves to you.
///
/// ```
/// use dispatch_loop::framing::{Decode, Decoded, Messages};
/// use std::io;
///
/// /// MQTT's packets, as far as their borders go: a kind, a length of up to four times seven bits, the rest.
/// struct Packets;
///
/// impl Decode for Packets {
///     type Message = (u8, Vec<u8>);
///
///     fn decode(&mut self, input: &[u8]) -> io::Result<Decoded<(u8, Vec<u8>)>> {
///         let mut len = 0;
///         for (at, byte) in input.iter().skip(1).enumerate() {
///             if at == 4 {
///                 return Err(io::Error::new(io::ErrorKind::InvalidData, "a length of over four bytes"));
///             }
///             len |= usize::from(byte & 0x7f) << (7 * at);
///             if byte & 0x80 == 0 {
///                 let (head, whole) = (at + 2, at + 2 + len);
///                 return Ok(match input.get(head..whole) {
///                     Some(rest) => Decoded::Message { message: (input[0], rest.to_vec()), used: whole },
///                     None => Decoded::Incomplete { at_least: whole },
///                 });
///             }
///         }
///         Ok(Decoded::MORE)
///     }
/// }
///
/// let mut packets = Messages::new(Packets);
/// let mut seen = Vec::new();
/// for piece in [&b"\x10\x02h"[..], b"i\xe0\x00\xc0"] {
///     let mut input = piece;
///     while let Some(packet) = packets.next(&mut input)? {
///         seen.push(packet);
///     }
/// }
/// assert_eq!(seen, [(0x10, b"hi".to_vec()), (0xe0, vec![])]);
/// assert!(packets.has_begun());
/// # io::Result::Ok(())
/// ```
pub trait Decode {
    /// What a message is.
    type Message;

    /// Looks at the start of `input`, which is not empty: all that has arrived and was not used yet.
    ///
    /// # Errors
    /// No message can begin so. The stream is of no use any more.
    fn decode(&mut self, input: &[u8]) -> io::Result<Decoded<Self::Message>>;
}

/// Keeps what a [`Decode`] has not used yet, so that it always sees a message from its start, however the network
/// has split the stream.
///
/// For messages that are cut by a length or a delimiter alone, a [`Framing`](super::Framing) is enough.
///
/// ```
/// use dispatch_loop::framing::{Decode, Decoded, Messages};
/// use dispatch_loop::{Channel, Dispatcher};
/// use std::io;
///
/// /// Numbers of four bytes.
/// struct Numbers;
///
/// impl Decode for Numbers {
///     type Message = u32;
///
///     fn decode(&mut self, input: &[u8]) -> io::Result<Decoded<u32>> {
///         Ok(match input.first_chunk() {
///             Some(bytes) => Decoded::Message { message: u32::from_be_bytes(*bytes), used: 4 },
///             None => Decoded::Incomplete { at_least: 4 },
///         })
///     }
/// }
///
/// /// Answers each with the sum so far.
/// struct Adder {
///     numbers: Messages<Numbers>,
///     sum: u32,
/// }
///
/// impl Dispatcher for Adder {
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         let sum = &mut self.sum;
///         self.numbers.read(ch, |ch, number| {
///             *sum = sum.wrapping_add(number);
///             ch.push(&sum.to_be_bytes())
///         })
///     }
/// }
/// ```
///
/// # What it costs
///
/// A message that lies whole in the input is decoded from there. The start of one is kept, in a buffer that grows
/// with the bytes that have arrived and never beyond the limit, and is freed when a message is complete and nothing
/// follows it. [`Incomplete`](Decoded::Incomplete) says when to look again.
#[derive(Debug)]
pub struct Messages<D> {
    decode: D,
    /// The start of a message.
    kept: Vec<u8>,
    /// With fewer bytes than that there is no message in `kept`.
    at_least: usize,
    limit: usize,
}

impl<D: Decode> Messages<D> {
    /// Of at most 1 MiB each ([`with_limit`](Messages::with_limit)).
    pub const fn new(decode: D) -> Messages<D> {
        Messages { decode, kept: Vec::new(), at_least: 0, limit: CONTENT }
    }

    /// Sets the largest message, in bytes, all of it counted (default 1 MiB). One that is longer is an error, as
    /// soon as so much has arrived of it, or the decoder has said that it would.
    #[must_use]
    pub fn with_limit(mut self, bytes: usize) -> Messages<D> {
        self.limit = possible(bytes);
        self
    }

    /// The decoder.
    pub fn decoder(&self) -> &D {
        &self.decode
    }

    /// The decoder, mutably.
    pub fn decoder_mut(&mut self) -> &mut D {
        &mut self.decode
    }

    /// Returns the next message. `None` means that all of `input` has been taken and more is needed. `input` is
    /// advanced past what was taken.
    ///
    /// # Errors
    /// Those of the decoder; [`FrameError::TooLong`]. Then the stream is of no use any more: do not call this
    /// again.
    pub fn next(&mut self, input: &mut &[u8]) -> io::Result<Option<D::Message>> {
        while !input.is_empty() {
            let all = *input;
            if self.kept.is_empty() {
                match self.look(all)? {
                    Some((message, used)) => {
                        *input = &all[used..];
                        return Ok(Some(message));
                    }
                    None => {
                        self.kept.extend_from_slice(all);
                        *input = &[];
                    }
                }
                continue;
            }
            // No more than is wanted is copied, if that is known.
            let wanted = self.at_least.checked_sub(self.kept.len()).filter(|wanted| *wanted > 0);
            let taken = wanted.map_or(all.len(), |wanted| wanted.min(all.len()));
            self.kept.extend_from_slice(&all[..taken]);
            *input = &all[taken..];
            if self.kept.len() < self.at_least {
                continue;
            }
            let kept = std::mem::take(&mut self.kept);
            let Some((message, used)) = self.look(&kept)? else {
                self.kept = kept;
                continue;
            };
            // What was taken and not used is input again.
            let Some(used) = taken.checked_sub(kept.len() - used) else {
                let why = "a decoder has found a message in what it had said was not complete";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            };
            *input = &all[used..];
            return Ok(Some(message));
        }
        Ok(None)
    }

    /// The message at the start of `input`, and its length.
    fn look(&mut self, input: &[u8]) -> io::Result<Option<(D::Message, usize)>> {
        self.at_least = 0;
        let too_long = || io::Error::from(FrameError::TooLong { limit: self.limit });
        match self.decode.decode(input)? {
            Decoded::Message { used, .. } if used == 0 || used > input.len() => {
                let why = format!("a decoder says that it has used {used} bytes of {}", input.len());
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
            Decoded::Message { used, .. } if used > self.limit => Err(too_long()),
            Decoded::Message { message, used } => Ok(Some((message, used))),
            Decoded::Incomplete { at_least } if at_least.max(input.len() + 1) > self.limit => Err(too_long()),
            Decoded::Incomplete { at_least } => {
                self.at_least = at_least;
                Ok(None)
            }
        }
    }

    /// Whether a part of a message has arrived, and more of it is awaited. Ask when [`next`](Messages::next) has
    /// returned `None`.
    pub fn has_begun(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Tells that the stream has ended.
    ///
    /// # Errors
    /// [`FrameError::Cut`] if that was within a message.
    pub fn end(&self) -> Result<(), FrameError> {
        match self.kept.len() {
            0 => Ok(()),
            got => Err(FrameError::Cut { got }),
        }
    }

    /// Reads from `ch`, and calls `f` with each message that is complete: for
    /// [`handle_read`](crate::Dispatcher::handle_read). Stops when `f` closes the channel; and when that is
    /// paused, by `f` or because its peer takes no answers ([`set_auto_pause`](Channel::set_auto_pause)), keeps
    /// the rest for when it is resumed. Tells the channel where its messages are, for their
    /// [deadlines](crate::Deadlines::message).
    ///
    /// # Errors
    /// As [`read_with`](Channel::read_with) and [`next`](Messages::next); what `f` returns.
    pub fn read<F>(&mut self, ch: &mut Channel<'_>, mut f: F) -> io::Result<()>
    where
        F: FnMut(&mut Channel<'_>, D::Message) -> io::Result<()>,
    {
        ch.read_with(|ch, mut input| {
            while let Some(message) = self.next(&mut input)? {
                ch.end_message();
                f(ch, message)?;
                if ch.is_closing() {
                    return Ok(());
                }
                if ch.is_paused() {
                    ch.unread(input);
                    break;
                }
            }
            if self.has_begun() {
                ch.begin_message();
            }
            Ok(())
        })
    }
}
