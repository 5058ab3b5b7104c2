//! Streams: connections that the loop drives, as `Read` and `Write` for threads that may wait. The
//! test's own thread runs the loop, others have the halves.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, count, inject};
use dispatch_loop::stream::{self, StreamReader, StreamWriter};
use dispatch_loop::{
    Address, Channel, ChannelMap, Dispatcher, OnLimit, Remote, SendError, Socket, Token, run,
};
use socket2::SockRef;

use crate::support::memory::peak_memory;
use crate::support::opened::address_of;
use crate::support::peers::{
    black_hole, loopbacks, narrow, narrow_pair, pair, pattern, pattern_at, read_all, reads_all, refusing,
    reset, unix_pair,
};
use crate::support::process::{alone, open_descriptors};
use crate::support::recorder::Log;
use crate::support::threads::{joined, waiting};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

/// More than a stream and the system's buffers, made small, can hold of one direction.
const MUCH: usize = 1 << 20;

const SOON: Duration = Duration::from_millis(20);

/// A map with one stream, open and with little room in its sockets; and its peer, which waits.
fn open(on: SocketAddr) -> (ChannelMap, StreamReader, StreamWriter, TcpStream) {
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = narrow_pair(on);
    narrow(&far, &near);
    let (reader, writer) = stream::add(&mut map, near).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    (map, reader, writer, far)
}

/// Give the sockets much room again: with little, TCP itself makes long pauses when much is sent.
fn widen(map: &mut ChannelMap, token: Token, far: &TcpStream) {
    let ch = map.channel(token).unwrap();
    let near = ch.socket().unwrap();
    for socket in [SockRef::from(&near), SockRef::from(far)] {
        socket.set_recv_buffer_size(256 * 1024).unwrap();
        socket.set_send_buffer_size(256 * 1024).unwrap();
    }
}

/// Run the loop until a thread has ended, and hand on what it returned.
#[track_caller]
fn serve<T>(map: &mut ChannelMap, thread: JoinHandle<T>) -> T {
    turn_until(map, &Log::new(), |_| thread.is_finished());
    thread.join().unwrap()
}

/// One of the patterns that this seed tells apart.
fn seeded(at: usize, seed: usize) -> u8 {
    pattern_at(at).wrapping_add(seed as u8)
}

/// Write a pattern of this many bytes, in pieces of various sizes.
fn write_pattern(to: &mut impl Write, seed: usize, bytes: usize) {
    let (mut at, mut round) = (0, 0);
    while at < bytes {
        round += 1;
        let piece = (round * 7919 % 30_000).min(bytes - at).max(1);
        let piece: Vec<u8> = (at..at + piece).map(|at| seeded(at, seed)).collect();
        to.write_all(&piece).unwrap();
        at += piece.len();
    }
}

/// Read a pattern to the end of the stream; how much it was.
fn check_pattern(from: &mut impl Read, seed: usize, piece: usize) -> usize {
    let (mut at, mut buffer) = (0, vec![0; piece]);
    loop {
        let read = from.read(&mut buffer).unwrap();
        if read == 0 {
            return at;
        }
        for byte in &buffer[..read] {
            assert_eq!(*byte, seeded(at, seed), "byte {at}");
            at += 1;
        }
    }
}

/// Write for as long as there is room; how much that was. It leaves the writer without a time limit.
fn fill(writer: &mut StreamWriter) -> usize {
    let (mut written, mut refused) = (0, 0);
    writer.set_write_timeout(Some(SOON));
    while refused < 4 {
        let piece: Vec<u8> = (written..written + 5000).map(|at| seeded(at, 0)).collect();
        match writer.write(&piece) {
            Ok(taken) => (written, refused) = (written + taken, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                refused += 1;
            }
        }
        assert!(written < MUCH, "it takes all there is");
    }
    writer.set_write_timeout(None);
    written
}

/// The same for the peer, while the test turns the loop.
fn flood(map: &mut ChannelMap, far: &mut TcpStream, token: Token) -> usize {
    let mut written = 0;
    far.set_nonblocking(true).unwrap();
    let mut refused = 0;
    turn_until(map, &Log::new(), |map| {
        let piece: Vec<u8> = (written..written + 5000).map(|at| seeded(at, 0)).collect();
        match far.write(&piece) {
            Ok(taken) => (written, refused) = (written + taken, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
            }
        }
        assert!(written < MUCH, "it takes all there is");
        refused >= 20 && map.channel(token).unwrap().is_paused()
    });
    far.set_nonblocking(false).unwrap();
    written
}

/// Both the error and its text, which must be the same every time.
#[track_caller]
fn failure(reader: &mut StreamReader, writer: &mut StreamWriter) -> io::Error {
    let error = reader.read(&mut [0]).unwrap_err();
    let others = [
        reader.fill_buf().unwrap_err(),
        reader.read(&mut [0; 10]).unwrap_err(),
        writer.write(b"more").unwrap_err(),
        writer.write_eof().unwrap_err(),
    ];
    for other in others {
        assert_eq!((other.kind(), other.to_string()), (error.kind(), error.to_string()));
    }
    error
}

// Reading and writing

#[test]
fn whatever_the_pieces_reading_is_the_same() {
    let text = b"\0\0\x01\x02name;first line\nsecond\r\n\nlast";
    for size in [1, 2, 3, 5, 7, 11, text.len()] {
        let (mut map, mut reader, writer, mut far) = open(loopbacks()[0]);
        let thread = thread::spawn(move || {
            let mut number = [0; 4];
            reader.read_exact(&mut number).unwrap();
            assert_eq!(number, [0, 0, 1, 2]);
            let mut field = Vec::new();
            assert_eq!(reader.read_until(b';', &mut field).unwrap(), 5);
            assert_eq!(field, b"name;");
            assert_eq!(reader.read(&mut []).unwrap(), 0);
            for wanted in ["first line\n", "second\r\n", "\n"] {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                assert_eq!(line, wanted);
            }
            assert!(b"last".starts_with(reader.fill_buf().unwrap()));
            reader.consume(1);
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"ast");
            // The end is for ever.
            for _ in 0..3 {
                assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
                assert!(reader.fill_buf().unwrap().is_empty());
            }
            drop(writer);
        });
        for piece in text.chunks(size) {
            far.write_all(piece).unwrap();
            map.turn(Some(Duration::from_millis(5))).unwrap();
        }
        far.shutdown(Shutdown::Write).unwrap();
        serve(&mut map, thread);
    }
}

/// Each of the four ends is slow when its turn comes. In a process of its own, for the memory.
#[cfg(debug_assertions)]
#[test]
fn eight_mib_both_ways_at_once_take_bounded_memory() {
    const BYTES: usize = 8 << 20;
    alone(None, || {
        let (mut map, mut reader, mut writer, mut far) = open(loopbacks()[0]);
        let token = reader.token();
        let before = peak_memory("self");
        let (mut far_writer, keep) = (far.try_clone().unwrap(), far.try_clone().unwrap());
        let ((go, when), (far_go, far_when)) = (mpsc::channel::<()>(), mpsc::channel::<()>());
        let threads = [
            thread::spawn(move || {
                write_pattern(&mut writer, 1, BYTES);
                writer.write_eof().unwrap();
                writer.drain().unwrap();
            }),
            thread::spawn(move || {
                let _ = when.recv();
                assert_eq!(check_pattern(&mut reader, 2, 7001), BYTES);
            }),
            thread::spawn(move || {
                write_pattern(&mut far_writer, 2, BYTES);
                far_writer.shutdown(Shutdown::Write).unwrap();
            }),
            thread::spawn(move || {
                let _ = far_when.recv();
                assert_eq!(check_pattern(&mut far, 1, 20_001), BYTES);
            }),
        ];
        let (mut sent, mut stuck) = (0, 0);
        turn_until(&mut map, &Log::new(), |map| {
            let sends = count(Call::Send);
            stuck = if sends == sent && map.channel(token).unwrap().is_paused() { stuck + 1 } else { 0 };
            sent = sends;
            stuck == 20
        });
        widen(&mut map, token, &keep);
        drop((go, far_go));
        for thread in threads {
            serve(&mut map, thread);
        }
        run_out(&mut map, &Log::new());
        let grown = peak_memory("self") - before;
        assert!(grown < 4 * 1024, "{grown} KiB more than at the beginning");
    });
}

#[test]
fn a_peer_that_floods_is_made_to_wait_and_nothing_is_lost() {
    for on in loopbacks() {
        let (mut map, mut reader, writer, mut far) = open(on);
        let written = flood(&mut map, &mut far, reader.token());
        assert_calm(&mut map);
        widen(&mut map, reader.token(), &far);
        let rest = thread::spawn(move || {
            let piece: Vec<u8> = (written..written + MUCH).map(|at| seeded(at, 0)).collect();
            far.write_all(&piece).unwrap();
        });
        let thread = thread::spawn(move || {
            let got = check_pattern(&mut reader, 0, 9999);
            drop(writer);
            got
        });
        assert_eq!(serve(&mut map, thread), written + MUCH);
        serve(&mut map, rest);
    }
}

#[test]
fn a_writer_waits_for_its_peer_and_nothing_is_lost() {
    for on in loopbacks() {
        let (mut map, reader, mut writer, far) = open(on);
        let thread = thread::spawn(move || (fill(&mut writer), writer));
        let (written, mut writer) = serve(&mut map, thread);
        assert!(written > 64 * 1024);
        assert!(map.channel(writer.token()).unwrap().queued() <= 64 * 1024);
        assert_calm(&mut map);
        let mut writer = serve(
            &mut map,
            thread::spawn(move || {
                // Not at all.
                writer.set_write_timeout(Some(Duration::ZERO));
                assert_eq!(writer.write(b"no room").unwrap_err().kind(), ErrorKind::TimedOut);
                assert_eq!(writer.drain().unwrap_err().kind(), ErrorKind::TimedOut);
                assert_eq!(writer.write(b"").unwrap(), 0);
                writer.set_write_timeout(None);
                writer
            }),
        );
        let thread = waiting(move || {
            let piece: Vec<u8> = (written..written + MUCH).map(|at| seeded(at, 0)).collect();
            writer.write_all(&piece).unwrap();
        });
        widen(&mut map, reader.token(), &far);
        let peer = thread::spawn(move || check_pattern(&mut &far, 0, 20_000));
        serve(&mut map, thread);
        assert_eq!(serve(&mut map, peer), written + MUCH);
        drop(reader);
        run_out(&mut map, &Log::new());
    }
}

#[cfg(debug_assertions)]
#[test]
fn what_is_written_in_small_pieces_leaves_together_and_in_order() {
    const PIECES: u32 = 10_000;
    let (mut map, reader, mut writer, far) = open(loopbacks()[0]);
    let remote = map.remote();
    let thread = thread::spawn(move || {
        for n in 0..PIECES {
            writer.write_all(&n.to_be_bytes()).unwrap();
            writer.flush().unwrap();
        }
        writer
    });
    // The loop does not turn meanwhile.
    let mut writer = joined(thread);
    assert_eq!(queued(&remote), 1);
    let sends = count(Call::Send);
    let peer = thread::spawn(move || {
        let mut far = BufReader::new(far);
        for n in 0..2 * PIECES {
            let mut piece = [0; 4];
            far.read_exact(&mut piece).unwrap();
            assert_eq!(u32::from_be_bytes(piece), n);
        }
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
    });
    turn_until(&mut map, &Log::new(), |map| {
        queued(&remote) == 0 && map.channel(writer.token()).unwrap().queued() == 0
    });
    let sends = count(Call::Send) - sends;
    assert!((1..=20).contains(&sends), "{sends} sends for one queue");
    // And while it turns.
    let thread = thread::spawn(move || {
        for n in PIECES..2 * PIECES {
            writer.write_all(&n.to_be_bytes()).unwrap();
        }
    });
    serve(&mut map, thread);
    serve(&mut map, peer);
    drop(reader);
    run_out(&mut map, &Log::new());
}

/// How many messages wait, as the remote's `Debug` tells.
fn queued(remote: &Remote) -> usize {
    let digits: String = format!("{remote:?}").chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn drain_waits_until_all_is_sent() {
    for on in loopbacks() {
        let (mut map, _reader, mut writer, far) = open(on);
        let thread = thread::spawn(move || {
            // Nothing was written.
            writer.drain().unwrap();
            let written = fill(&mut writer);
            writer.set_write_timeout(Some(SOON));
            assert_eq!(writer.drain().unwrap_err().kind(), ErrorKind::TimedOut);
            writer.set_write_timeout(None);
            (written, writer)
        });
        let (written, mut writer) = serve(&mut map, thread);
        let token = writer.token();
        let thread = waiting(move || {
            writer.drain().unwrap();
            writer
        });
        for _ in 0..5 {
            map.turn(Some(Duration::from_millis(1))).unwrap();
        }
        assert!(!thread.is_finished());
        let peer = reads_all(far);
        let writer = serve(&mut map, thread);
        assert_eq!(map.channel(token).unwrap().queued(), 0);
        drop(writer);
        assert_eq!(serve(&mut map, peer).0.len(), written);
    }
}

/// And no shorter: a Unix-domain peer has at once what the system has taken. Asked at all moments of
/// the loop's work.
#[cfg(debug_assertions)]
#[test]
fn what_is_drained_is_there() {
    let (near, mut far) = unix_pair();
    far.set_nonblocking(true).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let (_reader, mut writer) = stream::add(&mut map, near).unwrap();
    inject(Call::Send, 0, 500, Fault::Short(3));
    let thread = thread::spawn(move || {
        let (piece, mut got) = (pattern(50_000), vec![0; 50_000]);
        for round in 0..5000 {
            let piece = &piece[..if round < 500 { 10 } else { 50_000 - round % 10 }];
            writer.write_all(piece).unwrap();
            (0..round % 500 * 5).for_each(|_| std::hint::spin_loop());
            writer.drain().unwrap();
            let read = far.read(&mut got).unwrap();
            assert!(&got[..read] == piece, "{read} bytes in round {round}");
        }
    });
    serve(&mut map, thread);
}

/// The end of the stream is under way as well.
#[test]
fn drain_waits_for_the_end_of_the_stream_as_well() {
    for on in loopbacks() {
        let (mut map, _reader, mut writer, far) = open(on);
        let thread = thread::spawn(move || (fill(&mut writer), writer));
        let (written, mut writer) = serve(&mut map, thread);
        let thread = waiting(move || {
            writer.write_eof().unwrap();
            writer.drain().unwrap();
            writer
        });
        for _ in 0..5 {
            map.turn(Some(Duration::from_millis(1))).unwrap();
        }
        assert!(!thread.is_finished());
        let peer = reads_all(far);
        let _writer = serve(&mut map, thread);
        assert_eq!(serve(&mut map, peer).0.len(), written);
    }
}

/// Before the connection is there, `drain` waits for it.
#[test]
fn what_is_written_before_the_connect_ends_is_sent_first() {
    for on in loopbacks() {
        let listener = TcpListener::bind(on).unwrap();
        let address = listener.local_addr().unwrap();
        let mut map = ChannelMap::new().unwrap();
        let (mut reader, mut writer) = stream::connect(&mut map, address).unwrap();
        assert_eq!(reader.peer_addr().unwrap(), Address::Ip(address));
        let thread = waiting(move || {
            writer.write_all(b"early").unwrap();
            writer.drain().unwrap();
            writer.write_all(b" and late").unwrap();
            writer.write_eof().unwrap();
            let mut answer = String::new();
            reader.read_to_string(&mut answer).unwrap();
            (reader, writer, answer)
        });
        let peer = thread::spawn(move || {
            let (mut far, from) = listener.accept().unwrap();
            let got = read_all(&mut far).0;
            far.write_all(b"welcome").unwrap();
            (got, from)
        });
        let (reader, writer, answer) = serve(&mut map, thread);
        let (got, from) = joined(peer);
        assert_eq!((&got[..], &answer[..]), (&b"early and late"[..], "welcome"));
        assert_eq!(writer.local_addr().unwrap(), Address::Ip(from));
        assert_eq!(writer.peer_addr().unwrap(), reader.peer_addr().unwrap());
        assert_eq!(writer.token(), reader.token());
    }
}

#[test]
fn after_write_eof_reading_goes_on() {
    for on in loopbacks() {
        let (mut map, mut reader, mut writer, mut far) = open(on);
        let (answer, answers) = mpsc::channel();
        let thread = thread::spawn(move || {
            writer.write_all(b"question").unwrap();
            writer.write_eof().unwrap();
            writer.write_eof().unwrap();
            assert_eq!(writer.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
            let mut got = [0; 6];
            reader.read_exact(&mut got).unwrap();
            answer.send(got).unwrap();
            assert_eq!(reader.read(&mut got).unwrap(), 0);
            // Of the input that is an end, of the output it is none.
            (reader, writer)
        });
        let peer = thread::spawn(move || {
            let mut got = [0; 8];
            far.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"question");
            assert_eq!(far.read(&mut [0]).unwrap(), 0);
            far.write_all(b"answer").unwrap();
            assert_eq!(answers.recv_timeout(DEADLINE).unwrap(), *b"answer");
        });
        let (mut reader, mut writer) = serve(&mut map, thread);
        serve(&mut map, peer);
        // Both sides have ended: so has the channel, whatever becomes of the halves.
        run_out(&mut map, &Log::new());
        thread::spawn(move || {
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
            assert_eq!(writer.write(b"?").unwrap_err().kind(), ErrorKind::BrokenPipe);
            writer.drain().unwrap();
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_time_limit_loses_nothing() {
    let (mut map, mut reader, writer, mut far) = open(loopbacks()[0]);
    let (sent, when_sent) = mpsc::channel();
    let (told, when_told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut line = Vec::new();
        for limit in [Some(SOON), Some(Duration::ZERO)] {
            reader.set_read_timeout(limit);
            assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
            assert_eq!(reader.fill_buf().unwrap_err().kind(), ErrorKind::TimedOut);
        }
        reader.set_read_timeout(Some(SOON));
        told.send(()).unwrap();
        when_sent.recv().unwrap();
        while line != b"half a " {
            assert_eq!(reader.read_until(b'\n', &mut line).unwrap_err().kind(), ErrorKind::TimedOut);
        }
        told.send(()).unwrap();
        reader.set_read_timeout(Some(Duration::MAX));
        reader.read_until(b'\n', &mut line).unwrap();
        assert_eq!(line, b"half a line\n");
        // What is there needs no time.
        reader.set_read_timeout(Some(Duration::ZERO));
        assert_eq!(reader.read(&mut [0; 10]).unwrap(), 4);
        drop(writer);
    });
    let heard = |map: &mut ChannelMap| turn_until(map, &Log::new(), |_| when_told.try_recv().is_ok());
    heard(&mut map);
    far.write_all(b"half a ").unwrap();
    sent.send(()).unwrap();
    heard(&mut map);
    far.write_all(b"line\nrest").unwrap();
    serve(&mut map, thread);
}

// Ends

/// Whoever waits is told, and so is whoever comes while the loop is stopped. What was read before
/// can still be had. With the next run all goes on.
#[test]
fn a_stop_ends_every_wait_and_the_next_run_goes_on() {
    for on in loopbacks() {
        for drains in [false, true] {
            let (mut map, mut reader, mut writer, mut far) = open(on);
            let thread = thread::spawn(move || (fill(&mut writer), writer));
            let (written, mut writer) = serve(&mut map, thread);
            let reading = waiting(move || (reader.read(&mut [0; 10]).unwrap_err(), reader));
            let writing = waiting(move || {
                let result = if drains { writer.drain() } else { writer.write(b"more").map(drop) };
                (result.unwrap_err(), writer)
            });
            map.stop();
            run(&mut map).unwrap();
            let ((error, mut reader), (other, mut writer)) = (joined(reading), joined(writing));
            for error in [error, other] {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                assert!(error.to_string().contains("the loop was stopped"), "{error}");
            }
            let thread = thread::spawn(move || {
                let error = failure(&mut reader, &mut writer);
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                assert_eq!(writer.drain().unwrap_err().kind(), ErrorKind::BrokenPipe);
                (reader, writer)
            });
            let (mut reader, mut writer) = joined(thread);
            let thread = thread::spawn(move || {
                let mut got = String::new();
                reader.set_read_timeout(Some(DEADLINE));
                while let Err(error) = reader.read_to_string(&mut got) {
                    // Not before the run that is about to begin.
                    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                    thread::yield_now();
                }
                assert_eq!(got, "and on");
                let piece: Vec<u8> = (written..written + 1000).map(|at| seeded(at, 0)).collect();
                writer.write_all(&piece).unwrap();
            });
            far.write_all(b"and on").unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            let peer = thread::spawn(move || check_pattern(&mut far, 0, 20_000));
            run_out(&mut map, &Log::new());
            joined(thread);
            assert_eq!(joined(peer), written + 1000);
        }
    }
}

/// What was read while it ran can still be had, and is not lost by it that the loop cannot be asked
/// for more.
#[test]
fn a_stop_in_the_middle_of_a_flood_loses_nothing() {
    for on in loopbacks() {
        let (mut map, mut reader, writer, mut far) = open(on);
        let written = flood(&mut map, &mut far, reader.token());
        map.stop();
        run(&mut map).unwrap();
        let thread = thread::spawn(move || {
            let (mut got, mut piece) = (0, [0; 1000]);
            let error = loop {
                match reader.read(&mut piece) {
                    Ok(read) => got += read,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            assert!((64 * 1024..written).contains(&got));
            (got, reader)
        });
        let (got, mut reader) = joined(thread);
        far.shutdown(Shutdown::Write).unwrap();
        let thread = thread::spawn(move || {
            let mut rest = Vec::new();
            while let Err(error) = reader.read_to_end(&mut rest) {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                thread::yield_now();
            }
            drop(writer);
            rest
        });
        run_out(&mut map, &Log::new());
        let rest = joined(thread);
        assert!(rest.iter().enumerate().all(|(at, byte)| *byte == pattern_at(got + at)));
        assert_eq!(got + rest.len(), written);
    }
}

/// What is refused has left no trace, what is taken arrives.
#[test]
fn a_loop_that_stops_all_the_time_loses_nothing() {
    const BYTES: usize = 1 << 20;
    fn again<T>(mut f: impl FnMut() -> io::Result<T>) -> T {
        loop {
            match f() {
                Ok(value) => return value,
                Err(error) => assert_eq!(error.kind(), ErrorKind::BrokenPipe),
            }
            thread::yield_now();
        }
    }
    for on in loopbacks() {
        let (mut map, mut reader, mut writer, far) = open(on);
        widen(&mut map, reader.token(), &far);
        let writing = thread::spawn(move || {
            let mut at = 0;
            while at < BYTES {
                let end = BYTES.min(at + 1 + at % 3000);
                let piece: Vec<u8> = (at..end).map(|at| seeded(at, 0)).collect();
                at += again(|| writer.write(&piece));
            }
            again(|| writer.write_eof());
            again(|| writer.drain());
        });
        let reading = thread::spawn(move || {
            let (mut at, mut piece) = (0, [0; 5000]);
            loop {
                match again(|| reader.read(&mut piece)) {
                    0 => return at,
                    read => piece[..read].iter().for_each(|byte| {
                        assert_eq!(*byte, seeded(at, 0));
                        at += 1;
                    }),
                }
            }
        });
        let peer = thread::spawn(move || io::copy(&mut &far, &mut &far).unwrap());
        let (deadline, mut runs) = (Instant::now() + DEADLINE, 0);
        while !map.is_empty() {
            assert!(Instant::now() < deadline, "after {runs} runs");
            map.call_later(Duration::from_micros(200), |map| map.stop());
            run(&mut map).unwrap();
            runs += 1;
        }
        joined(writing);
        assert_eq!((joined(reading), joined(peer)), (BYTES, BYTES as u64));
        assert!(runs > 10);
    }
}

#[test]
fn the_end_of_the_map_ends_every_wait() {
    for on in loopbacks() {
        for drains in [false, true] {
            let (mut map, mut reader, mut writer, far) = open(on);
            let thread = thread::spawn(move || {
                fill(&mut writer);
                writer
            });
            let mut writer = serve(&mut map, thread);
            let reading = waiting(move || (reader.read(&mut [0; 10]).unwrap_err(), reader));
            let writing = waiting(move || {
                let result = if drains { writer.drain() } else { writer.write(b"more").map(drop) };
                (result.unwrap_err(), writer)
            });
            drop(map);
            let ((error, mut reader), (other, mut writer)) = (joined(reading), joined(writing));
            for error in [error, other] {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            }
            let thread = thread::spawn(move || {
                let error = failure(&mut reader, &mut writer);
                assert_eq!(error.to_string(), "the channel map ended");
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                // Half a queue was not sent.
                assert_eq!(writer.drain().unwrap_err().kind(), ErrorKind::BrokenPipe);
            });
            joined(thread);
            drop(far);
        }
    }
}

#[test]
fn a_reset_is_an_error_after_all_that_came_before_it() {
    for on in loopbacks() {
        let (mut map, mut reader, mut writer, mut far) = open(on);
        far.write_all(b"half a message").unwrap();
        let (told, when_told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut got = [0; 5];
            reader.read_exact(&mut got).unwrap();
            told.send(()).unwrap();
            let mut got = Vec::new();
            let error = reader.read_to_end(&mut got).unwrap_err();
            assert_eq!(got, b"a message");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
            assert_eq!(failure(&mut reader, &mut writer).raw_os_error(), Some(libc::ECONNRESET));
        });
        turn_until(&mut map, &Log::new(), |_| when_told.try_recv().is_ok());
        reset(far);
        serve(&mut map, thread);
        run_out(&mut map, &Log::new());
    }
}

#[test]
fn a_connect_that_fails_is_everybodys_error() {
    for on in loopbacks() {
        let (_kept, address) = refusing(on);
        let mut map = ChannelMap::new().unwrap();
        let (mut reader, mut writer) = stream::connect(&mut map, address).unwrap();
        let thread = thread::spawn(move || {
            let _ = writer.write(b"perhaps it is not known yet");
            assert_eq!(writer.drain().unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
            let error = failure(&mut reader, &mut writer);
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        });
        run_out(&mut map, &Log::new());
        joined(thread);
        assert_eq!(stream::connect(&mut map, "localhost").unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

/// None of that is an end of the stream.
#[test]
fn what_the_loop_does_to_a_stream_is_an_error() {
    for on in loopbacks() {
        for (end, kind, text) in [
            ("close", ErrorKind::ConnectionAborted, "ended by the loop: closed"),
            ("abort", ErrorKind::ConnectionAborted, "ended by the loop: aborted"),
            ("timeout", ErrorKind::ConnectionAborted, "ended by the loop: timed out"),
            ("replace", ErrorKind::ConnectionAborted, "another dispatcher"),
            ("limit", ErrorKind::QuotaExceeded, "over the limit of 10"),
            ("end at limit", ErrorKind::ConnectionAborted, "over the limit"),
        ] {
            let (mut map, mut reader, mut writer, far) = open(on);
            let token = reader.token();
            let mut ch = map.channel(token).unwrap();
            match end {
                "close" => ch.close(),
                "abort" => ch.abort(),
                "timeout" => ch.set_timeout(Some(Duration::from_millis(1))),
                "replace" => drop(ch.replace_dispatcher(Idle).unwrap()),
                "limit" => ch.set_limit(10, OnLimit::Refuse),
                _ => ch.set_limit(10, OnLimit::End),
            }
            let writing = end.contains("limit");
            let thread = thread::spawn(move || {
                if writing {
                    writer.write_all(b"eleven or more").unwrap();
                    writer.drain().unwrap_err();
                }
                let error = reader.read(&mut [0]).unwrap_err();
                assert!(error.kind() == kind && error.to_string().contains(text), "{end}: {error:?}");
                assert_eq!(failure(&mut reader, &mut writer).to_string(), error.to_string());
            });
            serve(&mut map, thread);
            drop(far);
            run_out(&mut map, &Log::new());
        }
    }
}

struct Idle;

impl Dispatcher for Idle {}

/// Nobody is told of a write that fails but who asks; and what comes the other way still comes.
#[cfg(debug_assertions)]
#[test]
fn a_peer_that_reads_no_more_may_still_send() {
    for late in [false, true] {
        let (near, mut far) = unix_pair();
        let mut map = ChannelMap::new().unwrap();
        let (mut reader, mut writer) = stream::add(&mut map, near).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        if late {
            // The first send goes no further than the queue, and the second one fails.
            inject(Call::Send, 0, 1, Fault::Short(3));
            inject(Call::Send, 0, 1, Fault::Errno(libc::EPIPE));
        } else {
            far.shutdown(Shutdown::Read).unwrap();
        }
        let (answer, answers) = mpsc::channel();
        let thread = thread::spawn(move || {
            writer.write_all(b"nobody reads this").unwrap();
            assert_eq!(writer.drain().unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(writer.write(b"nor this").unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(writer.write_eof().unwrap_err().kind(), ErrorKind::BrokenPipe);
            answer.send(()).unwrap();
            let mut got = [0; 5];
            reader.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"still");
        });
        turn_until(&mut map, &Log::new(), |_| answers.try_recv().is_ok());
        far.write_all(b"still").unwrap();
        serve(&mut map, thread);
        drop(far);
        run_out(&mut map, &Log::new());
    }
}

// The wrong thread

#[test]
fn the_loops_own_thread_is_refused_at_once() {
    let (mut map, mut reader, mut writer, mut far) = open(loopbacks()[0]);
    far.write_all(b"hello").unwrap();
    map.turn(Some(DEADLINE)).unwrap();
    // Each might be answered without waiting.
    let errors = [
        reader.read(&mut [0]).unwrap_err(),
        reader.fill_buf().map(drop).unwrap_err(),
        writer.write(b"to nobody").unwrap_err(),
        writer.drain().unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
    }
    let thread = thread::spawn(move || {
        reader.read_exact(&mut [0]).unwrap();
        reader
    });
    let mut reader = serve(&mut map, thread);
    // What it has is its own.
    assert_eq!(reader.fill_buf().unwrap(), b"ello");
    assert_eq!(reader.read(&mut [0; 10]).unwrap(), 4);
    assert_eq!(reader.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::Deadlock);
    // That does not wait.
    writer.write_eof().unwrap();
    drop((reader, writer));
    run_out(&mut map, &Log::new());
    assert_eq!(read_all(&mut far).0, b"");
}

/// Rule 15: it does not wait for room either.
#[test]
fn a_thread_with_a_map_of_its_own_does_not_wait_for_another_loop() {
    let (mut map, reader, mut writer, mut far) = {
        let mut map = ChannelMap::new().unwrap();
        map.set_remote_capacity(1);
        let (near, far) = pair(loopbacks()[0]);
        let (reader, writer) = stream::add(&mut map, near).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        (map, reader, writer, far)
    };
    let remote = map.remote();
    remote.call(|_| ()).unwrap();
    let thread = thread::spawn(move || {
        let own = ChannelMap::new().unwrap();
        assert_eq!(writer.write(b"no room").unwrap_err().kind(), ErrorKind::Deadlock);
        // An end is told all the same, later.
        drop((writer, reader, own));
    });
    joined(thread);
    assert!(matches!(remote.call(|_| ()), Err(SendError::Full(_))));
    run_out(&mut map, &Log::new());
    assert_eq!(read_all(&mut far).0, b"");
}

// Drops

#[test]
fn a_dropped_writer_ends_its_half() {
    for on in loopbacks() {
        for queue in [false, true] {
            let (mut map, mut reader, mut writer, mut far) = open(on);
            let thread = thread::spawn(move || match queue {
                true => fill(&mut writer),
                false => 0,
            });
            let written = serve(&mut map, thread);
            let peer = thread::spawn(move || {
                let got = check_pattern(&mut far, 0, 20_000);
                far.write_all(b"still open").unwrap();
                got
            });
            let thread = thread::spawn(move || {
                let mut got = String::new();
                reader.read_to_string(&mut got).unwrap();
                assert_eq!(got, "still open");
                reader
            });
            assert_eq!(serve(&mut map, peer), written);
            // Its peer has ended as well: so does the channel.
            let reader = serve(&mut map, thread);
            run_out(&mut map, &Log::new());
            drop(reader);
        }
    }
}

/// The peer floods, before and after; what it sends goes nowhere, and the other way is open.
#[test]
fn a_dropped_reader_lets_everything_pass() {
    alone(None, || {
        for on in loopbacks() {
            for paused in [false, true] {
                let (mut map, reader, mut writer, mut far) = open(on);
                if paused {
                    flood(&mut map, &mut far, reader.token());
                }
                widen(&mut map, reader.token(), &far);
                drop(reader);
                let before = peak_memory("self");
                let peer = thread::spawn(move || {
                    let piece = [0; 10_000];
                    (0..1600).for_each(|_| far.write_all(&piece).unwrap());
                    far
                });
                let mut far = serve(&mut map, peer);
                turn_idle(&mut map);
                assert_calm(&mut map);
                let thread = thread::spawn(move || {
                    writer.write_all(b"this way it is open").unwrap();
                    writer.drain().unwrap();
                    writer
                });
                let mut writer = serve(&mut map, thread);
                let mut got = [0; 19];
                far.read_exact(&mut got).unwrap();
                assert_eq!(&got, b"this way it is open");
                // The end is noticed, and is not the end of the other half.
                far.shutdown(Shutdown::Write).unwrap();
                turn_idle(&mut map);
                assert_calm(&mut map);
                let thread = thread::spawn(move || writer.write_all(b"and still is").unwrap());
                serve(&mut map, thread);
                run_out(&mut map, &Log::new());
                assert_eq!(read_all(&mut far).0, b"and still is");
                let grown = peak_memory("self") - before;
                assert!(grown < 2048, "{grown} KiB more than at the beginning");
            }
        }
    });
}

#[test]
fn when_both_are_dropped_what_was_written_is_sent_and_the_channel_ends() {
    for on in loopbacks() {
        for writer_first in [true, false] {
            let (mut map, reader, mut writer, mut far) = open(on);
            let thread = thread::spawn(move || {
                let written = fill(&mut writer);
                match writer_first {
                    true => drop((writer, reader)),
                    false => drop((reader, writer)),
                }
                written
            });
            let written = serve(&mut map, thread);
            // It is closing already, because of a peer that might never take it.
            turn_until(&mut map, &Log::new(), |map| {
                map.tokens().collect::<Vec<_>>().iter().all(|token| map.channel(*token).unwrap().is_closing())
            });
            assert_eq!(map.len(), 1);
            // A peer that sends is no reason to reset the connection.
            far.write_all(b"are you there?").unwrap();
            let peer = thread::spawn(move || check_pattern(&mut far, 0, 20_000));
            run_out(&mut map, &Log::new());
            assert_eq!(joined(peer), written);
        }
    }
}

/// Before the loop has even looked at it.
#[test]
fn streams_that_are_dropped_while_connecting_send_what_was_written() {
    for on in loopbacks() {
        for connecting in [true, false] {
            let listener = TcpListener::bind(on).unwrap();
            let mut map = ChannelMap::new().unwrap();
            let address = listener.local_addr().unwrap();
            let (reader, mut writer) = match connecting {
                true => stream::connect(&mut map, address).unwrap(),
                false => stream::add(&mut map, TcpStream::connect(address).unwrap()).unwrap(),
            };
            let thread = thread::spawn(move || {
                writer.write_all(b"and good bye").unwrap();
                drop(reader);
            });
            joined(thread);
            let peer = thread::spawn(move || read_all(&mut listener.accept().unwrap().0).0);
            run_out(&mut map, &Log::new());
            assert_eq!(joined(peer), b"and good bye");
        }
    }
}

/// While it has been looking at it for a while.
#[test]
#[cfg(target_os = "linux")]
fn streams_that_are_dropped_during_a_slow_connect_send_what_was_written() {
    let on = loopbacks()[0];
    let (listener, filling, address) = black_hole(on);
    let mut map = ChannelMap::new().unwrap();
    let (reader, mut writer) = stream::connect(&mut map, address).unwrap();
    let thread = thread::spawn(move || {
        writer.write_all(b"and good bye").unwrap();
        drop(reader);
    });
    joined(thread);
    turn_idle(&mut map);
    assert_calm(&mut map);
    let listener = TcpListener::from(std::os::fd::OwnedFd::from(listener));
    let peer = thread::spawn(move || {
        drop(filling);
        let mut peers = listener.incoming().map(|far| read_all(&mut far.unwrap()).0);
        peers.find(|got| !got.is_empty())
    });
    run_out(&mut map, &Log::new());
    assert_eq!(joined(peer).unwrap(), b"and good bye");
}

/// Nobody can tell a stopped loop anything; but this it hears as soon as it runs.
#[test]
fn streams_that_are_dropped_while_the_loop_is_stopped_end_with_the_next_run() {
    for on in loopbacks() {
        let (mut map, reader, mut writer, mut far) = open(on);
        let (mut other, mut other_writer) = {
            let (near, far) = pair(on);
            let (reader, writer) = stream::add(&mut map, near).unwrap();
            drop((reader, writer.token()));
            (far, writer)
        };
        let thread = thread::spawn(move || {
            writer.write_all(b"before").unwrap();
            other_writer.write_all(b"before").unwrap();
            (writer, other_writer)
        });
        let (writer, other_writer) = serve(&mut map, thread);
        map.stop();
        run(&mut map).unwrap();
        drop((reader, writer, other_writer));
        run_out(&mut map, &Log::new());
        assert_eq!(read_all(&mut far).0, b"before");
        assert_eq!(read_all(&mut other).0, b"before");
    }
}

/// A drop posts to the loop and is never refused: with threads that wait for the loop in its stead, these
/// made 3,001.
#[test]
fn streams_that_are_dropped_while_the_loop_is_stopped_start_no_thread() {
    const STREAMS: usize = 1500;
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count());
    alone(Some(2000), || {
        for runs_again in [true, false] {
            let descriptors = open_descriptors();
            let mut map = ChannelMap::new().unwrap();
            map.set_remote_capacity(4);
            let mut halves = Vec::new();
            for _ in 0..STREAMS / 2 {
                let (one, other) = unix_pair();
                halves.push(stream::add(&mut map, one).unwrap());
                halves.push(stream::add(&mut map, other).unwrap());
            }
            turn_idle(&mut map);
            map.stop();
            run(&mut map).unwrap();
            let before = threads();
            // Here, where nothing may wait for the loop, and on a thread that could.
            let there = halves.split_off(STREAMS / 2);
            drop(halves);
            thread::spawn(|| drop(there)).join().unwrap();
            assert_eq!(threads(), before, "threads");
            assert_eq!(map.len(), STREAMS);
            if runs_again {
                run_out(&mut map, &Log::new());
            }
            drop(map);
            assert_eq!(open_descriptors(), descriptors, "descriptors");
        }
    });
}

/// As when the thread that it was made for could not be started; and the queue has no room.
#[test]
fn a_stream_that_is_dropped_in_a_hook_ends() {
    struct Server;
    impl Dispatcher for Server {
        fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
            let remote = ch.map_mut().remote();
            while remote.call(|_| ()).is_ok() {}
            drop(stream::add(ch.map_mut(), socket)?);
            ch.close();
            Ok(())
        }
    }
    for on in loopbacks() {
        let mut map = ChannelMap::new().unwrap();
        map.set_remote_capacity(4);
        let listener = map.listen(on, Server).unwrap();
        let mut far = TcpStream::connect(address_of(&mut map, listener)).unwrap();
        run_out(&mut map, &Log::new());
        assert_eq!(read_all(&mut far).0, b"");
    }
}

// Crowds

/// Messages come at all moments of the loop's work on those before them, some of which the system takes
/// only in part; none may be forgotten. Then the answer to all is waited for.
#[cfg(debug_assertions)]
#[test]
fn no_moment_is_a_wrong_one_to_write() {
    const ROUNDS: u32 = 5000;
    let (mut map, mut reader, mut writer, far) = open(loopbacks()[0]);
    let thread = thread::spawn(move || {
        reader.set_read_timeout(Some(DEADLINE / 2));
        for round in 0..ROUNDS {
            writer.write_all(b"ab").unwrap();
            (0..round % 7 * 50).for_each(|_| std::hint::spin_loop());
            writer.write_all(b"c").unwrap();
            (0..round % 500 * 5).for_each(|_| std::hint::spin_loop());
            writer.write_all(b"d").unwrap();
            let mut got = [0; 4];
            reader.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"abcd");
        }
    });
    let peer = thread::spawn(move || io::copy(&mut &far, &mut &far).unwrap());
    turn_until(&mut map, &Log::new(), |_| {
        dispatch_loop::faults::clear();
        inject(Call::Send, 0, 1, Fault::Short(1));
        thread.is_finished()
    });
    thread.join().unwrap();
    assert_eq!(serve(&mut map, peer), u64::from(ROUNDS) * 4);
}

/// Clients and servers, each with a thread of its own, all on one loop.
#[test]
fn a_hundred_conversations_at_once_all_come_to_their_end() {
    const ROUNDS: usize = 50;
    struct Server(mpsc::Sender<JoinHandle<()>>);
    impl Dispatcher for Server {
        fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
            let (reader, mut writer) = stream::add(ch.map_mut(), socket)?;
            let thread = thread::spawn(move || {
                for line in reader.lines() {
                    writeln!(writer, "you said {}", line.unwrap()).unwrap();
                }
            });
            self.0.send(thread).unwrap();
            Ok(())
        }
    }
    let mut map = ChannelMap::new().unwrap();
    let (threads, servers) = mpsc::channel();
    let listener = map.listen("127.0.0.1:0", Server(threads)).unwrap();
    let address = address_of(&mut map, listener);
    let clients: Vec<_> = (0..100)
        .map(|number| {
            let (mut reader, mut writer) = stream::connect(&mut map, address).unwrap();
            thread::spawn(move || {
                let mut line = String::new();
                for round in 0..ROUNDS {
                    writeln!(writer, "{number} {round}").unwrap();
                    line.clear();
                    reader.read_line(&mut line).unwrap();
                    assert_eq!(line, format!("you said {number} {round}\n"));
                }
                writer.write_eof().unwrap();
                assert_eq!(reader.read(&mut [0]).unwrap(), 0);
            })
        })
        .collect();
    for client in clients {
        serve(&mut map, client);
    }
    turn_until(&mut map, &Log::new(), |map| map.len() == 1);
    assert_eq!(servers.try_iter().map(|server| server.join().unwrap()).count(), 100);
}

#[test]
fn the_halves_are_send_and_named_and_a_listener_is_no_stream() {
    fn is_send<T: Send>(_: &T) {}
    let (map, reader, writer, _far) = open(loopbacks()[0]);
    is_send(&reader);
    is_send(&writer);
    let token = reader.token();
    assert_eq!(format!("{reader:?}"), format!("StreamReader {{ token: {token:?}, buffered: 0, .. }}"));
    assert_eq!(format!("{writer:?}"), format!("StreamWriter {{ token: {token:?}, .. }}"));
    drop(map);
    let mut map = ChannelMap::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(stream::add(&mut map, listener).unwrap_err().kind(), ErrorKind::InvalidInput);
    run_out(&mut map, &Log::new());
}
