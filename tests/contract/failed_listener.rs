//! Whose error it is with which a listener has ended: EDGE_CASES 135.

use std::cell::RefCell;
use std::mem;

use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, Reason, run};

use crate::support::peers::{connect, loopbacks};

thread_local! {
    static AWAY: RefCell<Option<ChannelMap>> = const { RefCell::new(None) };
}

struct Swaps;

impl Dispatcher for Swaps {
    fn handle_close(&mut self, ch: &mut Channel<'_>, _: &Reason) {
        let mut other = ChannelMap::new().unwrap();
        mem::swap(ch.map_mut(), &mut other);
        AWAY.set(Some(other));
    }
}

/// It was entered in the map that was swapped in.
#[test]
fn the_error_of_a_listener_stays_with_its_map() {
    let mut map = ChannelMap::new().unwrap();
    let handle = map.listen(loopbacks()[0], Swaps).unwrap();
    let address = map.channel(handle).unwrap().local_addr().unwrap().ip().unwrap();
    let _client = connect(&address);
    inject(Call::Accept, 0, 1, Fault::Errno(libc::EINVAL));
    run(&mut map).unwrap();
    let error = run(&mut AWAY.take().unwrap()).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
