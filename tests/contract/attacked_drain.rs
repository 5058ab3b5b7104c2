//! A drain of listeners with limits, and of what is not read: EDGE_CASES 480 to 482.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use dispatch_loop::{
    AcceptLimits, Address, Channel, ChannelMap, Dispatcher, DrainOptions, DrainState, Handle, ListenOptions,
    Socket, run,
};

use crate::support::opened::address_of;
use crate::support::peers::{connect, cut_short, loopbacks, narrow_pair, pair, read_to_end, reads_to_end};
use crate::support::process::alone;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

fn at_once() -> DrainOptions {
    DrainOptions::default().with_deadline(DEADLINE)
}

/// Answers the first byte, and that was it.
struct Answering;

impl Dispatcher for Answering {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, _| {
            ch.push(b"!")?;
            ch.close();
            Ok(())
        })
    }
}

struct Server;

impl Dispatcher for Server {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Answering).map(drop)
    }
}

fn limited(limits: AcceptLimits) -> (ChannelMap, Handle<Server>, SocketAddr) {
    let mut map = ChannelMap::new().unwrap();
    let options = ListenOptions::default().with_limits(limits);
    let server = map.listen_with("127.0.0.1:0", &options, Server).unwrap();
    let address = address_of(&mut map, server);
    (map, server, address)
}

fn asks(address: SocketAddr) -> TcpStream {
    let mut client = connect(&address);
    client.write_all(b"?").unwrap();
    client
}

/// EDGE_CASES 480. It was accepted, and waits for a descriptor of its own.
#[test]
fn a_connection_in_hand_is_served_before_its_listener_closes() {
    alone(Some(64), || {
        let (mut map, server, address) = limited(AcceptLimits::default().with_descriptor_reserve(20));
        let mut clients = vec![asks(address)];
        // The program has many descriptors for a while.
        let is_below = |file: &File| file.as_raw_fd() < 64 - 21;
        let mut held = Vec::new();
        while held.last().is_none_or(is_below) {
            held.push(File::open("/dev/null").unwrap());
        }
        turn_until(&mut map, &Log::new(), |map| map.numbers().rests().any(|(_, rests)| rests > 0));
        turn_idle(&mut map);
        assert_eq!(map.numbers().accepts, 0);
        map.drain(&at_once());
        turn_idle(&mut map);
        assert!(map.contains(server), "somebody is in hand");
        drop(held);
        let client = reads_to_end(clients.pop().unwrap());
        run(&mut map).unwrap();
        assert_eq!(client.join().unwrap(), b"!");
        assert_eq!(map.numbers().accepts, 1);
    });
}

/// EDGE_CASES 481. They come one by one, as there are places; the number that a listener may take until it
/// closes is one of connections. (Elsewhere a backlog may be too short.)
#[cfg(target_os = "linux")]
#[test]
fn all_who_wait_at_a_limit_in_total_are_served_before_their_listener_closes() {
    let (mut map, _, address) = limited(AcceptLimits::default().with_total(1));
    let clients: Vec<_> = (0..400).map(|_| asks(address)).collect();
    map.drain(&at_once());
    let clients: Vec<_> = clients.into_iter().map(reads_to_end).collect();
    run(&mut map).unwrap();
    let answers = clients.into_iter().map(|client| client.join());
    assert_eq!(answers.filter(|answer| answer.as_ref().is_ok_and(|answer| answer == b"!")).count(), 400);
    assert_eq!(map.numbers().accepts, 400);
}

/// Pushes a lot, and does not read.
struct Paused;

const LOT: usize = 400_000;

impl Dispatcher for Paused {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.pause_reading();
        ch.push(&[b'x'; LOT])
    }
}

/// The near end has room for a lot, the far one has not.
fn wide_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(&listener.local_addr().unwrap().into()).unwrap();
    let client = TcpStream::from(socket);
    let near = listener.accept().unwrap().0;
    socket2::SockRef::from(&near).set_send_buffer_size(4 << 20).unwrap();
    (near, client)
}

/// EDGE_CASES 482. The system has everything, but what was not read would reset the connection. (Elsewhere it may not
/// take so much at once.)
#[cfg(target_os = "linux")]
#[test]
fn at_the_deadline_what_the_system_has_arrives_though_input_was_not_read() {
    let (near, mut client) = wide_pair();
    let mut map = ChannelMap::new().unwrap();
    let channel = map.add(near, Paused).unwrap();
    turn_idle(&mut map);
    assert_eq!(map.channel(channel).unwrap().queued(), 0, "the system has all");
    client.write_all(b"?").unwrap();
    map.drain(&DrainOptions::default().with_deadline(Duration::from_millis(50)));
    run(&mut map).unwrap();
    let progress = map.drain_progress().unwrap();
    assert_eq!((progress.finished, progress.aborted), (1, 0));
    let mut got = Vec::new();
    let end = client.read_to_end(&mut got);
    assert_eq!((got.len(), end.map_err(|error| error.kind())), (LOT, Ok(LOT)));
}

/// EDGE_CASES 484. The look at what is idle comes in the same turn.
#[test]
fn what_a_timer_has_just_pushed_is_no_idleness() {
    for on in loopbacks() {
        for of_channel in [false, true] {
            let log = Log::new();
            let (near, mut far) = pair(on);
            let mut map = ChannelMap::new().unwrap();
            let token = map.add(near, Recorder::new("a", &log)).unwrap();
            turn_idle(&mut map);
            map.drain(&at_once());
            // Both are late.
            map.call_later(Duration::from_millis(3), |_| thread::sleep(Duration::from_millis(20)));
            let push = move |map: &mut ChannelMap| map.channel(token).unwrap().push(b"hello").unwrap();
            match of_channel {
                false => drop(map.call_later(Duration::from_millis(6), push)),
                true => drop(
                    map.channel(token).unwrap().call_later(Duration::from_millis(6), |ch| ch.push(b"hello")),
                ),
            }
            run(&mut map).unwrap();
            assert_eq!(read_to_end(&mut far), b"hello", "{on} {of_channel}");
            assert!(log.has("a close: closed"));
        }
    }
}

/// EDGE_CASES 485.
#[test]
fn who_is_open_when_hooks_run_is_told_of_a_drain_and_who_opens_later_can_ask() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, _far) = pair(on);
        let listener = TcpListener::bind(on).unwrap();
        let mut map = ChannelMap::new().unwrap();
        map.add(near, Recorder::new("added", &log)).unwrap();
        let asks = |ch: &mut Channel<'_>| {
            assert!(ch.map().is_draining());
            Ok(())
        };
        let connecting = Recorder::new("connecting", &log).on("open", asks);
        map.connect(listener.local_addr().unwrap(), connecting).unwrap();
        map.drain(&at_once());
        run(&mut map).unwrap();
        let of = |name| log.events().into_iter().filter(|event| event.starts_with(name)).collect::<Vec<_>>();
        assert_eq!(of("added"), ["added open", "added drain", "added close: closed"]);
        assert_eq!(of("connecting"), ["connecting connect", "connecting open", "connecting close: closed"]);
    }
}

/// EDGE_CASES 486.
#[test]
fn a_listener_at_its_limit_keeps_nothing_going_in_the_background() {
    let limits = AcceptLimits::default().with_total(1);
    let (mut map, server, address) = limited(limits.clone());
    map.channel(server).unwrap().set_background(true);
    let _clients = [connect(&address), connect(&address)];
    turn_until(&mut map, &Log::new(), |map| map.numbers().rests().any(|(_, rests)| rests > 0));
    let token = map.tokens().find(|token| *token != server.token()).unwrap();
    let _kept = map.channel(token).unwrap().detach().unwrap();
    turn_until(&mut map, &Log::new(), |map| map.numbers().rests().map(|(_, rests)| rests).sum::<u64>() > 1);
    assert!(map.is_idle());
    run(&mut map).unwrap();
    assert_eq!(map.len(), 1);
}

/// Writes by hand, as with asyncore, and queues nothing.
struct ByHand;

impl Dispatcher for ByHand {
    fn writable(&self, _: &Channel<'_>) -> bool {
        true
    }
    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.send(&[b'x'; 1024]).map(drop)
    }
}

/// EDGE_CASES 487. It has more to say: that is no end.
#[test]
fn at_the_deadline_who_still_wants_to_write_is_reset() {
    let on = loopbacks()[0];
    let (near, far) = narrow_pair(on);
    let mut map = ChannelMap::new().unwrap();
    map.add(near, ByHand).unwrap();
    map.drain(&DrainOptions::default().with_deadline(Duration::from_millis(50)));
    run(&mut map).unwrap();
    let progress = map.drain_progress().unwrap();
    assert_eq!((progress.closed_idle, progress.finished, progress.aborted), (0, 0, 1));
    cut_short(far);
}

/// Has said that it is busy, and has done all that it had to do.
struct Done;

impl Dispatcher for Done {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_busy(true);
        ch.push(&[b'x'; LOT])?;
        ch.close();
        Ok(())
    }
}

/// EDGE_CASES 488. Whoever has closed is done, whatever was said before.
#[cfg(target_os = "linux")]
#[test]
fn at_the_deadline_who_was_busy_and_has_closed_is_not_reset() {
    let (near, mut client) = wide_pair();
    let mut map = ChannelMap::new().unwrap();
    let channel = map.add(near, Done).unwrap();
    turn_idle(&mut map);
    assert_eq!(map.channel(channel).unwrap().queued(), 0, "the system has all");
    map.drain(&DrainOptions::default().with_deadline(Duration::from_millis(50)));
    run(&mut map).unwrap();
    assert_eq!(map.drain_progress().unwrap().aborted, 0);
    assert_eq!(read_to_end(&mut client).len(), LOT);
}

/// EDGE_CASES 491. Both are asked for in the hook of what drains.
#[test]
fn a_drain_that_begins_another_one_at_its_end_leaves_the_map_usable() {
    let log = Log::new();
    let on = loopbacks()[0];
    let mut map = ChannelMap::new().unwrap();
    let mut again = 2;
    map.on_drain(move |map, progress| {
        if progress.state == DrainState::Drained && again > 0 {
            again -= 1;
            map.drain(&at_once());
        }
    });
    map.drain(&at_once().with_lame_duck(DEADLINE).with_deadline(Duration::ZERO));
    for round in 0..3 {
        let (near, mut far) = pair(on);
        map.add(near, Recorder::new("a", &log)).unwrap();
        run(&mut map).unwrap();
        assert_eq!(read_to_end(&mut far), b"", "{round}");
        assert_eq!(log.count("a close: closed"), round + 1);
    }
    assert_eq!(map.drain_state(), DrainState::Drained);
}

/// EDGE_CASES 492.
#[test]
fn who_waits_for_the_rate_is_served_before_the_listener_closes() {
    let (mut map, _, address) = limited(AcceptLimits::default().with_rate(40, 1));
    let clients: Vec<_> = (0..12).map(|_| asks(address)).collect();
    map.drain(&at_once());
    let clients: Vec<_> = clients.into_iter().map(reads_to_end).collect();
    run(&mut map).unwrap();
    for client in clients {
        assert_eq!(client.join().unwrap(), b"!");
    }
}

/// EDGE_CASES 493. A place that the drain itself frees is used, also by a listener of another map.
#[test]
fn maps_that_share_limits_drain_together() {
    let limits = AcceptLimits::default().with_total(2);
    let maps: Vec<_> = (0..3).map(|_| limits.clone()).collect();
    let (addresses, told) = std::sync::mpsc::channel();
    let (go, begin) = std::sync::mpsc::channel::<()>();
    let begin = std::sync::Arc::new(std::sync::Mutex::new(begin));
    let served: usize = thread::scope(|scope| {
        let threads: Vec<_> = maps
            .into_iter()
            .map(|limits| {
                let (addresses, begin) = (addresses.clone(), begin.clone());
                scope.spawn(move || {
                    let (mut map, _, address) = limited(limits);
                    addresses.send(address).unwrap();
                    begin.lock().unwrap().recv().unwrap();
                    map.drain(&at_once());
                    run(&mut map).unwrap();
                    map.numbers().accepts as usize
                })
            })
            .collect();
        let clients: Vec<_> = (0..3)
            .flat_map(|_| {
                let address = told.recv().unwrap();
                (0..30).map(move |_| reads_to_end(asks(address)))
            })
            .collect();
        (0..3).for_each(|_| go.send(()).unwrap());
        for client in clients {
            assert_eq!(client.join().unwrap(), b"!");
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((served, limits.connections()), (90, 0));
}
