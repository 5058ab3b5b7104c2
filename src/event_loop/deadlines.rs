//! The timer of a channel's deadlines: look what has passed, and tell the dispatcher.

use crate::clock::Time;
use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::event_loop::{hooks, settle};
use crate::link::deadlines::Deadline;
use crate::link::running::Look;
use crate::reason::Reason;
use crate::threads::pulse::Work;
use crate::timers::TimerKey;
use crate::token::Token;

/// A deadline of the channel may have passed.
pub(crate) fn look(map: &mut ChannelMap, token: Token, key: TimerKey, now: Time) {
    settle::open_due(map, token);
    let is_its_own = |timer: Option<(TimerKey, Time)>| timer.is_some_and(|(own, _)| own == key);
    let Some(link) = map.link_mut(token).filter(|link| is_its_own(link.deadline_timer())) else {
        return map.timers.release(key);
    };
    let look = link.look_at_deadlines(now);
    if let Look::Again(next) = look {
        link.set_deadline_timer(Some((key, next)));
        // It is still the channel's timer, so it was not cancelled.
        let _ = map.timers.put_back(key, next, Action::Deadline(token));
        return;
    }
    link.set_deadline_timer(None);
    map.timers.release(key);
    if let Look::Passed(deadline) = look {
        passed(map, token, deadline);
    }
}

fn passed(map: &mut ChannelMap, token: Token, deadline: Deadline) {
    let now = map.clock.now();
    map.touch(token);
    let Some(link) = map.link_mut(token) else { return };
    if link.is_ending() {
        return link.end_by_reset(Reason::TimedOut);
    }
    // In case the channel lives on.
    link.count_anew(deadline, now);
    hooks::run(map, token, Work::Deadline, |dispatcher, ch| dispatcher.handle_deadline(ch, deadline));
    map.look_at_deadlines(token, now);
}
