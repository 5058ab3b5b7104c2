#![no_main]

//! PROXY headers: parsed, cut, written again, compared with what another parser makes of them; and on a channel, in
//! any pieces, with what follows.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, ProxyHeader, ProxyOptions, ProxyVersion, Reason};
use dispatch_loop_fuzz::pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (sizes, bytes) = input;
    let parsed = ProxyHeader::parse(bytes);
    if let Ok(Some((header, len))) = &parsed {
        let mut bytes = bytes[..*len].to_vec();
        for cut in (0..*len).step_by(1 + len / 64) {
            assert!(ProxyHeader::parse(&bytes[..cut]).unwrap().is_none(), "complete after {cut} of {len} bytes");
        }
        comes_back(header);
        agrees(header, &bytes);
        // What follows changes nothing.
        bytes.extend(b"\r\n\r\n\0\r\nQUIT\nPROXY ");
        assert_eq!(ProxyHeader::parse(&bytes).unwrap(), Some((header.clone(), *len)));
    }
    on_a_channel(sizes, bytes, parsed);
});

fn comes_back(header: &ProxyHeader) {
    // It was no longer than may be read, and padding and a checksum are left out.
    let written = header.to_bytes(ProxyVersion::V2).unwrap();
    let (again, len) = ProxyHeader::parse(&written).unwrap().unwrap();
    assert_eq!((&again, len), (header, written.len()));
    if let Ok(written) = header.to_bytes(ProxyVersion::V1) {
        let (again, _) = ProxyHeader::parse(&written).unwrap().unwrap();
        if header.source().is_some_and(|source| source.ip().is_some()) {
            assert_eq!(again, *header);
        }
    }
}

/// The other parser accepts all of it, and finds the same addresses.
fn agrees(header: &ProxyHeader, bytes: &[u8]) {
    let (Some(Address::Ip(source)), Some(Address::Ip(destination))) = (header.source(), header.destination())
    else {
        return;
    };
    let (from, to): (SocketAddr, SocketAddr) = match ppp::HeaderResult::parse(bytes) {
        ppp::HeaderResult::V1(Ok(header)) => match header.addresses {
            ppp::v1::Addresses::Tcp4(ip) => (
                (ip.source_address, ip.source_port).into(),
                (ip.destination_address, ip.destination_port).into(),
            ),
            ppp::v1::Addresses::Tcp6(ip) => (
                (ip.source_address, ip.source_port).into(),
                (ip.destination_address, ip.destination_port).into(),
            ),
            ppp::v1::Addresses::Unknown => panic!("unknown"),
        },
        ppp::HeaderResult::V2(Ok(header)) => match header.addresses {
            ppp::v2::Addresses::IPv4(ip) => (
                (ip.source_address, ip.source_port).into(),
                (ip.destination_address, ip.destination_port).into(),
            ),
            ppp::v2::Addresses::IPv6(ip) => (
                (ip.source_address, ip.source_port).into(),
                (ip.destination_address, ip.destination_port).into(),
            ),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!((*source, *destination), (from, to));
}

#[derive(Default)]
struct Seen {
    peer: Option<Address>,
    data: Vec<u8>,
    failed: bool,
    ended: bool,
}

struct Server(Rc<RefCell<Seen>>);

impl Dispatcher for Server {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.0.borrow_mut().peer = Some(ch.peer_addr()?);
        Ok(())
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|_, data| {
            self.0.borrow_mut().data.extend_from_slice(data);
            Ok(())
        })
    }
    fn handle_error(&mut self, _: &mut Channel<'_>, _: &io::Error) -> dispatch_loop::OnError {
        self.0.borrow_mut().failed = true;
        dispatch_loop::OnError::End
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, _: &Reason) {
        self.0.borrow_mut().ended = true;
    }
}

fn on_a_channel(sizes: &[u8], bytes: &[u8], parsed: io::Result<Option<(ProxyHeader, usize)>>) {
    let seen = Rc::<RefCell<Seen>>::default();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    map.add_proxied(near, &ProxyOptions::default(), Server(seen.clone())).unwrap();
    for piece in pieces(bytes, sizes) {
        if far.write_all(piece).is_err() {
            break;
        }
        map.turn(Some(Duration::ZERO)).unwrap();
    }
    drop(far);
    for _ in 0..1000 {
        if map.is_empty() {
            break;
        }
        map.turn(Some(Duration::from_millis(10))).unwrap();
    }
    let seen = seen.borrow();
    assert!(seen.ended, "it does not end");
    match parsed {
        Ok(Some((header, len))) => {
            assert!(!seen.failed);
            assert_eq!(seen.peer.as_ref(), Some(header.source().unwrap_or(&Address::Unnamed)));
            assert!(seen.data == bytes[len..], "lost, or too much");
        }
        _ => assert!(seen.failed && seen.peer.is_none() && seen.data.is_empty()),
    }
}
