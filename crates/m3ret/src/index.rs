//! Makes, extends, changes and describes galleries on request.

mod plain;
mod series;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::embed::items::keep;
use crate::error::ensure;
use anyhow::Context as _;
use m3ret_imaging::Limits;
use m3ret_manifest::columns::ID;
use m3ret_manifest::columns::{BODY_PART, DIMS, MODALITY, SOURCE};
use m3ret_manifest::{Manifest, Table, text_of};
use m3ret_search::{Batch, Calibration, Collection, Gallery, Maker, Numbers, Setup, Writer};
use serde::Serialize;

use super::galleries::columns::{self, own_names};
use super::galleries::{self, PruneSummary, UpdateOptions, UpdateSummary, update};
use super::vectors::{self, RowsOf, VectorFile, Vectors};
use crate::files::{Force, Inputs, Output, Replaces};
use crate::model_name;
use crate::options::{FolderChoice, ModelChoice, Reading, VolumeViews};
use crate::watch::Watch;

pub use plain::{PlainRows, StoredColumn, put_plain};
pub use series::{
    SeriesFolder, SeriesGallery, SeriesOptions, SeriesSummary, UID_SEALED, key_of, received_beside,
    spool_beside,
};

/// What goes into a gallery, and how.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The folder of the gallery.
    pub gallery: PathBuf,
    /// A folder, a file or a manifest.
    pub source: PathBuf,
    /// Vectors of the rows of the manifest that were made elsewhere; `None` to embed images.
    pub vectors: Option<GivenVectors>,
    /// Number format in which a new gallery stores vectors.
    pub numbers: Numbers,
    /// Whether a small picture of each image is stored.
    pub has_thumbnails: bool,
    /// Of which pictures volumes have further vectors; `None` for projections, and for slices where the gallery has some.
    pub views: Option<VolumeViews>,
    /// The model that embeds images; ignored for vectors that were made elsewhere.
    pub model: ModelChoice,
    /// How images are read.
    pub reading: Reading,
    /// Which files of a folder are read, and what labels their images.
    pub folder: FolderChoice,
}

/// Vectors that were made elsewhere.
#[derive(Debug, Clone)]
pub struct GivenVectors {
    /// `.npy`, `.safetensors` or `.parquet`, [n, width].
    pub path: PathBuf,
    /// Name of the model that made the vectors; needed if the file does not state it.
    pub encoder: Option<String>,
    /// Whether vectors are scaled to unit length; without it, other lengths are an error.
    pub normalizes: bool,
    /// Whether rows of NaN are skipped; without it, they are an error.
    pub skips_nan: bool,
}

/// How images are added to an existing gallery.
#[derive(Debug, Clone, Copy, Default)]
pub struct AddOptions {
    /// Whether a new image replaces another one with its id, instead of being an error.
    pub replaces: bool,
    /// Whether images whose files are gone are removed afterwards.
    pub prunes: bool,
}

/// What was added to a gallery and removed from it.
#[derive(Debug)]
pub struct Addition {
    /// Number of images in the gallery now.
    pub n_items: usize,
    /// What was added.
    pub updated: UpdateSummary,
    /// What was removed because its files are gone; empty without `AddOptions::prunes`.
    pub gone: PruneSummary,
}

/// Makes a gallery from a folder, a file or a manifest. A gallery without images at the same place is filled.
///
/// # Errors
/// If there is a gallery with images already; if the source, the vectors or the model cannot be opened; if two images
/// have one id; if the gallery cannot be written; `Stopped` if the watcher stopped the work.
pub fn build(options: &BuildOptions, watch: &dyn Watch) -> crate::Result<Addition> {
    let has_images = Gallery::open(&options.gallery).is_ok_and(|gallery| !gallery.is_empty());
    ensure!(
        !has_images,
        "{} is there already; `m3ret index add` adds what is new, or give another name",
        options.gallery.display()
    );
    let output = Output {
        path: &options.gallery,
        replaces: Replaces::Own {
            what: "gallery",
            is_own: &|folder| m3ret_search::is_gallery(folder) || m3ret_search::is_begun(folder),
        },
        force: Force::Unsupported,
    };
    output.check_folder(&Inputs::NONE)?;
    let updated = match &options.vectors {
        Some(vectors) => add_vectors(options, vectors, AddOptions::default(), watch)?,
        None => {
            let model = model_name::open(&options.model, watch)?;
            let wanted = wanted(options, AddOptions::default());
            update(&wanted, &model, watch)?
        }
    };
    Ok(finished(options, AddOptions::default(), updated)?)
}

/// Adds what is new in a folder, a file or a manifest to an existing gallery.
///
/// # Errors
/// If there is no gallery or another model made it; if the source, the vectors or the model cannot be opened; if two
/// images have one id; if the gallery is locked or cannot be written; `Stopped` if the watcher stopped the work.
pub fn add(
    options: &BuildOptions,
    adding: AddOptions,
    watch: &dyn Watch,
) -> crate::Result<Addition> {
    ensure!(
        std::fs::symlink_metadata(&options.gallery).is_ok(),
        "{} is not there; `m3ret index build` makes it",
        options.gallery.display()
    );
    let gallery = Gallery::open(&options.gallery)?;
    let updated = if let Some(vectors) = &options.vectors {
        add_vectors(options, vectors, adding, watch)?
    } else {
        let model = match &options.model.name {
            Some(_) => model_name::open(&options.model, watch)?,
            None => galleries::model_of(&gallery, &options.model, watch)?,
        };
        drop(gallery);
        update(&wanted(options, adding), &model, watch)?
    };
    Ok(finished(options, adding, updated)?)
}

fn wanted(options: &BuildOptions, adding: AddOptions) -> UpdateOptions<'_> {
    UpdateOptions {
        source: &options.source,
        gallery: &options.gallery,
        reading: &options.reading,
        folder: &options.folder,
        is_mirror: false,
        replaces: adding.replaces,
        has_thumbnails: options.has_thumbnails,
        views: options.views,
        numbers: options.numbers,
    }
}

/// Removes images whose files are gone, if `adding` says so.
fn finished(
    options: &BuildOptions,
    adding: AddOptions,
    updated: UpdateSummary,
) -> anyhow::Result<Addition> {
    let gone = if adding.prunes {
        // A folder was left if most of its images were found elsewhere.
        let n_found = |folder: &Path| updated.left_folders.get(folder).copied().unwrap_or(0);
        galleries::prune_left(&options.gallery, |folder, n_gone| n_found(folder) >= n_gone)?
    } else {
        PruneSummary::default()
    };
    Ok(Addition {
        n_items: Gallery::open(&options.gallery)?.len(),
        updated,
        gone,
    })
}

/// Adds the rows of a manifest with vectors that were made elsewhere.
fn add_vectors(
    options: &BuildOptions,
    given: &GivenVectors,
    adding: AddOptions,
    watch: &dyn Watch,
) -> anyhow::Result<UpdateSummary> {
    let source = &options.source;
    let doing = || format!("opening {}", source.display());
    let table = Manifest::open(source, &Limits::default()).and_then(Manifest::load);
    let mut table = table.with_context(doing)?;
    keep(&mut table, &options.reading.keep)?;
    let file = vectors::read(&given.path)?;
    let maker = maker_of(options, given, &file, watch)?;
    let RowsOf {
        mut vectors, join, ..
    } = file.rows_of(&given.path, &table)?;
    let width = vectors.width;
    watch.note(&join.told(&given.path));
    // Before the gallery is made, so that none without images is left behind.
    let mut kept = kept_rows(given, &mut vectors)?;
    let is_new = Gallery::open(&options.gallery).map_or(true, |there| there.is_empty());
    ensure!(
        !is_new || !kept.is_empty(),
        "{} lists no image with a vector; a gallery needs at least one",
        source.display()
    );
    let mut writer = writer_for(options, maker, width)?;
    galleries::tell_notes(&table, watch);
    let root = source.canonicalize().with_context(doing)?;
    let root = text_of(root.parent().unwrap_or(Path::new("/")));
    let place = (&table, root.as_str());
    let refused = leave_out_erased(place, &mut kept, &mut vectors, writer.gallery());
    let (ids, cells) = rows_of(&table, &kept, &root, writer.gallery());
    watch.step("writing");
    let mut replaced = Vec::new();
    for id in ids.iter().filter(|_| adding.replaces) {
        if writer.gallery().find(id)?.is_some() {
            replaced.push(id.clone());
        }
    }
    let has_ids = table.column(ID).is_some();
    // Its words are copied; only one copy stays in memory while a segment is written.
    drop(table);
    let batch = Batch {
        vectors: &vectors.values,
        ids: &ids,
        columns: &cells,
        ..Batch::default()
    };
    let added = writer.replace(batch, &replaced);
    added.with_context(|| match has_ids {
        false => "the manifest has no column id, so that paths are ids".to_owned(),
        true => doing(),
    })?;
    let updated = UpdateSummary {
        n_new: ids.len(),
        n_removed: replaced.len(),
        refused,
        ..UpdateSummary::default()
    };
    // Measuring maps the gallery; the rows would lie in memory twice.
    drop((vectors, ids, cells));
    if writer.is_calibration_old() {
        watch.step("measuring how to search");
        writer.compact()?;
    }
    Ok(updated)
}

/// Returns the maker of the vectors: the one that the file states, or the name that the caller gives. Two encoders of
/// one width differ only in their names, so vectors without a name are added to no gallery. In a new one they are those
/// of an encoder with the name of the file.
fn maker_of(
    options: &BuildOptions,
    given: &GivenVectors,
    file: &VectorFile,
    watch: &dyn Watch,
) -> anyhow::Result<Maker> {
    if let Some(maker) = &file.maker {
        if let Some(encoder) = &given.encoder {
            ensure!(
                *encoder == maker.model,
                "--encoder {encoder}: the file says that {} made its vectors; leave --encoder out",
                maker.model
            );
        }
        return Ok(maker.clone());
    }
    let there = Gallery::open(&options.gallery).ok();
    let encoder = match (&given.encoder, there.filter(|there| !there.is_empty())) {
        (Some(name), _) => name.clone(),
        (None, Some(there)) => return Err(vectors::unnamed(&given.path, Some(there.maker()))),
        (None, None) => {
            let name = given.path.file_stem().unwrap_or_default();
            let name = text_of(Path::new(name));
            watch.note(&format!(
                "--encoder is not given, so the vectors are taken as made by \"{name}\", the name of their file: later \
                 vectors and queries need --encoder {name}"
            ));
            name
        }
    };
    Ok(Maker {
        fingerprint: format!("external:{encoder}:{}", file.vectors.width),
        model: encoder,
        precision: "unknown".to_owned(),
    })
}

/// Opens the gallery for vectors of a maker, or makes it.
fn writer_for(options: &BuildOptions, maker: Maker, width: usize) -> anyhow::Result<Writer> {
    if Gallery::open(&options.gallery).is_ok() {
        let writer = Writer::open(&options.gallery)?;
        writer.gallery().check_maker(&maker)?;
        return Ok(writer);
    }
    let setup = Setup {
        maker,
        width,
        numbers: options.numbers,
    };
    Ok(Writer::create(&options.gallery, setup)?)
}

/// Scales vectors to unit length and drops rows of NaN, as `given` says; returns the rows that are kept.
fn kept_rows(given: &GivenVectors, vectors: &mut Vectors) -> anyhow::Result<Vec<usize>> {
    let width = vectors.width;
    let n_rows = vectors.values.len() / width;
    let mut kept = Vec::with_capacity(n_rows);
    for row in 0..n_rows {
        let vector = &mut vectors.values[row * width..][..width];
        if given.skips_nan && vector.iter().all(|x| x.is_nan()) {
            continue;
        }
        if given.normalizes {
            m3ret_search::normalize(vector).with_context(|| format!("row {row} (from 0)"))?;
        }
        if kept.len() != row {
            vectors
                .values
                .copy_within(row * width..(row + 1) * width, kept.len() * width);
        }
        kept.push(row);
    }
    vectors.values.truncate(kept.len() * width);
    let checked = m3ret_search::check_unit(&vectors.values, width);
    checked
        .context("--normalize gives vectors unit length, and --skip-nan leaves out rows of NaN")?;
    Ok(kept)
}

/// Leaves out the rows of a manifest whose patients were erased from the gallery, with their vectors.
fn leave_out_erased(
    (table, root): (&Table, &str),
    kept: &mut Vec<usize>,
    vectors: &mut Vectors,
    gallery: &Gallery,
) -> Vec<galleries::RefusedImage> {
    if gallery.n_erased() == 0 {
        return Vec::new();
    }
    let (_, cells) = rows_of(table, kept, root, gallery);
    let erased = gallery.erased_rows(&cells);
    let width = vectors.width;
    let is_kept = |place: usize| erased.binary_search(&place).is_err();
    let values = vectors.values.chunks_exact(width).enumerate();
    let values = values.filter(|(place, _)| is_kept(*place));
    vectors.values = values.flat_map(|(_, vector)| vector).copied().collect();
    let rows = erased.iter().filter_map(|&place| table.row(kept[place]));
    let refused = rows.map(|row| {
        let part = row.part().map(str::to_owned);
        galleries::refused_as_erased(row.path().to_owned(), part, row.file())
    });
    let refused = refused.collect();
    let left = kept.iter().enumerate();
    let left = left.filter(|(place, _)| is_kept(*place));
    *kept = left.map(|(_, &row)| row).collect();
    refused
}

pub(crate) type Cells = Vec<(String, Vec<String>)>;

/// Returns ids and cells of some rows of a manifest.
pub(crate) fn rows_of(
    table: &Table,
    kept: &[usize],
    root: &str,
    gallery: &dyn Collection,
) -> (Vec<String>, Cells) {
    let mut all = galleries::Columns::default();
    let mut ids = Vec::with_capacity(kept.len());
    for &idx in kept {
        let Some(row) = table.row(idx) else { continue };
        let part = row.part().unwrap_or_default();
        let id = row.get(ID).filter(|id| !id.is_empty());
        ids.push(id.map_or_else(
            || galleries::with_part(row.path(), Some(part)),
            str::to_owned,
        ));
        let mut cells = vec![
            (columns::PATH.to_owned(), row.path().to_owned()),
            (columns::PART.to_owned(), part.to_owned()),
            (own_names(gallery).root.to_owned(), root.to_owned()),
            (
                columns::CELLS.to_owned(),
                galleries::digest_of_cells(Some(row), gallery),
            ),
        ];
        cells.extend(galleries::cells_of_manifest(table, idx, gallery));
        all.push(cells);
    }
    (ids, all.take())
}

/// Writes the cells of a manifest into the rows of its images: by id if the manifest has that column, else by file
/// and part.
///
/// Embeds, adds and removes nothing. Columns that the manifest lacks become empty.
///
/// # Errors
/// If the manifest or the gallery cannot be opened; if the gallery is damaged or locked by another writer.
pub fn relabel(
    gallery: &Path,
    manifest: &Path,
    watch: &dyn Watch,
) -> crate::Result<galleries::RewriteSummary> {
    let table = Manifest::open(manifest, &Limits::default()).and_then(Manifest::load);
    let table = table.with_context(|| format!("opening {}", manifest.display()))?;
    galleries::tell_notes(&table, watch);
    watch.step("writing");
    Ok(galleries::relabel(gallery, &table)?)
}

/// Removes images by id, and returns how many are left.
///
/// # Errors
/// If an id belongs to no image, in which case nothing is removed; if the gallery cannot be opened, is damaged, or is
/// locked by another writer.
pub fn remove(folder: &Path, ids: &[String]) -> crate::Result<usize> {
    let mut writer = Writer::open(folder)?;
    for id in ids {
        ensure!(
            writer.gallery().find(id)?.is_some(),
            "no image of the gallery has the id {id}; nothing was removed"
        );
    }
    writer.remove(ids)?;
    galleries::forget_gone(&mut writer)?;
    Ok(writer.gallery().len())
}

/// Size of a gallery before and after it was compacted.
#[derive(Debug, Clone, Copy)]
pub struct Compaction {
    /// Number of images in the gallery.
    pub n_items: usize,
    /// Bytes of all files of the gallery before.
    pub bytes_before: u64,
    /// Bytes of all files of the gallery after.
    pub bytes_after: u64,
}

/// Writes a gallery again without removed rows, and calibrates its quick search again.
///
/// # Errors
/// If the gallery cannot be opened or written, is damaged, or is locked by another writer.
pub fn compact(folder: &Path, watch: &dyn Watch) -> crate::Result<Compaction> {
    watch.step("rewriting the gallery");
    let mut writer = Writer::open(folder)?;
    let bytes_before = folder_bytes(folder)?;
    writer.compact()?;
    Ok(Compaction {
        n_items: writer.gallery().len(),
        bytes_before,
        bytes_after: folder_bytes(folder)?,
    })
}

fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        total += entry?.metadata()?.len();
    }
    Ok(total)
}

/// Description of a gallery.
#[derive(Debug, Serialize)]
pub struct Stats {
    /// Number of images.
    pub n_items: usize,
    /// Number of values of a vector.
    pub width: usize,
    /// Number format in which vectors are stored.
    pub numbers: Numbers,
    /// Name of the model that made the vectors.
    pub model: String,
    /// Fingerprint of the model: only vectors with equal fingerprints can be compared.
    pub fingerprint: String,
    /// Precision in which the model ran: `f32`, `bf16` or `int8`; `unknown` for vectors that were made elsewhere.
    pub precision: String,
    /// Number of changes since the gallery was made.
    pub generation: u64,
    /// Number of segments over which the rows are spread.
    pub n_segments: usize,
    /// Bytes of all files of the gallery.
    pub n_bytes: u64,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Names of what may be attached to rows, such as `thumbnail`.
    pub attachments: Vec<String>,
    /// How the quick search was calibrated; `None` if it was not, so that searches are exact.
    pub calibration: Option<Calibration>,
    /// Share of the ten exact best hits that the quick search returns, 0..=1, measured now on images of the gallery;
    /// `None` if searches are exact.
    pub recall_at_10: Option<f64>,
    /// The same share for searches with filters.
    pub recall_at_10_filtered: Option<f64>,
    /// Number of images by value, the most frequent first, for the columns `modality`, `body_part`, `dims` and
    /// `source` that have values.
    pub counts: BTreeMap<&'static str, Vec<(String, usize)>>,
    /// Whether one of two copies of a description is damaged; the other copy is used.
    pub has_damaged_copy: bool,
}

/// Describes a gallery, and measures its quick search against the exact search.
///
/// # Errors
/// If the gallery cannot be opened or is damaged.
pub fn stats(folder: &Path) -> crate::Result<Stats> {
    let gallery = Gallery::open(folder)?;
    let recall = gallery.measure_recall()?;
    let maker = gallery.maker().clone();
    let mut counts = BTreeMap::new();
    for column in [MODALITY, BODY_PART, DIMS, SOURCE] {
        let counted = count(&gallery, column)?;
        if !counted.is_empty() {
            counts.insert(column, counted);
        }
    }
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    Ok(Stats {
        n_items: gallery.len(),
        width: gallery.width(),
        numbers: gallery.numbers(),
        model: maker.model,
        fingerprint: maker.fingerprint,
        precision: maker.precision,
        generation: gallery.generation(),
        n_segments: gallery.n_segments(),
        n_bytes: folder_bytes(folder)?,
        columns: owned(gallery.columns()),
        attachments: owned(gallery.attachments()),
        calibration: gallery.calibration().cloned(),
        recall_at_10: recall.map(|[recall, _]| recall),
        recall_at_10_filtered: recall.map(|[_, filtered]| filtered),
        counts,
        has_damaged_copy: gallery.has_damaged_copy(),
    })
}

/// Counts the values of a column, the most frequent first.
fn count(gallery: &Gallery, column: &str) -> anyhow::Result<Vec<(String, usize)>> {
    let mut counts: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    for row in gallery.rows() {
        let value = gallery.value(row, column)?;
        if !value.is_empty() {
            *counts.entry(value).or_default() += 1;
        }
    }
    let counts = counts.into_iter().map(|(value, n)| (value.to_owned(), n));
    let mut counts: Vec<(String, usize)> = counts.collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    Ok(counts)
}
