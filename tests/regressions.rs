//! Bugs that were there once, and must not come back. Each says what happened.

mod util;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use dispatch_loop::ChannelMap;
use dispatch_loop::faults::{Call, count};
use util::*;

/// A channel that had crossed its high watermark and was closed, with input unread, kept the loop
/// from sleeping while it waited for the peer's end: the news of the watermark, which nobody was
/// to be told any more, had it settled again and again.
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
                util::flow::fill(&mut map, &log, token);
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
fn a_handle_write_after_each_push_is_not_put_aside() {
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
            assert_eq!(map.wait_limit().filter(|limit| !limit.is_zero()), None, "put aside in round {round}");
            map.turn(Some(Duration::ZERO)).unwrap();
        }
        assert_eq!(map.get(told).unwrap().times, round + 1);
        far.read_exact(&mut [0; 26]).unwrap();
    }
}

/// The poller failed, and threads that waited for the loop were never told.
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

/// What a peer sent in the clear right behind STARTTLS counted as if it had come through the new
/// source. It goes to that source, which finds its own first bytes there.
#[cfg(feature = "layers")]
mod starttls {
    use super::*;
    use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
    use dispatch_loop::{Channel, Dispatcher, Source};
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};

    /// Every byte turned over, which will do for a cipher.
    struct Inverted(Box<dyn Source>);

    impl AsFd for Inverted {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl Source for Inverted {
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

    struct Server(Log);

    impl Chat for Server {
        fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
            self.0.add(format!("line {}", line.escape_ascii()));
            if line == b"STARTTLS" {
                ch.wrap_source(|plain| Ok(Box::new(Inverted(plain))))?;
            }
            Ok(())
        }
    }

    /// The same with the raw hooks and `unread`.
    struct Raw(Log, bool);

    impl Dispatcher for Raw {
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.read_with(|ch, data| {
                let end = data.iter().position(|&byte| byte == b'\n').map_or(data.len(), |at| at + 1);
                self.0.add(format!("line {}", data[..end].trim_ascii_end().escape_ascii()));
                ch.unread(&data[end..]);
                match std::mem::replace(&mut self.1, true) {
                    true => Ok(()),
                    false => ch.wrap_source(|plain| Ok(Box::new(Inverted(plain)))),
                }
            })
        }
    }

    #[test]
    fn what_follows_starttls_goes_to_the_new_source() {
        for raw in [false, true] {
            let log = Log::new();
            let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
            let mut map = dispatch_loop::ChannelMap::new().unwrap();
            match raw {
                false => {
                    map.add(near, ChatDispatcher::new("\n", Server(log.clone())).unwrap()).unwrap().token()
                }
                true => map.add(near, Raw(log.clone(), false)).unwrap().token(),
            };
            let hidden: Vec<u8> = b"MAIL\n".iter().map(|byte| !byte).collect();
            far.write_all(&[b"STARTTLS\n", &hidden[..]].concat()).unwrap();
            turn_until(&mut map, &log, |_| log.events().len() == 2);
            assert_eq!(log.events(), ["line STARTTLS", "line MAIL"]);
            far.write_all(&hidden).unwrap();
            turn_until(&mut map, &log, |_| log.events().len() == 3);
            assert_eq!(log.events()[2], "line MAIL");
        }
    }
}
