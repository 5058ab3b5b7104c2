//! Accepting: EDGE_CASES 7 to 12, and rule 9 of the contract.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, clear, count, inject};
use dispatch_loop::{Address, ChannelMap, Handle, OnError, Socket};

use crate::support::logging::{capture_log, logged};
use crate::support::opened::address_of;
use crate::support::peers::{connect, loopbacks, pair, reset};
use crate::support::process::{alone, open_descriptors};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until, turns_at_once, waits_in};
use crate::support::waiting::DEADLINE;

/// A server whose connections are recorders called "conn".
fn server(name: &'static str, log: &Log) -> Recorder {
    let conns = log.clone();
    Recorder::new(name, log).on_accept(move |ch, socket, _| {
        ch.map_mut().add(socket, Recorder::new("conn", &conns))?;
        Ok(())
    })
}

fn listening(on: SocketAddr, dispatcher: Recorder) -> (ChannelMap, Handle<Recorder>, SocketAddr) {
    let mut map = ChannelMap::new().unwrap();
    let handle = map.listen(on, dispatcher).unwrap();
    let address = address_of(&mut map, handle);
    (map, handle, address)
}

fn clients(address: SocketAddr, number: usize) -> Vec<TcpStream> {
    (0..number).map(|_| connect(&address)).collect()
}

/// Whether the other end is closed; a reset counts as well.
fn is_ended(client: &mut TcpStream) -> bool {
    match client.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// EDGE_CASES 7.
#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, _, address) = listening(on, Recorder::new("a", &log));
        let error = map.listen(address, Recorder::new("b", &log)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert_eq!(map.len(), 1);
        turn_idle(&mut map);
        assert!(log.events().is_empty());
    }
}

/// `listen` says what it was that failed, whatever failed.
#[cfg(debug_assertions)]
#[test]
fn every_failure_of_listen_is_an_error() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    for on in loopbacks() {
        for call in [Call::Socket, Call::Bind, Call::Listen] {
            inject(call, 0, 1, Fault::Errno(libc::EACCES));
            let error = map.listen(on, Recorder::new("a", &log)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(error.to_string().contains(&on.to_string()), "{error}");
        }
    }
    assert!(map.listen("localhost:0", Recorder::new("a", &log)).is_err());
    assert!(map.is_empty());
}

/// Rule 9: what `handle_accept` is given.
#[test]
fn the_socket_is_ready_for_use_and_the_address_is_that_of_the_client() {
    for on in loopbacks() {
        let log = Log::new();
        let given = log.clone();
        let dispatcher = Recorder::new("a", &log).on_accept(move |ch, socket: Socket, peer: Address| {
            assert!(socket2::SockRef::from(&socket).nonblocking().unwrap());
            let flags = rustix::io::fcntl_getfd(&socket).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            assert_eq!(socket.peer_addr().unwrap(), peer);
            given.add(format!("{peer} at {}", socket.local_addr().unwrap()));
            ch.close();
            Ok(())
        });
        let (mut map, _, address) = listening(on, dispatcher);
        let client = clients(address, 1).remove(0);
        run_out(&mut map, &log);
        let wanted = format!("{} at {address}", client.local_addr().unwrap());
        assert_eq!(log.events(), ["a accept", &wanted, "a close: closed"]);
    }
}

/// Rule 9, with 17: the rest of a long backlog is accepted in the next turns, without waiting,
/// and what else is ready has its turn in between.
#[test]
fn accepts_in_one_turn_are_bounded() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, _, address) = listening(on, server("a", &log));
        let _clients = clients(address, 40);
        let (near, mut far) = pair(on);
        map.add(near, Recorder::new("other", &log)).unwrap();
        far.write_all(b"x").unwrap();
        let mut taken = vec![0];
        while log.count("a accept") < 40 {
            map.turn(Some(DEADLINE)).unwrap();
            taken.push(log.count("a accept"));
            assert!(log.has("other read"), "served in the first turn already");
        }
        assert_eq!(taken, [0, 16, 32, 40]);
    }
}

/// EDGE_CASES 8.
#[test]
fn a_listener_closed_from_its_own_hook_accepts_no_more() {
    for on in loopbacks() {
        for abort in [false, true] {
            let log = Log::new();
            let dispatcher = Recorder::new("a", &log).on_accept(move |ch, _, _| {
                if abort {
                    ch.abort()
                } else {
                    ch.close()
                }
                Ok(())
            });
            let (mut map, _, address) = listening(on, dispatcher);
            let mut clients = clients(address, 5);
            run_out(&mut map, &log);
            let reason = if abort { "close: aborted" } else { "close: closed" };
            assert_eq!(log.of("a"), ["accept", reason]);
            assert!(clients.iter_mut().all(is_ended), "the rest of the backlog is let go");
            assert!(TcpStream::connect(address).is_err());
        }
    }
}

/// A paused listener leaves its clients in the backlog, at no cost; so does `readable`.
#[test]
fn a_paused_listener_lets_clients_wait() {
    for on in loopbacks() {
        for by_readable in [false, true] {
            let log = Log::new();
            let open = std::rc::Rc::new(std::cell::Cell::new(!by_readable));
            let readable = open.clone();
            let (mut map, handle, address) =
                listening(on, server("a", &log).readable(move |_| readable.get()));
            if !by_readable {
                map.channel(handle).unwrap().pause_reading();
            }
            let _clients = clients(address, 20);
            turn_idle(&mut map);
            assert_calm(&mut map);
            assert!(log.events().is_empty());
            open.set(true);
            map.channel(handle).unwrap().resume_reading();
            turn_until(&mut map, &log, |_| log.count("conn open") == 20);
        }
    }
}

/// EDGE_CASES 9, as Linux does it: the dead connection is accepted, and ends at once.
#[test]
fn a_connection_reset_in_the_backlog_ends_alone() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, _, address) = listening(on, server("a", &log));
        clients(address, 5).into_iter().for_each(reset);
        let mut alive = clients(address, 1);
        alive[0].write_all(b"x").unwrap();
        turn_until(&mut map, &log, |map| map.len() == 2 && log.has("conn read"));
        assert_eq!(log.count("conn open") - log.count("conn close: "), 1);
        assert_eq!(log.count("a "), log.count("a accept"), "the listener lives");
    }
}

/// EDGE_CASES 9, as other systems do it: `accept` itself fails with the error of the connection.
#[cfg(debug_assertions)]
#[test]
fn an_accept_that_fails_for_one_connection_is_skipped() {
    for on in loopbacks() {
        for errno in [libc::ECONNABORTED, libc::EPROTO, libc::ENETDOWN, libc::EPERM, libc::EINTR] {
            let log = Log::new();
            capture_log();
            let (mut map, _, address) = listening(on, server("a", &log));
            let _clients = clients(address, 2);
            inject(Call::Accept, 1, 1, Fault::Errno(errno));
            assert!(turns_at_once(&mut map, 50, |_| log.count("conn open") == 2));
            assert_eq!(log.of("a"), ["accept", "accept"], "no handle_error");
            assert_eq!(logged("channel"), [""; 0], "nobody needs to know");
        }
    }
}

/// Not a failed connection but a failed listener: it does not go round and round with it.
#[cfg(debug_assertions)]
#[test]
fn a_broken_listener_ends() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, _, address) = listening(on, server("a", &log));
        let _clients = clients(address, 1);
        inject(Call::Accept, 0, 1, Fault::Errno(libc::EINVAL));
        assert!(turns_at_once(&mut map, 50, |map| map.is_empty()));
        assert_eq!(log.of("a"), ["error: ", "close: "].map(|e| format!("{e}{}", text(libc::EINVAL))));
    }
}

/// EDGE_CASES 10.
#[test]
fn an_accept_hook_that_fails_loses_that_connection_only() {
    for on in loopbacks() {
        let log = Log::new();
        capture_log();
        let conns = log.clone();
        let mut turn = 0;
        let dispatcher = Recorder::new("a", &log).on_error(OnError::End).on_accept(move |ch, socket, _| {
            turn += 1;
            match turn {
                1 => Err(io::Error::other("no room\nfor you")),
                2 => panic!("the hook of a test"),
                3 => {
                    drop(socket);
                    Ok(())
                }
                4 => {
                    ch.map_mut().add(socket, Recorder::new("kept", &conns))?;
                    Err(io::Error::other("after add"))
                }
                _ => ch.map_mut().add(socket, Recorder::new("conn", &conns)).map(drop),
            }
        });
        let (mut map, _, address) = listening(on, dispatcher);
        let mut clients = clients(address, 5);
        turn_until(&mut map, &log, |_| log.has("conn open"));
        for client in &mut clients[..3] {
            assert!(is_ended(client), "the descriptor was closed");
        }
        assert_eq!(log.of("a"), ["accept"; 5], "the listener lives, and handle_error is not asked");
        assert_eq!((log.of("kept"), log.of("conn")), (vec!["open".to_owned()], vec!["open".to_owned()]));
        for (text, client) in
            [(r"no room\nfor you", 0), ("panicked: the hook of a test", 1), ("after add", 3)]
        {
            let lines = logged(text);
            assert_eq!(lines.len(), 1, "{text}: {lines:?}");
            assert!(lines[0].contains(&clients[client].local_addr().unwrap().to_string()), "{lines:?}");
        }
    }
}

/// EDGE_CASES 11.
#[test]
fn clients_that_connect_and_reset_at_once_leave_nothing_behind() {
    alone(None, || {
        for on in loopbacks() {
            let log = Log::new();
            let (mut map, _, address) = listening(on, server("a", &log));
            map.turn(Some(Duration::ZERO)).unwrap();
            let before = open_descriptors();
            let clients = std::thread::spawn(move || {
                for n in 0..500 {
                    let client = TcpStream::connect(address).unwrap();
                    if n % 2 == 0 { reset(client) } else { drop(client) }
                }
            });
            turn_until(&mut map, &log, |_| clients.is_finished());
            clients.join().unwrap();
            let mut alive = TcpStream::connect(address).unwrap();
            alive.write_all(b"x").unwrap();
            turn_until(&mut map, &log, |map| map.len() == 2 && log.has("conn read"));
            assert_eq!(log.count("conn open") - log.count("conn close: "), 1);
            assert_eq!(log.count("a "), log.count("a accept"), "the listener lives");
            assert_eq!(open_descriptors(), before + 2, "the last client, and its channel");
        }
    });
}

/// EDGE_CASES 12: a shortage, of each kind, for as long as it lasts.
#[cfg(debug_assertions)]
#[test]
fn a_shortage_of_descriptors_or_memory_is_waited_out() {
    for on in loopbacks() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            let log = Log::new();
            capture_log();
            let (mut map, _, address) = listening(on, server("a", &log));
            let (near, mut far) = pair(on);
            let echo = Recorder::new("echo", &log).on("read", |ch| ch.read_with(|ch, data| ch.push(data)));
            let echo = map.add(near, echo).unwrap();
            let _clients = clients(address, 3);
            inject(Call::Accept, 0, u64::MAX, Fault::Errno(errno));
            let accepts = count(Call::Accept);
            turn_until(&mut map, &log, |_| count(Call::Accept) >= accepts + 2);
            let waits = waits_in(&mut map, Duration::from_millis(150));
            let pauses = count(Call::Accept) - accepts;
            assert!(waits <= 12, "{waits} waits");
            assert!(pauses <= 8, "{pauses} attempts");
            assert_eq!(logged("cannot accept").len() as u64, pauses, "one line a pause");
            assert_eq!(log.of("a"), [""; 0], "no hook of the listener");
            // The others go on.
            far.write_all(b"ping").unwrap();
            turn_until(&mut map, &log, |_| log.has("echo read"));
            far.read_exact(&mut [0; 4]).unwrap();
            // A channel ends: no need to wait for the end of the pause.
            clear();
            map.channel(echo).unwrap().abort();
            assert!(turns_at_once(&mut map, 20, |_| log.count("conn open") == 3), "{:?}", log.events());
        }
    }
}

/// EDGE_CASES 12: nobody closes anything, and yet the clients are served when there is room again.
#[cfg(debug_assertions)]
#[test]
fn after_a_shortage_the_listener_tries_again_by_itself() {
    for on in loopbacks() {
        let log = Log::new();
        capture_log();
        let (mut map, handle, address) = listening(on, server("a", &log));
        let _clients = clients(address, 1);
        inject(Call::Accept, 0, 3, Fault::Errno(libc::EMFILE));
        turn_until(&mut map, &log, |_| log.has("conn open"));
        // 0.1 s, 0.2 s, 0.4 s: what the lines say that was waited.
        let lines = logged("cannot accept");
        assert!(
            lines.len() == 3 && ["100ms", "200ms", "400ms"].iter().zip(&lines).all(|(t, l)| l.contains(t))
        );
        // It begins anew after a success; and a listener can be closed in its pause.
        let _another = clients(address, 1);
        inject(Call::Accept, 0, u64::MAX, Fault::Errno(libc::EMFILE));
        turn_until(&mut map, &log, |_| logged("100ms").len() == 2);
        map.channel(handle).unwrap().close();
        turn_until(&mut map, &log, |_| log.closed("a"));
        clear();
        assert_calm(&mut map);
    }
}

/// EDGE_CASES 12, with the real thing.
#[test]
fn clients_wait_while_no_descriptor_is_left() {
    alone(Some(64), || {
        for on in loopbacks() {
            let log = Log::new();
            capture_log();
            let (mut map, _, address) = listening(on, server("a", &log));
            let (near, mut far) = pair(on);
            map.add(near, Recorder::new("old", &log)).unwrap();
            turn_idle(&mut map);
            let _clients = clients(address, 3);
            let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            turn_until(&mut map, &log, |_| logged("cannot accept").len() == 1);
            let waits = waits_in(&mut map, Duration::from_millis(150));
            assert!(waits <= 8, "{waits} waits");
            far.write_all(b"still served").unwrap();
            turn_until(&mut map, &log, |_| log.input("old") == b"still served");
            assert_eq!(log.count("conn"), 0);
            // One channel closes: one client is served at once, and the others go on waiting.
            far.shutdown(std::net::Shutdown::Write).unwrap();
            turn_until(&mut map, &log, |_| log.closed("old"));
            assert!(turns_at_once(&mut map, 20, |_| log.count("conn open") == 1));
            turn_idle(&mut map);
            assert_eq!(log.count("conn open"), 1);
            hoard.clear();
            turn_until(&mut map, &log, |_| log.count("conn open") == 3);
            assert_eq!(log.of("a"), ["accept"; 3]);
        }
    });
}

/// An adopted listener is a listener like those of `listen`.
#[test]
fn a_listener_of_the_standard_library_serves_like_ours() {
    for on in loopbacks() {
        let log = Log::new();
        let listener = TcpListener::bind(on).unwrap();
        let address = listener.local_addr().unwrap();
        let mut map = ChannelMap::new().unwrap();
        let handle = map.add(listener, server("a", &log)).unwrap();
        let ch = map.channel(handle).unwrap();
        assert!(ch.is_listening() && ch.peer_addr().is_err());
        let _clients = clients(address, 2);
        turn_until(&mut map, &log, |_| log.count("conn open") == 2);
        // It carries no data.
        let mut ch = map.channel(handle).unwrap();
        for error in [ch.push(b"x").unwrap_err(), ch.send(b"x").unwrap_err(), ch.recv(&mut [0]).unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::NotConnected);
        }
        assert_eq!(log.count("a open"), 0);
    }
}
