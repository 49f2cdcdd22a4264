//! Erases patients from lakes: the same receipt, and the same proof.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use m3ret_lake::{Lake, OF_PATIENTS, Searched, allow_again as lift, is_erased, search_for};
use m3ret_manifest::text_of;
use m3ret_search::{Collection, ErasedPatients, RowId};

use super::check::Verification;
use super::receipt::{Action, Counts, ErasedPlace, PlaceKind, Receipt, Scan};
use super::{EraseOptions, Patient, Refused, Subject, WhyRefused, write_receipt};
use crate::error::{bail, ensure};
use crate::lake::is_lake;
use crate::watch::Watch;

/// Refuses galleries beside lakes: their receipts are of one kind each.
fn check(places: &[PathBuf]) -> crate::Result<()> {
    ensure!(
        places.iter().all(|place| is_lake(place)),
        "lakes and galleries are named together; erase from them by two calls"
    );
    Ok(())
}

/// What a lake holds of a patient. Rows that only share another number with theirs stay: a placeholder is shared by all.
struct Found {
    rows: Vec<RowId>,
    pseudonym: String,
}

fn find(lake: &Lake, patient: &Patient) -> crate::Result<Found> {
    let pseudonym = patient.pseudonym(lake);
    let mut rows = BTreeSet::new();
    for column in OF_PATIENTS {
        rows.extend(lake.find_rows(column, &pseudonym)?);
    }
    Ok(Found {
        rows: rows.into_iter().collect(),
        pseudonym,
    })
}

fn place_of(path: &Path, lake: &Lake) -> ErasedPlace {
    ErasedPlace {
        generation_before: lake.generation(),
        generation_after: lake.generation(),
        n_rows_left: lake.len(),
        ..ErasedPlace::empty(path, PlaceKind::Lake)
    }
}

fn scan_of(searched: &Searched, n_traces: usize) -> Scan {
    let mut found_in: Vec<String> = Vec::new();
    for left in &searched.leftovers {
        if !found_in.contains(&left.object) {
            found_in.push(left.object.clone());
        }
    }
    Scan {
        n_files: searched.n_objects,
        n_bytes: searched.n_bytes,
        n_traces,
        n_found: searched.leftovers.len(),
        found_in,
        ..Scan::default()
    }
}

/// As `erase`, from lakes.
pub(super) fn erase(
    places: &[PathBuf],
    subject: &Subject,
    options: &EraseOptions,
    watch: &dyn Watch,
) -> crate::Result<Receipt> {
    check(places)?;
    let Subject::Patient(patient) = subject else {
        bail!("images are erased from galleries by id; from a lake, a patient is erased");
    };
    watch.step("looking for rows");
    let mut targets = Vec::new();
    let mut is_there = false;
    for path in places {
        let lake = Lake::open(path)?;
        ensure!(
            OF_PATIENTS
                .iter()
                .any(|column| lake.columns().contains(column)),
            "{}: the lake has no column of patients; nothing was erased",
            path.display()
        );
        let found = find(&lake, patient)?;
        let [is_listed, is_begun] = is_erased(path, &found.pseudonym)?;
        is_there |= is_listed || is_begun || !found.rows.is_empty();
        targets.push((path, lake, found, is_listed));
    }
    if !is_there {
        let told = "no image of the lakes is of this patient, and none was erased before; nothing was changed";
        return Err(Refused::new(WhyRefused::NothingThere, told.to_owned()).into());
    }
    let mut receipt = Receipt::new(Action::Erase, options);
    for (path, lake, found, was_listed) in targets {
        let mut place = place_of(path, &lake);
        place.subject = vec![ErasedPatients::hash(lake.key(), &found.pseudonym)];
        place.was_listed = was_listed;
        place.counts.n_rows = found.rows.len();
        place.n_rows_left -= found.rows.len();
        drop(lake);
        if !options.is_dry_run {
            let erased = m3ret_lake::erase(path, &found.pseudonym, &|step| watch.step(step))?;
            place.counts = Counts {
                n_rows: erased.n_rows,
                n_views: erased.n_views,
                ..Counts::default()
            };
            [place.generation_before, place.generation_after] = erased.generations;
            place.n_rows_left = Lake::open(path)?.len();
            place.scan = scan_of(&erased.searched, erased.traces.len());
            place.traces = erased.traces;
        }
        receipt.places.push(place);
    }
    finish(&mut receipt, options)?;
    Ok(receipt)
}

/// Seals and writes a receipt.
fn finish(receipt: &mut Receipt, options: &EraseOptions) -> crate::Result<()> {
    if options.is_dry_run {
        return Ok(());
    }
    receipt.seal_with(&|place, purpose, bytes| {
        let lake = Lake::open(place)?;
        Ok(lake.key().keyed_digest(purpose, bytes))
    })?;
    match &options.receipt {
        Some(path) => write_receipt(receipt, path),
        None => Ok(()),
    }
}

/// As `allow_again`, for lakes.
pub(super) fn allow_again(
    places: &[PathBuf],
    patient: &Patient,
    options: &EraseOptions,
) -> crate::Result<Receipt> {
    check(places)?;
    let mut receipt = Receipt::new(Action::AllowAgain, options);
    for path in places {
        let lake = Lake::open(path)?;
        let pseudonym = patient.pseudonym(&lake);
        if !is_erased(path, &pseudonym)?[0] {
            continue;
        }
        let mut place = place_of(path, &lake);
        place.subject = vec![ErasedPatients::hash(lake.key(), &pseudonym)];
        if !options.is_dry_run {
            lift(path, &pseudonym)?;
        }
        receipt.places.push(place);
    }
    if receipt.places.is_empty() {
        bail!("the patient is on no list of erased patients of these lakes; nothing was changed");
    }
    finish(&mut receipt, options)?;
    Ok(receipt)
}

/// As `verify`, for lakes.
pub(super) fn verify(
    receipt: &Receipt,
    places: &[PathBuf],
    patient: Option<&Patient>,
    watch: &dyn Watch,
) -> crate::Result<Vec<Verification>> {
    check(places)?;
    watch.step("searching every object for what was erased");
    let mut verified = Vec::new();
    for path in places {
        let lake = Lake::open(path)?;
        let digest = |purpose: &str, bytes: &[u8]| lake.key().keyed_digest(purpose, bytes);
        let mut parts = Vec::new();
        for (idx, place) in receipt.places.iter().enumerate() {
            if place.seal == receipt.seal_by(idx, &digest)? {
                parts.push(place);
            }
        }
        ensure!(
            !parts.is_empty(),
            "the receipt was changed, or it is not of {}",
            path.display()
        );
        let traces: BTreeSet<_> = parts
            .iter()
            .flat_map(|place| &place.traces)
            .cloned()
            .collect();
        let traces: Vec<_> = traces.into_iter().collect();
        let subject: BTreeSet<&String> = parts.iter().flat_map(|place| &place.subject).collect();
        let mut n_images = 0;
        for column in OF_PATIENTS
            .iter()
            .filter(|column| lake.columns().contains(column))
        {
            let values = lake.values(column)?;
            let theirs = values.iter().filter(|cell| {
                !cell.is_empty() && subject.contains(&ErasedPatients::hash(lake.key(), cell))
            });
            for cell in theirs {
                n_images = n_images.max(lake.find_rows(column, cell)?.len());
            }
        }
        let is_listed = match patient {
            None => None,
            Some(patient) => {
                let pseudonym = patient.pseudonym(&lake);
                ensure!(
                    subject.contains(&ErasedPatients::hash(lake.key(), &pseudonym)),
                    "the receipt is of another patient"
                );
                Some(is_erased(path, &pseudonym)?[0])
            }
        };
        let searched = search_for(path, &traces)?;
        verified.push(Verification {
            place: text_of(path),
            n_parts: parts.len(),
            n_images,
            is_listed,
            scan: scan_of(&searched, traces.len()),
        });
    }
    Ok(verified)
}
