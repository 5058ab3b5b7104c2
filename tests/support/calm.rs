//! How often the loop waits, what it logs, and tests that need a process of their own.
#![allow(dead_code)]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use dispatch_loop::ChannelMap;
#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, count};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::DEADLINE;

/// How many waits the loop needs to let `period` pass. Of a loop that does not spin: a few, the
/// fewer the busier the machine.
pub fn waits_in(map: &mut ChannelMap, period: Duration) -> u64 {
    #[cfg(debug_assertions)]
    let before = count(Call::Wait);
    let end = Instant::now() + period;
    let mut waits = 0;
    while Instant::now() < end {
        map.turn(Some(end.saturating_duration_since(Instant::now()))).unwrap();
        waits += 1;
    }
    // A release build counts no calls; a turn waits once.
    #[cfg(debug_assertions)]
    let waits = waits.max(count(Call::Wait) - before);
    waits
}

/// Nothing happens in this map, and that costs nothing.
#[track_caller]
pub fn assert_calm(map: &mut ChannelMap) {
    let waits = waits_in(map, Duration::from_millis(150));
    assert!(waits <= 5, "{waits} waits, and nothing to wait for");
}

/// Turn without ever waiting; at most `turns` times, until `done`.
pub fn turns_at_once(
    map: &mut ChannelMap,
    turns: usize,
    mut done: impl FnMut(&mut ChannelMap) -> bool,
) -> bool {
    (0..turns).any(|_| done(map) || map.turn(Some(Duration::ZERO)).is_err()) || done(map)
}

/// Turn until there is nothing more to be done at once. What is left in a socket by one turn comes
/// in the one after it, so a single calm turn says nothing.
#[track_caller]
pub fn turn_quiet(map: &mut ChannelMap) {
    let mut calm = 0;
    for _ in 0..10_000 {
        map.turn(Some(Duration::ZERO)).unwrap();
        calm = if map.wait_limit() == Some(Duration::ZERO) { 0 } else { calm + 1 };
        if calm > 3 {
            return;
        }
    }
    panic!("the loop spins");
}

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}: {}", record.level(), record.target(), record.args());
        let _ = LINES.try_with(|lines| lines.borrow_mut().push(line));
    }
    fn flush(&self) {}
}

/// From now on keep what this thread logs, at `warn` and above.
pub fn capture_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| log::set_logger(&Capture).unwrap());
    log::set_max_level(log::LevelFilter::Warn);
    LINES.with_borrow_mut(Vec::clear);
}

/// The lines that this thread has logged with this text in them.
pub fn logged(text: &str) -> Vec<String> {
    LINES.with_borrow(|lines| lines.iter().filter(|line| line.contains(text)).cloned().collect())
}

/// Run a test in a process of its own, because it counts or uses up what a process has one of;
/// there with `descriptors` at most, if given. `test` is a closure of the test itself: that tells
/// its name.
#[track_caller]
pub fn alone<F: FnOnce()>(descriptors: Option<u32>, test: F) {
    const ALONE: &str = "DISPATCH_LOOP_TEST_ALONE";
    let path = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    let (_, name) = path.split_once("::").expect("a test in a module");
    if std::env::var(ALONE).is_ok_and(|alone| alone == name) {
        return test();
    }
    let limit = descriptors.map_or(String::new(), |most| format!("ulimit -n {most} && "));
    let script = format!("{limit}exec \"$0\" \"$1\" --exact --nocapture --test-threads=1");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(std::env::current_exe().unwrap()).arg(name).env(ALONE, name);
    let output = shell.output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success() && said[0].contains("1 passed"), "{}\n{}", said[0], said[1]);
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

/// What an error of this `errno` is called.
pub fn text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

/// Wait until this socket has something to say: input, its end, an error.
pub fn wait_for_input(socket: impl AsFd) {
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    let limit = Timespec { tv_sec: DEADLINE.as_secs() as _, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1);
}

/// Wait until a reset, or FIN of both ends, has arrived at this socket.
pub fn wait_for_hang_up(socket: impl AsFd) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    super::wait_until("the hang-up", || {
        let mut fds = [PollFd::new(&socket, PollFlags::empty())];
        rustix::event::poll(&mut fds, Some(&now)).unwrap() == 1
    });
}
