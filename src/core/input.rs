//! The read side of a channel's view.

use std::io;

use crate::core::buffer::Buffer;
use crate::core::channel::Channel;
use crate::link::input::Missed;
use crate::link::state::Link;
use crate::sys::errno;

impl Channel<'_> {
    /// Read what is there, at most `buffer.len()` bytes: Python's `recv`, with C's results.
    ///
    /// `Ok(0)` is the end of the stream; `handle_eof` runs after the hook. `WouldBlock`: nothing is
    /// there, or the channel has read its 64 KiB of this turn. Any other error is a lost connection;
    /// returning it with `?` is not an error of the hook. After `close` there is no more input.
    #[inline]
    pub fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.recv_quickly(buffer) {
            Ok(read) => Ok(read),
            Err(missed) => self.recv_after(missed, buffer),
        }
    }

    #[inline(always)]
    fn recv_quickly(&mut self, buffer: &mut [u8]) -> Result<usize, Missed> {
        let turn = self.map.turn.number;
        match self.map.link_mut(self.token) {
            Some(link) => link.recv_quickly(turn, buffer),
            None => Err(Missed::NotTried),
        }
    }

    #[cold]
    #[inline(never)]
    fn recv_after(&mut self, missed: Missed, buffer: &mut [u8]) -> io::Result<usize> {
        let turn = self.map.turn;
        let result = self.link_mut().and_then(|link| link.recv_after(missed, turn, buffer));
        self.named(result)
    }

    /// The rest of [`read_with`](Channel::read_with).
    #[cold]
    #[inline(never)]
    fn read_after<F>(&mut self, missed: Missed, buffer: &mut [u8], f: F) -> io::Result<()>
    where
        F: FnOnce(&mut Channel<'_>, &[u8]) -> io::Result<()>,
    {
        match self.recv_after(missed, buffer) {
            Ok(0) => Ok(()),
            Ok(read) => f(self, &buffer[..read]),
            Err(error) if errno::would_block(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Take the urgent byte, C's `recv` with `MSG_OOB`; `WouldBlock` if there is none.
    pub fn recv_urgent(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let turn = self.map.turn;
        let result = self.link_mut().and_then(|link| link.recv_urgent(turn, buffer));
        self.named(result)
    }

    /// Read once, up to 64 KiB, into the loop's buffer, and lend that to `f`.
    ///
    /// `f` does not run, and the result is `Ok(())`, when nothing is there or the stream is at
    /// its end. A lost connection is an `Err`, as with [`recv`](Channel::recv).
    #[inline]
    pub fn read_with<F>(&mut self, f: F) -> io::Result<()>
    where
        F: FnOnce(&mut Channel<'_>, &[u8]) -> io::Result<()>,
    {
        let mut lent = LentBuffer { buffer: Some(self.map.buffers.take()), ch: self };
        let Some(buffer) = &mut lent.buffer else { return Ok(()) };
        match lent.ch.recv_quickly(&mut buffer[..]) {
            Ok(read) => f(lent.ch, &buffer[..read]),
            Err(missed) => lent.ch.read_after(missed, &mut buffer[..], f),
        }
    }

    /// Put back input that this hook does not use: it is read again, before anything else, by the
    /// next `handle_read`, which runs without waiting (unless reading is paused). C's `ungetc` for
    /// any number of bytes; if they are put back in pieces, the last piece is read first.
    ///
    /// Use it for the dispatcher that takes over
    /// ([`replace_dispatcher`](Channel::replace_dispatcher)), or to continue after
    /// [`resume_reading`](Channel::resume_reading). Keep an unfinished message elsewhere: put back, it
    /// would be delivered again at once, unchanged. No effect on a channel that has ended.
    pub fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.change(|link| link.unread(bytes));
        }
    }

    /// Drop what was put back.
    pub fn discard_unread(&mut self) {
        self.change(Link::discard_unread);
    }

    /// Stop calling `handle_read` (on a listener, `handle_accept`) until
    /// [`resume_reading`](Channel::resume_reading). Meanwhile the peer's end of stream is not noticed;
    /// a reset is.
    pub fn pause_reading(&mut self) {
        self.change(Link::pause_reading);
    }

    /// Undo [`pause_reading`](Channel::pause_reading). What arrived meanwhile is delivered.
    pub fn resume_reading(&mut self) {
        self.change(Link::resume_reading);
    }

    /// Pause reading automatically from when more than the high watermark is queued until the queue is
    /// down to the low one. Off by default. Channels that send as much as they read (an echo)
    /// need this, or [`auto_pause_with`](Channel::auto_pause_with) if they send it to another channel.
    pub fn set_auto_pause(&mut self, on: bool) {
        self.change(|link| link.set_auto_pause(on));
    }
}

/// Returns the buffer to the map, also when the hook panics.
struct LentBuffer<'a, 'b> {
    buffer: Option<Buffer>,
    ch: &'b mut Channel<'a>,
}

impl Drop for LentBuffer<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.ch.map.buffers.give_back(buffer);
        }
    }
}
