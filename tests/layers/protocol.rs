//! Protocol and Transport: the callbacks, in their order; what is written, and what it costs.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, count, inject};
use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, Eof, Handle, OnLimit, Reason, Source, Token};

use crate::support::echo::Echo;
use crate::support::heap;
use crate::support::logging::capture_log;
use crate::support::peers::{
    black_hole, loopbacks, narrow, narrow_pair, pair, pattern, read_all, read_now, refusing, unix_pair,
};
use crate::support::recorder::{Log, text};
use crate::support::turning::{arrive, assert_calm, turn_quiet, turn_until};
use crate::support::waiting::DEADLINE;

type Hook = Box<dyn FnMut(&mut Transport<'_>, &[u8]) -> io::Result<()>>;

/// Records every callback: `"NAME made"`, `data …`, `eof`, `pause`, `resume`, `lost: …`; then does
/// what `on` gave for it.
struct Spoken {
    name: &'static str,
    log: Log,
    hooks: HashMap<&'static str, Hook>,
    eof: Eof,
}

impl Spoken {
    fn new(name: &'static str, log: &Log) -> Spoken {
        Spoken { name, log: log.clone(), hooks: HashMap::new(), eof: Eof::Close }
    }

    fn on(
        mut self,
        hook: &'static str,
        f: impl FnMut(&mut Transport<'_>, &[u8]) -> io::Result<()> + 'static,
    ) -> Self {
        self.hooks.insert(hook, Box::new(f));
        self
    }

    fn eof(mut self, eof: Eof) -> Self {
        self.eof = eof;
        self
    }

    fn ran(&mut self, hook: &'static str, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
        let shown = if hook == "data" { format!(" {}", data.escape_ascii()) } else { String::new() };
        self.log.add(format!("{} {hook}{shown}", self.name));
        match self.hooks.get_mut(hook) {
            Some(f) => f(transport, data),
            None => Ok(()),
        }
    }
}

impl Protocol for Spoken {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        self.ran("made", transport, &[])
    }
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
        assert!(!data.is_empty());
        self.ran("data", transport, data)
    }
    fn eof_received(&mut self, transport: &mut Transport<'_>) -> io::Result<Eof> {
        self.ran("eof", transport, &[])?;
        Ok(self.eof)
    }
    fn pause_writing(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        self.ran("pause", transport, &[])
    }
    fn resume_writing(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        self.ran("resume", transport, &[])
    }
    fn connection_lost(&mut self, transport: &mut Transport<'_>, reason: &Reason) {
        assert!(transport.is_closing() && !transport.is_reading());
        self.log.add(format!("{} lost: {reason}", self.name));
        if let Some(f) = self.hooks.get_mut("lost") {
            let _ = f(transport, &[]);
        }
    }
}

type SpokenHandle = Handle<ProtocolDispatcher<Spoken>>;

/// A map with one connection that is made, and the blocking other end.
fn made(on: SocketAddr, protocol: Spoken) -> (ChannelMap, SpokenHandle, TcpStream) {
    let (near, far) = pair(on);
    let mut map = ChannelMap::new().unwrap();
    let handle = map.add(near, ProtocolDispatcher::new(protocol)).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    (map, handle, far)
}

/// Reach the transport from outside.
fn reach<R>(
    map: &mut ChannelMap,
    handle: SpokenHandle,
    f: impl FnOnce(&mut Transport<'_>) -> io::Result<R>,
) -> R {
    map.with(handle, |protocol, ch| protocol.with(ch, |_, transport| f(transport))).unwrap()
}

// The callbacks.

#[test]
fn the_callbacks_come_in_their_order() {
    for on in loopbacks() {
        for connects in [false, true] {
            let log = Log::new();
            let listener = TcpListener::bind(on).unwrap();
            let address = listener.local_addr().unwrap();
            let mut map = ChannelMap::new().unwrap();
            let protocol = Spoken::new("a", &log).on("made", |transport, _| {
                assert!(transport.channel().is_connected() && transport.is_reading());
                transport.write(b"hello")
            });
            let handle = match connects {
                true => map.connect(address, ProtocolDispatcher::new(protocol)),
                false => map.add(TcpStream::connect(address).unwrap(), ProtocolDispatcher::new(protocol)),
            };
            let handle = handle.unwrap();
            let (mut far, _) = listener.accept().unwrap();
            far.write_all(b"one").unwrap();
            turn_until(&mut map, &log, |_| log.has("a data one"));
            assert_eq!(map.get(handle).unwrap().inner().name, "a");
            far.write_all(b"two").unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            turn_until(&mut map, &log, |map| map.is_empty());
            let got = read_all(&mut far);
            assert_eq!(got.0, b"hello");
            assert_eq!(log.of("a"), ["made", "data one", "data two", "eof", "lost: end of stream"]);
        }
    }
}

/// Every way to end, and `connection_lost` once, as the last.
#[cfg(debug_assertions)]
#[test]
fn every_connection_is_lost_once() {
    let ways = [
        "eof",
        "close",
        "abort",
        "reset",
        "write",
        "error",
        "panic",
        "made",
        "eof fails",
        "pause",
        "timeout",
        "flush",
        "limit",
        "broadcast",
        "drop",
        "with",
        "refused",
        "closed while connecting",
    ];
    for on in loopbacks() {
        for way in ways {
            capture_log();
            let log = Log::new();
            let fails = |_: &mut Transport<'_>, _: &[u8]| Err(io::Error::other("on purpose"));
            let mut protocol = Spoken::new("a", &log).on("lost", |transport, _| {
                assert!(transport.channel().socket().is_none() && transport.peer_addr().is_ok());
                transport.close();
                transport.abort();
                Ok(())
            });
            protocol = match way {
                "error" => protocol.on("data", fails),
                "made" => protocol.on("made", fails),
                "eof fails" => protocol.on("eof", fails),
                "pause" => protocol.on("pause", fails),
                "panic" => protocol.on("data", |_, _| panic!("on purpose")),
                "write" => protocol.on("data", |transport, _| transport.write(b"into the void")),
                _ => protocol,
            };
            let protocol = ProtocolDispatcher::new(protocol);
            let mut map = ChannelMap::new().unwrap();
            let mut peer = None;
            let (_held, refused) = refusing(on);
            let reason = match way {
                "refused" => {
                    map.connect(refused, protocol).unwrap();
                    text(libc::ECONNREFUSED)
                }
                "closed while connecting" => {
                    let (_listener, _filling, address) = black_hole(on);
                    let handle = map.connect(address, protocol).unwrap();
                    map.turn(Some(Duration::ZERO)).unwrap();
                    map.channel(handle).unwrap().close();
                    map.turn(Some(Duration::ZERO)).unwrap();
                    Reason::Closed.to_string()
                }
                _ => {
                    let (near, mut far) = narrow_pair(on);
                    let handle = map.add(near, protocol).unwrap();
                    map.turn(Some(Duration::ZERO)).unwrap();
                    let reason = end(&mut map, handle, &log, &mut far, way);
                    peer = Some(far);
                    reason
                }
            };
            turn_until(&mut map, &log, |map| map.is_empty());
            turn_quiet(&mut map);
            drop((map, peer));
            let lost: Vec<_> = log.of("a").into_iter().filter(|event| event.starts_with("lost")).collect();
            assert_eq!(lost, [format!("lost: {reason}")], "{way}");
            assert_eq!(log.of("a").last(), lost.last(), "{way}");
            let made = log.count("a made");
            assert_eq!(made, usize::from(!["refused", "closed while connecting"].contains(&way)), "{way}");
        }
    }
}

/// End the connection this way; the reason.
#[cfg(debug_assertions)]
fn end(map: &mut ChannelMap, handle: SpokenHandle, log: &Log, far: &mut TcpStream, way: &str) -> String {
    let purpose = || "on purpose".to_owned();
    match way {
        "eof" => {
            far.shutdown(Shutdown::Write).unwrap();
            Reason::EndOfStream.to_string()
        }
        "eof fails" => {
            far.shutdown(Shutdown::Write).unwrap();
            purpose()
        }
        "close" => {
            map.channel(handle).unwrap().close();
            Reason::Closed.to_string()
        }
        "abort" => {
            map.channel(handle).unwrap().abort();
            Reason::Aborted.to_string()
        }
        "reset" => {
            socket2::SockRef::from(&*far).set_linger(Some(Duration::ZERO)).unwrap();
            let here = SocketAddr::new(far.local_addr().unwrap().ip(), 0);
            *far = pair(here).1;
            text(libc::ECONNRESET)
        }
        "write" => {
            inject(Call::Send, 0, 1, Fault::Errno(libc::EPIPE));
            far.write_all(b"x").unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            text(libc::EPIPE)
        }
        "error" => {
            far.write_all(b"x").unwrap();
            purpose()
        }
        "panic" => {
            far.write_all(b"x").unwrap();
            "panicked: on purpose".to_owned()
        }
        "made" => purpose(),
        "pause" => {
            map.channel(handle).unwrap().push_vec(vec![b'x'; 5_000_000]).unwrap();
            purpose()
        }
        "timeout" => {
            map.channel(handle).unwrap().set_timeout(Some(Duration::from_millis(1)));
            Reason::TimedOut.to_string()
        }
        "flush" => {
            let mut ch = map.channel(handle).unwrap();
            ch.push_vec(vec![b'x'; 5_000_000]).unwrap();
            ch.set_close_timeout(Duration::from_millis(1));
            ch.close();
            Reason::TimedOut.to_string()
        }
        "limit" => {
            let mut ch = map.channel(handle).unwrap();
            ch.set_limit(10, OnLimit::End);
            ch.push(&[b'x'; 11]).unwrap();
            Reason::Limit.to_string()
        }
        "broadcast" => {
            map.channel(handle).unwrap().set_limit(10, OnLimit::Refuse);
            map.broadcast([handle.token()], &[b'x'; 11]);
            Reason::Limit.to_string()
        }
        "drop" => {
            *map = ChannelMap::new().unwrap();
            assert_eq!(log.count("a lost"), 1);
            Reason::MapEnded.to_string()
        }
        _ => {
            let failed = map.with(handle, |_, _| Err::<(), _>(io::Error::other("on purpose")));
            assert!(failed.is_err());
            purpose()
        }
    }
}

#[test]
fn eof_received_decides_whether_writing_goes_on() {
    for on in loopbacks() {
        for eof in [Eof::Close, Eof::KeepWriting] {
            let log = Log::new();
            let protocol =
                Spoken::new("a", &log).eof(eof).on("eof", |transport, _| transport.write(b"first "));
            let (mut map, handle, mut far) = made(on, protocol);
            far.shutdown(Shutdown::Write).unwrap();
            arrive(&mut map, handle);
            if eof == Eof::Close {
                assert!(map.is_empty());
                assert_eq!(read_all(&mut far).0, b"first ");
                assert_eq!(log.of("a"), ["made", "eof", "lost: end of stream"]);
                continue;
            }
            assert_calm(&mut map);
            reach(&mut map, handle, |transport| {
                transport.write(b"second")?;
                transport.write_eof();
                Ok(())
            });
            turn_until(&mut map, &log, |map| map.is_empty());
            assert_eq!(read_all(&mut far).0, b"first second");
            assert_eq!(log.of("a"), ["made", "eof", "lost: end of stream"]);
        }
    }
}

/// Our own FIN: reading goes on.
#[test]
fn write_eof_sends_fin_and_reading_goes_on() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, handle, mut far) = made(on, Spoken::new("a", &log));
        reach(&mut map, handle, |transport| {
            transport.write(b"all")?;
            transport.write_eof();
            assert_eq!(transport.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            Ok(())
        });
        turn_quiet(&mut map);
        assert_eq!(read_all(&mut far).0, b"all");
        far.write_all(b"answer").unwrap();
        drop(far);
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(log.of("a"), ["made", "data answer", "eof", "lost: end of stream"]);
    }
}

/// Once per crossing, whatever the marks are.
#[cfg(debug_assertions)]
#[test]
fn pause_and_resume_writing_come_once_per_crossing() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = narrow_pair(on);
        let mut map = ChannelMap::new().unwrap();
        let handle = map.add(near, ProtocolDispatcher::new(Spoken::new("a", &log))).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        inject(Call::Send, 0, 1, Fault::Errno(libc::EAGAIN));
        reach(&mut map, handle, |transport| {
            transport.set_write_buffer_limits(100_000, 200_000);
            transport.write(&vec![b'x'; 150_000])
        });
        turn_quiet(&mut map);
        assert_eq!(log.of("a"), ["made"]);
        reach(&mut map, handle, |transport| transport.write(&vec![b'x'; 4_850_000]));
        turn_quiet(&mut map);
        reach(&mut map, handle, |transport| transport.write(b"more"));
        turn_quiet(&mut map);
        assert_eq!(log.of("a"), ["made", "pause"]);
        far.set_nonblocking(true).unwrap();
        let mut left = 5_000_004;
        turn_until(&mut map, &log, |map| {
            left -= read_now(&mut far).0.len();
            let size = reach(map, handle, |transport| Ok(transport.write_buffer_size()));
            assert_eq!(log.has("a resume"), size <= 100_000 && log.has("a resume"));
            left == 0
        });
        turn_quiet(&mut map);
        assert_eq!(log.of("a"), ["made", "pause", "resume"]);
        // The marks move under a full queue.
        reach(&mut map, handle, |transport| transport.write(&vec![b'x'; 3_000_000]));
        turn_until(&mut map, &log, |_| log.count("a pause") == 2);
        reach(&mut map, handle, |transport| {
            transport.set_write_buffer_limits(4_000_000, 5_000_000);
            Ok(())
        });
        turn_until(&mut map, &log, |_| log.count("a resume") == 2);
    }
}

// Writing.

#[cfg(debug_assertions)]
#[test]
fn write_vectored_is_one_call() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, handle, mut far) = made(on, Spoken::new("a", &log));
        let many: Vec<Vec<u8>> = (0..16u8).map(|n| vec![b'a' + n; usize::from(n)]).collect();
        for slices in [
            vec![&b"one "[..], b"two ", b"three"],
            vec![b"one"],
            vec![b"", b"one", b"", b"", b"two", b""],
            many.iter().map(|piece| &piece[..]).collect(),
            [&[&b""[..]; 40][..], &[b"one", b"two"]].concat(),
        ] {
            let wanted = slices.concat();
            let slices: Vec<_> = slices.into_iter().map(IoSlice::new).collect();
            map.turn(Some(Duration::ZERO)).unwrap();
            let calls = [Call::Send, Call::Control].map(count);
            reach(&mut map, handle, |transport| transport.write_vectored(&slices));
            turn_quiet(&mut map);
            assert_eq!([Call::Send, Call::Control].map(count), [calls[0] + 1, calls[1]]);
            let mut got = vec![0; wanted.len()];
            far.read_exact(&mut got).unwrap();
            assert_eq!(got, wanted);
        }
        // Nothing is no call.
        let calls = count(Call::Send);
        reach(&mut map, handle, |transport| transport.write_vectored(&[]));
        reach(&mut map, handle, |transport| {
            transport.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"")])
        });
        turn_quiet(&mut map);
        assert_eq!(count(Call::Send), calls);
    }
}

/// Small slices are gathered, and leave in one call however many they are. Of many that are large
/// together, what one call does not take goes out in the settle: the socket has room, and is not watched
/// for it.
#[cfg(debug_assertions)]
#[test]
fn small_slices_take_one_call_and_many_large_ones_two() {
    for on in loopbacks() {
        for (slices, sends) in [(17, 1), (40, 1), (1000, 1), (2000, 2)] {
            let log = Log::new();
            let (mut map, handle, mut far) = made(on, Spoken::new("a", &log));
            let pieces: Vec<Vec<u8>> = (0..slices).map(|n| format!("{n} ").into_bytes()).collect();
            let wanted = pieces.concat();
            let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let calls = [Call::Send, Call::Control].map(count);
            reach(&mut map, handle, |transport| transport.write_vectored(&slices));
            turn_quiet(&mut map);
            let mut got = vec![0; wanted.len()];
            far.read_exact(&mut got).unwrap();
            assert!(got == wanted);
            assert_eq!(count(Call::Send), calls[0] + sends, "{} slices", slices.len());
            assert_eq!(count(Call::Control), calls[1], "{} slices", slices.len());
        }
    }
}

/// A socket that takes so many bytes of the next call, in whatever slice that ends, and then all.
struct Stingy {
    socket: UnixStream,
    takes: Rc<Cell<usize>>,
}

impl Source for Stingy {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send_vectored(&[IoSlice::new(bytes)])
    }
    fn send_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        bytes.truncate(self.takes.replace(usize::MAX));
        match bytes.len() {
            0 => Err(ErrorKind::WouldBlock.into()),
            _ => self.socket.write(&bytes),
        }
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

#[test]
fn write_vectored_goes_on_from_the_part_that_was_taken() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    near.set_nonblocking(true).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let takes = Rc::new(Cell::new(usize::MAX));
    let source = Stingy { socket: near, takes: takes.clone() };
    let handle = map.add_source(source, ProtocolDispatcher::new(Spoken::new("a", &log))).unwrap();
    turn_quiet(&mut map);
    // Together too large to be gathered: offered at once.
    let pieces = ["abc", "", "defg", "h", "", "ijklm"].map(|piece| piece.repeat(400).into_bytes());
    let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    for taken in (0..=13).map(|n| n * 400 + n % 3).map(|taken| taken.min(5200)) {
        map.turn(Some(Duration::ZERO)).unwrap();
        takes.set(taken);
        let left = reach(&mut map, handle, |transport| {
            transport.write_vectored(&slices)?;
            let left = transport.write_buffer_size();
            transport.write_vectored(&slices)?;
            transport.write(b".")?;
            Ok(left)
        });
        assert_eq!(left, 5200 - taken);
        turn_quiet(&mut map);
    }
    map.channel(handle).unwrap().close();
    turn_until(&mut map, &log, |map| map.is_empty());
    let mut got = String::new();
    far.read_to_string(&mut got).unwrap();
    let once = pieces.concat();
    let once = String::from_utf8(once).unwrap();
    assert!(got == format!("{once}{once}.").repeat(14));
}

/// A megabyte in slices, more than the socket has room for.
#[test]
fn write_vectored_of_much_arrives_whole() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = narrow_pair(on);
        let mut map = ChannelMap::new().unwrap();
        let handle = map.add(near, ProtocolDispatcher::new(Spoken::new("a", &log))).unwrap();
        turn_quiet(&mut map);
        let bytes = pattern(1 << 20);
        let slices: Vec<_> = bytes.chunks(70_001).map(IoSlice::new).collect();
        reach(&mut map, handle, |transport| transport.write_vectored(&slices));
        map.channel(handle).unwrap().close();
        let reader = std::thread::spawn(move || read_all(&mut far).0);
        turn_until(&mut map, &log, |map| map.is_empty());
        assert!(reader.join().unwrap() == bytes);
    }
}

/// Over the hard limit nothing is taken, not even what would fit.
#[test]
fn write_vectored_over_the_limit_takes_nothing() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, handle, mut far) = made(on, Spoken::new("a", &log));
        reach(&mut map, handle, |transport| {
            transport.channel_mut().set_limit(10, OnLimit::Refuse);
            let refused = transport.write_vectored(&[&b"12345"[..], b"67890", b"!"].map(IoSlice::new));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::QuotaExceeded);
            assert_eq!(transport.write_buffer_size(), 0);
            transport.write_vectored(&[b"12345", b"67890"].map(|half| IoSlice::new(half)))
        });
        turn_quiet(&mut map);
        let mut got = [0; 10];
        far.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"1234567890");
        far.set_nonblocking(true).unwrap();
        assert_eq!(read_now(&mut far), (vec![], false));
        assert_eq!(log.of("a"), ["made"]);
    }
}

#[test]
fn write_after_the_end_is_a_broken_pipe() {
    for on in loopbacks() {
        for way in 0..3 {
            let log = Log::new();
            let (mut map, handle, _far) = made(on, Spoken::new("a", &log));
            reach(&mut map, handle, |transport| {
                match way {
                    0 => transport.close(),
                    1 => transport.abort(),
                    _ => transport.write_eof(),
                }
                assert_eq!(transport.is_reading(), way == 2);
                let tries = [
                    transport.write(b"x"),
                    transport.write(b""),
                    transport.write_vectored(&[IoSlice::new(b"x")]),
                    transport.write_vectored(&[]),
                ];
                for tried in tries {
                    assert_eq!(tried.unwrap_err().kind(), ErrorKind::BrokenPipe);
                }
                Ok(())
            });
        }
    }
}

// Another protocol.

/// The rest goes to the new one, and then all that comes; the old one hears no more.
#[test]
fn set_protocol_hands_the_rest_to_the_new_one() {
    for on in loopbacks() {
        for rest in ["", "rest"] {
            for ended in [false, true] {
                let log = Log::new();
                let new = log.clone();
                let protocol = Spoken::new("old", &log).on("data", move |transport, data| {
                    let handle = transport.set_protocol(Spoken::new("new", &new), &data[6..])?;
                    assert_eq!(handle.token(), transport.token());
                    transport.write(b"switched")
                });
                let (mut map, handle, mut far) = made(on, protocol);
                far.write_all(format!("switch{rest}").as_bytes()).unwrap();
                if ended {
                    far.shutdown(Shutdown::Write).unwrap();
                }
                arrive(&mut map, handle);
                if !ended {
                    far.write_all(b"more").unwrap();
                    far.shutdown(Shutdown::Write).unwrap();
                }
                turn_until(&mut map, &log, |map| map.is_empty());
                let data = |text: &str| (!text.is_empty()).then(|| format!("data {text}"));
                let mut wanted: Vec<String> = data(rest).into_iter().collect();
                wanted.extend((!ended).then(|| "data more".to_owned()));
                wanted.extend(["eof", "lost: end of stream"].map(str::to_owned));
                assert_eq!(log.of("new"), wanted);
                assert_eq!(log.of("old"), ["made", &format!("data switch{rest}")]);
                assert_eq!(read_all(&mut far).0, b"switched");
            }
        }
    }
}

/// The last one has it, and all that was given back.
#[test]
fn set_protocol_twice_in_one_hook_leaves_the_last_one() {
    for on in loopbacks() {
        let log = Log::new();
        let new = log.clone();
        let protocol = Spoken::new("old", &log).on("data", move |transport, data| {
            transport.set_protocol(Spoken::new("between", &new), &data[4..])?;
            transport.set_protocol(Spoken::new("new", &new), &data[2..4]).map(drop)
        });
        let (mut map, handle, mut far) = made(on, protocol);
        far.write_all(b"ABcdef").unwrap();
        arrive(&mut map, handle);
        assert!(map.get(handle).is_ok(), "of the same type, in the same channel");
        map.channel(handle).unwrap().close();
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(log.of("old"), ["made", "data ABcdef"]);
        assert_eq!(log.of("between"), [""; 0]);
        assert_eq!(log.of("new"), ["data cdef", "lost: closed"]);
    }
}

/// In `connection_made`, from outside, and of a channel that has ended.
#[test]
fn set_protocol_works_outside_of_data_received() {
    for on in loopbacks() {
        let log = Log::new();
        let new = log.clone();
        let protocol = Spoken::new("old", &log).on("made", move |transport, _| {
            transport.set_protocol(Spoken::new("new", &new), b"seed").map(drop)
        });
        let (mut map, handle, mut far) = made(on, protocol);
        turn_quiet(&mut map);
        assert_eq!((log.of("old"), log.of("new")), (vec!["made".to_owned()], vec!["data seed".to_owned()]));
        let third =
            reach(&mut map, handle, |transport| transport.set_protocol(Spoken::new("third", &log), b""));
        far.write_all(b"for the third").unwrap();
        arrive(&mut map, third);
        assert_eq!(log.of("third"), ["data for the third"]);
        let last = log.clone();
        let token = reach(&mut map, third, |transport| {
            transport.abort();
            transport.set_protocol(Spoken::new("last", &last), b"never read").map(|handle| handle.token())
        });
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!((log.of("third").len(), log.of("last")), (1, vec!["lost: aborted".to_owned()]));
        assert!(!map.contains(token));
    }
}

// What it costs.

struct EchoProtocol;

impl Protocol for EchoProtocol {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        transport.channel_mut().set_auto_pause(true);
        Ok(())
    }
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
        transport.write(data)
    }
}

#[cfg(debug_assertions)]
const CALLS: [Call; 5] = [Call::Recv, Call::Send, Call::Control, Call::Option, Call::Wait];

/// The calls and the allocations that a hundred messages of this many bytes cost on each of so many
/// connections.
#[cfg(debug_assertions)]
fn cost<D: Dispatcher>(connections: usize, len: usize, echo: impl Fn() -> D) -> ([u64; 5], u64) {
    let mut map = ChannelMap::new().unwrap();
    let mut peers = Vec::new();
    for _ in 0..connections {
        let (near, far) = unix_pair();
        map.add(near, echo()).unwrap();
        peers.push(far);
    }
    turn_quiet(&mut map);
    let message = vec![b'x'; len];
    let mut answer = vec![0; len];
    let mut round = |map: &mut ChannelMap| {
        for peer in &mut peers {
            peer.write_all(&message).unwrap();
        }
        map.turn(Some(DEADLINE)).unwrap();
        for peer in &mut peers {
            peer.read_exact(&mut answer).unwrap();
        }
    };
    (0..10).for_each(|_| round(&mut map));
    let before = (CALLS.map(count), heap::allocations());
    (0..100).for_each(|_| round(&mut map));
    let calls = std::array::from_fn(|at| count(CALLS[at]) - before.0[at]);
    (calls, heap::allocations() - before.1)
}

/// No call and no allocation more than an echo that is written on the hooks.
#[cfg(debug_assertions)]
#[test]
fn an_echo_costs_what_a_raw_one_costs() {
    for connections in [1, 20] {
        for len in [1, 1000, 60_000] {
            let protocol = cost(connections, len, || ProtocolDispatcher::new(EchoProtocol));
            assert_eq!(protocol, cost(connections, len, || Echo), "{connections} of {len} bytes");
            let messages = 100 * connections as u64;
            assert_eq!(protocol, ([messages, messages, 0, 0, 100], 0));
        }
    }
    assert_eq!(size_of::<ProtocolDispatcher<Echo>>(), 0);
}

/// Passes on what it gets to its twin, no faster than that takes it.
struct Relay {
    twin: Option<Token>,
    most: usize,
    pauses: usize,
}

impl Relay {
    fn twin<'a>(&self, transport: &'a mut Transport<'_>) -> io::Result<Channel<'a>> {
        Ok(transport.map_mut().channel(self.twin.unwrap())?)
    }
}

impl Protocol for Relay {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
        let mut twin = self.twin(transport)?;
        twin.push(data)?;
        self.most = self.most.max(twin.queued());
        Ok(())
    }
    fn pause_writing(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        self.pauses += 1;
        self.twin(transport)?.pause_reading();
        Ok(())
    }
    fn resume_writing(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        self.twin(transport)?.resume_reading();
        Ok(())
    }
    fn connection_lost(&mut self, transport: &mut Transport<'_>, _: &Reason) {
        if let Ok(mut twin) = self.twin(transport) {
            twin.close();
        }
    }
}

/// However much goes through to a reader that takes it in bursts, what waits is the high watermark and
/// what one turn reads, at most.
#[cfg(debug_assertions)]
#[test]
fn a_slow_reader_costs_a_bounded_queue() {
    slow_reader(1 << 28, false);
    slow_reader(32 << 20, true);
}

/// Send so much; through sockets that hold little, if told so.
#[cfg(debug_assertions)]
fn slow_reader(len: usize, little: bool) {
    const PERIOD: usize = 1 << 20;
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near_in, mut far_in) = pair(loopbacks()[0]);
    let (near_out, mut far_out) = pair(*loopbacks().last().unwrap());
    if little {
        narrow(&near_out, &far_out);
    }
    let relay = || ProtocolDispatcher::new(Relay { twin: None, most: 0, pauses: 0 });
    let source = map.add(near_in, relay()).unwrap();
    let sink = map.add(near_out, relay()).unwrap();
    map.get_mut(source).unwrap().inner_mut().twin = Some(sink.token());
    map.get_mut(sink).unwrap().inner_mut().twin = Some(source.token());
    far_in.set_nonblocking(true).unwrap();
    far_out.set_nonblocking(true).unwrap();
    let bytes = pattern(PERIOD);
    let mut burst = vec![0; 4 << 20];
    // The loop's own buffer is there from the first byte on.
    far_in.write_all(&bytes[..1]).unwrap();
    turn_until(&mut map, &log, |_| far_out.peek(&mut [0]).is_ok());
    let before = heap::live();
    heap::reset_peak();
    let (mut written, mut read, mut stuck) = (1, 0, 0);
    let deadline = std::time::Instant::now() + DEADLINE;
    while read < len {
        assert!(std::time::Instant::now() < deadline, "{read} bytes came");
        let calls = [Call::Recv, Call::Send].map(count);
        let before = written;
        if written < len {
            let at = written % PERIOD;
            let most = (PERIOD - at).min(len - written);
            match far_in.write(&bytes[at..at + most]) {
                Ok(more) => written += more,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        map.turn(Some(Duration::ZERO)).unwrap();
        // It reads only when nothing else moves any more, and then all that there is.
        let moved = written > before || calls != [Call::Recv, Call::Send].map(count);
        stuck = if moved { 0 } else { stuck + 1 };
        if stuck < 3 {
            continue;
        }
        while let Ok(more @ 1..) = far_out.read(&mut burst) {
            let mut got = &burst[..more];
            while !got.is_empty() {
                let at = read % PERIOD;
                let (piece, rest) = got.split_at(got.len().min(PERIOD - at));
                assert!(*piece == bytes[at..at + piece.len()], "at {read}");
                read += piece.len();
                got = rest;
            }
        }
    }
    let held = heap::peak() - before;
    let (most, pauses) = (map.get(source).unwrap().inner().most, map.get(sink).unwrap().inner().pauses);
    assert!(pauses > 10, "{pauses} pauses: it was no slow reader");
    assert!(most <= 128 * 1024, "{most} bytes queued");
    // A piece is kept whole until the last of it is sent.
    assert!(held <= (128 + 64) * 1024 + 4096, "{held} bytes held");
    drop((far_in, far_out));
    turn_until(&mut map, &log, |map| map.is_empty());
}
