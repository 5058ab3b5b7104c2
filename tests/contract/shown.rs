//! `Debug` of a map and of its channels, as a person reads it who looks for what is wrong.

use std::io::{self, Write};
use std::net::Shutdown;

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Eof, Socket};

use crate::support::echo::Echo;
use crate::support::opened::address_of;
use crate::support::peers::{reads_to_end, unix_pair};
use crate::support::recorder::Log;
use crate::support::turning::{turn_idle, turn_until};

struct Accepting;

impl Dispatcher for Accepting {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Echo).map(drop)
    }
}

/// EDGE_CASES 307.
#[test]
fn a_map_shows_how_many_channels_there_are_in_which_state() {
    let mut map = ChannelMap::new().unwrap();
    assert!(format!("{map:?}").contains(" channels: 0, queued: 0, timers: 0, "), "{map:?}");
    let server = map.listen("127.0.0.1:0", Accepting).unwrap();
    let address = address_of(&mut map, server);
    let _clients = [0, 1].map(|_| std::net::TcpStream::connect(address).unwrap());
    turn_until(&mut map, &Log::new(), |map| map.len() == 3);
    turn_idle(&mut map);
    map.call_later(std::time::Duration::from_secs(60), |_| ());
    let shown = format!("{map:?}");
    assert!(shown.contains(" channels: 3 (1 listening, 2 open), queued: 0, timers: 1, "), "{shown}");
    assert_eq!(shown.lines().count(), 1);
    let pretty = format!("{map:#?}");
    assert!(pretty.contains("worth_a_look: []") && pretty.contains("others: 3"), "{pretty}");
}

/// EDGE_CASES 307: nobody wants 10,000 of them in the middle of the night.
#[test]
fn a_map_shows_twenty_channels_those_with_most_queued_first() {
    const PUSHED: usize = 1 << 20;
    let mut map = ChannelMap::new().unwrap();
    let mut ends = Vec::new();
    for _ in 0..30 {
        let (near, far) = unix_pair();
        let token = map.add(near, Echo).unwrap().token();
        map.channel(token).unwrap().pause_reading();
        ends.push((token, far));
    }
    let (last, _) = ends[29];
    map.channel(last).unwrap().push_vec(vec![b'x'; PUSHED]).unwrap();
    turn_idle(&mut map);
    let shown = format!("{map:#?}");
    assert_eq!(shown.matches("token:").count(), 20, "{shown}");
    assert!(shown.contains("others: 10"), "{shown}");
    let first = shown.find("token:").map(|at| &shown[at..]).unwrap();
    assert!(first.starts_with(&format!("token: {last:?}")), "{shown}");
    assert!(first.contains("waits_for: resume_reading; the peer to take output,"), "{shown}");
}

/// EDGE_CASES 308.
#[test]
fn a_channel_shows_what_it_is_and_what_it_waits_for() {
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen("127.0.0.1:0", Accepting).unwrap();
    let address = address_of(&mut map, server);
    let mut client = std::net::TcpStream::connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    turn_until(&mut map, &Log::new(), |map| map.numbers().bytes_out == 5);
    turn_idle(&mut map);
    let token = map.tokens().find(|token| *token != server.token()).unwrap();
    let show = |map: &mut ChannelMap| format!("{:?}", map.channel(token).unwrap());
    let shown = show(&mut map);
    let (local, peer) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
    let wanted = format!(
        "Channel {{ token: {token:?}, state: open, kind: stream, peer: {peer}, local: {local}, queued: 0, \
         bytes_in: 5, bytes_out: 5, age: "
    );
    assert!(shown.starts_with(&wanted), "{shown}");
    map.channel(token).unwrap().pause_reading();
    assert!(show(&mut map).contains("waits_for: resume_reading, "), "{}", show(&mut map));
    map.channel(token).unwrap().resume_reading();
    map.channel(token).unwrap().shutdown_write();
    turn_idle(&mut map);
    assert!(show(&mut map).contains("waits_for: the peer's end: FIN was sent, "), "{}", show(&mut map));
    map.channel(token).unwrap().close();
    turn_idle(&mut map);
    assert!(show(&mut map).contains("state: lingering"), "{}", show(&mut map));
    drop(reads_to_end(client));
    turn_until(&mut map, &Log::new(), |map| !map.contains(token));
    assert!(format!("{:?}", map.channel(server).unwrap()).contains("state: listening, kind: listener"));
}

/// EDGE_CASES 308: also from within its own hooks.
#[test]
fn a_channel_shows_itself_in_its_hooks() {
    struct Shown(Log);
    impl Dispatcher for Shown {
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.push(b"12345")?;
            self.0.add(format!("{ch:?}"));
            ch.read_with(|_, _| Ok(()))
        }
        fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
            self.0.add(format!("{ch:?}"));
            Ok(Eof::Close)
        }
    }
    let (mut map, log) = (ChannelMap::new().unwrap(), Log::new());
    let (near, mut far) = unix_pair();
    map.add(near, Shown(log.clone())).unwrap();
    far.write_all(b"x").unwrap();
    turn_idle(&mut map);
    far.shutdown(Shutdown::Write).unwrap();
    turn_until(&mut map, &log, |map| map.is_empty());
    let shown = log.events();
    assert!(shown[0].contains("queued: 5"), "{shown:?}");
    assert!(shown.last().unwrap().contains("its own end: the peer's was read"), "{shown:?}");
}
