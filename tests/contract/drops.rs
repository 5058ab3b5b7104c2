//! What is the user's is dropped, printed and asked by the loop, and may panic in that: rule 13's list, each
//! value dropped by itself. EDGE_CASES 93 to 95. (Panics of hooks are in `panics.rs`.)

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use dispatch_loop::{
    Channel, ChannelMap, Dispatcher, Interest, More, OnError, Producer, Reason, Source, run,
};

use crate::support::logging::{capture_log, logged};
use crate::support::peers::{loopbacks, unix_pair};
use crate::support::process::alone;
use crate::support::provoke::{assert_echoes, echo, hooks, provoke};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::turn_until;

const HOUR: Duration = Duration::from_secs(3600);

/// Counts its drops, and panics in each.
#[derive(Clone)]
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
        panic!("bomb");
    }
}

struct Bombs(Arc<AtomicUsize>);

impl Bombs {
    fn new() -> Bombs {
        Bombs(Arc::default())
    }
    fn one(&self) -> Bomb {
        Bomb(self.0.clone())
    }
    fn dropped(&self) -> usize {
        self.0.load(SeqCst)
    }
}

struct Armed {
    _bomb: Bomb,
}

impl Dispatcher for Armed {}

impl Producer for Armed {
    fn more(&mut self, _: &mut Vec<u8>) -> io::Result<More> {
        Ok(More::Later)
    }
}

struct ArmedSource {
    socket: UnixStream,
    _bomb: Bomb,
}

impl Source for ArmedSource {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.socket.shutdown(std::net::Shutdown::Write)
    }
}

fn armed_source(bombs: &Bombs) -> (ArmedSource, UnixStream) {
    let (near, far) = unix_pair();
    near.set_nonblocking(true).unwrap();
    (ArmedSource { socket: near, _bomb: bombs.one() }, far)
}

/// A channel that holds nothing but what panics when it is dropped: eight values, each several of a kind.
fn armed_channel(map: &mut ChannelMap, bombs: &Bombs) -> (dispatch_loop::Handle<Armed>, UnixStream) {
    let (source, far) = armed_source(bombs);
    let handle = map.add_source(source, Armed { _bomb: bombs.one() }).unwrap();
    let mut ch = map.channel(handle).unwrap();
    for _ in 0..2 {
        ch.push_producer(Armed { _bomb: bombs.one() }).unwrap();
        let (once, again) = (bombs.one(), bombs.one());
        ch.call_later(HOUR, move |_| {
            let _ = &once;
            Ok(())
        });
        ch.call_every(HOUR, move |_| {
            let _ = &again;
            Ok(())
        });
    }
    (handle, far)
}

const IN_A_CHANNEL: usize = 8;

/// EDGE_CASES 93.
#[test]
fn a_channel_full_of_values_whose_drops_panic_ends_alone() {
    alone(None, || {
        capture_log();
        for way in ["abort", "close", "discard", "peer", "replace", "swap"] {
            let log = Log::new();
            let bombs = Bombs::new();
            let mut map = ChannelMap::new().unwrap();
            let (_, mut far_echo) = echo(&mut map, loopbacks()[0], &log);
            let (handle, far) = armed_channel(&mut map, &bombs);
            map.turn(Some(Duration::ZERO)).unwrap();
            let mut ch = map.channel(handle).unwrap();
            ch.set_close_timeout(Duration::from_millis(1));
            match way {
                "abort" => ch.abort(),
                "close" => ch.close(),
                "discard" => {
                    ch.discard_queued();
                    assert_eq!(bombs.dropped(), 2, "both, and nothing else");
                    ch.close();
                }
                "peer" => drop(far),
                "replace" => {
                    ch.replace_dispatcher(Recorder::new("new", &log)).unwrap();
                    assert_eq!(bombs.dropped(), 1);
                    ch.abort();
                }
                _ => {
                    // The hook that is away for good with its map.
                    let away = Rc::new(RefCell::new(ChannelMap::new().unwrap()));
                    let other = away.clone();
                    map.with(handle, move |_, ch| {
                        std::mem::swap(ch.map_mut(), &mut other.borrow_mut());
                        Ok(())
                    })
                    .unwrap();
                    std::mem::swap(&mut map, &mut away.borrow_mut());
                }
            }
            turn_until(&mut map, &log, |map| !map.contains(handle));
            assert_eq!(bombs.dropped(), IN_A_CHANNEL, "{way}");
            assert!(!logged("bomb").is_empty(), "{way}: nothing was logged");
            assert_echoes(&mut map, &log, &mut far_echo);
        }
    });
}

/// EDGE_CASES 93. Also in the midst of another panic.
#[test]
fn a_map_full_of_values_whose_drops_panic_is_dropped_in_order() {
    alone(None, || {
        for way in ["drop", "unwind", "thread"] {
            let bombs = Bombs::new();
            let counts = bombs.0.clone();
            let fill = move || {
                let bombs = Bombs(counts);
                let mut map = ChannelMap::new().unwrap();
                map.set_resolver({
                    let bomb = bombs.one();
                    move |_, _| Err(io::Error::other(format!("{:p}", &bomb)))
                });
                let fars = [(); 2].map(|()| armed_channel(&mut map, &bombs).1);
                for _ in 0..2 {
                    let [a, b, c] = [bombs.one(), bombs.one(), bombs.one()];
                    map.call_later(HOUR, move |_| drop(a));
                    map.call_every(HOUR, move |_| _ = &b);
                    map.remote().call(move |_| drop(c)).unwrap();
                }
                (map, fars)
            };
            const ALL: usize = 2 * IN_A_CHANNEL + 2 * 3 + 1;
            match way {
                "drop" => drop(fill()),
                "unwind" => {
                    let unwound = catch_unwind(AssertUnwindSafe(|| {
                        let _filled = fill();
                        panic!("in the midst of it");
                    }));
                    assert!(unwound.is_err());
                }
                _ => {
                    thread_local!(static LAST: RefCell<Option<ChannelMap>> = const { RefCell::new(None) });
                    std::thread::spawn(move || LAST.set(Some(fill().0))).join().unwrap();
                }
            }
            assert_eq!(bombs.dropped(), ALL, "{way}");
        }
    });
}

/// EDGE_CASES 93: a map that is being dropped takes nothing; and what is exchanged, cancelled, refused or
/// done with goes one by one.
#[test]
fn what_is_refused_exchanged_or_cancelled_is_dropped_one_by_one() {
    struct AddsMore(Bombs);
    impl Dispatcher for AddsMore {
        fn handle_close(&mut self, ch: &mut Channel<'_>, _: &Reason) {
            let (source, _far) = armed_source(&self.0);
            let added = ch.map_mut().add_source(source, Armed { _bomb: self.0.one() });
            assert_eq!(added.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
    }
    alone(None, || {
        let bombs = Bombs::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, _far) = unix_pair();
        map.add(near, AddsMore(Bombs(bombs.0.clone()))).unwrap();
        drop(map);
        assert_eq!(bombs.dropped(), 2);

        let mut map = ChannelMap::new().unwrap();
        for _ in 0..3 {
            let bomb = bombs.one();
            map.set_resolver(move |_, _| Err(io::Error::other(format!("{:p}", &bomb))));
        }
        assert_eq!(bombs.dropped(), 4);
        let (a, b) = (bombs.one(), bombs.one());
        let once = map.call_later(HOUR, move |_| drop(a));
        // From within itself: it is dropped when it has returned.
        let every = Rc::new(Cell::new(None));
        let (own, count) = (every.clone(), bombs.0.clone());
        every.set(Some(map.call_every(Duration::ZERO, move |map| {
            let _ = &b;
            let before = count.load(SeqCst);
            assert!(map.cancel(own.get().unwrap()));
            assert_eq!(count.load(SeqCst), before);
        })));
        assert!(map.cancel(once));
        map.turn(Some(Duration::ZERO)).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(bombs.dropped(), 6);
        // A producer that is finished, and what watches a stop and leaves meanwhile.
        let (near, _far) = unix_pair();
        let handle = map.add(near, Recorder::new("a", &Log::new())).unwrap();
        let mut producers = [bombs.one(), bombs.one()].into_iter().map(|bomb| {
            move |_: &mut Vec<u8>| {
                let _ = &bomb;
                Ok(More::Done)
            }
        });
        let mut ch = map.channel(handle).unwrap();
        ch.push_producer(producers.next().unwrap()).unwrap();
        ch.push_producer(producers.next().unwrap()).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(bombs.dropped(), 8);
        assert!(map.contains(handle));
        let remote = map.remote();
        let guards = Arc::new(std::sync::Mutex::new(Vec::new()));
        for _ in 0..2 {
            let (all, bomb) = (guards.clone(), bombs.one());
            guards.lock().unwrap().push(remote.on_stop(move || {
                let _ = &bomb;
                let all = std::mem::take(&mut *all.lock().unwrap());
                drop(all);
            }));
        }
        map.stop();
        run(&mut map).unwrap();
        assert_eq!(bombs.dropped(), 10);
    });
}

/// An error that panics when it is printed, or when it is dropped.
#[derive(Debug)]
struct Mine {
    in_display: bool,
}

impl Error for Mine {}

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(!self.in_display, "in its display");
        f.write_str("mine")
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        assert!(self.in_display, "in its drop");
    }
}

fn mine(kind: ErrorKind, in_display: bool) -> io::Error {
    io::Error::new(kind, Mine { in_display })
}

/// Its `handle_close` looks at the reason, as a program would that knows its own errors.
struct Looks {
    log: Log,
    on_error: OnError,
    hook: Option<Box<dyn FnOnce() -> io::Error>>,
}

impl Dispatcher for Looks {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        if let Some(hook) = self.hook.take() {
            return Err(hook());
        }
        ch.read_with(|_, _| Ok(()))
    }
    fn handle_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> OnError {
        let mine = error.get_ref().is_some_and(|error| error.is::<Mine>());
        self.log.add(format!("a error, mine: {mine}"));
        self.on_error
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, _: &Reason) {
        self.log.add("a close: ");
    }
}

/// EDGE_CASES 94: of every hook, also with `Keep`; of a timer, a producer, a `with`, `WouldBlock` too.
#[test]
fn an_error_of_the_users_may_panic_when_it_is_printed_or_dropped() {
    alone(None, || {
        for in_display in [true, false] {
            for hook in hooks() {
                let log = Log::new();
                let mut map = ChannelMap::new().unwrap();
                let (_, mut far_echo) = echo(&mut map, loopbacks()[0], &log);
                let recorder = Recorder::new("a", &log)
                    .on(hook, move |_| Err(mine(ErrorKind::Other, in_display)))
                    .quiet();
                let (handle, _far) = provoke(&mut map, loopbacks()[0], hook, recorder);
                turn_until(&mut map, &log, |map| !map.contains(handle));
                assert_echoes(&mut map, &log, &mut far_echo);
            }
            for kind in [ErrorKind::Other, ErrorKind::WouldBlock, ErrorKind::Interrupted] {
                for on_error in [OnError::Keep, OnError::End] {
                    for at in ["read", "timer", "producer", "with"] {
                        let log = Log::new();
                        let mut map = ChannelMap::new().unwrap();
                        let (_, mut far_echo) = echo(&mut map, loopbacks()[0], &log);
                        let (near, mut far) = unix_pair();
                        let error = move || mine(kind, in_display);
                        let hook = (at == "read").then(|| Box::new(error) as Box<_>);
                        let handle = map.add(near, Looks { log: log.clone(), on_error, hook }).unwrap();
                        let mut ch = map.channel(handle).unwrap();
                        match at {
                            "read" => far.write_all(b"x").unwrap(),
                            "timer" => _ = ch.call_later(Duration::ZERO, move |_| Err(error())),
                            "producer" => ch.push_producer(move |_: &mut Vec<u8>| Err(error())).unwrap(),
                            _ => {
                                // It comes back as it is, and stays the caller's.
                                let error = map.with(handle, |_, _| Err::<(), _>(error())).unwrap_err();
                                assert!(error.get_ref().is_some_and(|error| error.is::<Mine>()));
                                std::mem::forget(error);
                            }
                        }
                        for _ in 0..5 {
                            map.turn(Some(Duration::ZERO)).unwrap();
                        }
                        if on_error == OnError::Keep && map.contains(handle) {
                            map.channel(handle).unwrap().abort();
                        }
                        drop(far);
                        turn_until(&mut map, &log, |map| !map.contains(handle));
                        assert_eq!(log.count("a close"), 1, "{at} {kind:?}");
                        assert_echoes(&mut map, &log, &mut far_echo);
                    }
                }
            }
        }
    });
}

/// What one method of a source does, while the others do what they should.
struct Trap {
    socket: UnixStream,
    method: &'static str,
    spring: Rc<dyn Fn() -> io::Error>,
    armed: Rc<Cell<bool>>,
}

impl Trap {
    fn check(&self, method: &str) -> io::Result<()> {
        if self.armed.get() && method == self.method { Err((self.spring)()) } else { Ok(()) }
    }
}

impl Source for Trap {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // Its own error is of no use here: only the panic is.
        self.check("descriptor").ok()?;
        Some(self.socket.as_fd())
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check("recv")?;
        self.socket.read(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check("send")?;
        self.socket.write(bytes)
    }
    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check("send")?;
        self.socket.write_vectored(pieces)
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.check("shutdown_write")?;
        self.socket.shutdown(std::net::Shutdown::Write)
    }
    fn drive(&mut self, _: Interest) -> io::Result<bool> {
        self.check("drive").map(|()| false)
    }
}

/// EDGE_CASES 95: a source's `descriptor` that panics, at first and later; and its errors, which panic when
/// they are printed or dropped, whenever they come.
#[test]
fn a_source_may_panic_in_all_that_it_is_asked_and_all_that_it_returns() {
    alone(None, || {
        for method in ["descriptor", "recv", "send", "shutdown_write", "drive"] {
            for spring in ["panic", "display", "drop", "would block"] {
                if method == "descriptor" && spring != "panic" {
                    continue;
                }
                for when in ["at first", "open", "queued", "closing", "lingering", "dropped"] {
                    let log = Log::new();
                    let mut map = ChannelMap::new().unwrap();
                    let (_, mut far_echo) = echo(&mut map, loopbacks()[0], &log);
                    let (near, mut far) = unix_pair();
                    near.set_nonblocking(true).unwrap();
                    let armed = Rc::new(Cell::new(when == "at first"));
                    let error = move || match spring {
                        "panic" => panic!("on purpose"),
                        "display" => mine(ErrorKind::Other, true),
                        "drop" => mine(ErrorKind::Other, false),
                        _ => mine(ErrorKind::WouldBlock, false),
                    };
                    let trap = Trap { socket: near, method, spring: Rc::new(error), armed: armed.clone() };
                    let looks = Looks { log: log.clone(), on_error: OnError::End, hook: None };
                    let handle = map.add_source(trap, looks).unwrap();
                    for _ in 0..3 {
                        map.turn(Some(Duration::ZERO)).unwrap();
                    }
                    if let Ok(mut ch) = map.channel(handle) {
                        ch.set_close_timeout(Duration::from_millis(1));
                        match when {
                            "queued" => ch.push(&vec![0; 4 << 20]).unwrap(),
                            "closing" | "lingering" => {
                                far.write_all(b"that is not read").unwrap();
                                let more = if when == "closing" { 4 << 20 } else { 10 };
                                ch.push(&vec![0; more]).unwrap();
                                ch.close();
                            }
                            _ => {}
                        }
                    }
                    map.turn(Some(Duration::ZERO)).unwrap();
                    armed.set(true);
                    if when == "dropped" {
                        drop(map);
                        assert_eq!(log.count("a close"), 1);
                        continue;
                    }
                    let _ = far.write(b"input");
                    if let Ok(mut ch) = map.channel(handle) {
                        let _ = ch.push(&vec![0; 8192]);
                    }
                    for _ in 0..3 {
                        map.turn(Some(Duration::ZERO)).unwrap();
                    }
                    if let Ok(mut ch) = map.channel(handle) {
                        ch.close();
                    }
                    map.turn(Some(Duration::ZERO)).unwrap();
                    drop(far);
                    turn_until(&mut map, &log, |map| {
                        // One that never gets anything done: time passes.
                        if let Ok(mut ch) = map.channel(handle) {
                            ch.set_timeout(Some(Duration::from_millis(1)));
                        }
                        !map.contains(handle)
                    });
                    assert_eq!(log.count("a close"), 1, "{method} {spring} {when}");
                    assert_echoes(&mut map, &log, &mut far_echo);
                }
            }
        }
    });
}

/// EDGE_CASES 94: it is told as the outcome of the look-up, at once and not at the deadline.
#[test]
fn an_error_of_a_resolver_may_panic_when_it_is_printed_or_dropped() {
    alone(None, || {
        for in_display in [true, false] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            map.set_resolver(move |_, _| Err(mine(ErrorKind::NotFound, in_display)));
            map.connect("a.test:80", Recorder::new("a", &log)).unwrap();
            run(&mut map).unwrap();
            assert!(log.closed("a"));
            assert!(!log.events().iter().any(|event| event.contains("in time")), "{:?}", log.events());
        }
    });
}
