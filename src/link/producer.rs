//! Producers: output that is made while it is sent.

use std::io;

/// Makes output when there is room for it: asynchat's `more()`.
///
/// A closure is a producer: it appends the next bytes to the buffer, and returns whether there is more.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, More};
/// use std::io;
///
/// /// Sends the numbers up to a million, never holding more than a few KiB of them.
/// struct Counting;
///
/// impl Dispatcher for Counting {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         let mut next = 0;
///         ch.push_producer(move |buffer: &mut Vec<u8>| {
///             next += 1;
///             buffer.extend_from_slice(format!("{next}\n").as_bytes());
///             Ok(if next < 1_000_000 { More::Again } else { More::Done })
///         })
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Producer`",
    label = "makes no output",
    note = "a producer is a closure `|buffer: &mut Vec<u8>| -> io::Result<More>`, or one of the module `producers`; bytes that are there already are pushed by `push` or `push_vec`"
)]
pub trait Producer: 'static {
    /// Append the next piece, ideally a few KiB, to `buffer`, which is empty. Small pieces are sent
    /// together: the producer is asked again until there are 4 KiB. An `Err` goes to the dispatcher's
    /// `handle_error`, once what was made before it is sent, and this producer is dropped.
    fn more(&mut self, buffer: &mut Vec<u8>) -> io::Result<More>;
}

/// What a [`Producer`] returns with each piece.
///
/// ```
/// use dispatch_loop::{More, Producer};
///
/// let mut hello = |buffer: &mut Vec<u8>| {
///     buffer.extend_from_slice(b"hello");
///     Ok(More::Done)
/// };
/// assert_eq!(hello.more(&mut Vec::new())?, More::Done);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum More {
    /// Ask again when there is room for more. An error if the buffer is empty.
    Again,
    /// There is nothing more for now: ask again after
    /// [`wake_producer`](crate::Channel::wake_producer). What is queued behind it waits.
    Later,
    /// This was the last piece; the buffer may be empty.
    Done,
}

impl<F> Producer for F
where
    F: FnMut(&mut Vec<u8>) -> io::Result<More> + 'static,
{
    fn more(&mut self, buffer: &mut Vec<u8>) -> io::Result<More> {
        self(buffer)
    }
}
