//! What is served on each port, as server and clients both know it.

use crate::random::Random;

/// Each is a listener of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// The hooks of a `Dispatcher`: what comes is sent back.
    Echo,
    /// A `Chat`: each line is sent back.
    Lines,
    /// A `Protocol`: what comes is sent back.
    Protocol,
    /// Frames with their length before them: each is sent back.
    Frames,
    /// A request says how many bytes of which pattern; they come from a producer, and the server closes.
    Pour,
}

pub const PORTS: [Port; 5] = [Port::Echo, Port::Lines, Port::Protocol, Port::Frames, Port::Pour];

impl Port {
    pub fn index(self) -> usize {
        PORTS.iter().position(|other| *other == self).expect("they are all there")
    }
}

/// The limit of a frame, and of a line, in bytes.
pub const FRAME: usize = 256 * 1024;
pub const LINE: usize = 4 * 1024;

/// A request for `Pour`: the seed, and the number of bytes.
pub const REQUEST: usize = 12;

/// What is sent, and what must come back.
pub struct Exchange {
    pub send: Vec<u8>,
    /// `None`: the same.
    expect: Option<Vec<u8>>,
}

impl Exchange {
    pub fn expect(&self) -> &[u8] {
        self.expect.as_ref().unwrap_or(&self.send)
    }

    /// A small exchange, or one of any size.
    pub fn new(port: Port, random: &mut Random, small: bool) -> Exchange {
        let bytes = match random.next() % 100 {
            _ if small => random.between(1, 1024),
            0 => random.between(64 * 1024, FRAME as u64),
            1..10 => random.between(1, 16 * 1024),
            _ => random.between(1, 1024),
        } as usize;
        let mut send = Vec::new();
        match port {
            Port::Echo | Port::Protocol => random.fill(&mut send, bytes),
            Port::Lines => {
                while send.len() < bytes {
                    let most = (bytes - send.len()).min(LINE) as u64;
                    send.extend(line(random, most));
                }
            }
            Port::Frames => {
                while send.len() < bytes {
                    let length = random.between(0, (bytes - send.len()) as u64) as u32;
                    send.extend(length.to_be_bytes());
                    random.fill(&mut send, length as usize);
                }
            }
            Port::Pour => {
                let seed = random.next();
                let expect = Some(Random::new(seed).bytes(bytes));
                return Exchange { send: request(seed, bytes as u32).to_vec(), expect };
            }
        }
        Exchange { send, expect: None }
    }
}

fn line(random: &mut Random, most: u64) -> Vec<u8> {
    let length = random.between(0, most) as usize;
    let mut line = random.bytes(length);
    line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b'n');
    line.push(b'\n');
    line
}

pub fn request(seed: u64, bytes: u32) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    request[..8].copy_from_slice(&seed.to_be_bytes());
    request[8..].copy_from_slice(&bytes.to_be_bytes());
    request
}

/// A message that is not complete, of at least two bytes.
pub fn unfinished(port: Port, random: &mut Random) -> Vec<u8> {
    let bytes = random.between(2, 512) as usize;
    match port {
        Port::Echo | Port::Protocol => random.bytes(bytes),
        Port::Lines => {
            let mut line = line(random, 512);
            line.insert(0, b'>');
            *line.last_mut().unwrap() = b'.';
            line
        }
        Port::Frames => [&1000_u32.to_be_bytes()[..], &random.bytes(bytes)].concat(),
        Port::Pour => random.bytes(bytes.min(REQUEST - 1)),
    }
}
