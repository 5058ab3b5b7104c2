//! `resp_server` as a process, with raw sockets and with `redis-cli`.

mod support;

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use support::{Server, has, until};

fn start() -> Server {
    Server::start(env!("CARGO_BIN_EXE_resp_server"), &[])
}

/// What is answered to all of `input`, up to the end.
fn played(server: &Server, input: &[u8]) -> String {
    let mut stream = server.connect();
    stream.write_all(input).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// The same, of the words of each line, which are sent as arrays, and then `QUIT`.
fn asked(server: &Server, commands: &str) -> Vec<String> {
    let mut input = Vec::new();
    for command in commands.lines().chain(["quit"]) {
        let words: Vec<&str> = command.split_whitespace().collect();
        write!(input, "*{}\r\n", words.len()).unwrap();
        words.iter().for_each(|word| write!(input, "${}\r\n{word}\r\n", word.len()).unwrap());
    }
    let text = played(server, &input);
    text.strip_suffix("+OK\r\n").expect(&text).lines().map(str::to_owned).collect()
}

#[test]
fn every_command_is_answered_as_redis_does_also_when_pipelined() {
    let server = start();
    let got = asked(
        &server,
        "PING\nPING hi\nECHO you\nSET a 1\nGET a\nGET b\nINCR a\nDECR a\nDECR new\nEXISTS a b a",
    );
    let wanted = "+PONG $2 hi $3 you +OK $1 1 $-1 :2 :1 :-1 :2";
    assert_eq!(got, wanted.split(' ').collect::<Vec<_>>());
    let got = asked(
        &server,
        "MSET c 3 d 4\nMGET c x d\nDEL c d x\nSET a 2 NX\nSET x 2 XX\nSET x 2 NX\nSET x 3 XX\nGET x",
    );
    assert_eq!(got, "+OK *3 $1 3 $-1 $1 4 :2 $-1 $-1 +OK +OK $1 3".split(' ').collect::<Vec<_>>());
    let got = asked(
        &server,
        "TTL none\nTTL a\nEXPIRE a 100\nTTL a\nEXPIRE a 50\nTTL a\nINCR a\nTTL a\nSET a 1\nTTL a",
    );
    assert_eq!(got, ":-2 :-1 :1 :100 :1 :50 :2 :50 +OK :-1".split(' ').collect::<Vec<_>>());
    let got = asked(
        &server,
        "EXPIRE none 5\nEXPIRE a 0\nGET a\nSET t 1 EX 100\nTTL t\nPUBLISH nobody x\nCOMMAND COUNT",
    );
    assert_eq!(got, ":0 :1 $-1 +OK :100 :0 :18".split(' ').collect::<Vec<_>>());
    for wrong in
        ["SET t 1 EX 0", "SET t 1 EX x", "SET t 1 NX XX", "SET t", "GET", "MSET a", "NONE", "EXPIRE t x"]
    {
        let got = asked(&server, wrong);
        assert!(got.len() == 1 && got[0].starts_with("-ERR "), "{wrong}: {got:?}");
    }
    assert!(asked(&server, "SET s text\nINCR s")[1].starts_with("-ERR value is not an integer"));
    assert!(asked(&server, "SET s 9223372036854775807\nINCR s")[1].starts_with("-ERR increment"));
    assert!(asked(&server, "INFO").iter().any(|line| line == "db0:keys=4"), "new, s, t, x");
    server.finish();
}

#[test]
fn a_key_expires_by_its_timer_and_its_memory_is_given_back() {
    let server = start();
    assert_eq!(asked(&server, "SET a 1 PX 30\nSET b 1 EX 1000"), ["+OK", "+OK"]);
    until("the key to expire", || asked(&server, "EXISTS a b") == [":1"]);
    assert!(asked(&server, "INFO").iter().any(|line| line == "used_memory:258"));
    // A timer of 1,000 seconds does not keep the server.
    server.finish();
}

#[test]
fn lines_are_requests_too_and_pieces_of_any_size_make_one() {
    let server = start();
    assert_eq!(
        played(&server, b"SET a  hello\r\n\r\n*0\r\nget a\nQUIT\r\nGET a\r\n"),
        "+OK\r\n$5\r\nhello\r\n+OK\r\n"
    );
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$4\r\n\r\n\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\nb\r\nQUIT\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "+OK\r\n$4\r\n\r\n\r\n\r\n+OK\r\n");
    server.finish();
}

#[test]
fn what_is_no_request_ends_the_connection_with_the_reason() {
    let server = start();
    let long = vec![b'x'; 70_000];
    let deep = b"*1\r\n".repeat(1000);
    for (input, why) in [
        (&b"*1\r\n$9999999999\r\n"[..], "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*9999999999999\r\n", "invalid multibulk length"),
        (b"*99999999999999999999999999", "invalid length"),
        (b"*1\r\n$1\r\nabc\r\n", "a string is longer than announced"),
        (b"*x\r\n", "invalid length"),
        (&deep, "expected '$', got '*'"),
        (&long, "too big inline request"),
    ] {
        let text = played(&server, &[b"PING\r\n", input].concat());
        assert_eq!(
            text,
            format!("+PONG\r\n-ERR Protocol error: {why}\r\n"),
            "{}",
            input[..10].escape_ascii()
        );
    }
    // Two strings that are as long as one may be are too long together.
    let mut stream = server.connect();
    stream.write_all(b"*2\r\n$8000000\r\n").unwrap();
    stream.write_all(&vec![b'x'; 8_000_000]).unwrap();
    stream.write_all(b"\r\n$8000000\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("-ERR Protocol error: "), "{text}");
    // What was only announced takes no memory.
    let idle: Vec<_> = (0..100).map(|_| server.connect()).collect();
    idle.iter().for_each(|mut stream| stream.write_all(b"*1\r\n$8000000\r\nx").unwrap());
    assert_eq!(asked(&server, "PING"), ["+PONG"]);
    assert!(server.memory() < 200_000, "{} KiB", server.memory());
    server.finish();
}

/// A string of 4 MB, asked for again and again, and never read.
#[test]
fn who_does_not_read_is_not_read_from() {
    let server = start();
    let mut stream = server.connect();
    let value = "x".repeat(4_000_000);
    write!(stream, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4000000\r\n{value}\r\n").unwrap();
    stream.write_all(&b"GET a\r\n".repeat(300)).unwrap();
    until("the value to be there", || asked(&server, "EXISTS a") == [":1"]);
    assert!(server.memory() < 100_000, "{} KiB", server.memory());
    // All of it is there for who begins to read.
    stream.write_all(b"QUIT\r\n").unwrap();
    let read = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    assert_eq!(read, 5 + 300 * (4_000_000 + 12) + 5);
    let mget = format!("MGET{}", " a".repeat(1000));
    assert_eq!(asked(&server, &mget), ["-ERR the answer would be too large"]);
    server.finish();
}

#[test]
fn a_subscriber_gets_all_and_one_that_never_reads_is_cut_off_and_harms_nobody() {
    let server = start();
    let (mut reads, mut never) = (server.connect(), server.connect());
    let confirmed = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    for stream in [&mut reads, &mut never] {
        stream.write_all(b"SUBSCRIBE news\r\n").unwrap();
        let mut got = vec![0; confirmed.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, confirmed);
    }
    let mut publisher = server.connect();
    let text = "x".repeat(1_000_000);
    let wanted = format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1000000\r\n{text}\r\n");
    let mut cut_off = false;
    for _ in 0..100 {
        write!(publisher, "*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$1000000\r\n{text}\r\n").unwrap();
        let mut got = vec![0; wanted.len()];
        reads.read_exact(&mut got).unwrap();
        assert!(got == wanted.as_bytes());
        let mut answer = [0; 4];
        publisher.read_exact(&mut answer).unwrap();
        cut_off |= answer == *b":1\r\n";
    }
    assert!(cut_off);
    assert!(server.memory() < 150_000, "{} KiB", server.memory());
    reads.write_all(b"GET a\r\nPING\r\nUNSUBSCRIBE\r\nUNSUBSCRIBE\r\nPING\r\nQUIT\r\n").unwrap();
    let mut text = String::new();
    reads.read_to_string(&mut text).unwrap();
    let wanted = "*2\r\n$4\r\npong\r\n$0\r\n\r\n*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n\
        *3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n+PONG\r\n+OK\r\n";
    assert!(text.starts_with("-ERR ") && text.ends_with(wanted), "{text}");
    assert_eq!(asked(&server, "PUBLISH news x"), [":0"]);
    server.finish();
}

#[test]
fn redis_cli_and_redis_benchmark_speak_with_it() {
    if !has("redis-cli") || !has("redis-benchmark") {
        return;
    }
    let server = start();
    let port = server.port();
    let cli = |args: &[&str]| {
        let output = Command::new("redis-cli").args(["-p", &port]).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(cli(&["set", "k", "two words", "ex", "100"]), "OK\n");
    assert_eq!(cli(&["get", "k"]), "two words\n");
    assert_eq!(cli(&["mget", "k", "none"]), "two words\n\n");
    assert_eq!(cli(&["-r", "3", "-i", "0", "incr", "n"]), "1\n2\n3\n");
    let mut benchmark = Command::new("redis-benchmark");
    benchmark.args(["-p", &port, "-q", "-n", "2000", "-P", "16", "-t", "ping,set,get,incr,mset"]);
    let output = benchmark.output().unwrap();
    assert!(output.status.success() && output.stdout.windows(4).any(|part| part == b"MSET"));
    server.finish();
}

#[test]
fn a_half_open_client_ends_and_wrong_usage_is_told() {
    let server =
        Server::start(env!("CARGO_BIN_EXE_resp_server"), &["--idle", "0.2", "--max-connections", "10"]);
    let mut stream = server.connect();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "it is closed");
    server.finish();
    support::wrong_usage(env!("CARGO_BIN_EXE_resp_server"), &[&["nowhere"], &["--what"], &["--idle"]]);
}
