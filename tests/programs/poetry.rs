//! The examples poetry_server and poetry_client, as their users meet them: each against plain sockets,
//! then both together.

use std::ffi::OsString;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::dirs::Dir;
use crate::support::peers::{accept, connect, loopbacks, read_exactly, read_to_end, reset};
use crate::support::programs::{Ended, Program, command, listener, refuser};
use crate::support::waiting::DEADLINE;

// poetry_server

#[test]
fn each_port_has_its_poem() {
    let short = Poem::new("short", "Ein Gedicht,\nhöchst kurz.\n".as_bytes());
    let binary = Poem::new("binary", b"\xff\0\r\n\xe2\x82");
    let empty = Poem::new("empty", b"");
    let poems = [&short, &binary, &empty];
    let server = serve(3, ["--delay", "0.001", "--num-bytes", "3"], &poems);
    for (address, poem) in listening(&server, 3).iter().zip(poems) {
        assert_eq!(read_to_end(&mut connect(address)), poem.bytes);
    }
    finish(server);
}

#[test]
fn one_poem_is_for_all_ports() {
    let poem = Poem::new("one", b"The same for all.\n");
    let server = serve(4, ["--delay=0.001", "--num-bytes=100"], &[&poem]);
    for address in listening(&server, 4) {
        assert_eq!(read_to_end(&mut connect(&address)), poem.bytes);
    }
    finish(server);
}

#[test]
fn the_poems_inside_are_taken_in_turn() {
    for iface in loopbacks().iter().map(|address| address.ip().to_string()).chain(["localhost".to_owned()]) {
        let server = serve(4, ["--delay=0", "--iface", &iface], &[]);
        let poems: Vec<String> = listening(&server, 4)
            .iter()
            .map(|address| String::from_utf8(read_to_end(&mut connect(address))).unwrap())
            .collect();
        let first_lines: Vec<&str> = poems.iter().filter_map(|poem| poem.lines().next()).collect();
        assert_eq!(first_lines, ["The Tyger", "Ozymandias", "Hope", "The Tyger"]);
        finish(server);
    }
}

/// 100 clients, each of which takes nine ticks alone: one after the other they would take three minutes.
#[test]
fn clients_are_served_side_by_side() {
    let poem = Poem::new("side", &[b'.'; 100]);
    let server = serve(3, ["--delay", "0.2"], &[&poem]);
    let addresses = listening(&server, 3);
    let begin = Instant::now();
    let mut clients: Vec<TcpStream> = addresses.iter().cycle().take(100).map(connect).collect();
    for client in &mut clients {
        assert_eq!(read_exactly(client, 10), [b'.'; 10]);
    }
    for client in &mut clients {
        assert_eq!(read_to_end(client).len(), 90);
    }
    assert!(begin.elapsed() >= Duration::from_millis(9 * 200), "faster than a timer may be");
    assert!(begin.elapsed() < DEADLINE);
    finish(server);
}

/// The first piece comes at once, the next one in an hour.
#[test]
fn a_piece_is_as_large_as_was_asked_for() {
    let poem = Poem::new("pieces", b"0123456789abcdef");
    let server = serve(1, ["--delay", "3600", "--num-bytes", "7"], &[&poem]);
    let mut client = connect(&listening(&server, 1)[0]);
    assert_eq!(read_exactly(&mut client, 7), b"0123456");
    // Told to end, the server ends the connection in order, after what was due.
    server.signal("TERM");
    assert_eq!(read_to_end(&mut client), b"");
    server.end().assert_quiet_success();
}

#[test]
fn a_slow_reader_costs_no_memory_and_holds_up_nobody() {
    let poem = Poem::new("large", &pattern(16 * 1024 * 1024));
    let server = serve(1, ["--delay", "0", "--num-bytes", "1000000000"], &[&poem]);
    let address = listening(&server, 1)[0];
    let mut slow: Vec<TcpStream> = (0..8).map(|_| connect(&address)).collect();
    for client in &mut slow {
        read_exactly(client, 1);
    }
    assert!(read_to_end(&mut connect(&address)) == poem.bytes);
    if cfg!(target_os = "linux") {
        // Twice the poem, while it is read at the start, and what a program needs by itself.
        let peak = server.peak_memory();
        assert!(peak < 48 * 1024, "{peak} KiB");
    }
    assert!(read_to_end(&mut slow[7]) == poem.bytes[1..]);
    // The others would be waited for: the system still holds something for them.
    drop(slow);
    finish(server);
}

#[test]
fn clients_may_talk_half_close_and_go() {
    let poem = Poem::new("rude", &pattern(200));
    let server = serve(1, ["--delay", "0.01"], &[&poem]);
    let address = listening(&server, 1)[0];
    let mut talking = connect(&address);
    let mut half_closed = connect(&address);
    half_closed.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    half_closed.shutdown(Shutdown::Write).unwrap();
    for round in 0..20 {
        let mut client = connect(&address);
        match round % 3 {
            0 => reset(client),
            1 => drop(client),
            _ => client.write_all(&pattern(100_000)).unwrap(),
        }
    }
    talking.write_all(&pattern(100_000)).unwrap();
    assert_eq!(read_to_end(&mut talking), poem.bytes);
    assert_eq!(read_to_end(&mut half_closed), poem.bytes);
    finish(server);
}

#[test]
fn wrong_usage_of_the_server_is_answered_with_the_usage() {
    let wrong: [&[&str]; 12] = [
        &["--num-bytes", "0"],
        &["--num-bytes", "-1"],
        &["--num-bytes", "ten"],
        &["--delay", "-1"],
        &["--delay", "inf"],
        &["--delay", "NaN"],
        &["--delay", "1e300"],
        &["--delay", ""],
        &["--port", "65536"],
        &["one", "two"],
        &["--port=0", "--port=0", "--port=0", "one", "two"],
        &["--port=0", "one", "two"],
    ];
    for args in wrong {
        Program::start("poetry_server", args).end().assert_wrong_usage("poetry_server");
    }
}

#[test]
fn a_server_that_fails_says_why() {
    let ended = Program::start("poetry_server", ["--port=0", "no such poem"]).end();
    ended.assert_failure("no such poem");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ended = Program::start("poetry_server", ["--port", &address.port().to_string()]).end();
    ended.assert_failure(&address.to_string());
    let ended = Program::start("poetry_server", ["--port=0", "--iface", &"x".repeat(300)]).end();
    ended.assert_wrong_usage("poetry_server");
}

// poetry_client

/// Each byte comes in a read of its own, those of `é`, `—` and the latin-1 byte at the end as well.
#[test]
fn bytes_are_kept_as_bytes() {
    let (listener, address) = listener();
    let mut command = command("poetry_client");
    command.arg(&address);
    let (client, mut output) = Program::spawn_raw(command);
    let mut server = accept(&listener);
    let poem = b"\xc3\xa9\xe2\x80\x94\n\xe9";
    let line = format!("Task 1: got 1 bytes of poetry from {address}\n");
    for byte in poem {
        server.write_all(&[*byte]).unwrap();
        assert_eq!(read_exactly(&mut output, line.len()), line.as_bytes());
    }
    drop(server);
    let rest = read_to_end(&mut output);
    let expected = [b"Task 1 finished\n", &poem[..], b"\nTask 1: 7 bytes of poetry\nGot 1 poems in 0:00:0"];
    assert!(rest.starts_with(&expected.concat()), "{}", rest.escape_ascii());
    client.end().assert_quiet_success();
}

/// All are connected before any has answered, and they end in another order than that of the tasks.
#[test]
fn all_are_fetched_at_once() {
    let (listeners, addresses): (Vec<_>, Vec<_>) = (0..3).map(|_| listener()).unzip();
    let client = Program::start("poetry_client", &addresses);
    let servers: Vec<TcpStream> = listeners.iter().map(accept).collect();
    for (index, mut server) in servers.into_iter().enumerate().rev() {
        let (task, address) = (index + 1, &addresses[index]);
        server.write_all(format!("poem {task}\n").as_bytes()).unwrap();
        assert_eq!(client.line(), format!("Task {task}: got 7 bytes of poetry from {address}"));
        drop(server);
        assert_eq!(client.line(), format!("Task {task} finished"));
    }
    let ended = client.end();
    ended.assert_quiet_success();
    let lines = lines_before_the_time(&ended, 3);
    let (one, two) = (["poem 1", "Task 1: 7 bytes of poetry"], ["poem 2", "Task 2: 7 bytes of poetry"]);
    assert_eq!(lines, [one, two, ["poem 3", "Task 3: 7 bytes of poetry"]].concat());
}

#[test]
fn servers_are_named_by_port_or_address() {
    for address in loopbacks() {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let mut names = vec![address.to_string()];
        if address.is_ipv4() {
            names.extend([address.port().to_string(), format!("localhost:{}", address.port())]);
        }
        let client = Program::start("poetry_client", &names);
        for _ in &names {
            drop(accept(&listener));
        }
        let ended = client.end();
        ended.assert_quiet_success();
        assert!(ended.stdout.contains(&format!("Got {} poems in 0:00:0", names.len())), "{ended:?}");
    }
}

#[test]
fn one_failing_server_is_no_reason_not_to_ask_the_others() {
    let (_held, refusing) = refuser();
    let (resetting, reset_address) = listener();
    let (good, good_address) = listener();
    let args = [&refusing, &reset_address, &good_address];
    let client =
        Program::start("poetry_client", ["--log", "off"].into_iter().chain(args.map(String::as_str)));
    let mut half = accept(&resetting);
    half.write_all(b"half a po").unwrap();
    assert_eq!(client.line(), format!("Task 2: got 9 bytes of poetry from {reset_address}"));
    reset(half);
    accept(&good).write_all(b"good\n").unwrap();
    let ended = client.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let mut errors: Vec<&str> = ended.stderr.lines().collect();
    errors.sort_unstable();
    assert_eq!(errors.len(), 2, "{ended:?}");
    for (error, (task, about)) in errors.iter().zip([(1, &refusing), (2, &reset_address)]) {
        assert!(error.starts_with(&format!("Task {task}: error: ")) && error.contains(about), "{ended:?}");
    }
    let got = format!("Task 3: got 5 bytes of poetry from {good_address}");
    let expected = [&got, "Task 3 finished", "good", "Task 3: 5 bytes of poetry"];
    assert_eq!(lines_before_the_time(&ended, 1), expected);
}

/// 115: a poem that does not end is no poem.
#[test]
fn an_endless_poem_is_a_failure_in_bounded_memory() {
    let (listener, address) = listener();
    let client = Program::start("poetry_client", [&address]);
    let mut server = accept(&listener);
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while server.write_all(&piece).is_ok() {
        sent += piece.len();
        assert!(sent < 256 * 1024 * 1024, "it takes everything");
    }
    let ended = client.end();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("Task 1: error: ") && ended.stderr.contains("16 MiB"), "{}", ended.stderr);
}

/// 115: a server that says nothing; a request that comes too slowly. It takes a minute:
/// `cargo test --test programs -- --ignored`.
#[cfg(feature = "layers")]
#[ignore = "takes a minute"]
#[test]
fn patience_ends() {
    let (listener, address) = listener();
    let client = Program::start("poetry_client", [&address]);
    let _silent = accept(&listener);
    let (server, address) = Program::serve("app_server", ["--log", "error", "127.0.0.1:0"]);
    let mut slow = connect(&address);
    slow.write_all(b"\xff\xff").unwrap();
    let begin = Instant::now();
    while slow.write_all(b" ").is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(70), "it waits for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = client.end();
    assert!(ended.code == Some(1) && ended.stderr.contains("timed out"), "{ended:?}");
    assert_eq!(server.end_by("TERM").code, Some(0));
}

#[test]
fn an_interrupted_client_prints_what_it_has() {
    for signal in ["INT", "TERM"] {
        let (done, done_address) = listener();
        let (slow, slow_address) = listener();
        let client = Program::start("poetry_client", [&done_address, &slow_address]);
        accept(&done).write_all(b"whole\n").unwrap();
        assert_eq!(client.line(), format!("Task 1: got 6 bytes of poetry from {done_address}"));
        assert_eq!(client.line(), "Task 1 finished");
        let mut server = accept(&slow);
        server.write_all(b"half").unwrap();
        assert_eq!(client.line(), format!("Task 2: got 4 bytes of poetry from {slow_address}"));
        let ended = client.end_by(signal);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.starts_with("Task 2: error: ") && ended.stderr.contains(&slow_address),
            "{ended:?}"
        );
        assert_eq!(lines_before_the_time(&ended, 1), ["whole", "Task 1: 6 bytes of poetry"]);
    }
}

// Both.

#[test]
fn server_and_client_understand_each_other() {
    let poem = Poem::new("together", &pattern(300));
    let server = serve(3, ["--delay", "0.01"], &[&poem]);
    let ports: Vec<String> = listening(&server, 3).iter().map(|address| address.port().to_string()).collect();
    let mut command = command("poetry_client");
    command.args(&ports);
    let (client, mut output) = Program::spawn_raw(command);
    let output = read_to_end(&mut output);
    client.end().assert_quiet_success();
    for task in 1..=3 {
        let whole = [&poem.bytes[..], format!("\nTask {task}: 300 bytes of poetry\n").as_bytes()].concat();
        assert!(output.windows(whole.len()).any(|window| window == whole), "{}", output.escape_ascii());
    }
    finish(server);
}

// What the tests are made of.

/// A file with a poem, for as long as this lives.
struct Poem {
    path: PathBuf,
    bytes: Vec<u8>,
    _dir: Dir,
}

impl Poem {
    fn new(name: &str, bytes: &[u8]) -> Poem {
        let dir = Dir::new();
        Poem { path: dir.file(name, bytes), bytes: bytes.into(), _dir: dir }
    }
}

/// Without a newline at its end.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| b'a' + (at % 23) as u8).collect()
}

/// A poetry_server on free ports.
fn serve<const N: usize>(ports: usize, options: [&str; N], poems: &[&Poem]) -> Program {
    let ports = std::iter::repeat_n(OsString::from("--port=0"), ports);
    let options = options.into_iter().map(OsString::from);
    let poems = poems.iter().map(|poem| poem.path.clone().into());
    Program::start("poetry_server", ports.chain(options).chain(poems))
}

#[track_caller]
fn listening(server: &Program, ports: usize) -> Vec<SocketAddr> {
    (0..ports).map(|_| server.listening()).collect()
}

#[track_caller]
fn finish(server: Program) {
    server.finish("INT");
}

/// What a poetry_client printed before the time that it took, which must count `poems`.
#[track_caller]
fn lines_before_the_time(ended: &Ended, poems: usize) -> Vec<&str> {
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    let last = lines.pop().unwrap_or_default();
    let time = last.strip_prefix(&format!("Got {poems} poems in 0:00:")).expect(last);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let well_formed = time.split_once('.').is_some_and(|(seconds, tenths)| {
        seconds.len() == 2 && tenths.len() == 1 && digits(seconds) && digits(tenths)
    });
    assert!(well_formed, "{last}");
    lines
}
