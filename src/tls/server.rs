//! What a TLS server shows and asks for.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};

use crate::tls::certificates::{self, Certificates};
use crate::tls::tls_error;

/// A TLS server's certificates and settings: Python's `ssl.SSLContext`. Clones share them, so that a
/// [reload](TlsServer::reload_files) reaches every listener.
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
    /// What the next handshake begins with.
    config: Arc<RwLock<Arc<ServerConfig>>>,
    /// Clients are asked for a certificate, and whether they must have one.
    asks: Option<bool>,
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
        Ok(TlsServer { certificates, config: shared(config), asks: None })
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
    /// refused; one that does not use ALPN is not. Clones made before keep what they had, and from now on do
    /// not share the [roots for clients](TlsServer::with_client_roots) with this one.
    #[must_use]
    pub fn with_alpn<'a>(self, names: impl IntoIterator<Item = &'a str>) -> TlsServer {
        let mut config = (*self.config()).clone();
        config.alpn_protocols = certificates::protocols(names);
        TlsServer { config: shared(config), ..self }
    }

    /// Ask clients for a certificate that one of the authorities in `roots` (PEM) vouches for; if it is
    /// `required`, a client without one is refused. Where `roots` holds revocation lists (`X509 CRL`), too, a
    /// client's certificate that is on one of them is refused; each list must be of one of the authorities, and
    /// the certificates of an authority without a list are all good.
    ///
    /// # Errors
    /// `roots` is not PEM, or holds no certificate.
    pub fn with_client_roots(self, roots: &[u8], required: bool) -> io::Result<TlsServer> {
        let config = self.config_with_client_roots(roots, required)?;
        Ok(TlsServer { config: shared(config), asks: Some(required), ..self })
    }

    /// Replace the [roots for clients](TlsServer::with_client_roots), and the revocation lists, by these, from
    /// the next handshake on, with all clones. Whoever was let in before is asked again: no earlier session is
    /// resumed. Connections that are there stay.
    ///
    /// # Errors
    /// As [`with_client_roots`](TlsServer::with_client_roots), or that was not called for this server; the old
    /// roots stay in use.
    pub fn reload_client_roots(&self, roots: &[u8]) -> io::Result<()> {
        let Some(required) = self.asks else {
            let why =
                "TLS: roots for clients can only replace others: this server does not ask for certificates";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        };
        let config = Arc::new(self.config_with_client_roots(roots, required)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn config_with_client_roots(&self, roots: &[u8], required: bool) -> io::Result<ServerConfig> {
        let what = "the roots for clients";
        let revoked = certificates::revocation_lists(roots, what)?;
        let roots = Arc::new(certificates::roots(roots, what)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, certificates::provider())
            .with_crls(revoked)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status();
        let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
        let verifier = verifier.build().map_err(|error| certificates::invalid(format!("{what}: {error}")))?;
        // With tickets of its own: one of a client that was trusted before says nothing about these roots.
        let mut config = config(|builder| builder.with_client_cert_verifier(verifier), &self.certificates)?;
        config.alpn_protocols.clone_from(&self.config().alpn_protocols);
        Ok(config)
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn shared(config: ServerConfig) -> Arc<RwLock<Arc<ServerConfig>>> {
    Arc::new(RwLock::new(Arc::new(config)))
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
