//! A drain: the orderly end of all that a map serves. Its sweeps close what has nothing under way; what has
//! ends by itself, or at the deadline.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::Time;
use crate::core::action::Action;
use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::drain::{Drain, DrainOptions, DrainProgress, DrainState, Fate};
use crate::event_loop::closing;
use crate::event_loop::messages::guarded;
use crate::guard::drop_guarded;
use crate::link::due::Step;
use crate::link::rare::Rest;
use crate::link::state::{Link, Role};
use crate::reason::Reason;
use crate::sys;
use crate::threads::pulse::Work;
use crate::token::Token;

/// How long a channel with everything sent may wait for the peer's end: a way there and back.
const LINGER: Duration = Duration::from_millis(250);

impl ChannelMap {
    /// Begin the orderly end of a server, after which [`run`](crate::run) returns `Ok`.
    ///
    /// Every channel's [`handle_drain`](crate::Dispatcher::handle_drain) runs. After the
    /// [lame-duck time](DrainOptions::lame_duck), each listener accepts until its backlog is empty, and closes.
    /// A channel on which nothing is under way is closed at once, which takes from 10 ms (in which nothing
    /// came or went) to about 100 ms, and does not wait for the peer's end. One with output that is queued or
    /// not acknowledged, with input that waits, whose dispatcher wants to write (`writable`), or that
    /// [says so](Channel::set_busy) goes on until that is over, and so do its
    /// [partners](Channel::auto_pause_with).
    /// What closes by itself waits no longer than 250 ms for the peer's end once everything has arrived. Of
    /// what is left at the [deadline](DrainOptions::deadline), that is aborted which has something queued, wants to
    /// write, or is busy.
    ///
    /// [`run`](crate::run) returns when no channel is left but those in the
    /// [background](Channel::set_background), all messages that remotes had accepted have run, and all
    /// [calls that block](ChannelMap::spawn_blocking) and look-ups have had their results, whatever timers there
    /// are, and at the deadline in any case. Until then, channels in the background live on: a listener for
    /// a health check answers to the end. They may be added to during a drain, as everything else may; what is in
    /// the foreground is then closed, too. A look at all that is left is repeated every 10 ms, or less often if
    /// it takes more than 1 ms.
    ///
    /// If the map drains already, the earlier end holds, of the lame-duck time as well as of the whole. A map
    /// that is [stopped](ChannelMap::stop) goes on with its drain when it runs again. After a drain, the map can
    /// be used as before, and drained again.
    ///
    /// ```
    /// use dispatch_loop::{ChannelMap, DrainOptions};
    /// use std::time::Duration;
    /// # use dispatch_loop::Dispatcher;
    /// # struct Server;
    /// # impl Dispatcher for Server {}
    ///
    /// let mut map = ChannelMap::new()?;
    /// map.listen("127.0.0.1:0", Server)?;
    /// map.on_drain(|_, progress| println!("{:?}: {} left", progress.state, progress.channels));
    /// map.call_later(Duration::from_millis(10), |map| {
    ///     map.drain(&DrainOptions::default().with_deadline(Duration::from_secs(5)));
    /// });
    /// dispatch_loop::run(&mut map)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn drain(&mut self, options: &DrainOptions) {
        let now = self.clock.now();
        match self.drain.as_mut().filter(|drain| drain.is_under_way()) {
            Some(drain) => drain.hasten(options, now),
            None => {
                self.drain = Some(Box::new(Drain::begin(options, now)));
                let tokens: Vec<Token> = self.tokens().collect();
                for token in tokens {
                    if let Some(link) = self.touch_link(token) {
                        link.set_due(Step::Drain);
                    }
                }
            }
        }
        // The hooks are run before.
        self.wait_for_next_turn();
        set_timer(self, now);
    }

    /// How far the drain of this map is, if one was begun.
    pub fn drain_state(&self) -> DrainState {
        self.drain.as_ref().map_or(DrainState::Running, |drain| drain.state())
    }

    /// Whether the map drains: from the call of [`drain`](ChannelMap::drain), the lame-duck time included, to its
    /// end.
    pub fn is_draining(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.is_under_way())
    }

    /// The drain of this map in numbers, if one was begun. Takes O(channels).
    pub fn drain_progress(&self) -> Option<DrainProgress> {
        let drain = self.drain.as_ref()?;
        let in_foreground = |link: &&Link| link.role() == Role::User;
        let links = self.slots.tokens().filter_map(|token| self.link(token)).filter(in_foreground);
        let (listeners, channels): (Vec<_>, Vec<_>) = links.partition(|link| link.is_listener());
        Some(drain.progress(channels.len(), listeners.len()))
    }

    /// Call `f` when a drain of this map begins, when its [`DrainProgress`] has changed, at most every 10 ms,
    /// and when it is over. Whoever begins it; there is one such function. A panic of `f` is caught and logged.
    pub fn on_drain(&mut self, f: impl FnMut(&mut ChannelMap, &DrainProgress) + 'static) {
        let before = self.on_drain.replace(Rc::new(RefCell::new(f)));
        drop_guarded(&mut self.throttle, "a drain's hook", before);
    }

    /// A signal came. The first one drains the map, or brings a drain nearer that something else has begun; the
    /// next one ends it at once.
    #[cfg(feature = "signals")]
    pub(crate) fn drain_by_signal(&mut self, signal: i32, options: &DrainOptions) {
        let is_second = self.drain.as_mut().is_some_and(|drain| drain.is_second_signal(signal));
        let now = DrainOptions::default().with_deadline(Duration::ZERO);
        self.drain(if is_second { &now } else { options });
        if let Some(drain) = &mut self.drain {
            drain.signalled = true;
        }
    }
}

/// The next sweep is due then.
fn set_timer(map: &mut ChannelMap, due: Time) {
    let delay = due.since(map.clock.now());
    let timer = map.set_timer(None, delay, Action::Drain);
    let Some(drain) = &mut map.drain else { return };
    if let Some(before) = drain.timer.replace(timer) {
        map.timers.cancel(before);
    }
}

/// Close what has nothing under way, and at the deadline everything.
pub(crate) fn sweep(map: &mut ChannelMap) {
    let begun = map.clock.now();
    let Some(drain) = map.drain.as_mut().filter(|drain| drain.is_under_way()) else { return };
    drain.timer = None;
    drain.pass(begun);
    let (expired, draining) = (drain.expire(begun), drain.state() == DrainState::Draining);
    let in_foreground = |token: &Token| map.link(*token).is_some_and(|link| link.role() == Role::User);
    let tokens: Vec<Token> = map.tokens().filter(in_foreground).collect();
    let all_listen = || tokens.iter().all(|token| map.link(*token).is_some_and(Link::is_listener));
    let alone = draining && all_listen();
    for token in tokens {
        match map.link(token) {
            Some(_) if expired => cut_off(map, token),
            Some(_) if !draining => {}
            Some(link) if link.is_listening() => look_at_listener(map, token, alone),
            Some(link) if link.is_ending() => shorten_lingering(map, token),
            Some(_) => look_at(map, token, begun),
            None => {}
        }
    }
    let now = map.clock.now();
    if let Some(next) = map.drain.as_ref().filter(|_| !expired).map(|drain| drain.next_sweep(begun, now)) {
        set_timer(map, next);
    }
    tell(map);
}

fn look_at_listener(map: &mut ChannelMap, token: Token, alone: bool) {
    let Some(link) = map.link(token) else { return };
    // Somebody waits, and is accepted, unless nothing is left that could make the listener go on.
    let goes_on = link.accepts() || link.rest() != Rest::No || !alone;
    let somebody_waits = link.has_in_hand() || link.fd().is_some_and(sys::is_readable);
    if !(goes_on && somebody_waits) {
        map.begin_close(token, Reason::Closed);
    }
}

fn look_at(map: &mut ChannelMap, token: Token, now: Time) {
    let Some(link) = map.link(token).filter(|link| has_nothing_under_way(map, link)) else { return };
    let (received, sent) = link.traffic();
    let says_goodbye = link.has_own_source();
    let Some(drain) = &mut map.drain else { return };
    if !drain.is_idle(token, received.wrapping_add(sent), now) {
        return;
    }
    drain.decide(token, Fate::Idle);
    if says_goodbye {
        map.begin_close(token, Reason::Closed);
        shorten_lingering(map, token);
    } else if let Some(link) = map.touch_link(token) {
        link.end(Reason::Closed);
    }
}

/// What is under way on one side of a relay is on the other, too.
fn has_nothing_under_way(map: &ChannelMap, link: &Link) -> bool {
    let partners = link.rare_if_any().map_or(&[][..], |rare| rare.partners.all());
    let mut partners = partners.iter().filter_map(|token| map.link(*token));
    let ended_or_idle = |link: &Link| link.is_over() || link.has_nothing_under_way();
    link.has_nothing_under_way() && partners.all(ended_or_idle)
}

fn shorten_lingering(map: &mut ChannelMap, token: Token) {
    if map.link(token).is_some_and(|link| link.linger_timeout() > LINGER) {
        Channel::own(map, token).set_linger(LINGER);
    }
}

/// The deadline has passed. What is cut short must not look like an end; where everything was given to the
/// system, that goes out all the same.
fn cut_off(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.touch_link(token).filter(|link| !link.is_over()) else { return };
    if link.has_unsent() || link.has_more_to_do() || link.is_connecting() {
        link.end_by_reset(Reason::Aborted);
        if let Some(drain) = &mut map.drain {
            drain.decide(token, Fate::CutShort);
        }
    } else {
        // What nobody has read would reset the connection.
        closing::drop_input(map, token);
        if let Some(link) = map.link_mut(token) {
            link.end(Reason::Closed);
        }
    }
}

/// Whether the drain of this map has come to its end, of which its hook was told now.
#[cold]
#[inline(never)]
pub(crate) fn is_concluded(map: &mut ChannelMap) -> bool {
    if !map.has_done_draining() {
        return false;
    }
    let timer = map.drain.as_mut().and_then(|drain| {
        drain.is_over();
        drain.timer.take()
    });
    if let Some(timer) = timer {
        map.timers.cancel(timer);
    }
    // Its listeners have ended because they were told to.
    let failed = map.failed_listener.take();
    drop_guarded(&mut map.throttle, "an error", failed);
    tell(map);
    true
}

/// Tell the map's hook what has changed.
fn tell(map: &mut ChannelMap) {
    let Some(f) = map.on_drain.clone() else { return };
    let Some(progress) = map.drain_progress() else { return };
    if map.drain.as_mut().is_some_and(|drain| drain.tells(progress)) {
        guarded(map, Work::DrainProgress, |map| f.borrow_mut()(map, &progress));
    }
    drop_guarded(&mut map.throttle, "a drain's hook", f);
}
