//! How long a peer may take, for what: what a user sets.

use std::fmt;
use std::time::Duration;

/// Which deadline of a channel has passed; given to
/// [`handle_deadline`](crate::Dispatcher::handle_deadline). Shown, it is its name: `first byte`.
///
/// ```
/// use dispatch_loop::{Channel, Deadline, Dispatcher};
/// use std::io;
///
/// struct Asking;
///
/// impl Dispatcher for Asking {
///     fn handle_deadline(&mut self, ch: &mut Channel<'_>, deadline: Deadline) -> io::Result<()> {
///         match deadline {
///             Deadline::Read => ch.push(b"PING\r\n")?,            // and the time counts anew
///             deadline => {
///                 log::info!("too slow: {deadline}");
///                 ch.time_out();
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deadline {
    /// [`Deadlines::read`]: nothing was read for so long.
    Read,
    /// [`Deadlines::first_byte`]: the first byte did not come in time.
    FirstByte,
    /// [`Deadlines::message`]: a message that has begun was not complete in time.
    Message,
    /// [`Deadlines::read_rate`]: a message came more slowly than that.
    ReadRate,
    /// [`Deadlines::write_rate`]: the peer took its output more slowly than that.
    WriteRate,
    /// [`Deadlines::lifetime`]: the channel has lived for so long.
    Lifetime,
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Deadline::Read => "read",
            Deadline::FirstByte => "first byte",
            Deadline::Message => "message",
            Deadline::ReadRate => "read rate",
            Deadline::WriteRate => "write rate",
            Deadline::Lifetime => "lifetime",
        })
    }
}

/// A rate that must not be fallen short of, in bytes a second, measured over a window of 10 s, which
/// [`with_window`](MinRate::with_window) changes.
///
/// ```
/// use dispatch_loop::MinRate;
/// use std::time::Duration;
///
/// let rate = MinRate::new(1024).with_window(Duration::from_secs(30));     // 30 KiB in any 30 s
/// assert_eq!(rate.to_string(), "1024 bytes a second over 30s");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MinRate {
    bytes_per_second: u64,
    window: Duration,
}

impl MinRate {
    /// So many bytes a second.
    pub const fn new(bytes_per_second: u64) -> MinRate {
        MinRate { bytes_per_second, window: Duration::from_secs(10) }
    }

    /// Over which time the rate is measured (default 10 s). Whoever pauses for less than that, and makes up
    /// for it, is not cut off. For output over TCP it should be a second at least: the peer's system may take
    /// 0.2 s to acknowledge what it has.
    #[must_use]
    pub const fn with_window(mut self, window: Duration) -> MinRate {
        self.window = window;
        self
    }

    /// So many bytes must pass in a window.
    pub(super) fn least(&self) -> u64 {
        let nanos = self.window.as_nanos().saturating_mul(u128::from(self.bytes_per_second));
        u64::try_from(nanos.div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
    }

    pub(super) fn window(&self) -> Duration {
        self.window
    }
}

impl fmt::Display for MinRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes a second over {:?}", self.bytes_per_second, self.window)
    }
}

/// How long a peer may take, for what: set by [`Channel::set_deadlines`](crate::Channel::set_deadlines).
///
/// Each is off by default. When one has passed,
/// [`handle_deadline`](crate::Dispatcher::handle_deadline) runs, and by default ends the channel. None passes
/// early; one passes late by a quarter of its time at most, since what moves is looked at four times in it.
/// While reading is paused, by whatever call, the four that concern input do not count.
///
/// A message begins and ends when the dispatcher says so, with
/// [`begin_message`](crate::Channel::begin_message) and [`end_message`](crate::Channel::end_message). A
/// `chat` does it by itself.
///
/// ```
/// use dispatch_loop::{Channel, Deadlines, Dispatcher, MinRate};
/// use std::io;
/// use std::time::Duration;
///
/// struct Session;
///
/// impl Dispatcher for Session {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         let seconds = Duration::from_secs;
///         ch.set_deadlines(
///             &Deadlines::default()
///                 .with_first_byte(seconds(10))
///                 .with_message(seconds(30))
///                 .with_read(seconds(90))
///                 .with_write_rate(MinRate::new(500)),
///         );
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadlines {
    /// How long nothing may be read: the keep-alive of MQTT, the timeouts of SMTP. Unlike
    /// [`set_timeout`](crate::Channel::set_timeout), what is sent does not count. A handshake is nothing read,
    /// also one in mid-stream.
    pub read: Option<Duration>,
    /// From when the channel can carry data, or a handshake begins, to the first byte that is read.
    pub first_byte: Option<Duration>,
    /// From the first byte of a message to its last.
    pub message: Option<Duration>,
    /// How fast a message must come that has begun. What comes between messages does not count.
    pub read_rate: Option<MinRate>,
    /// How fast output must leave for the peer: what is queued, or inside the source, or what the system still
    /// holds, as [`unsent`](crate::Channel::unsent) counts. A peer that takes all there is within a window is
    /// fast enough, and while nothing is unsent nothing counts. Output that fits into the system's buffers
    /// whole is noticed within one window more. On a Unix-domain socket, and for what is inside a source with
    /// nothing queued behind it, only a peer that takes nothing is told from one that is fast enough: the system
    /// does not tell how much has left.
    ///
    /// It holds for a closing channel, too: that is reset, without a hook.
    pub write_rate: Option<MinRate>,
    /// How long the channel may live from now on, give or take a tenth, at random, so that those that began
    /// together do not end together. Passes once.
    pub lifetime: Option<Duration>,
}

impl Deadlines {
    /// Set [`read`](Deadlines::read).
    #[must_use]
    pub fn with_read(mut self, time: impl Into<Option<Duration>>) -> Deadlines {
        self.read = time.into();
        self
    }

    /// Set [`first_byte`](Deadlines::first_byte).
    #[must_use]
    pub fn with_first_byte(mut self, time: impl Into<Option<Duration>>) -> Deadlines {
        self.first_byte = time.into();
        self
    }

    /// Set [`message`](Deadlines::message).
    #[must_use]
    pub fn with_message(mut self, time: impl Into<Option<Duration>>) -> Deadlines {
        self.message = time.into();
        self
    }

    /// Set [`read_rate`](Deadlines::read_rate).
    #[must_use]
    pub fn with_read_rate(mut self, rate: impl Into<Option<MinRate>>) -> Deadlines {
        self.read_rate = rate.into();
        self
    }

    /// Set [`write_rate`](Deadlines::write_rate).
    #[must_use]
    pub fn with_write_rate(mut self, rate: impl Into<Option<MinRate>>) -> Deadlines {
        self.write_rate = rate.into();
        self
    }

    /// Set [`lifetime`](Deadlines::lifetime).
    #[must_use]
    pub fn with_lifetime(mut self, time: impl Into<Option<Duration>>) -> Deadlines {
        self.lifetime = time.into();
        self
    }
}
