//! `ftp_server` as a process, with raw sockets, and with `curl`, Python's `ftplib` and `lftp`.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use support::{Folder, Server, connect, has, until};

fn start(root: &Path, more: &[&str]) -> Server {
    let args = [&["--root", root.to_str().unwrap()], more].concat();
    Server::start(env!("CARGO_BIN_EXE_ftp_server"), &args)
}

/// A folder to serve, in one whose other content is secret.
fn site(name: &str) -> (Folder, std::path::PathBuf) {
    let around = Folder::new(name);
    let root = around.0.join("root");
    fs::create_dir_all(root.join("sub/deeper")).unwrap();
    fs::write(around.0.join("secret"), "secret").unwrap();
    fs::write(root.join("hello.txt"), "hello, world\n").unwrap();
    fs::write(root.join("sub/big"), big()).unwrap();
    symlink("../secret", root.join("link")).unwrap();
    symlink("..", root.join("up")).unwrap();
    (around, root)
}

fn big() -> Vec<u8> {
    (0..3_000_000_u32).map(|number| (number / 251) as u8).collect()
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn new(server: &Server) -> Client {
        let mut client = Client { stream: BufReader::new(server.connect()) };
        assert!(client.answer().starts_with("220 "));
        client
    }

    fn anonymous(server: &Server) -> Client {
        let mut client = Client::new(server);
        client.asks("USER anonymous", "331");
        client.asks("PASS me@here", "230");
        client
    }

    fn answer(&mut self) -> String {
        let mut text = String::new();
        loop {
            let begin = text.len();
            assert!(self.stream.read_line(&mut text).unwrap() > 0, "it has ended: {text}");
            if text.as_bytes().get(begin + 3) == Some(&b' ') && text.as_bytes()[begin].is_ascii_digit() {
                return text;
            }
        }
    }

    fn says(&mut self, line: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(&[line.as_ref(), b"\r\n"].concat()).unwrap();
    }

    fn asks(&mut self, line: impl AsRef<[u8]>, wanted: &str) -> String {
        self.says(&line);
        let answer = self.answer();
        assert!(answer.starts_with(wanted), "{}: {answer}", line.as_ref().escape_ascii());
        answer
    }

    fn passive(&mut self) -> TcpStream {
        let answer = self.asks("PASV", "227");
        let inside = answer.split(['(', ')']).nth(1).unwrap();
        let numbers: Vec<u16> = inside.split(',').map(|number| number.parse().unwrap()).collect();
        connect(&format!("127.0.0.1:{}", numbers[4] * 256 + numbers[5]))
    }

    fn extended(&mut self) -> TcpStream {
        let answer = self.asks("EPSV", "229");
        connect(&format!("127.0.0.1:{}", answer.split('|').nth(3).unwrap()))
    }

    fn gets(&mut self, command: &str) -> Vec<u8> {
        let mut data = self.extended();
        self.asks(command, "150");
        let mut got = Vec::new();
        data.read_to_end(&mut got).unwrap();
        drop(data);
        let answer = self.answer();
        assert!(answer.starts_with("226"), "{answer}");
        got
    }

    fn puts(&mut self, command: &str, content: &[u8]) -> String {
        let mut data = self.passive();
        self.asks(command, "150");
        data.write_all(content).unwrap();
        drop(data);
        self.answer()
    }
}

#[test]
fn files_are_read_whole_and_in_part() {
    let (_around, root) = site("read");
    let server = start(&root, &[]);
    let mut client = Client::anonymous(&server);
    client.asks("SYST", "215");
    assert!(client.asks("FEAT", "211").contains(" REST STREAM\r\n"));
    client.asks("TYPE I", "200");
    client.asks("SIZE sub/big", "213 3000000");
    client.asks("SIZE sub", "550");
    assert_eq!(client.asks("MDTM hello.txt", "213 2").len(), "213 YYYYMMDDhhmmss\r\n".len());
    assert!(client.gets("RETR sub/big") == big());
    assert_eq!(client.asks("PWD", "257"), "257 \"/\" is where you are\r\n");
    client.asks("CWD sub", "250");
    client.asks("PWD", "257 \"/sub\"");
    client.asks("CWD nowhere", "550");
    client.asks("REST 2999990", "350");
    assert_eq!(client.gets("RETR /sub/big"), big()[2_999_990..]);
    client.asks("CDUP", "250");
    assert_eq!(client.gets("RETR hello.txt"), b"hello, world\n");
    assert_eq!(client.gets("NLST"), b"hello.txt\r\nsub\r\n");
    let list = String::from_utf8(client.gets("LIST -a")).unwrap();
    assert!(list.contains("-rw-r--r-- 1 ftp ftp           13 ") && list.contains("drwxr-xr-x"), "{list}");
    let facts = String::from_utf8(client.gets("MLSD sub")).unwrap();
    assert!(facts.contains("type=file;size=3000000;modify=2") && facts.contains(" deeper\r\n"), "{facts}");
    assert!(client.asks("MLST hello.txt", "250").contains("\r\n type=file;size=13;modify="));
    client.asks("PORT 127,0,0,1,1,1", "502");
    client.asks("EPSV 2", "522");
    client.asks("RETR hello.txt", "425");
    client.asks("STOR new", "550");
    client.asks("DELE hello.txt", "550");
    client.asks("NOOP", "200");
    client.asks("QUIT", "221");
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
    server.finish();
}

#[test]
fn there_is_no_way_out_of_the_folder() {
    let (around, root) = site("out");
    let server = start(&root, &["--write"]);
    let mut client = Client::anonymous(&server);
    client.asks("CWD ../../..", "250");
    client.asks("PWD", "257 \"/\"");
    for path in ["../secret", "link", "up/secret", "/../secret", "sub/../../secret", "//..//secret"] {
        client.asks(format!("SIZE {path}"), "550");
        client.asks(format!("MDTM {path}"), "550");
        client.extended();
        client.asks(format!("RETR {path}"), "550");
        client.asks(format!("RNFR {path}"), "550");
    }
    client.asks("CWD up", "550");
    client.extended();
    client.asks("STOR up/planted", "550");
    client.asks("APPE link", "550");
    client.asks("MKD up/planted", "550");
    client.asks("RNFR hello.txt", "350");
    client.asks("RNTO up/stolen", "550");
    client.asks("RNFR hello.txt", "350");
    client.asks("RNTO ../moved", "250");
    client.asks("DELE /", "550");
    client.asks("RMD /", "550");
    client.asks("RETR a\tb", "501");
    client.asks(b"RETR \0", "501");
    // A link is replaced, not written through.
    assert!(client.puts("STOR link", b"mine").starts_with("226"));
    assert_eq!(fs::read(around.0.join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(&around.0).unwrap().count(), 2);
    assert_eq!(fs::read(root.join("link")).unwrap(), b"mine");
    server.finish();
}

#[test]
fn a_file_is_stored_whole_or_not_at_all() {
    let (_around, root) = site("write");
    let server = start(&root, &["--write"]);
    let mut client = Client::anonymous(&server);
    assert!(client.puts("STOR sub/new", &big()).starts_with("226"));
    assert!(fs::read(root.join("sub/new")).unwrap() == big());
    assert!(client.puts("APPE hello.txt", b"more").starts_with("226"));
    assert_eq!(fs::read(root.join("hello.txt")).unwrap(), b"hello, world\nmore");
    assert!(client.puts("STOR empty", b"").starts_with("226"));
    // Cut off in the middle: by a reset, by ABOR, and with its client.
    let files = || fs::read_dir(root.join("sub")).unwrap().count();
    let data = client.passive();
    client.asks("STOR sub/reset", "150");
    (&data).write_all(&big()).unwrap();
    let socket = socket2::Socket::from(data);
    socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(socket);
    assert!(client.answer().starts_with("426"));
    until("the rest to be removed", || files() == 3);
    let mut data = client.passive();
    client.asks("STOR sub/aborted", "150");
    data.write_all(b"half").unwrap();
    client.asks("DELE hello.txt", "450");
    client.asks(b"\xff\xf4\xff\xf2ABOR", "426");
    assert!(client.answer().starts_with("226"));
    until("the rest to be removed", || files() == 3);
    let mut data = client.passive();
    client.asks("STOR sub/left", "150");
    data.write_all(b"half").unwrap();
    drop(client);
    assert!(matches!(data.read(&mut [0]), Ok(0) | Err(_)));
    until("the rest to be removed", || files() == 3);
    let mut client = Client::anonymous(&server);
    client.asks("MKD made", "257 \"/made\"");
    client.asks("MKD made", "550");
    client.asks("RNFR empty", "350");
    client.asks("RNTO made/renamed", "250");
    client.asks("RMD made", "550");
    client.asks("DELE made/renamed", "250");
    client.asks("DELE made", "550");
    client.asks("RMD made", "250");
    client.asks("RNTO x", "503");
    client.asks("REST 5", "350");
    client.extended();
    client.asks("STOR hello.txt", "554");
    server.finish();
}

#[test]
fn strangers_and_hostile_clients_get_nothing_and_harm_nobody() {
    let (_around, root) = site("hostile");
    let server = start(&root, &["--write"]);
    let mut client = Client::new(&server);
    client.asks("RETR hello.txt", "530");
    client.asks("USER root", "331");
    client.asks("PASS toor", "530");
    client.asks("PASS again", "530");
    client.asks("PWD", "530");
    client.asks("WHAT", "530");
    client.asks(b"\xff\xfe\x00", "501");
    client.says("x".repeat(100_000));
    assert!(client.answer().starts_with("500 that line is too long"));
    assert!(matches!(client.stream.read(&mut [0]), Ok(0) | Err(_)));
    // A path of thousands of names, and one that leads through a file.
    let mut client = Client::anonymous(&server);
    client.asks(format!("CWD {}", "sub/../".repeat(1000)), "250");
    client.asks(format!("CWD {}", "x/".repeat(4000)), "550");
    client.asks("CWD hello.txt/..", "250");
    client.asks("SIZE hello.txt/x", "550");
    let pipe = root.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    client.extended();
    client.asks("RETR pipe", "550");
    // One comes in by each door, and from the address of the client alone.
    let answer = client.asks("EPSV", "229");
    let address = format!("127.0.0.1:{}", answer.split('|').nth(3).unwrap());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.2:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&address.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let mut stranger = TcpStream::from(socket);
    assert!(matches!(stranger.read(&mut [0]), Ok(0) | Err(_)), "it is turned away");
    let mut data = connect(&address);
    client.asks("RETR hello.txt", "150");
    let mut got = String::new();
    data.read_to_string(&mut got).unwrap();
    assert_eq!(got, "hello, world\n");
    assert!(client.answer().starts_with("226"));
    assert!(TcpStream::connect(&address).is_err(), "the door is shut");
    // Many that never read take no memory.
    let stuck: Vec<_> = (0..20)
        .map(|_| {
            let mut client = Client::anonymous(&server);
            let data = client.passive();
            client.asks("RETR sub/big", "150");
            (client, data)
        })
        .collect();
    client.asks("NOOP", "200");
    assert!(server.memory() < 100_000, "{} KiB", server.memory());
    drop(stuck);
    server.finish();
}

#[test]
fn what_was_begun_is_finished_before_the_server_ends() {
    let (_around, root) = site("drain");
    let mut server = start(&root, &["--write", "--drain", "60"]);
    let (mut reader, mut writer) = (Client::anonymous(&server), Client::anonymous(&server));
    let (mut got, mut put) = (reader.passive(), writer.passive());
    reader.asks("RETR sub/big", "150");
    writer.asks("STOR stored", "150");
    put.write_all(b"first, ").unwrap();
    let mut idle = Client::anonymous(&server);
    server.terminate();
    assert_eq!(idle.stream.read(&mut [0]).unwrap(), 0);
    put.write_all(b"second").unwrap();
    drop(put);
    assert!(writer.answer().starts_with("226"));
    let mut all = Vec::new();
    got.read_to_end(&mut all).unwrap();
    drop(got);
    assert!(all == big() && reader.answer().starts_with("226"));
    server.finish();
    assert_eq!(fs::read(root.join("stored")).unwrap(), b"first, second");
}

#[test]
fn curl_reads_and_writes() {
    if !has("curl") {
        return;
    }
    let (around, root) = site("curl");
    let server = start(&root, &["--write"]);
    let curl = |args: &[&str]| {
        let output = Command::new("curl").args(["-sS", "--max-time", "60"]).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let url = |path: &str| format!("ftp://{}/{path}", server.address);
    assert_eq!(curl(&[&url("hello.txt")]), b"hello, world\n");
    assert!(curl(&[&url("sub/big")]) == big());
    assert!(curl(&["--disable-epsv", &url("sub/big")]) == big());
    assert_eq!(curl(&["-r", "7-", &url("hello.txt")]), b"world\n");
    assert!(String::from_utf8(curl(&[&url("")])).unwrap().contains(" hello.txt"));
    let secret = around.0.join("secret");
    curl(&["-T", secret.to_str().unwrap(), "--ftp-create-dirs", &url("new/folder/copy")]);
    assert_eq!(fs::read(root.join("new/folder/copy")).unwrap(), b"secret");
    curl(&["-Q", "DELE hello.txt", "-l", &url("")]);
    assert!(!root.join("hello.txt").exists());
    server.finish();
}

const FTPLIB: &str = "
import ftplib, io, sys
ftp = ftplib.FTP()
ftp.connect(sys.argv[1], int(sys.argv[2]), timeout=60)
ftp.login()
assert ftp.nlst() == ['hello.txt', 'sub'], ftp.nlst()
assert dict(ftp.mlsd('sub'))['big']['size'] == '3000000'
got = io.BytesIO()
ftp.retrbinary('RETR sub/big', got.write, rest=1000)
assert len(got.getvalue()) == 2999000
ftp.mkd('fresh dir')
ftp.cwd('fresh dir')
assert ftp.pwd() == '/fresh dir'
ftp.storbinary('STOR x', io.BytesIO(b'y' * 1000000))
assert ftp.size('x') == 1000000
ftp.storlines('APPE x', io.BytesIO(b'one\\ntwo\\n'))
assert ftp.size('x') == 1000010
ftp.rename('x', '../z')
lines = []
ftp.retrlines('LIST ..', lines.append)
assert len(lines) == 4, lines
data = ftp.transfercmd('RETR ../sub/big')
data.recv(10)
# Its last byte is sent as urgent.
code = ftp.abort()
assert code[:3] in ('426', '226', '225'), code
data.close()
while not ftp.getmultiline().startswith('226'):
    pass
ftp.delete('../z')
ftp.cwd('..')
ftp.rmd('fresh dir')
ftp.quit()
";

#[test]
fn pythons_ftplib_reads_writes_and_aborts() {
    if !has("python3") {
        return;
    }
    let (_around, root) = site("ftplib");
    let server = start(&root, &["--write"]);
    let output = Command::new("python3").args(["-c", FTPLIB, "127.0.0.1", &server.port()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.finish();
}

#[test]
fn lftp_mirrors_both_ways() {
    if !has("lftp") {
        return;
    }
    let (around, root) = site("lftp");
    let server = start(&root, &["--write"]);
    let copy = around.0.join("copy");
    let script = format!(
        "set net:timeout 20; set net:max-retries 2; set cmd:fail-exit yes; open {}; mirror / {}; \
         mirror -R {} /again; ls; bye",
        server.address,
        copy.display(),
        copy.display()
    );
    let output = Command::new("timeout").args(["100", "lftp", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(copy.join("sub/big")).unwrap() == big());
    assert!(fs::read(root.join("again/sub/big")).unwrap() == big());
    assert_eq!(fs::read(root.join("again/hello.txt")).unwrap(), b"hello, world\n");
    server.finish();
}

#[test]
fn wrong_usage_is_told() {
    let program = env!("CARGO_BIN_EXE_ftp_server");
    support::wrong_usage(program, &[&["nowhere"], &["--what"], &["--root"]]);
    let output = Command::new(program).args(["--root", "/nowhere/at/all"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: cannot serve /nowhere/at/all: "));
}
