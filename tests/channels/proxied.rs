//! Connections that begin with a PROXY header: what it tells, before anything else; what is refused; what is
//! behind it. The bytes of headers are in `proxy_headers.rs`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dispatch_loop::{AcceptLimits, Address, Channel, ChannelMap, Handle, ListenOptions};
use dispatch_loop::{ProxyHeader, ProxyOptions, ProxyVersion};

use crate::support::ends::{Kind, record_kinds};
use crate::support::peers::{connect, limit_time, pair, read_to_end, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{arrive, assert_calm, run_out, turn_quiet, turn_until};

const V4: &str = "127.0.0.1:0";

fn local_pair() -> (TcpStream, TcpStream) {
    pair(V4.parse().unwrap())
}

fn client() -> Address {
    "192.0.2.1:40000".parse().unwrap()
}

fn told() -> ProxyHeader {
    ProxyHeader::new(client(), "198.51.100.7:443".parse::<Address>().unwrap())
}

/// Headers of every kind that tell the same.
fn headers() -> Vec<Vec<u8>> {
    let many = told().with_tlv(0x02, b"example.org").with_tlv(0xE0, &[7; 300]);
    vec![
        told().to_bytes(ProxyVersion::V1).unwrap(),
        told().to_bytes(ProxyVersion::V2).unwrap(),
        many.to_bytes(ProxyVersion::V2).unwrap(),
    ]
}

/// Nobody on loopback is trusted.
fn strict() -> ProxyOptions {
    ProxyOptions::default().with_trusted(["10.0.0.0/8"]).unwrap()
}

/// Says who the peer is when it opens, and echoes.
fn echo(log: &Log) -> Recorder {
    let opened = log.clone();
    let input = log.clone();
    Recorder::new("a", log)
        .on("open", move |ch| {
            opened.add(format!("peer {}", ch.peer_addr()?));
            ch.push(b"hello;")
        })
        .on("read", move |ch| {
            ch.read_with(|ch, data| {
                input.add(format!("data {}", data.escape_ascii()));
                ch.push(data)
            })
        })
}

fn add(map: &mut ChannelMap, log: &Log, options: &ProxyOptions) -> (Handle<Recorder>, TcpStream, SocketAddr) {
    let (near, far) = local_pair();
    let handle = map.add_proxied(near, options, echo(log)).unwrap();
    let from = far.local_addr().unwrap();
    (handle, far, from)
}

/// EDGE_CASES 400, 401
#[test]
fn the_told_address_is_there_before_the_open_hook_and_what_follows_is_input() {
    for bytes in headers() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (handle, mut far, from) = add(&mut map, &log, &ProxyOptions::default());
        turn_quiet(&mut map);
        assert!(log.events().is_empty(), "open without a header: {:?}", log.events());
        far.write_all(&[&bytes[..], b"GET"].concat()).unwrap();
        turn_until(&mut map, &log, |_| log.count("data ") > 0);
        assert_eq!(log.events(), ["a open", "peer 192.0.2.1:40000", "a read", "data GET"]);

        let ch = map.channel(handle).unwrap();
        assert_eq!(ch.balancer_addr(), Some(&Address::Ip(from)));
        let header = ch.proxy_header().unwrap();
        assert_eq!(header.source(), Some(&client()));
        assert_eq!(header.destination().unwrap().to_string(), "198.51.100.7:443");
        let named = header.tlv(0x02) == Some(b"example.org") && header.tlv(0xE0) == Some(&[7; 300]);
        assert!(named || header.tlvs().next().is_none(), "{header:?}");
        map.channel(handle).unwrap().close();
        drop(far.shutdown(std::net::Shutdown::Write));
        run_out(&mut map, &log);
        assert_eq!(read_to_end(&mut far), b"hello;GET");
    }
}

/// EDGE_CASES 401: cut at every byte, and byte by byte.
#[test]
fn a_header_may_come_in_any_pieces() {
    for bytes in headers() {
        let whole = [&bytes[..], b"after"].concat();
        let cuts = (1..whole.len()).map(|at| vec![at, whole.len() - at]);
        for pieces in cuts.chain([vec![1; whole.len()]]) {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (handle, mut far, _) = add(&mut map, &log, &ProxyOptions::default());
            let mut at = 0;
            for piece in pieces {
                assert_eq!(log.has("a open"), at >= bytes.len(), "after {at} bytes");
                far.write_all(&whole[at..at + piece]).unwrap();
                at += piece;
                arrive(&mut map, handle);
            }
            drop(far);
            run_out(&mut map, &log);
            let data: String = log.events().iter().filter_map(|event| event.strip_prefix("data ")).collect();
            assert_eq!(data, "after");
            assert!(log.has("peer 192.0.2.1:40000"));
        }
    }
}

/// EDGE_CASES 402
#[test]
fn what_is_no_header_ends_the_channel_as_a_failed_connect_does() {
    let mut large = told().with_tlv(0xE0, &[0; 5000]).to_bytes(ProxyVersion::V2).unwrap();
    large.truncate(16);
    let wrong: [&[u8]; 12] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"PROXY",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 +2\r\n",
        b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\nGET / HTTP/1.1\r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        &[b"PROXY UNKNOWN ".repeat(10)].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\x01\x02\x03\x04\x01\x02\x03\x04\0\x01\0\x02",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b\x01\x02\x03\x04\x01\x02\x03\x04\0\x01\0",
        &large,
    ];
    for bytes in wrong {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (_, mut far, _) = add(&mut map, &log, &ProxyOptions::default());
        far.write_all(bytes).unwrap();
        // One is only cut short.
        drop(far.shutdown(std::net::Shutdown::Write));
        run_out(&mut map, &log);
        let events = log.of("a");
        let shown = bytes.escape_ascii();
        assert_eq!(events.len(), 2, "{shown}: {events:?}");
        assert!(
            events[0].starts_with("error: ") && events[0].contains("PROXY header"),
            "{shown}: {events:?}"
        );
        assert!(events[1].starts_with("close: "), "{shown}: {events:?}");
    }
}

/// EDGE_CASES 403
#[test]
fn a_header_that_does_not_come_in_time_ends_the_channel_and_costs_nothing_meanwhile() {
    for start in [&b""[..], b"PROXY TCP4 192.0.2.1", b"\r\n\r\n\0\r\nQUIT\n\x21\x11"] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let options = ProxyOptions::default().with_timeout(Duration::from_millis(400));
        let (handle, mut far, _) = add(&mut map, &log, &options);
        if !start.is_empty() {
            far.write_all(start).unwrap();
            arrive(&mut map, handle);
        }
        assert_calm(&mut map);
        assert!(log.events().is_empty());
        run_out(&mut map, &log);
        let events = log.of("a");
        assert!(events[0].starts_with("error: the PROXY header was not done after 400ms"), "{events:?}");
        assert_eq!(events.len(), 2, "{events:?}");
    }
}

/// EDGE_CASES 404: whole, and byte by byte; the bytes of a part of one are input, its last ends the channel.
#[test]
fn a_header_of_somebody_who_is_not_trusted_is_refused() {
    for bytes in headers() {
        for piece in [bytes.len(), 1] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (handle, mut far, from) = add(&mut map, &log, &strict());
            turn_until(&mut map, &log, |_| log.has("a open"));
            for piece in bytes.chunks(piece) {
                if far.write_all(piece).is_err() || !map.contains(handle) {
                    break;
                }
                arrive(&mut map, handle);
            }
            run_out(&mut map, &log);
            assert!(log.has(&format!("peer {from}")));
            let end = log.of("a").pop().unwrap();
            assert!(end.contains("a PROXY header of somebody who is not trusted"), "{end}");
            assert!(piece == 1 || log.count("data ") == 0);
        }
    }
}

/// EDGE_CASES 405
#[test]
fn somebody_who_is_not_trusted_is_served_as_usual() {
    for start in [&b"GET"[..], b"P", b"PROX", b"\r\n", b"\r\n\r\n\0\r\nQUI"] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (handle, mut far, from) = add(&mut map, &log, &strict());
        turn_until(&mut map, &log, |_| log.has("a open"));
        for piece in [start, b"more", b"PROXY ", b"still more"] {
            far.write_all(piece).unwrap();
            arrive(&mut map, handle);
        }
        let ch = map.channel(handle).unwrap();
        assert_eq!(ch.peer_addr().unwrap(), Address::Ip(from));
        assert_eq!((ch.proxy_header(), ch.balancer_addr()), (None, None));
        drop(far.shutdown(std::net::Shutdown::Write));
        run_out(&mut map, &log);
        let all = [b"hello;", start, b"morePROXY still more"].concat();
        assert_eq!(read_to_end(&mut far).escape_ascii().to_string(), all.escape_ascii().to_string());
    }
}

/// EDGE_CASES 405: it can be detached as any other, also before it has sent anything; one whose header is awaited
/// cannot.
#[test]
fn somebody_who_is_not_trusted_can_be_detached() {
    for (options, can) in [(strict(), true), (ProxyOptions::default(), false)] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (handle, _far, _) = add(&mut map, &log, &options);
        turn_quiet(&mut map);
        assert_eq!(map.channel(handle).unwrap().detach().is_ok(), can);
        turn_quiet(&mut map);
        assert_eq!(map.contains(handle), !can);
    }
}

/// EDGE_CASES 406
#[test]
fn a_check_of_the_balancer_is_a_connection_of_its_own() {
    let headers = [
        ProxyHeader::local().to_bytes(ProxyVersion::V1).unwrap(),
        ProxyHeader::local().to_bytes(ProxyVersion::V2).unwrap(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
        // LOCAL with a family and addresses, which mean nothing; PROXY of no family.
        b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\x01\x02\x03\x04\x01\x02\x03\x04\0\x01\0\x02".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x20\xff\0\x01?".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x00\0\x00".to_vec(),
    ];
    for bytes in headers {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (handle, mut far, from) = add(&mut map, &log, &ProxyOptions::default());
        far.write_all(&bytes).unwrap();
        turn_until(&mut map, &log, |_| log.has("a open"));
        assert!(log.has(&format!("peer {from}")), "{:?}", log.events());
        let ch = map.channel(handle).unwrap();
        assert_eq!(ch.proxy_header().unwrap().source(), None);
        assert_eq!(ch.balancer_addr(), Some(&Address::Ip(from)));
    }
}

/// EDGE_CASES 407: the header in the clear, then the handshake, whoever asks for it when; and of those who are not
/// trusted no header.
#[test]
fn another_source_begins_behind_the_header() {
    for kind in record_kinds() {
        for (trusted, pieces) in [(true, 1), (true, 2), (false, 0)] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (near, far) = kind.sockets();
            // A Unix-domain peer is trusted always.
            let trusted = trusted || kind.on.is_none();
            let options = if trusted { ProxyOptions::default() } else { strict() };
            let near = TcpStream::from(std::os::fd::OwnedFd::from(near));
            let handle = map.add_proxied(near, &options, echo(&log)).unwrap();
            wrap(&mut map.channel(handle).unwrap(), kind);
            let bytes = told().to_bytes(ProxyVersion::V2).unwrap();
            if trusted {
                let at = if pieces == 1 { bytes.len() } else { 20 };
                (&far).write_all(&bytes[..at]).unwrap();
                arrive(&mut map, handle);
                (&far).write_all(&bytes[at..]).unwrap();
            }
            let far = kind.far(far, |far| {
                far.write(b"secret").unwrap();
                let got = far.read_some(12).unwrap();
                far.finish().unwrap();
                got
            });
            run_out(&mut map, &log);
            assert_eq!(far.join().unwrap(), b"hello;secret", "{kind:?}");
            assert_eq!(log.has("peer 192.0.2.1:40000"), trusted, "{kind:?}: {:?}", log.events());
            assert!(log.has("data secret"));
        }
    }
}

fn wrap(ch: &mut Channel<'_>, kind: Kind) {
    use crate::support::records::Records;
    let make = move |mut source| {
        for _ in 0..kind.layers {
            source = Box::new(Records::new(source, kind.client, kind.options));
        }
        Ok(source)
    };
    ch.wrap_source(make).unwrap();
}

/// EDGE_CASES 408: nothing is sent ahead of the header, and a close keeps what is queued until then.
#[test]
fn what_is_pushed_before_the_header_leaves_after_it_also_behind_a_close() {
    for bytes in headers() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (handle, mut far, _) = add(&mut map, &log, &ProxyOptions::default());
        let mut ch = map.channel(handle).unwrap();
        ch.push(b"early").unwrap();
        turn_quiet(&mut map);
        far.set_nonblocking(true).unwrap();
        assert!(std::io::Read::read(&mut far, &mut [0; 8]).is_err(), "sent ahead of the header");
        far.set_nonblocking(false).unwrap();
        map.channel(handle).unwrap().close();
        far.write_all(&bytes).unwrap();
        drop(far.shutdown(std::net::Shutdown::Write));
        limit_time(&far);
        run_out(&mut map, &log);
        assert_eq!(read_to_end(&mut far), b"early");
        assert!(!log.has("a open"), "{:?}", log.events());
    }
}

/// EDGE_CASES 409
#[test]
fn on_a_unix_domain_socket_the_peer_is_trusted() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far): (UnixStream, UnixStream) = unix_pair();
    map.add_proxied(near, &strict(), echo(&log)).unwrap();
    far.write_all(&headers()[1]).unwrap();
    turn_until(&mut map, &log, |_| log.has("a open"));
    assert!(log.has("peer 192.0.2.1:40000"));
}

/// EDGE_CASES 410
#[test]
fn only_a_connection_can_be_proxied() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let listener = std::net::TcpListener::bind(V4).unwrap();
    let error = map.add_proxied(listener, &ProxyOptions::default(), Recorder::new("a", &log)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    for text in ["10.0.0.0/33", "10.0.0/8", "::/129", "", "localhost", "10.0.0.0/"] {
        let error = ProxyOptions::default().with_trusted([text]).unwrap_err();
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

/// EDGE_CASES 427: the balancer may have any number; each client that it tells of as many as it may.
#[test]
fn the_told_address_is_the_one_that_counts() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let limits = AcceptLimits::default().with_total(20).with_per_peer(2);
    let listening = log.clone();
    let server = Recorder::new("l", &log).on_accept(move |ch, socket, _| {
        let client = Recorder::new("a", &listening);
        ch.map_mut().add_proxied(socket, &ProxyOptions::default(), client).map(drop)
    });
    let options = ListenOptions::default().with_limits(limits.clone());
    let server = map.listen_with(V4, &options, server).unwrap();
    let address = map.channel(server).unwrap().local_addr().unwrap().ip().unwrap();
    let open = |map: &mut ChannelMap, from: &str, events: usize| {
        let mut far = connect(&address);
        let header = ProxyHeader::new(from.parse::<Address>().unwrap(), client());
        far.write_all(&header.to_bytes(ProxyVersion::V2).unwrap()).unwrap();
        turn_until(map, &log, |_| log.count("a open") + log.count("a close") == events);
        far
    };
    // Those whose header has not come count for nobody yet.
    let waiting: Vec<_> = (0..5).map(|_| connect(&address)).collect();
    turn_until(&mut map, &log, |_| limits.connections() == 5);
    let first = open(&mut map, "192.0.2.1:1", 1);
    let _second = open(&mut map, "192.0.2.1:2", 2);
    let _other = open(&mut map, "192.0.2.2:1", 3);
    assert_eq!(log.count("a open"), 3);
    let _third = open(&mut map, "192.0.2.1:3", 4);
    let events = log.of("a");
    let end = &events[events.len() - 2..];
    assert!(end[0].starts_with("error: ") && end[0].contains("per peer"), "{end:?}");
    assert!(end[1].starts_with("close: "), "{end:?}");
    assert_eq!(limits.connections(), 8);
    // A place that is given back is the client's.
    drop(first);
    turn_until(&mut map, &log, |_| limits.connections() == 7);
    let _again = open(&mut map, "192.0.2.1:4", 6);
    assert_eq!(log.count("a open"), 4);
    drop(waiting);
    turn_until(&mut map, &log, |_| limits.connections() == 3);
}
