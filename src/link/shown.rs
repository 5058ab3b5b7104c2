//! What a person may want to know of one channel.

use crate::link::rare::{Rest, Upgrade};
use crate::link::state::{Connecting, InputEnd, Life, Link, Way};
use crate::sys::Kind;

impl Link {
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Listener => "listener",
            Kind::Stream => "stream",
            Kind::Datagram => "datagrams",
            Kind::File => "file",
        }
    }

    /// What the channel waits for that is not merely input; empty for one that is as most are.
    pub(crate) fn waits_for(&self) -> Vec<&'static str> {
        let mut waits = Vec::new();
        let mut add = |holds: bool, what| {
            if holds {
                waits.push(what);
            }
        };
        match &self.life {
            Life::Connecting(Connecting::ByName(_)) => add(true, "the connect by name"),
            Life::Connecting(_) => add(true, "the connect"),
            Life::Opening => add(!self.is_established(), "the handshake"),
            Life::Ending(_) => add(self.is_lingering(), "the peer's end"),
            Life::Listening | Life::Open => {}
        }
        let reads = matches!(self.life, Life::Listening | Life::Open);
        let partners = self.rare.as_ref().is_some_and(|rare| rare.partners.pause_it());
        add(reads && self.input.paused, "resume_reading");
        add(reads && !self.input.paused && partners, "a partner's queue to be sent");
        let own_queue = self.is_paused() && !self.input.paused && !partners;
        add(reads && own_queue, "its own queue to be sent, to read on");
        add(reads && !self.input.wanted, "readable() to be true");
        add(reads && self.waits_for_its_turn_to_read(), "its bandwidth, to read");
        let waits_for_peer = self.output.blocked && !self.output.is_empty() && !self.output_is_held_back();
        add(waits_for_peer, "the peer to take output");
        add(self.waits_for_its_turn_to_send(), "its bandwidth, to send");
        add(self.is_short(), "memory of the system");
        add(self.rare.as_ref().is_some_and(|rare| rare.upgrade != Upgrade::No), "the new source");
        match self.rest() {
            Rest::No => {}
            Rest::HungUp => add(true, "resume_reading, and the peer has hung up"),
            Rest::Output(_) => add(true, "the end of a suspension of output"),
            Rest::Input(_) => add(true, "the end of a suspension of input"),
            Rest::All(_) => add(true, "the end of a suspension"),
        }
        add(
            reads && matches!(self.input.end, InputEnd::Read | InputEnd::Told),
            "its own end: the peer's was read",
        );
        match self.output.way {
            Way::Open => {}
            Way::FinDue => add(true, "its queue to be sent, then FIN"),
            Way::FinSent => add(reads, "the peer's end: FIN was sent"),
            Way::Broken => add(reads, "the rest of the input: the connection broke"),
        }
        waits
    }
}
