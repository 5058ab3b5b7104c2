//! Messages of other threads are carried out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::core::action::Message;
use crate::core::map::ChannelMap;
use crate::error::panicked;
use crate::link::pushed::Pushed;
use crate::report::Escaped;
use crate::threads::credit::Credit;
use crate::threads::pulse::Work;
use crate::token::Token;

/// The most messages of other threads in one turn.
const MESSAGES: usize = 256;

pub(crate) fn run_messages(map: &mut ChannelMap) {
    let id = map.id;
    let Some(queue) = &map.queue else { return };
    queue.take_news();
    let shared = queue.shared();
    for _ in 0..MESSAGES {
        let Some(message) = map.queue.as_ref().and_then(|queue| queue.take()) else { return };
        match message {
            Message::Call(call) => guarded(map, Work::RemoteCall, call),
            Message::Bytes(token, bytes, credit) => push(map, token, bytes, credit.as_deref()),
        }
        // A message swapped the maps, and the rest waits for a turn of its own.
        if map.id != id {
            break;
        }
    }
    shared.keep_news();
}

/// Run what belongs to no channel; a panic is logged.
pub(crate) fn guarded(map: &mut ChannelMap, what: Work, f: impl FnOnce(&mut ChannelMap)) {
    map.pulse.begin_work(what, Token::NONE);
    let result = catch_unwind(AssertUnwindSafe(|| f(map)));
    map.pulse.end_work();
    if let Err(payload) = result {
        let error = panicked(payload);
        if map.throttle.admits() {
            log::warn!("{} {}", what.name(), Escaped(&error));
        }
    }
}

fn push(map: &mut ChannelMap, token: Token, bytes: Vec<u8>, credit: Option<&Credit>) {
    let len = bytes.len();
    if !map.touch(token) {
        return log::debug!("{len} bytes for channel {token}, which is gone, were dropped");
    }
    // The hard limit never refuses what an outlet has accepted.
    let result = map.put(token, Pushed::Vec(bytes), credit.is_none());
    if let (Some(credit), Some(link)) = (credit, map.link(token)) {
        credit.arrived(len, link.queued_cost());
    }
    if let Err(error) = result {
        map.report(token, "a remote push", &error);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    thread_local! {
        static RAN: Cell<bool> = const { Cell::new(false) };
    }

    /// EDGE_CASES 506: the system may take the processor from a thread there, for as long as it likes.
    #[test]
    fn the_loop_sleeps_until_a_thread_has_said_that_it_has_sent_something() {
        let mut map = ChannelMap::new().unwrap();
        let _remote = map.remote();
        map.turn(Some(Duration::ZERO)).unwrap();
        let shared = map.queue.as_ref().unwrap().shared();
        let call = Message::Call(Box::new(|_: &mut ChannelMap| RAN.set(true)));
        assert!(shared.try_send(call).is_ok());
        assert_eq!(map.wait_limit(), None);
        assert!(!map.is_idle());
        shared.wake();
        assert_eq!(map.wait_limit(), Some(Duration::ZERO));
        map.turn(None).unwrap();
        assert!(RAN.get());
    }
}
