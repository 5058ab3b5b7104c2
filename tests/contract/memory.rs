//! Rule 16: the limits bound the memory that is held, counted by the allocator.

use std::io::{self, IoSlice, Read};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use dispatch_loop::{ChannelMap, More, OnLimit, Reason, SendError, Token};

use crate::support::heap;
use crate::support::logging::{capture_log, logged};
use crate::support::opened::{opened_on, view};
use crate::support::peers::{pattern, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_quiet, turn_until};

const MIB: usize = 1 << 20;

/// The ways to push, some with memory beside the bytes.
const WAYS: [&str; 7] =
    ["push", "push_vec", "roomy push_vec", "push_shared", "push_vectored", "broadcast", "mixed"];

fn push(map: &mut ChannelMap, to: Token, way: &str, bytes: &[u8]) -> io::Result<()> {
    let mut ch = view(map, to);
    match way {
        "push" => ch.push(bytes),
        "push_vec" => ch.push_vec(bytes.to_vec()),
        "roomy push_vec" => {
            let mut roomy = Vec::with_capacity(64 * 1024);
            roomy.extend_from_slice(bytes);
            ch.push_vec(roomy)
        }
        "push_shared" => ch.push_shared(bytes.into()),
        "push_vectored" => ch.push_vectored(&[
            IoSlice::new(&bytes[..bytes.len() / 2]),
            IoSlice::new(&bytes[bytes.len() / 2..]),
        ]),
        _ => {
            ch.map_mut().broadcast([to], bytes);
            Ok(())
        }
    }
}

/// A channel whose peer does not read and whose socket is full.
fn full(map: &mut ChannelMap, log: &Log) -> (Token, UnixStream) {
    let (near, far) = unix_pair();
    let token = map.add(near, Recorder::new("a", log)).unwrap().token();
    turn_quiet(map);
    socket2::SockRef::from(&view(map, token).socket().unwrap()).set_send_buffer_size(4096).unwrap();
    view(map, token).push(&[b'.'; 64 * 1024]).unwrap();
    turn_quiet(map);
    assert!(view(map, token).queued() > 0);
    (token, far)
}

/// EDGE_CASES 70. However small the pieces, and by whichever way they come.
#[test]
fn a_full_queue_holds_little_more_memory_than_its_limit() {
    for way in WAYS {
        for len in [1, 100, 511, 600, 1023, 2047, 2048, 5000] {
            let limit = if len < 100 { MIB / 8 } else { 2 * MIB };
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (token, _far) = full(&mut map, &log);
            view(&mut map, token).set_limit(limit, OnLimit::Refuse);
            let piece = pattern(len);
            let before = heap::live();
            for n in 0.. {
                let way = if way == "mixed" { WAYS[n % (WAYS.len() - 1)] } else { way };
                let len = if n % 97 == 1 { 1 } else { len };
                if view(&mut map, token).queued() + len > limit
                    || push(&mut map, token, way, &piece[..len]).is_err()
                {
                    break;
                }
            }
            let (held, queued) = ((heap::live() - before) as usize, view(&mut map, token).queued());
            assert!(queued > limit - limit / 8, "{queued} bytes");
            assert!(held < limit + limit / 4, "{held} bytes held for {queued} in pieces of {len} by {way}");
        }
    }
}

/// EDGE_CASES 70. What was copied is given back as it is sent.
#[test]
fn a_large_push_is_given_back_as_it_is_sent() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    far.set_nonblocking(true).unwrap();
    let bytes = pattern(8 * MIB);
    let before = heap::live();
    view(&mut map, token).push(&bytes).unwrap();
    let mut got = Vec::with_capacity(9 * MIB);
    let read = got.capacity() as i64;
    turn_until(&mut map, &log, |map| {
        let _ = far.read_to_end(&mut got);
        let queued = view(map, token).queued();
        let held = heap::live() - before - read;
        assert!(held <= queued as i64 + 100_000, "{held} bytes held, {queued} queued");
        got.len() == bytes.len()
    });
    assert!(got == bytes);
}

/// EDGE_CASES 70. Empty datagrams count, too, also towards the credit of an outlet.
#[test]
fn empty_datagrams_of_an_outlet_are_bounded() {
    let log = Log::new();
    let (near, far) = UnixDatagram::pair().unwrap();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    let outlet = view(&mut map, token).outlet().unwrap();
    let before = heap::live();
    let mut sent = 0;
    let refused = loop {
        assert!(sent < 100_000, "any number is taken");
        match outlet.try_send("") {
            Ok(()) => sent += 1,
            Err(refused) => break refused,
        }
        if sent % 100 == 0 {
            map.turn(Some(Duration::ZERO)).unwrap();
        }
    };
    assert!(matches!(refused, SendError::Full(_)), "{refused:?}");
    let held = heap::live() - before;
    assert!(held < 256 * 1024, "{held} bytes for {sent}");
    // All are sent in the end.
    far.set_nonblocking(true).unwrap();
    let mut got = 0;
    turn_until(&mut map, &log, |_| {
        while far.recv(&mut [0; 1]).is_ok() {
            got += 1;
        }
        got == sent
    });
}

/// EDGE_CASES 71. What is broadcast to many that do not read is held once: small lines, with others between
/// them, to channels that have stopped to read at different times. And each gets its own bytes.
#[test]
fn what_is_broadcast_is_held_once() {
    const CLIENTS: usize = 40;
    for (len, most) in [(20, 7 * MIB), (200, 3 * MIB), (2000, 2 * MIB), (6000, 2 * MIB)] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            let (near, far) = unix_pair();
            socket2::SockRef::from(&near).set_send_buffer_size(4096 + 500 * n).unwrap();
            far.set_nonblocking(true).unwrap();
            let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
            view(&mut map, token).set_watermarks(usize::MAX, usize::MAX);
            clients.push((token, far));
        }
        turn_quiet(&mut map);
        let tokens: Vec<Token> = clients.iter().map(|(token, _)| *token).collect();
        let mut wanted = vec![Vec::new(); CLIENTS];
        let before = heap::live();
        let (mut lines, mut own) = (0, heap::live());
        own -= before;
        for n in 0..MIB / len {
            let line = pattern(len + n % 7);
            map.broadcast(tokens.iter().copied(), &line);
            lines += line.len();
            let record = heap::live();
            for (n, wanted) in wanted.iter_mut().enumerate() {
                wanted.extend_from_slice(&line);
                if lines % 1000 == n {
                    wanted.extend_from_slice(b"private");
                }
            }
            own += heap::live() - record;
            for (n, token) in tokens.iter().enumerate() {
                if lines % 1000 == n {
                    view(&mut map, *token).push(b"private").unwrap();
                }
            }
            if n % 10 == 0 {
                map.turn(Some(Duration::ZERO)).unwrap();
            }
        }
        let held = (heap::live() - before - own) as usize;
        assert!(held < most, "{held} bytes for {lines} in lines of {len} bytes");
        let mut got = vec![Vec::new(); CLIENTS];
        turn_until(&mut map, &log, |_| {
            for ((_, far), got) in clients.iter_mut().zip(&mut got) {
                let _ = far.read_to_end(got);
            }
            got.iter().zip(&wanted).all(|(got, wanted)| got.len() >= wanted.len())
        });
        assert!(got == wanted);
    }
}

/// EDGE_CASES 71. Everything at once, to any of several channels that read now and then: each byte once, in
/// order, and no memory is left.
#[test]
fn whatever_is_pushed_and_broadcast_arrives_in_order() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let mut clients: Vec<_> = (0..5)
        .map(|_| {
            let (near, far) = unix_pair();
            socket2::SockRef::from(&near).set_send_buffer_size(4096).unwrap();
            far.set_nonblocking(true).unwrap();
            (map.add(near, Recorder::new("a", &log)).unwrap().token(), far)
        })
        .collect();
    turn_quiet(&mut map);
    let mut random = 1_u64;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut wanted = vec![Vec::new(); clients.len()];
    let mut got = vec![Vec::new(); clients.len()];
    for n in 0..6_000_usize {
        let len = [3, 40, 200, 700, 3000, 9000][next(6)];
        let bytes: Vec<u8> = n.to_be_bytes().into_iter().cycle().take(len).collect();
        let some = 1 + next(31);
        let to: Vec<usize> = (0..clients.len()).filter(|at| some >> at & 1 == 1).collect();
        to.iter().for_each(|at| wanted[*at].extend_from_slice(&bytes));
        let tokens: Vec<Token> = to.iter().map(|at| clients[*at].0).collect();
        match next(7) {
            0 => tokens.iter().for_each(|token| view(&mut map, *token).push(&bytes).unwrap()),
            1 => tokens.iter().for_each(|token| view(&mut map, *token).push_vec(bytes.clone()).unwrap()),
            2 => {
                let shared: Arc<[u8]> = bytes.into();
                tokens.iter().for_each(|token| view(&mut map, *token).push_shared(shared.clone()).unwrap());
            }
            3 => tokens.iter().for_each(|token| {
                let mut bytes = bytes.clone().into_iter();
                let producer = move |buffer: &mut Vec<u8>| {
                    buffer.extend(bytes.by_ref().take(333));
                    Ok(if bytes.len() > 0 { More::Again } else { More::Done })
                };
                view(&mut map, *token).push_producer(producer).unwrap();
            }),
            _ => map.broadcast(tokens, &bytes),
        }
        if next(20) == 0 {
            map.turn(Some(Duration::ZERO)).unwrap();
        }
        if next(10) == 0 {
            let at = next(clients.len());
            let _ = clients[at].1.read_to_end(&mut got[at]);
        }
    }
    turn_until(&mut map, &log, |_| {
        for ((_, far), got) in clients.iter_mut().zip(&mut got) {
            let _ = far.read_to_end(got);
        }
        got.iter().zip(&wanted).all(|(got, wanted)| got.len() >= wanted.len())
    });
    assert!(got == wanted);
    assert_eq!(log.count("a error") + log.count("a close"), 0);
}

/// EDGE_CASES 72. Over the limit of the map those furthest behind end first, and each is logged; who reads
/// goes on, and so does who is only a little behind.
#[test]
fn over_the_limit_of_the_map_those_furthest_behind_end_first() {
    capture_log();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    map.set_limit(4 * MIB);
    let names = ["reads", "a little", "more", "much", "most"];
    let mut clients: Vec<_> = names
        .map(|name| {
            let (near, far) = unix_pair();
            (map.add(near, Recorder::new(name, &log)).unwrap().token(), far)
        })
        .into();
    turn_quiet(&mut map);
    clients[0].1.set_nonblocking(true).unwrap();
    let mut got = Vec::new();
    let before = heap::live();
    for n in 0..40 {
        // The one that reads is pushed most of all.
        for (at, (token, _)) in clients.iter().enumerate() {
            let len = [400, 10, 30, 150, 300][at] * 1024;
            if let Ok(mut ch) = map.channel(*token) {
                ch.push_vec(vec![n; len]).unwrap();
            }
            let held = heap::live() - before - got.capacity() as i64;
            assert!(held < 5 * MIB as i64, "{held} bytes");
        }
        let reads = clients[0].0;
        turn_until(&mut map, &log, |map| {
            let _ = clients[0].1.read_to_end(&mut got);
            view(map, reads).queued() == 0
        });
    }
    turn_until(&mut map, &log, |_| log.closed("most") && log.closed("much"));
    let limit = format!("close: {}", Reason::Limit);
    let ended: Vec<String> = log.events().into_iter().filter(|event| event.contains("close: ")).collect();
    assert_eq!(ended, [format!("most {limit}"), format!("much {limit}")]);
    assert_eq!(logged("furthest behind").len(), 2, "{:?}", logged(""));
    turn_until(&mut map, &log, |_| {
        let _ = clients[0].1.read_to_end(&mut got);
        got.len() == 40 * 400 * 1024
    });
    // Nothing of it is held any more.
    map.tokens().collect::<Vec<_>>().into_iter().for_each(|token| view(&mut map, token).discard_queued());
    turn_quiet(&mut map);
    let (near, _far) = unix_pair();
    let last = map.add(near, Recorder::new("last", &log)).unwrap().token();
    turn_quiet(&mut map);
    view(&mut map, last).push_vec(vec![0; 3 * MIB]).unwrap();
    turn_quiet(&mut map);
    assert!(map.contains(last));
}

/// EDGE_CASES 72. By default, too; and what is shared counts once.
#[test]
fn by_default_the_queues_of_a_map_hold_256_mib() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let (near, far) = unix_pair();
            (map.add(near, Recorder::new("a", &log)).unwrap().token(), far)
        })
        .collect();
    turn_quiet(&mut map);
    // 40 times 12 MiB.
    let tokens: Vec<Token> = clients.iter().map(|(token, _)| *token).collect();
    map.broadcast(tokens.iter().copied(), &vec![0; 12 * MIB]);
    turn_quiet(&mut map);
    assert_eq!(map.len(), 40);
    tokens.iter().for_each(|token| view(&mut map, *token).discard_queued());
    for token in &tokens {
        view(&mut map, *token).push_vec(vec![0; 12 * MIB]).unwrap();
    }
    turn_quiet(&mut map);
    assert!((18..=21).contains(&map.len()), "{} are left", map.len());
}
