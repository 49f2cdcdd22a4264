//! The command line, as clap sees it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use m3ret_imaging::{Limits, ReadOptions};

use crate::panics;

/// Finds, checks and describes medical images. For research; not a medical device.
#[derive(Debug, Parser)]
#[command(name = "m3ret", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Inspect(InspectArguments),
    Check(CheckArguments),
}

/// Shows what a file or folder holds: geometry, modality, values, and what is unusual
///
/// Reads DICOM files, series and DICOMDIRs, NIfTI, NRRD, MetaImage, npy, PNG, JPEG, TIFF, WebP,
/// BMP, GIF and videos; the type is told by content, never by name.
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
    /// An older file of that name is replaced once the new one is complete.
    #[arg(long, value_name = "OUT.npy")]
    pub(crate) npy: Option<PathBuf>,

    /// Draw what a person would look at, as PNG: three planes of a volume, frames of a video
    ///
    /// Several objects are numbered as with --npy.
    #[arg(long, value_name = "OUT.png")]
    pub(crate) thumbnail: Option<PathBuf>,

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

#[derive(Debug, Args)]
pub(crate) struct ReadArguments {
    /// Frames to read of a video, at uniform times [default: 32 of a video file, all of DICOM]
    #[arg(long, value_name = "N|all")]
    pub(crate) frames: Option<Frames>,

    /// Threads, and for check objects in memory at once [default: the number of cores]
    #[arg(short, long, value_name = "N")]
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
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.jobs.map_or_else(cores, NonZeroUsize::get)
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
