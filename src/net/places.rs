//! What listeners with the same limits share: how many connections each counts for, who waits for a place,
//! and the place of one connection. The limits themselves are in `limits.rs`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bucket::Bucket;
use crate::clock::Time;
use crate::sys::poll::Waker;

#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) total: usize,
    pub(super) peers: HashMap<Network, usize>,
    /// Usually one.
    buckets: Vec<(Rate, Bucket)>,
    /// Maps with a listener that waits for a place, by number.
    pub(super) waiting: BTreeMap<u32, Arc<Alarm>>,
}

impl Counts {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn bucket(&mut self, rate: Rate, now: Time) -> &mut Bucket {
        let at = self.buckets.iter().position(|(of, _)| *of == rate).unwrap_or_else(|| {
            // A full one says nothing: it is of a rate that nobody has any more, or is made anew.
            self.buckets.retain(|(_, bucket)| bucket.available(now) < bucket.burst());
            self.buckets.push((rate, Bucket::new(rate.a_second.into(), rate.burst.into(), now)));
            self.buckets.len() - 1
        });
        &mut self.buckets[at].1
    }

    pub(super) fn leave(&mut self, peer: Network) {
        if let Some(count) = self.peers.get_mut(&peer) {
            *count -= 1;
        }
        self.forget_if_none(peer);
    }

    pub(super) fn forget_if_none(&mut self, peer: Network) {
        if self.peers.get(&peer) == Some(&0) {
            self.peers.remove(&peer);
            if self.peers.is_empty() {
                self.peers = HashMap::new();
            }
        }
    }
}

/// The place of one connection, which is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    counts: Arc<Counts>,
    /// For whom it counts, and how many may.
    peer: Option<Network>,
    pub(super) per_peer: Option<usize>,
    is_counted: bool,
}

impl Permit {
    /// Of a connection that has been counted in total.
    pub(super) fn new(counts: Arc<Counts>) -> Permit {
        Permit { counts, peer: None, per_peer: None, is_counted: true }
    }

    /// Let the connection count for `ip`, and no longer for another address; or who has as many as may be.
    pub(crate) fn count_for(&mut self, ip: Option<IpAddr>) -> Result<(), (usize, Network)> {
        let Some((most, ip)) = self.per_peer.zip(ip) else { return Ok(()) };
        let peer = Network::of(ip);
        let mut counts = self.counts.lock();
        let of_peer = counts.peers.entry(peer).or_default();
        if *of_peer >= most {
            counts.forget_if_none(peer);
            return Err((most, peer));
        }
        *of_peer += 1;
        if let Some(before) = self.peer.replace(peer) {
            counts.leave(before);
        }
        Ok(())
    }

    /// Whose connection it is will be told.
    #[cfg(feature = "proxy-protocol")]
    pub(crate) fn count_for_nobody(&mut self) {
        if let Some(peer) = self.peer.take() {
            self.counts.lock().leave(peer);
        }
    }

    /// The descriptor is closed. The map of this number looks itself for who waits there.
    pub(crate) fn give_back(&mut self, map: u32) {
        self.end(Some(map));
    }

    fn end(&mut self, own: Option<u32>) {
        if !std::mem::replace(&mut self.is_counted, false) {
            return;
        }
        let mut counts = self.counts.lock();
        counts.total -= 1;
        if let Some(peer) = self.peer.take() {
            counts.leave(peer);
        }
        let waiting = std::mem::take(&mut counts.waiting);
        drop(counts);
        waiting.iter().filter(|(map, _)| Some(**map) != own).for_each(|(_, alarm)| alarm.ring());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// Wakes a map that waits for a place which another one, or a socket outside of any map, gives back.
#[derive(Debug)]
pub(crate) struct Alarm {
    waker: Waker,
    rung: AtomicBool,
}

impl Alarm {
    pub(crate) fn new(waker: Waker) -> Alarm {
        Alarm { waker, rung: AtomicBool::new(false) }
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it has rung.
    pub(crate) fn take(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }
}

/// The map of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) map: u32,
    pub(crate) alarm: Arc<Alarm>,
}

/// Whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4([u8; 4]),
    /// The first 64 bits.
    V6([u8; 8]),
}

impl Network {
    pub(super) fn of(ip: IpAddr) -> Network {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Network::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Network::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Network::V4(octets) => IpAddr::from(octets).fmt(f),
            Network::V6(octets) => {
                let bits = u128::from(u64::from_be_bytes(octets)) << 64;
                write!(f, "{}/64", Ipv6Addr::from(bits))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rate {
    pub(super) a_second: u32,
    pub(super) burst: u32,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn network(ip: &str) -> Network {
        Network::of(ip.parse().unwrap())
    }

    /// As when a program adapts its rate to the load.
    #[test]
    fn rates_that_are_no_longer_in_use_are_forgotten() {
        let mut now = crate::clock::now();
        let mut state = State::default();
        for a_second in 1..1000 {
            state.bucket(Rate { a_second, burst: 1 }, now).take(1, now);
            now = now.after(Duration::from_secs(2));
        }
        assert_eq!(state.buckets.len(), 1);
    }

    #[test]
    fn who_counts_as_one_peer() {
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
        assert_eq!(network("::ffff:192.0.2.1").to_string(), "192.0.2.1");
    }
}
