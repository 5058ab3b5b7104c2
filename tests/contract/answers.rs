//! Answers that were wrong: about oneself, about the next turn, inside the last hook, of the unnamed.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dispatch_loop::{Address, Channel, ChannelMap};

use crate::support::dirs::Dir;
use crate::support::logging::{capture_log, logged};
use crate::support::peers::{loopbacks, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_until};

/// EDGE_CASES 81: what a hook puts off until the next turn ran in the same one.
#[test]
fn call_soon_runs_in_the_next_turn_and_not_in_this_one() {
    for in_run in [false, true] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let fars: Vec<_> = ["a", "b"]
            .map(|name| {
                let (near, mut far) = unix_pair();
                let noted = log.clone();
                let recorder = Recorder::new(name, &log).on("read", move |ch| {
                    let noted = noted.clone();
                    ch.map_mut().call_soon(move |map| {
                        noted.add("soon");
                        map.call_soon(|map| map.stop());
                    });
                    ch.read_with(|_, _| Ok(()))
                });
                map.add(near, recorder).unwrap();
                far.write_all(b"x").unwrap();
                far
            })
            .into();
        // Between turns, the next one is the next.
        let noted = log.clone();
        map.call_soon(move |_| noted.add("before"));
        match in_run {
            true => dispatch_loop::run(&mut map).unwrap(),
            false => {
                map.turn(Some(Duration::from_secs(10))).unwrap();
                let events = log.events();
                assert!(log.has("before") && !log.has("soon"), "{events:?}");
                if log.count("a read") + log.count("b read") == 0 {
                    map.turn(Some(Duration::from_secs(10))).unwrap();
                    assert!(!log.has("soon"), "{:?}", log.events());
                }
                map.turn(Some(Duration::from_secs(10))).unwrap();
                assert_eq!(log.count("soon"), 2);
            }
        }
        drop(fars);
    }
}

/// EDGE_CASES 81: the same where the loop turns fastest: one channel, no other timer.
#[test]
fn call_soon_from_the_short_way_lets_the_other_channels_be_served_first() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let noted = log.clone();
    let mut left = 100;
    let recorder = Recorder::new("a", &log).quiet().on("read", move |ch| {
        let (outer, inner) = (noted.clone(), noted.clone());
        outer.add("read");
        left -= 1;
        let last = left == 0;
        ch.map_mut().call_soon(move |map| {
            inner.add("soon");
            if last {
                map.stop();
            }
        });
        // Half of it, so that the next turn has input again.
        ch.recv(&mut [0; 1]).map(drop)
    });
    map.add(near, recorder).unwrap();
    far.write_all(&[0; 100]).unwrap();
    dispatch_loop::run(&mut map).unwrap();
    let events: Vec<String> = log.events().into_iter().filter(|event| !event.starts_with("a ")).collect();
    assert_eq!(events.len(), 200);
    // The call of each turn comes after what is served in the next.
    assert_eq!(events[..4], ["read", "read", "soon", "read"]);
}

/// EDGE_CASES 88: a hook that looks its own dispatcher up, and hands the error on.
#[test]
fn a_lookup_of_oneself_that_fails_is_logged_and_ends_nothing() {
    capture_log();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let itself = |ch: &mut Channel<'_>| {
        let handle = ch.token().typed::<Recorder>();
        ch.map().get(handle)?;
        Ok(())
    };
    let other_type = |ch: &mut Channel<'_>| -> io::Result<()> {
        let handle = ch.token().typed::<Other>();
        ch.map_mut().with(handle, |_, _| Ok(()))
    };
    let recorder = Recorder::new("a", &log)
        .on("open", itself)
        .on("read", move |ch| ch.read_with(|ch, _| other_type(ch)));
    map.add(near, recorder).unwrap();
    far.write_all(b"x").unwrap();
    turn_until(&mut map, &log, |_| log.has("a read"));
    drop(far);
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "read", "read", "eof", "close: end of stream"]);
    assert_eq!(logged("is running").len(), 2, "{:?}", logged(""));
}

struct Other;
impl dispatch_loop::Dispatcher for Other {}

/// EDGE_CASES 88: it was `Ok`, and the new dispatcher was never told of anything.
#[test]
fn a_dispatcher_cannot_be_replaced_inside_handle_close() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = unix_pair();
    let inner = log.clone();
    let recorder = Recorder::new("a", &log).on("close", move |ch| {
        let error = ch.replace_dispatcher(Recorder::new("b", &inner)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        inner.add("refused");
        Ok(())
    });
    map.add(near, recorder).unwrap();
    drop(far);
    run_out(&mut map, &log);
    assert_eq!(log.events().last().unwrap(), "refused");
    assert_eq!(log.count("b "), 0);
}

/// EDGE_CASES 86: a client without a name was called `unix:@`.
#[test]
fn an_accepted_client_without_a_name_is_unnamed() {
    let dir = Dir::new();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let seen = log.clone();
    let listener = Recorder::new("l", &log).on_accept(move |ch, socket, peer| {
        assert_eq!(peer, Address::Unnamed);
        seen.add(format!("from {peer}"));
        let handle = ch.map_mut().add(socket, Recorder::new("a", &seen))?;
        assert_eq!(ch.map_mut().channel(handle)?.peer_addr()?, Address::Unnamed);
        Ok(())
    });
    map.listen(dir.join("server"), listener).unwrap();
    let client = UnixStream::connect(dir.join("server")).unwrap();
    turn_until(&mut map, &log, |_| log.has("a open"));
    assert!(log.has("from unix:(unnamed)"), "{:?}", log.events());
    drop(client);
}

/// EDGE_CASES 89: 500 lines in 25 ms.
#[test]
fn connects_that_fail_one_after_the_other_are_logged_ten_times_a_second() {
    capture_log();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let on = loopbacks()[0];
    // A port on which nobody listens.
    let address = std::net::TcpListener::bind(on).unwrap().local_addr().unwrap();
    assert!(TcpStream::connect(address).is_err());
    let begun = std::time::Instant::now();
    for _ in 0..200 {
        map.connect(address, Recorder::new("a", &log)).unwrap();
    }
    run_out(&mut map, &log);
    assert_eq!(log.count("a error"), 200);
    let lines = logged("connect").len();
    let most = 10 * (begun.elapsed().as_secs() as usize + 1);
    assert!((1..=most).contains(&lines), "{lines} lines");
}
