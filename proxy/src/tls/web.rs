//! TLS to a server that is none of the mesh: it proves its name or address by those who vouch for it in a PEM file, as on
//! the web. For what an operator names by `https`, such as a collector of spans. No identity of ours is shown.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A stream to such a server.
pub type WebStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Who vouches for servers of the web.
#[derive(Debug)]
pub struct WebTrust {
    file: PathBuf,
    alpn: &'static [u8],
    // What the file held when it was read last, and what was made of it.
    held: Mutex<Option<(Vec<u8>, Arc<ClientConfig>)>>,
}

/// Why there is no session with such a server.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The file cannot be used.
    #[error("those who vouch for it, {}: {reason}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No certificate can be for it.
    #[error("{0:?} is neither a DNS name nor an address")]
    Name(String),
    /// Nobody in the file vouches for what it showed.
    #[error("nobody in {} vouches for its certificate", .0.display())]
    Unknown(PathBuf),
    /// Its certificate is for somebody else, has ended, or the like; or it speaks no TLS.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
}

impl WebTrust {
    /// Those in `file`, which is read anew at each connect; the server must speak `alpn` if it says what it speaks.
    ///
    /// # Errors
    /// [`WebError::File`] when it cannot be used now.
    pub fn new(file: &Path, alpn: &'static [u8]) -> Result<Self, WebError> {
        let trust = Self { file: file.to_owned(), alpn, held: Mutex::default() };
        trust.config()?;
        Ok(trust)
    }

    /// TLS over a connection to the server `host`. The caller bounds it in time.
    ///
    /// # Errors
    /// [`WebError`].
    pub async fn connect(&self, host: &str, io: TcpStream) -> Result<WebStream, WebError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| WebError::Name(host.to_owned()))?;
        let connector = TlsConnector::from(self.config()?);
        connector.connect(name, io).await.map_err(|error| self.told(error))
    }

    fn told(&self, error: io::Error) -> WebError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                WebError::Unknown(self.file.clone())
            }
            _ => WebError::Handshake(error),
        }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, WebError> {
        let fail = |reason: String| WebError::File { file: self.file.clone(), reason };
        let mut text = Vec::new();
        let file = File::open(&self.file).map_err(|error| fail(error.to_string()))?;
        let read = file.take(LARGEST + 1).read_to_end(&mut text).map_err(|error| fail(error.to_string()))?;
        if read as u64 > LARGEST {
            return Err(fail(format!("it has more than {LARGEST} bytes")));
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some((before, config)) if *before == text => Ok(Arc::clone(config)),
            _ => {
                let config = Arc::new(config(&text, self.alpn).map_err(fail)?);
                *held = Some((text, Arc::clone(&config)));
                Ok(config)
            }
        }
    }
}

fn config(pem: &[u8], alpn: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem) {
        let root = root.map_err(|error| format!("it is no PEM: {error}"))?;
        roots.add(root).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    // Not the mesh's: a server of the web may be older than TLS 1.3.
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // What the file says holds for each connect.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

// Bytes: a bundle of all the web's roots has a quarter of it.
const LARGEST: u64 = 1024 * 1024;
