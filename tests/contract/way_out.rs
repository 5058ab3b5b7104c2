//! Random programs that push in every way to peers that read slowly, with faults of the system in between: what
//! arrives is what was pushed, in order and once; what is cut short does not look complete.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice, Read};
use std::rc::Rc;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{self, Call, Fault, inject};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, More, OnLimit, Reason, Socket, Token};
use proptest::prelude::*;

use crate::support::peers::{loopbacks, pair, pattern_at, unix_pair};
use crate::support::waiting::DEADLINE;

const CHANNELS: usize = 4;

#[derive(Clone, Debug)]
enum Push {
    Bytes(usize),
    Vec(usize),
    Shared(usize),
    Slices(usize, usize),
    /// So many bytes, in pieces of so many; `true`: it says `Later` after each.
    Producer(usize, usize, bool),
    /// To those whose bit is set.
    Broadcast(u8, usize),
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize, Push),
    /// All in one hook of the channel.
    InHook(usize, Vec<(usize, Push)>),
    Wake(usize),
    Read(usize, usize),
    Close(usize),
    ShutdownWrite(usize),
    Partners(usize, usize),
    Limit(usize, usize, bool),
    MapLimit(usize),
    Short(usize),
    Errno(usize, u64),
    Turn,
}

struct Life {
    token: Token,
    far: Box<dyn Read>,
    tcp: bool,
    /// What was pushed and not refused.
    expected: Vec<u8>,
    got: Vec<u8>,
    end: Option<io::Result<()>>,
    closed: bool,
    reason: Rc<RefCell<Option<Reason>>>,
    wakes: Rc<Cell<bool>>,
}

type Lives = Rc<RefCell<Vec<Life>>>;

struct End(Rc<RefCell<Option<Reason>>>);

impl Dispatcher for End {
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        assert!(self.0.borrow_mut().replace(reason.clone()).is_none());
    }
}

/// No two pushes are alike.
fn new_bytes(len: usize) -> Vec<u8> {
    thread_local!(static NEXT: Cell<usize> = const { Cell::new(0) });
    let at = NEXT.replace(NEXT.get() + len);
    (at..at + len).map(pattern_at).collect()
}

fn push(map: &mut ChannelMap, lives: &Lives, to: usize, push: Push) {
    let token = lives.borrow()[to].token;
    if let Push::Broadcast(set, len) = push {
        let bytes = new_bytes(len);
        let mut tokens = vec![];
        for (at, life) in lives.borrow_mut().iter_mut().enumerate().filter(|(at, _)| set >> at & 1 == 1) {
            tokens.push(life.token);
            // Twice to the same one.
            let times = if at == to { 2 } else { 1 };
            if times == 2 {
                tokens.push(life.token);
            }
            if map.channel(life.token).is_ok_and(|ch| !ch.is_closing()) && !life.closed {
                (0..times).for_each(|_| life.expected.extend(&bytes));
            }
        }
        return map.broadcast(tokens, &bytes);
    }
    let Ok(mut ch) = map.channel(token) else { return };
    let (result, bytes) = match push {
        Push::Bytes(len) => {
            let bytes = new_bytes(len);
            (ch.push(&bytes), bytes)
        }
        Push::Vec(len) => {
            let bytes = new_bytes(len);
            (ch.push_vec(bytes.clone()), bytes)
        }
        Push::Shared(len) => {
            let bytes = new_bytes(len);
            (ch.push_shared(bytes[..].into()), bytes)
        }
        Push::Slices(len, at) => {
            let bytes = new_bytes(len);
            let (one, two) = bytes.split_at(at.min(len));
            (ch.push_vectored(&[IoSlice::new(one), IoSlice::new(&[]), IoSlice::new(two)]), bytes)
        }
        Push::Producer(len, piece, later) => {
            let bytes = new_bytes(len);
            let (left, wakes) = (bytes.clone(), lives.borrow()[to].wakes.clone());
            let mut at = 0;
            let mut rests = false;
            let producer = move |buffer: &mut Vec<u8>| {
                rests = later && !rests;
                if rests {
                    wakes.set(true);
                    return Ok(More::Later);
                }
                let end = left.len().min(at + piece);
                buffer.extend_from_slice(&left[at..end]);
                at = end;
                Ok(if at == left.len() { More::Done } else { More::Again })
            };
            (ch.push_producer(producer), bytes)
        }
        Push::Broadcast(..) => unreachable!(),
    };
    match result {
        Ok(()) => lives.borrow_mut()[to].expected.extend(bytes),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::QuotaExceeded | ErrorKind::BrokenPipe), "{error}")
        }
    }
}

fn read(lives: &Lives, from: usize, most: usize) -> bool {
    let life = &mut lives.borrow_mut()[from];
    if life.end.is_some() {
        return false;
    }
    let mut buffer = vec![0; most];
    match life.far.read(&mut buffer) {
        Ok(0) => life.end = Some(Ok(())),
        Ok(len) => life.got.extend(&buffer[..len]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
        Err(error) => life.end = Some(Err(error)),
    }
    true
}

fn wake(map: &mut ChannelMap, lives: &Lives, target: usize) {
    let life = &lives.borrow()[target];
    if !life.wakes.replace(false) {
        return;
    }
    if let Ok(mut ch) = map.channel(life.token) {
        ch.wake_producer();
    }
}

fn take(map: &mut ChannelMap, lives: &Lives, step: Step) {
    let token = |at: usize| lives.borrow()[at].token;
    match step {
        Step::Push(to, what) => push(map, lives, to, what),
        Step::InHook(in_, pushes) => {
            let lives = lives.clone();
            let token = token(in_);
            if let Ok(mut ch) = map.channel(token) {
                ch.call_later(Duration::ZERO, move |ch| {
                    for (to, what) in pushes {
                        push(ch.map_mut(), &lives, to, what);
                    }
                    Ok(())
                });
            }
        }
        Step::Wake(target) => wake(map, lives, target),
        Step::Read(from, most) => drop(read(lives, from, most)),
        Step::Close(target) => {
            let token = token(target);
            if let Ok(mut ch) = map.channel(token) {
                ch.close();
                lives.borrow_mut()[target].closed = true;
            }
        }
        Step::ShutdownWrite(target) => {
            let token = token(target);
            if let Ok(mut ch) = map.channel(token) {
                ch.shutdown_write();
                lives.borrow_mut()[target].closed = true;
            }
        }
        Step::Partners(one, other) => {
            let (one, other) = (token(one), token(other));
            if let Ok(mut ch) = map.channel(one) {
                let _ = ch.auto_pause_with(other);
            }
        }
        Step::Limit(target, bytes, ends) => {
            let on_limit = if ends { OnLimit::End } else { OnLimit::Refuse };
            if let Ok(mut ch) = map.channel(token(target)) {
                ch.set_limit(bytes, on_limit);
            }
        }
        Step::MapLimit(bytes) => map.set_limit(bytes),
        #[cfg(debug_assertions)]
        Step::Short(len) => inject(Call::Send, 0, 1, Fault::Short(len)),
        #[cfg(debug_assertions)]
        Step::Errno(which, times) => {
            let errno = [libc::EAGAIN, libc::ENOBUFS, libc::EINTR, libc::ENOMEM][which];
            inject(Call::Send, 0, times, Fault::Errno(errno));
        }
        #[cfg(not(debug_assertions))]
        Step::Short(_) | Step::Errno(..) => {}
        Step::Turn => map.turn(Some(Duration::ZERO)).unwrap(),
    }
}

fn check(life: &Life, at: usize) {
    let len = life.got.len();
    assert!(life.expected.len() >= len, "channel {at}: {len} of {} bytes", life.expected.len());
    assert!(life.got == life.expected[..len], "channel {at}: not what was pushed, of {len} bytes");
}

fn play(steps: Vec<Step>) {
    let mut map = ChannelMap::new().unwrap();
    let lives: Lives = Rc::new(RefCell::new(
        (0..CHANNELS)
            .map(|at| {
                let reason = Rc::new(RefCell::new(None));
                let tcp = at % 2 == 0;
                let (near, far): (Socket, Box<dyn Read>) = match tcp {
                    true => {
                        let (near, far) = pair(loopbacks()[0]);
                        // Not so narrow that the system waits before it tells of room.
                        socket2::SockRef::from(&near).set_send_buffer_size(100 * 1024).unwrap();
                        socket2::SockRef::from(&far).set_recv_buffer_size(100 * 1024).unwrap();
                        far.set_nonblocking(true).unwrap();
                        (near.into(), Box::new(far))
                    }
                    false => {
                        let (near, far) = unix_pair();
                        socket2::SockRef::from(&near).set_send_buffer_size(8 * 1024).unwrap();
                        far.set_nonblocking(true).unwrap();
                        (near.into(), Box::new(far))
                    }
                };
                let token = map.add(near, End(reason.clone())).unwrap().token();
                let (expected, got) = (vec![], vec![]);
                Life {
                    token,
                    far,
                    tcp,
                    expected,
                    got,
                    end: None,
                    closed: false,
                    reason,
                    wakes: Rc::default(),
                }
            })
            .collect(),
    ));
    for step in steps {
        take(&mut map, &lives, step);
        lives.borrow().iter().enumerate().for_each(|(at, life)| check(life, at));
    }
    #[cfg(debug_assertions)]
    faults::clear();
    // Everybody reads, and what was pushed arrives.
    let deadline = Instant::now() + DEADLINE;
    let done = |life: &Life| life.end.is_some() || (!life.closed && life.got.len() == life.expected.len());
    let mut closing = false;
    loop {
        map.turn(Some(Duration::from_millis(1))).unwrap();
        for at in 0..CHANNELS {
            wake(&mut map, &lives, at);
            while read(&lives, at, 1 << 16) {}
        }
        let all_done = lives.borrow().iter().all(done);
        if all_done && closing {
            break;
        }
        if all_done && !map.wait_limit().is_some_and(|limit| limit.is_zero()) {
            // Nothing is queued, so nothing counts.
            let ends = lives.borrow().iter().filter(|life| life.reason.borrow().is_some()).count();
            map.set_limit(0);
            map.turn(Some(Duration::ZERO)).unwrap();
            map.set_limit(64 << 20);
            let more = lives.borrow().iter().filter(|life| life.reason.borrow().is_some()).count();
            assert_eq!(ends, more, "something is still queued");
            closing = true;
            map.close_all();
            lives.borrow_mut().iter_mut().for_each(|life| life.closed = true);
        }
        assert!(Instant::now() < deadline, "not all arrives: {:#?}", stuck(&mut map, &lives));
    }
    for (at, life) in lives.borrow_mut().iter_mut().enumerate() {
        check(life, at);
        let whole = life.got.len() == life.expected.len();
        let reason = life.reason.borrow();
        let cut = matches!(&*reason, Some(Reason::Limit | Reason::Error(_) | Reason::TimedOut));
        assert!(whole || cut, "channel {at} ({reason:?}): {} of {}", life.got.len(), life.expected.len());
        let ended = life.end.as_ref().unwrap();
        assert!(whole || !life.tcp || ended.is_err(), "channel {at}: cut short, and looks complete");
        assert!(cut || ended.is_ok(), "channel {at} ({reason:?}): {ended:?}");
    }
}

fn stuck(map: &mut ChannelMap, lives: &Lives) -> Vec<String> {
    let lives = lives.borrow();
    let all = lives.iter().map(|life| {
        let (got, of) = (life.got.len(), life.expected.len());
        format!("{:?}: {got} of {of}, {:?}", map.channel(life.token), life.end)
    });
    all.collect()
}

fn a_push() -> impl Strategy<Value = Push> {
    let len = || prop_oneof![4 => 0..300usize, 3 => 1000..6000usize, 2 => 10_000..80_000usize, 1 => 100_000..300_000usize];
    prop_oneof![
        4 => len().prop_map(Push::Bytes),
        2 => len().prop_map(Push::Vec),
        2 => len().prop_map(Push::Shared),
        1 => (len(), len()).prop_map(|(len, at)| Push::Slices(len, at)),
        2 => (1..40_000usize, 1..9000usize, any::<bool>()).prop_map(|(len, piece, later)| Push::Producer(len, piece.max(len / 50), later)),
        6 => (any::<u8>(), len()).prop_map(|(set, len)| Push::Broadcast(set, len)),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let channel = || 0..CHANNELS;
    prop_oneof![
        12 => (channel(), a_push()).prop_map(|(to, what)| Step::Push(to, what)),
        4 => (channel(), prop::collection::vec((channel(), a_push()), 1..6)).prop_map(|(of, all)| Step::InHook(of, all)),
        2 => channel().prop_map(Step::Wake),
        10 => (channel(), prop_oneof![1..500usize, 1000..100_000usize]).prop_map(|(of, most)| Step::Read(of, most)),
        1 => prop_oneof![channel().prop_map(Step::Close), channel().prop_map(Step::ShutdownWrite)],
        1 => (channel(), channel()).prop_map(|(one, other)| Step::Partners(one, other)),
        1 => (channel(), prop_oneof![0..5000usize, 50_000..500_000usize], any::<bool>())
            .prop_map(|(of, bytes, ends)| Step::Limit(of, bytes, ends)),
        1 => prop_oneof![100_000..2_000_000usize].prop_map(Step::MapLimit),
        2 => (1..5000usize).prop_map(Step::Short),
        2 => (0..4usize, 1..3u64).prop_map(|(which, times)| Step::Errno(which, times)),
        8 => Just(Step::Turn),
    ]
}

/// EDGE_CASES 129.
#[test]
fn what_is_pushed_in_any_way_arrives_in_order_and_once() {
    let config = ProptestConfig {
        cases: 48,
        failure_persistence: None,
        max_shrink_iters: 30,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in prop::collection::vec(a_step(), 10..120))| play(steps));
}
