//! Producers that are ready made.

use std::collections::VecDeque;
use std::io::{self, Read};

use dispatch_loop::{More, OnError, Producer, producers};

use crate::support::heap;
use crate::support::logging::capture_log;
use crate::support::opened::{finish, opened, view};
use crate::support::peers::{cut_short, loopbacks, pattern, text_now};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, run_out, turn_quiet, turn_until};

/// All that a producer makes, and its largest piece.
fn make(mut producer: impl Producer) -> (Vec<u8>, usize) {
    let (mut all, mut largest) = (Vec::new(), 0);
    loop {
        let mut buffer = Vec::new();
        let more = producer.more(&mut buffer).unwrap();
        assert!(more == More::Done || !buffer.is_empty());
        largest = largest.max(buffer.len());
        all.extend(buffer);
        if more == More::Done {
            return (all, largest);
        }
    }
}

const PIECE: usize = 32 * 1024;

#[test]
fn pieces_of_any_length_come_whole_and_none_too_large() {
    for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5] {
        let bytes = pattern(len);
        let made = make(producers::from_bytes(bytes.clone()));
        assert!(made.0 == bytes && made.1 == len.min(PIECE), "from {len} bytes");
        let made = make(producers::from_reader(io::Cursor::new(bytes.clone())));
        assert!(made.0 == bytes && made.1 <= PIECE, "from a reader of {len} bytes");
        let items: Vec<Vec<u8>> = bytes.chunks(1000).map(<[u8]>::to_vec).collect();
        let made = make(producers::from_iter(items));
        assert!(made.0 == bytes && made.1 < PIECE + 1000, "from items of {len} bytes");
    }
    let empty = [[b""; 3], [b""; 3]].concat();
    assert_eq!(make(producers::from_iter(empty)), (vec![], 0));
    let mixed = ["", "a", "", "", "b", ""].map(str::to_owned);
    assert_eq!(make(producers::from_iter(mixed)).0, b"ab");
    let shared: std::sync::Arc<[u8]> = b"shared"[..].into();
    assert_eq!(make(producers::from_bytes(shared)).0, b"shared");
}

/// 16 MB of each cost the memory of a few pieces, and nothing when they are sent.
#[test]
fn much_of_it_costs_little_memory() {
    const LEN: usize = 16 << 20;
    for which in 0..3 {
        let log = Log::new();
        let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log));
        let sum = std::thread::spawn(move || {
            let (mut far, mut buffer, mut all) = (far, vec![0; 100_000], 0);
            loop {
                match far.read(&mut buffer).unwrap() {
                    0 => return all,
                    read => all += read,
                }
            }
        });
        static BYTES: [u8; LEN] = [b'x'; LEN];
        let before = heap::live();
        heap::reset_peak();
        let mut ch = view(&mut map, token);
        match which {
            0 => ch.push_producer(producers::from_bytes(&BYTES)),
            1 => ch.push_producer(producers::from_iter(BYTES.chunks(700))),
            _ => ch.push_producer(producers::from_reader(io::repeat(b'x').take(LEN as u64))),
        }
        .unwrap();
        ch.close();
        run_out(&mut map, &log);
        let most = heap::peak() - before;
        // The close looks for input that nobody read, into the loop's own buffer.
        assert!(most <= 4 * PIECE as i64 + 64 * 1024, "{most} bytes for way {which}");
        assert_eq!(sum.join().unwrap(), LEN);
    }
}

/// Says what it is told to, then ends.
struct Script(VecDeque<io::Result<&'static [u8]>>);

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.pop_front() {
            Some(Ok(mut bytes)) => bytes.read(buffer),
            Some(Err(error)) => Err(error),
            None => Ok(0),
        }
    }
}

#[test]
fn a_reader_that_would_wait_is_asked_when_woken() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
        let wait = || Err(io::ErrorKind::WouldBlock.into());
        let script = [
            wait(),
            Ok(&b"one "[..]),
            Err(io::ErrorKind::Interrupted.into()),
            Ok(b"two "),
            wait(),
            wait(),
            Ok(b"three "),
        ];
        view(&mut map, token).push_producer(producers::from_reader(Script(script.into()))).unwrap();
        view(&mut map, token).push(b"behind").unwrap();
        let mut sent = Vec::new();
        for _ in 0..4 {
            turn_quiet(&mut map);
            assert_calm(&mut map);
            sent.push(text_now(&mut far));
            view(&mut map, token).wake_producer();
        }
        assert_eq!(sent, ["", "one two ", "", "three behind"]);
        assert_eq!(log.of("a"), ["open"]);
    }
}

#[test]
fn a_reader_that_fails_goes_to_handle_error() {
    for keep in [false, true] {
        capture_log();
        let log = Log::new();
        let on_error = if keep { OnError::Keep } else { OnError::End };
        let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log).on_error(on_error));
        let script = [Ok(&b"before"[..]), Err(io::Error::other("the disk")), Ok(b"never")];
        let mut ch = view(&mut map, token);
        ch.push_producer(producers::from_reader(Script(script.into()))).unwrap();
        ch.push(b" behind").unwrap();
        turn_until(&mut map, &log, |_| log.has("a error: the disk"));
        if keep {
            assert_eq!(finish(&mut map, &log, token, far), b"before behind");
        } else {
            run_out(&mut map, &log);
            assert_eq!(cut_short(far), b"before");
            assert_eq!(log.of("a").last().unwrap(), "close: the disk");
        }
    }
}
