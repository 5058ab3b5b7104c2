//! Many peers, much data, and peers that behave badly: not a byte is lost, no descriptor is left,
//! nothing spins, and memory has a bound.

// What a group leaves of a helper file is used by others. `warn`: this one uses all of it, so here it
// shows what nobody needs.
#[allow(dead_code)]
#[path = "support"]
mod support {
    #[warn(dead_code)]
    pub mod echo;
    pub mod heap;
    pub mod limits;
    pub mod opened;
    pub mod peers;
    pub mod process;
    pub mod recorder;
    pub mod turning;
    pub mod waiting;
}

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Handle, OnLimit, Reason, Socket, Token};
use socket2::SockRef;

use support::echo::Echo;
use support::heap;
use support::limits::raise_descriptor_limit;
use support::opened::address_of;
use support::peers::{limit_time, pair, read_exactly, reset};
use support::process::open_descriptors;
use support::recorder::Log;
use support::turning::{turn_idle, turn_until, waits_in};
use support::waiting::DEADLINE;

struct EchoServer;

impl Dispatcher for EchoServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Echo).map(|_| ())
    }
}

/// A map with an echo server in it. When it goes, so must every descriptor.
struct Server {
    map: ChannelMap,
    address: SocketAddr,
    descriptors: usize,
    /// One test at a time: descriptors are counted in the whole process.
    _alone: MutexGuard<'static, ()>,
}

impl Server {
    fn new() -> Server {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        raise_descriptor_limit(1500);
        let descriptors = open_descriptors();
        let mut map = ChannelMap::new().unwrap();
        let listener: Handle<EchoServer> = map.listen("127.0.0.1:0", EchoServer).unwrap();
        let address = address_of(&mut map, listener);
        Server { map, address, descriptors, _alone: alone }
    }

    /// Serve until the client has finished, and hand on what became of it.
    #[track_caller]
    fn serve(&mut self, client: thread::JoinHandle<()>) {
        self.turn_until(|_| client.is_finished());
        client.join().unwrap();
    }

    #[track_caller]
    fn turn_until(&mut self, done: impl FnMut(&mut ChannelMap) -> bool) {
        turn_until(&mut self.map, &Log::new(), done);
    }

    /// Every client is gone, and the listener lives.
    #[track_caller]
    fn finish(mut self) {
        self.turn_until(|map| map.len() == 1);
        let address = self.address;
        self.serve(thread::spawn(move || ping(&mut connect(address), b"still there?")));
        self.turn_until(|map| map.len() == 1);
        drop(self.map);
        // Fewer, if the test before this one was still closing its own when we counted.
        let left = open_descriptors();
        assert!(left <= self.descriptors, "{left} descriptors after {}", self.descriptors);
    }

    /// Nothing is going on: how often does the loop wait in this time?
    fn waits_in(&mut self, time: Duration) -> u64 {
        turn_idle(&mut self.map);
        waits_in(&mut self.map, time)
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    limit_time(&stream);
    stream
}

/// Send, and have it back.
fn ping(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).unwrap();
    let mut echo = vec![0; message.len()];
    stream.read_exact(&mut echo).unwrap();
    assert!(echo == message, "the echo is another");
}

/// Bytes in which a loss, a repetition or a change of order shows, without being kept: the period
/// is a prime.
struct Pattern {
    period: Vec<u8>,
    at: usize,
}

impl Pattern {
    fn new(seed: usize) -> Pattern {
        let byte = |at: usize| (at.wrapping_mul(2_654_435_761 + seed) >> 11) as u8;
        Pattern { period: (0..65_521).map(byte).collect(), at: 0 }
    }

    /// The next bytes, at most `most`.
    fn next(&self, most: usize) -> &[u8] {
        let rest = &self.period[self.at..];
        &rest[..rest.len().min(most)]
    }

    fn advance(&mut self, bytes: usize) {
        self.at = (self.at + bytes) % self.period.len();
    }

    fn write(&mut self, to: &mut impl Write, mut bytes: usize) {
        while bytes > 0 {
            let written = to.write(self.next(bytes)).unwrap();
            self.advance(written);
            bytes -= written;
        }
    }

    fn check(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let expected = self.next(data.len());
            let len = expected.len();
            assert!(&data[..len] == expected, "a byte is wrong, missing, or here twice");
            self.advance(len);
            data = &data[len..];
        }
    }

    /// Read to the end; how many bytes came.
    fn check_all(&mut self, from: &mut impl Read) -> usize {
        let mut buffer = [0; 32 * 1024];
        let mut total = 0;
        loop {
            let read = from.read(&mut buffer).unwrap();
            if read == 0 {
                return total;
            }
            self.check(&buffer[..read]);
            total += read;
        }
    }
}

#[test]
fn three_hundred_clients_at_once_have_every_byte_back() {
    let mut server = Server::new();
    let address = server.address;
    server.serve(thread::spawn(move || {
        const BYTES: usize = 20_000;
        let mut clients: Vec<_> = (0..300).map(|_| connect(address)).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            Pattern::new(at).write(client, BYTES);
            client.shutdown(Shutdown::Write).unwrap();
        }
        for (at, client) in clients.iter_mut().enumerate() {
            assert_eq!(Pattern::new(at).check_all(client), BYTES);
        }
    }));
    server.finish();
}

/// The reader begins only when the server has stopped reading, because it cannot get rid of what it
/// owes; and the writer half-closes long before all has come back.
#[test]
fn a_late_reader_of_64_mib_has_every_byte_back() {
    const BYTES: usize = 64 * 1024 * 1024;
    let mut server = Server::new();
    let address = server.address;
    let (stuck, when_stuck) = mpsc::channel();
    let mut stuck = Some(stuck);
    let client = thread::spawn(move || {
        let mut reader = connect(address);
        let mut writer = reader.try_clone().unwrap();
        let writing = thread::spawn(move || {
            Pattern::new(1).write(&mut writer, BYTES);
            writer.shutdown(Shutdown::Write).unwrap();
        });
        when_stuck.recv_timeout(DEADLINE).unwrap();
        assert_eq!(Pattern::new(1).check_all(&mut reader), BYTES);
        writing.join().unwrap();
    });
    let before = heap::live();
    heap::reset_peak();
    server.turn_until(|map| {
        if stuck.is_some() && tokens(map).into_iter().any(|token| map.channel(token).unwrap().is_paused()) {
            stuck.take().unwrap().send(()).unwrap();
        }
        client.is_finished()
    });
    client.join().unwrap();
    let peak = heap::peak() - before;
    assert!(peak < 1024 * 1024, "{peak} bytes at the peak");
    server.finish();
}

fn tokens(map: &ChannelMap) -> Vec<Token> {
    map.tokens().collect()
}

/// EDGE_CASES 11.
#[test]
fn five_hundred_clients_that_connect_and_reset_leave_nothing_behind() {
    let mut server = Server::new();
    let address = server.address;
    // These are gone before the first of them is accepted,
    let early: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    early.into_iter().for_each(reset);
    // and these at any moment.
    server.serve(thread::spawn(move || {
        for round in 0..8 {
            let mut clients: Vec<_> = (0..50).map(|_| connect(address)).collect();
            if round % 2 == 0 {
                clients.iter_mut().for_each(|client| client.write_all(b"never mind").unwrap());
            }
            clients.into_iter().for_each(reset);
        }
    }));
    server.finish();
}

/// `select` knows no descriptor above 1,023.
#[test]
fn a_client_whose_descriptor_is_above_1024_is_served_like_others() {
    let allowed = raise_descriptor_limit(1400);
    assert!(allowed >= 1200, "too few descriptors for this test: see `ulimit -Hn`");
    let mut server = Server::new();
    let address = server.address;
    let below: Vec<_> = (0..1100).map(|_| File::open("/dev/null").unwrap()).collect();
    assert!(below.iter().any(|file| file.as_raw_fd() > 1024));
    server.serve(thread::spawn(move || {
        let mut client = connect(address);
        client.write_all(b"how are you up there?").unwrap();
        assert_eq!(read_exactly(&mut client, 21), b"how are you up there?");
    }));
    drop(below);
    server.finish();
}

#[test]
#[cfg(target_os = "linux")]
fn urgent_bytes_that_nobody_reads_make_nothing_spin() {
    let mut server = Server::new();
    let address = server.address;
    let (give_back, client) = mpsc::channel();
    server.serve(thread::spawn(move || {
        let mut stream = connect(address);
        for _ in 0..200 {
            stream.write_all(b"before").unwrap();
            assert_eq!(SockRef::from(&stream).send_out_of_band(b"!").unwrap(), 1);
            stream.write_all(b"after").unwrap();
            let mut echo = [0; 11];
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(&echo, b"beforeafter");
        }
        give_back.send(stream).unwrap();
    }));
    let client = client.recv().unwrap();
    SockRef::from(&client).send_out_of_band(b"!").unwrap();
    let waits = server.waits_in(Duration::from_millis(200));
    assert!(waits <= 5, "{waits} waits in 200 ms, with an urgent byte");

    let token = tokens(&server.map)[1];
    server.map.channel(token).unwrap().pause_reading();
    turn_idle(&mut server.map);
    SockRef::from(&client).send_out_of_band(b"!").unwrap();
    let waits = server.waits_in(Duration::from_millis(200));
    assert!(waits <= 5, "{waits} waits in 200 ms, with an urgent byte and reading paused");
    server.map.channel(token).unwrap().resume_reading();
    drop(client);
    server.finish();
}

/// Small buffers in the kernel: what we look at is what is queued here.
fn small_buffers(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket.set_send_buffer_size(8 * 1024).unwrap();
}

#[test]
fn two_hundred_peers_that_never_read_cost_bounded_memory() {
    const STUCK: usize = 200;
    let mut server = Server::new();
    let address = server.address;
    let before = heap::live();
    heap::reset_peak();
    let enough = Arc::new(AtomicBool::new(false));
    let told = enough.clone();
    // They send as long as it goes, and hold their connections until the end.
    let (leave, when_to_leave) = mpsc::channel::<()>();
    let stuck = thread::spawn(move || {
        let mut peers: Vec<_> = (0..STUCK).map(|_| connect(address)).collect();
        for peer in &peers {
            small_buffers(peer);
            peer.set_nonblocking(true).unwrap();
        }
        let data = [b'x'; 16 * 1024];
        while !told.load(Ordering::Relaxed) {
            for peer in &mut peers {
                match peer.write(&data) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => panic!("{error}"),
                    _ => {}
                }
            }
            thread::yield_now();
        }
        let _ = when_to_leave.recv();
    });
    server.turn_until(|map| {
        assert!(!stuck.is_finished(), "the peers have given up");
        tokens(map).into_iter().filter(|&token| map.channel(token).unwrap().is_paused()).count() == STUCK
    });
    enough.store(true, Ordering::Relaxed);

    server.serve(thread::spawn(move || {
        let mut clients: Vec<_> = (0..10).map(|_| connect(address)).collect();
        for round in 0..100u32 {
            clients.iter_mut().for_each(|client| ping(client, &round.to_ne_bytes()));
        }
    }));
    server.turn_until(|map| map.len() == STUCK + 1);
    let waits = server.waits_in(Duration::from_millis(200));
    assert!(waits <= 5, "{waits} waits in 200 ms, with nothing to be done");
    // The high watermark, what one read may add to it, and room for the tables.
    let (each, peak) = (160 * 1024, heap::peak() - before);
    assert!(peak < STUCK as i64 * each, "{peak} bytes at the peak");

    drop(leave);
    stuck.join().unwrap();
    server.finish();
}

struct Subscriber {
    ended_by_limit: Rc<Cell<usize>>,
}

impl Dispatcher for Subscriber {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_limit(128 * 1024, OnLimit::Refuse);
        Ok(())
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        let limit = matches!(reason, Reason::Limit) as usize;
        self.ended_by_limit.set(self.ended_by_limit.get() + limit);
    }
}

#[test]
fn a_broadcast_to_peers_that_never_read_ends_them_and_reaches_the_reader() {
    const STUCK: usize = 50;
    const BYTES: usize = 16 * 1024 * 1024;
    let mut server = Server::new();
    let mut peers = Vec::new();
    let ended = Rc::new(Cell::new(0));
    let mut add = |map: &mut ChannelMap, reads: bool| {
        let (near, far) = pair("127.0.0.1:0".parse().unwrap());
        if !reads {
            small_buffers(&near);
            small_buffers(&far);
        }
        peers.push(far);
        map.add(near, Subscriber { ended_by_limit: ended.clone() }).unwrap().token()
    };
    let reading = add(&mut server.map, true);
    let subscribers: Vec<_> = (0..STUCK).map(|_| add(&mut server.map, false)).chain([reading]).collect();
    turn_idle(&mut server.map);
    let mut reader = peers.remove(0);
    let client = thread::spawn(move || assert_eq!(Pattern::new(2).check_all(&mut reader), BYTES));
    let before = heap::live();
    heap::reset_peak();
    let mut pattern = Pattern::new(2);
    let mut left = BYTES;
    server.turn_until(|map| {
        // As fast as the one who reads takes it.
        while left > 0 && map.channel(reading).unwrap().queued() < 64 * 1024 {
            let piece = pattern.next(left.min(16 * 1024));
            map.broadcast(subscribers.iter().copied(), piece);
            left -= piece.len();
            let len = piece.len();
            pattern.advance(len);
        }
        left == 0
    });
    server.map.channel(reading).unwrap().close();
    server.serve(client);
    assert_eq!(ended.get(), STUCK);
    let peak = heap::peak() - before;
    assert!(peak < STUCK as i64 * 160 * 1024, "{peak} bytes at the peak");
    drop(peers);
    server.finish();
}
