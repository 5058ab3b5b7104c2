//! What the service manager gives to a server, and is told by it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use dispatch_loop::{Address, ChannelMap, Dispatcher, Socket, service};

use super::{Exit, ServerOptions, take_over};

/// The sockets that the service manager has opened for this program.
pub fn inherited() -> Result<Vec<Socket>, Exit> {
    Ok(service::inherited()?.into_iter().map(|(_, socket)| socket).collect())
}

/// Make a listener of a socket that was opened elsewhere, as if it had been made here. Returns its address.
pub fn adopt<D: Dispatcher>(
    map: &mut ChannelMap,
    socket: Socket,
    options: &ServerOptions,
    dispatcher: D,
) -> Result<Address, Exit> {
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
    Ok(ch.local_addr()?)
}

/// The server is up: tell the service manager, which is told in time that it lives, if it asks for that.
pub fn is_ready<T>(keep_watchdog: impl FnOnce() -> io::Result<T>) {
    if let Err(error) = service::ready().and_then(|_| keep_watchdog()) {
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
