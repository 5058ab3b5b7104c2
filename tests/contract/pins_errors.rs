//! Failures that are told in more than one place, or to nobody but the log.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::thread;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, Reason, run};

use crate::support::dirs::Dir;
use crate::support::logging::{capture_log, logged};
use crate::support::peers::{loopbacks, read_all, read_exactly, refusing, unix_pair};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{run_out, turn_quiet, turn_until};
use crate::support::waiting::DEADLINE;

/// EDGE_CASES 45: the reason of the end is that of the connect; both are logged.
#[test]
fn a_panic_in_the_error_hook_of_a_failed_connect_is_logged() {
    for on in loopbacks() {
        capture_log();
        let log = Log::new();
        let (_refusing, to) = refusing(on);
        let mut map = ChannelMap::new().unwrap();
        map.connect(to, Recorder::new("a", &log).on("error", |_| panic!("boom"))).unwrap();
        run_out(&mut map, &log);
        let refused = text(libc::ECONNREFUSED);
        assert_eq!(log.of("a"), [format!("error: {refused}"), format!("close: {refused}")]);
        assert_eq!(logged("panicked: boom").len(), 1);
        assert_eq!(logged("handle_error").len(), 1);
        assert_eq!(logged(&refused).len(), 1);
    }
}

/// EDGE_CASES 10: also of a client without an address.
#[test]
fn an_accept_hook_that_fails_for_a_client_without_a_name_is_logged() {
    capture_log();
    let log = Log::new();
    let dir = Dir::new();
    let mut map = ChannelMap::new().unwrap();
    let server = Recorder::new("server", &log).on_accept(|_, _, _| Err(io::Error::other("not today")));
    let server = map.listen(dir.join("server"), server).unwrap();
    let _client = UnixStream::connect(dir.join("server")).unwrap();
    turn_until(&mut map, &log, |_| log.has("server accept"));
    turn_quiet(&mut map);
    assert_eq!(logged("not today").len(), 1);
    assert_eq!(log.of("server"), ["accept"]);
    assert!(map.contains(server));
}

/// EDGE_CASES 45: the error that it was told of, and its own.
#[test]
fn a_panic_in_the_error_hook_is_logged_beside_the_error() {
    capture_log();
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let recorder = Recorder::new("a", &log)
        .on("read", |_| Err(io::Error::other("as the test wants it")))
        .on("error", |_| panic!("boom"));
    let mut map = ChannelMap::new().unwrap();
    map.add(near, recorder).unwrap();
    far.write_all(b"x").unwrap();
    run_out(&mut map, &log);
    assert_eq!(log.of("a").last().unwrap(), "close: as the test wants it");
    assert_eq!(logged("as the test wants it").len(), 1);
    assert_eq!(logged("panicked: boom").len(), 1);
}

/// Rule 7: a lost peer is an error of each kind of read, and the reason of the end.
#[cfg(debug_assertions)]
#[test]
fn a_reset_that_a_read_of_urgent_data_meets_is_the_end() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let recorder = Recorder::new("a", &log).on("read", |ch| {
        let error = ch.recv_urgent(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        Err(error)
    });
    let mut map = ChannelMap::new().unwrap();
    map.add(near, recorder).unwrap();
    turn_quiet(&mut map);
    inject(Call::RecvUrgent, 0, 1, Fault::Errno(libc::ECONNRESET));
    far.write_all(b"x").unwrap();
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "read", &format!("close: {}", text(libc::ECONNRESET))]);
}

/// Echoes, with `readable` and `writable` as they are by default; panics at the message "panic".
struct Echo(Log);

impl Dispatcher for Echo {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            assert_ne!(data, b"panic!");
            ch.push(data)
        })
    }
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.0.add(reason.to_string());
        if ch.map().len() == 1 {
            ch.map_mut().stop();
        }
    }
}

/// EDGE_CASES 44: in a `run` that has nothing else to do than to wait for messages.
#[test]
fn a_panic_in_a_loop_of_messages_ends_that_channel_and_the_loop_goes_on() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let mut fars = [(); 3].map(|()| {
        let (near, far) = unix_pair();
        map.add(near, Echo(log.clone())).unwrap();
        far
    });
    map.call_later(DEADLINE, |map| map.stop());
    let talking = thread::spawn(move || {
        for _ in 0..3 {
            for far in &mut fars {
                far.write_all(b"hello!").unwrap();
                assert_eq!(read_exactly(far, 6), b"hello!");
            }
        }
        let [first, victim, last] = &mut fars;
        victim.write_all(b"panic!").unwrap();
        // What was ready with it is served, and what comes later, too.
        for far in [first, last] {
            for _ in 0..3 {
                far.write_all(b"hello!").unwrap();
                assert_eq!(read_exactly(far, 6), b"hello!");
            }
        }
        assert!(read_all(victim).0.is_empty());
    });
    run(&mut map).unwrap();
    talking.join().unwrap();
    assert_eq!(log.count("panicked"), 1);
    assert_eq!(log.events().len(), 3, "{:?}", log.events());
}
