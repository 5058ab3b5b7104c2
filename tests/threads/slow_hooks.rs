//! Hooks that take long are named while they run, and other threads see whether the loop is busy. What is
//! slow here goes on until that was noticed.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Eof, Reason, Socket, Token, run};

use crate::support::logging::{capture_log, logged_of_slow_hooks};
use crate::support::peers::unix_pair;
use crate::support::recorder::Log;
use crate::support::threads::held;
use crate::support::turning::turn_until;
use crate::support::waiting::{DEADLINE, wait_until};

const THRESHOLD: Duration = Duration::from_millis(20);

/// One test after the other, each with channels whose slots the others do not have.
fn watched(spare: usize) -> (ChannelMap, Vec<std::os::unix::net::UnixStream>, MutexGuard<'static, ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    capture_log();
    let mut map = ChannelMap::new().unwrap();
    map.watch_slow_hooks(Some(THRESHOLD)).unwrap();
    let mut ends = Vec::new();
    for _ in 0..spare {
        let (near, far) = unix_pair();
        let token = map.add(near, Named("")).unwrap();
        map.channel(token).unwrap().set_background(true);
        ends.push(far);
    }
    (map, ends, alone)
}

/// Go on until there is a warning with this text.
fn take_long(text: &str) {
    wait_until(text, || !logged_of_slow_hooks(text).is_empty());
}

fn running(token: Token, hook: &str) -> String {
    format!("channel {token}: {hook} has been running for")
}

/// Slow in the hook of this name.
struct Named(&'static str);

impl Named {
    fn be(&self, hook: &str, ch: &Channel<'_>) {
        if self.0 == hook {
            take_long(&running(ch.token(), hook));
        }
    }
}

impl Dispatcher for Named {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.be("handle_open", ch);
        Ok(())
    }
    fn handle_accept(&mut self, ch: &mut Channel<'_>, _: Socket, _: Address) -> io::Result<()> {
        self.be("handle_accept", ch);
        ch.close();
        Ok(())
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.be("handle_read", ch);
        ch.read_with(|ch, data| ch.push(data))
    }
    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.be("handle_eof", ch);
        Ok(Eof::Close)
    }
    fn handle_close(&mut self, ch: &mut Channel<'_>, _: &Reason) {
        self.be("handle_close", ch);
    }
}

/// EDGE_CASES 300.
#[test]
fn a_slow_hook_is_named_with_its_channel_while_it_runs_and_again_when_it_has_ended() {
    for (spare, hook) in [(1, "handle_open"), (2, "handle_read"), (3, "handle_eof"), (4, "handle_close")] {
        let (mut map, _ends, _alone) = watched(spare);
        let (near, mut far) = unix_pair();
        let token = map.add(near, Named(hook)).unwrap().token();
        // The second message comes on the short way.
        for _ in 0..2 {
            far.write_all(b"x").unwrap();
            map.turn(Some(DEADLINE)).unwrap();
            far.read_exact(&mut [0]).unwrap();
        }
        drop(far);
        turn_until(&mut map, &Log::new(), |map| !map.contains(token));
        take_long(&format!("channel {token}: {hook} has ended; it took about"));
        let warnings = logged_of_slow_hooks(&format!("channel {token}: {hook} has been"));
        assert!(warnings[0].starts_with("WARN "), "{warnings:?}");
    }
}

/// EDGE_CASES 507: also where they are asked after a message on the short way.
#[test]
fn a_slow_readable_is_named() {
    struct Asked(Cell<bool>);
    impl Dispatcher for Asked {
        fn readable(&self, ch: &Channel<'_>) -> bool {
            if self.0.take() {
                take_long(&running(ch.token(), "readable or writable"));
            }
            true
        }
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            self.0.set(true);
            ch.read_with(|ch, data| ch.push(data))
        }
    }
    let (mut map, _ends, _alone) = watched(10);
    let (near, mut far) = unix_pair();
    map.add(near, Asked(Cell::new(false))).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    far.write_all(b"x").unwrap();
    turn_until(&mut map, &Log::new(), |map| {
        map.numbers().slow_hooks().any(|slow| slow.0 == "readable or writable")
    });
}

/// EDGE_CASES 300: on the short way of a message nothing is written down but the channel.
#[test]
fn a_slow_hook_on_the_short_way_is_named() {
    struct SlowThirdTime(u32);
    impl Dispatcher for SlowThirdTime {
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            self.0 += 1;
            if self.0 == 3 {
                // What else is reached meanwhile does not hide it.
                let other = ch.map().tokens().next().unwrap().typed::<Named>();
                assert_ne!(other.token(), ch.token());
                ch.map_mut().with(other, |_, _| Ok(()))?;
                take_long(&running(ch.token(), "handle_read"));
                ch.map_mut().stop();
            }
            ch.read_with(|ch, data| ch.push(data))
        }
    }
    let (mut map, _ends, _alone) = watched(5);
    let (near, mut far) = unix_pair();
    map.add(near, SlowThirdTime(0)).unwrap();
    let peer = thread::spawn(move || {
        for _ in 0..3 {
            far.write_all(b"x").unwrap();
            far.read_exact(&mut [0]).unwrap();
        }
    });
    run(&mut map).unwrap();
    drop(map);
    peer.join().unwrap();
}

/// EDGE_CASES 300.
#[test]
fn a_slow_handle_accept_is_named_with_the_listener() {
    let (mut map, _ends, _alone) = watched(6);
    let server = map.listen("127.0.0.1:0", Named("handle_accept")).unwrap();
    let address = map.channel(server).unwrap().local_addr().unwrap().ip().unwrap();
    let _client = TcpStream::connect(address).unwrap();
    turn_until(&mut map, &Log::new(), |map| !map.contains(server));
    let text = running(server.token(), "handle_accept");
    assert!(!logged_of_slow_hooks(&text).is_empty());
}

/// EDGE_CASES 301.
#[test]
fn slow_timers_and_remote_calls_are_named_as_such() {
    let (mut map, _ends, _alone) = watched(7);
    let (near, _far) = unix_pair();
    let token = map.add(near, Named("")).unwrap().token();
    map.call_soon(|_| take_long(": a timer has been running for"));
    run_once(&mut map);
    let of_channel = running(token, "a timer");
    let text = of_channel.clone();
    let slow = move |_: &mut Channel<'_>| {
        take_long(&text);
        Ok(())
    };
    map.channel(token).unwrap().call_later(Duration::ZERO, slow);
    run_once(&mut map);
    let call = map.remote().call(|_| take_long(": a remote call has been running for"));
    call.unwrap();
    run_once(&mut map);
    let lines = logged_of_slow_hooks("has been running for");
    assert!(lines.iter().any(|line| line.contains(&of_channel)), "{lines:?}");
    let slow: Vec<_> = map.numbers().slow_hooks().map(|(name, times)| (name.to_owned(), times)).collect();
    assert_eq!(slow, [("a timer".to_owned(), 2), ("a remote call".to_owned(), 1)]);
}

fn run_once(map: &mut ChannelMap) {
    map.turn(Some(Duration::ZERO)).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
}

/// EDGE_CASES 301.
#[cfg(feature = "signals")]
#[test]
fn a_slow_signal_callback_is_named_as_such() {
    let (mut map, _ends, _alone) = watched(8);
    let signal = signal_hook::consts::SIGWINCH;
    map.on_signal(signal, |map| {
        take_long(": a signal's callback has been running for");
        map.stop();
    })
    .unwrap();
    map.call_later(DEADLINE, |map| map.stop());
    signal_hook::low_level::raise(signal).unwrap();
    run(&mut map).unwrap();
}

/// EDGE_CASES 302.
#[test]
fn a_turn_of_many_short_hooks_is_told_as_a_turn() {
    let (mut map, _ends, _alone) = watched(9);
    const TURN: &str = "a turn of the loop has taken";
    for _ in 0..1000 {
        map.call_soon(|_| {
            if logged_of_slow_hooks(TURN).is_empty() {
                thread::sleep(Duration::from_millis(5));
            }
        });
    }
    map.call_soon(|map| map.stop());
    run(&mut map).unwrap();
    assert!(!logged_of_slow_hooks(TURN).is_empty());
}

/// EDGE_CASES 303.
#[cfg(target_os = "linux")]
#[test]
fn the_thread_that_looks_ends_with_the_map_or_when_it_is_told_to() {
    let watchers = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "slow hooks").count()
    };
    let (mut map, _ends, _alone) = watched(0);
    wait_until("a thread looks", || watchers() == 1);
    map.watch_slow_hooks(Some(DEADLINE)).unwrap();
    map.watch_slow_hooks(None).unwrap();
    wait_until("no thread looks", || watchers() == 0);
    map.watch_slow_hooks(Some(DEADLINE)).unwrap();
    wait_until("a thread looks again", || watchers() == 1);
    drop(map);
    wait_until("no thread looks any more", || watchers() == 0);
}

/// EDGE_CASES 304.
#[test]
fn a_heartbeat_tells_a_busy_loop_from_one_that_waits_or_is_not_run() {
    let mut map = held();
    let (meter, remote) = (map.meter(), map.remote());
    assert_eq!(meter.heartbeat(), None, "nobody runs it");
    let (at_work, is_at_work) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        wait_until("it waits", || meter.heartbeat().is_none());
        let hook = move |_: &mut ChannelMap| {
            at_work.send(()).unwrap();
            may_go_on.recv_timeout(DEADLINE).unwrap();
        };
        remote.call(hook).unwrap();
        is_at_work.recv_timeout(DEADLINE).unwrap();
        let first = meter.heartbeat().unwrap();
        // It counts from the wait before the hook.
        assert!(first < DEADLINE, "{first:?}");
        wait_until("it grows", || meter.heartbeat().unwrap() > first + Duration::from_millis(5));
        go_on.send(()).unwrap();
        wait_until("it waits again", || meter.heartbeat().is_none());
        remote.stop();
        meter
    });
    run(&mut map).unwrap();
    assert_eq!(watchdog.join().unwrap().heartbeat(), None, "nobody runs it any more");
}

/// EDGE_CASES 304: also where a hook swaps the maps, and the loop goes on with another one.
#[test]
fn a_map_that_was_swapped_away_is_not_busy() {
    let mut map = ChannelMap::new().unwrap();
    let meter = map.meter();
    map.call_soon(|map| {
        let other = ChannelMap::new().unwrap();
        let first = std::mem::replace(map, other);
        let seen = map.meter();
        map.call_soon(move |map| {
            assert!(map.meter().heartbeat().is_some());
            assert_eq!(seen.heartbeat().is_some(), map.meter().heartbeat().is_some());
            drop(first);
        });
    });
    run(&mut map).unwrap();
    assert_eq!((meter.heartbeat(), map.meter().heartbeat()), (None, None));
}
