//! Connecting: EDGE_CASES 1 to 6, and rule 8 of the contract.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, clear, inject};
use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, OnError, Reason};

use crate::support::opened::address_of;
use crate::support::peers::{accept, black_hole, loopbacks, read_to_end, refusing, reset};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until};
use crate::support::waiting::{wait_for_hang_up, wait_for_input};

/// A listener, and a map that is connecting to it with this dispatcher.
fn connecting(
    on: std::net::SocketAddr,
    dispatcher: Recorder,
) -> (ChannelMap, dispatch_loop::Token, TcpListener) {
    let listener = TcpListener::bind(on).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let token = map.connect(listener.local_addr().unwrap(), dispatcher).unwrap().token();
    (map, token, listener)
}

/// Wait until what the peer did has arrived, without a turn of the loop.
fn wait_in(map: &mut ChannelMap, token: dispatch_loop::Token) {
    wait_for_input(map.channel(token).unwrap().socket().unwrap());
}

/// EDGE_CASES 1.
#[test]
fn a_refused_connect_is_an_error_and_then_the_end() {
    for on in loopbacks() {
        let (_held, address) = refusing(on);
        for answer in [OnError::End, OnError::Keep] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            map.connect(address, Recorder::new("a", &log).on_error(answer)).unwrap();
            assert!(log.events().is_empty(), "no hook runs inside connect");
            run_out(&mut map, &log);
            let refused = text(libc::ECONNREFUSED);
            assert_eq!(log.of("a"), [format!("error: {refused}"), format!("close: {refused}")]);
            assert!(map.is_empty());
        }
    }
}

/// The reason is the system's own error, and the addresses can still be read in `handle_close`.
#[test]
fn a_refused_connect_tells_who_refused() {
    struct Client(Rc<Cell<bool>>, std::net::SocketAddr);
    impl Dispatcher for Client {
        fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
            let error = reason.error().unwrap();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
            assert_eq!(ch.peer_addr().unwrap(), Address::Ip(self.1));
            assert!(ch.local_addr().is_ok() && ch.socket().is_none());
            self.0.set(true);
        }
    }
    for on in loopbacks() {
        let (_held, address) = refusing(on);
        let mut map = ChannelMap::new().unwrap();
        let (log, closed) = (Log::new(), Rc::new(Cell::new(false)));
        map.connect(address, Client(closed.clone(), address)).unwrap();
        run_out(&mut map, &log);
        assert!(closed.get());
    }
}

/// EDGE_CASES 2: what was pushed before, and in the hooks of the connect, in that order.
#[test]
fn data_pushed_before_the_connect_ends_is_sent_in_order() {
    for on in loopbacks() {
        let log = Log::new();
        let dispatcher = Recorder::new("a", &log).on("connect", |ch| ch.push(b" connect")).on("open", |ch| {
            assert!(ch.is_connected() && !ch.is_connecting());
            ch.push(b" open")?;
            ch.close();
            Ok(())
        });
        let (mut map, token, listener) = connecting(on, dispatcher);
        let mut ch = map.channel(token).unwrap();
        assert!(ch.is_connecting() && !ch.is_connected());
        let before = vec![b'.'; 1024 * 1024];
        ch.push(b"before").unwrap();
        ch.push_vec(before.clone()).unwrap();
        ch.push_producer(|buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(b" producer");
            Ok(dispatch_loop::More::Done)
        })
        .unwrap();
        assert_eq!(ch.queued(), 6 + before.len());
        assert_eq!(ch.send(b"x").unwrap(), 0, "send takes nothing while connecting");
        assert_eq!(ch.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(log.events().is_empty());
        let far = std::thread::spawn(move || read_to_end(&mut accept(&listener)));
        run_out(&mut map, &log);
        let got = far.join().unwrap();
        let wanted = [b"before", &before[..], b" producer connect open"].concat();
        assert!(got == wanted, "{} bytes, wanted {}", got.len(), wanted.len());
        // More than the high watermark, and then less; all within the end of it.
        let events: Vec<_> = log.of("a").into_iter().filter(|e| !matches!(&e[..], "high" | "low")).collect();
        assert_eq!(events, ["connect", "open", "close: closed"]);
    }
}

/// EDGE_CASES 2: the connect fails, also at once.
#[cfg(debug_assertions)]
#[test]
fn data_pushed_before_a_failed_connect_is_dropped() {
    for on in loopbacks() {
        let (_held, address) = refusing(on);
        for at_once in [false, true] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            if at_once {
                inject(Call::Connect, 0, 1, Fault::Errno(libc::ECONNREFUSED));
            }
            let token =
                map.connect(address, Recorder::new("a", &log).on("error", |ch| ch.push(b"more"))).unwrap();
            map.channel(token).unwrap().push(&[7; 200_000]).unwrap();
            run_out(&mut map, &log);
            let refused = text(libc::ECONNREFUSED);
            assert_eq!(log.of("a"), [format!("error: {refused}"), format!("close: {refused}")]);
        }
    }
}

/// EDGE_CASES 3.
#[test]
fn close_while_connecting_ends_without_a_connect_hook() {
    for on in loopbacks() {
        for (abort, reason) in [(false, "close: closed"), (true, "close: aborted")] {
            let log = Log::new();
            let (mut map, token, listener) = connecting(on, Recorder::new("a", &log));
            let mut ch = map.channel(token).unwrap();
            ch.push(b"never sent").unwrap();
            if abort {
                ch.abort()
            } else {
                ch.close()
            }
            ch.close();
            assert_eq!(ch.push(b"late").unwrap_err().kind(), ErrorKind::BrokenPipe);
            run_out(&mut map, &log);
            assert_eq!(log.of("a"), [reason]);
            // The kernel had connected it already: the peer sees an end, and no byte.
            let mut got = Vec::new();
            let _ = accept(&listener).read_to_end(&mut got);
            assert!(got.is_empty());
        }
    }
}

/// EDGE_CASES 3: from inside the connect hook, what it pushed is sent, and there is no open.
#[test]
fn close_in_the_connect_hook_sends_what_was_pushed_and_never_opens() {
    for on in loopbacks() {
        let log = Log::new();
        let dispatcher = Recorder::new("a", &log).on("connect", |ch| {
            ch.push(b"bye")?;
            ch.close();
            Ok(())
        });
        let (mut map, _, listener) = connecting(on, dispatcher);
        run_out(&mut map, &log);
        assert_eq!(log.of("a"), ["connect", "close: closed"]);
        assert_eq!(read_to_end(&mut accept(&listener)), b"bye");
    }
}

/// EDGE_CASES 4: data and an end of each kind, all before the loop has looked once.
#[test]
fn a_peer_that_ends_before_the_first_event_is_connected_and_read() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, listener) = connecting(on, Recorder::new("a", &log));
        accept(&listener).write_all(b"early").unwrap();
        wait_in(&mut map, token);
        run_out(&mut map, &log);
        let events: Vec<_> = log.of("a").into_iter().filter(|event| event != "read").collect();
        assert_eq!(events, ["connect", "open", "eof", "close: end of stream"]);
        assert_eq!(log.input("a"), b"early");
    }
}

/// EDGE_CASES 4: a reset is the end of a connection that was there, not a connect that failed.
#[test]
fn a_reset_before_the_first_event_is_the_end_of_a_connection() {
    for on in loopbacks() {
        for data in [&b""[..], b"early"] {
            for fin in [false, true] {
                let log = Log::new();
                let (mut map, token, listener) = connecting(on, Recorder::new("a", &log));
                map.channel(token).unwrap().push(b"pushed before").unwrap();
                let mut far = accept(&listener);
                far.write_all(data).unwrap();
                if fin {
                    // The kernel calls a reset after FIN a broken pipe.
                    far.shutdown(std::net::Shutdown::Write).unwrap();
                    wait_in(&mut map, token);
                }
                reset(far);
                wait_for_hang_up(map.channel(token).unwrap().socket().unwrap());
                run_out(&mut map, &log);
                let events: Vec<_> = log.of("a").into_iter().filter(|event| event != "read").collect();
                let ends = [libc::ECONNRESET, libc::EPIPE].map(|end| format!("close: {}", text(end)));
                let (last, before) = events.split_last().unwrap();
                assert_eq!(before, ["connect", "open"], "fin: {fin}, {last}");
                assert!(*last == ends[0] || (fin && *last == ends[1]), "{last}");
                if cfg!(target_os = "linux") {
                    assert_eq!(log.input("a"), data);
                }
            }
        }
    }
}

/// EDGE_CASES 5: one outcome, and nothing when the peer answers later.
#[test]
#[cfg(target_os = "linux")]
fn a_connect_past_its_deadline_has_one_outcome() {
    struct Client(Log);
    impl Dispatcher for Client {
        fn handle_connect(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
            self.0.add("connect");
            Ok(())
        }
        fn handle_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> OnError {
            self.0.add(format!("error: {error}"));
            OnError::End
        }
        fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
            self.0.add(format!("close: {reason}, {}", ch.is_connecting()));
        }
    }
    for on in loopbacks() {
        let log = Log::new();
        let (listener, filling, address) = black_hole(on);
        let mut map = ChannelMap::new().unwrap();
        let token = map.connect(address, Client(log.clone())).unwrap();
        map.channel(token).unwrap().set_timeout(Some(Duration::from_millis(50)));
        map.channel(token).unwrap().push(b"pushed before").unwrap();
        run_out(&mut map, &log);
        assert_eq!(log.events(), ["close: timed out, false"]);
        drop((listener, filling));
        turn_idle(&mut map);
        assert_eq!(log.events().len(), 1);
    }
}

/// While it takes long, a connect costs nothing, and others are served.
#[test]
#[cfg(target_os = "linux")]
fn a_slow_connect_costs_nothing() {
    for on in loopbacks() {
        let log = Log::new();
        let (_listener, _filling, address) = black_hole(on);
        let mut map = ChannelMap::new().unwrap();
        map.connect(address, Recorder::new("a", &log)).unwrap();
        turn_idle(&mut map);
        assert_calm(&mut map);
        assert!(log.events().is_empty());
    }
}

/// EDGE_CASES 6: no socket is made of these, and the dispatcher is dropped without a hook.
#[cfg(debug_assertions)]
#[test]
fn an_unusable_address_is_an_error_of_connect() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    for address in ["127.0.0.1", "127.0.0.1:99999", "", "127.0.0.1:80\n", "::1:80"] {
        let error = map.connect(address, Recorder::new("a", &log)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{address:?}");
        assert!(error.to_string().contains(&address.escape_debug().to_string()), "{error}");
    }
    let error = map.connect(Address::Unnamed, Recorder::new("a", &log)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for on in loopbacks() {
        inject(Call::Socket, 0, 1, Fault::Errno(libc::EMFILE));
        let error = map.connect(on, Recorder::new("a", &log)).unwrap_err();
        assert!(error.to_string().contains(&on.to_string()), "{error}");
    }
    clear();
    assert!(map.is_empty());
    turn_idle(&mut map);
    assert!(log.events().is_empty());
}

/// EDGE_CASES 6: an address that is refused at once is an outcome, told in the next turn.
#[cfg(debug_assertions)]
#[test]
fn a_connect_refused_at_once_is_an_outcome() {
    for on in loopbacks() {
        for errno in [libc::ENETUNREACH, libc::ECONNREFUSED, libc::EADDRNOTAVAIL, libc::EACCES] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            inject(Call::Connect, 0, 1, Fault::Errno(errno));
            let token = map.connect(on, Recorder::new("a", &log).on_error(OnError::Keep)).unwrap();
            assert!(map.channel(token).unwrap().is_connecting());
            assert!(log.events().is_empty());
            map.turn(Some(Duration::ZERO)).unwrap();
            assert_eq!(log.of("a"), [format!("error: {}", text(errno)), format!("close: {}", text(errno))]);
            assert!(map.is_empty() && map.channel(token).is_err());
        }
    }
}

/// Rule 8 and EDGE_CASES 6, as the system has it: port 0 cannot be connected to.
#[test]
fn port_zero_is_refused_by_the_system() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.connect(on, Recorder::new("a", &log)).unwrap();
        run_out(&mut map, &log);
        assert_eq!(log.of("a").len(), 2, "{:?}", log.events());
        assert!(log.closed("a") && log.count("a error: ") == 1);
    }
}

/// Rule 8: an error that waits on the socket is the cause that is told.
#[cfg(debug_assertions)]
#[test]
fn the_cause_is_the_one_of_the_socket() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, _, _listener) = connecting(on, Recorder::new("a", &log));
        inject(Call::TakeError, 0, 1, Fault::Errno(libc::EHOSTUNREACH));
        run_out(&mut map, &log);
        let cause = text(libc::EHOSTUNREACH);
        assert_eq!(log.of("a"), [format!("error: {cause}"), format!("close: {cause}")]);
    }
}

/// Rule 4: connect, open, then data, when all of it is there in the first event.
#[test]
fn a_connection_connects_opens_and_reads_in_this_order() {
    for on in loopbacks() {
        let log = Log::new();
        let dispatcher = Recorder::new("a", &log).writable(|_| true).on("write", |ch| {
            ch.close();
            Ok(())
        });
        let (mut map, token, listener) = connecting(on, dispatcher);
        let mut far = accept(&listener);
        far.write_all(b"hello").unwrap();
        wait_in(&mut map, token);
        run_out(&mut map, &log);
        assert_eq!(log.of("a"), ["connect", "open", "read", "write", "close: closed"]);
        assert_eq!(read_to_end(&mut far), b"");
    }
}

/// Many at once, refused ones among them: each has its one outcome.
#[test]
fn of_many_connects_at_once_each_has_one_outcome() {
    for on in loopbacks() {
        let log = Log::new();
        let (_held, refused) = refusing(on);
        let mut map = ChannelMap::new().unwrap();
        let server = Recorder::new("server", &log).on_accept(|_, socket, _| {
            drop(socket);
            Ok(())
        });
        let server = map.listen(on, server).unwrap();
        let address = address_of(&mut map, server);
        for _ in 0..100 {
            map.connect(address, Recorder::new("good", &log)).unwrap();
            map.connect(refused, Recorder::new("bad", &log)).unwrap();
        }
        turn_until(&mut map, &log, |map| map.len() == 1);
        for (event, times) in [
            ("server accept", 100),
            ("good connect", 100),
            ("good open", 100),
            ("good close: ", 100),
            ("bad error: ", 100),
            ("bad close: ", 100),
            ("bad connect", 0),
            ("good error", 0),
        ] {
            assert_eq!(log.count(event), times, "{event}");
        }
    }
}
