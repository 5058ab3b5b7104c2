//! `read_lines`: every way to cut a line, the end, errors, how far it reads ahead, and when its thread ends.

use std::cell::RefCell;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::{ChannelMap, Line, read_lines, run};

use crate::support::logging::{capture_log, logged};
use crate::support::recorder::Log;
use crate::support::threads::{held, run_to_its_end};
use crate::support::turning::{assert_calm, turn_idle, turn_until};
use crate::support::waiting::wait_until;

const LONGEST: usize = 64 * 1024;

thread_local! {
    /// What came, on the loop's thread.
    static CAME: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Keep what comes; the end and an error stop the loop.
fn keep(map: &mut ChannelMap, line: Line<'_>) {
    let came = match line {
        Line::Text(text) => text.to_vec(),
        Line::End => b"END".to_vec(),
        Line::Failed(error) => format!("FAILED {error}").into_bytes(),
    };
    if !matches!(line, Line::Text(_)) {
        map.stop();
    }
    CAME.with_borrow_mut(|all| all.push(came));
}

fn came() -> Vec<Vec<u8>> {
    CAME.take()
}

fn texts() -> Vec<String> {
    came().into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
}

/// All of an input, until its end or its error.
fn read(input: impl Read + Send + 'static) -> Vec<Vec<u8>> {
    let mut map = held();
    read_lines(&map.remote(), input, keep).unwrap();
    run(&mut map).unwrap();
    came()
}

/// An input that gives what it has in pieces of some sizes, in turn, with interruptions between
/// them; then it ends, or fails.
struct Pieces {
    left: Cursor<Vec<u8>>,
    sizes: Vec<usize>,
    at: usize,
    fails: bool,
    /// How much was read; and alive for as long as the thread is.
    read: Arc<AtomicUsize>,
}

impl Pieces {
    fn new(bytes: impl Into<Vec<u8>>, sizes: &[usize]) -> Pieces {
        let left = Cursor::new(bytes.into());
        Pieces { left, sizes: sizes.to_vec(), at: 0, fails: false, read: Arc::default() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.at += 1;
        if self.at % 2 == 0 {
            return Err(ErrorKind::Interrupted.into());
        }
        let most = self.sizes[self.at / 2 % self.sizes.len()].min(buffer.len());
        let read = self.left.read(&mut buffer[..most])?;
        self.read.fetch_add(read, SeqCst);
        if read == 0 && self.fails {
            return Err(io::Error::other("torn tape"));
        }
        Ok(read)
    }
}

/// The thread has ended, and with it its input.
#[track_caller]
fn assert_thread_ends(read: &Arc<AtomicUsize>) {
    wait_until("the thread ends", || Arc::strong_count(read) == 1);
}

#[test]
fn lines_come_whole_however_they_were_cut() {
    let input = "first\n\nthird, \r\n\0\n\n\nlast, without an end";
    let mut wanted: Vec<&[u8]> = input.as_bytes().split_inclusive(|byte| *byte == b'\n').collect();
    wanted.push(b"END");
    for sizes in [&[1][..], &[2], &[3, 1, 7], &[5, 1], &[6], &[7], &[1000]] {
        assert_eq!(read(Pieces::new(input, sizes)), wanted, "{sizes:?}");
    }
}

#[test]
fn an_end_comes_once_and_alone_if_nothing_is_left() {
    for (input, wanted) in [("", &["END"][..]), ("\n", &["\n", "END"]), ("a\nb\n", &["a\n", "b\n", "END"])] {
        let pieces = Pieces::new(input, &[1]);
        let read = pieces.read.clone();
        let mut map = held();
        read_lines(&map.remote(), pieces, keep).unwrap();
        run(&mut map).unwrap();
        assert_thread_ends(&read);
        turn_idle(&mut map);
        assert_eq!(texts(), wanted);
    }
}

/// Of that size exactly, wherever it begins; what follows begins anew.
#[test]
fn long_lines_come_in_pieces_of_64_kib() {
    for (before, len) in [(0, LONGEST - 1), (0, LONGEST), (0, LONGEST + 1), (7, 3 * LONGEST + 5)] {
        for sizes in [&[LONGEST][..], &[4096], &[999, 64_000]] {
            let input = [&vec![b'a'; before][..], b"\n", &vec![b'b'; len], b"\nc"].concat();
            let mut wanted = vec![input[..=before].to_vec()];
            let rest = &input[before + 1..input.len() - 1];
            wanted.extend(rest.chunks(LONGEST).map(<[u8]>::to_vec));
            wanted.extend([b"c".to_vec(), b"END".to_vec()]);
            let got = read(Pieces::new(input, sizes));
            assert!(got == wanted, "{len}: {:?}", got.iter().map(Vec::len).collect::<Vec<_>>());
        }
    }
}

#[test]
fn an_error_ends_the_reading_after_what_was_read() {
    let pieces = Pieces { fails: true, ..Pieces::new("one\ntwo", &[2]) };
    let read = pieces.read.clone();
    let mut map = held();
    read_lines(&map.remote(), pieces, keep).unwrap();
    run(&mut map).unwrap();
    assert_eq!(texts(), ["one\n", "two", "FAILED torn tape"]);
    assert_thread_ends(&read);
}

/// A line is not kept back until the next one comes; and the loop sleeps meanwhile.
#[test]
fn a_line_comes_when_it_is_there() {
    let (mut writer, reader) = UnixStream::pair().unwrap();
    let mut map = held();
    read_lines(&map.remote(), reader, keep).unwrap();
    for line in ["one\n", "two\n", "three\n"] {
        writer.write_all(line.as_bytes()).unwrap();
        turn_until(&mut map, &Log::new(), |_| CAME.with_borrow(|came| !came.is_empty()));
        assert_eq!(texts(), [line]);
        assert_calm(&mut map);
    }
    drop(writer);
    run(&mut map).unwrap();
    assert_eq!(texts(), ["END"]);
}

/// No more than 64 KiB are read that the loop has not been told of.
#[test]
fn it_reads_no_further_ahead_than_64_kib() {
    for line in [10, 1000, LONGEST * 2] {
        let text = [vec![b'.'; line - 1], b"\n".to_vec()].concat();
        let pieces = Pieces::new(text.repeat(10 * LONGEST / line), &[1000, LONGEST]);
        let (read, wanted) = (pieces.read.clone(), pieces.left.get_ref().len());
        let mut map = held();
        let remote = map.remote();
        read_lines(&remote, pieces, keep).unwrap();
        let (mut told, mut ends) = (0, 0);
        while told < wanted {
            wait_until("it reads", || format!("{remote:?}").contains("queued: 1"));
            let ahead = read.load(SeqCst) - told;
            assert!(ahead <= LONGEST, "{ahead} bytes");
            map.turn(None).unwrap();
            let (end, texts): (Vec<_>, Vec<_>) = came().into_iter().partition(|text| text == b"END");
            told += texts.iter().map(Vec::len).sum::<usize>();
            ends += end.len();
        }
        // The end may have come with the last of the text; it has stopped the loop then.
        run(&mut map).unwrap();
        assert_eq!((told, ends + came().len()), (wanted, 1));
        assert_thread_ends(&read);
    }
}

/// It is no reason for the loop to stay.
#[test]
fn a_reader_does_not_keep_the_loop_running() {
    let (writer, reader) = UnixStream::pair().unwrap();
    let mut map = ChannelMap::new().unwrap();
    read_lines(&map.remote(), reader, keep).unwrap();
    run_to_its_end(&mut map);
    assert!(came().is_empty());
    drop(writer);
}

/// The panic is logged, the rest of what was read is not told, and the thread ends.
#[test]
fn a_panic_ends_the_reading() {
    capture_log();
    let pieces = Pieces::new("one\ntwo\nthree\n", &[100]);
    let read = pieces.read.clone();
    let mut map = held();
    let panics = |map: &mut ChannelMap, line: Line<'_>| {
        keep(map, line);
        assert!(CAME.with_borrow(|came| came.len() < 2), "on purpose");
    };
    read_lines(&map.remote(), pieces, panics).unwrap();
    turn_until(&mut map, &Log::new(), |_| Arc::strong_count(&read) == 1);
    turn_idle(&mut map);
    assert_eq!(texts(), ["one\n", "two\n"]);
    assert_eq!(logged("on purpose").len(), 1);
}

/// Also while the thread waits for what it has brought to be taken.
#[test]
fn the_thread_ends_with_the_map() {
    for turns in [0, 1] {
        let pieces = Pieces::new("some\n".repeat(100_000), &[50]);
        let read = pieces.read.clone();
        let mut map = held();
        let remote = map.remote();
        read_lines(&remote, pieces, keep).unwrap();
        for _ in 0..turns {
            map.turn(None).unwrap();
        }
        wait_until("it brings a line", || format!("{remote:?}").contains("queued: 1"));
        drop(map);
        assert_thread_ends(&read);
        came();
    }
}

/// The closure goes with the thread or the map, whichever is last.
#[test]
fn the_closure_is_dropped_in_the_end() {
    let held_by_it = Arc::new(());
    let mut map = held();
    let mine = held_by_it.clone();
    let with_it = move |map: &mut ChannelMap, line: Line<'_>| {
        assert!(Arc::strong_count(&mine) > 1);
        keep(map, line);
    };
    read_lines(&map.remote(), Cursor::new("one\n"), with_it).unwrap();
    run(&mut map).unwrap();
    wait_until("it is dropped", || Arc::strong_count(&held_by_it) == 1);
    assert_eq!(texts(), ["one\n", "END"]);
}

/// A stop is no end of the input: what comes meanwhile is for the next `run`.
#[test]
fn reading_goes_on_after_a_stop() {
    let (give, take) = mpsc::channel::<Vec<u8>>();
    let alive = Arc::new(AtomicUsize::new(0));
    let mut map = held();
    read_lines(&map.remote(), Receives(take, alive.clone()), keep).unwrap();
    for line in ["one\n", "two\n", "three\n"] {
        map.call_soon(|map| map.stop());
        run(&mut map).unwrap();
        give.send(line.into()).unwrap();
        // The thread is given a while in which to find the loop stopped.
        let begun = Instant::now();
        while Arc::strong_count(&alive) > 1 && begun.elapsed() < Duration::from_millis(20) {
            thread::yield_now();
        }
    }
    drop(give);
    map.call_later(Duration::from_secs(2), |map| map.stop());
    run(&mut map).unwrap();
    assert_eq!(texts(), ["one\n", "two\n", "three\n", "END"]);
}

struct Receives(mpsc::Receiver<Vec<u8>>, #[allow(dead_code)] Arc<AtomicUsize>);

impl Read for Receives {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Ok(bytes) = self.0.recv() else { return Ok(0) };
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}
