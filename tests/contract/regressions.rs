//! Bugs that were there once, and must not come back. Each says what happened.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use dispatch_loop::ChannelMap;
#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, count};

use crate::support::dirs::Dir;
use crate::support::logging::{capture_log, logged};
use crate::support::opened::{fill, view};
use crate::support::peers::{black_hole, loopbacks, pair, pipe, refusing};
use crate::support::process::{alone, open_descriptors};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until, waits_in};
use crate::support::waiting::{DEADLINE, wait_until};

/// Each connect that failed was logged, however many there were, and without saying to where.
#[test]
fn failed_connects_are_logged_with_their_address_and_not_without_end() {
    const CONNECTS: usize = 30;
    let (_held, address) = refusing(loopbacks()[0]);
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    capture_log();
    for _ in 0..CONNECTS {
        map.connect(address, Recorder::new("a", &log)).unwrap();
    }
    run_out(&mut map, &log);
    let lines = logged(": connect: ");
    assert!((1..CONNECTS).contains(&lines.len()), "{} lines", lines.len());
    assert!(lines.iter().all(|line| line.contains(&address.to_string())), "{lines:?}");
}

/// A channel that had crossed its high watermark and was closed, with input unread, kept the loop
/// from sleeping while it waited for the peer's end: the news of the watermark, which nobody was
/// to be told any more, had it settled again and again.
#[cfg(debug_assertions)]
#[test]
fn a_lingering_channel_with_untold_watermarks_does_not_spin() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        far.write_all(b"never read").unwrap();
        let mut map = ChannelMap::new().unwrap();
        let recorder = Recorder::new("a", &log).readable(|_| false).on("open", |ch| {
            ch.set_watermarks(0, 0);
            ch.push(b"goes out at once")?;
            ch.push(b"is queued")?;
            ch.close();
            Ok(())
        });
        map.add(near, recorder).unwrap();
        turn_until(&mut map, &log, |_| log.has("a open"));
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"goes out at onceis queued");
        // It has sent FIN, and waits for ours.
        let (begun, before) = (Instant::now(), count(Call::Wait));
        while begun.elapsed() < Duration::from_millis(200) {
            map.turn(Some(Duration::from_millis(50))).unwrap();
        }
        assert!(!log.closed("a"), "not lingering: {:?}", log.events());
        assert!(count(Call::Wait) - before < 20, "{} waits", count(Call::Wait) - before);
        drop(far);
        turn_until(&mut map, &log, |_| log.closed("a"));
    }
}

/// A channel that ended by an error or a time-out while output was queued sent FIN, so that the peer took
/// what had come for all there was.
#[test]
fn what_is_cut_short_does_not_look_like_an_end() {
    for on in loopbacks() {
        for end in ["error", "timeout", "nothing queued"] {
            let log = Log::new();
            let (near, mut far) = pair(on);
            let mut map = ChannelMap::new().unwrap();
            let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
            turn_until(&mut map, &log, |_| log.has("a open"));
            if end != "nothing queued" {
                fill(&mut map, &log, token);
            }
            let mut channel = map.channel(token).unwrap();
            match end {
                "timeout" => channel.time_out(),
                _ => drop(channel.call_later(Duration::ZERO, |_| Err(std::io::Error::other("wanted")))),
            }
            turn_until(&mut map, &log, |map| !map.contains(token));
            let read = far.read_to_end(&mut Vec::new());
            match end {
                "nothing queued" => assert_eq!(read.unwrap(), 0),
                _ => assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{end}"),
            }
        }
    }
}

/// Output that the settle had sent was forgotten when the next event came, so that an empty
/// `handle_write` in between counted as nothing done: from the 64th on, it came up to a second late.
#[test]
fn a_handle_write_after_each_push_is_not_suspended() {
    use dispatch_loop::{Channel, Dispatcher};
    struct Told {
        want: bool,
        times: u32,
    }
    impl Dispatcher for Told {
        fn writable(&self, _: &Channel<'_>) -> bool {
            self.want
        }
        fn handle_write(&mut self, _: &mut Channel<'_>) -> std::io::Result<()> {
            self.want = false;
            self.times += 1;
            Ok(())
        }
    }
    let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut map = ChannelMap::new().unwrap();
    let told = map.add(near, Told { want: false, times: 0 }).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    for round in 0..200 {
        map.with(told, |told, ch| {
            ch.push(b"at once, ")?;
            ch.push(b"and at the settle")?;
            told.want = true;
            Ok(())
        })
        .unwrap();
        // No timer that would bring it back is ever set.
        for _ in 0..5 {
            assert_eq!(map.wait_limit().filter(|limit| !limit.is_zero()), None, "suspended in round {round}");
            map.turn(Some(Duration::ZERO)).unwrap();
        }
        assert_eq!(map.get(told).unwrap().times, round + 1);
        far.read_exact(&mut [0; 26]).unwrap();
    }
}

/// The poller failed, and threads that waited for the loop were never told.
#[cfg(debug_assertions)]
#[test]
fn a_failing_poller_wakes_who_waits() {
    use dispatch_loop::faults::{Fault, inject};
    let mut map = ChannelMap::new().unwrap();
    map.set_remote_capacity(1);
    let remote = map.remote();
    remote.call(|_| ()).unwrap();
    let waiting = std::thread::spawn(move || remote.call(|_| ()).is_err());
    inject(Call::Wait, 0, 1, Fault::Errno(libc::EBADF));
    // Whether it waits already or comes later: it is told.
    assert!(dispatch_loop::run(&mut map).is_err());
    assert!(waiting.join().unwrap());
}

/// A producer that failed had the connection closed by FIN, so that a part of a file looked like all
/// of it.
#[test]
fn what_a_producer_fails_in_is_cut_short() {
    for on in loopbacks() {
        for closing in [false, true] {
            let log = Log::new();
            let (near, mut far) = pair(on);
            let mut map = ChannelMap::new().unwrap();
            let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
            turn_until(&mut map, &log, |_| log.has("a open"));
            let mut first = true;
            let mut channel = map.channel(token).unwrap();
            let producer = move |buffer: &mut Vec<u8>| match std::mem::replace(&mut first, false) {
                true => {
                    buffer.extend_from_slice(b"half");
                    Ok(dispatch_loop::More::Again)
                }
                false => Err(std::io::Error::other("the disk")),
            };
            channel.push_producer(producer).unwrap();
            if closing {
                channel.close();
            }
            turn_until(&mut map, &log, |map| !map.contains(token));
            let mut got = Vec::new();
            let end = far.read_to_end(&mut got).unwrap_err();
            assert_eq!((end.kind(), &got[..]), (std::io::ErrorKind::ConnectionReset, &b"half"[..]));
            assert_eq!(log.of("a").last().unwrap(), "close: the disk");
        }
    }
}

/// Options of TCP made a Unix-domain socket fail, and the socket file of a client was left behind.
#[test]
fn options_of_tcp_do_no_harm_to_a_path() {
    use dispatch_loop::{ConnectOptions, ListenOptions, ToAddress};
    let dir = Dir::new();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let keep_alive = Some(Duration::from_millis(1));
    let options = ListenOptions::default().with_keep_alive(keep_alive);
    map.listen_with(dir.join("server"), &options, Recorder::new("server", &log)).unwrap();
    let local = dir.join("client").to_address().unwrap();
    let options = ConnectOptions::default().with_keep_alive(keep_alive).with_local(local);
    let client = map.connect_with(dir.join("server"), &options, Recorder::new("client", &log)).unwrap();
    turn_until(&mut map, &log, |_| log.has("client open") && log.has("server accept"));
    assert!(dir.join("client").exists());
    map.channel(client).unwrap().abort();
    turn_until(&mut map, &log, |map| !map.contains(client));
    assert!(!dir.join("client").exists());
    // And a second is the least of a TCP one.
    for on in loopbacks() {
        let options = ListenOptions::default().with_keep_alive(keep_alive);
        map.listen_with(on, &options, Recorder::new("server", &log)).unwrap();
    }
}

/// `run` returned while attempts of a connect that was given up were still under way.
#[test]
fn attempts_end_with_their_channel() {
    alone(None, || {
        let (_full, _clients, silent) = black_hole(loopbacks()[0]);
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.set_resolver(move |_, _| Ok(vec![silent]));
        let client = map.connect("name:1", Recorder::new("a", &log)).unwrap();
        map.turn(Some(Duration::from_millis(50))).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        map.channel(client).unwrap().call_later(Duration::ZERO, |ch| {
            ch.abort();
            Ok(())
        });
        let before = open_descriptors();
        dispatch_loop::run(&mut map).unwrap();
        wait_until("its socket is closed", || open_descriptors() < before);
        assert!(map.is_idle() && log.closed("a"));
    });
}

/// What a peer sent in the clear right behind STARTTLS counted as if it had come through the new
/// source. It goes to that source, which finds its own first bytes there: also when the chat has a
/// function that takes a channel do it, which was handed another `wrap_source` than the chat's by
/// coercion.
#[cfg(feature = "layers")]
mod starttls {
    use super::*;
    use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
    use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};
    use dispatch_loop::{Channel, Dispatcher, Source};
    use std::io;
    use std::os::fd::BorrowedFd;

    /// Every byte turned over, which will do for a cipher.
    struct Inverted(Box<dyn Source>);

    impl Source for Inverted {
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            self.0.descriptor()
        }
        fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.0.recv(buffer)?;
            buffer[..read].iter_mut().for_each(|byte| *byte = !*byte);
            Ok(read)
        }
        fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes)
        }
        fn shutdown_write(&mut self) -> io::Result<()> {
            self.0.shutdown_write()
        }
        fn input_pending(&self) -> bool {
            self.0.input_pending()
        }
    }

    fn encrypt(ch: &mut Channel<'_>) -> io::Result<()> {
        ch.wrap_source(|plain| Ok(Box::new(Inverted(plain))))
    }

    /// Who wraps the source, in which hook.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Way {
        /// The chat itself.
        Chat,
        /// A function that is given its channel.
        Helper,
        /// The chat, after a function was given its channel.
        AfterHelper,
        /// A function, before the line is whole: its end is read through the new source.
        Collecting,
        Protocol,
        Raw,
    }

    struct Server(Log, Way);

    impl Chat for Server {
        fn collect_incoming_data(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
            ch.collect(data);
            if self.1 == Way::Collecting && ch.collected() == b"STARTTLS" {
                self.0.add("line STARTTLS");
                encrypt(ch.channel_mut())?;
            }
            Ok(())
        }
        fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
            self.0.add(format!("line {}", line.escape_ascii()));
            match (line, self.1) {
                (b"STARTTLS", Way::Chat) => ch.wrap_source(|plain| Ok(Box::new(Inverted(plain)))),
                (b"STARTTLS", Way::Helper) => encrypt(ch.channel_mut()),
                (b"STARTTLS", _) => {
                    ch.channel_mut().set_auto_pause(true);
                    ch.wrap_source(|plain| Ok(Box::new(Inverted(plain))))
                }
                _ => Ok(()),
            }
        }
    }

    /// The same with the raw hooks, or as a protocol, and `unread`.
    struct Raw(Log, bool);

    impl Raw {
        fn take(&mut self, ch: &mut Channel<'_>, data: &[u8]) -> io::Result<()> {
            let end = data.iter().position(|&byte| byte == b'\n').map_or(data.len(), |at| at + 1);
            self.0.add(format!("line {}", data[..end].trim_ascii_end().escape_ascii()));
            ch.unread(&data[end..]);
            match std::mem::replace(&mut self.1, true) {
                true => Ok(()),
                false => encrypt(ch),
            }
        }
    }

    impl Dispatcher for Raw {
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.read_with(|ch, data| self.take(ch, data))
        }
    }

    impl Protocol for Raw {
        fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
            self.take(transport.channel_mut(), data)
        }
    }

    /// A map with a server of this way, and its peer.
    fn served(log: &Log, way: Way) -> (dispatch_loop::ChannelMap, std::os::unix::net::UnixStream) {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut map = dispatch_loop::ChannelMap::new().unwrap();
        let raw = Raw(log.clone(), false);
        match way {
            Way::Raw => map.add(near, raw).unwrap().token(),
            Way::Protocol => map.add(near, ProtocolDispatcher::new(raw)).unwrap().token(),
            _ => map.add(near, ChatDispatcher::new("\n", Server(log.clone(), way)).unwrap()).unwrap().token(),
        };
        (map, far)
    }

    fn hidden(text: &[u8]) -> Vec<u8> {
        text.iter().map(|byte| !byte).collect()
    }

    #[test]
    fn what_follows_starttls_goes_to_the_new_source() {
        for way in [Way::Chat, Way::Helper, Way::AfterHelper, Way::Protocol, Way::Raw] {
            let log = Log::new();
            let (mut map, mut far) = served(&log, way);
            far.write_all(&[b"STARTTLS\n", &hidden(b"MAIL\n")[..]].concat()).unwrap();
            turn_until(&mut map, &log, |_| log.events().len() == 2);
            assert_eq!(log.events(), ["line STARTTLS", "line MAIL"], "{way:?}");
            far.write_all(&hidden(b"MAIL\n")).unwrap();
            turn_until(&mut map, &log, |_| log.events().len() == 3);
            assert_eq!(log.events()[2], "line MAIL", "{way:?}");
        }
    }

    #[test]
    fn a_line_that_is_injected_behind_starttls_is_never_seen() {
        for way in [Way::Chat, Way::Helper, Way::AfterHelper, Way::Collecting, Way::Protocol, Way::Raw] {
            let log = Log::new();
            let (mut map, mut far) = served(&log, way);
            far.write_all(b"STARTTLS\nINJECTED\n").unwrap();
            turn_until(&mut map, &log, |_| log.has("line STARTTLS"));
            far.write_all(&hidden(b"MAIL\n")).unwrap();
            turn_until(&mut map, &log, |_| log.events().iter().any(|line| line.ends_with("MAIL")));
            // What was injected is garbage at the start of what comes through the new source.
            let lines: String = log.events()[1..].iter().map(|line| &line["line ".len()..]).collect();
            let garbage = |clear: &[u8]| hidden(clear).escape_ascii().to_string();
            match way {
                Way::Collecting => {
                    assert_eq!(lines, "STARTTLS".to_owned() + &garbage(b"\nINJECTED\n") + "MAIL")
                }
                _ => assert_eq!(lines, garbage(b"INJECTED\n") + "MAIL", "{way:?}"),
            }
        }
    }
}

/// Bugs of datagrams, pipes, names and paths.
mod kinds {
    use super::*;
    #[cfg(debug_assertions)]
    use dispatch_loop::faults::{Fault, inject};
    use dispatch_loop::{Channel, ConnectOptions, Datagram, Dispatcher, Socket};
    use std::fs::File;
    use std::io::{self, ErrorKind};
    use std::net::TcpListener;
    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Arc, Condvar, Mutex};

    /// A path was cut at a NUL: another file was bound or connected to.
    #[test]
    fn a_nul_in_a_path_is_refused() {
        let dir = Dir::new();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let cut = format!("unix:{}/a\0b", dir.path().display());
        for path in [&*cut, "unix:\0name"] {
            let error = map.listen(path, Recorder::new("a", &log)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        assert!(!dir.join("a").exists());
        let _other = UnixListener::bind(dir.join("a")).unwrap();
        assert_eq!(map.connect(&*cut, Recorder::new("a", &log)).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    /// An attempt that the poller refused was never counted as lost: the channel waited for ever.
    #[cfg(debug_assertions)]
    #[test]
    fn an_attempt_that_the_poller_refuses_is_lost_and_told() {
        let listener = TcpListener::bind(loopbacks()[0]).unwrap();
        let to = listener.local_addr().unwrap();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.set_resolver(move |_, _| Ok(vec![to]));
        let options = ConnectOptions::default().with_timeout(None);
        inject(Call::Control, 0, 1, Fault::Errno(libc::EPERM));
        map.connect_with("name:1", &options, Recorder::new("a", &log)).unwrap();
        turn_until(&mut map, &log, |_| log.closed("a"));
    }

    /// Names that nobody waited for any more were looked up before those that somebody did.
    #[test]
    fn a_lookup_for_nobody_is_not_made() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let (inside, counter) = (gate.clone(), asked.clone());
        let mut map = ChannelMap::new().unwrap();
        map.set_resolver(move |_, _| {
            counter.fetch_add(1, SeqCst);
            let open = inside.0.lock().unwrap();
            drop(inside.1.wait_timeout_while(open, DEADLINE, |open| !*open));
            Err(ErrorKind::NotFound.into())
        });
        let log = Log::new();
        let dial = |map: &mut ChannelMap| map.connect("name:1", Recorder::new("a", &log)).unwrap().token();
        let tokens: Vec<_> = (0..10).map(|_| dial(&mut map)).collect();
        // Other tests may keep some of the threads busy.
        wait_until("some are asked", || asked.load(SeqCst) > 0);
        tokens.into_iter().for_each(|token| view(&mut map, token).abort());
        turn_until(&mut map, &log, |map| map.is_empty());
        dial(&mut map);
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        turn_until(&mut map, &log, |map| map.is_empty());
        assert!(asked.load(SeqCst) <= 5, "{} were asked", asked.load(SeqCst));
    }

    /// One receiver on a path that did not read kept all others from being answered, and the loop
    /// from sleeping.
    #[test]
    fn a_receiver_that_does_not_read_keeps_no_other_waiting() {
        struct Echo;
        impl Dispatcher for Echo {
            fn handle_datagram(&mut self, ch: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
                ch.push_to(datagram.data, &datagram.from)
            }
        }
        let dir = Dir::new();
        let mut map = ChannelMap::new().unwrap();
        map.bind(dir.join("here"), Echo).unwrap();
        let lazy = UnixDatagram::bind(dir.join("lazy")).unwrap();
        let other = UnixDatagram::bind(dir.join("other")).unwrap();
        other.set_nonblocking(true).unwrap();
        for _ in 0..40 {
            lazy.send_to(b"x", dir.join("here")).unwrap();
            map.turn(Some(Duration::ZERO)).unwrap();
        }
        turn_idle(&mut map);
        assert_calm(&mut map);
        other.send_to(b"y", dir.join("here")).unwrap();
        turn_until(&mut map, &Log::new(), |_| other.recv(&mut [0; 8]).is_ok());
    }

    /// A queue that fell and rose between two settles was told as high again, with nothing in it.
    #[test]
    fn high_is_told_once() {
        let (near, far) = UnixDatagram::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
        map.turn(Some(Duration::ZERO)).unwrap();
        view(&mut map, token).set_watermarks(100, 200);
        let mut sent = 0;
        while view(&mut map, token).queued() == 0 {
            view(&mut map, token).push(&[0; 201]).unwrap();
            sent += 1;
            map.turn(Some(Duration::ZERO)).unwrap();
        }
        turn_until(&mut map, &log, |_| {
            sent -= std::iter::from_fn(|| far.recv(&mut [0; 300]).ok()).count();
            sent == 0
        });
        turn_idle(&mut map);
        assert_eq!((log.count("a high"), log.count("a low")), (1, 1), "{:?}", log.events());
    }

    /// An error of the network that came again and again was told 64 times a turn, without a pause.
    #[cfg(debug_assertions)]
    #[test]
    fn an_error_that_does_not_go_is_told_with_pauses() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let mut map = ChannelMap::new().unwrap();
        map.add(near, Recorder::new("a", &Log::new())).unwrap();
        turn_idle(&mut map);
        far.send(b"x").unwrap();
        inject(Call::Recv, 0, 1_000_000, Fault::Errno(libc::ENOMEM));
        let before = count(Call::Recv);
        waits_in(&mut map, Duration::from_millis(150));
        dispatch_loop::faults::clear();
        assert!(count(Call::Recv) - before < 200, "{} calls", count(Call::Recv) - before);
    }

    /// `unread` on a channel of datagrams kept the loop from sleeping.
    #[test]
    fn unread_of_a_datagram_puts_nothing_back() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
        turn_idle(&mut map);
        view(&mut map, token).unread(b"x");
        turn_idle(&mut map);
        assert_calm(&mut map);
        far.send(b"y").unwrap();
        turn_until(&mut map, &log, |_| log.has("a datagram"));
    }

    /// A socket of a kind that is neither was taken for one of datagrams, and its end for empty ones,
    /// for ever.
    #[test]
    fn a_socket_of_another_kind_is_refused() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None);
        // Not every system has them.
        if let Ok((near, _far)) = pair {
            assert_eq!(Socket::from_fd(near).unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }

    /// The end of one channel made the file of another one blocking, and with it the loop.
    #[test]
    fn two_channels_of_one_file_end_without_making_it_blocking() {
        let nonblocking =
            |file: &File| rustix::fs::fcntl_getfl(file).unwrap().contains(rustix::fs::OFlags::NONBLOCK);
        let (reader, _writer) = pipe();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let first = map.add_file(&reader, Recorder::new("a", &log)).unwrap().token();
        let second = map.add_file(&reader, Recorder::new("b", &log)).unwrap().token();
        for (token, still) in [(first, true), (second, false)] {
            view(&mut map, token).abort();
            turn_until(&mut map, &log, |map| !map.contains(token));
            assert_eq!(nonblocking(&reader), still);
        }
    }

    /// A pipe that is written to did not end while reading was paused, and had the default
    /// `handle_read` complain of input; `shutdown_write` left its reader waiting.
    #[test]
    fn a_pipe_that_is_written_to_ends_with_its_reader_or_with_us() {
        for (end, queued) in [("reader", 0), ("reader", 200_000), ("shutdown", 0), ("shutdown", 3)] {
            let (mut reader, writer) = pipe();
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let token = map.add_file(writer, Recorder::new("a", &log)).unwrap().token();
            view(&mut map, token).pause_reading();
            view(&mut map, token).push(&vec![0; queued]).unwrap();
            turn_idle(&mut map);
            match end {
                "reader" => drop(reader),
                _ => {
                    view(&mut map, token).shutdown_write();
                    run_out(&mut map, &log);
                    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), queued);
                }
            }
            run_out(&mut map, &log);
            assert_eq!(log.count("a read"), 0, "{:?}", log.events());
            assert_eq!(log.count("a close"), 1);
        }
    }
}

/// Bugs of the short way of a message, and of the ways that lead back to it.
mod short_way {
    use super::*;
    use crate::support::peers::unix_pair;
    use dispatch_loop::{Channel, Dispatcher, Source};
    use std::cell::{Cell, RefCell};
    use std::io::{self, ErrorKind};
    use std::os::fd::BorrowedFd;
    use std::rc::Rc;

    /// Reads a few bytes in each hook, and counts them.
    struct Slow(Rc<Cell<usize>>);

    impl Dispatcher for Slow {
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            let read = ch.recv(&mut [0; 10])?;
            self.0.set(self.0.get() + read);
            Ok(())
        }
    }

    /// Once FIN had come, a read that was one of the hook's first counted as nothing done: a dispatcher
    /// that reads little at a time was suspended after 64 turns, and got the rest at ten bytes a second.
    #[test]
    fn what_came_before_fin_is_read_without_a_pause() {
        let got = Rc::new(Cell::new(0));
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = pair(loopbacks()[0]);
        map.add(near, Slow(got.clone())).unwrap();
        far.write_all(&[0; 3000]).unwrap();
        drop(far);
        let (near, mut far) = unix_pair();
        map.add(near, Slow(got.clone())).unwrap();
        far.write_all(&[0; 3000]).unwrap();
        drop(far);
        let end = Instant::now() + DEADLINE;
        while !map.is_empty() {
            assert!(Instant::now() < end);
            // No timer that would bring it back is ever set.
            let limit = map.wait_limit().filter(|limit| !limit.is_zero());
            assert_eq!(limit, None, "suspended after {} bytes", got.get());
            map.turn(Some(Duration::from_millis(5))).unwrap();
        }
        assert_eq!(got.get(), 6000);
    }

    /// Reads a byte when it is told to, and nothing else.
    struct Lazy(Rc<Cell<bool>>);

    impl Dispatcher for Lazy {
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            match self.0.replace(false) {
                true => ch.recv(&mut [0; 1]).map(drop),
                // This is no work.
                false => ch.recv(&mut []).map(drop),
            }
        }
    }

    /// A `recv` that gave nothing, into an empty buffer or because there was nothing, counted as work: the
    /// channel was never suspended, and the loop spun.
    #[cfg(debug_assertions)]
    #[test]
    fn a_read_of_nothing_is_not_work() {
        use dispatch_loop::faults::{Fault, clear, inject};
        for would_block in [false, true] {
            let (near, mut far) = unix_pair();
            let mut map = ChannelMap::new().unwrap();
            match would_block {
                true => drop(map.add(near, Slow(Rc::default())).unwrap()),
                false => drop(map.add(near, Lazy(Rc::default())).unwrap()),
            }
            turn_idle(&mut map);
            if would_block {
                inject(Call::Recv, 0, 1_000_000, Fault::Errno(libc::EAGAIN));
            }
            far.write_all(b"x").unwrap();
            let waits = waits_in(&mut map, Duration::from_millis(200));
            clear();
            assert!(waits < 200, "{waits} waits");
        }
    }

    /// A channel that was suspended for long, then read from, was suspended for as long again, not for 10 ms.
    #[test]
    fn the_pause_of_a_suspended_channel_starts_small_again() {
        let (near, mut far) = unix_pair();
        let reads = Rc::new(Cell::new(false));
        let mut map = ChannelMap::new().unwrap();
        map.add(near, Lazy(reads.clone())).unwrap();
        far.write_all(&[0; 100]).unwrap();
        let end = Instant::now() + DEADLINE;
        let turn_while = |map: &mut ChannelMap, goes_on: &dyn Fn(&ChannelMap) -> bool| {
            while goes_on(map) {
                assert!(Instant::now() < end);
                map.turn(Some(Duration::from_millis(500))).unwrap();
            }
        };
        turn_while(&mut map, &|map| map.wait_limit().is_none_or(|limit| limit < Duration::from_millis(50)));
        reads.set(true);
        turn_while(&mut map, &|_| reads.get());
        turn_while(&mut map, &|map| map.wait_limit().is_none_or(|limit| limit.is_zero()));
        let pause = map.wait_limit().unwrap();
        assert!(pause <= Duration::from_millis(10), "{pause:?}");
    }

    /// A source in memory: what it has to give, what it was given, and the room for more.
    #[derive(Default)]
    struct Buffers {
        input: Vec<u8>,
        output: Vec<u8>,
        room: usize,
    }

    struct Memory(Rc<RefCell<Buffers>>);

    impl Source for Memory {
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let mut buffers = self.0.borrow_mut();
            match buffers.input.pop() {
                Some(byte) => buffer[0] = byte,
                None => return Err(ErrorKind::WouldBlock.into()),
            }
            Ok(1)
        }
        fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut buffers = self.0.borrow_mut();
            let taken = buffers.room.min(bytes.len());
            if taken == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            buffers.room -= taken;
            buffers.output.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn shutdown_write(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn input_pending(&self) -> bool {
            !self.0.borrow().input.is_empty()
        }
    }

    /// What a source without a descriptor had no room for was never offered to it again.
    #[test]
    fn a_source_without_a_descriptor_goes_on_sending_when_it_is_ready() {
        let log = Log::new();
        let buffers = Rc::new(RefCell::new(Buffers { room: 3, ..Buffers::default() }));
        let mut map = ChannelMap::new().unwrap();
        let token = map.add_source(Memory(buffers.clone()), Recorder::new("a", &log)).unwrap().token();
        turn_idle(&mut map);
        view(&mut map, token).push(b"hello world").unwrap();
        turn_idle(&mut map);
        assert_eq!(buffers.borrow().output, b"hel");
        buffers.borrow_mut().room = 100;
        view(&mut map, token).source_ready();
        turn_idle(&mut map);
        assert_eq!(buffers.borrow().output, b"hello world");
    }

    /// One with input that nobody reads was never suspended, and the loop spun.
    #[test]
    fn a_stuck_source_without_a_descriptor_is_suspended() {
        let buffers = Rc::new(RefCell::new(Buffers::default()));
        let reads = Rc::new(Cell::new(false));
        let mut map = ChannelMap::new().unwrap();
        buffers.borrow_mut().input.push(1);
        map.add_source(Memory(buffers.clone()), Lazy(reads.clone())).unwrap();
        let waits = waits_in(&mut map, Duration::from_millis(200));
        assert!(waits < 200, "{waits} waits");
        reads.set(true);
        turn_until(&mut map, &Log::new(), |_| buffers.borrow().input.is_empty());
    }
}

/// Bugs of what a hook's pushes are gathered in.
mod gathered {
    use super::*;
    use crate::support::opened::{opened, opened_on};
    use crate::support::peers::{read_all, read_now, read_to_end, unix_pair};
    use dispatch_loop::OnLimit;
    use std::cell::RefCell;
    use std::mem::swap;
    use std::rc::Rc;

    /// `handle_timeout` said why and ended: what it had said was dropped, and FIN was sent.
    #[test]
    fn what_a_hook_pushes_before_time_out_is_sent() {
        for on in loopbacks() {
            let log = Log::new();
            let recorder = Recorder::new("a", &log).on("timeout", |ch| {
                ch.push(b"408 too slow\n")?;
                ch.time_out();
                Ok(())
            });
            let (mut map, token, mut far) = opened(on, recorder);
            view(&mut map, token).set_timeout(Some(Duration::from_millis(20)));
            turn_until(&mut map, &log, |map| map.is_empty());
            assert_eq!(read_all(&mut far).0, b"408 too slow\n");
        }
    }

    /// The reason was `Closed`, and bytes were dropped: those that had been pushed in the same hook.
    #[test]
    fn an_abort_that_drops_what_the_hook_pushed_is_the_reason() {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        let recorder = Recorder::new("a", &log).on("read", |ch| {
            ch.read_with(|_, _| Ok(()))?;
            ch.push(b"dropped")?;
            ch.close();
            ch.abort();
            Ok(())
        });
        let (mut map, _) = opened_on(near, recorder);
        far.write_all(b"x").unwrap();
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(log.of("a").last().unwrap(), "close: aborted");
    }

    /// A push after `close_all`, or after a broadcast that had ended the channel, was taken.
    #[test]
    fn nothing_is_taken_after_the_map_has_closed_the_channel() {
        for limited in [false, true] {
            let log = Log::new();
            let (near, mut far) = unix_pair();
            let after = log.clone();
            let recorder = Recorder::new("a", &log).on("read", move |ch| {
                ch.read_with(|_, _| Ok(()))?;
                ch.push(b"before")?;
                let token = ch.token();
                match limited {
                    true => ch.map_mut().broadcast([token], &[0; 5000]),
                    false => ch.map_mut().close_all(),
                }
                after.add(format!("{:?}", ch.push(b"after").map_err(|error| error.kind())));
                Ok(())
            });
            let (mut map, token) = opened_on(near, recorder);
            view(&mut map, token).set_limit(4096, OnLimit::Refuse);
            turn_idle(&mut map);
            far.write_all(b"x").unwrap();
            turn_until(&mut map, &log, |map| map.is_empty());
            assert!(log.has("Err(BrokenPipe)"), "{:?}", log.events());
            if !limited {
                assert_eq!(read_to_end(&mut far), b"before");
            }
        }
    }

    /// A broadcast to the channel whose hook was running was dropped without a word where only what that
    /// hook had pushed before put it over the hard limit.
    #[cfg(debug_assertions)]
    #[test]
    fn a_broadcast_counts_what_the_hook_has_pushed() {
        use dispatch_loop::faults::{Fault, inject};

        let log = Log::new();
        let (near, mut far) = unix_pair();
        let recorder = Recorder::new("a", &log).on("read", |ch| {
            ch.read_with(|_, _| Ok(()))?;
            ch.push(&[1; 4000])?;
            let token = ch.token();
            // The socket has no room for what was pushed.
            inject(Call::Send, 0, 2, Fault::Errno(libc::EAGAIN));
            ch.map_mut().broadcast([token], &[2; 2000]);
            Ok(())
        });
        let (mut map, token) = opened_on(near, recorder);
        view(&mut map, token).set_limit(5000, OnLimit::Refuse);
        turn_idle(&mut map);
        far.write_all(b"x").unwrap();
        turn_until(&mut map, &log, |map| map.is_empty());
        assert!(log.closed("a"));
    }

    /// A hook pushed, then dropped its map: the bytes were gone, and the connection ended as if in order.
    #[test]
    fn what_a_hook_pushes_before_it_drops_its_map_is_sent() {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        let recorder = Recorder::new("a", &log).on("read", |ch| {
            ch.read_with(|_, _| Ok(()))?;
            ch.push(b"the last words")?;
            *ch.map_mut() = ChannelMap::new()?;
            Ok(())
        });
        let (mut map, token) = opened_on(near, recorder);
        far.write_all(b"x").unwrap();
        turn_until(&mut map, &log, |map| !map.contains(token));
        assert_eq!(read_to_end(&mut far), b"the last words");
        assert_eq!(log.count("a close"), 1);
    }

    /// A `with` of the channel's own timer panicked, and what that timer had pushed was dropped, while what a
    /// hook has pushed when it panics is sent.
    #[test]
    fn what_a_timer_pushes_before_its_with_panics_is_sent() {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        let mut map = ChannelMap::new().unwrap();
        let handle = map.add(near, Recorder::new("a", &log)).unwrap();
        map.channel(handle).unwrap().call_later(Duration::ZERO, move |ch| {
            ch.push(b"pushed")?;
            let _ = ch.map_mut().with(handle, |_, _| -> std::io::Result<()> { panic!("wanted") });
            Ok(())
        });
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(read_all(&mut far).0, b"pushed");
    }

    /// A piece of exactly 4 KiB waited for the end of the hook, which it is too large for.
    #[test]
    fn a_piece_of_4_kib_leaves_at_once() {
        let log = Log::new();
        let (near, far) = unix_pair();
        far.set_nonblocking(true).unwrap();
        let at_once = log.clone();
        let recorder = Recorder::new("a", &log).on("open", move |ch| {
            ch.push(&[0; 4096])?;
            at_once.add(format!("a got {}", (&far).read(&mut [0; 5000])?));
            Ok(())
        });
        opened_on(near, recorder);
        assert!(log.has("a got 4096"), "{:?}", log.events());
    }

    /// A channel's timer pushed, then swapped its map away: the channel lived on, and the bytes were gone.
    #[test]
    fn what_a_timer_pushes_before_it_swaps_its_map_away_is_sent() {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        let (mut map, token) = opened_on(near, Recorder::new("a", &log));
        let other = Rc::new(RefCell::new(ChannelMap::new().unwrap()));
        let elsewhere = other.clone();
        view(&mut map, token).call_later(Duration::ZERO, move |ch| {
            ch.push(b"pushed")?;
            swap(ch.map_mut(), &mut elsewhere.borrow_mut());
            Ok(())
        });
        turn_until(&mut map, &log, |map| !map.contains(token));
        swap(&mut map, &mut other.borrow_mut());
        turn_idle(&mut map);
        assert!(map.contains(token));
        far.set_nonblocking(true).unwrap();
        assert_eq!(read_now(&mut far).0, b"pushed");
    }
}

/// Bugs of the ways into the loop from other threads, and of maps in odd places.
mod ways_in {
    use super::*;
    use dispatch_loop::{LoopOptions, run, run_with};
    use std::cell::{Cell, RefCell};
    use std::mem::swap;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    thread_local! {
        static ELSEWHERE: RefCell<Option<ChannelMap>> = const { RefCell::new(None) };
    }

    fn swap_away(map: &mut ChannelMap) {
        ELSEWHERE.with_borrow_mut(|other| swap(map, other.as_mut().unwrap()));
    }

    /// A message swapped its map away. Those behind it were never run, and that map's loop never slept.
    #[test]
    fn the_messages_behind_one_that_swaps_the_maps_run_when_their_map_does() {
        let mut map = ChannelMap::new().unwrap();
        ELSEWHERE.set(Some(ChannelMap::new().unwrap()));
        let remote = map.remote();
        let ran = Arc::new(AtomicUsize::new(0));
        let counter = ran.clone();
        remote.call(swap_away).unwrap();
        remote
            .call(move |_| {
                counter.fetch_add(1, SeqCst);
            })
            .unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(ran.load(SeqCst), 0);
        swap_away(&mut map);
        turn_idle(&mut map);
        assert_eq!(ran.load(SeqCst), 1);
        ELSEWHERE.take();
    }

    /// A map in a local of its thread, set before the loop's own locals were, aborted the process when the
    /// thread ended.
    #[test]
    fn a_map_in_a_thread_local_ends_in_order() {
        struct Told(Arc<AtomicUsize>, #[expect(dead_code)] std::os::unix::net::UnixStream);
        impl dispatch_loop::Dispatcher for Told {
            fn handle_close(&mut self, ch: &mut dispatch_loop::Channel<'_>, _: &dispatch_loop::Reason) {
                self.0.fetch_add(1, SeqCst);
                // Refused, as in any other drop.
                assert!(run(ch.map_mut()).is_err());
                self.0.fetch_add(1, SeqCst);
            }
        }
        let told = Arc::new(AtomicUsize::new(0));
        let inside = told.clone();
        let thread = std::thread::spawn(move || {
            ELSEWHERE.set(Some(ChannelMap::new().unwrap()));
            ELSEWHERE.with_borrow_mut(|map| {
                let map = map.as_mut().unwrap();
                let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
                map.add(near, Told(inside, far)).unwrap();
                map.turn(Some(Duration::ZERO)).unwrap();
            });
        });
        thread.join().unwrap();
        assert_eq!(told.load(SeqCst), 2);
    }

    /// A guard's `call_after_stop`, which undoes what a `call` of the same thread does, came before that.
    #[test]
    fn what_one_thread_sends_keeps_its_order() {
        let mut map = ChannelMap::new().unwrap();
        let remote = map.remote();
        let ran = Arc::new(std::sync::Mutex::new(Vec::new()));
        let note = |n: u32| {
            let ran = ran.clone();
            move |_: &mut ChannelMap| ran.lock().unwrap().push(n)
        };
        remote.call(note(1)).unwrap();
        remote.call_after_stop(note(2)).unwrap();
        remote.call(note(3)).unwrap();
        run(&mut map).unwrap();
        assert_eq!(*ran.lock().unwrap(), [1, 2, 3]);
    }

    /// After a stop, `turn` did not let messages in again; nor did a `run` whose hook had put the stopped
    /// map in the place of its own.
    #[test]
    fn a_stopped_map_that_turns_again_takes_messages_again() {
        let stopped = || {
            let mut map = ChannelMap::new().unwrap();
            let remote = map.remote();
            map.stop();
            run(&mut map).unwrap();
            assert!(remote.is_stopped());
            (map, remote)
        };
        let (mut map, remote) = stopped();
        map.turn(Some(Duration::ZERO)).unwrap();
        assert!(!remote.is_stopped());

        let (mut other, remote) = stopped();
        let seen = Rc::new(Cell::new(None));
        let see = seen.clone();
        other.call_later(Duration::from_millis(1), move |_| see.set(Some(remote.is_stopped())));
        let mut map = ChannelMap::new().unwrap();
        map.call_soon(move |map| *map = other);
        run_with(&mut map, &LoopOptions::default().with_count(20)).unwrap();
        assert_eq!(seen.get(), Some(false));
    }
}

/// Bugs of timers and time-outs.
mod time {
    use super::*;
    use crate::support::opened::opened_on;
    use crate::support::peers::unix_pair;
    use std::cell::Cell;
    use std::rc::Rc;

    /// What was pushed from outside the hooks, at once or by the next settle, was stamped with the time of
    /// the turn before, and the time-out came too soon.
    #[test]
    fn a_time_out_counts_from_the_last_byte_that_was_pushed_from_outside() {
        for size in [10, 10_000] {
            let log = Log::new();
            let (near, _far) = unix_pair();
            let (mut map, token) = opened_on(near, Recorder::new("a", &log));
            let timeout = Duration::from_millis(300);
            view(&mut map, token).set_timeout(Some(timeout));
            map.turn(Some(Duration::ZERO)).unwrap();
            std::thread::sleep(timeout - Duration::from_millis(10));
            let pushed = Instant::now();
            view(&mut map, token).push(&vec![0; size]).unwrap();
            turn_until(&mut map, &log, |_| log.has("a timeout"));
            let idle = pushed.elapsed();
            assert!(idle >= timeout, "{idle:?} after the last of {size} bytes");
        }
    }

    struct Bomb(Rc<Cell<u32>>);

    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            panic!("wanted");
        }
    }

    /// A timer that was due when its channel had just ended was dropped outside every net: a panic of that
    /// drop ended the loop.
    #[test]
    fn a_timer_that_comes_too_late_is_dropped_in_the_net() {
        let drops = Rc::new(Cell::new(0));
        let counter = drops.clone();
        let log = Log::new();
        let (near, mut far) = unix_pair();
        let recorder = Recorder::new("a", &log).on("read", move |ch| {
            let bomb = Bomb(counter.clone());
            ch.call_later(Duration::ZERO, move |_| {
                let _ = &bomb;
                Ok(())
            });
            ch.abort();
            Ok(())
        });
        let (mut map, _) = opened_on(near, recorder);
        far.write_all(b"x").unwrap();
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(drops.get(), 1);
    }
}

/// Bugs of errors, and of what they end.
mod ends {
    use super::*;
    use crate::support::opened::{opened, opened_on};
    use crate::support::peers::{cut_short, refusing, unix_pair};
    use dispatch_loop::{Channel, Dispatcher, OnError, Reason};
    use std::cell::Cell;
    use std::fmt;
    use std::io;
    use std::rc::Rc;

    /// `handle_error` closed the channel, and the reason was that close.
    #[test]
    fn a_close_inside_handle_error_keeps_the_error_as_the_reason() {
        let closing = |name, log: &Log| {
            Recorder::new(name, log).on("error", |ch| {
                ch.close();
                Ok(())
            })
        };
        let (_socket, to) = refusing(loopbacks()[0]);
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.connect(to, closing("a", &log)).unwrap();
        turn_until(&mut map, &log, |map| map.is_empty());
        assert!(log.of("a").last().unwrap().contains("refused"), "{:?}", log.events());
        for on_error in [OnError::End, OnError::Keep] {
            let log = Log::new();
            let failing =
                closing("a", &log).on("open", |_| Err(io::Error::other("wanted"))).on_error(on_error);
            let (near, _far) = unix_pair();
            map.add(near, failing).unwrap();
            turn_until(&mut map, &log, |map| map.is_empty());
            assert_eq!(log.of("a").last().unwrap(), "close: wanted");
        }
    }

    #[derive(Debug)]
    struct Undroppable;

    impl Drop for Undroppable {
        fn drop(&mut self) {
            panic!("wanted");
        }
    }

    impl fmt::Display for Undroppable {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wanted")
        }
    }

    impl std::error::Error for Undroppable {}

    #[derive(Debug)]
    struct Unspeakable;

    impl fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("wanted")
        }
    }

    impl std::error::Error for Unspeakable {}

    struct Failing(Option<io::Error>, OnError, Rc<Cell<u32>>);

    impl Dispatcher for Failing {
        fn handle_open(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
            self.0.take().map_or(Ok(()), Err)
        }
        fn handle_error(&mut self, _: &mut Channel<'_>, _: &io::Error) -> OnError {
            self.1
        }
        fn handle_close(&mut self, _: &mut Channel<'_>, _: &Reason) {
            self.2.set(self.2.get() + 1);
        }
    }

    /// A panic of an error's drop, or of its text in the log, ended the loop.
    #[test]
    fn an_error_that_panics_itself_ends_its_channel_alone() {
        crate::support::logging::capture_log();
        for on_error in [OnError::End, OnError::Keep] {
            for error in [io::Error::other(Undroppable), io::Error::other(Unspeakable)] {
                let closed = Rc::new(Cell::new(0));
                let (near, far) = unix_pair();
                let mut map = ChannelMap::new().unwrap();
                map.add(near, Failing(Some(error), on_error, closed.clone())).unwrap();
                turn_idle(&mut map);
                drop(far);
                turn_until(&mut map, &Log::new(), |map| map.is_empty());
                assert_eq!(closed.get(), 1);
            }
        }
    }

    /// The drop of a map ended a channel that had output queued by FIN, as if that were all.
    #[test]
    fn what_the_drop_of_a_map_cuts_short_does_not_look_like_an_end() {
        for on in loopbacks() {
            for closing in [false, true] {
                let log = Log::new();
                let (mut map, token, far) = opened(on, Recorder::new("a", &log));
                fill(&mut map, &log, token);
                if closing {
                    view(&mut map, token).close();
                    turn_idle(&mut map);
                }
                drop(map);
                cut_short(far);
            }
        }
    }

    /// A time that was set while the channel was closing was of no effect before the one that was set first
    /// was over.
    #[test]
    fn a_close_timeout_that_is_set_while_closing_counts_from_then() {
        let log = Log::new();
        let (near, _far) = unix_pair();
        let (mut map, token) = opened_on(near, Recorder::new("a", &log));
        view(&mut map, token).push(&vec![0; 4 << 20]).unwrap();
        view(&mut map, token).close();
        turn_idle(&mut map);
        let set = Instant::now();
        view(&mut map, token).set_close_timeout(Duration::from_millis(50));
        turn_until(&mut map, &log, |map| !map.contains(token));
        assert!(set.elapsed() >= Duration::from_millis(50));
        assert_eq!(log.of("a").last().unwrap(), "close: timed out");
    }
}
