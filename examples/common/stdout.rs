//! Stdout, written by a thread of its own: if nobody reads it (`| less`), the loop goes on serving, and a
//! signal ends the program. What peers send is read no faster than it is printed.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::exit;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::{Channel, Remote, Token};

use super::shown::{shown, whole_characters};
use super::{complain, is_signalled};

/// With this many bytes unprinted, channels wait, and with this many the program's own lines are dropped.
const BEHIND: usize = 64 * 1024;
const MOST: usize = 1024 * 1024;

/// How often the end of a program looks whether it was told to wait no longer.
const LOOK: Duration = Duration::from_millis(20);

static STATE: Mutex<State> = Mutex::new(State::new());
static CHANGED: Condvar = Condvar::new();

struct State {
    /// What the thread has not taken yet.
    queue: Vec<u8>,
    /// The thread has taken something, and is not done with it.
    is_writing: bool,
    is_started: bool,
    is_dropping: bool,
    /// Channels that are paused until there is room.
    waiting: Vec<(Remote, Token)>,
    /// The beginning of a character, or of the end of a line, that is to go to a terminal.
    held: Vec<u8>,
}

impl State {
    const fn new() -> State {
        State {
            queue: Vec::new(),
            is_writing: false,
            is_started: false,
            is_dropping: false,
            waiting: Vec::new(),
            held: Vec::new(),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.queue.extend_from_slice(bytes);
        if !self.is_started {
            let started = thread::Builder::new().name("stdout".to_owned()).spawn(write);
            self.is_started = started.is_ok();
        }
        match self.is_started {
            true => CHANGED.notify_all(),
            false => put(&std::mem::take(&mut self.queue)),
        }
    }
}

/// Print, without waiting. If nobody reads (`| head`), the program has done its work.
pub fn print(bytes: &[u8]) {
    let mut state = lock();
    if state.queue.len() < MOST {
        state.is_dropping = false;
        state.push(bytes);
    } else if !std::mem::replace(&mut state.is_dropping, true) {
        log::warn!("nobody reads stdout: lines are dropped");
    }
}

/// Print what a peer has sent, without waiting, and as it is; on a terminal, only what that can show.
pub fn print_received(bytes: &[u8]) {
    let mut state = lock();
    if !io::stdout().is_terminal() {
        return state.push(bytes);
    }
    state.held.extend_from_slice(bytes);
    let whole = whole_characters(&state.held);
    let text: Vec<u8> = state.held.drain(..whole).collect();
    state.push(shown(&String::from_utf8_lossy(&text)).as_bytes());
}

/// Print a line that a peer has sent; what is no UTF-8 in it is replaced.
pub fn say_received(line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    let text = if io::stdout().is_terminal() { shown(&text) } else { text.into_owned() };
    lock().push(format!("recv: {text}\n").as_bytes());
}

/// Whether much is still to be printed. Then this channel reads no more until that is done.
pub fn is_behind(ch: &mut Channel<'_>) -> bool {
    let mut state = lock();
    if state.queue.len() < BEHIND {
        return false;
    }
    ch.pause_reading();
    let waiting = (ch.map_mut().remote(), ch.token());
    state.waiting.push(waiting);
    true
}

/// Wait until all is printed; `false` if a signal was in the way, and the time that it leaves is over.
pub fn flush() -> bool {
    let mut state = lock();
    let rest = std::mem::take(&mut state.held);
    if !rest.is_empty() {
        state.push(shown(&String::from_utf8_lossy(&rest)).as_bytes());
    }
    let mut deadline = None;
    while state.is_writing || !state.queue.is_empty() {
        if is_signalled() {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + super::DRAIN);
            if Instant::now() >= deadline {
                return false;
            }
        }
        state = CHANGED.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

/// What the thread does.
fn write() {
    let mut state = lock();
    loop {
        state.is_writing = !state.queue.is_empty();
        if !state.is_writing {
            CHANGED.notify_all();
            state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let (piece, waiting) = (std::mem::take(&mut state.queue), std::mem::take(&mut state.waiting));
        drop(state);
        for (remote, token) in waiting {
            // Refused if the loop has ended, and its channels with it.
            let _ = remote.call(move |map| {
                if let Ok(mut ch) = map.channel(token) {
                    ch.resume_reading();
                }
            });
        }
        put(&piece);
        state = lock();
    }
}

fn put(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        Err(error) => {
            complain(format_args!("error: cannot write to stdout: {error}"));
            exit(1);
        }
    }
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
