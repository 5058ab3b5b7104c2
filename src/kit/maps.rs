//! Maps for testing, what is added to them, and their time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, by_hand};
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::kit::end::End;
use crate::kit::peer::Peer;
use crate::kit::server::Server;
use crate::kit::stage::Stage;
use crate::net::address::Address;
use crate::token::Handle;

/// Turns in a row without time passing, after which [`advance`] gives up.
const MOST_TURNS: u32 = 100_000;

/// A map for testing: where it would wait, its clock moves on at once to the next timer, or to the next step of a
/// [`Peer`]. Everything else about it is as in any other map, and [`run`](crate::run), `turn` and `advance` drive
/// it.
///
/// Its clock begins at the present and stands still in between; the maps for testing of a thread share one. It
/// takes no descriptors: `add`, `listen`, `bind` and their like fail with `Unsupported`, and connects are
/// answered by its [`Server`]. Other threads can send to it, but it does not wait for them, except for the results of
/// its own [calls that block](ChannelMap::spawn_blocking): meanwhile its clock stands still. Where it would wait for
/// ever, [`run`](crate::run) and `turn` return an error (`Deadlock`) that lists the channels.
///
/// ```
/// use dispatch_loop::testing;
/// use std::time::Duration;
///
/// let mut map = testing::map()?;
/// let begun = map.now();
/// map.call_later(Duration::from_secs(86_400), |_| ());
/// dispatch_loop::run(&mut map)?;
/// assert_eq!(map.now() - begun, Duration::from_secs(86_400));
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
/// As [`ChannelMap::new`].
pub fn map() -> io::Result<ChannelMap> {
    new(None)
}

/// A map for testing in which the seed varies what the network may vary: the order in which channels that are
/// ready at the same time are served, how many of them in one turn, how much input one read returns, how much one
/// send takes, what comes together; and [`ChannelMap::random`]. The same seed does the same again.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, testing};
/// use std::io;
///
/// struct Echo;
///
/// impl Dispatcher for Echo {
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.read_with(|ch, data| ch.push(data))
///     }
/// }
///
/// let mut map = testing::map_with_seed(7)?;
/// let (_, peer) = testing::add(&mut map, Echo)?;
/// peer.send("in pieces, perhaps").fin();
/// dispatch_loop::run(&mut map)?;
/// assert_eq!(peer.sent(), b"in pieces, perhaps");
/// # io::Result::Ok(())
/// ```
///
/// # Errors
/// As [`ChannelMap::new`].
pub fn map_with_seed(seed: u64) -> io::Result<ChannelMap> {
    new(Some(seed))
}

fn new(seed: Option<u64>) -> io::Result<ChannelMap> {
    let mut map = ChannelMap::new()?;
    map.stage = Some(Box::new(Stage::new(seed)));
    map.clock = Clock::BY_HAND;
    map.turn.time = map.clock.now();
    Ok(map)
}

/// Add a channel that is connected to a [`Peer`]: as [`ChannelMap::add`] of a connection that was accepted. Both
/// have addresses, as over TCP: the channel's is `198.51.100.1:80`.
///
/// # Errors
/// `InvalidInput` if `map` is not for testing; those of [`ChannelMap::add_source`].
pub fn add<D: Dispatcher>(map: &mut ChannelMap, dispatcher: D) -> io::Result<(Handle<D>, Peer)> {
    let Some(stage) = &mut map.stage else { return Err(not_for_testing()) };
    let number = stage.pairs % 16_384;
    let (end, peer) = stage.pair();
    let handle = map.add_source(end, dispatcher)?;
    if let Some(link) = map.link_mut(handle.token()) {
        let port = 49_152 + number as u16;
        link.set_peer(Some(Address::Ip(([192, 0, 2, 1], port).into())));
        link.set_local(Some(Arc::new(Address::Ip(([198, 51, 100, 1], 80).into()))));
    }
    Ok((handle, peer))
}

/// A connection that is not a channel yet: the [`End`] is a source for
/// [`add_source`](ChannelMap::add_source), also inside another one. Its channel has no addresses, and does not
/// linger when it closes, as on a Unix-domain socket.
///
/// # Panics
/// If `map` is not for testing.
#[track_caller]
#[must_use]
pub fn pair(map: &mut ChannelMap) -> (End, Peer) {
    stage(map).pair()
}

/// The server that answers the connects of this map, which is always the same.
///
/// # Panics
/// If `map` is not for testing.
#[track_caller]
#[must_use]
pub fn server(map: &mut ChannelMap) -> Server {
    stage(map).server.clone()
}

#[track_caller]
fn stage(map: &mut ChannelMap) -> &mut Stage {
    match &mut map.stage {
        Some(stage) => stage,
        None => panic!("{}", not_for_testing()),
    }
}

/// Run the map for this long by its clock: everything that is to happen until then, also at that very moment. With
/// no time, what can be done at once. While a [call that blocks](ChannelMap::spawn_blocking) is under way, it waits,
/// and the clock stands still. It returns without an error also when nothing happens any more.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, testing};
/// use std::io;
/// use std::time::Duration;
///
/// struct Beat;
///
/// impl Dispatcher for Beat {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.call_every(Duration::from_secs(60), |ch| ch.push(b"."));
///         Ok(())
///     }
/// }
///
/// let mut map = testing::map()?;
/// let (_, peer) = testing::add(&mut map, Beat)?;
/// testing::advance(&mut map, Duration::from_secs(3600))?;
/// assert_eq!(peer.sent().len(), 60);
/// # io::Result::Ok(())
/// ```
///
/// # Errors
/// `InvalidInput` if `map` is not for testing; those of [`turn`](ChannelMap::turn); `Deadlock` if it does not
/// come to rest, because something is to be done again and again without any time passing.
pub fn advance(map: &mut ChannelMap, time: Duration) -> io::Result<()> {
    if map.stage.is_none() {
        return Err(not_for_testing());
    }
    let end = map.clock.now().after(time);
    let mut turns = 0;
    loop {
        let now = map.clock.now();
        if map.is_at_rest() {
            if map.awaits_a_thread() {
                map.turn(None)?;
                continue;
            }
            if now >= end {
                return Ok(());
            }
            turns = 0;
            let next = map.next_moment().map_or(end, |next| next.min(end));
            by_hand::move_to(next);
        }
        turns += 1;
        if turns > MOST_TURNS {
            let why =
                format!("after {MOST_TURNS} turns at the same time there is still something to be done");
            return Err(io::Error::new(io::ErrorKind::Deadlock, why));
        }
        map.turn(Some(Duration::ZERO))?;
    }
}

fn not_for_testing() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "this map was not made by `testing::map`")
}
