//! Making TLS channels, and turning plain ones into them.

use std::io;

use crate::tls::session::server_name;
use crate::tls::{TlsClient, TlsServer, TlsSession};
use crate::{Channel, ChannelMap, Dispatcher, Handle, Socket, ToAddress};

impl ChannelMap {
    /// As [`add`](ChannelMap::add), and speak TLS on it, as a server: for the socket that `handle_accept` was
    /// given. Nothing passes in the clear. `handle_open` runs when the handshake is done, for which there are
    /// 10 s.
    ///
    /// # Errors
    /// As [`add`](ChannelMap::add).
    pub fn add_tls<D: Dispatcher>(
        &mut self,
        socket: impl Into<Socket>,
        server: &TlsServer,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let handle = self.add(socket, dispatcher)?;
        self.channel(handle)?.start_tls(server)?;
        Ok(handle)
    }

    /// As [`connect`](ChannelMap::connect), and speak TLS, as a client. The server must show a certificate for
    /// the host of `address`: a name, or an IP address. `handle_connect` runs when the connection is made,
    /// `handle_open` when the handshake is done, for which there are 10 s more.
    ///
    /// # Errors
    /// As [`connect`](ChannelMap::connect); and if `address` has no host.
    pub fn connect_tls<D: Dispatcher>(
        &mut self,
        address: impl ToAddress,
        client: &TlsClient,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let host = match (address.to_name(), address.to_address()) {
            (Some((host, _)), _) => Ok(host),
            (None, Ok(crate::Address::Ip(ip))) => Ok(ip.ip().to_string()),
            (None, Ok(other)) => {
                let why = format!("{other} has no host name to verify; connect, then `start_tls_client`");
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            }
            (None, Err(error)) => Err(error),
        }?;
        server_name(&host)?;
        let handle = self.connect(address, dispatcher)?;
        self.channel(handle)?.start_tls_client(client, &host)?;
        Ok(handle)
    }
}

impl Channel<'_> {
    /// Speak TLS on this channel, as a server, from here on: STARTTLS. On an open channel what was pushed before
    /// leaves in the clear first, then the handshake begins, and
    /// [`handle_wrapped`](Dispatcher::handle_wrapped) runs when it is done; on one that is not open yet,
    /// `handle_open` waits for it. There are 10 s for it.
    ///
    /// What the peer has sent in one go with its request, and the hook has read, must not be taken for
    /// encrypted: hand it over with [`unread`](Channel::unread), or refuse it. See
    /// [`wrap_source`](Channel::wrap_source).
    ///
    /// # Errors
    /// As [`wrap_source`](Channel::wrap_source).
    pub fn start_tls(&mut self, server: &TlsServer) -> io::Result<()> {
        let server = server.clone();
        self.wrap_source(move |wire| Ok(Box::new(TlsSession::server(wire, &server)?)))
    }

    /// As [`start_tls`](Channel::start_tls), as a client; the server must show a certificate for `name`, a host
    /// name or an IP address. While connecting: as soon as the connection is made.
    ///
    /// # Errors
    /// `InvalidInput` if `name` is neither; as [`wrap_source`](Channel::wrap_source).
    pub fn start_tls_client(&mut self, client: &TlsClient, name: &str) -> io::Result<()> {
        server_name(name)?;
        let (client, name) = (client.clone(), name.to_owned());
        self.wrap_source(move |wire| Ok(Box::new(TlsSession::client(wire, &client, &name)?)))
    }

    /// The TLS session of this channel; `None` if it does not speak TLS, or not yet.
    pub fn tls(&self) -> Option<&TlsSession> {
        self.source()
    }
}
