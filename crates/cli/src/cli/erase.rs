//! The arguments of `m3ret erase`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

/// Erases a patient, or images, from galleries for good, and proves it
///
/// Rows, vectors, thumbnails, labels and refusals leave; everything else is written anew; the patient is put on a list
/// that every writer asks, so that rows of the patient are refused from now on. Then every file below the gallery is
/// searched for what was erased, and the receipt says what was found. docs/erasure.md says what is erased, and what
/// cannot be.
///
/// Exit status: 0 if it is proved that nothing is left, 1 if something is left or could not be erased, 2 for wrong usage.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("subject").args(["patient", "patient_file", "id", "rows_from"]),
    group = ArgGroup::new("asked").required(true).multiple(true)
        .args(["patient", "patient_file", "id", "rows_from", "verify"])
)]
pub(crate) struct EraseArguments {
    /// The number of the patient; other users of this machine can see it meanwhile, --patient-file hides it
    #[arg(long, value_name = "NUMBER")]
    pub(crate) patient: Option<String>,

    /// A file whose one line is the number of the patient, or - for standard input
    #[arg(long, value_name = "F|-")]
    pub(crate) patient_file: Option<PathBuf>,

    /// Who issued the number, where the headers of the images say so
    #[arg(long, value_name = "ISSUER")]
    pub(crate) issuer: Option<String>,

    /// Erase this image; may be given several times
    #[arg(long, value_name = "IMAGE_ID")]
    pub(crate) id: Vec<String>,

    /// Erase the images whose ids stand in this file, one a line, or - for standard input
    #[arg(long, value_name = "F|-")]
    pub(crate) rows_from: Option<PathBuf>,

    /// Prove this receipt: that it was not changed, and that nothing of what was erased is in the galleries
    ///
    /// With --patient-file or --patient, it is also said whether images of the patient would be refused.
    #[arg(long, value_name = "RECEIPT",
        conflicts_with_all = ["id", "rows_from", "snapshots", "caches", "receipt", "dry_run", "allow_again"])]
    pub(crate) verify: Option<PathBuf>,

    /// A gallery; may be given several times
    #[arg(
        short = 'd',
        long = "gallery",
        value_name = "NAME.m3i",
        required = true
    )]
    pub(crate) galleries: Vec<PathBuf>,

    /// Erase from the snapshots below the galleries, too; without it, a snapshot with such images is an error
    #[arg(long)]
    pub(crate) snapshots: bool,

    /// Erase from the galleries of plain folders in the cache, too
    #[arg(long)]
    pub(crate) caches: bool,

    /// The cache of --caches [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER", requires = "caches")]
    pub(crate) cache: Option<PathBuf>,

    /// Take the patient off the list instead: images of the patient may be added again
    #[arg(long, conflicts_with_all = ["id", "rows_from", "snapshots", "caches"])]
    pub(crate) allow_again: bool,

    /// Why, for the receipt; without anything that tells who the patient is
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,

    /// Who erases, for the receipt [default: the user of this machine]
    #[arg(long, value_name = "NAME")]
    pub(crate) who: Option<String>,

    /// Write the receipt; keep it outside of the gallery
    #[arg(long, value_name = "OUT.json")]
    pub(crate) receipt: Option<PathBuf>,

    /// Write the receipt even where a file lies; it is lost
    #[arg(long)]
    pub(crate) force: bool,

    /// Change nothing, and say what would be erased
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print the receipt, or what was proved, as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}
