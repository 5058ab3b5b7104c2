//! Rule 6: channels that are ready turn after turn while nothing is done with them are suspended, and
//! whatever is done with one resumes it at once.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, Dispatcher, Interest, Source, Token};

use crate::support::ends::Wire;
use crate::support::logging::{capture_log, logged};
use crate::support::peers::{loopbacks, pair, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::records::{Options, Records};
use crate::support::turning::{turn_until, turns_at_once, waits_in};

/// As a program for Python's asyncore is written: `writable` is always true, and `handle_write` has
/// something to send now and then.
#[derive(Default)]
struct Ported {
    answer: Vec<u8>,
    writes: Rc<Cell<u32>>,
}

impl Dispatcher for Ported {
    fn writable(&self, _: &Channel<'_>) -> bool {
        true
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|_, data| {
            self.answer.extend_from_slice(data);
            Ok(())
        })
    }
    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.writes.set(self.writes.get() + 1);
        if self.answer.is_empty() {
            return Ok(());
        }
        let sent = ch.send(&self.answer)?;
        self.answer.drain(..sent);
        Ok(())
    }
}

/// Turn until the pauses of a channel that does nothing are long.
fn suspend(map: &mut ChannelMap, log: &Log) {
    turn_until(map, log, |map| map.wait_limit() > Some(Duration::from_millis(300)));
}

fn has_answer(far: &mut impl Read) -> bool {
    match far.read(&mut [0; 100]) {
        Ok(read) => read > 0,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

/// EDGE_CASES 76: such a program answered 680 ms late, and later 1 s.
#[test]
fn where_writable_is_always_true_an_answer_is_never_late() {
    for on in loopbacks() {
        capture_log();
        let log = Log::new();
        let (near, mut far) = pair(on);
        far.set_nonblocking(true).unwrap();
        let mut map = ChannelMap::new().unwrap();
        let writes = Rc::new(Cell::new(0));
        map.add(near, Ported { writes: writes.clone(), ..Ported::default() }).unwrap();
        for _ in 0..3 {
            suspend(&mut map, &log);
            far.write_all(b"question").unwrap();
            assert!(turns_at_once(&mut map, 70, |_| has_answer(&mut far)), "the answer is late");
        }
        assert_eq!(logged("64 turns").len(), 1, "logged once");
        let before = writes.get();
        waits_in(&mut map, Duration::from_millis(200));
        assert!(writes.get() - before < 90, "{} hooks", writes.get() - before);
    }
}

/// EDGE_CASES 76: a message that needs no answer has `handle_write` called once, not 64 times.
#[test]
fn where_writable_is_always_true_a_message_costs_one_handle_write() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let dispatcher = Recorder::new("a", &log).writable(|_| true);
    let token = map.add(near, dispatcher).unwrap().token();
    suspend(&mut map, &log);
    for pushed in [true, false] {
        let before = log.count("a write");
        match pushed {
            true => map.channel(token).unwrap().push(b"x").unwrap(),
            false => far.write_all(b"x").unwrap(),
        }
        turns_at_once(&mut map, 20, |_| false);
        assert_eq!(log.count("a write"), before + 1);
    }
}

type Doing = fn(&mut ChannelMap, Token);

/// EDGE_CASES 77: `resume_reading`, another dispatcher, a changed answer, output: each resumes both
/// directions at once.
#[test]
fn whatever_is_done_to_a_suspended_channel_resumes_it_at_once() {
    thread_local! {
        static READS: Cell<u32> = const { Cell::new(0) };
        static WRITES: Cell<u32> = const { Cell::new(0) };
        static WRITABLE: Cell<bool> = const { Cell::new(true) };
    }
    /// Reads and writes nothing.
    struct Lazy;
    impl Dispatcher for Lazy {
        fn writable(&self, _: &Channel<'_>) -> bool {
            WRITABLE.get()
        }
        fn handle_read(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
            READS.set(READS.get() + 1);
            Ok(())
        }
        fn handle_write(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
            WRITES.set(WRITES.get() + 1);
            Ok(())
        }
    }
    let doings: [(&str, Doing); 5] = [
        ("resume_reading", |map, token| map.channel(token).unwrap().resume_reading()),
        ("replace_dispatcher", |map, token| {
            map.channel(token).unwrap().replace_dispatcher(Lazy).unwrap();
        }),
        ("output", |map, token| map.channel(token).unwrap().push(b"x").unwrap()),
        ("input", |map, token| {
            map.channel(token).unwrap().recv(&mut [0]).unwrap();
        }),
        ("writable", |map, token| {
            WRITABLE.set(false);
            map.channel(token).unwrap();
            assert!(!turns_at_once(map, 3, |_| false));
            WRITABLE.set(true);
            map.channel(token).unwrap();
        }),
    ];
    for input in [true, false] {
        for (what, doing) in doings {
            if what == "input" && !input {
                continue;
            }
            let log = Log::new();
            let (near, mut far) = unix_pair();
            let mut map = ChannelMap::new().unwrap();
            let token = map.add(near, Lazy).unwrap().token();
            if input {
                far.write_all(b"never read").unwrap();
            }
            suspend(&mut map, &log);
            READS.set(if input { 0 } else { 1 });
            WRITES.set(0);
            doing(&mut map, token);
            let resumed = turns_at_once(&mut map, 10, |_| READS.get() > 0 && WRITES.get() > 0);
            assert!(resumed, "{what}: {} reads, {} writes", READS.get(), WRITES.get());
        }
    }
}

/// How a source is stuck.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stuck {
    /// It reads nothing, though there is input.
    Recv,
    /// It claims to have input, and gives none.
    Claims,
    /// The same, while its socket has none.
    ClaimsAlone,
    /// It sends nothing, though there is room.
    Send,
}

struct StuckSource(UnixStream, Stuck);

impl Source for StuckSource {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
    fn recv(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
    fn send(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn input_pending(&self) -> bool {
        matches!(self.1, Stuck::Claims | Stuck::ClaimsAlone)
    }
}

/// EDGE_CASES 78: 46,000 turns in half a second, or 220,000.
#[test]
fn a_source_that_is_stuck_is_suspended_like_a_socket() {
    for stuck in [Stuck::Recv, Stuck::Claims, Stuck::ClaimsAlone, Stuck::Send] {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        near.set_nonblocking(true).unwrap();
        let mut map = ChannelMap::new().unwrap();
        let token = map.add_source(StuckSource(near, stuck), Recorder::new("a", &log).quiet()).unwrap();
        match stuck {
            Stuck::Recv | Stuck::Claims => far.write_all(b"input").unwrap(),
            Stuck::ClaimsAlone => {}
            Stuck::Send => map.channel(token).unwrap().push(b"output").unwrap(),
        }
        let waits = waits_in(&mut map, Duration::from_millis(500));
        assert!(waits < 300, "{stuck:?}: {waits} waits");
        assert!(!log.closed("a"));
    }
}

/// EDGE_CASES 78: a source that has taken in a part of a record is not stuck, however many turns that
/// takes.
#[test]
fn a_source_that_collects_a_long_record_is_not_suspended() {
    capture_log();
    let log = Log::new();
    let (near, far) = unix_pair();
    near.set_nonblocking(true).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let wire = Rc::new(RefCell::new(Vec::new()));
    let mut other = Records::new(
        Box::new(Paper(wire.clone(), far.try_clone().unwrap())),
        true,
        Options { record: 1000, ..Options::default() },
    );
    let records = Records::new(Box::new(Wire(near.into())), false, Options::default());
    map.add_source(records, Recorder::new("a", &log).quiet()).unwrap();
    turn_until(&mut map, &log, |_| {
        other.drive(Interest { read: true, write: true }).unwrap();
        (&far).write_all(&wire.take()).unwrap();
        other.is_established() && log.has("a open")
    });
    assert_eq!(other.send(&[7; 1000]).unwrap(), 1000);
    for byte in wire.take() {
        (&far).write_all(&[byte]).unwrap();
        map.turn(Some(Duration::from_secs(10))).unwrap();
    }
    assert_eq!(log.input("a"), [7; 1000]);
    assert_eq!(logged("64 turns"), [""; 0]);
}

/// What is sent is written down; what the peer sends is read.
struct Paper(Rc<RefCell<Vec<u8>>>, UnixStream);

impl Source for Paper {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = rustix::net::RecvFlags::DONTWAIT;
        Ok(rustix::net::recv(&self.1, buffer, flags)?.1)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}
