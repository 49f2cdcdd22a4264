//! The arguments of `m3ret simulate`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};

use super::ReadArguments;
use super::numbers::whole;
use m3ret::simulate::{Hounsfield, PictureFormat};

/// Makes images of one kind from another, such as radiographs from CT
#[derive(Debug, Args)]
pub(crate) struct SimulateArguments {
    #[command(subcommand)]
    pub(crate) action: SimulateAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimulateAction {
    Radiographs(RadiographsArguments),
}

/// Projects CT volumes to radiographs, with a manifest that pairs each CT with its pictures
///
/// Each picture shows the attenuation that parallel rays meet in the CT, with square pixels,
/// superior on top and the patient's right on the left of the view from the front. There is no
/// scatter, noise or magnification; the table below the patient is seen, too. docs/simulate.md
/// says what is computed.
///
/// DIR/manifest.csv has a row for each CT and one for each radiograph, which share a pair id.
/// Nothing of a file's identifiers is written; patient ids come from an input manifest only.
///
/// With --disturb, pictures are turned, scaled, shifted, cropped, toned and made noisy, and marked
/// in the column disturbed, so that m3ret evaluate measures them apart (pair-disturbed/DX-CT).
///
/// Exit status: 0 if every CT was projected, 1 if one was refused, 2 for wrong usage.
#[derive(Debug, Args)]
pub(crate) struct RadiographsArguments {
    /// Files, folders with series, or manifests, of which rows with modality CT and dims 3d count
    #[arg(required = true, value_name = "CT")]
    pub(crate) sources: Vec<PathBuf>,

    /// The folder for pictures and manifest; it must be empty or new
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Whole degrees around the axis from feet to head: 0 from the front, 90 from the left
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        default_value = "0,90",
        value_parser = angle
    )]
    pub(crate) angles: Vec<u16>,

    /// Pixels of the longer side [default: as fine as the CT, at most 2048]
    #[arg(long, value_name = "N", value_parser = side)]
    pub(crate) side: Option<u16>,

    /// How pictures are written; DICOM holds the integrals in 16 bits
    #[arg(long, value_enum, default_value_t = PictureFormat::default().into())]
    pub(crate) format: PictureFormatChoice,

    /// Bits of a PNG's pixel
    #[arg(long, value_name = "8|16", default_value = "8", value_parser = ["8", "16"])]
    pub(crate) bits: String,

    /// Integrals that are black and white, e.g. 0,8 [default: 0.5 and 99.5 % of each picture]
    #[arg(long, value_name = "LOW,HIGH")]
    pub(crate) window: Option<FixedWindow>,

    /// Disturb the pictures; the same seed and path give the same disturbance
    ///
    /// Simulated radiographs that a manifest already has (source drr-...) are disturbed, too, and CT
    /// volumes that share their pair_id are not projected again.
    #[arg(long, value_name = "SEED", value_parser = whole)]
    pub(crate) disturb: Option<u64>,

    /// Which volumes are CT in HU: those that say so or hold values below -200, or all
    ///
    /// Formats other than DICOM do not say what their values are.
    #[arg(long, value_enum, default_value_t = Hounsfield::default().into())]
    pub(crate) hounsfield: HounsfieldChoice,

    /// Write into a folder that is not empty, in place of files with the same names
    #[arg(long)]
    pub(crate) force: bool,

    /// Print one JSON object a line for each radiograph, then {"summary": {...}}
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reading: ReadArguments,
}

impl RadiographsArguments {
    /// Returns whether a PNG's pixel has 16 bits.
    pub(crate) fn is_16_bits(&self) -> bool {
        self.bits == "16"
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PictureFormatChoice {
    Png,
    Dicom,
}

impl From<PictureFormat> for PictureFormatChoice {
    fn from(format: PictureFormat) -> Self {
        match format {
            PictureFormat::Png => Self::Png,
            PictureFormat::Dicom => Self::Dicom,
        }
    }
}

impl From<PictureFormatChoice> for PictureFormat {
    fn from(choice: PictureFormatChoice) -> Self {
        match choice {
            PictureFormatChoice::Png => Self::Png,
            PictureFormatChoice::Dicom => Self::Dicom,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HounsfieldChoice {
    Told,
    All,
}

impl From<Hounsfield> for HounsfieldChoice {
    fn from(hounsfield: Hounsfield) -> Self {
        match hounsfield {
            Hounsfield::WithAir => Self::Told,
            Hounsfield::All => Self::All,
        }
    }
}

impl From<HounsfieldChoice> for Hounsfield {
    fn from(choice: HounsfieldChoice) -> Self {
        match choice {
            HounsfieldChoice::Told => Self::WithAir,
            HounsfieldChoice::All => Self::All,
        }
    }
}

fn angle(text: &str) -> Result<u16, String> {
    let angle = text.parse().ok().filter(|angle| *angle < 360);
    angle.ok_or_else(|| "whole degrees from 0 to 359 are wanted".to_owned())
}

fn side(text: &str) -> Result<u16, String> {
    let side = text.parse().ok();
    let side = side.filter(|side| (16..=4096).contains(side));
    side.ok_or_else(|| "a whole number from 16 to 4096 is wanted".to_owned())
}

/// Two integrals, the first below the second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FixedWindow {
    pub(crate) ends: [f64; 2],
}

impl FromStr for FixedWindow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "LOW,HIGH is wanted, two numbers, the first below the second".to_owned();
        let (low, high) = text.split_once(',').ok_or_else(wanted)?;
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite());
        let (low, high) = number(low).zip(number(high)).ok_or_else(wanted)?;
        if low >= high {
            return Err(wanted());
        }
        Ok(Self { ends: [low, high] })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_window_is_two_numbers_in_order() {
        let ends = |text: &str| FixedWindow::from_str(text).ok().map(|window| window.ends);
        assert_eq!(ends("0,8"), Some([0.0, 8.0]));
        assert_eq!(ends("-1, 2.5"), Some([-1.0, 2.5]));
        for wrong in ["", "1", "2,1", "1,1", "0,inf", "0,8,9", "a,b"] {
            assert_eq!(ends(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_usual_angles_are_those_of_the_library() {
        let words = ["m3ret", "simulate", "radiographs", "in", "--out", "out"];
        let cli = crate::cli::Cli::try_parse_from(words).unwrap();
        let crate::cli::Command::Simulate(arguments) = cli.command else {
            panic!("another verb");
        };
        let SimulateAction::Radiographs(arguments) = arguments.action;
        assert_eq!(arguments.angles, m3ret::simulate::ANGLES);
    }
}
