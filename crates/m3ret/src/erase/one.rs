//! Erases rows from one gallery and proves it, under the lock of its writer.

use std::path::Path;

use m3ret_manifest::{path_of, text_of};
use m3ret_search::{Erasure, Gallery, Refusal, Writer};

use super::Subject;
use super::find::{Found, find};
use super::journal::{Contents, Journal};
use super::receipt::{ErasedPlace, FileSize};
use super::scan::{files_below, scan};
use super::targets::Target;
use crate::galleries::{columns, file_of};
use crate::watch::Watch;

/// Erases the rows of a subject from a gallery. The journal is removed by whoever keeps the receipt.
pub(super) fn erase(
    target: &Target,
    subject: &Subject,
    watch: &dyn Watch,
) -> crate::Result<(ErasedPlace, Journal)> {
    let folder = &target.folder;
    watch.step("erasing rows and rewriting the gallery");
    let mut writer = Writer::open(folder)?;
    // Another writer may have ended since the gallery was looked at.
    let found = find(writer.gallery(), subject, &target.files)?;
    let mut place = ErasedPlace::new(folder, target.kind, writer.gallery());
    found.tell(&mut place, writer.gallery())?;
    let kept = kept_refusals(writer.gallery(), &found, subject)?;
    place.counts.n_refusals = writer.gallery().refusals()?.len() - kept.len();
    let traces = traces_of(writer.gallery(), &found, subject)?;
    let contents = Contents {
        generation_before: place.generation_before,
        counts: place.counts.clone(),
        columns: place.columns.clone(),
        subject: place.subject.clone(),
        was_listed: place.was_listed,
        files: sizes(folder)?,
        traces: traces.0,
        n_not_searched_for: traces.1,
    };
    let before = Journal::read(folder, &found.subject)?;
    let journal = Journal::write(folder, &found.subject, contents, before)?;
    let ids = found.rows.iter().map(|&row| writer.gallery().id(row));
    let ids = ids.map(|id| Ok(id?.to_owned()));
    let ids: Vec<String> = ids.collect::<crate::Result<_>>()?;
    writer.erase(Erasure {
        ids: &ids,
        pseudonyms: &found.pseudonyms,
        refusals: &kept,
    })?;
    remove_quarantine(folder)?;
    watch.step("searching every file for what was erased");
    let gallery = writer.gallery();
    place.scan = scan(folder, gallery, &journal.contents.traces)?;
    place.generation_after = gallery.generation();
    place.n_rows_left = gallery.len();
    complete(&mut place, &journal.contents, &sizes(folder)?);
    Ok((place, journal))
}

/// Tells what all attempts together did.
fn complete(place: &mut ErasedPlace, contents: &Contents, after: &[FileSize]) {
    place.generation_before = contents.generation_before;
    place.counts = contents.counts.clone();
    place.columns.clone_from(&contents.columns);
    place.subject.clone_from(&contents.subject);
    place.was_listed = contents.was_listed;
    place.traces.clone_from(&contents.traces);
    place.n_not_searched_for = contents.n_not_searched_for;
    let is_in = |files: &[FileSize], file: &FileSize| files.binary_search(file).is_ok();
    let removed = contents.files.iter().filter(|file| !is_in(after, file));
    place.files_removed = removed.cloned().collect();
    let written = after.iter().filter(|file| !is_in(&contents.files, file));
    place.files_written = written.cloned().collect();
}

/// Lists the files below a gallery, but for journals of erasures, in ascending order.
fn sizes(folder: &Path) -> crate::Result<Vec<FileSize>> {
    let (files, _) = files_below(folder)?;
    let mut sizes = Vec::with_capacity(files.len());
    for path in files {
        let file = text_of(path.strip_prefix(folder).unwrap_or(&path));
        if !file.starts_with(m3ret_search::ERASING) {
            let n_bytes = std::fs::metadata(&path)?.len();
            sizes.push(FileSize { file, n_bytes });
        }
    }
    sizes.sort_unstable();
    Ok(sizes)
}

/// Returns the refused images that are still remembered: of other files, whose texts do not name the patient.
fn kept_refusals(
    gallery: &Gallery,
    found: &Found,
    subject: &Subject,
) -> crate::Result<Vec<Refusal>> {
    let mut files = std::collections::HashSet::new();
    for &row in found.rows.iter().chain(&found.removed) {
        files.insert(file_of(gallery, row)?);
    }
    let names_patient = |text: &str| match subject {
        Subject::Patient(patient) => text.contains(&patient.number),
        Subject::Images(_) => false,
    };
    let mut kept = gallery.refusals()?;
    kept.retain(|refusal| {
        let texts = [&refusal.path, &refusal.file, &refusal.message];
        let part = refusal.part.as_deref().unwrap_or_default();
        !files.contains(&path_of(&refusal.file))
            && !texts.into_iter().any(|text| names_patient(text))
            && !names_patient(part)
    });
    Ok(kept)
}

/// Makes the traces of all rows and of the patient; returns how many parts have none, too.
fn traces_of(
    gallery: &Gallery,
    found: &Found,
    subject: &Subject,
) -> crate::Result<(Vec<m3ret_search::Trace>, usize)> {
    let (mut traces, mut n_left_out) = (Vec::new(), 0);
    let mut texts: Vec<(&str, &str)> = Vec::new();
    for &row in found.rows.iter().chain(&found.removed) {
        let (of_row, n_of_row) = gallery.traces_of_row(row)?;
        traces.extend(of_row);
        n_left_out += n_of_row;
        texts.push(("id", gallery.id(row)?));
        texts.push(("path", gallery.value(row, columns::PATH)?));
    }
    texts.retain(|(_, text)| !text.is_empty());
    let pseudonyms = found.pseudonyms.iter();
    texts.extend(pseudonyms.map(|pseudonym| ("pseudonym", pseudonym.as_str())));
    if let Subject::Patient(patient) = subject {
        texts.push(("number", &patient.number));
    }
    for (kind, text) in texts {
        match gallery.trace_of_text(kind, text) {
            Some(trace) => traces.push(trace),
            None => n_left_out += 1,
        }
    }
    Ok((traces, n_left_out))
}

/// Removes damaged files that a repair moved away: whose bytes they hold cannot be told.
fn remove_quarantine(folder: &Path) -> crate::Result<()> {
    let place = folder.join("quarantine");
    match std::fs::symlink_metadata(&place) {
        Ok(there) if there.is_dir() => {
            std::fs::remove_dir_all(&place)?;
            m3ret_files::sync_folder(folder)?;
        }
        _ => {}
    }
    Ok(())
}
