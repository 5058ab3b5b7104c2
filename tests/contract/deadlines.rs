//! `set_deadlines` and `handle_deadline`: EDGE_CASES 230 to 249.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{Channel, ChannelMap, Deadlines, Dispatcher, Eof, MinRate, OnError, Reason, Token, run};

use crate::support::opened::{opened, opened_on, view};
use crate::support::peers::{loopbacks, narrow_pair, pair, read_all, reads_all, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_idle, turn_until, waits_in};
use crate::support::waiting::DEADLINE;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// All defaults but the last hook.
struct Plain(Log);

impl Dispatcher for Plain {
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        self.0.add(format!("close: {reason}"));
    }
}

fn set(map: &mut ChannelMap, token: Token, deadlines: Deadlines) {
    view(map, token).set_deadlines(&deadlines);
}

/// Write a byte from `far` every `step`, for as long as it can be.
fn drip(map: &mut ChannelMap, mut far: TcpStream, step: Duration) {
    let drops = map.call_every(step, move |_| drop(far.write(b".")));
    map.set_timer_background(drops, true);
}

/// What has happened to the channel, but for the watermarks.
fn told(log: &Log) -> Vec<String> {
    log.of("a").into_iter().filter(|event| event != "high" && event != "low").collect()
}

/// Turn for so long, in which nothing is to happen to the channel.
#[track_caller]
fn lives(map: &mut ChannelMap, token: Token, log: &Log, period: Duration) {
    lives_on(map, token, log, period, |_| ());
}

/// The same, and do something before each turn, which sees that before it sees how late it is.
#[track_caller]
fn lives_on(
    map: &mut ChannelMap,
    token: Token,
    log: &Log,
    period: Duration,
    mut something: impl FnMut(&mut ChannelMap),
) {
    let end = Instant::now() + period;
    while Instant::now() < end {
        something(map);
        map.turn(Some(5 * MILLISECOND)).unwrap();
        assert!(map.contains(token), "{:?}", log.events());
    }
    assert_eq!(log.count("a deadline"), 0, "{:?}", log.events());
}

/// EDGE_CASES 230.
#[test]
fn a_deadline_that_nobody_handles_ends_the_channel_as_timed_out() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        let begun = Instant::now();
        let token = map.add(near, Plain(log.clone())).unwrap().token();
        set(&mut map, token, Deadlines::default().with_read(30 * MILLISECOND));
        run(&mut map).unwrap();
        assert!(begun.elapsed() >= 30 * MILLISECOND, "too early");
        assert_eq!(log.events(), ["close: timed out"]);
        assert_eq!(read_all(&mut far).0, b"");
    }
}

/// EDGE_CASES 231: what is sent is no sign that the peer lives, and what is read is.
#[test]
fn what_is_read_keeps_a_channel_alive_and_what_is_sent_does_not() {
    const TIME: Duration = Duration::from_millis(120);
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log).quiet());
        set(&mut map, token, Deadlines::default().with_read(TIME));
        lives_on(&mut map, token, &log, 3 * TIME, |_| far.write_all(b".").unwrap());

        let log = Log::new();
        let (mut map, token, _far) = opened(on, Recorder::new("a", &log).quiet());
        let begun = Instant::now();
        set(&mut map, token, Deadlines::default().with_read(TIME));
        view(&mut map, token).call_every(TIME / 12, |ch| ch.push(b"."));
        turn_until(&mut map, &log, |_| log.closed("a"));
        assert!(begun.elapsed() >= TIME, "too early");
        assert_eq!(told(&log), ["open", "deadline: read", "close: timed out"]);
    }
}

/// EDGE_CASES 232: once it has come, the first byte is no more awaited.
#[test]
fn the_first_byte_has_a_deadline_and_the_second_none() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log).quiet());
        set(&mut map, token, Deadlines::default().with_first_byte(20 * MILLISECOND));
        far.write_all(b"hello").unwrap();
        turn_until(&mut map, &log, |map| view(map, token).bytes_in() == 5);
        lives(&mut map, token, &log, 60 * MILLISECOND);
        assert_eq!(map.wait_limit(), None, "no timer is left");

        let begun = Instant::now();
        let (mut map, _, _far) = opened(
            on,
            Recorder::new("b", &log).on("open", |ch| {
                ch.set_deadlines(&Deadlines::default().with_first_byte(30 * MILLISECOND));
                Ok(())
            }),
        );
        turn_until(&mut map, &log, |_| log.closed("b"));
        assert!(begun.elapsed() >= 30 * MILLISECOND, "too early");
        assert_eq!(log.of("b"), ["open", "deadline: first byte", "close: timed out"]);
    }
}

/// Says of every byte whether a message has begun or ended: `<` and `>`.
struct Messages(Recorder);

impl Dispatcher for Messages {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            for byte in data {
                match byte {
                    b'<' => ch.begin_message(),
                    b'>' => ch.end_message(),
                    _ => {}
                }
            }
            Ok(())
        })
    }
    fn handle_deadline(&mut self, ch: &mut Channel<'_>, deadline: dispatch_loop::Deadline) -> io::Result<()> {
        self.0.handle_deadline(ch, deadline)
    }
    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.0.handle_eof(ch)
    }
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.0.handle_close(ch, reason);
    }
}

fn messages(log: &Log) -> (ChannelMap, Token, TcpStream) {
    let (near, far) = pair(loopbacks()[0]);
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Messages(Recorder::new("a", log))).unwrap().token();
    map.turn(Some(Duration::ZERO)).unwrap();
    (map, token, far)
}

/// EDGE_CASES 233: slowloris. Bytes keep coming, so the channel is never idle.
#[test]
fn a_message_that_comes_byte_by_byte_for_ever_has_a_deadline() {
    const TIME: Duration = Duration::from_millis(80);
    let log = Log::new();
    let (mut map, token, mut far) = messages(&log);
    set(&mut map, token, Deadlines::default().with_message(TIME).with_read(TIME));
    far.write_all(b"<").unwrap();
    let begun = Instant::now();
    drip(&mut map, far, TIME / 10);
    turn_until(&mut map, &log, |_| log.closed("a"));
    assert!(begun.elapsed() >= TIME, "too early");
    assert_eq!(told(&log), ["deadline: message", "close: timed out"]);
}

/// EDGE_CASES 234: each message has the whole time, and between two there is no deadline. One timer is enough
/// for all of them.
#[test]
fn messages_that_are_complete_in_time_meet_no_deadline() {
    const TIME: Duration = Duration::from_millis(500);
    let log = Log::new();
    let (mut map, token, mut far) = messages(&log);
    set(&mut map, token, Deadlines::default().with_message(TIME));
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < TIME + TIME / 2 {
        for part in [&b"<"[..], b"....", b"><", b">"] {
            far.write_all(part).unwrap();
            sent += part.len() as u64;
            turn_until(&mut map, &log, |map| view(map, token).bytes_in() == sent);
            assert!(map.numbers().timers <= 1);
        }
        assert!(!view(&mut map, token).has_message_begun());
    }
    lives(&mut map, token, &log, 2 * TIME);
    assert_eq!(map.wait_limit(), None, "between messages nothing counts");
    far.write_all(b"<").unwrap();
    turn_until(&mut map, &log, |_| log.closed("a"));
}

/// EDGE_CASES 234: a message that has begun before the deadlines were set counts, too; and one that begins
/// again has not begun anew.
#[test]
fn a_message_that_has_begun_counts_from_when_the_deadlines_are_set() {
    let log = Log::new();
    let (mut map, token, mut far) = messages(&log);
    far.write_all(b"<").unwrap();
    turn_until(&mut map, &log, |map| view(map, token).has_message_begun());
    let begun = Instant::now();
    set(&mut map, token, Deadlines::default().with_message(40 * MILLISECOND));
    let again = map.call_every(MILLISECOND, move |map| {
        if let Ok(mut ch) = map.channel(token) {
            ch.begin_message();
        }
    });
    turn_until(&mut map, &log, |_| log.closed("a"));
    assert!(begun.elapsed() >= 40 * MILLISECOND, "too early");
    map.cancel(again);
}

/// EDGE_CASES 235: a message that comes too slowly ends the channel, and one that comes fast enough may take as
/// long as it takes.
#[test]
fn a_message_must_come_at_the_least_rate() {
    // 200 bytes in a window.
    let rate = MinRate::new(1000).with_window(200 * MILLISECOND);
    for fast in [true, false] {
        let log = Log::new();
        let (mut map, token, mut far) = messages(&log);
        set(&mut map, token, Deadlines::default().with_read_rate(rate));
        // Nothing counts before it begins.
        lives(&mut map, token, &log, 300 * MILLISECOND);
        far.write_all(b"<").unwrap();
        turn_until(&mut map, &log, |map| view(map, token).has_message_begun());
        let begun = Instant::now();
        if fast {
            lives_on(&mut map, token, &log, 900 * MILLISECOND, |_| far.write_all(&[b'.'; 200]).unwrap());
            continue;
        }
        // 33 bytes in a window.
        drip(&mut map, far, 6 * MILLISECOND);
        turn_until(&mut map, &log, |_| log.closed("a"));
        assert!(begun.elapsed() >= 200 * MILLISECOND, "too early");
        assert_eq!(told(&log), ["deadline: read rate", "close: timed out"]);
    }
}

/// EDGE_CASES 236: a peer that does not read what it is owed, whether that is queued or fits into the system's
/// buffers.
#[test]
fn output_that_does_not_leave_ends_the_channel() {
    let rate = MinRate::new(100).with_window(80 * MILLISECOND);
    for on in loopbacks() {
        for close in [false, true] {
            let log = Log::new();
            let (near, far) = narrow_pair(on);
            let (mut map, token) = opened_on(near, Recorder::new("a", &log));
            set(&mut map, token, Deadlines::default().with_write_rate(rate));
            let begun = Instant::now();
            view(&mut map, token).push_vec(vec![1; 4_000_000]).unwrap();
            if close {
                view(&mut map, token).close();
            }
            turn_until(&mut map, &log, |_| log.closed("a"));
            assert!(begun.elapsed() >= 80 * MILLISECOND, "too early");
            let wanted: &[&str] = match close {
                false => &["open", "deadline: write rate", "close: timed out"],
                true => &["open", "close: timed out"],
            };
            assert_eq!(told(&log), wanted);
            let (_, end) = read_all(&mut &far);
            assert!(end.is_err(), "what was cut short ended as if it were whole");
        }
    }
    if cfg!(not(target_os = "linux")) {
        return;
    }
    // All of it is with the system, which holds it for the peer, and says so.
    let log = Log::new();
    let (near, _far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    set(&mut map, token, Deadlines::default().with_write_rate(rate));
    view(&mut map, token).push(&[1; 1000]).unwrap();
    turn_until(&mut map, &log, |_| log.closed("a"));
    assert_eq!(told(&log), ["open", "deadline: write rate", "close: timed out"]);
}

/// EDGE_CASES 237: a slow reader above the rate lives as long as it takes; and nothing counts while nothing is
/// unsent.
#[test]
fn a_slow_but_steady_reader_above_the_rate_is_served_to_the_end() {
    const ALL: usize = 600_000;
    // The system itself may pause for 0.2 s when a window was full.
    let rate = MinRate::new(10_000).with_window(600 * MILLISECOND);
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = narrow_pair(on);
        let (mut map, token) = opened_on(near, Recorder::new("a", &log));
        set(&mut map, token, Deadlines::default().with_write_rate(rate));
        lives(&mut map, token, &log, 300 * MILLISECOND);
        view(&mut map, token).push_vec(vec![1; ALL]).unwrap();
        far.set_nonblocking(true).unwrap();
        let (mut got, mut buffer) = (0, [0; 4 * 1024]);
        turn_until(&mut map, &log, |_| {
            got += far.read(&mut buffer).unwrap_or(0);
            got == ALL
        });
        lives(&mut map, token, &log, 300 * MILLISECOND);
    }
}

/// EDGE_CASES 237: a peer that takes all there is, is no slow one, however little that is; and a producer of our
/// own that has nothing is not the peer's fault.
#[test]
fn little_output_is_not_slow_output() {
    const PERIOD: Duration = Duration::from_millis(800);
    // The system may acknowledge only after 0.2 s.
    let rate = MinRate::new(100_000_000).with_window(500 * MILLISECOND);
    let log = Log::new();
    let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log));
    set(&mut map, token, Deadlines::default().with_write_rate(rate));
    let _reader = reads_all(far);
    view(&mut map, token).call_every(3 * MILLISECOND, |ch| ch.push(b"tick"));
    lives(&mut map, token, &log, PERIOD);
    // All that is there is taken, and there is always something.
    let (near, mut slow) = unix_pair();
    let one = map.add(near, Recorder::new("a", &log)).unwrap().token();
    set(&mut map, one, Deadlines::default().with_write_rate(rate));
    view(&mut map, one).push(&[1; 100]).unwrap();
    lives_on(&mut map, one, &log, 2 * PERIOD, |map| {
        for _ in 0..50 {
            view(map, one).push(&[1; 100]).unwrap();
            map.turn(Some(Duration::ZERO)).unwrap();
            slow.read_exact(&mut [0; 100]).unwrap();
        }
        assert!(view(map, one).unsent() > 0);
    });
    set(&mut map, one, Deadlines::default());
    view(&mut map, token).push_producer(|_: &mut Vec<u8>| Ok(dispatch_loop::More::Later)).unwrap();
    lives(&mut map, token, &log, PERIOD);
}

/// EDGE_CASES 238: it passes once, within a tenth of its time.
#[test]
fn a_lifetime_passes_once_and_not_before_nine_tenths_of_it() {
    const TIME: Duration = Duration::from_millis(100);
    let log = Log::new();
    let (mut map, token, far) =
        opened(loopbacks()[0], Recorder::new("a", &log).quiet().on("deadline", |_| Ok(())));
    let begun = Instant::now();
    set(&mut map, token, Deadlines::default().with_lifetime(TIME));
    drip(&mut map, far, 5 * MILLISECOND);
    turn_until(&mut map, &log, |_| log.has("a deadline: lifetime"));
    assert!(begun.elapsed() >= TIME - TIME / 10, "too early");
    let end = Instant::now() + 3 * TIME;
    turn_until(&mut map, &log, |_| Instant::now() > end);
    assert_eq!(told(&log), ["open", "deadline: lifetime"]);

    // Those that began together do not end together.
    let mut map = ChannelMap::new().unwrap();
    let fars: Vec<_> = (0..20)
        .map(|_| {
            let (near, far) = pair(loopbacks()[0]);
            let token = map.add(near, Plain(log.clone())).unwrap().token();
            set(&mut map, token, Deadlines::default().with_lifetime(HOUR));
            far
        })
        .collect();
    turn_idle(&mut map);
    let first = map.wait_limit().unwrap();
    assert!(first > HOUR - HOUR / 10 - Duration::from_secs(60), "{first:?}");
    assert!(first < HOUR - HOUR / 100, "of twenty, one is sooner than the middle: {first:?}");
    drop(fars);
}

/// EDGE_CASES 239: whichever it is, if the channel lives on, it counts anew.
#[test]
fn a_deadline_that_is_handled_counts_anew() {
    const TIME: Duration = Duration::from_millis(20);
    let slow = MinRate::new(1_000_000).with_window(TIME);
    let cases = [
        ("read", Deadlines::default().with_read(TIME)),
        ("first byte", Deadlines::default().with_first_byte(TIME)),
        ("message", Deadlines::default().with_message(TIME)),
        ("read rate", Deadlines::default().with_read_rate(slow)),
        ("write rate", Deadlines::default().with_write_rate(slow)),
    ];
    for (name, deadlines) in cases {
        let log = Log::new();
        let recorder = Recorder::new("a", &log).on("deadline", move |ch| {
            if ch.queued() == 0 {
                ch.begin_message();
            }
            Ok(())
        });
        let (near, far) = narrow_pair(loopbacks()[0]);
        let (mut map, token) = opened_on(near, recorder);
        let begun = Instant::now();
        view(&mut map, token).begin_message();
        set(&mut map, token, deadlines);
        if name == "write rate" {
            view(&mut map, token).push_vec(vec![1; 4_000_000]).unwrap();
        }
        turn_until(&mut map, &log, |_| log.count("a deadline") == 4);
        let passed = format!("deadline: {name}");
        assert_eq!(told(&log), ["open", &passed, &passed, &passed, &passed]);
        // It counts from the turn in which it has passed, and that may have begun a moment before the hook.
        assert!(begun.elapsed() >= 4 * TIME - TIME / 2, "too early");
        drop(far);
    }
}

/// EDGE_CASES 240: what is set replaces all that was set before, also from inside the hook.
#[test]
fn deadlines_that_are_set_again_replace_those_before() {
    let log = Log::new();
    let recorder = Recorder::new("a", &log).on("deadline", |ch| {
        ch.set_deadlines(&Deadlines::default());
        Ok(())
    });
    let (mut map, token, _far) = opened(loopbacks()[0], recorder);
    set(&mut map, token, Deadlines::default().with_read(MILLISECOND).with_lifetime(MILLISECOND));
    set(&mut map, token, Deadlines::default().with_read(HOUR));
    lives(&mut map, token, &log, 30 * MILLISECOND);
    assert_eq!(map.numbers().timers, 1);
    set(&mut map, token, Deadlines::default().with_first_byte(MILLISECOND));
    turn_until(&mut map, &log, |_| log.has("a deadline: first byte"));
    turn_idle(&mut map);
    assert_eq!(map.wait_limit(), None, "no timer is left");
    assert_eq!(log.count("a deadline"), 1);
}

/// EDGE_CASES 241: what we do not read is not the peer's fault.
#[test]
fn while_reading_is_paused_no_deadline_of_input_counts() {
    const TIME: Duration = Duration::from_millis(50);
    let deadlines = Deadlines::default()
        .with_read(TIME)
        .with_first_byte(TIME)
        .with_message(TIME)
        .with_read_rate(MinRate::new(1000).with_window(TIME));
    for how in ["paused", "not readable", "auto"] {
        let log = Log::new();
        let paused = Rc::new(Cell::new(how == "not readable"));
        let answer = paused.clone();
        let recorder = Recorder::new("a", &log).readable(move |_| !answer.get());
        let (near, far) = narrow_pair(loopbacks()[0]);
        let (mut map, token) = opened_on(near, recorder);
        let mut ch = view(&mut map, token);
        ch.begin_message();
        match how {
            "paused" => ch.pause_reading(),
            "auto" => {
                ch.set_auto_pause(true);
                ch.push_vec(vec![1; 4_000_000]).unwrap();
            }
            _ => {}
        }
        ch.set_deadlines(&deadlines);
        lives(&mut map, token, &log, 4 * TIME);
        let resumed = Instant::now();
        paused.set(false);
        let mut ch = view(&mut map, token);
        ch.resume_reading();
        ch.set_auto_pause(false);
        turn_until(&mut map, &log, |_| log.closed("a"));
        assert!(resumed.elapsed() >= TIME, "too early");
        assert_eq!(told(&log)[1..], ["deadline: first byte", "close: timed out"], "{how}");
        drop(far);
    }
}

/// EDGE_CASES 242: an error of the hook is one of its dispatcher's, and a channel that ends runs none.
#[test]
fn a_deadline_hook_that_fails_is_an_error_of_its_channel() {
    for on_error in [OnError::End, OnError::Keep] {
        let log = Log::new();
        let recorder = Recorder::new("a", &log).on_error(on_error);
        let recorder = recorder.on("deadline", |_| Err(io::Error::other("no patience")));
        let (mut map, token, _far) = opened(loopbacks()[0], recorder);
        set(&mut map, token, Deadlines::default().with_read(5 * MILLISECOND));
        turn_until(&mut map, &log, |_| log.closed("a") || log.count("a deadline") == 3);
        let failed = ["deadline: read", "error: no patience"];
        let wanted = match on_error {
            OnError::End => [&["open"][..], &failed, &["close: no patience"]].concat(),
            OnError::Keep => [&["open"][..], &failed, &failed, &failed].concat(),
        };
        assert_eq!(told(&log), wanted);
    }

    let log = Log::new();
    let (near, _far) = narrow_pair(loopbacks()[0]);
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    let mut ch = view(&mut map, token);
    ch.push(&[0; 4_000_000]).unwrap();
    ch.set_deadlines(&Deadlines::default().with_read(MILLISECOND).with_lifetime(MILLISECOND));
    ch.set_close_timeout(60 * MILLISECOND);
    ch.close();
    run(&mut map).unwrap();
    assert_eq!(told(&log), ["open", "close: timed out"]);
}

/// EDGE_CASES 243: deadlines that are far away cost no waits, and do not keep the loop going.
#[test]
fn deadlines_that_are_far_away_cost_nothing_and_keep_nothing_alive() {
    let log = Log::new();
    let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log));
    let rate = MinRate::new(1).with_window(HOUR);
    let all = Deadlines::default().with_read(HOUR).with_first_byte(HOUR).with_message(HOUR);
    set(&mut map, token, all.with_read_rate(rate).with_write_rate(rate).with_lifetime(HOUR));
    assert_eq!(map.numbers().timers, 1, "one for all of them");
    assert!(waits_in(&mut map, 100 * MILLISECOND) <= 5);
    drop(far);
    let begun = Instant::now();
    run(&mut map).unwrap();
    assert!(begun.elapsed() < DEADLINE);
    assert_eq!(map.numbers().timers, 0);
    assert_eq!(told(&log).last().unwrap(), "close: end of stream");
}

/// EDGE_CASES 248: with all deadlines set, a message costs what it costs without: no timer is set, nothing is
/// allocated, and the poller is told nothing.
#[cfg(debug_assertions)]
#[test]
fn a_message_costs_no_more_when_deadlines_are_set() {
    use crate::support::heap;
    use dispatch_loop::faults::{Call, count};

    struct Echo;
    impl Dispatcher for Echo {
        fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            let rate = MinRate::new(1).with_window(HOUR);
            let all = Deadlines::default().with_read(HOUR).with_first_byte(HOUR).with_message(HOUR);
            ch.set_deadlines(&all.with_read_rate(rate).with_write_rate(rate).with_lifetime(HOUR));
            Ok(())
        }
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.begin_message();
            ch.read_with(|ch, data| ch.push(data))?;
            ch.end_message();
            Ok(())
        }
    }
    const CALLS: [Call; 5] = [Call::Recv, Call::Send, Call::Control, Call::Wait, Call::Unsent];
    let (near, mut far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    map.add(near, Echo).unwrap();
    turn_idle(&mut map);
    let mut round = |map: &mut ChannelMap| {
        far.write_all(b"hello").unwrap();
        map.turn(Some(DEADLINE)).unwrap();
        far.read_exact(&mut [0; 5]).unwrap();
    };
    (0..10).for_each(|_| round(&mut map));
    let (before, allocations) = (CALLS.map(count), heap::allocations());
    (0..100).for_each(|_| round(&mut map));
    assert_eq!(heap::allocations() - allocations, 0, "allocations");
    let calls: Vec<u64> = CALLS.map(count).iter().zip(before).map(|(now, before)| now - before).collect();
    assert_eq!(calls, [100, 100, 0, 100, 0]);
    assert_eq!(map.numbers().timers, 1);
}
