//! Sources: what a channel does over a plain socket it does over a TLS-like one, and over one
//! within another. What only a source can bring about is in `source_own.rs`.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use dispatch_loop::{ChannelMap, Eof, OnLimit};

use crate::support::ends::{Kind, kinds};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{comes_to_rest, run_out, turn_idle, turn_until};

/// Bytes that are the same for the same `seed`, and look like no other part of themselves.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut x = seed | 1;
    let next = std::iter::from_fn(|| {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        Some((x >> 8) as u8)
    });
    next.take(len).collect()
}

/// A recorder that sends back what it gets, and stops reading while that is not taken.
fn echo(name: &'static str, log: &Log) -> Recorder {
    Recorder::new(name, log)
        .quiet()
        .on("open", |ch| {
            ch.set_auto_pause(true);
            Ok(())
        })
        .on("read", |ch| ch.read_with(|ch, data| ch.push(data)))
}

fn same(kind: Kind, got: &[u8], wanted: &[u8]) {
    let first = got.iter().zip(wanted).position(|(a, b)| a != b);
    assert!(got == wanted, "{kind:?}: {} bytes for {}, the first wrong {first:?}", got.len(), wanted.len());
}

// What every connection does, with records or without.

#[test]
fn an_echo_in_random_pieces_comes_back_whole() {
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let size = if kind.layers == 2 { 1 << 20 } else { 8 << 20 };
        let (_, far) = kind.open(&mut map, echo("a", &log), move |far| {
            let sent = noise(size, 3);
            let mut got = Vec::new();
            let mut at = 0;
            let mut len = 1;
            while got.len() < size {
                if at < size && at - got.len() < 64 * 1024 {
                    len = (len * 7919 + 13) % 100_000;
                    let end = (at + len).min(size);
                    far.write(&sent[at..end]).unwrap();
                    at = end;
                } else {
                    got.extend(far.read_some(at - got.len()).unwrap());
                }
            }
            far.finish().unwrap();
            got.extend(far.read_to_end().unwrap());
            (got, sent)
        });
        run_out(&mut map, &log);
        let (got, sent) = far.join().unwrap();
        same(kind, &got, &sent);
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream", "{kind:?}");
    }
}

/// Both ends in one map, each with a source of its own.
#[test]
fn both_ends_may_be_in_one_map() {
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, other) = kind.sockets();
        let asks = Recorder::new("a", &log).quiet().on("open", |ch| {
            for part in noise(1 << 20, 5).chunks(5000) {
                ch.push(part)?;
            }
            ch.shutdown_write();
            Ok(())
        });
        kind.add(&mut map, near, true, asks);
        kind.add(&mut map, other, false, echo("b", &log));
        run_out(&mut map, &log);
        same(kind, &log.input("a"), &noise(1 << 20, 5));
        for name in ["a", "b"] {
            assert_eq!(log.of(name).last().unwrap(), "close: end of stream", "{kind:?}");
            assert_eq!((log.count(&format!("{name} open")), log.count(&format!("{name} eof"))), (1, 1));
        }
    }
}

#[test]
fn after_the_peers_half_close_we_may_still_write() {
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let near = Recorder::new("a", &log).eof(Eof::KeepWriting).on("eof", |ch| {
            ch.push(&noise(1 << 20, 7))?;
            ch.shutdown_write();
            Ok(())
        });
        let (_, far) = kind.open(&mut map, near, |far| {
            far.write(&noise(300_000, 6)).unwrap();
            far.finish().unwrap();
            far.read_to_end().unwrap()
        });
        run_out(&mut map, &log);
        same(kind, &far.join().unwrap(), &noise(1 << 20, 7));
        same(kind, &log.input("a"), &noise(300_000, 6));
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream", "{kind:?}");
        assert_eq!(log.count("a eof"), 1);
    }
}

/// EDGE_CASES 34.
#[test]
fn after_our_half_close_we_still_read() {
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let near = Recorder::new("a", &log).on("open", |ch| {
            ch.push(&noise(1 << 20, 8))?;
            ch.shutdown_write();
            assert_eq!(ch.push(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
            Ok(())
        });
        let (_, far) = kind.open(&mut map, near, |far| {
            let got = far.read_to_end().unwrap();
            far.write(&noise(300_000, 9)).unwrap();
            far.finish().unwrap();
            got
        });
        run_out(&mut map, &log);
        same(kind, &far.join().unwrap(), &noise(1 << 20, 8));
        same(kind, &log.input("a"), &noise(300_000, 9));
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream", "{kind:?}");
    }
}

/// EDGE_CASES 30: also when the peer has sent what was never read.
#[test]
fn close_sends_a_full_queue_also_with_input_unread() {
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (closed, wait) = mpsc::channel();
        let near = Recorder::new("a", &log).readable(|_| false);
        let (handle, far) = kind.open(&mut map, near, move |far| {
            far.write(&noise(100_000, 1)).unwrap();
            wait.recv().unwrap();
            far.read_to_end().unwrap()
        });
        turn_until(&mut map, &log, |_| log.has("a open"));
        let mut ch = map.channel(handle).unwrap();
        ch.push(&noise(1 << 20, 2)).unwrap();
        ch.close();
        ch.close();
        assert!(comes_to_rest(&mut map), "{kind:?}: it spins");
        assert!(!log.closed("a"), "{kind:?}: closed before all was sent");
        closed.send(()).unwrap();
        run_out(&mut map, &log);
        same(kind, &far.join().unwrap(), &noise(1 << 20, 2));
        assert_eq!(log.of("a"), ["open", "close: closed"], "{kind:?}");
    }
}

/// EDGE_CASES 31.
#[test]
fn abort_drops_a_full_queue_and_ends_at_once() {
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (aborted, wait) = mpsc::channel();
        let (handle, far) = kind.open(&mut map, Recorder::new("a", &log), move |far| {
            wait.recv().unwrap();
            far.read_to_end().map(|got| got.len())
        });
        turn_until(&mut map, &log, |_| log.has("a open"));
        let mut ch = map.channel(handle).unwrap();
        ch.push(&noise(1 << 20, 2)).unwrap();
        turn_idle(&mut map);
        map.channel(handle).unwrap().abort();
        run_out(&mut map, &log);
        aborted.send(()).unwrap();
        let end = far.join().unwrap();
        // A plain Unix-domain socket knows no reset.
        let cut = end.as_ref().map_or(true, |&got| got < 1 << 20);
        assert!(cut && (end.is_err() || (kind.layers == 0 && kind.on.is_none())), "{kind:?}: {end:?}");
        assert_eq!(log.of("a").last().unwrap(), "close: aborted");
    }
}

#[test]
fn a_reset_by_the_peer_ends_the_channel() {
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (_, far) = kind.open(&mut map, Recorder::new("a", &log).quiet(), |far| {
            far.write(&noise(1000, 1)).unwrap();
            far.reset();
        });
        run_out(&mut map, &log);
        far.join().unwrap();
        let last = log.of("a").pop().unwrap();
        let unix = kind.on.is_none() && (last.contains("end of stream") || kind.is_cut_short(&last));
        assert!(last.contains("reset") || unix, "{kind:?}: {last}");
        assert_eq!((log.count("a open"), log.count("a error")), (1, 0), "{kind:?}");
    }
}

/// One record of 100 KiB: what is left inside after the pause comes with nothing else from the
/// peer.
#[test]
fn data_inside_a_source_waits_while_paused_and_comes_on_resume() {
    for mut kind in kinds() {
        kind.options.record = 100 * 1024;
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let got = Rc::new(RefCell::new(Vec::new()));
        let store = got.clone();
        let near = Recorder::new("a", &log).on("read", move |ch| {
            let mut some = [0; 1000];
            let read = ch.recv(&mut some)?;
            store.borrow_mut().extend_from_slice(&some[..read]);
            ch.pause_reading();
            Ok(())
        });
        let (done, wait) = mpsc::channel::<()>();
        let (handle, far) = kind.open(&mut map, near, move |far| {
            far.write(&noise(100 * 1024, 1)).unwrap();
            let _ = wait.recv();
        });
        turn_until(&mut map, &log, |_| !got.borrow().is_empty());
        let mut reads = log.count("a read");
        while got.borrow().len() < 100 * 1024 {
            turn_idle(&mut map);
            assert_eq!(log.count("a read"), reads, "{kind:?}: read while paused");
            assert!(reads < 1000);
            map.channel(handle).unwrap().resume_reading();
            turn_until(&mut map, &log, |_| log.count("a read") > reads);
            reads += 1;
            // The rest in one go: that is what the first few pauses were for.
            if reads == 4 {
                let rest = got.clone();
                let take_all = Recorder::new("a", &log).quiet().on("read", move |ch| {
                    ch.read_with(|_, data| {
                        rest.borrow_mut().extend_from_slice(data);
                        Ok(())
                    })
                });
                let mut ch = map.channel(handle).unwrap();
                ch.replace_dispatcher(take_all).unwrap();
                ch.resume_reading();
                turn_until(&mut map, &log, |_| got.borrow().len() == 100 * 1024);
            }
        }
        same(kind, &got.borrow(), &noise(100 * 1024, 1));
        drop(done);
        run_out(&mut map, &log);
        far.join().unwrap();
    }
}

#[test]
fn auto_pause_stops_reading_until_the_queue_is_low() {
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (go, wait) = mpsc::channel();
        let near = Recorder::new("a", &log).on("open", |ch| {
            ch.set_auto_pause(true);
            ch.push(&noise(1 << 20, 1))
        });
        let (handle, far) = kind.open(&mut map, near, move |far| {
            wait.recv().unwrap();
            far.write(b"not yet").unwrap();
            wait.recv().unwrap();
            let got = far.read_some(1 << 20).unwrap();
            wait.recv().unwrap();
            got
        });
        turn_until(&mut map, &log, |_| log.has("a high"));
        assert!(map.channel(handle).unwrap().is_paused());
        go.send(()).unwrap();
        turn_idle(&mut map);
        assert!(!log.has("a read"), "{kind:?}");
        go.send(()).unwrap();
        turn_until(&mut map, &log, |_| log.input("a") == b"not yet");
        let order: Vec<_> = log.of("a").into_iter().filter(|event| event != "read").collect();
        assert_eq!(order, ["open", "high", "low"], "{kind:?}");
        go.send(()).unwrap();
        run_out(&mut map, &log);
        same(kind, &far.join().unwrap(), &noise(1 << 20, 1));
    }
}

/// EDGE_CASES 28.
#[test]
fn the_hard_limit_refuses_or_ends_as_configured() {
    for (kind, on_limit) in kinds().into_iter().flat_map(|k| [(k, OnLimit::Refuse), (k, OnLimit::End)]) {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (handle, far) = kind.open(&mut map, Recorder::new("a", &log), move |far| {
            let _ = wait.recv();
            far.read_to_end()
        });
        turn_until(&mut map, &log, |_| log.has("a open"));
        map.channel(handle).unwrap().set_limit(100_000, on_limit);
        let mut pushed = Vec::new();
        while map.contains(handle) && pushed.len() < 4 << 20 {
            let mut ch = map.channel(handle).unwrap();
            assert!(ch.queued() <= 100_000);
            match ch.push(&noise(30_000, 1)) {
                Ok(()) => pushed.extend(noise(30_000, 1)),
                Err(error) => {
                    assert_eq!((error.kind(), on_limit), (ErrorKind::QuotaExceeded, OnLimit::Refuse));
                    ch.close();
                    break;
                }
            }
            map.turn(Some(Duration::ZERO)).unwrap();
        }
        drop(go);
        run_out(&mut map, &log);
        let got = far.join().unwrap();
        match on_limit {
            OnLimit::Refuse => same(kind, &got.unwrap(), &pushed),
            _ => {
                assert!(got.is_err() || kind.on.is_none());
                assert!(log.of("a").pop().unwrap().contains("over the limit"), "{kind:?}");
            }
        }
    }
}

/// EDGE_CASES 18, and 2 for what is pushed before there is anybody to take it.
#[test]
fn what_was_pushed_before_the_handshake_goes_first_and_data_comes_before_the_end() {
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let near = Recorder::new("a", &log).on("open", |ch| ch.push(b" then this"));
        let (near_socket, far_socket) = kind.sockets();
        let handle = kind.add(&mut map, near_socket, kind.client, near);
        map.channel(handle).unwrap().push(b"first this,").unwrap();
        let far = kind.far(far_socket, |far| {
            far.write(&noise(300_000, 4)).unwrap();
            far.finish().unwrap();
            far.read_to_end().unwrap()
        });
        run_out(&mut map, &log);
        assert_eq!(far.join().unwrap(), b"first this, then this", "{kind:?}");
        same(kind, &log.input("a"), &noise(300_000, 4));
        assert_eq!((log.count("a open"), log.count("a eof")), (1, 1));
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream", "{kind:?}");
    }
}
