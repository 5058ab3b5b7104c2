//! What a server answers.

use std::borrow::Cow;
use std::fmt;

/// An answer of the server, or a part of one.
///
/// RESP2 has fewer types: there maps and sets are arrays, doubles and booleans are bytes and numbers. The
/// methods take either.
///
/// ```
/// use dispatch_loop_redis::Value;
///
/// let value = Value::Array(vec![Value::Int(7), Value::Bytes(b"seven".to_vec()), Value::Null]);
/// let [number, name, nothing] = value.as_array().unwrap() else { unreachable!() };
/// assert_eq!(number.as_int(), Some(7));
/// assert_eq!(name.text(), "seven");
/// assert!(nothing.is_null());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// There is nothing.
    Null,
    /// Yes or no (RESP3).
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number (RESP3).
    Double(f64),
    /// A whole number of any size, in decimal (RESP3).
    Big(String),
    /// What was stored: any bytes. RESP's bulk and verbatim strings.
    Bytes(Vec<u8>),
    /// What the server says itself, such as `OK`: a simple string.
    Status(String),
    /// Values in order.
    Array(Vec<Value>),
    /// Names and values, in the order of the wire (RESP3).
    Map(Vec<(Value, Value)>),
    /// Values without an order, in that of the wire (RESP3).
    Set(Vec<Value>),
    /// An error inside of an answer: that of one command of a transaction.
    Error(ServerError),
}

impl Value {
    /// Whether it is [`Value::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The bytes of `Bytes`, and the text of `Status` and `Big`.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            Value::Status(text) | Value::Big(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// The same, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// It as text, whatever it is: bad UTF-8 is replaced, what is no text is as `Debug` has it.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Value::Int(number) => Cow::Owned(number.to_string()),
            Value::Double(number) => Cow::Owned(number.to_string()),
            other => match other.as_bytes() {
                Some(bytes) => String::from_utf8_lossy(bytes),
                None => Cow::Owned(format!("{self:?}")),
            },
        }
    }

    /// A whole number; also one in text, as many commands have it.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Bool(is) => Some((*is).into()),
            other => other.as_str()?.parse().ok(),
        }
    }

    /// A number; also one in text, as RESP2 has it.
    pub fn as_double(&self) -> Option<f64> {
        match self {
            Value::Double(number) => Some(*number),
            Value::Int(number) => Some(*number as f64),
            other => other.as_str()?.parse().ok(),
        }
    }

    /// The values of an array or a set.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(values) | Value::Set(values) => Some(values),
            _ => None,
        }
    }

    /// The values of an array or a set, to keep.
    pub fn into_array(self) -> Option<Vec<Value>> {
        match self {
            Value::Array(values) | Value::Set(values) => Some(values),
            _ => None,
        }
    }

    /// Names and values: of a map, or of an array that has them in turn, as in RESP2. `None` for anything else.
    ///
    /// ```
    /// use dispatch_loop_redis::Value;
    ///
    /// let [name, value] = ["name", "value"].map(|text| Value::Bytes(text.into()));
    /// let (map, array) = (Value::Map(vec![(name.clone(), value.clone())]), Value::Array(vec![name, value]));
    /// assert_eq!(map.into_pairs(), array.into_pairs());
    /// ```
    pub fn into_pairs(self) -> Option<Vec<(Value, Value)>> {
        match self {
            Value::Map(pairs) => Some(pairs),
            Value::Array(values) if values.len() % 2 == 0 => {
                let mut values = values.into_iter();
                Some(std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect())
            }
            _ => None,
        }
    }

    /// The value that a map, or an array that stands for one, has under a name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let is = |key: &Value| key.as_bytes() == Some(name.as_bytes());
        match self {
            Value::Map(pairs) => pairs.iter().find(|(key, _)| is(key)).map(|(_, value)| value),
            Value::Array(values) => values.chunks_exact(2).find(|pair| is(&pair[0])).map(|pair| &pair[1]),
            _ => None,
        }
    }
}

/// An error that the server has answered with: it has not done what was asked.
///
/// ```
/// use dispatch_loop_redis::ServerError;
///
/// let error = ServerError::new("WRONGTYPE Operation against a key holding the wrong kind of value");
/// assert_eq!(error.code(), "WRONGTYPE");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError(String);

impl ServerError {
    /// What the server has said, from its first word on.
    pub fn new(text: impl Into<String>) -> ServerError {
        ServerError(text.into())
    }

    /// The first word, which tells what kind of error it is: `ERR`, `WRONGTYPE`, `NOAUTH`…
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// All of it, the code as well.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Control characters are escaped: they may have come from somebody else.
impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_debug())
    }
}

impl std::error::Error for ServerError {}
