//! Writes files that appear whole or not at all, and protects files that m3ret did not write.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_files::{Finished, Unfinished};
pub(crate) use m3ret_files::{Force, Inputs, Output, Refusal, Replaces};
pub(crate) use m3ret_files::{make_folder, refuse_irregular, way_between};
use m3ret_imaging::archive::{detached_files, find_objects};
use m3ret_imaging::{ReadOptions, read_head};
use m3ret_manifest::{Manifest, is_manifest};

/// Removes every unfinished file of this process, of galleries too, and lets no further one appear until `end` returns.
///
/// For a program that is about to end: `end` usually does not return.
pub fn remove_unfinished(end: impl FnOnce()) {
    m3ret_search::abandon_changes(|| m3ret_files::remove_unfinished(end));
}

/// Writes a temporary file beside `path` and renames it to `path` once it is complete and synced to disk.
///
/// # Errors
/// Errors of `write`; if the file cannot be created, synced or renamed. The file at `path` is then unchanged.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut Unfinished) -> anyhow::Result<()>,
) -> crate::Result<()> {
    Ok(write_beside(path, write)?.put()?)
}

/// Refuses a name at which something lies; with `is_forced`, a file or link there is replaced and never followed.
///
/// # Errors
/// As `Output::check_file`.
pub fn check_free(path: &Path, is_forced: bool) -> crate::Result<()> {
    let output = Output {
        path,
        replaces: Replaces::Nothing,
        force: Force::of(is_forced),
    };
    Ok(output.check_file(&Inputs::NONE)?)
}

/// Writes a temporary file beside `path`: complete and synced to disk, but not yet renamed to `path`.
pub(crate) fn write_beside(
    path: &Path,
    write: impl FnOnce(&mut Unfinished) -> anyhow::Result<()>,
) -> anyhow::Result<Finished> {
    let write =
        |out: &mut Unfinished| write(out).with_context(|| format!("writing {}", path.display()));
    m3ret_files::write_beside(path, write)
}

/// Lists the files that named inputs lead to: those of a manifest's rows, those that a DICOMDIR names, and those with
/// the voxels of a detached header. Of a folder, nothing: all that lies in it is read.
///
/// What cannot be read is left out here; a command says so when it opens the input.
pub(crate) fn listed_in(named: &[&Path]) -> Vec<PathBuf> {
    let options = ReadOptions::default();
    let files = named.iter().filter(|path| path.is_file());
    files
        .flat_map(|path| listed_in_file(path, &options))
        .collect()
}

fn listed_in_file(path: &Path, options: &ReadOptions) -> Vec<PathBuf> {
    if read_head(path).is_ok_and(|head| is_manifest(&head, path)) {
        let table = Manifest::open(path, &options.limits).and_then(Manifest::load);
        return table.map_or_else(
            |_| Vec::new(),
            |table| table.rows().map(|row| row.file()).collect(),
        );
    }
    let (objects, _) = find_objects(path, options).unwrap_or_default();
    let mut files: Vec<PathBuf> = objects.iter().flat_map(|o| o.files.clone()).collect();
    files.extend(objects.iter().flat_map(detached_files));
    files
}

/// Refuses to write over what is read, and to replace a file; with `is_forced`, other files may be replaced.
///
/// # Errors
/// As `Output::check_file`.
pub(crate) fn check_new_file(
    path: &Path,
    is_forced: bool,
    inputs: &[&Path],
) -> Result<(), Refusal> {
    let output = Output {
        path,
        replaces: Replaces::Nothing,
        force: Force::of(is_forced),
    };
    output.check_file(&Inputs {
        named: inputs,
        listed: &|| listed_in(inputs),
    })
}

/// Text in the head of every page that m3ret writes.
const PAGE_MARK: &str = "<title>m3ret ";
/// Number of bytes at the start of a file in which `PAGE_MARK` is searched.
const HEAD_BYTES: u64 = 4096;

/// Refuses to write a page over what is read, and over a file that is no page of m3ret, so that a slip in a command
/// does not cost a manifest or an image. With `is_forced`, other files may be replaced, but for what is read.
///
/// # Errors
/// As `Output::check_file`.
pub fn check_page(path: &Path, is_forced: bool, inputs: &[&Path]) -> crate::Result<()> {
    let output = Output {
        path,
        replaces: Replaces::Own {
            what: "page",
            is_own: &is_page,
        },
        force: Force::of(is_forced),
    };
    Ok(output.check_file(&Inputs {
        named: inputs,
        listed: &|| listed_in(inputs),
    })?)
}

/// Returns whether a file is a page that m3ret wrote.
pub(crate) fn is_page(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    let mut parts = head.windows(PAGE_MARK.len());
    read.is_ok() && parts.any(|part| part == PAGE_MARK.as_bytes())
}
