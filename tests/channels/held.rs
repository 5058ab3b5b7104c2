//! What a source has taken and not passed on counts as queued.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{ChannelMap, Interest, OnLimit, Source, Token};

use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_quiet, turn_until};

/// Takes everything and keeps it until it is told to let go.
struct Holding {
    socket: UnixStream,
    held: usize,
    lets_go: Rc<Cell<bool>>,
}

impl Source for Holding {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut self.socket, buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held += bytes.len();
        Ok(bytes.len())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn drive(&mut self, _: Interest) -> io::Result<bool> {
        let let_go = self.lets_go.get() && self.held > 0;
        if let_go {
            self.held = 0;
        }
        Ok(let_go)
    }
    fn output_pending(&self) -> bool {
        self.held > 0
    }
    fn output_held(&self) -> usize {
        self.held
    }
}

fn add(map: &mut ChannelMap, log: &Log, name: &'static str) -> (Token, Rc<Cell<bool>>, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let lets_go = Rc::new(Cell::new(false));
    let source = Holding { socket: near, held: 0, lets_go: lets_go.clone() };
    let token = map.add_source(source, Recorder::new(name, log).quiet()).unwrap().token();
    turn_quiet(map);
    (token, lets_go, far)
}

/// EDGE_CASES 387.
#[test]
fn bytes_inside_a_source_count_towards_the_watermarks_and_the_hard_limit() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (token, lets_go, mut far) = add(&mut map, &log, "a");
    map.channel(token).unwrap().set_limit(100_000, OnLimit::Refuse);
    map.channel(token).unwrap().push(&[7; 60_000]).unwrap();
    turn_quiet(&mut map);
    assert_eq!((map.channel(token).unwrap().queued(), log.of("a")), (0, vec!["open".to_owned()]));
    assert_eq!(
        map.channel(token).unwrap().push(&[7; 40_001]).unwrap_err().kind(),
        io::ErrorKind::QuotaExceeded
    );
    map.channel(token).unwrap().push(&[7; 40_000]).unwrap();
    turn_until(&mut map, &log, |_| log.has("a high"));
    lets_go.set(true);
    // Something for it to be driven.
    io::Write::write_all(&mut far, b"!").unwrap();
    turn_until(&mut map, &log, |_| log.has("a low"));
    map.channel(token).unwrap().push(&[7; 100_000]).unwrap();
}

/// EDGE_CASES 388.
#[test]
fn bytes_inside_a_source_count_towards_the_limit_of_the_map() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    map.set_limit(100_000);
    let (some, _, _far) = add(&mut map, &log, "some");
    let (most, _, _far) = add(&mut map, &log, "most");
    for (token, bytes) in [(some, 30_000), (most, 60_000)] {
        map.channel(token).unwrap().push(&vec![7; bytes]).unwrap();
        turn_quiet(&mut map);
    }
    assert_eq!(map.len(), 2);
    map.channel(some).unwrap().push(&[7; 15_000]).unwrap();
    turn_until(&mut map, &log, |_| log.closed("most"));
    assert!(log.of("most").pop().unwrap().contains("limit"), "{:?}", log.events());
    map.turn(Some(Duration::ZERO)).unwrap();
    assert!(map.contains(some));
    // What it held is given back with it.
    map.channel(some).unwrap().push(&[7; 50_000]).unwrap();
    turn_quiet(&mut map);
    assert!(map.contains(some));
}
