//! Commands, encoded as they are made.

use std::fmt;
use std::time::Duration;

/// A command: a name and arguments, each of which is any bytes.
///
/// ```
/// use dispatch_loop_redis::Command;
/// use std::time::Duration;
///
/// let set = Command::new("SET").arg("answer").arg(42).arg(b"\0binary, too".as_slice());
/// let same = Command::from(["SET", "answer", "42"]);
/// let patient = Command::new("BLPOP").arg("queue").arg(60).with_timeout(Duration::from_secs(90));
/// ```
#[derive(Clone)]
#[must_use = "a command does nothing until it is called"]
pub struct Command {
    /// How many pieces follow.
    pub(crate) pieces: usize,
    /// Each with its length, as RESP has them.
    pub(crate) body: Vec<u8>,
    /// `None`: that of the options.
    pub(crate) timeout: Option<Option<Duration>>,
}

impl Command {
    /// A command without arguments yet.
    pub fn new(name: impl Argument) -> Command {
        Command { pieces: 0, body: Vec::new(), timeout: None }.arg(name)
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl Argument) -> Command {
        argument.give(&mut |bytes| self.push(bytes));
        self
    }

    /// More arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Argument>) -> Command {
        for argument in arguments {
            self = self.arg(argument);
        }
        self
    }

    /// How long the answer may take, instead of [`Options::timeout`](crate::Options::timeout); `None`: for ever, as
    /// is right for `XREAD BLOCK 0`.
    pub fn with_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Command {
        self.timeout = Some(timeout.into());
        self
    }

    /// The name, and the first argument: in upper case, empty if there is none.
    pub(crate) fn words(&self) -> [String; 2] {
        let mut rest = self.body.as_slice();
        [(); 2].map(|()| {
            let Some(end) = memchr::memchr(b'\n', rest) else { return String::new() };
            let length: usize =
                std::str::from_utf8(&rest[1..end - 1]).ok().and_then(|n| n.parse().ok()).unwrap_or(0);
            let word = &rest[end + 1..][..length];
            rest = &rest[end + 1 + length + 2..];
            // No name is longer; a value may be.
            String::from_utf8_lossy(&word[..word.len().min(32)]).to_ascii_uppercase()
        })
    }

    /// How many bytes it is on the wire.
    pub(crate) fn len(&self) -> usize {
        self.body.len() + 16
    }

    /// Append the whole of it, as it is sent.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("*{}\r\n", self.pieces).as_bytes());
        out.extend_from_slice(&self.body);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.pieces += 1;
        self.body.reserve(bytes.len() + 16);
        self.body.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(b"\r\n");
    }
}

/// `["SET", "key", "value"]`: pieces of one type. An empty one is the empty command, which is refused.
impl<T: Argument, const N: usize> From<[T; N]> for Command {
    fn from(pieces: [T; N]) -> Command {
        Command { pieces: 0, body: Vec::new(), timeout: None }.args(pieces)
    }
}

impl<T: Argument + Clone> From<&[T]> for Command {
    fn from(pieces: &[T]) -> Command {
        Command { pieces: 0, body: Vec::new(), timeout: None }.args(pieces.iter().cloned())
    }
}

/// Its name alone: arguments may be secret, or long.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [name, _] = self.words();
        f.debug_struct("Command").field("name", &name).field("pieces", &self.pieces).finish_non_exhaustive()
    }
}

/// What an argument of a [`Command`] can be: bytes, text, a whole number.
///
/// ```
/// use dispatch_loop_redis::Command;
///
/// let command = Command::new("SET").arg("name").arg(String::from("value")).arg("EX").arg(60u32);
/// ```
pub trait Argument {
    /// Call `take` with the bytes.
    fn give(&self, take: &mut dyn FnMut(&[u8]));
}

macro_rules! bytes {
    ($($type:ty),*) => {$(
        impl Argument for $type {
            fn give(&self, take: &mut dyn FnMut(&[u8])) {
                take(self.as_ref());
            }
        }
    )*};
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Argument for $type {
            fn give(&self, take: &mut dyn FnMut(&[u8])) {
                take(self.to_string().as_bytes());
            }
        }
    )*};
}

bytes!(str, String, [u8], Vec<u8>);
numbers!(i32, i64, u16, u32, u64, usize);

impl<const N: usize> Argument for [u8; N] {
    fn give(&self, take: &mut dyn FnMut(&[u8])) {
        take(self);
    }
}

impl<T: Argument + ?Sized> Argument for &T {
    fn give(&self, take: &mut dyn FnMut(&[u8])) {
        (**self).give(take);
    }
}
