//! Another source on an open channel, as STARTTLS has it: what leaves in the clear and what does not, what
//! was read ahead, when that is done, and how it fails.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, Eof, OnError, Source};

use crate::support::ends::{Kind, record_kinds};
use crate::support::peers::{pattern, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::records::Options;
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until};

fn wrap(ch: &mut Channel<'_>, client: bool) -> io::Result<()> {
    ch.wrap_source(move |plain| Ok(Options::default().around(plain, client, false)))
}

/// Every byte turned over, both ways, without a handshake.
struct Inverted {
    inner: Box<dyn Source>,
    /// Before each read, ask for nothing.
    empty_reads: bool,
}

impl Source for Inverted {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inner.descriptor()
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.empty_reads {
            self.inner.recv(&mut [])?;
        }
        let read = self.inner.recv(buffer)?;
        buffer[..read].iter_mut().for_each(|byte| *byte = !*byte);
        Ok(read)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.send(&inverted(bytes))
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.inner.shutdown_write()
    }
    fn input_pending(&self) -> bool {
        self.inner.input_pending()
    }
}

fn inverted(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

fn invert(ch: &mut Channel<'_>) -> io::Result<()> {
    ch.wrap_source(|inner| Ok(Box::new(Inverted { inner, empty_reads: false })))
}

/// EDGE_CASES 74: the "220 go" was the second push of its turn, and the first did not fit; or both came
/// from outside, and waited for the settle. It left encrypted, and both sides waited for ever.
#[test]
fn what_was_pushed_before_leaves_in_the_clear_and_what_comes_after_encrypted() {
    for (on, len, inside) in [Some("127.0.0.1:0"), None]
        .into_iter()
        .flat_map(|on| [(on, 4, true), (on, 1 << 20, true), (on, 4, false), (on, 1 << 20, false)])
    {
        let kind = Kind { on, layers: 0, client: false, options: Options::default() };
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, far) = kind.sockets();
        let answer = move |ch: &mut Channel<'_>| {
            ch.push(&pattern(len))?;
            ch.push(b"220 go")?;
            wrap(ch, false)?;
            ch.push(b"hidden;")
        };
        let server = Recorder::new("a", &log)
            .on("read", move |ch| {
                ch.read_with(|ch, data| match data {
                    b"STARTTLS" if inside => answer(ch),
                    data => ch.push(data),
                })
            })
            .on("wrapped", |ch| {
                assert!(ch.is_connected());
                ch.push(b"done;")
            });
        let handle = kind.add(&mut map, near, false, server);
        if !inside {
            turn_until(&mut map, &log, |_| log.has("a open"));
            answer(&mut map.channel(handle).unwrap()).unwrap();
        }
        let far = thread::spawn(move || {
            if inside {
                (&far).write_all(b"STARTTLS").unwrap();
            }
            let mut clear = vec![0; len + 6];
            (&far).read_exact(&mut clear).unwrap();
            assert!(clear[..len] == pattern(len) && &clear[len..] == b"220 go", "not in the clear");
            let records = Kind { layers: 1, ..kind };
            let secret = records.far(far, |far| {
                far.write(b"echo;").unwrap();
                let got = far.read_some(17).unwrap();
                far.finish().unwrap();
                got
            });
            secret.join().unwrap()
        });
        run_out(&mut map, &log);
        assert_eq!(far.join().unwrap(), b"hidden;done;echo;", "{on:?} {len} {inside}");
        assert_eq!(log.count("a wrapped"), 1);
        let events = log.of("a");
        let wrapped = events.iter().position(|event| event == "wrapped").unwrap();
        let reads = events[..wrapped].iter().filter(|event| *event == "read").count();
        assert_eq!(reads, usize::from(inside), "read before the source was there: {events:?}");
    }
}

/// EDGE_CASES 74: before `handle_open` nothing has passed in the clear, and nothing does.
#[test]
fn on_a_channel_that_is_not_open_yet_it_takes_effect_at_once_and_handle_open_says_so() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    let mut ch = map.channel(handle).unwrap();
    ch.push(b"before;").unwrap();
    invert(&mut ch).unwrap();
    ch.push(b"after").unwrap();
    ch.close();
    run_out(&mut map, &log);
    let mut got = Vec::new();
    far.read_to_end(&mut got).unwrap();
    assert_eq!(inverted(&got), b"before;after");
    assert_eq!(log.count("a wrapped"), 0);
}

/// EDGE_CASES 75: what the peer sent right behind the command is the start of the new source's input, in
/// whatever order the hook puts it back and asks for the source.
#[test]
fn what_was_read_ahead_is_the_first_that_the_new_source_reads() {
    for (unread_first, empty_reads, queued) in [(true, false), (false, false), (true, true)]
        .into_iter()
        .flat_map(|(a, b)| [(a, b, 0), (a, b, 1 << 20)])
    {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = unix_pair();
        let seen = log.clone();
        let server = Recorder::new("a", &log).quiet().on("read", move |ch| {
            ch.read_with(|ch, data| {
                let Some(rest) = data.strip_prefix(b"STARTTLS\n") else {
                    seen.add(format!("a got {}", data.escape_ascii()));
                    return Ok(());
                };
                ch.push(&vec![0; queued])?;
                if unread_first {
                    ch.unread(rest);
                }
                ch.wrap_source(move |inner| Ok(Box::new(Inverted { inner, empty_reads })))?;
                if !unread_first {
                    ch.unread(rest);
                }
                assert_eq!(ch.recv(&mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock);
                Ok(())
            })
        });
        map.add(near, server).unwrap();
        far.write_all(b"STARTTLS\n").unwrap();
        far.write_all(&inverted(b"secret")).unwrap();
        far.set_nonblocking(true).unwrap();
        let mut some = [0; 64 * 1024];
        turn_until(&mut map, &log, |_| {
            while far.read(&mut some).is_ok() {}
            log.count("a got") > 0
        });
        let mut events = log.of("a");
        events.retain(|event| event != "high" && event != "low");
        assert_eq!(events, ["open", "wrapped", "got secret"], "{unread_first} {empty_reads} {queued}");
        assert_calm(&mut map);
    }
}

/// EDGE_CASES 75: the handshake itself was read ahead, and the socket has nothing more to say.
#[test]
fn a_handshake_that_was_read_ahead_is_not_waited_for() {
    let kind = Kind { on: None, layers: 1, client: true, options: Options::default() };
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = kind.sockets();
    // All that the client says before it hears something.
    let server = Recorder::new("a", &log).on("read", |ch| {
        ch.read_with(|ch, data| {
            ch.unread(data);
            wrap(ch, false)
        })
    });
    let handle = map.add(UnixStream::from(std::os::fd::OwnedFd::from(near)), server).unwrap();
    let far = kind_far(kind, far);
    turn_until(&mut map, &log, |_| log.has("a wrapped"));
    map.channel(handle).unwrap().replace_dispatcher(Recorder::new("b", &log)).unwrap();
    run_out(&mut map, &log);
    far.join().unwrap();
    assert_eq!(log.input("b"), b"through");
}

/// A far end that begins the handshake itself.
fn kind_far(kind: Kind, far: socket2::Socket) -> thread::JoinHandle<()> {
    Kind { client: false, ..kind }.far(far, |far| {
        far.write(b"through").unwrap();
        far.finish().unwrap();
    })
}

/// EDGE_CASES 75: the end was read, too, before the source was changed: input that was put back came to
/// nobody.
#[test]
fn after_the_end_was_read_the_new_source_reads_what_was_put_back_and_the_end_once() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let kept = Rc::new(RefCell::new(Vec::new()));
    let seen = log.clone();
    let mut wrapped = false;
    let server = Recorder::new("a", &log).eof(Eof::KeepWriting).quiet().on("read", move |ch| {
        let mut buffer = [0; 100];
        match ch.recv(&mut buffer)? {
            0 if !wrapped => {
                wrapped = true;
                ch.unread(&kept.borrow());
                invert(ch)
            }
            0 => Ok(()),
            read if wrapped => {
                seen.add(format!("a got {}", buffer[..read].escape_ascii()));
                Ok(())
            }
            read => {
                kept.borrow_mut().extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    });
    let handle = map.add(near, server).unwrap();
    far.write_all(&inverted(b"secret")).unwrap();
    far.shutdown(std::net::Shutdown::Write).unwrap();
    turn_until(&mut map, &log, |_| log.has("a eof"));
    assert_eq!(log.of("a"), ["open", "wrapped", "got secret", "eof"]);
    assert_calm(&mut map);
    map.channel(handle).unwrap().close();
    run_out(&mut map, &log);
}

/// EDGE_CASES 74: with nothing to be said after it, `close` needs no new source; with something, it does.
#[test]
fn close_right_after_it_sends_what_was_pushed_on_either_side_of_it() {
    for after in [&b""[..], b"after"] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = unix_pair();
        let server = Recorder::new("a", &log).on("open", move |ch| {
            ch.push(b"before;")?;
            invert(ch)?;
            ch.push(after)?;
            ch.close();
            Ok(())
        });
        map.add(near, server).unwrap();
        run_out(&mut map, &log);
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got, [b"before;", &inverted(after)[..]].concat());
        assert_eq!(log.of("a"), ["open", "close: closed"]);
    }
}

/// EDGE_CASES 74: what is dropped is what was to be sent, not the change of the source.
#[test]
fn what_is_discarded_or_refused_while_it_waits() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    turn_until(&mut map, &log, |_| log.has("a open"));
    let mut ch = map.channel(handle).unwrap();
    ch.push(b"dropped").unwrap();
    invert(&mut ch).unwrap();
    assert_eq!(invert(&mut ch).unwrap_err().kind(), ErrorKind::ResourceBusy);
    assert_eq!(ch.detach().unwrap_err().kind(), ErrorKind::Unsupported);
    ch.push(b"dropped").unwrap();
    ch.discard_queued();
    ch.push(b"hidden").unwrap();
    turn_until(&mut map, &log, |_| log.has("a wrapped"));
    let mut got = [0; 6];
    far.read_exact(&mut got).unwrap();
    assert_eq!(inverted(&got), b"hidden");
    // And once more.
    let mut ch = map.channel(handle).unwrap();
    invert(&mut ch).unwrap();
    ch.push(b"clear again").unwrap();
    let mut got = [0; 11];
    turn_until(&mut map, &log, |_| log.count("a wrapped") == 2);
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"clear again");
}

/// EDGE_CASES 74: datagrams and listeners have no stream to put a source around, nor has one that ends.
#[test]
fn a_source_is_put_around_open_streams_only() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let bound = map.bind("127.0.0.1:0", Recorder::new("a", &log)).unwrap().token();
    let listener = map.listen("127.0.0.1:0", Recorder::new("a", &log)).unwrap().token();
    let (near, _far) = unix_pair();
    let closing = map.add(near, Recorder::new("a", &log)).unwrap().token();
    turn_idle(&mut map);
    map.channel(closing).unwrap().close();
    for token in [bound, listener, closing] {
        let error = invert(&mut map.channel(token).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    }
}

/// EDGE_CASES 89: in mid-stream as at the start, what fails is told as a failed connect is.
#[test]
fn a_source_that_cannot_be_made_or_a_handshake_that_fails_midway_is_an_error_and_the_end() {
    for panics in [false, true] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, _far) = unix_pair();
        let recorder = Recorder::new("a", &log).on_error(OnError::Keep).on("open", move |ch| {
            ch.push(b"clear")?;
            ch.wrap_source(move |_| match panics {
                true => panic!("no certificate"),
                false => Err(io::Error::new(ErrorKind::InvalidInput, "no certificate")),
            })
        });
        map.add(near, recorder).unwrap();
        run_out(&mut map, &log);
        let why = if panics { "panicked: no certificate" } else { "no certificate" };
        assert_eq!(log.of("a"), ["open".into(), format!("error: {why}"), format!("close: {why}")]);
    }
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    turn_until(&mut map, &log, |_| log.has("a open"));
    wrap(&mut map.channel(handle).unwrap(), false).unwrap();
    map.channel(handle).unwrap().push(b"never sent").unwrap();
    far.write_all(b"\x01\0\0\0\x02me\x09\0\0\0\x00").unwrap();
    run_out(&mut map, &log);
    let why = Options::default().says("received corrupt message of type InvalidContentType");
    assert_eq!(log.of("a"), ["open".into(), format!("error: {why}"), format!("close: {why}")]);
}

/// EDGE_CASES 86: nothing can pass yet, neither at the start nor midway.
#[test]
fn is_connected_is_false_in_mid_handshake() {
    for mut kind in record_kinds() {
        kind.client = true;
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, far) = kind.sockets();
        let handle = kind.add(
            &mut map,
            near,
            true,
            Recorder::new("a", &log).on("open", |ch| {
                assert!(ch.is_connected());
                Ok(())
            }),
        );
        turn_idle(&mut map);
        assert!(!map.channel(handle).unwrap().is_connected(), "{kind:?}");
        let far = kind.far(far, |far| far.finish().unwrap());
        run_out(&mut map, &log);
        far.join().unwrap();
        assert_eq!(log.of("a")[0], "open");
    }
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _silent) = unix_pair();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    turn_until(&mut map, &log, |_| log.has("a open"));
    assert!(map.channel(handle).unwrap().is_connected());
    wrap(&mut map.channel(handle).unwrap(), true).unwrap();
    turn_idle(&mut map);
    let mut ch = map.channel(handle).unwrap();
    assert!(!ch.is_connected() && !ch.is_closing());
    ch.set_timeout(Some(Duration::from_millis(1)));
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "timeout", "close: aborted"]);
}
