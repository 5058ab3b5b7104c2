//! How many clients a server lets in whose clients need a connection elsewhere, which may outlive theirs: no
//! more than it has descriptors for. The others wait in the backlog, and those that are in are served.

use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, OnceLock};

use dispatch_loop::{ChannelMap, Remote, Token};
use rustix::process::{Resource, getrlimit};

/// A client needs two descriptors: its own, and one for the connection on its behalf.
const EACH: isize = 2;

/// What is left to the program itself.
const RESERVE: usize = 16;

/// All loops of a server share them.
pub struct Places {
    /// Descriptors. With several loops some more may be let in before the one that accepts has heard.
    free: AtomicIsize,
    /// What waits when there are none; and its loop, where that is another one.
    listeners: OnceLock<(Vec<Token>, Option<Remote>)>,
}

/// How many descriptors there are for clients.
pub fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
    limit.saturating_sub(RESERVE + limit / 32)
}

impl Default for Places {
    fn default() -> Places {
        let free = isize::try_from(descriptors()).unwrap_or(isize::MAX).max(EACH);
        Places { free: AtomicIsize::new(free), listeners: OnceLock::new() }
    }
}

impl Places {
    /// These listeners wait while there is no place.
    pub fn govern(&self, listeners: Vec<Token>, remote: Option<Remote>) {
        let _ = self.listeners.set((listeners, remote));
    }

    /// A client has come.
    pub fn take(self: &Arc<Places>, map: &mut ChannelMap) {
        if self.free.fetch_sub(EACH, Ordering::SeqCst) < 2 * EACH {
            log::info!("as many clients as there are descriptors for: others wait");
            self.tell(map);
        }
    }

    /// So many of its descriptors are closed.
    pub fn give_back(self: &Arc<Places>, map: &mut ChannelMap, descriptors: usize) {
        let before = self.free.fetch_add(descriptors as isize, Ordering::SeqCst);
        if before < EACH && before + descriptors as isize >= EACH {
            self.tell(map);
        }
    }

    fn tell(self: &Arc<Places>, map: &mut ChannelMap) {
        match self.listeners.get() {
            Some((_, Some(remote))) => {
                let places = self.clone();
                // Refused only if it has ended, and its listeners with it.
                let _ = remote.call_after_stop(move |map| places.look(map));
            }
            _ => self.look(map),
        }
    }

    /// What holds now, and not when it was told: what several loops tell comes in any order.
    fn look(&self, map: &mut ChannelMap) {
        let Some((listeners, _)) = self.listeners.get() else { return };
        let wait = self.free.load(Ordering::SeqCst) < EACH;
        for listener in listeners {
            match map.channel(*listener) {
                Ok(mut ch) if wait => ch.pause_reading(),
                Ok(mut ch) => ch.resume_reading(),
                Err(_) => {} // it has ended
            }
        }
    }
}
