//! Proves a receipt: that it was not changed, and that nothing of what was erased is there.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_search::{Gallery, Trace};
use serde::Serialize;

use super::find::{find, patient_columns};
use super::receipt::{Receipt, Scan};
use super::scan::scan;
use super::{Patient, Subject, beside, lakes, targets};
use crate::error::{bail, ensure};
use crate::galleries::columns;
use crate::lake::is_lake;
use crate::watch::Watch;
use crate::words::printable_path;

/// What was proved of one gallery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// The gallery.
    pub place: String,
    /// Parts of the receipt that the gallery's secret proves unchanged: of the gallery, and of its snapshots.
    pub n_parts: usize,
    /// Images of the patient that are in the gallery now; of erased images, those whose ids are there again.
    pub n_images: usize,
    /// Whether rows of the patient would be refused; `None` if no patient was named.
    pub is_listed: Option<bool>,
    /// The search of every file.
    pub scan: Scan,
}

impl Verification {
    /// Returns whether nothing of what was erased is there.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.scan.is_clean() && self.n_images == 0
    }
}

/// Most bytes of a receipt.
const MAX_BYTES: u64 = 1 << 30;

/// Proves a receipt with the secrets of galleries, and searches them again.
///
/// With the patient, whose the receipt must be, it is also said whether rows of the patient would be refused.
///
/// # Errors
/// `Caller` if the receipt is none, was changed, is of none of the galleries, or of another patient; `Gallery` if a
/// gallery cannot be opened; `Io`.
pub fn verify(
    receipt: &Path,
    galleries: &[PathBuf],
    patient: Option<&Patient>,
    watch: &dyn Watch,
) -> crate::Result<Vec<Verification>> {
    let doing = || format!("reading {}", printable_path(receipt));
    let bytes = read_bounded(receipt, MAX_BYTES).with_context(doing)?;
    let parsed = Receipt::parse(&bytes);
    let parsed = parsed.map_err(|found| anyhow::anyhow!("{}: {found}", printable_path(receipt)))?;
    ensure!(
        !parsed.is_dry_run,
        "{} is of a dry run: nothing was erased",
        printable_path(receipt)
    );
    if galleries.iter().any(|place| is_lake(place)) {
        return lakes::verify(&parsed, galleries, patient, watch);
    }
    let mut verified = Vec::new();
    for folder in targets::distinct(galleries)? {
        watch.step("searching every file for what was erased");
        verified.push(verify_one(&parsed, &folder, patient)?);
    }
    Ok(verified)
}

fn verify_one(
    receipt: &Receipt,
    folder: &Path,
    patient: Option<&Patient>,
) -> crate::Result<Verification> {
    let gallery = Gallery::open(folder)?;
    let mut traces: Vec<Trace> = Vec::new();
    let mut subject: Vec<&str> = Vec::new();
    let mut n_parts = 0;
    for (idx, place) in receipt.places.iter().enumerate() {
        if place.seal == receipt.seal_of(idx, &gallery)? {
            n_parts += 1;
            traces.extend(place.traces.iter().cloned());
            subject.extend(place.subject.iter().map(String::as_str));
        }
    }
    if n_parts == 0 {
        bail!(
            "the receipt was changed, or it is not of {}, or the gallery has another key since a repair",
            printable_path(folder)
        );
    }
    traces.sort_unstable();
    traces.dedup();
    let mut n_images = count_again(&gallery, &subject, &traces)?;
    let mut is_listed = None;
    if let Some(patient) = patient {
        let found = find(&gallery, &Subject::Patient(patient.clone()), &[].into())?;
        ensure!(
            subject.contains(&found.subject.as_str()),
            "the receipt is of another patient, or of other images"
        );
        n_images = n_images.max(found.rows.len() + found.removed.len());
        is_listed = Some(found.is_listed);
    }
    let mut scan = scan(folder, &gallery, &traces)?;
    if let Some(patient) = patient {
        beside::look(folder, patient, &[], &mut scan)?;
    }
    Ok(Verification {
        place: m3ret_manifest::text_of(folder),
        n_parts,
        n_images,
        is_listed,
        scan,
    })
}

/// Counts the rows of whoever was erased: by the hashes of the patient, or, where images were erased, by their ids.
fn count_again(gallery: &Gallery, subject: &[&str], traces: &[Trace]) -> crate::Result<usize> {
    let is_of_patient = traces.iter().any(|trace| trace.kind == "pseudonym");
    let names = match is_of_patient {
        true => patient_columns(gallery),
        false => Vec::new(),
    };
    let mut known: HashMap<&str, bool> = HashMap::new();
    let is_theirs = |cell: &str| {
        let of_clear = gallery.pseudonym(columns::PATIENT, cell);
        let mut hashes = [cell, &of_clear]
            .map(|p| gallery.erased_hash(p))
            .into_iter();
        hashes.any(|hash| subject.contains(&hash.as_str()))
    };
    let mut n_images = 0;
    for row in gallery.rows() {
        let mut is_again = false;
        for name in &names {
            let cell = gallery.value(row, name)?;
            is_again |= *known.entry(cell).or_insert_with(|| is_theirs(cell));
        }
        if !is_of_patient && let Some(trace) = gallery.trace_of_text("id", gallery.id(row)?) {
            is_again |= traces.binary_search(&trace).is_ok();
        }
        n_images += usize::from(is_again);
    }
    Ok(n_images)
}

/// Reads a regular file of at most so many bytes.
pub(super) fn read_bounded(path: &Path, max_bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = m3ret_files::open_regular(path)?;
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max_bytes {
        true => Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("more than {max_bytes} bytes"),
        )),
        false => Ok(bytes),
    }
}
