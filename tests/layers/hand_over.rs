//! A server hands its listeners over to its successor: no client notices, and who fails to take over has changed
//! nothing.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dispatch_loop::hand_over::{self, Connection, Connections, Taken};
use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Remote, Socket, Token};

use crate::support::dirs::Dir;
use crate::support::peers::{limit_time, pattern, read_to_end};
use crate::support::recorder::Log;
use crate::support::turning::{turn_quiet, turn_until};
use crate::support::waiting::{DEADLINE, wait_until};

/// Tells each client its number, and ends.
struct Numbered(u8);

struct Server(u8);

impl Dispatcher for Server {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Numbered(self.0)).map(drop)
    }
}

impl Dispatcher for Numbered {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.push(&[self.0])?;
        ch.close();
        Ok(())
    }
}

/// A server that is ready.
struct Ready {
    address: Address,
    remote: Remote,
}

/// Serve until a successor takes over, as a process would.
fn serve(path: &Path, number: u8, on: &str) -> (JoinHandle<()>, Ready) {
    let (sender, receiver): (Sender<Ready>, Receiver<Ready>) = channel();
    let (path, on) = (path.to_owned(), on.to_owned());
    let thread = thread::spawn(move || {
        let mut map = ChannelMap::new().unwrap();
        let mut taken = hand_over::request(&path).unwrap();
        let server = match taken.take("numbers").pop() {
            Some(listener) => map.add(listener, Server(number)).unwrap(),
            None => map.listen(&*on, Server(number)).unwrap(),
        };
        let address = map.channel(server).unwrap().local_addr().unwrap();
        let remote = map.remote();
        hand_over::offer(&mut map, &path, taken, [("numbers", server.token())], |_| {}).unwrap();
        sender.send(Ready { address, remote }).unwrap();
        dispatch_loop::run(&mut map).unwrap();
    });
    (thread, receiver.recv_timeout(DEADLINE).unwrap())
}

fn ask(address: SocketAddr) -> io::Result<u8> {
    let mut stream = TcpStream::connect(address)?;
    limit_time(&stream);
    let mut number = Vec::new();
    stream.read_to_end(&mut number)?;
    number.first().copied().ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

fn path_in(dir: &Dir) -> PathBuf {
    dir.join("take-over")
}

/// EDGE_CASES 418
#[test]
fn ten_hand_overs_and_no_client_notices() {
    let dir = Dir::new();
    let path = path_in(&dir);
    let (mut old, mut last) = serve(&path, 0, "127.0.0.1:0");
    let address = last.address.ip().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (done, asked) = (done.clone(), asked.clone());
            thread::spawn(move || {
                let mut failed = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    failed.extend(ask(address).err());
                    asked.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
                failed
            })
        })
        .collect();
    for number in 1..=10 {
        let before = asked.load(Ordering::Relaxed);
        let (new, ready) = serve(&path, number, "127.0.0.1:0");
        assert_eq!(ready.address, Address::Ip(address));
        // The predecessor ends by itself: nothing is left to it.
        wait_until("the old one ends", || old.is_finished());
        old.join().unwrap();
        assert_eq!(ask(address).unwrap(), number);
        wait_until("clients go on", || asked.load(Ordering::Relaxed) > before + 20);
        (old, last) = (new, ready);
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        let failed = client.join().unwrap();
        assert!(failed.is_empty(), "{failed:?}");
    }
    last.remote.stop();
    old.join().unwrap();
    assert!(!path.exists(), "the last one leaves its file");
}

/// EDGE_CASES 419
#[test]
fn who_asks_and_is_not_ready_has_changed_nothing() {
    let dir = Dir::new();
    let path = path_in(&dir);
    let (old, ready) = serve(&path, 7, "127.0.0.1:0");
    let address = ready.address.ip().unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut taken = hand_over::request(&path).unwrap();
    assert!(!taken.is_empty());
    assert_eq!(taken.take("other").len(), 0);
    // Another one at the same time.
    assert_eq!(hand_over::request(&path).unwrap_err().kind(), ErrorKind::ResourceBusy);
    assert_eq!(ask(address).unwrap(), 7);
    drop(taken);
    // It was let go: asked again, it answers; and so it does to one that says nothing, or nonsense.
    let silent = UnixStream::connect(&path).unwrap();
    for nonsense in ["taken\n", "hand-over 2\n", "\u{0}\n"] {
        let mut other = UnixStream::connect(&path).unwrap();
        io::Write::write_all(&mut other, nonsense.as_bytes()).unwrap();
        limit_time(&other);
        // Ended, by a reset or not.
        let _ = other.read_to_end(&mut Vec::new());
    }
    let mut again = Taken::default();
    wait_until("it can be asked again", || {
        again = hand_over::request(&path).unwrap_or_default();
        !again.is_empty()
    });
    assert_eq!(again.take("numbers").len(), 1);
    drop((again, silent));
    assert_eq!(ask(address).unwrap(), 7);
    ready.remote.stop();
    old.join().unwrap();
}

/// EDGE_CASES 420
#[test]
fn the_file_of_a_unix_domain_listener_goes_to_the_successor() {
    let dir = Dir::new();
    let (path, socket) = (path_in(&dir), dir.join("server"));
    let on = format!("unix:{}", socket.display());
    let (first, _) = serve(&path, 1, &on);
    let (second, ready) = serve(&path, 2, &on);
    first.join().unwrap();
    let mut stream = UnixStream::connect(&socket).unwrap();
    assert_eq!(read_to_end(&mut stream), [2]);
    ready.remote.stop();
    second.join().unwrap();
    assert!(!socket.exists() && !path.exists());
}

/// EDGE_CASES 421
#[test]
fn where_nobody_is_there_is_nothing_to_take() {
    let dir = Dir::new();
    let path = path_in(&dir);
    assert!(hand_over::request(&path).unwrap().is_empty());
    // A file that a server has left when it was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(hand_over::request(&path).unwrap().is_empty());
    let mut map = ChannelMap::new().unwrap();
    hand_over::offer(&mut map, &path, Taken::default(), [], |_| {}).unwrap();
    assert!(map.is_idle(), "it keeps the loop going");
    let mut other = ChannelMap::new().unwrap();
    let error = hand_over::offer(&mut other, &path, Taken::default(), [], |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

/// Counts the bytes of whole lines, and answers with the count.
#[derive(Default)]
struct Counter {
    read: usize,
    /// Of a line that has begun: the first process puts it back, and waits.
    keeps: bool,
    begun: Vec<u8>,
}

impl Dispatcher for Counter {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            self.begun.extend_from_slice(data);
            let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole > 0 {
                self.read += whole;
                self.begun.drain(..whole);
                ch.push(format!("{}\n", self.read).as_bytes())?;
            }
            if !self.keeps {
                ch.unread(&std::mem::take(&mut self.begun));
                ch.pause_reading();
            }
            Ok(())
        })
    }
}

struct Counters;

impl Connections for Counters {
    fn give(&mut self, map: &mut ChannelMap) -> Vec<(Token, Vec<u8>)> {
        let tokens: Vec<Token> = map.tokens().collect();
        let counted = |token: Token| {
            let counter = map.get(token.typed::<Counter>()).ok()?;
            Some((token, counter.read.to_string().into_bytes()))
        };
        tokens.into_iter().filter_map(counted).collect()
    }

    fn take(&mut self, map: &mut ChannelMap, connection: Connection) -> io::Result<()> {
        let read = std::str::from_utf8(&connection.state).unwrap().parse().unwrap();
        connection.add(map, Counter { read, keeps: true, begun: Vec::new() }).map(drop)
    }
}

struct CounterServer;

impl Dispatcher for CounterServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Counter::default()).map(drop)
    }
}

/// EDGE_CASES 429: two maps are the two processes; the connections are many, and one has much that is unsent.
#[test]
fn connections_go_along_with_what_is_unread_and_unsent() {
    const LARGE: usize = 2 << 20;
    let dir = Dir::new();
    let path = path_in(&dir);
    let mut old = ChannelMap::new().unwrap();
    let server = old.listen("127.0.0.1:0", CounterServer).unwrap();
    let address = old.channel(server).unwrap().local_addr().unwrap().ip().unwrap();
    let listeners = [("counters", server.token())];
    hand_over::offer_with_connections(&mut old, &path, Taken::default(), listeners, Counters, |_| {})
        .unwrap();
    let mut clients: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut client = TcpStream::connect(address).unwrap();
            limit_time(&client);
            io::Write::write_all(&mut client, format!("client {number}\nbeg").as_bytes()).unwrap();
            client
        })
        .collect();
    let log = Log::new();
    let served = |map: &mut ChannelMap| {
        let tokens: Vec<Token> = map.tokens().collect();
        let counted = |token: &Token| map.get(token.typed::<Counter>()).is_ok_and(|c| c.read > 0);
        tokens.iter().filter(|token| counted(token)).count() == 200
    };
    turn_until(&mut old, &log, served);
    turn_quiet(&mut old);
    let token = old.tokens().find(|token| old.get(token.typed::<Counter>()).is_ok()).unwrap();
    let peer = old.channel(token).unwrap().peer_addr().unwrap().ip().unwrap();
    old.channel(token).unwrap().push(&pattern(LARGE)).unwrap();

    // The new process asks on a thread of its own, while the old one turns.
    let asks = thread::spawn({
        let path = path.clone();
        move || hand_over::request(&path).unwrap()
    });
    turn_until(&mut old, &log, |_| asks.is_finished());
    let mut taken = asks.join().unwrap();
    let mut new = ChannelMap::new().unwrap();
    let listener = taken.take("counters").pop().unwrap();
    let server = new.add(listener, CounterServer).unwrap();
    let listeners = [("counters", server.token())];
    hand_over::offer_with_connections(&mut new, &path, taken, listeners, Counters, |_| {}).unwrap();
    turn_until(&mut new, &log, |new| {
        old.turn(Some(Duration::ZERO)).unwrap();
        old.is_empty() && served(new)
    });

    for (number, client) in clients.iter_mut().enumerate() {
        let len = format!("client {number}\n").len();
        io::Write::write_all(client, b"in\n").unwrap();
        let mut expected = format!("{len}\n").into_bytes();
        if client.local_addr().unwrap() == peer {
            expected.extend(pattern(LARGE));
        }
        expected.extend(format!("{}\n", len + 6).as_bytes());
        let mut got = Vec::new();
        client.set_nonblocking(true).unwrap();
        turn_until(&mut new, &log, |_| {
            let _ = client.read_to_end(&mut got);
            got.len() >= expected.len()
        });
        assert!(
            got == expected,
            "client {number}: {:?}",
            got[..got.len().min(40)].escape_ascii().to_string()
        );
    }
}
