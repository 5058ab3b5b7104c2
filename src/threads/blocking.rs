//! Calls that block, on threads of their own, whose results come back to the loop.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::core::action::{MapCall, Message};
use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::error::{LookupError, panicked};
use crate::event_loop::messages::guarded;
use crate::event_loop::{hooks, timers};
use crate::guard::Apart;
use crate::report::Escaped;
use crate::threads::pool::Pool;
use crate::threads::pulse::Work;
use crate::token::Token;

/// Where the thread puts what came of the work, and the loop finds it.
type Outcome<R> = Arc<Mutex<Option<Apart<thread::Result<R>>>>>;

fn take<R>(outcome: &Outcome<R>) -> Option<thread::Result<R>> {
    outcome.lock().unwrap_or_else(PoisonError::into_inner).take()?.into_inner()
}

/// The work, what is done with its result, and the result are the user's, and each may panic when it is dropped.
fn apart<T>(value: T) -> Apart<T> {
    Apart::new("a call that blocks", value)
}

impl ChannelMap {
    /// Have another thread do `work`, which may block, and call `done` with its result on this one: reading files,
    /// asking a database, hashing a password. asyncio's `run_in_executor`.
    ///
    /// At most 8 are done at once, each on a thread of its own, and at most 1,024 wait, in the order in which they
    /// came ([`set_blocking_limits`](ChannelMap::set_blocking_limits)); look-ups of names have threads of their
    /// own. [`run`](crate::run) does not return before `done` has run. If the map is dropped, work that has not
    /// begun is dropped, too, and the results of the rest. A panic of `work` is caught and logged; `done` is
    /// dropped then.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    ///
    /// let mut map = ChannelMap::new()?;
    /// map.spawn_blocking(|| std::fs::read_to_string("/etc/hostname"), |_, text| println!("{text:?}"))?;
    /// dispatch_loop::run(&mut map)?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// `QuotaExceeded` if too many wait; the system has no thread left.
    pub fn spawn_blocking<R, W, F>(&mut self, work: W, done: F) -> io::Result<()>
    where
        R: Send + 'static,
        W: FnOnce() -> R + Send + 'static,
        F: FnOnce(&mut ChannelMap, R) + 'static,
    {
        let (work, done) = (apart(work), apart(done));
        self.spawn(None, work, |outcome| {
            Box::new(move |map| match take(&outcome) {
                Some(Ok(result)) => guarded(map, Work::Blocking, |map| {
                    if let Some(done) = done.into_inner() {
                        done(map, result);
                    }
                }),
                Some(Err(payload)) => {
                    let error = panicked(payload);
                    if map.throttle.admits() {
                        log::warn!("a blocking call {}", Escaped(error));
                    }
                }
                None => {}
            })
        })
    }

    /// How many [calls that block](ChannelMap::spawn_blocking) are done at once (default 8, at least 1), and how
    /// many may wait for a thread (default 1,024) before more are refused. Threads are started as they are needed,
    /// and end when they had nothing to do for 10 s.
    pub fn set_blocking_limits(&mut self, threads: usize, waiting: usize) {
        self.pool().set_limits(threads, waiting);
    }

    pub(crate) fn pool(&mut self) -> &mut Pool<MapCall> {
        self.work.get_or_insert_with(|| Box::new(Pool::new()))
    }

    fn spawn<R, W>(
        &mut self,
        owner: Option<Token>,
        work: Apart<W>,
        done: impl FnOnce(Outcome<R>) -> MapCall,
    ) -> io::Result<()>
    where
        R: Send + 'static,
        W: FnOnce() -> R + Send + 'static,
    {
        let answers = self.open_queue().answers();
        let outcome = Outcome::<R>::default();
        let done = done(outcome.clone());
        self.pool().add(owner, done, |number| {
            Box::new(move |busy| {
                let Some(work) = work.into_inner() else { return };
                let result = apart(catch_unwind(AssertUnwindSafe(work)));
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                // If the loop does not want it any more, it is dropped here.
                drop(outcome);
                // Whoever is given the result may ask for the next one at once.
                drop(busy);
                answers.give(Message::Call(Box::new(move |map| finish(map, number))));
            })
        })
    }
}

/// The result of a call is there.
pub(crate) fn finish(map: &mut ChannelMap, number: u64) {
    let Some((owner, done)) = map.work.as_mut().and_then(|pool| pool.take(number)) else { return };
    if let Some(link) = owner.and_then(|owner| map.link_mut(owner)) {
        link.awaits_one_less();
    }
    done(map);
}

impl Channel<'_> {
    /// As [`ChannelMap::spawn_blocking`], for this channel: if it has ended, work that has not begun is not done, and
    /// results are dropped. While a result is awaited, the channel counts as [busy](Channel::set_busy). An `Err` of
    /// `done` goes to `handle_error`; a panic, also of `work`, ends the channel.
    ///
    /// ```
    /// use dispatch_loop::{Channel, Dispatcher};
    /// use std::io;
    ///
    /// /// Sends the file that each line names.
    /// struct Files;
    ///
    /// impl Dispatcher for Files {
    ///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         ch.read_with(|ch, line| {
    ///             let name = String::from_utf8_lossy(line).trim().to_owned();
    ///             ch.spawn_blocking(move || std::fs::read(name), |ch, content| ch.push_vec(content?))
    ///         })
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`ChannelMap::spawn_blocking`]; the channel has ended.
    pub fn spawn_blocking<R, W, F>(&mut self, work: W, done: F) -> io::Result<()>
    where
        R: Send + 'static,
        W: FnOnce() -> R + Send + 'static,
        F: FnOnce(&mut Channel<'_>, R) -> io::Result<()> + 'static,
    {
        let (work, done) = (apart(work), apart(done));
        let token = self.token();
        let map = self.map_mut();
        if map.link(token).is_none_or(|link| link.is_told()) {
            return Err(LookupError::Gone(token).into());
        }
        map.spawn(Some(token), work, |outcome| {
            Box::new(move |map| match take(&outcome) {
                Some(Ok(result)) => {
                    timers::channel_call(map, token, Work::Blocking, |ch| match done.into_inner() {
                        Some(done) => done(ch, result),
                        None => Ok(()),
                    });
                }
                Some(Err(payload)) => hooks::failed(map, token, "a blocking call", panicked(payload), true),
                None => {}
            })
        })?;
        map.link_mut(token).into_iter().for_each(|link| link.awaits_another());
        Ok(())
    }

    /// As [`spawn_blocking`](Channel::spawn_blocking), and `done` is given the channel's dispatcher, too. If that is
    /// no `D` by then, because it was [replaced](Channel::replace_dispatcher), that is logged, and `done` is dropped.
    ///
    /// # Errors
    /// As [`spawn_blocking`](Channel::spawn_blocking).
    pub fn spawn_blocking_with<D, R, W, F>(&mut self, work: W, done: F) -> io::Result<()>
    where
        D: Dispatcher,
        R: Send + 'static,
        W: FnOnce() -> R + Send + 'static,
        F: FnOnce(&mut D, &mut Channel<'_>, R) -> io::Result<()> + 'static,
    {
        let own = self.token().typed();
        self.spawn_blocking(work, move |ch, result| {
            ch.map_mut().with(own, |dispatcher: &mut D, ch| done(dispatcher, ch, result))
        })
    }
}
