//! Lines of standard input, or of anything else that blocks, brought into the loop by a thread of
//! their own: terminals and files cannot be polled everywhere. Stands on `Remote` alone.

use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::core::map::ChannelMap;
use crate::threads::remote::Remote;

/// A longer line comes in pieces of this many bytes.
const LONGEST: usize = 64 * 1024;

/// What [`read_lines`] calls back with.
///
/// ```
/// use dispatch_loop::Line;
///
/// fn show(line: Line<'_>) {
///     match line {
///         Line::Text(text) => println!("{}", text.escape_ascii()),
///         Line::End => println!("that was all"),
///         Line::Failed(error) => println!("cannot read on: {error}"),
///     }
/// }
/// # show(Line::Text(b"hello\n"));
/// ```
// Exhaustive: a `Read` has no fourth outcome.
#[derive(Clone, Copy, Debug)]
pub enum Line<'a> {
    /// A line with its newline; the last one may have none. One over 64 KiB comes in pieces of
    /// that size.
    Text(&'a [u8]),
    /// The end of the input. Nothing follows.
    End,
    /// Reading failed. Nothing follows.
    Failed(&'a io::Error),
}

/// Read `input` (standard input, as a rule) in a new thread, and call `f` on the loop's thread for each
/// line and for the end.
///
/// It reads ahead of the loop by at most 64 KiB: `f` is called for what was read, and only then
/// the thread reads on. The thread ends with the input, or with the map; it does not keep the loop
/// running, nor the program; while the loop is stopped it waits. A panic of `f` is caught and logged, and ends the reading.
///
/// # Errors
/// The thread could not be started.
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
    // The beginning of a line whose end has not come yet; always shorter than `LONGEST`.
    let mut kept = Vec::new();
    let _all_delivered = loop {
        let room = LONGEST - kept.len();
        let read = match input.read(&mut buffer[..room]) {
            Ok(0) => break deliver(remote, f, kept, Some(Ok(()))),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => break deliver(remote, f, kept, Some(Err(error))),
        };
        // Only what is new can have a newline.
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

/// Have `f` called for each of `lines`, and for the end, and wait until that is done; `false` when
/// it will never be.
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
