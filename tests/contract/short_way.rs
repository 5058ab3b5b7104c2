//! The short way of a message: what a hook pushes leaves in one call, and whatever a hook does to its
//! channel, the next message and the end still come. DESIGN §4, and the rules 5, 6, 13 and 15.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, count, inject};
use dispatch_loop::{
    Channel, ChannelMap, Dispatcher, Eof, Handle, LoopOptions, OnError, OnLimit, Outlet, Reason, Source,
    Token, run, run_with,
};

use crate::support::ends::Wire;
use crate::support::opened::{fill, view};
use crate::support::peers::{loopbacks, narrow_pair, pair, read_exactly, read_now, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::records::{Options, Records};
use crate::support::turning::{turn_idle, turn_quiet, turn_until, waits_in};
use crate::support::waiting::{DEADLINE, wait_for_input, wait_until};

type Hook = Box<dyn FnMut(&mut Channel<'_>) -> io::Result<()>>;
type OnRead = Box<dyn FnMut(&mut Channel<'_>, &[u8]) -> io::Result<()>>;

/// An echo on the short way: `readable` and `writable` are the defaults. Records its hooks but
/// `handle_read`, as `Recorder` does, and can be told what to do with the next messages.
struct Quick {
    name: &'static str,
    log: Log,
    /// Instead of the echo.
    on_read: Option<OnRead>,
    hooks: Vec<(&'static str, Hook)>,
    eof: Eof,
}

impl Quick {
    fn new(name: &'static str, log: &Log) -> Quick {
        Quick { name, log: log.clone(), on_read: None, hooks: Vec::new(), eof: Eof::Close }
    }

    fn on_read(mut self, f: impl FnMut(&mut Channel<'_>, &[u8]) -> io::Result<()> + 'static) -> Quick {
        self.on_read = Some(Box::new(f));
        self
    }

    fn on(
        mut self,
        hook: &'static str,
        f: impl FnMut(&mut Channel<'_>) -> io::Result<()> + 'static,
    ) -> Quick {
        self.hooks.push((hook, Box::new(f)));
        self
    }

    fn keep_writing(mut self) -> Quick {
        self.eof = Eof::KeepWriting;
        self
    }

    fn ran(&mut self, hook: &'static str, ch: &mut Channel<'_>) -> io::Result<()> {
        self.log.add(format!("{} {hook}", self.name));
        let mut of_it = self.hooks.iter_mut().filter(|(name, _)| *name == hook);
        of_it.try_for_each(|(_, f)| f(ch))
    }
}

impl Dispatcher for Quick {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.ran("open", ch)
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| match &mut self.on_read {
            Some(f) => f(ch, data),
            None => ch.push(data),
        })
    }
    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.ran("eof", ch)?;
        Ok(self.eof)
    }
    fn handle_drained(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.ran("drained", ch)
    }
    fn handle_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> OnError {
        self.log.add(format!("{} error: {error}", self.name));
        OnError::End
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        self.log.add(format!("{} close: {reason}", self.name));
    }
}

/// A connected pair of each family; the far end waits.
fn wires() -> Vec<(dispatch_loop::Socket, socket2::Socket)> {
    let unix = || {
        let (near, far) = unix_pair();
        (near.into(), far.into())
    };
    let tcp = |on| {
        let (near, far) = pair(on);
        (near.into(), far.into())
    };
    loopbacks().into_iter().map(tcp).chain([unix()]).collect()
}

/// A map with this dispatcher, which has echoed a few messages: its channel goes the short way.
fn warm<D: Dispatcher>(
    near: dispatch_loop::Socket,
    far: &mut socket2::Socket,
    dispatcher: D,
) -> (ChannelMap, Handle<D>) {
    let mut map = ChannelMap::new().unwrap();
    let handle = map.add(near, dispatcher).unwrap();
    turn_quiet(&mut map);
    warm_up(&mut map, handle.token(), far);
    (map, handle)
}

fn warm_up(map: &mut ChannelMap, token: Token, far: &mut socket2::Socket) {
    for _ in 0..3 {
        give(map, token, far, b"warm");
        assert_eq!(read_exactly(far, 4), b"warm");
    }
}

/// Send this, and turn until it is served.
#[track_caller]
fn give(map: &mut ChannelMap, token: Token, far: &mut socket2::Socket, bytes: &[u8]) {
    far.write_all(bytes).unwrap();
    wait_for_input(view(map, token).socket().unwrap());
    turn_quiet(map);
}

/// Echo, but for messages that `f` answers: those that begin with a `!`.
fn told(
    mut f: impl FnMut(&mut Channel<'_>, &[u8]) -> io::Result<()> + 'static,
) -> impl FnMut(&mut Channel<'_>, &[u8]) -> io::Result<()> + 'static {
    move |ch, data| match data.first() {
        Some(b'!') => f(ch, data),
        _ => ch.push(data),
    }
}

// Gathered output.

/// However many pushes it were, from whatever runs with the channel's own view.
#[cfg(debug_assertions)]
#[test]
fn what_one_hook_pushes_leaves_in_one_call() {
    for pushes in [2, 3, 50] {
        for place in ["read", "open", "eof", "timer", "remote", "with"] {
            for (near, mut far) in wires() {
                let log = Log::new();
                let push = move |ch: &mut Channel<'_>| (0..pushes).try_for_each(|at| ch.push(&[at; 8]));
                let quick = Quick::new("a", &log).on_read(told(move |ch, _| push(ch))).keep_writing();
                let quick = match place {
                    "open" | "eof" => quick.on(place, push),
                    _ => quick,
                };
                let before = count(Call::Send);
                let (mut map, handle) = match place {
                    "open" => {
                        let mut map = ChannelMap::new().unwrap();
                        let handle = map.add(near, quick).unwrap();
                        turn_quiet(&mut map);
                        (map, handle)
                    }
                    _ => warm(near, &mut far, quick),
                };
                let before = if place == "open" { before } else { count(Call::Send) };
                match place {
                    "read" => give(&mut map, handle.token(), &mut far, b"!"),
                    "eof" => {
                        far.shutdown(Shutdown::Write).unwrap();
                        turn_until(&mut map, &log, |_| log.has("a eof"));
                    }
                    "timer" => {
                        map.channel(handle).unwrap().call_later(Duration::ZERO, push);
                    }
                    "remote" => {
                        let remote = map.remote();
                        let sent = thread::spawn(move || remote.with(handle, move |_, ch| push(ch)));
                        sent.join().unwrap().unwrap();
                    }
                    "with" => map.with(handle, |_, ch| push(ch)).unwrap(),
                    _ => {}
                }
                turn_until(&mut map, &log, |_| count(Call::Send) > before);
                turn_quiet(&mut map);
                assert_eq!(count(Call::Send), before + 1, "{pushes} pushes in {place}");
                let wanted: Vec<u8> = (0..pushes).flat_map(|at| [at; 8]).collect();
                assert_eq!(read_exactly(&mut far, wanted.len()), wanted);
            }
        }
    }
}

/// All small, whatever they are pushed as: one call. A large one takes along what was gathered before it,
/// at once, and what comes after it is a call of its own.
#[cfg(debug_assertions)]
#[test]
fn a_header_leaves_with_its_body_in_one_call() {
    for body in [3000, 4096, 10_000] {
        for way in ["push", "push_vec", "push_shared", "push_vectored"] {
            for (near, mut far) in wires() {
                let log = Log::new();
                let inside = Rc::new(Cell::new((0, 0)));
                let seen = inside.clone();
                let answer = move |ch: &mut Channel<'_>, _: &[u8]| {
                    let before = count(Call::Send);
                    ch.push(b"header;")?;
                    let bytes = vec![b'b'; body];
                    match way {
                        "push" => ch.push(&bytes)?,
                        "push_vec" => ch.push_vec(bytes)?,
                        "push_shared" => ch.push_shared(bytes.into())?,
                        _ => {
                            let (one, other) = bytes.split_at(1000);
                            ch.push_vectored(&[IoSlice::new(one), IoSlice::new(other)])?;
                        }
                    }
                    seen.set((count(Call::Send) - before, ch.queued()));
                    ch.push(b";trailer")
                };
                let (mut map, handle) = warm(near, &mut far, Quick::new("a", &log).on_read(told(answer)));
                let before = count(Call::Send);
                give(&mut map, handle.token(), &mut far, b"!");
                let (in_the_hook, calls) = match body {
                    3000 => ((0, 3007), 1),
                    _ => ((1, 0), 2),
                };
                assert_eq!(inside.get(), in_the_hook, "{body} bytes by {way}: calls and bytes queued");
                assert_eq!(count(Call::Send), before + calls, "{body} bytes by {way}");
                let wanted = [&b"header;"[..], &vec![b'b'; body], b";trailer"].concat();
                assert_eq!(read_exactly(&mut far, wanted.len()), wanted);
            }
        }
    }
}

/// They are output like any other, while they wait for the hook's return. The socket has no room: otherwise
/// it is offered them before the limit is declared.
#[cfg(debug_assertions)]
#[test]
fn gathered_bytes_count_as_queued_and_for_the_limit() {
    for (limit, gathered, too_much) in [(5000, 4000, 1001), (60, 50, 11)] {
        for (near, mut far) in wires() {
            let log = Log::new();
            let answer = move |ch: &mut Channel<'_>, _: &[u8]| {
                ch.push(&vec![b'1'; gathered / 2])?;
                ch.push(&vec![b'2'; gathered / 2])?;
                assert_eq!(ch.queued(), gathered);
                inject(Call::Send, 0, 2, Fault::Errno(libc::EAGAIN));
                ch.set_limit(limit, OnLimit::Refuse);
                let refused = ch.push(&vec![b'3'; too_much]).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
                assert!(refused.to_string().contains(&format!("the {gathered} queued")), "{refused}");
                assert_eq!(ch.queued(), gathered, "a push that is refused takes nothing");
                ch.push(&vec![b'4'; too_much - 1])
            };
            let (mut map, handle) = warm(near, &mut far, Quick::new("a", &log).on_read(told(answer)));
            give(&mut map, handle.token(), &mut far, b"!");
            assert_eq!(log.of("a"), ["open", "drained"], "it had to wait");
            let half = |digit| vec![digit; gathered / 2];
            let wanted = [half(b'1'), half(b'2'), vec![b'4'; too_much - 1]].concat();
            assert_eq!(read_exactly(&mut far, wanted.len()), wanted);
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn gathered_bytes_over_the_limit_end_the_channel() {
    for (near, mut far) in wires() {
        let log = Log::new();
        let answer = |ch: &mut Channel<'_>, _: &[u8]| {
            ch.set_limit(4096, OnLimit::End);
            ch.push(&[b'x'; 4000])?;
            inject(Call::Send, 0, 2, Fault::Errno(libc::EAGAIN));
            ch.push(&[b'y'; 97])
        };
        let (mut map, handle) = warm(near, &mut far, Quick::new("a", &log).on_read(told(answer)));
        far.write_all(b"!").unwrap();
        turn_until(&mut map, &log, |map| !map.contains(handle));
        assert_eq!(log.of("a"), ["open", &format!("close: {}", Reason::Limit)]);
    }
}

/// Everything in capitals.
struct Capitals(Box<dyn Source>);

impl Source for Capitals {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(&bytes.to_ascii_uppercase())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.0.shutdown_write()
    }
}

/// What has to be behind it, is.
#[test]
fn gathered_bytes_leave_before_a_send_a_source_put_around_and_a_detach() {
    let doings: [(&str, OnRead, &[u8]); 5] = [
        (
            "send",
            Box::new(|ch, _| ch.push(b"one ").and(ch.send(b"two ").map(drop)).and(ch.push(b"three"))),
            b"one two three",
        ),
        (
            "wrap_source",
            Box::new(|ch, _| {
                ch.push(b"one ")?;
                ch.wrap_source(|plain| Ok(Box::new(Capitals(plain))))?;
                ch.push(b"two ")?;
                ch.push(b"three")
            }),
            b"one TWO THREE",
        ),
        (
            "detach",
            Box::new(|ch, _| {
                ch.push(b"one ")?;
                let detached = ch.detach()?;
                assert!(detached.unsent.is_empty());
                ch.map_mut()
                    .add(detached.socket, Quick::new("b", &Log::new()).on("open", |ch| ch.push(b"two")))?;
                Ok(())
            }),
            b"one two",
        ),
        (
            "shutdown_write",
            Box::new(|ch, _| {
                ch.push(b"one ")?;
                ch.push(b"two")?;
                ch.shutdown_write();
                assert!(ch.push(b"three").is_err());
                Ok(())
            }),
            b"one two",
        ),
        (
            "push_producer",
            Box::new(|ch, _| {
                ch.push(b"one ")?;
                ch.push_producer(|buffer: &mut Vec<u8>| {
                    buffer.extend_from_slice(b"two ");
                    Ok(dispatch_loop::More::Done)
                })?;
                ch.push(b"three")
            }),
            b"one two three",
        ),
    ];
    for (what, doing, wanted) in doings {
        let doing = Rc::new(RefCell::new(doing));
        for (near, mut far) in wires() {
            let log = Log::new();
            let doing = doing.clone();
            let quick = Quick::new("a", &log).on_read(told(move |ch, data| doing.borrow_mut()(ch, data)));
            let (mut map, handle) = warm(near, &mut far, quick);
            give(&mut map, handle.token(), &mut far, b"!");
            turn_quiet(&mut map);
            let got = read_exactly(&mut far, wanted.len());
            assert_eq!(got, wanted, "{what}: {}", String::from_utf8_lossy(&got));
            assert_eq!(log.count("a error"), 0, "{what}: {:?}", log.events());
        }
    }
}

/// Whatever part of the one that was sent had room.
#[cfg(debug_assertions)]
#[test]
fn what_is_pushed_after_a_send_comes_after_it() {
    for fault in [None, Some(Fault::Short(2)), Some(Fault::Errno(libc::EAGAIN))] {
        for (near, mut far) in wires() {
            let log = Log::new();
            let answer = move |ch: &mut Channel<'_>, _: &[u8]| {
                ch.push(b"first ")?;
                if let Some(fault) = fault {
                    inject(Call::Send, 0, 1, fault);
                }
                let sent = ch.send(b"second ")?;
                ch.push(&b"second "[sent..])?;
                ch.push(b"third ")?;
                let sent = ch.send(b"fourth ")?;
                ch.push(&b"fourth "[sent..])?;
                ch.push(b"fifth")
            };
            let (mut map, handle) = warm(near, &mut far, Quick::new("a", &log).on_read(told(answer)));
            give(&mut map, handle.token(), &mut far, b"!");
            turn_quiet(&mut map);
            let wanted = b"first second third fourth fifth";
            assert_eq!(read_exactly(&mut far, wanted.len()), wanted, "{fault:?}: {:?}", log.events());
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn what_is_pushed_to_another_channel_leaves_in_one_call_at_the_settle() {
    for (near, mut far) in wires() {
        let log = Log::new();
        let twin = Rc::new(Cell::new(None));
        let (to, inside) = (twin.clone(), Rc::new(Cell::new(0)));
        let seen = inside.clone();
        let answer = move |ch: &mut Channel<'_>, _: &[u8]| {
            let before = count(Call::Send);
            let mut twin = ch.map_mut().channel(to.get().unwrap())?;
            twin.push(b"one ")?;
            twin.push_vec(b"two ".to_vec())?;
            twin.push(b"three")?;
            assert_eq!(twin.queued(), 13);
            seen.set(count(Call::Send) - before);
            Ok(())
        };
        let (mut map, handle) = warm(near, &mut far, Quick::new("a", &log).on_read(told(answer)));
        let (near_twin, mut far_twin) = unix_pair();
        twin.set(Some(map.add(near_twin, Quick::new("b", &log)).unwrap().token()));
        turn_quiet(&mut map);
        let before = count(Call::Send);
        far.write_all(b"!").unwrap();
        wait_for_input(view(&mut map, handle.token()).socket().unwrap());
        map.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!((inside.get(), count(Call::Send) - before), (0, 1));
        assert_eq!(read_exactly(&mut far_twin, 13), b"one two three");
    }
}

// Whom it concerns.

/// Python asks `readable` and `writable` before each wait: what another channel's hook has changed in this
/// turn is known by then, whichever of the two was served first.
#[test]
fn readable_is_asked_after_the_hooks_of_all_channels_of_the_turn() {
    struct Asked {
        name: &'static str,
        log: Log,
        open: Rc<Cell<bool>>,
    }
    impl Dispatcher for Asked {
        fn readable(&self, _: &Channel<'_>) -> bool {
            self.log.add(format!("asked {}", self.name));
            self.open.get()
        }
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.read_with(|ch, data| {
                self.log.add(format!("read {}", self.name));
                if data == b"shut" {
                    self.open.set(false);
                }
                ch.push(data)
            })
        }
    }
    for shuts in ["a", "b"] {
        for (near, mut far) in wires() {
            let log = Log::new();
            let open = Rc::new(Cell::new(true));
            let asked = |name| Asked { name, log: log.clone(), open: open.clone() };
            let (mut map, one) = warm(near, &mut far, asked("a"));
            let (near_other, far_other) = unix_pair();
            let mut far_other = socket2::Socket::from(far_other);
            let other = map.add(near_other, asked("b")).unwrap();
            turn_quiet(&mut map);
            warm_up(&mut map, other.token(), &mut far_other);
            let before = log.events().len();
            let words = if shuts == "a" { [b"shut", b"word"] } else { [b"word", b"shut"] };
            far.write_all(words[0]).unwrap();
            far_other.write_all(words[1]).unwrap();
            for token in [one.token(), other.token()] {
                wait_for_input(view(&mut map, token).socket().unwrap());
            }
            map.turn(Some(Duration::ZERO)).unwrap();
            // To look at a channel from outside is to have it asked, before the wait.
            let mut so_far = log.events().split_off(before);
            so_far.drain(..so_far.iter().position(|event| event.starts_with("read")).unwrap());
            so_far[..2].sort();
            so_far[2..].sort();
            // One that answers otherwise may be asked once more.
            so_far.dedup();
            assert_eq!(so_far, ["read a", "read b", "asked a", "asked b"]);
            // Both know that it is shut.
            far.write_all(b"more").unwrap();
            far_other.write_all(b"more").unwrap();
            turn_idle(&mut map);
            assert_eq!(log.count("read "), 8, "{:?}", log.events());
            open.set(true);
            for token in [one.token(), other.token()] {
                view(&mut map, token).resume_reading();
            }
            turn_until(&mut map, &log, |_| log.count("read ") == 10);
        }
    }
}

/// A dispatcher that comes in the middle is asked, also where the one before it never was.
#[test]
fn a_new_dispatcher_with_a_readable_of_its_own_is_asked() {
    for (near, mut far) in wires() {
        let log = Log::new();
        let hungry = Rc::new(Cell::new(false));
        let (inner, is_hungry) = (log.clone(), hungry.clone());
        let answer = move |ch: &mut Channel<'_>, _: &[u8]| {
            let is_hungry = is_hungry.clone();
            ch.replace_dispatcher(Recorder::new("new", &inner).readable(move |_| is_hungry.get()))?;
            Ok(())
        };
        let (mut map, handle) = warm(near, &mut far, Quick::new("a", &log).on_read(told(answer)));
        let token = handle.token();
        give(&mut map, token, &mut far, b"!");
        far.write_all(b"food").unwrap();
        turn_idle(&mut map);
        assert_eq!(log.count("new read"), 0, "{:?}", log.events());
        hungry.set(true);
        view(&mut map, token).resume_reading();
        turn_until(&mut map, &log, |_| log.input("new") == b"food");
    }
}

// Panics.

const CROWD: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A map with this many channels on the short way, all of which have input now.
fn crowd(
    log: &Log,
    f: impl Fn(&mut Channel<'_>) + Clone + 'static,
) -> (ChannelMap, Vec<(Token, socket2::Socket)>) {
    let mut map = ChannelMap::new().unwrap();
    let mut ends: Vec<(Token, socket2::Socket)> = Vec::new();
    for (at, name) in CROWD.into_iter().enumerate() {
        let f = f.clone();
        let told = told(move |ch, _| {
            f(ch);
            Ok(())
        });
        let (near, far) = wires().swap_remove(at % wires().len());
        let handle = map.add(near, Quick::new(name, log).on_read(told)).unwrap();
        ends.push((handle.token(), far));
    }
    turn_quiet(&mut map);
    for (token, far) in &mut ends {
        warm_up(&mut map, *token, far);
    }
    (map, ends)
}

/// Message all of them, `victim` with what makes it panic, and wait until all have come.
fn message_all(map: &mut ChannelMap, ends: &mut [(Token, socket2::Socket)], victim: usize) {
    for (at, (token, far)) in ends.iter_mut().enumerate() {
        far.write_all(if at == victim { b"!" } else { b"?" }).unwrap();
        wait_for_input(view(map, *token).socket().unwrap());
    }
}

fn one_turn(map: &mut ChannelMap, in_run: bool) {
    match in_run {
        true => run_with(map, &LoopOptions::default().with_count(1)).unwrap(),
        false => map.turn(Some(Duration::ZERO)).unwrap(),
    }
}

/// Whoever's hook it was, wherever in the batch it stood.
#[test]
fn a_panic_among_many_ready_channels_ends_that_one_and_the_rest_are_served_in_the_same_turn() {
    for in_run in [true, false] {
        for victim in 0..CROWD.len() {
            let log = Log::new();
            let (mut map, mut ends) = crowd(&log, |ch| {
                let _ = ch.push(b"what was pushed before it leaves");
                panic!("on purpose");
            });
            message_all(&mut map, &mut ends, victim);
            one_turn(&mut map, in_run);
            for (at, (token, far)) in ends.iter_mut().enumerate() {
                let name = CROWD[at];
                if at == victim {
                    assert!(!map.contains(*token));
                    assert!(log.of(name)[1].starts_with("error: "), "{name}: {:?}", log.events());
                    assert!(log.closed(name));
                } else {
                    assert_eq!(log.of(name), ["open"], "{victim} is to be blamed");
                    assert_eq!(read_exactly(far, 1), b"?");
                }
            }
        }
    }
}

/// The map that was swapped away keeps its batch; nobody else's channel is blamed in either, and both go on.
#[test]
fn a_hook_that_swaps_the_maps_and_panics_takes_nobody_along() {
    for in_run in [true, false] {
        for panics in [true, false] {
            for back in [true, false] {
                for victim in 0..CROWD.len() {
                    let theirs = Log::new();
                    let (other, mut their_ends) = crowd(&theirs, |_| ());
                    let other = Rc::new(RefCell::new(other));
                    let log = Log::new();
                    let elsewhere = other.clone();
                    let (mut map, mut ends) = crowd(&log, move |ch| {
                        let _ = ch.push(b"lost or not");
                        mem::swap(ch.map_mut(), &mut elsewhere.borrow_mut());
                        if back {
                            mem::swap(ch.map_mut(), &mut elsewhere.borrow_mut());
                        }
                        assert!(!panics, "on purpose");
                    });
                    message_all(&mut other.borrow_mut(), &mut their_ends, usize::MAX);
                    message_all(&mut map, &mut ends, victim);
                    one_turn(&mut map, in_run);
                    let what = format!("panics: {panics}, back: {back}, {victim}: {:?}", log.events());
                    if back {
                        // In the same turn, as without the swap.
                        for (at, (_, far)) in ends.iter_mut().enumerate().filter(|(at, _)| *at != victim) {
                            assert_eq!(read_exactly(far, 1), b"?", "{what}: {at}");
                        }
                    }
                    for map in [&mut map, &mut *other.borrow_mut()] {
                        turn_idle(map);
                    }
                    for (at, (_, far)) in ends.iter_mut().enumerate().filter(|(at, _)| *at != victim) {
                        if !back {
                            assert_eq!(read_exactly(far, 1), b"?", "{what}");
                        }
                        assert_eq!(log.of(CROWD[at]), ["open"], "{what}");
                    }
                    for (_, far) in &mut their_ends {
                        assert_eq!(read_exactly(far, 1), b"?", "{what}");
                    }
                    for name in CROWD {
                        assert_eq!(theirs.of(name), ["open"], "{what}");
                    }
                    let ended = panics || !back;
                    assert_eq!(
                        log.count(&format!("{} close: ", CROWD[victim])),
                        usize::from(ended),
                        "{what}"
                    );
                    assert_eq!(map.len() + other.borrow().len(), 12 - usize::from(ended), "{what}");
                    if !ended {
                        assert_eq!(read_exactly(&mut ends[victim].1, 11), b"lost or not");
                    }
                    // And once more, all of them that live.
                    let mut other = other.borrow_mut();
                    for (token, far) in ends.iter_mut().chain(&mut their_ends) {
                        for map in [&mut map, &mut *other] {
                            if map.contains(*token) {
                                warm_up(map, *token, far);
                            }
                        }
                    }
                }
            }
        }
    }
}

// Whatever a hook can do.

/// What is to come after it.
#[derive(Clone, Copy, PartialEq)]
enum After {
    /// The next message, and the peer's end.
    All,
    /// The next message, once reading is resumed.
    Resumed,
    /// `handle_close`, at once.
    End,
}

type Doing = fn(&mut Channel<'_>) -> io::Result<()>;

thread_local! {
    static OUTLET: RefCell<Option<Outlet>> = const { RefCell::new(None) };
}

/// All that the public API lets a hook do to its own channel.
const DOINGS: &[(&str, After, Doing)] = &[
    ("nothing", After::All, |_| Ok(())),
    ("pause_reading", After::Resumed, |ch| {
        ch.pause_reading();
        Ok(())
    }),
    ("pause and resume", After::All, |ch| {
        ch.pause_reading();
        ch.resume_reading();
        Ok(())
    }),
    ("set_auto_pause", After::All, |ch| {
        ch.set_auto_pause(true);
        Ok(())
    }),
    ("auto pause over the watermark", After::All, |ch| {
        ch.set_auto_pause(true);
        ch.set_watermarks(1, 10);
        ch.push(&[b'.'; 5000])
    }),
    ("set_watermarks", After::All, |ch| {
        ch.push(b"..")?;
        ch.set_watermarks(0, 1);
        ch.push(b"..")
    }),
    ("set_limit", After::All, |ch| {
        ch.set_limit(1000, OnLimit::Refuse);
        Ok(())
    }),
    ("set_limit after a push", After::All, |ch| {
        ch.push(b"....")?;
        ch.set_limit(1000, OnLimit::End);
        ch.push(b"....")
    }),
    ("over the limit", After::End, |ch| {
        ch.set_limit(1000, OnLimit::End);
        ch.push(&[b'.'; 1001])
    }),
    ("unread", After::All, |ch| {
        ch.unread(b"put back");
        Ok(())
    }),
    ("discard_unread", After::All, |ch| {
        ch.unread(b"put back");
        ch.discard_unread();
        Ok(())
    }),
    ("recv once more", After::All, |ch| match ch.recv(&mut [0; 100]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => other.map(drop),
    }),
    ("recv once more, handed back", After::All, |ch| ch.recv(&mut [0; 100]).map(drop)),
    ("recv into nothing", After::All, |ch| ch.recv(&mut []).map(drop)),
    ("recv_urgent", After::All, |ch| ch.recv_urgent(&mut [0; 1]).map(drop)),
    ("read_with", After::All, |ch| ch.read_with(|ch, data| ch.push(data))),
    ("send", After::All, |ch| ch.send(b".").map(drop)),
    ("send nothing", After::All, |ch| ch.send(b"").map(drop)),
    ("push and send", After::All, |ch| ch.push(b".").and_then(|()| ch.send(b".")).map(drop)),
    ("push nothing", After::All, |ch| ch.push(b"")),
    ("push much", After::All, |ch| ch.push(&[b'.'; 100_000])),
    ("push_vec", After::All, |ch| ch.push_vec(vec![b'.'; 5000])),
    ("push_shared", After::All, |ch| ch.push_shared(Arc::new([b'.'; 600]))),
    ("push_vectored", After::All, |ch| ch.push_vectored(&[IoSlice::new(b"."), IoSlice::new(b".")])),
    ("push_producer", After::All, |ch| {
        ch.push_producer(|buffer: &mut Vec<u8>| {
            buffer.push(b'.');
            Ok(dispatch_loop::More::Done)
        })
    }),
    ("a producer that waits", After::All, |ch| {
        let mut asked = 0;
        ch.push_producer(move |buffer: &mut Vec<u8>| {
            asked += 1;
            if asked == 1 {
                return Ok(dispatch_loop::More::Later);
            }
            buffer.push(b'.');
            Ok(dispatch_loop::More::Done)
        })?;
        ch.call_later(Duration::from_millis(3), |ch| {
            ch.wake_producer();
            Ok(())
        });
        Ok(())
    }),
    ("wake_producer", After::All, |ch| {
        ch.wake_producer();
        Ok(())
    }),
    ("discard_queued", After::All, |ch| {
        ch.push(b"..")?;
        ch.discard_queued();
        Ok(())
    }),
    ("broadcast to itself", After::All, |ch| {
        let token = ch.token();
        ch.map_mut().broadcast([token], b".");
        Ok(())
    }),
    ("its own view of the map", After::All, |ch| {
        let token = ch.token();
        ch.map_mut().channel(token)?.push(b".")
    }),
    ("its own view reads", After::All, |ch| {
        let token = ch.token();
        let read = ch.map_mut().channel(token)?.recv(&mut [0; 10]);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        Ok(())
    }),
    ("with itself", After::All, |ch| {
        let handle = ch.token().typed::<Quick>();
        assert!(ch.map_mut().with(handle, |_, _| Ok(())).is_err());
        Ok(())
    }),
    ("set_timeout", After::All, |ch| {
        ch.set_timeout(Some(Duration::from_secs(100)));
        Ok(())
    }),
    ("set_timeout to none", After::All, |ch| {
        ch.set_timeout(None);
        Ok(())
    }),
    ("time_out", After::End, |ch| {
        ch.time_out();
        Ok(())
    }),
    ("set_close_timeout", After::All, |ch| {
        ch.set_close_timeout(Duration::from_secs(3));
        Ok(())
    }),
    ("call_later", After::All, |ch| {
        ch.call_later(Duration::ZERO, |ch| ch.push(b"."));
        Ok(())
    }),
    ("call_every and cancel", After::All, |ch| {
        let timer = ch.call_every(Duration::ZERO, |_| Ok(()));
        assert!(ch.cancel(timer));
        Ok(())
    }),
    ("map timers", After::All, |ch| {
        ch.map_mut().call_soon(|_| ());
        Ok(())
    }),
    ("outlet", After::All, |ch| {
        let outlet = ch.outlet()?;
        assert!(outlet.try_send(b".").is_ok());
        OUTLET.set(Some(outlet));
        Ok(())
    }),
    ("remote", After::All, |ch| {
        let handle = ch.token().typed::<Quick>();
        assert!(ch.map_mut().remote().with(handle, |_, ch| ch.push(b".")).is_ok());
        Ok(())
    }),
    ("source_ready", After::All, |ch| {
        ch.source_ready();
        Ok(())
    }),
    ("set_background", After::All, |ch| {
        ch.set_background(true);
        ch.set_background(false);
        Ok(())
    }),
    ("socket options", After::All, |ch| {
        let _ = (ch.set_no_delay(true), ch.set_keep_alive(Some(Duration::from_secs(60))));
        let _ = (ch.local_addr(), ch.peer_addr(), ch.is_paused(), ch.is_reading());
        Ok(())
    }),
    ("wrap_source", After::All, |ch| ch.wrap_source(|plain| Ok(Box::new(Capitals(plain))))),
    ("wrap_source that fails", After::End, |ch| ch.wrap_source(|_| Err(io::Error::other("no such source")))),
    ("replace_dispatcher", After::All, |ch| {
        let log = OTHER.with(Log::clone);
        ch.replace_dispatcher(Quick::new("a", &log).on_read(noting(&log)).keep_writing())?;
        Ok(())
    }),
    ("replace_dispatcher by one that asks", After::All, |ch| {
        let log = OTHER.with(Log::clone);
        let noted = log.clone();
        let new = Recorder::new("a", &log).eof(Eof::KeepWriting).quiet();
        ch.replace_dispatcher(new.on("read", move |ch| ch.read_with(|ch, data| noting(&noted)(ch, data))))?;
        Ok(())
    }),
    ("shutdown_write", After::All, |ch| {
        ch.shutdown_write();
        Ok(())
    }),
    ("push and shutdown_write", After::All, |ch| {
        ch.push(b".")?;
        ch.shutdown_write();
        Ok(())
    }),
    ("close", After::End, |ch| {
        ch.close();
        Ok(())
    }),
    ("push and close", After::End, |ch| {
        ch.push(b".")?;
        ch.close();
        Ok(())
    }),
    ("abort", After::End, |ch| {
        ch.abort();
        Ok(())
    }),
    ("detach", After::End, |ch| ch.detach().map(drop)),
    ("an error", After::End, |_| Err(io::Error::other("on purpose"))),
    ("would block", After::All, |_| Err(io::ErrorKind::WouldBlock.into())),
    ("a panic", After::End, |_| panic!("on purpose")),
];

thread_local! {
    /// Where the hooks of what replaces a dispatcher are recorded.
    static OTHER: Log = Log::new();
}

/// Note each message; echo it if that is still possible.
fn noting(log: &Log) -> impl FnMut(&mut Channel<'_>, &[u8]) -> io::Result<()> + 'static {
    let log = log.clone();
    move |ch, data| {
        log.add(format!("got {}", data.escape_ascii()));
        match ch.push(data) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }
}

/// An event that is lost would be lost in silence: whatever was done, the next message is delivered and the
/// end is told.
#[test]
fn whatever_a_hook_does_to_its_channel_the_next_message_and_the_end_still_come() {
    for &(what, after, doing) in DOINGS {
        // Served by turns, and by `run`.
        for in_run in [false, true] {
            for (near, mut far) in wires() {
                let log = OTHER.with(Log::clone);
                let begun = log.events().len();
                let so_far = |log: &Log| log.events().split_off(begun);
                let mut note = noting(&log);
                let answer = move |ch: &mut Channel<'_>, data: &[u8]| match data {
                    b"!" => doing(ch),
                    data => note(ch, data),
                };
                let quick = Quick::new("a", &log).on_read(answer).keep_writing();
                let (mut map, handle) = warm(near, &mut far, quick);
                map.set_linger_limit(0);
                let token = handle.token();
                // The peer takes all there is.
                far.set_nonblocking(true).unwrap();
                let until = |map: &mut ChannelMap, event: &str| {
                    let deadline = Instant::now() + DEADLINE;
                    while !so_far(&log).iter().any(|other| other.starts_with(event)) {
                        assert!(Instant::now() < deadline, "{what}: {event}: {:?}", so_far(&log));
                        match in_run {
                            true => {
                                let options = LoopOptions::default().with_count(1);
                                run_with(map, &options.with_timeout(Duration::from_millis(20))).unwrap();
                            }
                            false => map.turn(Some(Duration::from_millis(20))).unwrap(),
                        }
                        match (&far).read(&mut [0; 1 << 16]) {
                            Err(error)
                                if error.kind() != io::ErrorKind::WouldBlock && after != After::End =>
                            {
                                panic!("{what}: {error}: {:?}", so_far(&log))
                            }
                            _ => {}
                        }
                    }
                };
                (&far).write_all(b"!").unwrap();
                wait_for_input(view(&mut map, token).socket().unwrap());
                match in_run {
                    // Not told how long it may wait, it goes round in the small circle.
                    true => run_with(&mut map, &LoopOptions::default().with_count(1)).unwrap(),
                    false => map.turn(Some(Duration::ZERO)).unwrap(),
                }
                if after == After::End {
                    until(&mut map, "a close: ");
                    continue;
                }
                if after == After::Resumed {
                    view(&mut map, token).resume_reading();
                }
                for message in ["one", "two"] {
                    (&far).write_all(message.as_bytes()).unwrap();
                    until(&mut map, &format!("got {message}"));
                }
                OUTLET.take();
                far.shutdown(Shutdown::Write).unwrap();
                until(&mut map, "a eof");
                if let Ok(mut ch) = map.channel(token) {
                    ch.shutdown_write();
                }
                until(&mut map, "a close: end of stream");
                assert_eq!(so_far(&log).iter().filter(|event| event.starts_with("a close")).count(), 1);
            }
        }
    }
}

// `handle_drained`.

/// Each time something had to wait, once, when all of it has gone to the system.
#[test]
fn handle_drained_is_told_once_when_what_had_to_wait_is_sent() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, far) = narrow_pair(on);
        let mut far: socket2::Socket = far.into();
        let at_drained = log.clone();
        let quick = Quick::new("a", &log).on("drained", move |ch| {
            at_drained.add(format!("{} queued", ch.queued()));
            Ok(())
        });
        let (mut map, handle) = warm(near.into(), &mut far, quick);
        for times in 1..3 {
            let pushed = fill(&mut map, &log, handle.token());
            assert_eq!(log.count("a drained"), times - 1, "the peer has not taken it");
            let mut left = pushed;
            far.set_nonblocking(true).unwrap();
            turn_until(&mut map, &log, |_| {
                left -= read_now(&mut far).0.len();
                left == 0
            });
            turn_quiet(&mut map);
            far.set_nonblocking(false).unwrap();
            assert_eq!(log.count("a drained"), times, "{:?}", log.events());
            assert_eq!(log.count("0 queued"), times);
            // What leaves at once is no reason to tell it again.
            view(&mut map, handle.token()).push(b".").unwrap();
            turn_quiet(&mut map);
            assert_eq!(read_exactly(&mut far, 1), b".");
            assert_eq!(log.count("a drained"), times);
        }
    }
}

/// What a hook answers, and what one pushes to another channel, leaves within the turn.
#[test]
fn handle_drained_is_not_told_of_output_that_never_had_to_wait() {
    for (near, mut far) in wires() {
        let log = Log::new();
        let answer = told(|ch, _| {
            ch.push(b".")?;
            ch.push(&[b'.'; 5000])?;
            ch.send(b".")?;
            ch.call_later(Duration::ZERO, |ch| ch.push(b"."));
            Ok(())
        });
        let (mut map, handle) = warm(near, &mut far, Quick::new("a", &log).on_read(answer));
        let token = handle.token();
        give(&mut map, token, &mut far, b"!");
        turn_idle(&mut map);
        // From outside; a settle sends it.
        view(&mut map, token).push(b".").unwrap();
        view(&mut map, token).push_vec(vec![b'.'; 5000]).unwrap();
        turn_idle(&mut map);
        map.broadcast([token], b".");
        let remote = map.remote();
        assert!(remote.try_send(token, ".").is_ok());
        turn_idle(&mut map);
        assert_eq!(read_exactly(&mut far, 10_006).len(), 10_006);
        assert_eq!(log.of("a"), ["open"]);
    }
}

#[test]
fn handle_drained_is_not_told_after_close() {
    for on in loopbacks() {
        for ends in ["close", "abort"] {
            let log = Log::new();
            let (near, far) = narrow_pair(on);
            let mut far: socket2::Socket = far.into();
            let (mut map, handle) = warm(near.into(), &mut far, Quick::new("a", &log));
            fill(&mut map, &log, handle.token());
            match ends {
                "close" => view(&mut map, handle.token()).close(),
                _ => view(&mut map, handle.token()).abort(),
            }
            let reads = thread::spawn(move || drop(far.read_to_end(&mut Vec::new())));
            turn_until(&mut map, &log, |map| map.is_empty());
            reads.join().unwrap();
            assert_eq!(log.count("a drained"), 0, "{:?}", log.events());
        }
    }
}

/// After `shutdown_write` the end is all that is left to be said; what was queued before it is still told of.
#[test]
fn handle_drained_is_told_of_what_was_queued_before_a_shutdown() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, far) = narrow_pair(on);
        let mut far: socket2::Socket = far.into();
        let (mut map, handle) = warm(near.into(), &mut far, Quick::new("a", &log));
        fill(&mut map, &log, handle.token());
        view(&mut map, handle.token()).shutdown_write();
        let reads = thread::spawn(move || (far.read_to_end(&mut Vec::new()), far));
        turn_until(&mut map, &log, |_| log.has("a drained"));
        turn_until(&mut map, &log, |_| reads.is_finished());
        drop(reads.join().unwrap());
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(log.count("a drained"), 1);
    }
}

/// Who waits for it to push more need not know who has dropped the queue; as `handle_low` is told.
#[test]
fn handle_drained_is_told_of_a_queue_that_was_discarded() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, far) = narrow_pair(on);
        let mut far: socket2::Socket = far.into();
        let (mut map, handle) = warm(near.into(), &mut far, Quick::new("a", &log));
        fill(&mut map, &log, handle.token());
        view(&mut map, handle.token()).discard_queued();
        turn_idle(&mut map);
        assert_eq!(log.of("a"), ["open", "drained"]);
    }
}

/// A source that takes everything, and keeps what there is no room for.
#[test]
fn handle_drained_waits_for_what_a_source_keeps_inside() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = unix_pair();
    let (near, far): (socket2::Socket, socket2::Socket) = (near.into(), far.into());
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let options = Options { out_limit: 8 << 20, update_every: usize::MAX, ..Options::default() };
    let wire = |socket| Box::new(Wire(socket));
    let records = Records::new(wire(near), true, options);
    let probe = records.probe.clone();
    let handle = map.add_source(records, Quick::new("a", &log).on_read(|_, _| Ok(()))).unwrap();
    let theirs = map
        .add_source(Records::new(wire(far), false, options), Quick::new("b", &log).on_read(|_, _| Ok(())))
        .unwrap();
    turn_until(&mut map, &log, |_| log.has("a open") && log.has("b open"));
    turn_quiet(&mut map);
    map.channel(theirs).unwrap().pause_reading();
    turn_quiet(&mut map);
    // More than one event makes room for.
    while probe.unsent.get() < 1 << 20 {
        map.with(handle, |_, ch| ch.push(&[b'x'; 16_000])).unwrap();
        assert_eq!(map.channel(handle).unwrap().queued(), 0, "the source takes it");
        turn_quiet(&mut map);
    }
    turn_idle(&mut map);
    assert!(probe.unsent.get() > 0, "the source has it");
    assert_eq!(log.count("a drained"), 0);
    map.channel(theirs).unwrap().resume_reading();
    turn_until(&mut map, &log, |_| log.has("a drained"));
    assert_eq!(probe.unsent.get(), 0);
    turn_idle(&mut map);
    assert_eq!(log.count("a drained"), 1);
}

// The small circle of turns.

/// The far end, on a thread that gives up at the deadline: then the channel ends, and `run` returns.
fn until_told(
    mut far: socket2::Socket,
    first: &'static [u8],
) -> (mpsc::Sender<()>, thread::JoinHandle<bool>) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        far.write_all(first).unwrap();
        told.recv_timeout(DEADLINE) != Err(mpsc::RecvTimeoutError::Timeout)
    });
    (tell, thread)
}

/// One message at a time, so that each is one wait.
#[cfg(debug_assertions)]
#[test]
fn the_count_of_the_loop_options_counts_messages_of_a_busy_channel() {
    let log = Log::new();
    let (near, mut far) = wires().pop().unwrap();
    let (mut map, _) = warm(near, &mut far, Quick::new("a", &log));
    let client = thread::spawn(move || {
        let mut echoed = 0;
        while far.write_all(b"x").is_ok() && matches!(far.read(&mut [0]), Ok(1..)) {
            echoed += 1;
        }
        echoed
    });
    for waits in [1, 2, 10, 0, 5] {
        let before = count(Call::Wait);
        run_with(&mut map, &LoopOptions::default().with_count(waits)).unwrap();
        assert_eq!(count(Call::Wait) - before, waits);
    }
    drop(map);
    // The last one was echoed, or was on its way.
    assert!((17..=18).contains(&client.join().unwrap()));
}

#[cfg(debug_assertions)]
#[test]
fn the_timeout_of_the_loop_options_bounds_a_wait_after_a_message() {
    for (near, mut far) in wires() {
        let log = Log::new();
        let (mut map, handle) = warm(near, &mut far, Quick::new("a", &log));
        far.write_all(b"x").unwrap();
        wait_for_input(view(&mut map, handle.token()).socket().unwrap());
        let (before, begun) = (count(Call::Wait), Instant::now());
        let options = LoopOptions::default().with_timeout(Duration::from_millis(20)).with_count(3);
        run_with(&mut map, &options).unwrap();
        assert_eq!(count(Call::Wait) - before, 3);
        assert!(begun.elapsed() >= Duration::from_millis(40));
        assert_eq!(read_exactly(&mut far, 1), b"x");
    }
}

/// From inside `run` that waits for descriptors alone until then: a timer of the channel, one of the map, a
/// stop, another thread's way in.
#[test]
fn what_a_hook_sets_going_ends_a_wait_that_had_no_end() {
    type Set = fn(&mut Channel<'_>);
    let sets: [(&str, Set); 6] = [
        ("a timer of the channel", |ch| {
            ch.call_later(Duration::from_millis(5), |ch| {
                ch.map_mut().stop();
                Ok(())
            });
        }),
        ("a timer of the map", |ch| {
            ch.map_mut().call_later(Duration::from_millis(5), ChannelMap::stop);
        }),
        ("call_soon", |ch| {
            ch.map_mut().call_soon(ChannelMap::stop);
        }),
        ("stop", |ch| ch.map_mut().stop()),
        ("a remote", |ch| {
            let remote = ch.map_mut().remote();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                assert!(remote.call(ChannelMap::stop).is_ok());
            });
        }),
        ("a remote that stops", |ch| {
            let remote = ch.map_mut().remote();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                remote.stop();
            });
        }),
    ];
    for (what, set) in sets {
        for (near, mut far) in wires() {
            let log = Log::new();
            let answer = told(move |ch, _| {
                set(ch);
                Ok(())
            });
            let (mut map, _) = warm(near, &mut far, Quick::new("a", &log).on_read(answer));
            let (tell, told) = until_told(far, b"!");
            run(&mut map).unwrap();
            drop(tell);
            assert!(told.join().unwrap(), "{what}: it did not end the wait");
            assert_eq!(log.of("a"), ["open"], "{what}");
        }
    }
}

/// A time limit that is set by a message counts from then, whatever turn it was.
#[test]
fn an_idle_timeout_that_a_hook_sets_runs_and_is_moved_by_the_next_messages() {
    const LIMIT: Duration = Duration::from_millis(300);
    for (near, mut far) in wires() {
        let log = Log::new();
        let answer = told(|ch, _| {
            ch.set_timeout(Some(LIMIT));
            Ok(())
        });
        let (mut map, _) = warm(near, &mut far, Quick::new("a", &log).on_read(answer));
        let client = thread::spawn(move || {
            thread::sleep(LIMIT);
            far.write_all(b"!").unwrap();
            for _ in 0..4 {
                thread::sleep(LIMIT / 2);
                far.write_all(b"x").unwrap();
                if far.read(&mut [0]).unwrap() == 0 {
                    return None;
                }
            }
            let last = Instant::now();
            let _ = far.read(&mut [0]);
            Some(last.elapsed())
        });
        run(&mut map).unwrap();
        // On a busy machine the client itself may be late.
        if let Some(idle) = client.join().unwrap() {
            assert!(idle >= LIMIT - Duration::from_millis(20), "ended after {idle:?}");
        }
        assert_eq!(log.of("a"), ["open", &format!("close: {}", Reason::TimedOut)]);
    }
}

// Suspended.

/// A hook that leaves its input where it is, but for the times that it is told to read.
struct Lazy {
    reads: Rc<Cell<u32>>,
    calls: Rc<Cell<u32>>,
}

impl Dispatcher for Lazy {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.calls.set(self.calls.get() + 1);
        match self.reads.get() {
            0 => Ok(()),
            reads => {
                self.reads.set(reads - 1);
                let mut buffer = [0; 4];
                let read = ch.recv(&mut buffer)?;
                ch.push(&buffer[..read])
            }
        }
    }
}

/// 64 turns, and a few after each pause, which grows; never as many as a loop that spins has.
#[test]
fn a_hook_that_does_not_read_is_suspended_and_one_that_reads_at_times_begins_anew() {
    for (near, mut far) in wires() {
        let (reads, calls) = (Rc::new(Cell::new(u32::MAX)), Rc::new(Cell::new(0)));
        let lazy = Lazy { reads: reads.clone(), calls: calls.clone() };
        let (mut map, _) = warm(near, &mut far, lazy);
        reads.set(0);
        calls.set(0);
        // All of it is more than the reads below take.
        far.write_all(&[b'x'; 400]).unwrap();
        let waits = waits_in(&mut map, Duration::from_millis(350));
        assert!(waits < 100, "{waits} waits in 350 ms");
        assert!((64..80).contains(&calls.get()), "called {} times", calls.get());
        for _ in 0..2 {
            // The pause has grown to more than a tenth of a second. One read, and it starts small again.
            reads.set(1);
            turn_until(&mut map, &Log::new(), |_| reads.get() == 0);
            calls.set(0);
            let longest = Cell::new(Duration::ZERO);
            turn_until(&mut map, &Log::new(), |map| {
                longest.set(longest.get().max(map.wait_limit().unwrap_or_default()));
                calls.get() >= 66
            });
            let first_pauses = longest.get();
            assert!(
                first_pauses <= Duration::from_millis(40),
                "{first_pauses:?} for pauses of 10, 20 and 40 ms"
            );
            let waits = waits_in(&mut map, Duration::from_millis(350));
            assert!(waits < 100, "{waits} waits in 350 ms");
        }
        // And then all of it, at once.
        reads.set(u32::MAX);
        let mut left = 400;
        far.set_nonblocking(true).unwrap();
        turn_until(&mut map, &Log::new(), |_| {
            left -= read_now(&mut far).0.len();
            left == 0
        });
    }
}

/// One read in sixty turns is enough not to be suspended.
#[test]
fn a_hook_that_reads_at_times_is_not_suspended() {
    for (near, mut far) in wires() {
        let (reads, calls) = (Rc::new(Cell::new(u32::MAX)), Rc::new(Cell::new(0)));
        let lazy = Lazy { reads: reads.clone(), calls: calls.clone() };
        let (mut map, _) = warm(near, &mut far, lazy);
        reads.set(0);
        far.write_all(&[b'x'; 400]).unwrap();
        wait_until("it is all there", || {
            let ch = map.tokens().next().unwrap();
            let ch = map.channel(ch).unwrap();
            rustix::io::ioctl_fionread(ch.socket().unwrap()).unwrap() == 400
        });
        for _ in 0..5 {
            for _ in 0..60 {
                calls.set(0);
                map.turn(Some(Duration::ZERO)).unwrap();
                assert_eq!(calls.get(), 1, "it is suspended");
            }
            reads.set(1);
            map.turn(Some(Duration::ZERO)).unwrap();
            assert_eq!(reads.get(), 0);
        }
    }
}
