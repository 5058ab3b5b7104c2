//! `Outlet`: one channel fed by other threads, with backpressure. EDGE_CASES 40 and 41, rules 15 and 16 of
//! the contract. (The crowds are in `crowds.rs`.)

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dispatch_loop::{ChannelMap, Dispatcher, Handle, OnLimit, Outlet, SendError, run};
use socket2::SockRef;

use crate::support::peers::{loopbacks, narrow_pair, pair, pattern, read_all, reads_all, reset};
use crate::support::recorder::{Log, Recorder};
use crate::support::threads::{joined, waiting};
use crate::support::turning::turn_until;
use crate::support::waiting::DEADLINE;

const HIGH: usize = 64 * 1024;

/// A map with one channel, open and little room in its socket, and its outlet.
struct Scene {
    log: Log,
    map: ChannelMap,
    handle: Handle<Recorder>,
    outlet: Outlet,
    far: TcpStream,
}

impl Scene {
    fn new(on: std::net::SocketAddr) -> Scene {
        Scene::with_capacity(on, 1024)
    }

    fn with_capacity(on: std::net::SocketAddr, messages: usize) -> Scene {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.set_remote_capacity(messages);
        let (near, far) = narrow_pair(on);
        let handle = map.add(near, Recorder::new("a", &log).quiet()).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        let outlet = map.channel(handle).unwrap().outlet().unwrap();
        Scene { log, map, handle, outlet, far }
    }

    /// Feed it, as a thread that owns a map does, until it takes no more for being over its high
    /// watermark; how much that is.
    fn fill(&mut self) -> usize {
        let (mut fed, mut refused) = (0, 0);
        while refused < 20 {
            match self.outlet.try_send(vec![b'f'; 8192]) {
                Ok(()) => {
                    (fed, refused) = (fed + 8192, 0);
                    assert!(fed < 64 << 20, "it takes all there is");
                }
                Err(error) => {
                    assert!(matches!(error, SendError::Full(bytes) if bytes.len() == 8192));
                    refused += 1;
                    self.map.turn(Some(Duration::from_millis(1))).unwrap();
                }
            }
        }
        assert!(self.queued() > HIGH);
        fed
    }

    fn queued(&mut self) -> usize {
        self.map.channel(self.handle).unwrap().queued()
    }

    fn turn_until(&mut self, done: impl FnMut(&mut ChannelMap) -> bool) {
        turn_until(&mut self.map, &self.log, done);
    }
}

/// What is under way and what is queued stay below the high watermark and one write for each
/// thread; all arrives, each thread's in its order; the reader is slow all the time.
#[test]
fn producers_cost_bounded_memory_whatever_the_reader_does() {
    const THREADS: usize = 3;
    const WRITE: usize = 5000;
    const WRITES: usize = 40;
    for on in loopbacks() {
        for messages in [1, 1024] {
            let mut scene = Scene::with_capacity(on, messages);
            // With less room TCP itself would make long pauses.
            SockRef::from(&scene.far).set_recv_buffer_size(128 * 1024).unwrap();
            let producers = [0, 1, 2].map(|id: u8| {
                let outlet = scene.outlet.clone();
                thread::spawn(move || {
                    for n in 0..WRITES {
                        let mut bytes = vec![id; WRITE];
                        bytes[1] = n as u8;
                        outlet.send(bytes).unwrap();
                    }
                })
            });
            let (mut got, mut most) = (Vec::new(), 0);
            scene.far.set_nonblocking(true).unwrap();
            let deadline = Instant::now() + DEADLINE;
            while got.len() < THREADS * WRITES * WRITE {
                assert!(Instant::now() < deadline);
                scene.map.turn(Some(Duration::from_millis(1))).unwrap();
                let queued = scene.queued();
                most = most.max(queued);
                // The reader takes something only when there is no end to it.
                if queued <= HIGH && producers.iter().any(|producer| !producer.is_finished()) {
                    continue;
                }
                let mut some = [0; 20_000];
                match scene.far.read(&mut some) {
                    Ok(read) => got.extend_from_slice(&some[..read]),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            assert!((HIGH + 1..=HIGH + THREADS * WRITE).contains(&most), "{most} bytes were queued");
            producers.into_iter().for_each(joined);
            let mut next = [0; THREADS];
            for piece in got.chunks(WRITE) {
                let id = piece[0] as usize;
                assert_eq!(piece[1], next[id]);
                assert!(piece[2..].iter().all(|byte| *byte == piece[0]));
                next[id] += 1;
            }
        }
    }
}

/// Rule 15: the limit is for those that push, not for what was promised to be taken.
#[test]
fn the_hard_limit_does_not_refuse_what_an_outlet_gives() {
    for on in loopbacks() {
        for on_limit in [OnLimit::Refuse, OnLimit::End] {
            let mut scene = Scene::new(on);
            scene.map.channel(scene.handle).unwrap().set_limit(1000, on_limit);
            let fed = scene.fill();
            assert!(scene.queued() > 1000);
            scene.outlet.close().unwrap();
            let reader = reads_all(scene.far.try_clone().unwrap());
            scene.turn_until(|map| map.is_empty());
            let (got, end) = reader.join().unwrap();
            end.unwrap();
            assert_eq!(got.len(), fed);
            assert_eq!(scene.log.of("a").last().unwrap(), "close: closed");
        }
    }
}

/// EDGE_CASES 40: it tells, and gives the bytes back. `waits` and `try_send` alike.
#[test]
fn an_outlet_tells_that_its_channel_has_ended() {
    for on in loopbacks() {
        for end in ["close", "abort", "shutdown_write", "peer", "reset", "outlet closes", "outlet shuts"] {
            let mut scene = Scene::new(on);
            match end {
                "close" => scene.map.channel(scene.handle).unwrap().close(),
                "abort" => scene.map.channel(scene.handle).unwrap().abort(),
                "shutdown_write" => scene.map.channel(scene.handle).unwrap().shutdown_write(),
                "peer" => scene.far.shutdown(std::net::Shutdown::Write).unwrap(),
                "reset" => reset(mem::replace(&mut scene.far, pair(on).1)),
                "outlet closes" => {
                    scene.outlet.close().unwrap();
                }
                _ => {
                    scene.outlet.shutdown_write().unwrap();
                }
            }
            let mut outlet = scene.outlet.clone();
            scene.turn_until(|_| outlet.try_send("").is_err());
            for result in [outlet.send("back"), outlet.try_send("back")] {
                assert!(matches!(result, Err(SendError::Ended(bytes)) if bytes == b"back"), "{end}");
            }
            assert_eq!(outlet.write(b"back").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            // These wait for the peer's end.
            let waits = matches!(end, "close" | "outlet closes" | "shutdown_write" | "outlet shuts");
            assert_eq!(scene.map.contains(outlet.token()), waits);
        }
    }
}

/// EDGE_CASES 41, for those that wait because the peer does not take what it is owed.
#[test]
fn who_waits_for_the_peer_is_woken_by_every_end() {
    for on in loopbacks() {
        for end in ["stop", "drop", "close", "abort", "shutdown_write", "reset", "reader", "watermark"] {
            let mut scene = Scene::new(on);
            scene.fill();
            let producers = [b"one", b"two"].map(|bytes| {
                let outlet = scene.outlet.clone();
                waiting(move || outlet.send(bytes))
            });
            match end {
                "stop" => {
                    scene.map.stop();
                    run(&mut scene.map).unwrap();
                }
                "drop" => drop(mem::replace(&mut scene.map, ChannelMap::new().unwrap())),
                "close" => scene.map.channel(scene.handle).unwrap().close(),
                "abort" => scene.map.channel(scene.handle).unwrap().abort(),
                "shutdown_write" => scene.map.channel(scene.handle).unwrap().shutdown_write(),
                "reset" => reset(mem::replace(&mut scene.far, pair(on).1)),
                "reader" => drop(reads_all(scene.far.try_clone().unwrap())),
                _ => scene.map.channel(scene.handle).unwrap().set_watermarks(0, usize::MAX / 2),
            }
            scene.turn_until(|_| producers.iter().all(JoinHandle::is_finished));
            for (producer, bytes) in producers.into_iter().zip([b"one", b"two"]) {
                match joined(producer) {
                    Ok(()) => assert!(matches!(end, "reader" | "watermark"), "{end}"),
                    Err(SendError::Stopped(back)) => assert!(end == "stop" && back == bytes),
                    Err(SendError::Ended(back)) => assert!(end != "stop" && back == bytes),
                    Err(other) => panic!("{end}: {other:?}"),
                }
            }
        }
    }
}

/// EDGE_CASES 41, for those that wait because the queue to the loop has no room.
#[test]
fn who_waits_for_the_loop_is_woken_by_every_end() {
    for end in ["stop", "drop", "turn"] {
        let mut scene = Scene::with_capacity(loopbacks()[0], 1);
        scene.outlet.send("first").unwrap();
        let mut outlet = scene.outlet.clone();
        let producer = waiting(move || outlet.write(b"second").map_err(|error| error.kind()));
        match end {
            "stop" => {
                scene.map.stop();
                run(&mut scene.map).unwrap();
            }
            "drop" => drop(mem::replace(&mut scene.map, ChannelMap::new().unwrap())),
            _ => scene.turn_until(|_| producer.is_finished()),
        }
        let wanted = if end == "turn" { Ok(6) } else { Err(io::ErrorKind::BrokenPipe) };
        assert_eq!(joined(producer), wanted);
    }
}

/// EDGE_CASES 41 and the contract of `io::Write`.
#[test]
fn as_a_writer_it_takes_64_kib_and_never_waits_where_a_map_lives() {
    let mut scene = Scene::new(loopbacks()[0]);
    let mut outlet = scene.outlet.clone();
    assert_eq!(outlet.write(b"").unwrap(), 0);
    assert_eq!(outlet.write(&pattern(65_535)).unwrap(), 65_535);
    scene.turn_until(|map| map.channel(outlet.token()).unwrap().queued() < HIGH);
    assert_eq!(outlet.write(&pattern(65_537)).unwrap(), 65_536);
    outlet.flush().unwrap();
    let error = outlet.write(b"too much").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Deadlock);
    let refused = outlet.send("too much").unwrap_err();
    assert!(matches!(refused, SendError::Full(bytes) if bytes == b"too much"));
    // An empty write is none, whatever the state.
    assert_eq!(outlet.write(b"").unwrap(), 0);
    scene.outlet.close().unwrap();
    let reader = reads_all(scene.far.try_clone().unwrap());
    scene.turn_until(|map| map.is_empty());
    let (got, _) = reader.join().unwrap();
    assert_eq!(got, [pattern(65_535), pattern(65_536)].concat());
}

/// What a program that knows nothing of outlets does with one.
#[test]
fn a_megabyte_is_copied_into_it() {
    for on in loopbacks() {
        let mut scene = Scene::new(on);
        let mut outlet = scene.outlet.clone();
        let producer = thread::spawn(move || {
            let copied = io::copy(&mut &pattern(1 << 20)[..], &mut outlet);
            outlet.close().unwrap();
            copied
        });
        let reader = reads_all(scene.far.try_clone().unwrap());
        scene.map.call_later(DEADLINE, |map| map.close_all());
        let watch = thread::spawn(move || joined(producer).unwrap());
        scene.turn_until(|map| map.is_empty());
        assert_eq!(joined(watch), 1 << 20);
        assert_eq!(reader.join().unwrap().0, pattern(1 << 20));
    }
}

/// Rule 15, for a thread that has both.
#[test]
fn outlet_and_remote_of_one_thread_keep_their_order() {
    for on in loopbacks() {
        let mut scene = Scene::new(on);
        let (outlet, remote, handle) = (scene.outlet.clone(), scene.map.remote(), scene.handle);
        let producer = thread::spawn(move || {
            for n in 0..4000_u32 {
                let bytes = n.to_be_bytes();
                match n % 4 {
                    0 => outlet.send(bytes).unwrap(),
                    1 => remote.with(handle, move |_, ch| ch.push(&bytes)).unwrap(),
                    2 => remote.call(move |map| map.channel(handle).unwrap().push(&bytes).unwrap()).unwrap(),
                    _ => {
                        if let Err(SendError::Full(bytes)) = remote.try_send(handle, bytes) {
                            outlet.send(bytes).unwrap();
                        }
                    }
                }
            }
            outlet.close().unwrap();
            remote.call(move |map| assert!(map.channel(handle).is_ok_and(|ch| ch.is_closing()))).unwrap();
        });
        let reader = reads_all(scene.far.try_clone().unwrap());
        scene.turn_until(|map| map.is_empty());
        joined(producer);
        let (got, end) = reader.join().unwrap();
        end.unwrap();
        let numbers = got.chunks(4).map(|four| u32::from_be_bytes(four.try_into().unwrap()));
        assert!(numbers.eq(0..4000));
        assert_eq!(scene.log.count("a error"), 0);
    }
}

/// `shutdown_write` comes after all that was sent; reading goes on. Before the connect has ended
/// an outlet is as good as a push.
#[test]
fn a_connecting_channel_may_be_fed_and_half_closed() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let listener = TcpListener::bind(on).unwrap();
        let handle = map.connect(listener.local_addr().unwrap(), Recorder::new("a", &log)).unwrap();
        let outlet = map.channel(handle).unwrap().outlet().unwrap();
        assert_eq!(outlet.token(), handle.token());
        let producer = thread::spawn(move || {
            outlet.send("all of ").unwrap();
            outlet.send("it").unwrap();
            outlet.shutdown_write().unwrap();
        });
        let far = thread::spawn(move || {
            let (mut far, _) = listener.accept().unwrap();
            let (got, end) = read_all(&mut far);
            far.write_all(b"thanks").unwrap();
            end.map(|()| got)
        });
        turn_until(&mut map, &log, |map| map.is_empty());
        joined(producer);
        assert_eq!(joined(far).unwrap(), b"all of it");
        assert_eq!(log.input("a"), b"thanks");
        let listener = map.listen(on, Recorder::new("listener", &log)).unwrap();
        let refused = map.channel(listener).unwrap().outlet().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotConnected);
    }
}

/// A close that finds no place in the queue, on a thread that does not wait for one, is not
/// forgotten in silence.
#[test]
fn a_close_that_cannot_be_sent_is_told() {
    let scene = Scene::with_capacity(loopbacks()[0], 1);
    scene.outlet.try_send("takes the place").unwrap();
    for refused in [scene.outlet.close(), scene.outlet.shutdown_write()] {
        assert!(matches!(refused, Err(SendError::Full(()))));
    }
    drop(scene.map);
    for refused in [scene.outlet.close(), scene.outlet.shutdown_write()] {
        assert!(matches!(refused, Err(SendError::Ended(()))));
    }
}

/// EDGE_CASES 49: a channel ends when its hook swaps its map away; its outlets know as soon as
/// that map turns.
#[test]
fn who_feeds_a_channel_whose_map_was_swapped_away_is_told() {
    let mut scene = Scene::new(loopbacks()[0]);
    scene.fill();
    let outlet = scene.outlet.clone();
    let producer = waiting(move || outlet.send("back"));
    let swap = scene.map.with(scene.handle, |_, ch| {
        let mut other = ChannelMap::new()?;
        mem::swap(ch.map_mut(), &mut other);
        AWAY.set(Some(other));
        Ok(())
    });
    swap.unwrap();
    let mut away = AWAY.take().unwrap();
    let begun = Instant::now();
    while !producer.is_finished() && begun.elapsed() < DEADLINE / 4 {
        away.turn(Some(Duration::from_millis(5))).unwrap();
    }
    let in_time = producer.is_finished();
    drop(away);
    assert!(matches!(joined(producer), Err(SendError::Ended(_))));
    assert!(in_time, "nobody told the thread that the channel is gone");
}

thread_local! {
    static AWAY: Cell<Option<ChannelMap>> = const { Cell::new(None) };
}

/// Bytes for a channel that the loop ends before they get there.
#[test]
fn bytes_under_way_to_a_channel_that_ends_harm_nobody() {
    struct Bystander;
    impl Dispatcher for Bystander {}
    for on in loopbacks() {
        let mut scene = Scene::new(on);
        let (near, mut far) = pair(on);
        let bystander = scene.map.add(near, Bystander).unwrap();
        let other = scene.map.channel(bystander).unwrap().outlet().unwrap();
        for n in 0..10 {
            scene.outlet.send("lost").unwrap();
            other.send([n]).unwrap();
        }
        scene.map.channel(scene.handle).unwrap().abort();
        scene.turn_until(|map| map.len() == 1);
        let mut got = [0; 10];
        far.read_exact(&mut got).unwrap();
        assert!(got.into_iter().eq(0..10));
        assert!(matches!(scene.outlet.send("back"), Err(SendError::Ended(_))));
    }
}
