//! Why a command has no answer, and why one was not even accepted.

use std::fmt;

use dispatch_loop::Reason;

use crate::{Command, ServerError};

/// What a command's callback is given instead of an answer.
///
/// ```
/// use dispatch_loop_redis::{Error, ServerError};
///
/// let error = Error::Server(ServerError::new("NOSCRIPT No matching script"));
/// assert!(!error.is_outcome_unknown());
/// assert_eq!(error.server_code(), Some("NOSCRIPT"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server has refused it.
    Server(ServerError),
    /// The connection ended while the answer was awaited. The server may have done it, or not: whether it is
    /// asked again is for the caller to decide.
    Lost(Cause),
    /// It was never sent: the connection ended before, and is not to come back, or
    /// [`Options::keep_unsent`](crate::Options::keep_unsent) is off.
    NotSent(Cause),
    /// The answer did not come in time. If it was `sent`, the server may have done it, or may still do it; a late
    /// answer is dropped.
    TimedOut {
        /// Whether it was on its way.
        sent: bool,
    },
}

impl Error {
    /// Whether the server may have done what was asked, although there is no answer.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Error::Lost(_) | Error::TimedOut { sent: true })
    }

    /// The code of an error of the server, such as `WRONGTYPE`.
    pub fn server_code(&self) -> Option<&str> {
        match self {
            Error::Server(error) => Some(error.code()),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Server(error) => error.fmt(f),
            Error::Lost(cause) => write!(f, "outcome unknown: {cause}"),
            Error::NotSent(cause) => write!(f, "not sent: {cause}"),
            Error::TimedOut { sent: true } => f.write_str("outcome unknown: no answer in time"),
            Error::TimedOut { sent: false } => f.write_str("not sent in time"),
        }
    }
}

impl std::error::Error for Error {}

/// Why a connection has ended, or could not be made.
///
/// ```
/// use dispatch_loop_redis::Cause;
///
/// let cause = Cause::Connection(dispatch_loop::Reason::EndOfStream);
/// println!("no Redis: {cause}");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The channel has ended: the network, the other side, or what it sent was no RESP.
    Connection(Reason),
    /// The server has refused the greeting: a wrong password, no such database, too many clients.
    Refused(ServerError),
    /// The server did not greet in time, or answered nothing at all for as long as a command may take.
    TimedOut,
    /// The client was closed, or its map is being drained.
    Closed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Connection(reason) => reason.fmt(f),
            Cause::Refused(error) => write!(f, "the server has refused: {error}"),
            Cause::TimedOut => f.write_str("the server does not answer"),
            Cause::Closed => f.write_str("closed on our side"),
        }
    }
}

/// A command that was not accepted; its callback does not run.
///
/// ```
/// use dispatch_loop::ChannelMap;
/// use dispatch_loop_redis::{Options, Redis, Why};
///
/// let mut map = ChannelMap::new()?;
/// let options = Options::default().with_max_commands(1);
/// let redis = Redis::connect(&mut map, "redis://127.0.0.1:1", &options, ())?;
/// redis.call(&mut map, ["PING"], |_, _| {}).unwrap();
/// let refused = redis.call(&mut map, ["PING"], |_, _| {}).unwrap_err();
/// assert_eq!(refused.why, Why::Full);
/// let command = refused.command;              // for later: Handler::room says when
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Refused {
    /// Why.
    pub why: Why,
    /// The command, to be called another time.
    pub command: Command,
}

/// Why a command was not accepted.
///
/// ```
/// assert!(dispatch_loop_redis::Why::Full.to_string().contains("limit"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Too many commands, or bytes, are waiting: [`Options::max_commands`](crate::Options::max_commands) and
    /// [`max_bytes`](crate::Options::max_bytes). [`Handler::room`](crate::Handler::room) says when there is room.
    Full,
    /// There is no connection now, and commands are not to be kept
    /// ([`Options::keep_unsent`](crate::Options::keep_unsent)).
    NotConnected,
    /// The client is closed, or has given up.
    Closed,
    /// It would change what the answers of a shared connection mean: what it is, and what to use instead.
    NotHere(&'static str),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Full => f.write_str("too much is waiting for an answer: the limit is reached"),
            Why::NotConnected => f.write_str("there is no connection"),
            Why::Closed => f.write_str("the client is closed"),
            Why::NotHere(instead) => write!(f, "not on a shared connection: {instead}"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl std::error::Error for Refused {}
