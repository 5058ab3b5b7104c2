//! Sources without a descriptor, of one's own: in any map, on any thread.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dispatch_loop::{ChannelMap, Interest, Source, SourceWaker, run, testing};

use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, run_out, turn_until};

/// One direction of a pair in memory, with room for little.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    ended: bool,
    reset: bool,
    waker: Option<SourceWaker>,
}

const ROOM: usize = 100;

type Shared = Arc<Mutex<Way>>;

/// Wakes whoever is at the other end of this way.
fn wake(way: &mut Way) {
    way.waker.iter().for_each(SourceWaker::wake);
}

/// One end: what it reads and what it writes. Both wake the other end.
struct InMemory {
    own: Shared,
    others: Shared,
}

fn pair() -> (InMemory, InMemory) {
    let (a, b) = (Shared::default(), Shared::default());
    (InMemory { own: a.clone(), others: b.clone() }, InMemory { own: b, others: a })
}

impl Source for InMemory {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn set_waker(&mut self, waker: &SourceWaker) {
        self.own.lock().unwrap().waker = Some(waker.clone());
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut own = self.own.lock().unwrap();
        let most = own.bytes.len().min(buffer.len());
        if most == 0 {
            return match (own.reset, own.ended) {
                (true, _) => Err(ErrorKind::ConnectionReset.into()),
                (false, true) => Ok(0),
                (false, false) => Err(ErrorKind::WouldBlock.into()),
            };
        }
        buffer.iter_mut().zip(own.bytes.drain(..most)).for_each(|(byte, from)| *byte = from);
        drop(own);
        wake(&mut self.others.lock().unwrap());
        Ok(most)
    }
    fn input_pending(&self) -> bool {
        let own = self.own.lock().unwrap();
        !own.bytes.is_empty() || own.ended || own.reset
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut others = self.others.lock().unwrap();
        let most = bytes.len().min(ROOM - others.bytes.len());
        if most == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        others.bytes.extend(&bytes[..most]);
        wake(&mut others);
        Ok(most)
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        let mut others = self.others.lock().unwrap();
        others.ended = true;
        wake(&mut others);
        Ok(())
    }
    fn reset(&mut self) {
        let mut others = self.others.lock().unwrap();
        others.reset = true;
        wake(&mut others);
    }
}

#[test]
fn two_channels_of_a_map_talk_through_memory() {
    for for_testing in [false, true] {
        let log = Log::new();
        let mut map = if for_testing { testing::map() } else { ChannelMap::new() }.unwrap();
        let (a, b) = pair();
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let sent = bytes.clone();
        let sender = Recorder::new("a", &log).quiet().on("open", move |ch| {
            ch.push(&sent)?;
            ch.close();
            Ok(())
        });
        map.add_source(a, sender).unwrap();
        map.add_source(b, Recorder::new("b", &log).quiet()).unwrap();
        run_out(&mut map, &log);
        assert_eq!(log.input("b"), bytes);
        assert_eq!(
            (log.of("a"), log.of("b")),
            (
                ["open", "close: closed"].map(str::to_owned).to_vec(),
                ["open", "eof", "close: end of stream"].map(str::to_owned).to_vec(),
            )
        );
    }
}

/// Another thread's map at the other end; and nothing spins when nothing comes.
#[test]
fn two_threads_talk_through_memory() {
    let (a, b) = pair();
    let thread = std::thread::spawn(move || {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let echo = Recorder::new("b", &log).on("read", |ch| ch.read_with(|ch, data| ch.push(data)));
        map.add_source(b, echo).unwrap();
        run_out(&mut map, &log);
        log.events().last().cloned()
    });
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let handle = map.add_source(a, Recorder::new("a", &log).quiet()).unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    map.channel(handle).unwrap().push(&bytes).unwrap();
    turn_until(&mut map, &log, |_| log.input("a").len() == bytes.len());
    assert_eq!(log.input("a"), bytes);
    assert_calm(&mut map);
    map.channel(handle).unwrap().abort();
    run_out(&mut map, &log);
    let reset = io::Error::from(ErrorKind::ConnectionReset);
    assert_eq!(thread.join().unwrap(), Some(format!("b close: {reset}")));
}

/// Also a source that takes the place of another one while the channel lives.
#[test]
fn every_source_is_given_its_waker() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let ((a, _), (b, mut far)) = (pair(), pair());
    let handle = map.add_source(a, Recorder::new("a", &log)).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    map.channel(handle).unwrap().wrap_source(|_| Ok(Box::new(b))).unwrap();
    turn_until(&mut map, &log, |_| log.has("a wrapped"));
    assert_calm(&mut map);
    far.send(b"to the second").unwrap();
    turn_until(&mut map, &log, |_| log.input("a") == b"to the second");
    far.shutdown_write().unwrap();
    run_out(&mut map, &log);
}

/// Inverts every byte, in both directions.
struct Inverted(Box<dyn Source>);

impl Source for Inverted {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }
    fn set_waker(&mut self, waker: &SourceWaker) {
        self.0.set_waker(waker);
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.recv(buffer)?;
        buffer[..n].iter_mut().for_each(|byte| *byte = !*byte);
        Ok(n)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(&bytes.iter().map(|byte| !byte).collect::<Vec<u8>>())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.0.shutdown_write()
    }
    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        self.0.drive(ready)
    }
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Around it before it is added, and around it while the channel lives.
#[test]
fn a_source_around_the_kits_own_is_driven_as_it_is() {
    for alive in [false, true] {
        let log = Log::new();
        let mut map = testing::map().unwrap();
        let (end, peer) = testing::pair(&mut map);
        let recorder = Recorder::new("a", &log);
        let handle = match alive {
            true => map.add_source(end, recorder).unwrap(),
            false => map.add_source(Inverted(Box::new(end)), recorder).unwrap(),
        };
        testing::advance(&mut map, Duration::ZERO).unwrap();
        if alive {
            map.channel(handle).unwrap().wrap_source(|end| Ok(Box::new(Inverted(end)))).unwrap();
        }
        peer.set_buffer(2).stop_reading().send([!b'i', !b'n']);
        map.channel(handle).unwrap().push(b"out").unwrap();
        testing::advance(&mut map, Duration::ZERO).unwrap();
        assert_eq!((log.input("a"), peer.sent()), (b"in".to_vec(), vec![!b'o', !b'u']));
        peer.wait(Duration::from_secs(1)).read_on();
        testing::advance(&mut map, Duration::from_secs(1)).unwrap();
        assert_eq!(peer.sent(), [!b'o', !b'u', !b't']);
        map.channel(handle).unwrap().abort();
        run(&mut map).unwrap();
        assert!(peer.is_reset());
    }
}
