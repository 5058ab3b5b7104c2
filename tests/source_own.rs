//! What only a source of its own can bring about: handshakes that last, fail or never end, sources
//! put around a living channel, panics inside one, bytes that it keeps.

#[path = "util/ends.rs"]
mod ends;
#[path = "util/records.rs"]
mod records;
mod util;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::{Channel, ChannelMap, OnError};
use ends::*;
use records::*;
use util::*;

fn run(map: &mut ChannelMap, log: &Log) {
    turn_until(map, log, |map| map.is_empty());
}

/// A channel with records whose probe the test holds, and the far end's socket.
fn probed(map: &mut ChannelMap, recorder: Recorder) -> (Rc<Probe>, socket2::Socket) {
    let (near, far) = UNIX.sockets();
    near.set_nonblocking(true).unwrap();
    let records = Records::new(Box::new(Wire(near)), true, UNIX.options);
    let probe = records.probe.clone();
    map.add_source(records, recorder).unwrap();
    (probe, far)
}

const OPTIONS: Options =
    Options { record: 16 * 1024, update_every: 200_000, out_limit: 64 * 1024, liar: false };
const UNIX: Kind = Kind { on: None, layers: 1, client: true, options: OPTIONS };

fn wrap(ch: &mut Channel<'_>, client: bool) -> io::Result<()> {
    ch.wrap_source(|plain| Ok(Box::new(Records::new(plain, client, OPTIONS))))
}

#[test]
fn a_handshake_that_fails() {
    // The server lies in its last word: it has no reason to think that anything is wrong.
    for mut kind in record_kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, far) = kind.sockets();
        let handle = kind.add(&mut map, near, true, Recorder::new("a", &log));
        map.channel(handle).unwrap().push(b"never sent").unwrap();
        kind.options.liar = true;
        kind.add(&mut map, far, false, Recorder::new("b", &log));
        run(&mut map, &log);
        for name in ["a", "b"] {
            assert_eq!(log.count(&format!("{name} error")), 0);
            assert_eq!(log.count(&format!("{name} close: ")), 1, "{kind:?}");
        }
        assert_eq!(log.of("a"), ["close: the handshake failed, or a record is out of its place"], "{kind:?}");
    }
}

#[test]
fn a_time_out_during_the_handshake() {
    for kind in record_kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, _silent) = kind.sockets();
        let handle = kind.add(&mut map, near, kind.client, Recorder::new("a", &log));
        let mut ch = map.channel(handle).unwrap();
        ch.push(b"never sent").unwrap();
        ch.set_timeout(Some(Duration::from_millis(20)));
        run(&mut map, &log);
        assert_eq!(log.of("a"), ["timeout", "close: aborted"], "{kind:?}");
    }
}

/// As with a connect: there is nobody yet to send anything to.
#[test]
fn close_during_the_handshake() {
    for kind in record_kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, _silent) = kind.sockets();
        let handle = kind.add(&mut map, near, kind.client, Recorder::new("a", &log));
        map.channel(handle).unwrap().push(b"never sent").unwrap();
        turn_idle(&mut map);
        assert_eq!(log.events(), [""; 0]);
        map.channel(handle).unwrap().close();
        run(&mut map, &log);
        assert_eq!(log.of("a"), ["close: closed"], "{kind:?}");
    }
}

/// The peer goes away in the midst of it: by FIN, or by a reset.
#[test]
fn the_peer_ends_during_the_handshake() {
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
        run(&mut map, &log);
        let events = log.of("a");
        assert_eq!(events.len(), 1, "{kind:?}: {events:?}");
        assert!(events[0].contains("reset") || events[0].contains("farewell"), "{events:?}");
    }
}

/// Both ends become records after the connection is there: `handle_open` waits for the handshake.
#[test]
fn wrapped_in_handle_connect() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let accepted = log.clone();
        let listener = Recorder::new("l", &log).on_accept(move |ch, socket, _| {
            let server = Recorder::new("b", &accepted).on("open", |ch| ch.push(b"who is there?"));
            let handle = ch.map().add(socket, server)?;
            wrap(&mut ch.map().channel(handle)?, false)?;
            ch.close();
            Ok(())
        });
        let listener = map.listen(on, listener).unwrap();
        let address = address_of(&mut map, listener);
        let client = Recorder::new("a", &log)
            .on("connect", |ch| {
                assert!(wrap(ch, true).is_ok());
                ch.push(b"second;")
            })
            .on("open", |ch| {
                ch.push(b"third")?;
                ch.shutdown_write();
                Ok(())
            });
        let handle = map.connect(address, client).unwrap();
        map.channel(handle).unwrap().push(b"first;").unwrap();
        run(&mut map, &log);
        assert_eq!(log.input("b"), b"first;second;third");
        assert_eq!(log.input("a"), b"who is there?");
        assert_eq!(log.of("a")[..2], ["connect", "open"]);
        assert_eq!(log.count("a open"), 1);
    }
}

/// STARTTLS: plain lines first, then records on the same channel; no second `handle_open`.
#[test]
fn wrapped_midway() {
    for on in [Some("127.0.0.1:0"), None] {
        let kind = Kind { on, layers: 0, ..UNIX };
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, far) = kind.sockets();
        let seen = log.clone();
        let server = Recorder::new("a", &log).quiet().on("read", move |ch| {
            ch.read_with(|ch, data| {
                seen.add(format!("a got {}", String::from_utf8_lossy(data)));
                match data {
                    b"STARTTLS" => {
                        ch.push(b"go ahead")?;
                        wrap(ch, false)
                    }
                    _ => ch.push(data),
                }
            })
        });
        kind.add(&mut map, near, false, server);
        let far = thread::spawn(move || {
            (&far).write_all(b"STARTTLS").unwrap();
            let mut answer = [0; 8];
            (&far).read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"go ahead");
            let records = Kind { layers: 1, client: false, ..kind };
            let secret = records.far(far, |far| {
                far.write(b"secret").unwrap();
                let got = far.read_some(6).unwrap();
                far.finish().unwrap();
                got
            });
            secret.join().unwrap()
        });
        run(&mut map, &log);
        assert_eq!(far.join().unwrap(), b"secret");
        assert_eq!(log.of("a"), ["open", "got STARTTLS", "got secret", "eof", "close: end of stream"]);
    }
}

/// EDGE_CASES 30 for a channel whose second handshake never ends: what is queued cannot be sent.
#[test]
fn close_during_a_handshake_midway() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _silent) = UnixStream::pair().unwrap();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    turn_until(&mut map, &log, |_| log.has("a open"));
    let mut ch = map.channel(handle).unwrap();
    wrap(&mut ch, true).unwrap();
    ch.push(b"never sent").unwrap();
    ch.set_close_timeout(Duration::from_millis(20));
    ch.close();
    run(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: timed out"]);
}

/// While a second handshake waits for the peer, `writable` finds no room, and nothing spins.
#[test]
fn writable_during_a_handshake_midway() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _silent) = UnixStream::pair().unwrap();
    let writes = Rc::new(Cell::new(false));
    let wants = writes.clone();
    let handle = map.add(near, Recorder::new("a", &log).writable(move |_| wants.get())).unwrap();
    turn_until(&mut map, &log, |_| log.has("a open"));
    writes.set(true);
    wrap(&mut map.channel(handle).unwrap(), true).unwrap();
    turn_idle(&mut map);
    assert_eq!(log.of("a"), ["open"]);
}

#[test]
fn the_making_of_a_source_fails() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    let recorder = Recorder::new("a", &log)
        .on_error(OnError::Keep)
        .on("open", |ch| ch.wrap_source(|_| Err(io::Error::new(ErrorKind::InvalidInput, "no certificate"))));
    map.add(near, recorder).unwrap();
    run(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: no certificate"]);
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "the socket is not closed");
}

/// EDGE_CASES 44, for what is not the dispatcher's own: the channel ends, nobody else does.
#[test]
fn a_panic_inside_a_source() {
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
                let mut a = ch.map().channel(token)?;
                match place {
                    "send" => a.push(b"to a"),
                    "shutdown_write" => Ok(a.shutdown_write()),
                    _ => Ok(()),
                }
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
fn bytes_inside_that_cannot_be_sent() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (probe, far) = probed(&mut map, Recorder::new("a", &log));
    let (done, wait) = mpsc::channel::<()>();
    let far = UNIX.far(far, move |_| drop(wait.recv()));
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
    run(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: timed out"]);
    drop(done);
    far.join().unwrap();
}

/// Rule 6, idle and while a write waits for a read: the socket has room, and that is no reason to
/// wake.
#[test]
fn no_spinning() {
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
            turn_idle(&mut map);
            let begun = Instant::now();
            map.turn(Some(Duration::from_millis(30))).unwrap();
            assert!(begun.elapsed() >= Duration::from_millis(29), "{kind:?}: woken with {bytes} queued");
        }
        assert!(kind.layers == 0 || map.channel(handle).unwrap().queued() > 0);
        go.send(()).unwrap();
        run(&mut map, &log);
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
        run(&mut map, &log);
        assert_eq!(far.join().unwrap(), [7; 5000]);
    }
}
