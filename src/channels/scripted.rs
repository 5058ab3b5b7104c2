//! Connects of a map for testing, which its server answers.

use std::io;

use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::link::state::{Connecting, Link};
use crate::net::address::Address;
use crate::net::options::ConnectOptions;
use crate::token::Handle;

impl ChannelMap {
    /// Whether sockets and look-ups are out of the question.
    pub(crate) fn is_scripted(&self) -> bool {
        self.stage.is_some()
    }

    pub(crate) fn connect_by_script<D: Dispatcher>(
        &mut self,
        address: io::Result<Address>,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let now = self.clock.now();
        let text = address.as_ref().map(Address::to_string).unwrap_or_default();
        let made = address.map(|address| {
            // Nothing of the system's is in progress.
            let mut link = Link::connecting(None, Connecting::Retry);
            link.stamp(now);
            link.set_peer(Some(address));
            link
        });
        let handle = self.insert(made, dispatcher)?;
        self.ask_server(handle, text);
        Ok(handle)
    }

    pub(crate) fn dial_by_script<D: Dispatcher>(
        &mut self,
        host: String,
        port: u16,
        options: &ConnectOptions,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let name = format!("{host}:{port}");
        let handle = self.begin_to_dial(&host, port, options, dispatcher)?;
        if let Some(link) = self.link_mut(handle.token()) {
            link.set_peer(Some(Address::Ip(([203, 0, 113, 1], port).into())));
        }
        self.ask_server(handle, name);
        Ok(handle)
    }

    fn ask_server<D: Dispatcher>(&mut self, handle: Handle<D>, address: String) {
        if let Some(stage) = &mut self.stage {
            stage.connects(handle.token(), address);
        }
    }
}
