//! What things cost: system calls, hooks, allocations, memory. Counted, never timed.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

#[allow(dead_code)]
#[path = "support"]
mod support {
    pub mod echo;
    pub mod heap;
    pub mod limits;
    pub mod peers;
    pub mod waiting;
}

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, count};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, Socket};

use support::echo::Echo;
use support::heap;
use support::limits::raise_descriptor_limit;
use support::peers::{loopbacks, pair, unix_pair};
use support::waiting::DEADLINE;

/// Nothing, and of no size.
struct Quiet;

impl Dispatcher for Quiet {}

/// Turn until nothing is left to be done at once.
fn settle(map: &mut ChannelMap) {
    for _ in 0..5 {
        map.turn(Some(Duration::ZERO)).unwrap();
    }
}

/// The tests with thousands of descriptors run one at a time.
static MANY: Mutex<()> = Mutex::new(());

/// Channels with both ends in the map, so that each takes one descriptor; as many as may be had.
fn add_idle<D: Dispatcher>(map: &mut ChannelMap, channels: usize, dispatcher: impl Fn() -> D) {
    let free = raise_descriptor_limit(channels as u64 + 200).saturating_sub(200) as usize;
    let channels = channels.min(free);
    assert!(channels >= 700, "too few descriptors for this test: see `ulimit -Hn`");
    for _ in 0..channels / 2 {
        let (one, other) = UnixStream::pair().unwrap();
        map.add(one, dispatcher()).unwrap();
        map.add(other, dispatcher()).unwrap();
    }
    settle(map);
}

// System calls and allocations of a message.

#[cfg(debug_assertions)]
const CALLS: [Call; 5] = [Call::Recv, Call::Send, Call::Control, Call::Option, Call::Wait];

/// Echo `rounds` messages on each of these connections, all at once in every round. The calls made
/// meanwhile, and the turns.
#[cfg(debug_assertions)]
fn echo<F: Read + Write>(pairs: Vec<(impl Into<Socket>, F)>, rounds: u64) -> ([u64; 5], u64) {
    let mut map = ChannelMap::new().unwrap();
    let mut peers = Vec::new();
    for (near, far) in pairs {
        map.add(near, Echo).unwrap();
        peers.push(far);
    }
    settle(&mut map);
    let mut turns = 0;
    let mut round = |map: &mut ChannelMap| {
        let done = count(Call::Recv) + peers.len() as u64;
        for peer in &mut peers {
            peer.write_all(&[b'x'; 64]).unwrap();
        }
        while count(Call::Recv) < done {
            map.turn(Some(DEADLINE)).unwrap();
            turns += 1;
        }
        for peer in &mut peers {
            peer.read_exact(&mut [0; 64]).unwrap();
        }
        turns
    };
    let turns_before = (0..10).map(|_| round(&mut map)).max().unwrap();
    let before = CALLS.map(count);
    let allocations = heap::allocations();
    let turns = (0..rounds).map(|_| round(&mut map)).max().unwrap() - turns_before;
    assert_eq!(heap::allocations() - allocations, 0, "allocations");
    (std::array::from_fn(|at| count(CALLS[at]) - before[at]), turns)
}

/// A Unix socket has the message at once, so that each round is one turn.
#[cfg(debug_assertions)]
#[test]
fn a_message_is_one_recv_one_send_and_a_share_of_one_wait() {
    for connections in [1, 64] {
        let pairs = (0..connections).map(|_| unix_pair()).collect();
        let (calls, turns) = echo(pairs, 100);
        assert_eq!(calls, [100 * connections, 100 * connections, 0, 0, 100], "{connections} connections");
        assert_eq!(turns, 100);
    }
}

/// Over TCP the messages of a round may take more than one turn to arrive.
#[cfg(debug_assertions)]
#[test]
fn a_message_over_tcp_costs_the_same_calls() {
    for address in loopbacks() {
        for connections in [1, 64] {
            let pairs = (0..connections).map(|_| pair(address)).collect();
            let (calls, turns) = echo(pairs, 100);
            let messages = 100 * connections;
            assert_eq!(calls, [messages, messages, 0, 0, turns], "{connections} connections to {address}");
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn an_idle_map_makes_no_call_but_the_wait() {
    let mut map = ChannelMap::new().unwrap();
    for address in loopbacks() {
        map.listen(address, Quiet).unwrap();
        let (near, far) = pair(address);
        map.add(near, Echo).unwrap();
        map.add(far, Quiet).unwrap();
    }
    settle(&mut map);
    map.call_later(Duration::from_millis(200), ChannelMap::stop);
    let rest = [
        Call::Recv,
        Call::RecvUrgent,
        Call::Send,
        Call::Accept,
        Call::TakeError,
        Call::Address,
        Call::Option,
        Call::Control,
    ];
    let before = rest.map(count);
    let waits = count(Call::Wait);
    let allocations = heap::allocations();
    dispatch_loop::run(&mut map).unwrap();
    let waits = count(Call::Wait) - waits;
    assert_eq!(heap::allocations(), allocations);
    assert_eq!(rest.map(count), before);
    assert!((1..=3).contains(&waits), "{waits} waits in 200 ms");
    map.close_all();
    dispatch_loop::run(&mut map).unwrap();
}

/// Answers with so many pushes of so many bytes.
struct Pushes {
    pushes: usize,
    len: usize,
}

impl Dispatcher for Pushes {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let answer = [b'x'; 8192];
        ch.read_with(|ch, _| (0..self.pushes).try_for_each(|_| ch.push(&answer[..self.len])))
    }
}

#[test]
fn a_push_to_the_own_channel_allocates_nothing() {
    for (pushes, len) in [(1, 1), (3, 100), (50, 20), (5, 1000), (1, 4096), (3, 8192)] {
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = unix_pair();
        map.add(near, Pushes { pushes, len }).unwrap();
        settle(&mut map);
        let mut answer = vec![0; pushes * len];
        let mut round = |map: &mut ChannelMap| {
            far.write_all(b"?").unwrap();
            map.turn(Some(DEADLINE)).unwrap();
            far.read_exact(&mut answer).unwrap();
        };
        round(&mut map);
        let before = heap::allocations();
        (0..20).for_each(|_| round(&mut map));
        assert_eq!(heap::allocations() - before, 0, "{pushes} pushes of {len} bytes");
    }
}

// Hooks.

thread_local! {
    static HOOKS: Cell<u64> = const { Cell::new(0) };
}

/// An echo that counts how often it is asked or called, over all channels.
struct Counted;

fn hook() {
    HOOKS.set(HOOKS.get() + 1);
}

impl Dispatcher for Counted {
    fn readable(&self, _: &Channel<'_>) -> bool {
        hook();
        true
    }
    fn writable(&self, _: &Channel<'_>) -> bool {
        hook();
        false
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        hook();
        ch.read_with(|ch, data| ch.push(data))
    }
    fn handle_write(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        hook();
        Ok(())
    }
    fn handle_expt(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        hook();
        Ok(())
    }
    fn handle_high(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        hook();
        Ok(())
    }
    fn handle_low(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        hook();
        Ok(())
    }
}

#[test]
fn a_turn_does_not_look_at_channels_that_are_idle() {
    let _one_at_a_time = MANY.lock().unwrap_or_else(PoisonError::into_inner);
    let work = |idle| {
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = unix_pair();
        map.add(near, Counted).unwrap();
        match idle {
            0..100 => {
                for _ in 0..idle {
                    map.listen("127.0.0.1:0", Counted).unwrap();
                }
            }
            _ => add_idle(&mut map, idle, || Counted),
        }
        settle(&mut map);
        let before = HOOKS.get();
        for _ in 0..20 {
            far.write_all(b"ping").unwrap();
            map.turn(Some(DEADLINE)).unwrap();
            far.read_exact(&mut [0; 4]).unwrap();
        }
        HOOKS.get() - before
    };
    let few = work(5);
    assert!(few >= 20, "the echo has worked: {few}");
    assert_eq!(few, work(5000));
}

// Memory.

/// A dispatcher with a pointer's worth of its own.
struct Small(#[allow(dead_code)] u64);

impl Dispatcher for Small {}

/// The whole of it: the dispatcher's box, the slot, its share of every table; some 190 bytes, measured where the
/// tables have just filled up. One channel more, and they double: that room is asked for, and not touched
/// before there are channels for it.
#[test]
fn an_idle_channel_takes_at_most_200_bytes() {
    let _one_at_a_time = MANY.lock().unwrap_or_else(PoisonError::into_inner);
    for channels in [1 << 10, 1 << 12] {
        let mut map = ChannelMap::new().unwrap();
        let before = heap::live();
        add_idle(&mut map, channels, || Small(1));
        assert_eq!(map.len(), channels);
        let each = (heap::live() - before) / channels as i64;
        assert!(each <= 200, "{each} bytes each of {channels}");
    }
}

#[test]
fn no_buffer_is_held_while_nothing_is_queued() {
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let echo = map.add(near, Echo).unwrap();
    far.write_all(b"ping").unwrap();
    settle(&mut map);
    far.read_exact(&mut [0; 4]).unwrap();
    let before = heap::live();

    let data = vec![b'x'; 1024 * 1024];
    map.channel(echo).unwrap().push(&data).unwrap();
    map.channel(echo).unwrap().push(b"a little more").unwrap();
    drop(data);
    assert!(heap::live() - before > 500_000, "the peer does not read, so it is queued");
    let mut left = 1024 * 1024 + 13;
    let mut buffer = [0; 16 * 1024];
    while left > 0 {
        map.turn(Some(Duration::ZERO)).unwrap();
        left -= far.read(&mut buffer).unwrap();
    }
    settle(&mut map);
    let held = heap::live() - before;
    assert!(held <= 0, "{held} bytes more than before");
}

/// What is queued is sent from where it lies. Of a large piece the part that is sent is given back as soon as
/// that is half of it, so however long the queue, it is copied less than once. (asyncore cuts off what was
/// sent by a copy of all the rest, so a long queue takes quadratic time.)
#[test]
fn a_long_queue_is_copied_at_most_once_as_it_is_sent() {
    for bytes in [256 * 1024, 4 * 1024 * 1024] {
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = unix_pair();
        let echo = map.add(near, Echo).unwrap();
        settle(&mut map);
        map.channel(echo).unwrap().push_vec(vec![b'x'; bytes]).unwrap();
        map.channel(echo).unwrap().push(&vec![b'x'; bytes]).unwrap();
        let allocated = heap::allocated();
        let mut left = 2 * bytes;
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            map.turn(Some(Duration::ZERO)).unwrap();
            left -= far.read(&mut buffer).unwrap();
        }
        let copied = (heap::allocated() - allocated) as usize;
        assert!(copied < 2 * bytes, "{copied} bytes allocated while {bytes} were sent");
    }
}

/// A line that comes in small pieces is put together in memory that doubles. (asynchat copies all that it
/// has for each piece.)
#[cfg(feature = "layers")]
#[test]
fn a_long_line_in_small_pieces_is_not_copied_for_each_piece() {
    use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};

    struct Length(std::rc::Rc<Cell<usize>>);

    impl Chat for Length {
        fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
            ch.set_input_limit(usize::MAX);
            Ok(())
        }
        fn found_terminator(&mut self, _: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
            self.0.set(line.len());
            Ok(())
        }
    }

    for bytes in [64 * 1024, 1024 * 1024] {
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = unix_pair();
        let length = std::rc::Rc::new(Cell::new(0));
        map.add(near, ChatDispatcher::new("\n", Length(length.clone())).unwrap()).unwrap();
        settle(&mut map);
        let allocated = heap::allocated();
        for _ in 0..bytes / 512 {
            far.write_all(&[b'x'; 512]).unwrap();
            map.turn(Some(DEADLINE)).unwrap();
        }
        far.write_all(b"\n").unwrap();
        while length.get() == 0 {
            map.turn(Some(DEADLINE)).unwrap();
        }
        assert_eq!(length.get(), bytes);
        let copied = (heap::allocated() - allocated) as usize;
        assert!(copied < 4 * bytes, "{copied} bytes allocated for a line of {bytes}");
    }
}

/// Has what a channel can have: timers, something queued that will never leave, input unread.
struct Rich;

impl Dispatcher for Rich {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_timeout(Some(Duration::from_secs(3600)));
        let data = [0; 100];
        ch.call_later(Duration::from_secs(3600), move |ch| ch.push(&data));
        ch.call_every(Duration::from_secs(3600), move |ch| ch.push(&data));
        ch.push_producer(|buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(&[b'x'; 5000]);
            Ok(dispatch_loop::More::Again)
        })?;
        ch.pause_reading();
        Ok(())
    }
}

#[test]
fn a_closed_channel_gives_everything_back() {
    const CHANNELS: usize = 200;
    let mut map = ChannelMap::new().unwrap();
    let mut cycle = || {
        for _ in 0..CHANNELS / 2 {
            let (one, other) = UnixStream::pair().unwrap();
            map.add(one, Rich).unwrap();
            map.add(other, Rich).unwrap();
        }
        settle(&mut map);
        assert_eq!(map.len(), CHANNELS);
        let tokens: Vec<_> = map.tokens().collect();
        for (at, token) in tokens.into_iter().enumerate() {
            let mut ch = map.channel(token).unwrap();
            match at % 3 {
                0 => ch.abort(),
                1 => ch.replace_dispatcher(Quiet).map(|_| ch.abort()).unwrap(),
                // The end of its twin ends it.
                _ => ch.resume_reading(),
            }
        }
        while !map.is_empty() {
            settle(&mut map);
            map.tokens().collect::<Vec<_>>().into_iter().for_each(|token| {
                map.channel(token).unwrap().abort();
            });
        }
        settle(&mut map);
        heap::live()
    };
    // The tables keep the room that they grew to. What is lost with every channel goes on growing.
    let first = (0..10).map(|_| cycle()).max().unwrap();
    let last = (0..100).map(|_| cycle()).max().unwrap();
    let more = last - first;
    assert!(more < 2 * 100 * CHANNELS as i64, "{more} bytes more after 100 times {CHANNELS} channels");
}

// Timers.

const HOUR: Duration = Duration::from_secs(3600);

/// Set timers and cancel them in another order; bytes held afterwards, and while they were set,
/// then allocations and bytes that were asked for meanwhile.
fn timers(map: &mut ChannelMap, timers: usize) -> (i64, i64, u64, u64) {
    let mut ids = Vec::with_capacity(timers);
    let live = heap::live();
    let allocations = heap::allocations();
    let allocated = heap::allocated();
    for at in 0..timers {
        ids.push(map.call_later(HOUR + Duration::from_millis(at as u64 * 7919 % 100_003), |_| {}));
    }
    let set = heap::live() - live;
    // Every other one first, then the rest from the end.
    for at in (0..timers).step_by(2).chain((0..timers).rev().filter(|at| at % 2 == 1)) {
        assert!(map.cancel(ids[at]));
    }
    (heap::live() - live, set, heap::allocations() - allocations, heap::allocated() - allocated)
}

#[test]
fn cancelled_timers_leave_nothing() {
    let mut map = ChannelMap::new().unwrap();
    for many in [1000, 100_000] {
        let (mut left, set, ..) = timers(&mut map, many);
        assert!(set as usize > many * 32, "{set} bytes for {many} timers");
        assert!(left < set / 2, "{left} of {set} bytes are left of {many} cancelled timers");
        // A table may keep the room that it grew to, but not grow each time.
        left += (0..7).map(|_| timers(&mut map, many).0).sum::<i64>();
        assert!(left < set, "{left} bytes are left of eight times {many} cancelled timers");
    }
    // One at a time: what a timeout that is always moved does.
    let live = heap::live();
    for _ in 0..100_000 {
        let timer = map.call_later(HOUR, |_| {});
        assert!(map.cancel(timer));
    }
    let more = heap::live() - live;
    assert!(more < 4096, "{more} bytes more after 100,000 timers, one at a time");
    assert_eq!(map.wait_limit(), None);
}

#[test]
fn a_timer_costs_as_much_among_many_as_among_few() {
    let (_, _, few_allocations, few_bytes) = timers(&mut ChannelMap::new().unwrap(), 1000);
    let (_, _, many_allocations, many_bytes) = timers(&mut ChannelMap::new().unwrap(), 100_000);
    // A hundred times as many: log n is less than twice as much for each.
    assert!(many_allocations <= 200 * few_allocations, "{few_allocations} and {many_allocations}");
    assert!(many_bytes <= 200 * few_bytes, "{few_bytes} and {many_bytes} bytes");
}

/// An echo that ends when nothing came or went for an hour.
struct Patient;

impl Dispatcher for Patient {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_timeout(Some(HOUR));
        Ok(())
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}

/// A message notes its time and moves no timer, be there one or ten thousand: the earliest deadline stays
/// where it was, until it comes and finds out. Nor does it allocate.
#[test]
fn a_message_moves_no_timer_of_an_idle_timeout() {
    let _one_at_a_time = MANY.lock().unwrap_or_else(PoisonError::into_inner);
    for armed in [0, 10_000] {
        let mut map = ChannelMap::new().unwrap();
        let mut fars = Vec::new();
        for _ in 0..10 {
            let (near, far) = unix_pair();
            map.add(near, Patient).unwrap();
            fars.push(far);
        }
        settle(&mut map);
        if armed > 0 {
            add_idle(&mut map, armed, || Patient);
        }
        let mut round = |map: &mut ChannelMap| {
            for far in &mut fars {
                far.write_all(b"ping").unwrap();
            }
            map.turn(Some(DEADLINE)).unwrap();
            for far in &mut fars {
                far.read_exact(&mut [0; 4]).unwrap();
            }
        };
        round(&mut map);
        let (begun, deadline) = (Instant::now(), map.wait_limit().unwrap());
        let allocations = heap::allocations();
        // Long enough for a timer that was moved to show.
        while begun.elapsed() < Duration::from_millis(100) {
            round(&mut map);
        }
        assert_eq!(heap::allocations(), allocations, "{armed} armed");
        let later = (begun.elapsed() + map.wait_limit().unwrap()).saturating_sub(deadline);
        assert!(
            later < Duration::from_millis(50),
            "{armed} armed: the first deadline has moved by {later:?}"
        );
    }
}
