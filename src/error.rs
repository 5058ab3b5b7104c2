//! The errors that are our own: a channel that is not to be had, an error about another channel,
//! a panic of a hook; and the reason that a channel ended.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;

use crate::token::Token;

/// Why a token or a handle did not lead to a channel or its dispatcher.
///
/// Becomes an [`io::Error`] through `?`; one that a hook returns is logged and harms nobody.
///
/// ```
/// use dispatch_loop::{ChannelMap, Dispatcher, LookupError};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut here = ChannelMap::new()?;
/// let elsewhere = ChannelMap::new()?;
/// let handle = here.listen("127.0.0.1:0", Quiet)?;
/// assert!(matches!(elsewhere.get(handle), Err(LookupError::Gone(_))));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LookupError {
    /// No such channel in this map: it ended, or the token is another map's.
    Gone(Token),
    /// One of its hooks is running at this moment, so its dispatcher is in use.
    Running(Token),
    /// Its dispatcher is of another type than the handle says.
    OtherType(Token),
}

impl LookupError {
    /// The channel that was asked for.
    pub fn token(&self) -> Token {
        match *self {
            LookupError::Gone(token) | LookupError::Running(token) | LookupError::OtherType(token) => token,
        }
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookupError::Gone(token) => write!(f, "channel {token} is not in this map (any more)"),
            LookupError::Running(token) => write!(f, "channel {token} is running one of its hooks"),
            LookupError::OtherType(token) => {
                write!(f, "the dispatcher of channel {token} is of another type")
            }
        }
    }
}

impl Error for LookupError {}

impl From<LookupError> for io::Error {
    fn from(error: LookupError) -> Self {
        let kind = match error {
            LookupError::Gone(_) => io::ErrorKind::NotConnected,
            LookupError::Running(_) => io::ErrorKind::ResourceBusy,
            LookupError::OtherType(_) => io::ErrorKind::InvalidInput,
        };
        ChannelError::wrap(error.token(), io::Error::new(kind, error))
    }
}

/// An error that says which channel it is about; what an [`io::Error`] of a call on another
/// channel than the hook's own has inside.
///
/// A hook that returns one about another channel does not end its own.
///
/// ```
/// use dispatch_loop::{ChannelError, ChannelMap, Dispatcher};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = ChannelMap::new()?;
/// let handle = map.listen("127.0.0.1:0", Quiet)?;
/// let error = map.channel(handle.token())?.push(b"to a listener?").unwrap_err();
/// assert_eq!(ChannelError::token_of(&error), Some(handle.token()));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct ChannelError {
    token: Token,
    error: io::Error,
}

impl ChannelError {
    pub(crate) fn wrap(token: Token, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), ChannelError { token, error })
    }

    /// The channel that the error is about.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The channel that `error` is about, if it says so.
    pub fn token_of(error: &io::Error) -> Option<Token> {
        let inner = error.get_ref()?.downcast_ref::<ChannelError>()?;
        Some(inner.token)
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {}: {}", self.token, self.error)
    }
}

impl Error for ChannelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// An `io::Error` cannot be cloned: one that says the same.
pub(crate) fn twin(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Whether two errors say the same.
pub(crate) fn same(a: &io::Error, b: &io::Error) -> bool {
    a.kind() == b.kind() && a.raw_os_error() == b.raw_os_error()
}

/// What a caught panic becomes.
pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> io::Error {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "(no message)".to_owned(),
    };
    // The payload is the user's own value: dropping it may panic as well.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(payload)));
    io::Error::other(format!("panicked: {text}"))
}
