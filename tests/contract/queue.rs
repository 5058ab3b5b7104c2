//! What is queued for several channels, or made while it is sent, or stops the reading: broadcasts,
//! producers, auto-pause.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{ChannelMap, More, OnError, OnLimit};

use crate::support::logging::{capture_log, logged};
use crate::support::opened::{fill, finish, opened, view};
use crate::support::peers::{cut_short, loopbacks, pair, pattern, reads_to_end, unix_pair};
use crate::support::process::alone;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, run_out, turn_until};

/// `broadcast`: stale and foreign tokens, closing channels and listeners are passed over; who is
/// over the limit is ended, whatever `set_limit` says; the rest is served.
#[test]
fn a_broadcast_serves_the_rest() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, slow, _far) = opened(on, Recorder::new("slow", &log));
        map.set_linger_limit(0);
        let add = |map: &mut ChannelMap, name| {
            let (near, far) = pair(on);
            (map.add(near, Recorder::new(name, &log)).unwrap().token(), far)
        };
        let (stale, _far) = add(&mut map, "stale");
        let (closing, closing_far) = add(&mut map, "closing");
        let (shut, shut_far) = add(&mut map, "shut");
        let (good, good_far) = add(&mut map, "good");
        let listener = map.listen(on, Recorder::new("listener", &log)).unwrap().token();
        let (other_map, foreign, foreign_far) = opened(on, Recorder::new("foreign", &log));
        view(&mut map, stale).abort();
        turn_until(&mut map, &log, |map| !map.contains(stale));
        fill(&mut map, &log, slow);
        let full = view(&mut map, slow).queued();
        view(&mut map, slow).set_limit(full, OnLimit::Refuse);
        view(&mut map, closing).close();
        view(&mut map, shut).shutdown_write();
        map.broadcast([stale, slow, closing, listener, foreign, shut, good], b"news");
        turn_until(&mut map, &log, |map| !map.contains(slow) && !map.contains(closing));
        assert!(map.contains(listener) && map.contains(shut));
        assert_eq!(log.of("slow").last().unwrap(), &format!("close: {}", dispatch_loop::Reason::Limit));
        assert_eq!(log.of("closing"), ["open", "close: closed"]);
        drop(other_map);
        map.close_all();
        run_out(&mut map, &log);
        let got = [closing_far, shut_far, good_far].map(|far| reads_to_end(far).join().unwrap());
        assert_eq!(got, [&b""[..], b"", b"news"]);
        assert_eq!(reads_to_end(foreign_far).join().unwrap(), b"");
        assert_eq!(log.count("listener error"), 0);
    }
}

/// What the system takes a part of at once is sent from there on, however it was pushed.
#[cfg(debug_assertions)]
#[test]
fn a_push_that_goes_out_in_part_goes_on_from_there() {
    for on in loopbacks() {
        for way in 0..4 {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            map.set_linger_limit(0);
            let (tokens, fars): (Vec<_>, Vec<_>) = (0..3)
                .map(|_| {
                    let (near, far) = pair(on);
                    (map.add(near, Recorder::new("a", &log)).unwrap().token(), far)
                })
                .unzip();
            map.turn(Some(Duration::ZERO)).unwrap();
            let bytes = pattern(5000);
            inject(Call::Send, 0, 1, Fault::Short(10));
            inject(Call::Send, 0, 1, Fault::Short(4990));
            let mut each = tokens.iter();
            match way {
                0 => each.for_each(|&token| view(&mut map, token).push(&bytes).unwrap()),
                1 => each.for_each(|&token| view(&mut map, token).push_vec(bytes.clone()).unwrap()),
                2 => each.for_each(|&token| view(&mut map, token).push_shared(bytes[..].into()).unwrap()),
                _ => map.broadcast(each.by_ref().copied(), &bytes),
            }
            let queued: Vec<_> = tokens.iter().map(|&token| view(&mut map, token).queued()).collect();
            assert_eq!(queued, [4990, 10, 0]);
            map.close_all();
            run_out(&mut map, &log);
            assert!(fars.into_iter().all(|far| reads_to_end(far).join().unwrap() == bytes), "way {way}");
        }
    }
}

/// A thousand readers, with more than their sockets take at once.
#[test]
fn a_broadcast_reaches_a_thousand_readers_whole() {
    alone(Some(4096), || {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (tokens, mut fars): (Vec<_>, Vec<_>) = (0..1000)
            .map(|_| {
                let (near, far) = unix_pair();
                socket2::SockRef::from(&near).set_send_buffer_size(4096).unwrap();
                (map.add(near, Recorder::new("a", &log)).unwrap().token(), far)
            })
            .unzip();
        let mut wanted = Vec::new();
        for n in 0..8 {
            let bytes = vec![n; 100 + 1000 * usize::from(n)];
            map.broadcast(tokens.iter().copied(), &bytes);
            wanted.extend(bytes);
        }
        assert!(tokens.iter().all(|&token| view(&mut map, token).queued() > 10_000));
        map.close_all();
        let far = std::thread::spawn(move || {
            for far in &mut fars {
                let mut got = Vec::new();
                far.read_to_end(&mut got).unwrap();
                assert!(got == wanted);
            }
        });
        turn_until(&mut map, &log, |map| map.is_empty());
        far.join().unwrap();
        assert_eq!(log.count("a close: closed"), 1000);
    });
}

/// Pieces, a producer's and pushed ones, in the order in which they were given.
#[test]
fn a_large_producer_needs_little_memory() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, far) = opened(on, Recorder::new("a", &log));
        let far = reads_to_end(far);
        let mut ch = view(&mut map, token);
        ch.push(b"head").unwrap();
        let mut left = 1000;
        ch.push_producer(move |buffer: &mut Vec<u8>| {
            assert!(buffer.is_empty());
            left -= 1;
            buffer.resize(8192, b'p');
            Ok(if left > 0 { More::Again } else { More::Done })
        })
        .unwrap();
        ch.push_producer(|_: &mut Vec<u8>| Ok(More::Done)).unwrap();
        ch.push(b"tail").unwrap();
        let mut most = 0;
        turn_until(&mut map, &log, |map| {
            most = view(map, token).queued().max(most);
            view(map, token).queued() == 0
        });
        assert!(most <= 2 * 8192, "{most} bytes at once, of 8 MB");
        view(&mut map, token).close();
        run_out(&mut map, &log);
        assert!(far.join().unwrap() == [b"head", &[b'p'; 8_192_000][..], b"tail"].concat());
        assert_eq!(log.of("a"), ["open", "close: closed"]);
    }
}

/// A producer that fails is dropped; the dispatcher decides whether the rest is still sent.
#[test]
fn a_producer_that_fails_is_dropped_and_the_dispatcher_decides() {
    type Answer = fn(&mut Vec<u8>) -> io::Result<More>;
    let fails: Answer = |_| Err(io::Error::other("the disk"));
    let panics: Answer = |_| panic!("the disk");
    let idles: Answer = |_| Ok(More::Again);
    for (answer, keep, goes_on) in
        [(fails, true, true), (idles, true, true), (fails, false, false), (panics, true, false)]
    {
        let log = Log::new();
        capture_log();
        let on_error = if keep { OnError::Keep } else { OnError::End };
        let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log).on_error(on_error));
        let dropped = Rc::new(());
        let held = dropped.clone();
        let mut ch = view(&mut map, token);
        ch.push(b"before").unwrap();
        ch.push_producer(move |buffer: &mut Vec<u8>| {
            let _held = &held;
            answer(buffer)
        })
        .unwrap();
        ch.push(b" after").unwrap();
        turn_until(&mut map, &log, |_| log.count("a error: ") == 1);
        assert_eq!(Rc::strong_count(&dropped), 1);
        if goes_on {
            assert_eq!(finish(&mut map, &log, token, far), b"before after");
        } else {
            turn_until(&mut map, &log, |map| map.is_empty());
            assert_eq!(cut_short(far), b"before");
            assert_eq!(logged("a producer").len(), 1);
        }
        assert_eq!(log.count("a "), 3, "open, error, close: {:?}", log.events());
    }
}

/// An echo whose peer sends and does not read: it stops reading by itself, at no cost, and nothing
/// is lost when the peer begins to read.
#[test]
fn auto_pause_stops_reading_while_the_peer_does_not_take_its_output() {
    for on in loopbacks() {
        let log = Log::new();
        let most = Rc::new(Cell::new(0));
        let largest = most.clone();
        let dispatcher = Recorder::new("a", &log)
            .quiet()
            .on("open", |ch| {
                ch.set_auto_pause(true);
                Ok(())
            })
            .on("read", move |ch| {
                ch.read_with(|ch, data| ch.push(data))?;
                largest.set(largest.get().max(ch.queued()));
                Ok(())
            });
        let (mut map, token, far) = opened(on, dispatcher);
        let bytes = pattern(20_000_000);
        let (mut sender, sent) = (far.try_clone().unwrap(), bytes.clone());
        let sender = std::thread::spawn(move || {
            sender.write_all(&sent).unwrap();
            sender.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut paused = 0;
        turn_until(&mut map, &log, |map| {
            paused = if view(map, token).is_paused() { paused + 1 } else { 0 };
            paused == 20
        });
        assert_calm(&mut map);
        assert!(view(&mut map, token).is_paused());
        let far = reads_to_end(far);
        run_out(&mut map, &log);
        sender.join().unwrap();
        assert!(far.join().unwrap() == bytes);
        assert!(most.get() <= 128 * 1024, "{} bytes queued", most.get());
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
    }
}
