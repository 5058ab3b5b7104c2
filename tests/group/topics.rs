//! Publish and subscribe over several loops.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use dispatch_loop::{Channel, ChannelMap, Dispatcher, ListenOptions, LoopGroup, Loops, Token, Topics};

use crate::support::groups::{joined, keep_busy, on, start, wait_for_loads};
use crate::support::peers::{connect, read_exactly, unix_pair};
use crate::support::waiting::wait_until;

/// `+` subscribes, `-` unsubscribes, `.` leaves; what else comes is published.
struct Member {
    topics: Topics,
    to_all: bool,
}

impl Dispatcher for Member {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.topics.subscribe(ch, "room");
        ch.push(b"!\n")
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let (topics, to_all) = (self.topics.clone(), self.to_all);
        ch.read_with(|ch, data| match data {
            b"+" => {
                topics.subscribe(ch, "room");
                ch.push(b"+\n")
            }
            b"-" => {
                topics.unsubscribe(ch, "room");
                ch.push(b"-\n")
            }
            _ if to_all => topics.publish(ch.map_mut(), "room", data),
            _ => {
                let own = ch.token();
                topics.publish_from(ch.map_mut(), own, "room", data)
            }
        })
    }
}

fn room(loops: usize, to_all: bool) -> (LoopGroup, SocketAddr, Topics) {
    let group = start(loops);
    let topics = Topics::new(&group.loops());
    let shared = topics.clone();
    let serve = move |map: &mut ChannelMap, socket, _| {
        map.add(socket, Member { topics: shared.clone(), to_all }).map(drop)
    };
    let address = group.listen("127.0.0.1:0", &ListenOptions::default(), serve).unwrap()[0].ip().unwrap();
    (group, address, topics)
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: &SocketAddr) -> Client {
        let mut client = Client(BufReader::new(connect(address)));
        assert_eq!(client.line(), "!");
        client
    }
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }
}

/// EDGE_CASES 461: on all loops, with and without the one who publishes.
#[test]
fn what_is_published_reaches_all_that_have_subscribed() {
    for to_all in [false, true] {
        let (group, address, _) = room(3, to_all);
        let mut clients: Vec<Client> = (0..6).map(|_| Client::new(&address)).collect();
        wait_for_loads(&group, &[2, 2, 2]);
        clients[2].say("-");
        assert_eq!(clients[2].line(), "-");
        clients[0].say("hello\n");
        for (n, client) in clients.iter_mut().enumerate() {
            if n != 2 && (n != 0 || to_all) {
                assert_eq!(client.line(), "hello", "{n}");
            }
        }
        clients[2].say("+");
        assert_eq!(clients[2].line(), "+");
        clients[5].say("again\n");
        for (n, client) in clients.iter_mut().enumerate() {
            if n != 5 || to_all {
                assert_eq!(client.line(), "again", "{n}");
            }
        }
        group.stop();
        joined(group).unwrap();
    }
}

/// EDGE_CASES 462: of each who publishes, at each who has subscribed, once; also more than the queue of a loop
/// takes while it is busy.
#[test]
fn what_is_published_arrives_in_order_and_once() {
    let (group, address, topics) = room(3, false);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::new(&address)).collect();
    let busy = keep_busy(group.loops().remote(2));
    const LINES: usize = 5000;
    for from in 0..2 {
        let topics = topics.clone();
        on(group.loops().remote(from), move |map| {
            for n in 0..LINES {
                topics.publish(map, "room", format!("{from} {n:06}\n").as_bytes()).unwrap();
            }
        });
    }
    assert!(topics.backlog() > 2 * LINES * 9, "{}", topics.backlog());
    drop(busy);
    for client in &mut clients {
        let mut next = [0; 2];
        for _ in 0..2 * LINES {
            let line = client.line();
            let (from, n) = line.split_once(' ').unwrap();
            let from: usize = from.parse().unwrap();
            assert_eq!(n.parse::<usize>().unwrap(), next[from]);
            next[from] += 1;
        }
    }
    wait_until("nothing waits", || topics.backlog() == 0);
    group.stop();
    joined(group).unwrap();
}

/// EDGE_CASES 463: the limit of what waits for a loop; the others are told, and it recovers.
#[test]
fn a_loop_that_is_busy_for_long_is_left_out_beyond_a_limit() {
    let group = start(2);
    let topics = Topics::new(&group.loops());
    let busy = keep_busy(group.loops().remote(1));
    let mut map = ChannelMap::new().unwrap();
    let piece = vec![b'x'; 1024 * 1024];
    let told = (0..40).take_while(|_| topics.publish(&mut map, "room", &piece).is_ok()).count();
    assert_eq!(told, 15, "MiB, and what they cost besides");
    let error = topics.publish(&mut map, "room", &piece).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    assert!(error.to_string().starts_with("loop 1: "), "{error}");
    drop(busy);
    wait_until("it goes on", || topics.backlog() == 0);
    topics.publish(&mut map, "room", &piece).unwrap();
    // A loop that has ended has no subscribers.
    group.stop();
    joined(group).unwrap();
    (0..40).for_each(|_| topics.publish(&mut map, "room", &piece).unwrap());
    assert_eq!(topics.backlog(), 0);
}

/// EDGE_CASES 464: it holds nothing of those that have gone, whatever their topics were.
#[test]
fn a_subscription_ends_with_its_channel() {
    struct Quiet;
    impl Dispatcher for Quiet {}
    let mut map = ChannelMap::new().unwrap();
    let topics = Topics::new(&Loops::of(&mut map));
    for n in 0..2000 {
        let (near, _far) = unix_pair();
        let token: Token = map.add(near, Quiet).unwrap().token();
        topics.subscribe(&mut map.channel(token).unwrap(), &format!("topic {n}"));
        map.channel(token).unwrap().abort();
        map.turn(Some(std::time::Duration::ZERO)).unwrap();
        assert!(!map.contains(token));
        let shown = format!("{topics:?}");
        let held: usize = shown.split(&[' ', ',']).find_map(|word| word.parse().ok()).unwrap();
        assert!(held <= 65, "{shown}");
    }
    // One that lives gets what is published by hand, and its end is no error.
    let (near, mut far) = unix_pair();
    let token = map.add(near, Quiet).unwrap();
    topics.subscribe(&mut map.channel(token).unwrap(), "last");
    topics.publish(&mut map, "last", b"hello").unwrap();
    while map.wait_limit() == Some(std::time::Duration::ZERO) {
        map.turn(Some(std::time::Duration::ZERO)).unwrap();
    }
    assert_eq!(read_exactly(&mut far, 5), b"hello");
    map.channel(token).unwrap().abort();
    topics.publish(&mut map, "last", b"anybody?").unwrap();
}
