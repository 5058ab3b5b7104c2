//! `monitor --once`, as a process, beside a server of the library's.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use dispatch_loop::stats::Stats;
use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, LoopOptions, Remote, Socket, run_with};

struct Echo;

impl Dispatcher for Echo {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Echo).map(drop)
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}

/// A server on a thread of its own: where it listens, where its statistics are, and how it is stopped.
fn serve() -> (String, String, Remote) {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut map = ChannelMap::new().unwrap();
        let server = map.listen("127.0.0.1:0", Echo).unwrap();
        let stats = Stats::new().listen(&mut map, "127.0.0.1:0").unwrap();
        let server = map.channel(server).unwrap().local_addr().unwrap().to_string();
        let stats = map.channel(stats).unwrap().local_addr().unwrap().to_string();
        tell.send((server, stats, map.remote())).unwrap();
        run_with(&mut map, &LoopOptions::default().with_until_stopped(true)).unwrap();
    });
    told.recv().unwrap()
}

fn monitor(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_monitor")).args(args).output().unwrap()
}

#[test]
fn it_prints_what_servers_do_and_which_channels_they_have() {
    let (server, stats, remote) = serve();
    let mut client = TcpStream::connect(&server).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    let output = monitor(&["--once", "--interval", "0.2", &stats]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let peer = client.local_addr().unwrap().to_string();
    let row = text.lines().find(|line| line.contains(&peer)).expect(&text);
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((cells[1], cells[2]), ("open", peer.as_str()));
    assert_eq!(cells[cells.len() - 3..], ["5", "5", "0"]);
    let server = text.lines().find(|line| line.starts_with(&stats)).expect(&text);
    // The client, and whoever asks.
    let open: u32 = server.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(open >= 2, "{text}");
    assert!(text.contains("no hook was slow"), "{text}");
    remote.stop();
}

#[test]
fn a_server_that_does_not_answer_is_a_failure_that_names_it() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = monitor(&["--once", "--interval", "0.1", &nobody]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.starts_with(&format!("error: {nobody}: ")) && error.contains("refused"), "{error}");
}

#[test]
fn wrong_usage_is_told() {
    for args in
        [&[][..], &["--once"], &["nowhere"], &["--interval", "0", "127.0.0.1:1"], &["--interval", "x"]]
    {
        let output = monitor(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("error: ") && error.contains("usage: monitor"), "{args:?}: {error}");
    }
    let help = monitor(&["--help"]);
    assert!(help.status.success() && help.stdout.starts_with(b"usage: monitor "));
}
