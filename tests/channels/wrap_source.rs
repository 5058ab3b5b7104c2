//! A source put around the one that a living channel has: records begun when a connection is there,
//! and midway, as STARTTLS does.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, OnError};

use crate::support::ends::Kind;
use crate::support::opened::address_of;
use crate::support::peers::{loopbacks, refusing, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::records::Options;
use crate::support::turning::{run_out, turn_idle, turn_until};

fn wrap(ch: &mut Channel<'_>, client: bool) -> io::Result<()> {
    ch.wrap_source(move |plain| Ok(Options::default().around(plain, client, false)))
}

/// Both ends become records after the connection is there: `handle_open` waits for the handshake.
#[test]
fn a_source_put_around_in_handle_connect_opens_after_its_handshake() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let accepted = log.clone();
        let listener = Recorder::new("l", &log).on_accept(move |ch, socket, _| {
            let server = Recorder::new("b", &accepted).on("open", |ch| ch.push(b"who is there?"));
            let handle = ch.map_mut().add(socket, server)?;
            wrap(&mut ch.map_mut().channel(handle)?, false)?;
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
        run_out(&mut map, &log);
        assert_eq!(log.input("b"), b"first;second;third");
        assert_eq!(log.input("a"), b"who is there?");
        assert_eq!(log.of("a")[..2], ["connect", "open"]);
        assert_eq!(log.count("a open"), 1);
    }
}

/// EDGE_CASES 369: asked for while connecting, also before a name is looked up.
#[test]
fn a_source_asked_for_while_connecting_is_there_before_handle_connect() {
    for on in ["127.0.0.1:0", "localhost:0"] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let accepted = log.clone();
        let listener = Recorder::new("l", &log).on_accept(move |ch, socket, _| {
            let handle = ch.map_mut().add(socket, Recorder::new("b", &accepted))?;
            wrap(&mut ch.map_mut().channel(handle)?, false)
        });
        let listener = map.listen("127.0.0.1:0", listener).unwrap();
        let address = on.replace(":0", &format!(":{}", address_of(&mut map, listener).port()));
        let client = Recorder::new("a", &log)
            .on("connect", |ch| {
                assert!(!ch.is_connected());
                ch.push(b"second")
            })
            .on("open", |ch| {
                ch.shutdown_write();
                Ok(())
            });
        let handle = map.connect(&*address, client).unwrap();
        let mut ch = map.channel(handle).unwrap();
        wrap(&mut ch, true).unwrap();
        assert_eq!(wrap(&mut ch, true).unwrap_err().kind(), ErrorKind::ResourceBusy);
        ch.push(b"first;").unwrap();
        turn_until(&mut map, &log, |_| log.closed("a") && log.closed("b"));
        assert_eq!(log.input("b"), b"first;second");
        assert_eq!(log.of("a")[..2], ["connect", "open"]);
    }
}

/// EDGE_CASES 369: of a connect that fails, nothing is made.
#[test]
fn a_source_asked_for_while_connecting_is_not_made_if_that_fails() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (_keeps, address) = refusing("127.0.0.1:0".parse().unwrap());
    let handle = map.connect(address, Recorder::new("a", &log)).unwrap();
    map.channel(handle).unwrap().wrap_source(|_| panic!("made of what?")).unwrap();
    run_out(&mut map, &log);
    assert_eq!(log.count("a error"), 1);
    assert_eq!(log.count("a close"), 1);
    assert!(log.events().iter().all(|event| !event.contains("panicked")), "{:?}", log.events());
}

/// STARTTLS: plain lines first, then records on the same channel; no second `handle_open`.
#[test]
fn a_source_put_around_midway_opens_nothing_twice() {
    for on in [Some("127.0.0.1:0"), None] {
        let kind = Kind { on, layers: 0, client: false, options: Options::default() };
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
        run_out(&mut map, &log);
        assert_eq!(far.join().unwrap(), b"secret");
        assert_eq!(
            log.of("a"),
            ["open", "got STARTTLS", "wrapped", "got secret", "eof", "close: end of stream"]
        );
    }
}

/// EDGE_CASES 30 for a channel whose second handshake never ends: what is queued cannot be sent.
#[test]
fn close_during_a_handshake_midway_ends_at_its_deadline() {
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
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: timed out"]);
}

/// While a second handshake waits for the peer, `writable` finds no room, and nothing spins.
#[test]
fn writable_finds_no_room_during_a_handshake_midway() {
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
fn a_source_that_cannot_be_made_ends_the_channel() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let recorder = Recorder::new("a", &log)
        .on_error(OnError::Keep)
        .on("open", |ch| ch.wrap_source(|_| Err(io::Error::new(ErrorKind::InvalidInput, "no certificate"))));
    map.add(near, recorder).unwrap();
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "error: no certificate", "close: no certificate"]);
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "the socket is not closed");
}
