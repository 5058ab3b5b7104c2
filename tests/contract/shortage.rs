//! Rule 7: a send that fails. A shortage of the system's passes; a connection that is gone is read to its end;
//! after anything else the channel ends at once.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use dispatch_loop::faults::{Call, Fault, clear, count, inject};
use dispatch_loop::{Channel, ChannelMap, Eof, More, Token};

use crate::support::logging::{capture_log, logged};
use crate::support::opened::{opened, opened_on, view};
use crate::support::peers::{cut_short, loopbacks, pattern, read_all, read_exactly, unix_pair};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{run_out, turn_idle, turn_quiet, turn_until, waits_in};
use crate::support::waiting::DEADLINE;

type Sending = fn(&mut ChannelMap, Token, &[u8]);

/// The ways in which bytes reach the system's `send`.
const WAYS: [(&str, Sending); 6] = [
    ("an echo", |_, _, _| {}),
    ("push", |map, token, bytes| view(map, token).push(bytes).unwrap()),
    ("push_vec", |map, token, bytes| view(map, token).push_vec(bytes.to_vec()).unwrap()),
    ("broadcast", |map, token, bytes| map.broadcast([token], bytes)),
    ("producer", |map, token, bytes| {
        let bytes = bytes.to_vec();
        let producer = move |buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(&bytes);
            Ok(More::Done)
        };
        view(map, token).push_producer(producer).unwrap();
    }),
    ("close", |map, token, bytes| {
        view(map, token).push(bytes).unwrap();
        view(map, token).close();
    }),
];

fn echo(ch: &mut Channel<'_>) -> std::io::Result<()> {
    ch.read_with(|ch, data| ch.push(data))
}

/// EDGE_CASES 68. Offered again after a pause, and nothing is lost; by every way, and however long it lasts.
#[test]
fn a_shortage_while_sending_is_no_write_error() {
    for errno in [libc::ENOBUFS, libc::ENOMEM] {
        for (way, send) in WAYS {
            for len in [1, 5000] {
                for times in [1, 3] {
                    let log = Log::new();
                    let (near, mut far) = unix_pair();
                    let (mut map, token) = opened_on(near, Recorder::new("a", &log).on("read", echo));
                    let bytes = pattern(len);
                    inject(Call::Send, 0, times, Fault::Errno(errno));
                    if way == "an echo" {
                        far.write_all(&bytes).unwrap();
                    }
                    send(&mut map, token, &bytes);
                    far.set_nonblocking(true).unwrap();
                    let mut got = Vec::new();
                    turn_until(&mut map, &log, |_| {
                        let _ = far.read_to_end(&mut got);
                        got.len() >= len
                    });
                    assert!(got == bytes, "{len} bytes by {way}");
                    assert_eq!(map.contains(token), way != "close");
                    assert_eq!(log.count("a error"), 0);
                    clear();
                }
            }
        }
    }
}

/// EDGE_CASES 68. The pauses grow from 10 ms to 1 s, cost nothing, are logged once, and begin small again.
#[test]
fn the_pauses_of_a_shortage_grow_and_cost_nothing() {
    capture_log();
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
        inject(Call::Send, 0, u64::MAX, Fault::Errno(libc::ENOBUFS));
        let (begun, before) = (Instant::now(), count(Call::Send));
        view(&mut map, token).push(&[7; 5000]).unwrap();
        let waits = waits_in(&mut map, Duration::from_millis(300));
        view(&mut map, token).push(b"more").unwrap();
        // After 0, 10, 30, 70, 150, 310 ms.
        let tries = count(Call::Send) - before;
        assert!((2..=6).contains(&tries), "{tries} tries");
        assert!(waits <= 20, "{waits} waits");
        turn_until(&mut map, &log, |_| count(Call::Send) - before >= 6);
        assert!(begun.elapsed() >= Duration::from_millis(310));
        clear();
        turn_until(&mut map, &log, |map| view(map, token).queued() == 0);
        assert_eq!(read_exactly(&mut far, 5004), [&[7; 5000][..], b"more"].concat());
        // Small again.
        inject(Call::Send, 0, 1, Fault::Errno(libc::ENOBUFS));
        view(&mut map, token).push(&[7; 5000]).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        assert!(map.wait_limit().unwrap() <= Duration::from_millis(10), "{:?}", map.wait_limit());
        turn_until(&mut map, &log, |map| view(map, token).queued() == 0);
        read_exactly(&mut far, 5000);
    }
    assert_eq!(logged("cannot send now").len(), 2 * loopbacks().len());
}

/// EDGE_CASES 68. `send` takes nothing, and `handle_write` waits for the pause as well.
#[test]
fn handle_write_waits_for_the_end_of_a_shortage() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let sender = Recorder::new("a", &log).quiet().writable(|_| true).on("write", |ch| {
        if ch.send(b"x")? == 1 {
            ch.close();
        }
        Ok(())
    });
    inject(Call::Send, 0, 4, Fault::Errno(libc::ENOBUFS));
    let before = count(Call::Send);
    let (mut map, _) = opened_on(near, sender);
    let waits = waits_in(&mut map, Duration::from_millis(100));
    assert!(count(Call::Send) - before <= 5 && waits <= 20, "{waits} waits");
    run_out(&mut map, &log);
    clear();
    assert_eq!(read_all(&mut far).0, b"x");
}

/// EDGE_CASES 68. Datagrams wait, too, and keep their order.
#[test]
fn datagrams_wait_for_the_end_of_a_shortage() {
    let log = Log::new();
    let (near, far) = UnixDatagram::pair().unwrap();
    far.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    inject(Call::Send, 1, 3, Fault::Errno(libc::ENOBUFS));
    for n in 0..10 {
        view(&mut map, token).push(&[n]).unwrap();
    }
    turn_until(&mut map, &log, |map| view(map, token).queued() == 0);
    clear();
    for n in 0..10 {
        let mut got = [0; 2];
        assert_eq!((far.recv(&mut got).unwrap(), got[0]), (1, n));
    }
    assert_eq!(log.of("a"), ["open"]);
}

/// EDGE_CASES 69. Any other failure on a connection that may be there as before: what is pushed would be
/// swallowed for ever, so the channel ends at once, and what is cut short does not look like an end.
#[test]
fn a_send_that_fails_for_good_ends_the_channel_at_once() {
    for on in loopbacks() {
        for len in [10, 5000] {
            let log = Log::new();
            let (mut map, token, mut far) = opened(on, Recorder::new("a", &log).on("read", echo));
            far.write_all(&pattern(len)).unwrap();
            inject(Call::Send, 0, 1, Fault::Errno(libc::EPERM));
            turn_until(&mut map, &log, |map| !map.contains(token));
            clear();
            assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::EPERM)));
            assert_eq!((log.count("a error"), log.count("a close")), (0, 1));
            assert_eq!(cut_short(far), b"");
        }
    }
}

/// EDGE_CASES 69. A peer that takes nothing more may still send: that is read to its end; without an end, until
/// nothing comes for the close timeout; and `shutdown_write` ends it at once.
#[test]
fn a_connection_that_sends_nothing_more_ends_by_itself() {
    for end in ["peer", "silence", "shutdown_write", "pause_reading"] {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        let (mut map, token) = opened_on(near, Recorder::new("a", &log).eof(Eof::KeepWriting));
        far.shutdown(Shutdown::Read).unwrap();
        let long = Duration::from_secs(3600);
        view(&mut map, token).set_close_timeout(long);
        view(&mut map, token).push(&[7; 5000]).unwrap();
        far.write_all(b"this is ").unwrap();
        turn_idle(&mut map);
        far.write_all(b"still read").unwrap();
        turn_until(&mut map, &log, |_| log.input("a") == b"this is still read");
        turn_quiet(&mut map);
        assert!(map.contains(token));
        match end {
            "peer" => far.shutdown(Shutdown::Write).unwrap(),
            "shutdown_write" => view(&mut map, token).shutdown_write(),
            "pause_reading" => view(&mut map, token).pause_reading(),
            _ => view(&mut map, token).set_close_timeout(Duration::from_millis(50)),
        }
        turn_until(&mut map, &log, |map| !map.contains(token));
        assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::EPIPE)), "{end}");
        assert_eq!(log.count("a error"), 0);
    }
}
