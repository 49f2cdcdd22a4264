//! One file a verb: read the arguments, call the library, print.

pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod dedup;
pub(crate) mod duplicates;
pub(crate) mod embed;
pub(crate) mod evaluate;
pub(crate) mod evaluation;
pub(crate) mod galleries;
pub(crate) mod index;
pub(crate) mod inspect;
pub(crate) mod map;
pub(crate) mod report;
pub(crate) mod search;
pub(crate) mod simulate;
pub(crate) mod split;
pub(crate) mod study;
pub(crate) mod vectors;

use std::io::Write;

use m3ret_imaging::archive::{Object, Skipped};
use serde::Serialize;

use crate::report::Report;

/// Something found at a path: to read, or known to be unreadable.
#[derive(Debug)]
enum Entry {
    Object(Object),
    Skipped(Box<Report>),
}

/// Joins objects and skipped files in the order of their paths.
fn entries((objects, skipped): (Vec<Object>, Vec<Skipped>), is_strict: bool) -> Vec<Entry> {
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
    // Stable: the series of one folder keep their numbers' order.
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    entries.into_iter().map(|(_, entry)| entry).collect()
}

pub(crate) fn write_json_line(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
