//! Connecting and listening by name: EDGE_CASES 48, RFC 8305 over loopback addresses that accept,
//! refuse, and never answer.

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use dispatch_loop::{Address, ChannelMap, ConnectOptions, Handle, ListenOptions, ToAddress};

use crate::support::opened::{address_of, view};
use crate::support::peers::{black_hole, loopbacks, refusing, unix_pair};
use crate::support::process::{alone, open_descriptors};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_idle, turn_until};
use crate::support::waiting::{DEADLINE, wait_until};

const V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// A map in which each name has these addresses.
fn map_with(found: &[SocketAddr]) -> ChannelMap {
    let found = found.to_vec();
    let mut map = ChannelMap::new().unwrap();
    map.set_resolver(move |_, _| Ok(found.clone()));
    map
}

fn accepting(on: SocketAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(on).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A connect to `"name:1"` whose outcome is in the log as `a`.
fn dial(map: &mut ChannelMap, log: &Log) -> Handle<Recorder> {
    map.connect("name:1", Recorder::new("a", log)).unwrap()
}

fn peer(map: &mut ChannelMap, handle: Handle<Recorder>) -> Option<SocketAddr> {
    map.channel(handle).unwrap().peer_addr().ok().and_then(|peer| peer.ip())
}

/// The system's own resolver, one channel, what was pushed before goes first.
#[test]
fn a_name_is_connected_to_and_what_was_pushed_goes_first() {
    let (listener, to) = accepting(V4);
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let client = map.connect(("localhost", to.port()), Recorder::new("a", &log)).unwrap();
    let mut ch = map.channel(client).unwrap();
    assert!(ch.is_connecting() && !ch.is_connected());
    assert_eq!((ch.local_addr().unwrap_err().kind(), ch.socket().is_none()), (ErrorKind::NotConnected, true));
    ch.push(b"first").unwrap();
    assert_eq!(map.len(), 1);
    turn_until(&mut map, &log, |_| log.has("a open"));
    assert_eq!(log.of("a"), ["connect", "open"]);
    assert_eq!((map.len(), map.tokens().count()), (1, 1), "the attempts are nobody's");
    assert_eq!(peer(&mut map, client), Some(to));
    let mut far = listener.accept().unwrap().0;
    map.channel(client).unwrap().close();
    run_out(&mut map, &log);
    let mut got = String::new();
    far.read_to_string(&mut got).unwrap();
    assert_eq!(got, "first");
}

/// EDGE_CASES 48: the first refuses, and the next is tried at once.
#[test]
fn an_address_that_refuses_is_followed_by_the_next_at_once() {
    for (first, second) in [(V4, V6), (V6, V4), (V4, V4)] {
        let (_bound, dead) = refusing(first);
        let (_listener, to) = accepting(second);
        let log = Log::new();
        let mut map = map_with(&[dead, to]);
        let client = dial(&mut map, &log);
        turn_until(&mut map, &log, |_| log.has("a open"));
        assert_eq!(log.of("a"), ["connect", "open"]);
        assert_eq!(peer(&mut map, client), Some(to));
    }
}

/// EDGE_CASES 48: the first never answers, so the second is tried beside it 250 ms later; the loser's
/// socket is closed.
#[test]
fn an_address_that_never_answers_is_raced_by_the_next_after_250_ms() {
    alone(None, || {
        for (first, second) in [(V4, V6), (V6, V4), (V4, V4)] {
            let before = open_descriptors();
            let (full, clients, silent) = black_hole(first);
            let (listener, to) = accepting(second);
            let log = Log::new();
            let mut map = map_with(&[silent, to]);
            let begun = Instant::now();
            let client = dial(&mut map, &log);
            turn_until(&mut map, &log, |_| log.has("a open"));
            assert!(begun.elapsed() >= Duration::from_millis(250), "it did not wait for its turn");
            assert_eq!(peer(&mut map, client), Some(to));
            turn_idle(&mut map);
            assert_eq!(map.wait_limit(), None, "no timer is left");
            map.channel(client).unwrap().abort();
            run_out(&mut map, &log);
            drop((map, full, clients, listener));
            wait_until("every descriptor is closed", || open_descriptors() <= before);
        }
    });
}

/// Families by turns, each address once: six that refuse are all named, in the order of the attempts.
#[test]
fn addresses_that_all_refuse_are_all_named_in_order() {
    let dead: Vec<_> = [V4, V4, V4, V6, V6, V4].into_iter().map(refusing).collect();
    let mut found: Vec<SocketAddr> = dead.iter().map(|(_, address)| *address).collect();
    found.push(found[0]);
    let log = Log::new();
    let mut map = map_with(&found);
    dial(&mut map, &log);
    run_out(&mut map, &log);
    let events = log.of("a");
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events[0].starts_with("error: cannot connect to name:1: "), "{events:?}");
    let order =
        [0, 3, 1, 4, 2, 5].map(|at: usize| events[0].find(&format!("{}: ", found[at])).expect("named"));
    assert!(order.is_sorted(), "{events:?}");
    assert_eq!(events[0].matches("refused").count(), 6, "{events:?}");
    assert!(events[1].starts_with("close: "), "{events:?}");
}

/// One deadline for it all; what never answered is named.
#[test]
fn the_deadline_covers_all_addresses_and_names_the_silent_one() {
    let (_full, _clients, silent) = black_hole(V4);
    let (_bound, dead) = refusing(V6);
    // On a busy machine it may pass before the second is tried.
    for millis in [50, 500, 5000] {
        let log = Log::new();
        let mut map = map_with(&[dead, silent]);
        let options = ConnectOptions::default().with_timeout(Duration::from_millis(millis));
        map.connect_with("name:1", &options, Recorder::new("a", &log)).unwrap();
        run_out(&mut map, &log);
        assert!(map.is_empty() && map.wait_limit().is_none());
        let error = &log.of("a")[0];
        if error.contains(&format!("{dead}: ")) && error.contains(&format!("{silent}: no answer")) {
            return;
        }
        assert!(millis < 5000, "{error}");
    }
}

/// A lookup that hangs keeps nobody waiting, counts as a channel, and its answer that comes too late
/// is nobody's.
#[test]
fn a_lookup_that_hangs_keeps_nobody_waiting() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (inside, asked) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    let counter = asked.clone();
    let mut map = ChannelMap::new().unwrap();
    map.set_resolver(move |_, _| {
        counter.fetch_add(1, SeqCst);
        let open = inside.0.lock().unwrap();
        drop(inside.1.wait_timeout_while(open, DEADLINE, |open| !*open));
        Ok(vec![([127, 0, 0, 1], 9).into()])
    });
    let log = Log::new();
    for end in ["timeout", "deadline", "close", "abort"] {
        let options = match end {
            "deadline" => ConnectOptions::default().with_timeout(Duration::from_millis(30)),
            _ => ConnectOptions::default(),
        };
        // A name for each: of one, two look-ups that hang are the most.
        let client = map.connect_with((end, 1), &options, Recorder::new(end, &log)).unwrap().token();
        wait_until("it is asked", || asked.load(SeqCst) > 0);
        asked.store(0, SeqCst);
        assert!(!map.is_idle());
        match end {
            "timeout" => view(&mut map, client).set_timeout(Some(Duration::from_millis(30))),
            "close" => view(&mut map, client).close(),
            "abort" => view(&mut map, client).abort(),
            _ => {}
        }
        turn_until(&mut map, &log, |map| !map.contains(client));
        assert_eq!(log.count(&format!("{end} close: ")), 1);
        assert!(!log.has(&format!("{end} connect")));
    }
    assert!(log.of("deadline")[0].contains("not found in time"), "{:?}", log.of("deadline"));
    // A map that is gone when the answer comes.
    let (near, _far) = unix_pair();
    map.add(near, Recorder::new("other", &log)).unwrap();
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    turn_idle(&mut map);
    assert_eq!(log.of("other"), ["open"]);
    drop(map);
}

/// More connects than threads: all are looked up, at most two at once of one name.
#[test]
fn at_most_two_look_ups_of_one_name_run_at_once() {
    let (listener, to) = accepting(V4);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (running.clone(), most.clone());
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    map.set_resolver(move |_, _| {
        peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        std::thread::yield_now();
        now.fetch_sub(1, SeqCst);
        Ok(vec![to])
    });
    for _ in 0..100 {
        dial(&mut map, &log);
    }
    turn_until(&mut map, &log, |_| {
        listener.set_nonblocking(true).unwrap();
        while listener.accept().is_ok() {}
        log.count("a open") == 100
    });
    assert!((1..=2).contains(&most.load(SeqCst)));
}

/// A stop comes while the name is looked up: nothing is lost, the next run goes on with it.
#[test]
fn a_stop_during_the_lookup_loses_nothing() {
    let (_listener, to) = accepting(V4);
    let (tell, told) = std::sync::mpsc::channel();
    let told = Mutex::new(told);
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    map.set_resolver(move |_, _| {
        let _ = told.lock().unwrap().recv();
        Ok(vec![to])
    });
    let on_open = log.clone();
    let client = Recorder::new("a", &log).on("open", move |ch| {
        on_open.add("stop");
        ch.map_mut().stop();
        Ok(())
    });
    map.connect("name:1", client).unwrap();
    map.stop();
    dispatch_loop::run(&mut map).unwrap();
    tell.send(()).unwrap();
    dispatch_loop::run(&mut map).unwrap();
    assert_eq!(log.of("a"), ["connect", "open"]);
}

/// What the resolver says, and its panic, reach the channel.
#[test]
fn a_lookup_that_fails_reaches_the_channel() {
    type Answer = fn() -> io::Result<Vec<SocketAddr>>;
    let fails: [(Answer, &str); 3] = [
        (|| Err(io::Error::new(ErrorKind::NotFound, "no such host")), "no such host"),
        (|| Ok(vec![]), "the name has no address"),
        (|| panic!("as the test wants it"), "as the test wants it"),
    ];
    for (answer, about) in fails {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.set_resolver(move |_, _| answer());
        dial(&mut map, &log);
        run_out(&mut map, &log);
        let events = log.of("a");
        assert_eq!(events.len(), 2, "{events:?}");
        assert!(events[0].starts_with("error: cannot look up name:1: "), "{events:?}");
        assert!(events[0].contains(about), "{events:?}");
    }
}

/// EDGE_CASES 48: refused at once, by `connect` itself, and nobody is asked.
#[test]
fn unusable_names_are_refused_at_once() {
    let mut map = ChannelMap::new().unwrap();
    map.set_resolver(|_, _| panic!("nobody is to be asked"));
    let long = format!("{}:80", "long.".repeat(60));
    let label = format!("{}:80", "x".repeat(64));
    for name in [
        "",
        ":",
        ":80",
        "host",
        "host:",
        "host:http",
        "host:65536",
        "ho st:80",
        "host\0:80",
        "a:b:80",
        "[host]:80",
        "..:80",
        "*:80",
        &long,
        &label,
    ] {
        let error = map.connect(name, Recorder::new("a", &Log::new())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}: {error}");
        assert!(name.to_name().is_none());
    }
    assert!(map.is_empty());
}

/// A literal address is not looked up.
#[test]
fn literals_skip_the_resolver() {
    for on in loopbacks() {
        let (_listener, to) = accepting(on);
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.set_resolver(|_, _| panic!("nobody is to be asked"));
        map.connect(to.to_string(), Recorder::new("a", &log)).unwrap();
        turn_until(&mut map, &log, |_| log.has("a open"));
    }
}

/// The map is dropped with attempts under way: one `handle_close`, every descriptor closed.
#[test]
fn a_map_dropped_while_dialing_closes_every_descriptor() {
    alone(None, || {
        let (_full, _clients, silent) = black_hole(V4);
        let log = Log::new();
        let before = open_descriptors();
        let mut map = map_with(&[silent, silent]);
        dial(&mut map, &log);
        map.turn(Some(Duration::from_millis(10))).unwrap();
        map.turn(Some(Duration::from_millis(10))).unwrap();
        drop(map);
        assert_eq!(log.count("a close: "), 1, "{:?}", log.events());
        wait_until("every descriptor is closed", || open_descriptors() <= before);
    });
}

/// `*` and a name: all their addresses, on one port, each family by itself.
#[test]
fn a_name_is_listened_on_at_all_its_addresses_on_one_port() {
    for address in ["*:0", "localhost:0", "name:0"] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        if address == "name:0" {
            map.set_resolver(|_, _| Ok(vec![V4, V6, V4]));
        }
        let name = |_: &Address| Recorder::new("listener", &log);
        let listeners = map.listen_all(address, &ListenOptions::default(), name).unwrap();
        assert!(!listeners.is_empty());
        if address != "localhost:0" {
            assert_eq!(listeners.len(), 2);
        }
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(|listener| address_of(&mut map, *listener)).collect();
        assert!(addresses.iter().all(|address| address.port() == addresses[0].port()), "{addresses:?}");
        for (count, address) in addresses.iter().enumerate() {
            let loopback = if address.is_ipv4() { V4 } else { V6 };
            let _client = std::net::TcpStream::connect((loopback.ip(), address.port())).unwrap();
            turn_until(&mut map, &log, |_| log.count("listener accept") == count + 1);
        }
    }
}

/// One of them is taken: there is none at all, and the error names it.
#[test]
fn listening_at_several_addresses_is_all_or_none() {
    let (_taken, address) = accepting(V4);
    let mut map = ChannelMap::new().unwrap();
    map.set_resolver(move |_, port| Ok(vec![(V6.ip(), port).into(), (V4.ip(), port).into()]));
    let name = format!("name:{}", address.port());
    let make = |_: &Address| Recorder::new("listener", &Log::new());
    let error = map.listen_all(&name, &ListenOptions::default(), make).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(map.is_empty());
    for bad in ["*", "*:x", "", "name"] {
        let error = map.listen_all(bad, &ListenOptions::default(), make).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}: {error}");
    }
}
