//! Connects, and what becomes of them.

use std::io::ErrorKind;
use std::time::Duration;

use dispatch_loop::{ConnectOptions, run, testing};

use crate::support::recorder::{Log, Recorder, text};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_connect_is_accepted_refused_or_fails() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    let server = testing::server(&mut map);
    server.accept(1).refuse(1).fail(1, ErrorKind::TimedOut).on_accept(|peer| {
        peer.send("welcome").fin();
    });
    for name in ["a", "b", "c"] {
        let handle = map.connect("192.0.2.7:80", Recorder::new(name, &log)).unwrap();
        map.channel(handle).unwrap().push(b"at once").unwrap();
    }
    assert!(log.events().is_empty());
    run(&mut map).unwrap();
    assert_eq!(log.of("a"), ["connect", "open", "read", "read", "eof", "close: end of stream"]);
    assert_eq!(log.input("a"), b"welcome");
    assert_eq!(server.accepted()[0].sent(), b"at once");
    let refused = text(libc::ECONNREFUSED);
    assert_eq!(log.of("b"), [format!("error: {refused}"), format!("close: {refused}")]);
    assert_eq!(log.of("c"), ["error: timed out", "close: timed out"]);
    assert_eq!(server.tries().len(), 3);
}

#[test]
fn an_answer_takes_its_time_and_a_timeout_may_be_faster() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    let begun = map.now();
    let server = testing::server(&mut map);
    server.set_delay(3 * SECOND);
    for (name, timeout) in [("a", 5), ("b", 2)] {
        let handle = map.connect("192.0.2.7:80", Recorder::new(name, &log)).unwrap();
        map.channel(handle).unwrap().set_timeout(Some(timeout * SECOND));
    }
    testing::advance(&mut map, 3 * SECOND).unwrap();
    assert_eq!(log.of("a"), ["connect", "open"]);
    assert_eq!(log.of("b"), ["timeout", "close: aborted"]);
    assert_eq!(server.accepted().len(), 1, "nobody waits for the other");
    assert_eq!(map.now() - begun, 3 * SECOND);
    server.accepted()[0].reset();
    run(&mut map).unwrap();
}

/// No name is looked up, and it has its deadline.
#[test]
fn a_connect_to_a_name_has_a_deadline() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    map.set_resolver(|_, _| unreachable!());
    let begun = map.now();
    let server = testing::server(&mut map);
    server.ignore(1);
    let options = ConnectOptions::default().with_timeout(7 * SECOND);
    map.connect_with("example.org:443", &options, Recorder::new("a", &log)).unwrap();
    run(&mut map).unwrap();
    assert_eq!(map.now() - begun, 7 * SECOND);
    assert!(log.of("a")[0].contains("example.org:443"), "{:?}", log.events());
    assert_eq!(log.count("a close"), 1);
    assert_eq!(server.tries()[0].address, "example.org:443");
}

#[test]
fn a_connect_that_was_called_off_is_not_accepted() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    let server = testing::server(&mut map);
    let handle = map.connect("192.0.2.7:80", Recorder::new("a", &log)).unwrap();
    map.channel(handle).unwrap().close();
    run(&mut map).unwrap();
    assert_eq!(log.of("a"), ["close: closed"]);
    assert!(server.accepted().is_empty());
    assert!(map.connect("no address", Recorder::new("b", &log)).is_err());
    assert_eq!(server.tries().len(), 1);
}
