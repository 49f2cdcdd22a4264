//! What the words in a manifest's cells mean: no value at all, nobody in particular, or MR.

use super::columns::{ID, PATH, is_identifier, meaning};

/// What programs write into a cell without a value.
const MISSING: [&str; 7] = ["nan", "nat", "<na>", "n/a", "#n/a", "null", "(null)"];

/// What people and anonymisers write where a patient is not known: as identifiers, these words would
/// make one patient of all.
const NOBODY: [&str; 17] = [
    "-",
    "--",
    "?",
    "anon",
    "anonym",
    "anonymized",
    "anonymised",
    "anonymous",
    "deidentified",
    "na",
    "no id",
    "noid",
    "none",
    "removed",
    "unknown",
    "unk",
    "xxx",
];

/// Words in a label that may mean that nothing is known.
const DOUBTFUL: [&str; 9] = [
    "-",
    "--",
    "?",
    "na",
    "none",
    "undefined",
    "unknown",
    "unk",
    "not available",
];

/// Words that say MR, whatever else stands beside them.
const MR: [&str; 19] = [
    "mr", "mri", "mrt", "mra", "mrs", "fmri", "irm", "rm", "t1", "t1w", "t1ce", "t1c", "t2", "t2w",
    "flair", "dwi", "adc", "swi", "magnetic",
];

/// Words that say PET.
const PET: [&str; 3] = ["pet", "pt", "positron"];

/// Words that say another modality: DICOM's codes, and what people write.
const OTHER: [&str; 38] = [
    "ar",
    "bi",
    "bmd",
    "cr",
    "ct",
    "cbct",
    "dermoscopy",
    "dg",
    "dx",
    "dr",
    "ecg",
    "endoscopy",
    "es",
    "fundus",
    "gm",
    "io",
    "ivoct",
    "ivus",
    "mammography",
    "mg",
    "nm",
    "oct",
    "op",
    "opt",
    "px",
    "radiograph",
    "radiography",
    "rf",
    "rg",
    "sm",
    "spect",
    "ultrasound",
    "us",
    "video",
    "xa",
    "xc",
    "xray",
    "ray",
];

/// Returns whether a modality is MR.
#[must_use]
pub fn is_mr(modality: &str) -> bool {
    has_word(modality, &MR)
}

/// Returns whether a modality is one that no encoder of ours is trained on: MR, or PET without another.
#[must_use]
pub fn is_unseen(modality: &str) -> bool {
    is_mr(modality) || (has_word(modality, &PET) && !has_word(modality, &OTHER))
}

/// Returns whether nothing in a modality tells it from MR.
#[must_use]
pub fn is_unknown_modality(modality: &str) -> bool {
    ![&MR[..], &PET, &OTHER]
        .iter()
        .any(|words| has_word(modality, words))
}

fn has_word(modality: &str, words: &[&str]) -> bool {
    let mut parts = modality.split(|c: char| !c.is_ascii_alphanumeric());
    parts.any(|part| is_one_of(part, words))
}

fn is_one_of(cell: &str, words: &[&str]) -> bool {
    words.iter().any(|word| cell.eq_ignore_ascii_case(word))
}

/// How the cells of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A path: as it is written.
    Path,
    /// A name of the user's, whatever word it is.
    Name,
    /// Words for nobody are no identifier.
    Identifier,
    /// Anything else.
    Label,
}

impl Kind {
    pub(super) fn of(column: &str) -> Self {
        match meaning(column) {
            Some(PATH) => Self::Path,
            Some(ID) => Self::Name,
            _ if is_identifier(column) => Self::Identifier,
            _ => Self::Label,
        }
    }

    /// Returns what a cell says: without space around it, and nothing where a word stands for it.
    pub(super) fn read(self, cell: &str) -> &str {
        let trimmed =
            cell.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0');
        match self {
            Self::Path => cell,
            Self::Identifier if is_nobody(trimmed) => "",
            Self::Label if is_missing(trimmed) => "",
            Self::Name | Self::Identifier | Self::Label => trimmed,
        }
    }
}

fn is_missing(cell: &str) -> bool {
    // Nearly all cells are longer or end here, so the list is rarely walked.
    (3..=6).contains(&cell.len()) && is_one_of(cell, &MISSING)
}

/// Returns whether an identifier stands for nobody in particular, as `anonymous` does.
#[must_use]
pub fn is_nobody(cell: &str) -> bool {
    cell.len() <= 13 && (is_missing(cell) || is_one_of(cell, &NOBODY))
}

/// Returns whether a label may mean that nothing is known.
pub(super) fn is_doubtful(label: &str) -> bool {
    is_one_of(label, &DOUBTFUL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modalities_are_told_by_any_of_their_words() {
        for (modality, mr, unseen, unknown) in [
            ("MR", true, true, false),
            ("brain MRI", true, true, false),
            ("T2w", true, true, false),
            ("mr", true, true, false),
            ("PT", false, true, false),
            ("PET/CT", false, false, false),
            ("CT", false, false, false),
            ("X-ray", false, false, false),
            ("", false, false, true),
            ("image", false, false, true),
        ] {
            let found = (
                is_mr(modality),
                is_unseen(modality),
                is_unknown_modality(modality),
            );
            assert_eq!(found, (mr, unseen, unknown), "{modality}");
        }
    }

    #[test]
    fn words_for_nothing_are_no_value() {
        let read = |column: &str, cell| Kind::of(column).read(cell).to_owned();
        for cell in ["nan", "NaN", "<NA>", "null", " nan ", "\u{a0}"] {
            assert_eq!(read("finding", cell), "", "{cell}");
            assert_eq!(read("PatientID", cell), "", "{cell}");
        }
        for cell in ["Unknown", "ANONYMOUS", "?", "none"] {
            assert_eq!(read("patient_id", cell), "", "{cell}");
            assert_eq!(read("finding", cell), cell, "a label may mean it");
        }
        // Numbers with zeros in front often begin at 0000.
        for cell in ["0", "0000", "Nando", "p 7"] {
            assert_eq!(read("patient_id", cell), cell);
        }
        assert_eq!(read("path", " a "), " a ");
        assert_eq!(read("id", " lung 7\u{a0}"), "lung 7");
        assert_eq!(read("ID", "none"), "none", "a name may be any word");
        assert_eq!(read("source", " A\t"), "A");
    }
}
