//! Galleries of images: what is stored of each, and how a gallery keeps up with an archive.

mod cache;
mod known;
mod places;
mod rows;
mod update;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_encoder::Model;
use m3ret_search::{Gallery, Maker};

use super::embed::precision_name;
use crate::model_name;
use crate::options::{ModelChoice, Reading};
use crate::watch::Watch;

pub(super) use cache::folder_of as cache_folder_of;
pub(super) use known::KnownVectors;
pub(super) use places::{Gone, move_files, prune, relabel};
pub(super) use rows::{
    Columns, Pseudonyms, cells_of_manifest, digest_of_cells, file_of, identifies_people,
    is_same_place,
};
pub(super) use update::{Refused, Updated, Wanted, tell_notes, update, with_part};

/// Columns that every gallery of images has.
pub(super) mod columns {
    use m3ret_manifest::columns::{BODY_PART, DIMS, MODALITY};
    /// Where the image lies, below `ROOT`; and hashes of identifiers.
    pub(crate) use m3ret_manifest::columns::{PATH, PATIENT, SERIES, STUDY};

    /// Which image of the file.
    pub(crate) const PART: &str = "part";
    /// A keyed hash of what the manifest said of the image when its row was written.
    pub(crate) const CELLS: &str = "m3ret:cells";
    /// Digest of the bytes that the image was read from: equal bytes are not embedded twice.
    pub(crate) const CONTENT: &str = "m3ret:content";
    /// When the state of a file was last changed (ctime, ns), as it was when its bytes were hashed.
    pub(crate) const CHANGED: &str = "m3ret:changed";
    /// What the image itself says, where a manifest may say otherwise.
    pub(crate) const OWN_MODALITY: &str = "m3ret:modality";
    pub(crate) const OWN_BODY_PART: &str = "m3ret:body_part";
    pub(crate) const OWN_DIMS: &str = "m3ret:dims";
    /// Hashes of the header's identifiers: of a patient without, and with its issuer.
    pub(crate) const OWN_PATIENT: &str = "m3ret:patient_id";
    pub(crate) const OWN_ISSUED_PATIENT: &str = "m3ret:issued_patient_id";
    pub(crate) const OWN_STUDY: &str = "m3ret:study_id";
    pub(crate) const OWN_SERIES: &str = "m3ret:series_id";

    /// Begins the names of m3ret's own columns.
    pub(crate) const OWN: &str = "m3ret:";

    /// What a row shows where no manifest says otherwise, and which own columns say it; the first one counts.
    pub(crate) const SHOWN: [(&str, &str); 7] = [
        (MODALITY, OWN_MODALITY),
        (BODY_PART, OWN_BODY_PART),
        (DIMS, OWN_DIMS),
        (PATIENT, OWN_ISSUED_PATIENT),
        (PATIENT, OWN_PATIENT),
        (STUDY, OWN_STUDY),
        (SERIES, OWN_SERIES),
    ];

    /// Names of columns that galleries made before m3ret's own had a prefix have otherwise.
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct OwnNames {
        /// The absolute folder that paths are relative to.
        pub(crate) root: &'static str,
        /// Changes when the file does.
        pub(crate) key: &'static str,
        /// Hash of all values.
        pub(crate) pixels: &'static str,
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
    pub(crate) fn own_names(gallery: &m3ret_search::Gallery) -> &'static OwnNames {
        let columns = gallery.columns();
        let is_older = columns.contains(&OLD.root) && !columns.contains(&NEW.root);
        if is_older { &OLD } else { &NEW }
    }
}

/// Says whether a folder is a gallery.
pub(super) fn is_gallery(folder: &Path) -> bool {
    let is_catalog = |name: &str| name.starts_with("catalog-") && name.ends_with(".json");
    let is_named_so = folder.extension().is_some_and(|end| end == "m3i");
    folder.is_dir()
        && (is_named_so
            || std::fs::read_dir(folder).is_ok_and(|mut entries| {
                entries.any(|entry| {
                    entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_catalog))
                })
            }))
}

/// Says what makes a model's vectors.
pub(super) fn maker_of(model: &Model) -> Maker {
    Maker {
        fingerprint: model.fingerprint().to_owned(),
        model: model.name().to_owned(),
        precision: precision_name(model.precision()).to_owned(),
    }
}

/// An archive that is ready to be searched.
pub(super) struct Opened {
    pub(super) gallery: Gallery,
    /// The model that made it; `None` where nothing was embedded and nothing will be.
    pub(super) model: Option<Model>,
    pub(super) updated: Updated,
}

/// What is to be opened, and how.
pub(super) struct Opening<'a> {
    pub(super) archive: &'a Path,
    pub(super) cache: Option<&'a Path>,
    pub(super) model: &'a ModelChoice,
    /// What is taken for a folder or manifest where nobody names a model.
    pub(super) default_model: &'static str,
    pub(super) reading: &'a Reading,
    /// Images are going to be embedded.
    pub(super) needs_model: bool,
}

/// Opens a gallery, or brings the gallery of a folder or manifest up to date.
pub(super) fn open(opening: &Opening<'_>, progress: &dyn Watch) -> anyhow::Result<Opened> {
    let Opening { archive, .. } = *opening;
    if is_gallery(archive) {
        let gallery = Gallery::open(archive)?;
        let model = if opening.needs_model {
            Some(model_of(&gallery, opening.model, progress)?)
        } else {
            None
        };
        return Ok(Opened {
            gallery,
            model,
            updated: Updated::default(),
        });
    }
    std::fs::metadata(archive).with_context(|| format!("opening {}", archive.display()))?;
    let model = model_name::open_or(opening.default_model, opening.model, progress)?;
    let folder = cache_folder_of(archive, &model, opening.cache, &opening.reading.options)?;
    let wanted = Wanted {
        source: archive,
        gallery: &folder,
        reading: opening.reading,
        is_mirror: true,
        replaces: false,
        has_thumbnails: false,
        numbers: m3ret_search::Numbers::F32,
    };
    let updated = update(&wanted, &model, progress)?;
    let gallery = Gallery::open(&folder)?;
    Ok(Opened {
        gallery,
        model: Some(model),
        updated,
    })
}

/// Opens the model that a gallery needs: the one that is named, or the one that made it.
pub(super) fn model_of(
    gallery: &Gallery,
    choice: &ModelChoice,
    progress: &dyn Watch,
) -> anyhow::Result<Model> {
    let maker = gallery.maker();
    if maker.fingerprint.starts_with("external:") {
        anyhow::bail!(
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

/// Shows a path as a person in the current folder would write it.
pub(super) fn short(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        Ok(below) if below != Path::new("") => below.to_owned(),
        _ => path.to_owned(),
    }
}
