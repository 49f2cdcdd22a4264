//! Lists CT volumes, and what manifests state about them.

use m3ret_manifest::path_of;
use std::collections::HashSet;
use std::path::PathBuf;

use m3ret_imaging::ReadOptions;
use m3ret_manifest::Row;
use m3ret_manifest::columns::{BODY_PART, FINDING, LICENSE, PAIR, PATIENT, SOURCE, SPLIT};
use m3ret_manifest::columns::{DIMS, DISTURBED, MODALITY};

use super::folder;
use super::picture::Subject;
use super::{ANGLES, RadiographOptions};
use crate::embed::Outputs;
use crate::embed::items::{self, Content, Item};
use crate::options::FolderChoice;
use crate::words::counted;

/// Prefix of the sources of simulated radiographs.
const SIMULATED: &str = "drr-";

/// Everything that is read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) cts: Vec<Ct>,
    /// Simulated radiographs of manifests, where these are disturbed.
    pub(super) radiographs: Vec<Ct>,
    /// CT volumes that share a pair with one of them.
    pub(super) partners: Vec<Ct>,
    /// Rows of manifests that are no CT volumes.
    pub(super) n_others: usize,
    /// Rows of manifests that are disturbed radiographs already, where radiographs are to be disturbed.
    pub(super) n_disturbed: usize,
    /// Files of folders that hold no image format.
    pub(super) n_foreign: usize,
}

/// What may be a CT volume, or a simulated radiograph.
#[derive(Debug)]
pub(super) struct Ct {
    pub(super) item: Item,
    /// The file, or the folder of the series.
    pub(super) file: PathBuf,
    /// Whether it was named itself, or a manifest calls it a CT volume; it is then refused if it is none.
    pub(super) is_certain: bool,
    pub(super) labels: Labels,
}

impl Listing {
    /// Names the options that have no effect on the radiographs of manifests, and what these lack.
    pub(super) fn notes(&self, options: &RadiographOptions) -> Vec<String> {
        let mut notes = Vec::new();
        if self.radiographs.is_empty() {
            return notes;
        }
        let settings = [
            ("--angles", options.angles != ANGLES),
            ("--side", options.side_px.is_some()),
            ("--window", options.window.is_some()),
        ];
        let given = settings.iter().filter(|(_, is_given)| *is_given);
        let given: Vec<&str> = given.map(|(name, _)| *name).collect();
        if !given.is_empty() {
            notes.push(format!(
                "{} count for pictures that are projected from CT, and change none of the {} that the \
                 manifest has",
                given.join(", "),
                counted(self.radiographs.len() as u64, "radiograph", "radiographs"),
            ));
        }
        let lonely = self.radiographs.iter();
        let n_lonely = lonely.filter(|ct| ct.labels.pair_id.is_empty()).count();
        if n_lonely > 0 {
            notes.push(format!(
                "{} without a pair_id: m3ret evaluate has no pair task for {}; give a CT and its \
                 radiographs the same pair_id",
                counted(n_lonely as u64, "radiograph", "radiographs"),
                if n_lonely == 1 { "it" } else { "them" },
            ));
        }
        notes
    }
}

impl Ct {
    /// The part of the file that the row names.
    pub(super) fn part(&self) -> Option<String> {
        match &self.item.content {
            Content::Row { part, .. } => part.clone(),
            Content::Object(object) => object.part.clone(),
            Content::Memory(_) | Content::Unreadable { .. } => None,
        }
    }
}

/// Labels of a CT that hold for its radiographs; empty where unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) body_part: String,
    /// The finding of the CT, which its radiographs do not share.
    pub(super) finding: String,
    pub(super) patient_id: String,
    pub(super) source: String,
    pub(super) split: String,
    pub(super) license: String,
    pub(super) pair_id: String,
}

impl Labels {
    fn of(row: Row<'_>) -> Self {
        let cell = |column: &str| row.get(column).unwrap_or_default().to_owned();
        Self {
            body_part: cell(BODY_PART),
            finding: cell(FINDING),
            patient_id: cell(PATIENT),
            source: cell(SOURCE),
            split: cell(SPLIT),
            license: cell(LICENSE),
            pair_id: cell(PAIR),
        }
    }

    /// Fills in the body part that the volume states, and a new pair where there is none.
    pub(super) fn completed(&self, subject: &Subject) -> Self {
        let mut labels = self.clone();
        if labels.body_part.is_empty() {
            let stated = subject.body_part.as_deref().unwrap_or_default();
            labels.body_part = stated.to_lowercase();
        }
        if labels.pair_id.is_empty() {
            labels.pair_id = format!("drr-{:016x}", subject.key >> 64);
        }
        labels
    }

    /// The row of one radiograph.
    pub(super) fn radiograph_row(
        &self,
        name: String,
        finding: &str,
        disturb: Option<u64>,
    ) -> folder::Row {
        let source = match self.source.as_str() {
            "" => format!("{SIMULATED}m3ret"),
            source => format!("{SIMULATED}{source}"),
        };
        [
            name,
            "DX".into(),
            self.body_part.clone(),
            finding.into(),
            self.patient_id.clone(),
            source,
            self.split.clone(),
            "2d".into(),
            self.license.clone(),
            self.pair_id.clone(),
            String::new(),
            disturb.map_or_else(String::new, |seed| seed.to_string()),
        ]
    }

    /// The row of a radiograph that was there and is disturbed; it keeps its own source and finding.
    pub(super) fn disturbed_row(&self, name: String, seed: u64) -> folder::Row {
        let own = Self {
            source: self
                .source
                .strip_prefix(SIMULATED)
                .unwrap_or(&self.source)
                .to_owned(),
            ..self.clone()
        };
        own.radiograph_row(name, &self.finding, Some(seed))
    }
}

/// Lists the volumes of every source, and the simulated radiographs of manifests if these are to be
/// disturbed.
pub(super) fn list(
    sources: &[PathBuf],
    options: &ReadOptions,
    is_disturbing: bool,
) -> anyhow::Result<Listing> {
    let mut all = Listing::default();
    for source in sources {
        let listing = items::list(
            source,
            &Outputs::default(),
            options,
            &FolderChoice::every_file(),
        )?;
        all.n_foreign += listing.n_foreign;
        let is_file = source.is_file();
        let (mut cts, mut radiographs) = (Vec::new(), Vec::new());
        for (idx, item) in listing.items.into_iter().enumerate() {
            let row = listing.table.as_ref().and_then(|table| table.row(idx));
            let file = file_of(&item);
            let (is_candidate, is_certain) = match row {
                Some(row) => says_ct_volume(row),
                None => (true, is_file),
            };
            let is_simulated = is_disturbing && row.is_some_and(says_simulated_radiograph);
            let seed = row.and_then(|row| row.get(DISTURBED));
            let is_disturbed = seed.is_some_and(|seed| !seed.is_empty());
            let ct = Ct {
                item,
                file,
                is_certain,
                labels: row.map(Labels::of).unwrap_or_default(),
            };
            match (is_simulated, is_disturbed, is_candidate) {
                (true, true, _) => all.n_disturbed += 1,
                (true, false, _) => radiographs.push(ct),
                (false, _, true) => cts.push(ct),
                (false, _, false) => all.n_others += 1,
            }
        }
        all.cts.append(&mut cts);
        all.radiographs.append(&mut radiographs);
    }
    // A CT and its radiographs may stand in two manifests.
    let pairs: HashSet<&str> = all
        .radiographs
        .iter()
        .map(|radiograph| radiograph.labels.pair_id.as_str())
        .filter(|pair| !pair.is_empty())
        .collect();
    let has_radiograph = |ct: &Ct| pairs.contains(ct.labels.pair_id.as_str());
    let (partners, others) = std::mem::take(&mut all.cts)
        .into_iter()
        .partition(has_radiograph);
    (all.partners, all.cts) = (partners, others);
    Ok(all)
}

/// Returns whether a row is a radiograph that was simulated.
fn says_simulated_radiograph(row: Row<'_>) -> bool {
    let cell = |column: &str| row.get(column).unwrap_or_default();
    let is_plane = cell(DIMS).is_empty() || cell(DIMS).eq_ignore_ascii_case("2d");
    is_plane && cell(MODALITY).eq_ignore_ascii_case("DX") && cell(SOURCE).starts_with(SIMULATED)
}

fn file_of(item: &Item) -> PathBuf {
    match &item.content {
        Content::Object(object) => object.path.clone(),
        Content::Row { path, .. } => path.clone(),
        Content::Memory(_) | Content::Unreadable { .. } => path_of(&item.path),
    }
}

/// Returns whether a row may be a CT volume, and whether it says so.
fn says_ct_volume(row: Row<'_>) -> (bool, bool) {
    let says = |column: &str, wanted: &str| {
        let cell = row.get(column).unwrap_or_default();
        (cell.is_empty(), cell.eq_ignore_ascii_case(wanted))
    };
    let (no_modality, is_ct) = says(MODALITY, "CT");
    let (no_dims, is_3d) = says(DIMS, "3d");
    let is_candidate = (no_modality || is_ct) && (no_dims || is_3d);
    (is_candidate, is_ct && is_3d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_gets_a_name_that_only_its_values_make() {
        let subject = Subject {
            key: 0x0123_4567_89ab_cdef << 64,
            body_part: Some("CHEST".into()),
        };
        let labels = Labels::default().completed(&subject);
        assert_eq!(labels.pair_id, "drr-0123456789abcdef");
        assert_eq!(labels.body_part, "chest");
        let known = Labels {
            pair_id: "p7".into(),
            body_part: "head".into(),
            source: "lab".into(),
            ..Labels::default()
        };
        assert_eq!(known.completed(&subject), known);
        let row = known.radiograph_row("1.png".into(), "drr-ap", None);
        assert_eq!(row[..6], ["1.png", "DX", "head", "drr-ap", "", "drr-lab"]);
        assert_eq!(row[10..], ["", ""]);
        let there = Labels {
            source: "drr-lab".into(),
            finding: "drr-lat".into(),
            ..known
        };
        let row = there.disturbed_row("2.png".into(), 5);
        assert_eq!(row[..6], ["2.png", "DX", "head", "drr-lat", "", "drr-lab"]);
        assert_eq!(row[9..], ["p7", "", "5"]);
    }
}
