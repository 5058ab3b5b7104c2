//! The example chat_server, as its users meet it: with clients that talk, some too much, and one that
//! does not listen.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::support::peers::{connect, read_to_end, reset};
use crate::support::programs::{Program, assert_help};

const LONGEST: usize = 8 * 1024;

// What is said.

#[test]
fn lines_go_to_everyone_else() {
    let (server, address) = serve();
    let mut clients = join(&address, 3);
    for (said, heard) in [
        ("hello", "hello"),
        ("hello\r", "hello"),
        ("", ""),
        ("\r", ""),
        ("\r\r", "\r"),
        ("a\rb", "a\rb"),
        (" /who", " /who"),
        ("guest3: not me", "guest3: not me"),
        ("tab\tand \u{1f436}", "tab\tand \u{1f436}"),
    ] {
        clients[1].say(format!("{said}\n"));
        for other in [0, 2] {
            assert_eq!(clients[other].line(), format!("guest2: {heard}"));
        }
    }
    clients[2].say(b"\xff\xfe\0 bytes\n");
    for other in [0, 1] {
        assert_eq!(clients[other].bytes(), b"guest3: \xff\xfe\0 bytes\r\n", "and nothing of its own");
    }
    finish(server);
}

#[test]
fn lines_may_come_in_whatever_pieces() {
    let (server, address) = serve();
    let mut clients = join(&address, 2);
    for byte in b"one\r\n/name x\ntwo\n" {
        clients[0].say([*byte]);
    }
    for heard in ["guest1: one", "* guest1 is now x", "x: two"] {
        assert_eq!(clients[1].line(), heard);
    }
    clients[0].say("three\r\n/name y\nfour\n/who\n");
    for heard in ["x: three", "* x is now y", "y: four"] {
        assert_eq!(clients[1].line(), heard);
    }
    assert_eq!(clients[0].line(), "* here: y, guest2");
    finish(server);
}

#[test]
fn a_last_line_without_newline_passes() {
    let (server, address) = serve();
    let mut clients = join(&address, 3);
    for (said, heard) in [("and bye", "guest3: and bye"), ("whole\n", "guest2: whole")] {
        let mut last = clients.pop().unwrap();
        last.say(said);
        last.half_close();
        for other in &mut clients {
            assert_eq!(other.line(), heard);
            assert!(other.line().ends_with(" left"));
        }
        assert_eq!(last.rest(), "");
    }
    // A command is one, too.
    clients[0].say("/who");
    clients[0].half_close();
    assert_eq!(clients[0].rest(), "* here: guest1\r\n");
    finish(server);
}

// Who is there.

#[test]
fn newcomers_are_guests() {
    let (server, address) = serve();
    let mut clients = join(&address, 2);
    // The next number whose name is free.
    clients[0].say("/name guest4\n");
    assert_eq!(clients[1].line(), "* guest1 is now guest4");
    for name in ["guest3", "guest5"] {
        let mut client = Client::new(&address);
        for other in &mut clients {
            assert_eq!(other.line(), format!("* {name} joined"));
        }
        client.say("/who\n");
        assert!(client.line().ends_with(&format!(", {name}")));
        clients.push(client);
    }
    clients[3].say("/who\n");
    assert_eq!(clients[3].line(), "* here: guest4, guest2, guest3, guest5");
    finish(server);
}

#[test]
fn names_are_changed_and_bad_ones_refused() {
    let (server, address) = serve();
    let mut clients = join(&address, 2);
    let (long, too_long) = ("x".repeat(32), "x".repeat(33));
    let bad = [
        "",
        " ",
        " x",
        "x ",
        "two words",
        "ring!",
        "caf\u{e9}",
        "a:b",
        "x\r\r",
        "\u{ff}",
        "guest2",
        "guest1",
    ];
    for name in bad.into_iter().chain([too_long.as_str()]) {
        clients[0].say(format!("/name {name}\n"));
        assert_eq!(clients[0].line(), "* bad name", "{name:?}");
    }
    clients[0].say(b"/name\n/name \xff\n");
    for _ in 0..2 {
        assert_eq!(clients[0].line(), "* bad name");
    }
    let mut old = "guest1";
    for new in ["a", "A", "0", "_-_", "guest1", "Guest2", &long] {
        clients[0].say(format!("/name {new}\r\nhello\n"));
        assert_eq!(clients[1].line(), format!("* {old} is now {new}"));
        assert_eq!(clients[1].line(), format!("{new}: hello"));
        old = new;
    }
    // What it was called is free again.
    clients[1].say("/name guest1\n");
    assert_eq!(clients[0].line(), "* guest2 is now guest1");
    finish(server);
}

#[test]
fn commands_are_answered_and_heard_by_nobody_else() {
    let (server, address) = serve();
    let mut clients = join(&address, 2);
    for unknown in ["/", "/nonsense", "/WHO", "/who is here", "/names", "/quit now", "//"] {
        clients[0].say(format!("{unknown}\n"));
        assert_eq!(clients[0].line(), "* unknown command", "{unknown}");
    }
    clients[0].say("/who\r\nheard\n");
    assert_eq!(clients[0].line(), "* here: guest1, guest2");
    assert_eq!(clients[1].line(), "guest1: heard", "and none of the commands");
    finish(server);
}

#[test]
fn everybody_hears_who_leaves() {
    let (server, address) = serve();
    let mut clients = join(&address, 4);
    let hear = |clients: &mut [Client], name| {
        clients.iter_mut().for_each(|client| assert_eq!(client.line(), format!("* {name} left")));
    };
    let mut quits = clients.pop().unwrap();
    quits.say("/quit\nnever said\n");
    assert_eq!(quits.rest(), "");
    hear(&mut clients, "guest4");
    drop(clients.pop());
    hear(&mut clients, "guest3");
    reset(clients.pop().unwrap().into_stream());
    hear(&mut clients, "guest2");
    clients[0].say("/who\n");
    assert_eq!(clients[0].line(), "* here: guest1");
    finish(server);
}

// Too much.

#[test]
fn overlong_lines_are_refused_and_the_next_one_passes() {
    let (server, address) = serve();
    let mut clients = join(&address, 2);
    for end in ["\n", "\r\n"] {
        for (length, passes) in
            [(LONGEST, true), (LONGEST + 1, false), (LONGEST + 2, false), (1 << 20, false)]
        {
            let line = "x".repeat(length);
            clients[0].say(format!("{line}{end}after\n"));
            if passes {
                assert!(clients[1].line() == format!("guest1: {line}"));
            } else {
                assert_eq!(clients[0].line(), "* line too long", "{length} bytes and {end:?}");
            }
            assert_eq!(clients[1].line(), "guest1: after");
        }
    }
    // Nor is a last one.
    for (length, passes) in [(LONGEST, true), (LONGEST + 1, false), (LONGEST + 2, false)] {
        let mut client = Client::new(&address);
        clients.iter_mut().for_each(|other| assert!(other.line().ends_with("joined")));
        client.say("x".repeat(length));
        client.half_close();
        assert_eq!(client.rest(), if passes { "" } else { "* line too long\r\n" });
        for other in &mut clients {
            assert_eq!(other.line().len(), if passes { LONGEST + 8 } else { "* guest4 left".len() });
            assert!(!passes || other.line().ends_with("left"));
        }
    }
    finish(server);
}

/// Two hundred listen, one does not. One talks until that one is cut off: the others miss nothing.
#[test]
fn who_never_reads_harms_nobody() {
    let server = Program::start_with_descriptors("chat_server", ["127.0.0.1:0"]);
    let address = server.listening();
    let mut speaker = Client::new(&address);
    speaker.say("/who\n");
    assert_eq!(speaker.line(), "* here: guest1");
    let deaf = connect(&address);
    assert_eq!(speaker.line(), "* guest2 joined");
    let mut others: Vec<Client> = (0..200).map(|_| Client::new(&address)).collect();
    for _ in &others {
        assert!(speaker.line().ends_with("joined"));
    }
    let mut told = vec![false; others.len()];
    let mut said = 0;
    while !told[0] {
        // Its kernel and ours hold some MiB, the server one.
        assert!(said < 12 << 20, "it was not cut off");
        let lines: Vec<String> = (said..).step_by(4096).take(8).map(|at| format!("{at:0>4096}")).collect();
        said += lines.len() * 4096;
        speaker.say(lines.join("\n") + "\n");
        for (other, told) in others.iter_mut().zip(&mut told) {
            for line in &lines {
                assert!(other.talk(told).strip_prefix("guest1: ") == Some(line));
            }
        }
    }
    // Before some it stands earlier among the lines than before others, but it does before all.
    speaker.say("the end\n");
    for (other, told) in others.iter_mut().zip(&mut told) {
        assert_eq!(other.talk(told), "guest1: the end");
        assert!(*told);
    }
    assert_eq!(speaker.line(), "* guest2 left");
    drop(deaf);
    finish(server);
}

/// Short lines are long ones for the others, and one sends them as fast as it can.
#[test]
fn who_reads_misses_nothing_of_a_flood() {
    const LINES: usize = 60_000;
    let (server, address) = serve();
    let mut clients = join(&address, 3);
    let name = "n".repeat(32);
    let mut flood = format!("/name {name}\n");
    flood.extend((0..LINES).map(|number| format!("{number}\n")));
    let mut speaker = clients.remove(0).into_stream();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            speaker.write_all(flood.as_bytes()).unwrap();
            speaker.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&mut speaker), b"");
        });
        for mut client in clients {
            let name = &name;
            scope.spawn(move || {
                assert_eq!(client.line(), format!("* guest1 is now {name}"));
                for number in 0..LINES {
                    assert_eq!(client.line(), format!("{name}: {number}"));
                }
                assert_eq!(client.line(), format!("* {name} left"));
            });
        }
    });
    finish(server);
}

/// Nor is anything said to one who asks and asks and does not listen to the answers.
#[test]
fn who_does_not_read_its_answers_is_cut_off() {
    let (server, address) = serve();
    let mut clients = join(&address, 2);
    let mut asks = clients.pop().unwrap().into_stream();
    let questions = "/who\n".repeat(10_000);
    let asked = (0..1000).find(|_| asks.write_all(questions.as_bytes()).is_err());
    assert!(asked.is_some(), "it was not cut off");
    assert_eq!(clients[0].line(), "* guest2 left");
    finish(server);
}

// Programs.

#[test]
fn wrong_usage_is_answered_with_the_usage() {
    assert_help("chat_server");
    assert!(Program::start("chat_server", ["--help"]).end().stdout.contains("1 MiB"));
    for wrong in [&["--bogus"][..], &["127.0.0.1"], &["127.0.0.1:1", "127.0.0.1:2"], &["--log", "loud"]] {
        Program::start("chat_server", wrong).end().assert_wrong_usage("chat_server");
    }
    let (server, address) = serve();
    let taken = address.to_string();
    Program::start("chat_server", [&taken]).end().assert_failure(&taken);
    finish(server);
}

/// What was said before the end is heard, and that somebody has left is not said of everybody.
#[test]
fn a_server_that_ends_lets_the_last_words_be_heard() {
    let (server, address) = serve();
    let mut clients = join(&address, 2);
    clients[0].say("last words\n/who\n");
    assert_eq!(clients[0].line(), "* here: guest1, guest2");
    finish(server);
    assert_eq!(clients[0].rest(), "");
    assert_eq!(clients[1].rest(), "guest1: last words\r\n");
}

// What the tests are made of.

fn serve() -> (Program, SocketAddr) {
    Program::serve("chat_server", ["127.0.0.1:0"])
}

#[track_caller]
fn finish(server: Program) {
    assert_eq!(server.finish("TERM"), "");
}

struct Client(BufReader<TcpStream>);

/// The first so many, who know of each other: guest1 and so on.
#[track_caller]
fn join(address: &SocketAddr, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = Vec::new();
    for number in 1..=count {
        let mut client = Client::new(address);
        client.say("/who\n");
        let names: Vec<String> = (1..=number).map(|number| format!("guest{number}")).collect();
        assert_eq!(client.line(), format!("* here: {}", names.join(", ")));
        for other in &mut clients {
            assert_eq!(other.line(), format!("* guest{number} joined"));
        }
        clients.push(client);
    }
    clients
}

impl Client {
    #[track_caller]
    fn new(address: &SocketAddr) -> Client {
        Client(BufReader::new(connect(address)))
    }

    #[track_caller]
    fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    #[track_caller]
    fn bytes(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        line
    }

    /// The next line, which ends in `\r\n`.
    #[track_caller]
    fn line(&mut self) -> String {
        let line = String::from_utf8(self.bytes()).unwrap();
        line.strip_suffix("\r\n").expect(&line).to_owned()
    }

    /// The next line that somebody said; whether guest2 has left before it is noted.
    #[track_caller]
    fn talk(&mut self, left: &mut bool) -> String {
        loop {
            match self.line() {
                line if line == "* guest2 left" => assert!(!std::mem::replace(left, true)),
                line if line.ends_with("joined") => {}
                line => return line,
            }
        }
    }

    /// All that still comes.
    #[track_caller]
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).unwrap();
        rest
    }

    fn half_close(&mut self) {
        self.0.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    fn into_stream(self) -> TcpStream {
        self.0.into_inner()
    }
}
