//! How many clients a server lets in: no more than it has descriptors for. The others wait in the backlog,
//! and those that are in are served.

use std::cell::Cell;

use dispatch_loop::{ChannelMap, Token};
use rustix::process::{Resource, getrlimit};

use super::ServerOptions;

/// A client may need two descriptors: its own, and one for a file or for a connection on its behalf.
const EACH: usize = 2;

/// What is left to the program itself.
const RESERVE: usize = 16;

#[derive(Default)]
pub struct Places {
    /// Descriptors.
    free: Cell<usize>,
}

impl Places {
    /// For one of the loops: all have the same number of clients.
    pub fn new(options: &ServerOptions) -> Places {
        let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
        let free = limit.saturating_sub(RESERVE + limit / 32) / options.threads();
        Places { free: Cell::new(free.max(EACH)) }
    }

    /// A client has come.
    pub fn take(&self, map: &mut ChannelMap) {
        self.free.set(self.free.get().saturating_sub(EACH));
        if self.free.get() < EACH {
            log::info!("as many clients as there are descriptors for: others wait");
            self.each_listener(map, true);
        }
    }

    /// So many of its descriptors are closed.
    pub fn give_back(&self, map: &mut ChannelMap, descriptors: usize) {
        let before = self.free.replace(self.free.get() + descriptors);
        if before < EACH && self.free.get() >= EACH {
            self.each_listener(map, false);
        }
    }

    fn each_listener(&self, map: &mut ChannelMap, wait: bool) {
        let all: Vec<Token> = map.tokens().collect();
        for token in all {
            match map.channel(token) {
                Ok(mut ch) if ch.is_listening() && wait => ch.pause_reading(),
                Ok(mut ch) if ch.is_listening() => ch.resume_reading(),
                _ => {}
            }
        }
    }
}
