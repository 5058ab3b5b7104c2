//! The state of a connect by name.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::net::options::ConnectOptions;
use crate::net::resolve::Asked;
use crate::timers::TimerKey;
use crate::token::Token;

/// State of a connect by name: addresses left, attempts running, failures.
pub(crate) struct Dial {
    /// As the user gave it, for errors.
    pub(crate) name: String,
    pub(crate) options: ConnectOptions,
    /// Addresses not tried yet.
    pub(crate) left: VecDeque<SocketAddr>,
    /// Attempts in progress.
    pub(crate) attempts: Vec<(Token, SocketAddr)>,
    pub(crate) failures: Vec<(SocketAddr, io::Error)>,
    pub(crate) attempt_delay: Option<TimerKey>,
    pub(crate) deadline: Option<TimerKey>,
    /// The look-up of the name, once it was asked for.
    pub(crate) asked: Option<Asked>,
}

impl Dial {
    /// What was tried, and the outcome of each.
    pub(crate) fn error(&self, kind: Option<ErrorKind>) -> io::Error {
        let mut why: Vec<String> =
            self.failures.iter().map(|(address, error)| format!("{address}: {error}")).collect();
        why.extend(self.attempts.iter().map(|(_, address)| format!("{address}: no answer")));
        let why = match why.is_empty() {
            true if self.asked.as_ref().is_some_and(|asked| !asked.has_begun()) => {
                "its look-up was not begun, because too many others have not ended".to_owned()
            }
            true => "the name was not found in time".to_owned(),
            false => why.join("; "),
        };
        let of_last = self.failures.last().map(|(_, error)| error.kind());
        let kind = kind.or(of_last).unwrap_or(ErrorKind::NotConnected);
        io::Error::new(kind, format!("cannot connect to {}: {why}", self.name))
    }
}
