//! Whose image it is: identifiers, which are compared and hashed, and never shown.

use std::fmt;

use dicom_dictionary_std::tags;

use crate::dicom::DataSet;

/// Longest identifier that is kept, in bytes; DICOM allows 64.
const MAX_BYTES: usize = 256;

/// Names that anonymisers give to everybody: as identifiers, they would make one patient of all.
const PLACEHOLDERS: [&str; 12] = [
    "ANON",
    "ANONYM",
    "ANONYMIZED",
    "ANONYMISED",
    "ANONYMOUS",
    "DEIDENTIFIED",
    "NA",
    "NONE",
    "NOID",
    "REMOVED",
    "UNKNOWN",
    "XXX",
];

/// An identifier of a patient, study, series or instance. Printing it prints no part of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identifier(String);

impl Identifier {
    /// Takes an identifier that is not empty and not unreasonably long.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty() && text.len() <= MAX_BYTES).then(|| Self(text.to_owned()))
    }

    /// Returns the identifier itself, for keyed hashing and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Identifier(..)")
    }
}

/// What a file says of whom and what it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identifiers {
    /// DICOM `PatientID`, with its issuer where that is stated. `None` for the names that
    /// anonymisers give to everybody.
    pub patient_id: Option<Identifier>,
    /// DICOM `StudyInstanceUID`.
    pub study_instance_uid: Option<Identifier>,
    /// DICOM `SeriesInstanceUID`.
    pub series_instance_uid: Option<Identifier>,
}

impl Identifiers {
    /// Reads the identifiers of a data set.
    pub(crate) fn of(set: &DataSet<'_>) -> Self {
        let of = |tag| {
            set.bytes(tag)
                .and_then(|bytes| Identifier::new(&text_of(bytes)))
        };
        let named = |tag| of(tag).filter(|id| !is_placeholder(&id.0));
        let patient = named(tags::PATIENT_ID);
        // The same number means another patient elsewhere.
        let issuer = named(tags::ISSUER_OF_PATIENT_ID);
        Self {
            patient_id: match (patient, issuer) {
                // No identifier holds the separator.
                (Some(patient), Some(issuer)) => {
                    Identifier::new(&format!("{}\u{1f}{}", issuer.0, patient.0))
                }
                (patient, _) => patient,
            },
            study_instance_uid: of(tags::STUDY_INSTANCE_UID),
            series_instance_uid: of(tags::SERIES_INSTANCE_UID),
        }
    }

    /// Keeps what both say alike: slices of several patients belong to none.
    pub(crate) fn keep_common(&mut self, other: &Self) {
        let keep = |own: &mut Option<Identifier>, other: &Option<Identifier>| {
            if own != other {
                *own = None;
            }
        };
        keep(&mut self.patient_id, &other.patient_id);
        keep(&mut self.study_instance_uid, &other.study_instance_uid);
        keep(&mut self.series_instance_uid, &other.series_instance_uid);
    }
}

/// Turns bytes of whatever character set into a text: different bytes, different texts.
fn text_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

fn is_placeholder(id: &str) -> bool {
    let letters = id.chars().filter(|c| c.is_alphanumeric());
    let plain: String = letters.flat_map(char::to_uppercase).collect();
    plain.chars().all(|c| c == '0') || PLACEHOLDERS.contains(&plain.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_not_printed() {
        let id = Identifier::new(" MRN-4711 \0").unwrap();
        assert_eq!(id.expose(), "MRN-4711");
        let identifiers = Identifiers {
            patient_id: Some(id),
            ..Identifiers::default()
        };
        assert!(!format!("{identifiers:?}").contains("4711"));
    }

    #[test]
    fn what_anonymisers_write_is_no_identifier() {
        for (id, expected) in [
            ("ANONYMOUS", true),
            ("anon.", true),
            ("000000", true),
            ("--", true),
            ("Anonymous^17", false),
            ("0017", false),
            ("\u{5c71}\u{7530}", false),
        ] {
            assert_eq!(is_placeholder(id), expected, "{id}");
        }
        assert!(Identifier::new("").is_none() && Identifier::new(&"x".repeat(300)).is_none());
    }

    #[test]
    fn identifiers_in_other_character_sets_stay_apart() {
        assert_ne!(text_of(b"M\xfcller"), text_of(b"M\xf6ller"));
        assert_eq!(text_of(b"0017"), "0017");
    }

    #[test]
    fn slices_that_disagree_have_no_identifier() {
        let of = |patient: &str, study: &str| Identifiers {
            patient_id: Identifier::new(patient),
            study_instance_uid: Identifier::new(study),
            series_instance_uid: None,
        };
        let mut common = of("a", "1");
        common.keep_common(&of("b", "1"));
        assert_eq!(common, of("", "1"));
    }
}
