//! `m3ret embed`: every object of a file, folder or manifest as a unit vector.

pub(super) mod ahead;
mod arrays;
pub(super) mod items;
pub(super) mod rows;
mod shards;
mod table;
mod told;
pub(super) mod work;

use m3ret_manifest::text_of;
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use m3ret_encoder::{Model, Precision};
use m3ret_imaging::{Code, Identifiers, ReadOptions};
use m3ret_manifest::Table;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::cli::{EmbedArguments, Layout, OutputFile};
use crate::model_name;
use crate::output::{Screen, refuse_irregular, way_between, write_beside};
use crate::progress::Progress;
use crate::watch::Watch;
use items::{Item, Listing, list};
use shards::{Found, Kept, Opening, Place, Settings, Shards};
use told::{Summary, Teller, refused_reports};
use work::{Tools, embed_all};

/// Returns the way from the folder of a table to where paths of the source begin: the folder of a manifest, or
/// the current one. The table is a manifest again, and its paths lead to the same files.
fn way_to(out: &Path, source: &Path, listing: &Listing) -> anyhow::Result<PathBuf> {
    let begin = match listing.manifest {
        Some(_) => source.canonicalize(),
        None => std::env::current_dir().map(|folder| folder.join("file")),
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

/// What a reader knows of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Which image of the path, where it holds several.
    pub(super) part: Option<String>,
    pub(super) modality: Option<String>,
    pub(super) body_part: Option<String>,
    /// 2d, 3d or video.
    pub(super) dims: Option<String>,
    /// What only galleries keep: nothing of it is written to shards.
    #[serde(skip)]
    pub(super) traits: Traits,
}

/// What tells one image from another, beside its vector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Traits {
    pub(super) identifiers: Identifiers,
    /// Hash of all values.
    pub(super) pixels: u128,
    /// Digest of the files that it was read from, where one was asked for.
    pub(super) content: Option<u128>,
    /// A PNG for people, where one is wanted.
    pub(super) thumbnail: Vec<u8>,
}

/// Why an image has no vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

/// One image: where its vector lies, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    facts: Facts,
    place: Result<Place, Refusal>,
}

/// An image in the results.
#[derive(Debug, Clone, Copy)]
struct Placed<'a> {
    item_idx: usize,
    path: &'a str,
    row: &'a Row,
}

/// Everything that the results tell, but the vectors.
#[derive(Debug)]
struct Made<'a> {
    /// One for each vector; of a manifest, one for each of its rows.
    rows: Vec<Placed<'a>>,
    /// Refused images that have no row.
    without_row: Vec<Placed<'a>>,
    manifest: Option<&'a Table>,
    width: usize,
    model: &'a Model,
    /// From the folder of a table to where its paths begin.
    way: PathBuf,
}

impl<'a> Made<'a> {
    /// Puts the rows of all items into the order of the results.
    fn new(listing: &'a Listing, rows: &'a [Vec<Row>], model: &'a Model) -> Self {
        let items = listing.items.iter().zip(rows).enumerate();
        let placed = items.flat_map(|(item_idx, (item, rows))| {
            rows.iter().map(move |row| Placed {
                item_idx,
                path: &item.path,
                row,
            })
        });
        let has_row = |placed: &Placed<'_>| listing.manifest.is_some() || placed.row.place.is_ok();
        let (rows, without_row) = placed.partition(has_row);
        Self {
            rows,
            without_row,
            manifest: listing.manifest.as_ref(),
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
    fn refused(&self) -> impl Iterator<Item = (&Placed<'a>, &Refusal)> {
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

/// Embeds what is not yet in the work folder, then writes the results from there.
pub(crate) fn run(arguments: &EmbedArguments, screen: Screen) -> anyhow::Result<Outcome> {
    arguments.reading.start_threads()?;
    let options = arguments.reading.options();
    let outputs = Outputs::of(&arguments.out.path);
    check_paths(&arguments.source, &arguments.out, &outputs)?;
    let progress = Progress::start(screen);
    let model = model_name::open(&arguments.model.choice(), &progress)?;
    let listing = list(&arguments.source, &outputs, &options)?;
    let settings = settings_of(&model, &options);
    let opening = Opening {
        save_every: Duration::from_secs(arguments.save_every),
        is_restart: arguments.restart,
    };
    let (mut shards, kept, found) = Shards::open(&outputs.work, &settings, opening)?;
    let n_new = tell_found(&listing.items, &kept, &found, (&outputs, &progress));
    progress.count(n_new);
    let start = Instant::now();
    let mut teller = Teller::new(arguments.json, &listing, &progress);
    let tools = Tools {
        model: &model,
        options: &options,
        n_readers: arguments.reading.n_jobs(),
        farewell: &format!(
            "interrupted; what is done is in {}, and the same command goes on from there",
            outputs.work.display()
        ),
        watch: &progress,
    };
    embed_all(
        &listing.items,
        &kept,
        &tools,
        &mut shards,
        |rows, is_new| teller.tell(rows, is_new),
    )?;
    let seconds = start.elapsed().as_secs_f64();
    progress.step(", writing");
    let mut made = Made::new(&listing, teller.rows(), &model);
    if arguments.out.layout == Layout::Parquet {
        made.way = way_to(&outputs.out, &arguments.source, &listing)?;
    }
    let written = write_results(&arguments.out, &outputs, &made, &mut shards)?;
    shards.remove()?;
    progress.clear();
    let summary = Summary {
        seconds,
        items_per_second: per_second(n_new, seconds),
        n_kept: listing.items.len() - n_new,
        n_not_images: listing.n_foreign,
        ..Summary::new(&made, &settings, written)
    };
    let refused = refused_reports(&made);
    teller.end(&summary, &refused, screen)?;
    Ok(if summary.n_refused > 0 || summary.n_embedded == 0 {
        Outcome::SomeRefused
    } else {
        Outcome::AllGood
    })
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

/// Fails before the model is read, where it can be known.
fn check_paths(source: &Path, out: &OutputFile, outputs: &Outputs) -> anyhow::Result<()> {
    std::fs::metadata(source).with_context(|| format!("opening {}", source.display()))?;
    let folder = outputs.out.parent().unwrap_or(Path::new(""));
    if folder != Path::new("") && !folder.is_dir() {
        anyhow::bail!("no such folder: {}; make it first", folder.display());
    }
    let rows = (out.layout != Layout::Parquet).then_some(&outputs.rows);
    for path in [&outputs.out].into_iter().chain(rows) {
        refuse_irregular(path).context("give the result another name")?;
    }
    Ok(())
}

/// Says what an earlier run left, and returns how many items there are to embed.
fn tell_found(
    items: &[Item],
    kept: &Kept,
    found: &Found,
    (outputs, progress): (&Outputs, &dyn Watch),
) -> usize {
    let n_new = items
        .iter()
        .filter(|item| !kept.contains_key(&item.key))
        .count();
    let work = outputs.work.display();
    match *found {
        Found::Nothing => {}
        Found::Items { n_damaged } => {
            let (n_kept, n_all) = (items.len() - n_new, items.len());
            progress.note(&format!("going on: {n_kept} of {n_all} are done in {work}"));
            if n_damaged > 0 {
                progress.note(&format!(
                    "{n_damaged} damaged shards in {work} are left out"
                ));
            }
            let keys: HashSet<u128> = items.iter().map(|item| item.key).collect();
            let n_gone = kept.keys().filter(|key| !keys.contains(key)).count();
            if n_gone > 0 {
                progress.note(&format!(
                    "{n_gone} objects in {work} have changed or are gone; their vectors are left out"
                ));
            }
        }
        Found::Removed => progress.note(&format!("removed what was in {work}: starting anew")),
    }
    n_new
}

/// The files of the results.
#[derive(Debug, Default)]
struct Written {
    out: Option<String>,
    rows: Option<String>,
}

/// Writes the results; without any vector there is nothing to write.
fn write_results(
    out: &OutputFile,
    outputs: &Outputs,
    made: &Made<'_>,
    shards: &mut Shards,
) -> anyhow::Result<Written> {
    if made.n_embedded() == 0 {
        return Ok(Written::default());
    }
    let name = |path: &Path| Some(text_of(path));
    let vectors = made.rows.iter().map(|placed| {
        let place = placed.row.place.as_ref().ok();
        place.map(|&place| shards.vector(place)).transpose()
    });
    let array = write_beside(&outputs.out, |file| match out.layout {
        Layout::Npy => arrays::write_npy(file, made, vectors),
        Layout::Safetensors => arrays::write_safetensors(file, made, vectors),
        Layout::Parquet => table::write_parquet(file, made, vectors),
    })?;
    if out.layout == Layout::Parquet {
        array.put()?;
        return Ok(Written {
            out: name(&outputs.out),
            rows: None,
        });
    }
    let rows = write_beside(&outputs.rows, |file| table::write_rows(file, made))?;
    // Whatever happens in between, no list lies beside an array that it does not describe.
    remove_if_there(&outputs.rows)?;
    array.put()?;
    rows.put()?;
    Ok(Written {
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

pub(super) fn precision_name(precision: Precision) -> &'static str {
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
