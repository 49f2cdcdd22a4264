//! The arguments of `m3ret index`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{FolderArguments, ModelArguments, ReadArguments, RetryArguments};

/// Makes and keeps galleries: folders NAME.m3i that are searched at once
///
/// A gallery holds vectors, ids and metadata, and is safe against crashes: when a command returns,
/// what it did survives a power cut. Patients, studies and series are stored only as keyed hashes.
/// docs/gallery-format.md describes every byte.
#[derive(Debug, Args)]
pub(crate) struct IndexArguments {
    #[command(subcommand)]
    pub(crate) action: IndexAction,
}

/// Pictures of a volume that have vectors of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ViewKind {
    Projections,
    Slices,
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IndexAction {
    /// Makes a gallery of a folder, file or manifest, or of vectors that were made elsewhere
    Build(BuildArguments),
    /// Adds what is new in a folder, file or manifest, or vectors that were made elsewhere
    ///
    /// A file whose bytes the gallery has already, under another name or time, is not embedded again: its
    /// row follows a file that was moved, and is doubled for a copy.
    Add(AddArguments),
    /// Writes what a manifest says now into the rows of its images; embeds nothing
    ///
    /// Rows are found by the column id, where the manifest's row states one, else by file and part. Columns
    /// that the manifest does not have are emptied.
    Relabel(RelabelArguments),
    /// Follows an archive that was moved: images below the folder OLD are now below NEW
    ///
    /// Ids, labels and vectors stay. Images that are not at their new place, or that the gallery has there
    /// already, are counted and stay as they were.
    Move(MoveArguments),
    /// Drops images whose files are gone; `compact` then takes their data off the disk
    ///
    /// A folder that is missing or empty may be on a disk that is away: its images stay, unless --force.
    Prune(PruneArguments),
    /// Removes images by id; `compact` then takes their data off the disk
    Remove(RemoveArguments),
    /// Reads every byte and proves that vectors, ids, rows and checksums agree
    Verify(VerifyArguments),
    /// Rewrites the gallery without what was removed, and measures how to search it
    Compact(GalleryArguments),
    /// Shows what a gallery holds, and how good its quick search is against the exact one
    Stats(GalleryArguments),
    /// Writes vectors to F.npy, and ids and columns to F.npy.rows.csv, for other programs
    ///
    /// Rows are in ascending order of ids. `index build --embeddings` reads both files again.
    Export(ExportArguments),
    /// Lists the galleries that searches keep of plain folders and manifests
    Cached(CachedArguments),
    /// Removes galleries that searches keep of plain folders and manifests
    ///
    /// A later search of such an archive embeds it again. Galleries that `index build` made are elsewhere and stay.
    ClearCache(ClearCacheArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The gallery
    #[arg(value_name = "NAME.m3i")]
    pub(crate) gallery: PathBuf,

    /// Where to write: .npy, f32 [n, width]
    #[arg(short, long, value_name = "F.npy")]
    pub(crate) out: PathBuf,

    /// Write even where files lie; they are lost
    #[arg(long)]
    pub(crate) force: bool,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CachedArguments {
    /// Where they are kept [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,

    /// Print JSON lines instead of text, one for each gallery
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ClearCacheArguments {
    /// Only those that were not written for so many days
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    pub(crate) older_than: u32,

    #[command(flatten)]
    pub(crate) cached: CachedArguments,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArguments {
    /// The gallery
    #[arg(value_name = "NAME.m3i")]
    pub(crate) gallery: PathBuf,

    /// A folder, file or manifest
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,

    /// Vectors of the manifest's rows: .npy, .safetensors or .parquet, f32, f16 or f64, [n, width]
    ///
    /// Where the file, or F.rows.csv beside it, names images, vectors are joined by path and part, else by
    /// position. Files of m3ret embed say what made their vectors.
    #[arg(long, value_name = "F")]
    pub(crate) embeddings: Option<PathBuf>,

    /// What made the vectors, for a file that does not say so, as .npy never does
    ///
    /// Adding and searching ask for the same name. A new gallery takes the file's name without it.
    #[arg(long, value_name = "NAME", requires = "embeddings")]
    pub(crate) encoder: Option<String>,

    /// Give the vectors unit length
    #[arg(long, requires = "embeddings")]
    pub(crate) normalize: bool,

    /// Leave out rows that are NaN, as `m3ret embed` writes them for images it refused
    #[arg(long, requires = "embeddings")]
    pub(crate) skip_nan: bool,

    /// Store vectors in 16 bits: half the space, and scores change by about 0.0001
    #[arg(long)]
    pub(crate) f16: bool,

    /// Keep a small picture of each image, for reports
    #[arg(long)]
    pub(crate) thumbnails: bool,

    /// Of which pictures volumes have further vectors [default: projections]
    ///
    /// By its projections a radiograph finds the CT of its patient; they take four vectors a volume. By its slices a
    /// picture of one slice finds its level in a volume of the same modality; they take up to 32. `none` keeps the
    /// vector of the whole volume alone. Images that are in the gallery already stay as they are.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) views: Option<Vec<ViewKind>>,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,

    /// Store a column of the manifest that m3ret does not know [repeatable]
    ///
    /// Other columns are not stored. Cells are stored as they are; where the name of the column says that it
    /// identifies people, as hashes; where it says that it describes people, it is refused.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) keep: Vec<String>,

    #[command(flatten)]
    pub(crate) folder: FolderArguments,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    #[command(flatten)]
    pub(crate) build: BuildArguments,

    /// Replace images that have the id of a new one, instead of refusing
    #[arg(long)]
    pub(crate) replace: bool,

    /// Drop images whose files are gone afterwards, as `index prune` does
    #[arg(long)]
    pub(crate) prune: bool,

    #[command(flatten)]
    pub(crate) retry: RetryArguments,
}

#[derive(Debug, Args)]
pub(crate) struct RelabelArguments {
    /// The gallery
    #[arg(value_name = "NAME.m3i")]
    pub(crate) gallery: PathBuf,

    /// What is said of the images now, CSV or Parquet
    #[arg(value_name = "MANIFEST")]
    pub(crate) manifest: PathBuf,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MoveArguments {
    /// The gallery
    #[arg(value_name = "NAME.m3i")]
    pub(crate) gallery: PathBuf,

    /// The folder that the images lay below
    #[arg(value_name = "OLD")]
    pub(crate) from: PathBuf,

    /// The folder that they lie below now
    #[arg(value_name = "NEW")]
    pub(crate) to: PathBuf,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    /// The gallery
    #[arg(value_name = "NAME.m3i")]
    pub(crate) gallery: PathBuf,

    /// Drop images of folders that are missing or empty, too
    #[arg(long)]
    pub(crate) force: bool,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// The gallery
    #[arg(value_name = "NAME.m3i")]
    pub(crate) gallery: PathBuf,

    /// Ids, as search shows them
    #[arg(value_name = "ID", required_unless_present = "ids")]
    pub(crate) id: Vec<String>,

    /// A file with one id a line
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: Option<PathBuf>,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The gallery
    #[arg(value_name = "NAME.m3i")]
    pub(crate) gallery: PathBuf,

    /// Rebuild what is provable, and move damaged files to the gallery's folder quarantine
    ///
    /// Images whose rows are lost are embedded again from their files, if these hold the same pixels.
    #[arg(long)]
    pub(crate) repair: bool,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

#[derive(Debug, Args)]
pub(crate) struct GalleryArguments {
    /// The gallery
    #[arg(value_name = "NAME.m3i")]
    pub(crate) gallery: PathBuf,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
