//! Whoever asks for statistics with bad intent: EDGE_CASES 483 and 494.

use std::io::{Read, Write};
use std::net::TcpStream;

use dispatch_loop::ChannelMap;
use dispatch_loop::stats::Stats;

use crate::support::opened::address_of;
use crate::support::peers::limit_time;
use crate::support::recorder::Log;
use crate::support::turning::turn_until;

/// EDGE_CASES 483. It goes on sending, so the connection lingers for as long as it may.
#[test]
fn who_was_answered_and_goes_on_sending_does_not_keep_its_place() {
    let mut map = ChannelMap::new().unwrap();
    let listener = Stats::new().listen(&mut map, "127.0.0.1:0").unwrap();
    let address = address_of(&mut map, listener);
    let mut asker = TcpStream::connect(address).unwrap();
    limit_time(&asker);
    asker.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    asker.set_nonblocking(true).unwrap();
    let mut answer = Vec::new();
    turn_until(&mut map, &Log::new(), |_| asker.read_to_end(&mut answer).is_ok());
    assert!(answer.ends_with(b"\r\n\r\nok\n"));
    turn_until(&mut map, &Log::new(), |map| {
        let _ = asker.write(b"x");
        map.len() == 1
    });
}

/// EDGE_CASES 494. The system has the whole answer, and the peer lets in only a part of it.
#[test]
#[ignore = "takes 10 s"]
fn who_does_not_read_the_answer_does_not_keep_its_place() {
    let mut map = ChannelMap::new().unwrap();
    let listener = Stats::new().listen(&mut map, "127.0.0.1:0").unwrap();
    let address = address_of(&mut map, listener);
    let asker = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    asker.set_recv_buffer_size(1).unwrap();
    asker.connect(&address.into()).unwrap();
    let mut asker = TcpStream::from(asker);
    asker.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    turn_until(&mut map, &Log::new(), |map| map.numbers().closing == 1);
    turn_until(&mut map, &Log::new(), |map| map.len() == 1);
    // Nor is anything left to be done.
    assert_eq!(map.numbers().timers, 0);
}
