//! Connecting: to an address, which is a socket and one system call, or to a name, which is looked up
//! first.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::core::action::{Action, Message};
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::event_loop::{connect, dial};
use crate::guard::drop_guarded;
use crate::link::dial::Dial;
use crate::link::held::Held;
use crate::link::source::Plain;
use crate::link::state::{Connecting, Link};
use crate::net::address::{ToAddress, about};
use crate::net::options::ConnectOptions;
use crate::net::resolve;
use crate::sys;
use crate::token::Handle;

impl ChannelMap {
    /// Connect to a TCP or a Unix-domain address, or to a name. Hooks report the outcome, never before
    /// this returns: `handle_connect` and `handle_open`, or `handle_error` with the cause and
    /// `handle_close`. What is pushed meanwhile is sent once connected.
    ///
    /// A name is looked up by one of the process's four resolver threads. Its addresses are tried in
    /// turn, alternating between the families, each 250 ms after the previous one or as soon as that
    /// fails. The first that connects is used; all of it may take 30 s ([`ConnectOptions::timeout`]). The
    /// error of a name lists what was tried. A connect to an address is limited only by the system and
    /// by [`set_timeout`](crate::Channel::set_timeout).
    ///
    /// # Errors
    /// Only if the address is unusable or no socket can be made.
    pub fn connect<D: Dispatcher>(
        &mut self,
        address: impl ToAddress,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        self.connect_with(address, &ConnectOptions::default(), dispatcher)
    }

    /// As [`connect`](ChannelMap::connect), with options.
    ///
    /// # Errors
    /// As [`connect`](ChannelMap::connect); and if the system rejects an option, or the local address is
    /// not available.
    pub fn connect_with<D: Dispatcher>(
        &mut self,
        address: impl ToAddress,
        options: &ConnectOptions,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let literal = address.to_address();
        let address = match (literal, address.to_name()) {
            #[cfg(feature = "testing")]
            (Err(_), Some((host, port))) if self.is_scripted() => {
                return self.dial_by_script(host, port, options, dispatcher);
            }
            (Err(_), Some((host, port))) => return self.dial(host, port, options, dispatcher),
            (address, _) => address,
        };
        #[cfg(feature = "testing")]
        if self.is_scripted() {
            return self.connect_by_script(address, dispatcher);
        }
        let now = self.clock.now();
        let mut later = false;
        let made = address.and_then(|address| {
            let begun = sys::stream::connect(&address, options);
            let (fd, file, begun) = begun.map_err(|error| about("connect to", &address, &error))?;
            let mut link = Link::connecting(Some(Held::Plain(Plain(fd))), Connecting::InProgress);
            link.stamp(now);
            link.set_peer(Some(address));
            if let Some(file) = file {
                link.rare().file = Some(Box::new(file));
            }
            later = link.connect_began(begun);
            Ok(link)
        });
        let handle = self.insert(made, dispatcher)?;
        if later {
            connect::connect_later(self, handle.token(), 0);
        }
        Ok(handle)
    }

    /// Look names up with `resolver` from now on, instead of the system's `getaddrinfo`. It is called
    /// on other threads and may block: at most 2 look-ups of one name, 8 of a map and 32 of the process
    /// run at once, so that a server that does not answer leaves room for others. A connect whose
    /// look-up finds no room until its deadline fails with an error that says so.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    ///
    /// let mut map = ChannelMap::new()?;
    /// map.set_resolver(|host, port| match host {
    ///     "database" => Ok(vec![([127, 0, 0, 1], port).into()]),
    ///     _ => Err(std::io::Error::new(std::io::ErrorKind::NotFound, "no such host here")),
    /// });
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_resolver<F>(&mut self, resolver: F)
    where
        F: Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    {
        let old = std::mem::replace(&mut self.resolver, Arc::new(resolver));
        drop_guarded(&mut self.throttle, "a resolver", old);
    }

    /// A channel that connects to `host`, whose addresses are not known yet.
    pub(crate) fn dial<D: Dispatcher>(
        &mut self,
        host: String,
        port: u16,
        options: &ConnectOptions,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let handle = self.begin_to_dial(&host, port, options, dispatcher)?;
        let token = handle.token();
        let answers = self.open_queue().answers();
        let resolver = self.resolver.clone();
        let name = host.clone();
        let work = move || {
            let found = resolve::look_up(&resolver, &name, port);
            answers.give(Message::Call(Box::new(move |map| dial::resolved(map, token, found))));
        };
        let asked = resolve::ask(self.id, &host, Box::new(work));
        match (asked, dial::dial_of(self, token)) {
            (Ok(asked), Some(dial)) => dial.asked = Some(asked),
            (Err(error), _) => dial::resolved(self, token, Err(error)),
            (Ok(_), None) => {}
        }
        Ok(handle)
    }

    /// The channel, with its deadline.
    pub(crate) fn begin_to_dial<D: Dispatcher>(
        &mut self,
        host: &str,
        port: u16,
        options: &ConnectOptions,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let name = format!("{host}:{port}");
        let dial = Box::new(Dial {
            name,
            options: options.clone(),
            left: VecDeque::new(),
            attempts: Vec::new(),
            failures: Vec::new(),
            attempt_delay: None,
            deadline: None,
            asked: None,
        });
        let mut link = Link::connecting(None, Connecting::ByName(dial));
        link.stamp(self.clock.now());
        let handle = self.insert(Ok(link), dispatcher)?;
        let token = handle.token();
        if let Some(timeout) = options.timeout {
            let deadline = self.set_timer(Some(token), timeout, Action::DialTimeout(token));
            if let Some(dial) = dial::dial_of(self, token) {
                dial.deadline = Some(deadline);
            }
        }
        Ok(handle)
    }
}
