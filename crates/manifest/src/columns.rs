//! What the columns of a manifest mean: the only place that spells their names.
//!
//! A column is recognised whatever its case, and with or without spaces, `-`, `_` and `.` in its name:
//! `Patient ID`, `PatientID` and `patient_id` are one column, and so is `subject_id`. A manifest's
//! columns are known by our own names from there on.

use std::collections::{HashMap, HashSet};

use m3ret_imaging::{Error, Result};

use super::privacy::{Storage, storage};
use super::{FORMAT, bounds};

/// Where an image lies; the one column that every manifest has.
pub const PATH: &str = "path";
/// Which image of a file that holds several.
pub const PART: &str = "part";
/// The user's own name of an image.
pub const ID: &str = "id";
/// How an image was made, e.g. `CT`.
pub const MODALITY: &str = "modality";
/// What an image shows, e.g. `chest`.
pub const BODY_PART: &str = "body_part";
/// What is to be seen in it; several labels are joined by `|`.
pub const FINDING: &str = "finding";
/// Whose image it is.
pub const PATIENT: &str = "patient_id";
/// In which visit it was made.
pub const STUDY: &str = "study_id";
/// In which acquisition it was made.
pub const SERIES: &str = "series_id";
/// The data set or the site that an image is from.
pub const SOURCE: &str = "source";
/// `pretrain`, `query`, `gallery` or a word of the user's.
pub const SPLIT: &str = "split";
/// `2d`, `3d` or `video`.
pub const DIMS: &str = "dims";
/// The licence of an image.
pub const LICENSE: &str = "license";
/// Equal for images that show the same thing, e.g. a CT and its radiograph.
pub const PAIR: &str = "pair_id";
/// Not empty for a simulated radiograph that was disturbed.
pub const DISTURBED: &str = "disturbed";
/// The folder that an image of a folder lies in, where names of folders are used as labels.
pub const LABEL: &str = "label";
/// The way to that folder.
pub const FOLDER: &str = "folder";
/// How an image was made, as its values suggest; galleries keep it beside `MODALITY`.
pub const MODALITY_GUESS: &str = "modality_guess";
/// The vectors of images, in tables that `m3ret embed` writes: lists of numbers.
pub const EMBEDDING: &str = "embedding";

/// The columns that `m3ret` writes into its own manifests, in that order.
pub const COLUMNS: [&str; 10] = [
    PATH, MODALITY, BODY_PART, FINDING, PATIENT, SOURCE, SPLIT, DIMS, LICENSE, PAIR,
];

/// Columns whose names begin so are m3ret's own; no manifest may have one.
pub const OWN_PREFIX: &str = "m3ret:";

/// Our name of a column, and the other names that mean the same, as `plain` has them.
const NAMES: [(&str, &[&str]); 15] = [
    (PATH, &["path"]),
    (PART, &["part"]),
    (ID, &["id"]),
    (MODALITY, &["modality"]),
    (BODY_PART, &["bodypart", "bodypartexamined"]),
    (FINDING, &["finding"]),
    (PATIENT, &["patientid", "subjectid"]),
    (STUDY, &["studyid", "studyuid", "studyinstanceuid"]),
    (SERIES, &["seriesid", "seriesuid", "seriesinstanceuid"]),
    (SOURCE, &["source"]),
    (SPLIT, &["split"]),
    (DIMS, &["dims"]),
    (LICENSE, &["license", "licence"]),
    (PAIR, &["pairid"]),
    (DISTURBED, &["disturbed"]),
];

/// Names of the patient's column where no other has that meaning, the likeliest first: without it, patients would be
/// strangers to their own images.
const PATIENTS: [&str; 20] = [
    "patient",
    "mrn",
    "medicalrecordnumber",
    "subject",
    "patientnumber",
    "patientno",
    "patientnr",
    "patientennummer",
    "patientenid",
    "idpatient",
    "numeropatient",
    "idpaciente",
    "paciente",
    "personid",
    "ptid",
    "pid",
    "nhsnumber",
    "hospitalnumber",
    "patients",
    "subjects",
];

/// Names that are often given to what we call otherwise. They are not used, since they may mean
/// something else, and the user is told.
const NEARLY: [(&str, &[&str]); 8] = [
    (
        PATH,
        &[
            "file",
            "filename",
            "filepath",
            "image",
            "imagepath",
            "imgpath",
            "files",
            "paths",
            "dicompath",
            "niftipath",
        ],
    ),
    (MODALITY, &["modalities", "imagingmodality", "modal"]),
    (BODY_PART, &["bodyparts", "organ", "anatomy", "bodyregion"]),
    (
        FINDING,
        &[
            "findings",
            "findinglabels",
            "label",
            "labels",
            "diagnosis",
            "class",
            "pathology",
            "disease",
        ],
    ),
    (
        SPLIT,
        &["splits", "subset", "fold", "partition", "datasplit"],
    ),
    (
        SOURCE,
        &[
            "sources",
            "dataset",
            "site",
            "institution",
            "center",
            "centre",
        ],
    ),
    (LICENSE, &["licenses", "licences"]),
    (PAIR, &["pair", "pairs"]),
];

/// Columns that name people, as `plain` has them.
const PEOPLE: [&str; 12] = [
    "patientname",
    "name",
    "patientbirthdate",
    "birthdate",
    "dateofbirth",
    "accessionnumber",
    "address",
    "patientaddress",
    "phone",
    "telephone",
    "email",
    "patientssname",
];

/// Returns a name as it is compared: lower case, without spaces, `-`, `_` and `.`.
fn plain(name: &str) -> String {
    let kept = name
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '_' | '.'));
    kept.flat_map(char::to_lowercase).collect()
}

/// Returns our name of a column, if it has a meaning.
#[must_use]
pub fn meaning(name: &str) -> Option<&'static str> {
    find(&NAMES, name)
}

/// Returns the column that a name is nearly, if it is not one.
pub(super) fn nearly(name: &str) -> Option<&'static str> {
    find(&NEARLY, name)
}

fn find(names: &[(&'static str, &[&str])], name: &str) -> Option<&'static str> {
    let plain = plain(name);
    let found = names
        .iter()
        .find(|(_, others)| others.contains(&plain.as_str()));
    found.map(|&(ours, _)| ours)
}

/// Returns whether a column is the patient's where no other is.
#[must_use]
pub fn is_patient(name: &str) -> bool {
    PATIENTS.contains(&plain(name).as_str())
}

/// Gives the likeliest column our name of the patient's, if none has it.
fn find_patient(names: &mut [String]) {
    if names.iter().any(|name| name == PATIENT) {
        return;
    }
    let rank = |name: &String| {
        let plain = plain(name);
        PATIENTS.iter().position(|other| *other == plain)
    };
    let ranked = names
        .iter_mut()
        .filter_map(|name| Some((rank(name)?, name)));
    if let Some((_, name)) = ranked.min_by_key(|(rank, _)| *rank) {
        PATIENT.clone_into(name);
    }
}

/// Returns whether a column identifies patients, studies or series: its values are hashed.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    matches!(meaning(name), Some(PATIENT | STUDY | SERIES))
}

/// Returns whether a column names people: nothing of it is stored.
#[must_use]
pub fn names_people(name: &str) -> bool {
    PEOPLE.contains(&plain(name).as_str())
}

/// The columns of one manifest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// The names by which the program knows the columns: our own for those with a meaning.
    pub(super) names: Vec<String>,
    /// The names as they are written in the manifest.
    pub(super) written: Vec<String>,
    /// The position of `path`.
    pub(super) path_idx: usize,
    /// What galleries do with the columns.
    pub(super) storage: Vec<Storage>,
}

impl Header {
    /// Gives the columns our names.
    ///
    /// Of several columns with one meaning, the one that is written as we write it is used, and the
    /// others keep their own names.
    ///
    /// # Errors
    /// `Malformed` if a name comes twice, two columns mean the same and none is written as we write
    /// it, one has our prefix, or none is `path`.
    pub(super) fn new(written: Vec<String>) -> Result<Self> {
        bounds::columns(written.len())?;
        refuse_repeated(&written)?;
        let all: HashSet<&str> = written.iter().map(String::as_str).collect();
        let mut names: Vec<String> = Vec::with_capacity(written.len());
        for (idx, name) in written.iter().enumerate() {
            if name.starts_with(OWN_PREFIX) {
                return Err(Error::malformed(
                    FORMAT,
                    format!(
                        "column {} with a name that begins with {OWN_PREFIX}",
                        idx + 1
                    ),
                    "another name: these are m3ret's own",
                ));
            }
            let ours = meaning(name).filter(|ours| name == ours || !all.contains(ours));
            if let Some(ours) = ours
                && let Some(first) = names.iter().position(|other| other == ours)
            {
                return Err(Error::malformed(
                    FORMAT,
                    format!(
                        "columns {} and {} that both mean {ours}",
                        first + 1,
                        idx + 1
                    ),
                    format!("the name {ours} for the one that counts"),
                ));
            }
            names.push(ours.map_or_else(|| name.clone(), str::to_owned));
        }
        find_patient(&mut names);
        let path_idx = names.iter().position(|name| name == PATH);
        let path_idx = path_idx.ok_or_else(|| without_path(&written))?;
        let storage = names.iter().map(|name| storage(name)).collect();
        Ok(Self {
            names,
            written,
            path_idx,
            storage,
        })
    }

    /// Returns what a user should know of the columns.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let all: HashSet<&str> = self.names.iter().map(String::as_str).collect();
        for (ours, written) in self.names.iter().zip(&self.written) {
            if ours != written {
                notes.push(format!("column {written} is used as {ours}"));
            } else if let Some(other) = meaning(written).filter(|other| other != ours) {
                notes.push(format!(
                    "column {written} is not used: there is a column {other}"
                ));
            } else if let Some(other) = nearly(written)
                && !all.contains(other)
            {
                notes.push(format!(
                    "column {written} has no meaning to m3ret; rename it {other} if that is what it holds"
                ));
            }
        }
        notes
    }
}

/// Names that are not ours are not repeated in errors: without a header line, they are a row's cells.
fn refuse_repeated(written: &[String]) -> Result<()> {
    let mut places = HashMap::with_capacity(written.len());
    for (idx, name) in written.iter().enumerate() {
        let Some(first) = places.insert(name, idx) else {
            continue;
        };
        let named = meaning(name).map_or_else(String::new, |ours| format!(" ({ours})"));
        return Err(Error::malformed(
            FORMAT,
            format!(
                "columns {} and {} with the same name{named}",
                first + 1,
                idx + 1
            ),
            "every column once",
        ));
    }
    Ok(())
}

fn without_path(written: &[String]) -> Error {
    let plural = if written.len() == 1 {
        "column"
    } else {
        "columns"
    };
    let candidate = written.iter().position(|name| nearly(name) == Some(PATH));
    let wanted = match candidate {
        // A name of our own list is no patient's.
        Some(idx) => format!("a column path; rename column {}, if it names the files", idx + 1),
        None => "a first line that names the columns, path among them, separated by commas, semicolons or tabs"
            .to_owned(),
    };
    Error::malformed(
        FORMAT,
        format!("{} {plural}, none of them named path", written.len()),
        wanted,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(names: &[&str]) -> Result<Header> {
        Header::new(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn every_spelling_of_a_column_is_the_column() {
        for (written, ours) in [
            ("Patient ID", Some(PATIENT)),
            ("PatientID", Some(PATIENT)),
            ("subject-id", Some(PATIENT)),
            ("SPLIT", Some(SPLIT)),
            ("BodyPartExamined", Some(BODY_PART)),
            ("StudyInstanceUID", Some(STUDY)),
            ("licence", Some(LICENSE)),
            ("pixels", None),
            ("patient", None),
            ("mrn", None),
        ] {
            assert_eq!(meaning(written), ours, "{written}");
        }
        for (ours, _) in NAMES {
            assert_eq!(meaning(ours), Some(ours));
        }
        for (near, others) in NEARLY {
            assert!(
                others.iter().all(|other| meaning(other).is_none()),
                "{near}"
            );
        }
        assert!(
            names_people("Patient_Name")
                && is_identifier("series uid")
                && !is_identifier("pair_id")
        );
    }

    #[test]
    fn the_name_as_we_write_it_counts_more_than_another() {
        let found = header(&["subject_id", "patient_id", "Path", "Finding"]).unwrap();
        assert_eq!(found.names, ["subject_id", "patient_id", "path", "finding"]);
        assert_eq!(found.path_idx, 2);
        assert_eq!(
            found.notes(),
            [
                "column subject_id is not used: there is a column patient_id",
                "column Path is used as path",
                "column Finding is used as finding",
            ]
        );
    }

    #[test]
    fn the_patient_is_found_under_another_name_where_no_column_has_ours() {
        for (written, patient) in [
            (&["path", "MRN", "Subject"][..], Some(1)),
            (&["path", "mrn", "patient"], Some(2)),
            (&["path", "Patienten-Nr", "Patientennummer"], Some(2)),
            (&["path", "mrn", "PatientID"], Some(2)),
            (&["path", "case"], None),
        ] {
            let found = header(written).unwrap();
            assert_eq!(found.names.iter().position(|name| name == PATIENT), patient);
        }
        let notes = header(&["path", "MRN"]).unwrap().notes();
        assert_eq!(notes, ["column MRN is used as patient_id"]);
    }

    #[test]
    fn two_columns_of_one_meaning_and_our_own_names_are_refused() {
        for (names, found) in [
            (
                &["path", "PatientID", "SubjectID"][..],
                "columns 2 and 3 that both mean patient_id",
            ),
            (
                &["path", "m3ret:root"],
                "column 2 with a name that begins with m3ret:",
            ),
            (&["path", "x", "x"], "columns 2 and 3 with the same name"),
            (&["file_name", "x"], "rename column 1"),
        ] {
            let error = header(names).unwrap_err().to_string();
            assert!(error.contains(found), "{error}");
        }
    }
}
