//! The scenarios, each a test in a process of its own, which counts its descriptors.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread;
use std::time::Duration;

use dispatch_loop::{Address, DatagramOptions, Eof, ListenOptions};
use socket2::SockRef;

use super::actors::{QUIET, Role};
use super::far::{End, Part};
use super::stage::{Scenario, every_call_fails_once};
use crate::support::dirs::Dir;
use crate::support::peers::{loopbacks, pair, pipe, refusing};
use crate::support::process::alone;
use crate::support::records::{Options, Records};

const LISTENER: Role = Role { name: "listener", ..QUIET };
const ECHO: Role = Role { name: "accepted", echoes: true, ..QUIET };
const ECHOES: Role = Role { accepted: Some(&ECHO), ..LISTENER };

fn play(name: &str, scenario: Scenario) {
    every_call_fails_once(name, scenario);
}

/// EDGE_CASES 330. Two clients are accepted and have what they say sent back.
#[test]
fn accept_and_echo() {
    alone(None, || {
        play("accept_and_echo", |stage| {
            let listener = stage.listen(loopbacks()[0], ECHOES)?;
            let address = stage.address_of(listener);
            stage.client(address, Part { says: 3000, fin_after: Some(3000), ..Part::default() });
            stage.client(address, Part { says: 10, fin_after: Some(10), ..Part::default() });
            Ok(())
        })
    })
}

/// EDGE_CASES 330. A channel connects, says something before it is connected and more when it is, and
/// closes when all has come back.
#[test]
fn connect_and_echo() {
    alone(None, || {
        play("connect_and_echo", |stage| {
            let to = stage.host(Part { echoes: true, ..Part::default() });
            let role = Role { name: "client", says: 3000, expects: 3000, then: |ch| ch.close(), ..QUIET };
            stage.connect(to, role).map(drop)
        })
    })
}

/// EDGE_CASES 330. Both ends are in the map.
#[test]
fn both_ends_in_one_map() {
    alone(None, || {
        play("both_ends_in_one_map", |stage| {
            let listener = stage.listen(loopbacks()[0], ECHOES)?;
            let address = stage.address_of(listener);
            let role = Role { name: "client", says: 3000, expects: 3000, then: |ch| ch.close(), ..QUIET };
            stage.connect(address, role).map(drop)
        })
    })
}

/// EDGE_CASES 330. A name has two addresses, of which the first refuses.
#[test]
fn connect_by_name() {
    alone(None, || {
        let (refusing, nobody) = refusing(loopbacks()[0]);
        NOBODY.set(Some(nobody));
        play("connect_by_name", |stage| {
            let nobody = NOBODY.get().unwrap();
            let to = stage.host(Part { echoes: true, ..Part::default() });
            stage.map.set_resolver(move |_, _| Ok(vec![nobody, to]));
            let role = Role { name: "client", says: 3000, expects: 3000, then: |ch| ch.close(), ..QUIET };
            stage.connect("name.test:1", role)?;
            // Before the loop first turns, so that it turns as often each time.
            stage.wait_for_look_up();
            Ok(())
        });
        drop(refusing);
    })
}

thread_local! {
    static NOBODY: std::cell::Cell<Option<SocketAddr>> = const { std::cell::Cell::new(None) };
}

/// EDGE_CASES 330. FIN of the one end, then that of the other, over TCP and a Unix-domain pair.
#[test]
fn half_close() {
    alone(None, || {
        play("half_close", |stage| {
            let role = Role {
                name: "first",
                says: 2000,
                opens: |ch| ch.shutdown_write(),
                eof: Eof::KeepWriting,
                ..QUIET
            };
            let (near, far) = pair(loopbacks()[0]);
            stage.add_as(role, |map, actor| map.add(near, actor))?;
            stage.far(End::Tcp(far.into()), Part { says: 1500, answers: true, ..Part::default() });
            let role = Role { name: "second", eof: Eof::KeepWriting, answers: 2500, ..QUIET };
            let (near, far) = UnixStream::pair()?;
            stage.add_as(role, |map, actor| map.add(near, actor))?;
            stage.far(End::Unix(far.into()), Part { says: 700, fin_after: Some(0), ..Part::default() });
            Ok(())
        })
    })
}

/// EDGE_CASES 330. Closed with a long queue, while the peer still sends: it lingers.
#[test]
fn close_with_a_queue() {
    alone(None, || {
        play("close_with_a_queue", |stage| {
            let role = Role { name: "closing", says: 100_000, expects: 100, then: |ch| ch.close(), ..QUIET };
            let (near, far) = pair(loopbacks()[0]);
            SockRef::from(&near).set_send_buffer_size(16 * 1024)?;
            stage.add_as(role, |map, actor| map.add(near, actor))?;
            stage.far(End::Tcp(far.into()), Part { says: 200, fin_after: Some(100_000), ..Part::default() });
            Ok(())
        })
    })
}

/// EDGE_CASES 330. An urgent byte among others.
#[test]
fn urgent_data() {
    alone(None, || {
        play("urgent_data", |stage| {
            let (near, far) = pair(loopbacks()[0]);
            let role = Role { name: "urgent", echoes: true, ..QUIET };
            stage.add_as(role, |map, actor| map.add(near, actor))?;
            let part = Part { says: 500, urgent: true, fin_after: Some(500), ..Part::default() };
            stage.far(End::Tcp(far.into()), part);
            Ok(())
        })
    })
}

/// EDGE_CASES 330. Datagrams by UDP, to and fro.
#[test]
fn datagrams() {
    alone(None, || {
        play("datagrams", |stage| {
            let role = Role { name: "udp", echoes: true, expects: 5, then: |ch| ch.close(), ..QUIET };
            let handle = stage.add_as(role, |map, actor| map.bind("127.0.0.1:0", actor))?;
            let far = UdpSocket::bind("127.0.0.1:0")?;
            far.connect(stage.address_of(handle))?;
            let part = Part { says: 5, fin_after: Some(5), ..Part::default() };
            stage.far(End::Datagram(far.into()), part);
            Ok(())
        })
    })
}

/// EDGE_CASES 330. Datagrams between connected Unix-domain sockets, and by a socket with a file.
#[test]
fn unix_datagrams() {
    alone(None, || {
        play("unix_datagrams", |stage| {
            let dir = Dir::new();
            let (here, there) = (dir.join("here"), dir.join("there"));
            let far = UnixDatagram::bind(&there)?;
            let role = Role { name: "unix", echoes: true, expects: 5, then: |ch| ch.close(), ..QUIET };
            let options = DatagramOptions::default().with_peer(Address::Unix(there.clone().into()));
            let bound = stage.add_as(role, |map, actor| map.bind_with(here.clone(), &options, actor));
            if bound.is_ok() {
                far.connect(&here)?;
                let part = Part { says: 5, fin_after: Some(5), ..Part::default() };
                stage.far(End::Datagram(far.into()), part);
            }
            stage.keep(dir, here);
            bound.map(drop)
        })
    })
}

/// EDGE_CASES 330. A listener with a file, which is removed; and a client in the same map.
#[test]
fn unix_sockets() {
    alone(None, || {
        play("unix_sockets", |stage| {
            let dir = Dir::new();
            let path = dir.join("socket");
            stage.keep(dir, path.clone());
            let options = ListenOptions::default().with_mode(0o600);
            let listening = stage.add_as(ECHOES, |map, actor| map.listen_with(path.clone(), &options, actor));
            stage.must(listening.is_ok() == path.exists(), "a file without a listener");
            listening?;
            let role = Role { name: "client", says: 3000, expects: 3000, then: |ch| ch.close(), ..QUIET };
            stage.connect(path, role).map(drop)
        })
    })
}

/// EDGE_CASES 330. One pipe to read and one to write.
#[test]
fn pipes() {
    alone(None, || {
        play("pipes", |stage| {
            let (reader, writer) = pipe();
            stage.add_as(Role { name: "reader", ..QUIET }, |map, actor| map.add_file(reader, actor))?;
            stage.far(End::File(writer), Part { says: 3000, ..Part::default() });
            let (reader, writer) = pipe();
            let role = Role { name: "writer", says: 100_000, opens: |ch| ch.close(), ..QUIET };
            stage.add_as(role, |map, actor| map.add_file(writer, actor))?;
            stage.far(End::File(reader), Part::default());
            Ok(())
        })
    })
}

/// EDGE_CASES 330. Records, as TLS has them, with a handshake, put around both ends of a connection.
#[test]
fn records() {
    alone(None, || {
        play("records", |stage| {
            stage.hides_errors = true;
            let (near, far) = pair(loopbacks()[0]);
            let client = Role { name: "client", says: 3000, expects: 3000, then: |ch| ch.close(), ..QUIET };
            let server = Role { name: "server", echoes: true, ..QUIET };
            let options = Options { update_every: 2000, ..Options::default() };
            for (socket, role, begins) in [(near, client, true), (far, server, false)] {
                let handle = stage.add_as(role, |map, actor| map.add(socket, actor))?;
                let wrap = move |plain| Ok(Box::new(Records::new(plain, begins, options)) as Box<_>);
                stage.map.channel(handle).unwrap().wrap_source(wrap)?;
            }
            Ok(())
        })
    })
}

/// EDGE_CASES 330. Timers: one that runs, one that is cancelled, one that repeats, and the end of patience.
#[test]
fn timers() {
    alone(None, || {
        play("timers", |stage| {
            let (near, far) = pair(loopbacks()[0]);
            let role = Role { name: "patient", opens: |ch| ch.set_timeout(Some(SHORT)), ..QUIET };
            let handle = stage.add_as(role, |map, actor| map.add(near, actor))?;
            stage.far(End::Tcp(far.into()), Part::default());
            let world = stage.world.clone();
            let cancelled = stage.map.call_later(SHORT, move |_| {
                world.borrow_mut().wrong.push("a timer that was cancelled".to_owned());
            });
            let world = stage.world.clone();
            let mut times = 0;
            stage.map.call_every(SHORT / 4, move |map| {
                times += 1;
                map.cancel(cancelled);
                world.borrow_mut().moved = true;
                if let (true, Ok(mut ch)) = (times == 2, map.channel(handle)) {
                    let _ = ch.push(b"");
                }
            });
            Ok(())
        })
    })
}

const SHORT: Duration = Duration::from_millis(8);

/// EDGE_CASES 330. What another thread gives to a channel, and has called.
#[test]
fn messages() {
    alone(None, || {
        play("messages", |stage| {
            let (near, far) = UnixStream::pair()?;
            let handle = stage.add_as(Role { name: "told", ..QUIET }, |map, actor| map.add(near, actor))?;
            stage.far(End::Unix(far.into()), Part::default());
            let remote = stage.map.remote();
            let token = handle.token();
            let other = thread::spawn(move || {
                let bytes = crate::support::peers::pattern(3000);
                remote.try_send(token, bytes[..1000].to_vec()).is_ok()
                    && remote.try_send(token, bytes[1000..].to_vec()).is_ok()
                    && remote
                        .call(move |map| map.channel(token).map(|mut ch| ch.close()).unwrap_or(()))
                        .is_ok()
            });
            let told = other.join().unwrap();
            stage.must(told, "a message is refused");
            Ok(())
        })
    })
}

/// EDGE_CASES 330. Turned by `run`, on the short way of a message.
#[test]
fn run_turns_the_loop() {
    alone(None, || {
        play("run_turns_the_loop", |stage| {
            stage.run_it();
            let listener = stage.listen(loopbacks()[0], ECHOES)?;
            let address = stage.address_of(listener);
            stage.client(address, Part { says: 50_000, fin_after: Some(50_000), ..Part::default() });
            let (near, far) = pair(loopbacks()[0]);
            let role = Role { name: "closing", says: 100, expects: 100, then: |ch| ch.close(), ..QUIET };
            stage.add_as(role, |map, actor| map.add(near, actor))?;
            stage.far(End::Tcp(far.into()), Part { says: 200, fin_after: Some(100), ..Part::default() });
            Ok(())
        })
    })
}

/// EDGE_CASES 330. Nothing is read until a timer says so; meanwhile one peer ends, and another resets.
#[test]
fn paused() {
    alone(None, || {
        play("paused", |stage| {
            let stuck = Role { name: "stuck", opens: |ch| ch.pause_reading(), ..QUIET };
            let paused = Role {
                name: "paused",
                opens: |ch| {
                    ch.pause_reading();
                    ch.call_later(SHORT, |ch| {
                        ch.resume_reading();
                        Ok(())
                    });
                },
                ..QUIET
            };
            for (role, resets) in [(paused, false), (stuck, true)] {
                let (near, far) = pair(loopbacks()[0]);
                stage.add_as(role, |map, actor| map.add(near, actor))?;
                let part = Part { says: 500, fin_after: Some(0), resets, ..Part::default() };
                stage.far(End::Tcp(far.into()), part);
            }
            Ok(())
        })
    })
}

/// EDGE_CASES 330. More clients connect than the backlog holds: the system says that it would block.
#[test]
fn a_full_backlog() {
    alone(None, || {
        play("a_full_backlog", |stage| {
            let dir = Dir::new();
            let path = dir.join("socket");
            stage.keep(dir, path.clone());
            let options = ListenOptions::default().with_backlog(0);
            stage.add_as(ECHOES, |map, actor| map.listen_with(path.clone(), &options, actor))?;
            for says in [10, 20] {
                let role = Role { name: "client", says, expects: says, then: |ch| ch.close(), ..QUIET };
                stage.connect(path.clone(), role)?;
            }
            Ok(())
        })
    })
}

/// EDGE_CASES 330. The map is dropped in the midst of it.
#[test]
fn dropped() {
    alone(None, || {
        for turns in [0, 1, 3] {
            DROPPED_AFTER.set(turns);
            play("dropped", |stage| {
                stage.dropped_after = Some(DROPPED_AFTER.get());
                let listener = stage.listen(loopbacks()[0], ECHOES)?;
                let address = stage.address_of(listener);
                let role = Role { name: "client", says: 3000, ..QUIET };
                stage.connect(address, role)?;
                let (near, far) = UnixStream::pair()?;
                let role = Role { name: "closing", says: 300_000, opens: |ch| ch.close(), ..QUIET };
                stage.add_as(role, |map, actor| map.add(near, actor))?;
                stage.far(End::Unix(far.into()), Part::default());
                Ok(())
            });
        }
    })
}

thread_local! {
    static DROPPED_AFTER: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}
