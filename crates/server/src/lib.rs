//! m3ret as a service: galleries that are searched over HTTP, a web page, accounts, and an audit trail.
//!
//! Thin over the library `m3ret`: a request becomes options of the library, and its answer becomes JSON. The only crate
//! that knows HTTP and tokio.

#![allow(
    clippy::disallowed_methods,
    reason = "the audit trail needs the time of day"
)]
#![allow(
    unused_qualifications,
    reason = "utoipa's macro names the parameters of routes in full"
)]

pub mod accounts;
pub mod audit;
pub mod clock;
mod connections;
mod dicom;
mod gate;
mod guard;
mod indexes;
pub mod intake;
mod jobs;
mod metrics;
mod objects;
mod oidc;
mod openapi;
mod page;
mod patients;
mod problem;
mod routes;
mod sign_in;
mod spool;
mod tls;
mod web_client;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use m3ret::options::{ModelChoice, Reading};
use m3ret::watch::Watch;

use crate::audit::Audit;
use crate::routes::Service;

pub use crate::dicom::{DicomOptions, ScpOptions};
pub use crate::oidc::{Keys, OidcOptions};
pub use crate::sign_in::{ProxyOptions, SignIn};
pub use crate::spool::own_spool;
pub use crate::tls::TlsFiles;

/// What is served, and within which limits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folders of galleries, at least one; each is served under the name of its folder without `.m3i`.
    pub galleries: Vec<PathBuf>,
    /// The address to listen on; port 0 for any free one. One that other machines reach needs TLS, or a proxy that has
    /// it, and accounts.
    pub listen: SocketAddr,
    /// Names beside the address that requests may call this server by.
    pub hosts: Vec<String>,
    /// Folder for what is uploaded; what an earlier server left there is erased.
    pub spool: PathBuf,
    /// Folder of the audit trail; `None` for none.
    pub audit: Option<PathBuf>,
    /// File with the accounts; `None` for one of a random token with the role admin, unless other systems know who asks.
    pub token_file: Option<PathBuf>,
    /// Who else knows accounts.
    pub sign_in: SignIn,
    /// The certificate; `None` for connections without TLS.
    pub tls: Option<TlsFiles>,
    /// Takes objects by DICOM; `None` for not.
    pub dicom: Option<DicomOptions>,
    /// File with the key by which UIDs of hits are opened, made if it is not there; `None` to keep and open none.
    pub key_file: Option<PathBuf>,
    /// The model, if it cannot be found by the name that the galleries state.
    pub model: ModelChoice,
    /// How queries are read.
    pub reading: Reading,
    /// What requests may cost.
    pub limits: Limits,
}

impl Settings {
    /// Refuses folders and files of the server within a gallery: they would be copied and shared with it.
    fn check_places(&self) -> anyhow::Result<()> {
        let dicom = self.dicom.as_ref();
        for (option, place) in [
            ("--spool", Some(&self.spool)),
            ("--audit", self.audit.as_ref()),
            ("--key-file", self.key_file.as_ref()),
            (
                "--dicom-spool",
                dicom.and_then(|dicom| dicom.spool.as_ref()),
            ),
        ] {
            if let Some(place) = place {
                outside(option, place, &self.galleries)?;
            }
        }
        Ok(())
    }

    /// Refuses an address that others reach without encryption or without accounts.
    ///
    /// # Errors
    /// With what is missing.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let is_behind_proxy = matches!(self.sign_in, SignIn::Proxy(_));
        anyhow::ensure!(
            self.tls.is_some() || is_behind_proxy,
            "--listen {}: other machines reach this address, and the connection is not encrypted; give --tls-cert and \
             --tls-key, let a proxy with TLS name the accounts (--auth proxy), or listen on 127.0.0.1",
            self.listen
        );
        anyhow::ensure!(
            self.token_file.is_some() || !matches!(self.sign_in, SignIn::Tokens),
            "--listen {}: other machines reach this address, and no accounts are named; give --token-file, --auth oidc \
             or --auth proxy",
            self.listen
        );
        anyhow::ensure!(
            !self.listen.ip().is_unspecified() || !self.hosts.is_empty(),
            "--listen {}: browsers call the server by a name, which must be known; give it with --host",
            self.listen
        );
        Ok(())
    }
}

/// Refuses a file or folder within one of the galleries.
///
/// # Errors
/// With the gallery.
pub fn outside(option: &str, place: &Path, galleries: &[PathBuf]) -> anyhow::Result<()> {
    // The place may still have to be made; what is there of the way to it tells.
    let there = place.ancestors().find_map(|way| way.canonicalize().ok());
    let here = || std::env::current_dir().ok();
    let Some(there) = there.or_else(here) else {
        return Ok(());
    };
    for gallery in galleries {
        let is_within = gallery
            .canonicalize()
            .is_ok_and(|gallery| there.starts_with(gallery));
        anyhow::ensure!(
            !is_within,
            "{option} {}: it lies in the gallery {}, and would be copied and shared with it; name a place outside",
            place.display(),
            gallery.display()
        );
    }
    Ok(())
}

/// What requests may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest upload.
    pub max_upload_bytes: u64,
    /// What all uploads that are kept may take.
    pub max_spool_bytes: u64,
    /// Most files of one upload.
    pub max_files: usize,
    /// Largest JSON.
    pub max_json_bytes: usize,
    /// Most hits of an answer.
    pub max_hits: usize,
    /// Most numbers of a vector.
    pub max_width: usize,
    /// Searches at the same time; images are embedded one at a time.
    pub n_searches: usize,
    /// Requests that may wait for a search or an embedding; further ones are refused.
    pub n_waiting: usize,
    /// Connections at the same time, half of them from one address; further ones are told that the server is busy.
    pub n_connections: usize,
    /// Most patients whose images an account may see in an hour.
    pub max_patients_an_hour: usize,
    /// How long a request may take.
    pub request: Duration,
    /// How long a client may take to send the head of a request.
    pub head: Duration,
    /// How long an upload is kept.
    pub upload: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_upload_bytes: 2 << 30,
            max_spool_bytes: 16 << 30,
            max_files: 4096,
            max_json_bytes: 1 << 20,
            max_hits: 100,
            max_width: 65_536,
            n_searches: m3ret::options::n_cores(),
            n_waiting: 64,
            n_connections: 256,
            max_patients_an_hour: 500,
            request: Duration::from_secs(120),
            head: Duration::from_secs(10),
            upload: Duration::from_secs(3600),
        }
    }
}

/// What a person needs to know of a server that has started.
#[derive(Debug, Clone)]
pub struct Started {
    /// Where it listens.
    pub address: SocketAddr,
    /// The random token, if no file names accounts. It is nowhere else.
    pub token: Option<String>,
    /// Where objects are received by C-STORE.
    pub scp: Option<SocketAddr>,
}

/// Where an audit trail ended.
pub use audit::Head;

/// Serves until the watcher stops it; then ends open requests, erases what was uploaded, and returns where the audit
/// trail ended.
///
/// # Errors
/// If a gallery, its model, the accounts, the spool or the audit trail cannot be opened; if one gallery was made by
/// another model than the first; if nothing can listen on the address.
pub fn serve(
    settings: &Settings,
    watch: &dyn Watch,
    on_start: &mut dyn FnMut(&Started) -> anyhow::Result<()>,
) -> anyhow::Result<Option<Head>> {
    settings.check()?;
    settings.check_places()?;
    let listener = TcpListener::bind(settings.listen)
        .with_context(|| format!("listening on {}", settings.listen))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (service, token) = Service::open(settings, address, watch)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("m3ret-http")
        .on_thread_start(m3ret::panics::guard_this_thread)
        .build()
        .context("starting threads")?;
    let worker = std::thread::Builder::new().name("m3ret-jobs".to_owned());
    let working = Arc::clone(&service);
    worker
        .spawn(move || {
            m3ret::panics::guard_this_thread();
            working.jobs.work();
        })
        .context("starting threads")?;
    let dicom = service.dicom.as_ref().zip(settings.dicom.as_ref());
    let follower = Arc::clone(&service);
    let dicom = dicom.map(|(dicom, options)| dicom.start(options, follower));
    let dicom = dicom.transpose()?;
    let scp = dicom.as_ref().and_then(dicom::Running::address);
    on_start(&Started {
        address,
        token,
        scp,
    })?;
    let ended = runtime.block_on(connections::run(listener, &service, watch));
    service.jobs.close();
    service.spool.erase_all();
    if let Some(dicom) = dicom {
        dicom.stop();
    }
    // An embedding that still runs ends with the program.
    runtime.shutdown_timeout(Duration::from_millis(100));
    service.spool.erase_all();
    ended?;
    Ok(service.audit.as_ref().map(Audit::head))
}
