//! Socket options, read back from the system: EDGE_CASES 100. And output through a source that was put
//! around a channel with input put back: EDGE_CASES 101.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{
    Address, Channel, ChannelMap, ConnectOptions, DatagramOptions, Interest, ListenOptions, Source,
    ToAddress, Token,
};
use socket2::{Domain, SockRef, Type};

use crate::support::ends::Wire;
use crate::support::opened::address_of;
use crate::support::peers::{loopbacks, pair, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::through::Through;
use crate::support::turning::{run_out, turn_until};

/// What the system says of a channel's socket.
#[derive(Debug, PartialEq)]
struct Has {
    no_delay: bool,
    keep_alive: Option<u64>,
    recv_buffer: usize,
    send_buffer: usize,
}

fn has(map: &mut ChannelMap, token: impl Into<Token>) -> Has {
    let ch = map.channel(token.into()).unwrap();
    let fd = ch.socket().unwrap();
    let socket = SockRef::from(&fd);
    Has {
        no_delay: socket.tcp_nodelay().unwrap(),
        keep_alive: socket.keepalive().unwrap().then(|| socket.tcp_keepalive_time().unwrap().as_secs()),
        recv_buffer: socket.recv_buffer_size().unwrap(),
        send_buffer: socket.send_buffer_size().unwrap(),
    }
}

/// What a socket has that asked for buffers of these sizes: some systems double them.
fn buffers(domain: Domain, kind: Type, recv: usize, send: usize) -> (usize, usize) {
    let socket = socket2::Socket::new(domain, kind, None).unwrap();
    socket.set_recv_buffer_size(recv).unwrap();
    socket.set_send_buffer_size(send).unwrap();
    (socket.recv_buffer_size().unwrap(), socket.send_buffer_size().unwrap())
}

/// EDGE_CASES 100: set on a channel, changed and taken back.
#[test]
fn no_delay_and_keep_alive_of_a_channel_are_those_of_its_socket() {
    for on in loopbacks() {
        let mut map = ChannelMap::new().unwrap();
        let (near, _far) = pair(on);
        let handle = map.add(near, Recorder::new("a", &Log::new())).unwrap();
        for on in [true, false, true] {
            map.channel(handle).unwrap().set_no_delay(on).unwrap();
            assert_eq!(has(&mut map, handle).no_delay, on);
        }
        assert_eq!(has(&mut map, handle).keep_alive, None);
        for (silence, seconds) in [(77_000, Some(77)), (5000, Some(5)), (1, Some(1))] {
            let mut ch = map.channel(handle).unwrap();
            ch.set_keep_alive(Some(Duration::from_millis(silence))).unwrap();
            assert_eq!(has(&mut map, handle).keep_alive, seconds);
        }
        map.channel(handle).unwrap().set_keep_alive(None).unwrap();
        assert_eq!(has(&mut map, handle).keep_alive, None);
    }
    let mut map = ChannelMap::new().unwrap();
    let (near, _far) = unix_pair();
    let handle = map.add(near, Recorder::new("a", &Log::new())).unwrap();
    let mut ch = map.channel(handle).unwrap();
    assert!(ch.set_no_delay(true).is_err() && ch.set_keep_alive(Some(Duration::from_secs(9))).is_err());
}

/// EDGE_CASES 100: accepted sockets have what the listener was given, connected ones what they were, also by
/// name; and without options the defaults.
#[test]
fn accepted_and_connected_sockets_have_the_options_that_were_given() {
    for on in loopbacks() {
        let (recv, send) = buffers(Domain::for_address(on), Type::STREAM, 40_000, 50_000);
        for given in [true, false] {
            for by_name in [false, true] {
                let log = Log::new();
                let mut map = ChannelMap::new().unwrap();
                let accepted = Rc::new(RefCell::new(Vec::new()));
                let (tokens, inner) = (accepted.clone(), log.clone());
                let server = Recorder::new("server", &log).on_accept(move |ch, socket, _| {
                    let handle = ch.map_mut().add(socket, Recorder::new("accepted", &inner))?;
                    tokens.borrow_mut().push(handle.token());
                    Ok(())
                });
                let mut listens = ListenOptions::default();
                let mut connects = ConnectOptions::default();
                if given {
                    let silence = Duration::from_secs(33);
                    listens = listens.with_no_delay(false).with_keep_alive(silence);
                    listens = listens.with_recv_buffer(40_000).with_send_buffer(50_000);
                    connects = connects.with_no_delay(false).with_keep_alive(silence);
                    connects = connects.with_recv_buffer(40_000).with_send_buffer(50_000);
                }
                let listener = map.listen_with(on, &listens, server).unwrap();
                let to = address_of(&mut map, listener);
                map.set_resolver(move |_, _| Ok(vec![to]));
                let client = Recorder::new("client", &log);
                let client = match by_name {
                    true => map.connect_with("name:1", &connects, client).unwrap(),
                    false => map.connect_with(to, &connects, client).unwrap(),
                };
                turn_until(&mut map, &log, |_| log.has("client open") && log.has("accepted open"));
                let accepted = accepted.borrow()[0];
                for token in [client.token(), accepted] {
                    let has = has(&mut map, token);
                    assert_eq!((has.no_delay, has.keep_alive), (!given, given.then_some(33)), "{has:?}");
                    let sizes = (has.recv_buffer, has.send_buffer);
                    assert_eq!(sizes == (recv, send), given, "{has:?}");
                }
            }
        }
    }
}

/// EDGE_CASES 100.
#[test]
fn a_datagram_socket_has_the_buffers_that_were_given() {
    for on in loopbacks() {
        let (recv, send) = buffers(Domain::for_address(on), Type::DGRAM, 30_000, 20_000);
        for given in [true, false] {
            let mut options = DatagramOptions::default();
            if given {
                options = options.with_recv_buffer(30_000).with_send_buffer(20_000);
            }
            let mut map = ChannelMap::new().unwrap();
            let handle = map.bind_with(on, &options, Recorder::new("a", &Log::new())).unwrap();
            let ch = map.channel(handle).unwrap();
            let fd = ch.socket().unwrap();
            let socket = SockRef::from(&fd);
            let sizes = (socket.recv_buffer_size().unwrap(), socket.send_buffer_size().unwrap());
            assert_eq!(sizes == (recv, send), given, "{sizes:?}");
        }
    }
}

/// EDGE_CASES 100: of each kind of socket; an error names it where there is none of that name.
#[cfg(target_os = "linux")]
#[test]
fn sockets_are_bound_to_the_interface_that_was_given() {
    type Made = fn(&mut ChannelMap, &str) -> io::Result<Token>;
    let on: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let quiet = || Recorder::new("a", &Log::new());
    let makes: [Made; 3] = [
        |map, name| {
            let options = ListenOptions::default().with_interface(name);
            map.listen_with("127.0.0.1:0", &options, Recorder::new("a", &Log::new())).map(|h| h.token())
        },
        |map, name| {
            let options = ConnectOptions::default().with_interface(name);
            map.connect_with("127.0.0.1:9", &options, Recorder::new("a", &Log::new())).map(|h| h.token())
        },
        |map, name| {
            let options = DatagramOptions::default().with_interface(name);
            map.bind_with("127.0.0.1:0", &options, Recorder::new("a", &Log::new())).map(|h| h.token())
        },
    ];
    let mut map = ChannelMap::new().unwrap();
    let plain = map.listen(on, quiet()).unwrap().token();
    let device = |map: &mut ChannelMap, token| {
        let ch = map.channel(token).unwrap();
        let fd = ch.socket().unwrap();
        SockRef::from(&fd).device().unwrap()
    };
    assert_eq!(device(&mut map, plain), None);
    for make in makes {
        match make(&mut map, "lo") {
            Ok(token) => assert_eq!(device(&mut map, token).as_deref(), Some(&b"lo"[..])),
            // Old kernels allow it to root only.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
        let error = make(&mut map, "no-such-if").unwrap_err();
        assert!(error.to_string().contains("no-such-if"), "{error}");
    }
}

/// EDGE_CASES 100: as the system's own list of groups tells.
#[cfg(target_os = "linux")]
#[test]
fn an_ipv6_group_is_joined_and_left() {
    if !loopbacks().iter().any(SocketAddr::is_ipv6) {
        return;
    }
    let group: Ipv6Addr = format!("ff15::{:x}:7777", std::process::id() & 0xffff).parse().unwrap();
    let name: String = group.octets().iter().map(|byte| format!("{byte:02x}")).collect();
    let is_member = || {
        let groups = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
        groups.lines().any(|line| line.starts_with("1 ") && line.contains(&name))
    };
    let mut map = ChannelMap::new().unwrap();
    let any = "[::]:0".to_address().unwrap();
    let handle = map.bind(any, Recorder::new("a", &Log::new())).unwrap();
    let mut ch = map.channel(handle).unwrap();
    assert!(!is_member());
    ch.join_multicast(group.into(), 1).unwrap();
    assert!(is_member());
    let error = ch.join_multicast(group.into(), 1).unwrap_err();
    assert!(error.to_string().contains(&group.to_string()), "{error}");
    ch.leave_multicast(group.into(), 1).unwrap();
    assert!(!is_member());
    assert!(ch.leave_multicast(group.into(), 1).is_err());
    assert!(ch.join_multicast(group.into(), u32::MAX).is_err(), "there is no such interface");
}

/// Keeps what it is given until it is driven, as a source with records may.
struct Slow {
    wire: Wire,
    kept: Vec<u8>,
    calls: Rc<RefCell<Vec<&'static str>>>,
}

impl Slow {
    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
    }
}

impl Source for Slow {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.wire.descriptor()
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.recv(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls.borrow_mut().push("send");
        self.keep(bytes);
        Ok(bytes.len())
    }
    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls.borrow_mut().push("send_vectored");
        pieces.iter().for_each(|piece| self.keep(piece));
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        assert!(self.kept.is_empty(), "before what was kept");
        self.calls.borrow_mut().push("shutdown_write");
        self.wire.shutdown_write()
    }
    fn interest(&self, wanted: Interest) -> Interest {
        Interest { write: wanted.write || !self.kept.is_empty(), ..wanted }
    }
    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        if !ready.write || self.kept.is_empty() {
            return Ok(false);
        }
        let sent = self.wire.send(&self.kept)?;
        self.kept.drain(..sent);
        Ok(true)
    }
    fn output_pending(&self) -> bool {
        !self.kept.is_empty()
    }
}

/// EDGE_CASES 101: whether or not what was put back has been read by then.
#[test]
fn output_goes_through_input_that_was_put_back() {
    for reads_first in [true, false] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = unix_pair();
        near.set_nonblocking(true).unwrap();
        let calls = Rc::new(RefCell::new(Vec::new()));
        let slow = Slow { wire: Wire(near.into()), kept: Vec::new(), calls: calls.clone() };
        let handle = map.add_source(slow, Recorder::new("a", &log).quiet()).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        let mut ch = map.channel(handle).unwrap();
        ch.unread(b"put back, ");
        ch.wrap_source(|old| Ok(Box::new(Through(old)))).unwrap();
        if reads_first {
            far.write_all(b"and new").unwrap();
            turn_until(&mut map, &log, |_| log.input("a") == b"put back, and new");
        }
        // It takes nothing until the source is in place.
        turn_until(&mut map, &log, |map| map.channel(handle).unwrap().send(b"one ").unwrap() == 4);
        let mut ch = map.channel(handle).unwrap();
        // Large enough to be offered at once, and so in pieces.
        let (two, three) = (vec![b'2'; 5000], vec![b'3'; 5000]);
        ch.push_vectored(&[IoSlice::new(&two), IoSlice::new(&three)]).unwrap();
        ch.push(b" four").unwrap();
        let mut got = [0; 10_009];
        far.set_nonblocking(true).unwrap();
        let mut at = 0;
        turn_until(&mut map, &log, |_| {
            at += far.read(&mut got[at..]).unwrap_or(0);
            at == got.len()
        });
        assert!(got == *[b"one ", &two[..], &three[..], b" four"].concat());
        map.channel(handle).unwrap().close();
        // Its end comes, too.
        let mut end = false;
        turn_until(&mut map, &log, |_| {
            end |= matches!(far.read(&mut got), Ok(0));
            end
        });
        drop(far);
        run_out(&mut map, &log);
        assert!(log.input("a").starts_with(b"put back, ") || !reads_first);
        let calls = calls.borrow();
        assert!(
            ["send", "send_vectored", "shutdown_write"].iter().all(|call| calls.contains(call)),
            "{calls:?}"
        );
    }
}

/// EDGE_CASES 536.
#[test]
fn a_socket_of_both_families_has_peers_of_each() {
    if loopbacks().len() < 2 {
        return eprintln!("skipped: this machine has no IPv6");
    }
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    for dual_stack in [true, false] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let told = log.clone();
        let serve = move |_: &mut Channel<'_>, peer: &Address| {
            told.add(format!("peer {}", peer.ip().unwrap().ip()));
            Recorder::new("a", &told)
        };
        let options = ListenOptions::default().with_dual_stack(dual_stack);
        let listener = map.serve_with(any, &options, serve).unwrap();
        let port = map.channel(listener).unwrap().local_addr().unwrap().port().unwrap();
        let to = loopbacks().into_iter().map(|on| SocketAddr::new(on.ip(), port));
        let connected: Vec<bool> = to.map(|to| TcpStream::connect(to).is_ok()).collect();
        assert_eq!(connected, [dual_stack, true]);
        turn_until(&mut map, &log, |_| log.count("peer ") == 1 + usize::from(dual_stack));
        assert_eq!(log.has("peer ::ffff:127.0.0.1"), dual_stack);

        let quiet = Recorder::new("b", &log);
        let options = DatagramOptions::default().with_dual_stack(dual_stack);
        let bound = map.bind_with(any, &options, quiet).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], address_of(&mut map, bound).port()));
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        far.connect(to).unwrap();
        far.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // What is pushed to the address that was told arrives.
        let back = format!("[::ffff:127.0.0.1]:{}", far.local_addr().unwrap().port()).to_address().unwrap();
        let pushed = map.channel(bound).unwrap().push_to(b"hello", &back);
        map.turn(Some(Duration::ZERO)).unwrap();
        if dual_stack {
            pushed.unwrap();
            let mut buffer = [0; 8];
            assert_eq!(far.recv(&mut buffer).unwrap(), 5);
        }
    }
}
