//! Servers that are restarted while their clients go on.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::dirs::Dir;
use crate::support::peers::{connect, limit_time, pattern, read_exactly};
use crate::support::process::open_descriptors_of;
use crate::support::programs::{Program, listener};
use crate::support::waiting::wait_until;

/// One request on a connection of its own.
fn get(address: SocketAddr, body: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    limit_time(&stream);
    stream.write_all(b"GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(body) {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} bytes of {}", answer.len(), body.len()))),
    }
}

/// Sets it when it is dropped.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// EDGE_CASES 418: as processes, under load; their descriptors are as many as before.
#[test]
fn ten_restarts_of_a_web_server_and_no_request_is_cut() {
    let dir = Dir::new();
    let body = pattern(300_000);
    dir.file("file", &body);
    let path = dir.join("take-over");
    let args = |address: &str| {
        let (root, path) = (dir.path().to_str().unwrap(), path.to_str().unwrap());
        ["--root", root, "--take-over", path, "--stats", "127.0.0.1:0", address].map(str::to_owned)
    };
    let (mut server, address) = Program::serve("http_server", args("127.0.0.1:0"));
    // The numbers are taken over, too.
    let numbers = server.line();
    // Each loop has some of its own.
    let most = 20 * std::env::var("DISPATCH_LOOP_TEST_THREADS").map_or(1, |threads| threads.parse().unwrap());
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ask = || {
        let mut failed = Vec::new();
        while !done.load(Ordering::Relaxed) {
            failed.extend(get(address, &body).err());
            asked.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(20));
        }
        failed
    };
    let failed: Vec<io::Error> = thread::scope(|scope| {
        // Also if something here fails: the scope waits for the clients.
        let ends = Sets(&done);
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        let mut descriptors = Vec::new();
        for _ in 0..10 {
            let before = asked.load(Ordering::Relaxed);
            // What it is given counts, and not its address.
            let (successor, taken) = Program::serve("http_server", args("127.0.0.1:0"));
            assert_eq!((taken, successor.line()), (address, numbers.clone()));
            let old = std::mem::replace(&mut server, successor);
            old.end().assert_quiet_success();
            wait_until("clients go on", || asked.load(Ordering::Relaxed) >= before + 10);
            wait_until("the descriptors are few", || open_descriptors_of(server.number()) < most);
            descriptors.push(open_descriptors_of(server.number()));
        }
        drop(ends);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{failed:?}");
    server.finish("TERM");
    assert!(!path.exists());
}

/// EDGE_CASES 424
#[test]
fn a_room_and_a_proxy_are_taken_over_and_the_old_one_ends() {
    let (upstream, to) = listener();
    for (name, threads) in
        [("chat_server", "1"), ("tcp_proxy", "1"), ("chat_server", "3"), ("tcp_proxy", "3")]
    {
        let dir = Dir::new();
        let path = dir.join("take-over");
        let path = path.to_str().unwrap();
        let args = ["--threads", threads, "--take-over", path, "--drain", "1", "127.0.0.1:0"].into_iter();
        let args: Vec<&str> = args.chain((name == "tcp_proxy").then_some(&*to)).collect();
        let (old, address) = Program::serve(name, &args);
        let mut client = connect(&address);
        client.write_all(b"/who\n").unwrap();
        if name == "chat_server" {
            assert_eq!(read_exactly(&mut client, 15), b"* here: guest1\r");
        }
        let (new, taken) = Program::serve(name, &args);
        assert_eq!(taken, address);
        old.end().assert_quiet_success();
        let mut client = connect(&address);
        client.write_all(b"/who\n").unwrap();
        if name == "chat_server" {
            assert_eq!(read_exactly(&mut client, 15), b"* here: guest1\r");
        }
        drop(client);
        new.finish("TERM");
        // A server that stays for itself has no such option.
        Program::start("echo_server", ["--take-over", path]).end().assert_wrong_usage("echo_server");
    }
    drop(upstream);
}
