//! The arguments of `m3ret lake`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ModelArguments;

/// Makes and keeps lakes: galleries on an object store, for more images than one machine holds
///
/// A lake lies at s3://BUCKET/NAME, or in a local folder of the same layout, for trying. Every command that
/// takes a gallery takes a lake. The store is reached as AWS clients reach it: AWS_ENDPOINT_URL,
/// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION. Patients are stored as keyed hashes; the key stays in
/// the user's folder, or M3RET_LAKE_KEY names its file. docs/scale.md says when a lake pays.
#[derive(Debug, Args)]
pub(crate) struct LakeArguments {
    #[command(subcommand)]
    pub(crate) action: LakeAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LakeAction {
    /// Makes an empty lake for vectors of a model
    Create(CreateLakeArguments),
    /// Adds the parts that `m3ret embed --shard` wrote, all in one change
    ///
    /// Parts that the lake has are not added again. A lake that is not there is made.
    Commit(CommitArguments),
    /// Joins small files, indexes new rows, measures searches, and removes old versions
    ///
    /// For one process at a time, such as a job every night. Readers see the result only if searches find as
    /// much as before.
    Maintain(MaintainArguments),
    /// Adds all rows of a gallery; a lake that is not there is made with the gallery's key
    Import(ImportArguments),
    /// Writes all rows into a new gallery
    Export(ExportLakeArguments),
    /// Reads all rows and says what is wrong
    Verify(VerifyLakeArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CreateLakeArguments {
    /// Where: s3://BUCKET/NAME, or a folder
    #[arg(value_name = "LAKE")]
    pub(crate) lake: PathBuf,

    /// Store vectors in 16 bits: half the space, scores change by about 1e-4
    #[arg(long)]
    pub(crate) f16: bool,

    /// Use the key in this file, such as NAME.m3i/key, in place of a new one
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CommitArguments {
    /// The folder with the parts
    #[arg(value_name = "PARTS")]
    pub(crate) parts: PathBuf,

    /// The lake
    #[arg(value_name = "LAKE")]
    pub(crate) lake: PathBuf,

    /// Commit although parts are missing
    #[arg(long)]
    pub(crate) partial: bool,

    /// Store vectors of a lake that is made in 16 bits
    #[arg(long)]
    pub(crate) f16: bool,

    /// Make the lake with the key in this file, such as NAME.m3i/key
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    /// Store a column that m3ret does not know
    #[arg(long, value_name = "COLUMN")]
    pub(crate) keep: Vec<String>,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "they are switches of a command"
)]
pub(crate) struct MaintainArguments {
    /// The lake
    #[arg(value_name = "LAKE")]
    pub(crate) lake: PathBuf,

    /// Leave small files as they are
    #[arg(long)]
    pub(crate) no_compact: bool,

    /// Leave new rows without an index: searches look at each of them
    #[arg(long)]
    pub(crate) no_index: bool,

    /// Remove versions that are older than so many hours
    #[arg(long, value_name = "HOURS", default_value_t = 168)]
    pub(crate) prune: u32,

    /// Remove what killed writers left, too: only while nobody writes
    #[arg(long)]
    pub(crate) alone: bool,

    /// The share of the exact best hits that searches are to find
    #[arg(long, value_name = "SHARE", default_value_t = 0.99, value_parser = share)]
    pub(crate) recall: f64,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok();
    let share = share.filter(|share| (0.5..1.0).contains(share));
    share.ok_or_else(|| "a number from 0.5 to below 1 is wanted".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The gallery
    #[arg(value_name = "NAME.m3i")]
    pub(crate) gallery: PathBuf,

    /// The lake
    #[arg(value_name = "LAKE")]
    pub(crate) lake: PathBuf,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportLakeArguments {
    /// The lake
    #[arg(value_name = "LAKE")]
    pub(crate) lake: PathBuf,

    /// The gallery; it must not be there
    #[arg(value_name = "NAME.m3i")]
    pub(crate) gallery: PathBuf,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyLakeArguments {
    /// The lake
    #[arg(value_name = "LAKE")]
    pub(crate) lake: PathBuf,

    /// Print a JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
