//! Errors of our own: a failed look-up of a channel, an error about another channel, a caught panic.
//! Why a channel ended is in `reason.rs`.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustix::io::Errno;

use crate::token::Token;

/// Why a token or a handle did not lead to a channel or its dispatcher.
///
/// `?` converts it to an [`io::Error`]. A hook that returns one does not end its channel: it is only
/// logged.
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
    /// The channel is not in this map: it has ended, or the token is another map's.
    Gone(Token),
    /// One of its hooks is running, so its dispatcher is in use.
    Running(Token),
    /// Its dispatcher is not of the handle's type.
    OtherType(Token),
}

impl LookupError {
    /// Whether `error` is one of these.
    pub(crate) fn is_in(error: &io::Error) -> bool {
        let named = error.get_ref().and_then(|inner| inner.downcast_ref::<ChannelError>());
        named.and_then(|named| named.error.get_ref()).is_some_and(|inner| inner.is::<LookupError>())
    }

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
            LookupError::Gone(token) => write!(f, "channel {token} is not in this map, or no longer"),
            LookupError::Running(token) => write!(f, "channel {token} is running one of its hooks"),
            LookupError::OtherType(token) => {
                write!(f, "the dispatcher of channel {token} has another type")
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

/// An error that names the channel it is about: the inner error of an [`io::Error`] from a call on
/// another channel than the hook's own.
///
/// A hook that returns one about another channel does not end its own. If it is a push that the other
/// channel's queue has refused (`QuotaExceeded`), the other one ends with
/// [`Reason::Limit`](crate::Reason::Limit).
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

    /// The channel that `error` is about, if it names one.
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

/// A copy with the same kind, system code and text: an `io::Error` cannot be cloned.
pub(crate) fn clone_error(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        // What it says is the user's, and may panic.
        None => match catch_unwind(AssertUnwindSafe(|| error.to_string())) {
            Ok(text) => io::Error::new(error.kind(), text),
            Err(payload) => io::Error::new(error.kind(), panicked(payload)),
        },
    }
}

thread_local! {
    static RESET: Arc<io::Error> = Arc::new(Errno::CONNRESET.into());
}

/// The error of a lost connection, to be shared. There is nothing but its code in it, so all resets of a
/// thread share one.
pub(crate) fn shared(errno: Errno) -> Arc<io::Error> {
    let reset = match errno {
        // A map may be dropped after the thread's locals.
        Errno::CONNRESET => RESET.try_with(Arc::clone).ok(),
        _ => None,
    };
    reset.unwrap_or_else(|| Arc::new(errno.into()))
}

/// Whether two errors have the same kind and system code.
pub(crate) fn same(a: &io::Error, b: &io::Error) -> bool {
    match (a.raw_os_error(), b.raw_os_error()) {
        (None, None) => a.kind() == b.kind(),
        (a, b) => a == b,
    }
}

/// The error that a caught panic becomes.
pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> io::Error {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "(no message)".to_owned(),
    };
    // The payload is the user's value, and its drop may panic, too, with a value of which the same is true.
    if let Err(next) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(next);
    }
    io::Error::other(format!("panicked: {text}"))
}
