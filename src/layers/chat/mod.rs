//! Chat, asynchat as it should have been: messages that end in a terminator, collected and delivered
//! one by one, however the network has split them.
//!
//! Implement [`Chat`], and give it to the map in a [`ChatDispatcher`]. Its hooks are those of a
//! [`Dispatcher`](crate::Dispatcher), except that it is given messages instead of raw input, and a
//! [`ChatChannel`] instead of a [`Channel`](crate::Channel).
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

mod channel;
mod dispatcher;
mod incoming;

use std::io;

pub use super::terminator::Terminator;
use crate::{Deadline, Eof, OnError, Reason};
pub use channel::ChatChannel;
pub use dispatcher::ChatDispatcher;

/// The callbacks of a conversation in messages: `asynchat.async_chat`.
///
/// Hooks with the name of one of [`Dispatcher`](crate::Dispatcher)'s mean the same and have the same
/// defaults. An `Err` or a panic in any hook goes to [`handle_error`](Chat::handle_error).
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Chat`",
    label = "has no `found_terminator`",
    note = "write `impl Chat for {Self}`; a `Dispatcher` is added to the map as it is, without a `ChatDispatcher`"
)]
pub trait Chat: 'static {
    /// A piece of the message has arrived. The default [`collect`](ChatChannel::collect)s it for
    /// `found_terminator`. Implement this for messages that are too large to be held whole.
    fn collect_incoming_data(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        ch.collect(data);
        Ok(())
    }

    /// The message is complete. `data` is what was collected of it, without the terminator. A
    /// terminator that this hook sets applies to the input right after the message.
    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()>;

    /// A message is longer than [the limit](ChatChannel::set_input_limit). Called once for each such
    /// message.
    ///
    /// `Ok` carries on: what was collected of the message is dropped, and so is its remainder up to the
    /// terminator. To answer and then end, push the answer and call `close`: it arrives, though the peer may
    /// still be sending. The default is an error (`InvalidData`), which ends the channel.
    fn handle_overlong(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        let limit = ch.input_limit();
        let what = format!("more than {limit} bytes came without the terminator, which is over the limit");
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }

    /// See [`Dispatcher::handle_open`](crate::Dispatcher::handle_open). The place to greet, and to set
    /// limits and another terminator.
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// See [`Dispatcher::handle_connect`](crate::Dispatcher::handle_connect).
    fn handle_connect(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// See [`Dispatcher::handle_eof`](crate::Dispatcher::handle_eof). `rest` is what was collected of a
    /// message that was never completed; asynchat loses it.
    fn handle_eof(&mut self, ch: &mut ChatChannel<'_>, rest: &[u8]) -> io::Result<Eof> {
        Ok(Eof::Close)
    }

    /// See [`Dispatcher::handle_high`](crate::Dispatcher::handle_high).
    fn handle_high(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// See [`Dispatcher::handle_low`](crate::Dispatcher::handle_low).
    fn handle_low(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// See [`Dispatcher::handle_drained`](crate::Dispatcher::handle_drained).
    fn handle_drained(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// See [`Dispatcher::handle_wrapped`](crate::Dispatcher::handle_wrapped).
    fn handle_wrapped(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// See [`Dispatcher::handle_drain`](crate::Dispatcher::handle_drain).
    fn handle_drain(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// See [`Dispatcher::handle_timeout`](crate::Dispatcher::handle_timeout).
    fn handle_timeout(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.channel_mut().time_out();
        Ok(())
    }

    /// See [`Dispatcher::handle_deadline`](crate::Dispatcher::handle_deadline). A message begins with its
    /// first byte, and is complete before `found_terminator` is called.
    fn handle_deadline(&mut self, ch: &mut ChatChannel<'_>, deadline: Deadline) -> io::Result<()> {
        ch.channel_mut().time_out();
        Ok(())
    }

    /// See [`Dispatcher::handle_error`](crate::Dispatcher::handle_error). After [`OnError::Keep`] the chat
    /// goes on with the input after the message that failed.
    fn handle_error(&mut self, ch: &mut ChatChannel<'_>, error: &io::Error) -> OnError {
        OnError::End
    }

    /// See [`Dispatcher::handle_close`](crate::Dispatcher::handle_close): called exactly once, as the last
    /// hook.
    fn handle_close(&mut self, ch: &mut ChatChannel<'_>, reason: &Reason) {}
}
