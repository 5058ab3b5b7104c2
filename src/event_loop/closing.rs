//! What closing waits for, and how long.

use crate::core::map::ChannelMap;
use crate::event_loop::output;
use crate::sys::errno::broken_pipe;
use crate::sys::poll::Ready;
use crate::sys::{self, Kind};
use crate::token::Token;

/// A closing channel is ready: send what is queued, and if the peer is gone, notice it although there may be
/// nothing to send now.
pub(crate) fn serve(map: &mut ChannelMap, token: Token, ready: Ready) {
    let Some(link) = map.link_mut(token) else { return };
    link.unblock();
    output::flush(map, token);
    if !(ready.hup || ready.err) {
        return;
    }
    let Some(link) = map.link_mut(token).filter(|link| link.is_flushing() && link.has_unsent()) else {
        return;
    };
    let error = link.fd().and_then(|fd| sys::take_error(fd).ok().flatten());
    // A hang-up of both directions, or a pipe that nobody reads.
    let gone = || (ready.hup || link.kind() == Kind::File).then(broken_pipe);
    if let Some(error) = error.or_else(gone) {
        link.write_lost(error);
    }
}
