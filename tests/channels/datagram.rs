//! Datagrams of UDP and of Unix-domain sockets: EDGE_CASES 47, limits, budgets, groups.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, count, inject};
use dispatch_loop::{
    Address, Channel, ChannelMap, Datagram, DatagramOptions, Dispatcher, Handle, OnLimit, Reason, Socket,
};

use crate::support::dirs::Dir;
use crate::support::opened::address_of;
use crate::support::peers::{loopbacks, pattern};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, turn_idle, turn_until};
use crate::support::waiting::{DEADLINE, wait_for_input};

/// What came, from whom, and what else happened, in one order.
#[derive(Clone, Default)]
struct Seen(Rc<RefCell<Vec<String>>>);

impl Seen {
    fn add(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    fn count(&self, prefix: &str) -> usize {
        self.0.borrow().iter().filter(|what| what.starts_with(prefix)).count()
    }
}

struct Station {
    seen: Seen,
    echo: bool,
}

impl Dispatcher for Station {
    fn handle_open(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.seen.add("open");
        Ok(())
    }
    fn handle_datagram(&mut self, ch: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
        let shown = match datagram.data.len() {
            len @ ..32 => format!("{} ({len})", datagram.data.escape_ascii()),
            len => format!("({len})"),
        };
        self.seen.add(format!("got {shown}{}", if datagram.truncated { " truncated" } else { "" }));
        if self.echo {
            ch.push_to(datagram.data, &datagram.from)?;
        }
        Ok(())
    }
    fn handle_network_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> io::Result<()> {
        self.seen.add(format!("network: {:?}", error.kind()));
        Ok(())
    }
    fn handle_high(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.seen.add("high");
        Ok(())
    }
    fn handle_low(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.seen.add("low");
        Ok(())
    }
    fn handle_eof(&mut self, _: &mut Channel<'_>) -> io::Result<dispatch_loop::Eof> {
        panic!("datagrams have no end of stream");
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        self.seen.add(format!("close: {reason}"));
    }
}

fn station(on: SocketAddr, options: &DatagramOptions, echo: bool) -> (ChannelMap, Handle<Station>, Seen) {
    let seen = Seen::default();
    let mut map = ChannelMap::new().unwrap();
    let station = map.bind_with(on, options, Station { seen: seen.clone(), echo }).unwrap();
    (map, station, seen)
}

#[track_caller]
fn turn_till(map: &mut ChannelMap, seen: &Seen, mut done: impl FnMut(&Seen) -> bool) {
    let log = Log::new();
    let seen = seen.clone();
    turn_until(map, &log, |_| done(&seen));
}

fn far(on: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(on).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Datagrams of every size that UDP has, none at all included, back to their sender, boundaries kept.
#[test]
fn an_echo_keeps_the_boundaries_of_datagrams_of_every_size() {
    for on in loopbacks() {
        let (mut map, station, seen) = station(on, &DatagramOptions::default(), true);
        let to = address_of(&mut map, station);
        let far = far(on);
        let mut buffer = vec![0; 70_000];
        for (turn, len) in
            [0, 1, 7, 1500, 9000, 65_507 - if on.is_ipv6() { 20 } else { 0 }, 0].into_iter().enumerate()
        {
            let sent = pattern(len);
            far.send_to(&sent, to).unwrap();
            turn_till(&mut map, &seen, |seen| seen.count("got") > turn);
            let (got, from) = far.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..got], from), (&sent[..], to));
        }
        assert_eq!(seen.count("network"), 0);
        map.channel(station).unwrap().close();
        dispatch_loop::run(&mut map).unwrap();
        assert_eq!(seen.all().last().unwrap(), "close: closed");
    }
}

/// One call each way for a datagram, and nothing else.
#[cfg(debug_assertions)]
#[test]
fn an_echo_costs_one_call_each_way() {
    let (mut map, station, seen) = station(loopbacks()[0], &DatagramOptions::default(), true);
    let to = address_of(&mut map, station);
    let far = far(loopbacks()[0]);
    turn_idle(&mut map);
    let before = [Call::Recv, Call::Send, Call::Control].map(count);
    for _ in 0..50 {
        far.send_to(b"ping", to).unwrap();
    }
    turn_till(&mut map, &seen, |seen| seen.count("got") == 50);
    let after = [Call::Recv, Call::Send, Call::Control].map(count);
    let made: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(made[1..], [50, 0]);
    assert!(made[0] <= 50 + 50, "one more for each batch: {made:?}");
}

/// EDGE_CASES 47: nobody listens there; only a connected socket is told, and it goes on.
#[test]
fn a_refused_datagram_is_an_error_and_the_socket_stays_usable() {
    for on in loopbacks() {
        let nobody = UdpSocket::bind(on).unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let options = DatagramOptions::default().with_peer(address);
        let (mut map, station, seen) = station(on, &options, false);
        let here = address_of(&mut map, station);
        for told in 1..=3 {
            map.channel(station).unwrap().push(b"anybody?").unwrap();
            turn_till(&mut map, &seen, |seen| seen.count("network: ConnectionRefused") == told);
        }
        // Somebody comes; the first datagram is sent although an error was still waiting.
        map.channel(station).unwrap().push(b"anybody?").unwrap();
        let somebody = UdpSocket::bind(address).unwrap();
        somebody.set_read_timeout(Some(DEADLINE)).unwrap();
        map.channel(station).unwrap().push(b"now?").unwrap();
        turn_idle(&mut map);
        let mut buffer = [0; 64];
        let (got, from) = somebody.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..got], from), (&b"now?"[..], here));
        somebody.send_to(b"yes", here).unwrap();
        turn_till(&mut map, &seen, |seen| seen.count("got yes") == 1);
        assert_eq!(seen.count("close"), 0);
    }
}

/// The same while nobody reads: told, once, and no spin.
#[test]
fn an_error_while_reading_is_paused_is_told_once() {
    let on = loopbacks()[0];
    let nobody = UdpSocket::bind(on).unwrap();
    let options = DatagramOptions::default().with_peer(nobody.local_addr().unwrap());
    drop(nobody);
    let (mut map, station, seen) = station(on, &options, false);
    map.channel(station).unwrap().pause_reading();
    map.channel(station).unwrap().push(b"anybody?").unwrap();
    turn_till(&mut map, &seen, |seen| seen.count("network") == 1);
    turn_idle(&mut map);
    assert_calm(&mut map);
    assert_eq!(seen.count("network"), 1);
    assert!(map.contains(station));
}

/// EDGE_CASES 47: too big to send is an error, and the next one goes.
#[test]
fn a_datagram_too_big_to_send_is_an_error_and_the_next_one_goes() {
    for on in loopbacks() {
        let (mut map, station, seen) = station(on, &DatagramOptions::default(), false);
        let far = far(on);
        let to = far.local_addr().unwrap().into();
        let mut ch = map.channel(station).unwrap();
        ch.push_to(&[0; 66_000], &to).unwrap();
        ch.push_to(b"fits", &to).unwrap();
        turn_till(&mut map, &seen, |seen| seen.count("network") == 1);
        assert_eq!(far.recv(&mut [0; 8]).unwrap(), 4);
        assert!(map.contains(station));
    }
}

/// EDGE_CASES 47: longer than the buffer, which a Unix-domain one can be.
#[test]
fn a_datagram_longer_than_the_buffer_is_reported_as_truncated() {
    let (near, far) = UnixDatagram::pair().unwrap();
    let seen = Seen::default();
    let mut map = ChannelMap::new().unwrap();
    map.add(near, Station { seen: seen.clone(), echo: false }).unwrap();
    far.send(&[7; 65_536]).unwrap();
    far.send(&[7; 65_537]).unwrap();
    far.send(b"short").unwrap();
    turn_till(&mut map, &seen, |seen| seen.count("got") == 3);
    assert_eq!(seen.all(), ["open", "got (65536)", "got (65536) truncated", "got short (5)"]);
}

/// There is no room: they wait in order, watermarks and limit hold, and all go in the end.
#[test]
fn queued_datagrams_keep_their_order_within_watermarks_and_limit() {
    let (near, far) = UnixDatagram::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let seen = Seen::default();
    let mut map = ChannelMap::new().unwrap();
    let station = map.add(near, Station { seen: seen.clone(), echo: false }).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    map.channel(station).unwrap().set_limit(100_000, OnLimit::Refuse);
    let mut pushed = 0_u32;
    let refused = loop {
        let mut ch = map.channel(station).unwrap();
        match ch.push(&[&pushed.to_be_bytes()[..], &[0; 996]].concat()) {
            Ok(()) => pushed += 1,
            Err(error) => break error,
        }
        map.turn(Some(Duration::ZERO)).unwrap();
    };
    assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
    assert_eq!(map.channel(station).unwrap().queued(), 100_000);
    assert_eq!(seen.count("high"), 1);
    assert_calm(&mut map);
    map.channel(station).unwrap().close();
    let mut next = 0_u32;
    let mut buffer = [0; 2000];
    turn_till(&mut map, &seen, |_| {
        while let Ok(got) = far.recv(&mut buffer) {
            assert_eq!((got, &buffer[..4]), (1000, &next.to_be_bytes()[..]));
            next += 1;
        }
        next == pushed
    });
    dispatch_loop::run(&mut map).unwrap();
    assert_eq!(seen.all().last().unwrap(), "close: closed");
}

/// Any number of empty datagrams has a limit as well.
#[test]
fn empty_datagrams_count_towards_the_limit() {
    let (near, _far) = UnixDatagram::pair().unwrap();
    let seen = Seen::default();
    let mut map = ChannelMap::new().unwrap();
    let station = map.add(near, Station { seen, echo: false }).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    let pushed = (0..200_000).take_while(|_| map.channel(station).unwrap().push(b"").is_ok()).count();
    assert!(pushed < 70_000, "{pushed} were taken");
    map.channel(station).unwrap().abort();
    dispatch_loop::run(&mut map).unwrap();
}

/// A flood on one leaves the others, timers included, their turn.
#[test]
fn a_flood_leaves_others_and_timers_their_turn() {
    let on = loopbacks()[0];
    let (mut map, station, seen) = station(on, &DatagramOptions::default(), false);
    let to = address_of(&mut map, station);
    let far = far(on);
    turn_idle(&mut map);
    for _ in 0..150 {
        far.send_to(b"", to).unwrap();
    }
    wait_for_input(&map);
    map.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(seen.count("got"), 64, "in one turn");
    turn_till(&mut map, &seen, |seen| seen.count("got") == 150);
}

/// Closing, aborting, pausing inside the hook: no further datagram of the batch.
#[test]
fn nothing_of_a_batch_comes_after_close_abort_or_pause() {
    for end in ["close", "abort", "pause"] {
        let (near, far) = UnixDatagram::pair().unwrap();
        let seen = Seen::default();
        struct Ending(&'static str, Seen);
        impl Dispatcher for Ending {
            fn handle_datagram(&mut self, ch: &mut Channel<'_>, _: &Datagram<'_>) -> io::Result<()> {
                self.1.add("got");
                match self.0 {
                    "close" => ch.close(),
                    "abort" => ch.abort(),
                    _ => ch.pause_reading(),
                }
                Ok(())
            }
        }
        let mut map = ChannelMap::new().unwrap();
        let ending = map.add(near, Ending(end, seen.clone())).unwrap();
        for _ in 0..3 {
            far.send(b"x").unwrap();
        }
        turn_idle(&mut map);
        assert_eq!(seen.count("got"), 1, "{end}");
        assert_eq!(map.contains(ending), end == "pause");
        if end == "pause" {
            map.channel(ending).unwrap().resume_reading();
            turn_till(&mut map, &seen, |seen| seen.count("got") == 2);
        }
    }
}

/// What a stream has and datagrams do not, and the other way round.
#[test]
fn streams_and_datagrams_refuse_what_only_the_other_has() {
    let (near, _far) = UnixDatagram::pair().unwrap();
    let mut map = ChannelMap::new().unwrap();
    let seen = Seen::default();
    let datagrams = map.add(near, Station { seen: seen.clone(), echo: false }).unwrap().token();
    let (near, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let stream = map.add(near, Recorder::new("stream", &Log::new())).unwrap().token();
    map.turn(Some(Duration::ZERO)).unwrap();
    let mut ch = map.channel(datagrams).unwrap();
    assert_eq!(ch.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(ch.send(b"x").unwrap_err().kind(), ErrorKind::InvalidInput);
    ch.shutdown_write();
    ch.push(b"still open").unwrap();
    let mut ch = map.channel(stream).unwrap();
    assert_eq!(ch.push_to(b"x", &Address::Unnamed).unwrap_err().kind(), ErrorKind::InvalidInput);
    for on in loopbacks() {
        let error = map.bind(on, Station { seen: seen.clone(), echo: false }).and_then(|station| {
            let taken = map.channel(station)?.local_addr()?;
            map.bind(taken, Station { seen: seen.clone(), echo: false })
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::AddrInUse);
    }
}

/// Unix-domain addresses: the sender's is a path, or none; the file goes with the channel.
#[test]
fn datagrams_on_paths_tell_the_senders_path_and_take_their_file_along() {
    let dir = Dir::new();
    let (here, there) = (dir.join("here.sock"), dir.join("there.sock"));
    let seen = Seen::default();
    let mut map = ChannelMap::new().unwrap();
    let station = map.bind(&here, Station { seen: seen.clone(), echo: true }).unwrap();
    let far = UnixDatagram::bind(&there).unwrap();
    far.send_to(b"hello", &here).unwrap();
    turn_till(&mut map, &seen, |seen| seen.count("got") == 1);
    let mut buffer = [0; 8];
    let (got, from) = far.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..got], from.as_pathname()), (&b"hello"[..], Some(here.as_path())));
    // Nobody is at the path any more, and then not even the path.
    drop(far);
    let mut ch = map.channel(station).unwrap();
    ch.push_to(b"x", &Address::Unix(there.as_path().into())).unwrap();
    turn_till(&mut map, &seen, |seen| seen.count("network: ConnectionRefused") == 1);
    std::fs::remove_file(&there).unwrap();
    let mut ch = map.channel(station).unwrap();
    ch.push_to(b"x", &Address::Unix(there.as_path().into())).unwrap();
    turn_till(&mut map, &seen, |seen| seen.count("network: NotFound") == 1);
    turn_idle(&mut map);
    assert_calm(&mut map);
    // Whom an unnamed sender is answered to: nobody, which is told.
    UnixDatagram::unbound().unwrap().send_to(b"who am I", &here).unwrap();
    turn_till(&mut map, &seen, |seen| seen.count("got who") == 1);
    map.channel(station).unwrap().close();
    turn_idle(&mut map);
    assert!(!here.exists());
}

/// A group on the loopback interface.
#[cfg(target_os = "linux")]
#[test]
fn a_multicast_group_is_joined_and_left() {
    let group = Ipv4Addr::new(239, 255, 77, 77);
    let options = DatagramOptions::default().with_reuse_address(true);
    let (mut map, station, seen) = station((Ipv4Addr::UNSPECIFIED, 0).into(), &options, false);
    let port = address_of(&mut map, station).port();
    let mut ch = map.channel(station).unwrap();
    ch.join_multicast(IpAddr::V4(group), 1).unwrap();
    let far = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    far.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    let to = SocketAddr::from((group, port)).into();
    if far.send_to(b"to the group", &to).is_err() {
        return; // this machine has no route for groups
    }
    turn_till(&mut map, &seen, |seen| seen.count("got to the group") == 1);
    map.channel(station).unwrap().leave_multicast(IpAddr::V4(group), 1).unwrap();
    assert!(map.channel(station).unwrap().join_multicast([10, 0, 0, 1].into(), 1).is_err());
}

#[test]
fn broadcast_must_be_asked_for() {
    let to = Address::Ip((Ipv4Addr::BROADCAST, 9).into());
    for broadcast in [false, true] {
        let options = DatagramOptions::default().with_broadcast(broadcast);
        let (mut map, station, seen) = station((Ipv4Addr::UNSPECIFIED, 0).into(), &options, false);
        map.channel(station).unwrap().push_to(b"", &to).unwrap();
        turn_idle(&mut map);
        assert_eq!(seen.count("network: PermissionDenied"), usize::from(!broadcast), "{:?}", seen.all());
    }
}

/// What the system says between two hooks; an own error of the hook is another matter.
#[cfg(debug_assertions)]
#[test]
fn an_error_of_the_network_ends_nobody_and_one_of_the_hook_its_channel() {
    let on = loopbacks()[0];
    let (mut map, station, seen) = station(on, &DatagramOptions::default(), false);
    let to = address_of(&mut map, station);
    let far = far(on);
    turn_idle(&mut map);
    inject(Call::Recv, 0, 1, Fault::Errno(libc::EHOSTUNREACH));
    far.send_to(b"after it", to).unwrap();
    turn_till(&mut map, &seen, |seen| seen.count("got after it") == 1);
    assert_eq!(seen.count("network: HostUnreachable"), 1);
    struct Failing;
    impl Dispatcher for Failing {
        fn handle_datagram(&mut self, _: &mut Channel<'_>, _: &Datagram<'_>) -> io::Result<()> {
            Err(io::Error::other("as the test wants it"))
        }
    }
    let socket = Socket::from(UdpSocket::bind(on).unwrap());
    let to = socket.local_addr().unwrap().ip().unwrap();
    let failing = map.add(socket, Failing).unwrap();
    far.send_to(b"x", to).unwrap();
    let log = Log::new();
    turn_until(&mut map, &log, |map| !map.contains(failing));
    assert!(map.contains(station));
}
