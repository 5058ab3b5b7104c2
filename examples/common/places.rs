//! How many clients a server lets in whose clients need a connection elsewhere, which may outlive theirs: no
//! more than it has descriptors for. The others wait in the backlog, and those that are in are served.

use std::cell::{Cell, RefCell};

use dispatch_loop::{ChannelMap, Handle, Token};
use rustix::process::{Resource, getrlimit};

/// A client needs two descriptors: its own, and one for the connection on its behalf.
const EACH: usize = 2;

/// What is left to the program itself.
const RESERVE: usize = 16;

pub struct Places {
    /// Descriptors.
    free: Cell<usize>,
    listeners: RefCell<Vec<Token>>,
}

/// How many descriptors there are for clients.
pub fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
    limit.saturating_sub(RESERVE + limit / 32)
}

impl Default for Places {
    fn default() -> Places {
        Places { free: Cell::new(descriptors().max(EACH)), listeners: RefCell::default() }
    }
}

impl Places {
    /// These listeners wait while there is no place.
    pub fn govern<T>(&self, listeners: Vec<Handle<T>>) {
        self.listeners.borrow_mut().extend(listeners.iter().map(|listener| listener.token()));
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
        for listener in &*self.listeners.borrow() {
            match map.channel(*listener) {
                Ok(mut ch) if wait => ch.pause_reading(),
                Ok(mut ch) => ch.resume_reading(),
                Err(_) => {} // it has ended
            }
        }
    }
}
