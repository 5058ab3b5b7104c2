//! Where the listeners of a server come from: its own addresses, the service manager, a predecessor.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use dispatch_loop::{ChannelMap, Dispatcher, Handle, Socket, service};

use super::{Exit, ServerOptions, announce, stats, take_over};

/// Listen on all that these addresses stand for, and say so: with port 0, only now is it known where. Without an
/// address, on what the service manager has opened; without that, on the `usual` one. If there is a predecessor, on
/// what it had.
pub fn listen<D: Dispatcher>(
    map: &mut ChannelMap,
    addresses: &[String],
    usual: &str,
    options: &ServerOptions,
    mut make: impl FnMut() -> D,
) -> Result<Vec<Handle<D>>, Exit> {
    let mut inheritance = take_over::request(options)?;
    let mut sockets = inheritance.sockets();
    if sockets.is_empty() && addresses.is_empty() {
        sockets = inherited()?;
    }
    let mut listeners = Vec::new();
    if sockets.is_empty() {
        let usual = [usual.to_owned()];
        for address in if addresses.is_empty() { &usual } else { addresses } {
            listeners.extend(map.listen_all(address, &options.listening(), |_| make())?);
        }
    }
    for socket in sockets {
        listeners.push(adopt(map, socket, options, make())?);
    }
    for listener in &listeners {
        announce(map, *listener);
    }
    if options.take_over().is_some() {
        let stats =
            options.stats().map(|address| stats::offer(map, address, inheritance.stats())).transpose()?;
        take_over::offer(
            map,
            inheritance,
            listeners.iter().map(|listener| listener.token()),
            stats,
            options,
        )?;
    }
    Ok(listeners)
}

/// The sockets that the service manager has opened for this program.
pub fn inherited() -> Result<Vec<Socket>, Exit> {
    Ok(service::inherited()?.into_iter().map(|(_, socket)| socket).collect())
}

/// Make a listener of a socket that was opened elsewhere, as if it had been made here.
pub fn adopt<D: Dispatcher>(
    map: &mut ChannelMap,
    socket: Socket,
    options: &ServerOptions,
    dispatcher: D,
) -> Result<Handle<D>, Exit> {
    let listener = map.add(socket, dispatcher)?;
    let mut ch = map.channel(listener).map_err(io::Error::from)?;
    if !ch.is_listening() {
        return Err(Exit::Failure(format!("cannot listen on {}: it is no listener", ch.local_addr()?)));
    }
    // A Unix-domain socket has no such option.
    let _ = ch.set_no_delay(true);
    if let Some(limits) = options.accept_limits() {
        ch.set_accept_limits(limits)?;
    }
    Ok(listener)
}

/// The server is up: tell the service manager, and go on telling it, if it asks for that.
pub fn is_ready(map: &mut ChannelMap) {
    let told = service::ready().and_then(|_| map.keep_watchdog());
    if let Err(error) = told {
        log::warn!("cannot tell the service manager that this is ready: {error}");
    }
}

/// The server is about to end; so is the service, unless there is a successor. Tells it once.
pub fn is_stopping() {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if !take_over::has_successor() && !IS_TOLD.swap(true, Ordering::Relaxed) {
        if let Err(error) = service::stopping() {
            log::warn!("cannot tell the service manager that this stops: {error}");
        }
    }
}
