//! What CPython's test_asyncore pins down, in its order, with what is different here: `writable` is
//! false by default, `handle_accept` is given the connection, and no hook runs inside a call. (The
//! options of the loop are in `loop_options.rs`.)

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, LoopOptions, Reason, Token, run, run_with};
use rustix::event::{PollFd, PollFlags};

use crate::support::logging::{capture_log, logged};
use crate::support::opened::address_of;
use crate::support::peers::{loopbacks, pair, read_all, reset};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_idle, turn_until};

/// Nothing but defaults.
struct Default;

impl Dispatcher for Default {}

/// One wait, without waiting.
fn poll_once(map: &mut ChannelMap) {
    let options = LoopOptions::default().with_timeout(Duration::ZERO).with_count(1);
    run_with(map, &options).unwrap();
}

/// An open channel whose hooks take nothing, its other end, and the log.
fn ready(on: SocketAddr, readable: bool, writable: bool) -> (ChannelMap, Token, TcpStream, Log) {
    let log = Log::new();
    let (near, far) = pair(on);
    let mut map = ChannelMap::new().unwrap();
    let recorder = Recorder::new("a", &log).readable(move |_| readable).writable(move |_| writable);
    let token = map.add(near, recorder).unwrap().token();
    map.turn(Some(Duration::ZERO)).unwrap();
    (map, token, far, log)
}

/// `test_readwrite` and `test_readwriteexc`: each kind of readiness calls its hook, once a turn, in
/// the order of the contract, and none that was not asked for.
#[test]
fn readiness_calls_its_hook() {
    let input = |far: &mut TcpStream| far.write_all(b"x").unwrap();
    let urgent = |far: &mut TcpStream| {
        socket2::SockRef::from(&*far).send_out_of_band(b"!").unwrap();
    };
    let fin = |far: &mut TcpStream| far.shutdown(Shutdown::Write).unwrap();
    let nothing = |_: &mut TcpStream| {};
    type Peer = fn(&mut TcpStream);
    let mut cases: Vec<(Peer, bool, bool, &[&str])> = vec![
        (nothing, true, false, &[]),
        (nothing, true, true, &["write"]),
        (input, true, false, &["read"]),
        (input, true, true, &["read", "write"]),
        (input, false, false, &[]),
        (input, false, true, &["write"]),
        (fin, true, false, &["read", "eof", "close: end of stream"]),
        (fin, false, false, &[]),
    ];
    if cfg!(target_os = "linux") {
        cases.extend([(urgent as Peer, true, false, &["expt", "read"][..])]);
        cases.extend([(urgent as Peer, true, true, &["expt", "read", "write"][..])]);
    }
    for on in loopbacks() {
        for &(peer, readable, writable, wanted) in &cases {
            let (mut map, token, mut far, log) = ready(on, readable, writable);
            let before = log.of("a").len();
            peer(&mut far);
            if wanted.iter().any(|hook| ["read", "expt"].contains(hook)) {
                let channel = map.channel(token).unwrap();
                let socket = channel.socket().unwrap();
                let mut fds = [PollFd::new(&socket, PollFlags::IN | PollFlags::PRI)];
                assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
            }
            poll_once(&mut map);
            let mut hooks = log.of("a").split_off(before);
            // Whether there is a read beside the urgent byte is the system's affair.
            if wanted.contains(&"expt") && !hooks.contains(&"read".into()) {
                hooks.insert(1, "read".into());
            }
            assert_eq!(hooks, wanted, "readable {readable}, writable {writable}");
        }
    }
}

/// `test_readwrite` with POLLERR, POLLHUP and POLLNVAL: what was `handle_close` there ends the
/// channel here, whatever it waits for.
#[test]
fn errors_and_hang_ups_end_the_channel() {
    for on in loopbacks() {
        for (readable, writable) in [(true, true), (true, false), (false, true), (false, false)] {
            let (mut map, _, far, log) = ready(on, readable, writable);
            reset(far);
            run(&mut map).unwrap();
            assert_eq!(log.count("a close: "), 1);
            assert_eq!(log.count("a error"), 0);
        }
    }
}

/// `test_closeall` and `test_closeall_default`.
#[test]
fn close_all_ends_every_channel_once_and_sends_what_is_queued() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.close_all();
        let mut fars = Vec::new();
        for _ in 0..10 {
            let (near, far) = pair(on);
            let token = map.add(near, Recorder::new("a", &log)).unwrap();
            map.channel(token).unwrap().push(b"goodbye").unwrap();
            fars.push(far);
        }
        map.listen(on, Recorder::new("listener", &log)).unwrap();
        assert_eq!((map.len(), map.tokens().count()), (11, 11));
        map.close_all();
        map.close_all();
        assert!(log.events().is_empty(), "no hook inside the call");
        run(&mut map).unwrap();
        assert!(map.is_empty());
        assert_eq!((log.count("a close: closed"), log.count("listener close: closed")), (10, 1));
        for far in &mut fars {
            let (got, end) = read_all(far);
            end.unwrap();
            assert_eq!(got, b"goodbye");
        }
    }
}

/// `test_basic`: the predicates by default. And `test_repr`.
#[test]
fn the_default_is_to_read_and_not_to_write() {
    let (near, _far) = pair(loopbacks()[0]);
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Default).unwrap();
    let ch = map.channel(token).unwrap();
    assert!(Default.readable(&ch));
    assert!(!Default.writable(&ch), "true in Python, and the source of many a busy loop");
    let peer = ch.peer_addr().unwrap();
    let shown = format!("{ch:?}");
    assert!(shown.contains(&token.token().to_string()), "{shown}");
    assert!(shown.contains(&peer.port().unwrap().to_string()), "{shown}");
    assert!(ch.local_addr().is_ok());
    assert!(format!("{map:?}").contains("channels: 1"));
}

/// `test_unhandled`: what is left at its default says so, once a channel, and does no harm.
#[test]
fn unhandled_hooks_are_logged_once() {
    capture_log();
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let listener = map.listen(on, Default).unwrap();
        let address = address_of(&mut map, listener);
        let (near, mut far) = pair(on);
        let token = map.add(near, Default).unwrap().token();
        for _ in 0..3 {
            far.write_all(b"nobody reads it").unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            client.set_nonblocking(true).unwrap();
            let mut dropped = false;
            turn_until(&mut map, &log, |map| {
                dropped |= matches!(client.read(&mut [0]), Ok(0));
                let left = socket2::SockRef::from(&map.channel(token).unwrap().socket().unwrap())
                    .peek(&mut [std::mem::MaybeUninit::uninit()]);
                dropped && left.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            });
        }
        assert_eq!(logged("handle_read").len(), 1);
        assert_eq!(logged("handle_accept").len(), 1);
        drop(far);
        turn_until(&mut map, &log, |map| map.len() == 1);
        capture_log();
    }
}

/// `test_send` of `dispatcher_with_send`: a client that pushes, a server that is not ours.
#[test]
fn a_client_that_pushes_reaches_a_server_that_is_not_ours() {
    for on in loopbacks() {
        let log = Log::new();
        let listener = TcpListener::bind(on).unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || read_all(&mut listener.accept().unwrap().0));
        let mut map = ChannelMap::new().unwrap();
        let client = map.connect(address, Recorder::new("client", &log)).unwrap();
        let data = b"Suppose there isn't a 16-ton weight?";
        map.channel(client).unwrap().push(data).unwrap();
        map.channel(client).unwrap().push(b"\n").unwrap();
        turn_until(&mut map, &log, |_| log.has("client open"));
        map.channel(client).unwrap().close();
        run(&mut map).unwrap();
        let (got, end) = server.join().unwrap();
        end.unwrap();
        assert_eq!(got, [&data[..], b"\n"].concat());
    }
}

/// A listening server in a map, whose connections are called `handler` and made by `make`.
fn server(map: &mut ChannelMap, on: SocketAddr, log: &Log, make: fn(Recorder) -> Recorder) -> SocketAddr {
    let inner = log.clone();
    let recorder = Recorder::new("server", log).on_accept(move |ch, socket, peer| {
        assert_eq!(socket.peer_addr().unwrap(), peer);
        ch.map_mut().add(socket, make(Recorder::new("handler", &inner))).map(drop)
    });
    let server = map.listen(on, recorder).unwrap();
    address_of(map, server)
}

/// A server and a client in one map, until `done` is in the log.
#[track_caller]
fn talk(
    server_side: fn(Recorder) -> Recorder,
    client_side: fn(Recorder) -> Recorder,
    done: &[&str],
) -> Vec<Log> {
    let each = loopbacks().into_iter().map(|on| {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let address = server(&mut map, on, &log, server_side);
        map.connect(address, client_side(Recorder::new("client", &log))).unwrap();
        turn_until(&mut map, &log, |_| done.iter().all(|event| log.has(event)));
        turn_idle(&mut map);
        log
    });
    each.collect()
}

/// `test_handle_connect`, `test_handle_accept`, `test_handle_accepted`.
#[test]
fn connect_and_accept_call_their_hooks() {
    let done = ["client connect", "client open", "server accept", "handler open"];
    for log in talk(|handler| handler, |client| client, &done) {
        assert_eq!(log.of("client")[..2], ["connect", "open"]);
        assert_eq!(log.count("server accept"), 1);
        assert_eq!(log.of("handler")[0], "open", "no handle_connect on the side that accepts");
    }
}

/// `test_handle_read`: the server sends at once.
#[test]
fn what_the_server_sends_at_once_is_read() {
    let greets = |handler: Recorder| handler.on("open", |ch| ch.push(&[b'x'; 1024]));
    for log in talk(greets, |client| client, &["client read"]) {
        assert_eq!(log.input("client"), [b'x'; 1024]);
        assert_eq!(log.of("client")[..3], ["connect", "open", "read"]);
    }
}

/// `test_handle_write`.
#[test]
fn handle_write_runs_when_there_is_room() {
    let writes = |client: Recorder| {
        client.writable(|ch| !ch.is_closing()).on("write", |ch| {
            ch.push(b"written")?;
            ch.close();
            Ok(())
        })
    };
    for log in talk(|handler| handler, writes, &["client write", "handler close: end of stream"]) {
        assert_eq!(log.input("handler"), b"written");
        assert_eq!(log.of("client"), ["connect", "open", "write", "close: closed"]);
    }
}

/// `test_handle_close`: the server closes at once.
#[test]
fn a_client_ends_when_the_server_closes() {
    let closes = |handler: Recorder| {
        handler.on("open", |ch| {
            ch.close();
            Ok(())
        })
    };
    for log in talk(closes, |client| client, &["client close: end of stream"]) {
        assert_eq!(log.of("client"), ["connect", "open", "read", "eof", "close: end of stream"]);
        assert_eq!(log.of("handler"), ["open", "close: closed"]);
    }
}

/// `test_handle_close_after_conn_broken` (bpo-11265): the client is told to write while the server
/// has gone.
#[test]
fn a_connection_that_broke_ends_once_and_is_no_error() {
    for on in loopbacks() {
        for abort in [true, false] {
            let log = Log::new();
            let listener = TcpListener::bind(on).unwrap();
            let mut map = ChannelMap::new().unwrap();
            let client = Recorder::new("client", &log).writable(|_| true).quiet();
            let client = client.on("write", |ch| ch.push(&[0; 1024]));
            map.connect(listener.local_addr().unwrap(), client).unwrap();
            let (far, _) = listener.accept().unwrap();
            turn_until(&mut map, &log, |_| log.has("client open"));
            turn_idle(&mut map);
            if abort {
                reset(far);
            } else {
                drop(far);
            }
            run(&mut map).unwrap();
            assert_eq!(log.count("client close: "), 1, "{:?}", log.of("client"));
            assert_eq!(log.count("client error"), 0, "a lost peer is no error");
        }
    }
}

/// `test_handle_expt`: a byte out of band.
#[test]
#[cfg(target_os = "linux")]
fn urgent_data_calls_handle_expt() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        let taken = Rc::new(Cell::new(0));
        let takes = taken.clone();
        let recorder = Recorder::new("a", &log).on("expt", move |ch| {
            let mut urgent = [0; 8];
            assert_eq!(ch.recv_urgent(&mut urgent)?, 1);
            takes.set(urgent[0]);
            assert_eq!(ch.recv_urgent(&mut urgent).unwrap_err().kind(), ErrorKind::WouldBlock);
            Ok(())
        });
        map.add(near, recorder).unwrap();
        socket2::SockRef::from(&far).send_out_of_band(&[244]).unwrap();
        turn_until(&mut map, &log, |_| log.has("a expt"));
        turn_idle(&mut map);
        assert_eq!((taken.get(), log.count("a expt"), log.count("a close")), (244, 1, 0));
    }
}

/// `test_handle_error`: by default it ends the channel, and the loop goes on.
#[test]
fn an_error_of_a_hook_ends_its_channel_and_the_loop_goes_on() {
    let divides =
        |client: Recorder| client.writable(|_| true).on("write", |_| Err(io::Error::other("1 / 0")));
    for log in talk(|handler| handler, divides, &["client close: 1 / 0", "handler close: end of stream"]) {
        assert_eq!(log.of("client"), ["connect", "open", "write", "error: 1 / 0", "close: 1 / 0"]);
    }
}

/// `test_connection_attributes`.
#[test]
fn exactly_one_flag_is_set_at_each_time_of_life() {
    type Flags = (bool, bool, bool, bool);
    fn flags(ch: &Channel<'_>) -> Flags {
        (ch.is_listening(), ch.is_connecting(), ch.is_connected(), ch.is_closing())
    }
    const LISTENING: Flags = (true, false, false, false);
    const CONNECTING: Flags = (false, true, false, false);
    const CONNECTED: Flags = (false, false, true, false);
    const CLOSED: Flags = (false, false, false, true);
    struct Watched(Log);
    impl Dispatcher for Watched {
        fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            assert_eq!(flags(ch), CONNECTED);
            Ok(())
        }
        fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            assert_eq!(flags(ch), CONNECTED);
            self.0.add("open");
            Ok(())
        }
        fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
            let closed = flags(ch) == CLOSED && ch.socket().is_none();
            self.0.add(format!("{reason}, as it should be: {closed}"));
        }
    }
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let server = map.listen(on, Recorder::new("server", &log)).unwrap();
        let address = address_of(&mut map, server);
        assert_eq!(flags(&map.channel(server).unwrap()), LISTENING);
        assert_eq!(map.channel(server).unwrap().peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        let client = map.connect(address, Watched(log.clone())).unwrap();
        assert_eq!(flags(&map.channel(client).unwrap()), CONNECTING);
        assert_eq!(map.channel(client).unwrap().peer_addr().unwrap(), Address::Ip(address));
        turn_until(&mut map, &log, |_| log.has("open"));
        if let Ok(ch) = map.channel(client) {
            assert_eq!(flags(&ch), CONNECTED);
        }
        // The server keeps no connection.
        turn_until(&mut map, &log, |map| !map.contains(client));
        assert_eq!(flags(&map.channel(server).unwrap()), LISTENING);
        map.channel(server).unwrap().close();
        assert_eq!(flags(&map.channel(server).unwrap()), CLOSED);
        run(&mut map).unwrap();
        assert!(log.has("end of stream, as it should be: true"), "{:?}", log.events());
        assert!(log.closed("server"));
    }
}

/// `test_create_socket`: non-blocking, of the address's family; and `test_bind`: one address, two
/// listeners.
#[test]
fn a_bind_conflict_is_an_error_that_names_the_address() {
    for on in loopbacks() {
        let mut map = ChannelMap::new().unwrap();
        let first = map.listen(on, Default).unwrap();
        let address = address_of(&mut map, first);
        assert_eq!(address.ip(), on.ip());
        let socket = map.channel(first).unwrap();
        assert!(socket2::SockRef::from(&socket.socket().unwrap()).nonblocking().unwrap());
        let error = map.listen(address, Default).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert_eq!(map.len(), 1);
    }
}

/// `test_set_reuse_addr`: a server comes back to its address at once, also when its old
/// connections linger.
#[test]
fn a_server_comes_back_to_its_address_at_once() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let closing = |handler: Recorder| {
            handler.on("open", |ch| {
                ch.close();
                Ok(())
            })
        };
        let address = server(&mut map, on, &log, closing);
        let mut client = TcpStream::connect(address).unwrap();
        // The server's side has sent its FIN first: it is the one that has to wait for a while.
        turn_until(&mut map, &log, |_| log.closed("handler"));
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        drop(map);
        let mut map = ChannelMap::new().unwrap();
        server(&mut map, address, &log, closing);
        TcpStream::connect(address).unwrap();
        turn_until(&mut map, &log, |_| log.count("handler close: ") == 2);
    }
}

/// `test_quick_connect` (bpo-10340): a client that connects and resets at once.
#[test]
fn a_client_that_connects_and_resets_at_once_does_no_harm() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let address = server(&mut map, on, &log, |handler| handler);
        for round in 1..=20 {
            reset(TcpStream::connect(address).unwrap());
            // It may have died in the backlog; if not, it was open and ended.
            turn_until(&mut map, &log, |map| map.len() == 1 && log.count("server accept") <= round);
        }
        let _alive = TcpStream::connect(address).unwrap();
        let before = log.count("handler open");
        turn_until(&mut map, &log, |map| map.len() == 2 && log.count("handler open") > before);
        assert!(!log.closed("server"));
    }
}
