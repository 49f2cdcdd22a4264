//! Files that hold the voxels of a header beside or above them.

use std::collections::HashSet;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use super::{Object, Skipped};
use crate::limits::Limits;
use crate::read::{Format, SNIFF_BYTES, read_head, sibling, sniff};
use crate::store::Store;
use crate::{metaimage, nifti, nrrd};

/// Most bytes of a header in which the names of its files are looked for.
const MAX_LIST_BYTES: u64 = 1 << 20;

/// Lists the files with the voxels of an object whose header may lie apart from them, links
/// resolved: those that the header names, and those beside it with its name up to the first dot.
/// Of an object in a zip archive, nothing: all of it lies in one file.
#[must_use]
pub fn detached_files(object: &Object) -> Vec<PathBuf> {
    if !may_be_detached(object) {
        return Vec::new();
    }
    let mut files = named_files(object, Store::Disk);
    let folder = object.path.parent();
    let folder = folder.filter(|folder| *folder != Path::new(""));
    let beside = std::fs::read_dir(folder.unwrap_or(Path::new(".")));
    for entry in beside.into_iter().flatten().flatten() {
        if stem_name(&entry.path()) == stem_name(&object.path) {
            files.extend(entry.path().canonicalize());
        }
    }
    files
}

/// Most bytes of a header whose voxels lie in other files; longer files are not looked into.
const MAX_HEADER_BYTES: u64 = 1 << 16;

/// Lists the files with the voxels of a header, links resolved, in the order in which it names them. Nothing if the file
/// is no such header.
#[must_use]
pub fn voxel_files(header: &Path) -> Vec<PathBuf> {
    let is_short = |status: Metadata| status.is_file() && status.len() <= MAX_HEADER_BYTES;
    if !std::fs::metadata(header).is_ok_and(is_short) {
        return Vec::new();
    }
    let head = read_head(header).unwrap_or_default();
    match sniff(&head) {
        Some(format @ (Format::Nrrd | Format::MetaImage)) => {
            named_by(header, format, Store::Disk, &Limits::default())
        }
        Some(Format::Nifti) => {
            let names = nifti::VOXEL_FILES.iter();
            let beside = names.filter_map(|(name, _)| sibling(Store::Disk, header, name).ok());
            beside.collect()
        }
        _ => Vec::new(),
    }
}

/// Drops files that hold the voxels of a header: those it names, and those that share folder and
/// stem with it.
pub(super) fn without_detached_voxels(
    unknown: Vec<Skipped>,
    objects: &[Object],
    store: Store<'_>,
) -> Vec<Skipped> {
    if unknown.is_empty() {
        return unknown;
    }
    let headers = || objects.iter().filter(|object| may_be_detached(object));
    let stems: HashSet<(PathBuf, String)> = headers().filter_map(|o| stem(&o.path)).collect();
    let named: HashSet<PathBuf> = headers().flat_map(|o| named_files(o, store)).collect();
    let is_named = |path: &Path| match store {
        _ if named.is_empty() => false,
        Store::Disk => path.canonicalize().is_ok_and(|path| named.contains(&path)),
        Store::Zip(_) | Store::Memory(_) => named.contains(path),
    };
    let belongs = |file: &Skipped| {
        stem(&file.path).is_some_and(|key| stems.contains(&key)) || is_named(&file.path)
    };
    unknown.into_iter().filter(|file| !belongs(file)).collect()
}

fn may_be_detached(object: &Object) -> bool {
    // All of an archive's object lies in the archive.
    object.members.is_none()
        && matches!(
            object.format,
            Format::Nifti | Format::Nrrd | Format::MetaImage
        )
}

/// Lists the files that a header names, as far as they are there and it may name them.
fn named_files(object: &Object, store: Store<'_>) -> Vec<PathBuf> {
    named_by(&object.path, object.format, store, &Limits::default())
}

fn named_by(path: &Path, format: Format, store: Store<'_>, limits: &Limits) -> Vec<PathBuf> {
    let names_of = match format {
        Format::Nrrd => nrrd::data_files,
        Format::MetaImage => metaimage::data_files,
        _ => return Vec::new(),
    };
    let prefix = |n_bytes| store.prefix(path, n_bytes, limits).map(|(head, _)| head);
    let Ok(mut head) = prefix(SNIFF_BYTES as u64) else {
        return Vec::new();
    };
    // Only a list of files is longer than the head.
    if head.windows(4).any(|word| word == b"LIST") {
        head = prefix(MAX_LIST_BYTES).unwrap_or(head);
    }
    let names = names_of(&head).into_iter();
    names
        .filter_map(|name| store.sibling(path, &name).ok())
        .collect()
}

/// Folder and name up to the first dot.
fn stem(path: &Path) -> Option<(PathBuf, String)> {
    Some((path.parent()?.to_owned(), stem_name(path)?))
}

fn stem_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    name.split('.').next().map(str::to_owned)
}
