//! The orderly end of all that a map serves: EDGE_CASES 270 to 284 and 290 to 294.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{
    Address, Channel, ChannelMap, Dispatcher, DrainOptions, DrainProgress, DrainState, LoopOptions, Reason,
    Socket, run, run_with,
};

use crate::support::dirs::Dir;
use crate::support::ends::kinds;
use crate::support::logging::{capture_log, logged};
use crate::support::opened::{address_of, opened, view};
use crate::support::peers::{
    connect, cut_short, loopbacks, narrow_pair, pair, read_all, read_exactly, read_to_end, reads_to_end,
    unix_pair,
};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{arrive, turn_idle, turn_until, turns_at_once};
use crate::support::waiting::{DEADLINE, wait_until};

const HOUR: Duration = Duration::from_secs(3600);

fn at_once() -> DrainOptions {
    DrainOptions::default().with_deadline(DEADLINE)
}

/// What the map's hook was told, in order.
fn progress_of(map: &mut ChannelMap) -> Rc<RefCell<Vec<DrainProgress>>> {
    let told = Rc::new(RefCell::new(Vec::new()));
    let log = told.clone();
    map.on_drain(move |_, progress| log.borrow_mut().push(*progress));
    told
}

/// Closed idle, finished and aborted.
fn counts(map: &ChannelMap) -> (u64, u64, u64) {
    let progress = map.drain_progress().unwrap();
    (progress.closed_idle, progress.finished, progress.aborted)
}

/// Answers each byte, and the connection ends after what came while the map drains, as with HTTP's
/// `Connection: close`.
struct Answering;

impl Dispatcher for Answering {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            ch.push(data)?;
            if ch.map().is_draining() {
                ch.push(b".")?;
                ch.close();
            }
            Ok(())
        })
    }
}

struct AnsweringServer;

impl Dispatcher for AnsweringServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Answering).map(drop)
    }
}

/// 270.
#[test]
fn a_map_with_nothing_but_listeners_is_drained_in_its_first_turn() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.listen(on, Recorder::new("a", &log)).unwrap();
        map.listen(on, Recorder::new("b", &log)).unwrap();
        assert_eq!((map.drain_state(), map.drain_progress()), (DrainState::Running, None));
        map.drain(&at_once());
        assert!(map.is_draining());
        let before = map.numbers().turns;
        run(&mut map).unwrap();
        assert_eq!(map.numbers().turns - before, 1);
        assert_eq!(log.events(), ["a drain", "b drain", "a close: closed", "b close: closed"]);
        assert!(map.is_empty() && !map.is_draining());
        assert_eq!(map.drain_state(), DrainState::Drained);
    }
}

/// 270: there is nothing to wait for, not even the lame-duck time.
#[test]
fn an_empty_map_is_drained_without_a_turn() {
    let mut map = ChannelMap::new().unwrap();
    map.drain(&at_once().with_lame_duck(HOUR));
    let before = map.numbers().turns;
    run(&mut map).unwrap();
    assert_eq!((map.numbers().turns, map.drain_state()), (before, DrainState::Drained));
}

/// 271.
#[test]
fn who_waits_in_the_backlog_is_served() {
    for on in loopbacks() {
        let mut map = ChannelMap::new().unwrap();
        let server = map.listen(on, AnsweringServer).unwrap();
        let address = address_of(&mut map, server);
        let clients = (0..100).map(|_| {
            let mut client = connect(&address);
            client.write_all(b"x").unwrap();
            reads_to_end(client)
        });
        let clients: Vec<_> = clients.collect();
        map.drain(&at_once());
        // It closes as soon as nobody waits.
        assert!(turns_at_once(&mut map, 12, |map| !map.contains(server)));
        run(&mut map).unwrap();
        assert_eq!(map.numbers().accepts, 100);
        for client in clients {
            assert_eq!(client.join().unwrap(), b"x.");
        }
        assert_eq!(counts(&map), (0, 100, 0));
        assert!(TcpStream::connect(address).is_err());
    }
}

/// 271: all who waited have been let in when as many as a backlog can hold have.
#[cfg(target_os = "linux")]
#[test]
fn a_backlog_that_is_never_empty_does_not_keep_a_listener_open() {
    let dir = Dir::new();
    let (path, address) = dir.socket("a.sock");
    let connecting = path.clone();
    let log = Log::new();
    let server =
        Recorder::new("server", &log).on_accept(move |_, _, _| UnixStream::connect(&connecting).map(drop));
    let mut map = ChannelMap::new().unwrap();
    map.listen(&*address, server).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    map.drain(&at_once());
    run(&mut map).unwrap();
    assert_eq!(map.numbers().accepts, 4096);
}

/// 271: clients that never cease to connect do not keep a listener open.
#[test]
fn a_listener_closes_though_more_and_more_connect() {
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen(loopbacks()[0], AnsweringServer).unwrap();
    let address = address_of(&mut map, server);
    let crowd = thread::spawn(move || {
        let mut connected = 0;
        while let Ok(client) = TcpStream::connect(address) {
            connected += 1;
            drop(client);
        }
        connected
    });
    turn_until(&mut map, &Log::new(), |map| map.numbers().accepts > 20);
    map.drain(&at_once());
    run(&mut map).unwrap();
    assert!(crowd.join().unwrap() > 20);
    assert_eq!(counts(&map).2, 0);
}

/// 272.
#[test]
fn idle_channels_are_closed_and_do_not_linger() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let mut peers = Vec::new();
        for _ in 0..10 {
            let (near, far) = pair(on);
            let token = map.add(near, Recorder::new("a", &log)).unwrap();
            map.channel(token).unwrap().set_linger(HOUR);
            peers.push(far);
        }
        map.drain(&at_once());
        let begun = Instant::now();
        run(&mut map).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!((log.count("a drain"), log.count("a close: closed")), (10, 10));
        for mut peer in peers {
            assert_eq!(read_to_end(&mut peer), b"");
        }
        assert_eq!(counts(&map), (10, 0, 0));
    }
}

/// 272: a client that asks as soon as it was answered has no moment in which it is taken for idle.
#[test]
fn who_keeps_asking_is_told_that_it_is_the_last_answer() {
    for on in loopbacks() {
        let mut map = ChannelMap::new().unwrap();
        let server = map.listen(on, AnsweringServer).unwrap();
        let address = address_of(&mut map, server);
        let clients = (0..8).map(|_| {
            let mut client = connect(&address);
            thread::spawn(move || {
                loop {
                    client.write_all(b"x").unwrap();
                    assert_eq!(read_exactly(&mut client, 1), b"x");
                    client.set_nonblocking(true).unwrap();
                    let end = client.peek(&mut [0]);
                    client.set_nonblocking(false).unwrap();
                    if !matches!(end, Err(error) if error.kind() == ErrorKind::WouldBlock) {
                        return read_to_end(&mut client);
                    }
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        turn_until(&mut map, &Log::new(), |map| map.numbers().bytes_in > 500);
        map.drain(&at_once());
        run(&mut map).unwrap();
        for client in clients {
            assert_eq!(client.join().unwrap(), b".");
        }
        assert_eq!(counts(&map), (0, 8, 0));
    }
}

/// 272: it asks right after the first look.
#[test]
fn one_look_does_not_make_a_channel_idle() {
    for on in loopbacks() {
        let (near, mut far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        let token = map.add(near, Answering).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        map.drain(&at_once());
        map.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!((map.drain_state(), map.contains(token)), (DrainState::Draining, true));
        far.write_all(b"x").unwrap();
        arrive(&mut map, token);
        run(&mut map).unwrap();
        assert_eq!(read_to_end(&mut far), b"x.");
        assert_eq!(counts(&map), (0, 1, 0));
    }
}

/// 273: by its own word, by what is queued, by what waits in the socket or was put back.
#[test]
fn a_channel_with_work_under_way_finishes_it() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let add = |map: &mut ChannelMap, near: TcpStream, name| {
            let token = map.add(near, Recorder::new(name, &log)).unwrap();
            map.turn(Some(Duration::ZERO)).unwrap();
            token.token()
        };
        let (near, _says) = pair(on);
        let says = add(&mut map, near, "says");
        view(&mut map, says).set_busy(true);
        let (near, slow) = narrow_pair(on);
        let slow_reader = add(&mut map, near, "slow");
        view(&mut map, slow_reader).push_vec(vec![b's'; 4 << 20]).unwrap();
        let (near, mut waits) = pair(on);
        let waits_unread = add(&mut map, near, "waits");
        view(&mut map, waits_unread).pause_reading();
        waits.write_all(b"w").unwrap();
        let (near, _back) = pair(on);
        let back = add(&mut map, near, "back");
        view(&mut map, back).pause_reading();
        view(&mut map, back).unread(b"b");

        map.drain(&at_once());
        let waited = Instant::now() + Duration::from_millis(300);
        turn_until(&mut map, &log, |_| Instant::now() > waited);
        assert_eq!(map.drain_progress().unwrap().channels, 4, "{:?}", log.events());

        view(&mut map, says).set_busy(false);
        view(&mut map, waits_unread).resume_reading();
        view(&mut map, back).resume_reading();
        turn_until(&mut map, &log, |map| map.len() == 1);
        assert_eq!((log.input("waits"), log.input("back")), (b"w".to_vec(), b"b".to_vec()));
        let slow = reads_to_end(slow);
        run(&mut map).unwrap();
        assert_eq!(slow.join().unwrap().len(), 4 << 20);
        assert_eq!(counts(&map), (4, 0, 0));
        assert_eq!(log.count("slow close: closed"), 1);
    }
}

/// 273: on a Unix-domain socket the peer has not taken what it has not read.
#[cfg(target_os = "linux")]
#[test]
fn what_a_local_peer_has_not_read_yet_is_waited_for() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let token = map.add(near, Recorder::new("a", &log)).unwrap();
    map.channel(token).unwrap().push(b"answer").unwrap();
    map.drain(&at_once());
    let waited = Instant::now() + Duration::from_millis(300);
    turn_until(&mut map, &log, |_| Instant::now() > waited);
    assert!(map.contains(token));
    assert_eq!(read_exactly(&mut far, 6), b"answer");
    run(&mut map).unwrap();
    assert_eq!(counts(&map), (1, 0, 0));
}

/// 274.
#[test]
fn a_lame_duck_goes_on_accepting_and_says_so() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let asked = Rc::new(RefCell::new(Vec::new()));
        let (answers, inner) = (asked.clone(), log.clone());
        let server = map.listen(
            on,
            Recorder::new("server", &log).on_accept(move |ch, socket, _| {
                let answers = answers.clone();
                let client = Recorder::new("client", &inner).on("open", move |ch| {
                    answers.borrow_mut().push(ch.map().is_draining());
                    Ok(())
                });
                ch.map_mut().add(socket, client).map(drop)
            }),
        );
        let address = address_of(&mut map, server.unwrap());
        let _first = connect(&address);
        turn_until(&mut map, &log, |_| log.has("client open"));
        map.drain(&at_once().with_lame_duck(HOUR));
        turn_until(&mut map, &log, |_| log.has("client drain"));
        assert!(log.has("server drain"));
        let _second = connect(&address);
        turn_until(&mut map, &log, |_| log.count("client open") == 2);
        turn_idle(&mut map);
        assert_eq!((map.len(), map.drain_state()), (3, DrainState::LameDuck));
        assert_eq!(asked.take(), [false, true]);

        // Asked for again, with no such time: its end is the earlier one.
        map.drain(&at_once());
        assert_eq!(map.drain_state(), DrainState::Draining);
        run(&mut map).unwrap();
        assert_eq!((log.count("client drain"), log.count("server drain")), (1, 1));
        assert_eq!(log.count("client close: closed"), 2);
    }
}

/// 274: it ends by itself.
#[test]
fn the_lame_duck_time_ends() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    map.listen(loopbacks()[0], Recorder::new("server", &log)).unwrap();
    let told = progress_of(&mut map);
    map.drain(&at_once().with_lame_duck(Duration::from_millis(30)));
    let begun = Instant::now();
    run(&mut map).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(30));
    let states: Vec<_> = told.take().iter().map(|progress| progress.state).collect();
    assert_eq!(states, [DrainState::LameDuck, DrainState::Draining, DrainState::Drained]);
}

/// 275: what is cut short does not look like an end; what the system has goes out.
#[test]
fn what_is_left_at_the_deadline_is_aborted() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, deaf) = narrow_pair(on);
        let deaf_one = map.add(near, Recorder::new("deaf", &log)).unwrap();
        map.channel(deaf_one).unwrap().push_vec(vec![b'd'; 4 << 20]).unwrap();
        let (near, busy) = pair(on);
        let busy_one = map.add(near, Recorder::new("busy", &log)).unwrap();
        map.channel(busy_one).unwrap().set_busy(true);
        let (near, mut has_all) = pair(on);
        let closing = map.add(near, Recorder::new("closing", &log)).unwrap();
        map.channel(closing).unwrap().push(b"all").unwrap();
        map.drain(&DrainOptions::default().with_deadline(Duration::from_millis(50)));
        map.call_later(Duration::from_millis(1), move |map| map.channel(closing).unwrap().close());
        run(&mut map).unwrap();
        assert!(map.is_empty());
        assert!(log.has("deaf close: aborted") && log.has("busy close: aborted"), "{:?}", log.events());
        assert!(log.has("closing close: closed"));
        assert!(cut_short(deaf).len() < 4 << 20);
        assert_eq!(cut_short(busy), b"");
        assert_eq!(read_exactly(&mut has_all, 3), b"all");
        assert_eq!(counts(&map), (0, 1, 2));
    }
}

/// 275: whatever hooks do.
#[test]
fn run_returns_at_the_deadline_though_more_is_added() {
    struct Undying(#[allow(dead_code)] UnixStream); // keeps it open
    impl Dispatcher for Undying {
        fn handle_close(&mut self, ch: &mut Channel<'_>, _: &Reason) {
            let map = ch.map_mut();
            if map.numbers().turns < 10_000 {
                add(map);
            }
        }
    }
    fn add(map: &mut ChannelMap) {
        let (near, far) = UnixStream::pair().unwrap();
        let token = map.add(near, Undying(far)).unwrap();
        map.channel(token).unwrap().set_busy(true);
    }
    let mut map = ChannelMap::new().unwrap();
    add(&mut map);
    assert!(map.tokens().all(|token| map.contains(token)));
    map.drain(&DrainOptions::default().with_deadline(Duration::from_millis(20)));
    run(&mut map).unwrap();
    assert_eq!((map.drain_state(), map.len()), (DrainState::Drained, 1));
    assert_eq!(counts(&map), (0, 0, 1));
}

/// 276.
#[test]
fn a_listener_in_the_background_answers_to_the_end_and_keeps_nothing_alive() {
    let on = loopbacks()[0];
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let inner = log.clone();
    let stats = Recorder::new("stats", &log).on_accept(move |ch, socket, _| {
        let client = Recorder::new("asking", &inner).on("read", |ch| {
            ch.read_with(|ch, _| {
                let progress = ch.map().drain_progress().unwrap();
                ch.push(format!("{} left\n", progress.channels).as_bytes())
            })
        });
        let token = ch.map_mut().add(socket, client)?;
        ch.map_mut().channel(token)?.set_background(true);
        Ok(())
    });
    let stats = map.listen(on, stats).unwrap();
    map.channel(stats).unwrap().set_background(true);
    let address = address_of(&mut map, stats);
    let (near, _far) = pair(on);
    let busy = map.add(near, Recorder::new("busy", &log)).unwrap();
    map.channel(busy).unwrap().set_busy(true);
    map.drain(&at_once());
    turn_until(&mut map, &log, |_| log.has("stats drain"));
    let mut client = connect(&address);
    for _ in 0..3 {
        client.write_all(b"?").unwrap();
        let mut answer = [0; 7];
        let reads = log.count("asking read");
        turn_until(&mut map, &log, |_| log.count("asking read") > reads);
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"1 left\n");
        turn_idle(&mut map);
    }
    assert!(!log.closed("asking") && !log.closed("stats") && !log.closed("busy"));
    map.channel(busy).unwrap().set_busy(false);
    run(&mut map).unwrap();
    assert_eq!((map.len(), map.drain_state()), (2, DrainState::Drained));
    assert_eq!(counts(&map), (1, 0, 0));
}

/// 277.
#[test]
fn neither_timers_nor_remotes_nor_until_stopped_hold_it_up() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen(loopbacks()[0], Recorder::new("server", &log)).unwrap();
    map.call_later(HOUR, |_| unreachable!("an hour has passed"));
    map.call_every(HOUR, |_| unreachable!("an hour has passed"));
    map.channel(server).unwrap().call_later(HOUR, |_| unreachable!("an hour has passed"));
    let remote = map.remote();
    let drains = thread::spawn(move || remote.drain(&at_once()).is_ok());
    run_with(&mut map, &LoopOptions::default().with_until_stopped(true)).unwrap();
    assert!(drains.join().unwrap());
    assert_eq!((map.drain_state(), map.len()), (DrainState::Drained, 0));

    // The map is as good as before.
    map.listen(loopbacks()[0], Recorder::new("again", &log)).unwrap();
    map.drain(&at_once());
    run(&mut map).unwrap();
    assert!(log.has("again drain") && log.has("again close: closed"));
}

/// 277: as after any return of `run`.
#[test]
fn a_map_that_was_drained_refuses_messages() {
    let mut map = ChannelMap::new().unwrap();
    let remote = map.remote();
    map.listen(loopbacks()[0], AnsweringServer).unwrap();
    map.drain(&at_once());
    run(&mut map).unwrap();
    assert!(remote.is_stopped() && remote.drain(&at_once()).is_err());
}

/// 277: the error of a listener is nobody's who drains.
#[cfg(debug_assertions)]
#[test]
fn a_listener_that_fails_makes_no_error_of_a_drain() {
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen(loopbacks()[0], AnsweringServer).unwrap();
    let address = address_of(&mut map, server);
    let _client = connect(&address);
    map.drain(&at_once());
    inject(Call::Accept, 0, 1, Fault::Errno(libc::EINVAL));
    run(&mut map).unwrap();
    assert_eq!(map.numbers().accept_errors, 1);
    run(&mut map).unwrap(); // nor of what comes after it
}

/// 278.
#[test]
fn a_drain_may_begin_in_any_hook() {
    for on in loopbacks() {
        for place in ["open", "read", "eof", "close", "timer", "call_soon"] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (near, mut far) = pair(on);
            let recorder = Recorder::new("a", &log).on(place, |ch| {
                let options = at_once();
                ch.map_mut().drain(&options);
                if !ch.is_closing() {
                    ch.push(b"goodbye")?;
                }
                if ch.map().drain_progress().unwrap().channels == 0 {
                    return Ok(());
                }
                let mut buffer = [0; 10];
                match ch.recv(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                    read => read.map(drop),
                }
            });
            let token = map.add(near, recorder).unwrap();
            map.listen(on, Recorder::new("listener", &log)).unwrap();
            far.write_all(b"x").unwrap();
            match place {
                "open" | "read" => {}
                "timer" => {
                    map.channel(token).unwrap().call_later(Duration::ZERO, |ch| {
                        ch.map_mut().drain(&at_once());
                        Ok(())
                    });
                }
                "call_soon" => drop(map.call_soon(|map| map.drain(&at_once()))),
                _ => far.shutdown(std::net::Shutdown::Write).unwrap(),
            }
            run(&mut map).unwrap();
            assert_eq!(map.drain_state(), DrainState::Drained, "{place}");
            assert_eq!(log.count("listener drain"), 1, "{place}");
            let answer: &[u8] = if matches!(place, "open" | "read" | "eof") { b"goodbye" } else { b"" };
            assert_eq!(read_to_end(&mut far), answer, "{place}");
        }
    }
}

/// 278: what is given out in the hook leaves before the end.
#[test]
fn what_handle_drain_pushes_arrives() {
    for on in loopbacks() {
        let log = Log::new();
        let recorder = Recorder::new("a", &log).on("drain", |ch| ch.push(b"we close\n"));
        let (mut map, _, mut far) = opened(on, recorder);
        map.drain(&at_once());
        run(&mut map).unwrap();
        assert_eq!(read_to_end(&mut far), b"we close\n");
    }
}

/// 279.
#[test]
fn the_earlier_deadline_holds() {
    for first in [true, false] {
        let log = Log::new();
        let (mut map, token, _far) = opened(loopbacks()[0], Recorder::new("a", &log));
        view(&mut map, token).set_busy(true);
        let limits = [Duration::from_millis(30), HOUR];
        map.drain(&DrainOptions::default().with_deadline(limits[usize::from(first)]));
        map.drain(&DrainOptions::default().with_deadline(limits[usize::from(!first)]));
        run(&mut map).unwrap();
        assert_eq!((log.count("a drain"), counts(&map)), (1, (0, 0, 1)));
    }
}

/// 279: a stop comes first, and the drain goes on when the map runs again.
#[test]
fn a_map_may_be_stopped_while_it_drains() {
    let log = Log::new();
    let (mut map, token, _far) = opened(loopbacks()[0], Recorder::new("a", &log));
    view(&mut map, token).set_busy(true);
    map.drain(&at_once());
    map.call_later(Duration::from_millis(20), |map| map.stop());
    run(&mut map).unwrap();
    assert!(map.is_draining() && map.contains(token));
    view(&mut map, token).set_busy(false);
    run(&mut map).unwrap();
    assert_eq!((map.drain_state(), counts(&map)), (DrainState::Drained, (1, 0, 0)));
}

/// 279: or dropped.
#[test]
fn a_map_may_be_dropped_while_it_drains() {
    let log = Log::new();
    let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log));
    struct Guard(Log);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.add("hook dropped");
        }
    }
    let guard = Guard(log.clone());
    map.on_drain(move |_, _| _ = &guard);
    view(&mut map, token).set_busy(true);
    map.drain(&at_once());
    turn_until(&mut map, &log, |_| log.has("a drain"));
    drop(map);
    assert_eq!(log.events()[1..], ["a drain", "a close: the channel map ended", "hook dropped"]);
    drop(far);
}

/// 280: the same without `run`.
#[test]
fn an_embedded_map_tells_how_far_it_is() {
    let log = Log::new();
    let (mut map, token, mut far) = opened(loopbacks()[0], Recorder::new("a", &log));
    map.call_later(HOUR, |_| ());
    view(&mut map, token).set_busy(true);
    map.drain(&at_once());
    turn_until(&mut map, &log, |_| log.has("a drain"));
    assert_eq!(map.drain_state(), DrainState::Draining);
    view(&mut map, token).set_busy(false);
    turn_until(&mut map, &log, |map| map.drain_state() == DrainState::Drained);
    assert!(map.is_empty());
    assert_eq!(read_to_end(&mut far), b"");
    assert!(!turns_at_once(&mut map, 5, |map| map.wait_limit() == Some(Duration::ZERO)));
}

/// 280: what ends the last channel ends the drain, and the turn does not wait for anything else.
#[test]
fn a_turn_does_not_wait_when_nothing_is_left() {
    let log = Log::new();
    let (mut map, token, _far) = opened(loopbacks()[0], Recorder::new("a", &log));
    map.call_later(HOUR, |_| ());
    map.drain(&DrainOptions::default().with_deadline(HOUR).with_lame_duck(HOUR));
    turn_until(&mut map, &log, |_| log.has("a drain"));
    view(&mut map, token).abort();
    let begun = Instant::now();
    map.turn(Some(DEADLINE)).unwrap();
    assert_eq!(map.drain_state(), DrainState::Drained);
    assert!(begun.elapsed() < DEADLINE / 2);
}

/// 281.
#[test]
fn the_numbers_add_up_and_are_told() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let mut peers = Vec::new();
        for n in 0..30 {
            let (near, far) = pair(on);
            let token = map.add(near, Recorder::new("a", &log)).unwrap();
            map.channel(token).unwrap().set_busy(n >= 10);
            peers.push(far);
        }
        map.listen(on, Recorder::new("listener", &log)).unwrap();
        let told = progress_of(&mut map);
        map.drain(&DrainOptions::default().with_deadline(Duration::from_millis(300)));
        turn_until(&mut map, &log, |map| counts(map).0 == 10);
        peers.truncate(20);
        run(&mut map).unwrap();
        let told = told.take();
        assert!(told.len() > 2);
        for progress in &told {
            let sum = progress.channels as u64 + progress.closed_idle + progress.finished + progress.aborted;
            assert_eq!(sum, 30, "{told:?}");
        }
        let last = told.last().unwrap();
        assert_eq!((last.closed_idle, last.finished, last.aborted), (10, 10, 10));
        assert_eq!((last.channels, last.listeners, last.state), (0, 0, DrainState::Drained));
        assert_eq!((told[0].listeners, told[0].signal), (1, None));
        assert_eq!(map.drain_progress().as_ref(), Some(last));
    }
}

/// 282: the map that drains is swapped away.
#[test]
fn hooks_may_swap_the_maps() {
    for in_hook in [true, false] {
        let log = Log::new();
        let away = Rc::new(RefCell::new(None));
        let (swapped, done) = (away.clone(), Cell::new(false));
        let swap = move |map: &mut ChannelMap| {
            if !done.replace(true) {
                *swapped.borrow_mut() = Some(mem::replace(map, ChannelMap::new().unwrap()));
            }
        };
        let mut map = ChannelMap::new().unwrap();
        let (near, _far) = pair(loopbacks()[0]);
        let mut recorder = Recorder::new("a", &log);
        if in_hook {
            recorder = recorder.on("drain", move |ch| {
                swap(ch.map_mut());
                Ok(())
            });
        } else {
            map.on_drain(move |map, _| swap(map));
        }
        map.add(near, recorder).unwrap();
        map.listen(loopbacks()[0], Recorder::new("listener", &log)).unwrap();
        map.drain(&at_once());
        // The other map is empty.
        run(&mut map).unwrap();
        assert_eq!(map.drain_state(), DrainState::Running);
        let mut first = away.borrow_mut().take().unwrap();
        assert!(first.is_draining());
        run(&mut first).unwrap();
        assert_eq!((first.drain_state(), first.len()), (DrainState::Drained, 0));
        assert_eq!((log.count("a close: "), log.count("listener close: closed")), (1, 1));
    }
}

/// 282: the last that a map's hook is told, it swaps the map away.
#[test]
fn the_maps_may_be_swapped_at_the_end() {
    let mut map = ChannelMap::new().unwrap();
    let remote = map.remote();
    map.on_drain(|map, progress| {
        if progress.state == DrainState::Drained {
            drop(mem::replace(map, ChannelMap::new().unwrap()));
        }
    });
    map.drain(&at_once());
    run(&mut map).unwrap();
    assert!(remote.is_stopped());
    assert_eq!(map.drain_state(), DrainState::Running);
}

/// 283.
#[test]
fn a_panic_or_an_error_in_a_drain_stays_where_it_is() {
    capture_log();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let on = loopbacks()[0];
    let panics = Recorder::new("panics", &log).on("drain", |_| panic!("in handle_drain"));
    let fails = Recorder::new("fails", &log).on("drain", |_| Err(io::Error::other("it cannot")));
    let (near, _panicking) = pair(on);
    map.add(near, panics).unwrap();
    let (near, _failing) = pair(on);
    map.add(near, fails).unwrap();
    let (near, mut well) = pair(on);
    map.add(near, Recorder::new("well", &log)).unwrap();
    map.on_drain(|_, _| panic!("in on_drain"));
    map.drain(&at_once());
    run(&mut map).unwrap();
    assert_eq!(log.count("panics error: "), 1);
    assert!(log.has("fails error: it cannot") && log.has("well close: closed"));
    assert_eq!(read_to_end(&mut well), b"");
    assert!(!logged("in on_drain").is_empty());
    assert_eq!(counts(&map), (1, 2, 0));
}

/// 284: a socket for datagrams closes although they never cease.
#[test]
fn datagrams_do_not_hold_it_up() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let channel = map.bind(loopbacks()[0], Recorder::new("a", &log).quiet()).unwrap();
    let address: SocketAddr = address_of(&mut map, channel);
    let ended = Rc::new(Cell::new(false));
    let sender = std::net::UdpSocket::bind((address.ip(), 0)).unwrap();
    let told = ended.clone();
    map.call_every(Duration::from_millis(1), move |_| {
        if !told.get() {
            let _ = sender.send_to(b"x", address);
        }
    });
    turn_until(&mut map, &log, |_| log.count("a datagram") > 3);
    map.drain(&at_once());
    run(&mut map).unwrap();
    ended.set(true);
    assert_eq!(counts(&map), (1, 0, 0));
}

/// 284: a peer that ends in the midst of it ends its channel as ever.
#[test]
fn a_peer_that_ends_while_the_map_drains_is_told_as_ever() {
    let log = Log::new();
    let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log));
    view(&mut map, token).set_busy(true);
    map.drain(&at_once());
    turn_until(&mut map, &log, |_| log.has("a drain"));
    far.shutdown(std::net::Shutdown::Write).unwrap();
    arrive(&mut map, token);
    run(&mut map).unwrap();
    assert!(log.has("a eof") && log.has("a close: end of stream"), "{:?}", log.events());
    assert_eq!(counts(&map), (0, 1, 0));
    let (rest, end) = read_all(&mut &far);
    assert!(rest.is_empty() && end.is_ok());
    wait_until("the channel is gone", || map.is_empty());
}

/// 290: the side upstream has nothing to do while the client takes what came from there.
#[test]
fn the_two_sides_of_a_relay_are_idle_together() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, slow) = narrow_pair(on);
        let client = map.add(near, Recorder::new("client", &log)).unwrap();
        let (near, _upstream) = pair(on);
        let upstream = map.add(near, Recorder::new("upstream", &log)).unwrap();
        map.channel(client).unwrap().auto_pause_with(upstream).unwrap();
        map.channel(client).unwrap().push_vec(vec![b's'; 4 << 20]).unwrap();
        map.drain(&at_once());
        let waited = Instant::now() + Duration::from_millis(200);
        turn_until(&mut map, &log, |_| Instant::now() > waited);
        assert!(!log.closed("client") && !log.closed("upstream"));
        let slow = reads_to_end(slow);
        run(&mut map).unwrap();
        assert_eq!(slow.join().unwrap().len(), 4 << 20);
        assert_eq!(counts(&map), (2, 0, 0));
    }
}

/// 291: a poem that is recited a piece at a time, whenever there is room.
#[test]
fn who_wants_to_write_is_not_idle() {
    for on in loopbacks() {
        let log = Log::new();
        let left = Rc::new(Cell::new(1_000_000));
        let (asked, sends) = (left.clone(), left.clone());
        let recorder =
            Recorder::new("a", &log).quiet().writable(move |_| asked.get() > 0).on("write", move |ch| {
                let sent = ch.send(&vec![b'x'; sends.get().min(10_000)])?;
                sends.set(sends.get() - sent);
                Ok(())
            });
        let (near, far) = narrow_pair(on);
        let mut map = ChannelMap::new().unwrap();
        map.add(near, recorder).unwrap();
        map.drain(&at_once());
        let waited = Instant::now() + Duration::from_millis(200);
        turn_until(&mut map, &log, |_| Instant::now() > waited);
        let far = reads_to_end(far);
        run(&mut map).unwrap();
        assert_eq!((left.get(), far.join().unwrap().len()), (0, 1_000_000));
    }
}

/// 291: also while it has nothing queued.
#[test]
fn who_wants_to_write_later_is_not_idle() {
    let log = Log::new();
    let (ready, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let (is_ready, is_done, is_written) = (ready.clone(), done.clone(), done.clone());
    let recorder =
        Recorder::new("a", &log).quiet().writable(move |_| !is_done.get()).on("write", move |ch| {
            if !is_ready.get() {
                return Ok(());
            }
            is_written.set(true);
            ch.push(b"at last")
        });
    let (mut map, token, mut far) = opened(loopbacks()[0], recorder);
    map.drain(&at_once());
    let waited = Instant::now() + Duration::from_millis(200);
    turn_until(&mut map, &log, |_| Instant::now() > waited);
    assert!(map.contains(token));
    ready.set(true);
    view(&mut map, token).resume_reading(); // it was suspended
    run(&mut map).unwrap();
    assert_eq!((done.get(), read_to_end(&mut far)), (true, b"at last".to_vec()));
}

/// 292: what closes by itself is not given as long as otherwise to see the peer's end.
#[test]
fn what_lingers_does_not_hold_it_up() {
    for before in [true, false] {
        let log = Log::new();
        let (mut map, token, mut far) = opened(loopbacks()[0], Recorder::new("a", &log));
        view(&mut map, token).push(b"last").unwrap();
        view(&mut map, token).set_busy(true);
        if before {
            view(&mut map, token).close();
            turn_idle(&mut map);
        } else {
            map.call_later(Duration::from_millis(30), move |map| view(map, token).close());
        }
        let begun = Instant::now();
        map.drain(&at_once());
        run(&mut map).unwrap();
        // Otherwise it is 2 s.
        assert!(begun.elapsed() < Duration::from_millis(1900), "{:?}", begun.elapsed());
        assert_eq!(read_to_end(&mut far), b"last");
        assert_eq!(counts(&map), (0, 1, 0));
    }
}

/// 293: a source with a farewell says it.
#[test]
fn an_idle_source_says_goodbye() {
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (_, far) = kind.open(&mut map, Recorder::new("a", &log), |far| far.read_to_end());
        turn_until(&mut map, &log, |_| log.has("a open"));
        map.drain(&at_once());
        let begun = Instant::now();
        run(&mut map).unwrap();
        assert!(begun.elapsed() < Duration::from_millis(1900), "{kind:?}: {:?}", begun.elapsed());
        assert_eq!(far.join().unwrap().unwrap(), b"", "{kind:?}");
        assert_eq!((log.count("a close: closed"), counts(&map)), (1, (1, 0, 0)), "{kind:?}");
    }
}

/// 294: a listener that is paused lets in who waits once somebody resumes it, and nobody when there is
/// nobody to do so.
#[test]
fn a_paused_listener_is_waited_for_while_somebody_may_resume_it() {
    for resumed in [true, false] {
        let mut map = ChannelMap::new().unwrap();
        let server = map.listen(loopbacks()[0], AnsweringServer).unwrap();
        let address = address_of(&mut map, server);
        map.channel(server).unwrap().pause_reading();
        let (near, _far) = pair(loopbacks()[0]);
        let log = Log::new();
        let busy = map.add(near, Recorder::new("busy", &log)).unwrap();
        map.channel(busy).unwrap().set_busy(true);
        let mut client = connect(&address);
        client.write_all(b"x").unwrap();
        map.drain(&at_once());
        let waited = Instant::now() + Duration::from_millis(100);
        turn_until(&mut map, &log, |_| Instant::now() > waited);
        assert!(map.contains(server));
        if resumed {
            map.channel(server).unwrap().resume_reading();
            turn_until(&mut map, &log, |map| !map.contains(server));
        }
        map.channel(busy).unwrap().set_busy(false);
        let begun = Instant::now();
        run(&mut map).unwrap();
        assert!(begun.elapsed() < DEADLINE / 2, "it was waited for");
        assert_eq!(map.numbers().accepts, u64::from(resumed));
        match resumed {
            true => assert_eq!(read_to_end(&mut client), b"x."),
            false => assert_eq!(cut_short(client), b""),
        }
    }
}
