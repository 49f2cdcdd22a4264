//! Where there is something to erase, found before anything is changed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use m3ret_search::{Gallery, is_gallery};

use super::find::{Found, find, patient_columns};
use super::journal::Journal;
use super::receipt::{ErasedPlace, PlaceKind};
use super::{Caches, EraseOptions, Refused, Subject, WhyRefused};
use crate::error::{bail, ensure};
use crate::galleries::{cached, file_of};
use crate::words::{counted, printable, printable_path};

/// A gallery that is rewritten.
#[derive(Debug)]
pub(super) struct Target {
    pub folder: PathBuf,
    pub kind: PlaceKind,
    /// Rows of these files are erased, too.
    pub files: HashSet<PathBuf>,
    told: ErasedPlace,
}

impl Target {
    fn new(
        folder: PathBuf,
        kind: PlaceKind,
        gallery: &Gallery,
        found: &Found,
    ) -> crate::Result<Self> {
        let mut told = ErasedPlace::new(&folder, kind, gallery);
        found.tell(&mut told, gallery)?;
        told.n_rows_left -= found.rows.len();
        Ok(Self {
            folder,
            kind,
            files: HashSet::new(),
            told,
        })
    }

    /// Returns what would be erased.
    pub(super) fn told(&self) -> ErasedPlace {
        self.told.clone()
    }
}

/// Returns the real paths of galleries, each once.
pub(super) fn distinct(galleries: &[PathBuf]) -> crate::Result<Vec<PathBuf>> {
    ensure!(!galleries.is_empty(), "no gallery is named");
    let mut folders = Vec::new();
    for place in galleries {
        // Says what is wrong with another place.
        let gallery = Gallery::open(place)?;
        let folder = gallery.folder().canonicalize()?;
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    Ok(folders)
}

/// Finds where rows of the subject are, and refuses what cannot be erased.
pub(super) fn plan(
    galleries: &[PathBuf],
    subject: &Subject,
    options: &EraseOptions,
) -> crate::Result<Vec<Target>> {
    let folders = distinct(galleries)?;
    let mut targets = Vec::new();
    let mut files = HashSet::new();
    let mut there = There::default();
    for folder in &folders {
        let gallery = Gallery::open(folder)?;
        check_patients(&gallery, subject)?;
        check_quarantine(folder)?;
        let found = find(&gallery, subject, &HashSet::new())?;
        for &row in &found.rows {
            files.insert(file_of(&gallery, row)?);
        }
        there.add(&gallery, &found)?;
        // First: the search of the gallery's files comes to its snapshots, too.
        targets.extend(snapshots_of(folder, subject, options)?);
        targets.push(Target::new(
            folder.clone(),
            PlaceKind::Gallery,
            &gallery,
            &found,
        )?);
    }
    there.check(subject, &targets)?;
    targets.extend(caches(subject, options, &folders, &files)?);
    Ok(targets)
}

/// What there is of a subject in the galleries that are named.
#[derive(Default)]
struct There {
    is_begun: bool,
    n_with_issuer: usize,
    n_without_patient: usize,
    ids: HashSet<String>,
}

impl There {
    fn add(&mut self, gallery: &Gallery, found: &Found) -> crate::Result<()> {
        let journal = Journal::read(gallery.folder(), &found.subject)?;
        self.is_begun |= found.is_listed || journal.is_some();
        self.n_with_issuer += found.n_with_issuer;
        self.n_without_patient += found.n_without_patient;
        for &row in found.rows.iter().chain(&found.removed) {
            self.ids.insert(gallery.id(row)?.to_owned());
        }
        Ok(())
    }

    /// Refuses a subject of which there is nothing and never was.
    fn check(&self, subject: &Subject, targets: &[Target]) -> crate::Result<()> {
        let is_there = |target: &Target| {
            let counts = &target.told.counts;
            counts.n_rows + counts.n_rows_removed_before > 0
        };
        if self.is_begun {
            return Ok(());
        }
        match subject {
            Subject::Patient(_) if targets.iter().any(is_there) => Ok(()),
            Subject::Patient(_) => {
                let mut told =
                    "no image of this patient is in the galleries; nothing was changed".to_owned();
                if self.n_with_issuer > 0 {
                    told += &format!(
                        "; {} a number with an issuer: name it (--issuer)",
                        counted(self.n_with_issuer as u64, "image has", "images have")
                    );
                }
                if self.n_without_patient > 0 {
                    told += &format!(
                        "; {} no patient: name the images (--id, --rows-from)",
                        counted(self.n_without_patient as u64, "image names", "images name")
                    );
                }
                Err(Refused::new(WhyRefused::NothingThere, told).into())
            }
            Subject::Images(ids) => {
                ensure!(!ids.is_empty(), "no id of an image is named");
                let missing = ids.iter().find(|id| !self.ids.contains(*id));
                match missing {
                    None => Ok(()),
                    Some(id) => bail!(
                        "no image of the galleries has the id {}; nothing was changed",
                        printable(id)
                    ),
                }
            }
        }
    }
}

/// Refuses to look for a patient where a gallery stores none.
fn check_patients(gallery: &Gallery, subject: &Subject) -> crate::Result<()> {
    let is_patient = matches!(subject, Subject::Patient(_));
    if !is_patient || gallery.is_empty() || !patient_columns(gallery).is_empty() {
        return Ok(());
    }
    let told = format!(
        "{} stores no patients: it has no column of them; name the images instead (--id, or --rows-from with a list of \
         ids)",
        printable_path(gallery.folder())
    );
    Err(Refused::new(WhyRefused::NoPatientsStored, told).into())
}

/// Refuses a gallery with rows that a repair lost and did not embed again yet: they would be lost for good.
fn check_quarantine(folder: &Path) -> crate::Result<()> {
    if std::fs::symlink_metadata(folder.join("quarantine").join("lost-rows.json")).is_err() {
        return Ok(());
    }
    let told = format!(
        "a repair of {} is not complete; run `m3ret index verify --repair` first",
        printable_path(folder)
    );
    Err(Refused::new(WhyRefused::RepairPending, told).into())
}

/// Returns the galleries below `snapshots` that hold rows of the subject.
fn snapshots_of(
    folder: &Path,
    subject: &Subject,
    options: &EraseOptions,
) -> crate::Result<Vec<Target>> {
    let entries = std::fs::read_dir(folder.join("snapshots"));
    let entries = entries.into_iter().flatten().flatten();
    let is_folder = |path: &PathBuf| path.symlink_metadata().is_ok_and(|there| there.is_dir());
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(is_folder)
        .collect();
    paths.sort();
    let mut targets = Vec::new();
    for path in paths.into_iter().filter(|path| is_gallery(path)) {
        let gallery = Gallery::open(&path)?;
        let found = find(&gallery, subject, &HashSet::new())?;
        let is_begun = Journal::read(&path, &found.subject)?.is_some();
        if found.is_empty() && !is_begun {
            continue;
        }
        if !options.snapshots {
            let told = format!(
                "the snapshot {} holds {} of them; --snapshots erases them there, too; nothing was changed",
                printable_path(&path),
                counted(found.rows.len() as u64, "image", "images")
            );
            return Err(Refused::new(WhyRefused::HeldBySnapshot, told).into());
        }
        check_quarantine(&path)?;
        targets.push(Target::new(path, PlaceKind::Snapshot, &gallery, &found)?);
    }
    Ok(targets)
}

/// Returns the galleries of plain folders that hold rows of the subject, or of the same files.
fn caches(
    subject: &Subject,
    options: &EraseOptions,
    named: &[PathBuf],
    files: &HashSet<PathBuf>,
) -> crate::Result<Vec<Target>> {
    let cache = match &options.caches {
        Caches::None => return Ok(Vec::new()),
        Caches::OfUser => None,
        Caches::At(folder) => Some(folder.as_path()),
    };
    // Ids are those of other galleries.
    let own_subject = match subject {
        Subject::Patient(_) => subject.clone(),
        Subject::Images(_) => Subject::Images(Vec::new()),
    };
    let mut targets = Vec::new();
    for place in cached(cache)? {
        let folder = place.gallery.canonicalize()?;
        if named.contains(&folder) {
            continue;
        }
        let gallery = Gallery::open(&folder)?;
        let found = find(&gallery, &own_subject, files)?;
        let is_begun = Journal::read(&folder, &found.subject)?.is_some();
        if found.is_empty() && !is_begun {
            continue;
        }
        check_quarantine(&folder)?;
        let target = Target::new(folder, PlaceKind::Cache, &gallery, &found)?;
        targets.push(Target {
            files: files.clone(),
            ..target
        });
    }
    Ok(targets)
}
