//! What is served on each port: the same kinds of programs that users write.

use std::io::{self, IoSlice};

use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::framing::{ByteOrder, Framing, LengthPrefixed, Prefix};
use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};
use dispatch_loop::{Channel, Deadline, Dispatcher, More};

use super::tally::Newcomer;
use crate::ports::{FRAME, LINE, Port, REQUEST};
use crate::random::Random;

/// Bytes that a producer makes at once.
const PIECE: usize = 8 * 1024;

const FRAMES: LengthPrefixed = LengthPrefixed::new(Prefix::U32, ByteOrder::Big).with_limit(FRAME);

pub fn of(port: Port, newcomer: Newcomer) -> io::Result<Box<dyn Dispatcher>> {
    Ok(match port {
        Port::Echo => Box::new(Echo(newcomer)),
        Port::Lines => Box::new(ChatDispatcher::new("\n", Lines(newcomer))?),
        Port::Protocol => Box::new(ProtocolDispatcher::new(Back(newcomer))),
        Port::Frames => Box::new(Frames { frames: FRAMES, newcomer }),
        Port::Pour => Box::new(ChatDispatcher::new(REQUEST, Pour(newcomer))?),
    })
}

struct Echo(Newcomer);

impl Dispatcher for Echo {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            self.0.is_answered();
            ch.push(data)
        })
    }

    fn handle_deadline(&mut self, ch: &mut Channel<'_>, deadline: Deadline) -> io::Result<()> {
        self.0.tally.passed(deadline);
        ch.time_out();
        Ok(())
    }
}

struct Lines(Newcomer);

impl Chat for Lines {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.set_input_limit(LINE);
        Ok(())
    }

    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
        self.0.is_answered();
        ch.push_vectored(&[IoSlice::new(line), IoSlice::new(b"\n")])
    }

    fn handle_deadline(&mut self, ch: &mut ChatChannel<'_>, deadline: Deadline) -> io::Result<()> {
        self.0.tally.passed(deadline);
        ch.channel_mut().time_out();
        Ok(())
    }
}

/// A protocol is not told of its deadlines: they only end it.
struct Back(Newcomer);

impl Protocol for Back {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
        self.0.is_answered();
        transport.write(data)
    }
}

struct Frames {
    frames: LengthPrefixed,
    newcomer: Newcomer,
}

impl Dispatcher for Frames {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, mut input| {
            let mut answers = Vec::new();
            while let Some(frame) = self.frames.next(&mut input)? {
                ch.end_message();
                self.newcomer.is_answered();
                FRAMES.encode(frame, &mut answers)?;
            }
            if self.frames.has_begun() {
                ch.begin_message();
            }
            ch.push_vec(answers)
        })
    }

    fn handle_deadline(&mut self, ch: &mut Channel<'_>, deadline: Deadline) -> io::Result<()> {
        self.newcomer.tally.passed(deadline);
        ch.time_out();
        Ok(())
    }
}

struct Pour(Newcomer);

impl Chat for Pour {
    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, request: &[u8]) -> io::Result<()> {
        self.0.is_answered();
        let (seed, bytes) = request.split_at(8);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        let (mut pattern, mut left) = (Random::new(number(seed)), number(bytes) as usize);
        ch.push_producer(move |buffer: &mut Vec<u8>| {
            let bytes = left.min(PIECE);
            pattern.fill(buffer, bytes);
            left -= bytes;
            Ok(if left > 0 { More::Again } else { More::Done })
        })?;
        ch.close();
        Ok(())
    }

    fn handle_deadline(&mut self, ch: &mut ChatChannel<'_>, deadline: Deadline) -> io::Result<()> {
        self.0.tally.passed(deadline);
        ch.channel_mut().time_out();
        Ok(())
    }
}
