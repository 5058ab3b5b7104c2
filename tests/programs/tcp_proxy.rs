//! `tcp_proxy` as its users meet it: what one side does, the other sees, at any speed, in bounded
//! memory.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::dirs::Dir;
use crate::support::peers::{
    accept, black_hole, connect, cut_short, limit_time, loopbacks, pattern, pattern_at, read_exactly,
    read_to_end, refusing, reset,
};
use crate::support::process::open_descriptors_of;
use crate::support::programs::{Program, assert_help, command, flood, listener, unread};
use crate::support::waiting::{DEADLINE, wait_until};

const MIB: usize = 1024 * 1024;

/// What the proxy may have had at most, in KiB.
const MEMORY: usize = 20 * 1024;

/// More than all buffers of the system on the way take.
const LOAD: usize = 200 * MIB;

/// A proxy, and what can be seen of it from outside.
struct Proxy {
    program: Program,
    pid: u32,
    /// As it prints it.
    address: String,
}

impl Proxy {
    #[track_caller]
    fn start(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Proxy {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"ulimit -n 1024; echo $$; exec "$0" "$@""#]);
        shell.arg(command("tcp_proxy").get_program()).args(args);
        shell.stdin(Stdio::null()).stdout(Stdio::piped());
        let program = Program::spawn(shell);
        let pid = program.line().parse().unwrap();
        let line = program.line();
        let address = line.strip_prefix("listening on ").expect(&line).to_owned();
        Proxy { program, pid, address }
    }

    /// On a port of its own.
    #[track_caller]
    fn to(upstream: &str) -> Proxy {
        Proxy::start(["127.0.0.1:0", upstream])
    }

    #[track_caller]
    fn client(&self) -> TcpStream {
        connect(&self.address.parse().unwrap())
    }

    /// Open descriptors (Linux).
    fn descriptors(&self) -> usize {
        open_descriptors_of(self.pid)
    }

    #[track_caller]
    fn wait_for_descriptors(&self, most: usize) {
        wait_until("every descriptor is closed", || self.descriptors() <= most);
    }

    /// All is well; that clients were dropped, it may say.
    #[track_caller]
    fn end(self) {
        let ended = self.program.end_by("TERM");
        let is_quiet = ended.stderr.lines().all(|line| line.contains(" is dropped: upstream "));
        assert!(ended.code == Some(0) && is_quiet, "{ended:?}");
    }
}

/// A proxy with one connection through it, in use: its client's end, and its upstream's.
#[track_caller]
fn through() -> (Proxy, TcpStream, TcpStream) {
    through_with(&[])
}

fn through_with(options: &[&str]) -> (Proxy, TcpStream, TcpStream) {
    let (listener, upstream) = listener();
    let proxy = Proxy::start([options, &["127.0.0.1:0", &upstream]].concat());
    let mut client = proxy.client();
    let mut server = accept(&listener);
    client.write_all(b"?").unwrap();
    assert_eq!(read_exactly(&mut server, 1), b"?");
    (proxy, client, server)
}

/// The same, with the ends named by who acts and who watches; once for each direction.
#[track_caller]
fn both_directions(test: impl Fn(&Proxy, TcpStream, TcpStream)) {
    for client_acts in [true, false] {
        let (proxy, client, server) = through();
        let (actor, watcher) = if client_acts { (client, server) } else { (server, client) };
        test(&proxy, actor, watcher);
        proxy.end();
    }
}

/// Whoever goes on writing is told that nobody is there.
#[track_caller]
fn assert_write_fails(peer: &mut TcpStream) {
    let begun = Instant::now();
    let mut sent = 0;
    while let Ok(written) = peer.write(&[b'x'; 64 * 1024]) {
        sent += written;
        assert!(begun.elapsed() < DEADLINE, "{sent} bytes for nobody");
    }
}

#[track_caller]
fn assert_flooded(got: &[u8]) {
    let whole = got.iter().enumerate().all(|(at, byte)| *byte == pattern_at(at));
    assert!(whole, "{} bytes, but not those", got.len());
}

/// Read to the end, `burst` bytes at a time, with a pause after each: not to wait for anything, but
/// to be slow.
fn read_in_bursts(peer: TcpStream, burst: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while (&peer).take(burst as u64).read_to_end(&mut got).unwrap() > 0 {
        thread::sleep(Duration::from_millis(2));
    }
    got
}

// Bytes.

#[test]
fn bytes_go_both_ways_at_once() {
    const LEN: usize = 32 * MIB;
    let (proxy, client, server) = through();
    let bytes = pattern(LEN);
    // Not the same in both directions.
    let back: Vec<u8> = bytes.iter().rev().copied().collect();
    thread::scope(|scope| {
        let write = |mut peer: TcpStream, bytes| {
            scope.spawn(move || {
                peer.write_all(bytes).unwrap();
                peer.shutdown(Shutdown::Write).unwrap();
            });
        };
        write(client.try_clone().unwrap(), &bytes);
        write(server.try_clone().unwrap(), &back);
        let at_server = scope.spawn(|| read_in_bursts(server, 512 * 1024));
        let at_client = scope.spawn(|| read_in_bursts(client, 700_000));
        assert!(at_server.join().unwrap() == bytes);
        assert!(at_client.join().unwrap() == back);
    });
    assert!(proxy.program.peak_memory() < MEMORY, "{} KiB", proxy.program.peak_memory());
    proxy.end();
}

/// The sender is stopped, the proxy stays small, another connection is served; nothing is lost.
#[test]
fn a_reader_that_does_not_read_stops_its_sender() {
    both_directions(|proxy, mut sender, reader| {
        let (sent, end) = flood(&mut sender, LOAD, pattern_at);
        assert!(end.is_ok() && sent < LOAD, "after {sent}: {end:?}");
        assert!(proxy.program.peak_memory() < MEMORY, "{} KiB", proxy.program.peak_memory());
        sender.shutdown(Shutdown::Write).unwrap();
        let got = read_in_bursts(reader, MIB);
        assert_eq!(got.len(), sent);
        assert_flooded(&got);
    });
}

/// A connection that is stopped keeps no other waiting.
#[test]
fn others_are_served_meanwhile() {
    let (listener, upstream) = listener();
    let proxy = Proxy::to(&upstream);
    let mut stopped = proxy.client();
    let _not_reading = accept(&listener);
    flood(&mut stopped, LOAD, pattern_at).1.unwrap();
    for _ in 0..10 {
        let mut client = proxy.client();
        let mut server = accept(&listener);
        client.write_all(b"ping").unwrap();
        assert_eq!(read_exactly(&mut server, 4), b"ping");
        server.write_all(b"pong").unwrap();
        assert_eq!(read_exactly(&mut client, 4), b"pong");
    }
}

// Ends.

/// FIN goes through as such; the other way stays open, and then ends as well.
#[test]
fn a_half_close_goes_through_as_such() {
    both_directions(|proxy, mut first, mut second| {
        let open = proxy.descriptors();
        first.write_all(b"before").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut second), b"before");
        for _ in 0..3 {
            second.write_all(b"after").unwrap();
            assert_eq!(read_exactly(&mut first, 5), b"after");
        }
        assert_eq!(proxy.descriptors(), open);
        let rest = pattern(3 * MIB);
        let writer = thread::spawn({
            let rest = rest.clone();
            move || second.write_all(&rest).map(|()| drop(second)).unwrap()
        });
        assert!(read_to_end(&mut first) == rest);
        writer.join().unwrap();
        drop(first);
        proxy.wait_for_descriptors(open - 2);
    });
}

/// Both at once, with nothing said.
#[test]
fn an_end_of_both_sides_at_once_leaves_nothing_behind() {
    both_directions(|proxy, first, mut second| {
        let open = proxy.descriptors();
        drop(first);
        assert_eq!(read_to_end(&mut second), b"");
        drop(second);
        proxy.wait_for_descriptors(open - 2);
    });
}

#[test]
fn a_reset_goes_through() {
    both_directions(|proxy, actor, mut watcher| {
        let open = proxy.descriptors();
        reset(actor);
        assert_eq!(cut_short(&mut watcher), b"");
        proxy.wait_for_descriptors(open - 2);
    });
}

/// What was sent before comes before.
#[test]
fn a_reset_goes_through_after_the_data() {
    for len in [1, 40_000] {
        both_directions(|proxy, mut actor, mut watcher| {
            let open = proxy.descriptors();
            let bytes = pattern(len);
            actor.write_all(&bytes).unwrap();
            reset(actor);
            let got = cut_short(&mut watcher);
            assert!(got == bytes, "{} of {len} bytes", got.len());
            proxy.wait_for_descriptors(open - 2);
        });
    }
}

/// The other side has not read for long: what the proxy has is sent first, then the reset.
#[test]
fn a_reset_with_a_full_queue_comes_after_what_the_proxy_has() {
    both_directions(|proxy, mut actor, mut watcher| {
        let open = proxy.descriptors();
        let (sent, _) = flood(&mut actor, LOAD, pattern_at);
        reset(actor);
        proxy.wait_for_descriptors(open - 1);
        let got = cut_short(&mut watcher);
        assert!(!got.is_empty() && got.len() < sent, "{} of {sent} bytes", got.len());
        assert_flooded(&got);
        proxy.wait_for_descriptors(open - 2);
    });
}

/// 122: it writes, as an echo does, and reads no further until that was taken.
#[test]
fn a_reset_reaches_a_peer_that_writes_before_it_reads() {
    both_directions(|proxy, mut actor, mut watcher| {
        let open = proxy.descriptors();
        let (sent, _) = flood(&mut actor, LOAD, pattern_at);
        flood(&mut watcher, LOAD, pattern_at).1.unwrap();
        reset(actor);
        proxy.wait_for_descriptors(open - 1);
        watcher.write_all(&pattern(16 * MIB)).expect("it is taken, for nobody");
        let got = cut_short(&mut watcher);
        assert!(!got.is_empty() && got.len() < sent, "{} of {sent} bytes", got.len());
        assert_flooded(&got);
        proxy.wait_for_descriptors(open - 2);
    });
}

/// 114: what the upstream was told has arrived, arrives, though the proxy has passed all of it to the system
/// and the client starts to read late.
#[cfg(target_os = "linux")]
#[test]
fn what_was_acknowledged_before_a_reset_arrives() {
    const LEN: usize = 1_000_000;
    for (half_closes, label) in [(false, "reset"), (true, "half-close, then reset")] {
        let (listener, upstream) = listener();
        let proxy = Proxy::to(&upstream);
        let idle = proxy.descriptors();
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(16 * 1024).unwrap();
        client.connect(&proxy.address.parse::<SocketAddr>().unwrap().into()).unwrap();
        let mut client = TcpStream::from(client);
        limit_time(&client);
        let mut server = accept(&listener);
        server.write_all(&pattern(LEN)).unwrap();
        if half_closes {
            server.shutdown(Shutdown::Write).unwrap();
        }
        wait_until("all is acknowledged", || unacknowledged(&server) == 0);
        reset(server);
        wait_until("the proxy knows of the reset", || proxy.descriptors() <= idle + 1);
        // The client that is to be reset reads slowly.
        let mut got = Vec::new();
        let mut piece = vec![0; 50_000];
        while got.len() < LEN {
            let read = client
                .read(&mut piece)
                .unwrap_or_else(|error| panic!("{label}: {error} after {}", got.len()));
            assert!(read > 0, "{label}: the end after {}", got.len());
            got.extend_from_slice(&piece[..read]);
        }
        assert!(got == pattern(LEN), "{label}");
        proxy.wait_for_descriptors(idle);
        proxy.end();
    }
}

/// Bytes that the other side has not acknowledged (Linux).
#[cfg(target_os = "linux")]
fn unacknowledged(socket: &TcpStream) -> u64 {
    let ends =
        [socket.local_addr().unwrap(), socket.peer_addr().unwrap()].map(|end| format!(":{:04X}", end.port()));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut line = line.filter(|line| line[1].ends_with(&ends[0]) && line[2].ends_with(&ends[1]));
    let queues = line.next().expect("the connection in the table")[4];
    u64::from_str_radix(queues.split_once(':').unwrap().0, 16).unwrap()
}

/// After the FIN of the other side it is still noticed.
#[test]
fn a_reset_after_a_half_close_goes_through() {
    both_directions(|proxy, mut actor, mut watcher| {
        let open = proxy.descriptors();
        watcher.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut actor), b"");
        actor.write_all(b"last words").unwrap();
        assert_eq!(read_exactly(&mut watcher, 10), b"last words");
        reset(actor);
        assert_eq!(cut_short(&mut watcher), b"");
        proxy.wait_for_descriptors(open - 2);
    });
}

/// One side has sent its last, and is gone altogether: who goes on sending to it finds out.
#[test]
fn a_reset_after_its_own_half_close_is_found_out_by_the_sender() {
    both_directions(|proxy, actor, mut watcher| {
        let open = proxy.descriptors();
        actor.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut watcher), b"");
        reset(actor);
        assert_write_fails(&mut watcher);
        drop(watcher);
        proxy.wait_for_descriptors(open - 2);
    });
}

// Upstream.

#[test]
fn an_upstream_that_refuses_resets_the_client() {
    for on in loopbacks() {
        let (upstream, address) = refusing(on);
        let proxy = Proxy::to(&address.to_string());
        let idle = proxy.descriptors();
        for talks in [false, true] {
            let mut client = proxy.client();
            // A write that comes after the reset is told instead.
            match if talks { client.write_all(b"anybody?") } else { Ok(()) } {
                Ok(()) => assert_eq!(cut_short(&mut client), b""),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
        proxy.wait_for_descriptors(idle);
        // Somebody comes.
        upstream.listen(8).unwrap();
        let mut client = proxy.client();
        let mut server = accept(&TcpListener::from(OwnedFd::from(upstream)));
        client.write_all(b"now?").unwrap();
        assert_eq!(read_exactly(&mut server, 4), b"now?");
        proxy.end();
    }
}

/// 112: without being asked to, it says who was dropped, and why.
#[test]
fn the_log_says_why_a_client_was_dropped() {
    let (upstream, address) = refusing("127.0.0.1:0".parse().unwrap());
    let proxy = Proxy::start(["127.0.0.1:0", &address.to_string()]);
    let mut refused = proxy.client();
    let mut names = vec![refused.local_addr().unwrap()];
    cut_short(&mut refused);
    upstream.listen(8).unwrap();
    let upstream = TcpListener::from(OwnedFd::from(upstream));
    let mut client = proxy.client();
    names.push(client.local_addr().unwrap());
    let mut server = accept(&upstream);
    client.write_all(b"hello").unwrap();
    read_exactly(&mut server, 5);
    reset(server);
    cut_short(&mut client);
    // One that goes by itself was not dropped.
    let client = proxy.client();
    let mut server = accept(&upstream);
    drop(client);
    assert_eq!(read_to_end(&mut server), b"");
    drop(server);
    let ended = proxy.program.end_by("TERM");
    let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.contains(" is dropped: ")).collect();
    assert_eq!(lines.len(), 2, "{ended:?}");
    for ((line, name), why) in lines.iter().zip(&names).zip(["refused", "reset"]) {
        let said = format!("{name} is dropped: upstream {address}: ");
        assert!(line.contains(&said) && line.contains(why), "{ended:?}");
    }
}

/// 111: what a client needs is there before it is let in.
#[test]
fn a_crowd_waits_in_the_backlog() {
    let (_echo, upstream) = Program::serve("echo_server", ["127.0.0.1:0"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -n 32; exec "$0" "$@""#]).arg(command("tcp_proxy").get_program());
    shell.args(["127.0.0.1:0", &upstream.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
    let proxy = Program::spawn(shell);
    let address = proxy.listening();
    let mut crowd: Vec<TcpStream> = (0..60).map(|_| connect(&address)).collect();
    for client in &mut crowd {
        client.write_all(b"hello").unwrap();
    }
    for mut client in crowd {
        assert_eq!(read_exactly(&mut client, 5), b"hello");
    }
    proxy.finish("TERM");
}

#[test]
fn an_upstream_is_found_by_name() {
    // What this name has here.
    let known: Vec<SocketAddr> = ("localhost", 0).to_socket_addrs().unwrap().collect();
    for on in loopbacks().into_iter().filter(|on| known.contains(on)) {
        let listener = TcpListener::bind(on).unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy::start(["localhost:0", &format!("localhost:{port}")]);
        let mut client = proxy.client();
        client.write_all(b"before it is looked up").unwrap();
        let mut server = accept(&listener);
        assert_eq!(read_exactly(&mut server, 22), b"before it is looked up");
        server.write_all(b"found").unwrap();
        assert_eq!(read_exactly(&mut client, 5), b"found");
    }
}

#[test]
fn unix_domain_sockets_are_passed_through() {
    let dir = Dir::new();
    let (at, listen) = dir.socket("listen.sock");
    let (to, upstream) = dir.socket("upstream.sock");
    let listener = UnixListener::bind(&to).unwrap();
    let proxy = Proxy::start([&listen, &upstream]);
    assert_eq!(proxy.address, listen);
    let idle = proxy.descriptors();
    let mut client = UnixStream::connect(&at).unwrap();
    let mut server = listener.accept().unwrap().0;
    limit_time(&client);
    limit_time(&server);
    let bytes = pattern(5 * MIB);
    let writer = thread::spawn({
        let (bytes, mut client) = (bytes.clone(), client.try_clone().unwrap());
        move || {
            client.write_all(&bytes).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
    });
    assert!(read_to_end(&mut server) == bytes);
    writer.join().unwrap();
    server.write_all(b"after the half-close").unwrap();
    drop(server);
    assert_eq!(read_to_end(&mut client), b"after the half-close");
    drop(client);
    proxy.wait_for_descriptors(idle);
    proxy.end();
    assert!(!at.exists(), "its socket file stays behind");
}

/// A Unix-domain client half-closes and then goes without a word: whoever is upstream and sends to it
/// must find out, and be let go.
#[test]
fn a_unix_client_that_goes_after_its_half_close_is_found_out() {
    for talks in [true, false] {
        let dir = Dir::new();
        let (at, listen) = dir.socket("listen.sock");
        let (listener, upstream) = listener();
        let proxy = Proxy::start([&listen, &upstream]);
        let idle = proxy.descriptors();
        let client = UnixStream::connect(&at).unwrap();
        let mut server = accept(&listener);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut server), b"");
        drop(client);
        if talks {
            assert_write_fails(&mut server);
        }
        proxy.wait_for_descriptors(idle);
        proxy.end();
    }
}

/// Nobody answers upstream: clients that give up leave nothing behind.
#[test]
fn an_upstream_that_never_answers_leaves_nothing_behind() {
    for on in loopbacks() {
        let (_full, _clients, silent) = black_hole(on);
        let proxy = Proxy::to(&silent.to_string());
        let idle = proxy.descriptors();
        let mut clients: Vec<TcpStream> = (0..20).map(|_| proxy.client()).collect();
        for client in clients.iter_mut().step_by(2) {
            client.write_all(b"is anybody there?").unwrap();
        }
        wait_until("all are accepted", || proxy.descriptors() >= idle + 40);
        clients.into_iter().for_each(reset);
        proxy.wait_for_descriptors(idle);
        proxy.end();
    }
}

/// 30 MB are offered while the connection upstream waits for room in a backlog: they wait with the
/// client, and all arrive.
#[test]
fn what_is_sent_before_upstream_answers_waits_and_arrives() {
    const LEN: usize = 30_000_000;
    let dir = Dir::new();
    let (to, upstream) = dir.socket("upstream.sock");
    let full = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    full.bind(&socket2::SockAddr::unix(&to).unwrap()).unwrap();
    full.listen(0).unwrap();
    let waiting = UnixStream::connect(&to).unwrap();
    let proxy = Proxy::to(&upstream);
    let idle = proxy.descriptors();
    let mut client = proxy.client();
    wait_until("it is accepted", || proxy.descriptors() >= idle + 2);
    let bytes = pattern(LEN);
    let mut sent = 0;
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while let Ok(written) = client.write(&bytes[sent..]) {
        sent += written;
        assert!(sent < LEN, "the proxy has taken it all");
    }
    assert!(proxy.program.peak_memory() < MEMORY, "{} KiB", proxy.program.peak_memory());
    client.set_write_timeout(Some(DEADLINE)).unwrap();
    let listener = UnixListener::from(OwnedFd::from(full));
    let first = listener.accept().unwrap().0;
    drop((waiting, first));
    let mut server = listener.accept().unwrap().0;
    limit_time(&server);
    thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&bytes[sent..]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_to_end(&mut server) == bytes);
    });
    assert!(proxy.program.peak_memory() < MEMORY, "{} KiB", proxy.program.peak_memory());
    proxy.end();
}

// The program.

#[test]
fn many_connections_leave_nothing_behind() {
    let (listener, upstream) = listener();
    let proxy = Proxy::to(&upstream);
    let idle = proxy.descriptors();
    for round in 0..6 {
        let open = |number: usize| {
            let mut client = proxy.client();
            let mut server = accept(&listener);
            client.write_all(&[number as u8]).unwrap();
            assert_eq!(read_exactly(&mut server, 1), [number as u8]);
            (client, server)
        };
        let pairs: Vec<(TcpStream, TcpStream)> = (0..50).map(open).collect();
        assert_eq!(proxy.descriptors(), idle + 100);
        for (number, (client, server)) in pairs.into_iter().enumerate() {
            match (number + round) % 5 {
                0 => drop(client),
                1 => drop(server),
                2 => reset(client),
                3 => reset(server),
                _ => client.shutdown(Shutdown::Both).unwrap(),
            }
        }
        proxy.wait_for_descriptors(idle);
    }
    proxy.end();
}

/// Bytes run both ways, and the peers read: it ends in order, and they see an end.
#[test]
fn a_signal_while_bytes_run_ends_in_order() {
    for signal in ["TERM", "INT"] {
        // In half of the time it closes what never pauses; the other half is for a machine that has much to do.
        let (proxy, client, server) = through_with(&["--drain", "8"]);
        thread::scope(|scope| {
            let (told, ran) = std::sync::mpsc::channel();
            for peer in [client, server] {
                limit_time(&peer);
                let (mut writer, mut reader, told) = (peer.try_clone().unwrap(), peer, told.clone());
                // Until there is nobody to write to.
                scope.spawn(move || while writer.write(&[b'x'; 4096]).is_ok() {});
                scope.spawn(move || {
                    let (mut got, mut buffer) = (0, vec![0; 64 * 1024]);
                    while let Ok(1..) = reader.read(&mut buffer).inspect(|read| got += read) {
                        if got > MIB {
                            let _ = told.send(());
                        }
                    }
                    reader.shutdown(Shutdown::Both)
                });
            }
            for _ in 0..2 {
                ran.recv_timeout(DEADLINE).expect("bytes run");
            }
            proxy.program.finish(signal);
        });
    }
}

/// A peer that does not read is waited for, for 3 s; or until somebody insists.
#[test]
fn a_second_signal_ends_the_wait_for_a_deaf_peer() {
    for (second, code) in [(None, 0), (Some("TERM"), 143), (Some("INT"), 130)] {
        let (proxy, mut client, _not_reading) = through();
        flood(&mut client, LOAD, pattern_at).1.unwrap();
        let address: SocketAddr = proxy.address.parse().unwrap();
        proxy.program.signal("TERM");
        wait_until("it accepts no more", || TcpStream::connect(address).is_err());
        if let Some(second) = second {
            proxy.program.signal(second);
        }
        let ended = proxy.program.end();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(ended.stderr.contains("cut off"), second.is_none(), "{ended:?}");
    }
}

#[test]
fn help_says_how_it_is_used() {
    assert_help("tcp_proxy");
}

#[test]
fn wrong_usage_is_answered_with_the_usage() {
    let wrong: [&[&str]; 15] = [
        &[],
        &["127.0.0.1:0"],
        &["127.0.0.1:0", "127.0.0.1:1", "127.0.0.1:2"],
        &["--bogus", "127.0.0.1:0", "127.0.0.1:1"],
        &["-x"],
        &["--log"],
        &["--log", "loud", "127.0.0.1:0", "127.0.0.1:1"],
        &["127.0.0.1", "127.0.0.1:1"],
        &["127.0.0.1:0", "127.0.0.1"],
        &["127.0.0.1:0", "127.0.0.1:65536"],
        &["127.0.0.1:0", ":80"],
        &["127.0.0.1:0", "::1:80"],
        &["127.0.0.1:0", "unix:"],
        &["unix:", "127.0.0.1:1"],
        &["", ""],
    ];
    for args in wrong {
        Program::start("tcp_proxy", args).end().assert_wrong_usage("tcp_proxy");
    }
}

#[test]
fn an_address_in_use_is_a_failure_that_names_it() {
    let dir = Dir::new();
    let (path, at) = dir.socket("taken.sock");
    let _taken = UnixListener::bind(&path).unwrap();
    let (_listener, tcp) = listener();
    for address in [&tcp, &at] {
        let ended = Program::start("tcp_proxy", [address, "127.0.0.1:1"]).end();
        ended.assert_failure(address);
        assert_eq!((ended.stderr.lines().count(), ended.stdout.as_str()), (1, ""), "{ended:?}");
    }
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let mut command = command("tcp_proxy");
    command.args(["127.0.0.1:0", "127.0.0.1:1"]).stdout(unread());
    Program::spawn(command).end().assert_quiet_success();
}
