//! Datagram channels: `handle_write`, the one peer, groups of the wrong family.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;

use dispatch_loop::{Address, Channel, ChannelMap, Datagram, DatagramOptions, Dispatcher, Socket};

use crate::support::opened::address_of;
use crate::support::peers::{limit_time, loopbacks};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, turn_until};

/// Sends one datagram each time that there is room, until enough are sent.
struct Ticker {
    left: Rc<Cell<u32>>,
    to: Address,
}

impl Dispatcher for Ticker {
    fn writable(&self, _: &Channel<'_>) -> bool {
        self.left.get() > 0
    }
    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        assert_eq!(ch.queued(), 0);
        self.left.set(self.left.get() - 1);
        ch.push_to(b"tick", &self.to)
    }
    fn handle_datagram(&mut self, ch: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
        ch.push_to(datagram.data, &datagram.from)
    }
}

/// EDGE_CASES 79: it never ran, and the channel was suspended for it.
#[test]
fn handle_write_runs_on_a_datagram_channel_when_there_is_room() {
    for on in loopbacks() {
        let far = UdpSocket::bind(on).unwrap();
        limit_time(&far);
        let left = Rc::new(Cell::new(100));
        let mut map = ChannelMap::new().unwrap();
        let ticker = Ticker { left: left.clone(), to: far.local_addr().unwrap().into() };
        map.bind(on, ticker).unwrap();
        turn_until(&mut map, &Log::new(), |_| left.get() == 0);
        for _ in 0..100 {
            assert_eq!(far.recv(&mut [0; 10]).unwrap(), 4);
        }
        assert_calm(&mut map);
    }
}

/// EDGE_CASES 87: a socket that is connected sends where it is told all the same.
#[test]
fn a_datagram_channel_with_one_peer_sends_to_it_alone() {
    for on in loopbacks() {
        let (peer, stranger) = (UdpSocket::bind(on).unwrap(), UdpSocket::bind(on).unwrap());
        limit_time(&peer);
        stranger.set_nonblocking(true).unwrap();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let options = DatagramOptions::default().with_peer(peer.local_addr().unwrap());
        let bound = map.bind_with(on, &options, Recorder::new("a", &log)).unwrap();
        // An adopted socket that is connected has one peer, too.
        let adopted = UdpSocket::bind(on).unwrap();
        adopted.connect(peer.local_addr().unwrap()).unwrap();
        let adopted = Socket::from_fd(OwnedFd::from(adopted)).unwrap();
        let adopted = map.add(adopted, Recorder::new("b", &log)).unwrap();
        for handle in [bound, adopted] {
            let mut ch = map.channel(handle).unwrap();
            let error = ch.push_to(b"secret", &stranger.local_addr().unwrap().into()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.contains(&peer.local_addr().unwrap().to_string()), "{text}");
            ch.push_to(b"named", &peer.local_addr().unwrap().into()).unwrap();
            ch.push(b"not named").unwrap();
            turn_until(&mut map, &log, |map| map.channel(handle).unwrap().queued() == 0);
            assert_eq!(peer.recv(&mut [0; 20]).unwrap(), 5);
            assert_eq!(peer.recv(&mut [0; 20]).unwrap(), 9);
        }
        assert_eq!(stranger.recv(&mut [0; 20]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// EDGE_CASES 87: the peer of an unnamed pair has no name, and is answered all the same.
#[test]
fn what_an_unnamed_peer_sent_can_be_answered_to_where_it_came_from() {
    let (near, far) = UnixDatagram::pair().unwrap();
    limit_time(&far);
    let near = Socket::from_fd(OwnedFd::from(near)).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let nobody = Ticker { left: Rc::default(), to: Address::Unnamed };
    let handle = map.add(near, nobody).unwrap();
    far.send(b"question").unwrap();
    map.turn(Some(crate::support::waiting::DEADLINE)).unwrap();
    map.turn(Some(std::time::Duration::ZERO)).unwrap();
    let mut ch = map.channel(handle).unwrap();
    let elsewhere = Address::Unix(std::path::Path::new("/elsewhere").into());
    assert_eq!(ch.push_to(b"x", &elsewhere).unwrap_err().kind(), ErrorKind::InvalidInput);
    far.set_nonblocking(true).unwrap();
    assert_eq!(far.recv(&mut [0; 20]).unwrap(), 8);
}

/// EDGE_CASES 87: Linux says `Ok`, and nothing ever comes.
#[test]
fn a_group_of_another_family_is_refused() {
    let groups: [IpAddr; 2] =
        [Ipv4Addr::new(239, 1, 2, 3).into(), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x4321).into()];
    let log = Log::new();
    for on in loopbacks() {
        let mut map = ChannelMap::new().unwrap();
        let handle = map.bind(on, Recorder::new("a", &log)).unwrap();
        let other = groups.iter().find(|group| group.is_ipv4() != on.is_ipv4()).unwrap();
        let ch = &mut map.channel(handle).unwrap();
        for error in [ch.join_multicast(*other, 0).unwrap_err(), ch.leave_multicast(*other, 0).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains(&other.to_string()), "{error}");
        }
        let _ = address_of(&mut map, handle);
    }
}
