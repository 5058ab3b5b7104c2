//! What came of a play, and whether that is as it must be.

use std::io;

use dispatch_loop::faults::{Call, Fault};

use super::actors::Record;
use super::faults::passes;

/// What a far end got, and its end; and whether it is over TCP.
type FarEnd = (usize, Option<Result<(), io::ErrorKind>>, bool);

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    pub records: Vec<Record>,
    pub fars: Vec<FarEnd>,
    pub turns: u32,
    pub calls: Vec<u64>,
    /// The scenario could not be set up.
    pub refused: Option<io::Error>,
    pub wrong: Vec<String>,
    pub hides_errors: bool,
    /// The map was dropped in the midst of it.
    pub is_cut: bool,
}

impl Record {
    /// What must be the same after a fault that passes.
    fn is_as(&self, other: &Record) -> bool {
        let same = self.name == other.name && self.hooks == other.hooks && self.reason == other.reason;
        same && (self.got, self.pushed) == (other.got, other.pushed)
    }
}

impl Outcome {
    /// Compared with what comes of it without a fault.
    pub fn compare(&mut self, usual: &Outcome, call: Call, fault: Fault) {
        if self.is_cut {
            return;
        }
        let mut wrong = Vec::new();
        let errno = match fault {
            Fault::Errno(errno) => Some(errno),
            Fault::Short(_) => None,
        };
        // The poller was asked to forget, which is no registration and cannot fail; a datagram socket was
        // to be connected, which cannot be interrupted; or a datagram did not fit.
        let said = |what| {
            let mut reasons = self.records.iter().filter_map(|record| record.reason.as_ref());
            reasons.any(|(reason, _)| reason.contains(what))
        };
        let forgot = call == Call::Control && said("File exists")
            || matches!(call, Call::Control | Call::Connect) && self.refused.is_some()
            || self.records.iter().any(|record| record.told.iter().any(|told| told == "truncated"));
        if passes(call, fault) && !forgot {
            let records = self.records.len() == usual.records.len()
                && self.records.iter().zip(&usual.records).all(|(a, b)| a.is_as(b));
            if !records || self.fars != usual.fars || self.refused.is_some() {
                wrong.push(format!("it should pass; {:?} {:?}", self.refused, self.fars));
                let differs = self.records.iter().zip(&usual.records).filter(|(a, b)| !a.is_as(b));
                wrong.extend(differs.map(|(a, b)| format!("{a:?}\n      instead of {b:?}")));
            }
        }
        // What is missing has a reason that says so.
        let total = |outcome: &Outcome| {
            let got = outcome.records.iter().map(|record| record.got).sum::<usize>();
            got + outcome.fars.iter().map(|far| far.0).sum::<usize>()
        };
        let says = self.records.iter().any(|record| {
            !record.told.is_empty() || record.reason.as_ref().is_some_and(|reason| reason.1.is_some())
        });
        if total(self) < total(usual)
            && !says
            && self.refused.is_none()
            && !self.hides_errors
            && !self.is_lacking(usual)
        {
            wrong.push(format!("bytes are lost, and nobody says so: {:?} {:?}", self.records, self.fars));
        }
        // Over TCP, what is cut short does not look like an end, unless the system said that the peer is gone.
        let gone = [
            libc::EPIPE,
            libc::ECONNRESET,
            libc::ENOTCONN,
            libc::ETIMEDOUT,
            libc::EHOSTUNREACH,
            libc::ENETUNREACH,
            libc::ENETDOWN,
        ];
        let whole = |got| self.records.iter().any(|record| record.pushed == got);
        let looks_whole = |far: &&FarEnd| far.2 && far.1 == Some(Ok(())) && !whole(far.0);
        if call != Call::Option && !errno.is_some_and(|errno| gone.contains(&errno)) {
            let cut = self.fars.iter().filter(looks_whole);
            wrong.extend(cut.map(|far| format!("{} bytes, and FIN: {:?}", far.0, self.records)));
        }
        // The reason is the fault, or what it did to the other end.
        for record in &self.records {
            let Some((reason, Some(code))) = &record.reason else { continue };
            let of_a_lost_peer =
                [libc::ECONNRESET, libc::EPIPE, libc::ENOTCONN, libc::ECONNREFUSED, libc::ENOENT];
            let forgot = call == Call::Control && *code == libc::EEXIST;
            if Some(*code) != errno && !forgot && !of_a_lost_peer.contains(code) {
                wrong.push(format!("{} ended with {reason}", record.name));
            }
        }
        self.wrong.append(&mut wrong);
    }

    /// A connection was not even made.
    fn is_lacking(&self, usual: &Outcome) -> bool {
        self.records.len() < usual.records.len() || self.records.iter().any(|record| record.token.is_none())
    }
}
