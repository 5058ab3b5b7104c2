//! What a client tells besides the answers to its commands.

use dispatch_loop::ChannelMap;

use crate::{Cause, Protocol, Redis, Value};

/// The hooks of a client. Implement what matters; `()` is a handler that leaves all of them out.
///
/// They run as the loop's own hooks do: one after another, never inside a call of yours, and while one runs nothing
/// else does. A panic in one is caught and logged.
///
/// ```
/// use dispatch_loop::ChannelMap;
/// use dispatch_loop_redis::{Cause, Handler, Redis, Server};
///
/// struct Told;
///
/// impl Handler for Told {
///     fn connected(&mut self, _: &mut ChannelMap, _: &Redis, server: &Server) {
///         println!("Redis {}", server.version.as_deref().unwrap_or("of an unknown version"));
///     }
///     fn disconnected(&mut self, _: &mut ChannelMap, _: &Redis, cause: &Cause) {
///         println!("no Redis for now: {cause}");
///     }
/// }
/// ```
#[allow(unused_variables)]
pub trait Handler: 'static {
    /// A connection is ready: authenticated, the database chosen. Commands that waited are sent next; what is called
    /// here comes after them. Runs again for each connection.
    fn connected(&mut self, map: &mut ChannelMap, redis: &Redis, server: &Server) {}

    /// A connection has ended, or an attempt has failed. The commands that were sent have got their errors before
    /// this; the client tries again, unless [`gone`](Handler::gone) follows.
    fn disconnected(&mut self, map: &mut ChannelMap, redis: &Redis, cause: &Cause) {}

    /// The client is over: closed, refused for good by the server (a wrong password, no such database), or out of
    /// attempts. All commands have got their errors. The last hook.
    fn gone(&mut self, map: &mut ChannelMap, redis: &Redis, cause: &Cause) {}

    /// The server has sent something by itself: a message of a channel, a confirmation of a subscription, an
    /// invalidation.
    fn push(&mut self, map: &mut ChannelMap, redis: &Redis, push: Push) {}

    /// A call was refused because too much waited, and half of that is gone.
    fn room(&mut self, map: &mut ChannelMap, redis: &Redis) {}
}

impl Handler for () {}

/// What a server says of itself when it is greeted. With RESP2 it says nothing.
///
/// ```
/// fn is_new(server: &dispatch_loop_redis::Server) -> bool {
///     server.version.as_deref().is_some_and(|version| version >= "7")
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Server {
    /// What is spoken.
    pub protocol: Protocol,
    /// Such as `7.0.15`.
    pub version: Option<String>,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: Option<String>,
    /// `master` or `replica`.
    pub role: Option<String>,
    /// The number of the connection, as in `CLIENT LIST`.
    pub id: Option<i64>,
}

/// Something that the server has sent by itself.
///
/// ```
/// use dispatch_loop_redis::{Push, Value};
///
/// fn heard(push: &Push) {
///     match push.message() {
///         Some((channel, text)) => println!("{}: {}", channel.escape_ascii(), text.escape_ascii()),
///         None => println!("{}: {} values", push.kind, push.values.len()),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Push {
    /// What it is: `message`, `pmessage`, `smessage`, `subscribe`, `invalidate`…
    pub kind: String,
    /// What follows the kind.
    pub values: Vec<Value>,
}

impl Push {
    /// The channel and the text, if it is a message of a channel, of whichever kind of subscription.
    pub fn message(&self) -> Option<(&[u8], &[u8])> {
        match (self.kind.as_str(), self.values.as_slice()) {
            ("message" | "smessage", [channel, text]) | ("pmessage", [_, channel, text]) => {
                Some((channel.as_bytes()?, text.as_bytes()?))
            }
            _ => None,
        }
    }
}
