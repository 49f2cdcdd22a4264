//! Adds what was received to an archive, series by series, once each is quiet.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::spool::{Spool, SpooledSeries};
use crate::sync::{Archive, Observer, PutOutcome, sleep};

/// When received series are added and erased.
#[derive(Debug, Clone, Copy)]
pub struct CollectOptions {
    /// A series is complete if it got no object for this long.
    pub quiet: Duration,
    /// How long files stay afterwards, so that late objects join the others of their series.
    pub keep: Duration,
    /// Time between two looks.
    pub every: Duration,
}

impl Default for CollectOptions {
    /// 30 s, 10 min, and a look each second.
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(30),
            keep: Duration::from_secs(600),
            every: Duration::from_secs(1),
        }
    }
}

/// Series that are added together.
const BATCH: usize = 64;

/// Adds series until the observer stops the work; then adds what waits no more. `told` is called for each batch.
///
/// A batch that the archive refuses waits again, and a note says so.
///
/// # Errors
/// `Io` if the spool cannot be read; what `told` returns.
pub fn collect(
    spool: &Spool,
    archive: &mut dyn Archive,
    options: CollectOptions,
    observer: &dyn Observer,
    told: &mut dyn FnMut(&[SpooledSeries], &PutOutcome) -> Result<()>,
) -> Result<()> {
    loop {
        let series = spool.quiet(options.quiet);
        for batch in series.chunks(BATCH) {
            match archive.put(batch) {
                Ok(outcome) => {
                    batch.iter().for_each(|series| spool.added(series));
                    told(batch, &outcome)?;
                }
                Err(error) => {
                    batch
                        .iter()
                        .for_each(|series| spool.wait_again(&series.name));
                    if !observer.is_stopped() {
                        let n = batch.len();
                        observer.note(&format!("{n} series cannot be added and wait: {error}"));
                    }
                }
            }
        }
        spool.erase_old(options.keep)?;
        match sleep(options.every, observer) {
            // What still waits lies in the spool, and is added after the next start.
            Err(Error::Stopped) => return Ok(()),
            slept => slept?,
        }
    }
}
