//! One connection: the greeting, and what comes in. It ends with its channel; the client lives on.

use std::io;

use dispatch_loop::{Channel, Dispatcher, Reason, TimerId};

use crate::client::{Expect, HIGH, LOW, Phase, Redis, SUBSCRIBE, UNSUBSCRIBE};
use crate::decode::{Decoder, Message};
use crate::{Cause, Command, Error, Protocol, Push, Server, ServerError, Value};

/// The dispatcher of one attempt.
pub(crate) struct Connection {
    redis: Redis,
    decoder: Decoder,
    step: Step,
    greeting: Option<TimerId>,
    server: Server,
    /// How many channels and patterns, and how many shard channels, are subscribed to.
    subscribed: [i64; 2],
}

/// What the greeting waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Step {
    Begin,
    Hello,
    Auth,
    Name,
    Select,
    Done,
}

impl Connection {
    pub(crate) fn new(redis: Redis) -> Connection {
        let most = redis.0.borrow().options.max_answer;
        let server = Server { protocol: Protocol::Resp2, version: None, mode: None, role: None, id: None };
        let decoder = Decoder::new(most);
        Connection { redis, decoder, step: Step::Begin, greeting: None, server, subscribed: [0; 2] }
    }

    /// The next step that there is anything to do in.
    fn greet(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let command = {
            let state = self.redis.0.borrow();
            let (url, options) = (&state.url, &state.options);
            let resp2 = self.server.protocol == Protocol::Resp2;
            loop {
                self.step = match self.step {
                    Step::Begin => Step::Hello,
                    Step::Hello => Step::Auth,
                    Step::Auth => Step::Name,
                    Step::Name => Step::Select,
                    Step::Select | Step::Done => Step::Done,
                };
                match (self.step, &url.password, &options.name) {
                    (Step::Hello, password, name)
                        if url.protocol.unwrap_or(options.protocol) == Protocol::Resp3 =>
                    {
                        let mut hello = Command::new("HELLO").arg(3);
                        if let Some(password) = password {
                            hello =
                                hello.arg("AUTH").arg(url.user.as_deref().unwrap_or("default")).arg(password);
                        }
                        if let Some(name) = name {
                            hello = hello.arg("SETNAME").arg(name);
                        }
                        // Its answer is in it already.
                        self.decoder.protocol = Protocol::Resp3;
                        break Some(hello);
                    }
                    (Step::Auth, Some(password), _) if resp2 => {
                        break Some(Command::new("AUTH").args(&url.user).arg(password));
                    }
                    (Step::Name, _, Some(name)) if resp2 => {
                        break Some(Command::from(["CLIENT", "SETNAME", name.as_str()]));
                    }
                    (Step::Select, ..) if url.database > 0 => {
                        break Some(Command::new("SELECT").arg(url.database));
                    }
                    (Step::Done, ..) => break None,
                    _ => {}
                }
            }
        };
        let Some(command) = command else {
            self.begin(ch);
            return Ok(());
        };
        let mut bytes = Vec::new();
        command.write(&mut bytes);
        ch.push(&bytes)
    }

    fn greeted(&mut self, ch: &mut Channel<'_>, answer: Result<Value, ServerError>) -> io::Result<()> {
        match (self.step, answer) {
            (Step::Hello, Ok(facts)) => {
                let text = |name: &str| facts.get(name).map(|value| value.text().into_owned());
                let id = facts.get("id").and_then(Value::as_int);
                let (version, mode, role) = (text("version"), text("mode"), text("role"));
                self.server = Server { protocol: Protocol::Resp3, version, mode, role, id };
            }
            (Step::Hello, Err(error)) if knows_no_hello(&error) => {
                self.decoder.protocol = Protocol::Resp2;
            }
            (Step::Name, Err(error)) => log::info!("the server does not take a name: {error}"),
            (_, Ok(_)) => {}
            (_, Err(error)) => {
                let mut state = self.redis.0.borrow_mut();
                state.is_final = !passes(&error);
                state.cause = Some(Cause::Refused(error));
                ch.abort();
                return Ok(());
            }
        }
        self.greet(ch)
    }

    /// The server is ready.
    fn begin(&mut self, ch: &mut Channel<'_>) {
        if let Some(timer) = self.greeting.take() {
            ch.cancel(timer);
        }
        {
            let mut state = self.redis.0.borrow_mut();
            state.phase = Phase::Ready;
            state.failures = 0;
            state.server = Some(self.server.clone());
        }
        self.redis.subscribe_again();
        let server = self.server.clone();
        self.redis.tell(ch.map_mut(), |handler, map, redis| handler.connected(map, redis, &server));
        if self.redis.is_paused() {
            ch.pause_reading();
        }
    }

    fn take(&mut self, ch: &mut Channel<'_>, message: Message) -> io::Result<()> {
        match message {
            Message::Answer(answer) if self.step != Step::Done => self.greeted(ch, answer),
            Message::Answer(Ok(Value::Array(values))) if self.is_push(&values) => self.pushed(ch, values),
            Message::Answer(answer) => self.answered(ch, answer),
            Message::Push(values) => self.pushed(ch, values),
        }
    }

    /// With RESP2 what the server sends by itself looks like an answer.
    fn is_push(&self, values: &[Value]) -> bool {
        let kind = values.first().and_then(Value::as_str).unwrap_or_default();
        match kind {
            _ if self.server.protocol == Protocol::Resp3 => false,
            "message" | "pmessage" | "smessage" => self.subscribed != [0, 0],
            _ => self.awaits(kind),
        }
    }

    /// Whether the confirmation of a subscription is what comes next.
    fn awaits(&self, kind: &str) -> bool {
        let state = self.redis.0.borrow();
        let expect = state.sent.front().map(|one| &one.expect);
        matches!(expect, Some(Expect::Confirmations { verb, .. }) if *verb == kind)
    }

    fn pushed(&mut self, ch: &mut Channel<'_>, values: Vec<Value>) -> io::Result<()> {
        let mut values = values.into_iter();
        let kind = values.next().map(|kind| kind.text().into_owned()).unwrap_or_default();
        let values: Vec<Value> = values.collect();
        let is = |verbs: &[&str]| verbs.contains(&kind.as_str());
        let count = values.get(1).and_then(Value::as_int).unwrap_or(0);
        if is(&SUBSCRIBE) || is(&UNSUBSCRIBE) {
            self.subscribed[usize::from(kind.starts_with('s') && kind != "subscribe")] = count;
        }
        let is_awaited = self.awaits(&kind);
        self.redis.tell(ch.map_mut(), |handler, map, redis| handler.push(map, redis, Push { kind, values }));
        if !is_awaited {
            return Ok(());
        }
        let confirmed = {
            let mut state = self.redis.0.borrow_mut();
            match state.sent.front_mut().map(|one| &mut one.expect) {
                Some(Expect::Confirmations { left, .. }) if *left > 1 => {
                    *left -= 1;
                    None
                }
                _ => state.sent.pop_front(),
            }
        };
        if let Some(one) = confirmed {
            one.tell(ch.map_mut(), Ok(Value::Int(count)));
        }
        Ok(())
    }

    fn answered(&mut self, ch: &mut Channel<'_>, answer: Result<Value, ServerError>) -> io::Result<()> {
        let one = {
            let mut state = self.redis.0.borrow_mut();
            if let Some(Expect::Transaction { left, refused }) =
                state.sent.front_mut().map(|one| &mut one.expect)
            {
                if *left > 1 {
                    *left -= 1;
                    *refused = refused.take().or(answer.err());
                    return Ok(());
                }
            }
            state.sent.pop_front()
        };
        let Some(mut one) = one else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the server has sent an answer to nothing",
            ));
        };
        let answer = match (&mut one.expect, answer) {
            // Which command was wrong says more than that the transaction was not done.
            (Expect::Transaction { refused, .. }, Err(error)) => Err(refused.take().unwrap_or(error)),
            (Expect::Confirmations { verb, channels, .. }, Err(error)) => {
                self.redis.forget(verb, channels);
                if one.answer.is_none() {
                    log::warn!("{verb} was refused: {error}");
                }
                Err(error)
            }
            (Expect::Confirmations { .. }, Ok(_)) => {
                self.redis.0.borrow_mut().sent.push_front(one);
                let what = "the server has answered a subscription with something else";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            (_, answer) => answer,
        };
        one.tell(ch.map_mut(), answer.map_err(Error::Server));
        Ok(())
    }

    fn read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            self.decoder.feed(data);
            while let Some(message) = self.decoder.next()? {
                self.take(ch, message)?;
                if ch.is_closing() {
                    break;
                }
                if self.redis.is_paused() {
                    // They come again when reading goes on.
                    ch.unread(&self.decoder.take_rest());
                    break;
                }
            }
            Ok(())
        })
    }
}

impl Dispatcher for Connection {
    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_timeout(None);
        #[cfg(feature = "tls")]
        {
            let state = self.redis.0.borrow();
            if let (true, Some(tls)) = (state.url.tls, &state.options.tls) {
                let host = state.url.host().unwrap_or_default().to_owned();
                return ch.start_tls_client(tls, &host);
            }
        }
        Ok(())
    }

    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let limit = {
            let mut state = self.redis.0.borrow_mut();
            state.channel = Some(ch.token());
            state.options.connect_timeout
        };
        ch.set_watermarks(LOW, HIGH);
        // What is queued is bounded by the client, and one command may be of any size.
        ch.set_limit(usize::MAX, dispatch_loop::OnLimit::Refuse);
        ch.set_busy(true);
        let redis = self.redis.clone();
        self.greeting = Some(ch.call_later(limit, move |ch| {
            redis.0.borrow_mut().cause = Some(Cause::TimedOut);
            ch.abort();
            Ok(())
        }));
        self.hook(ch, Connection::greet)
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, Connection::read)
    }

    fn handle_low(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, |_, _| Ok(()))
    }

    fn handle_drained(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, |_, _| Ok(()))
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        let cause = self.redis.0.borrow_mut().cause.take();
        self.redis.has_ended(ch.map_mut(), cause.unwrap_or_else(|| Cause::Connection(reason.clone())));
    }
}

impl Connection {
    /// What is called in a hook is sent when it is done, all of it at once.
    fn hook(
        &mut self,
        ch: &mut Channel<'_>,
        f: impl FnOnce(&mut Connection, &mut Channel<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.redis.0.borrow_mut().running = true;
        let result = f(self, ch);
        self.redis.make_room(ch.map_mut());
        self.redis.0.borrow_mut().running = false;
        if result.is_ok() {
            self.redis.pump(ch);
        }
        result
    }
}

/// A server before Redis 6, one in which the command is renamed or forbidden, or one that does not know RESP3.
fn knows_no_hello(error: &ServerError) -> bool {
    let text = error.text().to_ascii_lowercase();
    matches!(error.code(), "NOPROTO" | "NOPERM") || text.contains("unknown command")
}

/// Whether another attempt may find the server of another mind.
fn passes(error: &ServerError) -> bool {
    let is_busy =
        matches!(error.code(), "LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN" | "OOM");
    is_busy || error.text().contains("max number of clients")
}
