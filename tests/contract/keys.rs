//! Tokens, handles and typed access: EDGE_CASES 49 to 51, and rules 2 and 3 of the contract. (Maps
//! that are swapped are in `swap.rs`.)

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::wear_out;
use dispatch_loop::{
    Channel, ChannelError, ChannelMap, Dispatcher, Handle, LookupError, LoopOptions, OnLimit, Reason, Token,
    run, run_with,
};

use crate::support::opened::address_of;
use crate::support::peers::{
    loopbacks, pair, pattern, read_all, read_exactly, read_now, refusing, unix_pair,
};
use crate::support::provoke::{assert_echoes, echo, hooks, provoke};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, turn_idle, turn_until};

/// A dispatcher with something to be reached.
#[derive(Default)]
struct Counter {
    count: u32,
    closes: Rc<Cell<u32>>,
    hungry: bool,
}

impl Dispatcher for Counter {
    fn readable(&self, _: &Channel<'_>) -> bool {
        self.hungry
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.count += ch.recv(&mut [0; 100])? as u32;
        Ok(())
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, _: &Reason) {
        self.closes.set(self.closes.get() + 1);
    }
}

/// A channel that nothing happens to, and its other end.
fn quiet(map: &mut ChannelMap) -> (Handle<Counter>, UnixStream) {
    let (near, far) = unix_pair();
    (map.add(near, Counter::default()).unwrap(), far)
}

/// No way leads from this token to a channel.
#[track_caller]
fn assert_gone(map: &mut ChannelMap, handle: Handle<Counter>) {
    let token = handle.token();
    let gone = LookupError::Gone(token);
    assert!(!map.contains(handle));
    assert_eq!(map.channel(handle).err(), Some(gone));
    assert_eq!(map.get(handle).err(), Some(gone));
    assert_eq!(map.get_mut(handle).err(), Some(gone));
    let error = map.with(handle, |_, _| -> io::Result<()> { panic!("whom with?") }).unwrap_err();
    assert_eq!((error.kind(), ChannelError::token_of(&error)), (ErrorKind::NotConnected, Some(token)));
    assert!(map.tokens().all(|living| living != token));
    map.broadcast([token], b"to nobody");
}

/// EDGE_CASES 49: of another map, with the same slot and generation.
#[test]
fn a_token_of_another_map_is_refused() {
    let [mut map, mut other] = [(); 2].map(|()| ChannelMap::new().unwrap());
    let (ours, mut far) = quiet(&mut map);
    let (theirs, mut far_of_theirs) = quiet(&mut other);
    assert_eq!(ours.token().to_string(), theirs.token().to_string());
    assert_ne!(ours, theirs);
    assert_gone(&mut map, theirs);
    assert_gone(&mut other, ours);
    map.channel(ours).unwrap().push(b"x").unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    drop(map);
    drop(other);
    assert_eq!(read_now(&mut far), (b"x".to_vec(), true));
    assert_eq!(read_now(&mut far_of_theirs), (b"".to_vec(), true));
}

/// EDGE_CASES 49: a slot is used again, and a descriptor, but never a token.
#[test]
fn a_stale_token_is_refused() {
    let mut map = ChannelMap::new().unwrap();
    let mut seen = HashSet::new();
    let mut stale: Vec<Handle<Counter>> = Vec::new();
    for _ in 0..50 {
        let (handle, _far) = quiet(&mut map);
        assert!(seen.insert(handle.token()), "{handle:?} was used before");
        for &old in &stale {
            assert_gone(&mut map, old);
        }
        map.channel(handle).unwrap().close();
        turn_until(&mut map, &Log::new(), |map| !map.contains(handle));
        stale.push(handle);
    }
    assert!(map.is_empty());
}

/// EDGE_CASES 49: the last generation of a slot, and after it.
#[cfg(debug_assertions)]
#[test]
fn a_worn_out_slot_is_retired() {
    let mut map = ChannelMap::new().unwrap();
    wear_out(&mut map, 1);
    let slot = |handle: Handle<Counter>| handle.token().to_string().split_once('.').unwrap().0.to_owned();
    let mut stale: Vec<Handle<Counter>> = Vec::new();
    for _ in 0..4 {
        let (handle, _far) = quiet(&mut map);
        for &old in &stale {
            assert_ne!(handle, old);
            assert_gone(&mut map, old);
        }
        assert!(map.get(handle).is_ok());
        map.channel(handle).unwrap().close();
        turn_until(&mut map, &Log::new(), |map| !map.contains(handle));
        stale.push(handle);
    }
    assert!(stale[1].token().to_string().ends_with(&format!(".{}", u32::MAX)), "{stale:?}");
    assert_eq!(slot(stale[0]), slot(stale[1]));
    assert_ne!(slot(stale[1]), slot(stale[2]), "it was used again");
    assert_eq!(slot(stale[2]), slot(stale[3]));
}

/// Handles reach the dispatcher; what they cannot reach, they say.
#[test]
fn a_handle_reaches_its_dispatcher_and_no_other_type() {
    let mut map = ChannelMap::new().unwrap();
    let (handle, mut far) = quiet(&mut map);
    map.get_mut(handle).unwrap().count = 7;
    assert_eq!(map.get(handle).unwrap().count, 7);
    let told = map.with(handle, |counter, ch| {
        counter.count += 1;
        ch.push(b"with").map(|()| (counter.count, ch.token()))
    });
    assert_eq!(told.unwrap(), (8, handle.token()));
    assert_eq!(handle.token().typed::<Counter>(), handle);

    let wrong = handle.token().typed::<Recorder>();
    let other_type = LookupError::OtherType(handle.token());
    assert_eq!(map.get(wrong).err(), Some(other_type));
    assert_eq!(map.get_mut(wrong).err(), Some(other_type));
    let error = map.with(wrong, |_, _| Ok(())).unwrap_err();
    assert_eq!(
        (error.kind(), ChannelError::token_of(&error)),
        (ErrorKind::InvalidInput, Some(handle.token()))
    );

    // What `get_mut` changes counts: `readable` is asked again.
    far.write_all(b"food").unwrap();
    turn_idle(&mut map);
    assert_eq!(map.get(handle).unwrap().count, 8);
    map.get_mut(handle).unwrap().hungry = true;
    turn_until(&mut map, &Log::new(), |map| map.get(handle).unwrap().count == 12);
    assert_eq!(read_exactly(&mut far, 4), b"with");
}

/// Rule 3: not from inside itself; the others can be reached, whatever runs.
#[test]
fn a_hook_reaches_all_dispatchers_but_its_own() {
    for on in loopbacks() {
        for hook in hooks().chain(["close"]) {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (counter, _far) = quiet(&mut map);
            let seen = log.clone();
            let mut done = false;
            let recorder = Recorder::new("a", &log).on(hook, move |ch| {
                if std::mem::replace(&mut done, true) {
                    return Ok(());
                }
                let own = ch.token().typed::<Recorder>();
                let running = LookupError::Running(own.token());
                assert_eq!(ch.map().get(own).err(), Some(running));
                assert_eq!(ch.map_mut().get_mut(own).err(), Some(running));
                let error = ch.map_mut().with(own, |_, _| Ok(())).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ResourceBusy);
                ch.map_mut().get_mut(counter).unwrap().count += 1;
                let inner = ch.map_mut().with(counter, |counter, ch| {
                    counter.count += 1;
                    // Here it is the other way round.
                    assert!(ch.map().get(own).is_err());
                    ch.map_mut().with(own, |_, _| Ok(()))
                });
                assert_eq!(inner.unwrap_err().kind(), ErrorKind::ResourceBusy);
                seen.add("all as it should be");
                ch.abort();
                Ok(())
            });
            let (handle, _far) = provoke(&mut map, on, if hook == "close" { "open" } else { hook }, recorder);
            if hook == "close" {
                map.channel(handle).unwrap().close();
            }
            turn_until(&mut map, &log, |_| log.closed("a"));
            assert!(log.has("all as it should be"), "{hook}: {:?}", log.events());
            assert_eq!(map.get(counter).unwrap().count, 2);
        }
    }
}

/// An upgrade: the new dispatcher has the hooks, the old one has had its last.
#[test]
fn a_replaced_dispatcher_has_had_its_last_hook() {
    for on in loopbacks() {
        for hook in hooks().filter(|hook| *hook != "connect") {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (new_log, held, never) = (log.clone(), Rc::new(()), Rc::new(()));
            let (in_old, in_never) = (held.clone(), never.clone());
            let handle = Rc::new(Cell::new(None));
            let new_handle = handle.clone();
            let old = Recorder::new("old", &log).on(hook, move |ch| {
                let never = Recorder::new("never", &new_log);
                let in_never = in_never.clone();
                let holds = in_never.clone();
                let never = never.on("close", move |_| {
                    let _ = &holds;
                    Ok(())
                });
                ch.replace_dispatcher(never)?;
                let new = ch.replace_dispatcher(Recorder::new("new", &new_log))?;
                new_handle.set(Some(new));
                ch.set_timeout(None);
                // The new one is there already, and the old one is still running.
                ch.map().get(new)?;
                assert_eq!(Rc::strong_count(&in_old), 2);
                Ok(())
            });
            let (_, mut far) = provoke(&mut map, on, hook, old);
            turn_until(&mut map, &log, |_| handle.get().is_some());
            turn_idle(&mut map);
            assert_eq!(Rc::strong_count(&held), 1, "{hook}: the old one is dropped");
            assert_eq!(Rc::strong_count(&never), 1, "{hook}: and the one that was replaced at once");
            assert_eq!(log.count("never"), 0);
            assert!(!log.closed("old"));
            // The one ends with the end of the stream, the other with the error.
            if !["eof", "error"].contains(&hook) {
                far.write_all(b"to the new one").unwrap();
                turn_until(&mut map, &log, |_| log.input("new").ends_with(b"to the new one"));
            }
            drop(far);
            turn_until(&mut map, &log, |_| log.closed("new"));
            assert_eq!((log.count("new open"), log.count("new close")), (0, 1), "{hook}");
            let handle = handle.get().unwrap();
            assert!(map.get(handle).is_err());
        }
    }
}

/// From outside, and of a channel that is gone; the handle of the old one is no good any more.
#[test]
fn a_dispatcher_replaced_from_outside_leaves_a_stale_handle() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (old, far) = quiet(&mut map);
    turn_idle(&mut map);
    let new = map.channel(old).unwrap().replace_dispatcher(Recorder::new("new", &log)).unwrap();
    assert_eq!(map.get(old).err(), Some(LookupError::OtherType(old.token())));
    assert_eq!(map.get(new).unwrap().name, "new");
    drop(far);
    let late = log.clone();
    map.with(new, |_, ch| {
        ch.call_later(Duration::ZERO, move |ch| {
            ch.replace_dispatcher(Recorder::new("newer", &late)).map(drop)
        });
        Ok(())
    })
    .unwrap();
    run(&mut map).unwrap();
    assert_eq!((log.count("new close"), log.count("newer close")), (0, 1));
    assert!(map.channel(new).is_err());
}

/// EDGE_CASES 50: the rest is served.
#[test]
fn broadcast_passes_over_what_cannot_be_served() {
    for on in loopbacks() {
        for len in [5, 3000] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            map.set_linger_limit(0);
            let mut elsewhere = ChannelMap::new().unwrap();
            let bytes = pattern(len);
            let (stale, _) = quiet(&mut map);
            map.channel(stale).unwrap().close();
            turn_idle(&mut map);
            let (foreign, _far) = quiet(&mut elsewhere);
            let (closing, mut far_of_closing) = quiet(&mut map);
            map.channel(closing).unwrap().close();
            let (shut, mut far_of_shut) = quiet(&mut map);
            map.channel(shut).unwrap().shutdown_write();
            let listener = map.listen(on, Recorder::new("listener", &log)).unwrap();
            let over = {
                let (near, far) = pair(on);
                let over = map.add(near, Recorder::new("over", &log)).unwrap();
                let mut channel = map.channel(over).unwrap();
                channel.set_limit(len - 1, OnLimit::Refuse);
                (over.token(), far)
            };
            let mut served: Vec<(Token, TcpStream)> = Vec::new();
            for _ in 0..3 {
                let (near, far) = pair(on);
                served.push((map.add(near, Recorder::new("served", &log)).unwrap().token(), far));
            }
            let skipped =
                [stale.token(), foreign.token(), closing.token(), shut.token(), listener.token(), over.0];
            let tokens: Vec<Token> =
                skipped.into_iter().chain(served.iter().map(|(token, _)| *token)).collect();
            map.broadcast(tokens.iter().rev().copied(), &bytes);
            map.broadcast(tokens, &bytes);
            turn_idle(&mut map);
            assert_eq!(log.count("over close: over the limit"), 1);
            assert_eq!((log.count("served close"), log.count("listener close")), (0, 0));
            map.close_all();
            run(&mut map).unwrap();
            for (_, mut far) in served {
                let (got, end) = read_all(&mut far);
                end.unwrap();
                assert!(got == [&bytes[..], &bytes].concat(), "{} bytes", got.len());
            }
            for far in [&mut far_of_closing, &mut far_of_shut] {
                assert_eq!(read_now(far), (Vec::new(), true));
            }
        }
    }
}

/// Rule 3: no loop within the loop; and of another map there is no harm in it.
#[test]
fn a_nested_loop_is_refused() {
    for on in loopbacks() {
        for hook in hooks().chain(["close", "accept", "timer", "own timer", "with"]) {
            for drop_map in [false, true] {
                let log = Log::new();
                let mut map = ChannelMap::new().unwrap();
                let nested = {
                    let log = log.clone();
                    move |map: &mut ChannelMap| {
                        let options = LoopOptions::default()
                            .with_timeout(Duration::ZERO)
                            .with_count(1)
                            .with_rescan(true);
                        for result in [run(map), run_with(map, &options), map.turn(Some(Duration::ZERO))] {
                            log.add(format!("nested {}", result.unwrap_err().kind()));
                        }
                        let mut other = ChannelMap::new().unwrap();
                        let inner = log.clone();
                        other.call_soon(move |_| inner.add("other map"));
                        run(&mut other)
                    }
                };
                let (of_map, of_accept, of_timer) = (nested.clone(), nested.clone(), nested.clone());
                let of_own_timer = nested.clone();
                let mut done = false;
                let recorder = Recorder::new("a", &log).on(hook, move |ch| {
                    if !std::mem::replace(&mut done, true) {
                        nested(ch.map_mut())?;
                    }
                    Ok(())
                });
                let provoked = if hooks().any(|one| one == hook) { hook } else { "open" };
                let (handle, _far) = provoke(&mut map, on, provoked, recorder);
                let mut client = None;
                match hook {
                    "close" if !drop_map => map.channel(handle).unwrap().close(),
                    "accept" => {
                        let acceptor = Recorder::new("listener", &log);
                        let acceptor = acceptor.on_accept(move |ch, _, _| of_accept(ch.map_mut()));
                        let listener = map.listen(on, acceptor).unwrap();
                        client = Some(TcpStream::connect(address_of(&mut map, listener)).unwrap());
                    }
                    "timer" => drop(map.call_soon(move |map| of_timer(map).unwrap())),
                    "own timer" => {
                        let mut ch = map.channel(handle).unwrap();
                        ch.call_later(Duration::ZERO, move |ch| of_own_timer(ch.map_mut()));
                    }
                    "with" => map.with(handle, |_, ch| of_map(ch.map_mut())).unwrap(),
                    _ => {}
                }
                if !(drop_map && hook == "close") {
                    turn_until(&mut map, &log, |_| log.has("other map"));
                }
                drop((map, client));
                let said: Vec<String> = log.of("nested");
                assert_eq!(said, ["deadlock"; 3], "{hook}");
                assert!(log.has("other map"));
            }
        }
    }
}

/// EDGE_CASES 51.
#[test]
fn what_goes_on_by_itself_starves_nobody() {
    fn add_again(ch: &mut Channel<'_>, log: &Log, far: &Rc<RefCell<Vec<UnixStream>>>) -> io::Result<()> {
        if log.count("added open") >= 300 {
            return Ok(());
        }
        let (ours, theirs) = UnixStream::pair()?;
        far.borrow_mut().push(theirs);
        let (again, far) = (log.clone(), far.clone());
        let added = Recorder::new("added", log).on("open", move |ch| add_again(ch, &again, &far));
        let added = ch.map_mut().add(ours, added)?;
        ch.map_mut().channel(added)?.close();
        let mut channel = ch.map_mut().channel(added)?;
        channel.shutdown_write();
        Ok(())
    }
    fn connect_again(map: &mut ChannelMap, to: std::net::SocketAddr, log: &Log, stop: &Rc<Cell<bool>>) {
        let (again, stopped) = (log.clone(), stop.clone());
        let client = Recorder::new("client", log).on("close", move |ch| {
            if !stopped.get() {
                connect_again(ch.map_mut(), to, &again, &stopped);
            }
            Ok(())
        });
        map.connect(to, client).unwrap();
    }
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (_, mut far_echo) = echo(&mut map, on, &log);
        let (_held, address) = refusing(on);
        let stop = Rc::new(Cell::new(false));
        connect_again(&mut map, address, &log, &stop);
        let far = Rc::new(RefCell::new(Vec::new()));
        let (adding, fars) = (log.clone(), far.clone());
        let (near, _first) = pair(on);
        map.add(near, Recorder::new("first", &log).on("open", move |ch| add_again(ch, &adding, &fars)))
            .unwrap();
        assert_echoes(&mut map, &log, &mut far_echo);
        turn_until(&mut map, &log, |_| log.count("client close: ") >= 50);
        // A wait comes between one and the next: that is what serves the others.
        let before = log.count("client close: ");
        map.turn(Some(Duration::ZERO)).unwrap();
        assert!(log.count("client close: ") <= before + 1);
        stop.set(true);
        turn_until(&mut map, &log, |map| map.len() == 2);
        assert_calm(&mut map);
    }
}

#[test]
fn handles_compare_and_hash_as_their_tokens_do() {
    let mut map = ChannelMap::new().unwrap();
    let (first, _far) = quiet(&mut map);
    let (second, _far) = quiet(&mut map);
    assert!(first < second && first.token() < second.token());
    assert_eq!(first.max(second), second);
    let set = HashSet::from([first, second, first.token().typed()]);
    assert_eq!((set.len(), set.contains(&second)), (2, true));
}
