//! A source whose new descriptor has the number of the old one.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use dispatch_loop::{ChannelMap, Source};

use crate::support::peers::unix_pair;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, turn_until};

/// Reads from one socket until it is told to go over to the next. It closes the first before it has the
/// second, which so takes its number.
struct Renewed {
    now: OwnedFd,
    next: Option<UnixStream>,
}

impl Source for Renewed {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.now.as_fd())
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = rustix::io::read(&self.now, &mut *buffer)?;
        if let Some(next) = self.next.take_if(|_| &buffer[..read] == b"go over") {
            let number = self.now.as_raw_fd();
            // In one step: other tests run beside this one.
            rustix::io::dup2(&next, &mut self.now)?;
            assert_eq!(self.now.as_raw_fd(), number);
        }
        Ok(read)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.now, bytes)?)
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// EDGE_CASES 132: the kernel watched neither of the two, and the loop did not notice.
#[test]
fn a_descriptor_of_the_same_number_is_watched_once_it_is_announced() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (now, mut first) = unix_pair();
    let (next, mut second) = unix_pair();
    for near in [&now, &next] {
        near.set_nonblocking(true).unwrap();
    }
    let noted = log.clone();
    let reading = Recorder::new("a", &log).on("read", move |ch| {
        let mut buffer = [0; 100];
        let read = ch.recv(&mut buffer)?;
        noted.add(format!("a got {}", buffer[..read].escape_ascii()));
        if &buffer[..read] == b"go over" {
            ch.source_ready();
        }
        Ok(())
    });
    let handle = map.add_source(Renewed { now: now.into(), next: Some(next) }, reading).unwrap();
    first.write_all(b"go over").unwrap();
    turn_until(&mut map, &log, |_| log.has("a got go over"));
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "the old one is closed");
    second.write_all(b"second").unwrap();
    turn_until(&mut map, &log, |_| log.has("a got second"));
    assert_calm(&mut map);
    map.channel(handle).unwrap().abort();
    turn_until(&mut map, &log, |map| !map.contains(handle));
    assert_calm(&mut map);
}
