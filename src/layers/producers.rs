//! Producers for [`push_producer`](crate::Channel::push_producer): output that is made when there is
//! room for it, so that any amount of it takes the memory of one piece.
//!
//! A closure is a producer too. One that has nothing yet returns [`More::Later`], and is asked again
//! after [`wake_producer`](crate::Channel::wake_producer).

use std::io::{ErrorKind, Read};

use crate::{More, Producer};

/// The size of a piece, in bytes.
const PIECE: usize = 32 * 1024;

/// Produces existing bytes in pieces of 32 KiB: asynchat's `simple_producer`. Useful for bytes that are
/// shared or memory-mapped; for a `Vec`, [`push_vec`](crate::Channel::push_vec) is better.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, producers};
/// use std::io;
///
/// static LICENCE: &str = "Do what you like.";
///
/// struct Lawyer;
/// impl Dispatcher for Lawyer {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.push_producer(producers::from_bytes(LICENCE))?;
///         ch.close();
///         Ok(())
///     }
/// }
/// ```
pub fn from_bytes(bytes: impl AsRef<[u8]> + 'static) -> impl Producer {
    let mut at = 0;
    move |buffer: &mut Vec<u8>| {
        let rest = &bytes.as_ref()[at..];
        let piece = &rest[..rest.len().min(PIECE)];
        at += piece.len();
        buffer.extend_from_slice(piece);
        Ok(if piece.len() < rest.len() { More::Again } else { More::Done })
    }
}

/// Produces the items of an iterator, several to a piece if they are small.
///
/// ```
/// use dispatch_loop::{More, Producer, producers};
///
/// let mut squares = producers::from_iter((1..=3).map(|n| format!("{}\n", n * n)));
/// let mut buffer = Vec::new();
/// assert_eq!(squares.more(&mut buffer)?, More::Done);
/// assert_eq!(buffer, b"1\n4\n9\n");
/// # std::io::Result::Ok(())
/// ```
pub fn from_iter<I>(items: I) -> impl Producer
where
    I: IntoIterator<IntoIter: 'static, Item: AsRef<[u8]>>,
{
    let mut items = items.into_iter();
    move |buffer: &mut Vec<u8>| {
        while buffer.len() < PIECE {
            match items.next() {
                Some(item) => buffer.extend_from_slice(item.as_ref()),
                None => return Ok(More::Done),
            }
        }
        Ok(More::Again)
    }
}

/// Produces what a reader yields until its end: a [`File`](std::fs::File), the first bytes of one
/// ([`take`](Read::take)), or a decompressor.
///
/// It is read on the loop's thread, 32 KiB at a time. While a read blocks, no channel is served: a file
/// on a local disk is fine, a pipe is not. `WouldBlock` means [`More::Later`]; any other error goes to the
/// dispatcher's `handle_error`.
///
/// ```no_run
/// use dispatch_loop::{Channel, producers};
/// use std::fs::File;
/// use std::io;
///
/// fn send_file(ch: &mut Channel<'_>, path: &str) -> io::Result<()> {
///     ch.push_producer(producers::from_reader(File::open(path)?))?;
///     ch.close();                             // when all of it has been sent
///     Ok(())
/// }
/// ```
pub fn from_reader(mut reader: impl Read + 'static) -> impl Producer {
    move |buffer: &mut Vec<u8>| {
        buffer.resize(PIECE, 0);
        loop {
            match reader.read(buffer) {
                Ok(read) => {
                    buffer.truncate(read);
                    return Ok(if read == 0 { More::Done } else { More::Again });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    buffer.clear();
                    return if error.kind() == ErrorKind::WouldBlock { Ok(More::Later) } else { Err(error) };
                }
            }
        }
    }
}
