//! Where a server is, and who we are there.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use dispatch_loop::{Address, ToAddress};

use crate::options::Protocol;

/// Where a server is: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]`, the same with `rediss` for TLS, or
/// `redis+unix://[[USER]:PASSWORD@]/PATH[?db=DB]`. Each may end in `?protocol=2`.
///
/// The port is 6379 by default, the database 0. What is special in a URL is written `%XX` in the user, the password
/// and the path. There is no option that turns off the verification of a certificate.
///
/// ```
/// use dispatch_loop_redis::Url;
///
/// let url: Url = "redis://app:p%40ss@cache.example.org/2".parse()?;
/// assert_eq!(url.to_string(), "redis://app:***@cache.example.org:6379/2");
/// assert!("redis://host/not-a-number".parse::<Url>().is_err());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    pub(crate) place: Place,
    pub(crate) tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u32,
    pub(crate) protocol: Option<Protocol>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A name or an IP address, without brackets.
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Url {
    /// The host to verify, for TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn host(&self) -> Option<&str> {
        match &self.place {
            Place::Tcp(host, _) => Some(host),
            Place::Unix(_) => None,
        }
    }
}

impl FromStr for Url {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Url> {
        parse(text).map_err(|why| {
            // Without what may be a password.
            let text = match text.rsplit_once('@') {
                Some((_, rest)) => format!("…@{rest}"),
                None => text.to_owned(),
            };
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("unusable URL \"{}\": {why}", text.escape_debug()),
            )
        })
    }
}

/// What is wrong is told without its text: where a password has a `/` or a `?`, that may be a part of it.
fn parse(text: &str) -> Result<Url, String> {
    let (scheme, rest) = text.split_once("://").ok_or("expected redis://HOST[:PORT][/DB]")?;
    let (is_unix, tls) = match scheme {
        "redis" => (false, false),
        "rediss" => (false, true),
        "redis+unix" | "unix" => (true, false),
        _ => return Err("expected redis://, rediss:// or redis+unix://".to_owned()),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (who, host) = authority.rsplit_once('@').map_or((None, authority), |(who, host)| (Some(who), host));
    let mut url = Url {
        place: Place::Unix(PathBuf::new()),
        tls,
        user: None,
        password: None,
        database: 0,
        protocol: None,
    };
    if let Some(who) = who {
        let (user, password) =
            who.split_once(':').ok_or("a user without a password: expected USER:PASSWORD@")?;
        url.user = Some(decoded(user)?).filter(|user| !user.is_empty());
        url.password = Some(decoded(password)?);
    }
    if is_unix {
        if !host.is_empty() || path.len() < 2 {
            return Err("expected redis+unix:///PATH".to_owned());
        }
        url.place = Place::Unix(decoded(path)?.into());
    } else {
        url.place = tcp(host)?;
        if let Some(database) = path.strip_prefix('/').filter(|database| !database.is_empty()) {
            url.database = number(database)?;
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("db", database)) if is_unix => url.database = number(database)?,
            Some(("protocol", "2")) => url.protocol = Some(Protocol::Resp2),
            Some(("protocol", "3")) => url.protocol = Some(Protocol::Resp3),
            _ => return Err("an option that is unknown".to_owned()),
        }
    }
    Ok(url)
}

fn tcp(host: &str) -> Result<Place, String> {
    let (host, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((ip, "")) => (ip, None),
        Some((ip, port)) => (ip, Some(port.strip_prefix(':').ok_or("expected [IPV6]:PORT")?)),
        None => host.rsplit_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None | Some("") => 6379,
        Some(port) => port.parse().map_err(|_| "the port is no number")?,
    };
    let is_usable = host.parse::<IpAddr>().is_ok() || (host, port).to_name().is_some();
    match is_usable {
        true => Ok(Place::Tcp(host.to_owned(), port)),
        false => Err("there is no usable host".to_owned()),
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "the database is no number".to_owned())
}

/// Without `%XX`.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        bytes.push(
            digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or("% without two digits")?,
        );
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// Without the password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_unix = matches!(self.place, Place::Unix(_));
        f.write_str(match (is_unix, self.tls) {
            (true, _) => "redis+unix://",
            (false, true) => "rediss://",
            (false, false) => "redis://",
        })?;
        if self.password.is_some() {
            write!(f, "{}:***@", self.user.as_deref().unwrap_or_default().escape_debug())?;
        }
        match &self.place {
            Place::Unix(path) if self.database == 0 => write!(f, "{}", path.display()),
            Place::Unix(path) => write!(f, "{}?db={}", path.display(), self.database),
            Place::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}/{}", self.database),
            Place::Tcp(host, port) => write!(f, "{host}:{port}/{}", self.database),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

/// Where to connect.
impl ToAddress for Place {
    fn to_address(&self) -> io::Result<Address> {
        match self {
            Place::Tcp(host, port) => (host.as_str(), *port).to_address(),
            Place::Unix(path) => path.to_address(),
        }
    }

    fn to_name(&self) -> Option<(String, u16)> {
        match self {
            Place::Tcp(host, port) => (host.as_str(), *port).to_name(),
            Place::Unix(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://localhost/", "redis://localhost:6379/0"),
            ("redis://127.0.0.1:1234/15", "redis://127.0.0.1:1234/15"),
            ("rediss://:secret@[::1]:1/3?protocol=2", "rediss://:***@[::1]:1/3"),
            ("redis://[::1]", "redis://[::1]:6379/0"),
            ("redis://user:a:b@c@host", "redis://user:***@host:6379/0"),
            ("redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock"),
            ("redis+unix://:secret@/run/a%20b?db=2&protocol=3", "redis+unix://:***@/run/a b?db=2"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), shown);
        }
        let url: Url = "redis://us%3Aer:p%40%2Fs%25@host".parse().unwrap();
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("us:er"), Some("p@/s%")));
        let url: Url = "redis://:only@host?protocol=2".parse().unwrap();
        assert_eq!((url.user, url.password.as_deref()), (None, Some("only")));
        assert_eq!(url.protocol, Some(Protocol::Resp2));
    }

    #[test]
    fn what_is_no_url_is_refused_without_the_password() {
        for text in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis:///1",
            "redis://host:port",
            "redis://host:99999",
            "redis://host/one",
            "redis://host/1/2",
            "redis://host?verify=no",
            "redis://host?db=1",
            "redis://user@host",
            "redis://:%zz@host",
            "redis://:%4@host",
            "redis://:%ff@host",
            "redis://a b",
            "redis+unix://",
            "redis+unix:///",
            "redis+unix://host/path",
            "redis://[::1",
            "redis://[::1]6379",
            "redis://[::1]:x",
            "redis://secret:secret@host/x",
            "redis://:secret/secret@host",
            "redis://:secret?secret@host",
            "redis://host?secret/secret@host",
            "redis://user:1/secret@host",
            "redis://user:1?secret@host",
        ] {
            let error = text.parse::<Url>().expect_err(text);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
