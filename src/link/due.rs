//! What is due for a channel: set by the transition that causes it, carried out by the settle.

/// The steps of the settle, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Step {
    /// `handle_connect`, `handle_open`, or the outcome of a failed connect.
    Open = 1,
    /// A `with` on the channel failed: `handle_error`.
    Failure = 1 << 1,
    /// `handle_network_error`.
    NetworkError = 1 << 2,
    /// The end of input was read: `handle_eof`.
    Eof = 1 << 3,
    /// `handle_high`, `handle_low`.
    Watermark = 1 << 4,
    /// Something queued may be sent, or FIN or the end follows what was queued.
    Flush = 1 << 5,
    /// Everything that had to wait was sent: `handle_drained`.
    Drained = 1 << 6,
    /// The channel was reached: ask `readable` and `writable`, and update its registration.
    Look = 1 << 7,
    /// `handle_close`.
    End = 1 << 8,
    /// The source was changed, and its handshake may be done: `handle_wrapped`. (After `Drained`.)
    Wrapped = 1 << 9,
    /// The map is to be drained: `handle_drain`. (After `Wrapped`.)
    Drain = 1 << 10,
}

/// A set of steps; whether the channel is in an unusual state, in which its events take the long way; and
/// whether its dispatcher may override `readable` or `writable`, which must then be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due(u16);

const UNUSUAL: u16 = 1 << 15;
const ASKS: u16 = 1 << 14;

impl Due {
    /// For a new channel.
    #[inline]
    pub(crate) fn to_open(asks: bool) -> Due {
        Due(Step::Open as u16 | Step::Look as u16 | UNUSUAL | if asks { ASKS } else { 0 })
    }

    pub(crate) fn set(&mut self, step: Step) {
        self.0 |= step as u16;
    }

    pub(crate) fn clear(&mut self, step: Step) {
        self.0 &= !(step as u16);
    }

    pub(crate) fn has(self, step: Step) -> bool {
        self.0 & step as u16 != 0
    }

    /// Nothing is due, and the channel is in the usual state: an open stream that waits for input.
    #[inline]
    pub(crate) fn is_quiet(self) -> bool {
        self.0 & !ASKS == 0
    }

    /// As `is_quiet`, and `readable` and `writable` need not be asked.
    #[inline]
    pub(crate) fn is_quiet_and_asks_nothing(self) -> bool {
        self.0 == 0
    }

    /// Nothing but `handle_close` is due, to a channel that was in the usual state.
    pub(crate) fn has_end_only(self) -> bool {
        self.0 & !ASKS == Step::End as u16
    }

    /// Nothing is due but to open the channel and to look at it.
    #[inline]
    pub(crate) fn is_at_most_an_opening(self) -> bool {
        self.0 & !(Step::Open as u16 | Step::Look as u16 | UNUSUAL | ASKS) == 0
    }

    /// Nothing is due but to look at the channel, without asking anything.
    #[inline]
    pub(crate) fn is_at_most_a_look(self) -> bool {
        self.0 & !(Step::Look as u16 | UNUSUAL) == 0
    }

    pub(crate) fn has_steps(self) -> bool {
        self.0 & !(UNUSUAL | ASKS) != 0
    }

    #[inline]
    pub(crate) fn asks(self) -> bool {
        self.0 & ASKS != 0
    }

    pub(crate) fn set_asks(&mut self, asks: bool) {
        self.0 = self.0 & !ASKS | if asks { ASKS } else { 0 };
    }

    /// Take all steps; those set from now on are left for the next settle.
    pub(crate) fn take(&mut self) -> Due {
        let taken = *self;
        self.0 = UNUSUAL | self.0 & ASKS;
        taken
    }

    pub(crate) fn set_unusual(&mut self, unusual: bool) {
        self.0 = self.0 & !UNUSUAL | if unusual { UNUSUAL } else { 0 };
    }
}
