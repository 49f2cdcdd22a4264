//! What a whole archive amounts to.

use std::collections::{BTreeMap, HashMap};

use m3ret_imaging::Code;
use serde::Serialize;

use super::CheckedImage;
use crate::check::report::{Report, Verdict};
use crate::words::format_name;

/// Everything a walk found, without pixels.
#[derive(Debug, Default)]
pub struct Tally {
    /// Images without any warning.
    pub n_ok: u64,
    /// In the order of the paths, as `warned`.
    pub refused: Vec<Report>,
    pub warned: Vec<Report>,
    /// Files that hold no image format.
    pub n_not_images: u64,
    /// Images of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// Images of each modality; those that name none are `unknown`.
    pub modalities: BTreeMap<String, u64>,
    /// Objects of each format, by the names that people write.
    pub formats: BTreeMap<&'static str, u64>,
    /// Objects with each reason.
    pub codes: BTreeMap<Code, u64>,
    same_pixels: HashMap<u128, Vec<Member>>,
}

/// One of several objects with the same pixels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    pub path: String,
    pub part: Option<String>,
}

/// The totals of a walk.
#[derive(Debug, Serialize)]
pub struct CheckSummary<'a> {
    pub n_objects: u64,
    pub n_ok: u64,
    pub n_warning: u64,
    pub n_refused: u64,
    pub n_not_images: u64,
    pub kinds: &'a BTreeMap<String, u64>,
    pub modalities: &'a BTreeMap<String, u64>,
    /// By names in lower case.
    pub formats: BTreeMap<String, u64>,
    pub reason_codes: BTreeMap<&'static str, u64>,
    /// Groups of objects with the same pixels, in the order of their first paths.
    pub duplicate_pixels: Vec<&'a [Member]>,
}

impl Tally {
    /// Counts an image.
    pub fn add(&mut self, image: CheckedImage) {
        let CheckedImage { report, pixels } = image;
        if report.verdict == Verdict::NotAnImage {
            self.n_not_images += 1;
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

    /// Sums up what was counted.
    pub fn summary(&self) -> CheckSummary<'_> {
        let (n_warning, n_refused) = (length(&self.warned), length(&self.refused));
        CheckSummary {
            n_objects: self.n_ok + n_warning + n_refused,
            n_ok: self.n_ok,
            n_warning,
            n_refused,
            n_not_images: self.n_not_images,
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

    /// Returns the groups of objects with the same pixels, in the order of their first paths.
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
