//! Certificates and keys: reading them, and choosing one for the name that a client asks for.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn invalid(why: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// Read a file; the error names it.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))
}

/// The certificates of a PEM text, of which there is at least one; `what` names it in errors.
pub(super) fn certificates(pem: &[u8], what: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| invalid(format!("{what}: no good certificate in PEM: {error}")))?;
    match all.is_empty() {
        true => Err(invalid(format!("{what}: there is no certificate in it (wanted PEM)"))),
        false => Ok(all),
    }
}

pub(super) fn key(pem: &[u8], what: &str) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| invalid(format!("{what}: no good private key in PEM: {error}")))
}

/// A certificate, with those that vouch for it behind it, and its key, of two files.
pub(super) fn of_files(certificate: &Path, key: &Path) -> io::Result<Arc<CertifiedKey>> {
    let names = [certificate, key].map(|path| path.display().to_string());
    certified(&read(certificate)?, &names[0], &read(key)?, &names[1])
}

/// The same of two texts.
pub(super) fn of_pem(certificate: &[u8], key: &[u8]) -> io::Result<Arc<CertifiedKey>> {
    certified(certificate, "the certificate", key, "the key")
}

fn certified(
    certificate: &[u8],
    certificate_name: &str,
    private_key: &[u8],
    key_name: &str,
) -> io::Result<Arc<CertifiedKey>> {
    let chain = certificates(certificate, certificate_name)?;
    let key = key(private_key, key_name)?;
    let pair = CertifiedKey::from_der(chain, key, &provider())
        .map_err(|error| invalid(format!("{certificate_name} and {key_name}: {error}")))?;
    Ok(Arc::new(pair))
}

pub(super) fn roots(pem: &[u8], what: &str) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in certificates(pem, what)? {
        roots.add(root).map_err(|error| invalid(format!("{what}: {error}")))?;
    }
    Ok(roots)
}

/// The revocation lists of a PEM text; there need be none.
pub(super) fn revocation_lists(
    pem: &[u8],
    what: &str,
) -> io::Result<Vec<CertificateRevocationListDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    all.map_err(|error| invalid(format!("{what}: no good revocation list in PEM: {error}")))
}

/// A server's certificates, which can be exchanged while it runs.
#[derive(Debug)]
pub(super) struct Certificates(RwLock<Vec<Arc<CertifiedKey>>>);

impl Certificates {
    pub(super) fn new(first: Arc<CertifiedKey>) -> Certificates {
        Certificates(RwLock::new(vec![first]))
    }

    pub(super) fn add(&self, other: Arc<CertifiedKey>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(other);
    }

    pub(super) fn replace(&self, all: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = vec![all];
    }

    pub(super) fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl ResolvesServerCert for Certificates {
    /// The first that is valid for the name; the very first if none is, or none was asked for.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let [only] = &all[..] {
            return Some(only.clone());
        }
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |pair: &&Arc<CertifiedKey>| name.as_ref().is_some_and(|name| is_for(pair, name));
        all.iter().find(fits).or(all.first()).cloned()
    }
}

fn is_for(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = pair.end_entity_cert().ok().and_then(|der| webpki::EndEntityCert::try_from(der).ok());
    certificate.is_some_and(|certificate| certificate.verify_is_valid_for_subject_name(name).is_ok())
}

/// What the system trusts.
pub(super) fn system_roots() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    match (usable, found.errors.into_iter().next()) {
        (0, Some(error)) => Err(io::Error::other(format!("cannot read what the system trusts: {error}"))),
        (0, None) => Err(io::Error::new(ErrorKind::NotFound, "the system trusts no certificate authority")),
        _ => Ok(roots),
    }
}

pub(super) fn protocols<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Vec<u8>> {
    names.into_iter().map(|name| name.as_bytes().to_vec()).collect()
}
