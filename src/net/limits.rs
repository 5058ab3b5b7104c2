//! `AcceptLimits`: how many connections listeners take. What they share is in `places.rs`; what a listener
//! does at a limit is decided in `event_loop/admission.rs`.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Time;
use crate::net::full::Full;
use crate::net::places::{Counts, Permit, Rate, Waiter};
use crate::sys;

/// What happens to connections when there are as many in total, or as many a second, as may be.
///
/// ```
/// use dispatch_loop::{AcceptLimits, AtLimit};
///
/// let limits = AcceptLimits::default().with_total(1000).with_at_limit(AtLimit::Refuse);
/// # let _ = limits;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AtLimit {
    /// The listener rests, and they wait in the backlog, until there is a place. What finds no room in the
    /// backlog is the system's affair: clients try again for a while.
    #[default]
    Wait,
    /// They are accepted, given the [last word](AcceptLimits::with_last_word), and closed.
    Refuse,
}

/// How many connections a listener takes: in total, of one peer address, and a second, as xinetd's
/// `instances`, `per_source` and `cps`. Without limits by default; each number is a limit of its own.
///
/// Clones share their counts: give clones to several listeners, also of several maps in several threads, and
/// they have the limits together. A connection counts until its descriptor is closed, or its [`Socket`] is
/// made into an [`OwnedFd`]; [`detach`] and [`add`] carry its place along with it.
///
/// Over the limit of one peer a connection is always accepted and refused, never left to wait: the backlog
/// is one line, and nobody else is to stand in it behind that peer.
///
/// When a limit begins to hold somebody up, and when it has held nobody up for 2 s, there is a line in the log:
/// at the level `warn` if connections are refused, else at `info`. [`Numbers::refusals`] and
/// [`Numbers::rests`] count them, and [`handle_accept_error`] is told of each, and of each new attempt of a
/// listener that rests: whenever a place may have become free, in another map also after a pause of at most
/// 1 s (on Linux at once).
///
/// [`Numbers::refusals`]: crate::Numbers::refusals
/// [`Numbers::rests`]: crate::Numbers::rests
/// [`handle_accept_error`]: crate::Dispatcher::handle_accept_error
///
/// [`Socket`]: crate::Socket
/// [`OwnedFd`]: std::os::fd::OwnedFd
/// [`detach`]: crate::Channel::detach
/// [`add`]: crate::ChannelMap::add
///
/// ```
/// use dispatch_loop::{AcceptLimits, ChannelMap, Dispatcher, ListenOptions};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let limits = AcceptLimits::default()
///     .with_total(1000)
///     .with_per_peer(20)
///     .with_rate(100, 200)
///     .with_last_word("too many connections\r\n");
/// let options = ListenOptions::default().with_limits(limits);
/// let mut map = ChannelMap::new()?;
/// let server = map.listen_with("127.0.0.1:0", &options, Quiet)?;
///
/// // Later: more, and the connections that are there count.
/// let mut ch = map.channel(server)?;
/// if let Some(limits) = ch.accept_limits() {
///     ch.set_accept_limits(limits.with_total(2000))?;
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "limits have no effect until a listener has them"]
pub struct AcceptLimits {
    settings: Settings,
    counts: Arc<Counts>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Settings {
    total: Option<usize>,
    per_peer: Option<usize>,
    rate: Option<Rate>,
    at_limit: AtLimit,
    last_word: Option<Arc<[u8]>>,
    reserve: u32,
}

/// The same limits, with the same counts.
impl PartialEq for AcceptLimits {
    fn eq(&self, other: &AcceptLimits) -> bool {
        Arc::ptr_eq(&self.counts, &other.counts) && self.settings == other.settings
    }
}

impl Eq for AcceptLimits {}

impl Hash for AcceptLimits {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.settings.hash(state);
    }
}

impl AcceptLimits {
    /// Limits for a server that strangers reach, by the number of descriptors that the process may have now
    /// (`ulimit -n`, 1,024 where nobody has changed it):
    ///
    /// - in total, as many connections as there are descriptors, less an eighth of them or 64, for files,
    ///   connections elsewhere, and those that are just closing (896 of 1,024);
    /// - the others as [`public_with_total`](Self::public_with_total) has them.
    pub fn public() -> AcceptLimits {
        let all = descriptors();
        AcceptLimits::public_with_total(all - spare(all))
    }

    /// The same for a server that needs more than one descriptor for each connection, or memory for so many
    /// at most:
    ///
    /// - of one peer, a 32nd of the total, at least 4 and at most 64 (28 of 896): more than a browser opens,
    ///   and so few that 31 addresses together do not keep others out of a server for 128 and more. Behind
    ///   some addresses there are many people; who expects them sets more.
    /// - 1,000 a second, and as many at once: what a process can greet without neglecting those that it has.
    /// - descriptors [held back](Self::with_descriptor_reserve): a 32nd of all, at least 16 (32 of 1,024).
    /// - At the limits the others wait in the backlog ([`AtLimit::Wait`]).
    pub fn public_with_total(connections: usize) -> AcceptLimits {
        AcceptLimits::default()
            .with_total(connections)
            .with_per_peer((connections / 32).clamp(4, 64))
            .with_rate(1000, 1000)
            .with_descriptor_reserve((spare(descriptors()) / 4) as u32)
    }

    /// The most connections at a time (no limit).
    pub fn with_total(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.settings.total = connections.into();
        self
    }

    /// The most connections at a time from one address (no limit); of IPv6, from one network of 64 bits,
    /// which is what one customer has. An IPv4 address in an IPv6 one counts as IPv4. Unix-domain peers
    /// count in total only. Connections that were accepted without this limit are not counted for it.
    pub fn with_per_peer(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.settings.per_peer = connections.into();
        self
    }

    /// The most connections a second, in the long run, and at once after a quiet time (no limit); each at
    /// least 1. What is refused because of its peer does not count.
    pub fn with_rate(mut self, a_second: u32, burst: u32) -> Self {
        self.settings.rate = Some(Rate { a_second: a_second.max(1), burst: burst.max(1) });
        self
    }

    /// What happens at the limits in total and a second ([`AtLimit::Wait`]).
    pub fn with_at_limit(mut self, at_limit: AtLimit) -> Self {
        self.settings.at_limit = at_limit;
        self
    }

    /// What a connection is sent before it is refused (nothing): an answer of the server's protocol. It is
    /// sent at once, so it should be short, no more than some KiB. The connection is then closed in order, for
    /// which it is kept for a second at most, and 64 of them at a time. Without a last word, or with
    /// one of the last [descriptors](Self::with_descriptor_reserve), it is just closed.
    pub fn with_last_word(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.settings.last_word = Some(Arc::from(bytes.into())).filter(|word: &Arc<[u8]>| !word.is_empty());
        self
    }

    /// How many descriptors to hold back for the program's own files (0): if accepting a connection has taken
    /// one of the last so many that the process may have, it is not handed over before others are free, and
    /// the listener rests. At most half of all are held back. The limit of the process is looked up when the
    /// listener is given these limits.
    ///
    /// It is off by default, because a server with few descriptors would serve fewer clients.
    pub fn with_descriptor_reserve(mut self, descriptors: u32) -> Self {
        self.settings.reserve = descriptors;
        self
    }

    /// How many connections count now: of all listeners that share these limits.
    pub fn connections(&self) -> usize {
        self.counts.lock().total
    }

    // For this crate.

    /// Whether connections wait at the limits in total and a second.
    pub(crate) fn lets_wait(&self) -> bool {
        self.settings.at_limit == AtLimit::Wait
    }

    pub(crate) fn last_word(&self) -> Option<&Arc<[u8]>> {
        self.settings.last_word.as_ref()
    }

    pub(crate) fn reserve(&self) -> u32 {
        self.settings.reserve
    }

    /// The first number of a descriptor that is held back.
    pub(crate) fn ceiling(&self) -> Option<i32> {
        let reserve = u64::from(self.settings.reserve);
        let all = sys::descriptor_limit().filter(|_| reserve > 0)?;
        i32::try_from(all - reserve.min(all / 2)).ok()
    }

    /// Take a place for a connection that is to be accepted. If there is none, and `waiter` is to wait for
    /// one, it is told when there may be one.
    pub(crate) fn take_place(&self, now: Time, waiter: Option<&Waiter>) -> Result<Box<Permit>, Full> {
        let mut counts = self.counts.lock();
        if let Some(total) = self.settings.total.filter(|total| counts.total >= *total) {
            if let Some(waiter) = waiter {
                counts.waiting.insert(waiter.map, waiter.alarm.clone());
            }
            return Err(Full::Total(total));
        }
        if let Some(rate) = self.settings.rate {
            let bucket = counts.bucket(rate, now);
            if bucket.available(now) == 0 {
                // For some of them together, so that the listener need not wake up for each.
                let some = u64::from(rate.a_second / 20).clamp(1, bucket.burst());
                return Err(Full::Rate(rate.a_second, bucket.wait_for(some, now)));
            }
        }
        counts.total += 1;
        Ok(Box::new(Permit::new(self.counts.clone())))
    }

    /// A connection is let in.
    pub(crate) fn take_token(&self, now: Time) {
        if let Some(rate) = self.settings.rate {
            self.counts.lock().bucket(rate, now).take(1, now);
        }
    }

    /// Let the connection count for `ip`, and no longer for another address.
    pub(crate) fn count_for(&self, permit: &mut Permit, ip: Option<IpAddr>) -> Result<(), Full> {
        permit.per_peer = self.settings.per_peer;
        permit.count_for(ip).map_err(|(most, peer)| Full::PerPeer(most, peer))
    }
}

/// How many descriptors the process may have, or a large number.
fn descriptors() -> usize {
    sys::descriptor_limit().map_or(1 << 20, |limit| limit.min(1 << 20) as usize)
}

/// How many of them are not for connections.
fn spare(all: usize) -> usize {
    (all / 8).max(64).min(all / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the address that a proxy has told.
    #[test]
    fn a_place_can_be_counted_for_another_address() {
        let limits = AcceptLimits::default().with_per_peer(1);
        let now = crate::clock::now();
        let ip = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let mut first = limits.take_place(now, None).unwrap();
        let mut second = limits.take_place(now, None).unwrap();
        limits.count_for(&mut first, ip(1)).unwrap();
        assert!(limits.count_for(&mut second, ip(1)).is_err());
        limits.count_for(&mut first, ip(2)).unwrap();
        limits.count_for(&mut second, ip(1)).unwrap();
        assert!(limits.count_for(&mut second, ip(2)).is_err());
        drop(second);
        drop(first);
        let counts = limits.counts.lock();
        assert_eq!((counts.total, counts.peers.len()), (0, 0));
    }
}
