//! Repeating timers whose callback swaps, replaces or drops the map that they run in. EDGE_CASES 96.

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::ChannelMap;

use crate::support::peers::unix_pair;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::turn_until;

const SOON: Duration = Duration::from_millis(1);

/// EDGE_CASES 96. The timer is its map's, wherever that is, and keeps its rhythm there.
#[test]
fn a_repeating_timer_that_swaps_its_map_away_goes_on_where_the_map_is() {
    for of_channel in [false, true] {
        for replace in [false, true] {
            let log = Log::new();
            let mut here = ChannelMap::new().unwrap();
            let away = Rc::new(RefCell::new(ChannelMap::new().unwrap()));
            let ran = Rc::new(Cell::new(0));
            let (other, count) = (away.clone(), ran.clone());
            let call = move |map: &mut ChannelMap| {
                count.set(count.get() + 1);
                if count.get() == 2 {
                    let mut other = other.borrow_mut();
                    match replace {
                        true => *other = mem::replace(map, ChannelMap::new().unwrap()),
                        false => mem::swap(map, &mut other),
                    }
                }
            };
            let timer = if of_channel {
                let (near, far) = unix_pair();
                mem::forget(far);
                let handle = here.add(near, Recorder::new("a", &log)).unwrap();
                here.channel(handle).unwrap().call_every(SOON, move |ch| {
                    call(ch.map_mut());
                    Ok(())
                })
            } else {
                here.call_every(SOON, call)
            };
            turn_until(&mut here, &log, |_| ran.get() == 2);
            let mut away = away.borrow_mut();
            assert!(!here.cancel(timer), "it is not that map's");
            turn_until(&mut away, &log, |_| ran.get() == 5);
            assert!(away.cancel(timer));
            let Some(limit) = away.wait_limit() else { continue };
            assert!(limit > Duration::from_secs(1) || of_channel, "it is still set");
        }
    }
}

/// EDGE_CASES 96. It ends with its map, and is dropped once, after its call.
#[test]
fn a_repeating_timer_that_drops_its_map_is_dropped_after_its_call() {
    struct Tells(Log);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.add("dropped");
        }
    }
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let tells = Tells(log.clone());
    map.call_every(SOON, move |map| {
        drop(mem::replace(map, ChannelMap::new().unwrap()));
        tells.0.add("replaced");
    });
    turn_until(&mut map, &log, |_| log.has("dropped"));
    assert_eq!(log.events(), ["replaced", "dropped"]);
    assert!(map.is_idle());
}
