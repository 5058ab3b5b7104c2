//! Files whose flags and events are not those of a pipe: several that share an inode, and terminals with
//! urgent news.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use dispatch_loop::{ChannelMap, Dispatcher};

use crate::support::dirs::Dir;
use crate::support::peers::unix_pair;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until};

struct Quiet;
impl Dispatcher for Quiet {}

fn nonblocking(file: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(file).unwrap().contains(rustix::fs::OFlags::NONBLOCK)
}

/// Two open files of one inode: the first blocking or not, the second blocking or not.
fn check(first: OwnedFd, second: OwnedFd) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    for (one, other, first_ends_first) in [(false, true), (true, false), (true, true), (false, false)]
        .into_iter()
        .flat_map(|(a, b)| [(a, b, true), (a, b, false)])
    {
        for (file, on) in [(&first, one), (&second, other)] {
            let mut flags = fcntl_getfl(file).unwrap();
            flags.set(OFlags::NONBLOCK, on);
            fcntl_setfl(file, flags).unwrap();
        }
        let before = [fcntl_getfl(&first).unwrap(), fcntl_getfl(&second).unwrap()];
        let mut map = ChannelMap::new().unwrap();
        // The second twice: that is one open file.
        let a = map.add_file(&first, Quiet).unwrap();
        let b = map.add_file(&second, Quiet).unwrap();
        let c = map.add_file(second.try_clone().unwrap(), Quiet).unwrap();
        assert!(nonblocking(&first) && nonblocking(&second));
        let order = if first_ends_first { [a, b, c] } else { [c, b, a] };
        for handle in order {
            map.channel(handle).unwrap().abort();
            turn_until(&mut map, &Log::new(), |map| !map.contains(handle));
            let living = |handle| map.contains(handle);
            assert_eq!(nonblocking(&first), one || living(a), "the first, {one} {other}");
            assert_eq!(nonblocking(&second), other || living(b) || living(c), "the second, {one} {other}");
        }
        assert_eq!(before, [fcntl_getfl(&first).unwrap(), fcntl_getfl(&second).unwrap()]);
    }
}

/// EDGE_CASES 82: every eventfd has the same inode.
#[test]
#[cfg(target_os = "linux")]
fn two_eventfds_each_get_their_own_flags_back() {
    use rustix::event::{EventfdFlags, eventfd};
    check(eventfd(0, EventfdFlags::CLOEXEC).unwrap(), eventfd(0, EventfdFlags::CLOEXEC).unwrap());
}

/// EDGE_CASES 82.
#[test]
fn a_fifo_that_was_opened_twice_gets_both_flags_back() {
    let dir = Dir::new();
    let path = dir.join("fifo");
    let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(status.success());
    let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap().into();
    check(open(), open());
}

/// EDGE_CASES 80: the loop asked a terminal for its urgent byte, and ended it because that is no socket.
#[test]
#[cfg(target_os = "linux")]
fn a_terminal_with_urgent_news_lives() {
    use std::os::fd::AsRawFd;
    let (master, slave) = super::files::terminal();
    let mut slave = std::fs::File::from(slave);
    let on: libc::c_int = 1;
    // SAFETY: the calls read one int, which lives as long as they take, or none.
    #[allow(unsafe_code)]
    unsafe {
        assert_eq!(libc::ioctl(master.as_raw_fd(), libc::TIOCPKT, &on), 0);
        assert_eq!(libc::tcflush(slave.as_raw_fd(), libc::TCIFLUSH), 0);
    }
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    map.add_file(&master, Recorder::new("a", &log)).unwrap();
    turn_until(&mut map, &log, |_| log.has("a expt") && log.input("a") == [1]);
    slave.write_all(b"x").unwrap();
    turn_until(&mut map, &log, |_| log.input("a").ends_with(b"x"));
    assert!(!log.closed("a"), "{:?}", log.of("a"));
    assert_calm(&mut map);
}

/// EDGE_CASES 80: nor is a channel ended that has no urgent data and asks for it.
#[test]
fn recv_urgent_where_there_is_no_such_thing_is_would_block() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let (reader, mut writer) = crate::support::peers::pipe();
    let a = map.add(near, Recorder::new("a", &log)).unwrap();
    let b = map.add_file(&reader, Recorder::new("b", &log)).unwrap();
    turn_idle(&mut map);
    for handle in [a, b] {
        let error = map.channel(handle).unwrap().recv_urgent(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
    far.write_all(b"still here").unwrap();
    writer.write_all(b"still here").unwrap();
    drop(writer);
    far.shutdown(std::net::Shutdown::Write).unwrap();
    run_out(&mut map, &log);
    assert_eq!([log.input("a"), log.input("b")], [b"still here", b"still here"]);
}
