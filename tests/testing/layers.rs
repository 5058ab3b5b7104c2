//! Layers over the kit: chats, protocols and framings, whatever the network does to the bytes.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::chat::{ChatDispatcher, Terminator};
use dispatch_loop::framing::{Framing, Netstrings};
use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};
use dispatch_loop::{ChannelMap, Deadlines, OnError, producers, run, testing};

use crate::support::recorder::Log;
use crate::talk::{Talk, TalkHandle, reach};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A map with one open chat, and its peer.
fn talking(terminator: impl Into<Terminator>, talk: Talk) -> (ChannelMap, TalkHandle, testing::Peer) {
    let mut map = testing::map().unwrap();
    let dispatcher = ChatDispatcher::new(terminator, talk).unwrap();
    let (handle, peer) = testing::add(&mut map, dispatcher).unwrap();
    testing::advance(&mut map, Duration::ZERO).unwrap();
    (map, handle, peer)
}

#[test]
fn every_kind_of_push_keeps_the_order() {
    testing::seeds(0..20, |seed| {
        let log = Log::new();
        let talk = Talk::new("a", &log).on("found", |ch, _| {
            ch.push(b"bytes ")?;
            ch.push_vec(b"vec ".to_vec())?;
            ch.channel_mut().push_shared(b"shared "[..].into())?;
            ch.push_vectored(&[IoSlice::new(b"vec"), IoSlice::new(b""), IoSlice::new(b"tored ")])?;
            ch.push_producer(producers::from_bytes("produced "))?;
            ch.push(b"last")?;
            ch.close();
            Ok(())
        });
        let mut map = testing::map_with_seed(seed)?;
        let (_, peer) = testing::add(&mut map, ChatDispatcher::new("\n", talk)?)?;
        peer.send("go\n");
        run(&mut map)?;
        assert_eq!(peer.sent(), b"bytes vec shared vectored produced last");
        Ok(())
    });
}

/// What comes back piece by piece, in an answer that the peer does not read: no message is served
/// before there is room for its answer, and none is lost.
#[test]
fn auto_pause_serves_no_message_without_room_for_its_answer() {
    let log = Log::new();
    let most = Rc::new(Cell::new(0));
    let largest = most.clone();
    let talk = Talk::new("a", &log)
        .on("open", |ch, _| {
            ch.channel_mut().set_auto_pause(true);
            Ok(())
        })
        .on("found", move |ch, data| {
            ch.push_vec(data.repeat(2000))?;
            largest.set(largest.get().max(ch.queued()));
            Ok(())
        });
    let (mut map, handle, peer) = talking("\n", talk);
    peer.set_buffer(4096).stop_reading();
    // Some 600 kB to answer, all of them asked for at once.
    let asked: Vec<String> = (0..30).map(|n| format!("{n:010}")).collect();
    peer.send(asked.join("\n") + "\n");
    testing::advance(&mut map, HOUR).unwrap();
    assert!(map.channel(handle).unwrap().is_paused());
    assert!(log.count("a found") < 30);
    peer.fin().read_slowly(1000, MS);
    run(&mut map).unwrap();
    let sent = String::from_utf8(peer.sent()).unwrap();
    assert!(sent == asked.iter().map(|n| n.repeat(2000)).collect::<String>());
    assert!(most.get() <= 64 * 1024 + 20_000, "{} bytes queued", most.get());
}

/// EDGE_CASES 245: a line that comes byte by byte, against lines that come whole.
#[test]
fn a_chat_that_is_sent_half_a_line_meets_its_deadline() {
    const TIME: Duration = Duration::from_secs(60);
    let log = Log::new();
    let (mut map, chat, peer) = talking("\n", Talk::new("a", &log).on_error(OnError::End));
    reach(&mut map, chat, |_, ch| {
        ch.set_deadlines(&Deadlines::default().with_message(TIME));
        Ok(())
    });
    for _ in 0..60 {
        peer.send_in_pieces(b"a line\nand ha", 5, TIME / 10).wait(TIME / 10).send(b"lf of one\n");
    }
    testing::advance(&mut map, HOUR).unwrap();
    assert!(peer.is_done() && !log.closed("a"));
    let begun = map.now();
    peer.send_in_pieces([b'.'; 100], 1, TIME / 12);
    run(&mut map).unwrap();
    assert_eq!(map.now() - begun, TIME);
    assert_eq!(log.of("a").last().unwrap(), "close: timed out");
}

/// A protocol whose messages are netstrings, each of which it sends back.
struct Echo(Netstrings);

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, mut data: &[u8]) -> io::Result<()> {
        while let Some(message) = self.0.next(&mut data)? {
            let mut answer = Vec::new();
            Netstrings::new().encode(message, &mut answer)?;
            transport.write(&answer)?;
        }
        Ok(())
    }
}

/// Wherever the network cuts what passes, in both directions.
#[test]
fn a_protocol_with_framing_survives_every_cut() {
    let messages: Vec<Vec<u8>> = (0..20).map(|n| vec![b'x'; n * 7]).collect();
    let mut stream = Vec::new();
    messages.iter().for_each(|message| Netstrings::new().encode(message, &mut stream).unwrap());
    testing::seeds(0..50, |seed| {
        let mut map = testing::map_with_seed(seed)?;
        let (_, peer) = testing::add(&mut map, ProtocolDispatcher::new(Echo(Netstrings::new())))?;
        peer.set_buffer(100).read_slowly(30, MS).send_in_pieces(&stream, 50, MS).fin();
        run(&mut map)?;
        assert_eq!(peer.sent(), stream);
        assert!(peer.has_fin() && !peer.is_reset());
        Ok(())
    });
}
