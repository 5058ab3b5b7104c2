//! The clients that behave: all on one thread, non-blocking. Each connects, has some exchanges, ends in
//! order, and comes again. Every byte is checked.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use socket2::Socket;

use crate::from;
use crate::ports::{Exchange, PORTS, Port};
use crate::random::Random;
use crate::shared::{Addresses, Shared};
use crate::waits::Waits;

/// The longest that a client waits for an answer, once it has had one; and for its first.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_OF_NEWCOMERS: Duration = Duration::from_secs(120);

/// The longest pause between two exchanges, and between two connections, in milliseconds.
const THINKING: u64 = 100;
const AWAY: u64 = 500;

/// What the clients of one wave have seen.
pub struct Seen {
    pub bytes: u64,
    pub connections: u64,
    /// Of clients that have had an answer on this connection.
    pub waits: Waits,
    /// Of those that wait for the first, by port.
    pub newcomers: [Waits; PORTS.len()],
    /// How late this thread itself was at worst: so much of the waits may be its own.
    pub own_delay: Duration,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Away,
    Connecting,
    Talking,
    Thinking,
    /// All was answered; the peer's end is to come.
    Leaving,
    /// The wave is over.
    Gone,
}

/// How a client ends a connection.
#[derive(Clone, Copy)]
enum Manner {
    Close,
    HalfClose,
    /// As half-close, but together with the last request.
    EndOfStreamWithRequest,
}

struct Client {
    state: State,
    /// Counts the changes of state, so that old alarms are known.
    epoch: u32,
    random: Random,
    port: Port,
    manner: Manner,
    stream: Option<TcpStream>,
    exchange: Exchange,
    sent: usize,
    got: usize,
    begun: Instant,
    /// Exchanges to come, and those that were answered, of this connection.
    left: u64,
    answered: u64,
}

pub struct Crowd<'s> {
    addresses: &'s Addresses,
    shared: &'s Shared,
    poller: OwnedFd,
    clients: Vec<Client>,
    alarms: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    gone: usize,
    seen: Seen,
    buffer: Vec<u8>,
}

/// Why a client is not content.
type Complaint = String;

impl Crowd<'_> {
    pub fn new<'s>(
        clients: usize,
        seed: u64,
        addresses: &'s Addresses,
        shared: &'s Shared,
    ) -> io::Result<Crowd<'s>> {
        let now = Instant::now();
        let mut crowd = Crowd {
            addresses,
            shared,
            poller: epoll::create(CreateFlags::CLOEXEC)?,
            clients: Vec::new(),
            alarms: BinaryHeap::new(),
            gone: 0,
            seen: Seen {
                bytes: 0,
                connections: 0,
                waits: Waits::new(),
                newcomers: PORTS.map(|_| Waits::new()),
                own_delay: Duration::ZERO,
            },
            buffer: vec![0; 64 * 1024],
        };
        for id in 0..clients {
            let mut random = Random::new(seed ^ (id as u64) << 20);
            let exchange = Exchange::new(Port::Echo, &mut random, true);
            crowd.clients.push(Client {
                state: State::Away,
                epoch: 0,
                random,
                port: Port::Echo,
                manner: Manner::Close,
                stream: None,
                exchange,
                sent: 0,
                got: 0,
                begun: now,
                left: 0,
                answered: 0,
            });
            crowd.rest(id, State::Away, AWAY);
        }
        Ok(crowd)
    }

    /// Until the wave is over and each client has ended its connection.
    pub fn run(mut self) -> io::Result<Seen> {
        let mut events = [MaybeUninit::<Event>::uninit(); 256];
        let mut inspected = Instant::now();
        while self.gone < self.clients.len() {
            let now = Instant::now();
            let alarm = self.alarms.peek().map(|Reverse((when, ..))| when.saturating_duration_since(now));
            let wait = alarm.unwrap_or(Duration::MAX).min(Duration::from_millis(200));
            let timeout = Timespec::try_from(wait).expect("it is short");
            let woken = Instant::now();
            let (ready, _) = match epoll::wait(&self.poller, &mut events, Some(&timeout)) {
                Ok(ready) => ready,
                Err(error) if error == rustix::io::Errno::INTR => continue,
                Err(error) => return Err(error.into()),
            };
            let late = woken.elapsed().saturating_sub(wait);
            let begun = Instant::now();
            for event in ready {
                let (id, flags) = (event.data.u64() as usize, event.flags);
                self.attend(id, flags.contains(EventFlags::OUT));
            }
            self.ring();
            if inspected.elapsed() > Duration::from_secs(1) {
                inspected = Instant::now();
                self.inspect();
            }
            self.seen.own_delay = self.seen.own_delay.max(late + begun.elapsed());
        }
        Ok(self.seen)
    }

    /// Wake those whose pause is over.
    fn ring(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((when, id, epoch))) = self.alarms.peek() {
            if when > now {
                break;
            }
            self.alarms.pop();
            let client = &self.clients[id];
            if client.epoch != epoch {
                continue;
            }
            let is_over = self.shared.is_over.load(Ordering::Relaxed);
            let result = match client.state {
                State::Away if is_over => {
                    self.clients[id].state = State::Gone;
                    self.gone += 1;
                    Ok(())
                }
                State::Away => self.connect(id),
                State::Thinking => {
                    if is_over {
                        self.clients[id].left = 1;
                    }
                    self.begin(id, false);
                    self.go_on(id)
                }
                _ => Ok(()),
            };
            self.settle(id, result);
        }
    }

    /// The socket of a client is ready.
    fn attend(&mut self, id: usize, has_room: bool) {
        let result = match self.clients[id].state {
            State::Connecting => self.connected(id, has_room),
            State::Talking => self.go_on(id),
            State::Thinking | State::Leaving => self.listen(id),
            State::Away | State::Gone => Ok(()),
        };
        self.settle(id, result);
    }

    fn settle(&mut self, id: usize, result: Result<(), Complaint>) {
        if let Err(complaint) = result {
            let client = &self.clients[id];
            let (state, port, answered) = (client.state, client.port, client.answered);
            let local = client.stream.as_ref().and_then(|stream| stream.local_addr().ok());
            let local = local.map_or(String::new(), |local| format!(" {local}"));
            self.shared.fault(&format!(
                "a good client{local} of {port:?}, {state:?}, after {answered} answers: {complaint}"
            ));
            self.leave(id);
        }
    }

    fn rest(&mut self, id: usize, state: State, most: u64) {
        let client = &mut self.clients[id];
        client.state = state;
        client.epoch = client.epoch.wrapping_add(1);
        let until = Instant::now() + Duration::from_millis(client.random.between(0, most));
        self.alarms.push(Reverse((until, id, client.epoch)));
    }

    fn leave(&mut self, id: usize) {
        self.clients[id].stream = None;
        self.rest(id, State::Away, AWAY);
    }

    fn connect(&mut self, id: usize) -> Result<(), Complaint> {
        let client = &mut self.clients[id];
        client.port = client.random.choose(&PORTS);
        client.left = if client.port == Port::Pour { 1 } else { client.random.between(1, 40) };
        client.manner =
            client.random.choose(&[Manner::Close, Manner::HalfClose, Manner::EndOfStreamWithRequest]);
        client.answered = 0;
        client.begun = Instant::now();
        client.state = State::Connecting;
        let to = self.addresses.of(client.port);
        let socket = connecting(from::good(id), to).map_err(|error| format!("cannot connect: {error}"))?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.poller, &socket, EventData::new_u64(id as u64), flags)
            .map_err(|error| format!("cannot be polled: {error}"))?;
        client.stream = Some(socket.into());
        self.seen.connections += 1;
        Ok(())
    }

    fn connected(&mut self, id: usize, has_room: bool) -> Result<(), Complaint> {
        let stream = self.clients[id].stream.as_ref().ok_or("no socket")?;
        match stream.take_error() {
            Ok(None) if !has_room => return Ok(()),
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Err(format!("was not let in: {error}")),
        }
        self.begin(id, true);
        self.go_on(id)
    }

    /// Begin the next exchange; a newcomer's wait has begun with its connect.
    fn begin(&mut self, id: usize, is_first: bool) {
        let client = &mut self.clients[id];
        client.exchange = Exchange::new(client.port, &mut client.random, is_first);
        (client.sent, client.got) = (0, 0);
        client.state = State::Talking;
        if !is_first {
            client.begun = Instant::now();
        }
    }

    /// Send and receive as much as there is room and there are bytes for.
    fn go_on(&mut self, id: usize) -> Result<(), Complaint> {
        let client = &mut self.clients[id];
        let stream = client.stream.as_mut().ok_or("no socket")?;
        while client.sent < client.exchange.send.len() {
            match stream.write(&client.exchange.send[client.sent..]) {
                Ok(sent) => client.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("could not send: {error}")),
            }
            let ends = matches!(client.manner, Manner::EndOfStreamWithRequest) && client.left == 1;
            if client.sent == client.exchange.send.len() && ends {
                stream.shutdown(Shutdown::Write).map_err(|error| format!("could not end: {error}"))?;
            }
        }
        self.listen(id)
    }

    /// Receive as much as there is.
    fn listen(&mut self, id: usize) -> Result<(), Complaint> {
        let Client { state, stream, exchange, got, .. } = &mut self.clients[id];
        let stream = stream.as_mut().ok_or("no socket")?;
        let expect = exchange.expect();
        loop {
            if *state == State::Talking && *got == expect.len() {
                return self.answered(id);
            }
            match stream.read(&mut self.buffer) {
                Ok(0) if *state == State::Leaving => {
                    self.leave(id);
                    return Ok(());
                }
                Ok(0) => return Err(format!("the stream ended, {got} bytes into {}", expect.len())),
                Ok(read) => {
                    let bytes = &self.buffer[..read];
                    let wanted = &expect[*got..];
                    if *state != State::Talking || read > wanted.len() {
                        return Err(format!("{read} bytes came, after {got} of {}", expect.len()));
                    }
                    if let Some(at) = (0..read).find(|&at| bytes[at] != wanted[at]) {
                        return Err(format!("byte {} of {} was wrong", *got + at, expect.len()));
                    }
                    *got += read;
                    self.seen.bytes += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("lost after {got} bytes of {}: {error}", expect.len())),
            }
        }
    }

    fn answered(&mut self, id: usize) -> Result<(), Complaint> {
        let client = &mut self.clients[id];
        let waits = match client.answered {
            0 => &mut self.seen.newcomers[client.port.index()],
            _ => &mut self.seen.waits,
        };
        waits.add(client.begun.elapsed());
        client.answered += 1;
        client.left -= 1;
        if client.left > 0 {
            self.rest(id, State::Thinking, THINKING);
            return Ok(());
        }
        client.begun = Instant::now();
        client.state = State::Leaving;
        let stream = client.stream.as_mut().ok_or("no socket")?;
        match (client.port, client.manner) {
            // The server ends.
            (Port::Pour, _) | (_, Manner::EndOfStreamWithRequest) => self.listen(id),
            (_, Manner::HalfClose) => {
                stream.shutdown(Shutdown::Write).map_err(|error| format!("could not end: {error}"))?;
                self.listen(id)
            }
            (_, Manner::Close) => {
                self.leave(id);
                Ok(())
            }
        }
    }

    /// Who has waited too long?
    fn inspect(&mut self) {
        for id in 0..self.clients.len() {
            let client = &self.clients[id];
            let patience = if client.answered == 0 { PATIENCE_OF_NEWCOMERS } else { PATIENCE };
            let waits = matches!(client.state, State::Connecting | State::Talking | State::Leaving);
            if waits && client.begun.elapsed() > patience {
                let what = format!(
                    "waited {patience:?} in vain: {} of {} bytes sent, {} of {} received",
                    client.sent,
                    client.exchange.send.len(),
                    client.got,
                    client.exchange.expect().len()
                );
                self.settle(id, Err(what));
            }
        }
    }
}

/// A socket whose connect has begun.
fn connecting(from: Ipv4Addr, to: SocketAddr) -> io::Result<Socket> {
    let socket = from::socket(from)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(socket),
    }
}
