//! What `deploy/` describes, run and disturbed: three nodes behind HAProxy with `deploy/haproxy.cfg`, clients that talk
//! and count; a node is killed, another one restarted by hand-over, Redis killed, HAProxy reloaded. Without `haproxy` or
//! `redis-server` the test says so and passes, unless `CI` is set.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::reconnect::{self, Backoff, Client};
use dispatch_loop::{ChannelMap, Eof, Reason, Remote};

const DEADLINE: Duration = Duration::from_secs(60);
/// How soon a client whose node is gone must be in the room again.
const BACK: Duration = Duration::from_secs(3);

#[test]
fn sixty_clients_lose_nothing_but_their_node() {
    rolled_out(60, 60);
}

#[test]
#[ignore = "some 20 seconds of both cores"]
fn six_hundred_clients_lose_nothing_but_their_node() {
    rolled_out(600, 100);
}

/// So many clients, which say so many lines a second altogether.
fn rolled_out(clients: usize, rate: u32) {
    if !can_be_had("haproxy", "-v") || !can_be_had("redis-server", "--version") {
        return;
    }
    let dir = Dir::new();
    let mut redis = Redis { child: None, port: free_port(), dir: dir.0.clone() };
    redis.begin();
    let [a, b, c] = ["a", "b", "c"].map(|name| Node::start(&dir, &redis, name, None));
    let mut front = HaProxy::start(&dir, [&a, &b, &c]);
    let room = Crowd::enter(&front.address, clients, rate);
    let all = Duration::from_secs(1);
    thread::sleep(all); // of talk between any two disturbances

    // Its clients are on the others soon, and the room soon has it again.
    let before = room.ended();
    let (address, stats) = (b.address.clone(), b.stats.clone());
    drop(b);
    let of_b = room.ended_since(before, clients / 3);
    room.all_are_in();
    let b = Node::start(&dir, &redis, "b", Some((&address, &stats)));
    wait("HAProxy to notice", || front.of("b", STATUS) == "UP");
    thread::sleep(all);

    // The successor has the listeners before the old one lets go of its clients.
    let before = room.ended();
    let in_place = front.of("c", SESSIONS).parse().unwrap();
    let next = Node::start(&dir, &redis, "c", None);
    assert_eq!((&next.address, &next.stats), (&c.address, &c.stats));
    c.has_ended();
    let of_c = room.ended_since(before, in_place);
    room.all_are_in();
    assert!(front.of("c", STATUS) == "UP", "HAProxy has noticed nothing");
    thread::sleep(all);

    // From here on nobody loses a connection.
    let before = room.ended();
    redis.kill();
    thread::sleep(Duration::from_millis(300));
    redis.begin();
    thread::sleep(all);

    let address = front.address.clone();
    let visits = thread::spawn(move || (0..20).for_each(|_| visit(&address)));
    front.reload();
    visits.join().unwrap();
    room.add(clients / 10);
    room.all_are_in();
    thread::sleep(all);
    assert_eq!(room.ended(), before, "who stayed was cut off");

    let world = room.hushed();
    println!(
        "{of_b} clients of the killed node, {of_c} of the one that was handed over; {}",
        world.checked()
    );
    for node in [a, b, next] {
        node.signal("TERM");
        node.has_ended();
    }
}

/// In the room once, and out.
fn visit(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"/who\n/quit\n").unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert!(heard.contains("* here: "), "{heard:?}");
}

// The clients.

/// All on one loop, in a thread.
struct Crowd {
    world: Arc<Mutex<World>>,
    address: String,
    remote: Remote,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Default)]
struct World {
    talkers: Vec<Talker>,
    /// How many of them were there from the beginning.
    founders: usize,
    is_quiet: bool,
    /// The room was in parts: there may be several orders then.
    was_cut: bool,
}

#[derive(Clone, Default)]
struct Talker {
    /// How many lines; the next one has this number.
    said: u32,
    lives: Vec<Life>,
}

/// One connection.
#[derive(Clone, Default)]
struct Life {
    /// The number of the first line that was said here, if any.
    first: u32,
    entered: Option<Instant>,
    ended: Option<Instant>,
    /// Who, and which line of his.
    heard: Vec<(usize, u32)>,
}

impl Crowd {
    fn enter(address: &str, clients: usize, rate: u32) -> Crowd {
        let world = Arc::new(Mutex::new(World::default()));
        let (to, (send, remote)) = (world.clone(), std::sync::mpsc::channel());
        let thread = thread::spawn(move || {
            let mut map = ChannelMap::new().unwrap();
            send.send(map.remote()).unwrap();
            let mut turn = 0;
            map.call_every(Duration::from_secs(1) / rate, move |map| {
                talk(map, &to, turn);
                turn += 1;
            });
            dispatch_loop::run(&mut map).unwrap();
        });
        let crowd = Crowd {
            world,
            address: address.to_owned(),
            remote: remote.recv().unwrap(),
            thread: Some(thread),
        };
        // Nobody talks before all are there to hear it.
        *crowd.world() = World { founders: clients, is_quiet: true, ..World::default() };
        crowd.add(clients);
        crowd.all_are_in();
        crowd.world().is_quiet = false;
        crowd
    }

    fn add(&self, clients: usize) {
        for _ in 0..clients {
            let number = {
                let talkers = &mut self.world().talkers;
                talkers.push(Talker::default());
                talkers.len() - 1
            };
            let (world, address) = (self.world.clone(), self.address.clone());
            self.remote.call(move |map| begin(map, world, address, number)).unwrap();
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn all_are_in(&self) {
        wait("all to be in", || self.world().talkers.iter().all(Talker::is_in));
    }

    /// How many connections have ended.
    fn ended(&self) -> usize {
        let world = self.world();
        world.talkers.iter().flat_map(|talker| &talker.lives).filter(|life| life.ended.is_some()).count()
    }

    /// Wait for that many more of them, of which there must be no other.
    fn ended_since(&self, before: usize, wanted: usize) -> usize {
        wait("clients to be cut off", || self.ended() >= before + wanted);
        thread::sleep(Duration::from_millis(200));
        let ended = self.ended() - before;
        assert!(ended <= wanted + 1, "{ended} and not {wanted} were cut off");
        ended
    }

    /// Nobody says any more, and all who were there from first to last have heard all.
    fn hushed(&self) -> World {
        self.world().is_quiet = true;
        let begun = Instant::now();
        loop {
            let lacks = self.world().first_that_lacks(); // nobody waits for this lock meanwhile
            let Some((one, heard, said)) = lacks else { break };
            assert!(begun.elapsed() < DEADLINE, "{one} has heard {heard} of {said} lines");
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(Duration::from_millis(300)); // and not twice
        self.world().clone()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.remote.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

impl Talker {
    fn is_in(&self) -> bool {
        self.lives.last().is_some_and(|life| life.entered.is_some() && life.ended.is_none())
    }
}

impl World {
    /// Who has had one connection.
    fn stayed(&self) -> Vec<usize> {
        let stayed = |talker: &Talker| talker.lives.len() == 1 && talker.is_in();
        (0..self.talkers.len()).filter(|number| stayed(&self.talkers[*number])).collect()
    }

    /// One who has not heard all yet, how many, and of how many.
    fn first_that_lacks(&self) -> Option<(usize, u32, u32)> {
        let stayed: HashSet<usize> = self.stayed().into_iter().collect();
        let said: u32 = stayed.iter().map(|one| self.talkers[*one].said).sum();
        let counts = stayed.iter().filter(|one| **one < self.founders).map(|one| {
            let heard = self.talkers[*one].lives[0].heard.iter().filter(|(who, _)| stayed.contains(who));
            (*one, heard.count() as u32, said - self.talkers[*one].said)
        });
        counts.into_iter().find(|(_, heard, said)| heard < said)
    }

    /// Of each speaker, which lines were heard, the last one not included. None is there twice, and none is missing
    /// between them, but for what somebody had said just before his connection ended.
    fn in_turn(&self, life: &Life, lost: &mut HashSet<(usize, u32)>) -> HashMap<usize, (u32, u32)> {
        let mut counts = HashMap::new();
        for (who, number) in &life.heard {
            let count = counts.entry(*who).or_insert((*number, *number));
            if count.1 < *number {
                let is_on_another = self.talkers[*who].lives.iter().any(|life| life.first == *number);
                assert!(is_on_another, "{} of {who} is missing before {number}", count.1);
                lost.extend((count.1..*number).map(|number| (*who, number)));
                count.1 = *number;
            }
            assert_eq!(count.1, *number, "of {who}");
            count.1 += 1;
        }
        counts
    }

    fn checked(&self) -> String {
        let stayed = self.stayed();
        let old: Vec<usize> = stayed.iter().copied().filter(|one| *one < self.founders).collect();
        assert!(old.len() + 1 >= self.founders / 3, "{} stayed", old.len());
        let (mut lines, mut lost) = (0, HashSet::new());
        for one in &old {
            let counts = self.in_turn(&self.talkers[*one].lives[0], &mut lost);
            for other in stayed.iter().filter(|other| *other != one) {
                let (said, none) = (self.talkers[*other].said, (0, 0));
                let heard = counts.get(other).unwrap_or(&none);
                assert_eq!((heard.0, heard.1), (0, said), "{one} heard these of {other}");
                lines += said;
            }
        }
        // One order for all, also of the lines of those who did not stay.
        if !self.was_cut {
            let heard = |one: usize, other: usize| {
                let heard = &self.talkers[one].lives[0].heard;
                heard.iter().filter(move |(who, _)| *who != one && *who != other)
            };
            for one in &old {
                assert!(heard(*one, old[0]).eq(heard(old[0], *one)), "another order for {one}");
            }
        }
        // Who has had several connections has heard all on each, from its first line to its last.
        let (mut missed, mut nowhere, mut longest) = (0, 0, Duration::ZERO);
        for talker in self.talkers.iter().filter(|talker| talker.lives.len() > 1) {
            let mut next = HashMap::new();
            missed += old.iter().map(|one| i64::from(self.talkers[*one].said)).sum::<i64>();
            for life in &talker.lives {
                for (who, (from, to)) in
                    self.in_turn(life, &mut lost).into_iter().filter(|(who, _)| old.contains(who))
                {
                    let before = next.insert(who, to).unwrap_or(0);
                    assert!(from >= before, "twice");
                    missed -= i64::from(to - from);
                }
            }
            // Since when it was out; there may be connections that led nowhere.
            let mut out = None;
            for life in &talker.lives {
                if let (Some(entered), Some(out)) = (life.entered, out.take_if(|_| life.entered.is_some())) {
                    longest = longest.max(entered - out);
                }
                nowhere += usize::from(life.entered.is_none());
                out = out.or(life.ended);
            }
        }
        assert!(longest < BACK, "one was back only after {longest:?}");
        let cut = if self.was_cut { "; the room was in parts for a while" } else { "" };
        format!(
            "{} stayed, and heard {lines} lines of each other; the others were back within {longest:.1?}, \
             missed {missed} lines, lost {} of their own, after {nowhere} connections that led nowhere{cut}",
            old.len(),
            lost.len()
        )
    }
}

thread_local! {
    /// Of the loop, in the order of their numbers.
    static CLIENTS: std::cell::RefCell<Vec<Client>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn begin(map: &mut ChannelMap, world: Arc<Mutex<World>>, address: String, number: usize) {
    let waits =
        Backoff::default().with_first(Duration::from_millis(100)).with_longest(Duration::from_millis(500));
    let make = move |_: &mut ChannelMap, _: Option<&Reason>| {
        let ears = Ears { world: world.clone(), number };
        Some(ChatDispatcher::new("\r\n", ears).unwrap())
    };
    let client = reconnect::connect(map, address, waits, make).unwrap();
    CLIENTS.with_borrow_mut(|clients| clients.push(client));
}

/// The next one says his next line.
fn talk(map: &mut ChannelMap, world: &Mutex<World>, turn: usize) {
    let mut world = world.lock().unwrap();
    let number = turn % world.talkers.len().max(1);
    if world.is_quiet || !world.talkers.get(number).is_some_and(Talker::is_in) {
        return;
    }
    let token = CLIENTS.with_borrow(|clients| clients[number].token());
    let Some(Ok(mut ch)) = token.map(|token| map.channel(token)) else { return };
    if ch.push(format!("{number} {}\n", world.talkers[number].said).as_bytes()).is_ok() {
        world.talkers[number].said += 1;
    }
}

struct Ears {
    world: Arc<Mutex<World>>,
    number: usize,
}

impl Ears {
    fn life<R>(&self, f: impl FnOnce(&mut Life) -> R) -> R {
        f(self.world.lock().unwrap().talkers[self.number].lives.last_mut().unwrap())
    }
}

impl Chat for Ears {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        {
            let talker = &mut self.world.lock().unwrap().talkers[self.number];
            let life = Life { first: talker.said, ..Life::default() };
            talker.lives.push(life);
        }
        ch.push(b"/who\n")
    }

    fn found_terminator(&mut self, _: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
        let line = std::str::from_utf8(line).unwrap();
        if line.starts_with("* here: ") {
            self.life(|life| life.entered = Some(Instant::now()));
        } else if line == "* cut off from the other nodes" {
            self.world.lock().unwrap().was_cut = true;
        } else if !line.starts_with("* ") {
            let mut numbers =
                line.split_once(": ").unwrap().1.split(' ').map(|number| number.parse().unwrap());
            let (who, which) = (numbers.next().unwrap(), numbers.next().unwrap());
            self.life(|life| life.heard.push((who as usize, which)));
        }
        Ok(())
    }

    fn handle_eof(&mut self, _: &mut ChatChannel<'_>, _: &[u8]) -> io::Result<Eof> {
        Ok(Eof::Close)
    }

    fn handle_close(&mut self, _: &mut ChatChannel<'_>, _: &Reason) {
        let mut world = self.world.lock().unwrap();
        if let Some(life) = world.talkers[self.number].lives.last_mut() {
            life.ended.get_or_insert_with(Instant::now);
        }
    }
}

// The processes.

fn can_be_had(program: &str, version: &str) -> bool {
    let is_there = Command::new(program).arg(version).stdout(Stdio::null()).status().is_ok();
    assert!(is_there || std::env::var_os("CI").is_none(), "there is no {program}");
    if !is_there {
        println!("skipped: there is no {program}");
    }
    is_there
}

struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let dir = std::env::temp_dir().join(format!("dl-deploy-{}-{}", std::process::id(), free_port()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Redis {
    child: Option<Child>,
    port: u16,
    dir: PathBuf,
}

impl Redis {
    fn begin(&mut self) {
        let mut process = Command::new("redis-server");
        process.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        process.arg("--port").arg(self.port.to_string()).arg("--dir").arg(&self.dir);
        self.child = Some(process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait("Redis to answer", || {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
            let mut answer = [0; 7];
            stream.write_all(b"PING\r\n").is_ok()
                && stream.read_exact(&mut answer).is_ok()
                && answer[0] == b'+'
        });
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Node {
    child: Child,
    address: String,
    stats: String,
}

impl Node {
    /// Where one was before, or anywhere. One of the same name that is there is taken over.
    fn start(dir: &Dir, redis: &Redis, name: &str, place: Option<(&str, &str)>) -> Node {
        let (address, stats) = place.unwrap_or(("127.0.0.1:0", "127.0.0.1:0"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_chat_server"));
        command.args(["--bus", &format!("redis://127.0.0.1:{}", redis.port), "--node", name]);
        command.args(["--proxy-protocol", "--stats", stats, "--drain", "10"]);
        command.arg("--take-over").arg(dir.0.join(name)).arg(address);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut address, mut stats) = (None, None);
        while address.is_none() || stats.is_none() {
            let line = lines.next().expect("a node does not start").unwrap();
            match line.split_once(" on ") {
                Some(("listening", at)) => address = Some(at.to_owned()),
                Some(("stats", at)) => stats = Some(at.to_owned()),
                _ => panic!("{line}"),
            }
        }
        Node { child, address: address.unwrap(), stats: stats.unwrap() }
    }

    fn signal(&self, signal: &str) {
        signal_to(&self.child, signal);
    }

    fn has_ended(mut self) {
        let mut status = None;
        wait("a node to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The columns of `show stat`: sessions now, and whether the node is up.
const SESSIONS: usize = 4;
const STATUS: usize = 17;

/// A master process, and its workers.
struct HaProxy {
    child: Child,
    address: String,
    admin: PathBuf,
}

impl HaProxy {
    fn start(dir: &Dir, nodes: [&Node; 3]) -> HaProxy {
        let (address, admin) = (format!("127.0.0.1:{}", free_port()), dir.0.join("admin.sock"));
        let mut command = Command::new("haproxy");
        command.args(["-W", "-db", "-f"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/haproxy.cfg"));
        command.env("CHAT_RUN", &dir.0).env("CHAT_BIND", &address);
        for (name, node) in ["A", "B", "C"].iter().zip(nodes) {
            command.env(format!("CHAT_{name}"), &node.address);
            command.env(format!("CHAT_{name}_STATS"), node.stats.rsplit(':').next().unwrap());
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let front = HaProxy { child, address, admin };
        wait("HAProxy to be there, and the nodes to be well", || {
            ["a", "b", "c"].iter().all(|node| front.of(node, STATUS) == "UP")
        });
        front
    }

    fn ask(&self, question: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = UnixStream::connect(&self.admin) {
            let _ = stream.write_all(format!("{question}\n").as_bytes());
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    /// What it says of a node.
    fn of(&self, node: &str, column: usize) -> String {
        let stat = self.ask("show stat");
        let line = stat.lines().find(|line| line.starts_with(&format!("nodes,{node},")));
        line.and_then(|line| line.split(',').nth(column)).unwrap_or_default().to_owned()
    }

    /// Another worker has the listener; the old one keeps its connections.
    fn reload(&mut self) {
        let pid = |info: String| info.lines().find(|line| line.starts_with("Pid: ")).map(str::to_owned);
        let before = pid(self.ask("show info"));
        signal_to(&self.child, "USR2");
        wait("another worker", || pid(self.ask("show info")).is_some_and(|now| Some(now) != before));
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // The master ends its workers, also old ones; if it is killed, they end by themselves.
        signal_to(&self.child, "TERM");
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal_to(child: &Child, signal: &str) {
    let kill = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[track_caller]
fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < DEADLINE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
