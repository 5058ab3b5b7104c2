//! Timers that are cancelled, and their names.

use std::time::Duration;

use dispatch_loop::ChannelMap;

use crate::support::heap;
use crate::support::logging::{capture_log, logged};

const HOUR: Duration = Duration::from_secs(3600);

/// EDGE_CASES 44: what a timer holds may panic when it is dropped.
#[test]
fn cancelling_a_timer_whose_closure_panics_when_it_is_dropped_is_logged() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("boom");
        }
    }
    capture_log();
    let mut map = ChannelMap::new().unwrap();
    let bomb = Bomb;
    let timer = map.call_later(HOUR, move |_| drop(bomb));
    assert!(map.cancel(timer));
    assert_eq!(logged("panicked: boom").len(), 1);
    assert!(!map.cancel(timer));
}

/// EDGE_CASES 38: a name names one timer for ever, also after many timers, whose memory was freed.
#[test]
fn the_names_of_old_timers_name_none_of_the_new_ones() {
    let mut map = ChannelMap::new().unwrap();
    let set = |map: &mut ChannelMap| [(); 100].map(|()| map.call_later(HOUR, |_| ()));
    let mut old = Vec::new();
    for _ in 0..3 {
        let timers = set(&mut map);
        assert!(old.iter().all(|&timer| !map.cancel(timer)));
        assert!(timers.iter().all(|&timer| map.cancel(timer)));
        old.extend(timers);
    }
}

/// A burst of timers leaves no memory behind.
#[test]
fn the_memory_of_many_timers_is_freed_with_the_last_of_them() {
    let mut map = ChannelMap::new().unwrap();
    let burst = |map: &mut ChannelMap| {
        let timers: Vec<_> = (0..10_000).map(|_| map.call_later(HOUR, |_| ())).collect();
        assert!(timers.iter().all(|&timer| map.cancel(timer)));
    };
    let before = heap::live();
    burst(&mut map);
    let left = heap::live() - before;
    assert!(left < 16 * 1024, "{left} bytes are left");
}
