//! The last hook: EDGE_CASES 35, and rule 11 of the contract.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, Dispatcher, Reason, Token};

use crate::support::opened::address_of;
use crate::support::peers::{loopbacks, narrow_pair, pair, read_all, read_now, reset, unix_pair};
use crate::support::process::{alone, open_descriptors};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::turn_idle;

const MILLISECOND: Duration = Duration::from_millis(1);

/// What the hooks of a channel saw at its end, and whether it was dropped after them.
struct Last {
    log: Log,
    /// The other end of the pair.
    far: UnixStream,
}

impl Dispatcher for Last {
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        assert!(ch.socket().is_none() && !ch.is_connected() && ch.is_closing());
        assert!(ch.local_addr().is_ok() && ch.peer_addr().is_ok(), "addresses stay readable");
        assert!(read_now(&mut self.far).1, "the descriptor is closed before the hook");
        assert_eq!(ch.push(b"?").unwrap_err().kind(), ErrorKind::BrokenPipe);
        self.log.add(format!("last close: {reason}"));
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        self.log.add("last drop");
    }
}

/// Rule 11.
#[test]
fn handle_close_comes_after_the_socket_and_before_the_drop() {
    let log = Log::new();
    let (near, far) = unix_pair();
    far.set_nonblocking(true).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let last = map.add(near, Last { log: log.clone(), far }).unwrap();
    turn_idle(&mut map);
    map.channel(last).unwrap().close();
    let (near, _far) = pair(loopbacks()[0]);
    let other = map.add(near, Recorder::new("other", &log)).unwrap();
    // In the same settle, after it.
    map.channel(other).unwrap().close();
    dispatch_loop::run(&mut map).unwrap();
    assert_eq!(log.events(), ["last close: closed", "last drop", "other close: closed"]);
}

/// Rule 11: the first reason, but for one that kept queued bytes from being sent.
#[test]
fn the_first_reason_is_given_unless_bytes_were_lost() {
    type Ends = fn(&mut ChannelMap, Token, TcpStream);
    let cases: [(usize, &str, Ends); 6] = [
        (0, "closed", |map, token, far| {
            map.channel(token).unwrap().close();
            reset(far);
        }),
        (4_000_000, "aborted", |map, token, _far| {
            map.channel(token).unwrap().close();
            map.turn(Some(Duration::ZERO)).unwrap();
            map.channel(token).unwrap().abort();
        }),
        (4_000_000, "reset", |map, token, far| {
            map.channel(token).unwrap().close();
            map.turn(Some(Duration::ZERO)).unwrap();
            reset(far);
        }),
        (4_000_000, "reset", |map, token, far| {
            far.shutdown(Shutdown::Write).unwrap();
            let mut channel = map.channel(token).unwrap();
            channel.resume_reading();
            turn_idle(map);
            assert!(map.channel(token).unwrap().is_closing(), "for the end of the stream");
            reset(far);
        }),
        (4_000_000, "timed out", |map, token, far| {
            far.shutdown(Shutdown::Write).unwrap();
            let mut channel = map.channel(token).unwrap();
            channel.resume_reading();
            channel.set_close_timeout(20 * MILLISECOND);
            dispatch_loop::run(map).unwrap();
        }),
        (0, "end of stream", |map, token, far| {
            drop(far);
            map.channel(token).unwrap().resume_reading();
            dispatch_loop::run(map).unwrap();
        }),
    ];
    for on in loopbacks() {
        for (queue, reason, end) in cases {
            let log = Log::new();
            let (near, far) = narrow_pair(on);
            let mut map = ChannelMap::new().unwrap();
            let recorder = Recorder::new("a", &log).on("open", move |ch| {
                ch.pause_reading();
                ch.push(&vec![0; queue])
            });
            let token = map.add(near, recorder).unwrap().token();
            turn_idle(&mut map);
            end(&mut map, token, far);
            dispatch_loop::run(&mut map).unwrap();
            let closed = log.of("a").pop().unwrap();
            let (broken, gone) = (text(libc::EPIPE), text(libc::ECONNRESET));
            let reasons = if reason == "reset" { vec![&*broken, &*gone] } else { vec![reason] };
            assert!(reasons.iter().any(|reason| closed == format!("close: {reason}")), "{reason}: {closed}");
            assert_eq!(log.count("a close"), 1);
        }
    }
}

/// A map with listeners, open, connecting, paused, queueing and closing channels, all of which do
/// what they can in `handle_close`; and how many they are.
fn full_map(log: &Log) -> (ChannelMap, Vec<TcpStream>, usize) {
    let mut map = ChannelMap::new().unwrap();
    let mut fars = Vec::new();
    let tokens = Rc::new(RefCell::new(Vec::<Token>::new()));
    let lively = |name| {
        let (tokens, log) = (tokens.clone(), log.clone());
        Recorder::new(name, &log.clone()).on("close", move |ch| {
            let own = ch.token();
            for &other in tokens.borrow().iter().filter(|token| **token != own) {
                if let Ok(mut other) = ch.map_mut().channel(other) {
                    let _ = other.push(b"farewell");
                    other.close();
                }
            }
            let (near, far) = UnixStream::pair()?;
            let added = ch.map_mut().add(near, Recorder::new("late", &log));
            assert_eq!(added.unwrap_err().kind(), ErrorKind::BrokenPipe, "a map that is dropped takes none");
            drop(far);
            let late = log.clone();
            ch.map_mut().call_soon(move |_| late.add("late timer"));
            ch.map_mut().close_all();
            log.add("ended well");
            Ok(())
        })
    };
    for on in loopbacks() {
        // It leaves its clients in the backlog.
        let listener = map.listen(on, lively("listener").readable(|_| false)).unwrap();
        let address = address_of(&mut map, listener);
        tokens.borrow_mut().push(listener.token());
        for kind in [1, 2, 3, 4, 0] {
            let token = match kind {
                0 => map.connect(address, lively("connecting")).unwrap().token(),
                _ => {
                    let (near, far) = pair(on);
                    fars.push(far);
                    map.add(near, lively("open")).unwrap().token()
                }
            };
            tokens.borrow_mut().push(token);
            if kind > 0 {
                map.turn(Some(Duration::ZERO)).unwrap();
            }
            let mut channel = map.channel(token).unwrap();
            match kind {
                2 => channel.pause_reading(),
                3 => channel.push(&vec![0; 10_000_000]).unwrap(),
                4 => {
                    channel.push(&vec![0; 10_000_000]).unwrap();
                    channel.close();
                }
                _ => {}
            }
        }
    }
    let count = map.len();
    (map, fars, count)
}

/// EDGE_CASES 35.
#[test]
fn a_dropped_map_ends_every_channel_once() {
    alone(None, || {
        for how in ["at once", "after stop", "while unwinding"] {
            let log = Log::new();
            let before = open_descriptors();
            let (mut map, fars, count) = full_map(&log);
            match how {
                "after stop" => {
                    map.stop();
                    dispatch_loop::run(&mut map).unwrap();
                    drop(map);
                }
                "while unwinding" => {
                    let unwound = catch_unwind(AssertUnwindSafe(move || {
                        let _map = map;
                        panic!("with a map in hand");
                    }));
                    unwound.unwrap_err();
                }
                _ => drop(map),
            }
            let closes: Vec<_> = log.events().into_iter().filter(|e| e.contains(" close: ")).collect();
            assert_eq!(closes.len(), count, "{how}: {closes:?}");
            assert_eq!((log.count("ended well"), log.count("late")), (count, 0), "{how}");
            for mut far in fars {
                // Whatever the end is like, it comes.
                let _ = read_all(&mut far);
            }
            assert_eq!(open_descriptors(), before, "{how}");
        }
    });
}

/// EDGE_CASES 35: `run` stopped, and the next `run` goes on.
#[test]
fn a_stopped_loop_goes_on() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        let recorder = Recorder::new("a", &log).on("read", |ch| {
            ch.map_mut().stop();
            ch.read_with(|ch, data| ch.push(data))
        });
        map.add(near, recorder).unwrap();
        let mut back = [0; 5];
        for round in 1..=3 {
            far.write_all(b"hello").unwrap();
            dispatch_loop::run(&mut map).unwrap();
            far.read_exact(&mut back).unwrap();
            assert_eq!((&back, log.count("a read"), map.len()), (b"hello", round, 1));
            assert!(!log.closed("a"));
        }
        drop(far);
        dispatch_loop::run(&mut map).unwrap();
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
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

/// Fails with it, and keeps the reason it is given.
struct Keeps(Rc<RefCell<Option<Reason>>>);

impl Dispatcher for Keeps {
    fn handle_open(&mut self, _: &mut Channel<'_>) -> std::io::Result<()> {
        Err(std::io::Error::other(Refused(7)))
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        *self.0.borrow_mut() = Some(reason.clone());
    }
}

#[test]
fn a_reason_can_be_kept_with_the_typed_error_of_the_hook() {
    let kept = Rc::default();
    let (near, _far) = UnixStream::pair().unwrap();
    let mut map = ChannelMap::new().unwrap();
    map.add(near, Keeps(Rc::clone(&kept))).unwrap();
    dispatch_loop::run(&mut map).unwrap();
    drop(map);
    let reason = kept.take().unwrap();
    assert_eq!(reason.to_string(), "refused, code 7");
    let inner = reason.error().and_then(std::io::Error::get_ref);
    assert_eq!(inner.and_then(|inner| inner.downcast_ref()), Some(&Refused(7)));
}
