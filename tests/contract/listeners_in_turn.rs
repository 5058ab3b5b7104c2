//! Several listeners in a shortage of descriptors.

use dispatch_loop::ChannelMap;
use dispatch_loop::faults::{Call, Fault, clear, count, inject};

use crate::support::opened::address_of;
use crate::support::peers::{connect, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::turn_until;

/// EDGE_CASES 12: each descriptor that becomes free is for the listener that has waited longest in vain, so
/// that the clients of one listener do not keep out those of the others.
#[test]
fn listeners_that_are_short_of_descriptors_take_turns() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    inject(Call::Accept, 0, u64::MAX, Fault::Errno(libc::EMFILE));
    let tried = count(Call::Accept);
    let mut clients = Vec::new();
    for name in NAMES {
        let conns = log.clone();
        let server = Recorder::new(name, &log).on_accept(move |ch, socket, _| {
            ch.map_mut().add(socket, Recorder::new("conn", &conns))?;
            Ok(())
        });
        let listener = map.listen("127.0.0.1:0", server).unwrap();
        let address = address_of(&mut map, listener);
        clients.extend((0..6).map(|_| connect(&address)));
    }
    let (near, far): (Vec<_>, Vec<_>) = (0..6).map(|_| unix_pair()).unzip();
    let held: Vec<_> = near.into_iter().map(|near| map.add(near, Recorder::new("held", &log))).collect();
    turn_until(&mut map, &log, |_| count(Call::Accept) >= tried + 3);

    for (round, held) in held.into_iter().enumerate() {
        clear();
        inject(Call::Accept, 1, u64::MAX, Fault::Errno(libc::EMFILE));
        let tried = count(Call::Accept);
        map.channel(held.unwrap()).unwrap().abort();
        // One that succeeds, and then each of the three in vain.
        turn_until(&mut map, &log, |_| count(Call::Accept) >= tried + 4);
        assert_eq!(log.count("conn open"), round + 1, "{:?}", log.events());
    }
    for name in NAMES {
        // Two each; a pause that ends in between may change the order once.
        let accepted = log.count(&format!("{name} accept"));
        assert!((1..=3).contains(&accepted), "{name}: {accepted}; {:?}", log.events());
    }
    clear();
    drop((clients, far));
}
