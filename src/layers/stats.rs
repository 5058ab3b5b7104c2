//! The numbers of a map for Prometheus, over a small HTTP server on the same loop.
//!
//! `GET /metrics` is answered with the [`Numbers`] in Prometheus' text format, version 0.0.4, and
//! `GET /healthz` with 200 while all is well, with 503 otherwise; `GET /channels` with a table of the first 1,000
//! channels: name, state, peer, age and time since the last byte in seconds, bytes in, out and queued.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::str;
use std::time::Duration;

use crate::{
    Address, Channel, ChannelMap, Dispatcher, Handle, Histogram, Loops, Meter, Numbers, Reason, Socket,
};
use crate::{TimerId, ToAddress, Token};

/// The most bytes that a request may have.
const REQUEST: usize = 8 * 1024;

/// The most channels in a table.
const ROWS: usize = 1000;

/// How long a connection may last.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it is kept for who has the answer and goes on sending.
const LINGER: Duration = Duration::from_secs(1);

/// How long the loops of a group may take to tell theirs.
const ANSWERS: Duration = Duration::from_secs(1);

/// How many there may be at once; others wait in the backlog.
const CONNECTIONS: usize = 16;

/// A listener that answers with the numbers of its map.
///
/// `GET` and `HEAD` of `/metrics`, `/healthz` and `/channels`; one request a connection, of at most 8 KiB,
/// within 10 s, and at most 16 connections at once, while others wait in the backlog. The listener and its
/// connections are in the background, so they do not keep [`run`](crate::run) going. They are channels like
/// others, and count in the numbers. It answers whoever connects: listen where only those can who may know.
///
/// While there is one, turns are timed, as with a [`Meter`], which costs two readings of the clock a turn.
///
/// ```
/// use dispatch_loop::ChannelMap;
/// use dispatch_loop::stats::Stats;
/// # use std::io::{Read, Write};
/// # use std::net::TcpStream;
///
/// let mut map = ChannelMap::new()?;
/// let stats = Stats::new().listen(&mut map, "127.0.0.1:0")?;       // in earnest: port 9100, say
/// # let address = map.channel(stats)?.local_addr()?.ip().unwrap();
/// # let remote = map.remote();
/// # let scraper = std::thread::spawn(move || {
/// #     let mut stream = TcpStream::connect(address).unwrap();
/// #     stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
/// #     let mut answer = String::new();
/// #     stream.read_to_string(&mut answer).unwrap();
/// #     remote.stop();
/// #     answer
/// # });
/// # map.call_later(std::time::Duration::from_secs(60), |_| ());
/// dispatch_loop::run(&mut map)?;
/// # assert!(scraper.join().unwrap().contains("dispatch_loop_accepts_total 1\n"));
/// # std::io::Result::Ok(())
/// ```
pub struct Stats(Rc<Shared>);

struct Shared {
    is_well: Box<dyn Fn(&ChannelMap) -> bool>,
    /// Those whose numbers they are, if not those of the listener's own map.
    loops: Option<Loops>,
    /// Connections that have not ended.
    connections: Cell<usize>,
}

impl Stats {
    /// All is well as long as the loop runs, and is not [drained](ChannelMap::drain).
    #[allow(clippy::new_without_default)]
    pub fn new() -> Stats {
        Stats::with_health(|map| !map.is_draining())
    }

    /// `GET /healthz` is answered with 200 while `is_well` returns true, with 503 otherwise.
    pub fn with_health(is_well: impl Fn(&ChannelMap) -> bool + 'static) -> Stats {
        Stats(Rc::new(Shared { is_well: Box::new(is_well), loops: None, connections: Cell::new(0) }))
    }

    /// The numbers of all loops of a group, summed, wherever the listener is. Each loop is asked, for at most a
    /// second: then its numbers are those of earlier, and `/healthz` answers with 503. A gauge,
    /// `dispatch_loop_connections{loop="0"}`, tells how many connections each has. In the table of channels the
    /// name begins with the number of the loop.
    ///
    /// ```
    /// use dispatch_loop::LoopGroup;
    /// use dispatch_loop::stats::Stats;
    ///
    /// let group = LoopGroup::start(2, |_, _| Ok(()))?;
    /// let loops = group.loops();
    /// let listen = move |map: &mut _| {
    ///     let listening = Stats::new().with_loops(&loops).listen(map, "127.0.0.1:0");
    ///     listening.unwrap_or_else(|error| panic!("{error}"));
    /// };
    /// group.loops().remote(0).call(listen)?;
    /// # group.stop();
    /// # group.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_loops(self, loops: &Loops) -> Stats {
        let Stats(shared) = self;
        match Rc::try_unwrap(shared) {
            Ok(shared) => Stats(Rc::new(Shared { loops: Some(loops.clone()), ..shared })),
            Err(shared) => Stats(shared), // nobody else has it yet
        }
    }

    /// Listen, in the background, and time the turns from now on.
    ///
    /// # Errors
    /// Those of [`ChannelMap::listen`].
    pub fn listen(self, map: &mut ChannelMap, address: impl ToAddress) -> io::Result<Handle<Stats>> {
        let listener = map.listen(address, self)?;
        Stats::begin(map, listener)
    }

    /// As [`listen`](Stats::listen), on a listener that was opened elsewhere, such as the one of a predecessor
    /// ([`hand_over`](crate::hand_over)).
    ///
    /// # Errors
    /// Those of [`ChannelMap::add`].
    pub fn adopt(self, map: &mut ChannelMap, listener: Socket) -> io::Result<Handle<Stats>> {
        let listener = map.add(listener, self)?;
        Stats::begin(map, listener)
    }

    fn begin(map: &mut ChannelMap, listener: Handle<Stats>) -> io::Result<Handle<Stats>> {
        map.channel(listener)?.set_background(true);
        // The loops go on timing without it.
        let _: Meter = map.meter();
        if let Some(loops) = map.get(listener).ok().and_then(|stats| stats.0.loops.clone()) {
            loops.numbers();
        }
        Ok(listener)
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stats").field("connections", &self.0.connections.get()).finish_non_exhaustive()
    }
}

impl Dispatcher for Stats {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let asker = Asker {
            shared: self.0.clone(),
            listener: ch.token(),
            request: Vec::new(),
            timer: None,
            question: None,
        };
        let asker = ch.map_mut().add(socket, asker)?;
        ch.map_mut().channel(asker)?.set_background(true);
        self.0.connections.set(self.0.connections.get() + 1);
        if self.0.connections.get() >= CONNECTIONS {
            ch.pause_reading();
        }
        Ok(())
    }
}

/// One connection.
struct Asker {
    shared: Rc<Shared>,
    listener: Token,
    /// What has come of the request.
    request: Vec<u8>,
    timer: Option<TimerId>,
    /// What the loops are asked.
    question: Option<Question>,
}

/// What can be asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Metrics,
    Channels,
    Health,
}

struct Question {
    target: Target,
    has_body: bool,
    /// What each loop has answered.
    parts: Vec<Option<Part>>,
}

/// What one loop tells.
struct Part {
    numbers: Numbers,
    rows: String,
}

impl Dispatcher for Asker {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_linger(LINGER);
        // Of the map, so that it also runs while the channel closes and lingers: a peer that does not read has no
        // more time either.
        let token = ch.token();
        let timer = ch.map_mut().call_later(PATIENCE, move |map| {
            if let Ok(mut ch) = map.channel(token) {
                ch.abort();
            }
        });
        ch.map_mut().set_timer_background(timer, true);
        self.timer = Some(timer);
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            if self.question.is_some() {
                return Ok(()); // the answer is under way
            }
            self.request.extend_from_slice(data);
            let is_whole = data.contains(&b'\n') && is_whole(&self.request);
            if !is_whole && self.request.len() <= REQUEST {
                return Ok(());
            }
            self.begin(ch)
        })
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, _: &Reason) {
        self.shared.connections.set(self.shared.connections.get() - 1);
        if let Some(timer) = self.timer.take() {
            ch.map_mut().cancel(timer);
        }
        if let Ok(mut listener) = ch.map_mut().channel(self.listener) {
            listener.resume_reading();
        }
    }
}

/// Whether the empty line has come that ends the head of a request.
fn is_whole(request: &[u8]) -> bool {
    let mut lines = request.split(|&byte| byte == b'\n');
    // What follows the last newline is no line yet.
    lines.next_back();
    lines.skip(1).any(|line| matches!(line, b"" | b"\r"))
}

impl Asker {
    /// Answer the request, at once or when the loops have answered.
    fn begin(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let request = std::mem::take(&mut self.request);
        let (target, has_body) = match target(&request) {
            Ok(target) => target,
            Err(refusal) => return finish(ch, refusal),
        };
        let Some(loops) = self.shared.loops.clone() else {
            let map = ch.map_mut();
            let answer = match target {
                Target::Metrics => metrics(&map.numbers(), None, has_body),
                Target::Channels => table(&rows(map, "", ROWS), has_body),
                Target::Health => health((self.shared.is_well)(map), has_body),
            };
            return finish(ch, answer);
        };
        let parts = (0..loops.len()).map(|_| None).collect();
        self.question = Some(Question { target, has_body, parts });
        let (back, own, most) =
            (ch.map_mut().remote(), ch.token().typed::<Asker>(), ROWS / loops.len().max(1));
        for index in 0..loops.len() {
            let back = back.clone();
            // Refused only if it has ended.
            let _ = loops.remote(index).call_after_stop(move |map| {
                let rows = match target {
                    Target::Channels => rows(map, &format!("{index}/"), most),
                    _ => String::new(),
                };
                let part = Part { numbers: map.numbers(), rows };
                let _ = back.call_after_stop(move |map| {
                    // An error: nobody waits for it any more.
                    let _ = map.with(own, |asker, ch| asker.take(ch, index, part));
                });
            });
        }
        if loops.len() > 0 {
            ch.call_later(ANSWERS, move |ch| ch.map_mut().with(own, |asker, ch| asker.end(ch)));
        }
        Ok(())
    }

    fn take(&mut self, ch: &mut Channel<'_>, index: usize, part: Part) -> io::Result<()> {
        let (Some(question), Some(loops)) = (&mut self.question, &self.shared.loops) else { return Ok(()) };
        question.parts[index] = Some(part);
        let is_due =
            |(index, part): (usize, &Option<Part>)| part.is_none() && !loops.remote(index).is_stopped();
        match question.parts.iter().enumerate().any(is_due) {
            true => Ok(()),
            false => self.end(ch),
        }
    }

    /// All loops have answered, or the time is over.
    fn end(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let (Some(question), Some(loops)) = (self.question.take(), &self.shared.loops) else { return Ok(()) };
        let has_body = question.has_body;
        let answer = match question.target {
            Target::Metrics => {
                let mut sum: Option<Numbers> = None;
                // Of those that have not answered, the numbers of earlier: counters only grow.
                for (part, before) in question.parts.into_iter().zip(loops.numbers()) {
                    let numbers = part.map_or(before, |part| part.numbers);
                    match &mut sum {
                        Some(sum) => sum.add(&numbers),
                        None => sum = Some(numbers),
                    }
                }
                metrics(&sum.unwrap_or_else(|| ch.map().numbers()), Some(&loops.loads()), has_body)
            }
            Target::Channels => {
                let rows: Vec<String> = question.parts.into_iter().flatten().map(|part| part.rows).collect();
                table(&rows.concat(), has_body)
            }
            Target::Health => {
                let all = question.parts.iter().all(Option::is_some);
                health(all && (self.shared.is_well)(ch.map()), has_body)
            }
        };
        finish(ch, answer)
    }
}

/// What is asked for, and whether with its body; or the answer to a request that is none of these.
fn target(request: &[u8]) -> Result<(Target, bool), Vec<u8>> {
    if request.len() > REQUEST {
        return Err(answer("431 Request Header Fields Too Large", "", "", true));
    }
    let line = request.split(|&byte| byte == b'\n').next().and_then(|line| str::from_utf8(line).ok());
    let words: Vec<&str> = line.unwrap_or_default().trim_end_matches('\r').split(' ').collect();
    let (method, target) = match words[..] {
        [method, target, version] if version.starts_with("HTTP/1.") => (method, target),
        _ => return Err(answer("400 Bad Request", "", "", true)),
    };
    let has_body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => return Err(answer("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "", true)),
    };
    match target.split('?').next() {
        Some("/metrics") => Ok((Target::Metrics, has_body)),
        Some("/channels") => Ok((Target::Channels, has_body)),
        Some("/healthz") => Ok((Target::Health, has_body)),
        _ => Err(answer("404 Not Found", "", "", has_body)),
    }
}

fn finish(ch: &mut Channel<'_>, answer: Vec<u8>) -> io::Result<()> {
    ch.push_vec(answer)?;
    ch.close();
    Ok(())
}

fn metrics(numbers: &Numbers, loads: Option<&[usize]>, has_body: bool) -> Vec<u8> {
    let body = format!("{}{}{Process}", text(numbers), Loads(loads.unwrap_or_default()));
    answer("200 OK", "Cache-Control: no-store\r\n", &body, has_body)
}

fn table(rows: &str, has_body: bool) -> Vec<u8> {
    let body = format!("channel\tstate\tpeer\tage\tidle\tin\tout\tqueued\n{rows}");
    answer("200 OK", "Cache-Control: no-store\r\n", &body, has_body)
}

fn health(is_well: bool, has_body: bool) -> Vec<u8> {
    match is_well {
        true => answer("200 OK", "Cache-Control: no-store\r\n", "ok\n", has_body),
        false => answer("503 Service Unavailable", "Cache-Control: no-store\r\n", "", has_body),
    }
}

/// How many connections each loop of a group has.
struct Loads<'a>(&'a [usize]);

impl fmt::Display for Loads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() {
            head(f, "connections", "gauge", "Connections of each loop.")?;
        }
        for (index, load) in self.0.iter().enumerate() {
            writeln!(f, "dispatch_loop_connections{{loop=\"{index}\"}} {load}")?;
        }
        Ok(())
    }
}

/// Rows of a table of the channels, with tabs between the columns.
fn rows(map: &mut ChannelMap, prefix: &str, most: usize) -> String {
    let mut table = String::new();
    let tokens: Vec<Token> = map.tokens().take(most).collect();
    for token in tokens {
        let Ok(ch) = map.channel(token) else { continue };
        let state = match () {
            () if ch.is_listening() => "listening",
            () if ch.is_connecting() => "connecting",
            () if ch.is_closing() => "closing",
            () if ch.is_paused() => "paused",
            () => "open",
        };
        let address = ch.peer_addr().or_else(|_| ch.local_addr());
        let address = address.map_or_else(|_| "-".to_owned(), |address| address.to_string());
        let idle = ch.last_activity().map_or("-".to_owned(), |idle| format!("{:.2}", idle.as_secs_f64()));
        let (age, received, sent) = (ch.age().as_secs_f64(), ch.bytes_in(), ch.bytes_out());
        let queued = ch.queued();
        let row =
            format!("{prefix}{token}\t{state}\t{address}\t{age:.2}\t{idle}\t{received}\t{sent}\t{queued}\n");
        table += &row;
    }
    table
}

/// The whole of an answer, whose body is that of its status if it has none.
fn answer(status: &str, fields: &str, body: &str, has_body: bool) -> Vec<u8> {
    let of_status = format!("{status}\n");
    let body = if body.is_empty() { &of_status } else { body };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n{fields}\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if has_body {
        answer += body;
    }
    answer.into_bytes()
}

/// The numbers in Prometheus' text format, version 0.0.4, for an HTTP server of one's own.
///
/// ```
/// use dispatch_loop::{ChannelMap, stats};
///
/// let map = ChannelMap::new()?;
/// let text = stats::text(&map.numbers()).to_string();
/// assert!(text.contains("# TYPE dispatch_loop_turns_total counter\ndispatch_loop_turns_total 0\n"));
/// # std::io::Result::Ok(())
/// ```
pub fn text(numbers: &Numbers) -> impl fmt::Display {
    Text(numbers)
}

struct Text<'a>(&'a Numbers);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        let counters = [
            ("turns", "Turns of the loop; in each it waits once.", n.turns),
            ("events", "Descriptors that were reported ready.", n.events),
            ("hooks", "Hooks that were called.", n.hooks),
            ("received_bytes", "Bytes that channels have received.", n.bytes_in),
            ("sent_bytes", "Bytes that the system has taken from channels.", n.bytes_out),
            ("accepts", "Connections that listeners have accepted.", n.accepts),
            ("accept_errors", "Calls of accept that failed.", n.accept_errors),
        ];
        for (name, help, value) in counters {
            let name = format!("{name}_total");
            head(f, &name, "counter", help)?;
            writeln!(f, "dispatch_loop_{name} {value}")?;
        }
        let refused = "Connections that were accepted and refused, by limit.";
        by(f, "refusals_total", "limit", refused, n.refusals())?;
        let slow = "How often a hook took longer than the threshold, by hook.";
        by(f, "slow_hooks_total", "hook", slow, n.slow_hooks())?;
        let rests = "How often a listener had to rest though somebody waited, by cause.";
        by(f, "rests_total", "cause", rests, n.rests())?;
        by(f, "closes_total", "reason", "Channels that have ended, by reason.", n.closes())?;
        head(f, "channels", "gauge", "Channels in the map, by state.")?;
        let states = [
            ("listening", n.listening),
            ("connecting", n.connecting),
            ("open", n.open),
            ("closing", n.closing),
        ];
        for (state, count) in states {
            writeln!(f, "dispatch_loop_channels{{state=\"{state}\"}} {count}")?;
        }
        let gauges = [
            ("queued_bytes", "Bytes queued on all channels.", n.queued),
            ("timers", "Timers set, the library's own included.", n.timers as u64),
            ("messages", "Messages of other threads that wait.", n.messages as u64),
            ("blocking_waiting", "Blocking calls that wait for a thread.", n.blocking_waiting as u64),
            ("blocking_running", "Blocking calls that are under way.", n.blocking_running as u64),
        ];
        for (name, help, value) in gauges {
            gauge(f, name, help, value)?;
        }
        histogram(f, "turn_seconds", "How long turns took, without their waits.", &n.turn_time)?;
        histogram(f, "timer_lag_seconds", "How late timers ran.", &n.lag)
    }
}

fn head(f: &mut fmt::Formatter<'_>, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(f, "# HELP dispatch_loop_{name} {help}\n# TYPE dispatch_loop_{name} {kind}")
}

/// A counter for each value of a label.
fn by<'a>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    label: &str,
    help: &str,
    counts: impl Iterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    head(f, name, "counter", help)?;
    for (value, count) in counts {
        writeln!(f, "dispatch_loop_{name}{{{label}=\"{value}\"}} {count}")?;
    }
    Ok(())
}

fn gauge(f: &mut fmt::Formatter<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    head(f, name, "gauge", help)?;
    writeln!(f, "dispatch_loop_{name} {value}")
}

fn histogram(f: &mut fmt::Formatter<'_>, name: &str, help: &str, times: &Histogram) -> fmt::Result {
    head(f, name, "histogram", help)?;
    let mut below = 0;
    for (bound, count) in times.buckets() {
        below += count;
        match bound {
            Some(bound) => {
                writeln!(f, "dispatch_loop_{name}_bucket{{le=\"{}\"}} {below}", bound.as_secs_f64())
            }
            None => writeln!(f, "dispatch_loop_{name}_bucket{{le=\"+Inf\"}} {below}"),
        }?;
    }
    writeln!(f, "dispatch_loop_{name}_sum {}", times.sum().as_secs_f64())?;
    writeln!(f, "dispatch_loop_{name}_count {below}")
}

/// What the system tells of this process, where that costs next to nothing: on Linux.
struct Process;

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bytes) = resident() {
            gauge(f, "process_resident_memory_bytes", "Memory of the process that is in use.", bytes)?;
        }
        if let Some(descriptors) = descriptors() {
            gauge(f, "process_open_fds", "Descriptors of the process that are open.", descriptors)?;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Since Linux 6.2 the size of the folder is their number; before that, it is 0.
#[cfg(target_os = "linux")]
fn descriptors() -> Option<u64> {
    std::fs::metadata("/proc/self/fd").ok().map(|about| about.len()).filter(|&number| number > 0)
}

#[cfg(not(target_os = "linux"))]
fn resident() -> Option<u64> {
    None
}

#[cfg(not(target_os = "linux"))]
fn descriptors() -> Option<u64> {
    None
}
