//! Totals over a whole archive.

use std::collections::{BTreeMap, HashMap};

use m3ret_imaging::Code;
use serde::Serialize;

use super::CheckedImage;
use crate::check::report::{Report, Verdict};
use crate::words::format_name;

/// Totals of a walk over an archive, and the reports that need a look.
#[derive(Debug, Default)]
pub struct Tally {
    /// Number of images without a warning.
    pub n_ok: u64,
    /// Reports on what was refused, in the order of the paths.
    pub refused: Vec<Report>,
    /// Reports on images with a warning, in the order of the paths.
    pub warned: Vec<Report>,
    /// Number of files that hold no image format.
    pub n_not_images: u64,
    /// Number of such files of each sort, e.g. `PDF document`.
    pub not_images: BTreeMap<String, u64>,
    /// Number of images of each kind: `image`, `video` or `volume`.
    pub kinds: BTreeMap<String, u64>,
    /// Number of images of each modality; images that state none count as `unknown`.
    pub modalities: BTreeMap<String, u64>,
    /// Number of images of each format, by the names that people write.
    pub formats: BTreeMap<&'static str, u64>,
    /// Number of images with each reason code.
    pub codes: BTreeMap<Code, u64>,
    same_pixels: HashMap<u128, Vec<Member>>,
}

/// One of several images with equal shape and values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    /// The file, or the folder of a series.
    pub path: String,
    /// Which image of the path this is; `None` if the path holds one image.
    pub part: Option<String>,
}

/// The totals of a walk, as `m3ret check --json` prints them.
#[derive(Debug, Serialize)]
pub struct CheckSummary<'a> {
    /// Number of images that were read or refused: `n_ok + n_warning + n_refused`.
    pub n_objects: u64,
    /// Number of images without a warning.
    pub n_ok: u64,
    /// Number of images with a warning.
    pub n_warning: u64,
    /// Number of images and files that were refused.
    pub n_refused: u64,
    /// Number of files that hold no image format; not part of `n_objects`.
    pub n_not_images: u64,
    /// Number of such files of each sort.
    pub not_images: &'a BTreeMap<String, u64>,
    /// Number of images of each kind.
    pub kinds: &'a BTreeMap<String, u64>,
    /// Number of images of each modality; images that state none count as `unknown`.
    pub modalities: &'a BTreeMap<String, u64>,
    /// Number of images of each format, by its name in lower case.
    pub formats: BTreeMap<String, u64>,
    /// Number of images with each reason code.
    pub reason_codes: BTreeMap<&'static str, u64>,
    /// Groups of images with equal shape and values, in the order of their first paths.
    pub duplicate_pixels: Vec<&'a [Member]>,
}

impl Tally {
    /// Counts an image; a warned or refused one is kept with its report.
    pub fn add(&mut self, image: CheckedImage) {
        let CheckedImage { report, pixels } = image;
        if report.verdict == Verdict::NotAnImage {
            self.n_not_images += 1;
            if let Some(what) = &report.what {
                let name = what.strip_prefix("an ").or(what.strip_prefix("a "));
                let name = name.unwrap_or(what).to_owned();
                *self.not_images.entry(name).or_default() += 1;
            }
            return;
        }
        let mut codes = report.reason_codes.clone();
        codes.sort_unstable();
        codes.dedup();
        for code in codes {
            *self.codes.entry(code).or_default() += 1;
        }
        if let Some(format) = report.format {
            *self.formats.entry(format_name(format)).or_default() += 1;
        }
        if let Some(image) = &report.image {
            let kind = format!("{:?}", image.kind).to_lowercase();
            *self.kinds.entry(kind).or_default() += 1;
            let modality = image.modality.clone().unwrap_or_else(|| "unknown".into());
            *self.modalities.entry(modality).or_default() += 1;
        }
        if let Some(pixels) = pixels {
            let member = Member {
                path: report.path.clone(),
                part: report.part.clone(),
            };
            self.same_pixels.entry(pixels).or_default().push(member);
        }
        match report.verdict {
            Verdict::Ok | Verdict::NotAnImage => self.n_ok += 1,
            Verdict::Warning => self.warned.push(report),
            Verdict::Refused => self.refused.push(report),
        }
    }

    /// Returns the totals.
    pub fn summary(&self) -> CheckSummary<'_> {
        let (n_warning, n_refused) = (length(&self.warned), length(&self.refused));
        CheckSummary {
            n_objects: self.n_ok + n_warning + n_refused,
            n_ok: self.n_ok,
            n_warning,
            n_refused,
            n_not_images: self.n_not_images,
            not_images: &self.not_images,
            kinds: &self.kinds,
            modalities: &self.modalities,
            formats: self
                .formats
                .iter()
                .map(|(name, &n)| (name.to_lowercase(), n))
                .collect(),
            reason_codes: self
                .codes
                .iter()
                .map(|(code, &n)| (code.as_str(), n))
                .collect(),
            duplicate_pixels: self.duplicates(),
        }
    }

    /// Returns the groups of two or more images with equal shape and values, in the order of their first paths.
    pub fn duplicates(&self) -> Vec<&[Member]> {
        let mut groups: Vec<&[Member]> = self
            .same_pixels
            .values()
            .map(Vec::as_slice)
            .filter(|group| group.len() > 1)
            .collect();
        groups.sort_unstable();
        groups
    }
}

fn length<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}
