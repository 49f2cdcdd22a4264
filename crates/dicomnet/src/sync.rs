//! Keeps an archive in step with a source: list, wait until stable, fetch, add, and only then move the cursor.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cursor::{Cursor, CursorFile, Failure, MAX_ROUNDS};
use crate::day::{Day, Window, seconds_now};
use crate::error::{Error, Result};
use crate::http::HttpOptions;
use crate::qido::SeriesRef;
use crate::source::{DicomWeb, Folder, Orthanc, Position, Selection, Source};
use crate::spool::{Spool, SpooledSeries};

/// Where series come from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A PACS with DICOMweb: QIDO-RS and WADO-RS.
    DicomWeb(HttpOptions),
    /// Orthanc with its plug-in for DICOMweb.
    Orthanc(HttpOptions),
    /// A folder with DICOM files.
    Folder(PathBuf),
    /// A PACS without DICOMweb, which is asked by C-FIND and sends to us by C-MOVE.
    Dimse(crate::dimse::Peer),
}

impl Origin {
    fn open(&self, options: &SyncOptions) -> Result<Box<dyn Source>> {
        Ok(match self {
            Self::DicomWeb(http) => Box::new(DicomWeb::new(http)?),
            Self::Orthanc(http) => Box::new(Orthanc::new(http)?),
            Self::Folder(folder) => Box::new(Folder::new(folder, options.quiet)?),
            Self::Dimse(peer) => Box::new(crate::dimse::Remote::new(peer.clone())?),
        })
    }
}

/// How a source is synced.
#[derive(Debug, Clone)]
pub struct SyncOptions {
    /// What is wanted.
    pub selection: Selection,
    /// Time from round to round; `None` for one round.
    pub every: Option<Duration>,
    /// Least time from series to series.
    pub pace: Duration,
    /// How long a series must not change.
    pub quiet: Duration,
    /// Hours in which the source may be asked.
    pub window: Option<Window>,
    /// How often series that are gone from the source are looked for; `None` for never.
    pub reconcile: Option<Duration>,
    /// Whether series are only listed.
    pub is_dry: bool,
    /// Waits between tries; one try more than waits.
    pub backoff: Vec<Duration>,
}

impl Default for SyncOptions {
    /// One round of everything, five tries.
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            every: None,
            pace: Duration::ZERO,
            quiet: Duration::from_secs(60),
            window: None,
            reconcile: None,
            is_dry: false,
            backoff: [1, 2, 4, 8].map(Duration::from_secs).to_vec(),
        }
    }
}

/// What became of series that were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutOutcome {
    /// Number of new rows.
    pub n_rows: usize,
    /// Number of rows that these replaced.
    pub n_replaced: usize,
    /// Names of series without a row.
    pub without_images: Vec<String>,
    /// Number of refused images by reason.
    pub refused: BTreeMap<String, usize>,
}

/// An error of an archive.
pub type ArchiveError = Box<dyn std::error::Error + Send + Sync>;

/// What takes the images.
pub trait Archive {
    /// Returns of how many objects a series was made, by its name; `None` if the archive lacks it.
    ///
    /// # Errors
    /// The archive's own.
    fn n_objects(&mut self, name: &str) -> std::result::Result<Option<usize>, ArchiveError>;

    /// Adds series as rows, in place of earlier rows of the same series; they survive a power cut when this returns.
    ///
    /// # Errors
    /// The archive's own.
    fn put(&mut self, series: &[SpooledSeries]) -> std::result::Result<PutOutcome, ArchiveError>;

    /// Returns the names of all series that came from this source.
    ///
    /// # Errors
    /// The archive's own.
    fn names(&mut self) -> std::result::Result<HashSet<String>, ArchiveError>;

    /// Removes series of this source by name; returns the number of rows.
    ///
    /// # Errors
    /// The archive's own.
    fn remove(&mut self, names: &HashSet<String>) -> std::result::Result<usize, ArchiveError>;
}

/// Follows the work.
pub trait Observer {
    /// Returns whether the work is to stop.
    fn is_stopped(&self) -> bool {
        false
    }

    /// Receives a sentence that a person should read.
    fn note(&self, _sentence: &str) {}

    /// A round ended.
    ///
    /// # Errors
    /// If the work is to end with this error.
    fn round(&self, _summary: &Summary) -> Result<()> {
        Ok(())
    }
}

/// What a round did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Number of series that were listed.
    pub n_listed: usize,
    /// Number of series that the archive had already.
    pub n_known: usize,
    /// Number of series that were fetched; of a dry run, that would be.
    pub n_fetched: usize,
    /// Number of objects of these.
    pub n_objects: usize,
    /// Number of series that still change.
    pub n_waiting: usize,
    /// Number of series that failed, and are tried again in the next round.
    pub n_failed: usize,
    /// Number of series that failed too often and are not tried again.
    pub n_given_up: usize,
    /// Number of new rows.
    pub n_rows: usize,
    /// Number of rows that new ones replaced.
    pub n_replaced: usize,
    /// Number of rows that were removed because their series is gone.
    pub n_removed: usize,
    /// Number of series without a row: reports, and images that are refused.
    pub n_without_images: usize,
    /// Number of refused images by reason.
    pub refused: BTreeMap<String, usize>,
}

/// Series that are added together.
const BATCH: usize = 256;
/// Objects that are added together, unless one series has more.
const BATCH_OBJECTS: usize = 4096;
/// Longest time until fetched series are added.
const BATCH_TIME: Duration = Duration::from_secs(30);
/// Series that may fail one after the other before the source counts as away.
const MAX_FAILED: usize = 3;
/// Days after which a study counts as complete.
const COMPLETE_DAYS: i64 = 2;
/// Longest sleep until an interrupt is looked for.
const NAP: Duration = Duration::from_millis(100);

/// Where fetched series wait, and how far the source was read.
#[derive(Debug)]
pub struct Desk<'a> {
    /// Where fetched series wait.
    pub spool: &'a Spool,
    /// How far the source was read.
    pub cursor: &'a mut CursorFile,
}

/// Syncs until one round is done, or without end if `every` is given.
///
/// # Errors
/// `Stopped` if the observer stopped the work; `Unreachable` or `Refused` if the source cannot be listed, unless further
/// rounds follow; `Archive`; `Io`.
pub fn sync(
    origin: &Origin,
    desk: &mut Desk<'_>,
    archive: &mut dyn Archive,
    options: &SyncOptions,
    observer: &dyn Observer,
) -> Result<Summary> {
    let mut run = Run {
        source: origin.open(options)?,
        spool: desk.spool,
        file: desk.cursor,
        archive,
        options,
        observer,
        summary: Summary::default(),
        batch: Vec::new(),
        n_batched: 0,
        since: Instant::now(),
        reached: None,
        waiting: HashMap::new(),
        n_failed_in_row: 0,
        listed_failures: HashSet::new(),
        last_request: None,
    };
    run.take_left()?;
    loop {
        run.wait_for_window()?;
        let outcome = run.round();
        match (outcome, options.every) {
            (Ok(()), _) => observer.round(&run.summary)?,
            (Err(error @ (Error::Unreachable { .. } | Error::Malformed { .. })), Some(_)) => {
                observer.note(&format!("{error}; the next round tries again"));
            }
            (Err(error), _) => return Err(error),
        }
        let Some(every) = options.every else {
            return Ok(run.summary);
        };
        sleep(every, observer)?;
        run.summary = Summary::default();
    }
}

/// Sleeps, and looks for an interrupt meanwhile.
pub(crate) fn sleep(duration: Duration, observer: &dyn Observer) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        if observer.is_stopped() {
            return Err(Error::Stopped);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(NAP));
    }
}

/// A series that may still change.
struct Waiting {
    series: SeriesRef,
    since: Instant,
}

struct Run<'a> {
    source: Box<dyn Source>,
    spool: &'a Spool,
    file: &'a mut CursorFile,
    archive: &'a mut dyn Archive,
    options: &'a SyncOptions,
    observer: &'a dyn Observer,
    summary: Summary,
    batch: Vec<SpooledSeries>,
    /// Objects of the batch.
    n_batched: usize,
    /// When the batch began.
    since: Instant,
    /// How far the list was read, with everything before it fetched.
    reached: Option<Position>,
    waiting: HashMap<String, Waiting>,
    n_failed_in_row: usize,
    /// Series that failed earlier and were listed in this round.
    listed_failures: HashSet<String>,
    last_request: Option<Instant>,
}

impl Run<'_> {
    fn cursor(&mut self) -> &mut Cursor {
        &mut self.file.cursor
    }

    /// Adds series that an earlier process fetched and did not erase.
    fn take_left(&mut self) -> Result<()> {
        if self.options.is_dry {
            return Ok(());
        }
        self.batch = self.spool.quiet(Duration::ZERO);
        self.flush()
    }

    fn round(&mut self) -> Result<()> {
        self.batch.clear();
        self.listed_failures.clear();
        (self.n_batched, self.n_failed_in_row, self.reached) = (0, 0, None);
        let selection = self.source.understood(&self.options.selection);
        self.file.cursor.select(&selection);
        self.source
            .begin(&self.file.cursor, &self.options.selection);
        let outcome = self.pages();
        if outcome.is_ok() {
            // What failed and is listed no more is gone, and holds the cursor no longer.
            let (cursor, listed) = (&mut self.file.cursor, &self.listed_failures);
            let has_given_up = |failure: &Failure| failure.rounds >= MAX_ROUNDS;
            cursor
                .failed
                .retain(|name, failure| listed.contains(name) || has_given_up(failure));
        }
        // What was fetched before a failure is added nevertheless.
        self.flush()?;
        outcome?;
        self.reconcile()?;
        self.count_failures();
        Ok(())
    }

    fn pages(&mut self) -> Result<()> {
        let selection = &self.options.selection;
        while let Some(page) = retried(self.options, self.observer, || self.source.page(selection))?
        {
            for series in page.series {
                self.consider(&series)?;
            }
            if page.then.is_some() {
                self.reached = page.then;
            }
            if self.batch.is_empty() {
                self.flush()?;
            }
        }
        self.wait_for_stable()
    }

    /// Fetches a series unless the archive has it, or it still changes.
    fn consider(&mut self, series: &SeriesRef) -> Result<()> {
        self.check_stopped()?;
        self.summary.n_listed += 1;
        let name = self.spool.names().series(&series.series);
        if self.is_known(&name, series)? {
            self.summary.n_known += 1;
            return Ok(());
        }
        if self.file.cursor.failed.contains_key(&name) {
            self.listed_failures.insert(name.clone());
            if self.file.cursor.has_given_up(&name) {
                return Ok(());
            }
        }
        if self.is_stable(&name, series) {
            return self.fetch(&name, series);
        }
        Ok(())
    }

    fn is_known(&mut self, name: &str, series: &SeriesRef) -> Result<bool> {
        if self.batch.iter().any(|other| other.name == name) {
            return Ok(true);
        }
        let n_objects = match self.file.cursor.without_images.get(name) {
            Some(n_objects) => Some(*n_objects),
            None => self.archive.n_objects(name).map_err(Error::Archive)?,
        };
        let n_wanted = series.n_instances.unwrap_or(0);
        let is_whole = |n: usize| usize::try_from(n_wanted).is_ok_and(|n_wanted| n >= n_wanted);
        Ok(n_objects.is_some_and(is_whole))
    }

    /// Says whether a series is complete; if not, it waits.
    fn is_stable(&mut self, name: &str, series: &SeriesRef) -> bool {
        let complete = Day::today().plus(-COMPLETE_DAYS);
        let is_old = series.day.is_some_and(|day| day <= complete);
        if series.is_stable || is_old || self.options.is_dry {
            self.waiting.remove(name);
            return true;
        }
        let is_same = |waiting: &Waiting| waiting.series.n_instances == series.n_instances;
        match self.waiting.get(name).filter(|waiting| is_same(waiting)) {
            Some(waiting) if waiting.since.elapsed() >= self.options.quiet => {
                self.waiting.remove(name);
                true
            }
            Some(_) => false,
            None => {
                let waiting = Waiting {
                    series: series.clone(),
                    since: Instant::now(),
                };
                self.waiting.insert(name.to_owned(), waiting);
                false
            }
        }
    }

    /// Of a single round, waits until the series that were listed change no more.
    fn wait_for_stable(&mut self) -> Result<()> {
        while self.options.every.is_none() && !self.waiting.is_empty() {
            self.flush()?;
            sleep(self.options.quiet, self.observer)?;
            for (name, waiting) in std::mem::take(&mut self.waiting) {
                let again = || self.source.again(&waiting.series);
                let again = retried(self.options, self.observer, again)?;
                match again {
                    Some(now) if now.is_stable || now.n_instances == waiting.series.n_instances => {
                        self.fetch(&name, &now)?;
                    }
                    Some(series) => {
                        let since = Instant::now();
                        self.waiting.insert(name, Waiting { series, since });
                    }
                    None => {}
                }
            }
        }
        self.summary.n_waiting = self.waiting.len();
        Ok(())
    }

    fn fetch(&mut self, name: &str, series: &SeriesRef) -> Result<()> {
        if self.options.is_dry {
            self.summary.n_fetched += 1;
            self.summary.n_objects += series.n_instances.map_or(0, as_usize);
            return Ok(());
        }
        self.keep_pace()?;
        let fetch = || self.source.fetch(series, self.spool);
        match retried(self.options, self.observer, fetch) {
            Ok(Some(fetched)) => {
                self.n_failed_in_row = 0;
                self.summary.n_fetched += 1;
                self.summary.n_objects += fetched.n_objects;
                self.n_batched += fetched.n_objects;
                if self.batch.is_empty() {
                    self.since = Instant::now();
                }
                self.batch.push(fetched);
                self.flush_if_due()
            }
            // It went away meanwhile.
            Ok(None) => {
                self.cursor().failed.remove(name);
                Ok(())
            }
            Err(error @ (Error::Stopped | Error::Io { .. } | Error::Caller(_))) => Err(error),
            Err(error) => {
                self.cursor().fail(name, &error);
                self.listed_failures.insert(name.to_owned());
                self.n_failed_in_row += usize::from(error.is_passing());
                match self.n_failed_in_row >= MAX_FAILED {
                    true => Err(error),
                    false => Ok(()),
                }
            }
        }
    }

    /// Waits until the next series may be asked for.
    fn keep_pace(&mut self) -> Result<()> {
        self.wait_for_window()?;
        if let Some(last) = self.last_request {
            let wait = self.options.pace.saturating_sub(last.elapsed());
            sleep(wait, self.observer)?;
        }
        self.last_request = Some(Instant::now());
        Ok(())
    }

    fn wait_for_window(&mut self) -> Result<()> {
        let wait = |window: Window| window.wait();
        while let Some(left) = self.options.window.map(wait).filter(|left| !left.is_zero()) {
            self.flush()?;
            let minutes = left.as_secs().div_ceil(60);
            self.observer
                .note(&format!("waiting {minutes} min for the hours of --window"));
            sleep(left, self.observer)?;
        }
        Ok(())
    }

    fn check_stopped(&mut self) -> Result<()> {
        if self.observer.is_stopped() {
            self.flush()?;
            return Err(Error::Stopped);
        }
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<()> {
        let is_due = self.batch.len() >= BATCH
            || self.n_batched >= BATCH_OBJECTS
            || self.since.elapsed() >= BATCH_TIME;
        if is_due { self.flush() } else { Ok(()) }
    }

    /// Adds what was fetched, then moves the cursor, then erases the files: whatever is cut off is only repeated.
    fn flush(&mut self) -> Result<()> {
        if self.options.is_dry {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.n_batched = 0;
        if !batch.is_empty() {
            let outcome = self.archive.put(&batch).map_err(Error::Archive)?;
            self.summary.n_rows += outcome.n_rows;
            self.summary.n_replaced += outcome.n_replaced;
            self.summary.n_without_images += outcome.without_images.len();
            for (reason, n) in outcome.refused {
                *self.summary.refused.entry(reason).or_default() += n;
            }
            for series in &batch {
                let cursor = &mut self.file.cursor;
                cursor.failed.remove(&series.name);
                cursor.without_images.remove(&series.name);
                if outcome.without_images.contains(&series.name) {
                    cursor
                        .without_images
                        .insert(series.name.clone(), series.n_objects);
                }
            }
        }
        let before = self.file.cursor.clone();
        self.move_cursor();
        if !batch.is_empty() || before != self.file.cursor {
            self.file.save()?;
        }
        batch
            .iter()
            .try_for_each(|series| self.spool.erase_series(series))
    }

    /// Moves the cursor as far as everything before is done.
    fn move_cursor(&mut self) {
        // A series that waits or failed is listed again.
        if self.file.cursor.has_open_failures() {
            return;
        }
        match self.reached {
            Some(Position::Change(change)) => self.file.cursor.change = change,
            Some(Position::Day(day)) => self.file.cursor.day = Some(day.to_dicom()),
            None => {}
        }
    }

    /// Removes the rows of series that the source no longer has.
    fn reconcile(&mut self) -> Result<()> {
        let Some(every) = self.options.reconcile.filter(|_| !self.options.is_dry) else {
            return Ok(());
        };
        let now = seconds_now();
        if now < self.file.cursor.reconciled.saturating_add(every.as_secs()) {
            return Ok(());
        }
        let names = self.spool.names();
        let (source, mut present) = (&mut self.source, HashSet::new());
        retried(self.options, self.observer, || {
            present.clear();
            source.all(&mut |uid| {
                present.insert(names.series(&uid));
            })
        })?;
        let stored = self.archive.names().map_err(Error::Archive)?;
        let gone: HashSet<String> = stored.difference(&present).cloned().collect();
        if 2 * gone.len() > stored.len() {
            let (n_gone, n_stored) = (gone.len(), stored.len());
            self.observer.note(&format!(
                "the source lists {n_gone} of {n_stored} series no more: more than half, so nothing is removed; \
                 remove them with m3ret index remove if that is right"
            ));
        } else if !gone.is_empty() {
            self.summary.n_removed = self.archive.remove(&gone).map_err(Error::Archive)?;
        }
        let cursor = &mut self.file.cursor;
        cursor
            .without_images
            .retain(|name, _| present.contains(name));
        cursor.failed.retain(|name, _| present.contains(name));
        cursor.reconciled = now;
        self.file.save()
    }

    fn count_failures(&mut self) {
        let cursor = &self.file.cursor;
        let given_up = cursor
            .failed
            .keys()
            .filter(|name| cursor.has_given_up(name));
        self.summary.n_given_up = given_up.count();
        self.summary.n_failed = cursor.failed.len() - self.summary.n_given_up;
    }
}

fn as_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Tries again while that may help.
fn retried<T>(
    options: &SyncOptions,
    observer: &dyn Observer,
    mut work: impl FnMut() -> Result<T>,
) -> Result<T> {
    for wait in &options.backoff {
        match work() {
            Err(error) if error.is_passing() => sleep(*wait, observer)?,
            outcome => return outcome,
        }
    }
    work()
}

#[cfg(test)]
mod tests;
