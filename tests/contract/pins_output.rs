//! Output, where a small slip of the library would pass unseen: what counts towards the watermarks, what
//! a suspended channel still sends.

use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, count, inject};
use dispatch_loop::{More, OnLimit};

use crate::support::opened::{fill, opened_on, view};
use crate::support::peers::{read_now, reads_to_end, unix_pair};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{arrive, assert_calm, run_out, turn_quiet, turn_until, turns_at_once};

/// EDGE_CASES 27: while something is behind it in the queue.
#[test]
fn a_producer_that_has_finished_counts_no_longer_among_the_watermarks() {
    let log = Log::new();
    let (near, _far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    let mut done = false;
    let mut ch = view(&mut map, token);
    // A producer counts as 4 KiB.
    ch.set_watermarks(4096, 8191);
    ch.push_producer(move |_: &mut Vec<u8>| {
        Ok(if std::mem::replace(&mut done, true) { More::Done } else { More::Later })
    })
    .unwrap();
    ch.push_producer(|_: &mut Vec<u8>| Ok(More::Later)).unwrap();
    turn_quiet(&mut map);
    assert_eq!(log.of("a"), ["open", "high"]);
    view(&mut map, token).wake_producer();
    turn_quiet(&mut map);
    assert_eq!(log.of("a"), ["open", "high", "low"]);
}

/// Rules 6 and 10: suspended because nobody reads its input, and with output queued since before.
#[test]
fn what_was_queued_before_a_channel_was_suspended_leaves_as_soon_as_there_is_room() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log).on("read", |_| Ok(())));
    fill(&mut map, &log, token);
    far.write_all(b"unread").unwrap();
    // Until its pauses are long.
    turn_until(&mut map, &log, |map| {
        log.count("a read") >= 69 && map.wait_limit() > Some(Duration::from_millis(300))
    });
    let queued = view(&mut map, token).queued();
    let mut buffer = vec![0; 1 << 20];
    assert!(far.read(&mut buffer).unwrap() > 0);
    assert!(turns_at_once(&mut map, 20, |map| view(map, token).queued() < queued));
}

/// A socket that took less than it was offered is full: asking it at once whether it takes more would be a
/// call for nothing.
#[cfg(debug_assertions)]
#[test]
fn a_socket_that_takes_a_part_is_not_asked_again_in_that_turn() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    fill(&mut map, &log, token);
    let queued = view(&mut map, token).queued();
    // There is room for more than that.
    far.set_nonblocking(true).unwrap();
    read_now(&mut far);
    let sends = count(Call::Send);
    inject(Call::Send, 0, 1, Fault::Short(1000));
    map.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!((queued - view(&mut map, token).queued(), count(Call::Send) - sends), (1000, 1));
}

/// Rules 6 and 10: it is not read, and does not keep the loop busy.
#[test]
fn input_of_a_closing_channel_that_waits_for_room_keeps_nobody_busy() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    let pushed = fill(&mut map, &log, token);
    view(&mut map, token).close();
    turn_quiet(&mut map);
    far.write_all(b"too late").unwrap();
    assert_calm(&mut map);
    let got = reads_to_end(far);
    turn_until(&mut map, &log, |_| got.is_finished());
    assert_eq!(got.join().unwrap().len(), pushed);
    assert_eq!(log.count("a read"), 0);
}

/// Rule 17: what is pushed beyond 64 KiB in a turn waits for the next, also if it is datagrams.
#[test]
fn the_datagrams_of_a_turn_are_bounded() {
    let log = Log::new();
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    near.connect(far.local_addr().unwrap()).unwrap();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    for _ in 0..50 {
        view(&mut map, token).push(&[0; 2000]).unwrap();
    }
    // The last one may exceed the budget.
    assert_eq!(view(&mut map, token).queued(), 34_000);
    turn_quiet(&mut map);
    assert_eq!(view(&mut map, token).queued(), 0);
}

/// `discard_queued`: also what the running hook has pushed and what is not queued yet.
#[test]
fn what_a_hook_pushes_and_discards_is_not_sent() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let (mut map, token) = opened_on(
        near,
        Recorder::new("a", &log).on("read", |ch| {
            ch.recv(&mut [0])?;
            ch.push(b"never")?;
            ch.discard_queued();
            ch.push(b"sent")
        }),
    );
    far.write_all(b"x").unwrap();
    arrive(&mut map, token);
    far.set_nonblocking(true).unwrap();
    assert_eq!(read_now(&mut far).0, b"sent");
}

/// EDGE_CASES 27: a watermark that is moved past what is queued is crossed.
#[test]
fn watermarks_that_are_moved_past_the_queue_are_told() {
    let log = Log::new();
    let (near, _far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    fill(&mut map, &log, token);
    assert_eq!(log.of("a"), ["open"]);
    view(&mut map, token).set_watermarks(0, 1000);
    turn_quiet(&mut map);
    assert_eq!(log.of("a"), ["open", "high"]);
    view(&mut map, token).set_watermarks(usize::MAX, usize::MAX);
    turn_quiet(&mut map);
    assert_eq!(log.of("a"), ["open", "high", "low"]);
}

/// Rules 7 and 16: the socket is offered the queue before a push is refused; if it turns out to be gone, the
/// push is as any to a peer that is gone.
#[cfg(debug_assertions)]
#[test]
fn a_push_over_the_limit_that_meets_a_reset_is_no_error() {
    let log = Log::new();
    let (near, _far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    fill(&mut map, &log, token);
    let mut ch = view(&mut map, token);
    ch.pause_reading();
    ch.set_limit(1000, OnLimit::Refuse);
    assert_eq!(ch.push(b"more").unwrap_err().kind(), ErrorKind::QuotaExceeded);
    inject(Call::Send, 0, 1, Fault::Errno(libc::ECONNRESET));
    view(&mut map, token).push(b"more").unwrap();
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", &format!("close: {}", text(libc::ECONNRESET))]);
}
