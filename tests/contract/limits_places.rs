//! The places that connections take within the limits of their listener are given back, however they end:
//! EDGE_CASES 210 to 212.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;

use dispatch_loop::{AcceptLimits, ChannelMap, Dispatcher, ListenOptions, Socket, Token};

use crate::support::opened::address_of;
use crate::support::peers::{connect, read_all, reset};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

struct Quiet;
impl Dispatcher for Quiet {}

fn limits() -> (AcceptLimits, ListenOptions) {
    let limits = AcceptLimits::default().with_total(1).with_per_peer(1);
    (limits.clone(), ListenOptions::default().with_limits(limits))
}

type Accepting = Box<dyn FnMut(&mut ChannelMap, Socket) -> io::Result<()>>;

/// A listener for one at a time, whose connections `accepting` gets.
fn server(mut accepting: Accepting) -> (ChannelMap, SocketAddr, AcceptLimits, Log) {
    let (limits, options) = limits();
    let log = Log::new();
    let server =
        Recorder::new("server", &log).on_accept(move |ch, socket, _| accepting(ch.map_mut(), socket));
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen_with("127.0.0.1:0", &options, server).unwrap();
    let address = address_of(&mut map, server);
    (map, address, limits, log)
}

/// A connection that has its place, in a map of its own.
fn served() -> (ChannelMap, Token, TcpStream, AcceptLimits, Log) {
    let of_conn = Log::new();
    let log = of_conn.clone();
    let add = move |map: &mut ChannelMap, socket| map.add(socket, Recorder::new("conn", &log)).map(drop);
    let (mut map, address, limits, _) = server(Box::new(add));
    let client = connect(&address);
    turn_until(&mut map, &of_conn, |_| of_conn.has("conn open"));
    assert_eq!(limits.connections(), 1);
    let token = map.tokens().last().unwrap();
    (map, token, client, limits, of_conn)
}

/// EDGE_CASES 210.
#[test]
fn every_end_of_a_channel_gives_its_place_back() {
    let by_us: [fn(&mut ChannelMap, Token); 5] = [
        |map, token| map.channel(token).unwrap().close(),
        |map, token| map.channel(token).unwrap().abort(),
        |map, token| map.channel(token).unwrap().time_out(),
        |map, token| {
            let handle = token.typed::<Recorder>();
            let _ = map.with(handle, |_, _| io::Result::<()>::Err(io::Error::other("as it must be")));
        },
        |map, _| map.close_all(),
    ];
    for end in by_us {
        let (mut map, token, client, limits, log) = served();
        end(&mut map, token);
        drop(client);
        turn_until(&mut map, &log, |_| log.closed("conn"));
        assert_eq!(limits.connections(), 0);
    }
    let by_peer: [fn(TcpStream); 2] = [drop, reset];
    for end in by_peer {
        let (mut map, _, client, limits, log) = served();
        end(client);
        turn_until(&mut map, &log, |_| log.closed("conn"));
        assert_eq!(limits.connections(), 0);
    }
}

/// EDGE_CASES 210.
#[test]
fn a_map_that_is_dropped_gives_all_places_back() {
    let (map, _, _client, limits, _) = served();
    drop(map);
    assert_eq!(limits.connections(), 0);
}

/// EDGE_CASES 210. In `handle_close`, the place is there already, as is the descriptor.
#[test]
fn the_place_is_free_when_the_end_is_told() {
    let (limits, options) = limits();
    let mut map = ChannelMap::new().unwrap();
    let (log, limits_at_end) = (Log::new(), limits.clone());
    let of_conn = log.clone();
    let server = Recorder::new("server", &log).on_accept(move |ch, socket, _| {
        let (limits, log) = (limits_at_end.clone(), of_conn.clone());
        let conn = Recorder::new("conn", &of_conn).on("close", move |_| {
            log.add(format!("{} left", limits.connections()));
            Ok(())
        });
        ch.map_mut().add(socket, conn).map(drop)
    });
    let server = map.listen_with("127.0.0.1:0", &options, server).unwrap();
    drop(connect(&address_of(&mut map, server)));
    turn_until(&mut map, &log, |_| log.closed("conn"));
    assert!(log.has("0 left"), "{:?}", log.events());
}

/// EDGE_CASES 211.
#[test]
fn a_socket_that_becomes_no_channel_gives_its_place_back() {
    let ways: [fn(&mut ChannelMap, Socket) -> io::Result<()>; 4] = [
        |_, _| Ok(()),
        |_, _| Err(io::Error::other("no")),
        |_, _| panic!("the hook of a test"),
        |_, socket| {
            // Whoever has the descriptor has to count for himself.
            drop(TcpStream::from(OwnedFd::from(socket)));
            Ok(())
        },
    ];
    for way in ways {
        let (mut map, address, limits, log) = server(Box::new(way));
        for at in 1..=3 {
            let mut client = connect(&address);
            turn_until(&mut map, &log, |_| log.count("server accept") == at);
            assert_eq!(limits.connections(), 0);
            let _ = read_all(&mut client);
        }
    }
}

/// EDGE_CASES 211. The next one, who waits, is let in though no channel has ended.
#[test]
fn who_waits_is_let_in_when_a_socket_outside_is_dropped() {
    let (send, kept) = mpsc::channel();
    let keep = move |_: &mut ChannelMap, socket| send.send(socket).map_err(io::Error::other);
    let (mut map, address, limits, log) = server(Box::new(keep));
    let token = map.tokens().next().unwrap();
    map.channel(token).unwrap().set_accept_limits(limits.clone().with_per_peer(None)).unwrap();
    let _clients = [connect(&address), connect(&address)];
    turn_until(&mut map, &log, |map| map.numbers().rests().any(|rest| rest == ("total", 1)));
    assert_eq!((log.count("server accept"), limits.connections()), (1, 1));
    let holder = thread::spawn(move || {
        drop(kept.recv().unwrap());
        kept
    });
    turn_until(&mut map, &log, |_| log.count("server accept") == 2);
    drop(holder.join().unwrap());
}

/// EDGE_CASES 212.
#[test]
fn a_place_goes_along_to_another_map_and_another_dispatcher() {
    let (mut map, token, client, limits, log) = served();
    map.channel(token).unwrap().replace_dispatcher(Quiet).unwrap();
    turn_idle(&mut map);
    assert_eq!(limits.connections(), 1);
    let detached = map.channel(token).unwrap().detach().unwrap();
    turn_until(&mut map, &log, |map| map.len() == 1);
    assert_eq!(limits.connections(), 1);
    let mut other = ChannelMap::new().unwrap();
    let moved = other.add(detached.socket, Quiet).unwrap();
    turn_idle(&mut other);
    assert_eq!(limits.connections(), 1);
    drop(client);
    turn_until(&mut other, &log, |map| !map.contains(moved));
    assert_eq!(limits.connections(), 0);
}

/// EDGE_CASES 211. At once, not when a pause is over, on a system whose wait reports wake-ups.
#[cfg(all(target_os = "linux", not(dispatch_loop_polling_wait)))]
#[test]
fn a_place_that_is_given_back_outside_wakes_who_waits_for_it() {
    let (send, kept) = mpsc::channel();
    let keep = move |_: &mut ChannelMap, socket| send.send(socket).map_err(io::Error::other);
    let (mut map, address, limits, log) = server(Box::new(keep));
    let limits = limits.with_per_peer(None);
    let listener = map.tokens().next().unwrap();
    map.channel(listener).unwrap().set_accept_limits(limits).unwrap();
    let mut clients = vec![connect(&address)];
    turn_until(&mut map, &log, |_| log.count("server accept") == 1);
    // Once will do: this machine may be slow.
    let woken = (0..20).any(|round| {
        clients.push(connect(&address));
        let rests = |map: &ChannelMap| map.numbers().rests().map(|(_, rests)| rests).sum::<u64>();
        let (before, timers) = (rests(&map), map.numbers().lag.count());
        turn_until(&mut map, &log, |map| rests(map) > before);
        let socket: Socket = kept.recv().unwrap();
        let holder = thread::spawn(move || drop(socket));
        turn_until(&mut map, &log, |_| log.count("server accept") == round + 2);
        holder.join().unwrap();
        map.numbers().lag.count() == timers
    });
    assert!(woken);
}

/// EDGE_CASES 212. A place that becomes free in one thread wakes the listener of another.
#[test]
fn maps_in_several_threads_share_limits() {
    let limits = AcceptLimits::default().with_total(1);
    let options = ListenOptions::default().with_limits(limits.clone());
    let (send, addresses) = mpsc::channel();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (options, send) = (options.clone(), send.clone());
            thread::spawn(move || {
                let log = Log::new();
                let conns = log.clone();
                let server = Recorder::new("server", &log).on_accept(move |ch, socket, _| {
                    let greet = |ch: &mut dispatch_loop::Channel<'_>| ch.push(b"!");
                    ch.map_mut().add(socket, Recorder::new("conn", &conns).on("open", greet)).map(drop)
                });
                let mut map = ChannelMap::new().unwrap();
                let server = map.listen_with("127.0.0.1:0", &options, server).unwrap();
                send.send((address_of(&mut map, server), map.remote())).unwrap();
                dispatch_loop::run(&mut map).unwrap();
            })
        })
        .collect();
    let servers = [addresses.recv().unwrap(), addresses.recv().unwrap()];
    let greeted = |client: &mut TcpStream| {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        io::Read::read_exact(client, &mut [0]).unwrap();
    };
    let mut before = connect(&servers[1].0);
    greeted(&mut before);
    for round in 0..20 {
        // It waits until the one before, which is the other thread's, has left.
        let next = connect(&servers[round % 2].0);
        drop(std::mem::replace(&mut before, next));
        greeted(&mut before);
    }
    for (_, remote) in servers {
        remote.stop();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(limits.connections(), 0);
}
