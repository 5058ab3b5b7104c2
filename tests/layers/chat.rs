//! Messages out of a stream of bytes: the chat layer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher, Terminator};
#[cfg(debug_assertions)]
use dispatch_loop::faults::{self, Call, Fault, inject};
use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};
use dispatch_loop::{ChannelMap, Eof, OnError};
use proptest::prelude::*;

use super::talk::*;

use crate::support::heap;
use crate::support::logging::{capture_log, logged};
use crate::support::peers::{loopbacks, pair, read_exactly, read_now, refusing, reset, unix_pair};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{arrive, assert_calm, turn_quiet, turn_until};
use crate::support::waiting::wait_for_hang_up;

/// How the test's peers send: in pieces of so many bytes.
const SIZES: [usize; 4] = [1, 2, 3, usize::MAX];

/// The peer sends its end, and all comes to its own.
#[track_caller]
fn end(map: &mut ChannelMap, log: &Log, far: &std::net::TcpStream) {
    far.shutdown(Shutdown::Write).unwrap();
    turn_until(map, log, |map| map.is_empty());
}

// What test_asynchat tries.

#[test]
fn lines_in_pieces_of_any_size_come_whole() {
    for on in loopbacks() {
        for terminator in ["\n", "\r\n", "qqq"] {
            for size in SIZES {
                let log = Log::new();
                let (mut map, handle, mut far) = talking(on, terminator, Talk::new("a", &log));
                let text =
                    ["hello, world", "q, not yet", "", "\r", ""].map(|line| line.to_owned() + terminator);
                deliver(&mut map, handle, &mut far, text.concat().as_bytes(), size);
                end(&mut map, &log, &far);
                let found =
                    ["open", "found hello, world", "found q, not yet", "found ", "found \\r", "found "];
                let ended = ["eof ", "close: end of stream"];
                assert_eq!(log.of("a"), [&found[..], &ended].concat(), "{terminator:?} in pieces of {size}");
            }
        }
    }
}

#[test]
fn a_count_cuts_every_so_many_bytes_and_none_never() {
    for on in loopbacks() {
        for size in SIZES {
            for (terminator, found, rest) in [
                (Terminator::Count(1), &["a", "b", "c", "d", "e", "f", "g", "h"][..], ""),
                (Terminator::Count(6), &["abcdef"], "gh"),
                (Terminator::None, &[], "abcdefgh"),
            ] {
                let log = Log::new();
                let (mut map, handle, mut far) = talking(on, terminator.clone(), Talk::new("a", &log));
                let asked = reach(&mut map, handle, |_, ch| Ok(ch.terminator().clone()));
                assert_eq!(asked, terminator);
                deliver(&mut map, handle, &mut far, b"abcdefgh", size);
                let collected = reach(&mut map, handle, |_, ch| Ok(ch.collected().to_vec()));
                assert_eq!(collected, rest.as_bytes());
                end(&mut map, &log, &far);
                let found: Vec<String> = found.iter().map(|found| format!("found {found}")).collect();
                let wanted =
                    [vec!["open".into()], found, vec![format!("eof {rest}"), "close: end of stream".into()]];
                assert_eq!(log.of("a"), wanted.concat(), "{terminator:?} in pieces of {size}");
            }
        }
    }
}

/// What one chat makes in small pieces, the other takes apart.
#[test]
fn two_chats_understand_each_other() {
    for on in loopbacks() {
        for size in [1, 8, 1000] {
            let log = Log::new();
            let (near, far) = pair(on);
            let mut map = ChannelMap::new().unwrap();
            let server = Talk::new("server", &log).on("found", |ch, line| match line {
                b"quit" => {
                    ch.close();
                    Ok(())
                }
                line => ch.push_vectored(&[IoSlice::new(line), IoSlice::new(b"!\n")]),
            });
            let client = Talk::new("client", &log).on("open", move |ch, _| {
                let mut bytes = &b"one\ntwo\n\nquit\n"[..];
                ch.push_producer(move |buffer: &mut Vec<u8>| {
                    let (piece, rest) = bytes.split_at(size.min(bytes.len()));
                    buffer.extend_from_slice(piece);
                    bytes = rest;
                    Ok(if rest.is_empty() { dispatch_loop::More::Done } else { dispatch_loop::More::Again })
                })
            });
            map.add(near, ChatDispatcher::new("\n", server).unwrap()).unwrap();
            map.add(far, ChatDispatcher::new("\n", client).unwrap()).unwrap();
            turn_until(&mut map, &log, |map| map.is_empty());
            let server = ["open", "found one", "found two", "found ", "found quit", "close: closed"];
            assert_eq!(log.of("server"), server);
            let client = ["open", "found one!", "found two!", "found !", "eof ", "close: end of stream"];
            assert_eq!(log.of("client"), client);
        }
    }
}

/// asynchat's `close_when_done`: what is queued goes first; where nothing is, FIN does at once.
#[test]
fn close_sends_what_is_queued_first() {
    for on in loopbacks() {
        for queued in [0, 3_000_000] {
            let log = Log::new();
            let (mut map, handle, mut far) = talking(on, "\n", Talk::new("a", &log));
            reach(&mut map, handle, |_, ch| {
                ch.push_vec(vec![b'x'; queued])?;
                ch.close();
                ch.close();
                assert_eq!(ch.push(b"late").unwrap_err().kind(), ErrorKind::BrokenPipe);
                Ok(())
            });
            if queued == 0 {
                map.turn(Some(Duration::ZERO)).unwrap();
                assert_eq!(far.read(&mut [0]).unwrap(), 0);
            }
            let reader = std::thread::spawn(move || {
                let mut got = Vec::new();
                far.read_to_end(&mut got).map(|_| got.len())
            });
            turn_until(&mut map, &log, |map| map.is_empty());
            assert_eq!(reader.join().unwrap().unwrap(), queued);
            assert_eq!(log.of("a").last().unwrap(), "close: closed");
        }
    }
}

/// The start of a terminator at the end of the stream was none.
#[test]
fn what_was_held_back_comes_with_the_end_of_the_stream() {
    for on in loopbacks() {
        for own in [false, true] {
            for (terminator, sent, rest) in [
                ("\r\n", "found\r\nab\r", "ab\\r"),
                ("\r\n", "found\r\n\r", "\\r"),
                ("qqq", "foundqqqqq", "qq"),
                ("abac", "foundabacaba", "aba"),
            ] {
                let log = Log::new();
                let mut talk = Talk::new("a", &log);
                if own {
                    talk = talk.on("data", |ch, data| {
                        ch.collect(data);
                        Ok(())
                    });
                }
                let (mut map, handle, mut far) = talking(on, terminator, talk);
                deliver(&mut map, handle, &mut far, sent.as_bytes(), 4);
                end(&mut map, &log, &far);
                let events = log.of("a");
                let but_data: Vec<_> = events.iter().filter(|event| !event.starts_with("data")).collect();
                let wanted = ["open", "found found", &format!("eof {rest}"), "close: end of stream"];
                assert_eq!(but_data, wanted.iter().collect::<Vec<_>>());
                let data: String = events.iter().filter_map(|event| event.strip_prefix("data ")).collect();
                assert_eq!(data, if own { "found".to_owned() + rest } else { String::new() });
            }
        }
    }
}

/// Refused, and the one before it stays.
#[test]
fn a_terminator_that_would_be_found_for_ever_is_refused() {
    for nothing in [Terminator::from(""), Terminator::from(0), Terminator::from(Vec::new())] {
        let log = Log::new();
        let refused = ChatDispatcher::new(nothing.clone(), Talk::new("a", &log)).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        let (mut map, handle, mut far) = talking(loopbacks()[0], "\r\n", Talk::new("a", &log));
        deliver(&mut map, handle, &mut far, b"one\r", 4);
        let refused = reach(&mut map, handle, |_, ch| Ok(ch.set_terminator(nothing).unwrap_err().kind()));
        assert_eq!(refused, ErrorKind::InvalidInput);
        deliver(&mut map, handle, &mut far, b"\ntwo\r\n", 7);
        assert_eq!(log.of("a"), ["open", "found one", "found two"]);
    }
}

// The textbook says the same.

/// What the peer and the test do, in turn.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    Change(Terminator),
}

fn terminator() -> impl Strategy<Value = Terminator> {
    prop_oneof![
        6 => letters(1..=6).prop_map(Terminator::from),
        1 => (1..5usize).prop_map(Terminator::from),
    ]
}

fn letters(len: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![3 => Just(b'a'), 2 => Just(b'b'), 1 => Just(b'c')], len)
}

/// How the chat lives meanwhile.
#[derive(Clone, Copy, Debug)]
struct Habit {
    /// It pauses in each `found_terminator`, and is resumed when nothing more happens.
    pauses: bool,
    /// It fails in each, and is kept.
    fails: bool,
    /// It collects for itself.
    own: bool,
    /// It asks for its channel in each hook.
    asks: bool,
    limit: usize,
}

fn play(first: Terminator, next: Vec<Terminator>, steps: Vec<Step>, habit: Habit) {
    let log = Log::new();
    let mut naive = Naive::new(first.clone(), next.clone().into(), habit.limit);
    let mut next: VecDeque<Terminator> = next.into();
    let mut talk = Talk::new("a", &log)
        .on_error(OnError::Keep)
        .on("open", move |ch, _| {
            ch.set_input_limit(habit.limit);
            Ok(())
        })
        .on("overlong", move |ch, _| {
            if habit.asks {
                ch.channel_mut();
            }
            Ok(())
        })
        .on("found", move |ch, _| {
            if habit.asks && next.len() % 2 == 0 {
                ch.channel_mut();
            }
            if let Some(next) = next.pop_front() {
                ch.set_terminator(next)?;
            }
            if habit.pauses {
                ch.pause_reading();
            }
            if habit.asks {
                ch.channel_mut();
            }
            if habit.fails { Err(io::Error::other("as it does")) } else { Ok(()) }
        });
    if habit.own {
        talk = talk.on("data", move |ch, data| {
            assert!(!data.is_empty());
            ch.collect(data);
            if habit.asks {
                ch.channel_mut();
            }
            Ok(())
        });
    }
    let (near, mut far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let handle = map.add(near, ChatDispatcher::new(first, talk).unwrap()).unwrap();
    let go_on = |map: &mut ChannelMap| {
        turn_quiet(map);
        while map.contains(handle) && map.channel(handle).unwrap().is_paused() {
            map.channel(handle).unwrap().resume_reading();
            turn_quiet(map);
        }
    };
    go_on(&mut map);
    for step in steps {
        match step {
            Step::Send(bytes) => {
                naive.feed(&bytes);
                far.write_all(&bytes).unwrap();
            }
            Step::Change(terminator) => {
                naive.set(terminator.clone());
                naive.feed(b"");
                reach(&mut map, handle, |_, ch| ch.set_terminator(terminator));
            }
        }
        go_on(&mut map);
    }
    let collected = reach(&mut map, handle, |_, ch| Ok(ch.collected().to_vec()));
    if naive.collected.len() <= habit.limit {
        assert_eq!(collected, naive.collected);
    } else {
        assert_eq!(collected, b"");
    }
    far.shutdown(Shutdown::Write).unwrap();
    go_on(&mut map);
    assert!(map.is_empty());
    // All of it in order, and what is longer than the limit is said to be so in its place.
    let within = |message: &[u8]| message.len() <= habit.limit;
    let told = |message: &Vec<u8>| match within(message) {
        true => format!("found {}", message.escape_ascii()),
        false => "overlong".to_owned(),
    };
    let mut wanted: Vec<String> = naive.messages.iter().map(told).collect();
    let rest = naive.rest();
    if within(&rest) {
        wanted.push(format!("eof {}", rest.escape_ascii()));
    } else {
        wanted.extend(["overlong".to_owned(), "eof ".to_owned()]);
    }
    let told = |event: &String| ["found", "overlong", "eof"].iter().any(|told| event.starts_with(told));
    assert_eq!(log.of("a").into_iter().filter(told).collect::<Vec<_>>(), wanted);
    if habit.own && habit.limit > 1000 {
        let data: String =
            log.of("a").iter().filter_map(|event| event.strip_prefix("data ").map(str::to_owned)).collect();
        let all = [naive.messages.concat(), rest].concat();
        assert_eq!(data, all.escape_ascii().to_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_terminator_is_found_in_any_input_in_any_pieces(
        first in terminator(),
        steps in prop::collection::vec(letters(1..=12).prop_map(Step::Send), 1..20),
        habit in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let (pauses, fails, own, asks) = habit;
        play(first, vec![], steps, Habit { pauses, fails, own, asks, limit: 1 << 16 });
    }

    #[test]
    fn terminators_that_change_are_found_as_a_plain_search_finds_them(
        first in terminator(),
        next in prop::collection::vec(terminator(), 0..10),
        steps in prop::collection::vec(
            prop_oneof![
                4 => letters(1..=12).prop_map(Step::Send),
                1 => terminator().prop_map(Step::Change),
            ],
            1..20,
        ),
        habit in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let (pauses, fails, own, asks) = habit;
        play(first, next, steps, Habit { pauses, fails, own, asks, limit: 1 << 16 });
    }

    /// The same messages are too long whatever pieces they come in.
    #[test]
    fn the_limit_does_not_depend_on_the_pieces(
        first in letters(1..=3),
        next in prop::collection::vec(letters(1..=3).prop_map(Terminator::from), 0..3),
        steps in prop::collection::vec(letters(1..=9).prop_map(Step::Send), 1..20),
        own in any::<bool>(),
        asks in any::<bool>(),
        limit in 0..7usize,
    ) {
        play(first.into(), next, steps, Habit { pauses: false, fails: false, own, asks, limit });
    }
}

// Terminators that change.

/// A header says how long the body is; an empty body is whole at once.
#[test]
fn a_header_may_say_how_long_the_body_is() {
    for on in loopbacks() {
        for size in SIZES {
            let log = Log::new();
            let mut header = true;
            let talk = Talk::new("a", &log).on("found", move |ch, data| {
                header = match std::str::from_utf8(data).unwrap().parse::<usize>() {
                    Ok(0) => true,
                    Ok(body) if header => {
                        ch.set_terminator(body)?;
                        false
                    }
                    _ => {
                        ch.set_terminator("\r\n")?;
                        true
                    }
                };
                Ok(())
            });
            let (mut map, handle, mut far) = talking(on, "\r\n", talk);
            deliver(&mut map, handle, &mut far, b"3\r\na\r\n0\r\n5\r\n12345\r", size);
            deliver(&mut map, handle, &mut far, b"\n", size);
            let found = ["open", "found 3", "found a\\r\\n", "found 0", "found 5", "found 12345", "found "];
            assert_eq!(log.of("a"), found, "in pieces of {size}");
        }
    }
}

/// It holds for what follows the piece that the hook is given, also for bytes that matched the old
/// one so far.
#[test]
fn a_terminator_set_while_collecting_holds_for_what_follows() {
    for size in SIZES {
        let log = Log::new();
        let talk = Talk::new("a", &log).on("data", |ch, data| {
            ch.collect(data);
            match ch.collected() {
                // Here an `a` is held back that may be the start of the next `aab`.
                b"a" => ch.set_terminator("ac"),
                _ => Ok(()),
            }
        });
        let (mut map, handle, mut far) = talking(loopbacks()[0], "aab", talk);
        deliver(&mut map, handle, &mut far, b"aaacxac", size);
        let wanted = ["open", "data a", "data a", "found aa", "data x", "found x"];
        assert_eq!(log.of("a"), wanted, "in pieces of {size}");
    }
}

/// What was held back as the start of the old terminator is searched for the new one, also when
/// nothing more comes.
#[test]
fn a_terminator_set_from_outside_searches_what_was_held_back() {
    for on in loopbacks() {
        for (terminator, found) in [
            (Terminator::from("\r"), &["found ab"][..]),
            (Terminator::from(1), &["found ab\\r"]),
            ("\n".into(), &[]),
        ] {
            let log = Log::new();
            let (mut map, handle, mut far) = talking(on, "\r\r\n", Talk::new("a", &log));
            deliver(&mut map, handle, &mut far, b"ab\r", 3);
            let held = reach(&mut map, handle, |_, ch| {
                ch.set_terminator(terminator)?;
                Ok(ch.collected().to_vec())
            });
            assert_eq!(held, b"ab");
            turn_quiet(&mut map);
            assert_eq!(log.of("a")[1..], *found);
            assert_calm(&mut map);
            far.write_all(b"c\n").unwrap();
            end(&mut map, &log, &far);
            let wanted = match found {
                ["found ab"] => &["found ab", "eof c\\n"][..],
                [] => &["found ab\\rc", "eof "],
                _ => &["found ab\\r", "found c", "found \\n", "eof "],
            };
            assert_eq!(log.of("a")[1..], [wanted, &["close: end of stream"]].concat());
        }
    }
}

/// Nothing that `handle_eof` was given comes once more.
#[test]
fn a_terminator_set_at_the_end_of_the_stream_repeats_nothing() {
    let log = Log::new();
    let talk = Talk::new("a", &log).eof(Eof::KeepWriting).on("eof", |ch, _| ch.set_terminator("x"));
    let (mut map, handle, mut far) = talking(loopbacks()[0], "\r\n", talk);
    deliver(&mut map, handle, &mut far, b"ab\r", 3);
    far.shutdown(Shutdown::Write).unwrap();
    arrive(&mut map, handle.token());
    reach(&mut map, handle, |_, ch| ch.set_terminator("ab"));
    turn_quiet(&mut map);
    reach(&mut map, handle, |_, ch| {
        assert_eq!(ch.collected(), b"");
        ch.close();
        Ok(())
    });
    turn_until(&mut map, &log, |map| map.is_empty());
    assert_eq!(log.of("a"), ["open", "eof ab\\r", "close: closed"]);
}

// The limit.

/// A message of 4, 5 and 6 bytes where 5 are allowed, some of them looking like a terminator, in
/// pieces of any size.
#[test]
fn a_message_of_the_limit_passes_and_one_byte_more_does_not() {
    for message in ["abcd", "abcde", "ab\r\rd", "abcd\r", "abcdef", "abcde\r", "a\r\r\r\r\r", "\r\rcdef"] {
        for own in [false, true] {
            for size in (1..9).chain([usize::MAX]) {
                let log = Log::new();
                let mut talk = Talk::new("a", &log)
                    .on("open", |ch, _| {
                        ch.set_input_limit(5);
                        Ok(())
                    })
                    .on("overlong", |_, _| Ok(()));
                if own {
                    talk = talk.on("data", |ch, data| {
                        ch.collect(data);
                        Ok(())
                    });
                }
                let (near, mut far) = unix_pair();
                let mut map = ChannelMap::new().unwrap();
                let handle = map.add(near, ChatDispatcher::new("\r\n", talk).unwrap()).unwrap();
                turn_quiet(&mut map);
                let sent = format!("{message}\r\nnext\r\n");
                deliver(&mut map, handle, &mut far, sent.as_bytes(), size);
                let told = match message.len() {
                    6 => "overlong".to_owned(),
                    _ => format!("found {}", message.escape_debug()),
                };
                let events = log.of("a");
                let data: String = events.iter().filter_map(|event| event.strip_prefix("data ")).collect();
                let but_data: Vec<_> =
                    events.into_iter().filter(|event| !event.starts_with("data")).collect();
                assert_eq!(but_data, ["open", &told, "found next"], "in pieces of {size}");
                let taken = message[..message.len().min(5)].escape_debug();
                assert_eq!(data, if own { format!("{taken}next") } else { String::new() });
            }
        }
    }
}

/// The answer to a message that is too long arrives, though more comes than is ever read.
#[test]
fn a_message_too_long_is_answered_before_the_end() {
    for on in loopbacks() {
        let log = Log::new();
        let talk = Talk::new("a", &log)
            .on("open", |ch, _| {
                ch.set_input_limit(100);
                Ok(())
            })
            .on("overlong", |ch, _| {
                ch.push(b"too long\r\n")?;
                ch.close();
                Ok(())
            });
        let (mut map, _, mut far) = talking(on, "\r\n", talk);
        // More than one read takes.
        far.write_all(&[b'x'; 100_000]).unwrap();
        turn_until(&mut map, &log, |_| log.has("a overlong"));
        far.write_all(b"\r\nmore\r\n").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        turn_until(&mut map, &log, |map| map.is_empty());
        let mut got = String::new();
        far.read_to_string(&mut got).unwrap();
        assert_eq!(got, "too long\r\n");
        assert_eq!(log.of("a"), ["open", "overlong", "close: closed"]);
    }
}

/// By default it is an error; kept, it goes on with the next message.
#[test]
fn a_message_too_long_is_an_error() {
    for on in loopbacks() {
        for keep in [false, true] {
            capture_log();
            let log = Log::new();
            let on_error = if keep { OnError::Keep } else { OnError::End };
            let (mut map, handle, mut far) = talking(on, "\n", Talk::new("a", &log).on_error(on_error));
            reach(&mut map, handle, |_, ch| {
                ch.set_input_limit(10);
                Ok(())
            });
            far.write_all(b"01234567890123456789\nnext\n").unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            turn_until(&mut map, &log, |map| map.is_empty());
            let events = log.of("a");
            let error = events[1].strip_prefix("error: ").unwrap();
            assert!(error.contains("10"), "it says what the limit is: {error}");
            match keep {
                true => assert_eq!(events[2..], ["found next", "eof ", "close: end of stream"]),
                false => assert_eq!(events[2..], [format!("close: {error}")]),
            }
            assert_eq!(logged("more than 10 bytes").len(), usize::from(!keep));
        }
    }
}

/// A count is the chat's own word: over the limit it is told only if it is collected.
#[test]
fn a_count_over_the_limit_is_told_only_if_collected() {
    for size in [1, 3, usize::MAX] {
        for own in [false, true] {
            let log = Log::new();
            let total = Rc::new(Cell::new(0));
            let summed = total.clone();
            let mut talk = Talk::new("a", &log).on("overlong", |_, _| Ok(()));
            if own {
                talk = talk.on("data", move |_, data| {
                    summed.set(summed.get() + data.len());
                    Ok(())
                });
            }
            let (mut map, handle, mut far) = talking(loopbacks()[0], 8, talk);
            reach(&mut map, handle, |_, ch| {
                ch.set_input_limit(7);
                Ok(())
            });
            deliver(&mut map, handle, &mut far, b"0123456789abcdef", size);
            let told: Vec<_> = log.of("a").into_iter().filter(|event| !event.starts_with("data")).collect();
            match own {
                true => assert_eq!(
                    (told, total.get()),
                    (vec!["open".into(), "found ".into(), "found ".into()], 16)
                ),
                false => assert_eq!(told, ["open", "overlong", "overlong"]),
            }
            reach(&mut map, handle, |_, ch| {
                ch.set_input_limit(8);
                Ok(())
            });
            deliver(&mut map, handle, &mut far, b"01234567", size);
            let last = if own { "found " } else { "found 01234567" };
            assert_eq!(log.of("a").last().unwrap(), last);
        }
    }
}

/// A megabyte without a terminator costs what a message may cost, and once it is too long nothing.
#[test]
fn a_peer_that_never_ends_its_message_costs_no_more_than_the_limit() {
    for (terminator, limit) in
        [(Terminator::from("\n"), 64 << 10), (Terminator::None, 64 << 10), ("ab".into(), 64 << 10)]
    {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        let mut map = ChannelMap::new().unwrap();
        let talk = Talk::new("a", &log).on("overlong", |_, _| Ok(()));
        let handle = map.add(near, ChatDispatcher::new(terminator.clone(), talk).unwrap()).unwrap();
        reach(&mut map, handle, |_, ch| {
            ch.set_input_limit(limit);
            Ok(())
        });
        // The loop has its own buffer from now on.
        deliver(&mut map, handle, &mut far, b"x", 1);
        let piece = vec![b'a'; 10_000];
        let before = heap::live();
        heap::reset_peak();
        deliver(&mut map, handle, &mut far, &piece, usize::MAX);
        for _ in 0..100 {
            deliver(&mut map, handle, &mut far, &piece, usize::MAX);
        }
        let most = heap::peak() - before;
        assert!(log.has("a overlong"));
        assert!(most <= limit as i64 + 64 * 1024, "{most} bytes for a limit of {limit}");
        let held = heap::live() - before;
        assert!(held < 1024, "{held} bytes of a message that nobody will have");
    }
}

/// Between messages next to nothing is held, also after long ones.
#[test]
fn a_chat_between_messages_holds_no_buffer() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let handle = map.add(near, ChatDispatcher::new("\n", Quiet).unwrap()).unwrap();
    deliver(&mut map, handle, &mut far, b"short\n", 6);
    let before = heap::live();
    for _ in 0..3 {
        deliver(&mut map, handle, &mut far, &[vec![b'x'; 60_000], vec![b'\n']].concat(), 7000);
    }
    let held = heap::live() - before;
    assert!(held <= 1024, "{held} bytes");
    drop(log);
}

struct Quiet;

impl Chat for Quiet {
    fn found_terminator(&mut self, _: &mut ChatChannel<'_>, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// A message that comes whole costs one `recv`, and no allocation once there was one of its size.
#[cfg(debug_assertions)]
#[test]
fn a_message_costs_no_allocation() {
    let (near, mut far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let handle = map.add(near, ChatDispatcher::new("\r\n", Quiet).unwrap()).unwrap();
    let mut round = || deliver(&mut map, handle, &mut far, b"a line of some length\r\nand another\r\n", 99);
    round();
    let before = (heap::allocations(), faults::count(Call::Recv));
    (0..100).for_each(|_| round());
    let after = (heap::allocations(), faults::count(Call::Recv));
    assert_eq!((after.0 - before.0, after.1 - before.1), (0, 100));
}

/// The answers to all the lines of one read leave together, and one for each that comes by itself.
#[cfg(debug_assertions)]
#[test]
fn pipelined_lines_are_answered_by_one_call() {
    for lines in [1, 2, 16, 200] {
        for on in loopbacks() {
            let log = Log::new();
            let talk = Talk::new("a", &log).on("found", |ch, message| {
                ch.push(message)?;
                ch.push(b" indeed\n")
            });
            let (mut map, handle, mut far) = talking(on, "\n", talk);
            for _ in 0..3 {
                let before = faults::count(Call::Send);
                far.write_all(&b"so\n".repeat(lines)).unwrap();
                arrive(&mut map, handle.token());
                assert_eq!(faults::count(Call::Send), before + 1, "{lines} lines");
                let wanted = b"so indeed\n".repeat(lines);
                assert_eq!(read_exactly(&mut far, wanted.len()), wanted);
            }
        }
    }
}

// Pausing.

/// More messages in the same chunk wait until reading is resumed, and come in order.
#[test]
fn a_pause_inside_found_terminator_keeps_the_next_messages_waiting() {
    for on in loopbacks() {
        for ended in [false, true] {
            let log = Log::new();
            let talk = Talk::new("a", &log).on("found", |ch, _| {
                ch.pause_reading();
                Ok(())
            });
            let (mut map, handle, mut far) = talking(on, "\n", talk);
            far.write_all(b"one\ntwo\nthree\nrest").unwrap();
            arrive(&mut map, handle.token());
            if ended {
                far.shutdown(Shutdown::Write).unwrap();
            }
            let mut wanted = vec!["open", "found one"];
            for next in ["found two", "found three"] {
                turn_quiet(&mut map);
                assert_eq!(log.of("a"), wanted);
                assert_calm(&mut map);
                assert_eq!(log.of("a"), wanted);
                assert_eq!(map.wait_limit(), None);
                map.channel(handle).unwrap().resume_reading();
                assert_eq!(map.wait_limit(), Some(Duration::ZERO));
                turn_quiet(&mut map);
                wanted.push(next);
            }
            assert_eq!(log.of("a"), wanted);
            map.channel(handle).unwrap().resume_reading();
            end(&mut map, &log, &far);
            wanted.extend(["eof rest", "close: end of stream"]);
            assert_eq!(log.of("a"), wanted);
        }
    }
}

/// On a Unix-domain pair the peer's end is a hang-up, which cannot be masked.
#[test]
fn a_pause_holds_the_messages_although_the_peer_has_hung_up() {
    let log = Log::new();
    let talk = Talk::new("a", &log).on("found", |ch, _| {
        ch.pause_reading();
        Ok(())
    });
    let (near, mut far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let handle = map.add(near, ChatDispatcher::new("\n", talk).unwrap()).unwrap();
    far.write_all(b"one\ntwo\nre").unwrap();
    arrive(&mut map, handle.token());
    far.write_all(b"st").unwrap();
    drop(far);
    for found in 1..=2 {
        turn_quiet(&mut map);
        assert_calm(&mut map);
        assert_eq!(log.count("a "), 1 + found, "{:?}", log.events());
        map.channel(handle).unwrap().resume_reading();
    }
    turn_until(&mut map, &log, |map| map.is_empty());
    assert_eq!(log.of("a")[1..], ["found one", "found two", "eof rest", "close: end of stream"]);
}

/// A pause that is over before the hook returns is none.
#[test]
fn a_pause_over_before_the_hook_returns_is_none() {
    let log = Log::new();
    let talk = Talk::new("a", &log).on("found", |ch, _| {
        ch.pause_reading();
        ch.resume_reading();
        Ok(())
    });
    let (mut map, handle, mut far) = talking(loopbacks()[0], "\n", talk);
    deliver(&mut map, handle, &mut far, b"one\ntwo\nthree\n", 99);
    assert_eq!(log.of("a"), ["open", "found one", "found two", "found three"]);
}

/// A chat that pauses while it is given the last bytes of a message is told that it is whole: at the
/// latest when it goes on, whether more comes or not.
#[test]
fn a_pause_while_the_last_of_a_message_is_collected_does_not_hide_its_end() {
    for (terminator, sent) in [(Terminator::from(6), "abcdef"), ("\n".into(), "abcdef\n")] {
        let log = Log::new();
        let talk = Talk::new("a", &log).on("data", |ch, _| {
            ch.pause_reading();
            Ok(())
        });
        let (mut map, handle, mut far) = talking(loopbacks()[0], terminator.clone(), talk);
        deliver(&mut map, handle, &mut far, sent.as_bytes(), 99);
        map.channel(handle).unwrap().resume_reading();
        turn_quiet(&mut map);
        assert_eq!(log.of("a"), ["open", "data abcdef", "found "], "{terminator:?}");
    }
}

/// The same where an error is kept.
#[test]
fn an_error_while_the_last_of_a_message_is_collected_does_not_hide_its_end() {
    for (terminator, sent) in [(Terminator::from(6), "abcdef"), ("\n".into(), "abcdef\n")] {
        let log = Log::new();
        let talk = Talk::new("a", &log)
            .on_error(OnError::Keep)
            .on("data", |_, _| Err(io::Error::other("the disk is full")));
        let (mut map, handle, mut far) = talking(loopbacks()[0], terminator.clone(), talk);
        deliver(&mut map, handle, &mut far, sent.as_bytes(), 99);
        let told = log.of("a");
        assert_eq!(told[..2], ["open", "data abcdef"]);
        let once = |event: &str| told.iter().filter(|told| *told == event).count() == 1;
        assert!(
            told.len() == 4 && once("found ") && once("error: the disk is full"),
            "{terminator:?}: {told:?}"
        );
    }
}

/// A body that is passed on as it comes: the chat's answer to its last bytes pauses it, and it is
/// whole all the same, though the peer sends no more before it has its answer.
#[cfg(debug_assertions)]
#[test]
fn auto_pause_at_the_end_of_a_count_does_not_hide_it() {
    let log = Log::new();
    let talk = Talk::new("a", &log)
        .on("open", |ch, _| {
            ch.channel_mut().set_auto_pause(true);
            ch.channel_mut().set_watermarks(0, 10);
            Ok(())
        })
        .on("data", |ch, data| ch.push(data))
        .on("found", |ch, _| ch.push(b"."));
    let (mut map, handle, mut far) = talking(loopbacks()[0], 1000, talk);
    inject(Call::Send, 0, 1, Fault::Errno(libc::EAGAIN));
    deliver(&mut map, handle, &mut far, &[b'x'; 1000], 1000);
    far.set_nonblocking(true).unwrap();
    let mut got = Vec::new();
    turn_until(&mut map, &log, |_| {
        got.extend(read_now(&mut far).0);
        got.len() > 1000
    });
    assert_eq!(log.count("a found"), 1);
}

// The end.

/// After `close` inside a hook nothing more of the chunk is handed on.
#[test]
fn after_close_inside_found_terminator_nothing_more_comes() {
    for on in loopbacks() {
        for abort in [false, true] {
            let log = Log::new();
            let talk = Talk::new("a", &log).on("found", move |ch, _| {
                ch.push(b"bye\n")?;
                if abort {
                    ch.abort()
                } else {
                    ch.close()
                }
                Ok(())
            });
            let (mut map, handle, mut far) = talking(on, "\n", talk);
            far.write_all(b"one\ntwo\nthree\nrest").unwrap();
            arrive(&mut map, handle.token());
            drop(far.shutdown(Shutdown::Write));
            turn_until(&mut map, &log, |map| map.is_empty());
            let reason = if abort { "close: aborted" } else { "close: closed" };
            assert_eq!(log.of("a"), ["open", "found one", reason]);
            if !abort {
                let mut got = String::new();
                far.read_to_string(&mut got).unwrap();
                assert_eq!(got, "bye\n");
            }
        }
    }
}

/// Also when it is the end of the stream that made it run.
#[test]
fn after_close_while_the_rest_is_collected_nothing_more_comes() {
    let log = Log::new();
    let talk = Talk::new("a", &log).on("data", |ch, data| {
        if data == b"\r" {
            ch.close();
        }
        Ok(())
    });
    let (mut map, handle, mut far) = talking(loopbacks()[0], "\r\n", talk);
    deliver(&mut map, handle, &mut far, b"ab\r", 3);
    end(&mut map, &log, &far);
    assert_eq!(log.of("a"), ["open", "data ab", "data \\r", "close: closed"]);
}

/// Messages that came before the connection was lost are handed on, also when it is an answer to
/// the first of them that finds out.
#[test]
fn messages_before_a_reset_are_handed_on() {
    for on in loopbacks() {
        for answers in [false, true] {
            let log = Log::new();
            let talk = Talk::new("a", &log)
                .on("found", move |ch, _| if answers { ch.push(b"ok\n") } else { Ok(()) });
            let (near, mut far) = pair(on);
            far.write_all(b"one\ntwo\nthree\n").unwrap();
            reset(far);
            wait_for_hang_up(&near);
            let mut map = ChannelMap::new().unwrap();
            map.add(near, ChatDispatcher::new("\n", talk).unwrap()).unwrap();
            turn_until(&mut map, &log, |map| map.is_empty());
            if cfg!(target_os = "linux") {
                let found =
                    log.of("a").into_iter().filter(|event| event.starts_with("found")).collect::<Vec<_>>();
                assert_eq!(found, ["found one", "found two", "found three"], "answering: {answers}");
            }
            assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::ECONNRESET)));
        }
    }
}

/// The peer does not listen any more, but it has asked.
#[cfg(debug_assertions)]
#[test]
fn messages_are_handed_on_after_a_write_that_failed() {
    let log = Log::new();
    let talk = Talk::new("a", &log).on("found", |ch, _| ch.push(b"ok\n"));
    let (mut map, handle, mut far) = talking(loopbacks()[0], "\n", talk);
    inject(Call::Send, 0, 1, Fault::Errno(libc::EPIPE));
    deliver(&mut map, handle, &mut far, b"one\ntwo\n", 99);
    deliver(&mut map, handle, &mut far, b"three\n", 99);
    end(&mut map, &log, &far);
    let wanted = ["open", "found one", "found two", "found three", &format!("close: {}", text(libc::EPIPE))];
    assert_eq!(log.of("a"), wanted);
}

// Somebody else takes over.

/// Reads all that comes, and keeps it.
struct Raw(Log);

impl Protocol for Raw {
    fn data_received(&mut self, _: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
        self.0.add(format!("new data {}", data.escape_ascii()));
        Ok(())
    }
    fn eof_received(&mut self, _: &mut Transport<'_>) -> io::Result<Eof> {
        self.0.add("new eof");
        Ok(Eof::Close)
    }
}

/// Let `kind` of dispatcher have the channel.
fn hand_over(ch: &mut ChatChannel<'_>, kind: &str, log: &Log) -> io::Result<()> {
    let raw = Raw(log.clone());
    let copy = log.clone();
    match kind {
        "raw" => ch.replace_dispatcher(Recorder::new("new", log).quiet()).map(drop),
        "protocol" => ch.replace_dispatcher(ProtocolDispatcher::new(raw)).map(drop),
        // Of the same type, and of another.
        "chat" => ch.replace_dispatcher(ChatDispatcher::new("\n", Talk::new("new", &copy))?).map(drop),
        _ => ch.replace_dispatcher(ChatDispatcher::new("\n", Quiet)?).map(drop),
    }
}

#[test]
fn a_dispatcher_set_inside_found_terminator_gets_the_rest() {
    for on in loopbacks() {
        for kind in ["raw", "protocol", "chat", "quiet"] {
            for ended in [false, true] {
                let log = Log::new();
                let new = log.clone();
                let talk = Talk::new("old", &log).on("found", move |ch, _| hand_over(ch, kind, &new));
                let (mut map, handle, mut far) = talking(on, "\n", talk);
                far.write_all(b"switch\nfirst\nsecond\nre").unwrap();
                arrive(&mut map, handle.token());
                if ended {
                    far.shutdown(Shutdown::Write).unwrap();
                    turn_until(&mut map, &log, |map| map.is_empty());
                } else {
                    deliver(&mut map, handle, &mut far, b"st\n", 1);
                }
                assert_eq!(log.of("old"), ["open", "found switch"]);
                let rest = if ended { "first\nsecond\nre" } else { "first\nsecond\nrest\n" };
                match kind {
                    "raw" => assert_eq!(log.input("new"), rest.as_bytes()),
                    "protocol" => {
                        let data: String =
                            log.of("new").iter().filter_map(|event| event.strip_prefix("data ")).collect();
                        assert_eq!(data, rest.escape_debug().to_string());
                    }
                    "chat" if ended => {
                        let told = ["found first", "found second", "eof re", "close: end of stream"];
                        assert_eq!(log.of("new"), told);
                    }
                    "chat" => assert_eq!(log.of("new"), ["found first", "found second", "found rest"]),
                    _ => {}
                }
                if ended && kind == "protocol" {
                    assert_eq!(log.of("new").last().unwrap(), "eof");
                }
            }
        }
    }
}

/// What was held back as the start of a terminator is the new one's as well.
#[test]
fn a_dispatcher_set_while_collecting_gets_what_was_held_back() {
    for kind in ["raw", "chat"] {
        let log = Log::new();
        let new = log.clone();
        let talk = Talk::new("old", &log).on("data", move |ch, _| hand_over(ch, kind, &new));
        let (mut map, handle, mut far) = talking(loopbacks()[0], "aab", talk);
        // The third byte shows that the first is none of a terminator; the second may still be.
        deliver(&mut map, handle, &mut far, b"aaa\nx\n", 99);
        assert_eq!(log.of("old"), ["open", "data a"]);
        match kind {
            "raw" => assert_eq!(log.input("new"), b"aa\nx\n"),
            _ => assert_eq!(log.of("new"), ["found aa", "found x"]),
        }
    }
}

/// From outside, through the chat's own door.
#[test]
fn a_dispatcher_set_from_outside_gets_what_was_held_back() {
    let log = Log::new();
    let new = log.clone();
    let (mut map, handle, mut far) = talking(loopbacks()[0], "\r\n", Talk::new("old", &log));
    deliver(&mut map, handle, &mut far, b"ab\r", 3);
    let collected = reach(&mut map, handle, move |_, ch| {
        let collected = ch.collected().to_vec();
        hand_over(ch, "raw", &new).map(|()| collected)
    });
    deliver(&mut map, handle.token(), &mut far, b"cd", 3);
    assert_eq!([&collected[..], &log.input("new")].concat(), b"ab\rcd");
}

// Errors.

/// An error of each hook that is kept, and none of the messages after it is lost.
#[cfg(debug_assertions)]
#[test]
fn an_error_that_is_kept_loses_no_input() {
    for on in loopbacks() {
        for hook in ["open", "found", "data", "overlong", "high", "low", "eof", "timeout"] {
            let log = Log::new();
            let mut talk = Talk::new("a", &log)
                .on_error(OnError::Keep)
                .on("overlong", |_, _| Ok(()))
                .on("found", |ch, _| ch.push(&[b'x'; 100]))
                .on("open", |ch, _| {
                    ch.set_input_limit(10);
                    ch.channel_mut().set_watermarks(10, 20);
                    Ok(())
                });
            let mut failed = false;
            talk = talk.on(hook, move |ch, data| {
                match hook {
                    "open" => ch.set_input_limit(10),
                    "data" => ch.collect(data),
                    "found" | "high" | "low" => ch.push(&[b'x'; 100])?,
                    _ => {}
                }
                if std::mem::replace(&mut failed, true) { Ok(()) } else { Err(io::Error::other("once")) }
            });
            let (mut map, handle, mut far) = talking(on, "\n", talk);
            if hook == "timeout" {
                reach(&mut map, handle, |_, ch| {
                    ch.set_timeout(Some(Duration::from_millis(1)));
                    Ok(())
                });
                turn_until(&mut map, &log, |_| log.has("a timeout"));
                reach(&mut map, handle, |_, ch| {
                    ch.set_timeout(None);
                    Ok(())
                });
            }
            // Two sends in the hook of the first line: of the second a part is queued.
            inject(Call::Send, 0, 2, Fault::Short(1));
            deliver(&mut map, handle, &mut far, b"one\ntwo\nthis is too long\nthree\nrest", 99);
            if hook != "eof" {
                turn_until(&mut map, &log, |_| log.has("a error: once"));
            }
            end(&mut map, &log, &far);
            faults::clear();
            let told: Vec<_> = log
                .of("a")
                .into_iter()
                .filter(|event| ["found", "overlong", "eof"].iter().any(|kind| event.starts_with(kind)))
                .collect();
            let wanted = ["found one", "found two", "overlong", "found three", "eof rest"];
            assert_eq!(told, wanted, "{hook}");
            assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
            assert_eq!(log.count("a error: once"), 1, "{hook}");
        }
    }
}

/// An error about another channel ends nobody, and no message is lost.
#[test]
fn an_error_about_another_channel_ends_nobody() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (gone, _far) = pair(loopbacks()[0]);
    let gone = map.add(gone, Recorder::new("gone", &log)).unwrap();
    map.channel(gone).unwrap().abort();
    turn_until(&mut map, &log, |map| map.is_empty());
    let talk = Talk::new("a", &log).on("found", move |ch, data| ch.map_mut().channel(gone)?.push(data));
    let (near, mut far) = pair(loopbacks()[0]);
    let handle = map.add(near, ChatDispatcher::new("\n", talk).unwrap()).unwrap();
    deliver(&mut map, handle, &mut far, b"one\ntwo\nthree\n", 99);
    assert_eq!(log.of("a"), ["open", "found one", "found two", "found three"]);
}

#[test]
fn a_panic_ends_the_chat_and_nobody_else() {
    for on in loopbacks() {
        for hook in ["open", "found", "data", "overlong", "eof"] {
            capture_log();
            let log = Log::new();
            let talk = Talk::new("a", &log).on_error(OnError::Keep).on(hook, move |_, _| panic!("in {hook}"));
            let (mut map, handle, mut far) = talking(on, "\n", talk);
            let (near, mut other_far) = pair(on);
            let other = map.add(near, ChatDispatcher::new("\n", Talk::new("b", &log)).unwrap()).unwrap();
            if map.contains(handle) {
                reach(&mut map, handle, |_, ch| {
                    ch.set_input_limit(3);
                    Ok(())
                });
            }
            let sent: &[u8] = if hook == "overlong" { b"four\n" } else { b"one\ntwo\n" };
            let _ = far.write_all(sent);
            let _ = far.shutdown(Shutdown::Write);
            turn_until(&mut map, &log, |map| !map.contains(handle));
            assert_eq!(log.of("a").iter().filter(|event| event.contains("panicked")).count(), 2, "{hook}");
            assert!(log.count("a found") <= if hook == "eof" { 2 } else { 1 });
            assert_eq!(log.count("a close: "), 1);
            deliver(&mut map, other, &mut other_far, b"well\n", 9);
            assert!(log.has("b found well"));
        }
    }
}

// What else there is.

/// Inside a hook: what of the chunk is not handed on yet, and the queue, what the hook has pushed before
/// included. From outside: also what
/// waits because reading is paused.
#[test]
fn discard_buffers_drops_what_is_not_handed_on_and_the_queue() {
    for on in loopbacks() {
        for place in ["found", "data", "outside", "paused"] {
            let log = Log::new();
            let talk = Talk::new("a", &log).on("found", move |ch, line| {
                match (line, place) {
                    (b"drop", "found") => {
                        ch.push(b"never out")?;
                        ch.discard_buffers();
                        assert_eq!((ch.queued(), ch.collected()), (0, &b""[..]));
                    }
                    (b"drop", "paused") => ch.pause_reading(),
                    _ => {}
                }
                Ok(())
            });
            let talk = match place {
                "data" => talk.on("data", |ch, data| {
                    ch.collect(data);
                    if data == b"drop" {
                        ch.discard_buffers();
                    }
                    Ok(())
                }),
                _ => talk,
            };
            let (mut map, handle, mut far) = talking(on, "\r\n", talk);
            let sent: &[u8] = if place == "outside" { b"drop\r\nab\r" } else { b"drop\r\nmore\r\nab" };
            deliver(&mut map, handle, &mut far, sent, 99);
            if place == "outside" || place == "paused" {
                reach(&mut map, handle, |_, ch| {
                    ch.discard_buffers();
                    assert_eq!(ch.terminator(), &Terminator::from("\r\n"));
                    ch.resume_reading();
                    Ok(())
                });
                turn_quiet(&mut map);
            }
            deliver(&mut map, handle, &mut far, b"\nnext\r\n", 99);
            let found: Vec<_> = log.of("a").into_iter().filter(|event| event.starts_with("found")).collect();
            match place {
                "data" => assert_eq!(found, ["found \\nnext"]),
                _ => assert_eq!(found, ["found drop", "found \\nnext"], "{place}"),
            }
            map.channel(handle).unwrap().close();
            end(&mut map, &log, &far);
            let mut got = String::new();
            far.read_to_string(&mut got).unwrap();
            assert_eq!(got, "");
        }
    }
}

/// What a chat puts back by itself comes before all that was not handed on yet.
#[test]
fn what_a_chat_puts_back_comes_before_what_is_not_handed_on() {
    for size in [3, usize::MAX] {
        let log = Log::new();
        let talk = Talk::new("a", &log).on("found", |ch, line| {
            if line == b"one" {
                ch.unread(b"back\n");
            }
            Ok(())
        });
        let (mut map, handle, mut far) = talking(loopbacks()[0], "\n", talk);
        deliver(&mut map, handle, &mut far, b"one\ntwo\nthr", size);
        deliver(&mut map, handle, &mut far, b"ee\n", size);
        let wanted = ["open", "found one", "found back", "found two", "found three"];
        assert_eq!(log.of("a"), wanted, "in pieces of {size}");
    }
}

/// What a function that is given the channel puts back comes before all that was not handed on yet, and
/// what the chat puts back after it comes before that.
#[test]
fn what_is_put_back_through_the_channel_comes_first() {
    for (terminator, end) in [(Terminator::from("\n"), ""), (4.into(), "\\n")] {
        for size in [3, usize::MAX] {
            let log = Log::new();
            let talk = Talk::new("a", &log).on("found", |ch, line| {
                if line.starts_with(b"one") {
                    ch.channel_mut().unread(b"bbb\n");
                    ch.unread(b"aaa\n");
                    ch.channel_mut();
                    ch.unread(b"000\n");
                }
                Ok(())
            });
            let (mut map, handle, mut far) = talking(loopbacks()[0], terminator.clone(), talk);
            deliver(&mut map, handle, &mut far, b"one\ntwo\nthr", size);
            let wanted = ["one", "000", "aaa", "bbb", "two"].map(|line| format!("found {line}{end}"));
            assert_eq!(log.of("a")[1..], wanted, "{terminator:?} in pieces of {size}");
        }
    }
}

/// The last part of a count, and a function that is given the channel in the midst of it: the message is
/// whole all the same, and what follows it is the next one.
#[test]
fn the_channel_in_hand_while_the_last_of_a_count_is_collected() {
    for wraps in [false, true] {
        let log = Log::new();
        let talk = Talk::new("a", &log).on("data", move |ch, data| {
            ch.collect(data);
            match wraps {
                true => ch.wrap_source(Ok),
                false => {
                    ch.channel_mut();
                    Ok(())
                }
            }
        });
        let (mut map, handle, mut far) = talking(loopbacks()[0], 3, talk);
        deliver(&mut map, handle, &mut far, b"abcdefg", 99);
        let wanted = ["open", "data abc", "found abc", "data def", "found def", "data g"];
        assert_eq!(log.of("a"), wanted);
    }
}

/// What is collected while a message is found is the start of the next one.
#[test]
fn what_found_terminator_collects_begins_the_next_message() {
    for size in SIZES {
        let log = Log::new();
        let talk = Talk::new("a", &log)
            .on("open", |ch, _| {
                ch.set_input_limit(8);
                Ok(())
            })
            .on("found", |ch, line| {
                if line == b"again" {
                    ch.collect(b">");
                }
                Ok(())
            });
        let (mut map, handle, mut far) = talking(loopbacks()[0], "\n", talk);
        deliver(&mut map, handle, &mut far, b"again\nagain\nseven.7\n", size);
        assert_eq!(log.of("a"), ["open", "found again", "found >again", "found seven.7"]);
    }
}

/// A chat reaches another by its handle, with its view; and finds itself in use.
#[test]
fn a_chat_reaches_another_and_not_itself() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, other, mut other_far) = talking(on, "\r\n", Talk::new("other", &log));
        let seen = log.clone();
        let talk = Talk::new("a", &log).on("found", move |ch, line| {
            let own = ch.token().typed::<ChatDispatcher<Talk>>();
            assert!(matches!(ch.map().get(own), Err(dispatch_loop::LookupError::Running(_))));
            seen.add(format!("a sees {}", ch.map().get(other)?.inner().name));
            ch.map_mut().with(other, |chat, ch| {
                chat.with(ch, |_, ch| {
                    ch.set_terminator("\r")?;
                    ch.push(line)
                })
            })
        });
        let (near, mut far) = pair(on);
        let handle = map.add(near, ChatDispatcher::new("\n", talk).unwrap()).unwrap();
        deliver(&mut map, other, &mut other_far, b"held\r", 9);
        deliver(&mut map, handle, &mut far, b"news\n", 9);
        turn_quiet(&mut map);
        // What the other held back it has found by now.
        assert_eq!(log.of("other"), ["open", "found held"]);
        assert_eq!(log.of("a"), ["open", "found news", "sees other"]);
        other_far.read_exact(&mut [0; 4]).unwrap();
    }
}

/// Broadcasts, timers, high and low: the hooks of the channel under the chat's names.
#[cfg(debug_assertions)]
#[test]
fn the_other_hooks_are_called_under_the_chats_names() {
    for on in loopbacks() {
        let log = Log::new();
        let listener = std::net::TcpListener::bind(on).unwrap();
        let mut map = ChannelMap::new().unwrap();
        let talk = Talk::new("a", &log).on("open", |ch, _| {
            ch.channel_mut().set_watermarks(10, 20);
            ch.push(&[b'.'; 10])?;
            ch.push(&[b'.'; 90])
        });
        let talk = talk.on("drained", |ch, _| {
            assert_eq!(ch.queued(), 0);
            Ok(())
        });
        let address = listener.local_addr().unwrap();
        let handle = map.connect(address, ChatDispatcher::new("\n", talk).unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        // Most of it has to wait.
        inject(Call::Send, 0, 1, Fault::Short(10));
        turn_until(&mut map, &log, |_| log.has("a drained"));
        far.read_exact(&mut [0; 100]).unwrap();
        assert_eq!(log.of("a"), ["connect", "open", "high", "low", "drained"]);
        map.channel(handle).unwrap().set_timeout(Some(Duration::from_millis(1)));
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(log.of("a")[5..], ["timeout", "close: timed out"]);

        let talk = ChatDispatcher::new("\n", Talk::new("b", &log)).unwrap();
        let (_held, address) = refusing(on);
        map.connect(address, talk).unwrap();
        turn_until(&mut map, &log, |map| map.is_empty());
        let refused = text(libc::ECONNREFUSED);
        assert_eq!(log.of("b"), [format!("error: {refused}"), format!("close: {refused}")]);
    }
}

/// 300 lines in one chunk, each of which reads no more: one a turn, and none is lost; the others are
/// served meanwhile.
#[test]
fn a_chunk_of_many_messages_taken_one_by_one_loses_none() {
    let log = Log::new();
    let order = Rc::new(RefCell::new(Vec::new()));
    let mut map = ChannelMap::new().unwrap();
    let mut fars = Vec::new();
    for who in 0..2 {
        let order = order.clone();
        let talk = Talk::new("a", &log).on("found", move |ch, line| {
            order.borrow_mut().push((who, String::from_utf8_lossy(line).into_owned()));
            ch.pause_reading();
            ch.channel_mut().call_later(Duration::ZERO, |ch| {
                ch.resume_reading();
                Ok(())
            });
            Ok(())
        });
        let (near, mut far) = unix_pair();
        map.add(near, ChatDispatcher::new("\n", talk).unwrap()).unwrap();
        let lines: String = (0..300).map(|n| format!("{n}\n")).collect();
        far.write_all(lines.as_bytes()).unwrap();
        fars.push(far);
    }
    turn_until(&mut map, &log, |_| order.borrow().len() == 600);
    let order = order.borrow();
    for who in 0..2 {
        let lines: Vec<_> =
            order.iter().filter(|(whose, _)| *whose == who).map(|(_, line)| line.clone()).collect();
        assert_eq!(lines, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
    }
    let switches = order.windows(2).filter(|two| two[0].0 != two[1].0).count();
    assert!(switches >= 300, "by turns: {switches}");
}
