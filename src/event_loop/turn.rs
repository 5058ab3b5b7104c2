//! One turn: settle, wait, serve what is ready, run timers and messages, settle.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Time;
use crate::core::action::Message;
use crate::core::map::ChannelMap;
#[cfg(feature = "testing")]
use crate::event_loop::scripted;
use crate::event_loop::{LoopOptions, messages, serve, settle, teardown, timers};
use crate::sys::errno::is_interrupted;
use crate::threads::queue::{Queue, Shared as Mailbox};
use crate::token::Token;

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
/// A turn, or as many as can be had in a tight loop; counts their waits.
#[inline]
pub(crate) fn turns(map: &mut ChannelMap, options: &LoopOptions, waits: &mut u64) -> io::Result<()> {
    let is_quick = options.timeout.is_none() && !options.rescan && map.gather.is_free();
    if is_quick && map.is_calm() && !map.has_due_timer() {
        let most = options.count.unwrap_or(u64::MAX);
        return match map.is_timed() {
            false => quick_turns::<false>(map, waits, most),
            true => quick_turns::<true>(map, waits, most),
        };
    }
    *waits += 1;
    turn(map, options.timeout, options.rescan, Turning::of(options))
}

/// The turn of a [`turn`](ChannelMap::turn).
pub(crate) fn once(map: &mut ChannelMap, timeout: Option<Duration>) -> io::Result<()> {
    turn(map, timeout, false, Turning::Once)
}

/// Turns that begin with nothing due but future timers, in a tight loop under one `catch_unwind`, up to
/// the first that leaves something to be done. `MEASURED`: other threads read the map's numbers, so turns are timed.
#[inline]
fn quick_turns<const MEASURED: bool>(map: &mut ChannelMap, waits: &mut u64, most: u64) -> io::Result<()> {
    let id = map.id;
    let work = Work(map.queue.as_ref().map(Queue::shared));
    // How far the last batch was served; at first there is none.
    let mut next = usize::MAX;
    loop {
        let circle = AssertUnwindSafe(|| -> io::Result<()> {
            loop {
                serve::serve_batch(map, id, next);
                if map.id != id {
                    return Ok(());
                }
                debug_assert!(map.gather.is_free());
                // Before it looks whether there are messages.
                work.leave();
                if !map.is_calm() {
                    if !map.only_asks() {
                        return Ok(());
                    }
                    settle::ask_those_that_read(map);
                    if map.id != id || !map.is_calm() {
                        return Ok(());
                    }
                }
                if *waits >= most || map.has_due_timer() || map.is_timed() != MEASURED {
                    return Ok(());
                }
                if MEASURED {
                    map.measure_turn();
                }
                map.turn.number = map.turn.number.wrapping_add(1);
                map.pulse.rest();
                let is_timed = !map.timers.is_empty();
                match is_timed {
                    false => map.poll.wait(None)?,
                    true => map.wait_for_timer()?,
                }
                work.begin();
                *waits += 1;
                if MEASURED {
                    map.begin_to_measure();
                }
                map.woke(is_timed);
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
        work.begin();
        finish_turn(map, id);
        map.turn_is_over();
    }
    Ok(())
}

/// While the loop is at work, who has a message for it need not wake it: it looks before it waits.
struct Work(Option<Arc<Mailbox<Message>>>);

impl Work {
    #[inline(always)]
    fn begin(&self) {
        if let Some(mailbox) = &self.0 {
            mailbox.go_to_work();
        }
    }

    #[inline(always)]
    fn leave(&self) {
        if let Some(mailbox) = &self.0 {
            mailbox.leave_work();
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Settle, wait, serve what is ready, run timers and messages, settle.
#[inline(never)]
fn turn(map: &mut ChannelMap, timeout: Option<Duration>, rescan: bool, turning: Turning) -> io::Result<()> {
    let id = map.id;
    map.turn.number = map.turn.number.wrapping_add(1);
    let (timeout, begun) = match before_the_wait(map, timeout, rescan, turning) {
        Some(wait) => wait,
        None => return Ok(()),
    };
    #[cfg(feature = "testing")]
    let timeout = scripted::instead_of_waiting(map, timeout)?;
    map.pulse.rest();
    match map.poll.wait(timeout) {
        Ok(()) => {}
        Err(error) => wait_again(map, error, timeout, begun)?,
    }
    let work = Work(map.queue.as_ref().map(Queue::shared));
    work.begin();
    map.waited(!map.timers.is_empty());
    serve::serve_all(map);
    if map.id == id {
        finish_turn(map, id);
        map.turn_is_over();
    }
    Ok(())
}

impl ChannelMap {
    /// Whether there are channels, none of them is dirty, and only descriptors and timers can bring work: other
    /// threads have sent no message.
    #[inline(always)]
    fn is_calm(&self) -> bool {
        #[cfg(feature = "testing")]
        if self.stage.is_some() {
            return false;
        }
        let lists = self.dirty.len() | self.asking.len() | self.pending.len();
        lists | self.out as usize | usize::from(self.stopping) == 0
            && self.slots.len() != self.background + self.internal
            && self.queue.as_ref().is_none_or(|queue| !queue.has_news())
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

    #[inline(never)]
    fn wait_for_timer(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        let left = self.timers.first_deadline().map(|deadline| deadline.since(now));
        self.poll.wait(left)
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
