//! The arguments of `m3ret split`.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _};

use super::numbers::{cosine, whole};
use super::{Cli, ModelArguments, ReadArguments};
use m3ret::split::{NEAR, PRETRAIN_SHARE, QUERY_SHARE, SEED};

/// Splits a manifest into pretrain, gallery and query, by patient
///
/// All rows of one `patient_id` go to one split, and with them all rows that share a `pair_id`,
/// copies and near duplicates, over any number of steps. The same rows and seed give the same split in whatever
/// order rows come. docs/splits.md explains how shares are met.
///
/// With --check, nothing is written: what pretrain rows and evaluation rows (gallery and query) have
/// in common is listed, in one manifest or between several.
///
/// Exit status: 0 if all went well, 1 if an image was refused or --check found an overlap, 2 for
/// wrong usage.
#[derive(Debug, Args)]
pub(crate) struct SplitArguments {
    /// CSV or Parquet with a column path
    #[arg(value_name = "MANIFEST")]
    pub(crate) manifest: PathBuf,

    /// Where to write the manifest with its split: .csv or .parquet
    ///
    /// Has all columns of the input, their cells unchanged, but for Parquet columns of a type that is
    /// not read, such as lists of floats. Relative paths are changed where OUT lies in another folder.
    /// An older file of that name is replaced once the new one is complete.
    #[arg(
        short,
        long,
        value_name = "OUT",
        required_unless_present = "check",
        value_parser = PathBufValueParser::new().try_map(named_as_table)
    )]
    pub(crate) out: Option<PathBuf>,

    /// Another seed gives another split
    #[arg(long, value_name = "N", default_value_t = SEED, value_parser = whole)]
    pub(crate) seed: u64,

    /// The share of groups that become queries
    #[arg(long, value_name = "SHARE", default_value_t = QUERY_SHARE, value_parser = share)]
    pub(crate) query: f64,

    /// The share of groups to train on; the gallery gets what is left
    #[arg(long, value_name = "SHARE", default_value_t = PRETRAIN_SHARE, value_parser = share)]
    pub(crate) pretrain: f64,

    /// Columns in whose every combination of words shares are met, the most important first
    /// [default: what there is of `modality,dims,source,body_part,finding`]
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub(crate) stratify: Option<Vec<String>>,

    /// Keep images together from this score on, where their thumbnails agree
    #[arg(
        long,
        value_name = "COSINE",
        default_value_t = NEAR,
        allow_negative_numbers = true,
        value_parser = cosine
    )]
    pub(crate) near: f32,

    /// Read no image: copies and near duplicates may then lie in several splits
    #[arg(long)]
    pub(crate) no_duplicates: bool,

    /// Replace the column split of the input
    #[arg(long)]
    pub(crate) overwrite: bool,

    /// Write even where a file lies already; it is lost
    #[arg(long)]
    pub(crate) force: bool,

    /// Say what pretrain and evaluation rows have in common, of MANIFEST and of others
    #[arg(
        long,
        value_name = "OTHER_MANIFEST",
        num_args = 0..,
        conflicts_with_all = ["out", "overwrite", "force", "stratify"]
    )]
    pub(crate) check: Option<Vec<PathBuf>>,

    /// Exit with 0 even if --check finds an overlap
    #[arg(long, requires = "check", conflicts_with = "out")]
    pub(crate) allow_overlap: bool,

    /// Print JSON: {"summary": {...}}; with --check, one object a line for each overlap before it
    #[arg(long)]
    pub(crate) json: bool,

    /// Where manifests are kept embedded [default: the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) model: ModelArguments,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

impl SplitArguments {
    /// Ends the program as for any wrong usage if the shares leave no gallery.
    pub(crate) fn refuse_impossible_shares(&self) {
        if self.query + self.pretrain >= 1.0 {
            let message =
                "--query and --pretrain leave nothing for the gallery; their sum must be below 1";
            Cli::command()
                .error(ErrorKind::ValueValidation, message)
                .exit();
        }
    }
}

fn named_as_table(path: PathBuf) -> Result<PathBuf, String> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    match extension.to_str() {
        Some("csv" | "parquet" | "pq") => Ok(path),
        _ => Err("a name that ends in .csv or .parquet is wanted".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok();
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a number from 0 to 1 is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn shares_are_numbers_from_0_to_1() {
        assert_eq!(share("0.2"), Ok(0.2));
        assert_eq!(share("0"), Ok(0.0));
        for wrong in ["", "20%", "-0.1", "1.1", "nan", "inf"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_name_of_a_table_says_how_it_is_written() {
        for (name, is_good) in [
            ("a/b.CSV", true),
            ("b.pq", true),
            ("b", false),
            ("b.npy", false),
        ] {
            assert_eq!(named_as_table(name.into()).is_ok(), is_good, "{name}");
        }
    }

    #[test]
    fn near_may_be_below_0_but_no_other_than_a_cosine() {
        for verb in [&["dedup", "a"][..], &["split", "a", "--check"]] {
            let parse = |near: &str| {
                let words = [&["m3ret"][..], verb, &["--near", near]].concat();
                Cli::try_parse_from(words)
            };
            assert!(parse("-0.5").is_ok());
            assert!(parse("nan").is_err() && parse("2").is_err());
        }
    }
}
