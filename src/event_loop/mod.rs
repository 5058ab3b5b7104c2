//! The loop: asyncore's `loop()`, turn by turn.

pub(crate) mod accept;
pub(crate) mod accepted;
pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod bandwidth;
pub(crate) mod broken;
pub(crate) mod closing;
pub(crate) mod connect;
pub(crate) mod datagram;
pub(crate) mod deadlines;
pub(crate) mod dial;
pub(crate) mod drain;
pub(crate) mod drive;
pub(crate) mod handshake;
pub(crate) mod hooks;
pub(crate) mod messages;
pub(crate) mod output;
pub(crate) mod overdue;
#[cfg(feature = "proxy-protocol")]
pub(crate) mod preface;
pub(crate) mod registration;
pub(crate) mod serve;
pub(crate) mod settle;
pub(crate) mod teardown;
pub(crate) mod timers;
pub(crate) mod upgrade;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::clock::Time;
use crate::core::map::ChannelMap;
use crate::event_loop::hooks::Entered;
use crate::sys::errno::is_interrupted;
use crate::threads::pulse::Running;
use crate::threads::queue::Queue;
use crate::token::Token;

/// How [`run_with`] runs: the arguments of asyncore's `loop(timeout, use_poll, map, count)`.
///
/// ```
/// use dispatch_loop::{ChannelMap, LoopOptions};
/// use std::time::Duration;
///
/// let mut map = ChannelMap::new()?;
/// map.call_later(Duration::from_secs(3600), |_| ());
/// let options = LoopOptions::default().with_timeout(Duration::from_millis(10)).with_count(3);
/// dispatch_loop::run_with(&mut map, &options)?;       // three waits, not an hour
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopOptions {
    /// The longest that one wait may take. Default `None`: wait until there is something to do.
    /// (Python's default is 30 s.)
    pub timeout: Option<Duration>,
    /// Return after this many waits. Default `None`: go on until the map is empty.
    pub count: Option<u64>,
    /// Ask `readable` and `writable` of every channel every turn, as Python does, at a cost that
    /// grows with the number of channels. For ported programs whose answers change without the loop
    /// noticing. Default `false`.
    pub rescan: bool,
    /// Go on also when no channel, timer or message is left, until [`stop`](ChannelMap::stop) is called or a
    /// [`drain`](ChannelMap::drain) is over. For a map that is fed by a [`Remote`](crate::Remote). Default
    /// `false`.
    pub until_stopped: bool,
}

impl LoopOptions {
    /// Set [`timeout`](LoopOptions::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: impl Into<Option<Duration>>) -> LoopOptions {
        self.timeout = timeout.into();
        self
    }

    /// Set [`count`](LoopOptions::count).
    #[must_use]
    pub fn with_count(mut self, count: impl Into<Option<u64>>) -> LoopOptions {
        self.count = count.into();
        self
    }

    /// Set [`rescan`](LoopOptions::rescan).
    #[must_use]
    pub fn with_rescan(mut self, rescan: bool) -> LoopOptions {
        self.rescan = rescan;
        self
    }

    /// Set [`until_stopped`](LoopOptions::until_stopped).
    #[must_use]
    pub fn with_until_stopped(mut self, until_stopped: bool) -> LoopOptions {
        self.until_stopped = until_stopped;
        self
    }
}

/// Drive the channels of `map` until none is left and no timer is set,
/// [`stop`](ChannelMap::stop) is called, or a [`drain`](ChannelMap::drain) is over: asyncore's `loop()`.
///
/// When it is stopped, channels stay, and the next call continues with them. However it returns,
/// [remotes](crate::Remote) and [outlets](crate::Outlet) refuse what comes after that, and threads that wait
/// in one are woken: `run` may never be called again. The next `run` or [`turn`](ChannelMap::turn) lets them
/// in again; a program that does other work between its turns calls `turn`, after which they stay open.
///
/// # Errors
/// The poller failed, or this is called from inside one of the map's own hooks (`Deadlock`). When nothing is
/// left to do, and the listener that ended last ended with an error: that error, with its address, so that a
/// server that has lost its listeners does not look as if it had been told to end. (A
/// [`handle_error`](crate::Dispatcher::handle_error) that ends the listener itself, by
/// [`abort`](crate::Channel::abort) and [`OnError::Keep`](crate::OnError::Keep), has taken care of it.)
#[doc(alias = "loop")]
pub fn run(map: &mut ChannelMap) -> io::Result<()> {
    run_with(map, &LoopOptions::default())
}

/// As [`run`], with options: `loop(timeout, use_poll, map, count)`.
///
/// # Errors
/// As [`run`].
#[doc(alias = "loop")]
pub fn run_with(map: &mut ChannelMap, options: &LoopOptions) -> io::Result<()> {
    refuse_nested(map)?;
    map.set_stopped(false);
    let mut waits = 0;
    let mut id = map.id;
    let mut entered = Entered::now(id);
    let mut running = map.running();
    let mut queue = map.queue.as_ref().map(Queue::shared);
    loop {
        if map.id != id {
            // A hook swapped the maps. The other one may never run again.
            drop((entered, running));
            queue.take().iter().for_each(|left| left.set_stopped(true));
            refuse_nested(map)?;
            id = map.id;
            entered = Entered::now(id);
            running = map.running();
            map.let_messages_in();
        }
        queue = queue.or_else(|| map.queue.as_ref().map(Queue::shared));
        if map.is_stop_asked() {
            map.take_stop();
            map.set_stopped(true);
            return Ok(());
        }
        if map.drain.is_some() && map.has_run_all_messages() && drain::is_concluded(map) {
            if map.id != id {
                continue;
            }
            map.set_stopped(true);
            return Ok(());
        }
        let counted_out = options.count.is_some_and(|count| waits >= count);
        let idle =
            !options.until_stopped && map.is_idle() && map.queue.as_ref().is_none_or(Queue::shut_if_empty);
        if idle || counted_out {
            map.set_stopped(true);
            if idle {
                return map.failed_listener.take().map_or(Ok(()), Err);
            }
            return Ok(());
        }
        let quick = options.timeout.is_none() && !options.rescan && map.is_calm() && !map.has_due_timer();
        let turned = match quick {
            true => quick_turns(map, &mut waits, options.count.unwrap_or(u64::MAX)),
            false => {
                waits += 1;
                turn_of_entered(map, options.timeout, options.rescan, Turning::of(options))
            }
        };
        turned.inspect_err(|_| map.set_stopped(true))?;
    }
}

impl ChannelMap {
    /// One turn of the loop: settle, wait for at most `timeout` (`None`: as long as it takes), serve
    /// what is ready, run due timers and messages, settle. Python's `poll()`. It does not wait if its
    /// settle ends the last channel, nor, with `None`, if nothing could end the wait.
    ///
    /// # Errors
    /// The poller failed, or this is called from inside one of the map's own hooks (`Deadlock`).
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        refuse_nested(self)?;
        let _entered = Entered::now(self.id);
        let _running = self.running();
        self.let_messages_in();
        let id = self.id;
        turn_of_entered(self, timeout, false, Turning::Once)?;
        if self.id == id && self.drain.is_some() {
            drain::is_concluded(self);
        }
        Ok(())
    }

    /// Whether [`run`] would return: no channel is left except those in the background
    /// ([`set_background`](crate::Channel::set_background)), and there is no timer and no message from
    /// another thread. Time limits, `set_timeout` among them, are no timers: they count with their channel.
    pub fn is_idle(&self) -> bool {
        // A connect attempt is its channel's business; one that is over is still to be closed.
        self.slots.len() == self.background + self.internal
            && (self.internal == 0 || self.dirty.is_empty())
            && !self.timers.keeps()
            && self.queue.as_ref().is_none_or(Queue::is_empty)
    }

    /// The loop is run from now on.
    fn running(&self) -> Running {
        if self.reading.is_some() {
            self.pulse.see(self.clock.now().instant());
        }
        Running::now(self.pulse.clone())
    }

    #[inline]
    fn is_stop_asked(&self) -> bool {
        self.stopping || self.queue.as_ref().is_some_and(Queue::is_stop_asked)
    }

    fn take_stop(&mut self) {
        self.stopping = false;
        if let Some(queue) = &self.queue {
            queue.take_stop();
        }
    }

    /// Its `run` has returned or gone on with another map, perhaps, and it turns again.
    fn let_messages_in(&mut self) {
        if self.stopped || self.queue.as_ref().is_some_and(Queue::is_stopped) {
            self.set_stopped(false);
        }
    }

    fn set_stopped(&mut self, stopped: bool) {
        self.stopped = stopped;
        if let Some(queue) = &self.queue {
            queue.set_stopped(stopped);
        }
    }
}

fn refuse_nested(map: &ChannelMap) -> io::Result<()> {
    if map.ended || Entered::is(map.id) {
        return Err(io::Error::new(
            io::ErrorKind::Deadlock,
            "the loop of this map is running already; a hook must return to it, not start it anew",
        ));
    }
    Ok(())
}

/// Who turns, and for how long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turning {
    /// `turn` does.
    Once,
    UntilIdle,
    UntilStopped,
}

impl Turning {
    fn of(options: &LoopOptions) -> Turning {
        if options.until_stopped { Turning::UntilStopped } else { Turning::UntilIdle }
    }
}

/// Turns that begin with nothing due but future timers, in a tight loop under one `catch_unwind`, up to
/// the first that leaves something to be done.
fn quick_turns(map: &mut ChannelMap, waits: &mut u64, most: u64) -> io::Result<()> {
    let id = map.id;
    // How far the last batch was served; at first there is none.
    let mut next = usize::MAX;
    loop {
        let circle = AssertUnwindSafe(|| -> io::Result<()> {
            loop {
                serve::serve_batch(map, id, next);
                if map.id != id {
                    return Ok(());
                }
                if !map.is_calm() {
                    if !map.only_asks() {
                        return Ok(());
                    }
                    settle::ask_those_that_read(map);
                    if map.id != id || !map.is_calm() {
                        return Ok(());
                    }
                }
                if *waits >= most || map.has_due_timer() {
                    return Ok(());
                }
                let timeout = map.time_to_first_timer();
                map.turn_is_over();
                map.turn.number = map.turn.number.wrapping_add(1);
                map.pulse.rest();
                map.poll.wait(timeout)?;
                *waits += 1;
                map.waited(timeout.is_some());
                next = 0;
            }
        });
        match catch_unwind(circle) {
            Ok(Ok(())) => break,
            // Interrupted by a signal: what was ready has been served; wait for the time left.
            Ok(Err(error)) if is_interrupted(&error) => next = usize::MAX,
            Ok(Err(error)) => return Err(error),
            Err(payload) => next = serve::after_panic(map, id, payload),
        }
    }
    if map.id == id {
        finish_turn(map, id);
        map.turn_is_over();
    }
    Ok(())
}

/// Settle, wait, serve what is ready, run timers and messages, settle.
#[inline(never)]
fn turn_of_entered(
    map: &mut ChannelMap,
    timeout: Option<Duration>,
    rescan: bool,
    turning: Turning,
) -> io::Result<()> {
    let id = map.id;
    map.turn.number = map.turn.number.wrapping_add(1);
    let (timeout, begun) = match before_the_wait(map, timeout, rescan, turning) {
        Some(wait) => wait,
        None => return Ok(()),
    };
    map.pulse.rest();
    match map.poll.wait(timeout) {
        Ok(()) => {}
        Err(error) => wait_again(map, error, timeout, begun)?,
    }
    let _at_work = map.queue.as_ref().map(Queue::at_work);
    map.waited(!map.timers.is_empty());
    serve::serve_all(map);
    if map.id == id {
        finish_turn(map, id);
        map.turn_is_over();
    }
    Ok(())
}

impl ChannelMap {
    /// Whether there are channels, none of them is dirty, and only descriptors and timers can bring work: no
    /// other thread has a `Remote` or an `Outlet`.
    #[inline(always)]
    fn is_calm(&self) -> bool {
        let lists = self.dirty.len() | self.asking.len() | self.pending.len();
        lists | self.out as usize | usize::from(self.stopping) == 0
            && self.gather.is_free()
            && self.slots.len() != self.background + self.internal
            && self.queue.is_none()
    }

    /// Whether only `readable` and `writable` are still to be asked in this turn.
    #[inline(never)]
    fn only_asks(&self) -> bool {
        !self.asking.is_empty() && self.dirty.is_empty() && self.pending.is_empty() && !self.has_due_timer()
    }

    /// Whether a timer is due in this turn.
    #[inline(always)]
    fn has_due_timer(&self) -> bool {
        self.timers.first_deadline().is_some_and(|deadline| deadline <= self.turn.time)
    }

    #[inline(always)]
    fn time_to_first_timer(&self) -> Option<Duration> {
        self.timers.first_deadline().map(|deadline| deadline.since(self.clock.now()))
    }
}

/// A wait has failed. If a signal interrupted it, wait again for the time left.
#[cold]
#[inline(never)]
fn wait_again(
    map: &mut ChannelMap,
    mut error: io::Error,
    timeout: Option<Duration>,
    begun: Time,
) -> io::Result<()> {
    while is_interrupted(&error) {
        let left = timeout.map(|timeout| timeout.saturating_sub(map.clock.now().since(begun)));
        match map.poll.wait(left) {
            Ok(()) => return Ok(()),
            Err(next) => error = next,
        }
    }
    Err(error)
}

/// Does what is due before the wait; returns how long the wait may take and when it begins, or `None` if
/// a hook swapped the maps.
#[inline(never)]
fn before_the_wait(
    map: &mut ChannelMap,
    timeout: Option<Duration>,
    rescan: bool,
    turning: Turning,
) -> Option<(Option<Duration>, Time)> {
    let id = map.id;
    if map.out > 0 || !map.gather.is_free() {
        teardown::free_orphans(map);
    }
    if rescan {
        let tokens: Vec<Token> = map.tokens().collect();
        for token in tokens {
            map.touch(token);
        }
    }
    let was_idle = map.is_idle();
    // What is flushed now is stamped with the time of now, not with that of the last turn.
    if !map.dirty.is_empty() {
        map.keep_time();
    }
    settle::settle(map);
    if map.id != id {
        return None;
    }
    // Do not wait if a hook called `stop`, if the settle ended the last channel (callers of `turn` look
    // for that), or if nothing could end the wait.
    let stopped = turning != Turning::Once && map.is_stop_asked();
    let idle = turning != Turning::UntilStopped && map.is_idle() && (!was_idle || timeout.is_none());
    let over = idle || (map.drain.is_some() && map.has_done_draining());
    let now = map.clock.now();
    if stopped || over {
        return Some((Some(Duration::ZERO), now));
    }
    let timeout = match (timeout, map.wait_limit_at(now)) {
        (Some(timeout), Some(limit)) => Some(timeout.min(limit)),
        (timeout, limit) => timeout.or(limit),
    };
    Some((timeout, now))
}

/// The rest of a turn. It stops when a hook has swapped the maps.
#[inline(never)]
fn finish_turn(map: &mut ChannelMap, id: u32) {
    if !map.pending.is_empty() {
        serve::serve_pending(map, id);
    }
    if map.id == id && !map.timers.is_empty() {
        timers::run_timers(map);
    }
    if map.id == id && map.queue.as_ref().is_some_and(Queue::has_news) {
        messages::run_messages(map);
    }
    if map.id == id && (!map.dirty.is_empty() || !map.asking.is_empty()) {
        settle::settle(map);
    }
}
