//! Plays a scenario, once with at most one fault, and looks whether the promises were kept.

use std::fmt::Write;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::faults::{Call, Fault, clear, count, inject};
use dispatch_loop::{ChannelMap, Dispatcher, Handle, LoopOptions, ToAddress, run_with};

use super::actors::{Actor, Record, Role, Shared};
use super::far::{End, Far, Part};
use super::faults::{CALLS, faults, passes};
use super::outcome::Outcome;
use crate::support::dirs::Dir;
use crate::support::process::open_descriptors;

/// The longest wait of the loop; then the far ends play.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits in which nothing happens before all is given up.
const PATIENT: u32 = 600;

/// What is put on the stage before the loop turns.
pub type Scenario = fn(&mut Stage) -> io::Result<()>;

pub struct Stage {
    pub map: ChannelMap,
    pub world: Shared,
    /// Where its listeners listen.
    listening: Vec<SocketAddr>,
    /// Files that are gone with their channels.
    files: Vec<(PathBuf, Dir)>,
    /// Its sources tell an error of the wire only when they are next asked to send.
    pub hides_errors: bool,
    /// The map is dropped after so many turns.
    pub dropped_after: Option<u32>,
    /// A channel ends soon, so that what waits for that need not wait for its pause to end.
    nudges: bool,
    /// `run` turns the loop, on its quick way where it can.
    runs: bool,
}

struct Nobody;

impl Dispatcher for Nobody {}

impl Stage {
    pub fn actor(&self, role: Role) -> Actor {
        Actor::new(role, &self.world)
    }

    fn note(&mut self, index: usize, added: io::Result<Handle<Actor>>) -> io::Result<Handle<Actor>> {
        let handle = added?;
        self.world.borrow_mut().records[index].token = Some(handle.token());
        Ok(handle)
    }

    pub fn add_as(
        &mut self,
        role: Role,
        how: impl FnOnce(&mut ChannelMap, Actor) -> io::Result<Handle<Actor>>,
    ) -> io::Result<Handle<Actor>> {
        let actor = self.actor(role);
        let index = actor.index;
        let added = how(&mut self.map, actor);
        self.note(index, added)
    }

    pub fn listen(&mut self, at: impl ToAddress, role: Role) -> io::Result<Handle<Actor>> {
        let handle = self.add_as(role, |map, actor| map.listen(at, actor))?;
        let address = self.address_of(handle);
        self.listening.push(address);
        Ok(handle)
    }

    pub fn connect(&mut self, to: impl ToAddress, role: Role) -> io::Result<Handle<Actor>> {
        self.add_as(role, |map, actor| {
            actor.note(|record| record.connects = true);
            map.connect(to, actor)
        })
    }

    pub fn far(&mut self, end: End, part: Part) {
        self.world.borrow_mut().fars.push(Far::new(end, part));
    }

    /// A far end that is connected to `to`.
    pub fn client(&mut self, to: SocketAddr, part: Part) {
        self.far(End::Tcp(TcpStream::connect(to).unwrap().into()), part);
    }

    pub fn address_of(&mut self, handle: Handle<Actor>) -> SocketAddr {
        self.map.channel(handle).unwrap().local_addr().unwrap().ip().unwrap()
    }

    /// Wait until another thread has looked a name up. One that could not be started never does.
    pub fn wait_for_look_up(&self) {
        let end = Instant::now() + Duration::from_secs(1);
        while self.map.numbers().messages == 0 && Instant::now() < end {
            thread::yield_now();
        }
    }

    pub fn keep(&mut self, dir: Dir, file: PathBuf) {
        self.files.push((file, dir));
    }

    pub fn must(&self, promise: bool, what: &str) {
        if !promise {
            self.world.borrow_mut().wrong.push(what.to_owned());
        }
    }

    /// A listener of the test: each of its connections has `part`.
    pub fn host(&mut self, part: Part) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.far(End::Listener(listener, part), Part::default());
        address
    }

    /// From now on `run` turns the loop, and a timer ends its waits.
    pub fn run_it(&mut self) {
        self.runs = true;
        self.map.call_every(PAUSE, |_| ());
    }

    fn turn_once(&mut self) -> io::Result<()> {
        match self.runs {
            true => run_with(&mut self.map, &LoopOptions::default().with_count(1)),
            false => self.map.turn(Some(PAUSE)),
        }
    }

    fn play_fars(&mut self) -> bool {
        let world = &mut *self.world.borrow_mut();
        let mut new = Vec::new();
        let mut moved = false;
        for far in &mut world.fars {
            moved |= far.play(&mut world.wrong, &mut new);
        }
        world.fars.append(&mut new);
        moved
    }

    /// Nothing is left but listeners.
    fn is_over(&self) -> bool {
        let world = self.world.borrow();
        let stays = |record: &Record| record.hooks.contains(&"close") || record.token.is_none();
        let listens = |record: &Record| record.name == "listener";
        world.fars.iter().all(Far::is_done)
            && world.records.iter().all(|record| stays(record) || listens(record))
    }

    /// Turn until everybody is at the end, or nothing has happened for so many waits of 2 ms.
    fn turn(&mut self, patience: u32, outcome: &mut Outcome, most: u32, done: impl Fn(&Stage) -> bool) {
        let mut quiet = 0;
        let begun = Instant::now();
        while !done(self) && quiet < patience && self.dropped_after != Some(outcome.turns) {
            let failed = self.turn_once().err();
            let moved = std::mem::take(&mut self.world.borrow_mut().moved);
            let moved = self.play_fars() | moved | failed.is_some();
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet == 4 && self.nudges {
                let (near, _) = UnixStream::pair().unwrap();
                let _ = self.map.add(near, Nobody);
            }
            outcome.turns += 1;
            let limit = most + begun.elapsed().as_millis() as u32;
            if outcome.turns > limit {
                let world = self.world.borrow();
                outcome.wrong.push(format!("{} turns: it spins; {:?}", outcome.turns, world.records));
                return;
            }
        }
    }

    /// A listener that lives accepts.
    fn probe(&mut self, outcome: &mut Outcome, most: u32) {
        let count_of = |stage: &Stage, name, closes| {
            let world = stage.world.borrow();
            world.records.iter().filter(|record| record.name == name && record.closes <= closes).count()
        };
        for address in self.listening.clone() {
            let lives = count_of(self, "listener", 0) > 0;
            let before = count_of(self, "accepted", 1);
            let probe = TcpStream::connect(address);
            if probe.is_ok() != lives {
                outcome.wrong.push(format!("a listener lives: {lives}, and a client says {probe:?}"));
            }
            let accepts = |stage: &Stage| count_of(stage, "accepted", 1) > before;
            let ended = |stage: &Stage| count_of(stage, "listener", 0) == 0;
            self.turn(600, outcome, most, |stage| ended(stage) || accepts(stage));
            self.must(ended(self) || accepts(self), "the listener does not accept any more");
        }
    }
}

fn counts() -> Vec<u64> {
    CALLS.map(count).to_vec()
}

/// Play it once; `turns` is what it takes without a fault.
fn play(scenario: Scenario, fault: Option<(Call, u64, Fault)>, turns: u32, patience: u32) -> Outcome {
    let descriptors = open_descriptors();
    let before = counts();
    let mut outcome = Outcome::default();
    let world = Shared::default();
    clear();
    if let Some((call, skip, fault)) = fault {
        inject(call, skip, 1, fault);
    }
    match ChannelMap::new() {
        Err(error) => outcome.refused = Some(error),
        Ok(map) => {
            let mut stage = Stage::new(map, &world);
            // The first waits for the pause.
            stage.nudges =
                fault.is_some_and(|(call, skip, _)| skip > 0 && matches!(call, Call::Accept | Call::Control));
            stage.play(scenario, patience, 3 * turns + 200, &mut outcome);
        }
    }
    clear();
    outcome.calls = counts().iter().zip(before).map(|(after, before)| after - before).collect();
    let mut world = Rc::try_unwrap(world).ok().expect("an actor is left").into_inner();
    outcome.wrong.append(&mut world.wrong);
    outcome.records = world.records;
    drop(world.fars);
    // A thread that has looked a name up may be about to let go of the poller, which it has woken.
    let end = Instant::now() + Duration::from_secs(1);
    while open_descriptors() != descriptors {
        if Instant::now() > end {
            outcome.wrong.push(format!("{descriptors} descriptors before, {} after", open_descriptors()));
            break;
        }
        thread::yield_now();
    }
    for record in &outcome.records {
        let closes = u32::from(record.token.is_some());
        if record.closes != closes || record.drops != 1 {
            outcome.wrong.push(format!("{} closes, {} drops: {record:?}", record.closes, record.drops));
        }
    }
    outcome
}

impl Stage {
    fn new(map: ChannelMap, world: &Shared) -> Stage {
        Stage {
            map,
            world: world.clone(),
            listening: vec![],
            files: vec![],
            hides_errors: false,
            dropped_after: None,
            nudges: false,
            runs: false,
        }
    }

    fn play(mut self, scenario: Scenario, patience: u32, most: u32, outcome: &mut Outcome) {
        outcome.refused = scenario(&mut self).err();
        outcome.hides_errors = self.hides_errors;
        if let Some(turns) = self.dropped_after {
            outcome.is_cut = true;
            return self.turn(patience, outcome, turns, |_| false);
        }
        self.turn(patience, outcome, most, Stage::is_over);
        let turns = std::mem::take(&mut outcome.turns);
        self.probe(outcome, most);
        self.map.close_all();
        let ends = |far: &Far| (far.got, far.ended, far.is_tcp);
        outcome.fars = self.world.borrow().fars.iter().map(ends).collect();
        drop(std::mem::take(&mut self.world.borrow_mut().fars));
        self.turn(600, outcome, most, |stage| stage.map.is_empty());
        outcome.turns = turns;
        self.must(self.map.is_empty(), "not all channels end");
        for (file, _) in &self.files {
            self.must(!file.exists(), "a file is left");
        }
        for token in self.world.borrow().records.iter().filter_map(|record| record.token) {
            if self.map.contains(token) {
                outcome.wrong.push(format!("{token} has ended and is in the map"));
            }
        }
    }
}

/// Play `scenario` without a fault, and then once for each fault of each call that it makes.
pub fn every_call_fails_once(name: &str, scenario: Scenario) {
    let usual = play(scenario, None, 1000, PATIENT);
    assert!(usual.wrong.is_empty() && usual.refused.is_none(), "{:?} {:#?}", usual.refused, usual.wrong);
    assert!(usual.records.iter().all(|record| record.closes == 1), "{:#?}", usual.records);
    let only = std::env::var("ONCE").ok();
    let (mut report, mut failures, mut plays) = (String::new(), 0, 0);
    let begun = Instant::now();
    for (call, calls) in CALLS.into_iter().zip(&usual.calls) {
        for (skip, fault) in (0..*calls).flat_map(|skip| faults(call).into_iter().map(move |f| (skip, f))) {
            let what = format!("{name}: {call:?} {skip} {fault:?}");
            if only.as_ref().is_some_and(|only| !what.contains(only)) {
                continue;
            }
            // What is tried again is so after a while. Where something is lost nobody waits long for the end,
            // unless that was too hasty.
            let patience = if passes(call, fault) { PATIENT } else { 5 };
            let again = |patience| {
                let mut outcome = play(scenario, Some((call, skip, fault)), usual.turns, patience);
                outcome.compare(&usual, call, fault);
                outcome
            };
            let mut outcome = again(patience);
            if !outcome.wrong.is_empty() && patience < PATIENT {
                outcome = again(PATIENT);
            }
            plays += 1;
            if !outcome.wrong.is_empty() {
                failures += 1;
                let _ = writeln!(report, "{what}:\n    {}", outcome.wrong.join("\n    "));
                assert!(failures < 10, "{failures} of {plays} plays fail, at least\n{report}");
            }
        }
    }
    println!(
        "{name}: {plays} plays in {:?}, {} turns, calls {:?}",
        begun.elapsed(),
        usual.turns,
        usual.calls
    );
    assert!(failures == 0, "{failures} of {plays} plays fail\n{report}");
}
