//! Descriptors that go along with bytes: in order, once, and never left open. A pipe tells: its end comes when
//! the last descriptor of its writing end is closed.

use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use dispatch_loop::{ChannelMap, Dispatcher};
use rustix::io::{FdFlags, fcntl_getfd};

use crate::support::peers::{pair, pattern, pipe, unix_pair};
#[cfg(target_os = "linux")]
use crate::support::process::{alone, open_descriptors};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_quiet, turn_until};

/// What was read, and with which part of it descriptors came.
#[derive(Default)]
struct Got {
    bytes: Vec<u8>,
    descriptors: Vec<(Range<usize>, OwnedFd)>,
}

struct Receiver(Rc<RefCell<Got>>);

impl Dispatcher for Receiver {
    fn handle_read(&mut self, ch: &mut dispatch_loop::Channel<'_>) -> std::io::Result<()> {
        let mut got = self.0.borrow_mut();
        let (mut buffer, mut new) = ([0; 1000], Vec::new());
        let read = ch.recv_descriptors(&mut buffer, &mut new)?;
        let at = got.bytes.len();
        got.descriptors.extend(new.into_iter().map(|fd| (at..at + read, fd)));
        got.bytes.extend_from_slice(&buffer[..read]);
        Ok(())
    }
}

/// Nothing has the writing end of this pipe open any more.
fn assert_closed(mut reader: File, log: &Log) {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(reader.read(&mut [0])).unwrap());
    let end = receiver.recv_timeout(crate::support::waiting::DEADLINE);
    assert_eq!(end.expect("left open").unwrap(), 0, "{:?}", log.events());
}

/// EDGE_CASES 414
#[test]
fn descriptors_come_in_their_place_among_the_bytes_and_once() {
    for len in [0, 1, 300_000] {
        let log = Log::new();
        let got = Rc::<RefCell<Got>>::default();
        let mut map = ChannelMap::new().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let ends: Vec<_> = (0..3).map(|_| pipe()).collect();
        let (readers, writers): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
        let mut writers = writers.into_iter().map(OwnedFd::from);
        let sender = Recorder::new("a", &log).on("open", move |ch| {
            ch.push(&pattern(len))?;
            ch.push_descriptors(b"one", vec![writers.next().unwrap()])?;
            ch.push(b"between")?;
            ch.push_descriptors(&pattern(len.max(1)), writers.by_ref().take(2).collect())?;
            ch.push(b"end")?;
            ch.close();
            Ok(())
        });
        map.add(near, sender).unwrap();
        map.add(far, Receiver(got.clone())).unwrap();
        run_out(&mut map, &log);
        let got = got.take();
        let second = len + 3 + 7;
        let all = [&pattern(len)[..], b"one", b"between", &pattern(len.max(1)), b"end"].concat();
        assert!(got.bytes == all);
        let places = got.descriptors.iter().zip([len, second, second]);
        assert_eq!(places.len(), 3);
        for ((with, _), at) in places {
            assert!(with.contains(&at), "{with:?} instead of {at}");
        }
        for ((_, descriptor), mut reader) in got.descriptors.into_iter().zip(readers) {
            assert!(fcntl_getfd(&descriptor).unwrap().contains(FdFlags::CLOEXEC));
            File::from(descriptor).write_all(b"x").unwrap();
            let mut one = [0];
            reader.read_exact(&mut one).unwrap();
            assert_closed(reader, &log);
        }
    }
}

/// EDGE_CASES 415: read by other means, not read at all, not even sent, dropped with the map.
#[test]
fn descriptors_that_nobody_takes_are_closed() {
    for how in ["read", "not read", "not sent", "refused", "map"] {
        let log = Log::new();
        let (reader, writer) = pipe();
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = unix_pair();
        let a = map.add(near, Recorder::new("a", &log)).unwrap();
        let mut ch = map.channel(a).unwrap();
        if matches!(how, "not sent" | "map") {
            ch.push(&pattern(4 << 20)).unwrap();
        }
        if how == "refused" {
            ch.close();
        }
        let pushed = ch.push_descriptors(b"one", vec![writer.into()]);
        assert_eq!(pushed.is_err(), how == "refused");
        match how {
            "read" => {
                turn_quiet(&mut map);
                let mut three = [0; 3];
                far.read_exact(&mut three).unwrap();
            }
            "not read" => turn_quiet(&mut map),
            "map" => {
                turn_quiet(&mut map);
                drop(std::mem::replace(&mut map, ChannelMap::new().unwrap()));
            }
            "not sent" => {
                turn_quiet(&mut map);
                map.channel(a).unwrap().abort();
                turn_quiet(&mut map);
            }
            _ => {}
        }
        drop(far);
        assert_closed(reader, &log);
    }
}

/// EDGE_CASES 416: a channel that does not expect descriptors is given none.
#[test]
fn a_channel_that_does_not_ask_for_descriptors_gets_none() {
    let log = Log::new();
    let (reader, writer) = pipe();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let a = map.add(near, Recorder::new("a", &log)).unwrap();
    map.add(far, Recorder::new("b", &log)).unwrap();
    map.channel(a).unwrap().push_descriptors(b"one", vec![writer.into()]).unwrap();
    turn_until(&mut map, &log, |_| log.input("b") == b"one");
    assert_closed(reader, &log);
}

/// EDGE_CASES 417
#[test]
fn what_cannot_carry_descriptors_says_so() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _far) = pair("127.0.0.1:0".parse().unwrap());
    let tcp = map.add(near, Recorder::new("a", &log)).unwrap();
    let (near, _far) = UnixStream::pair().unwrap();
    let unix = map.add(near, Recorder::new("b", &log)).unwrap();
    turn_quiet(&mut map);
    let fd = || pipe().1.as_fd().try_clone_to_owned().unwrap();
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    let mut ch = map.channel(tcp).unwrap();
    assert_eq!(kind(ch.push_descriptors(b"one", vec![fd()])), ErrorKind::Unsupported);
    let mut into = Vec::new();
    assert_eq!(kind(ch.recv_descriptors(&mut [0; 8], &mut into).map(drop)), ErrorKind::Unsupported);
    let mut ch = map.channel(unix).unwrap();
    assert_eq!(kind(ch.push_descriptors(b"", vec![fd()])), ErrorKind::InvalidInput);
    assert_eq!(kind(ch.push_descriptors(b"one", vec![])), ErrorKind::InvalidInput);
    let many = (0..254).map(|_| fd()).collect();
    assert_eq!(kind(ch.push_descriptors(b"one", many)), ErrorKind::InvalidInput);
    assert_eq!(kind(ch.recv_descriptors(&mut [0; 8], &mut into).map(drop)), ErrorKind::WouldBlock);
    // As with a producer: what is queued could not be told as bytes.
    ch.push(&pattern(4 << 20)).unwrap();
    ch.push_descriptors(b"one", vec![fd()]).unwrap();
    assert_eq!(kind(ch.detach().map(drop)), ErrorKind::Unsupported);
    assert!(!ch.is_closing());
}

/// EDGE_CASES 430: in a process with few descriptors.
#[cfg(target_os = "linux")]
#[test]
fn descriptors_without_room_are_closed_and_the_connection_is_lost() {
    alone(Some(40), || {
        let log = Log::new();
        let got = Rc::<RefCell<Got>>::default();
        let mut map = ChannelMap::new().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let (reader, writer) = pipe();
        let a = map.add(near, Recorder::new("a", &log)).unwrap();
        let many = (0..10).map(|_| writer.as_fd().try_clone_to_owned().unwrap()).collect();
        drop(writer);
        map.channel(a).unwrap().push_descriptors(b"ten", many).unwrap();
        turn_quiet(&mut map);
        // They are on their way, and nowhere open.
        let b = map.add(far, Receiver(got.clone())).unwrap();
        let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        files.truncate(files.len() - 3);
        let before = open_descriptors();
        turn_until(&mut map, &log, |map| !map.contains(b));
        assert!(got.borrow().descriptors.is_empty() && got.borrow().bytes.is_empty());
        files.clear();
        turn_until(&mut map, &log, |map| map.is_empty());
        assert!(open_descriptors() < before);
        assert_closed(reader, &log);
    });
}
