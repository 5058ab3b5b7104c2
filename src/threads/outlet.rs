//! `Outlet`, with which another thread feeds one channel, no faster than the peer takes it. The account
//! of what is under way is in `credit.rs`.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::core::action::{Call, Message};
use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::error::LookupError;
use crate::threads::credit::Credit;
use crate::threads::queue::{Shared, owns_a_map};
use crate::threads::send_error::SendError;
use crate::token::Token;

/// The most bytes that one [`write`](io::Write::write) to an [`Outlet`] takes.
const WRITE: usize = 64 * 1024;

/// Feeds one channel from another thread, with backpressure. Made by [`Channel::outlet`]; cheap to
/// clone.
///
/// [`send`](Outlet::send) waits while what is on its way to the channel plus what is queued there exceeds
/// the high watermark, so a thread that reads a file of any size needs bounded memory. When the channel
/// ends, [`run`](crate::run) returns or the map is dropped, it returns with an error. As an [`io::Write`],
/// an outlet takes at most 64 KiB per call.
///
/// ```
/// use dispatch_loop::{Channel, ChannelMap, Dispatcher};
/// use std::io::{self, Read, Write};
///
/// struct Idle;
/// impl Dispatcher for Idle {}
///
/// let (mut peer, near) = std::os::unix::net::UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// let handle = map.add(near, Idle)?;
/// let mut outlet = map.channel(handle)?.outlet()?;
/// let producer = std::thread::spawn(move || -> io::Result<()> {
///     for n in 0..100_000 {
///         writeln!(outlet, "{n}")?;
///     }
///     outlet.close()?;
///     Ok(())
/// });
/// # let reader = std::thread::spawn(move || { let mut s = String::new(); peer.read_to_string(&mut s).map(|_| s) });
/// dispatch_loop::run(&mut map)?;
/// producer.join().unwrap()?;
/// # assert!(reader.join().unwrap()?.ends_with("99999\n"));
/// # io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Outlet {
    pub(crate) shared: Arc<Shared<Message>>,
    pub(crate) token: Token,
    pub(crate) credit: Arc<Credit>,
}

impl Channel<'_> {
    /// A way for another thread to feed this channel, with backpressure.
    ///
    /// # Errors
    /// It is a listener, or it has ended.
    pub fn outlet(&mut self) -> io::Result<Outlet> {
        self.touch();
        let token = self.token();
        let result = self.map_mut().outlet(token);
        self.named(result)
    }
}

impl ChannelMap {
    fn outlet(&mut self, token: Token) -> io::Result<Outlet> {
        let link = self.link_mut(token).ok_or(LookupError::Gone(token))?;
        if link.is_listening() || link.is_told() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "this channel carries no data"));
        }
        let credit = link.rare().credit.get_or_insert_with(Credit::new).clone();
        credit.set(link.queued_cost(), link.limits().high, link.is_shut());
        let queue = self.open_queue();
        queue.tell_waiters();
        Ok(Outlet { shared: queue.shared(), token, credit })
    }
}

impl Outlet {
    /// Give bytes to the channel, after waiting while it is above its high watermark. The hard limit
    /// never refuses them.
    ///
    /// # Errors
    /// `Stopped`, `Ended`, and, on a thread that owns a map, `Full`; each with the bytes. After `close`,
    /// `abort` or `shutdown_write` of the channel it is `Ended`.
    pub fn send(&self, bytes: impl Into<Vec<u8>>) -> Result<(), SendError<Vec<u8>>> {
        self.give(bytes.into(), true)
    }

    /// As [`send`](Outlet::send), but returns `Full` instead of waiting.
    ///
    /// # Errors
    /// As [`send`](Outlet::send).
    pub fn try_send(&self, bytes: impl Into<Vec<u8>>) -> Result<(), SendError<Vec<u8>>> {
        self.give(bytes.into(), false)
    }

    /// [`shutdown_write`](Channel::shutdown_write) the channel, after everything sent before.
    ///
    /// # Errors
    /// As [`send`](Outlet::send).
    pub fn shutdown_write(&self) -> Result<(), SendError<()>> {
        self.end(|ch| ch.shutdown_write())
    }

    /// [`close`](Channel::close) the channel, after everything sent before.
    ///
    /// # Errors
    /// As [`send`](Outlet::send).
    pub fn close(&self) -> Result<(), SendError<()>> {
        self.end(|ch| ch.close())
    }

    /// The channel that this feeds.
    pub fn token(&self) -> Token {
        self.token
    }

    fn end(&self, end: fn(&mut Channel<'_>)) -> Result<(), SendError<()>> {
        let token = self.token;
        let call: Call = Box::new(move |map| {
            if let Ok(mut channel) = map.channel(token) {
                end(&mut channel);
            }
        });
        self.shared.post(Message::Call(call), true).map_err(|error| error.map(drop))
    }

    fn give(&self, bytes: Vec<u8>, wait: bool) -> Result<(), SendError<Vec<u8>>> {
        if self.credit.is_over() || self.credit.ended.load(Ordering::SeqCst) {
            let may_wait = wait && !owns_a_map();
            let waited = self.shared.wait_until(may_wait, || {
                if self.credit.ended.load(Ordering::SeqCst) {
                    return Some(Err(SendError::Ended(())));
                }
                (!self.credit.is_over()).then_some(Ok(()))
            });
            if let Err(error) = waited {
                return Err(error.map(|()| bytes));
            }
        }
        let len = bytes.len();
        self.credit.in_flight.fetch_add(len, Ordering::SeqCst);
        let message = Message::Bytes(self.token, bytes, Some(self.credit.clone()));
        self.shared.post(message, wait).map_err(|error| {
            self.credit.in_flight.fetch_sub(len, Ordering::SeqCst);
            // A sender may have gone to sleep over the credit just returned.
            self.shared.tell_waiters();
            error.map(Message::into_bytes)
        })
    }
}

/// Waits as [`send`](Outlet::send) does. `Deadlock` if it would have to wait on a thread that owns a map;
/// `BrokenPipe` if the channel has ended or the loop is stopped.
impl io::Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = &bytes[..bytes.len().min(WRITE)];
        if taken.is_empty() {
            return Ok(0);
        }
        match self.send(taken) {
            Ok(()) => Ok(taken.len()),
            Err(SendError::Full(_)) => Err(io::Error::new(
                io::ErrorKind::Deadlock,
                "writing to this outlet would block a thread that owns a channel map",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Does nothing: what was written is on its way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("token", &self.token).finish_non_exhaustive()
    }
}
