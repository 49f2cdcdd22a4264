//! The galleries that are served: one model for all, and each in its newest state.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use m3ret::galleries::{Archive, OpenOptions, newest_generation, open_collection};
use m3ret::index::{SeriesGallery, SeriesOptions};
use m3ret::lake::is_lake;
use m3ret::sealed::SealKey;
use m3ret::watch::{Quiet, Watch};
use m3ret_search::{Numbers, RowId, is_gallery};

use crate::Settings;
use crate::audit::Entry;
use crate::problem::{Problem, Result};

/// The column with the keyed hash of an image's patient.
const PATIENT: &str = "patient_id";
/// Begins the fingerprint of vectors that no model of ours made.
const EXTERNAL: &str = "external:";
/// How long readers may see a state of a lake after there is a newer one.
const LAKE_INTERVAL: Duration = Duration::from_secs(5);

/// A gallery as it was when it was opened.
pub(crate) struct Snapshot {
    pub(crate) archive: Archive,
    pub(crate) generation: u64,
}

impl Snapshot {
    /// Begins the line of the audit trail for an answer that shows images of the gallery, which are named by their ids.
    pub(crate) fn shown(&self, ids: &[&str]) -> Result<Entry> {
        let gallery = self.archive.gallery.as_ref();
        let mut images = Vec::with_capacity(ids.len());
        for id in ids {
            let row = gallery.find(id).map_err(|_| Problem::internal("gallery"))?;
            images.extend(row.map(|row| (*id, row)));
        }
        self.shown_rows(&images)
    }

    /// The same for images whose rows are known.
    pub(crate) fn shown_rows(&self, images: &[(&str, RowId)]) -> Result<Entry> {
        let gallery = self.archive.gallery.as_ref();
        let hits = images.iter().map(|(id, _)| gallery.pseudonym("id", id));
        let hits: Vec<String> = hits.collect();
        let rows: Vec<RowId> = images.iter().map(|(_, row)| *row).collect();
        let cells = gallery.rows(&rows, &[PATIENT]);
        let cells = cells.map_err(|_| Problem::internal("gallery"))?;
        let patients = cells.iter().zip(&hits).map(|(cells, hit)| {
            let known = cells.first().map_or("", AsRef::as_ref);
            // An image of nobody known counts as a patient of its own.
            let name = if known.is_empty() {
                hit.as_str()
            } else {
                known
            };
            let digest = blake3::hash(name.as_bytes());
            u64::from_le_bytes(*digest.as_bytes().first_chunk().unwrap_or(&[0; 8]))
        });
        Ok(Entry {
            patients: patients.collect(),
            hits,
            ..Entry::default()
        })
    }
}

/// One gallery.
pub(crate) struct Index {
    pub(crate) name: String,
    place: PathBuf,
    /// Whether the rows lie on an object store: they are read here, and changed by `m3ret lake`.
    pub(crate) is_lake: bool,
    options: OpenOptions,
    newest: RwLock<Arc<Snapshot>>,
    /// When a lake was last asked for its newest state.
    asked: Mutex<Instant>,
}

/// Every gallery that is served.
pub(crate) struct Indexes {
    all: Vec<Arc<Index>>,
}

impl Indexes {
    /// Opens every gallery, and the model once.
    pub(crate) fn open(settings: &Settings, watch: &dyn Watch) -> anyhow::Result<Self> {
        let options = OpenOptions {
            model: settings.model.clone(),
            reading: settings.reading.clone(),
            ..OpenOptions::default()
        };
        let mut all: Vec<Arc<Index>> = Vec::new();
        let mut model = None;
        for place in &settings.galleries {
            let name = name_of(place)?;
            ensure!(
                all.iter().all(|index| index.name != name),
                "two galleries are named {name}; rename the folder of one"
            );
            let snapshot = open(place, &options)?;
            let archive = &snapshot.archive;
            let is_external = archive.gallery.maker().fingerprint.starts_with(EXTERNAL);
            match &model {
                _ if is_external => {}
                None => {
                    archive.open_model(watch)?;
                    model = archive.model().cloned();
                }
                Some(model) => archive
                    .share_model(model)
                    .with_context(|| format!("{}: one server has one model", place.display()))?,
            }
            all.push(Arc::new(Index {
                name,
                is_lake: is_lake(place),
                place: place.clone(),
                options: options.clone(),
                newest: RwLock::new(Arc::new(snapshot)),
                asked: Mutex::new(Instant::now()),
            }));
        }
        ensure!(!all.is_empty(), "no gallery is named with -d");
        Ok(Self { all })
    }

    /// Returns the index of a name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Index>> {
        self.all.iter().find(|index| index.name == name).cloned()
    }

    /// Returns the index that is named, or the only one.
    pub(crate) fn named(&self, name: Option<&str>) -> Result<Arc<Index>> {
        match (name, self.all()) {
            (Some(name), _) => self.find(name).ok_or_else(|| Problem::not_found("index")),
            (None, [only]) => Ok(Arc::clone(only)),
            (None, _) => {
                let detail = "?index=NAME is wanted where there are several";
                Err(Problem::unprocessable("invalid_request", detail))
            }
        }
    }

    /// Returns every index, in the order in which they were named.
    pub(crate) fn all(&self) -> &[Arc<Index>] {
        &self.all
    }
}

impl Index {
    /// Opens the gallery for additions, with the model that is open already.
    pub(crate) fn additions(&self, key: Option<SealKey>) -> m3ret::Result<SeriesGallery> {
        let options = SeriesOptions {
            gallery: self.place.clone(),
            origin: String::new(),
            model: self.options.model.clone(),
            reading: self.options.reading.clone(),
            // The files are erased.
            has_thumbnails: true,
            views: None,
            numbers: Numbers::F32,
        };
        let known = self.known();
        let model = known.archive.model().context("the index has no model")?;
        SeriesGallery::with_model(options, Arc::clone(model), key)
    }

    /// Refuses changes of a lake.
    pub(crate) fn must_be_changeable(&self) -> Result<()> {
        match self.is_lake {
            false => Ok(()),
            true => Err(Problem::unprocessable(
                "lake",
                "this index is a lake, which is changed by m3ret lake and m3ret erase",
            )),
        }
    }

    /// Returns the folder of the gallery.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Returns the gallery's newest state; opens it if a writer made one since.
    pub(crate) fn newest(&self) -> m3ret::Result<Arc<Snapshot>> {
        if self.is_lake {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.elapsed() < LAKE_INTERVAL {
                return Ok(self.known());
            }
            *asked = Instant::now();
        }
        self.refreshed()
    }

    /// Answers by the gallery's newest state. An erasure removes the versions of a lake that readers hold: what fails then
    /// is done once more with the state after it.
    pub(crate) fn with_newest<T>(&self, answer: impl Fn(&Snapshot) -> Result<T>) -> Result<T> {
        let failed = |error: m3ret::Error| Problem::of_library(&error);
        let snapshot = self.newest().map_err(failed)?;
        let answered = answer(&snapshot);
        let is_suspect = self.is_lake && answered.as_ref().is_err_and(Problem::is_internal);
        if !is_suspect {
            return answered;
        }
        match self.refreshed() {
            Ok(newer) if newer.generation != snapshot.generation => answer(&newer),
            _ => answered,
        }
    }

    fn refreshed(&self) -> m3ret::Result<Arc<Snapshot>> {
        let known = self.known();
        if newest_generation(&self.place)? == known.generation {
            return Ok(known);
        }
        let opened = open(&self.place, &self.options)?;
        if let Some(model) = known.archive.model() {
            opened.archive.share_model(model)?;
        }
        let opened = Arc::new(opened);
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&opened);
        Ok(opened)
    }

    /// Returns the state that was opened last.
    pub(crate) fn known(&self) -> Arc<Snapshot> {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn open(place: &Path, options: &OpenOptions) -> m3ret::Result<Snapshot> {
    // Asked first: a state that comes meanwhile is opened again.
    let generation = newest_generation(place)?;
    Ok(Snapshot {
        archive: Archive::over(place, open_collection(place)?, options),
        generation,
    })
}

/// Returns the name of a gallery: that of its folder without `.m3i`.
fn name_of(place: &Path) -> anyhow::Result<String> {
    if !is_lake(place) && !is_gallery(place) {
        bail!(
            "{}: found no gallery, wanted a folder NAME.m3i; `m3ret index build` makes one",
            place.display()
        );
    }
    let place = match is_lake(place) {
        true => place.to_owned(),
        false => place.canonicalize()?,
    };
    let name = place.file_stem().and_then(|name| name.to_str());
    let is_fine = |name: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        name.bytes().all(is_plain)
    };
    let name = name.filter(is_fine);
    let name = name.with_context(|| {
        format!(
            "{}: the name of a gallery is part of addresses: letters, digits and . _ - are wanted",
            place.display()
        )
    })?;
    Ok(name.to_owned())
}

/// Follows work in silence, and keeps what a person should read.
#[derive(Debug, Default)]
pub(crate) struct Notes(std::cell::RefCell<Vec<String>>);

impl Watch for Notes {
    fn note(&self, sentence: &str) {
        self.0.borrow_mut().push(sentence.to_owned());
    }
}

impl Notes {
    pub(crate) fn into_sentences(self) -> Vec<String> {
        self.0.into_inner()
    }
}

/// Follows work in silence.
pub(crate) const SILENT: Quiet = Quiet;
