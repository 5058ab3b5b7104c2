//! Hours in milliseconds.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::reconnect::{self, Backoff};
use dispatch_loop::{Channel, Deadlines, Dispatcher, Reason, run, testing};

const SECOND: Duration = Duration::from_secs(1);

/// Reports how long a test takes; nothing depends on it.
struct Took(&'static str, Instant);

impl Took {
    fn by(name: &'static str) -> Took {
        Took(name, Instant::now())
    }
}

impl Drop for Took {
    fn drop(&mut self) {
        println!("{}: {:?}", self.0, self.1.elapsed());
    }
}

/// Pings, and expects an answer within 90 s.
struct KeptAlive {
    answers: Rc<Cell<u32>>,
    ended: Rc<RefCell<Option<Reason>>>,
}

impl Dispatcher for KeptAlive {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_deadlines(&Deadlines::default().with_read(90 * SECOND));
        ch.call_every(30 * SECOND, |ch| ch.push(b"ping\n"));
        Ok(())
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let answers = self.answers.clone();
        ch.read_with(|_, data| {
            assert_eq!(data, b"pong\n");
            answers.set(answers.get() + 1);
            Ok(())
        })
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        self.ended.replace(Some(reason.clone()));
    }
}

#[test]
fn a_keep_alive_of_an_hour_takes_no_time() {
    let _took = Took::by("a keep-alive of an hour");
    let (answers, ended) = (Rc::new(Cell::new(0)), Rc::default());
    let mut map = testing::map().unwrap();
    let begun = map.now();
    let kept = KeptAlive { answers: answers.clone(), ended: Rc::clone(&ended) };
    let (_, peer) = testing::add(&mut map, kept).unwrap();
    for _ in 0..120 {
        peer.wait(30 * SECOND).send("pong\n");
    }
    testing::advance(&mut map, 3600 * SECOND).unwrap();
    assert_eq!(map.now() - begun, 3600 * SECOND);
    assert_eq!((answers.get(), peer.take_sent()), (120, b"ping\n".repeat(120)));
    // From here on there is no answer, and the third ping is in vain.
    run(&mut map).unwrap();
    let silent = map.now() - begun - 3600 * SECOND;
    assert!((90 * SECOND..=120 * SECOND).contains(&silent), "{silent:?}");
    assert!(matches!(*ended.borrow(), Some(Reason::TimedOut)), "{ended:?}");
    assert!(peer.sent().starts_with(&b"ping\n".repeat(2)));
}

struct Client;

impl Dispatcher for Client {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.push(b"here at last\n")
    }
}

#[test]
fn a_reconnect_backs_off_to_its_tenth_try() {
    let _took = Took::by("a reconnect to its tenth try");
    let mut map = testing::map().unwrap();
    let server = testing::server(&mut map);
    server.refuse(4).ignore(1).fail(4, io::ErrorKind::HostUnreachable);
    let backoff = Backoff::default().with_jitter(0.0);
    let begun = map.now();
    let client = reconnect::connect(&mut map, "example.org:5222", backoff, |_, _| Some(Client)).unwrap();
    testing::advance(&mut map, 3600 * SECOND).unwrap();
    let tries = server.tries();
    let waits: Vec<f64> = tries.iter().map(|tried| (tried.at - begun).as_secs_f64()).collect();
    // The fifth is given up after the 30 s of a connect to a name; a wait is a minute at most.
    assert_eq!(waits, [0.0, 0.5, 1.5, 3.5, 7.5, 45.5, 61.5, 93.5, 153.5, 213.5]);
    assert!(tries.iter().all(|tried| tried.address == "example.org:5222"));
    assert_eq!(server.accepted().len(), 1);
    assert_eq!(server.accepted()[0].sent(), b"here at last\n");
    client.stop(&mut map);
    server.accepted()[0].fin();
    run(&mut map).unwrap();
}

/// Sends a quarter of a megabyte, and more only when that is gone.
struct Source {
    highs: Rc<Cell<u32>>,
    lows: Rc<Cell<u32>>,
    done: Rc<Cell<Option<Instant>>>,
}

impl Dispatcher for Source {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.push_vec(vec![7; 256 * 1024])
    }
    fn handle_high(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.highs.set(self.highs.get() + 1);
        Ok(())
    }
    fn handle_low(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.lows.set(self.lows.get() + 1);
        Ok(())
    }
    fn handle_drained(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.done.set(Some(ch.map().now()));
        ch.close();
        Ok(())
    }
}

#[test]
fn a_slow_reader_gets_all_of_it_at_its_own_rate() {
    let _took = Took::by("a slow reader");
    let mut map = testing::map().unwrap();
    let begun = map.now();
    let source = Source { highs: Rc::default(), lows: Rc::default(), done: Rc::default() };
    let (highs, lows, done) = (source.highs.clone(), source.lows.clone(), source.done.clone());
    let (_, peer) = testing::add(&mut map, source).unwrap();
    peer.set_buffer(32 * 1024).read_slowly(4 * 1024, SECOND);
    testing::advance(&mut map, 10 * SECOND).unwrap();
    assert_eq!((peer.sent().len(), peer.unread()), ((32 + 10 * 4) * 1024, 32 * 1024));
    run(&mut map).unwrap();
    assert_eq!(peer.sent(), vec![7; 256 * 1024]);
    assert_eq!((highs.get(), lows.get()), (1, 1));
    // The last of it is sent when the buffer has room for it.
    assert_eq!(done.get().map(|done| done - begun), Some(SECOND * (256 - 32) / 4));
    assert!(peer.has_fin() && !peer.is_reset());
}
