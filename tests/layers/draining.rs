//! Layers in a map that drains.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};
use dispatch_loop::{ChannelMap, DrainOptions, DrainState, run, stream};

use crate::support::peers::{loopbacks, pair, read_exactly, read_to_end};
use crate::support::recorder::Log;
use crate::support::threads::joined;
use crate::support::turning::turn_until;
use crate::support::waiting::DEADLINE;

fn options() -> DrainOptions {
    DrainOptions::default().with_deadline(DEADLINE)
}

fn wait(map: &mut ChannelMap, time: Duration) {
    let end = Instant::now() + time;
    turn_until(map, &Log::new(), |_| Instant::now() > end);
}

/// 286: a thread that works on an answer is waited for; when it waits for the next question, the stream ends.
#[test]
fn a_stream_ends_when_its_thread_waits_for_input() {
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = pair(loopbacks()[0]);
    let (reader, mut writer) = stream::add(&mut map, near).unwrap();
    let (go_on, answers) = mpsc::channel::<&str>();
    let (tell, asked) = mpsc::channel();
    let thread = thread::spawn(move || -> io::Result<()> {
        let mut reader = BufReader::new(reader);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            tell.send(line).unwrap();
            writer.write_all(answers.recv().unwrap().as_bytes())?;
        }
    });
    far.write_all(b"question\n").unwrap();
    turn_until(&mut map, &Log::new(), |_| asked.try_recv().is_ok());
    map.drain(&options());
    wait(&mut map, Duration::from_millis(200));
    assert_eq!(map.drain_progress().unwrap().channels, 1, "the thread is at work");
    go_on.send("answer\n").unwrap();
    run(&mut map).unwrap();
    assert_eq!(read_to_end(&mut far), b"answer\n");
    assert_eq!(joined(thread).unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(map.drain_state(), DrainState::Drained);
}

/// 286: the same for one that opens while the map drains.
#[test]
fn a_stream_that_opens_while_the_map_drains_is_waited_for() {
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = pair(loopbacks()[0]);
    map.drain(&options());
    let (mut reader, writer) = stream::add(&mut map, near).unwrap();
    wait(&mut map, Duration::from_millis(200));
    assert_eq!(map.drain_progress().unwrap().channels, 1);
    let thread = thread::spawn(move || {
        let end = reader.read(&mut [0]);
        drop(writer);
        end
    });
    run(&mut map).unwrap();
    assert_eq!(joined(thread).unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(read_to_end(&mut far), b"");
}

/// 288: a protocol is told, and what it writes then arrives.
#[test]
fn a_protocol_is_told_of_a_drain() {
    struct Last;
    impl Protocol for Last {
        fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn drain_begun(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
            transport.write(b"goodbye")
        }
    }
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = pair(loopbacks()[0]);
    map.add(near, ProtocolDispatcher::new(Last)).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    map.drain(&options());
    run(&mut map).unwrap();
    assert_eq!(read_exactly(&mut far, 7), b"goodbye");
    assert_eq!(read_to_end(&mut far), b"");
}
