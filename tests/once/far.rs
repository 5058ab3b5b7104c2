//! The far ends of a scenario: sockets outside the map, each with its part. They never wait, so that one
//! thread plays everything, and each play is like the one before.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use socket2::Socket;

use crate::support::peers::{pattern, pattern_at};

/// What it is that has the other end.
pub enum End {
    /// Over TCP what is cut short must not look like an end.
    Tcp(Socket),
    Unix(Socket),
    Datagram(Socket),
    File(File),
    /// Each connection that it accepts is a new far end with the part that is given here.
    Listener(TcpListener, Part),
}

/// What a far end does.
#[derive(Clone, Copy, Default)]
pub struct Part {
    /// It sends so many bytes of the pattern; of a datagram socket, so many datagrams.
    pub says: usize,
    /// It sends back what it gets.
    pub echoes: bool,
    /// When it has got so many bytes and said everything, it sends FIN.
    pub fin_after: Option<usize>,
    /// An urgent byte comes first.
    pub urgent: bool,
    /// It resets when it has said everything.
    pub resets: bool,
    /// It says nothing before the end has come.
    pub answers: bool,
}

pub struct Far {
    pub end: Option<End>,
    pub part: Part,
    pub said: usize,
    pub got: usize,
    /// `Ok` for the end of the stream.
    pub ended: Option<Result<(), ErrorKind>>,
    fin: bool,
    reset: bool,
    pub is_tcp: bool,
}

impl Far {
    pub fn new(end: End, part: Part) -> Far {
        match &end {
            End::Tcp(socket) | End::Unix(socket) | End::Datagram(socket) => {
                socket.set_nonblocking(true).unwrap()
            }
            End::Listener(listener, _) => listener.set_nonblocking(true).unwrap(),
            End::File(file) => rustix::io::ioctl_fionbio(file, true).unwrap(),
        }
        let is_tcp = matches!(end, End::Tcp(_));
        Far { end: Some(end), part, said: 0, got: 0, ended: None, fin: false, reset: false, is_tcp }
    }

    pub fn is_done(&self) -> bool {
        self.end.is_none() || matches!(self.end, Some(End::Listener(..)))
    }

    /// Do what can be done now. Whether anything was; what was wrong goes to `wrong`.
    pub fn play(&mut self, wrong: &mut Vec<String>, new: &mut Vec<Far>) -> bool {
        match &mut self.end {
            None => false,
            Some(End::Listener(listener, part)) => match listener.accept() {
                Ok((stream, _)) => {
                    new.push(Far::new(End::Tcp(stream.into()), *part));
                    true
                }
                Err(_) => false,
            },
            Some(End::Datagram(_)) => self.play_datagrams(wrong),
            Some(_) => self.play_stream(wrong),
        }
    }

    fn play_stream(&mut self, wrong: &mut Vec<String>) -> bool {
        let (part, mut moved) = (self.part, false);
        let Some(end) = &mut self.end else { return false };
        if part.urgent && self.said == 0 {
            if let End::Tcp(socket) = end {
                let _ = socket.send_out_of_band(b"!");
            }
        }
        let due = match part {
            Part { answers: true, .. } if self.ended.is_none() => 0,
            Part { echoes: true, .. } => self.got,
            _ => part.says,
        };
        if due > self.said && !self.fin {
            match end.write(&pattern(due)[self.said..due.min(self.said + 32 * 1024)]) {
                Ok(written) => {
                    self.said += written;
                    moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.fin = true;
                    // A read does not say it again.
                    self.reset = error.kind() == ErrorKind::ConnectionReset;
                }
            }
        }
        let said_all = self.said >= due;
        let enough = part.fin_after.is_some_and(|after| self.got >= after);
        let ended = self.ended.is_some();
        if said_all && !self.fin && (enough || ended) {
            self.fin = true;
            moved = true;
            if let (true, End::Tcp(socket)) = (part.resets, &mut *end) {
                let _ = socket.set_linger(Some(Duration::ZERO));
                self.end = None;
                return true;
            }
            end.fin();
        }
        if !ended {
            let mut buffer = [0; 16 * 1024];
            match end.read(&mut buffer) {
                Ok(0) => {
                    self.ended = Some(if self.reset { Err(ErrorKind::ConnectionReset) } else { Ok(()) });
                    moved = true;
                }
                Ok(read) => {
                    let right = buffer[..read].iter().enumerate();
                    if !right.fold(true, |right, (at, byte)| right && *byte == pattern_at(self.got + at)) {
                        wrong.push(format!("a far end got wrong bytes after {}", self.got));
                    }
                    self.got += read;
                    moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.ended = Some(Err(error.kind()));
                    moved = true;
                }
            }
        }
        if self.fin && self.ended.is_some() {
            self.end = None;
            moved = true;
        }
        moved
    }

    fn play_datagrams(&mut self, wrong: &mut Vec<String>) -> bool {
        let Some(End::Datagram(socket)) = &mut self.end else { return false };
        let mut moved = false;
        if self.said < self.part.says && socket.send(&[self.said as u8; 100]).is_ok() {
            self.said += 1;
            moved = true;
        }
        let mut buffer = [0; 200];
        if let Ok(read) = socket.read(&mut buffer) {
            // Some may be missing; `got` is the number that may come next.
            if read != 100 || usize::from(buffer[0]) < self.got || buffer[..100] != [buffer[0]; 100] {
                wrong.push(format!("datagram {} of {read} bytes, not {}", buffer[0], self.got));
            }
            self.got = usize::from(buffer[0]) + 1;
            moved = true;
        }
        if self.part.fin_after.is_some_and(|after| self.got >= after) {
            self.end = None;
        }
        moved
    }
}

impl End {
    fn fin(&self) {
        if let End::Tcp(socket) | End::Unix(socket) = self {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            End::File(file) => file.write(bytes),
            End::Tcp(socket) | End::Unix(socket) => socket.send_with_flags(bytes, libc::MSG_NOSIGNAL),
            _ => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            // The one that writes.
            End::File(file) => match file.read(buffer) {
                Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(0),
                result => result,
            },
            End::Tcp(socket) | End::Unix(socket) => socket.read(buffer),
            _ => Err(ErrorKind::WouldBlock.into()),
        }
    }
}
