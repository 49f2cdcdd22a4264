//! What comes over the network becomes rows of a gallery: the spool of `dicomnet` meets the library.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use m3ret::index::{SeriesFolder, SeriesGallery, SeriesOptions, key_of};
use m3ret::watch::Watch;
use m3ret_dicomnet::spool::SpooledSeries;
use m3ret_dicomnet::sync::{Archive, ArchiveError, PutOutcome};
use m3ret_dicomnet::{CursorFile, Names};

/// Folder of the cursors within a gallery. A gallery tolerates other folders: the cursor moves with it, and cannot be
/// taken for that of another.
const CURSORS: &str = "sync";

/// Where series come from that others send, by `m3ret receive` and `m3ret serve` alike.
pub const RECEIVED_FROM: &str = "receive";

/// A gallery that takes series of one origin.
pub struct Intake<'a> {
    gallery: SeriesGallery,
    names: Names,
    origin: String,
    watch: &'a dyn Watch,
}

/// How series become rows; the origin is named by `Intake::open`.
#[derive(Debug, Clone)]
pub struct IntakeOptions {
    /// How series become rows.
    pub series: SeriesOptions,
    /// File with the key of sealed UIDs, made if it is not there; `None` to store none.
    pub key_file: Option<PathBuf>,
}

impl<'a> Intake<'a> {
    /// Opens a gallery and its model, or makes the gallery. `origin` says in any words where the series come from.
    ///
    /// # Errors
    /// As `SeriesGallery::open` and `key_of`.
    pub fn open(
        options: &IntakeOptions,
        origin: &str,
        watch: &'a dyn Watch,
    ) -> m3ret::Result<Self> {
        let key = options.key_file.as_deref();
        let gallery = std::slice::from_ref(&options.series.gallery);
        let key = key.map(|file| key_of(gallery, file));
        let key = key.transpose()?;
        let gallery = SeriesGallery::open(options.series.clone(), key, watch)?;
        Ok(Self::over(gallery, origin, watch))
    }

    /// Takes a gallery that is open. `origin` says in any words where the series come from.
    pub fn over(mut gallery: SeriesGallery, origin: &str, watch: &'a dyn Watch) -> Self {
        let names = Names::new(gallery.secret("names of files").as_bytes());
        let origin = names.source(origin);
        gallery.set_origin(&origin);
        Self {
            gallery,
            names,
            origin,
            watch,
        }
    }

    /// Returns how files are named: by hashes keyed with the secret of the gallery.
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// Opens the cursor of the origin, in the gallery's folder.
    ///
    /// # Errors
    /// `Io` if the folder cannot be made or the file not be read; `Malformed` if it is damaged.
    pub fn cursor(&self, gallery: &Path) -> m3ret_dicomnet::Result<CursorFile> {
        let folder = gallery.join(CURSORS);
        m3ret_files::make_private_folder(&folder)?;
        CursorFile::open(&folder.join(format!("{}.json", self.origin)))
    }
}

impl Archive for Intake<'_> {
    fn n_objects(&mut self, name: &str) -> Result<Option<usize>, ArchiveError> {
        Ok(self.gallery.n_objects(name).map_err(told)?)
    }

    fn put(&mut self, series: &[SpooledSeries]) -> Result<PutOutcome, ArchiveError> {
        let folders = series.iter().map(|series| SeriesFolder {
            folder: series.folder.clone(),
            name: series.name.clone(),
            n_objects: series.n_objects,
            study_uid: series.study.expose().to_owned(),
            series_uid: series.series.expose().to_owned(),
        });
        let folders: Vec<SeriesFolder> = folders.collect();
        let put = self.gallery.put(&folders, self.watch).map_err(told)?;
        Ok(PutOutcome {
            n_rows: put.n_rows,
            n_replaced: put.n_replaced,
            without_images: put.without_images,
            refused: put.refused,
        })
    }

    fn names(&mut self) -> Result<HashSet<String>, ArchiveError> {
        Ok(self.gallery.names().map_err(told)?)
    }

    fn remove(&mut self, names: &HashSet<String>) -> Result<usize, ArchiveError> {
        Ok(self.gallery.remove(names, self.watch).map_err(told)?)
    }
}

/// Keeps the whole sentence of an error, with its causes.
fn told(error: m3ret::Error) -> Box<m3ret::Error> {
    Box::new(error)
}
