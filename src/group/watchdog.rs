//! The service manager's watchdog, which all loops of a group keep together: a message goes round, and what does not
//! come back in time was held up by a loop that stands still.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::channels::service::{tell_watchdog, watchdog_interval};
use crate::group::loops::Loops;

/// A message is on its way.
struct Round(Arc<AtomicBool>);

/// Also if a loop ends before it gets there.
impl Drop for Round {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

pub(super) fn keep(loops: &Loops) -> io::Result<Option<Duration>> {
    let Some(interval) = watchdog_interval()? else { return Ok(None) };
    for index in 0..loops.len() {
        let (own, is_under_way) = (loops.clone(), Arc::new(AtomicBool::new(false)));
        loops.ask(index, move |map| {
            let timer = map.call_every(interval, move |_| {
                // The first one that has not ended begins.
                let is_first = (0..index).all(|before| own.remote(before).is_stopped());
                if is_first && !is_under_way.swap(true, Ordering::AcqRel) {
                    go_on(&own, index + 1, Round(is_under_way.clone()));
                }
            });
            map.set_timer_background(timer, true);
        })?;
    }
    tell_watchdog();
    Ok(Some(interval))
}

fn go_on(loops: &Loops, next: usize, round: Round) {
    match (next..loops.len()).find(|next| !loops.remote(*next).is_stopped()) {
        Some(next) => {
            let own = loops.clone();
            // Refused only if it has ended: the next round passes it over.
            let _ = loops.remote(next).call_after_stop(move |_| go_on(&own, next + 1, round));
        }
        None => {
            drop(round); // it has come back
            tell_watchdog();
        }
    }
}
