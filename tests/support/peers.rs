//! The other ends of connections, and what is read and written there; addresses that accept, refuse,
//! or never answer.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use super::waiting::{DEADLINE, wait_until};

/// The loopback addresses of this machine with port 0: IPv4, and IPv6 where there is `::1`.
pub fn loopbacks() -> Vec<SocketAddr> {
    let all = ["127.0.0.1:0", "[::1]:0"].map(|a| a.parse::<SocketAddr>().unwrap());
    all.into_iter().filter(|address| TcpListener::bind(address).is_ok()).collect()
}

/// A connected pair: the near end for the map, the far end a blocking socket with a time limit.
pub fn pair(on: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(on).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for end in [&near, &far] {
        end.set_nodelay(true).unwrap();
    }
    limit_time(&far);
    (near, far)
}

/// As [`pair`], without a network.
pub fn unix_pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    limit_time(&far);
    (near, far)
}

/// The reading end and the writing end of a pipe.
pub fn pipe() -> (File, File) {
    #[cfg(not(target_vendor = "apple"))]
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    #[cfg(target_vendor = "apple")]
    let (reader, writer) = {
        let ends = rustix::pipe::pipe().unwrap();
        for end in [&ends.0, &ends.1] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC).unwrap();
        }
        ends
    };
    (reader.into(), writer.into())
}

/// Reading and writing fail at the deadline.
pub fn limit_time(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
}

/// Not much room on the way from the one to the other.
pub fn narrow(near: &TcpStream, far: &TcpStream) {
    SockRef::from(near).set_send_buffer_size(16 * 1024).unwrap();
    SockRef::from(far).set_recv_buffer_size(16 * 1024).unwrap();
}

/// As [`pair`], with not much room between the two, so that a queue is soon full.
pub fn narrow_pair(on: SocketAddr) -> (TcpStream, TcpStream) {
    let (near, far) = pair(on);
    narrow(&near, &far);
    (near, far)
}

/// Close with a reset instead of a FIN.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// An address that refuses connections for as long as the socket lives, because nobody else can
/// have its port.
pub fn refusing(on: SocketAddr) -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::for_address(on), socket2::Type::STREAM, None).unwrap();
    socket.bind(&on.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A listener whose backlog is full: a connect to it neither succeeds nor fails. Accepting what
/// is in the backlog lets it go on.
pub fn black_hole(on: SocketAddr) -> (socket2::Socket, Vec<socket2::Socket>, SocketAddr) {
    let new = || socket2::Socket::new(socket2::Domain::for_address(on), socket2::Type::STREAM, None).unwrap();
    let listener = new();
    listener.bind(&on.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let filling = std::iter::repeat_with(|| {
        let filling = new();
        filling.set_nonblocking(true).unwrap();
        let _ = filling.connect(&address);
        filling
    });
    let filling = filling.take(4).collect();
    (listener, filling, address.as_socket().unwrap())
}

#[track_caller]
pub fn connect(to: &SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    limit_time(&stream);
    stream
}

/// The server's end of the next connection to a listener of the test.
#[track_caller]
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    wait_until("a client connects", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let peer = accepted.unwrap().0;
    peer.set_nonblocking(false).unwrap();
    limit_time(&peer);
    peer
}

/// Bytes in which a loss, a repetition or a change of order shows.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(pattern_at).collect()
}

pub fn pattern_at(at: usize) -> u8 {
    (at * 31 + at / 251) as u8
}

#[track_caller]
pub fn read_exactly(peer: &mut impl Read, len: usize) -> Vec<u8> {
    let mut buffer = vec![0; len];
    peer.read_exact(&mut buffer).unwrap();
    buffer
}

#[track_caller]
pub fn read_to_end(peer: &mut impl Read) -> Vec<u8> {
    let mut buffer = Vec::new();
    peer.read_to_end(&mut buffer).unwrap();
    buffer
}

/// All that comes until the end or an error, and which of the two it was.
pub fn read_all(far: &mut impl Read) -> (Vec<u8>, io::Result<()>) {
    let mut got = Vec::new();
    let end = far.read_to_end(&mut got).map(drop);
    (got, end)
}

/// All that came before a reset.
#[track_caller]
pub fn cut_short(mut far: impl Read) -> Vec<u8> {
    let (got, end) = read_all(&mut far);
    let end = end.expect_err("a reset, not an end of stream");
    assert_eq!(end.kind(), ErrorKind::ConnectionReset, "after {} bytes: {end}", got.len());
    got
}

/// [`read_to_end`] on a thread of its own.
pub fn reads_to_end(mut far: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || read_to_end(&mut far))
}

/// [`read_all`] on a thread of its own.
pub fn reads_all(mut far: impl Read + Send + 'static) -> JoinHandle<(Vec<u8>, io::Result<()>)> {
    thread::spawn(move || read_all(&mut far))
}

/// All that is there now; whether the end was among it.
pub fn read_now(far: &mut impl Read) -> (Vec<u8>, bool) {
    let mut got = Vec::new();
    match far.read_to_end(&mut got) {
        Ok(_) => (got, true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => (got, false),
        Err(error) => panic!("instead of the end of the stream: {error}"),
    }
}

/// All that has come by now, as text.
pub fn text_now(far: &mut TcpStream) -> String {
    far.set_nonblocking(true).unwrap();
    String::from_utf8(read_now(far).0).unwrap()
}
