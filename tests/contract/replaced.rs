//! A dispatcher that was replaced has no end of its own: EDGE_CASES 134.

use std::cell::Cell;
use std::io;
use std::mem;

use dispatch_loop::{Channel, ChannelMap, Dispatcher, Reason};

use crate::support::peers::{loopbacks, pair};
use crate::support::recorder::Log;
use crate::support::turning::turn_until;

struct New(Log);

impl Dispatcher for New {
    fn handle_close(&mut self, ch: &mut Channel<'_>, _: &Reason) {
        self.0.add("new close");
        let other = mem::replace(ch.map_mut(), ChannelMap::new().unwrap());
        drop(other);
    }
}

struct Old(Log);

impl Dispatcher for Old {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.replace_dispatcher(New(self.0.clone()))?;
        *ch.map_mut() = ChannelMap::new()?;
        self.0.add("old returns");
        Ok(())
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, _: &Reason) {
        self.0.add("old close");
    }
}

/// EDGE_CASES 134. The end of the new one, inside the drop of the map, took with it the note that the old one was replaced.
#[test]
fn a_replaced_dispatcher_is_not_told_the_end_of_its_successor() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _far) = pair(loopbacks()[0]);
    map.add(near, Old(log.clone())).unwrap();
    turn_until(&mut map, &log, |_| log.has("old returns"));
    assert_eq!(log.events(), ["new close", "old returns"]);
}

thread_local! {
    static AWAY: Cell<Option<ChannelMap>> = const { Cell::new(None) };
}

struct Lends(Log);

impl Dispatcher for Lends {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let new = ch.replace_dispatcher(New(self.0.clone()))?;
        ch.map_mut().with(new, |_, ch| {
            AWAY.set(Some(mem::replace(ch.map_mut(), ChannelMap::new()?)));
            Ok(())
        })?;
        self.0.add("old returns");
        Ok(())
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, _: &Reason) {
        self.0.add("old close");
    }
}

/// EDGE_CASES 134: in a `with` on the new one the maps are swapped. That the old one was replaced was taken to
/// be said of the new one.
#[test]
fn the_end_of_a_lent_successor_is_its_own() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _far) = pair(loopbacks()[0]);
    map.add(near, Lends(log.clone())).unwrap();
    turn_until(&mut map, &log, |_| log.has("old returns"));
    assert_eq!(log.events(), ["new close", "old returns"]);
    drop(AWAY.take());
    assert_eq!(log.events().len(), 2);
}
