//! A chat among the channels of `model.rs`.

use std::io;

use dispatch_loop::chat::{Chat, ChatChannel};
use dispatch_loop::{Dispatcher, Eof, Reason};

use super::world::*;

/// An actor that is given messages of a length, which is another after each.
pub struct Talk {
    actor: Actor,
    pub wanted: usize,
}

impl Talk {
    pub fn new(actor: Actor) -> Talk {
        Talk { actor, wanted: 500 }
    }
}

impl Chat for Talk {
    fn collect_incoming_data(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        self.actor.world.borrow_mut().took(self.actor.index, data);
        ch.collect(data);
        Ok(())
    }
    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        must(data.len() == self.wanted, format!("a message of {} bytes, not {}", data.len(), self.wanted));
        self.wanted = 1 + (self.wanted * 7 + 13) % 2500;
        ch.set_terminator(self.wanted)?;
        // What comes after the message waits for the next turn.
        if self.wanted % 3 == 0 {
            ch.pause_reading();
            let token = ch.token();
            ch.map_mut().call_soon(move |map| {
                if let Ok(mut ch) = map.channel(token) {
                    ch.resume_reading();
                }
            });
        }
        // The view of the channel puts back what comes after the message: only if it is needed.
        let idle = self.actor.world.borrow().script.is_empty();
        if idle {
            Ok(())
        } else {
            self.actor.hook(ch.channel_mut(), |life| must(life.opens == 1, "read before open"))
        }
    }
    fn handle_connect(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.actor.handle_connect(ch.channel_mut())
    }
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.actor.handle_open(ch.channel_mut())
    }
    fn handle_eof(&mut self, ch: &mut ChatChannel<'_>, rest: &[u8]) -> io::Result<Eof> {
        must(rest.len() < self.wanted, "more than a message is left");
        self.actor.handle_eof(ch.channel_mut())
    }
    fn handle_high(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.actor.handle_high(ch.channel_mut())
    }
    fn handle_low(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.actor.handle_low(ch.channel_mut())
    }
    fn handle_drained(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.actor.handle_drained(ch.channel_mut())
    }
    fn handle_close(&mut self, ch: &mut ChatChannel<'_>, reason: &Reason) {
        self.actor.handle_close(ch.channel_mut(), reason);
    }
}
