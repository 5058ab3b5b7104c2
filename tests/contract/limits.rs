//! Limits of a listener: EDGE_CASES 200 to 209. How places are given back is in `limits_places.rs`.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, count, inject};
use dispatch_loop::{
    AcceptLimit, AcceptLimitError, AcceptLimits, Address, AtLimit, Channel, ChannelMap, Dispatcher, Handle,
    ListenOptions, Numbers, Socket,
};

use crate::support::dirs::Dir;
use crate::support::logging::{capture_log, logged};
use crate::support::opened::address_of;
use crate::support::peers::{connect, limit_time, loopbacks, read_all, read_exactly};
use crate::support::process::alone;
use crate::support::recorder::Log;
use crate::support::turning::{assert_calm, turn_idle, turn_until, turns_at_once};

struct Echo;

impl Dispatcher for Echo {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}

/// What the hook was told: the limit, and whether somebody was refused.
type Told = Rc<RefCell<Vec<(AcceptLimit, bool)>>>;

#[derive(Default)]
struct Server {
    told: Told,
}

impl Dispatcher for Server {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Echo).map(drop)
    }
    fn handle_accept_error(&mut self, _: &mut Channel<'_>, error: &io::Error) {
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
        let limited = AcceptLimitError::of(error).unwrap();
        self.told.borrow_mut().push((limited.limit(), limited.refused().is_some()));
    }
}

fn limited(on: SocketAddr, limits: AcceptLimits) -> (ChannelMap, Handle<Server>, SocketAddr) {
    let mut map = ChannelMap::new().unwrap();
    let options = ListenOptions::default().with_limits(limits);
    let server = map.listen_with(on, &options, Server::default()).unwrap();
    let address = address_of(&mut map, server);
    (map, server, address)
}

fn on_v4() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn turn(map: &mut ChannelMap, done: impl FnMut(&mut ChannelMap) -> bool) {
    turn_until(map, &Log::new(), done);
}

/// A client with this address of its own.
fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&format!("{from}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let client = TcpStream::from(socket);
    limit_time(&client);
    client
}

fn counts(counted: impl Iterator<Item = (&'static str, u64)>) -> Vec<(&'static str, u64)> {
    counted.filter(|(_, count)| *count > 0).collect()
}

fn refusals(numbers: &Numbers) -> Vec<(&'static str, u64)> {
    counts(numbers.refusals())
}

fn rests(numbers: &Numbers) -> Vec<&'static str> {
    counts(numbers.rests()).into_iter().map(|(cause, _)| cause).collect()
}

/// What the server says, while it turns, until the end of the stream; a reset fails the test.
fn last_word(map: &mut ChannelMap, mut client: TcpStream) -> Vec<u8> {
    let reader = std::thread::spawn(move || read_all(&mut client));
    turn(map, |_| reader.is_finished());
    let (got, end) = reader.join().unwrap();
    end.expect("an end, and no reset");
    got
}

fn echoes(map: &mut ChannelMap, client: &mut TcpStream) {
    client.write_all(b"hello").unwrap();
    client.set_nonblocking(true).unwrap();
    turn(map, |_| client.peek(&mut [0; 5]).is_ok_and(|len| len == 5));
    client.set_nonblocking(false).unwrap();
    assert_eq!(read_exactly(client, 5), b"hello");
}

/// EDGE_CASES 200.
#[test]
fn at_its_total_a_listener_rests_until_one_leaves() {
    for on in loopbacks() {
        let (mut map, server, address) = limited(on, AcceptLimits::default().with_total(2));
        let told = map.get(server).unwrap().told.clone();
        let mut clients: Vec<_> = (0..4).map(|_| connect(&address)).collect();
        turn(&mut map, |map| map.len() == 3 && rests(&map.numbers()) == ["total"]);
        turn_idle(&mut map);
        assert_calm(&mut map);
        assert_eq!(map.len(), 3, "two wait in the backlog");
        assert_eq!(map.channel(server).unwrap().accept_limits().unwrap().connections(), 2);
        assert_eq!(told.borrow()[0], (AcceptLimit::Total, false));
        for _ in 0..2 {
            drop(clients.remove(0));
            turn(&mut map, |map| map.numbers().closes().map(|(_, n)| n).sum::<u64>() > 0 && map.len() == 3);
            echoes(&mut map, &mut clients[1]);
        }
        assert_eq!((map.numbers().accepts, refusals(&map.numbers())), (4, vec![]));
    }
}

/// EDGE_CASES 201. What the client sends, before or after, is not read, and yet does not destroy
/// the last word.
#[test]
fn a_refused_connection_is_told_why() {
    for on in loopbacks() {
        let limits = AcceptLimits::default()
            .with_total(1)
            .with_at_limit(AtLimit::Refuse)
            .with_last_word("too many connections\r\n");
        let (mut map, server, address) = limited(on, limits.clone());
        let mut first = connect(&address);
        turn(&mut map, |map| map.len() == 2);
        #[cfg(debug_assertions)]
        let before = count(Call::Shutdown);
        for sends in [false, true] {
            let mut refused = connect(&address);
            if sends {
                refused.write_all(&[b'x'; 10_000]).unwrap();
            }
            assert_eq!(last_word(&mut map, refused), b"too many connections\r\n");
        }
        let mut late = connect(&address);
        turn(&mut map, |map| refusals(&map.numbers()) == [("total", 3)]);
        turn_idle(&mut map);
        late.write_all(b"hello?").unwrap();
        assert_eq!(last_word(&mut map, late), b"too many connections\r\n");
        // FIN, and then a while for what may still come: on a slower network that would destroy it.
        #[cfg(debug_assertions)]
        assert_eq!(count(Call::Shutdown), before + 3);
        assert_eq!(*map.get(server).unwrap().told.borrow(), [(AcceptLimit::Total, true); 3]);
        assert_eq!((map.len(), map.numbers().accepts, limits.connections()), (2, 1, 1));
        echoes(&mut map, &mut first);
        // There is a place again.
        drop(first);
        turn(&mut map, |map| map.len() == 1);
        echoes(&mut map, &mut connect(&address));
    }
}

/// Without a last word the connection is closed, and that is all.
#[test]
fn a_connection_may_be_refused_without_a_word() {
    let limits = AcceptLimits::default().with_total(0).with_at_limit(AtLimit::Refuse);
    let (mut map, _, address) = limited(on_v4(), limits);
    assert_eq!(last_word(&mut map, connect(&address)), b"");
    assert_eq!(refusals(&map.numbers()), [("total", 1)]);
}

/// EDGE_CASES 201. Who does not take the last word holds no more than a bounded number of descriptors.
#[test]
fn refused_connections_are_kept_in_bounded_number() {
    let limits = AcceptLimits::default().with_total(0).with_at_limit(AtLimit::Refuse).with_last_word("no");
    let (mut map, _, address) = limited(on_v4(), limits);
    let mut clients: Vec<_> = (0..200).map(|_| connect(&address)).collect();
    turn(&mut map, |map| refusals(&map.numbers()) == [("total", 200)]);
    // At once: not when their time is over.
    let ended = |map: &ChannelMap| map.numbers().closes().map(|(_, n)| n).sum::<u64>();
    assert!(turns_at_once(&mut map, 10, |map| ended(map) >= 200 - 64));
    // All have the word, also those that had to give way.
    for client in &mut clients {
        assert_eq!(read_exactly(client, 2), b"no");
    }
}

/// EDGE_CASES 202. Also where others would wait.
#[test]
fn over_its_limit_a_peer_is_refused_and_others_are_let_in() {
    let limits = AcceptLimits::default().with_per_peer(2).with_total(100).with_last_word("enough\n");
    let (mut map, server, address) = limited(on_v4(), limits);
    let mut greedy: Vec<_> = (0..2).map(|_| connect_from("127.0.0.2", address)).collect();
    turn(&mut map, |map| map.len() == 3);
    for _ in 0..3 {
        let refused = connect_from("127.0.0.2", address);
        assert_eq!(last_word(&mut map, refused), b"enough\n");
    }
    echoes(&mut map, &mut connect_from("127.0.0.3", address));
    assert_eq!(refusals(&map.numbers()), [("per peer", 3)]);
    assert_eq!(*map.get(server).unwrap().told.borrow(), [(AcceptLimit::PerPeer, true); 3]);
    assert!(rests(&map.numbers()).is_empty());
    // One leaves, one may come.
    let before = map.numbers().accepts;
    drop(greedy.pop());
    turn(&mut map, |map| map.numbers().closes().any(|end| end == ("end of stream", 2)));
    echoes(&mut map, &mut connect_from("127.0.0.2", address));
    assert_eq!(map.numbers().accepts, before + 1);
}

/// EDGE_CASES 203.
#[test]
fn an_ipv4_address_counts_as_one_whichever_listener_it_comes_to() {
    let Ok(both) = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None) else { return };
    both.set_only_v6(false).unwrap();
    if both.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).is_err() {
        return; // no IPv6 here
    }
    both.listen(16).unwrap();
    let limits = AcceptLimits::default().with_per_peer(2);
    let (mut map, _, address) = limited(on_v4(), limits.clone());
    let dual = map.add(TcpListener::from(both), Server::default()).unwrap();
    map.channel(dual).unwrap().set_accept_limits(limits).unwrap();
    let port = address_of(&mut map, dual).port();
    let mapped = SocketAddr::from(([127, 0, 0, 1], port));
    let _first = connect_from("127.0.0.2", mapped);
    let _second = connect_from("127.0.0.2", address);
    turn(&mut map, |map| map.len() == 4);
    for to in [mapped, address] {
        assert_eq!(last_word(&mut map, connect_from("127.0.0.2", to)), b"");
    }
    let mut other = connect_from("127.0.0.3", mapped);
    echoes(&mut map, &mut other);
}

/// EDGE_CASES 204. A burst at once; the others when it is their time, and nobody is refused.
#[test]
fn more_a_second_than_may_be_wait_for_their_time() {
    let (mut map, server, address) = limited(on_v4(), AcceptLimits::default().with_rate(20, 4));
    let begun = Instant::now();
    let _clients: Vec<_> = (0..12).map(|_| connect(&address)).collect();
    turn(&mut map, |map| rests(&map.numbers()) == ["rate"]);
    turn(&mut map, |map| {
        // However slow this machine is: never more than the burst and what the time has brought.
        let most = 4 + (begun.elapsed().as_millis() * 20 / 1000 + 1) as u64;
        assert!(map.numbers().accepts <= most, "{} of {most}", map.numbers().accepts);
        map.numbers().accepts == 12
    });
    assert!(begun.elapsed() >= Duration::from_millis(8 * 1000 / 20));
    assert_eq!((refusals(&map.numbers()), map.len()), (vec![], 13));
    assert_eq!(map.get(server).unwrap().told.borrow()[0], (AcceptLimit::Rate, false));
}

/// EDGE_CASES 204.
#[test]
fn more_a_second_than_may_be_may_be_refused() {
    let limits = AcceptLimits::default().with_rate(1, 3).with_at_limit(AtLimit::Refuse);
    let (mut map, _, address) = limited(on_v4(), limits);
    let _clients: Vec<_> = (0..100).map(|_| connect(&address)).collect();
    let done = |numbers: &Numbers| numbers.accepts + numbers.refusals().map(|(_, n)| n).sum::<u64>() == 100;
    turn(&mut map, |map| done(&map.numbers()));
    assert!(map.numbers().accepts >= 3);
    assert!(refusals(&map.numbers())[0].1 > 50, "{:?}", refusals(&map.numbers()));
}

/// EDGE_CASES 205.
#[test]
fn listeners_that_share_limits_have_them_together() {
    let limits = AcceptLimits::default().with_total(2);
    let (mut map, _, first) = limited(on_v4(), limits.clone());
    let options = ListenOptions::default().with_limits(limits);
    let other = map.listen_with("127.0.0.1:0", &options, Server::default()).unwrap();
    let second = address_of(&mut map, other);
    let (a, _b) = (connect(&first), connect(&second));
    turn(&mut map, |map| map.len() == 4);
    let mut waiting = [connect(&first), connect(&second)];
    turn(&mut map, |map| map.numbers().rests().any(|rest| rest.1 >= 2));
    assert_eq!(map.len(), 4);
    drop(a);
    turn(&mut map, |map| map.numbers().accepts == 3);
    waiting.iter_mut().for_each(|waiting| waiting.set_nonblocking(true).unwrap());
    assert_eq!(map.len(), 4);
}

/// EDGE_CASES 206. Nobody who is over the limit takes anything from the others: no place, no turn in the
/// backlog.
#[test]
fn a_hostile_neighbour_keeps_nobody_out() {
    let limits = AcceptLimits::default().with_total(10).with_per_peer(3).with_rate(1000, 20);
    let (mut map, _, address) = limited(on_v4(), limits);
    let _hostile: Vec<_> = (0..300).map(|_| connect_from("127.0.0.66", address)).collect();
    for from in 2..8 {
        let mut good = connect_from(&format!("127.0.0.{from}"), address);
        echoes(&mut map, &mut good);
    }
    turn(&mut map, |map| refusals(&map.numbers()) == [("per peer", 297)]);
    assert!(rests(&map.numbers()).is_empty());
}

/// EDGE_CASES 207.
#[test]
fn descriptors_are_held_back_for_the_program() {
    alone(Some(64), || {
        let limits = AcceptLimits::default().with_descriptor_reserve(20);
        let (mut map, server, address) = limited(on_v4(), limits);
        let told = map.get(server).unwrap().told.clone();
        let (mut map_of_clients, mut clients) = (Vec::new(), Vec::new());
        // They are of this process, too.
        turn(&mut map, |map| {
            if rests(&map.numbers()).is_empty() {
                clients.push(connect(&address));
                return false;
            }
            true
        });
        assert_eq!(told.borrow()[0], (AcceptLimit::Descriptors, false));
        let served = map.len();
        turn_idle(&mut map);
        assert_eq!(map.len(), served, "the last one is in hand");
        // The program has its own.
        map_of_clients.extend((0..15).map(|_| std::fs::File::open("/dev/null").unwrap()));
        drop(map_of_clients);
        // It is not lost, and is handed over under a lower number.
        drop(clients.drain(..2));
        turn(&mut map, |map| map.len() == served - 1);
        let mut last = clients.pop().unwrap();
        echoes(&mut map, &mut last);
        let tokens: Vec<_> = map.tokens().collect();
        let numbers =
            tokens.into_iter().map(|token| map.channel(token).unwrap().socket().unwrap().as_raw_fd());
        assert!(numbers.max() < Some(64 - 20));
    });
}

/// EDGE_CASES 208. One line when a limit begins to hold, one when it ends, whoever comes in between.
fn logs_both_ends(at_limit: AtLimit) -> Vec<String> {
    capture_log();
    let limits = AcceptLimits::default().with_total(2).with_at_limit(at_limit);
    let (mut map, _, address) = limited(on_v4(), limits);
    let mut clients: Vec<_> = (0..2).map(|_| connect(&address)).collect();
    turn(&mut map, |map| map.len() == 3);
    assert_eq!(logged("limit"), [""; 0]);
    for _ in 0..3 {
        clients.push(connect(&address));
        turn_idle(&mut map);
    }
    let begins = logged("limit: ");
    assert_eq!(begins.len(), 1, "{begins:?}");
    assert!(begins[0].contains(&address.to_string()), "{begins:?}");
    assert!(begins[0].contains("at the limit of 2 connections in total"), "{begins:?}");
    clients.clear();
    turn(&mut map, |_| logged("limit: ").len() == 2);
    assert_calm(&mut map);
    logged("limit: ")
}

#[test]
fn the_log_says_when_connections_wait_and_when_none_does() {
    let lines = logs_both_ends(AtLimit::Wait);
    assert!(lines[0].contains("connections wait") && lines[1].contains("nobody waits any more"), "{lines:?}");
}

#[test]
fn the_log_says_when_connections_are_refused_and_how_many_were() {
    let lines = logs_both_ends(AtLimit::Refuse);
    assert!(lines[0].starts_with("WARN") && lines[0].contains("connections are refused"), "{lines:?}");
    assert!(lines[1].contains("; 3 were"), "{lines:?}");
}

#[test]
fn the_log_names_the_peer_that_is_over_its_limit() {
    capture_log();
    let (mut map, _, address) = limited(on_v4(), AcceptLimits::default().with_per_peer(1));
    let _greedy: Vec<_> = (0..5).map(|_| connect_from("127.0.0.9", address)).collect();
    turn(&mut map, |map| refusals(&map.numbers()) == [("per peer", 4)]);
    let lines = logged("limit: ");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("127.0.0.9") && lines[0].starts_with("WARN"), "{lines:?}");
}

/// EDGE_CASES 209. Those that are there count, and who waits is looked at anew.
#[test]
fn the_limits_of_a_living_listener_can_be_changed() {
    let (mut map, server, address) = limited(on_v4(), AcceptLimits::default().with_total(1));
    let _clients: Vec<_> = (0..4).map(|_| connect(&address)).collect();
    turn(&mut map, |map| rests(&map.numbers()) == ["total"]);
    let mut ch = map.channel(server).unwrap();
    let more = ch.accept_limits().unwrap().with_total(3);
    ch.set_accept_limits(more.clone()).unwrap();
    // At once: not when the listener would have tried again.
    assert!(turns_at_once(&mut map, 10, |map| map.len() == 4));
    turn_idle(&mut map);
    assert_eq!((map.len(), more.connections()), (4, 3));
    map.channel(server).unwrap().set_accept_limits(AcceptLimits::default()).unwrap();
    turn(&mut map, |map| map.len() == 5);
    let (near, _far) = UnixStream::pair().unwrap();
    let other = map.add(near, Echo).unwrap();
    let error = map.channel(other).unwrap().set_accept_limits(more).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// EDGE_CASES 202.
#[test]
fn unix_domain_peers_count_in_total_only() {
    let dir = Dir::new();
    let (path, address) = dir.socket("limited.sock");
    let options =
        ListenOptions::default().with_limits(AcceptLimits::default().with_per_peer(1).with_total(3));
    let mut map = ChannelMap::new().unwrap();
    map.listen_with(address.as_str(), &options, Server::default()).unwrap();
    let _clients: Vec<_> = (0..4).map(|_| UnixStream::connect(&path).unwrap()).collect();
    turn(&mut map, |map| rests(&map.numbers()) == ["total"]);
    assert_eq!((map.len(), refusals(&map.numbers())), (4, vec![]));
}

/// A place costs nothing on the way of a message.
#[cfg(debug_assertions)]
#[test]
fn messages_of_a_counted_connection_take_the_short_way() {
    let (mut map, _, address) = limited(on_v4(), AcceptLimits::default().with_total(5).with_per_peer(5));
    let mut client = connect(&address);
    echoes(&mut map, &mut client);
    let calls = || [Call::Recv, Call::Send, Call::Control].map(count);
    let before = calls();
    for _ in 0..100 {
        client.write_all(b"x").unwrap();
        map.turn(None).unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    let made = std::array::from_fn::<_, 3, _>(|at| calls()[at] - before[at]);
    assert_eq!(made, [100, 100, 0]);
}

/// The profile is for a server that strangers reach, whatever `ulimit -n` is.
#[test]
fn the_public_profile_serves() {
    let options = ListenOptions::public();
    assert_eq!(options.keep_alive, Some(Duration::from_secs(60)));
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen_with("127.0.0.1:0", &options, Server::default()).unwrap();
    let address = address_of(&mut map, server);
    let mut client = connect(&address);
    echoes(&mut map, &mut client);
    let _crowd: Vec<_> = (0..80).map(|_| connect_from("127.0.0.66", address)).collect();
    turn(&mut map, |map| map.numbers().accepts + map.numbers().refusals().map(|(_, n)| n).sum::<u64>() == 81);
    assert!(refusals(&map.numbers())[0].1 >= 80 - 64);
}

/// EDGE_CASES 216.
#[cfg(debug_assertions)]
#[test]
fn the_listener_is_told_what_could_not_be_accepted() {
    struct Strict(Rc<RefCell<Vec<Option<i32>>>>);
    impl Dispatcher for Strict {
        fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
            ch.map_mut().add(socket, Echo).map(drop)
        }
        fn handle_accept_error(&mut self, _: &mut Channel<'_>, error: &io::Error) {
            assert!(AcceptLimitError::of(error).is_none());
            self.0.borrow_mut().push(error.raw_os_error());
            panic!("the hook of a test");
        }
    }
    for limits in [None, Some(AcceptLimits::default().with_total(100))] {
        capture_log();
        let told = Rc::default();
        let mut map = ChannelMap::new().unwrap();
        let options = ListenOptions::default().with_limits(limits);
        let server = map.listen_with(on_v4(), &options, Strict(Rc::clone(&told))).unwrap();
        let address = address_of(&mut map, server);
        let mut client = connect(&address);
        for errno in [libc::ECONNABORTED, libc::EMFILE] {
            inject(Call::Accept, 0, 1, Fault::Errno(errno));
        }
        echoes(&mut map, &mut client);
        assert_eq!(*told.borrow(), [Some(libc::ECONNABORTED), Some(libc::EMFILE)]);
        assert_eq!(logged("handle_accept_error: panicked: the hook of a test").len(), 2);
        assert_eq!((map.numbers().accept_errors, rests(&map.numbers())), (2, vec!["descriptors"]));
    }
}
