//! What a path holds: objects to read and files known to be unreadable, sorted together.

use std::path::Path;

use m3ret_imaging::ReadOptions;
use m3ret_imaging::archive::{Object, find_chosen};

use crate::check::report::Report;

/// Something found at a path: an object to read, or a file known to be unreadable.
#[derive(Debug)]
pub(crate) enum Entry {
    Object(Object),
    Skipped(Box<Report>),
}

/// Lists what a path holds, objects and skipped files in the order of their paths; of a folder, what is in the files that
/// are chosen by their paths below it.
///
/// # Errors
/// `Io` if the path cannot be opened.
pub(crate) fn entries(
    path: &Path,
    options: &ReadOptions,
    is_strict: bool,
    is_chosen: &mut dyn FnMut(&Path) -> bool,
) -> m3ret_imaging::Result<Vec<Entry>> {
    let (objects, skipped) = find_chosen(path, options, is_chosen)?;
    let mut entries: Vec<(_, Entry)> = Vec::with_capacity(objects.len() + skipped.len());
    entries.extend(
        objects
            .into_iter()
            .map(|object| (object.path.clone(), Entry::Object(object))),
    );
    entries.extend(skipped.into_iter().map(|file| {
        let report = Report::skipped(&file.path, &file.error, is_strict);
        (file.path, Entry::Skipped(Box::new(report)))
    }));
    // The sort is stable, so that the series of one folder keep the order of their numbers.
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}
