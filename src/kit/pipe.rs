//! What a channel and its scripted peer share: the bytes on their way, in both directions, and what the peer is
//! still to do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use crate::chance::Chance;
use crate::clock::{self, Time};
use crate::token::Token;

/// Random numbers that the pipes of a map share; `None` if nothing is to vary.
pub(crate) type Dice = Rc<RefCell<Option<Chance>>>;

/// The peer does one of these at its time.
#[derive(Debug)]
pub(super) enum Step {
    Send(Vec<u8>),
    Fin,
    Reset,
    /// What the next read fails with, once the input before is read.
    FailRead(io::Error),
    FailWrite(io::Error),
    /// How it reads from now on.
    Read(Reading),
    /// So many bytes of what waits, and goes on as before.
    Take(usize),
}

impl Step {
    /// The channel reads it.
    fn is_input(&self) -> bool {
        matches!(self, Step::Send(_) | Step::Fin | Step::Reset | Step::FailRead(_))
    }
}

/// How the peer reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    AtOnce,
    Not,
    /// So many bytes, every so often.
    Rate {
        bytes: usize,
        every: Duration,
        next: Time,
    },
}

/// How the input ends.
#[derive(Debug)]
enum End {
    Fin,
    Reset,
    Error(Option<io::Error>),
}

#[derive(Debug)]
pub(crate) struct Pipe {
    pub(super) token: Option<Token>,
    dice: Dice,
    script: VecDeque<(Time, Step)>,
    /// When the next step of the script is added.
    cursor: Time,
    // To the channel.
    input: VecDeque<u8>,
    end: Option<End>,
    /// A read has returned it.
    end_is_read: bool,
    // From the channel.
    pub(super) sent: Vec<u8>,
    /// Bytes of it that the peer has not read.
    pub(super) unread: usize,
    /// How much that may be.
    pub(super) buffer: usize,
    /// The most that one call takes.
    pub(super) most: usize,
    reading: Reading,
    write_error: Option<io::Error>,
    pub(super) fin: bool,
    pub(super) reset: bool,
    pub(super) closed: bool,
    /// It is reset, and its channel does not read: that is told at once.
    pub(super) is_lost: bool,
}

impl Pipe {
    pub(super) fn new(dice: Dice) -> Pipe {
        Pipe {
            token: None,
            dice,
            script: VecDeque::new(),
            cursor: clock::now(),
            input: VecDeque::new(),
            end: None,
            end_is_read: false,
            sent: Vec::new(),
            unread: 0,
            buffer: 64 * 1024,
            most: usize::MAX,
            reading: Reading::AtOnce,
            write_error: None,
            fin: false,
            reset: false,
            closed: false,
            is_lost: false,
        }
    }

    // The script.

    pub(super) fn add(&mut self, step: Step) {
        let now = clock::now();
        self.cursor = self.cursor.max(now);
        // How it reads holds from now on, also for what is sent before the next turn.
        if self.script.is_empty() && self.cursor == now && !step.is_input() {
            return self.do_step(step, now);
        }
        self.script.push_back((self.cursor, step));
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.cursor = self.cursor.max(clock::now()).after(time);
    }

    pub(super) fn when(&self) -> Time {
        self.cursor.max(clock::now())
    }

    /// When it does something next.
    pub(super) fn next(&self) -> Option<Time> {
        if self.closed {
            return None;
        }
        let reads = match self.reading {
            Reading::Rate { bytes, next, .. } if self.unread > 0 && bytes > 0 => Some(next),
            _ => None,
        };
        let step = self.script.front().map(|(at, _)| *at);
        reads.into_iter().chain(step).min()
    }

    pub(super) fn has_played(&self) -> bool {
        self.script.is_empty()
    }

    /// Do what is due: at most one step, so that each is seen by itself; with dice, perhaps several.
    pub(super) fn play(&mut self, now: Time) {
        if let Reading::Rate { bytes, every, next } = self.reading {
            if next <= now {
                self.take(bytes);
                let every = every.max(Duration::from_nanos(1));
                self.reading = Reading::Rate { bytes, every, next: next.after(every).max(now) };
            }
        }
        while self.script.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, step)) = self.script.pop_front() else { return };
            self.do_step(step, now);
            if !self.chance(4) {
                return;
            }
        }
    }

    fn do_step(&mut self, step: Step, now: Time) {
        match step {
            Step::Send(bytes) if self.end.is_none() => self.input.extend(bytes),
            Step::Fin => drop(self.end.get_or_insert(End::Fin)),
            Step::Reset => {
                self.end = Some(End::Reset);
                self.end_is_read = false;
                self.write_error = None;
                // Nobody reads it any more.
                self.unread = 0;
            }
            Step::FailRead(error) => drop(self.end.get_or_insert(End::Error(Some(error)))),
            Step::FailWrite(error) => self.write_error = Some(error),
            Step::Read(reading) => {
                self.reading = match reading {
                    Reading::Rate { bytes, every, .. } => {
                        Reading::Rate { bytes, every, next: now.after(every) }
                    }
                    other => other,
                };
                if let Reading::AtOnce = reading {
                    self.take(usize::MAX);
                }
            }
            Step::Take(bytes) => self.take(bytes),
            Step::Send(_) => {}
        }
    }

    fn take(&mut self, bytes: usize) {
        self.unread = self.unread.saturating_sub(bytes);
    }

    // What is seen of it.

    /// There is input, or its end, that was not read.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty() || (self.end.is_some() && !self.end_is_read)
    }

    /// A call to send would do something, or fail.
    pub(super) fn has_room(&self) -> bool {
        self.unread < self.buffer || self.is_broken()
    }

    fn is_broken(&self) -> bool {
        self.write_error.is_some() || self.is_reset_by_peer()
    }

    pub(super) fn is_reset_by_peer(&self) -> bool {
        matches!(self.end, Some(End::Reset))
    }

    /// Both directions have ended.
    pub(super) fn has_hung_up(&self) -> bool {
        self.is_reset_by_peer() || (self.fin && matches!(self.end, Some(End::Fin)))
    }

    pub(super) fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            self.end_is_read = self.end.is_some();
            return match &mut self.end {
                None => Err(io::ErrorKind::WouldBlock.into()),
                Some(End::Fin) => Ok(0),
                Some(End::Reset) => Err(Errno::CONNRESET.into()),
                Some(End::Error(error)) => Err(error.take().unwrap_or_else(|| Errno::CONNRESET.into())),
            };
        }
        let most = self.cut(self.input.len().min(buffer.len()));
        for (byte, from) in buffer.iter_mut().zip(self.input.drain(..most)) {
            *byte = from;
        }
        Ok(most)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.write_error.take() {
            return Err(error);
        }
        if self.is_reset_by_peer() {
            return Err(Errno::CONNRESET.into());
        }
        if self.fin {
            return Err(Errno::PIPE.into());
        }
        let room = self.buffer.saturating_sub(self.unread);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let most = self.cut(bytes.len().min(room).min(self.most));
        if self.unread == 0 {
            self.begin_to_read();
        }
        self.sent.extend_from_slice(&bytes[..most]);
        if !matches!(self.reading, Reading::AtOnce) {
            self.unread += most;
        }
        Ok(most)
    }

    /// The rate counts from when there is something to be read.
    fn begin_to_read(&mut self) {
        if let Reading::Rate { every, next, .. } = &mut self.reading {
            *next = (*next).max(clock::now().after(*every));
        }
    }

    // Chance.

    /// Perhaps fewer, but at least one of `bytes`.
    fn cut(&self, bytes: usize) -> usize {
        match &mut *self.dice.borrow_mut() {
            Some(dice) if bytes > 0 => 1 + dice.below(bytes).max(dice.below(2) * (bytes - 1)),
            _ => bytes,
        }
    }

    /// True once in so many times.
    fn chance(&self, times: usize) -> bool {
        self.dice.borrow_mut().as_mut().is_some_and(|dice| dice.below(times) == 0)
    }
}
