//! Messages of a parser's own: EDGE_CASES 520 to 522.

use std::io::{self, ErrorKind};

use dispatch_loop::framing::{Decode, Decoded, FrameError, Messages};
use dispatch_loop::{Channel, ChannelMap, Dispatcher};

use crate::support::peers::{loopbacks, pair};
use crate::support::recorder::Log;
use crate::support::turning::{arrive, turn_idle, turn_until};

/// A digit that says how many bytes follow it; `!` is no message. `hints`: it says how much is missing.
struct Counted {
    hints: bool,
    /// The input of each call.
    looks: Vec<usize>,
}

fn counted(hints: bool) -> Messages<Counted> {
    Messages::new(Counted { hints, looks: Vec::new() })
}

impl Decode for Counted {
    type Message = Vec<u8>;

    fn decode(&mut self, input: &[u8]) -> io::Result<Decoded<Vec<u8>>> {
        self.looks.push(input.len());
        if input[0] == b'!' {
            return Err(io::Error::new(ErrorKind::InvalidData, "no digit"));
        }
        let whole = 1 + usize::from(input[0] - b'0');
        Ok(match input.get(1..whole) {
            Some(rest) => Decoded::Message { message: rest.to_vec(), used: whole },
            None => Decoded::Incomplete { at_least: if self.hints { whole } else { 0 } },
        })
    }
}

fn all(messages: &mut Messages<Counted>, pieces: &[&[u8]]) -> io::Result<Vec<Vec<u8>>> {
    let mut seen = Vec::new();
    for mut input in pieces.iter().copied() {
        while let Some(message) = messages.next(&mut input)? {
            seen.push(message);
        }
        assert!(input.is_empty());
    }
    Ok(seen)
}

/// EDGE_CASES 520.
#[test]
fn messages_come_out_as_they_went_in_however_the_stream_is_split() {
    let stream = b"3abc0\x31x5hello2yz9nine byte";
    let expected: [&[u8]; 6] = [b"abc", b"", b"x", b"hello", b"yz", b"nine byte"];
    for hints in [true, false] {
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let mut messages = counted(hints);
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(all(&mut messages, &pieces).unwrap(), expected, "{first} {second}");
                assert!(!messages.has_begun());
                assert_eq!(messages.end(), Ok(()));
            }
        }
    }
    // A hint spares looks: two of the five bytes' message, and one that it begins the stream.
    let mut messages = counted(true);
    let bytes: Vec<&[u8]> = b"5hello".chunks(1).collect();
    assert_eq!(all(&mut messages, &bytes).unwrap(), [b"hello"]);
    assert_eq!(messages.decoder().looks, [1, 6]);
}

/// EDGE_CASES 521.
#[test]
fn a_message_that_is_too_long_cut_short_or_none_is_an_error() {
    let too_long = |messages: Messages<Counted>, pieces: &[&[u8]]| {
        let error = all(&mut messages.with_limit(4), pieces).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        assert_eq!(inner, Some(&FrameError::TooLong { limit: 4 }));
    };
    too_long(counted(true), &[b"4"]);
    too_long(counted(false), &[b"4ab", b"c"]);
    too_long(counted(false), &[b"4abcd"]);
    assert_eq!(all(&mut counted(true).with_limit(4), &[b"3a", b"bc"]).unwrap(), [b"abc"]);
    let mut messages = counted(true);
    assert_eq!(all(&mut messages, &[b"1x3ab"]).unwrap(), [b"x"]);
    assert!(messages.has_begun());
    assert_eq!(messages.end(), Err(FrameError::Cut { got: 3 }));
    let error = all(&mut counted(true), &[b"1x!"]).unwrap_err();
    assert_eq!(error.to_string(), "no digit");
}

/// What a decoder must not say.
struct Liar(usize);

impl Decode for Liar {
    type Message = ();

    fn decode(&mut self, _: &[u8]) -> io::Result<Decoded<()>> {
        Ok(Decoded::Message { message: (), used: self.0 })
    }
}

#[test]
fn a_decoder_that_uses_nothing_or_more_than_there_is_does_no_harm() {
    for used in [0, 3] {
        let error = Messages::new(Liar(used)).next(&mut &b"ab"[..]).unwrap_err();
        assert!(error.to_string().contains(&format!("used {used} bytes of 2")), "{error}");
    }
}

struct Reader {
    messages: Messages<Counted>,
    log: Log,
}

impl Dispatcher for Reader {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let log = &self.log;
        self.messages.read(ch, |ch, message| {
            log.add(String::from_utf8(message.clone()).unwrap());
            match &message[..] {
                b"quit" => ch.close(),
                b"wait" => ch.pause_reading(),
                message => ch.push(message)?,
            }
            Ok(())
        })
    }
}

/// EDGE_CASES 522: and the channel knows where its messages are.
#[test]
fn a_channel_is_read_message_by_message_until_one_of_them_closes_it() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = pair(loopbacks()[0]);
    let token = map.add(near, Reader { messages: counted(true), log: log.clone() }).unwrap();
    for (piece, begun) in [(&b"1a2b"[..], true), (b"c", false), (b"3d", true)] {
        io::Write::write_all(&mut far, piece).unwrap();
        arrive(&mut map, token);
        assert_eq!(map.channel(token).unwrap().has_message_begun(), begun);
    }
    // What comes after a pause waits for its end, also the start of a message.
    io::Write::write_all(&mut far, b"ef4wait1g3h").unwrap();
    turn_until(&mut map, &log, |_| log.has("wait"));
    turn_idle(&mut map);
    assert_eq!(log.events(), ["a", "bc", "def", "wait"]);
    map.channel(token).unwrap().resume_reading();
    io::Write::write_all(&mut far, b"ij4quit1x").unwrap();
    turn_until(&mut map, &log, |_| log.has("quit"));
    assert_eq!(log.events(), ["a", "bc", "def", "wait", "g", "hij", "quit"]);
    drop(far);
}
