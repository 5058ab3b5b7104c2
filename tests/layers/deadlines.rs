//! The layers say when a message has begun and when it is complete: EDGE_CASES 244 to 247.

use dispatch_loop::Eof;
use dispatch_loop::chat::Terminator;
use dispatch_loop::framing::{ByteOrder, Framing, LengthPrefixed, Lines, Netstrings, Prefix};

use crate::support::peers::loopbacks;
use crate::support::recorder::Log;
use crate::support::turning::turn_until;

use super::talk::{Talk, deliver, reach, talking};

/// What is sent, and whether a message has begun then.
type Piece = (&'static [u8], bool);

/// EDGE_CASES 244: after each piece, whether a message has begun that is not complete.
#[test]
fn a_message_of_a_chat_has_begun_while_a_part_of_it_is_there() {
    let cases: [(Terminator, &[Piece]); 4] = [
        ("\r\n".into(), &[(b"a", true), (b"b\r", true), (b"\nc\r\n", false), (b"\r", true), (b"\n", false)]),
        ("\n".into(), &[(b"one\ntwo\n", false), (b"one\ntwo\nth", true), (b"ree\n", false)]),
        (4.into(), &[(b"123", true), (b"4", false), (b"12345", true), (b"678", false)]),
        (Terminator::None, &[(b"x", true), (b"y", true)]),
    ];
    for (terminator, pieces) in cases {
        let log = Log::new();
        let (mut map, chat, mut far) = talking(loopbacks()[0], terminator, Talk::new("a", &log));
        assert!(!map.channel(chat).unwrap().has_message_begun());
        for (piece, begun) in pieces {
            deliver(&mut map, chat, &mut far, piece, piece.len());
            assert_eq!(map.channel(chat).unwrap().has_message_begun(), *begun, "{}", piece.escape_ascii());
        }
    }
}

/// EDGE_CASES 244: a message that is too long has begun until its end; what is dropped, has not.
#[test]
fn what_a_chat_drops_of_a_message_is_none_that_has_begun() {
    let log = Log::new();
    let talk = Talk::new("a", &log).on("overlong", |_, _| Ok(())).on("data", |_, _| Ok(()));
    let (mut map, chat, mut far) = talking(loopbacks()[0], "\n", talk);
    reach(&mut map, chat, |_, ch| {
        ch.set_input_limit(4);
        Ok(())
    });
    for (piece, begun) in [(&b"123456"[..], true), (b"7\n", false), (b"12", true)] {
        deliver(&mut map, chat, &mut far, piece, piece.len());
        assert_eq!(map.channel(chat).unwrap().has_message_begun(), begun, "{}", piece.escape_ascii());
    }
    reach(&mut map, chat, |_, ch| {
        ch.discard_buffers();
        Ok(())
    });
    assert!(!map.channel(chat).unwrap().has_message_begun());
}

/// EDGE_CASES 246: a head has announced a body, of which no byte comes.
#[test]
fn a_chat_that_awaits_more_may_say_so() {
    let log = Log::new();
    let talk = Talk::new("a", &log).on("found", |ch, data| {
        if data == b"head" {
            ch.begin_message();
            ch.set_terminator(4)?;
        }
        Ok(())
    });
    let (mut map, chat, mut far) = talking(loopbacks()[0], "\n", talk);
    for (piece, begun) in [(&b"head\n"[..], true), (b"bo", true), (b"dy", false)] {
        deliver(&mut map, chat, &mut far, piece, piece.len());
        assert_eq!(map.channel(chat).unwrap().has_message_begun(), begun, "{}", piece.escape_ascii());
    }
}

/// EDGE_CASES 246: a message is that of the dispatcher that has found it.
#[test]
fn a_message_that_has_begun_is_over_with_its_chat() {
    let log = Log::new();
    let talk = Talk::new("a", &log).on("data", |ch, _| {
        ch.replace_dispatcher(crate::support::recorder::Recorder::new("next", &Log::new())).map(drop)
    });
    let (mut map, chat, mut far) = talking(loopbacks()[0], "\n", talk);
    let token = chat.token();
    deliver(&mut map, token, &mut far, b"half a li", 9);
    assert!(!map.channel(token).unwrap().has_message_begun());

    let talk = Talk::new("b", &log).eof(Eof::KeepWriting);
    let (mut map, chat, mut far) = talking(loopbacks()[0], "\n", talk);
    deliver(&mut map, chat, &mut far, b"half a li", 9);
    assert!(map.channel(chat).unwrap().has_message_begun());
    far.shutdown(std::net::Shutdown::Write).unwrap();
    turn_until(&mut map, &log, |_| log.count("b eof") == 1);
    assert!(!map.channel(chat).unwrap().has_message_begun());
}

/// EDGE_CASES 247: wherever the stream is cut, a frame has begun if an end there would cut it.
#[test]
fn a_frame_has_begun_while_a_part_of_it_is_there() {
    fn check<F: Framing + Clone>(frames: F, stream: &[u8]) {
        for size in 1..stream.len() {
            let mut frames = frames.clone();
            for mut piece in stream.chunks(size) {
                while frames.next(&mut piece).unwrap().is_some() {}
                let ended = !matches!(frames.clone().end(), Ok(None));
                assert_eq!(frames.has_begun(), ended);
            }
        }
    }
    check(Lines::new(), b"one\n\ntwo\r\nthree");
    check(Netstrings::new(), b"3:one,0:,11:hello world,");
    check(LengthPrefixed::new(Prefix::U16, ByteOrder::Big), b"\0\x03one\0\0\0\x02ab\0");
    let mut lines = Lines::new().with_limit(2);
    lines.next(&mut &b"much"[..]).unwrap_err();
    assert!(lines.has_begun(), "the rest of the line is still to come");
    lines.next(&mut &b"\n"[..]).unwrap();
    assert!(!lines.has_begun());
}
