//! TLS: the certificate and the key, read anew when they change.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Files with a certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, then those that signed it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What connections are encrypted with.
pub(crate) struct Tls {
    files: TlsFiles,
    newest: RwLock<(TlsAcceptor, [Option<SystemTime>; 2])>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be read, or the key is not the certificate's.
    pub(crate) fn open(files: &TlsFiles) -> anyhow::Result<Self> {
        let stamps = stamps(files);
        let acceptor = read(files)?;
        Ok(Self {
            files: files.clone(),
            newest: RwLock::new((acceptor, stamps)),
        })
    }

    /// Returns what new connections are encrypted with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
        newest.0.clone()
    }

    /// Reads the files again if they changed; a pair that does not fit, as while one of two is copied, changes nothing.
    pub(crate) fn renew(&self) {
        let stamps = stamps(&self.files);
        let known = self.newest.read().unwrap_or_else(PoisonError::into_inner).1;
        if stamps != known
            && let Ok(acceptor) = read(&self.files)
        {
            *self.newest.write().unwrap_or_else(PoisonError::into_inner) = (acceptor, stamps);
        }
    }
}

fn stamps(files: &TlsFiles) -> [Option<SystemTime>; 2] {
    let of = |file: &Path| {
        std::fs::metadata(file)
            .and_then(|found| found.modified())
            .ok()
    };
    [of(&files.cert), of(&files.key)]
}

fn read(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    install_provider();
    let reader = |file: &Path| {
        let opened = File::open(file).with_context(|| format!("reading {}", file.display()));
        opened.map(BufReader::new)
    };
    let certificates = CertificateDer::pem_reader_iter(reader(&files.cert)?)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{}: certificates in PEM are wanted", files.cert.display()))?;
    ensure!(
        !certificates.is_empty(),
        "{}: found no certificate, wanted PEM",
        files.cert.display()
    );
    let key = PrivateKeyDer::from_pem_reader(reader(&files.key)?)
        .ok()
        .with_context(|| format!("{}: a private key in PEM is wanted", files.key.display()))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .with_context(|| {
            let (cert, key) = (files.cert.display(), files.key.display());
            format!("{key} is not the key of {cert}")
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Names the cryptography that rustls uses.
pub(crate) fn install_provider() {
    // The first call wins; a second one finds the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
