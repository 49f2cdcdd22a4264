//! Which columns of a manifest a gallery may store, by their names.
//!
//! Galleries are copied and shared. So they store the columns that m3ret knows, and of others those that a person asks
//! for by name. A name that says that a column identifies or describes a person is recognised in many spellings; such
//! a column is stored as keyed hashes or not at all, whoever asks.

use super::columns::{self, COLUMNS, DISTURBED, ID, LABEL, PART, PATIENT};

/// What a gallery does with a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// It stores the cells.
    Plain,
    /// It stores the cells as hashes of this kind, keyed with its secret.
    Hashed(String),
    /// It stores the cells if a person asks for the column.
    OnRequest,
    /// It stores hashes of this kind if a person asks for the column.
    HashedOnRequest(String),
    /// It stores nothing of the column.
    Never,
}

impl Storage {
    /// Returns what is done with a column that a person asked for.
    #[must_use]
    pub fn requested(self) -> Self {
        match self {
            Self::OnRequest => Self::Plain,
            Self::HashedOnRequest(kind) => Self::Hashed(kind),
            Self::Plain | Self::Hashed(_) | Self::Never => self,
        }
    }

    /// Returns whether anything of the column is stored.
    #[must_use]
    pub fn stores(&self) -> bool {
        matches!(self, Self::Plain | Self::Hashed(_))
    }
}

/// What a name says of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Nothing,
    /// Its cells are numbers of persons, visits or objects.
    Identifies,
    /// Its cells describe persons: names, places, dates, and text that may hold any of them.
    Describes,
}

/// Parts of names of columns that describe people, as `bare` has them.
const DESCRIBES: [&str; 56] = [
    "patientname",
    "nameofpatient",
    "subjectname",
    "personname",
    "patientsname",
    "firstname",
    "lastname",
    "fullname",
    "givenname",
    "familyname",
    "surname",
    "maidenname",
    "mothername",
    "nachname",
    "vorname",
    "familienname",
    "geburtsname",
    "prenom",
    "apellido",
    "nombre",
    "nomdupatient",
    "nompatient",
    "birth",
    "geburt",
    "geboren",
    "naissance",
    "nacimiento",
    "nascita",
    "geboorte",
    "address",
    "adress",
    "anschrift",
    "direccion",
    "street",
    "strasse",
    "postcode",
    "postalcode",
    "zipcode",
    "phone",
    "telefon",
    "email",
    "physician",
    "doctor",
    "radiologist",
    "referring",
    "operator",
    "report",
    "befund",
    "impression",
    "narrative",
    "freetext",
    "comment",
    "clinicalhistory",
    "initials",
    "contact",
    "clinicalinformation",
];

/// Whole names of columns that describe people.
const DESCRIBES_WHOLE: [&str; 22] = [
    "name",
    "names",
    "nom",
    "dob",
    "born",
    "plz",
    "zip",
    "mail",
    "text",
    "notes",
    "history",
    "indication",
    "dod",
    "when",
    "day",
    "time",
    "arzt",
    "doc",
    "person",
    "mobile",
    "fax",
    "city",
];

/// Parts of names of columns that identify people, visits or objects.
const IDENTIFIES: [&str; 28] = [
    "mrn",
    "accno",
    "chartno",
    "nhs",
    "ssn",
    "accession",
    "medicalrecord",
    "hospitalnumber",
    "hospitalid",
    "hospitalno",
    "hospitalnr",
    "healthnumber",
    "insurance",
    "socialsecurity",
    "versicher",
    "passport",
    "nationalid",
    "patientid",
    "patientnumber",
    "patientno",
    "patientnr",
    "patienten",
    "idpatient",
    "idpaciente",
    "paciente",
    "numeropatient",
    "encounter",
    "admission",
];

/// Whole names of columns that identify people, visits or objects.
const IDENTIFIES_WHOLE: [&str; 13] = [
    "patient",
    "patients",
    "subject",
    "subjects",
    "pid",
    "ptid",
    "personid",
    "caseid",
    "case",
    "visit",
    "visitid",
    "fallnummer",
    "exam",
];

/// Ends of words that hold `date` and are no dates.
const NO_DATES: [&str; 5] = ["update", "candidate", "validate", "mandate", "antedate"];

/// Returns a name as it is searched: lower case, letters and digits alone, and letters without their accents.
fn bare(name: &str) -> String {
    let letters = name.chars().flat_map(char::to_lowercase);
    letters
        .filter_map(plain_letter)
        .collect::<String>()
        .replace('\u{df}', "ss")
}

fn plain_letter(letter: char) -> Option<char> {
    let plain = match letter {
        '\u{e0}'..='\u{e5}' => 'a',
        '\u{e7}' => 'c',
        '\u{e8}'..='\u{eb}' => 'e',
        '\u{ec}'..='\u{ef}' => 'i',
        '\u{f1}' => 'n',
        '\u{f2}'..='\u{f6}' => 'o',
        '\u{f9}'..='\u{fc}' => 'u',
        other => other,
    };
    plain.is_alphanumeric().then_some(plain)
}

fn is_date(bare: &str) -> bool {
    let has = |part: &str| bare.contains(part);
    let is_english = (bare.starts_with("date") || bare.ends_with("date") || has("datetime"))
        && !NO_DATES.iter().any(|word| bare.ends_with(word));
    is_english
        || has("datum")
        || has("fecha")
        || has("timestamp")
        || ["studytime", "seriestime", "acquisitiontime", "contenttime"].contains(&bare)
}

fn telling(name: &str) -> Telling {
    let bare = bare(name);
    let has = |parts: &[&str]| parts.iter().any(|part| bare.contains(part));
    if columns::names_people(name)
        || has(&DESCRIBES)
        || DESCRIBES_WHOLE.contains(&bare.as_str())
        || is_date(&bare)
    {
        return Telling::Describes;
    }
    let is_uid = bare.ends_with("uid") || bare.ends_with("uids");
    if has(&IDENTIFIES) || IDENTIFIES_WHOLE.contains(&bare.as_str()) || is_uid {
        return Telling::Identifies;
    }
    Telling::Nothing
}

/// Returns what a gallery does with a column of this name: our name of it, or its own.
#[must_use]
pub fn storage(name: &str) -> Storage {
    if let Some(kind) = columns::meaning(name).filter(|_| columns::is_identifier(name)) {
        return Storage::Hashed(kind.to_owned());
    }
    let is_known = COLUMNS.contains(&name) || [PART, ID, DISTURBED, LABEL].contains(&name);
    if is_known {
        return Storage::Plain;
    }
    match telling(name) {
        Telling::Describes => Storage::Never,
        Telling::Identifies if columns::is_patient(name) => {
            Storage::HashedOnRequest(PATIENT.to_owned())
        }
        Telling::Identifies => Storage::HashedOnRequest(bare(name)),
        Telling::Nothing => Storage::OnRequest,
    }
}

/// Returns whether a column identifies or describes people: none of its values is shown.
#[must_use]
pub fn identifies_people(name: &str) -> bool {
    !matches!(storage(name), Storage::Plain | Storage::OnRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_tell_of_people_are_known_in_many_spellings() {
        for name in [
            "PatientName",
            "Patient's Name",
            "PATIENT NAME",
            "nom_du_patient",
            "Nachname",
            "Pr\u{e9}nom",
            "Apellidos",
            "birth_date",
            "DateOfBirth",
            "Geburtsdatum",
            "date de naissance",
            "FechaNacimiento",
            "dob",
            "DOB",
            "date_of_birth",
            "PatientAddress",
            "Stra\u{df}e",
            "ReferringPhysicianName",
            "StudyDate",
            "exam date",
            "scan-date",
            "AcquisitionDateTime",
            "report",
            "radiology_report",
            "Free Text",
            "Comments",
            "E-Mail",
        ] {
            assert_eq!(storage(name), Storage::Never, "{name}");
        }
    }

    #[test]
    fn columns_of_numbers_of_people_are_stored_as_hashes_at_most() {
        for name in [
            "MRN",
            "mrn",
            "ssn",
            "NHS Number",
            "nhs_number",
            "SOPInstanceUID",
            "OtherPatientIDs",
            "AccessionNo",
            "accession",
            "Patientennummer",
            "Patienten-ID",
            "id_paciente",
            "encounter_id",
            "frame of reference uid",
        ] {
            assert!(
                matches!(storage(name), Storage::HashedOnRequest(_)),
                "{name}"
            );
            assert!(identifies_people(name), "{name}");
        }
        for name in ["patient", "MRN", "subject"] {
            assert_eq!(
                storage(name),
                Storage::HashedOnRequest(PATIENT.to_owned()),
                "{name}"
            );
        }
        assert_eq!(storage("PatientID"), Storage::Hashed(PATIENT.to_owned()));
        assert_eq!(storage("patient_id"), Storage::Hashed(PATIENT.to_owned()));
    }

    #[test]
    fn other_columns_are_stored_if_they_are_known_or_asked_for() {
        for name in COLUMNS.into_iter().filter(|name| *name != PATIENT) {
            assert_eq!(storage(name), Storage::Plain, "{name}");
        }
        for name in [
            "scanner",
            "kernel",
            "kVp",
            "view",
            "last_update",
            "candidate",
            "density",
            "BI-RADS",
            "age",
            "sex",
            "slice thickness",
            "manufacturer",
            "valid",
        ] {
            assert_eq!(storage(name), Storage::OnRequest, "{name}");
            assert_eq!(storage(name).requested(), Storage::Plain, "{name}");
        }
        assert_eq!(storage("report").requested(), Storage::Never);
    }
}
