//! Crowds of threads around a loop: EDGE_CASES 40 and 41. Per-thread order, nothing lost, nothing twice,
//! nobody left waiting, few wake-ups.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, count};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, Reason, Remote, SendError, Token, run};

use crate::support::peers::{loopbacks, pair, reset, unix_pair};
use crate::support::recorder::Log;
use crate::support::threads::{held_for, joined};
use crate::support::turning::{turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

/// For the crowds: a busy machine is given time.
const LONG: Duration = Duration::from_secs(120);

/// The next number of each thread; set by the messages, on the loop's thread.
#[derive(Default)]
struct Tally {
    next: RefCell<Vec<u32>>,
    wrong: Cell<u32>,
    left: Cell<u32>,
}

thread_local! {
    static TALLY: Tally = Tally::default();
}

impl Tally {
    fn begin(threads: usize, messages: u32) {
        TALLY.with(|tally| {
            tally.next.replace(vec![0; threads]);
            tally.wrong.set(0);
            tally.left.set(messages);
        });
    }

    /// A message has come; whether it was the last of all.
    fn came(id: usize, n: u32) -> bool {
        TALLY.with(|tally| {
            let next = &mut tally.next.borrow_mut()[id];
            if *next != n {
                tally.wrong.set(tally.wrong.get() + 1);
            }
            *next = n + 1;
            tally.left.set(tally.left.get() - 1);
            tally.left.get() == 0
        })
    }

    #[track_caller]
    fn assert_all_came() {
        TALLY.with(|tally| assert_eq!((tally.left.get(), tally.wrong.get()), (0, 0)));
    }
}

/// Comes and goes.
struct Guest;

impl Dispatcher for Guest {}

/// EDGE_CASES 40: what four threads send, over two ways, to a channel that stays and to others that
/// come and go.
/// The last message of all ends the loop, which sleeps by then as often as not.
#[test]
fn a_million_messages_come_in_each_threads_order() {
    const THREADS: usize = 4;
    const EACH: u32 = 250_000;
    let mut map = held_for(LONG);
    Tally::begin(THREADS, THREADS as u32 * EACH / 2);
    let (near, far) = unix_pair();
    let bytes_for = map.add(near, Guest).unwrap().token();
    map.channel(bytes_for).unwrap().set_background(true);
    let reader = thread::spawn(move || read_numbers(far, THREADS, EACH / 2));
    let (remote, stayed) = (map.remote(), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..THREADS)
        .map(|id| {
            let (remote, stayed) = (remote.clone(), stayed.clone());
            thread::spawn(move || {
                let (tell, told) = mpsc::channel();
                let mut guest: Option<Token> = None;
                for n in 0..EACH / 2 {
                    let number = ((id as u32) << 24 | n).to_be_bytes();
                    if let Err(refused) = remote.try_send(bytes_for, number) {
                        assert!(matches!(refused, SendError::Full(_)));
                        // In the same place, but it waits.
                        let push = move |map: &mut ChannelMap| {
                            map.channel(bytes_for).unwrap().push(&number).unwrap();
                        };
                        remote.call(push).unwrap();
                    }
                    if n % 1000 == 0 {
                        let tell = tell.clone();
                        remote.call(move |map| tell.send(come_and_go(map, guest)).unwrap()).unwrap();
                    }
                    if let Ok(token) = told.try_recv() {
                        guest = Some(token);
                    }
                    if let (Some(guest), 0) = (guest, n % 10) {
                        // It may be gone, and a later one may sit in its place.
                        drop(remote.try_send(guest, "to whom it may concern"));
                        let stayed = stayed.clone();
                        let with = move |_: &mut Guest, ch: &mut Channel<'_>| {
                            stayed.fetch_add(usize::from(ch.token() != guest), SeqCst);
                            Ok(())
                        };
                        remote.with(guest.typed(), with).unwrap();
                    }
                    let came = move |map: &mut ChannelMap| {
                        if Tally::came(id, n) {
                            map.stop();
                        }
                    };
                    remote.call(came).unwrap();
                }
            })
        })
        .collect();
    let begun = Instant::now();
    run(&mut map).unwrap();
    assert!(begun.elapsed() < LONG, "the loop slept beside a full queue");
    Tally::assert_all_came();
    threads.into_iter().for_each(joined);
    assert_eq!(stayed.load(SeqCst), 0, "reached another channel");
    map.close_all();
    turn_until(&mut map, &Log::new(), |map| map.is_empty());
    joined(reader);
}

/// A new channel, and the end of the last one, of one kind or another.
fn come_and_go(map: &mut ChannelMap, guest: Option<Token>) -> Token {
    if let Some(Ok(mut guest)) = guest.map(|guest| map.channel(guest)) {
        match guest.token().to_string().len() % 2 {
            0 => guest.close(),
            _ => guest.abort(),
        }
    }
    let (near, _) = UnixStream::pair().unwrap();
    map.add(near, Guest).unwrap().token()
}

/// Numbers of each thread in their order, until the end.
fn read_numbers(far: UnixStream, threads: usize, each: u32) {
    let mut far = io::BufReader::new(far);
    let mut next = vec![0; threads];
    let mut number = [0; 4];
    while far.read_exact(&mut number).is_ok() {
        let number = u32::from_be_bytes(number);
        let next = &mut next[(number >> 24) as usize];
        assert_eq!(number & 0xff_ffff, *next);
        *next += 1;
    }
    assert_eq!(next, vec![each; threads]);
}

/// A wake-up that were forgotten would leave everybody waiting: there is room for one message.
#[test]
fn many_threads_that_wait_for_one_place_all_get_it() {
    const THREADS: usize = 8;
    const EACH: u32 = 2_000;
    let mut map = held_for(LONG);
    map.set_remote_capacity(1);
    Tally::begin(THREADS, THREADS as u32 * EACH);
    let remote = map.remote();
    let threads: Vec<_> = (0..THREADS)
        .map(|id| {
            let remote = remote.clone();
            thread::spawn(move || {
                for n in 0..EACH {
                    let came = move |map: &mut ChannelMap| {
                        if Tally::came(id, n) {
                            map.stop();
                        }
                    };
                    remote.call(came).unwrap();
                }
            })
        })
        .collect();
    run(&mut map).unwrap();
    Tally::assert_all_came();
    threads.into_iter().for_each(joined);
}

/// EDGE_CASES 40: each turn takes 256; and while the loop is at work nobody need wake it, which would end the
/// next wait for nothing.
#[cfg(debug_assertions)]
#[test]
fn wake_ups_are_coalesced() {
    let mut map = held_for(LONG);
    let remote = map.remote();
    let crowd = |remote: &Remote, each| {
        let threads = [(); 4].map(|()| {
            let remote = remote.clone();
            thread::spawn(move || (0..each).for_each(|_| remote.call(|_| ()).unwrap()))
        });
        threads.into_iter().for_each(joined);
    };
    let waits = count(Call::Wait);
    crowd(&remote, 250);
    for _ in 0..4 {
        map.turn(None).unwrap();
    }
    assert_eq!((count(Call::Wait) - waits, map.wait_limit() > Some(Duration::ZERO)), (4, true));
    // From within a message, for the same turn and for the next.
    for each in [50, 80] {
        let inside = remote.clone();
        remote.call(move |_| crowd(&inside, each)).unwrap();
        map.turn(None).unwrap();
        if each == 80 {
            map.turn(None).unwrap();
        }
        let begun = Instant::now();
        map.turn(Some(Duration::from_millis(100))).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(100), "the loop was woken for nothing");
    }
}

/// Rule 15: each sends to the other more than fits; whoever is refused goes on turning.
#[test]
fn two_loops_that_fill_each_others_queues_do_not_deadlock() {
    const MESSAGES: u32 = 2_000;
    let (to_a, from_b) = mpsc::channel();
    let (to_b, from_a) = mpsc::channel();
    let ends = [(to_b, from_b), (to_a, from_a)].map(|(give, take)| {
        thread::spawn(move || {
            let mut map = held_for(LONG);
            map.set_remote_capacity(2);
            Tally::begin(1, MESSAGES);
            give.send(map.remote()).unwrap();
            let other: Remote = take.recv_timeout(LONG).unwrap();
            let (sent, refused) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let (counting, was_refused) = (sent.clone(), refused.clone());
            map.call_every(Duration::ZERO, move |_| {
                while counting.get() < MESSAGES {
                    let n = counting.get();
                    match other.call(move |_| _ = Tally::came(0, n)) {
                        Ok(()) => counting.set(n + 1),
                        Err(SendError::Full(_)) => return was_refused.set(was_refused.get() + 1),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            let deadline = Instant::now() + LONG;
            while sent.get() < MESSAGES || TALLY.with(|tally| tally.left.get() > 0) {
                assert!(Instant::now() < deadline, "{} sent", sent.get());
                map.turn(None).unwrap();
            }
            Tally::assert_all_came();
            assert!(refused.get() > 0);
            // The other one may still be at it.
            map.remote()
        })
    });
    let remotes = ends.map(joined);
    assert!(remotes.iter().all(|remote| remote.call(|_| ()).is_err()));
}

/// Rule 14, over and over: what was accepted runs once, what was refused comes back, and nobody is
/// left waiting.
#[test]
fn stops_in_the_midst_of_a_crowd_lose_nothing() {
    const THREADS: usize = 4;
    const EACH: u32 = 3_000;
    let mut map = held_for(LONG);
    map.set_remote_capacity(8);
    Tally::begin(THREADS, THREADS as u32 * EACH);
    let remote = map.remote();
    let threads: Vec<_> = (0..THREADS)
        .map(|id| {
            let remote = remote.clone();
            thread::spawn(move || {
                for n in 0..EACH {
                    let mut message: dispatch_loop::Call = Box::new(move |_| _ = Tally::came(id, n));
                    while let Err(refused) = remote.call(message) {
                        assert!(matches!(refused, SendError::Stopped(_)));
                        message = refused.into_inner();
                        thread::yield_now();
                    }
                    if n % 100 == id as u32 {
                        remote.stop();
                    }
                }
            })
        })
        .collect();
    let deadline = Instant::now() + LONG;
    while threads.iter().any(|thread| !thread.is_finished()) {
        assert!(Instant::now() < deadline);
        map.call_later(Duration::from_millis(20), |map| map.stop());
        run(&mut map).unwrap();
    }
    turn_idle(&mut map);
    threads.into_iter().for_each(joined);
    Tally::assert_all_came();
}

/// EDGE_CASES 41: whoever was accepted has run or been dropped, and whoever was refused has it back.
#[test]
fn a_map_that_goes_away_in_the_midst_of_a_crowd_keeps_nothing() {
    for round in 0..60 {
        let mut map = ChannelMap::new().unwrap();
        map.set_remote_capacity(1 + round % 3 * 4);
        let (remote, held, ran) = (map.remote(), Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let threads = [(); 3].map(|()| {
            let (remote, held, ran) = (remote.clone(), held.clone(), ran.clone());
            thread::spawn(move || {
                let mut accepted = 0;
                loop {
                    let (held, ran) = (held.clone(), ran.clone());
                    let sent = remote.call(move |_| drop((ran.fetch_add(1, SeqCst), held)));
                    match sent {
                        Ok(()) => accepted += 1,
                        Err(SendError::Ended(_)) => return accepted,
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        });
        let deadline = Instant::now() + DEADLINE;
        while ran.load(SeqCst) < 20 + round {
            assert!(Instant::now() < deadline);
            map.turn(Some(Duration::from_millis(5))).unwrap();
        }
        drop(map);
        let accepted: usize = threads.into_iter().map(joined).sum();
        assert!(ran.load(SeqCst) <= accepted);
        assert_eq!(Arc::strong_count(&held), 1, "messages live on in a queue that nobody reads");
        drop(remote);
    }
}

/// EDGE_CASES 40: channels that end while threads feed them, each in its own way.
#[test]
fn outlets_of_channels_that_come_and_go_tell_of_the_end() {
    const ROUNDS: usize = 40;
    let mut map = held_for(LONG);
    map.set_remote_capacity(4);
    for round in 0..ROUNDS {
        let (near, far) = pair(loopbacks()[round % loopbacks().len()]);
        let ended = Arc::new(AtomicBool::new(false));
        let handle = map.add(near, Ends(ended.clone())).unwrap();
        let outlet = map.channel(handle).unwrap().outlet().unwrap();
        let remote = map.remote();
        let feeders = [(); 3].map(|()| {
            let mut outlet = outlet.clone();
            thread::spawn(move || {
                let mut fed = 0_usize;
                // It ends with the channel, and only then.
                while outlet.write_all(&[b'.'; 3000]).is_ok() {
                    fed += 3000;
                }
                fed
            })
        });
        let ender = thread::spawn(move || end_in_its_way(round, far, &remote, &outlet));
        let deadline = Instant::now() + DEADLINE;
        while feeders.iter().any(|feeder| !feeder.is_finished()) {
            assert!(Instant::now() < deadline, "round {round}: somebody still waits");
            map.turn(Some(Duration::from_millis(20))).unwrap();
        }
        let fed: usize = feeders.into_iter().map(joined).sum();
        turn_until(&mut map, &Log::new(), |map| !map.contains(handle));
        assert!(ended.load(SeqCst));
        assert!(joined(ender) <= fed + 3 * 3000);
    }
}

struct Ends(Arc<AtomicBool>);

impl Dispatcher for Ends {
    fn handle_close(&mut self, _: &mut Channel<'_>, _: &Reason) {
        assert!(!self.0.swap(true, SeqCst));
    }
}

/// Read a while, then bring the channel to an end; how much was read.
fn end_in_its_way(
    round: usize,
    mut far: TcpStream,
    remote: &Remote,
    outlet: &dispatch_loop::Outlet,
) -> usize {
    let (mut got, mut some) = (0, vec![0; 8192]);
    while got < 200_000 {
        got += far.read(&mut some).unwrap();
    }
    let token = outlet.token();
    match round % 4 {
        0 => reset(far),
        1 => remote.call(move |map| map.channel(token).unwrap().abort()).unwrap(),
        2 => {
            outlet.close().unwrap();
            while let Ok(read @ 1..) = far.read(&mut some) {
                got += read;
            }
        }
        _ => {
            remote.with(token.typed::<Ends>(), |_, _| panic!("on purpose")).unwrap();
        }
    }
    got
}

/// A message to and fro between two loops, each of which sleeps until it comes.
#[test]
fn two_sleeping_loops_wake_each_other() {
    let (give, take) = mpsc::channel();
    let pong = thread::spawn(move || {
        let mut map = held_for(LONG);
        give.send(map.remote()).unwrap();
        run(&mut map).unwrap();
    });
    let there: Remote = take.recv_timeout(DEADLINE).unwrap();
    let mut map = held_for(LONG);
    let here = map.remote();
    let left = Arc::new(AtomicUsize::new(2000));
    hit(&here, &there, &left);
    run(&mut map).unwrap();
    joined(pong);
    assert_eq!(left.load(SeqCst), 0);
}

/// Let `to` send it back, until none is left; then both stop.
fn hit(from: &Remote, to: &Remote, left: &Arc<AtomicUsize>) {
    let (back, on, left) = (from.clone(), to.clone(), left.clone());
    let ball = move |_: &mut ChannelMap| match left.load(SeqCst) {
        0 => [back, on].iter().for_each(Remote::stop),
        n => {
            left.store(n - 1, SeqCst);
            hit(&on, &back, &left);
        }
    };
    to.call(ball).unwrap();
}
