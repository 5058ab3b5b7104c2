//! Looking a name up without connecting to it.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::core::action::{MapCall, Message};
use crate::core::map::ChannelMap;
use crate::event_loop::messages::guarded;
use crate::guard::drop_caught;
use crate::net::address::{Address, ToAddress};
use crate::net::resolve::{self, Asked};
use crate::threads::blocking;
use crate::threads::pulse::Work;
use crate::timers::TimerId;

/// Where the thread puts what it has found.
type Found = Arc<Mutex<Option<io::Result<Vec<SocketAddr>>>>>;

impl ChannelMap {
    /// Look up `name`, `"HOST:PORT"`, and call `done` with its addresses in a later turn: asyncio's
    /// `loop.getaddrinfo`. It is done as for a [`connect`](ChannelMap::connect) by name, on a thread of the look-ups,
    /// by the map's [resolver](ChannelMap::set_resolver). [`run`](crate::run) does not return before.
    ///
    /// After `timeout` without an answer `done` gets an error of the kind `TimedOut`; what the thread finds later is
    /// dropped. Other errors are those of the resolver; each names what was looked up.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    /// use std::time::Duration;
    ///
    /// let mut map = ChannelMap::new()?;
    /// map.look_up("localhost:80", Duration::from_secs(5), |_, found| match found {
    ///     Ok(addresses) => println!("{addresses:?}"),
    ///     Err(error) => println!("{error}"),
    /// })?;
    /// dispatch_loop::run(&mut map)?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// `name` is no host with a port (`InvalidInput`); 1,024 look-ups are not answered yet (`QuotaExceeded`); the
    /// system has no thread left.
    pub fn look_up<F>(&mut self, name: &str, timeout: Duration, done: F) -> io::Result<()>
    where
        F: FnOnce(&mut ChannelMap, io::Result<Vec<SocketAddr>>) + 'static,
    {
        let (host, port) = match (name.to_address(), name.to_name()) {
            (Ok(Address::Ip(address)), _) => {
                self.call_soon(move |map| done(map, Ok(vec![address])));
                return Ok(());
            }
            (_, Some(name)) => name,
            (Err(error), None) => return Err(error),
            (Ok(_), None) => {
                let why = format!("cannot look up {name}: it is no host with a port");
                return Err(io::Error::new(ErrorKind::InvalidInput, why));
            }
        };
        let found = Found::default();
        // The look-up, which is taken back with it, and the timer.
        let under_way: Rc<Cell<Option<(Asked, TimerId)>>> = Rc::default();
        let (name, outcome, ends) = (name.to_owned(), found.clone(), under_way.clone());
        let done_with_it: MapCall = Box::new(move |map| {
            let under_way = ends.take();
            let has_begun = under_way.as_ref().is_none_or(|(asked, _)| asked.has_begun());
            if let Some((_, timer)) = under_way {
                map.cancel(timer);
            }
            let late = || match has_begun {
                true => format!("there was no answer after {timeout:?}"),
                false => format!("too many look-ups are under way, and it had not begun after {timeout:?}"),
            };
            let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
            let found = outcome.unwrap_or_else(|| Err(io::Error::new(ErrorKind::TimedOut, late())));
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("cannot look up {name}: {error}"));
            guarded(map, Work::Blocking, |map| done(map, found.map_err(named)));
        });
        let number = self.pool().expect(done_with_it)?;
        let (answers, resolver, looked_up) =
            (self.open_queue().answers(), self.resolver.clone(), host.clone());
        let work = move || {
            let result = resolve::look_up(&resolver, &looked_up, port);
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            answers.give(Message::Call(Box::new(move |map| blocking::finish(map, number))));
        };
        match resolve::ask(self.id, &host, Box::new(work)) {
            Ok(asked) => {
                let timer = self.call_later(timeout, move |map| blocking::finish(map, number));
                under_way.set(Some((asked, timer)));
                Ok(())
            }
            Err(error) => {
                drop_caught("a look-up", self.pool().take(number));
                Err(error)
            }
        }
    }
}
