//! `chat_server --bus`: nodes as processes, with a `redis-server` of the test between them. Without `redis-server` the
//! tests say so and pass, unless `CI` is set.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

struct Redis {
    child: Option<Child>,
    port: u16,
    dir: PathBuf,
}

impl Redis {
    fn start() -> Option<Redis> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "there is no redis-server");
            println!("skipped: there is no redis-server");
            return None;
        }
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("dl-bus-{}-{}", std::process::id(), SERVERS.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut redis = Redis { child: None, port, dir };
        redis.begin();
        Some(redis)
    }

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

    fn signal(&self, signal: &str) {
        signal_to(self.child.as_ref().unwrap(), signal);
    }

    /// One command, as on a command line.
    fn tell(&self, words: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("SELECT 1\r\n{words}\r\n").as_bytes()).unwrap();
        stream.read_exact(&mut [0; 9]).unwrap();
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/1", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

struct Node {
    child: Child,
    address: String,
}

impl Node {
    fn start(args: &[&str]) -> Node {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chat_server"));
        command
            .args(args)
            .arg("127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").expect(&line).to_owned();
        Node { child, address }
    }

    /// Node `b` speaks RESP2.
    fn on(redis: &Redis, name: &str) -> Node {
        let protocol = if name == "b" { 2 } else { 3 };
        Node::start(&["--bus", &format!("{}?protocol={protocol}", redis.url()), "--node", name])
    }

    fn join(&self) -> Client {
        let mut client = Client::new(&self.address);
        client.say("/who");
        let here = client.wait_for(|line| line.starts_with("* here: "));
        client.name = here.rsplit([' ', ',']).next().unwrap().to_owned();
        client
    }

    fn signal(&self, signal: &str) {
        signal_to(&self.child, signal);
    }

    fn end(self) {
        self.signal("TERM");
        self.has_ended();
    }

    fn has_ended(mut self) {
        let mut status = None;
        wait("the node to end", || {
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

/// All that it hears is kept.
struct Client {
    stream: TcpStream,
    heard: Arc<Mutex<Vec<String>>>,
    /// How much of it `wait_for` has passed.
    passed: usize,
    name: String,
}

impl Client {
    fn new(address: &str) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (from, to) = (BufReader::new(stream.try_clone().unwrap()), heard.clone());
        thread::spawn(move || {
            for line in from.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                to.lock().unwrap().push(line.strip_suffix('\r').expect("a line ends in both").to_owned());
            }
        });
        Client { stream, heard, passed: 0, name: String::new() }
    }

    fn say(&mut self, line: impl AsRef<str>) {
        self.stream.write_all(format!("{}\n", line.as_ref()).as_bytes()).unwrap();
    }

    /// The next line that is like that; those before it are passed over.
    #[track_caller]
    fn wait_for(&mut self, is: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            {
                let heard = self.heard.lock().unwrap();
                if let Some(at) = heard[self.passed..].iter().position(|line| is(line)) {
                    self.passed += at + 1;
                    return heard[self.passed - 1].clone();
                }
                let late = begun.elapsed() > DEADLINE;
                assert!(
                    !late,
                    "{} heard no such line: {:?}",
                    self.name,
                    heard[self.passed..].iter().rev().take(20)
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[track_caller]
    fn hears(&mut self, line: &str) {
        self.wait_for(|heard| heard == line);
    }

    fn who(&mut self) -> Vec<String> {
        self.say("/who");
        let here = self.wait_for(|line| line.starts_with("* here: "));
        here["* here: ".len()..].split(", ").map(str::to_owned).collect()
    }

    /// What was said so far, without the `*` lines.
    fn talk(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().filter(|line| !line.starts_with('*')).cloned().collect()
    }

    fn count(&self, line: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|heard| *heard == line).count()
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
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_room_over_three_nodes() {
    let Some(redis) = Redis::start() else { return };
    let nodes = ["a", "b", "c"].map(|name| Node::on(&redis, name));
    let [mut one, mut two, mut three] = [0, 1, 2].map(|i| nodes[i].join());
    assert_eq!([&one, &two, &three].map(|client| client.name.as_str()), ["guest1", "guest2", "guest3"]);
    one.hears("* guest2 joined");
    one.hears("* guest3 joined");
    two.say("hello");
    one.hears("guest2: hello");
    three.hears("guest2: hello");
    one.say("/name ann");
    two.hears("* guest1 is now ann");
    // Taken on another node, and bad.
    for name in ["ann", "guest3", "two words", ""] {
        two.say(format!("/name {name}"));
        two.hears("* bad name");
    }
    // In the order in which it was said.
    two.say("/name bob\nI am bob\n/who\n/name ann\n/nonsense\n/name !");
    for line in ["* here: ann, bob, guest3", "* bad name", "* unknown command", "* bad name"] {
        two.hears(line);
    }
    three.hears("* guest2 is now bob");
    three.hears("bob: I am bob");
    assert_eq!(three.who(), ["ann", "bob", "guest3"]);
    one.stream.write_all(b"no line feed").unwrap();
    one.stream.shutdown(Shutdown::Write).unwrap();
    three.hears("ann: no line feed");
    three.hears("* ann left");
    assert_eq!(two.count("bob: I am bob"), 0, "nobody hears himself");
    // Who goes hears the answers to what was asked before, and what is said after that is not heard.
    for (end, last) in [("/quit\nnever said\n", false), ("", true)] {
        let mut short = nodes[0].join();
        short.say("gone soon\n/who\n/name bob");
        short.stream.write_all(end.as_bytes()).unwrap();
        if last {
            short.stream.shutdown(Shutdown::Write).unwrap();
        }
        short.hears(&format!("* here: bob, guest3, {}", short.name));
        short.hears("* bad name");
        three.hears(&format!("{}: gone soon", short.name));
        three.hears(&format!("* {} left", short.name));
    }
    assert!(three.talk().iter().all(|line| !line.contains("never said")));
    // A node that ends takes its clients with it, at once, and its last words are heard.
    let [a, b, c] = nodes;
    let begun = Instant::now();
    two.say("last words");
    three.hears("bob: last words");
    b.end();
    three.hears("* bob left");
    assert!(begun.elapsed() < Duration::from_secs(4), "not only when its lease is over");
    assert_eq!(three.who(), ["guest3"]);
    // One that is new knows who is there.
    let d = Node::on(&redis, "d");
    let mut four = d.join();
    assert_eq!(four.who(), ["guest3", &four.name.clone()]);
    // What a name was is free again.
    four.say("/name bob");
    three.hears(&format!("* {} is now bob", four.name));
    for node in [a, c, d] {
        node.end();
    }
}

/// Redis is killed and comes back, three times.
#[test]
fn redis_restarted_under_load_loses_no_line_and_keeps_one_order() {
    one_order_in_spite_of(3, |redis| {
        redis.kill();
        thread::sleep(Duration::from_millis(200));
        redis.begin();
    });
}

/// All connections to Redis are cut, again and again: what was under way was done, or not.
#[test]
fn connections_that_are_cut_under_load_lose_no_line_and_keep_one_order() {
    one_order_in_spite_of(20, |redis| {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
        stream.write_all(b"CLIENT KILL TYPE normal SKIPME yes\r\n").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
    });
}

/// The nodes go on without it, and each line arrives once all the same.
#[test]
fn a_redis_that_is_away_for_long_under_load_loses_no_line() {
    let Some(redis) = Redis::start() else { return };
    let away = |redis: &mut Redis| {
        redis.kill();
        thread::sleep(Duration::from_secs(4));
        redis.begin();
    };
    assert!(!talk_under_load(redis, 1, away), "nobody was cut off");
}

/// On a machine that is so busy that Redis is away for longer than the room waits, there may be several orders; then it
/// is tried again.
fn one_order_in_spite_of(times: usize, disturb: impl Fn(&mut Redis)) {
    for _ in 0..5 {
        let Some(redis) = Redis::start() else { return };
        if talk_under_load(redis, times, &disturb) {
            return;
        }
        println!("once more: it was away for too long");
    }
    panic!("it was always away for too long");
}

/// Three speak as fast as they can, one listens on each node, and something is disturbed, so many times. Each line
/// arrives once; if nobody was cut off, which is returned, in one order for all.
fn talk_under_load(mut redis: Redis, times: usize, disturb: impl Fn(&mut Redis)) -> bool {
    const LINES: usize = 4000;
    let nodes = ["a", "b", "c"].map(|name| Node::on(&redis, name));
    let mut listeners = [0, 1, 2].map(|i| nodes[i].join());
    let speakers = [0, 1, 2].map(|i| nodes[i].join());
    listeners[0].hears(&format!("* {} joined", speakers[2].name));
    let names = speakers.each_ref().map(|speaker| speaker.name.clone());
    let begun = Instant::now();
    thread::scope(|scope| {
        let writers: Vec<_> = speakers
            .iter()
            .map(|speaker| {
                let mut stream = speaker.stream.try_clone().unwrap();
                scope.spawn(move || {
                    for number in 0..LINES {
                        stream.write_all(format!("{number}\n").as_bytes()).unwrap();
                        if number % 20 == 0 {
                            thread::sleep(Duration::from_millis(15));
                        }
                    }
                })
            })
            .collect();
        for part in 1..=times {
            wait("a part of the lines", || listeners[0].talk().len() >= part * 2 * LINES / times);
            disturb(&mut redis);
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    for listener in &listeners {
        wait("all lines", || listener.talk().len() >= 3 * LINES);
    }
    println!("{} lines in {:?}", 3 * LINES, begun.elapsed());
    let heard = listeners.each_ref().map(|listener| listener.talk());
    let cut =
        listeners.iter().map(|listener| listener.count("* cut off from the other nodes")).sum::<usize>();
    for talk in &heard {
        assert_eq!(talk.len(), 3 * LINES);
        let mut next = HashMap::new();
        for line in talk {
            let (name, number) = line.split_once(": ").unwrap();
            let next = next.entry(name).or_insert(0);
            assert_eq!(number.parse::<usize>().unwrap(), *next, "of {name}");
            *next += 1;
        }
        assert!(names.iter().all(|name| next[name.as_str()] == LINES));
    }
    if cut > 0 {
        return false;
    }
    assert!(heard[0] == heard[1] && heard[1] == heard[2], "one order for all");
    // Speakers hear the others in that order, too.
    for (speaker, name) in speakers.iter().zip(&names) {
        wait("what a speaker hears", || speaker.talk().len() >= 2 * LINES);
        let others: Vec<_> = heard[0].iter().filter(|line| !line.starts_with(&format!("{name}: "))).collect();
        assert!(speaker.talk().iter().eq(others));
    }
    true
}

/// More is said than is kept for the others: the first of it arrives, once, and the room is told how much did not.
#[test]
fn what_is_kept_for_the_others_has_a_limit() {
    const SAID: usize = 10_500;
    let Some(mut redis) = Redis::start() else { return };
    let nodes = ["a", "b"].map(|name| Node::on(&redis, name));
    let [mut speaker, mut near, mut far] = [nodes[0].join(), nodes[0].join(), nodes[1].join()];
    speaker.hears("* guest3 joined");
    redis.kill();
    near.hears("* cut off from the other nodes");
    let lines: String = (0..SAID).map(|number| format!("{number}\n")).collect();
    speaker.stream.write_all(lines.as_bytes()).unwrap();
    near.hears(&format!("guest1: {}", SAID - 1));
    // There is no room for who comes now, either; and the others are told all the same.
    let mut new = nodes[0].join();
    assert_eq!(new.name, "guest4");
    new.say("/name late");
    near.hears("* guest4 is now late");
    redis.begin();
    let line = near.wait_for(|line| line.contains("too many"));
    assert_eq!(line, "* 500 lines were too many to be kept for them");
    wait("all to be known", || far.who() == near.who() && far.who().contains(&"late".to_owned()));
    speaker.say("and on");
    far.hears("guest1: and on");
    near.hears("guest1: and on");
    let kept = (0..SAID - 500).map(|number| format!("guest1: {number}")).chain(["guest1: and on".to_owned()]);
    assert!(far.talk().into_iter().eq(kept));
    assert_eq!(near.talk().len(), SAID + 1);
}

/// A Redis that hangs, for less time than the room waits, and for more.
#[test]
fn a_redis_that_hangs_is_waited_for_and_then_given_up() {
    const LINES: usize = 20_000;
    let Some(redis) = Redis::start() else { return };
    let nodes = ["a", "b"].map(|name| Node::on(&redis, name));
    let [mut speaker, mut near, mut far] = [nodes[0].join(), nodes[0].join(), nodes[1].join()];
    speaker.hears("* guest3 joined");
    redis.signal("STOP");
    let mut stream = speaker.stream.try_clone().unwrap();
    let said = thread::spawn(move || {
        let lines: String = (0..LINES).map(|number| format!("{number:01000}\n")).collect();
        stream.write_all(lines.as_bytes()).unwrap();
    });
    thread::sleep(Duration::from_secs(1));
    assert!(!said.is_finished(), "more is owed than is good: who speaks is not read");
    assert!(near.talk().is_empty(), "it is waited for");
    redis.signal("CONT");
    said.join().unwrap();
    for client in [&near, &far] {
        wait("all lines", || client.talk().len() >= LINES);
        assert!(client.talk().into_iter().eq((0..LINES).map(|number| format!("guest1: {number:01000}"))));
    }
    redis.signal("STOP");
    speaker.say("hanging");
    near.hears("* cut off from the other nodes");
    near.hears("guest1: hanging");
    redis.signal("CONT");
    near.hears("* back with the other nodes");
    far.hears("guest1: hanging");
    far.say("I am here");
    near.hears("guest3: I am here");
    assert_eq!((near.count("guest1: hanging"), far.count("guest1: hanging")), (1, 1));
}

#[test]
fn without_redis_the_room_goes_on_within_each_node() {
    let Some(mut redis) = Redis::start() else { return };
    let nodes = ["a", "b", "c"].map(|name| Node::on(&redis, name));
    let mut clients: Vec<[Client; 2]> = nodes.iter().map(|node| [node.join(), node.join()]).collect();
    clients.iter_mut().for_each(|pair| pair[0].hears("* guest6 joined"));
    redis.kill();
    // Held back at first, then shown on the own node.
    for pair in &mut clients {
        let name = pair[0].name.clone();
        pair[0].say("in the dark");
        pair[1].hears("* cut off from the other nodes");
        pair[1].hears(&format!("{name}: in the dark"));
    }
    // Two let the same name in, and newcomers have numbers that others have.
    for pair in &mut clients[..2] {
        pair[0].say("/name dup\nI am dup");
        pair[1].hears("dup: I am dup");
    }
    let mut new: Vec<Client> = nodes.iter().map(Node::join).collect();
    let named: Vec<&str> = new.iter().map(|client| client.name.as_str()).collect();
    assert_eq!(named, ["guest7"; 3]);
    for (pair, client) in clients.iter_mut().zip(&mut new) {
        client.say("new here");
        pair[1].hears("guest7: new here");
        pair[1].say("/name guest3");
    }
    redis.begin();
    for pair in &mut clients {
        pair[1].hears("* back with the other nodes");
    }
    // One of each name has no suffix, and all know the same.
    let suffixed = |names: &[String], name: &str| -> Vec<String> {
        let mut all: Vec<String> = names.iter().filter(|one| one.starts_with(name)).cloned().collect();
        all.sort();
        all
    };
    wait("all to be back", || {
        let names = clients.iter_mut().map(|pair| pair[0].who()).collect::<Vec<_>>();
        names[0].len() == 9 && names[0] == names[1] && names[1] == names[2]
    });
    let names = clients[0][0].who();
    let dups = suffixed(&names, "dup");
    assert!(dups == ["dup", "dup-a"] || dups == ["dup", "dup-b"], "{names:?}");
    assert_eq!(suffixed(&names, "guest7").len(), 3, "{names:?}");
    clients[0][0].say("the light");
    for pair in &mut clients {
        pair[1].wait_for(|line| line.ends_with(": the light"));
        for text in ["in the dark", "new here"] {
            let count = pair[1].talk().iter().filter(|line| line.ends_with(text)).count();
            assert_eq!(count, 3, "each line once: {:?}", pair[1].talk());
        }
        assert_eq!(pair[1].talk().iter().filter(|line| line.ends_with(": I am dup")).count(), 2);
    }
    // Who was given a suffix is told so.
    let told = clients.iter().filter(|pair| {
        ["a", "b"]
            .iter()
            .any(|node| pair[0].count(&format!("* dup is now dup-{node}")) == 1 && pair[1].passed > 0)
    });
    assert!(told.count() >= 1);
}

#[test]
fn the_clients_of_a_killed_node_leave_after_its_lease() {
    let Some(redis) = Redis::start() else { return };
    let nodes = ["a", "b", "c"].map(|name| Node::on(&redis, name));
    let mut clients = [0, 1, 2].map(|i| nodes[i].join());
    clients[2].say("before");
    clients[0].hears("guest3: before");
    let [a, b, mut c] = nodes;
    c.child.kill().unwrap();
    clients[1].say("meanwhile");
    clients[0].hears("guest2: meanwhile");
    assert_eq!(clients[0].who().len(), 3);
    clients[0].hears("* guest3 left");
    clients[1].hears("* guest3 left");
    assert_eq!(clients[0].who(), ["guest1", "guest2"]);
    // The same node again is another one.
    let again = Node::on(&redis, "c");
    let mut client = again.join();
    assert_eq!(client.who(), ["guest1", "guest2", "guest4"]);
    assert_eq!(clients[0].count("* guest3 left"), 1, "and not once by each of the others");
    drop((a, b));
}

/// It is there, and takes nothing: its memory is full, or the stream is something else.
#[test]
fn a_redis_that_refuses_is_as_good_as_none() {
    let Some(redis) = Redis::start() else { return };
    let nodes = ["a", "b"].map(|name| Node::on(&redis, name));
    let [mut speaker, mut near, mut far] = [nodes[0].join(), nodes[0].join(), nodes[1].join()];
    speaker.hears("* guest3 joined");
    let tell = |words: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
        stream.write_all(format!("SELECT 1\r\n{words}\r\n").as_bytes()).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
    };
    let full = (["CONFIG SET maxmemory 1"].as_slice(), ["CONFIG SET maxmemory 0"].as_slice());
    let other =
        (["RENAME chat:stream x", "SET chat:stream y"].as_slice(), ["RENAME x chat:stream"].as_slice());
    for (round, (begin, end)) in [full, other].into_iter().enumerate() {
        let line = format!("guest1: refused {round}");
        begin.iter().for_each(|words| tell(words));
        speaker.say(&line["guest1: ".len()..]);
        near.hears("* cut off from the other nodes");
        near.hears(&line);
        end.iter().for_each(|words| tell(words));
        near.hears("* back with the other nodes");
        far.hears(&line);
        far.say(format!("heard {round}"));
        near.hears(&format!("guest3: heard {round}"));
        for (client, count) in [(&near, round + 1), (&speaker, round + 1)] {
            assert_eq!(client.count("* cut off from the other nodes"), count, "said once");
        }
        assert_eq!((near.count(&line), far.count(&line)), (1, 1));
    }
}

/// Without its file, or flushed by somebody: the nodes begin anew, with the same clients and names.
#[test]
fn a_redis_that_has_forgotten_everything_is_told_again() {
    let Some(mut redis) = Redis::start() else { return };
    let nodes = ["a", "b"].map(|name| Node::on(&redis, name));
    let mut clients = [0, 1].map(|i| nodes[i].join());
    clients[0].say("/name ann");
    clients[1].hears("* guest1 is now ann");
    clients[1].say("before");
    clients[0].hears("guest2: before");
    for round in 0..2 {
        match round {
            0 => {
                redis.kill();
                std::fs::remove_dir_all(redis.dir.join("appendonlydir")).unwrap();
                redis.begin();
            }
            _ => {
                let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
                stream.write_all(b"FLUSHALL\r\n").unwrap();
                stream.read_exact(&mut [0; 5]).unwrap();
            }
        }
        for (speaker, listener) in [(0, 1), (1, 0)] {
            clients[speaker].say(format!("round {round}"));
            clients[listener].wait_for(|line| line.ends_with(&format!(": round {round}")));
        }
        let names = |client: &mut Client| {
            let mut names = client.who();
            names.sort();
            names
        };
        wait("the names", || clients.iter_mut().all(|client| names(client) == ["ann", "guest2"]));
        clients[1].say("/name ann");
        clients[1].hears("* bad name");
        // Known to Redis, too, for whoever comes later.
        wait("the names in Redis", || {
            let late = Node::on(&redis, "late");
            let mut client = late.join();
            let names = names(&mut client);
            names.len() == 3 && names.contains(&"ann".to_owned()) && names.contains(&"guest2".to_owned())
        });
    }
    for client in &clients {
        assert_eq!(
            client.talk().iter().filter(|line| line.contains("round")).count(),
            2,
            "{:?}",
            client.talk()
        );
    }
}

/// The listener is the successor's before the old one drains, which must end the bus all the same.
#[test]
fn a_node_that_is_handed_over_takes_leave_at_once() {
    let Some(redis) = Redis::start() else { return };
    let (url, path) = (redis.url(), redis.dir.join("take-over"));
    let args = ["--bus", &url, "--node", "a", "--drain", "30", "--take-over", path.to_str().unwrap()];
    let other = Node::on(&redis, "b");
    let mut stays = other.join();
    for has_client in [true, false] {
        let old = Node::start(&args);
        let client = has_client.then(|| old.join());
        let begun = Instant::now();
        let new = Node::start(&args);
        assert_eq!(new.address, old.address);
        if let Some(client) = client {
            stays.hears(&format!("* {} left", client.name));
        }
        old.has_ended();
        assert!(begun.elapsed() < Duration::from_secs(15), "not only at the end of its time");
        assert_eq!(new.join().who().len(), 2);
        new.end();
    }
}

/// What is said until a client is closed goes out, however long the old node takes.
#[test]
fn who_speaks_while_his_node_is_handed_over_is_heard() {
    let Some(redis) = Redis::start() else { return };
    let (url, path) = (redis.url(), redis.dir.join("take-over"));
    let args = ["--bus", &url, "--node", "a", "--drain", "2", "--take-over", path.to_str().unwrap()];
    let (old, other) = (Node::start(&args), Node::on(&redis, "b"));
    let (mut stays, speaker) = (other.join(), old.join());
    let said = Arc::new(AtomicU32::new(0));
    let (count, mut stream) = (said.clone(), speaker.stream.try_clone().unwrap());
    let talk = thread::spawn(move || {
        while stream.write_all(format!("{}\n", count.load(Ordering::Relaxed)).as_bytes()).is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(2)); // less than what looks like an end
        }
    });
    stays.hears(&format!("{}: 100", speaker.name));
    let new = Node::start(&args);
    let before = said.load(Ordering::Relaxed) as usize;
    old.has_ended();
    talk.join().unwrap();
    stays.hears(&format!("* {} left", speaker.name));
    let (said, heard) = (said.load(Ordering::Relaxed) as usize, stays.talk());
    assert!(heard.len() > before + (said - before) / 2, "{before}, {said}, {}", heard.len());
    assert!(heard.iter().enumerate().all(|(number, line)| *line == format!("{}: {number}", speaker.name)));
    new.end();
}

/// Put back from an old copy: what was read is not read again, although the stream ends before that.
#[test]
fn a_redis_that_has_gone_back_in_time_shows_no_line_twice() {
    let Some(mut redis) = Redis::start() else { return };
    let nodes = ["a", "b"].map(|name| Node::on(&redis, name));
    let mut clients = [0, 1].map(|i| nodes[i].join());
    clients[0].hears("* guest2 joined");
    let (now, copy) = (redis.dir.join("appendonlydir"), redis.dir.join("copy"));
    for (line, is_copied) in [("before the copy", true), ("after the copy", false)] {
        clients[0].say(line);
        clients[1].hears(&format!("guest1: {line}"));
        if is_copied {
            std::fs::create_dir(&copy).unwrap();
            for file in std::fs::read_dir(&now).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
            }
        }
    }
    redis.kill();
    std::fs::remove_dir_all(&now).unwrap();
    std::fs::rename(&copy, &now).unwrap();
    redis.begin();
    thread::sleep(Duration::from_secs(2)); // it is looked at before anybody says anything
    clients[0].say("and on");
    clients[1].hears("guest1: and on");
    assert_eq!(clients[1].talk(), ["guest1: before the copy", "guest1: after the copy", "guest1: and on"]);
    // What was lost may be more than that.
    assert_eq!(clients[1].count("* lines of the other nodes may be missing"), 1);
}

/// Also if its connections have not ended, and its lease has not.
#[test]
fn a_node_that_was_too_slow_for_the_stream_says_so() {
    let Some(redis) = Redis::start() else { return };
    let nodes = ["a", "b"].map(|name| Node::on(&redis, name));
    let mut clients = [0, 1].map(|i| nodes[i].join());
    clients[0].hears("* guest2 joined");
    let mut near = nodes[0].join();
    nodes[1].signal("STOP");
    let lines: String = (0..1000).map(|number| format!("{number}\n")).collect();
    clients[0].stream.write_all(lines.as_bytes()).unwrap();
    near.hears("guest1: 999");
    clients[0].say("all read");
    near.hears("guest1: all read");
    redis.tell("XTRIM chat:stream MAXLEN 300");
    nodes[1].signal("CONT");
    clients[1].hears("* lines of the other nodes may be missing");
    clients[1].wait_for(|line| line == "guest1: all read");
    assert!(clients[1].talk().len() < 1000);
    assert_eq!(clients[1].count("* lines of the other nodes may be missing"), 1);
    assert_eq!(near.count("* lines of the other nodes may be missing"), 0);
}

/// Whatever somebody else puts into the stream: the nodes go on.
#[test]
fn entries_of_others_in_the_stream_stop_no_node() {
    let Some(mut redis) = Redis::start() else { return };
    let nodes = ["a", "b"].map(|name| Node::on(&redis, name));
    let mut clients = [0, 1].map(|i| nodes[i].join());
    clients[0].hears("* guest2 joined");
    for fields in [
        "x y",
        "me \"\" number -1 what line",
        "what joined client x order 18446744073709551615 new guest4294967295",
        "what renamed client \"\\xff\" order 99999999999999999999 new \"\\x00\"",
        "what left client y",
    ] {
        redis.tell(&format!("XADD chat:stream * {fields}"));
    }
    for (speaker, listener) in [(0, 1), (1, 0)] {
        clients[speaker].say("here");
        clients[listener].wait_for(|line| line.ends_with(": here"));
    }
    redis.kill();
    clients[0].hears("* cut off from the other nodes");
    let new = nodes[0].join();
    clients[0].hears(&format!("* {} joined", new.name));
    redis.begin();
    clients[1].hears(&format!("* {} joined", new.name));
}

/// A node that was away for longer than its lease is given up by the others, and comes back.
#[test]
fn a_node_that_was_away_comes_back() {
    let Some(redis) = Redis::start() else { return };
    let nodes = ["a", "b"].map(|name| Node::on(&redis, name));
    let mut clients = [0, 1].map(|i| nodes[i].join());
    clients[0].hears("* guest2 joined");
    nodes[1].signal("STOP");
    clients[1].say("too early");
    clients[0].hears("* guest2 left");
    clients[0].say("/name guest2");
    clients[0].say("said meanwhile");
    assert_eq!(clients[0].who(), ["guest2"]);
    nodes[1].signal("CONT");
    clients[1].hears("guest2: said meanwhile");
    clients[0].hears("* guest2-b joined");
    clients[1].hears("* guest2 is now guest2-b");
    assert_eq!(clients[0].talk(), ["guest2: too early"]);
    assert_eq!(clients[1].who(), ["guest2", "guest2-b"]);
}

#[test]
fn wrong_usage_and_a_bus_that_refuses_are_told() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_chat_server")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for args in [&["--bus", "http://x"][..], &["--node", "x"], &["--bus", "redis://x", "--node", "a-b"]] {
        let (code, stderr) = run(args);
        assert!(code == Some(2) && stderr.contains("usage: chat_server "), "{stderr}");
    }
    let Some(redis) = Redis::start() else { return };
    let wrong = redis.url().replace("//", "//nobody:wrong@");
    let (code, stderr) = run(&["--bus", &wrong, "127.0.0.1:0"]);
    assert!(code == Some(1) && stderr.contains("error: the bus refuses this node: WRONGPASS"), "{stderr}");
}

/// Without a bus it is the example.
#[test]
fn without_a_bus_it_is_a_room_of_its_own() {
    let node = Node::start(&[]);
    let [mut one, mut two] = [node.join(), node.join()];
    one.hears("* guest2 joined");
    one.say("/name guest2\n/name ann\nhello\n/who");
    one.hears("* bad name");
    one.hears("* here: ann, guest2");
    two.hears("* guest1 is now ann");
    two.hears("ann: hello");
    two.say("/quit");
    one.hears("* guest2 left");
    node.end();
}
