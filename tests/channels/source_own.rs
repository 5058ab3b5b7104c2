//! What only a source of its own can bring about: handshakes that last, fail or never end, panics
//! inside one, bytes that it keeps. Sources put around a living channel are in `wrap_source.rs`.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults;
use dispatch_loop::{Channel, ChannelMap, Interest, Source};

use crate::support::ends::{Kind, Wire, kinds, record_kinds};
use crate::support::peers::unix_pair;
use crate::support::recorder::{Log, Recorder};
use crate::support::records::{Options, Probe, Records};
use crate::support::turning::{comes_to_rest, run_out, turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

/// A channel with records whose probe the test holds, and the far end's socket.
fn probed(map: &mut ChannelMap, recorder: Recorder) -> (Rc<Probe>, socket2::Socket) {
    let (near, far) = UNIX.sockets();
    near.set_nonblocking(true).unwrap();
    let records = Records::new(Box::new(Wire(near)), true, UNIX.options);
    let probe = records.probe.clone();
    map.add_source(records, recorder).unwrap();
    (probe, far)
}

const OPTIONS: Options = Options::RECORDS;
const UNIX: Kind = Kind { on: None, layers: 1, client: true, options: OPTIONS };

fn wrap(ch: &mut Channel<'_>, client: bool) -> io::Result<()> {
    ch.wrap_source(move |plain| Ok(Box::new(Records::new(plain, client, OPTIONS))))
}

/// EDGE_CASES 89.
#[test]
fn a_handshake_that_fails_is_told_as_a_failed_connect_is() {
    // The server lies in its last word: it has no reason to think that anything is wrong.
    for mut kind in record_kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, far) = kind.sockets();
        let handle = kind.add(&mut map, near, true, Recorder::new("a", &log));
        map.channel(handle).unwrap().push(b"never sent").unwrap();
        kind.options.liar = true;
        kind.add(&mut map, far, false, Recorder::new("b", &log));
        run_out(&mut map, &log);
        for name in ["a", "b"] {
            assert_eq!(log.count(&format!("{name} close: ")), 1, "{kind:?}");
        }
        let why = kind.options.says("invalid peer certificate: UnknownIssuer");
        assert_eq!(log.of("a"), [format!("error: {why}"), format!("close: {why}")], "{kind:?}");
    }
}

#[test]
fn a_handshake_may_time_out() {
    for kind in record_kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, _silent) = kind.sockets();
        let handle = kind.add(&mut map, near, kind.client, Recorder::new("a", &log));
        let mut ch = map.channel(handle).unwrap();
        ch.push(b"never sent").unwrap();
        ch.set_timeout(Some(Duration::from_millis(20)));
        run_out(&mut map, &log);
        assert_eq!(log.of("a"), ["timeout", "close: aborted"], "{kind:?}");
    }
}

/// What is queued is kept until the handshake's end or the deadline (EDGE_CASES 60).
#[test]
fn close_during_the_handshake_keeps_what_is_queued_until_its_deadline() {
    for kind in record_kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, _silent) = kind.sockets();
        let handle = kind.add(&mut map, near, kind.client, Recorder::new("a", &log));
        // More than the high watermark: that is told when there is somebody to tell.
        map.channel(handle).unwrap().push(&[7; 100_000]).unwrap();
        assert!(comes_to_rest(&mut map), "{kind:?}: it spins");
        assert_eq!(log.events(), [""; 0]);
        let mut ch = map.channel(handle).unwrap();
        ch.set_close_timeout(Duration::from_millis(20));
        ch.close();
        run_out(&mut map, &log);
        assert_eq!(log.of("a"), ["close: timed out"], "{kind:?}");
    }
}

/// The peer goes away in the midst of it: by FIN, or by a reset.
#[test]
fn an_end_by_the_peer_during_the_handshake_ends_the_channel() {
    for (kind, resets) in record_kinds().into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, far) = kind.sockets();
        kind.add(&mut map, near, kind.client, Recorder::new("a", &log));
        turn_idle(&mut map);
        if resets {
            far.set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(far);
        run_out(&mut map, &log);
        let events = log.of("a");
        assert_eq!(events.len(), 2, "{kind:?}: {events:?}");
        assert!(events[0].starts_with("error: ") && events[1].starts_with("close: "), "{events:?}");
        assert!(events[1].contains("reset") || kind.is_cut_short(&events[1]), "{events:?}");
    }
}

/// EDGE_CASES 44, for what is not the dispatcher's own: the channel ends, nobody else does.
#[test]
fn a_panic_inside_a_source_ends_its_channel_alone() {
    for place in ["drive", "recv", "send", "shutdown_write", "interest"] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (probe, far) = probed(&mut map, Recorder::new("a", &log));
        let (go, wait) = mpsc::channel::<()>();
        let far = UNIX.far(far, move |far| {
            let _ = wait.recv();
            let _ = far.write(b"for recv");
            let _ = far.read_to_end();
        });
        turn_until(&mut map, &log, |_| log.has("a open"));
        let token = map.tokens().next().unwrap();
        let (mut other, near) = UnixStream::pair().unwrap();
        // It is another channel's hook that makes the source send, or say farewell.
        let neighbour = Recorder::new("b", &log).on("read", move |ch| {
            ch.read_with(|ch, _| {
                let mut a = ch.map_mut().channel(token)?;
                match place {
                    "send" => a.push(b"to a")?,
                    "shutdown_write" => a.shutdown_write(),
                    _ => {}
                }
                Ok(())
            })
        });
        let neighbour = map.add(near, neighbour).unwrap();
        turn_idle(&mut map);
        probe.panic_in.set(place);
        other.write_all(b"now").unwrap();
        drop(go);
        turn_until(&mut map, &log, |_| log.closed("a"));
        assert_eq!(log.of("a").pop().unwrap(), format!("close: panicked: the source panics in {place}"));
        far.join().unwrap();
        turn_until(&mut map, &log, |_| log.has("b read"));
        assert_eq!(log.count("b error") + log.count("b close"), 0, "{place}: {:?}", log.events());
        assert!(map.contains(neighbour));
    }
}

/// EDGE_CASES 21, 26: a record of half a MiB is given out 64 KiB a turn, without a wait.
#[test]
fn input_inside_is_shared_out_among_the_turns() {
    let kind = Kind { options: Options { record: 512 * 1024, update_every: 1 << 20, ..OPTIONS }, ..UNIX };
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let turn = Rc::new(Cell::new(0));
    let got = Rc::new(RefCell::new(vec![]));
    let (now, by_turn) = (turn.clone(), got.clone());
    let near = Recorder::new("a", &log).quiet().on("read", move |ch| {
        let mut buffer = [0; 10_000];
        loop {
            let read = ch.recv(&mut buffer)?;
            by_turn.borrow_mut().push((now.get(), read));
        }
    });
    let (done, wait) = mpsc::channel::<()>();
    let (_, far) = kind.open(&mut map, near, move |far| {
        far.write(&vec![7; 512 * 1024]).unwrap();
        let _ = wait.recv();
    });
    turn_until(&mut map, &log, |_| !got.borrow().is_empty());
    let begun = Instant::now();
    for _ in 1..8 {
        turn.set(turn.get() + 1);
        map.turn(Some(DEADLINE)).unwrap();
    }
    assert!(begun.elapsed() < DEADLINE, "it waited with input inside");
    for turn in 0..8 {
        let bytes: usize = got.borrow().iter().filter(|one| one.0 == turn).map(|one| one.1).sum();
        assert_eq!(bytes, 64 * 1024, "in turn {turn}");
    }
    drop(done);
    far.join().unwrap();
}

/// What a source has taken and not sent is unsent: it counts for the close, and for its reason.
#[test]
fn bytes_inside_a_source_count_as_unsent_at_the_close() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (probe, far) = probed(&mut map, Recorder::new("a", &log));
    let (done, wait) = mpsc::channel::<()>();
    let far = UNIX.far(far, move |_| wait.recv().is_ok());
    turn_until(&mut map, &log, |_| log.has("a open"));
    let token = map.tokens().next().unwrap();
    while probe.unsent.get() == 0 {
        map.channel(token).unwrap().push(&[7; 1000]).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
    }
    let mut ch = map.channel(token).unwrap();
    assert_eq!(ch.queued(), 0);
    ch.set_close_timeout(Duration::from_millis(20));
    ch.close();
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: timed out"]);
    drop(done);
    far.join().unwrap();
}

/// Rule 6, idle and while a write waits for a read: the socket has room, and that is no reason to
/// wake.
#[test]
fn a_source_spins_neither_idle_nor_while_a_write_waits_for_a_read() {
    for mut kind in kinds() {
        kind.options.update_every = 1000;
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (go, wait) = mpsc::channel();
        let (handle, far) = kind.open(&mut map, Recorder::new("a", &log), move |far| {
            wait.recv().unwrap();
            far.read_some(5000).unwrap()
        });
        turn_until(&mut map, &log, |_| log.has("a open"));
        for bytes in [0, 5000] {
            map.channel(handle).unwrap().push(&vec![7; bytes]).unwrap();
            assert!(comes_to_rest(&mut map), "{kind:?}: it spins with {bytes} queued");
        }
        // TLS does not wait for an answer to a new key.
        let waits = kind.layers > 0 && kind.options.with.is_none();
        assert_eq!(map.channel(handle).unwrap().queued() > 0, waits, "{kind:?}");
        go.send(()).unwrap();
        run_out(&mut map, &log);
        assert_eq!(far.join().unwrap(), [7; 5000], "{kind:?}");
    }
}

/// A write that needs a read gets it while the channel reads nothing; what came before the answer
/// is kept.
#[test]
fn a_paused_channel_still_reads_what_its_writes_need() {
    for mut kind in kinds() {
        kind.options.update_every = 1000;
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let near = Recorder::new("a", &log).on("open", |ch| {
            ch.pause_reading();
            ch.push(&[7; 5000])
        });
        let (done, wait) = mpsc::channel::<()>();
        let (handle, far) = kind.open(&mut map, near, move |far| {
            far.write(b"early").unwrap();
            let got = far.read_some(5000).unwrap();
            let _ = wait.recv();
            got
        });
        turn_until(&mut map, &log, |map| log.has("a open") && map.channel(handle).unwrap().queued() == 0);
        assert_eq!(log.of("a"), ["open"], "{kind:?}");
        map.channel(handle).unwrap().resume_reading();
        turn_until(&mut map, &log, |_| log.input("a") == b"early");
        drop(done);
        run_out(&mut map, &log);
        assert_eq!(far.join().unwrap(), [7; 5000]);
    }
}

/// `WouldBlock` says that there is nothing to be done now, in `drive` as elsewhere.
#[test]
fn would_block_from_drive_waits_as_elsewhere() {
    struct Idle(Wire);
    impl Source for Idle {
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            self.0.descriptor()
        }
        fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.recv(buffer)
        }
        fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes)
        }
        fn shutdown_write(&mut self) -> io::Result<()> {
            self.0.shutdown_write()
        }
        fn drive(&mut self, _: Interest) -> io::Result<bool> {
            Err(ErrorKind::WouldBlock.into())
        }
    }
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = UNIX.sockets();
    near.set_nonblocking(true).unwrap();
    map.add_source(Idle(Wire(near)), Recorder::new("a", &log)).unwrap();
    (&far).write_all(b"input").unwrap();
    drop(far);
    run_out(&mut map, &log);
    assert_eq!(log.input("a"), b"input");
    assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
}

/// A source takes a record at a time: as long as it takes any, there is no need to wait for room.
#[cfg(debug_assertions)]
#[test]
fn a_source_that_takes_little_at_a_time_is_not_waited_for() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = unix_pair();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    wrap(&mut map.channel(handle).unwrap(), true).unwrap();
    let (done, wait) = mpsc::channel::<()>();
    let far = UNIX.far(far.into(), move |far| {
        let got = far.read_some(60_000).unwrap().len();
        let _ = wait.recv();
        got
    });
    turn_until(&mut map, &log, |_| log.has("a open"));
    turn_idle(&mut map);
    let before = faults::count(faults::Call::Control);
    map.channel(handle).unwrap().push(&[7; 60_000]).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(map.channel(handle).unwrap().queued(), 0);
    assert_eq!(faults::count(faults::Call::Control), before, "registered for nothing");
    drop(done);
    assert_eq!(far.join().unwrap(), 60_000);
}

/// A read of a source that is short says nothing of what is behind it: not as with a plain socket.
#[test]
fn short_records_are_read_in_one_turn() {
    let kind = Kind { options: Options { record: 100, ..OPTIONS }, ..UNIX };
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let near = Recorder::new("a", &log).on("open", |ch| {
        ch.pause_reading();
        Ok(())
    });
    let near = near.on("read", |ch| {
        let mut buffer = [0; 1000];
        while ch.recv(&mut buffer)? > 0 {}
        Ok(())
    });
    let (handle, far) = kind.open(&mut map, near, |far| {
        far.write(&[7; 5000]).unwrap();
        far.finish().unwrap();
    });
    turn_until(&mut map, &log, |_| log.has("a open") && far.is_finished());
    map.channel(handle).unwrap().resume_reading();
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "read", "eof", "close: end of stream"]);
}
