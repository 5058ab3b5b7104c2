//! Faults that are left, each with a program that shows it. Run them with `--ignored`.
#![cfg(debug_assertions)]

use dispatch_loop::faults::{Call, Fault, clear, inject};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, LoopOptions, run_with};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

struct Echo;
impl Dispatcher for Echo {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}

/// Rule 7: a shortage is no write error.
#[test]
#[ignore = "not yet done"]
fn a_shortage_while_sending_is_no_write_error() {
    for (len, errno) in [(1, libc::ENOBUFS), (5000, libc::ENOBUFS), (1, libc::ENOMEM)] {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut map = ChannelMap::new().unwrap();
        let token = map.add(near, Echo).unwrap().token();
        map.turn(Some(Duration::ZERO)).unwrap();
        far.write_all(&vec![7; len]).unwrap();
        inject(Call::Send, 0, 1, Fault::Errno(errno));
        for _ in 0..20 {
            map.turn(Some(Duration::from_millis(5))).unwrap();
        }
        clear();
        assert!(map.contains(token), "ended by errno {errno}");
        far.read_exact(&mut vec![0; len]).unwrap();
    }
}

/// Rule 14: however `run` returned, remotes refuse until it is called again.
#[test]
#[ignore = "not yet done"]
fn remotes_refuse_however_run_returned() {
    let mut map = ChannelMap::new().unwrap();
    let remote = map.remote();
    map.call_later(Duration::from_secs(3600), |_| ());
    run_with(&mut map, &LoopOptions::default().with_timeout(Duration::ZERO).with_count(1)).unwrap();
    assert!(remote.is_stopped());
}
