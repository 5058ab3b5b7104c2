//! Plays a scenario, once with at most one fault, and looks whether the promises were kept.

use std::fmt::Write;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::faults::{Call, Fault, clear, count, inject};
use dispatch_loop::{ChannelMap, Handle, ToAddress};

use super::actors::{Actor, Record, Role, Shared};
use super::far::{End, Far, Part};
use super::faults::{CALLS, faults, passes};
use crate::support::dirs::Dir;
use crate::support::process::open_descriptors;
use crate::support::waiting::wait_until;

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
}

/// What a far end got, and its end; and whether it is over TCP.
type FarEnd = (usize, Option<Result<(), io::ErrorKind>>, bool);

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    records: Vec<Record>,
    fars: Vec<FarEnd>,
    turns: u32,
    calls: Vec<u64>,
    /// The scenario could not be set up.
    refused: Option<io::Error>,
    wrong: Vec<String>,
    hides_errors: bool,
}

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

    /// Wait until the loop has so many messages to run.
    pub fn wait_for_messages(&self, messages: usize) {
        wait_until("a message comes", || self.map.numbers().messages >= messages);
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
        while !done(self) && quiet < patience {
            let failed = self.map.turn(Some(Duration::from_millis(2))).err();
            let moved = std::mem::take(&mut self.world.borrow_mut().moved);
            let moved = self.play_fars() | moved | failed.is_some();
            quiet = if moved { 0 } else { quiet + 1 };
            outcome.turns += 1;
            let limit = most + begun.elapsed().as_millis() as u32;
            if outcome.turns > limit {
                let world = self.world.borrow();
                outcome.wrong.push(format!("{} turns: it spins; {:?}", outcome.turns, world.records));
                return;
            }
        }
    }

    /// Every listener that lives accepts.
    fn probe(&mut self, outcome: &mut Outcome, most: u32) {
        let accepted = |stage: &Stage| {
            let world = stage.world.borrow();
            world.records.iter().filter(|record| record.name == "accepted").count()
        };
        let lives: Vec<_> = {
            let world = self.world.borrow();
            world
                .records
                .iter()
                .filter(|r| r.name == "listener" && r.token.is_some())
                .map(|r| r.closes == 0)
                .collect()
        };
        for (address, lives) in self.listening.clone().into_iter().zip(lives) {
            let before = accepted(self);
            let probe = TcpStream::connect(address);
            if probe.is_ok() != lives {
                outcome.wrong.push(format!("a listener lives: {lives}, and a client says {probe:?}"));
            }
            if lives {
                self.turn(600, outcome, most, |stage| accepted(stage) > before);
                let still = |record: &Record| record.name == "listener" && record.closes == 0;
                if accepted(self) == before && self.world.borrow().records.iter().any(still) {
                    outcome.wrong.push("the listener does not accept any more".to_owned());
                }
            }
        }
    }
}

fn counts() -> Vec<u64> {
    CALLS.map(count).to_vec()
}

/// Play it once; `turns` is what it takes without a fault.
fn play(scenario: Scenario, fault: Option<(Call, u64, Fault)>, turns: u32) -> Outcome {
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
            let mut stage =
                Stage { map, world: world.clone(), listening: vec![], files: vec![], hides_errors: false };
            outcome.refused = scenario(&mut stage).err();
            outcome.hides_errors = stage.hides_errors;
            let most = 3 * turns + 200;
            // What is tried again is so after a while.
            let patience = if fault.is_some_and(|(call, _, fault)| passes(call, fault)) { 600 } else { 5 };
            stage.turn(patience, &mut outcome, most, Stage::is_over);
            outcome.turns = outcome.turns.min(most);
            let at_the_end = std::mem::take(&mut outcome.turns);
            stage.probe(&mut outcome, most);
            stage.map.close_all();
            outcome.fars =
                stage.world.borrow().fars.iter().map(|far| (far.got, far.ended, far.is_tcp)).collect();
            let fars = std::mem::take(&mut stage.world.borrow_mut().fars);
            drop(fars);
            stage.turn(600, &mut outcome, most, |stage| stage.map.is_empty());
            outcome.turns = at_the_end;
            if !stage.map.is_empty() {
                outcome.wrong.push(format!("not all channels end: {:?}", stage.map.len()));
            }
            for (file, _) in &stage.files {
                stage.must(!file.exists(), "a file is left");
            }
            let world = stage.world.borrow();
            for record in world.records.iter().filter(|record| record.token.is_some()) {
                if stage.map.contains(record.token.unwrap()) {
                    outcome.wrong.push(format!("{} has ended and is in the map", record.name));
                }
            }
        }
    }
    clear();
    outcome.calls = counts().iter().zip(before).map(|(after, before)| after - before).collect();
    let mut world = Rc::try_unwrap(world).ok().expect("an actor is left").into_inner();
    outcome.wrong.append(&mut world.wrong);
    outcome.records = world.records;
    outcome.fars.extend(world.fars.iter().map(|far| (far.got, far.ended, far.is_tcp)));
    drop(world.fars);
    let left = open_descriptors();
    if left != descriptors {
        outcome.wrong.push(format!("{descriptors} descriptors before, {left} after"));
    }
    for record in &outcome.records {
        let closes = u32::from(record.token.is_some());
        if record.closes != closes || record.drops != 1 {
            outcome.wrong.push(format!("{} closes, {} drops: {record:?}", record.closes, record.drops));
        }
    }
    outcome
}

impl Record {
    /// What must be the same after a fault that passes.
    fn is_as(&self, other: &Record) -> bool {
        let same = self.name == other.name && self.hooks == other.hooks && self.reason == other.reason;
        same && (self.got, self.pushed) == (other.got, other.pushed)
    }
}

impl Outcome {
    /// Compared with what comes of it without a fault.
    fn compare(&mut self, usual: &Outcome, call: Call, fault: Fault) {
        let mut wrong = Vec::new();
        let errno = match fault {
            Fault::Errno(errno) => Some(errno),
            Fault::Short(_) => None,
        };
        // The poller was asked to forget, which is no registration and cannot fail; a datagram socket was
        // to be connected, which cannot be interrupted; or a datagram did not fit.
        let said = |what| {
            let mut reasons = self.records.iter().filter_map(|record| record.reason.as_ref());
            reasons.any(|(reason, _)| reason.contains(what))
        };
        let forgot = call == Call::Control && said("File exists")
            || matches!(call, Call::Control | Call::Connect) && self.refused.is_some()
            || self.records.iter().any(|record| record.told.iter().any(|told| told == "truncated"));
        if passes(call, fault) && !forgot {
            let records = self.records.len() == usual.records.len()
                && self.records.iter().zip(&usual.records).all(|(a, b)| a.is_as(b));
            if !records || self.fars != usual.fars || self.refused.is_some() {
                wrong.push(format!("it should pass; {:?} {:?}", self.refused, self.fars));
                let differs = self.records.iter().zip(&usual.records).filter(|(a, b)| !a.is_as(b));
                wrong.extend(differs.map(|(a, b)| format!("{a:?}\n      instead of {b:?}")));
            }
        }
        // What is missing has a reason that says so.
        let total = |outcome: &Outcome| {
            let got = outcome.records.iter().map(|record| record.got).sum::<usize>();
            got + outcome.fars.iter().map(|far| far.0).sum::<usize>()
        };
        let says = self.records.iter().any(|record| {
            !record.told.is_empty() || record.reason.as_ref().is_some_and(|reason| reason.1.is_some())
        });
        if total(self) < total(usual)
            && !says
            && self.refused.is_none()
            && !self.hides_errors
            && !self.is_lacking(usual)
        {
            wrong.push(format!("bytes are lost, and nobody says so: {:?} {:?}", self.records, self.fars));
        }
        // Over TCP, what is cut short does not look like an end, unless the system said that the peer is gone.
        let gone = [
            libc::EPIPE,
            libc::ECONNRESET,
            libc::ENOTCONN,
            libc::ETIMEDOUT,
            libc::EHOSTUNREACH,
            libc::ENETUNREACH,
            libc::ENETDOWN,
        ];
        let whole = |got| self.records.iter().any(|record| record.pushed == got);
        let looks_whole = |far: &&FarEnd| far.2 && far.1 == Some(Ok(())) && !whole(far.0);
        if call != Call::Option && !errno.is_some_and(|errno| gone.contains(&errno)) {
            let cut = self.fars.iter().filter(looks_whole);
            wrong.extend(cut.map(|far| format!("{} bytes, and FIN: {:?}", far.0, self.records)));
        }
        // The reason is the fault, or what it did to the other end.
        for record in &self.records {
            let Some((reason, Some(code))) = &record.reason else { continue };
            let of_a_lost_peer = [libc::ECONNRESET, libc::EPIPE, libc::ENOTCONN, libc::ECONNREFUSED];
            let forgot = call == Call::Control && *code == libc::EEXIST;
            if Some(*code) != errno && !forgot && !of_a_lost_peer.contains(code) {
                wrong.push(format!("{} ended with {reason}", record.name));
            }
        }
        self.wrong.append(&mut wrong);
    }

    /// A connection was not even made.
    fn is_lacking(&self, usual: &Outcome) -> bool {
        self.records.len() < usual.records.len() || self.records.iter().any(|record| record.token.is_none())
    }
}

/// Play `scenario` without a fault, and then once for each fault of each call that it makes.
pub fn every_call_fails_once(name: &str, scenario: Scenario) {
    let usual = play(scenario, None, 1000);
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
            let mut outcome = play(scenario, Some((call, skip, fault)), usual.turns);
            outcome.compare(&usual, call, fault);
            plays += 1;
            if !outcome.wrong.is_empty() {
                failures += 1;
                if failures <= 12 {
                    let _ = writeln!(report, "{what}:\n    {}", outcome.wrong.join("\n    "));
                }
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
