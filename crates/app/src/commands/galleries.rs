//! Galleries of images: what is stored of each, and how a gallery keeps up with an archive.

mod cache;
mod rows;
mod update;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_encoder::Model;
use m3ret_search::{Gallery, Maker};

use super::embed::precision_name;
use crate::cli::{ModelArguments, ReadArguments};
use crate::model_name;
use crate::progress::Progress;

pub(super) use cache::folder_of as cache_folder_of;
pub(super) use rows::{
    Columns, Pseudonyms, cells_of_manifest, file_of, identifies_people, left_out_columns,
    patient_columns,
};
pub(super) use update::{Updated, Wanted, update, with_part};

/// Columns that every gallery of images has.
pub(super) mod columns {
    /// Where the image lies, below `ROOT`.
    pub(crate) const PATH: &str = "path";
    /// Which image of the file.
    pub(crate) const PART: &str = "part";
    /// The absolute folder that paths are relative to.
    pub(crate) const ROOT: &str = "root";
    /// Changes when the file does.
    pub(crate) const KEY: &str = "file_key";
    /// Hash of all values.
    pub(crate) const PIXELS: &str = "pixels";
    /// Hashes of identifiers.
    pub(crate) const PATIENT: &str = "patient_id";
    pub(crate) const STUDY: &str = "study_id";
    pub(crate) const SERIES: &str = "series_id";
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
    pub(super) model: &'a ModelArguments,
    /// What is taken for a folder or manifest where nobody names a model.
    pub(super) default_model: &'static str,
    pub(super) reading: &'a ReadArguments,
    /// Images are going to be embedded.
    pub(super) needs_model: bool,
}

/// Opens a gallery, or brings the gallery of a folder or manifest up to date.
pub(super) fn open(opening: &Opening<'_>, progress: &Progress) -> anyhow::Result<Opened> {
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
    let folder = cache_folder_of(archive, &model, opening.cache, &opening.reading.options())?;
    let wanted = Wanted {
        source: archive,
        gallery: &folder,
        reading: opening.reading,
        is_mirror: true,
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
    arguments: &ModelArguments,
    progress: &Progress,
) -> anyhow::Result<Model> {
    let maker = gallery.maker();
    if maker.fingerprint.starts_with("external:") {
        anyhow::bail!(
            "the gallery holds vectors that were made elsewhere ({}); look for vectors with \
             --embeddings, or for an id of the gallery with -i",
            maker.model
        );
    }
    let name = arguments.model.as_deref().unwrap_or(&maker.model);
    let model = model_name::open_named(name, &arguments.run_options()).with_context(|| {
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
