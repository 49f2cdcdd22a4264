//! Finds the objects of an archive: files, and DICOM series spread over files.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::read::{
    Format, ReadOptions, Visit, read_file, read_head, read_stored, sniff, visit_file, visit_stored,
};
use crate::reason::{Code, Reason};
use crate::series::{self, Along, Header, Slice};
use crate::store::{MemoryFiles, Store};
use crate::volume::Volume;
use crate::{dicom, dicomdir, foreign, mgh};

mod detached;
mod walk;
mod zipped;

use self::detached::without_detached_voxels;
pub use self::detached::{detached_files, voxel_files};
use self::zipped::Members;

/// One thing to read: a file, the files of one DICOM series, or what is either in a zip archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The file, the folder that holds the series, or the zip archive.
    pub path: PathBuf,
    /// `series=2` where the folder holds several series, and what differs from other volumes of its
    /// series: `series=2, echo=1`; the name of a file of a zip archive with several objects.
    pub part: Option<String>,
    /// The files, in the order of their paths; of an archive's object, the archive.
    pub files: Vec<PathBuf>,
    /// What the files hold.
    pub format: Format,
    along: Along,
    /// What every image of it is told to have.
    notes: Vec<Reason>,
    /// Where it lies in a zip archive; `None` for files on disk.
    members: Option<Members>,
}

/// A file that belongs to no object.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: Error,
}

/// What a folder or an archive holds.
struct Found {
    objects: Vec<Object>,
    skipped: Vec<Skipped>,
}

/// Finds every object at or below `root`: a file, a folder, a DICOMDIR or a zip archive.
///
/// Objects come in the order of their paths. Links to folders are followed, each folder once, under
/// its plain path where it has one; links that lead nowhere are skipped with an error. Files that
/// hold the voxels of a detached header, and DICOMDIRs, are part of other objects and are neither
/// returned nor skipped.
///
/// # Errors
/// `Io` if `root` itself cannot be opened; everything below it is skipped with its reason.
pub fn find_objects(root: &Path, options: &ReadOptions) -> Result<(Vec<Object>, Vec<Skipped>)> {
    find_chosen(root, options, &mut |_| true)
}

/// Finds objects as `find_objects` does, in those files of a folder that are chosen; the others are not looked at, unless
/// they hold the voxels of a detached header. A file is asked for by its path below `root`.
///
/// # Errors
/// As `find_objects`.
pub fn find_chosen(
    root: &Path,
    options: &ReadOptions,
    is_chosen: &mut dyn FnMut(&Path) -> bool,
) -> Result<(Vec<Object>, Vec<Skipped>)> {
    let status = std::fs::metadata(root).map_err(|e| Error::io("opening the path", e))?;
    let mut skipped = Vec::new();
    let files = if status.is_dir() {
        let mut files = walk::files_below(root, &mut skipped)?;
        let mut is_chosen = |path: &Path| is_chosen(path.strip_prefix(root).unwrap_or(path));
        files.retain(|file| is_chosen(file));
        // What could not be listed may hold files that are chosen.
        skipped.retain(|skipped| skipped.path.is_dir() || is_chosen(&skipped.path));
        files
    } else if is_index(root, options)? {
        dicomdir::referenced_files(root, &mut skipped, options)?
    } else {
        let found = single_file(root, options)?;
        return Ok((found.objects, found.skipped));
    };
    let found = find_in(Store::Disk, files, options);
    skipped.extend(found.skipped);
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((found.objects, skipped))
}

/// Sorts files into objects and skipped ones, each in the order of their paths.
fn find_in(store: Store<'_>, files: Vec<PathBuf>, options: &ReadOptions) -> Found {
    let classified: Vec<(PathBuf, Result<Class>)> = files
        .into_par_iter()
        .map(|path| (path.clone(), classify(&path, store, options)))
        .collect();
    let (mut objects, mut skipped) = (Vec::new(), Vec::new());
    let mut slices: Vec<(PathBuf, Slice)> = Vec::new();
    let mut unplaced: Vec<(PathBuf, series::Key)> = Vec::new();
    let mut unknown = Vec::new();
    for (path, class) in classified {
        match class {
            Ok(Class::Alone(format)) => objects.push(Object::of_file(path, format)),
            Ok(Class::Slice(slice)) => slices.push((path, *slice)),
            Ok(Class::Unplaced(key)) => unplaced.push((path, *key)),
            Ok(Class::Index) => {}
            Ok(Class::Archive(mut found)) => {
                objects.append(&mut found.objects);
                skipped.append(&mut found.skipped);
            }
            Ok(Class::Unknown(error)) => unknown.push(Skipped { path, error }),
            Err(error) => skipped.push(Skipped { path, error }),
        }
    }
    skipped.extend(without_detached_voxels(unknown, &objects, store));
    let mut parts = series::unplaced(&unplaced, &slices);
    parts.extend(series_of(slices, store, options));
    objects.extend(named(parts));
    objects.sort_by(|a, b| (&a.path, &a.files, &a.part).cmp(&(&b.path, &b.files, &b.part)));
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Found { objects, skipped }
}

/// Reads one object.
///
/// # Errors
/// As `read_path`.
pub fn read_object(object: &Object, options: &ReadOptions) -> Result<Vec<Volume>> {
    let (store, files) = object.place();
    read_from(store, files, object, options)
}

fn read_from(
    store: Store<'_>,
    files: &[PathBuf],
    object: &Object,
    options: &ReadOptions,
) -> Result<Vec<Volume>> {
    let mut volumes = match (files, store) {
        ([file], Store::Disk) => read_file(file, options)?,
        ([file], Store::Zip(_) | Store::Memory(_)) => read_stored(store, file, options)?,
        (several, _) => vec![series::read_files(several, object.along, store, options)?],
    };
    for volume in &mut volumes {
        volume.reasons.extend(object.notes.iter().cloned());
    }
    Ok(volumes)
}

/// Reads one DICOM series from the bytes of its files, as `read_path` reads a folder with these files.
///
/// # Errors
/// `Mismatch` if a file is not DICOM, or the files hold no or several objects, such as two series; as `read_path`
/// otherwise.
pub fn read_series_bytes(files: &[&[u8]], options: &ReadOptions) -> Result<Vec<Volume>> {
    options.limits.parts(files.len() as u64)?;
    let is_dicom = |bytes: &&[u8]| sniff(bytes) == Some(Format::Dicom);
    if let Some(place) = files.iter().position(|bytes| !is_dicom(bytes)) {
        return Err(Error::Mismatch {
            what: "files of a series",
            expected: "DICOM in each".into(),
            got: format!("another format in file {place} (from 0)"),
        });
    }
    let files = MemoryFiles(files);
    let store = Store::Memory(files);
    let mut found = find_in(store, files.names(), options);
    if let Some(skipped) = found.skipped.pop() {
        return Err(skipped.error.in_file(&skipped.path));
    }
    match found.objects.as_slice() {
        [only] => read_from(store, &only.files, only, options),
        several => Err(Error::Mismatch {
            what: "objects in the files",
            expected: "one DICOM series, or one image".into(),
            got: several.len().to_string(),
        }),
    }
}

/// Reads one object and hands its images over one by one, as `visit_file` does.
///
/// # Errors
/// As `read_object`. Nothing was handed over then.
pub fn visit_object(object: &Object, options: &ReadOptions, visit: Visit<'_>) -> Result<()> {
    match object.place() {
        (store, [file]) => {
            let mut with_notes = |mut volume: Volume| {
                volume.reasons.extend(object.notes.iter().cloned());
                visit(volume)
            };
            match store {
                Store::Disk => visit_file(file, options, &mut with_notes),
                Store::Zip(_) | Store::Memory(_) => {
                    visit_stored(store, file, options, &mut with_notes)
                }
            }
        }
        _ => {
            let _ = read_object(object, options)?
                .into_iter()
                .try_for_each(visit);
            Ok(())
        }
    }
}

impl Object {
    /// Makes the object of one file that is not part of a series.
    #[must_use]
    pub fn of_file(path: PathBuf, format: Format) -> Self {
        Self {
            files: vec![path.clone()],
            path,
            part: None,
            format,
            along: Along::Space,
            notes: Vec::new(),
            members: None,
        }
    }

    /// Returns where its bytes lie, and under which names.
    fn place(&self) -> (Store<'_>, &[PathBuf]) {
        match &self.members {
            Some(members) => (Store::Zip(&members.zip), &members.names),
            None => (Store::Disk, &self.files),
        }
    }

    /// Names one of its images among all of its path: by its series, and its part of a file.
    #[must_use]
    pub fn name_of(&self, volume: &Volume) -> Option<String> {
        match (&self.part, &volume.part) {
            (Some(series), Some(part)) => Some(format!("{series}, {part}")),
            (one, other) => one.as_ref().or(other.as_ref()).cloned(),
        }
    }

    /// Returns whether one of its images may have this name.
    #[must_use]
    pub fn may_hold(&self, part: &str) -> bool {
        self.part.as_deref().is_none_or(|series| {
            let rest = part.strip_prefix(series);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
        })
    }
}

/// Reads the one image of a file or folder that `part` names, as `Object::name_of` does; without a part,
/// the only one.
///
/// # Errors
/// As `find_objects` and `read_object`; `Mismatch` if there are several images and no part, or none of
/// that name.
pub fn read_image(path: &Path, part: Option<&str>, options: &ReadOptions) -> Result<Volume> {
    let (objects, skipped) = find_objects(path, options)?;
    if objects.is_empty() {
        let first = skipped.into_iter().next();
        return Err(first.map_or_else(nothing_there, |file| file.error.in_file(&file.path)));
    }
    let Some(part) = part else {
        let [object] = &objects[..] else {
            return Err(several("objects", objects.len()));
        };
        let mut volumes = read_object(object, options)?;
        return match (volumes.pop(), volumes.len()) {
            (Some(volume), 0) => Ok(volume),
            (_, n_others) => Err(several("images", n_others + 1)),
        };
    };
    for object in objects.iter().filter(|object| object.may_hold(part)) {
        let mut found = None;
        visit_object(object, options, &mut |volume| {
            if object.name_of(&volume).as_deref() == Some(part) {
                found = Some(volume);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if let Some(volume) = found {
            return Ok(volume);
        }
    }
    Err(Error::Mismatch {
        what: "part",
        expected: "one that m3ret inspect lists".to_owned(),
        got: part.to_owned(),
    })
}

fn nothing_there() -> Error {
    Error::refused(
        "folder",
        Code::NoPixels,
        "no file",
        "an image or the files of one series",
    )
}

fn several(what: &str, n: usize) -> Error {
    Error::Mismatch {
        what: "image",
        expected: "one; name it by a column part with what m3ret inspect shows in brackets".into(),
        got: format!("{n} {what}"),
    }
}

enum Class {
    Alone(Format),
    Slice(Box<Slice>),
    Unplaced(Box<series::Key>),
    Index,
    Archive(Found),
    Unknown(Error),
}

fn classify(path: &Path, store: Store<'_>, options: &ReadOptions) -> Result<Class> {
    let head = store.head(path)?;
    let is_nested = !matches!(store, Store::Disk);
    match sniff(&head) {
        Some(Format::Dicom) => Ok(match series::read_header(path, store, &options.limits)? {
            Header::Slice(slice) => Class::Slice(slice),
            Header::Alone => Class::Alone(Format::Dicom),
            Header::Unplaced(key) => Class::Unplaced(key),
            Header::Index => Class::Index,
            Header::NoImage => Class::Unknown(no_image()),
        }),
        Some(Format::Zip) if !is_nested => zipped::find(path, options).map(Class::Archive),
        Some(format @ (Format::Zip | Format::Video)) if is_nested => {
            let what = match format {
                Format::Zip => "a zip archive inside another",
                _ => "a video inside a zip archive",
            };
            let advice = "unpack it and pass the folder";
            Ok(Class::Unknown(Error::unsupported("file", what, advice)))
        }
        Some(Format::Mgh) if mgh::is_surface(&head) => Ok(Class::Unknown(mgh::surface_refusal())),
        Some(format) => Ok(Class::Alone(format)),
        None => Ok(Class::Unknown(foreign::refusal(&head))),
    }
}

fn no_image() -> Error {
    Error::refused(
        "dicom",
        Code::NoPixels,
        "a DICOM object without an image",
        "an image",
    )
}

fn is_index(path: &Path, options: &ReadOptions) -> Result<bool> {
    Ok(sniff(&read_head(path)?) == Some(Format::Dicom)
        && matches!(
            series::read_header(path, Store::Disk, &options.limits),
            Ok(Header::Index)
        ))
}

fn single_file(path: &Path, options: &ReadOptions) -> Result<Found> {
    let head = read_head(path)?;
    match sniff(&head).ok_or_else(|| foreign::refusal(&head))? {
        Format::Zip => zipped::find(path, options),
        format => Ok(Found {
            objects: vec![Object::of_file(path.to_owned(), format)],
            skipped: Vec::new(),
        }),
    }
}

/// Puts slices together by series and volume.
fn series_of(
    slices: Vec<(PathBuf, Slice)>,
    store: Store<'_>,
    options: &ReadOptions,
) -> Vec<series::Part> {
    let digest = |path: &Path| {
        let mut bytes = Vec::new();
        store.plain_into(&mut bytes, path, &options.limits).ok()?;
        dicom::pixel_digest(&bytes, &options.limits)
    };
    let mut parts = series::group(slices, &digest);
    if matches!(store, Store::Zip(_)) {
        // The objects of an archive share one path, also where the archive has folders.
        parts
            .iter_mut()
            .for_each(|part| part.folder = PathBuf::new());
    }
    parts
}

/// Makes objects of parts, and names those that share a folder.
fn named(mut parts: Vec<series::Part>) -> Vec<Object> {
    parts.sort_by(|a, b| (&a.folder, &a.files).cmp(&(&b.folder, &b.files)));
    let is_shown = |part: &series::Part| part.files.len() > 1 && !part.is_copied_image;
    // The series of each folder, numbered in the order of their first files.
    let mut series: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for part in parts.iter().filter(|part| is_shown(part)) {
        let known = series.entry(part.folder.clone()).or_default();
        if !known.contains(&part.series) {
            known.push(part.series);
        }
    }
    let mut objects = Vec::new();
    for part in parts {
        if !is_shown(&part) {
            // Images of their own; copies too, so that they are seen.
            objects.extend(part.files.into_iter().map(|file| Object {
                notes: part.notes.clone(),
                ..Object::of_file(file, Format::Dicom)
            }));
            continue;
        }
        let known = series.get(&part.folder).filter(|known| known.len() > 1);
        let number = known.and_then(|known| known.iter().position(|&s| s == part.series));
        let series = number.map(|number| format!("series={}", number + 1));
        objects.push(Object {
            path: part.folder,
            part: match (series, part.name) {
                (Some(series), Some(name)) => Some(format!("{series}, {name}")),
                (series, name) => series.or(name),
            },
            files: part.files,
            format: Format::Dicom,
            along: part.along,
            notes: part.notes,
            members: None,
        });
    }
    objects
}

/// Says that a file in a folder is no image at all: of no image format, or a DICOM report or plan.
///
/// `no_pixels` is never a loss, under any file name. `unknown_format` is one if the name
/// promises an image. Every other code is a refusal, among them `unsupported` for archives and for
/// images of other formats.
#[must_use]
pub fn is_not_an_image(error: &Error) -> bool {
    matches!(error.code(), Code::UnknownFormat | Code::NoPixels)
}
