//! Limiting the bandwidth of a channel.

use crate::core::channel::Channel;
use crate::link::bandwidth::Bandwidth;

impl Channel<'_> {
    /// Read no faster than this allows: `Some(&bandwidth)`, or several, such as the channel's own and that of a
    /// group, each of which holds; `None`, the default: as fast as it comes. What is more waits in the system,
    /// and then at the peer. While reading waits, it is as if it were [paused](Channel::pause_reading), and a
    /// timer ends that; it costs about ten wake-ups a second.
    ///
    /// What was [put back](Channel::unread) is not counted a second time. A datagram is read whole, and what it is
    /// too large for its share is waited for afterwards. No effect on a listener.
    ///
    /// ```
    /// use dispatch_loop::{Bandwidth, Channel, Dispatcher};
    /// use std::io;
    ///
    /// struct Upload {
    ///     uploads: Bandwidth,
    /// }
    ///
    /// impl Dispatcher for Upload {
    ///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         ch.set_read_bandwidth([&Bandwidth::new(100_000), &self.uploads]);
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn set_read_bandwidth<'b>(&mut self, of: impl IntoIterator<Item = &'b Bandwidth>) {
        let of = of.into_iter().cloned().collect();
        self.change(|link| link.set_read_bandwidth(of));
    }

    /// Send no faster than this allows, as [`set_read_bandwidth`](Channel::set_read_bandwidth) has it. What is more
    /// stays queued, with the watermarks and limits of what is queued. A closing channel keeps to it as well, and
    /// while it waits for its bandwidth, it is not cut off by the
    /// [close timeout](Channel::set_close_timeout).
    pub fn set_write_bandwidth<'b>(&mut self, of: impl IntoIterator<Item = &'b Bandwidth>) {
        let of = of.into_iter().cloned().collect();
        self.change(|link| link.set_write_bandwidth(of));
    }
}
