//! A drain that signals begin and end. Each test has a process of its own: the signals are everybody's.

use std::time::Duration;

use dispatch_loop::{ChannelMap, DrainOptions, DrainState, run};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::raise;

use crate::support::peers::{cut_short, loopbacks, pair};
use crate::support::process::alone;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

/// A map with a busy channel, which drains on signals, and the peer.
fn busy(log: &Log) -> (ChannelMap, std::net::TcpStream) {
    let mut map = ChannelMap::new().unwrap();
    map.drain_on_signals(&DrainOptions::default().with_deadline(DEADLINE)).unwrap();
    let (near, far) = pair(loopbacks()[0]);
    let token = map.add(near, Recorder::new("a", log)).unwrap();
    map.channel(token).unwrap().set_busy(true);
    turn_idle(&mut map);
    (map, far)
}

/// 285.
#[test]
fn a_signal_drains_and_a_second_one_ends_the_drain() {
    alone(None, || {
        for (first, second) in [(SIGTERM, SIGTERM), (SIGTERM, SIGINT), (SIGINT, SIGTERM)] {
            let log = Log::new();
            let (mut map, far) = busy(&log);
            raise(first).unwrap();
            turn_until(&mut map, &log, |_| log.has("a drain"));
            turn_idle(&mut map);
            assert_eq!(map.drain_state(), DrainState::Draining);
            assert_eq!(map.drain_progress().unwrap().signal, None);
            raise(second).unwrap();
            run(&mut map).unwrap();
            let progress = map.drain_progress().unwrap();
            assert_eq!((map.drain_state(), progress.aborted), (DrainState::Drained, 1));
            assert_eq!(progress.signal, Some(second));
            assert!(log.has("a close: aborted"));
            assert_eq!(cut_short(far), b"");
        }
    });
}

/// 285: one is enough where there is nothing to wait for, and a timer is no reason to wait.
#[test]
fn one_signal_ends_a_map_in_order() {
    alone(None, || {
        let log = Log::new();
        let (mut map, _far) = busy(&log);
        map.call_later(Duration::from_secs(3600), |_| ());
        let token = map.tokens().next().unwrap();
        map.channel(token).unwrap().set_busy(false);
        raise(SIGTERM).unwrap();
        run(&mut map).unwrap();
        assert_eq!(log.of("a"), ["open", "drain", "close: closed"]);
        assert_eq!(map.drain_progress().unwrap().signal, None);
    });
}

/// EDGE_CASES 495. A drain that something else has begun is brought nearer by the first signal, not cut off.
#[test]
fn the_first_signal_is_the_first_though_the_map_drains_already() {
    alone(None, || {
        let log = Log::new();
        let (mut map, far) = busy(&log);
        map.drain(&DrainOptions::default().with_lame_duck(3 * DEADLINE).with_deadline(3 * DEADLINE));
        turn_until(&mut map, &log, |_| log.has("a drain"));
        assert_eq!(map.drain_state(), DrainState::LameDuck);
        raise(SIGTERM).unwrap();
        turn_until(&mut map, &log, |map| map.drain_state() == DrainState::Draining);
        turn_idle(&mut map);
        let progress = map.drain_progress().unwrap();
        assert_eq!((progress.channels, progress.signal), (1, None));
        raise(SIGTERM).unwrap();
        run(&mut map).unwrap();
        let progress = map.drain_progress().unwrap();
        assert_eq!((progress.aborted, progress.signal), (1, Some(SIGTERM)));
        cut_short(far);
    });
}

/// EDGE_CASES 496. The later options hold, and one signal is one.
#[test]
fn drain_on_signals_may_be_called_again() {
    alone(None, || {
        let log = Log::new();
        let (mut map, _far) = busy(&log);
        let lame = DrainOptions::default().with_lame_duck(DEADLINE).with_deadline(DEADLINE);
        map.drain_on_signals(&lame).unwrap();
        raise(SIGTERM).unwrap();
        turn_until(&mut map, &log, |_| log.has("a drain"));
        turn_idle(&mut map);
        assert_eq!((map.drain_state(), map.drain_progress().unwrap().signal), (DrainState::LameDuck, None));
    });
}
