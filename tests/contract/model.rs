//! Random programs against a simple model: what is done to channels, by hooks, timers and from
//! outside, in any order, keeps the promises that do not depend on the order.

use std::cell::RefCell;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::ChannelMap;
use proptest::prelude::*;

use super::world::*;
use super::world_more::*;

use crate::support::process::{alone, open_descriptors};
use crate::support::waiting::DEADLINE;

/// What the test itself does.
#[derive(Clone, Debug)]
enum Step {
    Do(Action),
    FarWrite(usize, usize),
    FarRead(usize, usize),
    FarShutdown(usize),
    FarClose(usize),
    FarReset(usize),
    /// Another thread has the loop called.
    Tell,
    Turn,
    Idle,
}

fn far(world: &mut World, step: Step) {
    if world.lives.is_empty() {
        return;
    }
    let count = world.lives.len();
    match step {
        Step::FarWrite(index, len) => far_write(world, index % count, len),
        Step::FarRead(index, most) => drop(world.far_read(index % count, most)),
        Step::FarShutdown(index) => {
            let life = &mut world.lives[index % count];
            life.far_ended = true;
            let _ = life.far.as_ref().map(|far| far.shutdown(Shutdown::Write));
        }
        Step::FarClose(index) | Step::FarReset(index) => {
            let life = &mut world.lives[index % count];
            life.far_ended = true;
            life.far_cut = true;
            if let (Some(far), Step::FarReset(_)) = (life.far.take(), step) {
                let _ = far.set_linger(Some(Duration::ZERO));
            }
        }
        Step::Do(_) | Step::Tell | Step::Turn | Step::Idle => unreachable!(),
    }
}

/// Turn until one turn has waited for all of its time.
fn until_idle(map: &mut ChannelMap, shared: &Shared) {
    for _ in 0..5000 {
        let begun = Instant::now();
        map.turn(Some(Duration::from_millis(5))).unwrap();
        if begun.elapsed() >= Duration::from_millis(4) {
            return;
        }
    }
    must(false, format!("the loop spins: {:#?}", living(map, shared)));
}

/// What there is to say of the channels that live.
fn living(map: &mut ChannelMap, shared: &Shared) -> Vec<String> {
    let world = shared.borrow();
    let lives = world.lives.iter().filter(|life| life.closes == 0);
    lives.map(|life| format!("{:?}: {life:?}", map.channel(life.handle.unwrap().token()))).collect()
}

/// What ended is gone for good; what has not, is there.
fn look_up(map: &mut ChannelMap, world: &World) {
    for life in &world.lives {
        let handle = life.handle.unwrap();
        must(life.closes == life.drops && life.closes <= 1, "handle_close or drop, and not the other");
        must(map.contains(handle.token()) == (life.closes == 0), "in the map or not");
        must(handle.is_there(map) == (life.closes == 0), "a dispatcher is there or not");
        must(map.channel(handle.token()).is_ok() == (life.closes == 0), "a channel is there or not");
    }
}

/// What is queued when nothing can be done has to wait, and `handle_drained` is owed for it.
fn note_who_waits(map: &mut ChannelMap, world: &mut World) {
    // A turn may have been slow instead of idle.
    if map.wait_limit() == Some(Duration::ZERO) {
        return;
    }
    for life in &mut world.lives {
        if let Ok(ch) = map.channel(life.handle.unwrap().token()) {
            life.waits |= ch.queued() > 0;
        }
    }
}

/// Read all that comes for the far ends; those at their end are closed. Whether anything came.
fn read_all(world: &mut World) -> bool {
    let mut moved = false;
    for index in 0..world.lives.len() {
        while let Some(read) = world.far_read(index, 1 << 16) {
            moved = true;
            if read == 0 {
                world.lives[index].far = None;
                world.lives[index].far_ended = true;
            }
        }
    }
    moved
}

fn play(steps: Vec<Step>, script: Vec<Action>, dropping: bool) {
    WRONG.take();
    let descriptors = open_descriptors();
    let pattern: Vec<u8> = (0..PERIOD as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let world = World { script: script.into(), pattern, ..World::default() };
    let shared = Rc::new(RefCell::new(world));
    here(&shared);
    let mut map = ChannelMap::new().unwrap();
    for step in steps {
        match step {
            Step::Do(action) => act(&mut map, &shared, action),
            Step::Tell => tell(&mut map, &mut shared.borrow_mut(), from_another_thread),
            Step::Turn => map.turn(Some(Duration::from_millis(1))).unwrap(),
            Step::Idle => {
                until_idle(&mut map, &shared);
                note_who_waits(&mut map, &mut shared.borrow_mut());
            }
            step => far(&mut shared.borrow_mut(), step),
        }
        look_up(&mut map, &shared.borrow());
    }
    // The script is over; everybody reads, and all that was sent arrives.
    shared.borrow_mut().script.clear();
    let count = shared.borrow().lives.len();
    let deadline = Instant::now() + DEADLINE;
    for target in 0..count {
        act(&mut map, &shared, Action::Pause(target, false));
    }
    let arrived = |life: &Life| life.closed || life.far_cut || life.got == life.far_wrote;
    while read_all(&mut shared.borrow_mut()) || !shared.borrow().lives.iter().all(arrived) {
        if Instant::now() > deadline {
            panic!("not all that was sent arrives: {:#?}", living(&mut map, &shared));
        }
        until_idle(&mut map, &shared);
    }
    stop_repeating(&mut map, &mut shared.borrow_mut());
    while shared.borrow().is_owed_a_call() {
        assert!(Instant::now() < deadline, "a timer or a message never comes: {:#?}", shared.borrow().timers);
        map.turn(Some(Duration::from_millis(1))).unwrap();
    }
    // What has been sent is told, but where nothing can be sent any more.
    while map.wait_limit() == Some(Duration::ZERO) {
        assert!(Instant::now() < deadline, "the loop spins: {:#?}", living(&mut map, &shared));
        map.turn(Some(Duration::ZERO)).unwrap();
    }
    for life in &shared.borrow().lives {
        let over = life.ended || life.far_cut || life.closes > 0;
        let queued = map.channel(life.handle.unwrap().token()).map_or(0, |ch| ch.queued());
        let told = !life.waits || over || queued > 0;
        must(told, format!("handle_drained is owed: {life:?}"));
    }
    if dropping {
        shared.borrow_mut().dropping = true;
        drop(map);
    } else {
        (0..count).for_each(|target| act(&mut map, &shared, Action::Close(target)));
        while !map.is_empty() {
            assert!(Instant::now() < deadline, "not all channels end: {:#?}", living(&mut map, &shared));
            map.turn(Some(Duration::from_millis(1))).unwrap();
            read_all(&mut shared.borrow_mut());
        }
        look_up(&mut map, &shared.borrow());
        drop(map);
    }
    read_all(&mut shared.borrow_mut());
    for (index, life) in shared.borrow_mut().lives.iter_mut().enumerate() {
        must(life.closes == 1 && life.drops == 1, format!("channel {index}: {} closes", life.closes));
        let all = life.far_got == life.pushed || life.cut || life.far_cut || life.far_late;
        must(all, format!("the far end of {index} got {} of {}", life.far_got, life.pushed));
        life.far = None;
    }
    shared.borrow().end_of_calls();
    must(open_descriptors() == descriptors, "a descriptor is left");
    let wrong = WRONG.take();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn action() -> impl Strategy<Value = Action> {
    use Action::*;
    let channel = 0..CHANNELS;
    prop_oneof![
        3 => (0..KINDS).prop_map(Add),
        1 => channel.clone().prop_map(Renew),
        2 => (prop::option::of(channel.clone()), 0..4u64, any::<bool>())
            .prop_map(|(of, millis, every)| Timer(of, millis, every)),
        1 => (0..20usize).prop_map(Cancel),
        1 => Just(Tell),
        6 => (channel.clone(), 1..3000usize).prop_map(|(to, len)| Push(to, len)),
        5 => (1..20usize, prop_oneof![1..300usize, 4000..4200usize, Just(30_000)])
            .prop_map(|(pushes, len)| Answer(pushes, len)),
        1 => channel.clone().prop_map(Timeout),
        2 => (channel.clone(), 50_000..400_000usize).prop_map(|(to, len)| Push(to, len)),
        2 => channel.clone().prop_map(Close),
        1 => channel.clone().prop_map(Abort),
        1 => channel.clone().prop_map(ShutdownWrite),
        3 => (channel.clone(), any::<bool>()).prop_map(|(of, on)| Pause(of, on)),
        1 => channel.clone().prop_map(AutoPause),
        1 => channel.clone().prop_map(WantWrite),
        3 => (channel, 0..3u64).prop_map(|(of, millis)| Later(of, millis)),
        1 => Just(Soon),
        1 => prop_oneof![Just(Fail), Just(Panic)],
        6 => Just(Nothing),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let channel = 0..CHANNELS;
    prop_oneof![
        6 => action().prop_map(Do),
        3 => (channel.clone(), 1..100_000usize).prop_map(|(of, len)| FarWrite(of, len)),
        3 => (channel.clone(), 1..100_000usize).prop_map(|(of, most)| FarRead(of, most)),
        1 => channel.clone().prop_map(FarShutdown),
        1 => prop_oneof![channel.clone().prop_map(FarClose), channel.prop_map(FarReset)],
        5 => Just(Turn),
        1 => Just(Tell),
        1 => Just(Idle),
    ]
}

#[test]
fn random_programs_keep_the_promises() {
    alone(None, || {
        let config = ProptestConfig {
            cases: 96,
            failure_persistence: None,
            max_shrink_iters: 60,
            ..ProptestConfig::default()
        };
        proptest!(config, |(
            steps in prop::collection::vec(step(), 10..80),
            script in prop::collection::vec(action(), 0..60),
            dropping in any::<bool>(),
        )| {
            let mut all: Vec<Step> = (0..KINDS).map(|kind| Step::Do(Action::Add(kind))).collect();
            all.extend(steps);
            play(all, script, dropping);
        });
    });
}
