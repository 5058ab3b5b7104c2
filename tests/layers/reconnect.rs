//! A client that connects again, to real servers. When, how often and when no more: `testing/reconnect.rs`.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::TcpListener;
use std::time::Duration;

use dispatch_loop::reconnect::{self, Attempt, Backoff, Client};
use dispatch_loop::{ChannelMap, Reason};

use crate::support::every_hook::{self, Told};
use crate::support::peers::{loopbacks, refusing};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::turn_until;

/// Turn until nothing is left to do, no timer either.
#[track_caller]
fn turn_until_idle(map: &mut ChannelMap, log: &Log) {
    turn_until(map, log, |map| map.is_idle());
}

/// Impatient, so that the tests are not slow.
fn quick() -> Backoff {
    Backoff::default().with_first(Duration::from_millis(2)).with_longest(Duration::from_millis(4))
}

/// A client whose attempts are recorded as `a`, and whose ends in a row of their own. It stops after
/// so many attempts.
fn client(map: &mut ChannelMap, log: &Log, to: std::net::SocketAddr, attempts: usize) -> Client {
    let (events, left) = (log.clone(), Cell::new(attempts));
    reconnect::connect(map, to, quick(), move |_, ended| {
        if let Some(reason) = ended {
            events.add(format!("asked: {reason}"));
        }
        left.set(left.get().checked_sub(1)?);
        Some(Recorder::new("a", &events))
    })
    .unwrap()
}

/// The server ends each connection after a word; every one is made anew, and all its data comes.
#[test]
fn a_server_that_hangs_up_is_connected_to_again_and_all_its_data_comes() {
    for on in loopbacks() {
        let listener = TcpListener::bind(on).unwrap();
        let to = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || -> io::Result<()> {
            for _ in 0..5 {
                listener.accept()?.0.write_all(b"word ")?;
            }
            Ok(())
        });
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        client(&mut map, &log, to, 5);
        turn_until_idle(&mut map, &log);
        server.join().unwrap().unwrap();
        assert_eq!(log.input("a"), b"word word word word word ");
        assert_eq!(log.count("a open"), 5);
        assert_eq!(log.count("asked: end of stream"), 5);
        assert!(map.is_empty());
    }
}

/// The dispatcher that the user made has all hooks, and its answers count.
#[test]
fn an_attempt_passes_every_hook_on() {
    let told = Told::default();
    let inner = told.clone();
    let (_bound, to) = refusing(loopbacks()[0]);
    every_hook::with_a_datagram(&mut ChannelMap::new().unwrap(), move |ch, datagram| {
        let mut left = Some(inner.clone());
        let client = reconnect::connect(ch.map_mut(), to, quick(), move |_, _| left.take()).unwrap();
        let handle = client.token().unwrap().typed::<Attempt<Told>>();
        let called = ch.map_mut().with(handle, |attempt, ch| {
            every_hook::call(attempt, ch, datagram);
            Ok(())
        });
        called.unwrap();
        assert_eq!(inner.hooks(), every_hook::hooks());
    });
}

/// An address that will never do is refused at once; a name that is not found is tried again.
#[test]
fn an_unusable_address_is_refused_and_a_name_not_found_is_tried_again() {
    let mut map = ChannelMap::new().unwrap();
    let log = Log::new();
    let events = log.clone();
    let make = move |_: &mut ChannelMap, _: Option<&Reason>| Some(Recorder::new("a", &events));
    assert!(reconnect::connect(&mut map, "no address", quick(), make.clone()).is_err());
    assert!(map.is_empty() && map.wait_limit().is_none());
    map.set_resolver(|_, _| Err(io::Error::new(io::ErrorKind::NotFound, "not yet")));
    let client = reconnect::connect(&mut map, "name:80", quick(), make).unwrap();
    turn_until(&mut map, &log, |_| log.count("a close") >= 3);
    client.stop(&mut map);
    turn_until_idle(&mut map, &log);
}

/// No descriptor is left for the next attempt: that is a failure like others.
#[cfg(debug_assertions)]
#[test]
fn an_attempt_that_cannot_begin_counts_as_failed() {
    use dispatch_loop::faults::{Call, Fault, inject};
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (_held, address) = refusing(loopbacks()[0]);
    let client = client(&mut map, &log, address, 3);
    inject(Call::Socket, 0, 1, Fault::Errno(libc::EMFILE));
    turn_until_idle(&mut map, &log);
    assert_eq!(log.count("asked: "), 3);
    assert_eq!(log.count("a close"), 2, "{:?}", log.events());
    assert_eq!(client.token(), None);
}

/// The map is dropped: one `handle_close`, and no question.
#[test]
fn a_dropped_map_asks_for_no_further_attempt() {
    let on = loopbacks()[0];
    let listener = TcpListener::bind(on).unwrap();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    client(&mut map, &log, listener.local_addr().unwrap(), usize::MAX);
    turn_until(&mut map, &log, |_| log.has("a open"));
    drop(map);
    assert_eq!((log.count("a close"), log.count("asked")), (1, 0));
}
