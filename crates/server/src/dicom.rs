//! What comes by DICOM becomes rows of one index: STOW-RS and C-STORE share a spool, and one thread adds what is complete.

use std::collections::HashSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use m3ret::index::received_beside;
use m3ret::sealed::SealKey;
use m3ret::watch::Watch;
use m3ret_dicomnet::collect::{CollectOptions, collect};
use m3ret_dicomnet::dimse::{PeerRule, Receiver, ReceiverOptions};
use m3ret_dicomnet::spool::{Spool, SpoolLimits, SpooledSeries};
use m3ret_dicomnet::sync::{Archive, ArchiveError, Observer, PutOutcome};

use crate::indexes::{Index, Indexes, SILENT};
use crate::intake::{Intake, RECEIVED_FROM};
use crate::metrics::Metrics;
use crate::routes::Service;

/// How objects are taken by DICOM.
#[derive(Debug, Clone)]
pub struct DicomOptions {
    /// Name of the index that they go into.
    pub into: String,
    /// Folder in which they wait; `None` for one beside the gallery.
    pub spool: Option<PathBuf>,
    /// Receives by C-STORE; `None` for STOW-RS alone.
    pub scp: Option<ScpOptions>,
    /// How long a series waits for further objects.
    pub settle: std::time::Duration,
}

/// Receives by C-STORE.
#[derive(Debug, Clone)]
pub struct ScpOptions {
    /// Where it listens.
    pub listen: std::net::SocketAddr,
    /// The title that it must be called by.
    pub ae: String,
    /// Who may send; empty for everyone of this machine.
    pub peers: Vec<PeerRule>,
}

/// Objects on their way into an index.
pub(crate) struct Dicom {
    pub(crate) index: Arc<Index>,
    pub(crate) spool: Arc<Spool>,
    /// Seals the UIDs of what becomes a row.
    key: Option<SealKey>,
}

/// What runs beside the server.
pub(crate) struct Running {
    receiver: Option<Receiver>,
    collecting: JoinHandle<()>,
    is_stopped: Arc<AtomicBool>,
}

impl Dicom {
    /// Opens the spool.
    pub(crate) fn open(
        options: &DicomOptions,
        indexes: &Indexes,
        key: Option<SealKey>,
    ) -> anyhow::Result<Self> {
        let index = indexes.find(&options.into);
        let index = index.with_context(|| {
            format!(
                "--dicom-into {}: found no gallery of this name, wanted one that is served",
                options.into
            )
        })?;
        ensure!(
            !index.is_lake,
            "--dicom-into {}: it is a lake, to which `m3ret lake commit` adds",
            options.into
        );
        ensure!(
            index.known().archive.model().is_some(),
            "--dicom-into {}: its vectors were made elsewhere; no model here adds to them",
            options.into
        );
        let intake = intake(&index, key.as_ref(), &SILENT)?;
        let beside = || received_beside(index.place());
        let folder = options.spool.clone().unwrap_or_else(beside);
        let spool = Spool::open(&folder, intake.names(), SpoolLimits::default())?;
        Ok(Self {
            spool: Arc::new(spool),
            index,
            key,
        })
    }

    /// Begins to receive and to add, with a line of the service's audit trail before each batch.
    pub(crate) fn start(
        &self,
        options: &DicomOptions,
        service: Arc<Service>,
    ) -> anyhow::Result<Running> {
        let receiver = options.scp.as_ref().map(|scp| {
            ensure!(
                scp.listen.ip().is_loopback() || !scp.peers.is_empty(),
                "--scp {}: other machines reach this address; name who may send with --peer AE=ADDRESS",
                scp.listen
            );
            let mut receiving = ReceiverOptions::new(&scp.ae)?;
            receiving.peers.clone_from(&scp.peers);
            let listener = TcpListener::bind(scp.listen)
                .with_context(|| format!("listening on {}", scp.listen))?;
            Ok(Receiver::start(listener, receiving, Arc::clone(&self.spool))?)
        });
        let receiver = receiver.transpose()?;
        let (index, key) = (Arc::clone(&self.index), self.key.clone());
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (spool, stopping) = (Arc::clone(&self.spool), Arc::clone(&is_stopped));
        let collecting = CollectOptions {
            quiet: options.settle,
            ..CollectOptions::default()
        };
        let work = move || {
            m3ret::panics::guard_this_thread();
            let record = |names| service.received(names);
            let follower = Follower {
                is_stopped: stopping,
                metrics: &service.metrics,
            };
            // A gallery that cannot be opened now may be there later; what was sent waits on the disk.
            while !Observer::is_stopped(&follower) {
                let done = intake(&index, key.as_ref(), &follower)
                    .map_err(|_| ())
                    .and_then(|intake| {
                        let mut recorded = Recorded::new(intake, &record);
                        let mut tell = |_: &[SpooledSeries], _: &PutOutcome| Ok(());
                        collect(&spool, &mut recorded, collecting, &follower, &mut tell)
                            .map_err(|_| ())
                    });
                if done.is_err() {
                    service.metrics.dicom_failure();
                }
                std::thread::sleep(collecting.every);
            }
        };
        let thread = std::thread::Builder::new().name("m3ret-dicom".to_owned());
        Ok(Running {
            receiver,
            collecting: thread.spawn(work).context("starting threads")?,
            is_stopped,
        })
    }

    /// Adds what waits without waiting longer, and erases the files of everything that was added: what is erased
    /// afterwards is then in no file here.
    pub(crate) fn settle(&self, watch: &dyn Watch, record: &Record<'_>) -> anyhow::Result<()> {
        let intake = intake(&self.index, self.key.as_ref(), watch)?;
        let mut intake = Recorded::new(intake, record);
        let waiting = self.spool.quiet(Duration::ZERO);
        let n_unreadable = self.spool.n_unreadable();
        ensure!(
            n_unreadable == 0,
            "the files of {n_unreadable} received series cannot be listed"
        );
        if !waiting.is_empty() {
            if let Err(error) = intake.put(&waiting) {
                waiting
                    .iter()
                    .for_each(|series| self.spool.wait_again(&series.name));
                return Err(anyhow::anyhow!("{error}"));
            }
            waiting.iter().for_each(|series| self.spool.added(series));
        }
        Ok(self.spool.erase_added()?)
    }
}

impl Running {
    /// Ends both. Objects that wait are added after the next start.
    pub(crate) fn stop(self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        if let Some(receiver) = self.receiver {
            receiver.stop();
        }
        // It panicked if it cannot be joined, and nothing is left to do.
        let _ = self.collecting.join();
    }

    /// Returns where objects are received.
    pub(crate) fn address(&self) -> Option<std::net::SocketAddr> {
        self.receiver.as_ref().map(Receiver::address)
    }
}

struct Follower<'a> {
    is_stopped: Arc<AtomicBool>,
    metrics: &'a Metrics,
}

impl Observer for Follower<'_> {
    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// Notes tell of series that could not be added.
    fn note(&self, _: &str) {
        self.metrics.dicom_failure();
    }
}

impl Watch for Follower<'_> {
    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }
}

/// Writes a line of the audit trail for series by name; `false` if that failed.
type Record<'a> = dyn Fn(Vec<String>) -> bool + 'a;

/// Adds only what the audit trail has a line of.
struct Recorded<'a> {
    intake: Intake<'a>,
    record: &'a Record<'a>,
    /// Series whose line is written and that are no rows yet.
    recorded: HashSet<String>,
}

impl<'a> Recorded<'a> {
    fn new(intake: Intake<'a>, record: &'a Record<'a>) -> Self {
        Self {
            intake,
            record,
            recorded: HashSet::new(),
        }
    }
}

impl Archive for Recorded<'_> {
    fn n_objects(&mut self, name: &str) -> Result<Option<usize>, ArchiveError> {
        self.intake.n_objects(name)
    }

    fn put(&mut self, series: &[SpooledSeries]) -> Result<PutOutcome, ArchiveError> {
        let names = series.iter().map(|series| series.name.clone());
        // What is tried again has its line.
        let new: Vec<String> = names.filter(|name| !self.recorded.contains(name)).collect();
        if !new.is_empty() {
            if !(self.record)(new.clone()) {
                return Err("the audit trail cannot be written".into());
            }
            self.recorded.extend(new);
        }
        let outcome = self.intake.put(series)?;
        for series in series {
            self.recorded.remove(&series.name);
        }
        Ok(outcome)
    }

    fn names(&mut self) -> Result<HashSet<String>, ArchiveError> {
        Archive::names(&mut self.intake)
    }

    fn remove(&mut self, names: &HashSet<String>) -> Result<usize, ArchiveError> {
        self.intake.remove(names)
    }
}

/// Opens the index for series that others send.
fn intake<'a>(
    index: &Index,
    key: Option<&SealKey>,
    watch: &'a dyn Watch,
) -> m3ret::Result<Intake<'a>> {
    let gallery = index.additions(key.cloned())?;
    Ok(Intake::over(gallery, RECEIVED_FROM, watch))
}
