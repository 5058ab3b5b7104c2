//! Rule 9: no descriptor, no memory, no room in the poller: who needs it waits and lives. And how a server
//! learns that its last listener is gone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::faults::{self, Call, Fault, count, inject};
use dispatch_loop::{ChannelMap, OnError, run};

use crate::support::logging::{capture_log, logged};
use crate::support::opened::address_of;
use crate::support::peers::{loopbacks, unix_pair};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{run_out, turn_idle, turn_quiet, turn_until, turns_at_once, waits_in};

fn echo(name: &'static str, log: &Log) -> Recorder {
    Recorder::new(name, log).quiet().on("read", |ch| ch.read_with(|ch, data| ch.push(data)))
}

const SHORTAGES: [i32; 4] = [libc::ENOMEM, libc::ENOSPC, libc::ENOBUFS, libc::EMFILE];

/// EDGE_CASES 83: one failure, when it was registered or when that was changed, ended the listener.
#[test]
fn a_listener_that_the_poller_has_no_room_for_waits_and_lives() {
    for errno in SHORTAGES {
        for later in [false, true] {
            capture_log();
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let listener = Recorder::new("l", &log).on_accept(|_, _, _| Ok(()));
            let handle = map.listen(loopbacks()[0], listener).unwrap();
            let address = address_of(&mut map, handle);
            if later {
                turn_idle(&mut map);
                map.channel(handle).unwrap().pause_reading();
            }
            inject(Call::Control, 0, 1, Fault::Errno(errno));
            turn_until(&mut map, &log, |_| !logged("cannot be watched").is_empty());
            map.channel(handle).unwrap().resume_reading();
            let _client = TcpStream::connect(address).unwrap();
            turn_until(&mut map, &log, |_| log.has("l accept"));
            assert_eq!(log.of("l"), ["accept"], "{}", text(errno));
            assert_eq!(logged("cannot be watched").len(), 1, "{:?}", logged(""));
            faults::clear();
        }
    }
}

/// EDGE_CASES 83: a channel that is new, or changes what it waits for, or connects.
#[test]
fn a_channel_that_the_poller_has_no_room_for_waits_and_lives() {
    for errno in SHORTAGES {
        for way in ["new", "changed", "connecting"] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (near, mut far): (_, Box<dyn ReadWrite>) = match way {
                "connecting" => {
                    let listener = std::net::TcpListener::bind(loopbacks()[0]).unwrap();
                    inject(Call::Control, 0, 1, Fault::Errno(errno));
                    let address = listener.local_addr().unwrap();
                    let handle = map.connect(address, echo("a", &log)).unwrap();
                    (handle, Box::new(listener.accept().unwrap().0))
                }
                _ => {
                    let (near, far) = unix_pair();
                    let handle = map.add(near, echo("a", &log)).unwrap();
                    if way == "changed" {
                        turn_idle(&mut map);
                        map.channel(handle).unwrap().pause_reading();
                    }
                    inject(Call::Control, 0, 1, Fault::Errno(errno));
                    (handle, Box::new(far))
                }
            };
            turn_idle(&mut map);
            map.channel(near).unwrap().resume_reading();
            far.write_all(b"still there?").unwrap();
            let reading = thread::spawn(move || {
                let mut answer = [0; 12];
                far.read_exact(&mut answer).unwrap();
                answer
            });
            turn_until(&mut map, &log, |_| reading.is_finished());
            assert_eq!(&reading.join().unwrap(), b"still there?", "{way} {}", text(errno));
            turn_until(&mut map, &log, |map| !map.contains(near));
            assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
            assert_eq!(log.count("a error"), 0);
            faults::clear();
        }
    }
}

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

/// EDGE_CASES 83: while it lasts there is no spin, and one log line a pause; the end of a channel ends the
/// pause.
#[test]
fn a_channel_without_room_in_the_poller_does_not_spin_and_a_close_wakes_it() {
    capture_log();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = unix_pair();
    map.add(near, echo("a", &log)).unwrap();
    turn_idle(&mut map);
    let (near, mut waits) = unix_pair();
    waits.write_all(b"input").unwrap();
    inject(Call::Control, 0, u64::MAX, Fault::Errno(libc::ENOSPC));
    // What it does when it opens is no reason to try again.
    map.add(near, Recorder::new("b", &log).on("open", |ch| ch.push(b"hello"))).unwrap();
    let (calls, begun) = (count(Call::Control), Instant::now());
    let waited = waits_in(&mut map, Duration::from_millis(500));
    let most = 2 + begun.elapsed().as_millis() as u64 / 100;
    let calls = count(Call::Control) - calls;
    assert!((2..=most).contains(&calls), "{calls} tries");
    assert!(waited <= 2 * most + 5, "{waited} waits");
    assert_eq!(logged("cannot be watched").len() as u64, calls, "one line a pause");
    assert_eq!(log.of("b"), ["open"]);
    turn_until(&mut map, &log, |map| map.wait_limit() > Some(Duration::from_millis(300)));
    faults::clear();
    drop(far);
    turn_until(&mut map, &log, |_| log.closed("a"));
    assert!(turns_at_once(&mut map, 5, |_| log.input("b") == b"input"), "the close has not woken it");
}

/// EDGE_CASES 83: accept(2) says that this, too, is to be tried again.
#[test]
fn an_accept_that_is_not_supported_for_one_connection_is_made_again() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let listener = map.listen(loopbacks()[0], Recorder::new("l", &log)).unwrap();
    let address = address_of(&mut map, listener);
    inject(Call::Accept, 0, 2, Fault::Errno(libc::EOPNOTSUPP));
    let _client = TcpStream::connect(address).unwrap();
    turn_until(&mut map, &log, |_| log.has("l accept"));
    assert_eq!(log.of("l"), ["accept"]);
    // For ever: it is suspended, and still lives.
    inject(Call::Accept, 0, u64::MAX, Fault::Errno(libc::EOPNOTSUPP));
    let _client = TcpStream::connect(address).unwrap();
    assert!(waits_in(&mut map, Duration::from_millis(300)) < 120);
    faults::clear();
    turn_until(&mut map, &log, |_| log.count("l accept") == 2);
}

/// EDGE_CASES 84: `run` was `Ok`, and the program ended with 0.
#[test]
fn a_server_whose_last_listener_failed_is_told_by_run() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let first = map.listen(loopbacks()[0], Recorder::new("l", &log)).unwrap();
    let last = map.listen(loopbacks()[0], Recorder::new("m", &log)).unwrap();
    let address = address_of(&mut map, last);
    // A client that is there is served to its end.
    let (near, mut far) = unix_pair();
    map.add(near, echo("a", &log)).unwrap();
    map.channel(first).unwrap().close();
    turn_quiet(&mut map);
    inject(Call::Accept, 0, 1, Fault::Errno(libc::EINVAL));
    let _client = TcpStream::connect(address).unwrap();
    turn_until(&mut map, &log, |_| log.closed("m"));
    far.write_all(b"still there").unwrap();
    far.shutdown(std::net::Shutdown::Write).unwrap();
    let error = run(&mut map).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.to_string().contains(&text(libc::EINVAL)), "{error}");
    let mut answer = String::new();
    far.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "still there");
    // It was told once.
    run(&mut map).unwrap();
}

/// EDGE_CASES 84: not one that was closed, nor one whose failure was dealt with, nor one that was
/// followed by another, nor while there is another.
#[test]
fn a_listener_that_did_not_fail_or_was_not_the_last_is_no_error_of_run() {
    for way in ["closed", "dealt with", "followed", "not the last"] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let mut listener = Recorder::new("l", &log);
        if way == "dealt with" {
            listener = listener.on_error(OnError::Keep).on("error", |ch| {
                ch.abort();
                Ok(())
            });
        }
        if way == "followed" {
            listener = listener.on("close", |ch| {
                let next = ch.map_mut().listen("127.0.0.1:0", Recorder::new("m", &Log::new()))?;
                ch.map_mut().channel(next)?.call_later(Duration::ZERO, |ch| {
                    ch.close();
                    Ok(())
                });
                Ok(())
            });
        }
        let handle = map.listen(loopbacks()[0], listener).unwrap();
        let address = address_of(&mut map, handle);
        if way == "not the last" {
            let other = map.listen(loopbacks()[0], Recorder::new("m", &log)).unwrap();
            map.call_later(Duration::from_millis(50), move |map| map.channel(other).unwrap().close());
        }
        if way == "closed" {
            map.channel(handle).unwrap().close();
        } else {
            inject(Call::Accept, 0, 1, Fault::Errno(libc::EINVAL));
        }
        let _client = TcpStream::connect(address);
        run(&mut map).unwrap();
        assert!(log.closed("l"), "{way}");
        faults::clear();
    }
}

/// EDGE_CASES 83: the probe of `add_file`, too.
#[test]
fn a_file_that_the_poller_has_no_room_for_waits_and_lives() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    inject(Call::Control, 0, 2, Fault::Errno(libc::ENOSPC));
    map.add_file(&near, Recorder::new("a", &log)).unwrap();
    far.write_all(b"input").unwrap();
    drop(far);
    run_out(&mut map, &log);
    assert_eq!(log.input("a"), b"input");
}
