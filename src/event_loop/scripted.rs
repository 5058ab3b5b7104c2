//! A map for testing does not wait: the clock moves on to what happens next.

use std::fmt::Write;
use std::io;
use std::time::Duration;

use crate::clock::{Time, by_hand};
use crate::core::map::ChannelMap;
use crate::event_loop::dial;
use crate::kit::server::Answer;
use crate::kit::stage::Stage;
use crate::link::held::Held;
use crate::link::state::{Connecting, Link};
use crate::sys::poll::Interest;
use crate::token::Token;

/// Instead of waiting, move the clock on, for at most `timeout`, until a channel is ready. Returns how long the
/// poller is to wait: of a map for testing, not at all, unless a thread does something for it that blocks. Meanwhile
/// its time stands still.
///
/// # Errors
/// It would wait for ever.
pub(crate) fn instead_of_waiting(
    map: &mut ChannelMap,
    timeout: Option<Duration>,
) -> io::Result<Option<Duration>> {
    let Some(mut stage) = map.stage.take() else { return Ok(timeout) };
    let moved = move_on(map, &mut stage, timeout);
    map.stage = Some(stage);
    moved.map(|awaits_a_thread| if awaits_a_thread { None } else { Some(Duration::ZERO) })
}

/// Whether a thread must be waited for.
fn move_on(map: &mut ChannelMap, stage: &mut Stage, timeout: Option<Duration>) -> io::Result<bool> {
    let begun = map.clock.now();
    let until = timeout.map(|timeout| begun.after(timeout));
    map.poll.scripted.clear();
    loop {
        let now = map.clock.now();
        stage.play(now);
        let mut answered = false;
        for (token, answer) in stage.take_answers(now) {
            self::answer(map, stage, token, answer);
            answered = true;
        }
        let mut ready = stage.ready(|token| waits_for(map, token));
        if answered || !ready.is_empty() {
            stage.vary(&mut ready);
            map.poll.scripted = ready;
            return Ok(false);
        }
        let next = stage.next().into_iter().chain(until).min();
        match next {
            _ if until.is_some_and(|until| until <= now) => return Ok(false),
            _ if map.awaits_a_thread() => return Ok(true),
            Some(next) => by_hand::move_to(next),
            None => return Err(for_ever(map)),
        }
    }
}

fn waits_for(map: &ChannelMap, token: Token) -> Option<Interest> {
    map.link(token)?.interest()
}

/// A connect has its outcome.
fn answer(map: &mut ChannelMap, stage: &mut Stage, token: Token, answer: Answer) {
    if !map.link(token).is_some_and(Link::is_connecting) {
        return;
    }
    match answer {
        Answer::Ignore => {}
        Answer::Accept => {
            let (end, peer) = stage.pair();
            dial::call_off(map, token);
            if let Some(link) = map.link_mut(token) {
                link.set_source(Some(Held::own(Box::new(end))));
                link.connect_is(Connecting::Done);
            }
            map.give_waker(token);
            stage.server.has_accepted(peer);
        }
        Answer::Fail(failure) => {
            dial::call_off(map, token);
            if let Some(link) = map.link_mut(token) {
                link.connect_is(Connecting::Failed(failure.error()));
            }
        }
    }
    map.touch(token);
}

#[cold]
fn for_ever(map: &ChannelMap) -> io::Error {
    let mut why = String::from(
        "the test would wait for ever: no timer is set, and no peer of a channel has anything left to do",
    );
    for token in map.tokens() {
        if let Some(link) = map.link(token) {
            let _ = write!(why, "; channel {token} is {}", link.state_name());
        }
    }
    io::Error::new(io::ErrorKind::Deadlock, why)
}

impl ChannelMap {
    /// Whether nothing is to be done by a map for testing before its clock moves.
    pub(crate) fn is_at_rest(&self) -> bool {
        let Some(stage) = &self.stage else { return true };
        let now = self.clock.now();
        self.wait_limit_at(now) != Some(Duration::ZERO)
            && stage.next().is_none_or(|next| next > now)
            && stage.ready(|token| waits_for(self, token)).is_empty()
    }

    /// When something happens next, by its timers or its peers.
    pub(crate) fn next_moment(&self) -> Option<Time> {
        let timer = self.timers.first_deadline();
        timer.into_iter().chain(self.stage.as_ref().and_then(|stage| stage.next())).min()
    }
}
