//! The reader of a map's numbers that other threads may hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::core::map::ChannelMap;
use crate::numbers::Numbers;
use crate::threads::queue::owns_a_map;
use crate::threads::readers::Readers;

/// Reads the [`Numbers`] of a map, from any thread, while its loop runs.
///
/// While there is a meter, turns are timed, which costs two readings of the clock a turn. A meter does not
/// keep [`run`](crate::run) going.
///
/// ```
/// use dispatch_loop::ChannelMap;
/// use std::thread;
/// use std::time::Duration;
///
/// let mut map = ChannelMap::new()?;
/// let (meter, remote) = (map.meter(), map.remote());
/// let watcher = thread::spawn(move || {
///     let numbers = meter.read(Duration::from_secs(10));
///     remote.stop();
///     numbers.turns
/// });
/// map.call_later(Duration::from_secs(60), |_| ());
/// dispatch_loop::run(&mut map)?;
/// assert!(watcher.join().unwrap() > 0);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Meter(Arc<Readers>);

impl Meter {
    /// The numbers of now. If the loop is busy, or does not run, and has made no snapshot when `patience` is
    /// over, the latest that it made: [`taken`](Numbers::taken) tells its age. On a thread that owns a map
    /// it does not wait; use [`ChannelMap::numbers`] there.
    pub fn read(&self, patience: Duration) -> Numbers {
        self.0.read(if owns_a_map() { Duration::ZERO } else { patience })
    }

    /// For how long the loop has been busy since it last came round: since its last wait, or since
    /// [`run`](crate::run) began. `None` while it waits for something to do, which may take for ever, and while
    /// nobody runs it. For a watchdog; it neither wakes the loop nor waits for it. systemd's `WATCHDOG=1`
    /// is to be sent while this is short.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    /// use std::thread;
    /// use std::time::Duration;
    ///
    /// let mut map = ChannelMap::new()?;
    /// let meter = map.meter();
    /// let remote = map.remote();
    /// let watchdog = thread::spawn(move || {
    ///     while meter.heartbeat().is_none_or(|busy| busy < Duration::from_millis(20)) {
    ///         thread::sleep(Duration::from_millis(5));
    ///     }
    ///     remote.stop();                              // it hangs: look why
    /// });
    /// map.call_later(Duration::ZERO, |_| thread::sleep(Duration::from_millis(200)));
    /// map.call_later(Duration::from_secs(60), |_| ());
    /// dispatch_loop::run(&mut map)?;
    /// watchdog.join().unwrap();
    /// # std::io::Result::Ok(())
    /// ```
    pub fn heartbeat(&self) -> Option<Duration> {
        self.0.pulse.busy_for()
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

impl ChannelMap {
    /// For somebody who may never read: turns are timed from the first time on.
    pub(crate) fn quiet_meter(&mut self) -> Meter {
        Meter(self.open_quiet_readers().clone())
    }

    /// A reader of the map's numbers for other threads.
    pub fn meter(&mut self) -> Meter {
        Meter(self.open_readers().clone())
    }
}
