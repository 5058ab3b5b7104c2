//! What a TLS server shows and asks for.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};

use crate::tls::certificates::{self, Certificates};
use crate::tls::tls_error;

/// A TLS server's certificates and settings: Python's `ssl.SSLContext`. Clones share the certificates, so that
/// [`reload`](TlsServer::reload_files) reaches every listener.
///
/// ```no_run
/// use dispatch_loop::tls::TlsServer;
///
/// let tls = TlsServer::from_files("cert.pem", "key.pem")?.with_alpn(["http/1.1"]);
/// tls.add_files("other-cert.pem", "other-key.pem")?;     // for the other names that clients ask for
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct TlsServer {
    certificates: Arc<Certificates>,
    config: Arc<ServerConfig>,
}

impl TlsServer {
    /// With a certificate, followed by those that vouch for it, and its private key, both in PEM.
    ///
    /// # Errors
    /// A file cannot be read, is not PEM, or the key is not that of the certificate; the error names it.
    pub fn from_files(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<TlsServer> {
        TlsServer::new(certificates::of_files(certificate.as_ref(), key.as_ref())?)
    }

    /// As [`from_files`](TlsServer::from_files), from memory.
    ///
    /// # Errors
    /// One of them is not PEM, or the key is not that of the certificate.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> io::Result<TlsServer> {
        TlsServer::new(certificates::of_pem(certificate, key)?)
    }

    fn new(pair: Arc<CertifiedKey>) -> io::Result<TlsServer> {
        let certificates = Arc::new(Certificates::new(pair));
        let config = config(|builder| builder.with_no_client_auth(), &certificates)?;
        Ok(TlsServer { certificates, config: Arc::new(config) })
    }

    /// Add a certificate for other names. A client is shown the first that is valid for the name that it asks
    /// for (SNI), or the first of all.
    ///
    /// # Errors
    /// As [`from_files`](TlsServer::from_files).
    pub fn add_files(&self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<()> {
        self.certificates.add(certificates::of_files(certificate.as_ref(), key.as_ref())?);
        Ok(())
    }

    /// Replace all certificates by this one, from the next handshake on. Connections that are there stay.
    ///
    /// # Errors
    /// As [`from_files`](TlsServer::from_files); the old certificates stay in use.
    pub fn reload_files(&self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<()> {
        self.certificates.replace(certificates::of_files(certificate.as_ref(), key.as_ref())?);
        Ok(())
    }

    /// As [`add_files`](TlsServer::add_files), from memory.
    ///
    /// # Errors
    /// As [`from_pem`](TlsServer::from_pem).
    pub fn add_pem(&self, certificate: &[u8], key: &[u8]) -> io::Result<()> {
        self.certificates.add(certificates::of_pem(certificate, key)?);
        Ok(())
    }

    /// As [`reload_files`](TlsServer::reload_files), from memory.
    ///
    /// # Errors
    /// As [`from_pem`](TlsServer::from_pem); the old certificates stay in use.
    pub fn reload_pem(&self, certificate: &[u8], key: &[u8]) -> io::Result<()> {
        self.certificates.replace(certificates::of_pem(certificate, key)?);
        Ok(())
    }

    /// The protocols to choose from by ALPN, the preferred one first. A client that offers none of them is
    /// refused; one that does not use ALPN is not.
    #[must_use]
    pub fn with_alpn<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> TlsServer {
        Arc::make_mut(&mut self.config).alpn_protocols = certificates::protocols(names);
        self
    }

    /// Ask clients for a certificate that one of the authorities in `roots` (PEM) vouches for; if it is
    /// `required`, a client without one is refused.
    ///
    /// # Errors
    /// `roots` is not PEM, or holds no certificate.
    pub fn with_client_roots(self, roots: &[u8], required: bool) -> io::Result<TlsServer> {
        let roots = Arc::new(certificates::roots(roots, "the roots for clients")?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, certificates::provider());
        let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
        let verifier = verifier.build().map_err(|error| io::Error::other(format!("TLS: {error}")))?;
        // With tickets of its own: one of a client that was trusted before says nothing about these roots.
        let mut config = config(|builder| builder.with_client_cert_verifier(verifier), &self.certificates)?;
        config.alpn_protocols = self.config.alpn_protocols.clone();
        Ok(TlsServer { config: Arc::new(config), ..self })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

/// Settings with this view of clients, the certificates, and new keys for tickets.
fn config(
    clients: impl FnOnce(
        ConfigBuilder<ServerConfig, WantsVerifier>,
    ) -> ConfigBuilder<ServerConfig, WantsServerCert>,
    certificates: &Arc<Certificates>,
) -> io::Result<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(certificates::provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(tls_error)?;
    let mut config = clients(builder).with_cert_resolver(certificates.clone());
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(tls_error)?;
    Ok(config)
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates = self.certificates.count();
        f.debug_struct("TlsServer").field("certificates", &certificates).finish_non_exhaustive()
    }
}
