//! A channel that moves to another loop.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dispatch_loop::{Channel, ChannelMap, Detached, Dispatcher, ListenOptions, LoopGroup, Loops, Reason};

use crate::support::groups::{joined, keep_busy, on, start, wait_for_loads};
use crate::support::peers::{connect, pattern, read_exactly, read_to_end};
use crate::support::waiting::wait_until;

/// Echoes, puts back a part of what it reads, and moves on to the next loop after every so many bytes.
struct Wanderer {
    loops: Loops,
    at: usize,
    /// Bytes until it moves.
    left: usize,
    moves: Arc<AtomicUsize>,
}

const STAY: usize = 100_000;

impl Wanderer {
    fn move_in(map: &mut ChannelMap, moved: Detached, next: Wanderer) -> io::Result<()> {
        let channel = map.add(moved.socket, next)?;
        let mut ch = map.channel(channel)?;
        ch.set_auto_pause(true);
        ch.unread(&moved.unread);
        ch.push_vec(moved.unsent)
    }
}

impl Dispatcher for Wanderer {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        Ok(())
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            let (now, later) = data.split_at(data.len().min(self.left));
            self.left -= now.len();
            ch.push(now)?;
            ch.unread(later);
            Ok(())
        })?;
        if self.left > 0 {
            return Ok(());
        }
        let to = (self.at + 1) % self.loops.len();
        self.moves.fetch_add(1, Ordering::Relaxed);
        let next = Wanderer { loops: self.loops.clone(), at: to, left: STAY, moves: self.moves.clone() };
        self.left = STAY;
        let moved =
            self.loops.clone().hand_over(ch, to, move |map, moved| Wanderer::move_in(map, moved, next));
        // If there is no room, it stays for a while.
        moved.or_else(|error| match error.kind() {
            ErrorKind::QuotaExceeded => Ok(()),
            _ => Err(error),
        })
    }
}

fn wandering(loops: usize) -> (LoopGroup, SocketAddr, Arc<AtomicUsize>) {
    let group = start(loops);
    let (handle, moves) = (group.loops(), Arc::<AtomicUsize>::default());
    let counting = moves.clone();
    let serve = move |map: &mut ChannelMap, socket, _| {
        // Where it is now, it may learn when it moves for the first time: to any loop but perhaps this one.
        let loops = handle.clone();
        map.add(socket, Wanderer { loops, at: 0, left: STAY, moves: counting.clone() }).map(drop)
    };
    let address = group.listen("127.0.0.1:0", &ListenOptions::default(), serve).unwrap()[0].ip().unwrap();
    (group, address, moves)
}

/// EDGE_CASES 465: with unread and unsent bytes, under load in both directions, again and again, between loops and
/// to itself: nothing is lost, nothing comes twice, and the counts are right.
#[test]
fn a_channel_moves_from_loop_to_loop_and_no_byte_is_lost() {
    const BYTES: usize = 6_000_000;
    for loops in [1, 3] {
        let (group, address, moves) = wandering(loops);
        let clients: Vec<_> = (0..6)
            .map(|_| {
                thread::spawn(move || {
                    let mut client = connect(&address);
                    let mut writer = client.try_clone().unwrap();
                    let sending = thread::spawn(move || {
                        writer.write_all(&pattern(BYTES)).unwrap();
                        writer.shutdown(Shutdown::Write).unwrap();
                    });
                    let back = read_to_end(&mut client);
                    sending.join().unwrap();
                    assert!(back == pattern(BYTES), "{} bytes came back", back.len());
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(moves.load(Ordering::Relaxed), 6 * BYTES / STAY);
        wait_for_loads(&group, &vec![0; loops]);
        group.stop();
        joined(group).unwrap();
    }
}

struct Stays;

impl Dispatcher for Stays {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        assert!(!matches!(reason, Reason::Detached));
    }
}

fn only_channel(map: &mut ChannelMap) -> Channel<'_> {
    let tokens: Vec<_> = map.tokens().collect();
    let found = tokens.into_iter().find(|token| !map.channel(*token).unwrap().is_listening());
    map.channel(found.unwrap()).unwrap()
}

/// EDGE_CASES 466: and serves on.
#[test]
fn a_channel_stays_if_the_other_loop_has_no_room() {
    let group = LoopGroup::start(2, |_, map| {
        map.set_remote_capacity(1);
        Ok(())
    })
    .unwrap();
    let serve = |map: &mut ChannelMap, socket, _| map.add(socket, Stays).map(drop);
    let address = group.listen("127.0.0.1:0", &ListenOptions::default(), serve).unwrap()[0].ip().unwrap();
    let mut client = connect(&address);
    wait_for_loads(&group, &[1, 0]);
    let hand_over = |group: &LoopGroup| {
        let loops = group.loops();
        on(group.loops().remote(0), move |map| {
            let result = loops.hand_over(&mut only_channel(map), 1, |map, moved| {
                let moved_in = map.add(moved.socket, Stays)?;
                map.channel(moved_in)?.push_vec(moved.unsent)
            });
            result.map_err(|error| error.kind())
        })
    };
    let busy = keep_busy(group.loops().remote(1));
    group.loops().remote(1).call(|_| ()).map_err(drop).unwrap();
    assert_eq!(hand_over(&group), Err(ErrorKind::QuotaExceeded));
    assert_eq!(group.loads(), [1, 0]);
    echo(&mut client);
    drop(busy);
    wait_until("it has room", || group.loops().numbers()[1].messages == 0);
    // It is taken out of the one and counts for the other, before it has arrived there.
    struct Moves;
    impl Dispatcher for Moves {}
    let loops = group.loops();
    let moved = on(group.loops().remote(0), move |map| {
        let mut ch = only_channel(map);
        ch.replace_dispatcher(Moves).unwrap();
        loops
            .hand_over(&mut ch, 1, |map, moved| map.add(moved.socket, Stays).map(drop))
            .map_err(|error| error.kind())
    });
    assert_eq!(moved, Ok(()));
    wait_for_loads(&group, &[0, 1]);
    echo(&mut client);
    group.stop();
    joined(group).unwrap();
}

fn echo(client: &mut TcpStream) {
    client.write_all(b"here").unwrap();
    assert_eq!(read_exactly(client, 4), b"here");
}

/// EDGE_CASES 466: what cannot be detached stays; who cannot be adopted is closed; neither counts.
#[test]
fn a_hand_over_that_fails_changes_no_count() {
    let group = start(2);
    let serve = |map: &mut ChannelMap, socket, _| map.add(socket, crate::support::echo::Echo).map(drop);
    let address = group.listen("127.0.0.1:0", &ListenOptions::default(), serve).unwrap()[0].ip().unwrap();
    let mut client = connect(&address);
    wait_for_loads(&group, &[1, 0]);
    let loops = group.loops();
    let kind = on(group.loops().remote(0), move |map| {
        let mut ch = only_channel(map);
        ch.push_producer(Never).unwrap();
        let result = loops.hand_over(&mut ch, 1, |_, _| panic!("there is nothing to adopt"));
        ch.discard_queued();
        result.unwrap_err().kind()
    });
    assert_eq!(kind, ErrorKind::Unsupported);
    wait_for_loads(&group, &[1, 0]);
    for panics in [false, true] {
        let loops = group.loops();
        wait_for_loads(&group, &[1, 0]);
        on(group.loops().remote(0), move |map| {
            let refuse = move |_: &mut ChannelMap, _: Detached| match panics {
                true => panic!("on purpose"),
                false => Err(io::ErrorKind::Other.into()),
            };
            loops.hand_over(&mut only_channel(map), 1, refuse).unwrap();
        });
        wait_for_loads(&group, &[0, 0]);
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        client = connect(&address);
    }
    group.stop();
    joined(group).unwrap();
}

struct Never;

impl dispatch_loop::Producer for Never {
    fn more(&mut self, _: &mut Vec<u8>) -> io::Result<dispatch_loop::More> {
        Ok(dispatch_loop::More::Later)
    }
}
