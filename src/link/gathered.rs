//! Output that was gathered while a hook ran, and the end of the short way, which sends it.

use std::io;

use crate::clock::Turn;
use crate::link::held::Held;
use crate::link::pushed::Pushed;
use crate::link::state::{Life, Link};
use crate::sys;
use crate::sys::errno::{is_interrupted, is_shortage, would_block};

impl Link {
    /// Whether what a hook pushes to its own channel can be gathered and sent when it returns.
    pub(crate) fn gathers(&self) -> bool {
        matches!(self.life, Life::Opening | Life::Open)
            && !self.is_datagram()
            && self.output.is_idle()
            && self.rare.as_ref().is_none_or(|rare| rare.limits.exceed_a_gathering())
            && self.is_established()
    }

    /// The end of the short way: send what the hook pushed in one call. `Err` if not all was sent.
    #[inline(always)]
    pub(crate) fn send_quickly(&mut self, bytes: &[u8]) -> Result<(), io::Result<usize>> {
        let Some(Held::Plain(plain)) = &self.socket else { return Ok(()) };
        if bytes.is_empty() {
            return Ok(());
        }
        match sys::stream::send_once(plain.fd(), bytes) {
            Ok(sent) if sent == bytes.len() => {
                self.sent += sent as u64;
                Ok(())
            }
            result => Err(result),
        }
    }

    /// Not all was sent, as `result` says: queue the rest.
    #[cold]
    #[inline(never)]
    pub(crate) fn sent_in_part(&mut self, turn: Turn, bytes: &[u8], result: io::Result<usize>) {
        let sent = match result {
            Ok(sent) => {
                self.sent += sent as u64;
                sent
            }
            Err(error) if would_block(&error) => 0,
            Err(error) if is_interrupted(&error) => return self.send_gathered(turn, bytes),
            Err(error) if is_shortage(&error) => {
                self.meets_shortage();
                0
            }
            Err(error) => return self.write_lost(error),
        };
        self.output.blocked = true;
        self.output.queue().push(&bytes[sent..]);
        self.queued_more();
    }

    /// Send all that a hook pushed in one call.
    #[cold]
    #[inline(never)]
    pub(crate) fn send_gathered(&mut self, turn: Turn, bytes: &[u8]) {
        if bytes.is_empty() || self.is_broken() || (self.is_ending() && !self.is_flushing()) {
            return;
        }
        self.put(turn, &[], Pushed::Bytes(bytes), true);
    }

    /// The same, to be queued: it is about to be dropped.
    pub(crate) fn queue_gathered(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && !self.is_broken() && (!self.is_ending() || self.is_flushing()) {
            self.output.queue().push(bytes);
        }
    }
}
