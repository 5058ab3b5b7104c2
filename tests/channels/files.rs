//! Pipes, terminals and children's standard streams as channels.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use dispatch_loop::{ChannelMap, Eof};

use crate::support::opened::view;
use crate::support::peers::{pattern, pipe};
use crate::support::process::{alone, open_descriptors};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until};
use crate::support::waiting::wait_until;

fn nonblocking(file: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(file).unwrap().contains(rustix::fs::OFlags::NONBLOCK)
}

/// Data, then its end, in one piece or in many; the flags are as they were, and only while the
/// channel lives not.
#[test]
fn a_pipe_is_read_to_its_end_and_gets_its_flags_back() {
    let (reader, mut writer) = pipe();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add_file(&reader, Recorder::new("a", &log)).unwrap().token();
    assert!(nonblocking(&reader));
    turn_until(&mut map, &log, |_| log.has("a open"));
    assert_calm(&mut map);
    writer.write_all(b"one ").unwrap();
    turn_until(&mut map, &log, |_| log.input("a") == b"one ");
    writer.write_all(b"two").unwrap();
    drop(writer);
    run_out(&mut map, &log);
    assert_eq!(log.input("a"), b"one two");
    assert_eq!(log.of("a")[log.of("a").len() - 2..], ["eof", "close: end of stream"]);
    assert!(!nonblocking(&reader) && !map.contains(token));
}

/// More than a pipe holds, to a reader that comes late; then the end.
#[test]
fn a_full_pipe_is_waited_for_and_all_arrives() {
    let (mut reader, writer) = pipe();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add_file(writer, Recorder::new("a", &log)).unwrap().token();
    let bytes = pattern(1_000_000);
    view(&mut map, token).push(&bytes).unwrap();
    turn_until(&mut map, &log, |_| log.has("a high"));
    assert_calm(&mut map);
    view(&mut map, token).close();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).map(|_| got)
    });
    run_out(&mut map, &log);
    assert!(reader.join().unwrap().unwrap() == bytes);
    assert_eq!(log.of("a").last().unwrap(), "close: closed");
}

/// Its reader goes: with bytes queued, and with nothing to say.
#[test]
fn a_pipe_whose_reader_goes_ends_with_broken_pipe() {
    for queued in [0, 200_000] {
        let (reader, writer) = pipe();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let token = map.add_file(&writer, Recorder::new("a", &log)).unwrap().token();
        view(&mut map, token).push(&vec![0; queued]).unwrap();
        turn_until(&mut map, &log, |_| log.has("a open"));
        drop(reader);
        run_out(&mut map, &log);
        let end = log.of("a").pop().unwrap();
        assert!(end.to_lowercase().contains("broken pipe"), "{end}");
        assert!(!nonblocking(&writer));
    }
}

/// The original is not closed, and another channel's end leaves it be.
#[test]
fn the_original_of_a_file_is_left_open_and_other_channels_alone() {
    let (reader, mut writer) = pipe();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add_file(&reader, Recorder::new("a", &log)).unwrap().token();
    let own = view(&mut map, token).socket().unwrap().as_raw_fd();
    assert_ne!(own, reader.as_raw_fd());
    view(&mut map, token).close();
    run_out(&mut map, &log);
    writer.write_all(b"for others").unwrap();
    drop(writer);
    let mut got = String::new();
    (&reader).read_to_string(&mut got).unwrap();
    assert_eq!(got, "for others");
}

/// A channel that is closed with input unread takes nothing away from those who have it open, too.
#[test]
fn input_left_unread_is_there_for_others() {
    let (reader, mut writer) = pipe();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add_file(&reader, Recorder::new("a", &log)).unwrap().token();
    view(&mut map, token).pause_reading();
    writer.write_all(b"next command").unwrap();
    turn_idle(&mut map);
    view(&mut map, token).close();
    run_out(&mut map, &log);
    let mut got = [0; 12];
    (&reader).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"next command");
    // Non-blocking before: so it stays.
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    let token = map.add_file(&reader, Recorder::new("b", &log)).unwrap().token();
    view(&mut map, token).close();
    run_out(&mut map, &log);
    assert!(nonblocking(&reader));
}

/// A child is written to and read from in one loop.
#[test]
fn a_child_is_written_to_and_read_from_in_one_loop() {
    let mut child =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("there is a cat");
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 241) as u8).collect();
    let to = map.add_file(child.stdin.take().unwrap(), Recorder::new("to", &log)).unwrap().token();
    map.add_file(child.stdout.take().unwrap(), Recorder::new("from", &log).quiet()).unwrap();
    let mut ch = view(&mut map, to);
    ch.push(&bytes).unwrap();
    ch.close();
    run_out(&mut map, &log);
    assert!(log.input("from") == bytes);
    assert_eq!(log.of("from"), ["open", "eof", "close: end of stream"]);
    assert!(child.wait().unwrap().success());
}

/// A terminal: both ways through one descriptor; the other side's end is an end of stream.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_goes_both_ways_and_ends_with_its_other_side() {
    let (master, slave) = terminal();
    let mut slave = File::from(slave);
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let dispatcher = Recorder::new("a", &log).eof(Eof::Close);
    let token = map.add_file(&master, dispatcher).unwrap().token();
    view(&mut map, token).push(b"typed\n").unwrap();
    turn_until(&mut map, &log, |_| log.input("a").ends_with(b"typed\r\n"));
    let mut line = [0; 6];
    slave.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"typed\n");
    slave.write_all(b"shown\n").unwrap();
    turn_until(&mut map, &log, |_| log.input("a").ends_with(b"shown\r\n"));
    drop(slave);
    run_out(&mut map, &log);
    assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
}

#[cfg(target_os = "linux")]
pub(super) fn terminal() -> (OwnedFd, OwnedFd) {
    let master = OpenOptions::new().read(true).write(true).open("/dev/ptmx").unwrap();
    let mut number: libc::c_int = 0;
    let unlock: libc::c_int = 0;
    // SAFETY: both calls read or write one int, which lives as long as they take.
    #[allow(unsafe_code)]
    unsafe {
        assert_eq!(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock), 0);
        assert_eq!(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &mut number), 0);
    }
    let slave = OpenOptions::new().read(true).write(true).open(format!("/dev/pts/{number}")).unwrap();
    (master.into(), slave.into())
}

/// What no poller takes is refused at once, and the error names the way that works.
#[test]
fn regular_files_are_refused() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    for path in [std::env::current_exe().unwrap(), std::env::temp_dir(), "/dev/null".into()] {
        let file = File::open(&path).unwrap();
        let error = map.add_file(&file, Recorder::new("a", &log)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path:?}: {error}");
        assert!(error.to_string().contains("producers::from_reader"), "{error}");
        assert!(!nonblocking(&file), "{path:?} was left as it was");
    }
    assert!(map.is_empty() && log.events().is_empty());
}

/// Two readers of one pipe in one map, and a map that is dropped.
#[test]
fn a_dropped_map_closes_its_pipes_and_restores_their_flags() {
    alone(None, || {
        let (reader, writer) = pipe();
        let before = open_descriptors();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.add_file(&reader, Recorder::new("a", &log)).unwrap();
        map.add_file(&writer, Recorder::new("b", &log)).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        drop(map);
        assert!(!nonblocking(&reader) && !nonblocking(&writer));
        wait_until("every descriptor is closed", || open_descriptors() <= before);
        assert_eq!(log.count("a close") + log.count("b close"), 2);
    });
}
