//! A listener from a closure: EDGE_CASES 531 and 535.

use std::time::Duration;

use dispatch_loop::{Address, ChannelMap, ListenOptions, ToAddress};

use crate::support::peers::{connect, loopbacks, read_to_end};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::turn_until;

#[test]
fn each_connection_has_the_dispatcher_that_the_closure_makes() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (told, names) = (log.clone(), ["a", "b"]);
        let mut next = 0;
        let make = move |ch: &mut dispatch_loop::Channel<'_>, peer: &Address| {
            assert!(ch.is_listening() && matches!(peer, Address::Ip(_)));
            // The map is at hand.
            ch.map_mut().call_later(Duration::ZERO, |_| ());
            next += 1;
            Recorder::new(names[next - 1], &told).on("open", |ch| {
                ch.push(b"hello")?;
                ch.close();
                Ok(())
            })
        };
        let listener = map.serve_with(on, &ListenOptions::default().with_backlog(4), make).unwrap();
        let address = map.channel(listener).unwrap().local_addr().unwrap();
        let mut clients = [(); 2].map(|()| connect(&address.ip().unwrap()));
        turn_until(&mut map, &log, |_| log.has("a open") && log.has("b open"));
        for client in &mut clients {
            client.shutdown(std::net::Shutdown::Write).unwrap();
        }
        turn_until(&mut map, &log, |_| log.closed("a") && log.closed("b"));
        for client in &mut clients {
            assert_eq!(read_to_end(client), b"hello");
        }
        assert!(map.contains(listener));
        let error =
            map.serve(address.to_address().unwrap(), |_, _| Recorder::new("c", &Log::new())).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    }
}

/// EDGE_CASES 535.
#[test]
fn who_is_refused_is_closed_and_the_next_one_is_served() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (told, mut tries) = (log.clone(), 0);
    let listener = map
        .serve("127.0.0.1:0", move |_, _| {
            tries += 1;
            match tries {
                1 => Err(std::io::Error::other("not you")),
                _ => Ok(Recorder::new("a", &told)),
            }
        })
        .unwrap();
    let address = map.channel(listener).unwrap().local_addr().unwrap().ip().unwrap();
    let (mut refused, served) = (connect(&address), connect(&address));
    turn_until(&mut map, &log, |_| log.has("a open"));
    assert_eq!(read_to_end(&mut refused), b"");
    drop(served);
    turn_until(&mut map, &log, |_| log.closed("a"));
    assert!(map.contains(listener));
}
