//! Look-ups that do not answer: what room they leave, and whom they keep. EDGE_CASES 98 and 99. (Names are
//! in `names.rs`.)

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use dispatch_loop::{ChannelMap, ConnectOptions, Token, run};

use crate::support::peers::{black_hole, unix_pair};
use crate::support::process::alone;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::turn_until;
use crate::support::waiting::{DEADLINE, wait_until};

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(30);

/// A server of names that never answers for those with `dead` in them, until it is let go.
#[derive(Clone, Default)]
struct Names(Arc<(Mutex<Asked>, Condvar)>);

#[derive(Default)]
struct Asked {
    let_go: bool,
    /// Those that are being looked up, and how many times each name was.
    running: usize,
    times: HashMap<String, usize>,
}

impl Names {
    /// A map that asks it; the others are all found at `address`.
    fn map(&self, address: SocketAddr) -> ChannelMap {
        let mut map = ChannelMap::new().unwrap();
        let names = self.clone();
        map.set_resolver(move |host, _| {
            let (asked, changed) = &*names.0;
            let mut asked = asked.lock().unwrap();
            asked.running += 1;
            *asked.times.entry(host.to_owned()).or_default() += 1;
            if host.contains("dead") {
                (asked, _) = changed.wait_timeout_while(asked, 3 * DEADLINE, |asked| !asked.let_go).unwrap();
            }
            asked.running -= 1;
            Ok(vec![address])
        });
        map
    }

    fn asked<T>(&self, f: impl FnOnce(&Asked) -> T) -> T {
        f(&self.0.0.lock().unwrap())
    }

    fn running(&self) -> usize {
        self.asked(|asked| asked.running)
    }

    fn let_go(&self) {
        self.0.0.lock().unwrap().let_go = true;
        self.0.1.notify_all();
        wait_until("nothing is looked up any more", || self.running() == 0);
    }
}

fn dial(map: &mut ChannelMap, name: &str, log: &Log) -> Token {
    map.connect((name, 1), Recorder::new("a", log)).unwrap().token()
}

fn accepting() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// EDGE_CASES 98. Two of them at most are of one name.
#[test]
fn a_name_that_is_never_answered_leaves_room_for_others() {
    alone(None, || {
        let (_listener, address) = accepting();
        let (names, log) = (Names::default(), Log::new());
        let mut map = names.map(address);
        for _ in 0..20 {
            dial(&mut map, "dead", &log);
        }
        for n in 0..3 {
            dial(&mut map, &format!("dead{n}"), &log);
        }
        wait_until("they are looked up", || names.running() == 5);
        for n in 0..4 {
            dial(&mut map, &format!("alive{n}"), &log);
        }
        turn_until(&mut map, &log, |_| log.count("a open") == 4);
        assert_eq!(names.asked(|asked| asked.times["dead"]), 2);
        drop(map);
        names.let_go();
        // Those that had not begun were never asked for.
        assert_eq!(names.asked(|asked| asked.times["dead"]), 2);
    });
}

/// EDGE_CASES 98. Eight at most are of one map, 32 of the process; who finds no room is told so.
#[test]
fn a_map_whose_names_are_never_answered_leaves_room_for_other_maps() {
    alone(None, || {
        let (_listener, address) = accepting();
        let (names, log) = (Names::default(), Log::new());
        let mut maps = [(); 5].map(|()| names.map(address));
        let soon = ConnectOptions::default().with_timeout(Duration::from_millis(30));
        for full in 0..4 {
            for n in 0..12 {
                dial(&mut maps[full], &format!("dead{n}"), &log);
            }
            wait_until("eight are looked up", || names.running() == 8 * (full + 1));
            // In its own map there is no room, not even for a name that would be found.
            let fails = Log::new();
            let late = maps[full].connect_with(("alive", 1), &soon, Recorder::new("a", &fails)).unwrap();
            turn_until(&mut maps[full], &fails, |map| !map.contains(late));
            let error = &fails.of("a")[0];
            assert!(error.contains("look-up was not begun, because too many"), "{error}");
            assert!(error.contains("cannot connect to alive:1"), "{error}");
            // In another one there is, until there is none at all.
            if full < 3 {
                let opens = Log::new();
                dial(&mut maps[4], "alive", &opens);
                turn_until(&mut maps[4], &opens, |_| opens.has("a open"));
            }
        }
        let fails = Log::new();
        let late = maps[4].connect_with(("alive", 1), &soon, Recorder::new("a", &fails)).unwrap();
        turn_until(&mut maps[4], &fails, |map| !map.contains(late));
        assert!(fails.of("a")[0].contains("was not begun"), "{:?}", fails.events());
        assert_eq!(names.running(), 32);
        // When they are answered, those that wait have their turn.
        dial(&mut maps[4], "waits", &log);
        names.let_go();
        turn_until(&mut maps[4], &log, |_| log.count("a open") == 1);
        for map in &mut maps[..4] {
            let before = log.count("a open");
            turn_until(map, &log, |_| log.count("a open") == before + 12);
        }
        wait_until("nothing is looked up any more", || names.running() == 0);
    });
}

/// EDGE_CASES 98: a crowd of one name has its turn, two by two.
#[test]
fn a_crowd_of_connects_to_one_name_is_all_looked_up() {
    let (listener, address) = accepting();
    listener.set_nonblocking(true).unwrap();
    let (names, log) = (Names::default(), Log::new());
    let mut map = names.map(address);
    for _ in 0..200 {
        dial(&mut map, "name", &log);
    }
    turn_until(&mut map, &log, |_| {
        while listener.accept().is_ok() {}
        log.count("a open") == 200
    });
    assert_eq!(names.asked(|asked| asked.times["name"]), 200);
}

/// EDGE_CASES 99: in the look-up, at an address that never answers, and with a time limit.
#[test]
fn a_background_connect_by_name_does_not_keep_run() {
    alone(None, || {
        let (_full, _clients, silent) = black_hole("127.0.0.1:0".parse().unwrap());
        let names = Names::default();
        for name in ["dead", "silent"] {
            for attempts in [false, true] {
                let log = Log::new();
                let mut map = names.map(silent);
                let token = dial(&mut map, name, &log);
                if attempts {
                    // Its attempt is under way, if it is to come to one.
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_millis(50) {
                        map.turn(Some(Duration::from_millis(5))).unwrap();
                    }
                }
                let mut ch = map.channel(token).unwrap();
                ch.set_background(true);
                ch.set_timeout(Some(Duration::from_secs(3600)));
                let begun = Instant::now();
                run(&mut map).unwrap();
                assert!(begun.elapsed() < DEADLINE / 2, "{name} kept run");
                assert!(map.contains(token) && map.is_idle(), "and it is still there");
                // In the foreground it does, until it has ended.
                map.channel(token).unwrap().set_background(false);
                assert!(!map.is_idle());
                map.channel(token).unwrap().set_timeout(Some(Duration::from_millis(20)));
                run(&mut map).unwrap();
                assert!(map.is_empty() && log.closed("a"));
                assert!(begun.elapsed() < DEADLINE / 2);
            }
        }
        names.let_go();
    });
}

/// EDGE_CASES 99: nor does a time limit of its own; a call that is due later does, as any.
#[test]
fn the_time_limit_of_a_background_channel_does_not_keep_run() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _far) = unix_pair();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    let mut ch = map.channel(handle).unwrap();
    ch.set_background(true);
    ch.set_timeout(Some(2 * DEADLINE));
    let begun = Instant::now();
    run(&mut map).unwrap();
    assert!(begun.elapsed() < DEADLINE / 2);
    map.call_later(Duration::from_millis(1), |_| ());
    assert!(!map.is_idle());
    run(&mut map).unwrap();
    assert!(map.is_idle() && map.contains(handle) && !log.has("a timeout"));
}

/// EDGE_CASES 534: found, not found, too late, and what needs no look-up; nothing is done twice.
#[test]
fn a_name_is_looked_up_without_a_connect() {
    let names = Names::default();
    let address = SocketAddr::from(([127, 0, 0, 9], 99));
    let mut map = names.map(address);
    let log = Log::new();
    let asks = [("there:99", LONG), ("dead:80", SHORT), ("127.0.0.1:7", LONG)];
    for (name, timeout) in asks {
        let log = log.clone();
        let told = move |_: &mut ChannelMap, found: io::Result<Vec<SocketAddr>>| {
            log.add(match found {
                Ok(found) => format!("{name} {found:?}"),
                Err(error) => format!("{:?}: {error}", error.kind()),
            });
        };
        map.look_up(name, timeout, told).unwrap();
    }
    assert!(!map.is_idle() && log.events().is_empty());
    run(&mut map).unwrap();
    let mut told = log.events();
    told.sort();
    let late = format!("TimedOut: cannot look up dead:80: there was no answer after {SHORT:?}");
    assert_eq!(told, ["127.0.0.1:7 [127.0.0.1:7]", &late, "there:99 [127.0.0.9:99]"]);
    names.let_go();
    map.turn(Some(Duration::ZERO)).unwrap();
    assert!(map.is_idle() && log.events().len() == 3, "what came too late is dropped");

    map.set_resolver(|_, _| Err(io::Error::new(ErrorKind::NotFound, "no such host")));
    let told = log.clone();
    map.look_up("nobody:1", LONG, move |_, found| told.add(found.unwrap_err().to_string())).unwrap();
    run(&mut map).unwrap();
    assert_eq!(log.events().last().unwrap(), "cannot look up nobody:1: no such host");
    for no_name in ["nobody", "unix:/tmp/a", ":80"] {
        let error = map.look_up(no_name, LONG, |_, _| unreachable!()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{no_name}");
    }
    assert!(map.is_idle());
}
