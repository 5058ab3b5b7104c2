//! TLS on the command lines, and what follows from it. Without the feature `tls` its options are wrong usage.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Handle, Socket, ToAddress};

use super::Exit;

/// `--tls-cert` and `--tls-key`, for servers that know them.
#[derive(Clone, Default)]
pub struct ServerTls {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    #[cfg(feature = "tls")]
    server: Option<dispatch_loop::tls::TlsServer>,
}

impl ServerTls {
    pub fn take(&mut self, option: &str, value: OsString) -> Result<(), Exit> {
        is_known(option)?;
        let place = if option == "--tls-key" { &mut self.key } else { &mut self.certificate };
        *place = Some(value.into());
        Ok(())
    }

    /// Read the files.
    pub fn begin(&mut self) -> Result<(), Exit> {
        match (&self.certificate, &self.key) {
            (None, None) => {}
            #[cfg(feature = "tls")]
            (Some(certificate), Some(key)) => {
                self.server = Some(dispatch_loop::tls::TlsServer::from_files(certificate, key)?);
            }
            #[cfg(not(feature = "tls"))]
            (Some(_), Some(_)) => {}
            _ => return Err(Exit::Usage("--tls-cert and --tls-key need each other".to_owned())),
        }
        Ok(())
    }

    /// Read them again at each SIGHUP. All clones of the server have them then, on whichever loop they are.
    #[cfg(all(feature = "tls", feature = "signals"))]
    pub fn reload_on_signal(&self, map: &mut ChannelMap) -> io::Result<()> {
        let Some(server) = self.server.clone() else { return Ok(()) };
        let (certificate, key) = (self.certificate.clone(), self.key.clone());
        let reload = move |_: &mut ChannelMap| {
            let (Some(certificate), Some(key)) = (&certificate, &key) else { return };
            match server.reload_files(certificate, key) {
                Ok(()) => log::info!("certificate and key are read anew"),
                Err(error) => log::error!("the old certificate stays: {error}"),
            }
        };
        map.on_signal(signal_hook::consts::SIGHUP, reload).map(drop)
    }

    #[cfg(not(all(feature = "tls", feature = "signals")))]
    pub fn reload_on_signal(&self, _: &mut ChannelMap) -> io::Result<()> {
        Ok(())
    }

    /// Speak TLS on a connection that was accepted, if there is a certificate.
    #[cfg(feature = "tls")]
    pub fn start_on(&self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.server.as_ref().map_or(Ok(()), |server| ch.start_tls(server))
    }

    #[cfg(not(feature = "tls"))]
    pub fn start_on(&self, _: &mut Channel<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// `--tls`, `--ca` and `--server-name`.
#[derive(Default)]
pub struct ClientTls {
    wanted: bool,
    roots: Option<PathBuf>,
    name: Option<String>,
    #[cfg(feature = "tls")]
    client: Option<dispatch_loop::tls::TlsClient>,
}

impl ClientTls {
    /// Goes below the help of each client that has it.
    pub const HELP: &str = "
  --tls              speak TLS; the server must show a certificate for the host of its address
  --ca FILE          trust the authorities in this file (PEM), not those of the system
  --server-name NAME  the certificate must be for this name instead";

    /// What a client does not know itself is one of these options, or a mistake.
    pub fn take(&mut self, unknown: lexopt::Error, args: &mut lexopt::Parser) -> Result<(), Exit> {
        let lexopt::Error::UnexpectedOption(option) = &unknown else { return Err(unknown.into()) };
        if !["--tls", "--ca", "--server-name"].contains(&option.as_str()) {
            return Err(unknown.into());
        }
        is_known(option)?;
        match option.as_str() {
            "--tls" => self.wanted = true,
            "--ca" => self.trust(args.value()?)?,
            _ => self.name = Some(super::parse(option, args.value()?, "the name of a host")?),
        }
        Ok(())
    }

    /// Trust whom this file names.
    pub fn trust(&mut self, file: OsString) -> Result<(), Exit> {
        is_known("--ca")?;
        self.roots = Some(file.into());
        Ok(())
    }

    /// It is an `https://` address.
    pub fn is_wanted(&mut self) -> Result<(), Exit> {
        is_known("https://")?;
        self.wanted = true;
        Ok(())
    }

    /// All options are known: read the authorities.
    pub fn begin(&mut self) -> Result<(), Exit> {
        if !self.wanted {
            let without = |option: &str| Err(Exit::Usage(format!("{option} says nothing without TLS")));
            return match (&self.roots, &self.name) {
                (Some(_), _) => without("--ca"),
                (_, Some(_)) => without("--server-name"),
                _ => Ok(()),
            };
        }
        #[cfg(feature = "tls")]
        {
            use dispatch_loop::tls::TlsClient;
            let client = self.roots.as_ref().map_or_else(TlsClient::new, TlsClient::with_roots_file);
            self.client = Some(client?);
        }
        Ok(())
    }

    /// Speak TLS on this connection, if that is wanted.
    pub fn start_on(&self, ch: &mut Channel<'_>, address: &str) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(client) = &self.client {
            let name = self.name.clone().or_else(|| host_of(address)).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("{address} needs --server-name"))
            })?;
            return ch.start_tls_client(client, &name);
        }
        let _ = (ch, address);
        Ok(())
    }
}

#[cfg(feature = "tls")]
fn host_of(address: &str) -> Option<String> {
    match (address.to_name(), address.to_address()) {
        (Some((host, _)), _) => Some(host),
        (None, Ok(Address::Ip(address))) => Some(address.ip().to_string()),
        _ => None,
    }
}

/// Whether this build knows TLS.
fn is_known(option: &str) -> Result<(), Exit> {
    match cfg!(feature = "tls") {
        true => Ok(()),
        false => Err(Exit::Usage(format!("{option}: this program was built without the feature `tls`"))),
    }
}
