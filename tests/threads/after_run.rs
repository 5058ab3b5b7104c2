//! Rule 14: however `run` returned, remotes and outlets refuse until the loop goes on, and nobody waits
//! for it. And what a map leaves behind: no descriptors, no threads. EDGE_CASES 90 to 92.

use std::cell::RefCell;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, LoopOptions, Reason, SendError, run, run_with};

use crate::support::process::{alone, open_descriptors};
use crate::support::recorder::{Log, Recorder};
use crate::support::threads::{joined, waiting};
use crate::support::turning::turn_until;

const HOUR: Duration = Duration::from_secs(3600);

/// Every way in which `run` can return.
const WAYS: &[&str] = &[
    "empty",
    "count",
    "timeout",
    "stop",
    #[cfg(debug_assertions)]
    "poller",
];

/// Let `run` return in this way.
fn return_by(way: &str, map: &mut ChannelMap) {
    let timer = (way != "empty").then(|| map.call_later(HOUR, |_| ()));
    match way {
        "empty" => run(map).unwrap(),
        "count" => {
            map.call_soon(|_| ());
            run_with(map, &LoopOptions::default().with_count(1)).unwrap();
        }
        "timeout" => {
            let options = LoopOptions::default().with_timeout(Duration::ZERO).with_count(1);
            run_with(map, &options).unwrap();
        }
        "stop" => {
            map.stop();
            run(map).unwrap();
        }
        #[cfg(debug_assertions)]
        "poller" => {
            inject(Call::Wait, 0, 1, Fault::Errno(libc::EBADF));
            run(map).unwrap_err();
        }
        other => panic!("{other}?"),
    }
    timer.map(|timer| map.cancel(timer));
}

/// EDGE_CASES 90.
#[test]
fn remotes_refuse_however_run_returned_until_the_loop_goes_on() {
    for way in WAYS {
        let mut map = ChannelMap::new().unwrap();
        let remote = map.remote();
        let told = Arc::new(AtomicUsize::new(0));
        let tell = told.clone();
        let guard = remote.on_stop(move || _ = tell.fetch_add(1, SeqCst));
        remote.call(|_| ()).unwrap();
        return_by(way, &mut map);
        assert!(remote.is_stopped(), "{way}");
        assert_eq!(told.load(SeqCst), 1, "{way}");
        assert!(map.remote().is_stopped(), "{way}: one that is made now");
        // What was refused is given back, and can be used.
        let ran = Arc::new(AtomicUsize::new(0));
        let count = ran.clone();
        match remote.call(move |_| _ = count.fetch_add(1, SeqCst)).unwrap_err() {
            SendError::Stopped(call) => call(&mut map),
            other => panic!("{way}: {other:?}"),
        }
        assert_eq!(ran.load(SeqCst), 1, "{way}");
        // A turn lets them in again, and so does the next `run`, inside and not after.
        map.turn(Some(Duration::ZERO)).unwrap();
        assert!(!remote.is_stopped(), "{way}");
        return_by(way, &mut map);
        let (count, inside) = (ran.clone(), remote.clone());
        map.call_soon(move |_| inside.call(move |_| _ = count.fetch_add(1, SeqCst)).unwrap());
        run(&mut map).unwrap();
        assert_eq!(ran.load(SeqCst), 2, "{way}");
        assert!(remote.is_stopped(), "{way}");
        drop(guard);
    }
}

/// EDGE_CASES 90. Messages for which there is no room, and bytes that a peer does not read.
#[test]
fn who_waits_in_a_remote_or_an_outlet_is_woken_however_run_returned() {
    for way in WAYS.iter().filter(|way| **way != "empty") {
        let mut map = ChannelMap::new().unwrap();
        map.set_remote_capacity(1);
        let (near, _far) = UnixStream::pair().unwrap();
        let handle = map.add(near, Recorder::new("a", &Log::new())).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        let remote = map.remote();
        let outlet = map.channel(handle).unwrap().outlet().unwrap();
        map.channel(handle).unwrap().push(&vec![0; 1 << 20]).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        let feeder = waiting(move || outlet.send("back again"));
        // The one place is given away anew as often as it is free, and there are more who want it.
        remote.call(|_| ()).unwrap();
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let remote = remote.clone();
                waiting(move || remote.call(|_| ()).is_ok())
            })
            .collect();
        return_by(way, &mut map);
        for caller in callers {
            joined(caller);
        }
        let refused = joined(feeder).unwrap_err();
        assert!(matches!(refused, SendError::Stopped(bytes) if bytes == b"back again"), "{way}");
    }
}

/// EDGE_CASES 90: `run` that returns by itself has run all that was accepted, and accepts nothing after
/// that, whatever the threads do meanwhile.
#[test]
fn what_a_remote_accepts_while_run_returns_by_itself_has_run() {
    for capacity in [1, 3, 1024] {
        for _ in 0..60 {
            let mut map = ChannelMap::new().unwrap();
            map.set_remote_capacity(capacity);
            let ran = Arc::new(AtomicUsize::new(0));
            let threads = [(); 3].map(|()| {
                let (remote, ran) = (map.remote(), ran.clone());
                thread::spawn(move || {
                    let mut accepted = 0;
                    loop {
                        let ran = ran.clone();
                        match remote.call(move |_| _ = ran.fetch_add(1, SeqCst)) {
                            Ok(()) => accepted += 1,
                            Err(error) => {
                                assert!(matches!(error, SendError::Stopped(_)), "{error:?}");
                                return accepted;
                            }
                        }
                        thread::yield_now();
                    }
                })
            });
            run(&mut map).unwrap();
            let ran = ran.load(SeqCst);
            let accepted: usize = threads.into_iter().map(joined).sum();
            assert_eq!(accepted, ran, "accepted, and never run");
            // Which a message that came too late would do now.
            map.turn(Some(Duration::ZERO)).unwrap();
        }
    }
}

/// EDGE_CASES 91.
#[test]
fn a_dropped_map_leaves_no_descriptor_though_a_remote_and_an_outlet_live() {
    alone(None, || {
        let before = open_descriptors();
        let mut map = ChannelMap::new().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let handle = map.add(near, Recorder::new("a", &Log::new())).unwrap();
        map.listen("127.0.0.1:0", Recorder::new("b", &Log::new())).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        let remote = map.remote();
        let outlet = map.channel(handle).unwrap().outlet().unwrap();
        let guard = remote.on_stop(|| ());
        drop((map, far));
        assert_eq!(open_descriptors(), before);
        // They are as much use as any remote of a map that has ended.
        remote.stop();
        assert!(matches!(remote.call(|_| ()), Err(SendError::Ended(_))));
        assert!(matches!(remote.call_after_stop(|_| ()), Err(SendError::Ended(_))));
        assert!(matches!(outlet.try_send("bytes"), Err(SendError::Ended(_))));
        drop(guard);
    });
}

/// EDGE_CASES 92. Its `handle_close` uses what a program would: the map, a remote, a log.
#[test]
fn a_map_in_a_thread_local_ends_in_order_with_its_thread() {
    struct Last(Arc<AtomicUsize>);
    impl Dispatcher for Last {
        fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
            assert!(matches!(reason, Reason::MapEnded));
            let map = ch.map_mut();
            let refused = map.remote().call(|_| ()).unwrap_err();
            assert!(matches!(refused, SendError::Ended(_)));
            map.call_soon(|_| ());
            assert_eq!(map.turn(None).unwrap_err().kind(), ErrorKind::Deadlock);
            assert!(map.listen("127.0.0.1:0", Last(self.0.clone())).is_err());
            self.0.fetch_add(1, SeqCst);
            panic!("on purpose");
        }
    }
    impl Drop for Last {
        fn drop(&mut self) {
            self.0.fetch_add(100, SeqCst);
        }
    }
    thread_local! {
        static EARLY: RefCell<Vec<ChannelMap>> = const { RefCell::new(Vec::new()) };
        static LATE: RefCell<Vec<ChannelMap>> = const { RefCell::new(Vec::new()) };
    }
    alone(None, || {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = ended.clone();
        let (peers, fars): (Vec<_>, Vec<_>) = (0..2).map(|_| UnixStream::pair().unwrap()).unzip();
        let thread = thread::spawn(move || {
            // One is dropped after, one before whatever the library keeps in locals of its own.
            LATE.with_borrow_mut(Vec::clear);
            let mut maps: Vec<ChannelMap> = peers
                .into_iter()
                .map(|peer| {
                    let mut map = ChannelMap::new().unwrap();
                    map.add(peer, Last(count.clone())).unwrap();
                    map.call_later(HOUR, |_| ());
                    drop(map.remote());
                    map.turn(Some(Duration::ZERO)).unwrap();
                    map
                })
                .collect();
            EARLY.with_borrow_mut(|early| early.extend(maps.pop()));
            LATE.with_borrow_mut(|late| late.extend(maps.pop()));
        });
        joined(thread);
        for mut far in fars {
            assert_eq!(far.read(&mut [0]).unwrap_or(0), 0);
        }
        // Each told once; dropped with the two that were refused inside.
        assert_eq!(ended.load(SeqCst), 402);
    });
}

/// EDGE_CASES 90: a piecewise loop beside a thread turns, and never refuses.
#[test]
fn between_two_turns_remotes_are_let_in() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let remote = map.remote();
    return_by("count", &mut map);
    map.turn(Some(Duration::ZERO)).unwrap();
    let thread = thread::spawn(move || (0..3000).try_for_each(|_| remote.call(|_| ())).is_ok());
    turn_until(&mut map, &log, |_| thread.is_finished());
    assert!(joined(thread));
}

thread_local! {
    static AWAY: RefCell<Option<ChannelMap>> = const { RefCell::new(None) };
}

/// EDGE_CASES 130: a hook has swapped the map away, and `run` returned with the other one.
#[test]
fn who_waits_for_a_map_that_was_swapped_away_is_woken_when_run_returns() {
    let mut map = ChannelMap::new().unwrap();
    map.set_remote_capacity(1);
    let remote = map.remote();
    remote.call(|_| ()).unwrap();
    let sender = remote.clone();
    let waiter = waiting(move || (0..2).try_for_each(|_| sender.call(|_| ())).is_err());
    map.call_soon(|map| {
        AWAY.set(Some(ChannelMap::new().unwrap()));
        AWAY.with_borrow_mut(|away| std::mem::swap(map, away.as_mut().unwrap()));
    });
    run(&mut map).unwrap();
    assert!(joined(waiter));
    assert!(remote.is_stopped());
    // It goes on.
    let mut away = AWAY.take().unwrap();
    away.turn(Some(Duration::ZERO)).unwrap();
    remote.call(|_| ()).unwrap();
    // And the end of one that was swapped away is for good.
    away.call_soon(|map| *map = ChannelMap::new().unwrap());
    run(&mut away).unwrap();
    assert!(matches!(remote.call(|_| ()), Err(SendError::Ended(_))));
}
