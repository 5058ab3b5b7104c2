//! Timers that are given their dispatcher, and questions about timers: EDGE_CASES 532 and 533.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, run};

use crate::support::peers::{loopbacks, pair};
use crate::support::recorder::{Log, Recorder};

const SOON: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

struct Counts {
    count: u32,
    log: Log,
}

impl Dispatcher for Counts {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> std::io::Result<()> {
        ch.call_every_with(SOON, |me: &mut Counts, ch| {
            me.count += 1;
            if me.count == 3 {
                // A dispatcher of another type takes over, and the timer finds none of its own.
                let log = me.log.clone();
                ch.replace_dispatcher(Recorder::new("heir", &log))?;
                ch.call_later(4 * SOON, |ch| {
                    ch.close();
                    Ok(())
                });
            }
            me.log.add(format!("count {}", me.count));
            Ok(())
        });
        Ok(())
    }
}

/// EDGE_CASES 532.
#[test]
fn a_timer_is_given_its_dispatcher_as_long_as_that_is_there() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _far) = pair(loopbacks()[0]);
    map.add(near, Counts { count: 0, log: log.clone() }).unwrap();
    run(&mut map).unwrap();
    let counts: Vec<String> = log.events().into_iter().filter(|event| event.starts_with("count")).collect();
    assert_eq!(counts, ["count 1", "count 2", "count 3"]);
    assert_eq!(log.of("heir").last().unwrap(), "close: closed");
}

struct Greets(Log);

impl Chat for Greets {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> std::io::Result<()> {
        let ticks = ch.call_every(SOON, |me: &mut Greets, _| {
            me.0.add("chat tick");
            Ok(())
        });
        ch.call_later(4 * SOON, move |me: &mut Greets, ch| {
            me.0.add("chat later");
            assert!(ch.cancel(ticks));
            ch.close();
            Ok(())
        });
        Ok(())
    }
    fn found_terminator(&mut self, _: &mut ChatChannel<'_>, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

impl Protocol for Greets {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> std::io::Result<()> {
        transport.call_later(SOON, |me: &mut Greets, transport| {
            me.0.add("protocol later");
            transport.close();
            Ok(())
        });
        Ok(())
    }
    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_timers_of_a_chat_and_of_a_protocol_are_given_these() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let [(chat, _far), (protocol, _other)] = [pair(loopbacks()[0]), pair(loopbacks()[0])];
    map.add(chat, ChatDispatcher::new("\n", Greets(log.clone())).unwrap()).unwrap();
    map.add(protocol, ProtocolDispatcher::new(Greets(log.clone()))).unwrap();
    run(&mut map).unwrap();
    for told in ["chat tick", "chat later", "protocol later"] {
        assert!(log.has(told), "{told}: {:?}", log.events());
    }
}

/// EDGE_CASES 533.
#[test]
fn a_timer_can_be_asked_for_and_moved_until_it_has_run() {
    let mut map = ChannelMap::new().unwrap();
    let ran = Rc::new(Cell::new(0));
    let count = |ran: &Rc<Cell<u32>>| {
        let ran = ran.clone();
        move |_: &mut ChannelMap| ran.set(ran.get() + 1)
    };
    let [first, second] = [map.call_later(LONG, count(&ran)), map.call_later(2 * LONG, count(&ran))];
    let due = [first, second].map(|timer| map.due_in(timer).unwrap());
    assert!(due[0] <= LONG && due[0] > LONG - Duration::from_secs(30) && due[1] > LONG);
    let begun = Instant::now();
    assert!(map.set_due_in(second, SOON));
    assert!(map.set_due_in(first, 4 * SOON));
    run(&mut map).unwrap();
    assert!(ran.get() == 2 && begun.elapsed() >= 4 * SOON && begun.elapsed() < LONG);
    for timer in [first, second] {
        assert_eq!(map.due_in(timer), None);
        assert!(!map.set_due_in(timer, SOON));
    }
    // One that repeats is due again, also while it runs; what was cancelled is not, nor what is another map's.
    let mut other = ChannelMap::new().unwrap();
    let id = Rc::new(Cell::new(None));
    let own = id.clone();
    let repeated = other.call_every(SOON, move |map| {
        let timer = own.get().unwrap();
        assert!(map.due_in(timer).is_some_and(|left| left <= SOON));
        assert!(map.set_due_in(timer, LONG));
        map.stop();
    });
    id.set(Some(repeated));
    run(&mut other).unwrap();
    assert!(other.due_in(repeated).is_some_and(|left| left > SOON));
    assert_eq!(map.due_in(repeated), None);
    assert!(!map.set_due_in(repeated, SOON));
    assert!(other.cancel(repeated));
    assert_eq!(other.due_in(repeated), None);
}
