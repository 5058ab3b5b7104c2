//! The hard limit, and a peer that takes what it is sent.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::rc::Rc;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, count};
use dispatch_loop::{Channel, ChannelMap, More, OnLimit, Reason, Token};

use crate::support::ends::{Kind, kinds};
use crate::support::opened::{opened_on, view};
use crate::support::peers::{pattern, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_quiet, turn_until};

const LIMIT: usize = 100_000;

/// The ways to push to one channel.
const WAYS: [&str; 7] =
    ["push", "small push", "push_vec", "push_shared", "push_vectored", "broadcast", "small broadcast"];

/// Push `bytes`, which are few if the way is a small one.
fn push(ch: &mut Channel<'_>, way: &str, bytes: &[u8]) -> io::Result<()> {
    let token = ch.token();
    match way {
        "push" | "small push" => ch.push(bytes),
        "push_vec" => ch.push_vec(bytes.to_vec()),
        "push_shared" => ch.push_shared(bytes.into()),
        "push_vectored" => {
            let (one, two) = bytes.split_at(bytes.len() / 3);
            ch.push_vectored(&[IoSlice::new(one), IoSlice::new(two)])
        }
        _ => {
            ch.map_mut().broadcast([token], bytes);
            Ok(())
        }
    }
}

/// A peer that reads all there is, whenever it is asked to.
#[derive(Clone)]
struct Prompt(Rc<RefCell<(UnixStream, Vec<u8>)>>);

impl Prompt {
    fn new(far: UnixStream) -> Prompt {
        far.set_nonblocking(true).unwrap();
        Prompt(Rc::new(RefCell::new((far, Vec::new()))))
    }

    fn reads(&self) -> usize {
        let (far, got) = &mut *self.0.borrow_mut();
        let _ = far.read_to_end(got);
        got.len()
    }
}

/// EDGE_CASES 67. Ten times the limit in one hook, one timer, or from outside, to the own channel and to
/// another: whoever reads what is there is never over the limit.
#[test]
fn a_peer_that_reads_well_never_meets_the_limit() {
    for on_limit in [OnLimit::End, OnLimit::Refuse] {
        for way in WAYS {
            for place in ["own hook", "other hook", "outside"] {
                let log = Log::new();
                let (near, far) = unix_pair();
                let far = Prompt::new(far);
                let piece = if way.starts_with("small") { 300 } else { 10_000 };
                let bytes = pattern(10 * LIMIT);
                let (peer, whole) = (far.clone(), bytes.clone());
                let feed = move |ch: &mut Channel<'_>| -> io::Result<()> {
                    ch.set_limit(LIMIT, on_limit);
                    for piece in whole.chunks(piece) {
                        push(ch, way, piece)?;
                        peer.reads();
                    }
                    Ok(())
                };
                let mut map = ChannelMap::new().unwrap();
                let a = Recorder::new("a", &log);
                let a = match place {
                    "own hook" => a.on("open", feed.clone()),
                    _ => a,
                };
                let a = map.add(near, a).unwrap().token();
                turn_quiet(&mut map);
                match place {
                    "outside" => feed(&mut view(&mut map, a)).unwrap(),
                    "other hook" => {
                        let b = Recorder::new("b", &log)
                            .on("open", move |ch| feed(&mut ch.map_mut().channel(a)?));
                        map.add(unix_pair().0, b).unwrap();
                    }
                    _ => {}
                }
                turn_until(&mut map, &log, |map| {
                    !map.contains(a) || far.reads() >= bytes.len() && view(map, a).queued() == 0
                });
                assert!(map.contains(a), "{way} by {place}: {:?}", log.events());
                assert!(far.0.borrow().1 == bytes, "{way} by {place}");
                assert_eq!(log.count("a error"), 0, "{way} by {place}");
            }
        }
    }
}

/// EDGE_CASES 67. A push asks no producer, the loop does: more of them each turn than the budget of the turn.
#[test]
fn producers_for_a_peer_that_reads_well_never_meet_the_limit() {
    for on_limit in [OnLimit::End, OnLimit::Refuse] {
        let log = Log::new();
        let (near, far) = unix_pair();
        let (far, bytes) = (Prompt::new(far), pattern(40 * LIMIT));
        let (mut map, a) = opened_on(near, Recorder::new("a", &log));
        view(&mut map, a).set_limit(LIMIT, on_limit);
        for (n, piece) in bytes.chunks(LIMIT / 10).enumerate() {
            let piece = piece.to_vec();
            let producer = move |buffer: &mut Vec<u8>| {
                buffer.extend_from_slice(&piece);
                Ok(More::Done)
            };
            view(&mut map, a).push_producer(producer).unwrap();
            if n % 11 == 0 {
                map.turn(Some(std::time::Duration::ZERO)).unwrap();
                assert!(map.contains(a), "{:?}", log.events());
                far.reads();
            }
        }
        turn_until(&mut map, &log, |_| far.reads() >= bytes.len());
        assert!(far.0.borrow().1 == bytes);
        assert!(map.contains(a));
    }
}

/// EDGE_CASES 67. Datagrams, too.
#[test]
fn a_receiver_that_reads_well_never_meets_the_limit() {
    let log = Log::new();
    let (near, far) = UnixDatagram::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let (mut map, a) = opened_on(near, Recorder::new("a", &log));
    let mut ch = view(&mut map, a);
    ch.set_limit(LIMIT, OnLimit::End);
    let mut got = 0;
    for n in 0..1000_u32 {
        ch.push(&[&n.to_be_bytes()[..], &[7; 996]].concat()).unwrap();
        let mut datagram = [0; 1000];
        while far.recv(&mut datagram).is_ok() {
            assert_eq!(datagram[..4], u32::to_be_bytes(got));
            got += 1;
        }
    }
    turn_quiet(&mut map);
    assert!(map.contains(a) && got > 900, "{got}");
}

/// EDGE_CASES 67. With sources of one's own, and beyond the budget of the turn; one that does not read is
/// still ended.
#[test]
fn through_a_source_the_socket_is_offered_the_queue_first() {
    for kind in kinds().into_iter().filter(|kind: &Kind| kind.layers < 2) {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (handle, far) = kind.open(&mut map, Recorder::new("a", &log), |far| far.read_to_end().map(drop));
        turn_until(&mut map, &log, |_| log.has("a open"));
        let token: Token = handle.token();
        view(&mut map, token).set_limit(LIMIT, OnLimit::End);
        let before = view(&mut map, token).queued();
        view(&mut map, token).push(&[0; 64 * 1024]).unwrap();
        // The budget is spent; the limit is not yet.
        view(&mut map, token).push(&[0; 60_000]).unwrap();
        let queued = view(&mut map, token).queued();
        let pushed = view(&mut map, token).push(&[0; 60_000]);
        pushed.unwrap();
        assert!(view(&mut map, token).queued() < before + queued + 60_000, "{kind:?}");
        if let Ok(mut ch) = map.channel(token) {
            ch.abort();
        }
        turn_quiet(&mut map);
        let _ = far.join();
    }
}

/// A peer that takes nothing is over the limit, however often it was offered the queue: not more than 64
/// times a turn.
#[cfg(debug_assertions)]
#[test]
fn a_peer_that_takes_nothing_is_offered_the_queue_a_bounded_number_of_times() {
    for on_limit in [OnLimit::Refuse, OnLimit::End] {
        let log = Log::new();
        let (near, far) = unix_pair();
        let (mut map, a) = opened_on(near, Recorder::new("a", &log));
        view(&mut map, a).push(&vec![0; 1 << 20]).unwrap();
        turn_quiet(&mut map);
        let mut ch = view(&mut map, a);
        ch.set_limit(ch.queued(), on_limit);
        let before = count(Call::Send);
        let refused = (0..1000).filter(|_| {
            let refused = ch.push(&[1]);
            refused.is_err_and(|error| error.kind() == ErrorKind::QuotaExceeded)
        });
        let refused = refused.count();
        let calls = count(Call::Send) - before;
        turn_quiet(&mut map);
        match on_limit {
            OnLimit::End => {
                assert_eq!((refused, calls), (0, 1));
                assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", Reason::Limit));
            }
            _ => {
                assert_eq!((refused, calls), (1000, 64));
                // In the next turn it is asked again.
                let far = Prompt::new(far);
                far.reads();
                view(&mut map, a).push(&[1]).unwrap();
                turn_until(&mut map, &log, |_| far.reads() == (1 << 20) + 1);
            }
        }
    }
}
