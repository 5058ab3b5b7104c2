//! A channel with limited bandwidth: how much may be read and sent now, and what it does while it waits. It
//! reads nothing, as if it were paused; and what is queued waits, as in a shortage.

use crate::clock::Time;
use crate::link::bandwidth::{Bandwidth, Flow};
use crate::link::due::Step;
use crate::link::held::Held;
use crate::link::state::Link;
use crate::sys;

impl Link {
    fn read_flow(&mut self) -> Option<&mut Flow> {
        self.rare.as_mut()?.read_flow.as_deref_mut()
    }

    fn write_flow(&mut self) -> Option<&mut Flow> {
        self.rare.as_mut()?.write_flow.as_deref_mut()
    }

    pub(crate) fn set_read_bandwidth(&mut self, of: Vec<Bandwidth>) {
        if !of.is_empty() || self.rare.is_some() {
            self.rare().read_flow = (!of.is_empty()).then(|| Box::new(Flow::new(of)));
            self.was_changed();
        }
    }

    pub(crate) fn set_write_bandwidth(&mut self, of: Vec<Bandwidth>) {
        if !of.is_empty() || self.rare.is_some() {
            let waited = self.waits_for_its_turn_to_send();
            self.rare().write_flow = (!of.is_empty()).then(|| Box::new(Flow::new(of)));
            if waited {
                self.sends_again();
            }
        }
    }

    fn sends_again(&mut self) {
        self.unblock();
        self.due.set(Step::Flush);
    }

    /// How much of `most` bytes may be read now; if it is nothing, reading waits.
    #[inline]
    pub(crate) fn admit_input(&mut self, most: usize) -> usize {
        if self.rare.is_none() {
            return most;
        }
        let plain = matches!(self.socket, Some(Held::Plain(_))) && !self.is_datagram();
        let fd = self.socket.as_ref().filter(|_| plain).and_then(Held::descriptor);
        let flow = self.rare.as_mut().and_then(|rare| rare.read_flow.as_deref_mut());
        let Some(flow) = flow else { return most };
        // However little is read at a time, a share is waited for.
        let admitted = flow.admit(u64::MAX, || fd.and_then(sys::bytes_to_read).unwrap_or(u64::MAX));
        if admitted == 0 {
            self.due.set(Step::Look);
        }
        usize::try_from(admitted).map_or(most, |admitted| admitted.min(most))
    }

    /// So many bytes were read. If that was all that could be, more is there: it is waited for at once, unless it
    /// may be read at once.
    #[inline]
    pub(crate) fn input_passed(&mut self, bytes: usize, all: bool) {
        if self.rare.is_none() {
            return;
        }
        if let Some(flow) = self.read_flow() {
            flow.passed(bytes as u64);
            if all {
                self.admit_input(1);
            }
        }
    }

    /// How much of `most` bytes may be sent now; if it is nothing, output waits.
    #[inline]
    pub(super) fn admit_output(&mut self, most: usize) -> usize {
        if self.rare.is_none() {
            return most;
        }
        let Some(flow) = self.write_flow() else { return most };
        let admitted = flow.admit(most as u64, || u64::MAX) as usize;
        if admitted == 0 && most > 0 {
            self.output.blocked = true;
            self.due.set(Step::Look);
        }
        admitted
    }

    /// The same of what is queued, within the budget of the turn.
    #[inline]
    pub(super) fn admit_queued(&mut self) -> u32 {
        let most = self.write_left;
        if self.rare.as_ref().is_none_or(|rare| rare.write_flow.is_none()) {
            return most;
        }
        let Some(queue) = self.output.queue.as_ref().filter(|queue| queue.is_due()) else { return most };
        // What producers are still to make is not known.
        let queued = if queue.weight_of_producers() > 0 { usize::MAX } else { queue.queued() };
        if queued == 0 {
            // Such as a producer that has failed, which is to be told.
            return most;
        }
        self.admit_output(queued.min(most as usize)) as u32
    }

    /// So many bytes were sent.
    #[inline]
    pub(super) fn output_passed(&mut self, bytes: usize) {
        if self.rare.is_some() {
            if let Some(flow) = self.write_flow() {
                flow.passed(bytes as u64);
            }
        }
    }

    // Waiting.

    /// Whether reading waits for its bandwidth.
    #[inline]
    pub(crate) fn waits_for_its_turn_to_read(&self) -> bool {
        let flow = self.rare.as_ref().and_then(|rare| rare.read_flow.as_ref());
        flow.is_some_and(|flow| flow.is_waiting())
    }

    /// Whether output waits for its bandwidth.
    pub(crate) fn waits_for_its_turn_to_send(&self) -> bool {
        let flow = self.rare.as_ref().and_then(|rare| rare.write_flow.as_ref());
        flow.is_some_and(|flow| flow.is_waiting())
    }

    /// Whether the channel waits for its bandwidth.
    pub(crate) fn waits_for_its_turn(&self) -> bool {
        self.waits_for_its_turn_to_read() || self.waits_for_its_turn_to_send()
    }

    /// Whether output is held back by something else than the peer: a shortage, or its bandwidth.
    pub(super) fn output_is_held_back(&self) -> bool {
        self.is_short() || self.waits_for_its_turn_to_send()
    }

    /// How often output has waited for its bandwidth.
    pub(super) fn waits_to_send(&self) -> u32 {
        let flow = self.rare.as_ref().and_then(|rare| rare.write_flow.as_ref());
        flow.map_or(0, |flow| flow.waits)
    }

    /// Until when each direction waits for which a timer is to be set.
    pub(crate) fn begin_to_wait(&mut self) -> [Option<Time>; 2] {
        [self.read_flow().and_then(Flow::begins_wait), self.write_flow().and_then(Flow::begins_wait)]
    }

    /// Go on with what has waited long enough.
    pub(crate) fn end_to_wait(&mut self, now: Time) {
        let reads = self.read_flow().is_some_and(|flow| flow.ends_wait(now));
        let sends = self.write_flow().is_some_and(|flow| flow.ends_wait(now));
        if reads {
            self.was_changed();
        }
        if sends {
            self.sends_again();
        }
        if reads || sends {
            // In this time it was not the peer that did nothing.
            self.stamp(now);
        }
    }
}
