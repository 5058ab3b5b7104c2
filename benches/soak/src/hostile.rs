//! The clients that do not behave: plain blocking threads, each with a handful of connections with which
//! it does one bad thing after another.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::from;
use crate::ports::{Exchange, FRAME, PORTS, Port, request, unfinished};
use crate::random::Random;
use crate::shared::{Addresses, Shared};

/// The longest that a connect may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest that one attack keeps its connections, in milliseconds.
const LIFE: u64 = 8000;

/// And so much longer for what passes its deadline late.
const LONGER: Duration = Duration::from_secs(5);

/// How long a peer stays away between two bytes of one that is slow.
const STEP: Duration = Duration::from_millis(200);

type Attack = fn(&mut Attacker<'_>);

/// What each does, and how it is called in the table.
pub const ATTACKS: [(&str, Attack); 15] = [
    ("sends a message that never ends, byte by byte", slow_writer),
    ("sends a message that never ends, just fast enough", patient_writer),
    ("asks for much, and reads it byte by byte", slow_reader),
    ("sends and never reads", never_reads),
    ("says nothing", silent),
    ("resets before it has said anything", reset_at_once),
    ("resets within a message", reset_within_a_message),
    ("resets with the answer on its way", reset_within_an_answer),
    ("half-closes within a message, and stays", half_close),
    ("half-closes after a message, and resets", half_close_and_reset),
    ("floods with connects, and leaves", flood),
    ("sends urgent bytes", urgent),
    ("sends garbage", garbage),
    ("sends a good message, byte by byte", byte_by_byte),
    ("goes on sending while the server closes", sends_on),
];

/// How many connections each attack has made.
#[derive(Default)]
pub struct Made(pub [AtomicU64; ATTACKS.len()]);

pub struct Attacker<'s> {
    random: Random,
    from: Ipv4Addr,
    addresses: &'s Addresses,
    shared: &'s Shared,
    /// Connections at a time.
    hands: usize,
    made: u64,
}

/// Until it is told to leave.
pub fn run(thread: usize, seed: u64, hands: usize, addresses: &Addresses, shared: &Shared, made: &Made) {
    let (random, from) = (Random::new(seed << 32 | thread as u64), from::hostile(thread));
    let mut attacker = Attacker { random, from, addresses, shared, hands, made: 0 };
    while !attacker.is_over() {
        let which = attacker.random.between(0, ATTACKS.len() as u64 - 1) as usize;
        ATTACKS[which].1(&mut attacker);
        made.0[which].fetch_add(std::mem::take(&mut attacker.made), Ordering::Relaxed);
    }
}

impl Attacker<'_> {
    fn is_over(&self) -> bool {
        self.shared.leave.load(Ordering::Relaxed)
    }

    /// Wait so long; `false` if it is told to leave.
    fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if self.is_over() {
                return false;
            }
            thread::sleep(left.min(Duration::from_millis(100)));
        }
        !self.is_over()
    }

    /// For how long this attack lasts.
    fn life(&mut self) -> Duration {
        Duration::from_millis(self.random.between(100, LIFE))
    }

    fn connect(&mut self, port: Port) -> Option<TcpStream> {
        match connect(self.from, self.addresses.of(port)) {
            Ok(stream) => {
                self.made += 1;
                Some(stream)
            }
            // The backlog is full, or the server is about to end.
            Err(_) => {
                self.pause(Duration::from_millis(100));
                None
            }
        }
    }

    /// A connection for each hand, to any port.
    fn crowd(&mut self) -> Vec<(Port, TcpStream)> {
        let mut crowd = Vec::new();
        for _ in 0..self.hands {
            let port = self.random.choose(&PORTS);
            if self.is_over() {
                break;
            }
            crowd.extend(self.connect(port).map(|stream| (port, stream)));
        }
        crowd
    }
}

/// Sends do not block, and reads hardly do.
fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = from::socket(from)?;
    // Small, so that who does not read is noticed.
    socket.set_recv_buffer_size(4096)?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Send what there is room for.
fn offer(stream: &mut TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(_) => return,
        }
    }
}

/// Drop the connection with a reset.
fn reset(stream: TcpStream) {
    // Fails only if the connection has ended.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

fn slow_writer(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    let end = Instant::now() + attacker.life();
    let messages: Vec<Vec<u8>> =
        crowd.iter().map(|(port, _)| unfinished(*port, &mut attacker.random)).collect();
    let mut at = 0;
    while Instant::now() < end && attacker.pause(STEP) {
        for ((_, stream), message) in crowd.iter_mut().zip(&messages) {
            offer(stream, message.get(at..at + 1).unwrap_or_default());
        }
        at += 1;
    }
}

/// A frame of the greatest length, or a line, at a rate that may be.
fn patient_writer(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    crowd.iter_mut().filter(|(port, _)| *port == Port::Frames).for_each(|(_, stream)| {
        offer(stream, &(FRAME as u32).to_be_bytes());
    });
    let end = Instant::now() + attacker.life() + LONGER;
    while Instant::now() < end && attacker.pause(STEP) {
        crowd.iter_mut().for_each(|(_, stream)| offer(stream, b"and so on and so on "));
    }
}

fn slow_reader(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    for (port, stream) in &mut crowd {
        match port {
            Port::Pour => offer(stream, &request(7, 16 << 20)),
            _ => offer(stream, &Exchange::new(*port, &mut attacker.random, false).send),
        }
    }
    let end = Instant::now() + attacker.life() + LONGER;
    while Instant::now() < end && attacker.pause(STEP) {
        for (_, stream) in &mut crowd {
            let _ = stream.read(&mut [0]);
        }
    }
}

fn never_reads(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    let end = Instant::now() + attacker.life() + LONGER;
    while Instant::now() < end && attacker.pause(STEP) {
        for (port, stream) in &mut crowd {
            offer(stream, &Exchange::new(*port, &mut attacker.random, false).send);
        }
    }
}

fn silent(attacker: &mut Attacker<'_>) {
    let crowd = attacker.crowd();
    // At times for longer than the server has patience.
    let life = attacker.life() + Duration::from_secs(2);
    attacker.pause(life);
    drop(crowd);
}

fn reset_at_once(attacker: &mut Attacker<'_>) {
    let crowd = attacker.crowd();
    if attacker.random.chance(50) {
        attacker.pause(STEP);
    }
    crowd.into_iter().for_each(|(_, stream)| reset(stream));
}

fn reset_within_a_message(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    for (port, stream) in &mut crowd {
        offer(stream, &unfinished(*port, &mut attacker.random));
    }
    if attacker.random.chance(70) {
        let life = attacker.life() / 4;
        attacker.pause(life);
    }
    crowd.into_iter().for_each(|(_, stream)| reset(stream));
}

fn reset_within_an_answer(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    for (port, stream) in &mut crowd {
        match port {
            Port::Pour => offer(stream, &request(7, 1 << 20)),
            _ => offer(stream, &Exchange::new(*port, &mut attacker.random, false).send),
        }
    }
    let life = attacker.life() / 4;
    attacker.pause(life);
    for (_, stream) in &mut crowd {
        let _ = stream.read(&mut [0; 1000]);
    }
    crowd.into_iter().for_each(|(_, stream)| reset(stream));
}

fn half_close(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    for (port, stream) in &mut crowd {
        offer(stream, &unfinished(*port, &mut attacker.random));
        let _ = stream.shutdown(Shutdown::Write);
    }
    let life = attacker.life();
    attacker.pause(life);
}

fn half_close_and_reset(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    for (port, stream) in &mut crowd {
        offer(stream, &Exchange::new(*port, &mut attacker.random, false).send);
        let _ = stream.shutdown(Shutdown::Write);
    }
    let life = attacker.life() / 8;
    attacker.pause(life);
    crowd.into_iter().for_each(|(_, stream)| reset(stream));
}

fn flood(attacker: &mut Attacker<'_>) {
    for _ in 0..4 {
        drop(attacker.crowd());
    }
}

fn urgent(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    let end = Instant::now() + attacker.life();
    while Instant::now() < end && attacker.pause(STEP) {
        for (port, stream) in &mut crowd {
            offer(stream, &unfinished(*port, &mut attacker.random));
            let _ = SockRef::from(&*stream).send_out_of_band(b"!");
            let _ = stream.read(&mut [0; 4096]);
        }
    }
}

fn garbage(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    let end = Instant::now() + attacker.life();
    while Instant::now() < end && attacker.pause(STEP) {
        for (_, stream) in &mut crowd {
            let bytes = attacker.random.between(1, 64 * 1024) as usize;
            offer(stream, &attacker.random.bytes(bytes));
            let _ = stream.read(&mut [0; 4096]);
        }
    }
}

/// The answer is checked, too: it is only slow.
fn byte_by_byte(attacker: &mut Attacker<'_>) {
    let mut crowd: Vec<_> = attacker
        .crowd()
        .into_iter()
        .map(|(port, stream)| {
            let mut exchange = Exchange::new(port, &mut attacker.random, true);
            while exchange.send.len() > 100 {
                exchange = Exchange::new(port, &mut attacker.random, true);
            }
            (port, stream, exchange, 0)
        })
        .collect();
    for at in 0..100 {
        if !attacker.pause(Duration::from_millis(10)) {
            return;
        }
        for (port, stream, exchange, got) in &mut crowd {
            offer(stream, exchange.send.get(at..at + 1).unwrap_or_default());
            let mut buffer = [0; 2048];
            let wanted = &exchange.expect()[*got..];
            match stream.read(&mut buffer) {
                Ok(read) if read > wanted.len() || buffer[..read] != wanted[..read] => {
                    attacker
                        .shared
                        .fault(&format!("a client of {port:?} that sent byte by byte: wrong bytes"));
                    return;
                }
                Ok(read) => *got += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {}
            }
        }
    }
}

fn sends_on(attacker: &mut Attacker<'_>) {
    let mut crowd = attacker.crowd();
    for (port, stream) in &mut crowd {
        match port {
            Port::Pour => offer(stream, &request(7, 100)),
            _ => offer(stream, &Exchange::new(*port, &mut attacker.random, true).send),
        }
    }
    let end = Instant::now() + attacker.life();
    while Instant::now() < end && attacker.pause(STEP) {
        for (_, stream) in &mut crowd {
            offer(stream, b"and one more thing");
        }
    }
}
