//! Galleries of images: what is stored of each image, and how a gallery is kept in step with a folder or manifest.

mod cache;
mod export;
mod known;
mod places;
mod repair;
mod rows;
mod update;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use m3ret_encoder::Model;
use m3ret_search::{Collection, Gallery, Maker};

use super::embed::precision_name;
use crate::lake;
use crate::model_name;
use crate::options::{FolderChoice, ModelChoice, Reading};
use crate::watch::Watch;
use crate::words::printable;

pub use cache::{CachedGallery, cached, clear_cache};
pub(crate) use cache::{folder_of as cache_folder_of, place_of as cache_place_of};
pub use export::{Exported, export};
pub(crate) use known::KnownVectors;
pub use places::{PruneSummary, PrunedImage, RewriteSummary, move_files, prune};
pub(crate) use places::{prune_left, relabel};
pub use repair::{LostImage, Repaired, repair};
pub(crate) use rows::{
    Columns, PendingRows, Pseudonym, Pseudonyms, RowCells, RowParts, THUMBNAIL, cells_of_manifest,
    digest_of_cells, file_of, is_of_erased, is_same_place, place_below, stored_parts, views_of,
};
pub use update::{RefusedImage, UpdateSummary};
pub(crate) use update::{
    Stored, UpdateOptions, forget_gone, forget_moved, refused_as_erased, tell_notes, update,
    with_part,
};

/// Columns that every gallery of images has.
pub(super) mod columns {
    use m3ret_manifest::columns::{BODY_PART, DIMS, MODALITY, MODALITY_GUESS};
    /// Path below the folder `root` of `OwnNames`, and hashes of identifiers.
    pub(crate) use m3ret_manifest::columns::{PATH, PATIENT, SERIES, STUDY};

    /// Which image of the file.
    pub(crate) const PART: &str = "part";
    /// A keyed hash of what the manifest said of the image when its row was written.
    pub(crate) const CELLS: &str = "m3ret:cells";
    /// Digest of the bytes that the image was read from: equal bytes are not embedded twice.
    pub(crate) const CONTENT: &str = "m3ret:content";
    /// When the state of a file was last changed (ctime, ns), as it was when its bytes were hashed.
    pub(crate) const CHANGED: &str = "m3ret:changed";
    /// What the image itself states; a manifest may state otherwise.
    pub(crate) const OWN_MODALITY: &str = "m3ret:modality";
    /// What its values suggest.
    pub(crate) const OWN_MODALITY_GUESS: &str = "m3ret:modality_guess";
    pub(crate) const OWN_BODY_PART: &str = "m3ret:body_part";
    pub(crate) const OWN_DIMS: &str = "m3ret:dims";
    /// Which identifiers the manifest states: those of `PATIENT`, `STUDY` and `SERIES` as words.
    pub(crate) const STATED: &str = "m3ret:stated";
    /// Hashes of the header's identifiers: of a patient without, and with its issuer.
    pub(crate) const OWN_PATIENT: &str = "m3ret:patient_id";
    pub(crate) const OWN_ISSUED_PATIENT: &str = "m3ret:issued_patient_id";
    pub(crate) const OWN_STUDY: &str = "m3ret:study_id";
    pub(crate) const OWN_SERIES: &str = "m3ret:series_id";

    /// Begins the names of m3ret's own columns.
    pub(crate) const OWN: &str = "m3ret:";

    /// Columns that a row shows, each with the own column that fills it where no manifest does; of two, the first
    /// that is not empty counts.
    pub(crate) const SHOWN: [(&str, &str); 8] = [
        (MODALITY, OWN_MODALITY),
        (MODALITY_GUESS, OWN_MODALITY_GUESS),
        (BODY_PART, OWN_BODY_PART),
        (DIMS, OWN_DIMS),
        (PATIENT, OWN_ISSUED_PATIENT),
        (PATIENT, OWN_PATIENT),
        (STUDY, OWN_STUDY),
        (SERIES, OWN_SERIES),
    ];

    /// Names of columns that older galleries write without the prefix of `OWN`.
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct OwnNames {
        /// The absolute folder that paths are relative to.
        pub root: &'static str,
        /// Changes when the file does.
        pub key: &'static str,
        /// Hash of all values.
        pub pixels: &'static str,
    }

    const NEW: OwnNames = OwnNames {
        root: "m3ret:root",
        key: "m3ret:key",
        pixels: "m3ret:pixels",
    };
    const OLD: OwnNames = OwnNames {
        root: "root",
        key: "file_key",
        pixels: "pixels",
    };

    /// Returns the names that a gallery uses; rows that are added to an older one follow it.
    pub(crate) fn own_names(gallery: &dyn m3ret_search::Collection) -> &'static OwnNames {
        own_names_among(&gallery.columns())
    }

    /// Returns the names that are among those of columns.
    pub(crate) fn own_names_among(columns: &[&str]) -> &'static OwnNames {
        let is_older = columns.contains(&OLD.root) && !columns.contains(&NEW.root);
        if is_older { &OLD } else { &NEW }
    }
}

/// Returns whether a folder is a gallery or named as one, since a damaged gallery is no folder of images.
pub(crate) fn is_gallery(folder: &Path) -> bool {
    let is_named_so = folder.extension().is_some_and(|end| end == "m3i");
    folder.is_dir() && (is_named_so || m3ret_search::is_gallery(folder))
}

/// Describes a model as the maker of vectors.
pub(crate) fn maker_of(model: &Model) -> Maker {
    Maker {
        fingerprint: model.fingerprint().to_owned(),
        model: model.name().to_owned(),
        precision: precision_name(model.precision()).to_owned(),
    }
}

/// An archive of images with its gallery, ready to be searched.
pub struct Archive {
    /// The folder, manifest or gallery, as it was given.
    pub place: PathBuf,
    /// The vectors and labels of the images.
    pub gallery: Box<dyn Collection>,
    /// The model that made the gallery; empty until an image is embedded.
    model: OnceLock<Arc<Model>>,
    /// What was changed in the gallery when the archive was opened; empty for a gallery that was named itself.
    pub updated: UpdateSummary,
    /// How queries are read.
    pub(crate) reading: Reading,
    /// Whether patterns chose its files.
    pub(crate) is_chosen: bool,
    choice: ModelChoice,
}

impl Archive {
    /// Opens the model of the gallery if it is not open yet.
    ///
    /// # Errors
    /// `Model` if it cannot be opened, or is not the one that made the gallery.
    pub fn open_model(&self, watch: &dyn Watch) -> crate::Result<()> {
        if self.model.get().is_none() {
            let model = model_of(self.gallery.as_ref(), &self.choice, watch)?;
            // Of two threads that open it at the same time, the first one's is kept.
            let _ = self.model.set(Arc::new(model));
        }
        Ok(())
    }

    /// Returns the model, if it is open.
    pub fn model(&self) -> Option<&Arc<Model>> {
        self.model.get()
    }

    /// Returns how queries are read.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Uses a model that is open already, unless the archive has one: several archives share one in memory.
    ///
    /// # Errors
    /// `Gallery` if another model made the gallery.
    pub fn share_model(&self, model: &Arc<Model>) -> crate::Result<()> {
        self.gallery.check_maker(&maker_of(model))?;
        // An archive keeps the model that it has.
        let _ = self.model.set(Arc::clone(model));
        Ok(())
    }
}

/// How an archive is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Folder of the galleries of folders and manifests; `None` for the cache of the user.
    pub cache: Option<PathBuf>,
    /// The model that embeds images; without a name, that of the gallery, or `default_model`.
    pub model: ModelChoice,
    /// The model that embeds a folder or manifest if `model` has no name.
    pub default_model: &'static str,
    /// How images are read.
    pub reading: Reading,
    /// Which files of a folder are read, and what labels their images.
    pub folder: FolderChoice,
}

impl Default for OpenOptions {
    /// Uses the user's cache, the default model, and a manifest that lies in a folder.
    fn default() -> Self {
        Self {
            cache: None,
            model: ModelChoice::default(),
            default_model: model_name::DEFAULT,
            reading: Reading::default(),
            folder: FolderChoice::default(),
        }
    }
}

impl Archive {
    /// Opens a gallery, or brings the gallery of a folder or manifest up to date in the cache and opens it.
    ///
    /// Images of a folder or manifest that are new or changed are embedded, and rows of files that are gone are
    /// removed. A gallery that was named itself stays as it is.
    ///
    /// # Errors
    /// `Io`, `Gallery` or `Model` if the archive, its gallery or the model cannot be opened, or another model made the
    /// gallery; `Stopped` if the watcher stopped the work.
    pub fn open(place: &Path, options: &OpenOptions, watch: &dyn Watch) -> crate::Result<Self> {
        if lake::is_lake(place) || is_gallery(place) {
            crate::error::ensure!(
                !options.folder.files.is_given(),
                "{} is a gallery: --include-files and --exclude-files choose files of a folder; --filter chooses images",
                place.display()
            );
            return Ok(Self::over(place, open_collection(place)?, options));
        }
        std::fs::metadata(place).with_context(|| format!("opening {}", place.display()))?;
        let model = model_name::open_or(options.default_model, &options.model, watch)?;
        let cache = options.cache.as_deref();
        let folder = cache_folder_of(
            place,
            &model,
            cache,
            &options.reading.options,
            &options.folder.files,
        )?;
        let wanted = UpdateOptions {
            source: place,
            gallery: &folder,
            reading: &options.reading,
            folder: &options.folder,
            is_mirror: true,
            replaces: false,
            has_thumbnails: false,
            views: None,
            numbers: m3ret_search::Numbers::F32,
        };
        let updated = update(&wanted, &model, watch)?;
        let gallery = Box::new(Gallery::open(&folder)?);
        Ok(Self {
            model: OnceLock::from(Arc::new(model)),
            updated,
            ..Self::over(place, gallery, options)
        })
    }
}

impl Archive {
    /// Makes an archive of a collection that is kept elsewhere; `place` is what people call it. The collection has the
    /// columns of a gallery (docs/gallery-format.md), and stays as it is.
    pub fn over(place: &Path, gallery: Box<dyn Collection>, options: &OpenOptions) -> Self {
        Self {
            place: place.to_owned(),
            gallery,
            model: OnceLock::new(),
            updated: UpdateSummary::default(),
            reading: options.reading.clone(),
            is_chosen: options.folder.files.is_given(),
            choice: options.model.clone(),
        }
    }
}

/// Opens a gallery or a lake that was named itself.
///
/// # Errors
/// `Gallery` if there is none, or it is damaged; `Caller` for a lake if the program was built without them; `Io`.
pub fn open_collection(place: &Path) -> crate::Result<Box<dyn Collection>> {
    match lake::is_lake(place) {
        true => lake::open(place),
        false => Ok(Box::new(Gallery::open(place)?)),
    }
}

/// Returns a number that changes whenever a gallery or lake does; opens no file of rows.
///
/// # Errors
/// `Gallery` if there is none; `Io`.
pub fn newest_generation(place: &Path) -> crate::Result<u64> {
    if lake::is_lake(place) {
        return lake::generation(place);
    }
    let newest = Gallery::newest_generation(place)?;
    Ok(newest.with_context(|| format!("{}: found no gallery", place.display()))?)
}

/// Opens the model that a gallery needs: the one of `choice`, else the one that made the gallery.
pub(crate) fn model_of(
    gallery: &dyn Collection,
    choice: &ModelChoice,
    progress: &dyn Watch,
) -> anyhow::Result<Model> {
    let maker = gallery.maker();
    if maker.fingerprint.starts_with("external:") {
        crate::error::bail!(
            "the gallery holds vectors that were made elsewhere ({}); look for vectors with \
             --embeddings, or for an id of the gallery with -i",
            maker.model
        );
    }
    let name = choice.name.as_deref().unwrap_or(&maker.model);
    let model = model_name::open_named(name, &choice.run).with_context(|| {
        format!(
            "the gallery was made with the model {}; name its folder with --model",
            maker.model
        )
    })?;
    let own = maker_of(&model);
    gallery.check_maker(&own)?;
    if own.precision != maker.precision {
        progress.note(&format!(
            "the gallery was embedded in {}, the queries are in {}: scores differ a little",
            maker.precision, own.precision
        ));
    }
    Ok(model)
}

/// Returns one line for each refused image, for people.
pub fn refused_text(updated: &UpdateSummary) -> String {
    let lines = updated.refused.iter().map(|refused| {
        let part = refused
            .part
            .as_deref()
            .map_or(String::new(), |part| format!(" [{}]", printable(part)));
        format!(
            "refused: {}{part}: {} ({})\n",
            printable(&refused.path),
            printable(&refused.message),
            refused.reason
        )
    });
    lines.collect()
}
