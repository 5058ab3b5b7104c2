//! How old a channel is, and when something last happened on it.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{Channel, ChannelMap, Dispatcher, Reason, Token};

use crate::support::echo::Echo;
use crate::support::peers::unix_pair;
use crate::support::recorder::Log;
use crate::support::turning::{turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

const UNIT: Duration = Duration::from_millis(10);

fn age(map: &mut ChannelMap, token: Token) -> Duration {
    map.channel(token).unwrap().age()
}

fn last_activity(map: &mut ChannelMap, token: Token) -> Option<Duration> {
    map.channel(token).unwrap().last_activity()
}

/// EDGE_CASES 305.
#[test]
fn a_channel_grows_old_from_when_it_was_added_and_one_in_the_same_slot_begins_anew() {
    struct Last(Rc<Cell<Duration>>);
    impl Dispatcher for Last {
        fn handle_close(&mut self, ch: &mut Channel<'_>, _: &Reason) {
            self.0.set(ch.age());
        }
    }
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = unix_pair();
    let last = Rc::new(Cell::new(Duration::ZERO));
    let begun = Instant::now();
    let first = map.add(near, Last(last.clone())).unwrap().token();
    turn_until(&mut map, &Log::new(), |map| age(map, first) >= 5 * UNIT);
    assert!(age(&mut map, first) <= begun.elapsed() + UNIT);
    assert!(begun.elapsed() + UNIT >= 5 * UNIT);

    let (near, _far) = unix_pair();
    let later = Instant::now();
    let second = map.add(near, Echo).unwrap().token();
    assert!(age(&mut map, second) <= later.elapsed() + UNIT);
    assert!(age(&mut map, first) >= 4 * UNIT, "it is the elder");

    drop(far);
    turn_until(&mut map, &Log::new(), |map| !map.contains(first));
    assert!(last.get() >= 5 * UNIT, "{:?} when it ended", last.get());
    let (near, _far) = unix_pair();
    let latest = Instant::now();
    let third = map.add(near, Echo).unwrap().token();
    assert_eq!(third.to_string(), "0.1", "the slot of the first");
    assert!(age(&mut map, third) <= latest.elapsed() + UNIT);
}

/// EDGE_CASES 306: whether or not turns are timed for a meter.
#[test]
fn the_last_activity_is_known_while_there_is_a_timer() {
    known_while_there_is_a_timer(ChannelMap::new().unwrap());
    let mut map = ChannelMap::new().unwrap();
    let _meter = map.meter();
    known_while_there_is_a_timer(map);
}

fn known_while_there_is_a_timer(mut map: ChannelMap) {
    let (near, mut far) = unix_pair();
    let token = map.add(near, Echo).unwrap().token();
    turn_idle(&mut map);
    assert!(last_activity(&mut map, token).is_some(), "nothing has happened since it began");
    let mut echo = |map: &mut ChannelMap| {
        far.write_all(b"x").unwrap();
        map.turn(Some(DEADLINE)).unwrap();
        far.read_exact(&mut [0]).unwrap();
    };
    echo(&mut map);
    assert_eq!(last_activity(&mut map, token), None, "there is no timer");

    let timer = map.call_every(Duration::from_millis(1), |_| ());
    assert_eq!(last_activity(&mut map, token), None, "it was before the timer");
    turn_until(&mut map, &Log::new(), |map| age(map, token) >= 5 * UNIT);
    let before = Instant::now();
    echo(&mut map);
    let since = last_activity(&mut map, token).unwrap();
    assert!(since <= before.elapsed(), "{since:?}");
    turn_until(&mut map, &Log::new(), |map| last_activity(map, token).unwrap() >= 3 * UNIT);
    assert!(last_activity(&mut map, token).unwrap() <= before.elapsed());
    let again = Instant::now();
    echo(&mut map);
    assert!(last_activity(&mut map, token).unwrap() <= again.elapsed());

    map.cancel(timer);
    assert_eq!(last_activity(&mut map, token), None);
    echo(&mut map);
    map.call_every(Duration::from_millis(1), |_| ());
    turn_idle(&mut map);
    assert_eq!(last_activity(&mut map, token), None, "what is known is of the message before");
    let latest = Instant::now();
    echo(&mut map);
    assert!(last_activity(&mut map, token).unwrap() <= latest.elapsed());
}

/// EDGE_CASES 306: a timer that sets the next one leaves no turn without its time.
#[test]
fn the_last_activity_stays_known_while_each_timer_sets_the_next() {
    fn again(map: &mut ChannelMap) {
        map.call_later(Duration::from_millis(1), again);
    }
    let mut map = ChannelMap::new().unwrap();
    again(&mut map);
    let (near, mut far) = unix_pair();
    let token = map.add(near, Echo).unwrap().token();
    turn_idle(&mut map);
    far.write_all(b"x").unwrap();
    turn_until(&mut map, &Log::new(), |map| map.channel(token).unwrap().bytes_out() == 1);
    turn_until(&mut map, &Log::new(), |map| {
        let since = last_activity(map, token);
        since.expect("it is known all the time") >= 2 * UNIT
    });
}

#[test]
fn a_listener_has_no_activity() {
    let mut map = ChannelMap::new().unwrap();
    let token = map.listen("127.0.0.1:0", Echo).unwrap().token();
    map.call_later(DEADLINE, |_| ());
    turn_idle(&mut map);
    assert_eq!(last_activity(&mut map, token), None);
    assert!(age(&mut map, token) > Duration::ZERO);
}
