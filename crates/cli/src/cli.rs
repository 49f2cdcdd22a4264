//! The command line, as clap sees it.

#![allow(
    clippy::doc_markdown,
    reason = "help is read on a terminal, where backticks are noise"
)]
pub(crate) mod config;
mod erase;
mod evaluate;
mod index;
#[cfg(feature = "lake")]
pub(crate) mod lake;
mod numbers;
mod serve;
mod shard;
mod simulate;
mod split;
#[cfg(feature = "training")]
mod study;
mod sync;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use m3ret_encoder::{Precision, RunOptions};
use m3ret_imaging::{Limits, ReadOptions};
use m3ret_manifest::columns::MODALITY;

use crate::screen::Detail;
pub(crate) use erase::EraseArguments;
pub(crate) use evaluate::{CompareArguments, EvaluateArguments};
pub(crate) use index::{
    AddArguments, BuildArguments, CachedArguments, ExportArguments, GalleryArguments, IndexAction,
    IndexArguments, MoveArguments, PruneArguments, RelabelArguments, RemoveArguments,
    VerifyArguments, ViewKind,
};
pub(crate) use m3ret::options::n_cores;
use m3ret::options::{
    ColumnValue, FilePattern, FilePatterns, FolderChoice, FolderLabels, ModelChoice, Reading,
};
use m3ret::panics;
use m3ret::search::{DEFAULT_HANDICAP, Recall};
use numbers::{cosine, count, handicap, recall, thread_count, whole};
pub(crate) use serve::{
    AuditAction, AuditArguments, AuditExportArguments, AuditVerifyArguments, Auth, DicomArguments,
    ServeArguments,
};
pub(crate) use shard::ShardChoice;
pub(crate) use simulate::{RadiographsArguments, SimulateAction, SimulateArguments};
pub(crate) use split::SplitArguments;
#[cfg(feature = "training")]
pub(crate) use study::{StudyAction, StudyArguments};
pub(crate) use sync::{IntakeArguments, Place, ReceiveArguments, SyncArguments};

#[cfg(feature = "weights")]
macro_rules! weights_line {
    () => {
        "\nmodel m3ret-tiny in it: CC BY-NC-SA 4.0, research use only"
    };
}
#[cfg(not(feature = "weights"))]
macro_rules! weights_line {
    () => {
        "\nno model in it"
    };
}

/// The version and the licences of what is in the program.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nprogram: MIT OR Apache-2.0",
    weights_line!()
);

/// Finds similar medical images, and reads, checks and embeds them. For research; not a medical device.
#[derive(Debug, Parser)]
#[command(name = "m3ret", version, long_version = VERSION, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print no progress and no notes: results and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Tell every step with the time since the start, and every ten seconds how far it is, in lines for a log
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
}

impl Cli {
    /// Returns how much is told beside results and errors.
    pub(crate) fn detail(&self) -> Detail {
        match (self.quiet, self.verbose) {
            (true, _) => Detail::Results,
            (false, true) => Detail::Steps,
            (false, false) => Detail::Notes,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Inspect(InspectArguments),
    Check(CheckArguments),
    Embed(EmbedArguments),
    #[cfg(feature = "training")]
    Pretrain(PretrainArguments),
    Search(SearchArguments),
    Index(IndexArguments),
    #[cfg(feature = "lake")]
    Lake(lake::LakeArguments),
    Erase(Box<EraseArguments>),
    Evaluate(Box<EvaluateArguments>),
    Compare(CompareArguments),
    #[cfg(feature = "training")]
    Study(StudyArguments),
    Dedup(DedupArguments),
    Map(MapArguments),
    Simulate(SimulateArguments),
    Split(SplitArguments),
    Serve(Box<ServeArguments>),
    Sync(Box<SyncArguments>),
    Receive(ReceiveArguments),
    Audit(AuditArguments),
    Completions(CompletionsArguments),
    Man(ManArguments),
}

/// Prints a script that completes m3ret's commands and options in a shell
#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Writes a manual page for each command, m3ret*.1, into a folder
#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// The folder; it must exist
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,

    /// Write even where files lie; they are lost
    #[arg(long)]
    pub(crate) force: bool,
}

/// Shows what a file or folder holds: geometry, modality, values, and what is unusual
///
/// Reads DICOM files, series and DICOMDIRs, NIfTI, MGH, NRRD, MetaImage, npy, PNG, JPEG, JPEG 2000,
/// TIFF, WebP, BMP, GIF, videos and zips of these; the type is told by content, never by name.
///
/// Exit status: 0 if every object was read, 1 if one was refused, 2 for wrong usage.
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// Files or folders; of a folder, every object in it
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// Print one JSON object a line for each image object
    #[arg(long)]
    pub(crate) json: bool,

    /// Write the values as a numpy array, f32 [C, D, H, W]
    ///
    /// Several objects are numbered in the order of the report: OUT.0.npy, OUT.1.npy, ...
    #[arg(long, value_name = "OUT.npy")]
    pub(crate) npy: Option<PathBuf>,

    /// Draw what a person would look at, as PNG: three planes of a volume, frames of a video
    ///
    /// Several objects are numbered as with --npy.
    #[arg(long, value_name = "OUT.png")]
    pub(crate) thumbnail: Option<PathBuf>,

    /// Write even where a file lies; it is lost
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

/// Reads every object of an archive: readable? geometry sane? duplicates?
///
/// Prints the objects that need a look, then totals. Files that hold no image format are counted,
/// and fail the check only where --strict says so.
///
/// With --json, one JSON object a line for each object, in the order of the paths, then a last
/// line {"summary": {...}} with the totals and the groups of objects whose pixels are the same.
///
/// Exit status: 0 if every object was read, 1 if one was refused, 2 for wrong usage.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The archive: a folder, a DICOMDIR or a file
    #[arg(value_name = "DIR")]
    pub(crate) root: PathBuf,

    /// Print JSON lines instead of text
    #[arg(long)]
    pub(crate) json: bool,

    /// Refuse files that hold no image format
    #[arg(long)]
    pub(crate) strict: bool,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

/// Turns every object into a unit vector, and writes them as one array or table
///
/// Objects that cannot be read are skipped, counted by reason and listed. Of a folder, rows come in
/// the order of the paths, one for each image. Of a manifest, there is one row for each of its rows,
/// in its order; the row of a refused object is NaN (null in Parquet). docs/embeddings.md describes
/// the formats.
///
/// What is done is kept in the folder F.part: after an interruption, the same command goes on where
/// it was. The folder is removed once F is complete.
///
/// With --shard, the images are dealt to many tasks, each of which leaves a table in one folder;
/// docs/scale.md shows how Slurm and Kubernetes run them.
///
/// Exit status: 0 if every object was embedded, 1 if one was refused, 2 for wrong usage. With
/// --shard: 0 if the part is written, whatever was refused. With --status: 1 if parts are missing.
#[derive(Debug, Args)]
pub(crate) struct EmbedArguments {
    /// A file, a folder, or a manifest: CSV or Parquet with a column path
    #[arg(value_name = "SRC", required_unless_present = "status")]
    pub(crate) source: Option<PathBuf>,

    /// Where to write: .npy (f32 [rows, width]), .safetensors or .parquet; a folder with --shard
    ///
    /// Beside .npy and .safetensors, F.rows.csv says which row is which object. Results of an
    /// earlier run are replaced once the new ones are complete.
    #[arg(short, long, value_name = "F", required_unless_present = "status")]
    pub(crate) out: Option<PathBuf>,

    /// Embed the I-th of N parts (from 0): images whose path has this hash
    ///
    /// Writes I-of-N.parquet and then I-of-N.done into the folder --out; a part that is done is not
    /// embedded again. `auto` takes I from SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, and N from
    /// M3RET_SHARDS.
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<ShardChoice>,

    /// Say which parts of the folder of --shard are done, and which are missing; embed nothing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["source", "out", "shard"])]
    pub(crate) status: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) folder: FolderArguments,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    /// Print JSON lines instead of text: one for each object, then {"summary": {...}}
    #[arg(long)]
    pub(crate) json: bool,

    /// Seconds between saves to F.part: what a run that is killed loses
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = whole)]
    pub(crate) save_every: u64,

    /// Remove what an earlier run left in F.part, instead of going on from there
    #[arg(long)]
    pub(crate) restart: bool,

    /// Write even where a file lies that m3ret embed did not write; it is lost
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

/// Trains the encoder on unlabelled images, with MAE, SimDINO or SALT
///
/// CONFIG is a TOML file; docs/pretraining.md explains every key, and configs/ has examples. The
/// run's folder (key out) then holds checkpoints, log.jsonl, event files for TensorBoard, report.html
/// and, at the end, the folder model, which `m3ret embed --model` takes.
///
/// Ctrl-C saves a checkpoint and ends the run; --resume goes on from the newest checkpoint, with the
/// losses that an uninterrupted run would have had.
///
/// Exit status: 0 if the run ended, 1 if it failed, 2 for wrong usage, 130 if it was interrupted.
#[cfg(feature = "training")]
#[derive(Debug, Args)]
pub(crate) struct PretrainArguments {
    /// The run's settings
    #[arg(value_name = "CONFIG.toml")]
    pub(crate) config: PathBuf,

    /// Change a setting, e.g. train.batch=32; may be given several times
    ///
    /// Paths in changes are relative to the current folder, those in the file to the file.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Go on with the run in its folder
    #[arg(long)]
    pub(crate) resume: bool,

    /// Print JSON lines instead of text: one for each step and each look at the validation part
    #[arg(long)]
    pub(crate) json: bool,

    /// Threads of the network on a CPU [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// Finds the most similar images of an archive
///
/// The archive is a folder, a manifest or a gallery that `m3ret index build` made. A folder or
/// manifest is embedded the first time and kept in the user's cache folder; later, only new and
/// changed files are.
///
/// Scores are cosines. "agreement" says how often searches like this one find the body part of their
/// query first, among other patients: measured on the archive's own images, else on images that were kept
/// apart for the model, with its 95 % interval; "unknown" where neither can tell.
///
/// Exit status: 0 if every query was answered, 1 if one was refused, 2 for wrong usage.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("queries").required(true).multiple(false))]
pub(crate) struct SearchArguments {
    /// What to look for: a file, a folder with a series, or the id of an image in the gallery
    ///
    /// May be given several times; of a folder, every image in it is a query.
    #[arg(short, long, value_name = "QUERY", group = "queries")]
    pub(crate) input: Vec<PathBuf>,

    /// Look for these vectors, as the gallery's model makes them: .npy, .safetensors or .parquet, [n, width]
    #[arg(long, value_name = "Q", group = "queries")]
    pub(crate) embeddings: Option<PathBuf>,

    /// What made the vectors of --embeddings, needed where the file does not say so, as .npy never does
    ///
    /// Refused if the gallery's vectors were made by another.
    #[arg(long, value_name = "NAME", requires = "embeddings")]
    pub(crate) encoder: Option<String>,

    /// Where to look: a folder, a manifest, or a gallery NAME.m3i
    #[arg(short = 'd', long, value_name = "DIR_OR_GALLERY")]
    pub(crate) archive: PathBuf,

    /// Most hits of a query
    #[arg(short, long, value_name = "N", default_value = "10", value_parser = count)]
    pub(crate) k: NonZeroUsize,

    /// Leave out the N best hits, to page through an answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) offset: usize,

    /// Only hits with at least this score, -1 to 1
    #[arg(long, value_name = "SCORE", value_parser = cosine, allow_negative_numbers = true)]
    pub(crate) min_score: Option<f32>,

    /// Only images with this value in a column, e.g. modality=CT, or without it: modality!=CT
    ///
    /// Several values of one column are alternatives; several columns must all fit.
    #[arg(long, value_name = "COLUMN=VALUE")]
    pub(crate) filter: Vec<ColumnValue>,

    /// Leave out images of the query's own patient, study or series, copies of it, or those with
    /// its value in a column
    #[arg(
        long,
        value_name = "same_patient|same_study|same_series|same_image|COLUMN"
    )]
    pub(crate) exclude: Vec<String>,

    /// Show only the best image of each value of a column, such as the one with patients
    #[arg(long, value_name = "COLUMN")]
    pub(crate) group_by: Option<String>,

    /// Say how often first hits have the query's value in this column [default: body_part]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) agree: Option<String>,

    /// Look at every vector instead of codes first
    #[arg(long)]
    pub(crate) exact: bool,

    /// Find this share of the exact hits: less is faster [default: 0.995, of a lake what it was measured for]
    #[arg(long, value_name = "SHARE", value_parser = recall, conflicts_with = "exact")]
    pub(crate) recall: Option<Recall>,

    /// Compare whole images only, and no projections of volumes
    #[arg(long, conflicts_with = "handicap")]
    pub(crate) whole: bool,

    /// What a score loses that is that of a projection
    #[arg(long, value_name = "SCORE", default_value_t = DEFAULT_HANDICAP, value_parser = handicap)]
    pub(crate) handicap: f32,

    /// Print one JSON object a line for each query
    #[arg(long)]
    pub(crate) json: bool,

    /// Write a report with pictures and why they match, as one file
    #[arg(long, value_name = "OUT.html")]
    pub(crate) html: Option<PathBuf>,

    /// Write even where a file lies that m3ret did not write; it is lost
    #[arg(long)]
    pub(crate) force: bool,

    /// Where folders and manifests are kept embedded [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,

    /// Give vectors of --embeddings unit length
    #[arg(long, requires = "embeddings")]
    pub(crate) normalize: bool,

    #[command(flatten)]
    pub(crate) folder: FolderArguments,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    #[command(flatten)]
    pub(crate) retry: RetryArguments,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

/// Finds images that an archive holds more than once: the same pixels, re-encoded, or nearly so
///
/// Each image is compared with the closest others; pairs are reported with a verdict each, and
/// never chained: that A is like B and B like C says nothing of A and C.
///
/// Exit status: 0 if the archive could be read, 1 if an image was refused, 2 for wrong usage.
#[derive(Debug, Args)]
pub(crate) struct DedupArguments {
    /// A folder, a manifest, or a gallery NAME.m3i
    #[arg(value_name = "DIR_OR_GALLERY")]
    pub(crate) archive: PathBuf,

    /// Report pairs from this score on as near duplicates
    #[arg(
        long,
        value_name = "COSINE",
        default_value_t = m3ret::split::NEAR,
        allow_negative_numbers = true,
        value_parser = cosine
    )]
    pub(crate) near: f32,

    /// Print one JSON object a line for each pair, then {"summary": {...}}
    #[arg(long)]
    pub(crate) json: bool,

    /// Where folders and manifests are kept embedded [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) folder: FolderArguments,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    #[command(flatten)]
    pub(crate) retry: RetryArguments,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

/// Draws an archive as a map on which similar images lie close together
///
/// Distances far apart mean little; neighbours do (t-SNE of the cosines to each image's closest
/// others). The map is one HTML file that needs no network.
#[derive(Debug, Args)]
pub(crate) struct MapArguments {
    /// A folder, a manifest, or a gallery NAME.m3i
    #[arg(value_name = "DIR_OR_GALLERY")]
    pub(crate) archive: PathBuf,

    /// Where to write the map
    #[arg(long, value_name = "OUT.html")]
    pub(crate) html: PathBuf,

    /// Write even where a file lies that m3ret did not write; it is lost
    #[arg(long)]
    pub(crate) force: bool,

    /// The column that colours the points
    #[arg(long, value_name = "COLUMN", default_value = MODALITY)]
    pub(crate) color: String,

    /// Where folders and manifests are kept embedded [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) folder: FolderArguments,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    #[command(flatten)]
    pub(crate) retry: RetryArguments,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

/// Which model, and how it is run.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// A model folder, or the name of one [default: m3ret-tiny; for dedup and split, pixels]
    ///
    /// A name is looked up as a folder, then in the folder that the environment variable
    /// M3RET_MODELS names, in weights/ of the current folder, beside the program, and in weights/
    /// beside it and up to two folders above. Built in are pixels (a thumbnail of 32 x 32: finds
    /// copies, knows no medicine), hog (gradients by orientation in 8 x 8 cells, nothing learnt),
    /// and random:PRESET or random:PRESET:SEED (tiny, small, base or large, with random weights).
    #[arg(short, long, value_name = "M")]
    pub(crate) model: Option<String>,

    /// The numbers that the network computes with; auto is bf16 where the CPU has it, else f32
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Auto)]
    pub(crate) precision: PrecisionChoice,

    /// Threads of the network [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    pub(crate) threads: Option<NonZeroUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionChoice {
    Auto,
    F32,
    Bf16,
    Int8,
}

impl ModelArguments {
    /// Returns which model to use, and how to run it.
    pub(crate) fn choice(&self) -> ModelChoice {
        ModelChoice {
            name: self.model.clone(),
            run: self.precision.with_threads(self.threads),
        }
    }
}

impl PrecisionChoice {
    /// Returns how to run a model with so many threads.
    pub(crate) fn with_threads(self, threads: Option<NonZeroUsize>) -> RunOptions {
        let precision = match self {
            Self::Auto => None,
            Self::F32 => Some(Precision::F32),
            Self::Bf16 => Some(Precision::Bf16),
            Self::Int8 => Some(Precision::Int8),
        };
        let n_threads = threads.map_or_else(n_cores, NonZeroUsize::get);
        RunOptions {
            precision,
            n_threads: Some(n_threads),
        }
    }
}

/// Which files of a folder are read, and what labels their images.
#[derive(Debug, Args)]
pub(crate) struct FolderArguments {
    /// What labels the images of a folder, beside what their files state
    ///
    /// manifest: the rows of a manifest.csv or manifest.parquet that lies in the folder, where there is one;
    /// other images of the folder have no row. folders: the columns label, the name of the folder that
    /// holds an image, and folder, the way to it; names of folders may name patients, so they are used only
    /// when asked for. none: neither. A manifest that is named itself labels its images in any case.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = LabelChoice::Manifest)]
    pub(crate) labels: LabelChoice,

    /// Read only these files of a folder, e.g. '*_t1.nii.gz'
    ///
    /// Without it, all files but masks by the usual names: *_seg.*, *_mask.*, labelsTr and others
    /// (docs/search.md). A pattern without / is compared with the name of a file and of each folder it lies in; with /, with
    /// the path below the folder, where ** stands for any folders. May be given several times.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) include_files: Vec<FilePattern>,

    /// Do not read these files of a folder
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude_files: Vec<FilePattern>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LabelChoice {
    Manifest,
    Folders,
    None,
}

impl FolderArguments {
    /// Returns which files are read, and where labels come from.
    pub(crate) fn choice(&self) -> FolderChoice {
        FolderChoice {
            labels: match self.labels {
                LabelChoice::Manifest => FolderLabels::Manifest,
                LabelChoice::Folders => FolderLabels::Folders,
                LabelChoice::None => FolderLabels::None,
            },
            files: FilePatterns {
                include: self.include_files.clone(),
                exclude: self.exclude_files.clone(),
                reads_masks: false,
            },
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RetryArguments {
    /// Read images again that were refused before and have not changed since
    ///
    /// Without it, they are read again once they change, m3ret's version changes, or --limit does.
    #[arg(long)]
    pub(crate) retry: bool,
}

impl RetryArguments {
    /// Returns how to read.
    pub(crate) fn reading(&self, arguments: &ReadArguments) -> Reading {
        Reading {
            retries_refused: self.retry,
            ..arguments.reading()
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReadArguments {
    /// Frames to read of a video, at uniform times [default: 32 of a video file, all of DICOM]
    #[arg(long, value_name = "N|all")]
    pub(crate) frames: Option<Frames>,

    /// Reading threads; check and embed hold one object each [default: the number of cores]
    #[arg(short, long, value_name = "N", value_parser = thread_count)]
    pub(crate) jobs: Option<NonZeroUsize>,

    /// Raise or lower what one object may cost, e.g. voxels=4G
    ///
    /// NAME is bytes, voxels, frames, parts, seconds, ratio or depth; NUMBER may end in k, M or G
    /// (powers of 1024). May be given several times.
    #[arg(long, value_name = "NAME=NUMBER")]
    pub(crate) limit: Vec<Limit>,
}

/// How many frames to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frames {
    Some(NonZeroUsize),
    All,
}

impl FromStr for Frames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let count = text.parse().map(Self::Some);
        count.map_err(|_| "a number from 1, or all".to_owned())
    }
}

/// A new value of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    name: LimitName,
    value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LimitName {
    Bytes,
    Voxels,
    Frames,
    Parts,
    Seconds,
    Ratio,
    Depth,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text.split_once('=').ok_or("NAME=NUMBER is wanted")?;
        let name = match name {
            "bytes" => LimitName::Bytes,
            "voxels" => LimitName::Voxels,
            "frames" => LimitName::Frames,
            "parts" => LimitName::Parts,
            "seconds" => LimitName::Seconds,
            "ratio" => LimitName::Ratio,
            "depth" => LimitName::Depth,
            _ => return Err("bytes, voxels, frames, parts, seconds, ratio or depth".into()),
        };
        let (digits, unit) = match number.chars().last() {
            Some('k' | 'K') => (&number[..number.len() - 1], 1 << 10),
            Some('M') => (&number[..number.len() - 1], 1 << 20),
            Some('G') => (&number[..number.len() - 1], 1 << 30),
            _ => (number, 1_u64),
        };
        let value = digits
            .parse::<u64>()
            .ok()
            .and_then(|value| value.checked_mul(unit));
        Ok(Self {
            name,
            value: value.ok_or("a whole number is wanted, e.g. 300, 64M or 4G")?,
        })
    }
}

impl ReadArguments {
    /// Returns how to read, and how many objects at once.
    pub(crate) fn reading(&self) -> Reading {
        Reading {
            options: self.options(),
            n_readers: self.n_jobs(),
            retries_refused: false,
            keep: Vec::new(),
        }
    }

    /// Returns how to read.
    pub(crate) fn options(&self) -> ReadOptions {
        let mut limits = Limits::default();
        for limit in &self.limit {
            *match limit.name {
                LimitName::Bytes => &mut limits.max_bytes,
                LimitName::Voxels => &mut limits.max_voxels,
                LimitName::Frames => &mut limits.max_frames,
                LimitName::Parts => &mut limits.max_parts,
                LimitName::Seconds => &mut limits.max_seconds,
                LimitName::Ratio => &mut limits.max_decompression_ratio,
                LimitName::Depth => &mut limits.max_depth,
            } = limit.value;
        }
        let n_frames = self.frames.map(|frames| match frames {
            Frames::Some(n_frames) => n_frames.get(),
            Frames::All => usize::MAX,
        });
        ReadOptions { limits, n_frames }
    }

    /// Returns how many objects to read at once.
    pub(crate) fn n_jobs(&self) -> usize {
        self.jobs.map_or_else(n_cores, NonZeroUsize::get)
    }

    /// Gives the readers' thread pool as many threads as objects are read at once.
    pub(crate) fn start_threads(&self) -> anyhow::Result<()> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(self.n_jobs())
            .start_handler(|_| panics::guard_this_thread())
            .build_global()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn limits_are_numbers_with_a_unit() {
        let read = |text: &str| Limit::from_str(text);
        assert_eq!(
            read("voxels=4G"),
            Ok(Limit {
                name: LimitName::Voxels,
                value: 4 << 30
            })
        );
        assert_eq!(
            read("seconds=300"),
            Ok(Limit {
                name: LimitName::Seconds,
                value: 300
            })
        );
        for wrong in [
            "",
            "voxels",
            "voxels=",
            "voxels=G",
            "voxels=-1",
            "x=1",
            "bytes=99999999999G",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn frames_are_a_number_from_1_or_all() {
        assert_eq!("all".parse(), Ok(Frames::All));
        assert_eq!("8".parse(), Ok(Frames::Some(NonZeroUsize::new(8).unwrap())));
        for wrong in ["0", "-1", "ALL", "", "1.5"] {
            assert!(Frames::from_str(wrong).is_err(), "{wrong}");
        }
    }
}
