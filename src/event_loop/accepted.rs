//! A connection that was accepted is handed to `handle_accept`; of one that could not be accepted,
//! `handle_accept_error` is told.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::error::panicked;
use crate::event_loop::hooks;
use crate::guard::drop_guarded;
use crate::link::state::Link;
use crate::net::address::Address;
use crate::net::peer::Peer;
use crate::net::places::Permit;
use crate::net::socket::Socket;
use crate::sys;
use crate::sys::stream::Accepted;
use crate::threads::pulse::Work;
use crate::token::Token;

/// The connection has its place, if it needs one.
#[inline(always)]
pub(crate) fn let_in(
    map: &mut ChannelMap,
    token: Token,
    dispatcher: &mut dyn Dispatcher,
    accepted: Accepted,
    permit: Option<Box<Permit>>,
) {
    // If the listener is bound to one address, that is the local one of each connection.
    let local = map.link(token).and_then(Link::local).filter(|local| is_one_address(local)).cloned();
    map.counters.accepts += 1;
    map.begin_hook(Work::Accept, token);
    hand_over(map, token, dispatcher, accepted, local, permit);
}

fn is_one_address(address: &Address) -> bool {
    matches!(address, Address::Ip(ip) if !ip.ip().is_unspecified())
}

/// An error here concerns this connection, not the listener: `handle_error` does not run.
#[inline(always)]
fn hand_over(
    map: &mut ChannelMap,
    token: Token,
    dispatcher: &mut dyn Dispatcher,
    accepted: Accepted,
    local: Option<Arc<Address>>,
    permit: Option<Box<Permit>>,
) {
    let (fd, peer, far) = accepted;
    let mut ch = Channel::own(map, token);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut socket = Socket { nonblocking: true, local, peer, ..Socket::stream(fd) };
        if permit.is_some() {
            socket.named.get_or_insert_default().permit = permit;
        }
        let address = peer.address().unwrap_or_else(|| socket.keep_peer(far));
        dispatcher.handle_accept(&mut ch, socket, address)
    }));
    map.pulse.end_work();
    if !matches!(result, Ok(Ok(()))) {
        not_taken(map, token, peer, result);
    }
}

#[cold]
#[inline(never)]
fn not_taken(map: &mut ChannelMap, token: Token, peer: Peer, result: thread::Result<io::Result<()>>) {
    let Err(error) = result.unwrap_or_else(|payload| Err(panicked(payload))) else { return };
    match peer.address() {
        Some(from) => map.report(token, "handle_accept", &format_args!("connection from {from}: {error}")),
        None => map.report(token, "handle_accept", &error),
    }
    hooks::cut_off_where_bytes_are_missing(map, token, &error);
    drop_guarded(&mut map.throttle, "an error", error);
}

/// `Err` if this is not about one connection alone.
#[cold]
#[inline(never)]
pub(crate) fn not_accepted(
    map: &mut ChannelMap,
    token: Token,
    dispatcher: &mut dyn Dispatcher,
    error: io::Error,
) -> io::Result<()> {
    map.counters.accept_errors += 1;
    if sys::errno::listener_is_broken(&error) {
        return Err(error);
    }
    tell_error(map, token, dispatcher, &error);
    if sys::errno::out_of_resources(&error) {
        return Err(error);
    }
    // Only this connection failed, while it waited.
    log::debug!("channel {token}: a connection died in the backlog: {error}");
    Ok(())
}

/// `handle_accept_error`.
#[cold]
pub(crate) fn tell_error(
    map: &mut ChannelMap,
    token: Token,
    dispatcher: &mut dyn Dispatcher,
    error: &io::Error,
) {
    map.begin_hook(Work::AcceptError, token);
    let mut ch = Channel::own(map, token);
    let told = catch_unwind(AssertUnwindSafe(|| dispatcher.handle_accept_error(&mut ch, error)));
    map.pulse.end_work();
    if let Err(payload) = told {
        hooks::report_panic(map, token, "handle_accept_error", payload);
    }
}
