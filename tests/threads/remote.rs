//! `Remote`: EDGE_CASES 40 to 42 and 44, rules 3, 14 and 15 of the contract, without any crowd.
//! (Outlets are in `outlet.rs`, the crowds in `crowds.rs`.)

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::mem;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, count};
use dispatch_loop::{ChannelMap, Dispatcher, LoopOptions, OnError, Remote, SendError, run, run_with};

use crate::support::logging::{capture_log, logged};
use crate::support::peers::{loopbacks, pair, read_all, reads_all};
use crate::support::provoke::{echo, hooks, provoke};
use crate::support::recorder::{Log, Recorder};
use crate::support::threads::{held, joined, run_to_its_end, waiting};
use crate::support::turning::{turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

/// A map whose queue has two places, both taken. What the two messages add up to is 11.
fn full() -> (ChannelMap, Remote, Arc<AtomicUsize>) {
    let mut map = held();
    map.set_remote_capacity(2);
    let remote = map.remote();
    let sum = Arc::new(AtomicUsize::new(0));
    for n in [1, 10] {
        remote.call(adding(&sum, n)).unwrap();
    }
    (map, remote, sum)
}

fn adding(sum: &Arc<AtomicUsize>, n: usize) -> impl FnOnce(&mut ChannelMap) + Send + 'static {
    let sum = sum.clone();
    move |_| _ = sum.fetch_add(n, SeqCst)
}

/// How many messages wait, as the remote's `Debug` tells.
fn queued(remote: &Remote) -> usize {
    let digits: String = format!("{remote:?}").chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// Each ends a wait without a time-out.
#[test]
fn a_message_ends_a_wait_and_runs_on_the_loops_thread() {
    let mut map = held();
    let home = thread::current().id();
    let remote = map.remote();
    let thread = thread::spawn(move || {
        let (reply, replies) = mpsc::channel();
        for n in 0..200 {
            let reply = reply.clone();
            remote.call(move |_| reply.send((n, thread::current().id())).unwrap()).unwrap();
            assert_eq!(replies.recv_timeout(DEADLINE).unwrap(), (n, home));
        }
        remote.stop();
    });
    run(&mut map).unwrap();
    joined(thread);
}

/// Rule 3: not in the caller's frame, and it cannot turn the loop. A remote may be made in a hook.
#[test]
fn a_message_runs_after_the_hook_that_sent_it() {
    for on in loopbacks() {
        for hook in hooks() {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let sum = Arc::new(AtomicUsize::new(0));
            let (in_hook, asked, well) = (sum.clone(), Cell::new(false), Rc::new(Cell::new(false)));
            let is_well = well.clone();
            let recorder = Recorder::new("a", &log).on(hook, move |ch| {
                if asked.replace(true) {
                    return Ok(());
                }
                let remote = ch.map_mut().remote();
                let call = adding(&in_hook, 1);
                let sent = remote.call(move |map| {
                    assert_eq!(run(map).unwrap_err().kind(), io::ErrorKind::Deadlock);
                    assert_eq!(map.turn(None).unwrap_err().kind(), io::ErrorKind::Deadlock);
                    call(map);
                });
                sent.unwrap();
                let (remote, call) = (remote.clone(), adding(&in_hook, 10));
                thread::spawn(move || remote.call(call).unwrap()).join().unwrap();
                assert_eq!(queued(&ch.map_mut().remote()), 2);
                well.set(in_hook.load(SeqCst) == 0);
                Ok(())
            });
            let (_, _far) = provoke(&mut map, on, hook, recorder);
            turn_until(&mut map, &log, |_| sum.load(SeqCst) == 11);
            assert!(is_well.get());
        }
    }
}

#[test]
fn what_one_thread_sends_takes_effect_in_that_order() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = held();
        let (near, far) = pair(on);
        let handle = map.add(near, Recorder::new("a", &log)).unwrap();
        let remote = map.remote();
        let thread = thread::spawn(move || {
            for n in 0..3000_u32 {
                let bytes = n.to_be_bytes();
                let push = move |map: &mut ChannelMap| map.channel(handle).unwrap().push(&bytes).unwrap();
                let sent = match n % 3 {
                    0 => remote.call(push),
                    1 => remote.with(handle, move |_, ch| ch.push(&bytes)),
                    _ => match remote.try_send(handle, bytes) {
                        Err(SendError::Full(_)) => remote.call(push),
                        sent => sent.map_err(|_| unreachable!()),
                    },
                };
                sent.unwrap();
            }
            remote.call(|map| map.close_all()).unwrap();
        });
        let reader = reads_all(far);
        turn_until(&mut map, &log, |map| map.is_empty());
        joined(thread);
        let (got, end) = reader.join().unwrap();
        end.unwrap();
        let numbers = got.chunks(4).map(|four| u32::from_be_bytes(four.try_into().unwrap()));
        assert!(numbers.eq(0..3000));
    }
}

/// Rule 13: as if a hook of that channel had done it.
#[test]
fn a_with_that_fails_is_its_own_dispatchers_affair() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = held();
        let mut add = |name, answer| {
            let (near, far) = pair(on);
            (map.add(near, Recorder::new(name, &log).on_error(answer)).unwrap(), far)
        };
        let (keeps, mut far_keeps) = add("keeps", OnError::Keep);
        let (ends, _far_ends) = add("ends", OnError::End);
        let (panics, _far_panics) = add("panics", OnError::Keep);
        let (fine, _far_fine) = add("fine", OnError::End);
        let remote = map.remote();
        let thread = thread::spawn(move || {
            for handle in [keeps, ends] {
                remote.with(handle, |_, _| Err(io::Error::other("provoked"))).unwrap();
            }
            remote.with(panics, |_, _| panic!("on purpose")).unwrap();
            remote.with(fine, |_, _| Err(io::ErrorKind::WouldBlock.into())).unwrap();
            remote.with(fine, move |_, ch| ch.map_mut().channel(keeps)?.push(b"reached")).unwrap();
            remote.call(|map| map.stop()).unwrap();
        });
        run(&mut map).unwrap();
        joined(thread);
        turn_idle(&mut map);
        let provoked = "error: provoked";
        assert_eq!(log.of("keeps"), ["open", provoked]);
        assert_eq!(log.of("ends"), ["open", provoked, "close: provoked"]);
        assert_eq!(log.of("panics").last().unwrap(), "close: panicked: on purpose");
        assert_eq!(log.of("fine"), ["open"]);
        assert_eq!(map.len(), 2);
        assert_eq!(read_some(&mut far_keeps), b"reached");
    }
}

fn read_some(far: &mut std::net::TcpStream) -> Vec<u8> {
    let mut got = vec![0; 100];
    let read = far.read(&mut got).unwrap();
    got.truncate(read);
    got
}

/// And that of a dispatcher of another type.
#[test]
fn a_with_on_a_gone_handle_drops_its_closure() {
    struct Other;
    impl Dispatcher for Other {}
    let log = Log::new();
    let mut map = held();
    let (near, _far) = pair(loopbacks()[0]);
    let other = map.add(near, Recorder::new("other", &log)).unwrap();
    let (near, _far_gone) = pair(loopbacks()[0]);
    let gone = map.add(near, Recorder::new("gone", &log)).unwrap();
    map.channel(gone).unwrap().abort();
    turn_until(&mut map, &log, |map| !map.contains(gone));
    let (remote, held) = (map.remote(), Arc::new(()));
    let (one, two) = (held.clone(), held.clone());
    remote.with(gone, move |_, _| unreachable!("{one:?}")).unwrap();
    remote.with(other.token().typed::<Other>(), move |_, _| unreachable!("{two:?}")).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!((queued(&remote), Arc::strong_count(&held)), (0, 1));
    assert!(map.contains(other) && log.count("other error") == 0);
}

/// What `try_send` brings for a channel that is gone, closing, a listener or full is dropped.
#[test]
fn bytes_that_cannot_be_pushed_are_dropped_and_logged() {
    capture_log();
    for on in loopbacks() {
        let log = Log::new();
        let mut map = held();
        let (near, mut far) = pair(on);
        let handle = map.add(near, Recorder::new("a", &log)).unwrap();
        let listener = map.listen(on, Recorder::new("listener", &log)).unwrap();
        map.channel(handle).unwrap().set_limit(4, dispatch_loop::OnLimit::Refuse);
        let remote = map.remote();
        remote.try_send(listener, "to a listener").unwrap();
        remote.try_send(handle, "too much").unwrap();
        remote.try_send(handle, "some").unwrap();
        remote.call(move |map| map.channel(handle).unwrap().close()).unwrap();
        remote.try_send(handle, "late").unwrap();
        turn_until(&mut map, &log, |map| !map.contains(handle));
        remote.try_send(handle, "too late").unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        let (got, end) = read_all(&mut far);
        end.unwrap();
        assert_eq!(got, b"some");
        assert!(map.contains(listener));
        assert_eq!((log.count("a error"), log.count("listener error")), (0, 0));
    }
    assert_eq!(logged("a remote push").len(), 3 * loopbacks().len());
}

#[test]
fn a_thread_waits_for_room_and_is_served_when_the_loop_turns() {
    let (mut map, remote, sum) = full();
    let call = adding(&sum, 100);
    let sender = remote.clone();
    let thread = waiting(move || sender.call(call));
    assert_eq!((sum.load(SeqCst), queued(&remote)), (0, 2));
    turn_until(&mut map, &Log::new(), |_| sum.load(SeqCst) == 111);
    joined(thread).unwrap();
}

/// So does one that waits since the very hook in which the first remote was made.
#[test]
fn a_thread_that_waits_before_the_loop_knows_of_remotes_is_served() {
    let mut map = held();
    map.set_remote_capacity(1);
    let sum = Arc::new(AtomicUsize::new(0));
    let (one, ten) = (adding(&sum, 1), adding(&sum, 10));
    map.call_soon(move |map| {
        let remote = map.remote();
        remote.call(one).unwrap();
        drop(waiting(move || remote.call(ten).unwrap()));
    });
    let begun = Instant::now();
    while sum.load(SeqCst) < 11 {
        map.turn(None).unwrap();
    }
    assert!(begun.elapsed() < DEADLINE / 2, "nobody told the thread that there was room");
}

/// Rule 15: two loops that wait for each other would never end.
#[test]
fn a_thread_that_owns_a_map_gets_its_message_back() {
    let (mut map, remote, sum) = full();
    // This thread owns the map itself, the other one another map.
    let Err(SendError::Full(call)) = remote.call(adding(&sum, 100)) else { panic!("it was not full") };
    call(&mut map);
    let sender = remote.clone();
    let call = adding(&sum, 1000);
    let thread = waiting(move || {
        let mut own = ChannelMap::new().unwrap();
        let Err(SendError::Full(call)) = sender.call(call) else { panic!("it was not full") };
        let Err(SendError::Full(bytes)) = sender.try_send(some_token(), "back") else { panic!() };
        assert_eq!(bytes, b"back");
        call(&mut own);
        // With its last map the thread is as free to wait as it was.
        drop(own);
        sender.call(|_| ()).unwrap();
    });
    turn_until(&mut map, &Log::new(), |_| thread.is_finished());
    joined(thread);
    assert_eq!(sum.load(SeqCst), 1111);
}

fn some_token() -> dispatch_loop::Token {
    let mut map = ChannelMap::new().unwrap();
    map.listen("127.0.0.1:0", Recorder::new("some", &Log::new())).unwrap().token()
}

/// EDGE_CASES 41. The one that is refused can be run by whoever sent it.
#[test]
fn who_waits_is_woken_by_stop_and_by_the_end_of_the_map() {
    for stop in ["remote", "map", "drop"] {
        let (mut map, remote, sum) = full();
        let waiters = [100, 1000].map(|n| {
            let (remote, call) = (remote.clone(), adding(&sum, n));
            waiting(move || remote.call(call))
        });
        match stop {
            "remote" => remote.stop(),
            "map" => map.stop(),
            _ => drop(mem::replace(&mut map, ChannelMap::new().unwrap())),
        }
        if stop != "drop" {
            run(&mut map).unwrap();
        }
        for waiter in waiters {
            match joined(waiter).unwrap_err() {
                SendError::Stopped(call) if stop != "drop" => call(&mut map),
                SendError::Ended(call) if stop == "drop" => call(&mut map),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sum.load(SeqCst), 1100, "{stop}");
        assert!(remote.call(|_| ()).is_err() && remote.try_send(some_token(), "").is_err());
    }
}

/// A `handle_close` that a dropped map runs may well wait for a thread of the program's own.
#[test]
fn who_waits_is_woken_before_the_last_hooks_of_a_map() {
    let (mut map, remote, _) = full();
    let log = Log::new();
    let sender = remote.clone();
    let mut waiter = Some(waiting(move || sender.call(|_| ()).is_err()));
    let (near, _far) = pair(loopbacks()[0]);
    let recorder = Recorder::new("a", &log).on("close", move |_| {
        let waiter = waiter.take().unwrap();
        let deadline = Instant::now() + DEADLINE / 4;
        while !waiter.is_finished() && Instant::now() < deadline {
            thread::yield_now();
        }
        assert!(waiter.is_finished() && waiter.join().unwrap());
        Err(io::Error::other("of no consequence"))
    });
    map.add(near, recorder).unwrap();
    capture_log();
    drop(map);
    assert!(logged("panicked").is_empty(), "{:?}", logged("panicked"));
}

/// Rule 14: what was accepted is kept for the next `run`, and so is the order.
#[test]
fn after_a_stop_remotes_refuse_until_run_is_called_again() {
    let mut map = held();
    let remote = map.remote();
    let ran = Arc::new(AtomicUsize::new(0));
    let (sum, stopping) = (ran.clone(), remote.clone());
    remote.call(move |_| stopping.stop()).unwrap();
    for _ in 0..300 {
        remote.call(adding(&ran, 1)).unwrap();
    }
    run(&mut map).unwrap();
    // One turn of 256 messages.
    assert_eq!((ran.load(SeqCst), queued(&remote)), (255, 45));
    assert!(matches!(remote.call(adding(&sum, 1)), Err(SendError::Stopped(_))));
    let refused = remote.try_send(some_token(), "bytes").unwrap_err();
    assert!(matches!(refused, SendError::Stopped(bytes) if bytes == b"bytes"));
    let (again, inside) = (remote.clone(), sum.clone());
    map.call_soon(move |_| again.call(adding(&inside, 1000)).unwrap());
    map.call_later(Duration::from_millis(5), |map| map.stop());
    run(&mut map).unwrap();
    assert_eq!(sum.load(SeqCst), 1300);
}

/// Rule 14, also of the first one that is asked for.
#[test]
fn a_remote_that_is_made_after_a_stop_refuses_too() {
    let mut map = held();
    map.stop();
    run(&mut map).unwrap();
    let remote = map.remote();
    assert!(matches!(remote.call(|_| ()), Err(SendError::Stopped(_))));
    map.call_soon(|map| map.stop());
    run(&mut map).unwrap();
}

/// EDGE_CASES 42.
#[cfg(debug_assertions)]
#[test]
fn a_stop_before_run_ends_it_without_a_wait() {
    let mut map = held();
    let remote = map.remote();
    let waits = count(Call::Wait);
    remote.stop();
    run(&mut map).unwrap();
    assert_eq!(count(Call::Wait), waits);
    // Taken: the next one runs, and ends after the turn in which it is stopped.
    let ran = Arc::new(AtomicUsize::new(0));
    let (stopping, sum) = (remote.clone(), ran.clone());
    map.call_soon(move |_| {
        for _ in 0..3 {
            let one = adding(&sum, 1);
            stopping.call(one).unwrap();
            stopping.stop();
        }
    });
    run(&mut map).unwrap();
    assert_eq!(ran.load(SeqCst), 3);
    // From another thread, without a message and without room.
    let thread = thread::spawn(move || remote.stop());
    run(&mut map).unwrap();
    joined(thread);
}

/// EDGE_CASES 42.
#[test]
fn a_wait_that_a_message_ends_counts_and_the_message_runs() {
    let mut map = held();
    let (remote, ran) = (map.remote(), Arc::new(AtomicUsize::new(0)));
    for n in 1..=50 {
        let (remote, one) = (remote.clone(), adding(&ran, 1));
        // It may come before `run` does.
        let thread = thread::spawn(move || remote.call_after_stop(one).unwrap());
        run_with(&mut map, &LoopOptions::default().with_count(1)).unwrap();
        assert_eq!(ran.load(SeqCst), n);
        joined(thread);
        // It may have woken the loop for a message that this had found by itself.
        map.turn(Some(Duration::ZERO)).unwrap();
    }
}

/// Rule 14: an empty map's `run` ends when what was accepted has run; a living remote is no reason
/// to stay.
#[test]
fn run_goes_on_for_messages_and_not_for_remotes() {
    let mut map = ChannelMap::new().unwrap();
    let (remote, ran) = (map.remote(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..600 {
        remote.call(adding(&ran, 1)).unwrap();
    }
    let (last, from_it) = (adding(&ran, 1000), remote.clone());
    remote.call(move |_| from_it.call(last).unwrap()).unwrap();
    run_to_its_end(&mut map);
    assert_eq!(ran.load(SeqCst), 1600);
    assert!(matches!(remote.call(|_| ()), Err(SendError::Stopped(_))));
}

/// Rule 15, and 13: a message whose drop panics is no reason to forget the others.
#[test]
fn what_was_accepted_and_never_ran_is_dropped_with_the_map() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    for bombs in [0, 1, 2] {
        let mut map = ChannelMap::new().unwrap();
        let (remote, held) = (map.remote(), Arc::new(()));
        for n in 0..10 {
            let held = held.clone();
            let bomb = (n < bombs).then(|| Bomb);
            remote.call(move |_| drop((held, bomb))).unwrap();
        }
        remote.try_send(some_token(), "bytes").unwrap();
        assert_eq!(Arc::strong_count(&held), 11);
        drop(map);
        assert_eq!(Arc::strong_count(&held), 1, "with {bombs} that panic");
        let remote_too = Arc::new(());
        let refused = remote.call(enclosing(&remote_too)).unwrap_err();
        assert!(matches!(refused, SendError::Ended(_)));
        drop(refused);
        assert_eq!(Arc::strong_count(&remote_too), 1);
    }
}

fn enclosing(held: &Arc<()>) -> impl FnOnce(&mut ChannelMap) + Send + 'static {
    let held = held.clone();
    move |_| drop(held)
}

/// Rules 16 and 17.
#[cfg(debug_assertions)]
#[test]
fn after_256_messages_io_has_its_turn() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = held();
        let (_, mut far) = echo(&mut map, on, &log);
        turn_until(&mut map, &log, |_| log.has("echo open"));
        let (remote, ran) = (map.remote(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..700 {
            remote.call(adding(&ran, 1)).unwrap();
        }
        let waits = count(Call::Wait);
        for wanted in [256, 512, 700] {
            far.write_all(b"?").unwrap();
            // Without waiting, although it might take as long as it likes.
            map.turn(None).unwrap();
            assert_eq!(ran.load(SeqCst), wanted);
            far.read_exact(&mut [0]).unwrap();
        }
        assert_eq!(count(Call::Wait) - waits, 3);
    }
}

/// Rule 13.
#[test]
fn a_call_that_panics_is_logged_and_harms_nobody() {
    capture_log();
    let mut map = held();
    let remote = map.remote();
    let ran = Arc::new(AtomicUsize::new(0));
    remote.call(|_| panic!("on purpose")).unwrap();
    remote.call(adding(&ran, 1)).unwrap();
    map.turn(None).unwrap();
    assert_eq!((ran.load(SeqCst), logged("a remote call panicked: on purpose").len()), (1, 1));
}

/// EDGE_CASES 49. Messages belong to the map, wherever it is; and who waits for room in the one
/// that went away is told all the same.
#[test]
fn a_map_swapped_inside_a_message_keeps_its_messages() {
    for capacity in [1, 2, 100] {
        let mut maps = [held(), held()];
        for map in &mut maps {
            map.set_remote_capacity(capacity);
        }
        let [mut here, mut there] = maps;
        let (remote, remote_there) = (here.remote(), there.remote());
        let ran = Arc::new(AtomicUsize::new(0));
        remote_there.call(adding(&ran, 1)).unwrap();
        let (near, _far) = pair(loopbacks()[0]);
        let handle = here.add(near, Swapper(Some(there))).unwrap();
        here.turn(Some(Duration::ZERO)).unwrap();
        let swap = remote.with(handle, |swapper, ch| {
            mem::swap(ch.map_mut(), swapper.0.as_mut().unwrap());
            AWAY.set(swapper.0.take());
            Ok(())
        });
        swap.unwrap();
        let (sender, call) = (remote.clone(), adding(&ran, 10));
        let send = move || sender.call(call).unwrap();
        // With room for one it must wait.
        let waiter = if capacity == 1 { waiting(send) } else { thread::spawn(send) };
        here.turn(None).unwrap();
        let mut away = AWAY.take().unwrap();
        here.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(ran.load(SeqCst) % 10, 1);
        let begun = Instant::now();
        while ran.load(SeqCst) < 11 {
            away.turn(None).unwrap();
        }
        assert!(begun.elapsed() < DEADLINE / 2, "nobody told the thread that there was room");
        joined(waiter);
        assert_eq!(ran.load(SeqCst), 11);
    }
}

struct Swapper(Option<ChannelMap>);

impl Dispatcher for Swapper {}

thread_local! {
    static AWAY: Cell<Option<ChannelMap>> = const { Cell::new(None) };
}

#[test]
fn an_error_says_what_happened_and_has_the_message() {
    let all = [SendError::Full(1), SendError::Stopped(2), SendError::Ended(3)];
    let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::BrokenPipe, io::ErrorKind::BrokenPipe];
    let names = ["Full(..)", "Stopped(..)", "Ended(..)"];
    for (n, error) in all.into_iter().enumerate() {
        assert_eq!(format!("{error:?}"), names[n]);
        let text = error.to_string();
        assert!(!text.is_empty());
        let number = match error {
            SendError::Full(_) => SendError::Full(n),
            SendError::Stopped(_) => SendError::Stopped(n),
            _ => SendError::Ended(n),
        };
        let io: io::Error = number.into();
        assert_eq!((io.kind(), io.to_string()), (kinds[n], text));
        assert_eq!(error.into_inner(), n as i32 + 1);
    }
}

/// `on_stop`: each stop and the end of the map, once each, when `is_stopped` says so already.
#[test]
fn who_watches_is_told_of_each_stop() {
    let mut map = held();
    let remote = map.remote();
    let told = Arc::new(AtomicUsize::new(0));
    let (count, of) = (told.clone(), remote.clone());
    let guard = remote.on_stop(move || {
        assert!(of.is_stopped());
        count.fetch_add(1, SeqCst);
    });
    assert!(!remote.is_stopped());
    for stops in 1..=2 {
        map.stop();
        run(&mut map).unwrap();
        assert_eq!(told.load(SeqCst), stops);
        assert!(remote.is_stopped());
    }
    let stop = remote.clone();
    drop(remote.on_stop(|| panic!("a guard that is dropped at once watches nothing")));
    assert!(remote.call(|_| ()).is_err());
    map.call_soon(move |_| {
        assert!(!stop.is_stopped(), "while it runs");
        stop.stop();
    });
    run(&mut map).unwrap();
    assert_eq!(told.load(SeqCst), 3);
    drop(map);
    assert_eq!(told.load(SeqCst), 4);
    drop(guard);
}

/// EDGE_CASES 44, for `on_stop`: a panic of one, a guard dropped inside its own call, a new watch
/// set inside one: all the others are told all the same.
#[test]
fn a_watch_that_misbehaves_harms_no_other() {
    let mut map = held();
    let remote = map.remote();
    let told = Arc::new(AtomicUsize::new(0));
    let counting = |told: &Arc<AtomicUsize>| {
        let told = told.clone();
        move || _ = told.fetch_add(1, SeqCst)
    };
    let own_guard = Arc::new(std::sync::Mutex::new(None));
    let (slot, again, count) = (own_guard.clone(), remote.clone(), counting(&told));
    let guards = [remote.on_stop(counting(&told)), remote.on_stop(|| panic!("as the test wants it"))];
    let leaving = remote.on_stop(move || {
        count();
        let guard = slot.lock().unwrap().take();
        drop(guard);
        std::mem::forget(again.on_stop(|| ()));
    });
    *own_guard.lock().unwrap() = Some(leaving);
    let last = remote.on_stop(counting(&told));
    map.stop();
    run(&mut map).unwrap();
    assert_eq!(told.load(SeqCst), 3);
    map.stop();
    run(&mut map).unwrap();
    assert_eq!(told.load(SeqCst), 5, "all but the one that left");
    drop((guards, last));
}
