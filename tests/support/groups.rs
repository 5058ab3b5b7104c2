//! Groups of loops that echo, and what their clients do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;

use dispatch_loop::{ChannelMap, ListenOptions, LoopGroup, Remote};

use super::echo::Echo;
use super::waiting::{DEADLINE, wait_until};

pub fn start(loops: usize) -> LoopGroup {
    LoopGroup::start(loops, |_, _| Ok(())).unwrap()
}

/// A group that echoes, and its address.
pub fn echoing(loops: usize, options: &ListenOptions) -> (LoopGroup, SocketAddr) {
    let group = start(loops);
    let serve = |map: &mut ChannelMap, socket, _| map.add(socket, Echo).map(drop);
    let address = group.listen("127.0.0.1:0", options, serve).unwrap()[0].ip().unwrap();
    (group, address)
}

/// `join`, which is to return.
#[track_caller]
pub fn joined(group: LoopGroup) -> std::io::Result<()> {
    super::threads::joined(thread::spawn(move || group.join()))
}

/// Call `f` on a loop, and wait for its answer.
#[track_caller]
pub fn on<T: Send + 'static>(remote: &Remote, f: impl FnOnce(&mut ChannelMap) -> T + Send + 'static) -> T {
    let (answer, answers) = mpsc::channel();
    remote.call(move |map| answer.send(f(map)).unwrap()).map_err(|error| error.to_string()).unwrap();
    answers.recv_timeout(DEADLINE).unwrap()
}

/// Keeps a loop busy until it is dropped.
pub struct Busy(#[allow(dead_code)] mpsc::Sender<()>);

#[track_caller]
pub fn keep_busy(remote: &Remote) -> Busy {
    let (begun, has_begun) = mpsc::channel();
    let (over, is_over) = mpsc::channel::<()>();
    let wait = move |_: &mut ChannelMap| {
        begun.send(()).unwrap();
        let _ = is_over.recv_timeout(DEADLINE);
    };
    remote.call(wait).map_err(|error| error.to_string()).unwrap();
    has_begun.recv_timeout(DEADLINE).unwrap();
    Busy(over)
}

#[track_caller]
pub fn assert_echoes(mut client: &TcpStream) {
    client.write_all(b"are you there?").unwrap();
    let mut back = [0; 14];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"are you there?");
}

#[track_caller]
pub fn wait_for_loads(group: &LoopGroup, wanted: &[usize]) {
    wait_until(&format!("{wanted:?} connections"), || group.loads() == wanted);
}
