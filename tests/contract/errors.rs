//! Errors stay local: EDGE_CASES 44, 46, 50, 52 and 53, and rule 13 of the contract. (Panics are in
//! `panics.rs`, errors of the accept hook in `accept.rs`.)

use std::io::{self, Write};
use std::time::Duration;

use dispatch_loop::{Channel, ChannelError, ChannelMap, Handle, More, OnError};

use crate::support::logging::{capture_log, logged};
use crate::support::peers::{loopbacks, pair, read_all, refusing, reset};
use crate::support::provoke::{assert_echoes, echo, hooks, provoke};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{assert_calm, turn_idle, turn_until};
use crate::support::waiting::wait_for_input;

fn error() -> io::Error {
    io::Error::other("no good")
}

/// What runs for a channel outside its hooks.
const WAYS: [&str; 4] = ["timer", "repeated timer", "producer", "with"];

fn set_off(
    map: &mut ChannelMap,
    handle: Handle<Recorder>,
    way: &str,
    mut f: impl FnMut() -> io::Result<()> + 'static,
) {
    let mut ch = map.channel(handle).unwrap();
    match way {
        "timer" => drop(ch.call_later(Duration::ZERO, move |_| f())),
        "repeated timer" => {
            let mut rounds = 0;
            ch.call_every(Duration::ZERO, move |_| {
                rounds += 1;
                if rounds == 3 { f() } else { Ok(()) }
            });
        }
        "producer" => ch.push_producer(move |_: &mut Vec<u8>| f().map(|()| More::Done)).unwrap(),
        _ => {
            let failed = map.with(handle, |_, _| f()).unwrap_err();
            // An `Err` comes out as it was, a panic as an error about the channel.
            let about = (failed.to_string() != error().to_string()).then(|| handle.token());
            assert_eq!(ChannelError::token_of(&failed), about);
        }
    }
}

/// EDGE_CASES 44 and 53: it ends the channel, whatever `handle_error` answers; an `Err` is asked
/// about.
#[test]
fn a_failure_outside_its_hooks_ends_the_channel() {
    for on in loopbacks() {
        for way in WAYS {
            for (panics, answer) in [(true, OnError::Keep), (false, OnError::End), (false, OnError::Keep)] {
                let log = Log::new();
                let mut map = ChannelMap::new().unwrap();
                map.set_linger_limit(0);
                let (_, mut far_echo) = echo(&mut map, on, &log);
                let (near, mut far) = pair(on);
                let handle = map.add(near, Recorder::new("a", &log).on_error(answer)).unwrap();
                turn_idle(&mut map);
                set_off(&mut map, handle, way, move || match panics {
                    true => panic!("boom"),
                    false => Err(error()),
                });
                assert_eq!(log.of("a"), ["open"], "a hook ran inside the call");
                turn_until(&mut map, &log, |_| log.of("a").len() > 1);
                turn_idle(&mut map);
                let told = |says: &str| vec![format!("error: {says}"), format!("close: {says}")];
                let wanted = match (panics, answer) {
                    // The caller of `with` knows already.
                    (true, _) if way == "with" => vec!["close: panicked: boom".into()],
                    (true, _) => told("panicked: boom"),
                    (false, OnError::End) => told("no good"),
                    (false, OnError::Keep) => vec!["error: no good".into()],
                };
                assert_eq!(log.of("a")[1..], wanted, "{way}");
                assert_eq!(map.contains(handle), answer == OnError::Keep && !panics);
                if map.contains(handle) {
                    map.channel(handle).unwrap().push(b"still here").unwrap();
                    map.channel(handle).unwrap().close();
                    turn_until(&mut map, &log, |_| log.closed("a"));
                    assert_eq!(read_all(&mut far).0, b"still here");
                }
                assert_echoes(&mut map, &log, &mut far_echo);
            }
        }
    }
}

/// EDGE_CASES 53.
#[test]
fn handle_error_may_keep_the_channel() {
    for on in loopbacks() {
        for hook in hooks() {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            map.set_linger_limit(0);
            let mut failed = false;
            let recorder = Recorder::new("a", &log).on_error(OnError::Keep).on(hook, move |ch| {
                let _ = ch.recv(&mut [0; 100]);
                if hook == "timeout" {
                    ch.set_timeout(None);
                }
                if std::mem::replace(&mut failed, true) { Ok(()) } else { Err(error()) }
            });
            let (handle, mut far) = provoke(&mut map, on, hook, recorder);
            turn_until(&mut map, &log, |_| log.count("a error: ") > 0);
            turn_idle(&mut map);
            if hook == "eof" {
                // The answer that it did not give is the default one.
                assert_eq!(log.of("a")[3..], ["eof", "error: no good", "close: end of stream"]);
                continue;
            }
            assert!(!log.closed("a"), "{:?}", log.of("a"));
            assert!(log.has("a open"));
            let mut channel = map.channel(handle).unwrap();
            channel.push(b"still here").unwrap();
            channel.close();
            turn_until(&mut map, &log, |_| log.closed("a"));
            let (got, end) = read_all(&mut far);
            end.unwrap();
            assert!(got.ends_with(b"still here"));
            assert_eq!(log.of("a").last().unwrap(), "close: closed");
        }
    }
}

/// EDGE_CASES 52: one end, and the first reason for it, in every order of `close` and errors.
#[test]
fn close_and_an_error_in_one_hook_are_one_end_with_the_first_reason() {
    for on in loopbacks() {
        for hook in hooks() {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            map.set_linger_limit(0);
            let recorder = Recorder::new("a", &log).on(hook, |ch| {
                let _ = ch.recv(&mut [0; 100]);
                ch.close();
                Err(error())
            });
            let (_handle, _far) = provoke(&mut map, on, hook, recorder);
            turn_until(&mut map, &log, |_| log.closed("a"));
            // The error of a hook of a closing channel is only logged.
            let errors = if hook == "error" { 1 } else { 0 };
            assert_eq!((log.count("a error"), log.count("a close")), (errors, 1), "{:?}", log.of("a"));
            let reason = if hook == "error" { "close: provoked" } else { "close: closed" };
            assert_eq!(log.of("a").last().unwrap(), reason, "{hook}");
        }
    }
}

/// EDGE_CASES 52: before it is open, while connecting, inside `handle_error`.
#[test]
fn close_at_odd_times_is_one_end() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = pair(on);
        let early = map.add(near, Recorder::new("early", &log)).unwrap();
        map.channel(early).unwrap().push(b"but sent").unwrap();
        map.channel(early).unwrap().close();
        let (connecting, _far) = provoke(&mut map, on, "open", Recorder::new("connecting", &log));
        map.channel(connecting).unwrap().close();
        let (_held, address) = refusing(on);
        for (name, answer) in [("refused", OnError::End), ("kept", OnError::Keep)] {
            let recorder = Recorder::new(name, &log).on_error(answer).on("error", |ch| {
                ch.close();
                Ok(())
            });
            map.connect(address, recorder).unwrap();
        }
        let (_far, queueing) = {
            let (near, far) = pair(on);
            let recorder = Recorder::new("queueing", &log).on("error", |ch| {
                ch.close();
                Ok(())
            });
            let recorder = recorder.on("open", |ch| {
                ch.push(&[0; 10_000_000])?;
                Err(error())
            });
            (far, map.add(near, recorder).unwrap())
        };
        turn_until(&mut map, &log, |map| map.is_empty());
        assert!(!map.contains(queueing));
        assert_eq!(log.of("early"), ["close: closed"]);
        assert_eq!(read_all(&mut far).0, b"but sent");
        assert_eq!(log.of("connecting"), ["close: closed"]);
        for name in ["refused", "kept"] {
            let refused = text(libc::ECONNREFUSED);
            assert_eq!(log.of(name), [format!("error: {refused}"), format!("close: {refused}")]);
        }
        // Its bytes were to be sent, and the error keeps them from it.
        assert_eq!(log.of("queueing"), ["open", "error: no good", "close: no good"]);
    }
}

/// EDGE_CASES 50.
#[test]
fn an_error_about_another_channel_ends_nobody() {
    capture_log();
    for on in loopbacks() {
        for hook in hooks() {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            map.set_linger_limit(0);
            let gone = map.listen(on, Recorder::new("gone", &log)).unwrap().token();
            map.channel(gone).unwrap().close();
            turn_until(&mut map, &log, |_| log.closed("gone"));
            let listener = map.listen(on, Recorder::new("listener", &log)).unwrap();
            let mut round = 0;
            let recorder = Recorder::new("a", &log).on(hook, move |ch| {
                let _ = ch.recv(&mut [0; 100]);
                ch.set_timeout(None);
                round += 1;
                let error = match round {
                    1 => io::Error::from(ch.map_mut().channel(gone).map(drop).unwrap_err()),
                    2 => ch.map_mut().channel(listener)?.push(b"to a listener?").unwrap_err(),
                    _ => ch.map_mut().with(listener, |_, ch| ch.push(b"to a listener?")).unwrap_err(),
                };
                let about = if round == 1 { gone } else { listener.token() };
                assert_eq!(ChannelError::token_of(&error), Some(about));
                Err(error)
            });
            let (handle, mut far) = provoke(&mut map, on, hook, recorder);
            turn_until(&mut map, &log, |_| log.count(&format!("a {hook}")) > 0);
            turn_idle(&mut map);
            if hook == "error" {
                // That hook has no error of its own to return.
                continue;
            }
            let lines = logged(&format!("channel {gone} is not in this map"));
            assert!(!lines.is_empty(), "{hook}: it is logged");
            capture_log();
            assert_eq!(log.count("a error"), 0, "{hook}: {:?}", log.of("a"));
            if hook == "eof" {
                assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
                continue;
            }
            if hook == "read" {
                for round in 2..=3 {
                    far.write_all(b"again").unwrap();
                    turn_until(&mut map, &log, |_| log.count("a read") >= round);
                }
            }
            map.channel(handle).unwrap().push(b"still here").unwrap();
            map.channel(handle).unwrap().close();
            turn_until(&mut map, &log, |_| log.closed("a"));
            assert!(read_all(&mut far).0.ends_with(b"still here"));
            assert_eq!(log.of("a").last().unwrap(), "close: closed");
            // What failed inside a `with` is told to whom it was about.
            let told = if log.count(&format!("a {hook}")) >= 3 { 1 } else { 0 };
            assert_eq!(log.count("listener error"), told, "{hook}: {:?}", log.of("listener"));
        }
    }
}

/// EDGE_CASES 50 and rule 7: a lost peer is no error of the hook that hands it back.
#[test]
fn a_lost_peer_is_no_error() {
    capture_log();
    type Way = fn(&mut Channel<'_>) -> io::Result<()>;
    let ways: [Way; 4] = [
        |ch| ch.recv(&mut [0; 100]).map(drop),
        |ch| ch.read_with(|_, _| Ok(())),
        |ch| {
            let sent = ch.send(b"x");
            let read = ch.recv(&mut [0; 100]);
            sent.and(read).map(drop)
        },
        // The second of the two meets what the first has met.
        |ch| {
            let sent = [ch.send(b"x"), ch.send(b"y")];
            let _ = ch.recv(&mut [0; 100]);
            assert!(sent.iter().all(Result::is_err));
            ch.send(b"z").map(drop)
        },
    ];
    for on in loopbacks() {
        for way in ways {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (near, far) = pair(on);
            let recorder = Recorder::new("a", &log).on("read", way).on_error(OnError::Keep);
            let token = map.add(near, recorder).unwrap();
            map.turn(Some(Duration::ZERO)).unwrap();
            reset(far);
            wait_for_input(map.channel(token).unwrap().socket().unwrap());
            turn_until(&mut map, &log, |_| log.closed("a"));
            assert_eq!(log.count("a error"), 0);
            let end = log.of("a").pop().unwrap();
            let lost = [libc::ECONNRESET, libc::EPIPE].map(|errno| format!("close: {}", text(errno)));
            assert!(lost.contains(&end), "{end}");
            assert_eq!(logged(""), [""; 0], "peers come and go: that is not worth a line");
        }
    }
}

/// EDGE_CASES 46.
#[test]
fn a_descriptor_duplicated_behind_the_back_leaves_the_poller_with_its_channel() {
    for on in loopbacks() {
        for abort in [false, true] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (near, mut far) = pair(on);
            let twin = near.try_clone().unwrap();
            let (_, mut far_echo) = echo(&mut map, on, &log);
            let token = map.add(near, Recorder::new("a", &log)).unwrap();
            turn_idle(&mut map);
            match abort {
                true => map.channel(token).unwrap().abort(),
                false => map.channel(token).unwrap().close(),
            }
            turn_until(&mut map, &log, |_| log.closed("a"));
            let _ = far.write_all(b"to the twin");
            drop(far);
            wait_for_input(&twin);
            assert_calm(&mut map);
            assert_echoes(&mut map, &log, &mut far_echo);
            assert_eq!(log.of("a").len(), 2);
        }
    }
}

/// An error of the user's own, with a type.
#[derive(Debug, PartialEq)]
struct Refused(u32);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused, code {}", self.0)
    }
}

impl std::error::Error for Refused {}

#[test]
fn with_gives_its_caller_the_error_of_the_closure_and_the_channel_a_copy() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _far) = pair(loopbacks()[0]);
    let handle = map.add(near, Recorder::new("a", &log).on_error(OnError::Keep)).unwrap();
    turn_idle(&mut map);
    let typed = || io::Error::new(io::ErrorKind::PermissionDenied, Refused(7));
    let error = map.with(handle, |_, _| Err::<(), _>(typed())).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(error.downcast::<Refused>().unwrap(), Refused(7));
    turn_idle(&mut map);
    let error =
        map.with(handle, |_, _| Err::<(), _>(io::Error::from_raw_os_error(libc::ENOENT))).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    turn_idle(&mut map);
    // What `ch` says is about its channel, and can be handed back by whoever called `with`.
    let error = map.with(handle, |_, ch| ch.recv_urgent(&mut [0])).unwrap_err();
    assert_eq!(ChannelError::token_of(&error), Some(handle.token()));
    let told = ["open", "error: refused, code 7", "error: No such file or directory (os error 2)"];
    assert_eq!(log.of("a"), told);
}

#[test]
fn a_failed_with_that_the_channels_own_timer_hands_back_is_told_once() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _far) = pair(loopbacks()[0]);
    let handle = map.add(near, Recorder::new("a", &log).on_error(OnError::Keep)).unwrap();
    turn_idle(&mut map);
    let mut ch = map.channel(handle).unwrap();
    ch.call_later(Duration::ZERO, move |ch| ch.map_mut().with(handle, |_, _| Err(error())));
    turn_until(&mut map, &log, |_| log.of("a").len() > 1);
    turn_idle(&mut map);
    assert_eq!(log.of("a"), ["open", "error: no good"]);
}
