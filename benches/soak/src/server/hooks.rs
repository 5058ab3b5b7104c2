//! What is served on each port: the same kinds of programs that users write.

use std::io::{self, IoSlice};

use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::framing::{ByteOrder, Framing, LengthPrefixed, Prefix};
use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};
use dispatch_loop::{Channel, Dispatcher, More};

use super::guard::Progress;
use crate::ports::{FRAME, LINE, Port, REQUEST};
use crate::random::Random;

/// Bytes that a producer makes at once.
const PIECE: usize = 8 * 1024;

const FRAMES: LengthPrefixed = LengthPrefixed::new(Prefix::U32, ByteOrder::Big).with_limit(FRAME);

pub fn of(port: Port, progress: &Progress) -> io::Result<Box<dyn Dispatcher>> {
    let progress = progress.clone();
    Ok(match port {
        Port::Echo => Box::new(Echo(progress)),
        Port::Lines => Box::new(ChatDispatcher::new("\n", Lines(progress))?),
        Port::Protocol => Box::new(ProtocolDispatcher::new(Back(progress))),
        Port::Frames => Box::new(Frames { frames: FRAMES, progress }),
        Port::Pour => Box::new(ChatDispatcher::new(REQUEST, Pour(progress))?),
    })
}

struct Echo(Progress);

impl Dispatcher for Echo {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            self.0.made(data.len());
            ch.push(data)
        })
    }
}

struct Lines(Progress);

impl Chat for Lines {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.set_input_limit(LINE);
        Ok(())
    }

    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
        self.0.made(line.len() + 1);
        ch.push_vectored(&[IoSlice::new(line), IoSlice::new(b"\n")])
    }
}

struct Back(Progress);

impl Protocol for Back {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
        self.0.made(data.len());
        transport.write(data)
    }
}

struct Frames {
    frames: LengthPrefixed,
    progress: Progress,
}

impl Dispatcher for Frames {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, mut input| {
            self.progress.made(input.len());
            let mut answers = Vec::new();
            while let Some(frame) = self.frames.next(&mut input)? {
                FRAMES.encode(frame, &mut answers)?;
            }
            ch.push_vec(answers)
        })
    }
}

struct Pour(Progress);

impl Chat for Pour {
    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, request: &[u8]) -> io::Result<()> {
        let (seed, bytes) = request.split_at(8);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        let (mut pattern, mut left) = (Random::new(number(seed)), number(bytes) as usize);
        let progress = self.0.clone();
        ch.push_producer(move |buffer: &mut Vec<u8>| {
            let bytes = left.min(PIECE);
            pattern.fill(buffer, bytes);
            progress.made(bytes);
            left -= bytes;
            Ok(if left > 0 { More::Again } else { More::Done })
        })?;
        ch.close();
        Ok(())
    }
}
