//! Closing, second edition: EDGE_CASES 54 to 63. Slow readers, lingering, what is cut short, what closing
//! waits for. (29 to 34 are in `close.rs`.)

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dispatch_loop::{ChannelMap, More, Source, Token};
use socket2::SockRef;

use crate::support::opened::{opened, opened_on, view};
use crate::support::peers::{
    cut_short, loopbacks, narrow_pair, pair, pattern, read_all, reads_all, refusing, reset, unix_pair,
};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{run_out, turn_quiet, turn_until, waits_in};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A pair in whose near end much waits that the far one cannot take yet: bytes leave all the time, but
/// there is room for more only when a third of the buffer is free.
fn deep_pair(buffer: usize) -> (TcpStream, TcpStream) {
    let (near, far) = pair(loopbacks()[0]);
    SockRef::from(&near).set_send_buffer_size(buffer).unwrap();
    SockRef::from(&far).set_recv_buffer_size(16 * 1024).unwrap();
    (near, far)
}

/// Reads 2 KiB every 25 ms for `slow`, and then all the rest.
fn reads_slowly(mut far: TcpStream, slow: Duration) -> JoinHandle<(Vec<u8>, io::Result<()>)> {
    thread::spawn(move || {
        let begun = Instant::now();
        let mut got = Vec::new();
        while begun.elapsed() < slow {
            let mut chunk = [0; 2048];
            match far.read(&mut chunk) {
                Ok(0) => return (got, Ok(())),
                Ok(read) => got.extend_from_slice(&chunk[..read]),
                Err(error) => return (got, Err(error)),
            }
            thread::sleep(25 * MILLISECOND);
        }
        let (rest, end) = read_all(&mut far);
        got.extend(rest);
        (got, end)
    })
}

#[track_caller]
fn got_all(reader: JoinHandle<(Vec<u8>, io::Result<()>)>, all: &[u8]) {
    let (got, end) = reader.join().unwrap();
    end.unwrap_or_else(|error| panic!("{error} after {} bytes of {}", got.len(), all.len()));
    assert!(got == all, "{} bytes of {}", got.len(), all.len());
}

/// A source that takes everything at once and passes it on when there is room.
struct Greedy {
    wire: TcpStream,
    inside: Vec<u8>,
}

impl Source for Greedy {
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        Some(self.wire.as_fd())
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.read(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inside.extend_from_slice(bytes);
        match self.wire.write(&self.inside) {
            Ok(sent) => drop(self.inside.drain(..sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(bytes.len())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn output_pending(&self) -> bool {
        !self.inside.is_empty()
    }
}

fn greedy(on: std::net::SocketAddr) -> (Greedy, TcpStream) {
    let (wire, far) = narrow_pair(on);
    wire.set_nonblocking(true).unwrap();
    (Greedy { wire, inside: Vec::new() }, far)
}

/// EDGE_CASES 59: nothing is queued, but the source has not passed on what it took.
#[test]
fn what_a_source_still_holds_is_cut_short_with_a_reset() {
    for on in loopbacks() {
        for closing in [false, true] {
            for how in ["drop", "error", "timeout"] {
                let log = Log::new();
                let (source, far) = greedy(on);
                let mut map = ChannelMap::new().unwrap();
                let recorder = Recorder::new("a", &log).on("timeout", |ch| {
                    ch.time_out();
                    Ok(())
                });
                let handle = map.add_source(source, recorder).unwrap();
                let token = handle.token();
                turn_until(&mut map, &log, |_| log.has("a open"));
                view(&mut map, token).push(&pattern(4_000_000)).unwrap();
                turn_quiet(&mut map);
                assert_eq!(view(&mut map, token).queued(), 0, "the source has it all");
                match how {
                    _ if closing => {
                        view(&mut map, token).set_close_timeout(20 * MILLISECOND);
                        view(&mut map, token).close();
                        turn_quiet(&mut map);
                    }
                    "error" => {
                        let _ =
                            map.with(handle, |_, _| -> io::Result<()> { Err(io::Error::other("no more")) });
                    }
                    "timeout" => view(&mut map, token).set_timeout(Some(20 * MILLISECOND)),
                    _ => {}
                }
                if how != "drop" {
                    run_out(&mut map, &log);
                }
                drop(map);
                let got = cut_short(far);
                assert!(got.len() < 4_000_000, "{how}");
            }
        }
    }
}

/// EDGE_CASES 59: the map goes while a hook of the channel runs.
#[test]
fn a_map_that_is_dropped_inside_a_hook_resets_what_is_cut_short() {
    for on in loopbacks() {
        for own in [false, true] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let recorder = Recorder::new("a", &log).on("open", |ch| {
                ch.push(&pattern(4_000_000))?;
                drop(std::mem::replace(ch.map_mut(), ChannelMap::new()?));
                Ok(())
            });
            let mut far = match own {
                true => {
                    let (source, far) = greedy(on);
                    map.add_source(source, recorder).unwrap();
                    far
                }
                false => {
                    let (near, far) = narrow_pair(on);
                    map.add(near, recorder).unwrap();
                    far
                }
            };
            map.turn(Some(Duration::ZERO)).unwrap();
            assert!(log.closed("a"));
            let (got, end) = read_all(&mut far);
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "after {} bytes", got.len());
        }
    }
}

