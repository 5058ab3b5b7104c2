//! The keys, with a timer for each that is to expire; and who has subscribed to what.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{ChannelMap, TimerId, Token};

/// How many bytes all keys and values may have together, with what it takes to keep each.
const MEMORY: usize = 256 * 1024 * 1024;
const EACH: usize = 256;

#[derive(Default)]
pub struct Store {
    /// With the timer that removes it, if any.
    pub keys: HashMap<Vec<u8>, (Vec<u8>, Option<TimerId>)>,
    pub bytes: usize,
    /// The subscribers of each channel that has any.
    pub channels: HashMap<Vec<u8>, HashSet<Token>>,
}

impl Store {
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.keys.get(key).map(|(value, _)| &value[..])
    }

    /// Set a value; a key that is to expire still does.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let before = self.get(key).map_or(0, |value| EACH + key.len() + value.len());
        let (bytes, needed) = (self.bytes - before, EACH + key.len() + value.len());
        if bytes + needed > MEMORY {
            return Err("OOM command not allowed when used memory > 'maxmemory'.");
        }
        self.bytes = bytes + needed;
        match self.keys.get_mut(key) {
            Some((old, _)) => *old = value.to_vec(),
            None => drop(self.keys.insert(key.to_vec(), (value.to_vec(), None))),
        }
        Ok(())
    }

    pub fn remove(&mut self, map: &mut ChannelMap, key: &[u8]) -> bool {
        self.persist(map, key);
        let Some((value, _)) = self.keys.remove(key) else { return false };
        self.bytes -= EACH + key.len() + value.len();
        true
    }

    /// The key does not expire any more.
    pub fn persist(&mut self, map: &mut ChannelMap, key: &[u8]) {
        if let Some(timer) = self.keys.get_mut(key).and_then(|(_, timer)| timer.take()) {
            map.cancel(timer);
        }
    }

    /// How long the key still has, if it is to expire.
    pub fn expires_in(&self, map: &ChannelMap, key: &[u8]) -> Option<Duration> {
        map.due_in(self.keys.get(key)?.1?)
    }
}

/// Remove the key after this time.
pub fn expire(store: &Rc<RefCell<Store>>, map: &mut ChannelMap, key: &[u8], after: Duration) {
    let mut keys = store.borrow_mut();
    let Some((_, timer)) = keys.keys.get_mut(key) else { return };
    if timer.is_some_and(|timer| map.set_due_in(timer, after)) {
        return;
    }
    let (store, key) = (store.clone(), key.to_vec());
    let new = map.call_later(after, move |map| {
        store.borrow_mut().remove(map, &key);
    });
    map.set_timer_background(new, true); // the end of the server does not wait for it
    *timer = Some(new);
}
