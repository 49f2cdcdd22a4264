//! Erases a patient, or images, from galleries for good, and proves it.
//!
//! The rows leave, the patient is put on the gallery's list of erased patients, all other rows are written anew, and every
//! file below the gallery is searched for bytes of what was erased. What was done is told in a receipt, which holds
//! keyed hashes only. docs/erasure.md says what is erased and what cannot be.
//!
//! A search that opened a gallery before goes on with the files that it mapped: their names are gone, and the disk gives
//! their space back when the last such reader ends.

mod beside;
mod check;
mod find;
mod journal;
#[cfg(feature = "lake")]
mod lakes;
#[cfg(not(feature = "lake"))]
#[path = "erase/no_lakes.rs"]
mod lakes;
mod one;
mod receipt;
mod scan;
mod targets;

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use m3ret_manifest::is_nobody;
use m3ret_search::{Collection, Gallery, Writer};

use crate::error::{bail, ensure};
use crate::files::write_whole;
use crate::galleries::columns;
use crate::lake::is_lake;
use crate::watch::{Deferral, Stopped, Watch};
use crate::words::counted;

pub use check::{Verification, verify};
pub use receipt::{
    Action, Counts, ErasedPlace, FileSize, FoundColumn, PlaceKind, Receipt, Scan, Storing,
};

/// A patient by number. Printing it prints no part of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Patient {
    number: String,
    issuer: Option<String>,
}

impl fmt::Debug for Patient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Patient(..)")
    }
}

/// Most bytes of a number or an issuer; DICOM allows 64.
const MAX_BYTES: usize = 1024;
/// Separates issuer and number in an identifier of a header, as `imaging` writes it.
const ISSUER_SEPARATOR: char = '\u{1f}';

impl Patient {
    /// Takes the number of a patient, and the issuer of the number where headers name one.
    ///
    /// # Errors
    /// `Caller` if the number is empty, too long, holds a control character such as the end of a line, or stands for
    /// nobody, as `anonymous` does.
    pub fn new(number: &str, issuer: Option<&str>) -> crate::Result<Self> {
        let number = checked("the number of the patient", number)?;
        ensure!(
            !is_nobody(&number),
            "the number of the patient stands for nobody in particular; the number of one patient is wanted"
        );
        let issuer = issuer.map(|issuer| checked("the issuer", issuer));
        Ok(Self {
            number,
            issuer: issuer.transpose()?,
        })
    }

    /// Returns whether a text holds the number, in any case of its letters.
    #[must_use]
    pub fn is_named_in(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.number.to_lowercase())
    }

    /// Returns the pseudonym under which a gallery stores the patient.
    fn pseudonym(&self, gallery: &dyn Collection) -> String {
        match &self.issuer {
            None => gallery.pseudonym(columns::PATIENT, &self.number),
            Some(issuer) => {
                let joined = format!("{issuer}{ISSUER_SEPARATOR}{}", self.number);
                gallery.pseudonym(columns::PATIENT, &joined)
            }
        }
    }
}

/// Returns a text without space around it, if it can be an identifier.
fn checked(what: &str, text: &str) -> crate::Result<String> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0');
    ensure!(!text.is_empty(), "{what} is empty");
    ensure!(
        text.len() <= MAX_BYTES,
        "{what} has {} bytes; at most {MAX_BYTES} are allowed",
        text.len()
    );
    ensure!(
        !text.chars().any(char::is_control),
        "{what} holds a control character, such as the end of a line; one number is wanted"
    );
    Ok(text.to_owned())
}

/// What is erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// All images of a patient, who is not added again.
    Patient(Patient),
    /// Images by id. Nothing hinders that they are added again.
    Images(Vec<String>),
}

/// Why nothing was erased, where another call may succeed. It is the cause of a `Caller` error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why, for programs.
    pub why: WhyRefused,
    told: String,
}

/// Why nothing was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyRefused {
    /// No row is of the patient, and no erasure was begun.
    NothingThere,
    /// A gallery has no column of patients.
    NoPatientsStored,
    /// A snapshot holds rows, and snapshots were not to be changed.
    HeldBySnapshot,
    /// A repair of a gallery is not complete.
    RepairPending,
}

impl Refused {
    fn new(why: WhyRefused, told: String) -> Self {
        Self { why, told }
    }

    /// Returns why an erasure did nothing, if its error is of this kind.
    #[must_use]
    pub fn of(error: &crate::Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.told)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for crate::Error {
    fn from(refused: Refused) -> Self {
        anyhow::Error::new(refused).into()
    }
}

/// In which cache the galleries of plain folders are looked through, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Caches {
    /// In none.
    #[default]
    None,
    /// In that of the user.
    OfUser,
    /// In a folder.
    At(PathBuf),
}

/// How something is erased, and what the receipt says of that.
#[derive(Debug, Clone, Default)]
pub struct EraseOptions {
    /// Whether rows are erased from snapshots below the gallery, too; without it, a snapshot with such rows is an error.
    pub snapshots: bool,
    /// Where galleries of plain folders are looked through.
    pub caches: Caches,
    /// Who erases.
    pub who: String,
    /// Why.
    pub reason: String,
    /// The time in UTC, as `2026-01-31T12:34:56Z`: this library has no clock.
    pub time: String,
    /// Where the receipt is written before the erasure counts as complete.
    pub receipt: Option<PathBuf>,
    /// Folders of objects that wait beside a gallery and that the caller empties: they are not searched.
    pub settled: Vec<PathBuf>,
    /// Whether only what would be erased is told.
    pub is_dry_run: bool,
}

impl EraseOptions {
    /// Refuses texts for the receipt that name the patient.
    fn check(&self, patient: Option<&Patient>) -> crate::Result<()> {
        let Some(patient) = patient else {
            return Ok(());
        };
        for (what, text) in [
            ("the reason", &self.reason),
            ("the name of who erases", &self.who),
        ] {
            ensure!(
                !patient.is_named_in(text),
                "{what} holds the number of the patient; the receipt must not"
            );
        }
        Ok(())
    }
}

/// Erases a patient or images from galleries, and returns the receipt.
///
/// Everything is looked at before anything is changed. Killed at any point, the same call completes the erasure. Each
/// gallery is locked for other writers until it is proved; searches go on.
///
/// A receipt whose `is_proved` is false says where something of what was erased is left.
///
/// # Errors
/// `Caller` if a gallery stores no patients, nothing of the subject is there and nothing was erased before, an id is not
/// there, a snapshot holds rows and `snapshots` is not set, or a repair is not complete; `Gallery` if a gallery is
/// damaged or locked by another writer; `Io`; `Stopped` between two galleries.
pub fn erase(
    galleries: &[PathBuf],
    subject: &Subject,
    options: &EraseOptions,
    watch: &dyn Watch,
) -> crate::Result<Receipt> {
    let patient = match subject {
        Subject::Patient(patient) => Some(patient),
        Subject::Images(_) => None,
    };
    options.check(patient)?;
    if galleries.iter().any(|place| is_lake(place)) {
        return lakes::erase(galleries, subject, options, watch);
    }
    watch.step("looking for rows");
    let targets = targets::plan(galleries, subject, options)?;
    let mut receipt = Receipt::new(Action::Erase, options);
    if options.is_dry_run {
        receipt.places = targets.iter().map(targets::Target::told).collect();
        return Ok(receipt);
    }
    let deferral = Deferral::start(watch);
    let mut finished = Vec::new();
    for target in &targets {
        if deferral.is_stopped() {
            let saved = format!(
                "interrupted after {} of {}; the same command completes the erasure",
                finished.len(),
                counted(targets.len() as u64, "gallery", "galleries")
            );
            return Err(Stopped { saved }.into());
        }
        let erased = one::erase(target, subject, watch);
        if erased.is_err() && !finished.is_empty() {
            watch.note(&format!(
                "{} of {} erased so far, and their receipt is not written; the same command completes the erasure",
                finished.len(),
                counted(targets.len() as u64, "gallery", "galleries")
            ));
        }
        let (mut place, journal) = erased?;
        if let Some(patient) = patient {
            beside::look(&target.folder, patient, &options.settled, &mut place.scan)?;
        }
        receipt.places.push(place);
        finished.push(journal);
    }
    receipt.seal()?;
    if let Some(path) = &options.receipt {
        write_receipt(&receipt, path)?;
    }
    finished.iter().try_for_each(|journal| journal.remove())?;
    drop(deferral);
    Ok(receipt)
}

/// Takes a patient off the lists of erased patients: rows of the patient may be added again. What was erased does not
/// come back.
///
/// # Errors
/// `Caller` if the patient is on no list; `Gallery` if a gallery is damaged or locked by another writer; `Io`.
pub fn allow_again(
    galleries: &[PathBuf],
    patient: &Patient,
    options: &EraseOptions,
) -> crate::Result<Receipt> {
    options.check(Some(patient))?;
    if galleries.iter().any(|place| is_lake(place)) {
        return lakes::allow_again(galleries, patient, options);
    }
    let mut receipt = Receipt::new(Action::AllowAgain, options);
    for folder in targets::distinct(galleries)? {
        let there = Gallery::open(&folder)?;
        let pseudonym = patient.pseudonym(&there);
        if !there.is_erased(&pseudonym) {
            continue;
        }
        let mut place = ErasedPlace::new(&folder, PlaceKind::Gallery, &there);
        place.subject = vec![there.erased_hash(&pseudonym)];
        if !options.is_dry_run {
            let mut writer = Writer::open(&folder)?;
            writer.allow_again(std::slice::from_ref(&pseudonym))?;
            place.generation_after = writer.gallery().generation();
        }
        receipt.places.push(place);
    }
    if receipt.places.is_empty() {
        bail!(
            "the patient is on no list of erased patients of these galleries; nothing was changed"
        );
    }
    if !options.is_dry_run {
        receipt.seal()?;
        if let Some(path) = &options.receipt {
            write_receipt(&receipt, path)?;
        }
    }
    Ok(receipt)
}

fn write_receipt(receipt: &Receipt, path: &Path) -> crate::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(receipt).map_err(std::io::Error::from)?;
    bytes.push(b'\n');
    write_whole(path, |file| Ok(file.write_all(&bytes)?))
}

#[cfg(test)]
mod tests;
