//! A source that exchanges its descriptor for another.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use dispatch_loop::{ChannelMap, Source};

use crate::support::peers::unix_pair;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, run_out, turn_until};

/// What becomes of the old descriptor.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Old {
    Closed,
    Kept,
    /// Closed, and its number is another channel's now.
    Reused,
}

/// Reads from one socket until it is told to go over to the next.
struct Exchanging {
    now: UnixStream,
    next: Option<UnixStream>,
    old: Old,
    kept: Rc<RefCell<Vec<OwnedFd>>>,
}

impl Source for Exchanging {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.now.as_fd())
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.now.read(buffer)?;
        if &buffer[..read] == b"go over" {
            if let Some(next) = self.next.take() {
                let old = std::mem::replace(&mut self.now, next);
                if self.old == Old::Kept {
                    self.kept.borrow_mut().push(old.into());
                }
            }
        }
        Ok(read)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.now.write(bytes)
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.now.shutdown(std::net::Shutdown::Write)
    }
}

/// EDGE_CASES 85: the new one was never watched, and the old one for ever, also after the channel's end.
#[test]
fn a_source_that_exchanges_its_descriptor_goes_on_and_leaves_none_in_the_poller() {
    for old in [Old::Closed, Old::Kept, Old::Reused] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (now, mut first) = unix_pair();
        let (next, mut second) = unix_pair();
        let number = now.as_raw_fd();
        for near in [&now, &next] {
            near.set_nonblocking(true).unwrap();
        }
        let kept = Rc::new(RefCell::new(Vec::new()));
        let source = Exchanging { now, next: Some(next), old, kept: kept.clone() };
        let noted = log.clone();
        let neighbour = Rc::new(RefCell::new(None));
        let far = neighbour.clone();
        let reading = Recorder::new("a", &log).on("read", move |ch| {
            let mut buffer = [0; 100];
            let read = ch.recv(&mut buffer)?;
            noted.add(format!("a got {}", buffer[..read].escape_ascii()));
            if old == Old::Reused && &buffer[..read] == b"go over" {
                // The lowest number that is free is given out next; other tests run beside this one.
                let mut others = Vec::new();
                loop {
                    let (near, other) = UnixStream::pair()?;
                    let found = near.as_raw_fd() == number;
                    if found || others.len() > 50 {
                        ch.map_mut().add(near, Recorder::new("b", &noted))?;
                        *far.borrow_mut() = Some(other);
                        break;
                    }
                    others.push((near, other));
                }
            }
            Ok(())
        });
        let handle = map.add_source(source, reading).unwrap();
        first.write_all(b"go over").unwrap();
        turn_until(&mut map, &log, |_| log.has("a got go over"));
        // If it is still there, it has something to say.
        let _ = first.write_all(b"to nobody");
        assert_calm(&mut map);
        second.write_all(b"second").unwrap();
        turn_until(&mut map, &log, |_| log.has("a got second"));
        if let Some(mut far) = neighbour.take() {
            far.write_all(b"to the neighbour").unwrap();
            turn_until(&mut map, &log, |_| log.input("b") == b"to the neighbour");
        }
        map.channel(handle).unwrap().abort();
        turn_until(&mut map, &log, |map| !map.contains(handle));
        let (near, _far) = unix_pair();
        map.add(near, Recorder::new("c", &log)).unwrap();
        assert_calm(&mut map);
        drop((first, second));
    }
}

/// EDGE_CASES 85: exchanged in its last moment.
#[test]
fn a_descriptor_that_is_exchanged_before_the_end_is_not_left_in_the_poller_either() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (now, mut first) = unix_pair();
    let (next, _second) = unix_pair();
    now.set_nonblocking(true).unwrap();
    let kept = Rc::new(RefCell::new(Vec::new()));
    let source = Exchanging { now, next: Some(next), old: Old::Kept, kept: kept.clone() };
    let reading = Recorder::new("a", &log).on("read", |ch| {
        ch.recv(&mut [0; 7])?;
        ch.abort();
        Ok(())
    });
    map.add_source(source, reading).unwrap();
    first.write_all(b"go over").unwrap();
    run_out(&mut map, &log);
    first.write_all(b"to nobody").unwrap();
    let (near, _far) = unix_pair();
    map.add(near, Recorder::new("c", &log)).unwrap();
    assert_calm(&mut map);
    assert_eq!(kept.borrow().len(), 1);
}
