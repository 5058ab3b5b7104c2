//! What `run_with` can be told.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, count};
use dispatch_loop::{ChannelMap, LoopOptions, run, run_with};

use crate::support::peers::{loopbacks, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::turn_idle;

const MILLISECOND: Duration = Duration::from_millis(1);

/// `loop(timeout, use_poll, map, count)`.
#[cfg(debug_assertions)]
#[test]
fn timeout_count_and_rescan_bound_the_loop_and_ask_everybody() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        // An empty map: nothing to wait for.
        run(&mut map).unwrap();
        map.listen(on, Recorder::new("listener", &log)).unwrap();
        let options = LoopOptions::default().with_timeout(5 * MILLISECOND).with_count(4);
        let (begun, waits) = (Instant::now(), count(Call::Wait));
        run_with(&mut map, &options).unwrap();
        assert_eq!(count(Call::Wait), waits + 4);
        assert!(begun.elapsed() >= 4 * options.timeout.unwrap());
        run_with(&mut map, &LoopOptions::default().with_count(0)).unwrap();
        assert_eq!(count(Call::Wait), waits + 4);

        // Python asks everybody every turn; here that has to be asked for.
        let hungry = Rc::new(Cell::new(false));
        let is_hungry = hungry.clone();
        let (near, mut far) = unix_pair();
        let recorder = Recorder::new("a", &log).readable(move |_| is_hungry.get());
        map.add(near, recorder).unwrap();
        far.write_all(b"food").unwrap();
        turn_idle(&mut map);
        hungry.set(true);
        turn_idle(&mut map);
        assert_eq!(log.of("a"), ["open"], "nobody has told the loop");
        run_with(&mut map, &options.clone().with_rescan(true)).unwrap();
        assert_eq!(log.input("a"), b"food");
    }
}
