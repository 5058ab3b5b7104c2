//! A `redis-server` of the test, and what a client told.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dispatch_loop::ChannelMap;
use dispatch_loop::reconnect::Backoff;
use dispatch_loop_redis::{Cause, Command, Error, Handler, Options, Push, Redis, Server as Facts, Value};

pub const DEADLINE: Duration = Duration::from_secs(60);

/// Killed, and its files removed, when it is dropped.
pub struct Server {
    child: Option<Child>,
    args: Vec<String>,
    pub port: u16,
    pub dir: PathBuf,
}

impl Server {
    /// `None` if there is no `redis-server` here. The arguments follow those that every test has.
    pub fn start(args: &[&str]) -> Option<Server> {
        if Process::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "there is no redis-server");
            println!("skipped: there is no redis-server");
            return None;
        }
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("dl-redis-{}-{}", std::process::id(), SERVERS.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut server = Server { child: None, args, port: free_port(), dir };
        server.begin();
        Some(server)
    }

    /// Start it, or start it again on the same port, with what it has stored.
    pub fn begin(&mut self) {
        let mut process = Process::new("redis-server");
        process.args(["--bind", "127.0.0.1", "--save", "", "--unixsocket", "redis.sock"]);
        process.arg("--port").arg(self.port.to_string()).arg("--dir").arg(&self.dir).args(&self.args);
        let log = std::fs::File::options().append(true).create(true).open(self.dir.join("log")).unwrap();
        process.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let mut child = process.spawn().unwrap();
        let begun = Instant::now();
        while !answers(self.port) {
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none(), "it has ended: {}", log());
            assert!(begun.elapsed() < DEADLINE, "it does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child = Some(child);
    }

    /// End it at once, as the system does when memory runs out.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("redis.sock")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether a server answers a PING, with whatever.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut answer = [0; 64];
    let asked = stream.write_all(b"PING\r\n").and_then(|()| stream.read(&mut answer));
    match asked {
        Ok(length) => length > 0 && !answer.starts_with(b"-LOADING"),
        // One that speaks TLS waits for the handshake.
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// What a client told.
#[derive(Clone, Debug)]
pub enum Event {
    Connected(Facts),
    Disconnected(Cause),
    Gone(Cause),
    Push(Push),
    Room,
}

#[derive(Clone, Default)]
pub struct Told(pub Rc<RefCell<Vec<Event>>>);

impl Told {
    pub fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.0.borrow().iter().filter(|event| is(event)).count()
    }

    pub fn connected(&self) -> usize {
        self.count(|event| matches!(event, Event::Connected(_)))
    }

    pub fn disconnected(&self) -> usize {
        self.count(|event| matches!(event, Event::Disconnected(_)))
    }

    /// Why the last connection or attempt ended.
    pub fn cause(&self) -> Option<Cause> {
        self.0.borrow().iter().rev().find_map(|event| match event {
            Event::Disconnected(cause) => Some(cause.clone()),
            _ => None,
        })
    }

    pub fn gone(&self) -> Option<Cause> {
        self.0.borrow().iter().find_map(|event| match event {
            Event::Gone(cause) => Some(cause.clone()),
            _ => None,
        })
    }

    pub fn messages(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let events = self.0.borrow();
        let pushes = events.iter().filter_map(|event| match event {
            Event::Push(push) => push.message().map(|(channel, words)| (text(channel), text(words))),
            _ => None,
        });
        pushes.collect()
    }
}

impl Handler for Told {
    fn connected(&mut self, _: &mut ChannelMap, redis: &Redis, server: &Facts) {
        assert!(redis.is_ready());
        self.0.borrow_mut().push(Event::Connected(server.clone()));
    }
    fn disconnected(&mut self, _: &mut ChannelMap, _: &Redis, cause: &Cause) {
        self.0.borrow_mut().push(Event::Disconnected(cause.clone()));
    }
    fn gone(&mut self, _: &mut ChannelMap, _: &Redis, cause: &Cause) {
        self.0.borrow_mut().push(Event::Gone(cause.clone()));
    }
    fn push(&mut self, _: &mut ChannelMap, _: &Redis, push: Push) {
        self.0.borrow_mut().push(Event::Push(push));
    }
    fn room(&mut self, _: &mut ChannelMap, _: &Redis) {
        self.0.borrow_mut().push(Event::Room);
    }
}

/// With short waits.
pub fn options() -> Options {
    let (first, longest) = (Duration::from_millis(20), Duration::from_millis(200));
    Options::default().with_backoff(Backoff::default().with_first(first).with_longest(longest))
}

pub fn client(url: &str) -> (ChannelMap, Redis, Told) {
    client_with(url, &options())
}

pub fn client_with(url: &str, options: &Options) -> (ChannelMap, Redis, Told) {
    let mut map = ChannelMap::new().unwrap();
    let told = Told::default();
    let redis = Redis::connect(&mut map, url, options, told.clone()).unwrap();
    (map, redis, told)
}

#[track_caller]
pub fn turn_until(map: &mut ChannelMap, what: &str, mut is: impl FnMut(&mut ChannelMap) -> bool) {
    let begun = Instant::now();
    while !is(map) {
        assert!(begun.elapsed() < DEADLINE, "waited in vain: {what}");
        map.turn(Some(Duration::from_millis(10))).unwrap();
    }
}

/// Call, and wait for the answer.
#[track_caller]
pub fn ask(map: &mut ChannelMap, redis: &Redis, command: impl Into<Command>) -> Result<Value, Error> {
    let answer = Rc::new(RefCell::new(None));
    let to = answer.clone();
    redis.call(map, command, move |_, result| assert!(to.borrow_mut().replace(result).is_none())).unwrap();
    turn_until(map, "an answer", |_| answer.borrow().is_some());
    answer.take().unwrap()
}

#[track_caller]
pub fn wait_ready(map: &mut ChannelMap, redis: &Redis) {
    turn_until(map, "a connection", |_| redis.is_ready());
}

pub fn bytes(text: impl AsRef<[u8]>) -> Value {
    Value::Bytes(text.as_ref().to_vec())
}

pub fn ok() -> Value {
    Value::Status("OK".to_owned())
}

pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// Results in the order in which they came.
pub type Results<T> = Rc<RefCell<Vec<T>>>;
