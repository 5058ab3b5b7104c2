//! Handshakes: in pieces, cut short, wrong, too many, never finished.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::tls::TlsSession;
use dispatch_loop::{ChannelMap, Source};

use crate::support::authority::{AUTHORITY, LOCALHOST};
use crate::support::limits::raise_descriptor_limit;
use crate::support::opened::address_of;
use crate::support::peers::{limit_time, pair, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{comes_to_rest, run_out, turn_until};

/// A client and a server in one map, with the test in between.
struct Between {
    client: UnixStream,
    server: UnixStream,
    /// Bytes that have passed: from the client, from the server.
    passed: [usize; 2],
    /// How many may.
    most: [usize; 2],
    /// At a time.
    piece: usize,
}

impl Between {
    fn new(map: &mut ChannelMap, log: &Log) -> Between {
        let (near, client) = UnixStream::pair().unwrap();
        let (other, server) = UnixStream::pair().unwrap();
        let hello = |ch: &mut dispatch_loop::Channel<'_>| ch.push(b"hello");
        let asks = map.add(near, Recorder::new("client", log).on("open", hello)).unwrap();
        map.channel(asks).unwrap().start_tls_client(&AUTHORITY.client(), "localhost").unwrap();
        map.add_tls(other, &LOCALHOST.server(), Recorder::new("server", log).on("open", hello)).unwrap();
        for end in [&client, &server] {
            end.set_nonblocking(true).unwrap();
        }
        Between { client, server, passed: [0; 2], most: [usize::MAX; 2], piece: usize::MAX }
    }

    /// Pass on what has come; whether that was anything.
    fn pass(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let mut any = false;
        for (way, (mut from, mut to)) in
            [(&self.client, &self.server), (&self.server, &self.client)].into_iter().enumerate()
        {
            let most = self.piece.min(self.most[way] - self.passed[way]).min(buffer.len());
            if let Ok(read @ 1..) = from.read(&mut buffer[..most]) {
                to.write_all(&buffer[..read]).unwrap();
                self.passed[way] += read;
                any = true;
            }
        }
        any
    }

    /// Until nothing comes any more.
    fn pass_all(&mut self, map: &mut ChannelMap) {
        let mut calm = 0;
        while calm < 3 {
            map.turn(Some(Duration::ZERO)).unwrap();
            calm = if self.pass() { 0 } else { calm + 1 };
        }
    }
}

/// EDGE_CASES 360.
#[test]
fn a_handshake_may_come_a_byte_at_a_time() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let mut between = Between::new(&mut map, &log);
    between.piece = 1;
    between.pass_all(&mut map);
    for name in ["client", "server"] {
        assert_eq!((log.count(&format!("{name} open")), log.input(name)), (1, b"hello".to_vec()), "{name}");
    }
}

/// EDGE_CASES 361.
#[test]
fn a_handshake_cut_at_any_byte_ends_both_ends_with_a_cause() {
    let all = {
        let (log, mut map) = (Log::new(), ChannelMap::new().unwrap());
        let mut between = Between::new(&mut map, &log);
        between.pass_all(&mut map);
        between.passed
    };
    assert!(all[0] > 200 && all[1] > 500, "{all:?}");
    for (way, at) in (0..2).flat_map(|way| (0..all[way]).map(move |at| (way, at))) {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let mut between = Between::new(&mut map, &log);
        between.most[way] = at;
        between.pass_all(&mut map);
        drop(between);
        run_out(&mut map, &log);
        for name in ["client", "server"] {
            let events = log.of(name);
            let (error, open) = (log.count(&format!("{name} error")), log.count(&format!("{name} open")));
            assert_eq!((error + open, log.count(&format!("{name} close"))), (1, 1), "{way} {at}: {events:?}");
            let last = events.last().unwrap();
            let cause = ["close_notify", "mid-handshake", "reset", "Broken pipe"];
            assert!(cause.iter().any(|cause| last.contains(cause)), "{way} {at}: {events:?}");
            assert!([&b""[..], b"hello"].contains(&&*log.input(name)), "{way} {at}");
        }
    }
}

/// EDGE_CASES 362.
#[test]
fn garbage_is_refused_with_an_alert_and_an_error_of_its_channel() {
    let long = [&[22, 3, 1, 0xff, 0xff][..], &[7; 70_000]].concat();
    let garbage: [&[u8]; 7] = [
        b"\x80\x2e\x01\x03\x01 an old hello, of SSL 2",
        b"EHLO mail.example\r\n",
        b"\x17\x03\x03\x00\x05hello",
        b"\x16\x03\x01\x00\x04\x0b\x00\x00\x00",
        b"\x16\x03\x01\x00\x00",
        &long,
        &[0; 5000],
    ];
    for garbage in garbage {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = pair("127.0.0.1:0".parse().unwrap());
        let handle = map.add_tls(near, &LOCALHOST.server(), Recorder::new("a", &log)).unwrap();
        // Never sent, and no reason to reset the connection.
        map.channel(handle).unwrap().push(b"220 welcome").unwrap();
        far.write_all(garbage).unwrap();
        let shown = garbage[..garbage.len().min(20)].escape_ascii();
        run_out(&mut map, &log);
        let events = log.of("a");
        assert_eq!(events.len(), 2, "{shown}: {events:?}");
        assert!(events[0].starts_with("error: TLS: "), "{shown}: {events:?}");
        assert!(events[1].starts_with("close: TLS: "), "{shown}: {events:?}");
        let mut told = Vec::new();
        far.read_to_end(&mut told).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(told.first(), Some(&21), "{shown} is told {}", told.escape_ascii());
    }
}

/// EDGE_CASES 363.
#[test]
fn plain_http_on_a_tls_port_is_answered_as_such() {
    let long = format!("POST / HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(20_000));
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.0\r\n\r\n", &long] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = pair("127.0.0.1:0".parse().unwrap());
        map.add_tls(near, &LOCALHOST.server(), Recorder::new("a", &log)).unwrap();
        far.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        run_out(&mut map, &log);
        far.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
        assert_eq!(log.of("a").last().unwrap(), "close: TLS: the client speaks plain HTTP");
    }
}

/// A wire that keeps what is sent and has nothing to say.
struct Kept(Rc<RefCell<Vec<u8>>>);

impl Source for Kept {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn recv(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first that a client says.
fn client_hello() -> Vec<u8> {
    let kept = Rc::default();
    let wire = Kept(Rc::clone(&kept));
    let mut client = TlsSession::client(Box::new(wire), &AUTHORITY.client(), "localhost").unwrap();
    client.drive(dispatch_loop::Interest::NONE).unwrap();
    drop(client);
    kept.take()
}

/// EDGE_CASES 364: they are 2,000.
#[test]
fn clients_that_stop_in_mid_handshake_harm_nobody_and_are_gone_after_the_deadline() {
    const CLIENTS: usize = 2000;
    raise_descriptor_limit(3 * CLIENTS as u64);
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let tls = LOCALHOST.server();
    let accepts = Recorder::new("listener", &log).quiet().on_accept(move |ch, socket, _| {
        let handle = ch.map_mut().add_tls(socket, &tls, Quiet)?;
        ch.map_mut().channel(handle)?.set_handshake_timeout(Duration::from_millis(700));
        Ok(())
    });
    let listener = map.listen("127.0.0.1:0", accepts).unwrap();
    let address = address_of(&mut map, listener);
    let hello = client_hello();
    let mut stopped = Vec::new();
    for at in 0..CLIENTS {
        let mut client = TcpStream::connect(address).unwrap();
        limit_time(&client);
        // Some say nothing, some a part of the first word, some all of it.
        client.write_all(&hello[..hello.len() * (at % 3) / 2]).unwrap();
        stopped.push(client);
        if at % 10 == 0 {
            map.turn(Some(Duration::ZERO)).unwrap();
        }
    }
    let good = map.connect_tls(address, &AUTHORITY.client(), Recorder::new("good", &log)).unwrap();
    turn_until(&mut map, &log, |_| log.has("good open"));
    turn_until(&mut map, &log, |map| map.len() == 3);
    assert!(map.contains(listener) && map.contains(good));
    for mut client in stopped {
        let mut told = Vec::new();
        // Each is closed, with what it was told before, if anything.
        let _ = client.read_to_end(&mut told);
    }
    assert_eq!(log.count("good close"), 0);
    assert!(comes_to_rest(&mut map), "it spins");
}

struct Quiet;

impl dispatch_loop::Dispatcher for Quiet {}

/// EDGE_CASES 365.
#[test]
fn a_flood_of_hellos_leaves_the_others_their_turn() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let hello = client_hello();
    let flood: Vec<UnixStream> = std::iter::repeat_with(|| {
        let (near, mut far) = unix_pair();
        map.add_tls(near, &LOCALHOST.server(), Quiet).unwrap();
        far.write_all(&hello).unwrap();
        far.set_nonblocking(true).unwrap();
        far
    })
    .take(100)
    .collect();
    let (near, mut other) = unix_pair();
    map.add(near, Recorder::new("a", &log).on("read", |ch| ch.read_with(|ch, data| ch.push(data)))).unwrap();
    let mut left: Vec<&UnixStream> = flood.iter().collect();
    let mut turns = 0;
    while !left.is_empty() {
        other.write_all(b"ping").unwrap();
        map.turn(Some(Duration::from_secs(1))).unwrap();
        turns += 1;
        let mut pong = [0; 4];
        other.read_exact(&mut pong).unwrap();
        let before = left.len();
        left.retain(|far| !matches!((&**far).read(&mut [0; 8192]), Ok(1..)));
        assert!(before - left.len() <= 16, "{} in one turn", before - left.len());
        assert!(turns < 100, "{} are left after {turns} turns", left.len());
    }
}

/// EDGE_CASES 391: their sockets have nothing more to say.
#[test]
fn many_hellos_that_were_read_ahead_all_have_their_turn() {
    let (log, mut map, hello) = (Log::new(), ChannelMap::new().unwrap(), client_hello());
    let hands_over = |ch: &mut dispatch_loop::Channel<'_>| {
        ch.read_with(|ch, data| {
            ch.unread(data);
            ch.start_tls(&LOCALHOST.server())
        })
    };
    let far = std::iter::repeat_with(|| {
        let (near, mut far) = unix_pair();
        map.add(near, Recorder::new("a", &log).on("read", hands_over)).unwrap();
        far.write_all(&hello).unwrap();
        far.set_nonblocking(true).unwrap();
        far
    });
    let far: Vec<UnixStream> = far.take(100).collect();
    let mut left: Vec<&UnixStream> = far.iter().collect();
    turn_until(&mut map, &log, |_| {
        left.retain(|far| !matches!((&**far).read(&mut [0; 8192]), Ok(1..)));
        left.is_empty()
    });
    assert!(comes_to_rest(&mut map), "it spins");
}

/// EDGE_CASES 366.
#[test]
fn close_in_mid_handshake_ends_at_the_deadline_of_the_handshake() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _silent) = unix_pair();
    let handle = map.add_tls(near, &LOCALHOST.server(), Recorder::new("a", &log)).unwrap();
    let mut ch = map.channel(handle).unwrap();
    ch.set_handshake_timeout(Duration::from_millis(20));
    ch.push(b"never sent").unwrap();
    ch.close();
    let begun = Instant::now();
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["close: timed out"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "that was the close timeout");
}

/// EDGE_CASES 367.
#[test]
fn a_handshake_that_takes_too_long_is_told_as_a_failed_connect_is() {
    for server in [true, false] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, _silent) = unix_pair();
        let recorder = Recorder::new("a", &log);
        let handle = match server {
            true => map.add_tls(near, &LOCALHOST.server(), recorder).unwrap(),
            false => map.add(near, recorder).unwrap(),
        };
        let mut ch = map.channel(handle).unwrap();
        if !server {
            ch.start_tls_client(&AUTHORITY.client(), "localhost").unwrap();
        }
        ch.set_handshake_timeout(Duration::from_millis(20));
        run_out(&mut map, &log);
        let why = "the handshake was not done after 20ms";
        assert_eq!(log.of("a"), [format!("error: {why}"), format!("close: {why}")]);
    }
}

/// EDGE_CASES 368: the name is looked up, verified, and asked for.
#[test]
fn connect_tls_verifies_the_name_that_it_connects_to() {
    for (host, seen) in [("localhost", Some("localhost")), ("127.0.0.1", None)] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (tls, server) = (LOCALHOST.server(), log.clone());
        let accepts = Recorder::new("listener", &log).on_accept(move |ch, socket, _| {
            let log = server.clone();
            let greets = Recorder::new("server", &server).on("open", move |ch| {
                log.add(format!("server name {:?}", ch.tls().unwrap().server_name()));
                ch.push(b"welcome")
            });
            ch.map_mut().add_tls(socket, &tls, greets).map(drop)
        });
        let listener = map.listen("127.0.0.1:0", accepts).unwrap();
        let port = address_of(&mut map, listener).port();
        let client = Recorder::new("client", &log).on("read", |ch| {
            ch.read_with(|ch, data| {
                assert_eq!(data, b"welcome");
                ch.close();
                Ok(())
            })
        });
        let handle = map.connect_tls(&*format!("{host}:{port}"), &AUTHORITY.client(), client).unwrap();
        assert!(map.channel(handle).unwrap().tls().is_none());
        turn_until(&mut map, &log, |_| log.closed("client") && log.closed("server"));
        assert_eq!(log.of("client"), ["connect", "open", "read", "close: closed"]);
        assert_eq!(log.count(&format!("server name {seen:?}")), 1, "{:?}", log.events());
    }
    let mut map = ChannelMap::new().unwrap();
    let log = Log::new();
    let refused = map.connect_tls("unix:/tmp/x", &AUTHORITY.client(), Recorder::new("a", &log));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
}
