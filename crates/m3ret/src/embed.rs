//! Embeds every image of a file, folder or manifest as a unit vector.

pub(super) mod ahead;
pub mod array_task;
mod arrays;
pub(super) mod items;
mod memory;
pub(super) mod rows;
mod shards;
pub mod summary;
mod table;
pub(super) mod work;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use m3ret_encoder::{Model, Precision};
use m3ret_imaging::{Code, Identifiers, ReadOptions};
use m3ret_manifest::{Table, text_of};
use serde::{Deserialize, Serialize};

use crate::files::{Force, Inputs, Output, Replaces, listed_in, way_between, write_beside};
use crate::model_name;
use crate::options::{FolderChoice, ModelChoice, Reading};
use crate::vectors;
use crate::watch::Watch;
use crate::words::counted;
use array_task::ArrayTask;
use items::{Item, Listing, list_part};
pub use memory::{EmbeddedImage, embed_sources};
pub(super) use shards::is_own as is_own_work_folder;
use shards::{EarlierWork, KeptRows, Place, Settings, ShardOptions, Shards};
use summary::{EmbedReport, EmbedRow, EmbedSummary, refused_reports};
use work::{Tools, embed_all};

/// What is embedded, with which model, and where the vectors go.
#[derive(Debug, Clone)]
pub struct EmbedOptions {
    /// A file, a folder, or a manifest.
    pub source: PathBuf,
    /// The array or table that is written; finished work is kept in a folder beside it whose name ends in `.part`.
    pub out: OutputFile,
    /// The model that embeds the images.
    pub model: ModelChoice,
    /// Time between saves: what a run that is killed may lose.
    pub save_every: Duration,
    /// Whether the work of an earlier run is removed instead of used.
    pub is_restart: bool,
    /// Whether files that `m3ret embed` did not write may be replaced.
    pub is_forced: bool,
    /// How images are read.
    pub reading: Reading,
    /// Which files of a folder are read, and what labels their images.
    pub folder: FolderChoice,
    /// Which part of the source is embedded; `None` for all of it. A part is written even without a vector.
    pub task: Option<ArrayTask>,
}

/// A file of vectors whose layout follows from its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// The file.
    pub path: PathBuf,
    /// How it is written.
    pub layout: VectorLayout,
}

/// How vectors are written to disk, as docs/embeddings.md defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorLayout {
    /// One array `[rows, width]` of numpy, with a list of rows beside it.
    Npy,
    /// One tensor `embeddings`, `[rows, width]`, with a list of rows beside it.
    Safetensors,
    /// A table with the columns of the manifest, `refused` and `embedding`.
    Parquet,
}

impl OutputFile {
    /// Chooses the layout by the extension of the name.
    ///
    /// # Errors
    /// If the name ends in none of `.npy`, `.safetensors`, `.parquet` and `.pq`.
    pub fn new(path: PathBuf) -> Result<Self, String> {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        let layout = match extension.to_str() {
            Some("npy") => VectorLayout::Npy,
            Some("safetensors") => VectorLayout::Safetensors,
            Some("parquet" | "pq") => VectorLayout::Parquet,
            _ => return Err("a name that ends in .npy, .safetensors or .parquet is wanted".into()),
        };
        Ok(Self { path, layout })
    }
}

/// Returns the way from the folder of a table to the folder that paths of the source are relative to: that of a
/// manifest, or the current one. Through it, the table is a manifest whose paths lead to the same files.
fn way_to(out: &Path, source: &Path, listing: &Listing) -> anyhow::Result<PathBuf> {
    let begin = match listing.table {
        Some(_) if !source.is_dir() => source.canonicalize(),
        _ => std::env::current_dir().map(|folder| folder.join("file")),
    };
    let way = begin.and_then(|begin| way_between(out, &begin));
    way.with_context(|| format!("writing {}", out.display()))
}

/// Where results go.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    out: PathBuf,
    /// Which row is which object.
    rows: PathBuf,
    /// What is done so far.
    work: PathBuf,
}

/// What a reader states about an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Which image of the path this is; `None` if the path holds one image.
    pub part: Option<String>,
    /// Modality as the file states it, e.g. `CT`.
    pub modality: Option<String>,
    /// DICOM `BodyPartExamined`, e.g. `CHEST`.
    pub body_part: Option<String>,
    /// `2d`, `3d` or `video`; `None` if the image was not read.
    pub dims: Option<String>,
    /// What only galleries store; nothing of it is written to shards.
    #[serde(skip)]
    pub(crate) traits: Traits,
}

/// Further unit vectors of an image, each with the name of its view.
pub(crate) type Views = Vec<(String, Vec<f32>)>;

/// What identifies an image beside its vector.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Traits {
    /// Patient, study and series in the file's header.
    pub identifiers: Identifiers,
    /// What its values suggest of its modality, where the file states none.
    pub modality_guess: Option<&'static str>,
    /// Hash of shape and values; 0 if the image was not read.
    pub pixels: u128,
    /// Digest of the files that the image was read from; `None` unless a gallery is updated.
    pub content: Option<u128>,
    /// A small picture as PNG; empty unless one was requested.
    pub thumbnail: Vec<u8>,
    /// Further unit vectors of the image by the name of its view (`imaging::FLAT_VIEWS`); empty unless they were
    /// requested.
    pub views: Views,
}

/// Why an image has no vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

/// One image: where its vector lies, or why there is none.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    facts: Facts,
    place: Result<Place, Refusal>,
}

/// An image in the results.
#[derive(Debug, Clone, Copy)]
struct PlacedRow<'a> {
    item_idx: usize,
    path: &'a str,
    row: &'a Row,
}

/// All that the results hold, but the vectors.
#[derive(Debug)]
struct EmbedResult<'a> {
    /// One for each vector, and for each row of a manifest.
    rows: Vec<PlacedRow<'a>>,
    /// Refused images that have no row.
    without_row: Vec<PlacedRow<'a>>,
    /// What is stated of the items.
    table: Option<&'a Table>,
    /// Whether the source is a folder, of which images have more columns than a table states.
    is_folder: bool,
    width: usize,
    model: &'a Model,
    /// From the folder of a table to where its paths begin.
    way: PathBuf,
}

impl<'a> EmbedResult<'a> {
    /// Puts the rows of all items into the order of the results.
    fn new(listing: &'a Listing, rows: &'a [Vec<Row>], model: &'a Model) -> Self {
        let items = listing.items.iter().zip(rows).enumerate();
        let placed = items.flat_map(|(item_idx, (item, rows))| {
            rows.iter().map(move |row| PlacedRow {
                item_idx,
                path: &item.path,
                row,
            })
        });
        let is_row = |idx: usize| listing.items.get(idx).is_some_and(Item::is_row);
        let has_row = |placed: &PlacedRow<'_>| is_row(placed.item_idx) || placed.row.place.is_ok();
        let (rows, without_row) = placed.partition(has_row);
        Self {
            rows,
            without_row,
            table: listing.table.as_ref(),
            is_folder: false,
            width: model.width(),
            model,
            way: PathBuf::new(),
        }
    }

    fn n_embedded(&self) -> usize {
        let rows = self.rows.iter();
        rows.filter(|placed| placed.row.place.is_ok()).count()
    }

    /// Iterates over refused images, those without a row last.
    fn refused(&self) -> impl Iterator<Item = (&PlacedRow<'a>, &Refusal)> {
        let all = self.rows.iter().chain(&self.without_row);
        all.filter_map(|placed| Some((placed, placed.row.place.as_ref().err()?)))
    }

    /// Says what made the vectors, for formats that can hold it.
    fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![
            ("model", self.model.name().to_owned()),
            ("fingerprint", self.model.fingerprint().to_owned()),
            (
                "precision",
                precision_name(self.model.precision()).to_owned(),
            ),
        ]
    }
}

impl Refusal {
    fn internal(message: String) -> Self {
        let code = Code::InternalError;
        Self { code, message }
    }

    /// Says why a source cannot be listed.
    fn of_listing(error: &anyhow::Error) -> Self {
        let imaging = error.chain().find_map(|cause| cause.downcast_ref());
        let code = imaging.map_or(Code::Io, |cause: &m3ret_imaging::Error| cause.code());
        Self {
            code,
            message: format!("{error:#}"),
        }
    }

    /// Says why a model cannot take an image.
    fn by_model(error: &m3ret_encoder::Error) -> Self {
        use m3ret_encoder::Error;
        let code = match error {
            Error::Io { .. } => Code::Io,
            Error::Malformed { .. } => Code::Malformed,
            Error::Unsupported { .. } => Code::Unsupported,
            Error::LimitExceeded { .. } => Code::LimitExceeded,
            Error::Mismatch { .. } => Code::Mismatch,
            Error::Imaging(error) => error.code(),
        };
        Self {
            code,
            message: error.to_string(),
        }
    }
}

impl Outputs {
    /// `F`, `F.rows.csv` and `F.part`.
    fn of(out: &Path) -> Self {
        let with = |end: &str| {
            let mut name = OsString::from(out.file_name().unwrap_or_default());
            name.push(end);
            out.with_file_name(name)
        };
        Self {
            out: out.to_owned(),
            rows: with(".rows.csv"),
            work: with(".part"),
        }
    }
}

/// Embeds what is not yet in the work folder, then writes the results from there and removes the folder.
///
/// Hands what became of each image to `sink`, in the order of the objects, including those of an earlier run. If no
/// image could be embedded, no file is written, unless the source is embedded by parts.
///
/// # Errors
/// If the source, the model, the work folder or the results cannot be opened or written; if the work folder holds
/// work of another model or other settings; errors of `sink`; `Stopped` if the watcher stopped the work.
pub fn embed(
    options: &EmbedOptions,
    watch: &dyn Watch,
    sink: impl FnMut(&EmbedRow<'_>) -> io::Result<()>,
) -> crate::Result<EmbedReport> {
    // Paths are cheaper to refuse than a model is to read.
    check_paths(options, &Outputs::of(&options.out.path))?;
    let model = model_name::open(&options.model, watch)?;
    embed_with(options, &model, watch, sink)
}

/// Embeds with a model that is open, to paths that are checked.
fn embed_with(
    options: &EmbedOptions,
    model: &Model,
    watch: &dyn Watch,
    sink: impl FnMut(&EmbedRow<'_>) -> io::Result<()>,
) -> crate::Result<EmbedReport> {
    let read_options = &options.reading.options;
    let outputs = Outputs::of(&options.out.path);
    let chosen = (&options.folder, options.task);
    let listing = list_part(&options.source, &outputs, read_options, chosen)?;
    if let Some(whole) = &listing.whole {
        array_task::check_whole(&outputs.out, whole)?;
    }
    listing.notes.iter().for_each(|note| watch.note(note));
    let settings = settings_of(model, read_options);
    let opening = ShardOptions {
        save_every: options.save_every,
        is_restart: options.is_restart,
    };
    let (mut shards, kept, earlier) = Shards::open(&outputs.work, &settings, opening)?;
    let n_new = note_earlier_work(&listing.items, &kept, &earlier, &outputs.work, watch);
    watch.count(n_new);
    let start = Instant::now();
    let tools = Tools {
        model,
        options: read_options,
        n_readers: options.reading.n_readers,
        farewell: &farewell(&outputs.work),
        watch,
    };
    let mut rows = RowSink::new(&listing, watch, sink);
    embed_all(
        &listing.items,
        &kept,
        &tools,
        &mut shards,
        |images, is_new| rows.add(images, is_new),
    )?;
    let seconds = start.elapsed().as_secs_f64();
    watch.step(", writing");
    let mut result = EmbedResult::new(&listing, &rows.rows, model);
    result.is_folder = options.source.is_dir();
    if options.out.layout == VectorLayout::Parquet {
        result.way = way_to(&outputs.out, &options.source, &listing)?;
    }
    let files = match result.n_embedded() == 0 && options.task.is_none() {
        true => ResultFiles::default(),
        false => write_results(&options.out, &outputs, &result, &mut shards)?,
    };
    shards.remove()?;
    let summary = EmbedSummary {
        seconds,
        items_per_second: per_second(n_new, seconds),
        n_kept: listing.items.len() - n_new,
        n_not_images: listing.n_foreign,
        ..EmbedSummary::new(&result, &settings, files)
    };
    Ok(EmbedReport {
        summary,
        refused: refused_reports(&result),
        whole: listing.whole.clone(),
    })
}

/// Collects the rows of all items, and hands over each image as soon as it comes.
struct RowSink<'a, S> {
    listing: &'a Listing,
    watch: &'a dyn Watch,
    sink: S,
    /// The rows of every item, in order.
    rows: Vec<Vec<Row>>,
    /// Number of rows of the results so far.
    n_numbered: usize,
    n_refused: usize,
}

impl<'a, S: FnMut(&EmbedRow<'_>) -> io::Result<()>> RowSink<'a, S> {
    fn new(listing: &'a Listing, watch: &'a dyn Watch, sink: S) -> Self {
        Self {
            listing,
            watch,
            sink,
            rows: Vec::with_capacity(listing.items.len()),
            n_numbered: 0,
            n_refused: 0,
        }
    }

    /// Adds the rows of the next item.
    fn add(&mut self, rows: Vec<Row>, is_new: bool) -> anyhow::Result<()> {
        let item_idx = self.rows.len();
        let item = self.listing.items.get(item_idx);
        let path = item.map_or("", |item| &item.path);
        for row in &rows {
            let is_refused = row.place.is_err();
            // A row of a manifest has its place in the results, with a vector or without.
            let has_row = !is_refused || item.is_some_and(Item::is_row);
            let number = has_row.then_some(self.n_numbered);
            self.n_numbered += usize::from(has_row);
            self.n_refused += usize::from(is_refused);
            (self.sink)(&EmbedRow::new(number, path, row))?;
        }
        if is_new {
            self.watch.advance(self.n_refused);
        }
        self.rows.push(rows);
        Ok(())
    }
}

/// Says where the work of an interrupted run is saved.
fn farewell(work: &Path) -> String {
    format!(
        "interrupted; what is done is in {}, and the same command resumes it",
        work.display()
    )
}

fn settings_of(model: &Model, options: &ReadOptions) -> Settings {
    Settings {
        format: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fingerprint: model.fingerprint().to_owned(),
        precision: precision_name(model.precision()).to_owned(),
        width: model.width(),
        reading: format!("{options:?}"),
    }
}

/// Checks the paths before the model is read.
fn check_paths(options: &EmbedOptions, outputs: &Outputs) -> anyhow::Result<()> {
    let source = &options.source;
    std::fs::metadata(source).with_context(|| format!("opening {}", source.display()))?;
    let model = model_name::folder_of(&options.model);
    let mut named = vec![source.as_path()];
    named.extend(model.as_deref());
    let inputs = Inputs {
        named: &named,
        listed: &|| listed_in(&named),
    };
    let force = Force::of(options.is_forced);
    let array = Output {
        path: &outputs.out,
        replaces: Replaces::Own {
            what: "file of vectors",
            is_own: &|array| {
                vectors::is_of_embed(array) || shards::is_exchanged(&outputs.work, array)
            },
        },
        force,
    };
    array.check_file(&inputs)?;
    if options.out.layout != VectorLayout::Parquet {
        let list = Output {
            path: &outputs.rows,
            replaces: Replaces::Own {
                what: "list of vectors",
                is_own: &vectors::is_list_of_embed,
            },
            force,
        };
        list.check_file(&inputs)?;
    }
    Ok(())
}

/// Notes what an earlier run left, and returns how many items are left to embed.
fn note_earlier_work(
    items: &[Item],
    kept: &KeptRows,
    earlier: &EarlierWork,
    work: &Path,
    watch: &dyn Watch,
) -> usize {
    let n_new = items
        .iter()
        .filter(|item| !kept.contains_key(&item.key))
        .count();
    let work = work.display();
    match *earlier {
        EarlierWork::Nothing => {}
        EarlierWork::Items { n_damaged } => {
            let (n_kept, n_all) = (items.len() - n_new, items.len());
            watch.note(&format!("going on: {n_kept} of {n_all} are done in {work}"));
            if n_damaged > 0 {
                watch.note(&format!(
                    "left out {} of {work}",
                    counted(n_damaged as u64, "damaged shard", "damaged shards")
                ));
            }
            let keys: HashSet<u128> = items.iter().map(|item| item.key).collect();
            let n_gone = kept.keys().filter(|key| !keys.contains(key)).count();
            if n_gone > 0 {
                watch.note(&format!(
                    "left out {} of {work} that {} embedded and changed or vanished since",
                    counted(n_gone as u64, "object", "objects"),
                    if n_gone == 1 { "was" } else { "were" }
                ));
            }
        }
        EarlierWork::Removed => watch.note(&format!("removed what was in {work}: starting again")),
    }
    n_new
}

/// The files of the results.
#[derive(Debug, Default)]
struct ResultFiles {
    out: Option<String>,
    rows: Option<String>,
}

/// Writes the results.
fn write_results(
    out: &OutputFile,
    outputs: &Outputs,
    result: &EmbedResult<'_>,
    shards: &mut Shards,
) -> anyhow::Result<ResultFiles> {
    let name = |path: &Path| Some(text_of(path));
    let vectors = result.rows.iter().map(|placed| {
        let place = placed.row.place.as_ref().ok();
        place.map(|&place| shards.vector(place)).transpose()
    });
    let array = write_beside(&outputs.out, |file| match out.layout {
        VectorLayout::Npy => arrays::write_npy(file, result, vectors),
        VectorLayout::Safetensors => arrays::write_safetensors(file, result, vectors),
        VectorLayout::Parquet => table::write_parquet(file, result, vectors),
    })?;
    if out.layout == VectorLayout::Parquet {
        array.put()?;
        return Ok(ResultFiles {
            out: name(&outputs.out),
            rows: None,
        });
    }
    let rows = write_beside(&outputs.rows, |file| table::write_rows(file, result))?;
    shards.note_exchange([&outputs.out, array.place()])?;
    // The old list is removed first, so that no list ever lies beside an array that it does not describe.
    remove_if_there(&outputs.rows)?;
    array.put()?;
    rows.put()?;
    Ok(ResultFiles {
        out: name(&outputs.out),
        rows: name(&outputs.rows),
    })
}

pub(super) fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Returns the name of a precision, as results and galleries have it.
pub fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
        Precision::Int8 => "int8",
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn per_second(n: usize, seconds: f64) -> f64 {
    n as f64 / seconds.max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_result_says_how_it_is_written() {
        let layout = |name: &str| OutputFile::new(name.into()).map(|out| out.layout).ok();
        assert_eq!(layout("a/b.NPY"), Some(VectorLayout::Npy));
        assert_eq!(layout("b.safetensors"), Some(VectorLayout::Safetensors));
        assert_eq!(layout("b.pq"), Some(VectorLayout::Parquet));
        for wrong in ["", "npy", "b.csv", "b.npy.gz", ".npy"] {
            assert_eq!(layout(wrong), None, "{wrong}");
        }
    }
}
