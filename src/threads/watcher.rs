//! The thread that looks at what the loop is at, and warns of a hook or a turn that takes long.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::report::Throttle;
use crate::threads::pulse::{Moment, Pulse, Work};

/// The least threshold: a look takes some microseconds.
const LEAST: Duration = Duration::from_millis(2);

/// While it lives, so does the thread; when it is dropped, that ends soon.
pub(crate) struct Watcher {
    thread: Thread,
    over: Arc<AtomicBool>,
}

impl Watcher {
    pub(crate) fn start(pulse: Arc<Pulse>, threshold: Duration) -> io::Result<Watcher> {
        let threshold = threshold.max(LEAST);
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let watch = move || {
            let (mut seen, mut throttle) = (Seen::new(threshold), Throttle::new());
            while !told.load(Ordering::Acquire) {
                let lines = seen.look(pulse.now(), Instant::now());
                seen.slow.take().into_iter().for_each(|work| pulse.count_slow(work));
                for line in lines {
                    if throttle.admits() {
                        log::warn!("{line}");
                    }
                }
                thread::park_timeout(threshold / 2);
            }
        };
        let handle = thread::Builder::new().name("slow hooks".to_owned()).spawn(watch)?;
        Ok(Watcher { thread: handle.thread().clone(), over })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// What was seen, since when, and whether that was worth a warning.
#[derive(Clone, Copy)]
struct Since {
    moment: Moment,
    begun: Instant,
    told: bool,
}

struct Seen {
    threshold: Duration,
    hook: Option<Since>,
    turn: Option<Since>,
    /// What the last look has found to be slow.
    slow: Option<Work>,
}

impl Seen {
    fn new(threshold: Duration) -> Seen {
        Seen { threshold, hook: None, turn: None, slow: None }
    }

    /// One look; what was the same in the look before has gone on since then. Returns what is to be logged.
    fn look(&mut self, moment: Option<Moment>, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        let time = |since: &Since| now.saturating_duration_since(since.begun);
        if let Some(hook) = self.hook.take_if(|hook| Some(hook.moment) != moment) {
            if hook.told {
                let took = time(&hook).as_millis();
                lines.push(format!("{} has ended; it took about {took} ms", What(&hook.moment)));
            }
        }
        self.turn.take_if(|turn| !moment.is_some_and(|moment| moment.is_of_turn_of(&turn.moment)));
        let Some(moment) = moment else { return lines };
        let new = Since { moment, begun: now, told: false };
        let turn = self.turn.get_or_insert(new);
        if let Some((work, _)) = moment.work() {
            let hook = self.hook.get_or_insert(new);
            if !hook.told && time(hook) >= self.threshold {
                (hook.told, turn.told) = (true, true);
                self.slow = Some(work);
                let took = time(hook).as_millis();
                lines.push(format!("{} has been running for {took} ms", What(&hook.moment)));
            }
        }
        if !turn.told && time(turn) >= self.threshold {
            turn.told = true;
            let took = time(turn).as_millis();
            let what = What(&moment);
            lines.push(format!("a turn of the loop has taken {took} ms so far, in many steps; now {what}"));
        }
        lines
    }
}

struct What<'a>(&'a Moment);

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.work() {
            Some((work, Some(token))) => write!(f, "channel {token}: {}", work.name()),
            Some((work, None)) => f.write_str(work.name()),
            None => f.write_str("what the loop does itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    const LOOK: Duration = Duration::from_millis(50);

    fn looks(moments: &[Option<Moment>]) -> Vec<String> {
        let mut seen = Seen::new(2 * LOOK);
        let begun = Instant::now();
        let each = moments.iter().zip(0..);
        each.flat_map(|(moment, at)| seen.look(*moment, begun + at * LOOK)).collect()
    }

    fn pulse() -> Pulse {
        let pulse = Pulse::new();
        pulse.begin();
        pulse
    }

    #[test]
    fn a_hook_that_is_seen_three_times_is_named_once_and_again_when_it_has_ended() {
        let pulse = pulse();
        pulse.begin_work(Work::Open, Token::new(1, 7, 2));
        let slow = pulse.now();
        pulse.end_work();
        let lines = looks(&[slow, slow, slow, slow, pulse.now(), pulse.now()]);
        let wanted = [
            "channel 7.2: handle_open has been running for 100 ms",
            "channel 7.2: handle_open has ended; it took about 200 ms",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn hooks_of_the_same_name_and_channel_are_told_apart() {
        let pulse = pulse();
        let mut moments = Vec::new();
        for _ in 0..10 {
            // The next message on the short way; the same hook for something else.
            pulse.set_owner(Token::new(1, 7, 2));
            moments.push(pulse.now());
            pulse.clear_owner();
            pulse.begin_work(Work::Read, Token::new(1, 7, 2));
            moments.push(pulse.now());
            pulse.end_work();
            pulse.rest();
            pulse.waited();
        }
        assert!(moments.iter().all(Option::is_some));
        assert_eq!(looks(&moments), Vec::<String>::new());
    }

    #[test]
    fn a_turn_of_many_hooks_is_told_once() {
        let pulse = pulse();
        let mut moments = Vec::new();
        for slot in 0..10 {
            pulse.begin_work(Work::Timer, Token::new(1, slot, 0));
            moments.push(pulse.now());
            pulse.end_work();
        }
        let wanted = "a turn of the loop has taken 100 ms so far, in many steps; now channel 2.0: a timer";
        assert_eq!(looks(&moments), [wanted]);
    }

    #[test]
    fn a_loop_that_waits_is_not_slow() {
        let pulse = pulse();
        pulse.rest();
        assert_eq!(pulse.now(), None);
        assert_eq!(looks(&[None; 10]), Vec::<String>::new());
    }
}
