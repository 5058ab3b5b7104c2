//! A channel that may begin with a PROXY header, once that has come.

use crate::core::map::ChannelMap;
use crate::event_loop::upgrade;
use crate::net::address::Address;
use crate::net::full::{AcceptLimit, AcceptLimitError, Full};
use crate::token::Token;

/// Its source was driven: if that has done its work, the plain socket takes its place, or the source that was asked
/// for meanwhile.
pub(crate) fn driven(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    if !link.end_preface() {
        return;
    }
    let address = link.peer();
    let counted = link
        .permit()
        .map(|permit| permit.count_for(address.as_ref().and_then(Address::ip).map(|ip| ip.ip())));
    if let Some(Err((most, peer))) = counted {
        link.wrap_failed(AcceptLimitError::error(Full::PerPeer(most, peer), address));
        map.counters.refusals[AcceptLimit::PerPeer as usize] += 1;
        return;
    }
    // A handshake has a time of its own.
    let timer = link.rare().handshake_timer.take();
    let make = link.take_to_wrap();
    timer.map(|timer| map.timers.cancel(timer));
    if let Some(make) = make {
        upgrade::change_source(map, token, make);
    }
}
