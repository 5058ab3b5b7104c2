//! How long, how many, and with how few descriptors.

use std::time::Duration;

#[derive(Clone)]
pub struct Plan {
    pub time: Duration,
    pub good: usize,
    pub hostile: usize,
    /// The server's limit.
    pub descriptors: u64,
    /// The server has the limits of a public one.
    pub is_limited: bool,
    pub shows_log: bool,
}

/// Connections of a thread of hostile clients.
pub const HANDS: usize = 25;

impl Plan {
    pub fn whole() -> Plan {
        Plan {
            time: Duration::from_secs(60),
            good: 2000,
            hostile: 2000,
            descriptors: 1024,
            is_limited: true,
            shows_log: false,
        }
    }

    /// For CI: most of the time with limits, the rest without.
    pub fn quick() -> Vec<Plan> {
        let few = Plan { good: 500, hostile: 500, descriptors: 256, ..Plan::whole() };
        let with = Plan { time: Duration::from_secs(10), ..few.clone() };
        let without = Plan { time: Duration::from_secs(4), is_limited: false, ..few };
        vec![with, without]
    }

    /// The load before memory is looked at for the first time.
    pub fn first_wave(&self) -> Duration {
        (self.time / 4).min(Duration::from_secs(20))
    }

    /// No more clients than this process may have descriptors for.
    pub fn fit(&mut self, allowed: u64) {
        let allowed = allowed.saturating_sub(64).max(2) as usize;
        let wanted = self.good + self.hostile;
        if wanted > allowed {
            self.good = (self.good * allowed / wanted).max(1);
            self.hostile = self.hostile * allowed / wanted;
        }
    }
}
