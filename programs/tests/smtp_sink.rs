//! `smtp_sink` as a process, with raw sockets and with Python's `smtplib`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

struct Sink {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Sink {
    fn start(args: &[&str]) -> Sink {
        Sink::start_with(&mut Command::new(env!("CARGO_BIN_EXE_smtp_sink")), args)
    }

    fn start_with(command: &mut Command, args: &[&str]) -> Sink {
        let mut child = command.args(args).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").expect(&line).to_owned();
        Sink { child, stdout, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// All that is printed from now on, up to the end of a message.
    fn message(&mut self) -> String {
        let mut text = String::new();
        while !text.ends_with("------------ END MESSAGE ------------\n") {
            assert!(self.stdout.read_line(&mut text).unwrap() > 0, "it has ended: {text}");
        }
        text
    }

    fn finish(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

/// Also when the test fails.
impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("smtp_sink-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SESSION: &[u8] =
    b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: one\r\n\r\n..hello\r\n.\r\nQUIT\r\n";

fn all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_pipelined_message_is_printed_as_python_did() {
    let mut sink = Sink::start(&[]);
    let mut client = sink.connect();
    client.write_all(SESSION).unwrap();
    let answers = all(client);
    assert!(
        answers.starts_with("220 ") && answers.contains("\r\n354 ") && answers.contains("\r\n221 "),
        "{answers}"
    );
    let message = sink.message();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines[..2], ["---------- MESSAGE FOLLOWS ----------", "Subject: one"]);
    assert!(lines[2].starts_with("X-Peer: 127.0.0.1:"), "{message}");
    assert_eq!(lines[3..], ["", ".hello", "------------ END MESSAGE ------------"]);
    sink.finish();
}

#[test]
fn a_message_is_stored_whole_or_not_at_all() {
    let folder = Folder::new("maildir");
    let sink = Sink::start(&["--maildir", folder.0.to_str().unwrap()]);
    let mut client = sink.connect();
    client.write_all(SESSION).unwrap();
    all(client);
    // Cut off in the middle.
    let mut client = sink.connect();
    client.write_all(&SESSION[..70]).unwrap();
    drop(client);
    let stored: Vec<_> = fs::read_dir(folder.0.join("new")).unwrap().collect();
    assert_eq!(stored.len(), 1);
    let text = fs::read_to_string(stored[0].as_ref().unwrap().path()).unwrap();
    assert_eq!(text, "Return-Path: <a@b>\r\nDelivered-To: c@d\r\nSubject: one\r\n\r\n.hello\r\n");
    sink.finish();
    assert_eq!(fs::read_dir(folder.0.join("new")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(folder.0.join("tmp")).unwrap().count(), 0);
}

/// `smtp_sink | less`.
#[test]
fn a_stdout_that_nobody_reads_holds_up_nobody_else() {
    let mut sink = Sink::start(&[]);
    let mut client = sink.connect();
    // More than a pipe holds.
    let long = "x".repeat(1024 * 1024);
    let begin = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
    client.write_all(format!("{begin}{long}\r\n.\r\nNOOP\r\n").as_bytes()).unwrap();
    // It is being printed.
    let mut line = String::new();
    sink.stdout.read_line(&mut line).unwrap();
    assert!(line.contains("MESSAGE FOLLOWS"), "{line}");
    for _ in 0..3 {
        let mut other = sink.connect();
        other.write_all(b"EHLO x\r\nQUIT\r\n").unwrap();
        assert!(all(other).contains("\r\n221 "));
    }
    // It does not wait for whoever is to read.
    sink.finish();
}

const TERMINAL: &str = r#"
import os, pty, smtplib, subprocess, sys
terminal, stdout = pty.openpty()
sink = subprocess.Popen([sys.argv[1], '127.0.0.1:0'], stdout=stdout)
os.close(stdout)
shown = b''
def read_until(end):
    global shown
    while end not in shown:
        shown += os.read(terminal, 65536)
try:
    read_until(b'\n')
    port = int(shown.rsplit(b':', 1)[1])
    with smtplib.SMTP('127.0.0.1', port, local_hostname='tester') as smtp:
        smtp.sendmail('a@b', 'c@d', b'Subject: \x1b]0;x\x07\tgr\xc3\xbcn\r\n\r\n\xff\xc2\x9b2J \xe2\x80\xaeabc\r\n')
    read_until(b'END MESSAGE')
finally:
    sink.kill()
    sink.wait()
sys.stdout.buffer.write(shown)
"#;

#[test]
fn a_terminal_is_shown_only_what_does_not_steer_it() {
    let output =
        Command::new("python3").args(["-c", TERMINAL, env!("CARGO_BIN_EXE_smtp_sink")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Subject: \\u{1b}]0;x\\u{7}\tgrün\r\n"), "{text:?}");
    assert!(text.contains("\u{fffd}\\u{9b}2J \\u{202e}abc\r\n"), "{text:?}");
}

/// Not even whoever reads the errors is needed.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_stored_is_answered_so() {
    let folder = Folder::new("removed");
    let maildir = folder.0.to_str().unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let sink =
        Sink::start_with(Command::new(env!("CARGO_BIN_EXE_smtp_sink")).stderr(full), &["--maildir", maildir]);
    for (is_there, answer) in [(false, "451 4.3.0"), (true, "250 2.0.0 taken")] {
        match is_there {
            false => fs::remove_dir_all(folder.0.join("new")).unwrap(),
            true => fs::create_dir(folder.0.join("new")).unwrap(),
        }
        let mut client = sink.connect();
        client.write_all(SESSION).unwrap();
        let answers = all(client);
        assert!(answers.contains(answer) && answers.contains("\r\n221 "), "{answers}");
        assert_eq!(fs::read_dir(folder.0.join("tmp")).unwrap().count(), 0);
    }
    sink.finish();
}

/// A certificate for localhost, and its key.
fn certificate(folder: &Path) -> [String; 2] {
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &cert])
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl is installed").success());
    [cert, key]
}

const SMTPLIB: &str = "
import smtplib, ssl, sys
host, port, cert = sys.argv[1:]
with smtplib.SMTP(host, int(port), local_hostname='tester') as smtp:
    context = ssl.create_default_context(cafile=cert)
    smtp._host = 'localhost'
    smtp.starttls(context=context)
    smtp.ehlo()
    assert not smtp.has_extn('starttls')
    assert smtp.sendmail('me@here', ['you@there', 'he@there'], 'Subject: two\\r\\n\\r\\nencrypted\\r\\n') == {}
    code, why = smtp.mail('me@here', ['SIZE=99999999'])
    assert code == 552, why
";

#[test]
fn pythons_smtplib_upgrades_and_sends() {
    let folder = Folder::new("tls");
    let [cert, key] = certificate(&folder.0);
    let mut sink = Sink::start(&["--tls-cert", &cert, "--tls-key", &key]);
    let (host, port) = sink.address.rsplit_once(':').unwrap();
    let output = Command::new("python3").args(["-c", SMTPLIB, host, port, &cert]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(sink.message().contains("Subject: two\n"));
    sink.finish();
}

/// What somebody in between puts behind STARTTLS must not be taken for encrypted.
/// Messages of clients on several loops are printed whole, one after the other; and all loops end in order.
#[test]
fn it_takes_mail_on_several_loops() {
    let mut sink = Sink::start(&["--threads", "3"]);
    // All are connected before the first says something, so that each loop has some.
    let mut clients: Vec<TcpStream> = (0..9).map(|_| sink.connect()).collect();
    for client in &mut clients {
        client.write_all(SESSION).unwrap();
    }
    for client in clients {
        assert!(all(client).contains("\r\n221 "));
        let message = sink.message();
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines[..2], ["---------- MESSAGE FOLLOWS ----------", "Subject: one"]);
        assert_eq!(lines[3..], ["", ".hello", "------------ END MESSAGE ------------"]);
    }
    let threads = Command::new("ls").arg(format!("/proc/{}/task", sink.child.id())).output().unwrap();
    if cfg!(target_os = "linux") {
        assert!(threads.stdout.split(|&byte| byte == b'\n').count() > 3);
    }
    sink.finish();
}

#[test]
fn what_follows_starttls_in_the_clear_ends_the_connection() {
    let folder = Folder::new("injected");
    let [cert, key] = certificate(&folder.0);
    let sink = Sink::start(&["--tls-cert", &cert, "--tls-key", &key]);
    let mut client = sink.connect();
    client.write_all(b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<evil@x>\r\n").unwrap();
    // Much less than a handshake may take.
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = Vec::new();
    match client.read_to_end(&mut text) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it waits for a handshake"),
        // An end or a reset.
        Ok(_) | Err(_) => {}
    }
    let text = String::from_utf8_lossy(&text);
    assert!(!text.contains("250 2.1.0"), "{text}");
    sink.finish();
}

#[test]
fn wrong_usage_is_told() {
    for args in [&["--tls-cert", "x"][..], &["nowhere"], &["--what"], &["--threads", "x"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_smtp_sink")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: smtp_sink"), "{args:?}");
    }
}
