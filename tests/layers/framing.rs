//! Frames: the same whatever the pieces, within their limits, and nothing kept that need not be.

use std::error::Error;
use std::io::{self, ErrorKind};

use dispatch_loop::framing::{ByteOrder, FrameError, Framing, LengthPrefixed, Lines, Netstrings, Prefix};
use proptest::prelude::*;

use crate::support::heap;

/// One of every kind, with this limit.
fn all(limit: usize) -> Vec<Box<dyn Framing>> {
    let mut all: Vec<Box<dyn Framing>> = vec![
        Box::new(Lines::new().with_limit(limit)),
        Box::new(Lines::crlf().with_limit(limit)),
        Box::new(Netstrings::new().with_limit(limit)),
    ];
    for prefix in [Prefix::U8, Prefix::U16, Prefix::U32, Prefix::U64] {
        for order in [ByteOrder::Big, ByteOrder::Little] {
            all.push(Box::new(LengthPrefixed::new(prefix, order).with_limit(limit)));
        }
    }
    all
}

const KINDS: usize = 11;

/// What came: a frame or an error, and behind which byte of the stream.
type Came = (usize, Result<Vec<u8>, FrameError>);

/// Feed these pieces, and the end. After a final error nothing more.
fn feed<'a>(framing: &mut dyn Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Came> {
    let mut came: Vec<Came> = Vec::new();
    let mut offset = 0;
    for piece in pieces {
        let mut input = piece;
        loop {
            assert!(came.len() <= 1000, "no end of frames");
            let result = framing.next(&mut input).map(|frame| frame.map(<[u8]>::to_vec));
            let place = offset + piece.len() - input.len();
            match result {
                Ok(None) => break,
                Ok(Some(frame)) => came.push((place, Ok(frame))),
                Err(error) => {
                    came.push((place, Err(error.clone())));
                    if let Err(again) = framing.next(&mut &b""[..]) {
                        assert_eq!(again, error);
                        assert_eq!(framing.end(), Err(error));
                        return came;
                    }
                }
            }
        }
        assert!(input.is_empty(), "None, and not all taken in");
        offset += piece.len();
    }
    match framing.end().map(|frame| frame.map(<[u8]>::to_vec)) {
        Ok(None) => {}
        Ok(Some(frame)) => {
            came.push((offset, Ok(frame)));
            assert_eq!(framing.end(), Ok(None));
        }
        Err(error) => {
            came.push((offset, Err(error.clone())));
            assert_eq!(framing.end(), Err(error));
        }
    }
    came
}

/// Cut into pieces of these sizes, over and over; 0 is an empty piece.
fn cut<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().chain(&[1]).cycle() {
        if bytes.is_empty() {
            return pieces;
        }
        let (piece, rest) = bytes.split_at(bytes.len().min(*size));
        pieces.push(piece);
        bytes = rest;
    }
    unreachable!()
}

fn frames(came: Vec<Came>) -> Vec<Vec<u8>> {
    came.into_iter().map(|(_, result)| result.unwrap()).collect()
}

/// The first that comes of these bytes, given at once.
fn first(framing: &mut dyn Framing, bytes: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
    framing.next(&mut &bytes[..]).map(|frame| frame.map(<[u8]>::to_vec))
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![3 => Just(1usize), 1 => Just(0usize), 3 => 1..5usize, 2 => 1..40usize];
    prop::collection::vec(size, 0..12)
}

/// Mostly bytes that mean something to one framing or another.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        6 => prop::sample::select(&b"\n\n\r\r:,0123456789ab"[..]),
        3 => 0..9u8,
        1 => any::<u8>(),
    ]
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(byte(), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_encoded_comes_back(
        kind in 0..KINDS,
        mut sent in prop::collection::vec(bytes(30), 0..12),
        sizes in sizes(),
    ) {
        let mut framing = all(30).remove(kind);
        let mut stream = Vec::new();
        sent.retain(|frame| {
            let before = stream.len();
            let fits = framing.encode(frame, &mut stream).is_ok();
            assert!(fits || stream.len() == before, "refused, and yet something is appended");
            assert!(fits || kind < 2, "only a line can be refused here");
            fits
        });
        prop_assert_eq!(frames(feed(&mut *framing, cut(&stream, &sizes))), sent);
    }

    #[test]
    fn the_pieces_make_no_difference(
        kind in 0..KINDS,
        limit in 0..20usize,
        mut stream in bytes(200),
        frame in bytes(20),
        sizes in sizes(),
    ) {
        // Something whole to begin with, so that more than the first frame is ever looked at.
        let mut whole = Vec::new();
        let _ = all(limit)[kind].encode(&frame, &mut whole);
        stream.splice(..0, whole.repeat(2));
        let in_one = feed(&mut *all(limit).remove(kind), [&stream[..]]);
        let in_pieces = feed(&mut *all(limit).remove(kind), cut(&stream, &sizes));
        let byte_by_byte = feed(&mut *all(limit).remove(kind), stream.chunks(1));
        prop_assert_eq!(&in_one, &in_pieces);
        prop_assert_eq!(&in_one, &byte_by_byte);
        for (_, result) in in_one {
            prop_assert!(result.is_err() || result.unwrap().len() <= limit);
        }
    }

    #[test]
    fn lines_are_what_splitting_gives(stream in bytes(200), sizes in sizes()) {
        let mut expected: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').collect();
        if expected.last().is_some_and(|last| last.is_empty()) {
            expected.pop();
        }
        let expected: Vec<_> = expected.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
        let came = frames(feed(&mut Lines::new(), cut(&stream, &sizes)));
        prop_assert_eq!(came, expected);
    }
}

// Limits.

#[test]
fn a_frame_of_the_limit_passes_and_one_byte_more_does_not() {
    const LIMIT: usize = 100;
    for kind in 0..KINDS {
        for (len, passes) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
            let frame = vec![b'x'; len];
            let mut stream = Vec::new();
            all(1000)[kind].encode(&frame, &mut stream).unwrap();
            let expected = if passes { Ok(frame.clone()) } else { Err(FrameError::TooLong { limit: LIMIT }) };
            for size in [1, 2, 3, 7, LIMIT, LIMIT + 1, LIMIT + 2, stream.len()] {
                let came = feed(&mut *all(LIMIT).remove(kind), stream.chunks(size));
                assert_eq!(came.len(), 1, "kind {kind}, {len} bytes in pieces of {size}");
                assert_eq!(came[0].1, expected, "kind {kind}, {len} bytes in pieces of {size}");
            }
            let mut output = b"before".to_vec();
            let encoded = all(LIMIT)[kind].encode(&frame, &mut output);
            assert_eq!(encoded, expected.map(drop));
            assert_eq!(output.len() > 6, passes);
        }
    }
}

#[test]
fn the_default_limits_are_those_documented() {
    let frame = vec![b'x'; 1024 * 1024 + 1];
    let mut output = Vec::new();
    let mut limit_of = |framing: &dyn Framing, limit: usize| {
        framing.encode(&frame[..limit], &mut output).unwrap();
        assert_eq!(framing.encode(&frame[..limit + 1], &mut output), Err(FrameError::TooLong { limit }));
    };
    limit_of(&Lines::new(), 64 * 1024);
    limit_of(&Lines::crlf(), 64 * 1024);
    limit_of(&Lines::default(), 64 * 1024);
    limit_of(&Netstrings::new(), 1024 * 1024);
    limit_of(&Netstrings::default(), 1024 * 1024);
    limit_of(&LengthPrefixed::new(Prefix::U32, ByteOrder::Big), 1024 * 1024);
    limit_of(&LengthPrefixed::new(Prefix::U16, ByteOrder::Big), 65_535);
    limit_of(&LengthPrefixed::new(Prefix::U8, ByteOrder::Little), 255);
}

#[test]
fn a_frame_over_the_limit_is_known_as_soon_as_can_be() {
    let too_long = Err(FrameError::TooLong { limit: 10 });
    assert_eq!(first(&mut Lines::new().with_limit(10), b"01234567890"), too_long);
    // A `\r` may be the end of the line; what follows it decides.
    assert_eq!(first(&mut Lines::new().with_limit(10), b"0123456789\r"), Ok(None));
    assert_eq!(first(&mut Lines::new().with_limit(10), b"0123456789\r\r"), too_long);
    assert_eq!(first(&mut Lines::new().with_limit(10), b"0123456789\r\n"), Ok(Some(b"0123456789".to_vec())));
    assert_eq!(first(&mut Netstrings::new().with_limit(10), b"1"), Ok(None));
    assert_eq!(first(&mut Netstrings::new().with_limit(10), b"11"), too_long);
    let u32s = || LengthPrefixed::new(Prefix::U32, ByteOrder::Big).with_limit(10);
    assert_eq!(first(&mut u32s(), b"\0\0\0"), Ok(None));
    assert_eq!(first(&mut u32s(), b"\0\0\0\x0b"), too_long);
}

#[test]
fn the_highest_limit_overflows_nothing() {
    for kind in 0..KINDS {
        for limit in [usize::MAX, usize::MAX / 2, isize::MAX as usize + 1] {
            let mut stream = Vec::new();
            all(limit)[kind].encode(b"hello", &mut stream).unwrap();
            assert_eq!(frames(feed(&mut *all(limit).remove(kind), stream.chunks(1))), [b"hello"]);
        }
    }
    let digits = "9".repeat(100);
    let error = first(&mut Netstrings::new().with_limit(usize::MAX), digits.as_bytes()).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    // Ten times its first nineteen digits is 8, if 2^64 counts as nothing.
    let error =
        first(&mut Netstrings::new().with_limit(usize::MAX), b"36893488147419103240:12345678,").unwrap_err();
    assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    let mut longest = LengthPrefixed::new(Prefix::U64, ByteOrder::Big).with_limit(usize::MAX);
    let error = first(&mut longest, &[0xff; 20]).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
}

#[test]
fn only_empty_frames_fit_a_limit_of_nothing() {
    for kind in 0..KINDS {
        let mut stream = Vec::new();
        all(0)[kind].encode(b"", &mut stream).unwrap();
        assert!(all(0)[kind].encode(b"x", &mut stream).is_err());
        for size in [1, 2, 100] {
            let stream = stream.repeat(3);
            assert_eq!(frames(feed(&mut *all(0).remove(kind), stream.chunks(size))), [b"", b"", b""]);
        }
    }
}

#[test]
fn a_line_too_long_is_told_once_and_the_next_one_is_whole() {
    let stream = [&b"short\n"[..], &[b'x'; 500], b"\nnext\r\n", &[b'\r'; 500], b"\n", &[b'y'; 500]].concat();
    let too_long = Err(FrameError::TooLong { limit: 8 });
    for size in [1, 2, 9, 10, 100, 2000] {
        let came: Vec<_> = feed(&mut Lines::new().with_limit(8), stream.chunks(size))
            .into_iter()
            .map(|(_, result)| result)
            .collect();
        let (short, next) = (Ok(b"short".to_vec()), Ok(b"next".to_vec()));
        // The last one is skipped to the end of the stream, and that is no further news.
        assert_eq!(came, [short, too_long.clone(), next, too_long.clone(), too_long.clone()]);
    }
}

// What is wrong, and how it is said.

#[test]
fn malformed_netstrings_are_errors_that_say_what_is_wrong() {
    let digit = "a digit";
    let colon = "':'";
    let either = "a digit or ':'";
    let comma = "','";
    for (stream, expected, found, place) in [
        (&b":,"[..], digit, b':', 0),
        (b",", digit, b',', 0),
        (b" 5:hello,", digit, b' ', 0),
        (b"-1:x,", digit, b'-', 0),
        (b"+1:x,", digit, b'+', 0),
        (b"\n5:hello,", digit, b'\n', 0),
        (b"05:hello,", colon, b'5', 1),
        (b"00:,", colon, b'0', 1),
        (b"0,", colon, b',', 1),
        (b"5 :hello,", either, b' ', 1),
        (b"5;hello,", either, b';', 1),
        (b"0x5:hello,", colon, b'x', 1),
        (b"5:hello;", comma, b';', 8),
        (b"5:hello world,", comma, b' ', 8),
        (b"0:\n", comma, b'\n', 3),
        (b"3:abc,\xff", digit, 0xff, 6),
    ] {
        for size in [1, 2, 100] {
            let mut came = feed(&mut Netstrings::new(), stream.chunks(size));
            let last = came.pop().unwrap();
            let error = FrameError::Malformed { expected, found };
            assert_eq!(last, (place, Err(error)), "{} in pieces of {size}", stream.escape_ascii());
        }
    }
}

#[test]
fn what_is_wrong_is_final() {
    let error = FrameError::Malformed { expected: "a digit", found: b'x' };
    let mut frames = Netstrings::new();
    assert_eq!(first(&mut frames, b"x5:hello,"), Err(error.clone()));
    assert_eq!(first(&mut frames, b"5:hello,"), Err(error.clone()));
    assert_eq!(frames.end(), Err(error));

    let error = FrameError::TooLong { limit: 5 };
    let mut frames = LengthPrefixed::new(Prefix::U8, ByteOrder::Big).with_limit(5);
    assert_eq!(first(&mut frames, b"\x06sixsix\x01x"), Err(error.clone()));
    assert_eq!(first(&mut frames, b"\x01x"), Err(error.clone()));
    assert_eq!(frames.end(), Err(error));
}

#[test]
fn a_stream_that_ends_within_a_frame_is_cut() {
    for kind in 2..KINDS {
        let mut stream = Vec::new();
        all(100)[kind].encode(b"hello", &mut stream).unwrap();
        let whole = stream.len();
        stream.extend_from_within(..);
        for end in 0..=stream.len() {
            let came = feed(&mut *all(100).remove(kind), stream[..end].chunks(1));
            let mut expected = vec![(whole, Ok(b"hello".to_vec())), (2 * whole, Ok(b"hello".to_vec()))];
            expected.truncate(end / whole);
            if end % whole > 0 {
                expected.push((end, Err(FrameError::Cut { got: end % whole })));
            }
            assert_eq!(came, expected, "kind {kind}");
        }
    }
}

#[test]
fn a_frame_that_came_in_pieces_is_not_left_over() {
    for kind in 0..KINDS {
        let mut framing = all(100).remove(kind);
        let mut stream = Vec::new();
        framing.encode(b"hello", &mut stream).unwrap();
        let (mut piece, mut last) = stream.split_at(stream.len() - 1);
        assert_eq!(framing.next(&mut piece), Ok(None));
        assert_eq!(framing.next(&mut last), Ok(Some(&b"hello"[..])));
        assert_eq!(framing.end(), Ok(None));
    }
}

#[test]
fn a_last_line_needs_no_newline() {
    for (stream, expected) in [
        (&b""[..], &[][..]),
        (b"one\n", &[&b"one"[..]]),
        (b"one\ntwo", &[b"one", b"two"]),
        (b"one\ntwo\r", &[b"one", b"two"]),
        (b"one\n\r", &[b"one", b""]),
        (b"\n", &[b""]),
    ] {
        for size in [1, 100] {
            assert_eq!(frames(feed(&mut Lines::new(), stream.chunks(size))), expected);
        }
    }
    // After its end it can begin anew.
    let mut lines = Lines::new().with_limit(10);
    assert!(feed(&mut lines, [&b"much too long"[..]])[0].1.is_err());
    assert_eq!(frames(feed(&mut lines, [&b"left over"[..]])), [b"left over"]);
    assert_eq!(frames(feed(&mut lines, [&b"another"[..]])), [b"another"]);
}

#[test]
fn what_cannot_be_said_is_refused() {
    for lines in [Lines::new(), Lines::crlf()] {
        for frame in [&b"\n"[..], b"two\nlines", b"newline\n", b"carriage return\r", b"\r"] {
            let mut output = b"before".to_vec();
            let error = lines.encode(frame, &mut output).unwrap_err();
            assert!(matches!(error, FrameError::Unencodable { .. }), "{error}");
            assert_eq!(output, b"before");
        }
        lines.encode(b"\rwithin\ra line", &mut Vec::new()).unwrap();
    }
    let big = vec![0; 70_000];
    for (prefix, limit) in [(Prefix::U8, 255), (Prefix::U16, 65_535)] {
        for order in [ByteOrder::Big, ByteOrder::Little] {
            let frames = LengthPrefixed::new(prefix, order).with_limit(usize::MAX);
            let mut output = b"before".to_vec();
            assert_eq!(frames.encode(&big, &mut output), Err(FrameError::TooLong { limit }));
            assert_eq!(output, b"before");
        }
    }
}

#[test]
fn each_framing_has_its_own_bytes_on_the_wire() {
    let big = |prefix| LengthPrefixed::new(prefix, ByteOrder::Big);
    let little = |prefix| LengthPrefixed::new(prefix, ByteOrder::Little);
    let framings: [(&dyn Framing, &[u8]); 11] = [
        (&Lines::new(), b"hi\n"),
        (&Lines::crlf(), b"hi\r\n"),
        (&Netstrings::new(), b"2:hi,"),
        (&big(Prefix::U8), b"\x02hi"),
        (&big(Prefix::U16), b"\0\x02hi"),
        (&big(Prefix::U32), b"\0\0\0\x02hi"),
        (&big(Prefix::U64), b"\0\0\0\0\0\0\0\x02hi"),
        (&little(Prefix::U8), b"\x02hi"),
        (&little(Prefix::U16), b"\x02\0hi"),
        (&little(Prefix::U32), b"\x02\0\0\0hi"),
        (&little(Prefix::U64), b"\x02\0\0\0\0\0\0\0hi"),
    ];
    for (framing, wire) in framings {
        let mut output = b">".to_vec();
        framing.encode(b"hi", &mut output).unwrap();
        assert_eq!(&output[1..], wire);
    }
    // All bytes of a length count.
    let frame = vec![7; 0x01_02_03];
    for (order, length) in [(ByteOrder::Big, b"\x00\x01\x02\x03"), (ByteOrder::Little, b"\x03\x02\x01\x00")] {
        let mut output = Vec::new();
        LengthPrefixed::new(Prefix::U32, order).encode(&frame, &mut output).unwrap();
        assert_eq!(&output[..4], length);
        assert_eq!(frames(feed(&mut LengthPrefixed::new(Prefix::U32, order), [&output[..]])), [&frame[..]]);
    }
}

#[test]
fn errors_keep_their_cause_inside_an_io_error() {
    for (error, kind, text) in [
        (FrameError::TooLong { limit: 5 }, ErrorKind::InvalidData, "a frame over the limit of 5 bytes"),
        (
            FrameError::Malformed { expected: "','", found: b'\n' },
            ErrorKind::InvalidData,
            "malformed frame: expected ',', found '\\n'",
        ),
        (FrameError::Cut { got: 3 }, ErrorKind::UnexpectedEof, "the stream ended 3 bytes into a frame"),
        (FrameError::Unencodable { reason: "no" }, ErrorKind::InvalidInput, "cannot be sent: no"),
    ] {
        let wrapped = io::Error::from(error.clone());
        assert_eq!(wrapped.kind(), kind);
        assert_eq!(wrapped.to_string(), text);
        let inner: &(dyn Error + Send + Sync) = wrapped.get_ref().unwrap();
        assert_eq!(inner.downcast_ref::<FrameError>(), Some(&error));
    }
}

#[test]
fn nothing_that_came_is_in_the_debug_output() {
    let mut lines = Lines::new();
    assert_eq!(first(&mut lines, b"secret"), Ok(None));
    let shown = format!("{lines:?}");
    assert!(shown.contains("6 bytes") && !shown.contains("115"), "{shown}");
}

// Memory.

#[test]
fn a_frame_that_lies_whole_in_the_input_is_not_copied() {
    for kind in 0..KINDS {
        let mut framing = all(100).remove(kind);
        let mut stream = Vec::new();
        for _ in 0..10 {
            framing.encode(b"hello", &mut stream).unwrap();
        }
        let before = heap::allocations();
        let mut input = &stream[..];
        let mut count = 0;
        while let Some(frame) = framing.next(&mut input).unwrap() {
            assert!(stream.as_ptr_range().contains(&frame.as_ptr()));
            count += 1;
        }
        assert_eq!((count, heap::allocations() - before), (10, 0), "kind {kind}");
    }
}

#[test]
fn what_is_announced_costs_nothing() {
    // Two thousand million, for which there is room on 32 bits as well.
    let announced: [(Box<dyn Framing>, &[u8]); 3] = [
        (
            Box::new(LengthPrefixed::new(Prefix::U32, ByteOrder::Big).with_limit(usize::MAX)),
            b"\x77\x35\x94\x000123456789",
        ),
        (
            Box::new(LengthPrefixed::new(Prefix::U64, ByteOrder::Little).with_limit(usize::MAX)),
            b"\0\x94\x35\x77\0\0\0\x000123456789",
        ),
        (Box::new(Netstrings::new().with_limit(usize::MAX)), b"2000000000:0123456789"),
    ];
    for (mut framing, stream) in announced {
        let before = heap::allocated();
        assert_eq!(framing.next(&mut &stream[..]), Ok(None));
        let allocated = heap::allocated() - before;
        assert!(allocated <= 64, "{allocated} bytes for 10 that came");
    }
}

#[test]
fn no_more_is_kept_than_the_limit() {
    for limit in [0, 1, 10, 63, 64, 100, 1000, 100_000] {
        for kind in 0..KINDS {
            let len = match kind {
                3 | 4 => limit.min(255),
                5 | 6 => limit.min(65_535),
                _ => limit,
            };
            let mut stream = Vec::new();
            all(limit)[kind].encode(&vec![b'x'; len], &mut stream).unwrap();
            for size in [1, 1000] {
                let mut framing = all(limit).remove(kind);
                let before = heap::live();
                heap::reset_peak();
                let mut frames = 0;
                for _ in 0..2 {
                    for piece in stream.chunks(size) {
                        let mut input = piece;
                        while framing.next(&mut input).unwrap().is_some() {
                            frames += 1;
                        }
                    }
                }
                assert_eq!(frames, 2);
                let kept = heap::peak() - before;
                assert!(kept <= limit as i64 + 1, "kind {kind}: {kept} bytes for a limit of {limit}");
                // What is left when nobody is within a frame.
                assert_eq!(framing.next(&mut &b""[..]), Ok(None));
                let left = heap::live() - before;
                assert!(left <= 4096, "kind {kind}: {left} bytes are left");
            }
        }
    }
}

#[test]
fn a_line_without_end_is_not_kept() {
    let mut lines = Lines::new().with_limit(1000);
    let before = heap::live();
    heap::reset_peak();
    let mut errors = 0;
    for _ in 0..100 {
        let mut input = &[b'x'; 10_000][..];
        loop {
            match lines.next(&mut input) {
                Ok(None) => break,
                Ok(Some(_)) => panic!("a frame of a stream without a newline"),
                Err(_) => errors += 1,
            }
        }
    }
    assert_eq!(errors, 1);
    assert!(heap::peak() - before <= 1001);
}
