//! TLS towards upstream servers: one configuration, built once.

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP_1_1: &[u8] = b"http/1.1";

/// The TLS settings of outgoing connections: Mozilla's roots and the operator's own. Clones share them.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Settings with Mozilla's roots and the certificates in each of `extra_roots`, which are PEM.
    ///
    /// # Errors
    ///
    /// The program installed no crypto provider for rustls, or an extra root is not a certificate.
    pub fn new<I>(extra_roots: I) -> Result<Self, TlsSetupError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        Self::with_installed(CryptoProvider::get_default(), extra_roots)
    }

    /// As [`ClientTls::new`], with a crypto provider of the caller's choice.
    ///
    /// # Errors
    ///
    /// The provider supports no TLS version, or an extra root is not a certificate.
    pub fn with_provider<I>(provider: Arc<CryptoProvider>, extra_roots: I) -> Result<Self, TlsSetupError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for (index, pem) in extra_roots.into_iter().enumerate() {
            add_roots(&mut roots, index, pem.as_ref())?;
        }
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP_1_1.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    pub(super) fn with_installed<I>(
        installed: Option<&Arc<CryptoProvider>>,
        extra_roots: I,
    ) -> Result<Self, TlsSetupError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let provider = installed.ok_or(TlsSetupError::NoCryptoProvider)?;
        Self::with_provider(Arc::clone(provider), extra_roots)
    }

    pub(super) async fn handshake(&self, host: &str, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await
    }
}

/// Whether the peer chose HTTP/2.
pub(super) fn chose_h2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(ALPN_H2)
}

/// Why the TLS settings could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// The program has to choose a crypto provider before it makes a client.
    #[error(
        "no TLS crypto provider is installed: call rustls::crypto::aws_lc_rs::default_provider().install_default()"
    )]
    NoCryptoProvider,
    /// The crypto provider cannot do TLS 1.2 or 1.3.
    #[error("the TLS crypto provider cannot be used: {0}")]
    Provider(#[from] rustls::Error),
    /// An extra root is not a PEM certificate.
    #[error("the additional CA file number {number} is not usable: {reason}")]
    Root {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
}

fn add_roots(roots: &mut RootCertStore, index: usize, pem: &[u8]) -> Result<(), TlsSetupError> {
    let bad = |reason: String| TlsSetupError::Root { number: index + 1, reason };
    let mut found = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        found += 1;
    }
    if found == 0 {
        return Err(bad("it holds no PEM certificate".to_owned()));
    }
    Ok(())
}
