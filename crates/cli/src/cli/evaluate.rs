//! The arguments of `m3ret evaluate` and `m3ret compare`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;

use clap::Args;
use m3ret_encoder::Precision;
use m3ret_search::evaluation::Bootstrap;

use super::numbers::{thread_count, whole};
use super::{PrecisionChoice, ReadArguments};
use m3ret::evaluate::options::{DEFAULT_CUTOFFS, DEFAULT_EXCLUDE, DEFAULT_PRECISION};
use m3ret::options::ColumnValue;

/// The default of `-k`, as a person types it.
static CUTOFFS: LazyLock<String> =
    LazyLock::new(|| DEFAULT_CUTOFFS.map(|k| k.to_string()).join(","));

/// Measures how well a model finds similar images
///
/// MANIFEST is a CSV or Parquet file with a column path; its columns modality, dims, source, body_part,
/// finding, patient_id, pair_id and split decide which tasks there are. Queries are the rows with split =
/// query, the gallery those with split = gallery; without split every row is both in turn. Images of the
/// query's own patient never count as found, but in pair tasks. A cross task needs two classes on both
/// sides; radiographs with a cell in the column disturbed have pair tasks of their own.
/// docs/evaluation.md defines every number.
///
/// OUT then holds results.json, per_query.parquet, report.html and the folder trec (runs and qrels), and
/// the vectors, so that the next run computes only what changed. Several models give a folder each, and
/// a table that compares them.
///
/// Exit status: 0 if every image was measured, 1 if one was refused or no task could be measured, 2 for
/// wrong usage.
#[derive(Debug, Args)]
pub(crate) struct EvaluateArguments {
    /// The images, and what is known of them
    #[arg(value_name = "MANIFEST")]
    pub(crate) manifest: PathBuf,

    /// Where to write
    #[arg(short, long, value_name = "OUT")]
    pub(crate) out: PathBuf,

    /// Write into a folder with files of others, in place of those with the same names
    #[arg(long)]
    pub(crate) force: bool,

    /// A model folder, or the name of one [default: m3ret-tiny]; see m3ret embed --help
    #[arg(short, long, value_name = "M", conflicts_with = "models")]
    pub(crate) model: Option<String>,

    /// Several models side by side; pixels is always added
    #[arg(long, value_name = "[NAME=]M,...", value_delimiter = ',')]
    pub(crate) models: Vec<String>,

    /// Vectors that were made elsewhere: .npy, .safetensors or .parquet, [rows, width], or a gallery
    ///
    /// A gallery of the manifest's images brings the vectors of projections, which are compared across modalities.
    /// Where the file, or F.rows.csv beside it, names images, vectors are joined by path and part, else they are
    /// in the order of the manifest. Rows that are NaN have no vector. May be given several times, also beside models.
    #[arg(long, value_name = "[NAME=]F")]
    pub(crate) embeddings: Vec<Embeddings>,

    /// Give vectors of --embeddings unit length
    #[arg(long, requires = "embeddings")]
    pub(crate) normalize: bool,

    /// Columns whose equal values are relevant to each other [default: body_part,finding]
    ///
    /// Cells with several labels, a|b, are relevant to the degree of their Jaccard index; columns joined
    /// by + must all be equal.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub(crate) relevance: Vec<String>,

    /// Jaccard index from which on images with several labels are relevant [default: any shared label]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) jaccard: Option<f32>,

    /// Columns in which a hit must differ from its query; none leaves out only the query itself
    #[arg(
        long,
        value_name = "COLUMN,...|none",
        value_delimiter = ',',
        default_value = DEFAULT_EXCLUDE
    )]
    pub(crate) exclude: Vec<String>,

    /// Cutoffs, from 1 to 10000
    #[arg(
        short,
        long,
        value_name = "K,...",
        value_delimiter = ',',
        default_value = CUTOFFS.as_str(),
        value_parser = cutoff
    )]
    pub(crate) k: Vec<usize>,

    /// Only rows with this value in a column, e.g. source=busi, or without it: source!=busi
    #[arg(long, value_name = "COLUMN=VALUE")]
    pub(crate) filter: Vec<ColumnValue>,

    /// Also one task over all modalities together: all/COLUMN
    #[arg(long)]
    pub(crate) pooled: bool,

    /// Go on although patients of rows with split = pretrain are also queries or in the gallery
    #[arg(long)]
    pub(crate) allow_overlap: bool,

    /// Draws of the bootstrap
    #[arg(long, value_name = "N", default_value_t = Bootstrap::default().n_resamples, value_parser = resample_count)]
    pub(crate) resamples: usize,

    /// Decides the draws, and in which order equal scores are shown
    #[arg(long, value_name = "N", default_value_t = Bootstrap::default().seed, value_parser = whole)]
    pub(crate) seed: u64,

    /// The numbers that networks compute with; auto is bf16 where the CPU has it, else f32
    #[arg(long, value_enum, default_value_t = choice_of(DEFAULT_PRECISION))]
    pub(crate) precision: PrecisionChoice,

    /// Threads of the network [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Print results.json instead of a table; of several models, one a line
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

/// Vectors that were made elsewhere, and what to call them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Embeddings {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl FromStr for Embeddings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
            None => {
                let path = PathBuf::from(text);
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                (name.into_owned(), path)
            }
        };
        if name.is_empty() || path.as_os_str().is_empty() {
            return Err("F or NAME=F is wanted".to_owned());
        }
        Ok(Self { name, path })
    }
}

/// Says which of two evaluated models is better, task by task, or that it cannot be told
///
/// A and B are folders that m3ret evaluate wrote for the same manifest. Differences are paired by query,
/// and patients are drawn as a whole; a difference counts if its 95 % interval excludes 0. Group means
/// use tasks with 20 queries or more, chance of at most 0.8, pixel precision_at_5 below 0.98, and no
/// fixed ranking that reaches 0.8 of the maximum. Evaluations by different protocols are not compared.
///
/// Exit status: 0 if the models could be compared, 1 if not, 2 for wrong usage.
#[derive(Debug, Args)]
pub(crate) struct CompareArguments {
    /// The first model's folder
    #[arg(value_name = "DIR_A")]
    pub(crate) a: PathBuf,

    /// The second model's folder
    #[arg(value_name = "DIR_B")]
    pub(crate) b: PathBuf,

    /// The metrics to compare [default: map_at_r,precision_at_5,hit_at_1]; the first decides
    #[arg(long, value_name = "METRIC,...", value_delimiter = ',')]
    pub(crate) metric: Vec<m3ret_search::evaluation::Metric>,

    /// The folder of the model pixels, which says which tasks are too easy to count in group means
    #[arg(long, value_name = "DIR")]
    pub(crate) pixels: Option<PathBuf>,

    /// Write the table: .md (Markdown) or .tex (LaTeX)
    #[arg(short, long, value_name = "F.md|F.tex")]
    pub(crate) out: Vec<PathBuf>,

    /// Write even where a file lies; it is lost
    #[arg(long)]
    pub(crate) force: bool,

    /// Draws of the bootstrap
    #[arg(long, value_name = "N", default_value_t = Bootstrap::default().n_resamples, value_parser = resample_count)]
    pub(crate) resamples: usize,

    /// Decides the draws
    #[arg(long, value_name = "N", default_value_t = Bootstrap::default().seed, value_parser = whole)]
    pub(crate) seed: u64,

    /// Print a JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Returns what a person types for a precision; `None` is the fastest.
fn choice_of(precision: Option<Precision>) -> PrecisionChoice {
    match precision {
        None => PrecisionChoice::Auto,
        Some(Precision::F32) => PrecisionChoice::F32,
        Some(Precision::Bf16) => PrecisionChoice::Bf16,
        Some(Precision::Int8) => PrecisionChoice::Int8,
    }
}

/// Hits of every query are kept up to the largest cutoff.
fn cutoff(text: &str) -> Result<usize, String> {
    let k = text.parse().ok();
    let k = k.filter(|k| (1..=10_000).contains(k));
    k.ok_or_else(|| "a number from 1 to 10000 is wanted".to_owned())
}

/// Fewer draws have no percentiles, more take hours.
fn resample_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok();
    let count = count.filter(|count| (100..=1_000_000).contains(count));
    count.ok_or_else(|| "a number from 100 to 1000000 is wanted".to_owned())
}

fn share(text: &str) -> Result<f32, String> {
    let share = text.parse().ok();
    let share = share.filter(|&share: &f32| share > 0.0 && share <= 1.0);
    share.ok_or_else(|| "a number above 0, and at most 1, is wanted".to_owned())
}
