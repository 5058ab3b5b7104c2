//! How a group starts, and how it does not.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dispatch_loop::LoopGroup;

use crate::support::groups::{joined, on, start};

/// EDGE_CASES 440: each on its own thread, which has its name, with its number.
#[test]
fn each_loop_is_set_up_on_its_own_thread() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = seen.clone();
    let group = LoopGroup::start(3, move |index, map| {
        assert!(map.is_empty());
        let name = thread::current().name().map(str::to_owned);
        seeing.lock().unwrap().push((index, name, thread::current().id()));
        Ok(())
    })
    .unwrap();
    assert_eq!((group.len(), group.loops().len(), group.loads()), (3, 3, vec![0; 3]));
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_by_key(|(index, ..)| *index);
    for (index, (number, name, thread)) in seen.into_iter().enumerate() {
        assert_eq!((number, name), (index, Some(format!("loop {index}"))));
        assert_eq!(on(group.loops().remote(index), |_| thread::current().id()), thread);
    }
    group.stop();
    joined(group).unwrap();
}

/// EDGE_CASES 440.
#[test]
fn no_loop_is_one_loop() {
    let group = start(0);
    assert_eq!(group.len(), 1);
    group.stop();
    joined(group).unwrap();
}

/// EDGE_CASES 441: whichever it is, it is named, and none of the others is left. Often, for the threads end in
/// any order.
#[test]
fn a_setup_that_fails_ends_all_and_is_named() {
    for round in 0..200 {
        let (fails, alive) = (round % 4, Arc::new(AtomicUsize::new(0)));
        let counting = alive.clone();
        let result = LoopGroup::start(4, move |index, map| {
            counting.fetch_add(1, Ordering::SeqCst);
            let guard = Guard(counting.clone());
            map.call_later(std::time::Duration::from_secs(3600), move |_| drop(guard));
            match index == fails {
                true => Err(io::Error::new(ErrorKind::AddrInUse, "no luck")),
                false => Ok(()),
            }
        });
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::AddrInUse, format!("loop {fails}: no luck"))
        );
        assert_eq!(alive.load(Ordering::SeqCst), 0, "a map lives");
    }
}

struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// EDGE_CASES 441.
#[test]
fn a_setup_that_panics_ends_all_and_is_named() {
    for fails in 0..3 {
        let result = LoopGroup::start(3, move |index, _| match index == fails {
            true => panic!("on purpose"),
            false => Ok(()),
        });
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(&format!("loop {fails}: ")) && error.contains("panicked"), "{error}");
    }
}

/// EDGE_CASES 442: the end of a group from inside would wait for itself; so would asking a loop.
#[test]
fn a_loop_does_not_wait_for_its_group() {
    let group = start(2);
    let remote = group.loops().remote(0).clone();
    let (give, given) = std::sync::mpsc::channel::<LoopGroup>();
    let (tell, told) = std::sync::mpsc::channel();
    let asks = move |_: &mut _| {
        let group = given.recv().unwrap();
        let listening = group.listen("127.0.0.1:0", &Default::default(), |_, _, _| Ok(()));
        let kinds = (listening.unwrap_err().kind(), group.numbers().len());
        tell.send((kinds, group.join().unwrap_err().kind())).unwrap();
    };
    remote.call(asks).map_err(|error| error.to_string()).unwrap();
    let loops = group.loops();
    give.send(group).unwrap();
    let wanted = ((ErrorKind::Deadlock, 2), ErrorKind::Deadlock);
    assert_eq!(told.recv_timeout(crate::support::waiting::DEADLINE).unwrap(), wanted);
    loops.stop();
}
