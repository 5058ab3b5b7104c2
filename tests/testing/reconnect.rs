//! A client that connects again: when, how often, and when no more.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::reconnect::{self, Attempt, Backoff, Client};
use dispatch_loop::{DrainOptions, DrainState, run, testing};

use crate::support::recorder::{Log, Recorder};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Nobody is there, and then somebody is.
#[test]
fn a_server_that_comes_late_is_found() {
    let log = Log::new();
    let events = log.clone();
    let mut map = testing::map().unwrap();
    let server = testing::server(&mut map);
    server.refuse(3);
    let client = reconnect::connect(&mut map, "192.0.2.7:80", Backoff::default(), move |_, ended| {
        ended.iter().for_each(|reason| events.add(format!("asked: {reason}")));
        Some(Recorder::new("a", &events))
    })
    .unwrap();
    testing::advance(&mut map, Duration::ZERO).unwrap();
    assert_eq!((server.tries().len(), log.count("asked: "), log.has("a connect")), (1, 1, false));
    testing::advance(&mut map, HOUR).unwrap();
    assert!(log.has("a open"));
    let handle = client.token().unwrap().typed::<Attempt<Recorder>>();
    assert_eq!(map.get(handle).unwrap().inner().name, "a");
    assert_eq!((server.tries().len(), log.count("asked: ")), (4, 3), "while it lasts");
    client.stop(&mut map);
    server.accepted()[0].fin();
    run(&mut map).unwrap();
    assert_eq!(log.of("a").last().unwrap(), "close: closed");
}

/// `stop`, in every state: while connecting, open, waiting for the next attempt, in the question
/// itself; twice.
#[test]
fn stop_ends_the_client_in_every_state() {
    for when in ["connecting", "open", "waiting", "asking"] {
        let log = Log::new();
        let mut map = testing::map().unwrap();
        let begun = map.now();
        let server = testing::server(&mut map);
        server.on_accept(|peer| {
            peer.wait(SECOND).fin();
        });
        match when {
            "connecting" => server.ignore(1),
            "open" => &server,
            _ => server.refuse(1),
        };
        let slot: Rc<RefCell<Option<Client>>> = Rc::default();
        let (own, asking, events) = (slot.clone(), when == "asking", log.clone());
        let patient = Backoff::default().with_first(HOUR).with_longest(HOUR).with_jitter(0.0);
        let client = reconnect::connect(&mut map, "192.0.2.7:80", patient, move |map, ended| {
            if let (Some(client), true) = (&*own.borrow(), asking && ended.is_some()) {
                client.stop(map);
            }
            Some(Recorder::new("a", &events))
        });
        let client = client.unwrap();
        *slot.borrow_mut() = Some(client.clone());
        if when != "asking" {
            testing::advance(&mut map, Duration::ZERO).unwrap();
            assert_eq!(client.token().is_none(), when == "waiting", "{when}");
            assert_eq!(log.has("a open"), when == "open", "{when}");
            client.stop(&mut map);
            client.stop(&mut map);
        }
        run(&mut map).unwrap();
        assert!(map.now() - begun <= SECOND, "{when}: a timer was left");
        assert_eq!(log.count("a close"), 1, "{when}: {:?}", log.events());
        assert_eq!((client.token(), server.tries().len()), (None, 1));
        slot.borrow_mut().take();
    }
}

/// A connection that was open for long enough makes the waits short again; one that was not, does not.
#[test]
fn a_steady_connection_lets_the_waits_begin_anew() {
    for (open, waits) in [(10, 1.0), (9, 4.0)] {
        let mut map = testing::map().unwrap();
        let server = testing::server(&mut map);
        server.refuse(2).accept(1).ignore(1).on_accept(move |peer| {
            peer.wait(open * SECOND).fin();
        });
        let backoff = Backoff::default().with_first(SECOND).with_jitter(0.0);
        let log = Log::new();
        let client =
            reconnect::connect(&mut map, "192.0.2.7:80", backoff, move |_, _| Some(Recorder::new("a", &log)));
        testing::advance(&mut map, 60 * SECOND).unwrap();
        let tries = server.tries();
        let waited = (tries[3].at - tries[2].at).as_secs_f64() - f64::from(open);
        assert_eq!(waited, waits, "after {open} s");
        client.unwrap().stop(&mut map);
        run(&mut map).unwrap();
    }
}

/// 287: a client that is to connect again does not, once its map closes what is idle.
#[test]
fn a_client_does_not_connect_again_while_the_map_drains() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    let server = testing::server(&mut map);
    let (asked, events) = (Rc::new(Cell::new(0)), log.clone());
    let count = asked.clone();
    let _client = reconnect::connect(&mut map, "192.0.2.7:80", Backoff::default(), move |_, _| {
        count.set(count.get() + 1);
        Some(Recorder::new("a", &events))
    })
    .unwrap();
    let (busy, peer) = testing::add(&mut map, Recorder::new("busy", &log)).unwrap();
    map.channel(busy).unwrap().set_busy(true);
    testing::advance(&mut map, SECOND).unwrap();
    assert!(log.has("a open"));
    map.drain(&DrainOptions::default().with_deadline(HOUR));
    testing::advance(&mut map, 60 * SECOND).unwrap();
    assert!(log.closed("a") && !log.closed("busy"));
    assert!(server.accepted()[0].has_fin());
    map.channel(busy).unwrap().set_busy(false);
    peer.wait(SECOND).fin();
    run(&mut map).unwrap();
    assert_eq!((asked.get(), server.tries().len(), map.drain_state()), (1, 1, DrainState::Drained));
}
