//! How a client behaves; everything has a default.

use std::time::Duration;

use dispatch_loop::ConnectOptions;
use dispatch_loop::reconnect::Backoff;
#[cfg(feature = "tls")]
use dispatch_loop::tls::TlsClient;

/// How a [`Redis`](crate::Redis) client behaves. Each has a method: `Options::default().with_name("web")`.
///
/// ```
/// use dispatch_loop_redis::{Options, Protocol};
/// use std::time::Duration;
///
/// let options = Options::default()
///     .with_name("web-1")
///     .with_timeout(Duration::from_secs(2))
///     .with_keep_unsent(false);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "options have no effect until a client is made with them"]
pub struct Options {
    /// What the server calls the connection in `CLIENT LIST` (nothing).
    pub name: Option<String>,
    /// What to speak (RESP3, and RESP2 with a server that does not know it). A URL may say `?protocol=2`.
    pub protocol: Protocol,
    /// How long the answer to a command may take, from the call on (30 s); `None`: for ever. If not a byte has come
    /// meanwhile, the connection is ended, too. [`Command::with_timeout`](crate::Command::with_timeout) says
    /// otherwise for one of them: a blocking one needs more.
    pub timeout: Option<Duration>,
    /// How long a connect, and then the greeting, may take (10 s).
    pub connect_timeout: Duration,
    /// How many commands may be without an answer (65,536). One more is refused.
    pub max_commands: usize,
    /// How many bytes of commands may wait to be sent (64 MiB). A command that would go over it is refused; but if
    /// nothing waits, one of any size is taken. The map has limits of its own
    /// ([`ChannelMap::set_limit`](dispatch_loop::ChannelMap::set_limit)).
    pub max_bytes: usize,
    /// How much memory one answer may take, about, in bytes (128 MiB). A larger one ends the connection.
    pub max_answer: usize,
    /// Whether commands that were not sent wait for the next connection (yes), as long as their time-out allows.
    /// Otherwise a call without a connection is refused, and a command that is not sent when it ends gets an error.
    /// A command that was sent is never repeated.
    pub keep_unsent: bool,
    /// Whether the connection is in the [background](dispatch_loop::Channel::set_background) while no answer is awaited
    /// (no): then it does not keep `run` going, and a drain of the map leaves it alone until all else is done. The wait
    /// for another attempt does keep it going.
    pub background: bool,
    /// After how many attempts in a row that fail the client gives up (never).
    pub max_attempts: Option<u32>,
    /// How long to wait between attempts (0.5 s to 60 s).
    pub backoff: Backoff,
    /// How to connect. Keep-alive after 60 s is on.
    pub connect: ConnectOptions,
    /// Whom to trust (whom the system trusts), for `rediss`.
    #[cfg(feature = "tls")]
    pub tls: Option<TlsClient>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: None,
            protocol: Protocol::Resp3,
            timeout: Some(Duration::from_secs(30)),
            connect_timeout: Duration::from_secs(10),
            max_commands: 65_536,
            max_bytes: 64 << 20,
            max_answer: 128 << 20,
            keep_unsent: true,
            background: false,
            max_attempts: None,
            backoff: Backoff::default(),
            connect: ConnectOptions::default().with_keep_alive(Duration::from_secs(60)),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Options {
    /// Set [`name`](Options::name): what the server calls the connection.
    pub fn with_name(mut self, name: impl Into<String>) -> Options {
        self.name = Some(name.into());
        self
    }

    /// Set [`protocol`](Options::protocol): what to speak.
    pub fn with_protocol(mut self, protocol: Protocol) -> Options {
        self.protocol = protocol;
        self
    }

    /// Set [`timeout`](Options::timeout): how long an answer may take.
    pub fn with_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Options {
        self.timeout = timeout.into();
        self
    }

    /// Set [`connect_timeout`](Options::connect_timeout): how long a connect may take.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Options {
        self.connect_timeout = timeout;
        self
    }

    /// Set [`max_commands`](Options::max_commands): how many may be without an answer.
    pub fn with_max_commands(mut self, commands: usize) -> Options {
        self.max_commands = commands;
        self
    }

    /// Set [`max_bytes`](Options::max_bytes): how much may wait to be sent.
    pub fn with_max_bytes(mut self, bytes: usize) -> Options {
        self.max_bytes = bytes;
        self
    }

    /// Set [`max_answer`](Options::max_answer): how large an answer may be.
    pub fn with_max_answer(mut self, bytes: usize) -> Options {
        self.max_answer = bytes;
        self
    }

    /// Set [`keep_unsent`](Options::keep_unsent): whether commands wait for a connection.
    pub fn with_keep_unsent(mut self, on: bool) -> Options {
        self.keep_unsent = on;
        self
    }

    /// Set [`background`](Options::background): whether an idle connection does not count.
    pub fn with_background(mut self, on: bool) -> Options {
        self.background = on;
        self
    }

    /// Set [`max_attempts`](Options::max_attempts): when to give up.
    pub fn with_max_attempts(mut self, attempts: impl Into<Option<u32>>) -> Options {
        self.max_attempts = attempts.into();
        self
    }

    /// Set [`backoff`](Options::backoff): the waits between attempts.
    pub fn with_backoff(mut self, backoff: Backoff) -> Options {
        self.backoff = backoff;
        self
    }

    /// Set [`connect`](Options::connect): the socket's options.
    pub fn with_connect(mut self, options: ConnectOptions) -> Options {
        self.connect = options;
        self
    }

    /// Set [`tls`](Options::tls): whom to trust.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, client: TlsClient) -> Options {
        self.tls = Some(client);
        self
    }
}

/// A version of Redis' protocol.
///
/// ```
/// use dispatch_loop_redis::{Options, Protocol};
///
/// let plain = Options::default().with_protocol(Protocol::Resp2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// What every server speaks.
    Resp2,
    /// With more types, and messages beside the answers: since Redis 6.
    Resp3,
}
