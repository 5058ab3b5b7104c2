//! TLS behind a PROXY header: the header in the clear, then the handshake.

use dispatch_loop::{Address, ChannelMap, ProxyHeader, ProxyOptions, ProxyVersion};

use crate::support::authority::{AUTHORITY, LOCALHOST};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::turn_until;

/// EDGE_CASES 407: of both, from a client that sends the header itself, and from one who is not trusted.
#[test]
fn a_handshake_begins_behind_the_header() {
    for (version, trusted) in [(Some(ProxyVersion::V1), true), (Some(ProxyVersion::V2), true), (None, false)]
    {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (seen, of_client) = (log.clone(), log.clone());
        let options = match trusted {
            true => ProxyOptions::default(),
            false => ProxyOptions::default().with_trusted(["10.0.0.0/8"]).unwrap(),
        };
        let listener = Recorder::new("l", &log).on_accept(move |ch, socket, _| {
            let seen = seen.clone();
            let server = Recorder::new("server", &seen.clone()).on("open", move |ch| {
                assert!(ch.tls().is_some());
                seen.add(format!("peer {}", ch.peer_addr()?));
                ch.push(b"welcome")
            });
            let handle = ch.map_mut().add_proxied(socket, &options, server)?;
            ch.map_mut().channel(handle)?.start_tls(&LOCALHOST.server())
        });
        let listener = map.listen("127.0.0.1:0", listener).unwrap();
        let address = map.channel(listener).unwrap().local_addr().unwrap();
        let client = Recorder::new("client", &log)
            .on("open", move |ch| {
                if let Some(version) = version {
                    let told: Address = "192.0.2.1:4000".parse()?;
                    ch.push(&ProxyHeader::new(told, ch.peer_addr()?).to_bytes(version)?)?;
                }
                ch.start_tls_client(&AUTHORITY.client(), "localhost")
            })
            .on("wrapped", move |ch| {
                of_client.add(format!("from {}", ch.local_addr()?));
                ch.push(b"secret")
            });
        map.connect(address, client).unwrap();
        turn_until(&mut map, &log, |_| log.input("server") == b"secret" && log.input("client") == b"welcome");
        let peer = match trusted {
            true => "192.0.2.1:4000".to_owned(),
            false => log.of("from").pop().unwrap(),
        };
        assert!(log.has(&format!("peer {peer}")), "{:?}", log.events());
    }
}
