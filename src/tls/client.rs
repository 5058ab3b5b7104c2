//! Whom a TLS client trusts, and what it shows.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::tls::certificates;
use crate::tls::tls_error;

/// Whom a TLS client trusts: Python's `ssl.create_default_context()`. Clones share remembered sessions, so make
/// one and keep it.
///
/// ```no_run
/// use dispatch_loop::tls::TlsClient;
/// use dispatch_loop::{ChannelMap, Dispatcher};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = ChannelMap::new()?;
/// map.connect_tls("example.org:443", &TlsClient::new()?, Quiet)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct TlsClient {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// It trusts whom the system trusts. The environment's `SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded.
    ///
    /// # Errors
    /// The system's certificates cannot be read, or there are none.
    pub fn new() -> io::Result<TlsClient> {
        TlsClient::trusting(certificates::system_roots()?)
    }

    /// It trusts the authorities of a PEM file, and nobody else.
    ///
    /// # Errors
    /// The file cannot be read, or is not PEM; the error names it.
    pub fn with_roots_file(path: impl AsRef<Path>) -> io::Result<TlsClient> {
        let path = path.as_ref();
        TlsClient::trusting(certificates::roots(&certificates::read(path)?, &path.display().to_string())?)
    }

    /// It trusts the authorities of a PEM text, and nobody else.
    ///
    /// # Errors
    /// It is not PEM, or holds no certificate.
    pub fn with_roots_pem(pem: &[u8]) -> io::Result<TlsClient> {
        TlsClient::trusting(certificates::roots(pem, "the roots")?)
    }

    fn trusting(roots: RootCertStore) -> io::Result<TlsClient> {
        let roots = Arc::new(roots);
        let config = builder(&roots)?.with_no_client_auth();
        Ok(TlsClient { roots, config: Arc::new(config) })
    }

    /// Show this certificate to servers that ask for one: PEM, the key's as well.
    ///
    /// # Errors
    /// One of them is not PEM, or the key is not that of the certificate.
    pub fn with_certificate_pem(self, certificate: &[u8], key: &[u8]) -> io::Result<TlsClient> {
        let chain = certificates::certificates(certificate, "the certificate")?;
        let key = certificates::key(key, "the key")?;
        let mut config = builder(&self.roots)?.with_client_auth_cert(chain, key).map_err(tls_error)?;
        config.alpn_protocols = self.config.alpn_protocols.clone();
        Ok(TlsClient { config: Arc::new(config), ..self })
    }

    /// The protocols to offer by ALPN, the preferred one first.
    #[must_use]
    pub fn with_alpn<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> TlsClient {
        Arc::make_mut(&mut self.config).alpn_protocols = certificates::protocols(names);
        self
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }
}

fn builder(roots: &Arc<RootCertStore>) -> io::Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let builder = ClientConfig::builder_with_provider(certificates::provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(tls_error)?;
    Ok(builder.with_root_certificates(roots.clone()))
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}
