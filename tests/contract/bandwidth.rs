//! `set_read_bandwidth` and `set_write_bandwidth`: EDGE_CASES 250 to 263. How long something took at least is
//! safe to say on a busy machine; how long at most is not.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{
    Bandwidth, Channel, ChannelMap, Datagram, Deadlines, Dispatcher, MinRate, Reason, Source, Token, run,
};

use crate::support::ends::kinds;
use crate::support::opened::{address_of, opened, opened_on, view};
use crate::support::peers::{
    loopbacks, narrow_pair, pair, pattern, reads_all, reads_to_end, reset, unix_pair,
};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until};
use crate::support::waiting::{wait_for_hang_up, wait_for_input};

const MILLISECOND: Duration = Duration::from_millis(1);
const NONE: Option<&Bandwidth> = None;

/// How long so many bytes take at least.
fn least(bytes: usize, rate: u64, burst: u64) -> Duration {
    Duration::from_secs_f64(bytes.saturating_sub(burst as usize) as f64 / rate as f64)
}

/// Pushes all of its bytes, and closes.
struct Sender(Vec<u8>, Bandwidth);

impl Dispatcher for Sender {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_write_bandwidth(Some(&self.1));
        // In pieces of all sizes, at once and gathered.
        let (mut rest, mut len) = (&self.0[..], 1);
        while !rest.is_empty() {
            let piece = &rest[..len.min(rest.len())];
            ch.push(piece)?;
            rest = &rest[piece.len()..];
            len = (len * 7) % 9001;
        }
        ch.close();
        Ok(())
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        assert_eq!(reason.to_string(), "closed");
    }
}

/// EDGE_CASES 250: over sockets of each family and sources of one's own.
#[test]
fn output_is_sent_no_faster_than_its_bandwidth_whole_and_in_order() {
    const ALL: usize = 40_000;
    const RATE: u64 = 60_000;
    const BURST: u64 = 10_000;
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let bandwidth = Bandwidth::new(RATE).with_burst(BURST);
        let begun = Instant::now();
        let (_, far) = kind.open(&mut map, Sender(pattern(ALL), bandwidth), |far| far.read_to_end().unwrap());
        run_out(&mut map, &log);
        assert!(begun.elapsed() >= least(ALL, RATE, BURST), "too fast: {kind:?}");
        assert!(far.join().unwrap() == pattern(ALL), "{kind:?}");
        // For each tenth of a second a timer, what it leads to, and what comes before and after.
        let turns = map.numbers().turns;
        assert!(turns < 100, "{turns} turns: {kind:?}");
    }
}

/// EDGE_CASES 251.
#[test]
fn input_is_read_no_faster_than_its_bandwidth_whole_and_in_order() {
    const ALL: usize = 40_000;
    const RATE: u64 = 60_000;
    const BURST: u64 = 10_000;
    for kind in kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let recorder = Recorder::new("a", &log).quiet().on("open", |ch| {
            ch.set_read_bandwidth(Some(&Bandwidth::new(RATE).with_burst(BURST)));
            Ok(())
        });
        let begun = Instant::now();
        let (_, far) = kind.open(&mut map, recorder, |far| {
            far.write(&pattern(ALL)).unwrap();
            far.finish().unwrap();
            far.read_to_end().unwrap();
        });
        run_out(&mut map, &log);
        far.join().unwrap();
        assert!(begun.elapsed() >= least(ALL, RATE, BURST), "too fast: {kind:?}");
        assert!(log.input("a") == pattern(ALL), "{kind:?}");
        assert_eq!(log.of("a"), ["open", "eof", "close: end of stream"]);
        let turns = map.numbers().turns;
        assert!(turns < 150, "{turns} turns: {kind:?}");
    }
}

/// EDGE_CASES 252: within any time no more than the rate allows, and, at length, not much less.
#[test]
fn a_rate_is_kept_to_over_time() {
    const RATE: u64 = 20 * 1024;
    for on in loopbacks() {
        for reading in [true, false] {
            let log = Log::new();
            let (mut map, token, mut far) = opened(on, Recorder::new("a", &log).quiet());
            let bandwidth = Bandwidth::new(RATE).with_burst(4096);
            let begun = Instant::now();
            let mut ch = view(&mut map, token);
            let far = match reading {
                true => {
                    ch.set_read_bandwidth(Some(&bandwidth));
                    std::thread::spawn(move || drop(far.write_all(&pattern(1 << 20))))
                }
                false => {
                    ch.set_write_bandwidth(Some(&bandwidth));
                    ch.push_vec(pattern(1 << 20)).unwrap();
                    let reader = reads_all(far);
                    std::thread::spawn(move || drop(reader.join()))
                }
            };
            let mut passed = 0;
            // A pause of this process lets no more pass afterwards than the burst, so it does not count.
            let (mut at_work, mut last) = (Duration::ZERO, begun);
            while at_work < Duration::from_secs(1) {
                map.turn(Some(5 * MILLISECOND)).unwrap();
                at_work += last.elapsed().min(50 * MILLISECOND);
                last = Instant::now();
                let ch = view(&mut map, token);
                passed = if reading { ch.bytes_in() } else { ch.bytes_out() };
                let most = begun.elapsed().as_secs_f64() * RATE as f64 + 4096.0;
                assert!(passed as f64 <= most, "{passed} of {most}");
            }
            assert!(passed >= RATE / 2, "only {passed}");
            drop(map);
            far.join().unwrap();
        }
    }
}

/// EDGE_CASES 253: what many have together is shared, and nobody starves.
#[test]
fn a_group_shares_its_bandwidth_fairly() {
    const RATE: u64 = 200_000;
    const EACH: usize = 1 << 20;
    for reading in [true, false] {
        let log = Log::new();
        let group = Bandwidth::new(RATE).with_burst(1000);
        let mut map = ChannelMap::new().unwrap();
        let mut fars = Vec::new();
        let mut tokens: Vec<Token> = Vec::new();
        let begun = Instant::now();
        for _ in 0..5 {
            let (near, mut far) = pair(loopbacks()[0]);
            let token = map.add(near, Recorder::new("a", &log).quiet()).unwrap().token();
            tokens.push(token);
            let mut ch = view(&mut map, token);
            if reading {
                ch.set_read_bandwidth(Some(&group));
                fars.push(std::thread::spawn(move || drop(far.write_all(&pattern(EACH)))));
            } else {
                ch.set_write_bandwidth(Some(&group));
                ch.push_vec(pattern(EACH)).unwrap();
                let reader = reads_all(far);
                fars.push(std::thread::spawn(move || drop(reader.join())));
            }
        }
        let mut passed = vec![0; tokens.len()];
        turn_until(&mut map, &log, |map| {
            for (at, token) in tokens.iter().enumerate() {
                let ch = view(map, *token);
                passed[at] = if reading { ch.bytes_in() } else { ch.bytes_out() };
            }
            let most = begun.elapsed().as_secs_f64() * RATE as f64 + 1000.0;
            assert!(passed.iter().sum::<u64>() as f64 <= most + 1.0, "{passed:?} are more than {most}");
            passed.iter().sum::<u64>() >= 200_000
        });
        assert!(passed.iter().all(|one| *one >= 20_000), "someone starves: {passed:?}");
        drop(map);
        fars.into_iter().for_each(|far| far.join().unwrap());
    }
}

/// EDGE_CASES 253: a member that has much to send does not keep one that comes later waiting.
#[test]
fn a_newcomer_to_a_group_has_its_turn() {
    let log = Log::new();
    let group = Bandwidth::new(100_000).with_burst(1000);
    let (mut map, busy, far) = opened(loopbacks()[0], Recorder::new("busy", &log));
    let _far = reads_all(far);
    let mut ch = view(&mut map, busy);
    ch.set_write_bandwidth(Some(&group));
    ch.push_vec(pattern(8 << 20)).unwrap();
    turn_until(&mut map, &log, |map| view(map, busy).bytes_out() > 20_000);
    let (near, far) = pair(loopbacks()[0]);
    let late = map.add(near, Sender(pattern(5_000), group)).unwrap();
    let far = reads_to_end(far);
    let before = view(&mut map, busy).bytes_out();
    turn_until(&mut map, &log, |map| !map.contains(late));
    let after = view(&mut map, busy).bytes_out();
    assert_eq!(far.join().unwrap(), pattern(5_000));
    // In turns of a tenth of a second it has one or two of them.
    assert!(after - before < 60_000, "it had to wait for {} bytes", after - before);
}

/// EDGE_CASES 253: small pieces do not slip past a large one that waits.
#[test]
fn a_member_that_sends_little_and_often_starves_nobody() {
    let log = Log::new();
    let group = Bandwidth::new(10_000).with_burst(1000);
    let (mut map, often, far) = opened(loopbacks()[0], Recorder::new("often", &log));
    let _far = reads_all(far);
    view(&mut map, often).set_write_bandwidth(Some(&group));
    let (near, far) = pair(loopbacks()[0]);
    let waiting = map.add(near, Sender(pattern(4_000), group)).unwrap();
    let far = reads_to_end(far);
    turn_until(&mut map, &log, |map| {
        let mut ch = view(map, often);
        if ch.queued() == 0 {
            ch.push(&[1; 400]).unwrap();
        }
        !map.contains(waiting)
    });
    assert_eq!(far.join().unwrap(), pattern(4_000));
}

/// EDGE_CASES 254: its own and that of its group.
#[test]
fn of_several_limits_each_holds() {
    const ALL: usize = 20_000;
    let (slow, fast) = (Bandwidth::new(40_000).with_burst(2000), Bandwidth::new(10_000_000));
    for pair_of in [[&slow, &fast], [&fast, &slow]] {
        let log = Log::new();
        let begun = Instant::now();
        let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log));
        let far = reads_to_end(far);
        let mut ch = view(&mut map, token);
        ch.set_write_bandwidth(pair_of);
        ch.push_vec(pattern(ALL)).unwrap();
        ch.close();
        run_out(&mut map, &log);
        assert_eq!(far.join().unwrap(), pattern(ALL));
        assert!(begun.elapsed() >= least(ALL, 40_000, 4000), "too fast");
    }
}

/// EDGE_CASES 255: time in which it is we who wait is no time without progress.
#[test]
fn a_closing_channel_that_waits_for_its_bandwidth_is_not_cut_off() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, far) = opened(on, Recorder::new("a", &log));
        let far = reads_to_end(far);
        let mut ch = view(&mut map, token);
        // A tenth of a second for each share.
        ch.set_write_bandwidth(Some(&Bandwidth::new(10_000).with_burst(1000)));
        ch.set_close_timeout(5 * MILLISECOND);
        ch.set_timeout(Some(5 * MILLISECOND));
        ch.push_vec(pattern(5_000)).unwrap();
        ch.close();
        run_out(&mut map, &log);
        assert_eq!(log.of("a"), ["open", "close: closed"]);
        assert_eq!(far.join().unwrap(), pattern(5_000));
    }
}

/// EDGE_CASES 255: the same of an open channel, for its timeout and its deadlines.
#[test]
fn a_channel_that_waits_for_its_bandwidth_is_neither_idle_nor_slow() {
    let log = Log::new();
    let (mut map, token, mut far) = opened(loopbacks()[0], Recorder::new("a", &log).quiet());
    far.write_all(&pattern(3_000)).unwrap();
    let reader = reads_all(far.try_clone().unwrap());
    let slow = Bandwidth::new(5_000).with_burst(500);
    let rate = MinRate::new(1_000_000).with_window(20 * MILLISECOND);
    let mut ch = view(&mut map, token);
    ch.begin_message();
    ch.set_read_bandwidth(Some(&slow));
    ch.set_write_bandwidth(Some(&slow));
    ch.set_timeout(Some(20 * MILLISECOND));
    ch.set_deadlines(
        &Deadlines::default().with_read_rate(rate).with_write_rate(rate).with_read(40 * MILLISECOND),
    );
    ch.push_vec(pattern(3_000)).unwrap();
    turn_until(&mut map, &log, |map| {
        assert!(map.contains(token), "{:?}", log.events());
        let ch = view(map, token);
        ch.bytes_in() >= 2_500 && ch.bytes_out() >= 2_500
    });
    assert_eq!(log.of("a"), ["open"]);
    drop(map);
    drop(far);
    drop(reader.join().unwrap());
}

/// EDGE_CASES 256: FIN follows what is queued; the end that the peer sent follows what it sent.
#[test]
fn the_ends_of_both_ways_keep_their_place() {
    let log = Log::new();
    let recorder = Recorder::new("a", &log).quiet().on("eof", |ch| {
        assert_eq!(ch.bytes_in(), 3_000);
        Ok(())
    });
    let (mut map, token, mut far) = opened(loopbacks()[0], recorder);
    far.write_all(&pattern(3_000)).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    let mut ch = view(&mut map, token);
    ch.set_read_bandwidth(Some(&Bandwidth::new(20_000).with_burst(500)));
    ch.set_write_bandwidth(Some(&Bandwidth::new(20_000).with_burst(500)));
    ch.push_vec(pattern(6_000)).unwrap();
    ch.shutdown_write();
    let far = reads_to_end(far);
    run_out(&mut map, &log);
    assert_eq!(log.input("a"), pattern(3_000));
    assert_eq!(far.join().unwrap(), pattern(6_000));
    assert_eq!(log.of("a"), ["open", "eof", "close: end of stream"]);
}

/// EDGE_CASES 257: as of a channel that is paused (rule 6).
#[test]
fn a_peer_that_hangs_up_while_reading_waits_causes_no_spinning_and_loses_nothing() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log).quiet());
    view(&mut map, token).set_read_bandwidth(Some(&Bandwidth::new(10_000).with_burst(1000)));
    far.write_all(&pattern(5_000)).unwrap();
    drop(far);
    let before = map.numbers().turns;
    run_out(&mut map, &log);
    let turns = map.numbers().turns - before;
    assert!(turns < 50, "{turns} turns");
    assert_eq!(log.input("a"), pattern(5_000));
    assert_eq!(log.of("a"), ["open", "eof", "close: end of stream"]);
}

/// EDGE_CASES 257.
#[test]
fn a_peer_that_resets_while_reading_waits_ends_the_channel_at_once() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log).quiet());
        let mut ch = view(&mut map, token);
        // An hour for the next share.
        ch.set_read_bandwidth(Some(&Bandwidth::new(1).with_burst(1000)));
        far.write_all(&pattern(5_000)).unwrap();
        wait_for_input(view(&mut map, token).socket().unwrap());
        turn_until(&mut map, &log, |map| view(map, token).bytes_in() >= 1000);
        assert_calm(&mut map);
        reset(far);
        turn_until(&mut map, &log, |_| log.closed("a"));
        assert!(log.of("a")[1].starts_with("close: Connection reset"), "{:?}", log.events());
    }
}

/// EDGE_CASES 257: nothing can be sent any more, and what has come is read to its end, in its time.
#[test]
fn a_broken_connection_is_read_to_its_end_though_reading_waits() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log).quiet());
    let mut ch = view(&mut map, token);
    ch.set_read_bandwidth(Some(&Bandwidth::new(20_000).with_burst(1000)));
    ch.set_close_timeout(5 * MILLISECOND);
    far.write_all(&pattern(5_000)).unwrap();
    drop(far);
    turn_until(&mut map, &log, |map| view(map, token).bytes_in() >= 1000);
    view(&mut map, token).push(b"too late").unwrap();
    run_out(&mut map, &log);
    assert_eq!(log.input("a"), pattern(5_000));
    assert!(log.of("a")[1].starts_with("close: Broken pipe"), "{:?}", log.events());
}

/// EDGE_CASES 257: what is queued for a peer that is gone does not wait for its turn to find that out.
#[test]
fn a_closing_channel_whose_peer_is_gone_ends_though_it_waits() {
    let log = Log::new();
    let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log));
    let mut ch = view(&mut map, token);
    ch.set_write_bandwidth(Some(&Bandwidth::new(1).with_burst(1000)));
    ch.push_vec(pattern(5_000)).unwrap();
    ch.close();
    turn_until(&mut map, &log, |map| map.channel(token).is_ok_and(|ch| ch.bytes_out() >= 1000));
    assert_calm(&mut map);
    reset(far);
    wait_for_hang_up(view(&mut map, token).socket().unwrap());
    turn_until(&mut map, &log, |_| log.closed("a"));
    assert!(log.of("a")[1].starts_with("close: Connection reset"), "{:?}", log.events());
}

/// EDGE_CASES 258: while nothing may pass, nothing happens; what is changed then holds at once.
#[test]
fn a_channel_that_waits_goes_on_at_once_when_its_bandwidth_is_taken_back() {
    for other in [None, Some(Bandwidth::new(1 << 30))] {
        let log = Log::new();
        let (mut map, token, mut far) = opened(loopbacks()[0], Recorder::new("a", &log).quiet());
        let mut ch = view(&mut map, token);
        let never = Bandwidth::new(1).with_burst(1000);
        ch.set_read_bandwidth(Some(&never));
        ch.set_write_bandwidth(Some(&never));
        ch.push_vec(pattern(9_000)).unwrap();
        far.write_all(&pattern(9_000)).unwrap();
        let reader = reads_to_end(far.try_clone().unwrap());
        wait_for_input(view(&mut map, token).socket().unwrap());
        turn_idle(&mut map);
        assert_calm(&mut map);
        let ch = view(&mut map, token);
        assert!(ch.bytes_in() + ch.bytes_out() <= 1000);
        assert_eq!(ch.queued() as u64 + ch.bytes_out(), 9_000);
        let mut ch = view(&mut map, token);
        ch.set_read_bandwidth(&other);
        ch.set_write_bandwidth(&other);
        far.shutdown(Shutdown::Write).unwrap();
        run_out(&mut map, &log);
        assert_eq!(log.input("a"), pattern(9_000));
        assert_eq!(reader.join().unwrap(), pattern(9_000));
    }
}

/// EDGE_CASES 258: also where no descriptor says that there is room.
#[test]
fn a_source_without_a_descriptor_waits_and_goes_on_as_well() {
    struct Memory(Rc<RefCell<Vec<u8>>>);
    impl Source for Memory {
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        fn recv(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn shutdown_write(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Log::new();
    let taken: Rc<RefCell<Vec<u8>>> = Rc::default();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add_source(Memory(taken.clone()), Recorder::new("a", &log)).unwrap().token();
    let mut ch = view(&mut map, token);
    ch.set_write_bandwidth(Some(&Bandwidth::new(20_000).with_burst(1000)));
    ch.push_vec(pattern(4_000)).unwrap();
    turn_until(&mut map, &log, |_| taken.borrow().len() == 4_000);
    let mut ch = view(&mut map, token);
    ch.set_write_bandwidth(Some(&Bandwidth::new(1).with_burst(1000)));
    ch.push_vec(pattern(4_000)).unwrap();
    turn_until(&mut map, &log, |_| taken.borrow().len() == 5_000);
    assert_calm(&mut map);
    view(&mut map, token).set_write_bandwidth(NONE);
    turn_until(&mut map, &log, |_| taken.borrow().len() == 8_000);
    assert_eq!(*taken.borrow(), [pattern(4_000), pattern(4_000)].concat());
}

/// EDGE_CASES 259: what a channel has not used when it ends, the others of its group may.
#[test]
fn those_that_end_while_they_wait_hold_nobody_up() {
    let log = Log::new();
    let group = Bandwidth::new(10_000).with_burst(1000);
    let mut map = ChannelMap::new().unwrap();
    let mut ended = Vec::new();
    // Each of them is in line for a tenth of a second.
    for _ in 0..1000 {
        let (near, far) = unix_pair();
        let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
        let mut ch = view(&mut map, token);
        ch.set_write_bandwidth(Some(&group));
        ch.push_vec(pattern(9_000)).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        view(&mut map, token).abort();
        turn_until(&mut map, &log, |map| !map.contains(token));
        ended.push(far);
        if ended.len() > 50 {
            ended.clear();
        }
    }
    let (near, far) = pair(loopbacks()[0]);
    map.add(near, Sender(pattern(2_000), group)).unwrap();
    let far = reads_to_end(far);
    run_out(&mut map, &log);
    assert_eq!(far.join().unwrap(), pattern(2_000));
}

/// EDGE_CASES 260: `send` takes what there is bandwidth for, and `handle_write` waits for more.
#[test]
fn handle_write_runs_when_there_is_bandwidth() {
    const ALL: usize = 5_000;
    let log = Log::new();
    let left = Rc::new(Cell::new(ALL));
    let (more, rest) = (left.clone(), left.clone());
    let recorder = Recorder::new("a", &log).writable(move |_| more.get() > 0).on("write", move |ch| {
        let sent = ch.send(&pattern(ALL)[ALL - rest.get()..])?;
        rest.set(rest.get() - sent);
        if rest.get() == 0 {
            ch.close();
        }
        Ok(())
    });
    let (near, far) = pair(loopbacks()[0]);
    let begun = Instant::now();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, recorder).unwrap().token();
    view(&mut map, token).set_write_bandwidth(Some(&Bandwidth::new(20_000).with_burst(2000)));
    let far = reads_to_end(far);
    run_out(&mut map, &log);
    assert_eq!(far.join().unwrap(), pattern(ALL));
    assert!(begun.elapsed() >= least(ALL, 20_000, 2000), "too fast");
    let turns = map.numbers().turns;
    assert!(turns < 50, "{turns} turns");
}

/// EDGE_CASES 261: datagrams pass whole; one that is larger than its share is paid for afterwards.
#[test]
fn datagrams_have_a_bandwidth_too() {
    struct Count(Rc<RefCell<Vec<u8>>>);
    impl Dispatcher for Count {
        fn handle_datagram(&mut self, _: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
            self.0.borrow_mut().push(datagram.data[0]);
            Ok(())
        }
    }
    const EACH: usize = 700;
    for reading in [true, false] {
        let log = Log::new();
        let on = loopbacks()[0];
        let mut map = ChannelMap::new().unwrap();
        let got: Rc<RefCell<Vec<u8>>> = Rc::default();
        let channel = map.bind(on, Count(got.clone())).unwrap();
        let far = UdpSocket::bind(on).unwrap();
        let bandwidth = Bandwidth::new(10_000).with_burst(1000);
        let begun = Instant::now();
        let mut buffer = [0; EACH];
        if reading {
            let to = address_of(&mut map, channel);
            map.channel(channel).unwrap().set_read_bandwidth(Some(&bandwidth));
            for number in 0..6 {
                buffer[0] = number;
                far.send_to(&buffer, to).unwrap();
            }
            turn_until(&mut map, &log, |_| got.borrow().len() == 6);
            assert_eq!(*got.borrow(), [0, 1, 2, 3, 4, 5]);
        } else {
            let mut ch = map.channel(channel).unwrap();
            ch.set_write_bandwidth(Some(&bandwidth));
            let to = far.local_addr().unwrap().into();
            for number in 0..6 {
                buffer[0] = number;
                ch.push_to(&buffer, &to).unwrap();
            }
            turn_until(&mut map, &log, |map| view(map, channel.token()).bytes_out() == 6 * EACH as u64);
            for number in 0..6 {
                assert_eq!((far.recv(&mut buffer).unwrap(), buffer[0]), (EACH, number));
            }
        }
        // The last one may be paid for when it has passed.
        assert!(begun.elapsed() >= least(5 * EACH, 10_000, 1000 + EACH as u64), "too fast");
        let turns = map.numbers().turns;
        assert!(turns < 200, "{turns} turns");
    }
}

/// EDGE_CASES 262: what is queued behind the bandwidth is within the watermarks and limits, so that backpressure
/// does the rest.
#[test]
fn an_echo_with_auto_pause_reads_no_faster_than_it_may_send() {
    struct Echo;
    impl Dispatcher for Echo {
        fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.set_auto_pause(true);
            ch.set_watermarks(1_000, 4_000);
            ch.set_write_bandwidth(Some(&Bandwidth::new(100_000).with_burst(1000)));
            Ok(())
        }
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            let mut buffer = [0; 2_000];
            let read = ch.recv(&mut buffer)?;
            ch.push(&buffer[..read])?;
            assert!(ch.queued() <= 8_000, "{}", ch.queued());
            Ok(())
        }
    }
    const ALL: usize = 60_000;
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = narrow_pair(on);
        let mut map = ChannelMap::new().unwrap();
        map.add(near, Echo).unwrap();
        let reader = reads_to_end(far.try_clone().unwrap());
        let begun = Instant::now();
        let writer = std::thread::spawn(move || {
            far.write_all(&pattern(ALL)).unwrap();
            far.shutdown(Shutdown::Write).unwrap();
        });
        run_out(&mut map, &log);
        writer.join().unwrap();
        assert!(reader.join().unwrap() == pattern(ALL));
        assert!(begun.elapsed() >= least(ALL, 100_000, 1000), "too fast");
    }
}

/// EDGE_CASES 263: numbers that make no sense, and channels that carry nothing.
#[test]
fn the_smallest_and_the_largest_bandwidth_do_no_harm() {
    let log = Log::new();
    for bandwidth in [
        Bandwidth::new(u64::MAX),
        Bandwidth::new(u64::MAX).with_burst(1),
        Bandwidth::new(1 << 40).with_burst(0),
    ] {
        let (near, far) = pair(loopbacks()[0]);
        let mut map = ChannelMap::new().unwrap();
        map.add(near, Sender(pattern(3_000), bandwidth)).unwrap();
        let far = reads_to_end(far);
        run_out(&mut map, &log);
        assert_eq!(far.join().unwrap(), pattern(3_000));
    }
    let nothing = Bandwidth::new(0).with_burst(0);
    assert_eq!(format!("{nothing:?}"), "Bandwidth { bytes_per_second: 0, burst: 1 }");
    let mut map = ChannelMap::new().unwrap();
    let listener = map.listen(
        loopbacks()[0],
        Recorder::new("listener", &log).on_accept(|ch, _, _| {
            ch.close();
            Ok(())
        }),
    );
    let listener = listener.unwrap();
    let mut ch = map.channel(listener).unwrap();
    ch.set_read_bandwidth(Some(&nothing));
    ch.set_write_bandwidth(Some(&nothing));
    let _client = std::net::TcpStream::connect(address_of(&mut map, listener)).unwrap();
    run(&mut map).unwrap();

    let (mut map, token, _far) = opened(loopbacks()[0], Recorder::new("a", &log));
    view(&mut map, token).set_read_bandwidth(NONE);
    view(&mut map, token).set_write_bandwidth(NONE);
    turn_idle(&mut map);
}
