//! Maps that are swapped, or replaced, from under a running hook: EDGE_CASES 49.

use std::cell::RefCell;
use std::io::Write;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, Handle};

use crate::support::opened::address_of;
use crate::support::peers::{loopbacks, pair, read_all};
use crate::support::provoke::{assert_echoes, echo, hooks, provoke};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, turn_idle, turn_until};
use crate::support::waiting::wait_for_input;

const GONE: &str = "close: the channel map ended";

/// From where the maps can be reached: the hooks, and what else runs.
fn places() -> impl Iterator<Item = &'static str> {
    hooks().chain(["close", "accept", "timer", "repeated timer", "own timer", "with"])
}

/// A map with the channel `a`, on which `place` runs once `f`, and one that echoes.
struct Scene {
    log: Log,
    map: ChannelMap,
    /// The channel or listener that dies of it, if one does.
    handle: Handle<Recorder>,
    far: TcpStream,
    far_echo: TcpStream,
    _client: Option<TcpStream>,
}

fn scene(on: SocketAddr, place: &'static str, f: impl FnOnce(&mut ChannelMap) + 'static) -> Scene {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let f = Rc::new(RefCell::new(Some(f)));
    let once = move |map: &mut ChannelMap| {
        let f = f.borrow_mut().take();
        if let Some(f) = f {
            f(map);
        }
    };
    let in_hook = once.clone();
    let recorder = Recorder::new("a", &log).on(place, move |ch: &mut Channel<'_>| {
        in_hook(ch.map_mut());
        Ok(())
    });
    let hook = if hooks().any(|hook| hook == place) { place } else { "open" };
    let (mut handle, far) = provoke(&mut map, on, hook, recorder);
    let (_, far_echo) = echo(&mut map, on, &log);
    let mut client = None;
    match place {
        "close" => map.channel(handle).unwrap().close(),
        "accept" => {
            let listener = Recorder::new("listener", &log).on_accept(move |ch, _, _| {
                once(ch.map_mut());
                Ok(())
            });
            handle = map.listen(on, listener).unwrap();
            client = Some(TcpStream::connect(address_of(&mut map, handle)).unwrap());
        }
        "timer" => drop(map.call_soon(once)),
        "repeated timer" => drop(map.call_every(Duration::ZERO, once)),
        "own timer" => {
            let mut ch = map.channel(handle).unwrap();
            ch.call_later(Duration::ZERO, move |ch| {
                once(ch.map_mut());
                Ok(())
            });
        }
        "with" => {
            turn_until(&mut map, &log, |_| log.has("a open"));
            let result = map.with(handle, |_, ch| {
                once(ch.map_mut());
                Ok(())
            });
            result.unwrap();
        }
        _ => {}
    }
    Scene { log, map, handle, far, far_echo, _client: client }
}

/// The name of what dies of a map that goes away while this runs.
fn victim(place: &str) -> Option<&'static str> {
    match place {
        "accept" => Some("listener"),
        "timer" | "repeated timer" | "own timer" => None,
        _ => Some("a"),
    }
}

/// EDGE_CASES 49: in the two maps everything has the same slots. No dispatcher lands in a stranger's.
#[test]
fn maps_swapped_inside_a_hook_mix_up_no_channels() {
    for on in loopbacks() {
        for place in places() {
            let theirs = Log::new();
            let mut other = ChannelMap::new().unwrap();
            let (_, mut far_theirs) = echo(&mut other, on, &theirs);
            let mut strangers = [(); 2].map(|()| {
                let (near, far) = pair(on);
                (other.add(near, Recorder::new("stranger", &theirs)).unwrap(), far)
            });
            turn_idle(&mut other);
            // Its last turn had events for them.
            for (stranger, far) in &mut strangers {
                far.write_all(b"x").unwrap();
                wait_for_input(other.channel(*stranger).unwrap().socket().unwrap());
            }
            other.turn(Some(Duration::ZERO)).unwrap();
            let quiet = ["open", "open", "read", "read"];
            assert_eq!(theirs.of("stranger"), quiet);
            let other = Rc::new(RefCell::new(other));
            let elsewhere = other.clone();
            let swapped = theirs.clone();
            let mut scene = scene(on, place, move |map| {
                mem::swap(map, &mut elsewhere.borrow_mut());
                swapped.add("swapped");
            });
            let log = scene.log.clone();
            turn_until(&mut scene.map, &log, |_| theirs.has("swapped"));
            // What was theirs is here now, and well.
            let mut here = scene.map;
            assert_eq!(here.get(strangers[0].0).unwrap().name, "stranger");
            assert_eq!(here.len(), 3);
            assert_echoes(&mut here, &theirs, &mut far_theirs);
            assert_eq!(theirs.of("stranger"), quiet, "{place}: a hook for nothing");
            // What was here is there, but for the channel whose hook it was.
            let mut there = other.borrow_mut();
            assert_echoes(&mut there, &log, &mut scene.far_echo);
            turn_idle(&mut there);
            match victim(place) {
                Some(victim) => {
                    assert!(!there.contains(scene.handle), "{place}");
                    let reason = if place == "close" { "close: closed" } else { GONE };
                    assert_eq!(log.of(victim).last().unwrap(), reason, "{place}");
                    if victim == "a" {
                        let _ = read_all(&mut scene.far);
                    }
                }
                None => assert!(there.contains(scene.handle)),
            }
            if ["open", "close", "with"].contains(&place) {
                assert_calm(&mut here);
                assert_calm(&mut there);
            }
            drop((here, mem::replace(&mut *there, ChannelMap::new().unwrap())));
            let ends = [(&log, "a", 1), (&log, "echo", 1), (&theirs, "stranger", 2), (&theirs, "echo", 1)];
            for (log, name, count) in ends {
                assert_eq!(log.count(&format!("{name} close: ")), count, "{place}: {:?}", log.events());
            }
            for (_, far) in &mut strangers {
                assert!(read_all(far).0.is_empty());
            }
        }
    }
}

/// EDGE_CASES 49: the map that runs is dropped by a hook of its own.
#[test]
fn a_map_replaced_inside_a_hook_ends_its_channels_once() {
    for on in loopbacks() {
        for place in places() {
            let done = Log::new();
            let replaced = done.clone();
            let mut scene = scene(on, place, move |map| {
                *map = ChannelMap::new().unwrap();
                replaced.add("replaced");
            });
            let log = scene.log.clone();
            turn_until(&mut scene.map, &log, |_| done.has("replaced"));
            let all = log.events();
            for name in ["a", "echo"] {
                assert_eq!(log.count(&format!("{name} close: ")), 1, "{place}: {name}: {all:?}");
            }
            if let Some(victim) = victim(place).filter(|_| place != "close") {
                assert_eq!(log.of(victim).last().unwrap(), GONE, "{place}");
            }
            for far in [&mut scene.far, &mut scene.far_echo] {
                let _ = read_all(far);
            }
            assert!(scene.map.is_empty());
            let fresh = Log::new();
            let (_, mut far) = echo(&mut scene.map, on, &fresh);
            assert_echoes(&mut scene.map, &fresh, &mut far);
            turn_idle(&mut scene.map);
            assert_eq!(log.events(), all, "{place}: a hook after the last");
        }
    }
}

/// EDGE_CASES 49: a channel has one end, also when its dispatcher was replaced just before.
#[test]
fn a_channel_whose_dispatcher_and_map_are_replaced_ends_once() {
    for on in loopbacks() {
        for drop_map in [false, true] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (near, mut far) = pair(on);
            let elsewhere = Rc::new(RefCell::new(ChannelMap::new().unwrap()));
            let (inner, other) = (log.clone(), elsewhere.clone());
            let old = Recorder::new("old", &log).on("open", move |ch| {
                ch.replace_dispatcher(Recorder::new("new", &inner))?;
                match drop_map {
                    true => *ch.map_mut() = ChannelMap::new()?,
                    false => mem::swap(ch.map_mut(), &mut other.borrow_mut()),
                }
                Ok(())
            });
            map.add(near, old).unwrap();
            turn_idle(&mut map);
            turn_idle(&mut elsewhere.borrow_mut());
            // Only swapped away, the new one lives on where its map is.
            assert_eq!((log.count("old close"), log.count("new close")), (0, drop_map.into()));
            drop((map, elsewhere.replace(ChannelMap::new().unwrap())));
            assert_eq!((log.count("old close"), log.count("new close")), (0, 1), "{:?}", log.events());
            let _ = read_all(&mut far);
        }
    }
}

/// EDGE_CASES 49: during the drop of a map; what takes its place ends with it.
#[test]
fn a_map_swapped_in_during_a_drop_ends_with_it() {
    for on in loopbacks() {
        let log = Log::new();
        let mut fars = Vec::new();
        let maps = [(); 2].map(|()| Rc::new(RefCell::new(ChannelMap::new().unwrap())));
        for (at, name) in ["x", "y"].into_iter().enumerate() {
            for _ in 0..3 {
                let (near, far) = pair(on);
                fars.push(far);
                let elsewhere = maps[1].clone();
                let mut first = at == 0;
                let recorder = Recorder::new(name, &log).on("close", move |ch| {
                    if mem::replace(&mut first, false) {
                        mem::swap(ch.map_mut(), &mut elsewhere.borrow_mut());
                    }
                    Ok(())
                });
                maps[at].borrow_mut().add(near, recorder).unwrap();
            }
        }
        let [one, two] = maps;
        for map in [&one, &two] {
            turn_idle(&mut map.borrow_mut());
        }
        // Each close of the three swaps the two once more.
        drop(mem::replace(&mut *one.borrow_mut(), ChannelMap::new().unwrap()));
        drop(mem::replace(&mut *two.borrow_mut(), ChannelMap::new().unwrap()));
        assert_eq!((log.count("x close: "), log.count("y close: ")), (3, 3), "{:?}", log.events());
        for mut far in fars {
            let _ = read_all(&mut far);
        }
    }
}

/// EDGE_CASES 49 and rule 3: whichever map it is that a turn finds itself with, it cannot be run from inside.
#[test]
fn a_map_that_was_swapped_in_is_not_run_twice() {
    for on in loopbacks() {
        for place in places() {
            let said = Log::new();
            let mut other = ChannelMap::new().unwrap();
            for _ in 0..2 {
                let of_timer = said.clone();
                other.call_soon(move |map| {
                    of_timer
                        .add(format!("{:?}", map.turn(Some(Duration::ZERO)).map_err(|error| error.kind())));
                });
            }
            let mut scene = scene(on, place, move |map| mem::swap(map, &mut other));
            let log = scene.log.clone();
            turn_until(&mut scene.map, &log, |_| said.count("Err(Deadlock)") == 2 || said.has("Ok(())"));
            assert!(!said.has("Ok(())"), "{place}: a turn inside a turn: {:?}", said.events());
        }
    }
}
