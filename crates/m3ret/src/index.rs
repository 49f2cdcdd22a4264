//! Galleries that are made, added to and described on request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use m3ret_imaging::Limits;
use m3ret_manifest::columns::ID;
use m3ret_manifest::columns::{BODY_PART, DIMS, MODALITY, SOURCE};
use m3ret_manifest::{Manifest, Table, text_of};
use m3ret_search::{Batch, Calibration, Gallery, Maker, Numbers, Setup, Writer};
use serde::Serialize;

use super::galleries::columns::{self, own_names};
pub use super::galleries::refused_text;
use super::galleries::{self, Gone, Updated, Wanted, update};
use super::vectors::{self, VectorFile, Vectors};
use crate::model_name;
use crate::options::{ModelChoice, Reading};
use crate::watch::Watch;

/// What goes into a gallery, and how.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The folder of the gallery.
    pub gallery: PathBuf,
    /// A folder, file or manifest.
    pub source: PathBuf,
    /// Vectors of the manifest's rows that were made elsewhere.
    pub vectors: Option<GivenVectors>,
    /// How vectors of a new gallery are stored.
    pub numbers: Numbers,
    /// A small picture of each image is kept.
    pub has_thumbnails: bool,
    pub model: ModelChoice,
    pub reading: Reading,
}

/// Vectors that were made elsewhere.
#[derive(Debug, Clone)]
pub struct GivenVectors {
    /// `.npy`, `.safetensors` or `.parquet`, [n, width].
    pub path: PathBuf,
    /// What made them, where the file does not say.
    pub encoder: Option<String>,
    /// They are given unit length.
    pub normalizes: bool,
    /// Rows of NaN are left out.
    pub skips_nan: bool,
}

/// How images are added to a gallery that is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct AddOptions {
    /// An image takes the place of another one with its id.
    pub replaces: bool,
    /// Images whose files are gone are dropped afterwards.
    pub prunes: bool,
}

/// What was added, and how many images there are now.
#[derive(Debug)]
pub struct Addition {
    pub n_items: usize,
    pub updated: Updated,
    pub gone: Gone,
}

/// Makes a gallery.
///
/// # Errors
/// If there is one with images already, or what it is made of cannot be opened.
pub fn build(options: &BuildOptions, watch: &dyn Watch) -> anyhow::Result<Addition> {
    let name = options.gallery.display();
    let exists = std::fs::symlink_metadata(&options.gallery).is_ok();
    let has_images = Gallery::open(&options.gallery).is_ok_and(|gallery| !gallery.is_empty());
    ensure!(
        !(exists && has_images),
        "{name} is there already; `m3ret index add` adds what is new, or give another name"
    );
    let updated = match &options.vectors {
        Some(vectors) => add_vectors(options, vectors, AddOptions::default(), watch)?,
        None => {
            let model = model_name::open(&options.model, watch)?;
            let wanted = wanted(options, AddOptions::default());
            update(&wanted, &model, watch)?
        }
    };
    finished(options, AddOptions::default(), updated)
}

/// Adds what is new to a gallery.
///
/// # Errors
/// If there is no gallery, another model made it, or what is added cannot be opened.
pub fn add(
    options: &BuildOptions,
    adding: AddOptions,
    watch: &dyn Watch,
) -> anyhow::Result<Addition> {
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
    finished(options, adding, updated)
}

fn wanted(options: &BuildOptions, adding: AddOptions) -> Wanted<'_> {
    Wanted {
        source: &options.source,
        gallery: &options.gallery,
        reading: &options.reading,
        is_mirror: false,
        replaces: adding.replaces,
        has_thumbnails: options.has_thumbnails,
        numbers: options.numbers,
    }
}

/// Drops what is gone, if that was asked for.
fn finished(
    options: &BuildOptions,
    adding: AddOptions,
    updated: Updated,
) -> anyhow::Result<Addition> {
    let gone = if adding.prunes {
        let is_left = |folder: &str| updated.left_folders.contains(folder);
        galleries::prune(&options.gallery, is_left)?
    } else {
        Gone::default()
    };
    Ok(Addition {
        n_items: Gallery::open(&options.gallery)?.len(),
        updated,
        gone,
    })
}

/// Adds the rows of a manifest with vectors from elsewhere.
fn add_vectors(
    options: &BuildOptions,
    given: &GivenVectors,
    adding: AddOptions,
    watch: &dyn Watch,
) -> anyhow::Result<Updated> {
    let source = &options.source;
    let doing = || format!("opening {}", source.display());
    let table = Manifest::open(source, &Limits::default()).and_then(Manifest::load);
    let table = table.with_context(doing)?;
    let file = vectors::read(&given.path)?;
    let maker = maker_of(options, given, &file, watch)?;
    let (mut vectors, join) = file.rows_of(&given.path, &table)?;
    let width = vectors.width;
    watch.note(&join.told(&given.path));
    let mut writer = writer_for(options, maker, width)?;
    galleries::tell_notes(&table, watch);
    let kept = kept_rows(given, &mut vectors)?;
    let root = source.canonicalize().with_context(doing)?;
    let root = text_of(root.parent().unwrap_or(Path::new("/")));
    let (ids, cells) = rows_of(&table, &kept, &root, writer.gallery());
    watch.step("writing");
    let mut replaced = Vec::new();
    if adding.replaces {
        for id in &ids {
            if writer.gallery().find(id)?.is_some() {
                replaced.push(id.clone());
            }
        }
    }
    let batch = Batch {
        vectors: &vectors.values,
        ids: &ids,
        columns: &cells,
        attachments: &[],
    };
    let added = writer.replace(batch, &replaced);
    added.with_context(|| match table.column(ID) {
        None => "the manifest has no column id, so that paths are ids".to_owned(),
        Some(_) => doing(),
    })?;
    if writer.is_calibration_old() {
        watch.step("measuring how to search");
        writer.compact()?;
    }
    Ok(Updated {
        n_new: ids.len(),
        n_removed: replaced.len(),
        ..Updated::default()
    })
}

/// What vectors were made by where nobody says so.
const UNNAMED: &str = "external";

/// Returns what made the vectors: what the file says, or the name that a person gives. Nothing tells two encoders
/// of one width apart but their names, so vectors are added only under a name.
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
        (None, Some(gallery)) => bail!(
            "--encoder is missing: say what made these vectors; those of the gallery were made by {}",
            gallery.maker().model
        ),
        (None, None) => {
            watch.note(
                "--encoder is not given: whether later vectors are of the same encoder cannot be checked",
            );
            UNNAMED.to_owned()
        }
    };
    Ok(Maker {
        fingerprint: format!("external:{encoder}:{}", file.vectors.width),
        model: encoder,
        precision: "unknown".to_owned(),
    })
}

/// Opens the gallery that vectors of a maker go into, or makes it.
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

/// Gives vectors unit length and drops rows of NaN, where that was asked for; returns what is left.
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

type Cells = Vec<(String, Vec<String>)>;

/// Returns ids and cells of some rows of a manifest.
fn rows_of(table: &Table, kept: &[usize], root: &str, gallery: &Gallery) -> (Vec<String>, Cells) {
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

/// Writes what a manifest says now into the rows of its images, and embeds nothing.
///
/// # Errors
/// If the manifest or the gallery cannot be opened.
pub fn relabel(
    gallery: &Path,
    manifest: &Path,
    watch: &dyn Watch,
) -> anyhow::Result<galleries::Moved> {
    let table = Manifest::open(manifest, &Limits::default()).and_then(Manifest::load);
    let table = table.with_context(|| format!("opening {}", manifest.display()))?;
    galleries::tell_notes(&table, watch);
    watch.step("writing");
    galleries::relabel(gallery, &table)
}

/// Removes images by id, and returns how many are left.
///
/// # Errors
/// If there is no image with one of the ids; nothing is removed then.
pub fn remove(folder: &Path, ids: &[String]) -> anyhow::Result<usize> {
    let mut writer = Writer::open(folder)?;
    for id in ids {
        ensure!(
            writer.gallery().find(id)?.is_some(),
            "no image of the gallery has the id {id}; nothing was removed"
        );
    }
    writer.remove(ids)?;
    Ok(writer.gallery().len())
}

/// Bytes of a gallery before and after it was written again.
#[derive(Debug, Clone, Copy)]
pub struct Compaction {
    pub n_items: usize,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// Writes a gallery again without what was removed, and measures how to search it.
///
/// # Errors
/// `Locked`, `Damaged`, `Io`.
pub fn compact(folder: &Path, watch: &dyn Watch) -> anyhow::Result<Compaction> {
    watch.step("writing the gallery anew");
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

/// What a person or a program wants to know of a gallery.
#[derive(Debug, Serialize)]
pub struct Stats {
    pub n_items: usize,
    pub width: usize,
    pub numbers: Numbers,
    pub model: String,
    pub fingerprint: String,
    pub precision: String,
    pub generation: u64,
    pub n_segments: usize,
    pub n_bytes: u64,
    pub columns: Vec<String>,
    pub attachments: Vec<String>,
    pub calibration: Option<Calibration>,
    /// Measured now, on images of the gallery.
    pub recall_at_10: Option<f64>,
    pub recall_at_10_filtered: Option<f64>,
    /// How often each value comes, the most frequent first.
    pub counts: BTreeMap<&'static str, Vec<(String, usize)>>,
    pub has_damaged_copy: bool,
}

/// Describes a gallery, and measures how good its quick search is against the exact one.
///
/// # Errors
/// If it cannot be opened or is damaged.
pub fn stats(folder: &Path) -> anyhow::Result<Stats> {
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
