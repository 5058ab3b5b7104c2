//! `read_lines`: lines of standard input, or of another reader that blocks, brought into the loop by a
//! thread of their own, since not every system can poll terminals and files. Uses `Remote` alone.

use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::core::map::ChannelMap;
use crate::threads::remote::Remote;

/// The longest line that comes in one piece, in bytes.
const LONGEST: usize = 64 * 1024;

/// What [`read_lines`] passes to its callback.
///
/// ```
/// use dispatch_loop::Line;
///
/// fn show(line: Line<'_>) {
///     match line {
///         Line::Text(text) => println!("{}", text.escape_ascii()),
///         Line::End => println!("end of input"),
///         Line::Failed(error) => println!("reading failed: {error}"),
///     }
/// }
/// # show(Line::Text(b"hello\n"));
/// ```
// Exhaustive: reading has no fourth outcome.
#[derive(Clone, Copy, Debug)]
pub enum Line<'a> {
    /// A line with its newline, which the last one may lack. A line over 64 KiB comes in pieces of that
    /// size.
    Text(&'a [u8]),
    /// The end of the input. Nothing follows.
    End,
    /// Reading failed. Nothing follows.
    Failed(&'a io::Error),
}

/// Read `input` (usually standard input) on a new thread, and call `f` on the loop's thread for each
/// line and for the end.
///
/// The thread reads on only after `f` was called for what it has read, so it is at most 64 KiB ahead of
/// the loop. It ends with the input or with the map, waits while the loop is stopped, and keeps neither
/// the loop nor the program running. A panic of `f` is caught and logged, and ends the reading.
///
/// # Errors
/// The thread cannot be started.
///
/// ```
/// use dispatch_loop::{ChannelMap, Line, read_lines};
///
/// let mut map = ChannelMap::new()?;
/// let keep = map.call_later(std::time::Duration::from_secs(60), |_| ());
/// let input = std::io::Cursor::new("one\ntwo\n");           // or std::io::stdin()
/// read_lines(&map.remote(), input, move |map, line| match line {
///     Line::Text(text) => println!("{}", text.escape_ascii()),
///     Line::End | Line::Failed(_) => map.stop(),
/// })?;
/// dispatch_loop::run(&mut map)?;
/// # map.cancel(keep);
/// # std::io::Result::Ok(())
/// ```
pub fn read_lines<F>(remote: &Remote, input: impl Read + Send + 'static, f: F) -> io::Result<()>
where
    F: FnMut(&mut ChannelMap, Line<'_>) + Send + 'static,
{
    let remote = remote.clone();
    let f = Arc::new(Mutex::new(f));
    let thread = thread::Builder::new().name("read_lines".to_owned());
    thread.spawn(move || read_all(&remote, input, &f))?;
    Ok(())
}

fn read_all<F>(remote: &Remote, mut input: impl Read, f: &Arc<Mutex<F>>)
where
    F: FnMut(&mut ChannelMap, Line<'_>) + Send + 'static,
{
    let mut buffer = vec![0; LONGEST];
    // The start of a line whose end has not been read yet; always shorter than `LONGEST`.
    let mut kept = Vec::new();
    let _all_delivered = loop {
        let room = LONGEST - kept.len();
        let read = match input.read(&mut buffer[..room]) {
            Ok(0) => break deliver(remote, f, kept, Some(Ok(()))),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => break deliver(remote, f, kept, Some(Err(error))),
        };
        // Only the new bytes can contain a newline.
        let newline = buffer[..read].iter().rposition(|&byte| byte == b'\n');
        let before = kept.len();
        kept.extend_from_slice(&buffer[..read]);
        let whole = match newline {
            Some(newline) => before + newline + 1,
            None if kept.len() == LONGEST => LONGEST,
            None => continue,
        };
        let rest = kept.split_off(whole);
        let lines = std::mem::replace(&mut kept, rest);
        if !deliver(remote, f, lines, None) {
            break false;
        }
    };
}

/// Have the loop call `f` for each of `lines` and for the end, and wait until it has; `false` if it never
/// will.
fn deliver<F>(remote: &Remote, f: &Arc<Mutex<F>>, lines: Vec<u8>, end: Option<io::Result<()>>) -> bool
where
    F: FnMut(&mut ChannelMap, Line<'_>) + Send + 'static,
{
    let f = f.clone();
    let (done, is_done) = crossbeam_channel::bounded(1);
    let sent = remote.call_across_stops(move |map| {
        let mut f = f.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            f(map, Line::Text(line));
        }
        match &end {
            None => {}
            Some(Ok(())) => f(map, Line::End),
            Some(Err(error)) => f(map, Line::Failed(error)),
        }
        let _ = done.send(());
    });
    sent && is_done.recv().is_ok()
}
