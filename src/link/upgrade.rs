//! Putting another source around the one that a channel has, as STARTTLS does. Before `handle_open` that is
//! done at once; afterwards it waits in the queue, behind what was pushed before it.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::link::due::Step;
use crate::link::held::Held;
use crate::link::rare::{HANDSHAKE_TIMEOUT, Upgrade};
use crate::link::source::{MakeSource, Source};
use crate::link::state::{Connecting, InputEnd, Life, Link};
use crate::link::unread::Replay;

impl Link {
    /// `Some` if the source is to be changed at once: the channel is not open yet.
    pub(crate) fn begin_upgrade(&mut self, make: MakeSource) -> io::Result<Option<MakeSource>> {
        if self.is_upgrading() {
            return Err(io::Error::new(ErrorKind::ResourceBusy, "the source is being changed already"));
        }
        if self.input.end == InputEnd::Told && self.unread_len() > 0 {
            let what = "the end was told, and input was put back, which no new source can be given";
            return Err(io::Error::new(ErrorKind::NotConnected, what));
        }
        if self.rare.as_ref().is_some_and(|rare| rare.to_wrap.is_some()) {
            return Err(io::Error::new(
                ErrorKind::ResourceBusy,
                "the source is to be changed once connected",
            ));
        }
        match self.life {
            _ if self.is_datagram() || self.is_broken() => {}
            #[cfg(feature = "proxy-protocol")]
            Life::Opening if self.awaits_header() => {
                self.rare().to_wrap = Some(make);
                return Ok(None);
            }
            Life::Connecting(Connecting::Done) | Life::Opening => return Ok(Some(make)),
            Life::Connecting(Connecting::Failed(_)) => {}
            Life::Connecting(_) => {
                self.rare().to_wrap = Some(make);
                return Ok(None);
            }
            Life::Open => {
                self.output.queue().push_upgrade(make);
                self.rare().upgrade = Upgrade::Waiting;
                self.due.set(Step::Flush);
                return Ok(None);
            }
            _ => {}
        }
        Err(io::Error::new(ErrorKind::NotConnected, "the channel has no open stream"))
    }

    /// What was asked for while connecting, once the connection is made.
    pub(crate) fn take_to_wrap(&mut self) -> Option<MakeSource> {
        self.rare.as_mut()?.to_wrap.take()
    }

    /// A change of the source is under way: input is for the new one.
    pub(crate) fn is_upgrading(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.upgrade != Upgrade::No)
    }

    /// The upgrade has come to the front of the queue: take it out, unless the old source still has
    /// something to send.
    pub(crate) fn take_upgrade(&mut self) -> Option<MakeSource> {
        if self.output_pending() {
            return None;
        }
        let make = self.output.queue_if_any()?.take_upgrade();
        self.output.trim();
        make
    }

    /// Take out the old source, for a new one to be made of it. It begins with the input that was put
    /// back.
    pub(crate) fn take_source_to_wrap(&mut self) -> Option<Box<dyn Source>> {
        #[cfg(feature = "proxy-protocol")]
        self.drop_preface();
        let old = self.socket.take()?.into_box();
        let ended = self.input.end == InputEnd::Read;
        let unread = self.rare.as_mut().and_then(|rare| rare.unread.take());
        if ended {
            // The new source reads the end itself.
            self.input.end = InputEnd::NotYet;
            self.due.clear(Step::Eof);
        }
        match (unread, ended) {
            (None, false) => Some(old),
            (unread, ended) => Some(Box::new(Replay::new(unread.unwrap_or_default(), ended, old))),
        }
    }

    pub(crate) fn wrapped(&mut self, source: Box<dyn Source>) {
        self.set_source(Some(Held::own(source)));
        self.due.set(Step::Flush);
        if self.is_upgrading() {
            self.rare().upgrade = Upgrade::Begun;
            self.due.set(Step::Wrapped);
        }
        self.was_changed();
    }

    /// No new source could be made, or its handshake failed: this is told as a failed connect is. (While
    /// closing, only `handle_close` is told.)
    pub(crate) fn wrap_failed(&mut self, error: io::Error) {
        match self.is_ending() {
            true => drop(self.read_lost(error)),
            false => {
                self.rare().upgrade = Upgrade::Begun;
                // No peer takes this for an end, and a reset would destroy what the source has told it.
                self.output.clear();
                self.note_marks();
                self.connect_is(Connecting::Failed(error));
            }
        }
    }

    /// A handshake is under way, perhaps for the sake of what is to be sent before the close.
    pub(crate) fn shakes_hands(&self) -> bool {
        let begun = self.rare.as_ref().is_some_and(|rare| rare.upgrade == Upgrade::Begun);
        (self.is_opening() || self.is_flushing() || begun) && !self.is_established()
    }

    pub(crate) fn handshake_name(&self) -> &'static str {
        #[cfg(feature = "proxy-protocol")]
        if self.awaits_header() {
            return "the PROXY header";
        }
        "the handshake"
    }

    /// How long that may take.
    pub(crate) fn handshake_timeout(&self) -> Duration {
        #[cfg(feature = "proxy-protocol")]
        if let Some(timeout) = self.header_timeout() {
            return timeout;
        }
        self.rare.as_ref().map_or(HANDSHAKE_TIMEOUT, |rare| rare.handshake_timeout)
    }

    /// Whether `handle_wrapped` is to run now; `true` once.
    pub(crate) fn takes_wrapped(&mut self) -> bool {
        let established = self.is_open() && self.is_established();
        match &mut self.rare {
            Some(rare) if rare.upgrade == Upgrade::Begun && established => {
                rare.upgrade = Upgrade::No;
                true
            }
            _ => false,
        }
    }
}
