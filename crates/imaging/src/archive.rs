//! Finds the objects of an archive: files, and DICOM series spread over files.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::read::{
    Format, ReadOptions, SNIFF_BYTES, read_file, read_head, read_plain_into, read_prefix,
    sibling_path, sniff,
};
use crate::reason::{Code, Reason};
use crate::series::{self, Along, Header, Slice};
use crate::volume::Volume;
use crate::{dicom, dicomdir, foreign, metaimage, mgh, nrrd};

mod walk;

/// One thing to read: a file, or the files of one DICOM series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The file, or the folder that holds the series.
    pub path: PathBuf,
    /// `series=2` where the folder holds several series, and what differs from other volumes of its
    /// series: `series=2, echo=1`.
    pub part: Option<String>,
    /// The files, in the order of their paths.
    pub files: Vec<PathBuf>,
    /// What the files hold.
    pub format: Format,
    along: Along,
    /// What every image of it is told to have.
    notes: Vec<Reason>,
}

/// A file that belongs to no object.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: Error,
}

/// Finds every object at or below `root`: a file, a folder or a DICOMDIR.
///
/// Objects come in the order of their paths. Links to folders are followed, each folder once, under
/// its plain path where it has one; links that lead nowhere are skipped with an error. Files that hold the voxels of a detached header, and DICOMDIRs, are part of other objects and
/// are neither returned nor skipped.
///
/// # Errors
/// `Io` if `root` itself cannot be opened; everything below it is skipped with its reason.
pub fn find_objects(root: &Path, options: &ReadOptions) -> Result<(Vec<Object>, Vec<Skipped>)> {
    let status = std::fs::metadata(root).map_err(|e| Error::io("opening the path", e))?;
    let mut skipped = Vec::new();
    let files = if status.is_dir() {
        walk::files_below(root, &mut skipped)?
    } else if is_index(root, options)? {
        dicomdir::referenced_files(root, &mut skipped, options)?
    } else {
        return single_file(root).map(|object| (vec![object], skipped));
    };
    let classified: Vec<(PathBuf, Result<Class>)> = files
        .into_par_iter()
        .map(|path| (path.clone(), classify(&path, options)))
        .collect();
    let mut objects = Vec::new();
    let mut slices: Vec<(PathBuf, Slice)> = Vec::new();
    let mut unknown = Vec::new();
    for (path, class) in classified {
        match class {
            Ok(Class::Alone(format)) => objects.push(Object::of_file(path, format)),
            Ok(Class::Slice(slice)) => slices.push((path, *slice)),
            Ok(Class::Index) => {}
            Ok(Class::Unknown(error)) => unknown.push(Skipped { path, error }),
            Err(error) => skipped.push(Skipped { path, error }),
        }
    }
    skipped.extend(without_detached_voxels(unknown, &objects));
    objects.extend(group(slices, options));
    objects.sort_by(|a, b| (&a.path, &a.files).cmp(&(&b.path, &b.files)));
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((objects, skipped))
}

/// Reads one object.
///
/// # Errors
/// As `read_path`.
pub fn read_object(object: &Object, options: &ReadOptions) -> Result<Vec<Volume>> {
    let mut volumes = match object.files.as_slice() {
        [file] => read_file(file, options),
        several => series::read_files(several, object.along, options).map(|volume| vec![volume]),
    }?;
    for volume in &mut volumes {
        volume.reasons.extend(object.notes.iter().cloned());
    }
    Ok(volumes)
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
        let is_it = |volume: &Volume| object.name_of(volume).as_deref() == Some(part);
        if let Some(volume) = read_object(object, options)?.into_iter().find(is_it) {
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
    Index,
    Unknown(Error),
}

fn classify(path: &Path, options: &ReadOptions) -> Result<Class> {
    let head = read_head(path)?;
    match sniff(&head) {
        Some(Format::Dicom) => Ok(match series::read_header(path, &options.limits)? {
            Header::Slice(slice) => Class::Slice(slice),
            Header::Alone => Class::Alone(Format::Dicom),
            Header::Index => Class::Index,
            Header::NoImage => Class::Unknown(no_image()),
        }),
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
            series::read_header(path, &options.limits),
            Ok(Header::Index)
        ))
}

fn single_file(path: &Path) -> Result<Object> {
    let head = read_head(path)?;
    let format = sniff(&head).ok_or_else(|| foreign::refusal(&head))?;
    Ok(Object::of_file(path.to_owned(), format))
}

/// Drops files that hold the voxels of a header: those it names, and those that share folder and
/// stem with it.
fn without_detached_voxels(unknown: Vec<Skipped>, objects: &[Object]) -> Vec<Skipped> {
    if unknown.is_empty() {
        return unknown;
    }
    let headers: HashSet<(PathBuf, String)> = objects
        .iter()
        .filter(|object| may_be_detached(object))
        .filter_map(|object| stem(&object.path))
        .collect();
    let named: HashSet<PathBuf> = objects.iter().flat_map(named_files).collect();
    let is_named = |path: &Path| {
        !named.is_empty() && path.canonicalize().is_ok_and(|path| named.contains(&path))
    };
    let belongs = |file: &Skipped| {
        stem(&file.path).is_some_and(|key| headers.contains(&key)) || is_named(&file.path)
    };
    unknown.into_iter().filter(|file| !belongs(file)).collect()
}

fn may_be_detached(object: &Object) -> bool {
    matches!(
        object.format,
        Format::Nifti | Format::Nrrd | Format::MetaImage
    )
}

/// Lists the files with the voxels of an object whose header may lie apart from them, links
/// resolved: those that the header names, and those beside it with its name up to the first dot.
#[must_use]
pub fn detached_files(object: &Object) -> Vec<PathBuf> {
    if !may_be_detached(object) {
        return Vec::new();
    }
    let mut files = named_files(object);
    let own = stem(&object.path);
    let folder = object
        .path
        .parent()
        .filter(|folder| *folder != Path::new(""));
    let beside = std::fs::read_dir(folder.unwrap_or(Path::new(".")));
    for entry in beside.into_iter().flatten().flatten() {
        let name = |(_, name)| name;
        if stem(&entry.path()).map(name) == own.clone().map(name) {
            files.extend(entry.path().canonicalize());
        }
    }
    files
}

/// Most bytes of a header in which the names of its files are looked for.
const MAX_LIST_BYTES: u64 = 1 << 20;

/// Lists the files that a header names, as far as they are there and it may name them.
fn named_files(object: &Object) -> Vec<PathBuf> {
    let path = &object.path;
    let names_of = match object.format {
        Format::Nrrd => nrrd::data_files,
        Format::MetaImage => metaimage::data_files,
        _ => return Vec::new(),
    };
    let limits = Limits::default();
    let prefix = |n_bytes| read_prefix(path, n_bytes, &limits).map(|(head, _)| head);
    let Ok(mut head) = prefix(SNIFF_BYTES as u64) else {
        return Vec::new();
    };
    // Only a list of files is longer than the head.
    if head.windows(4).any(|word| word == b"LIST") {
        head = prefix(MAX_LIST_BYTES).unwrap_or(head);
    }
    let names = names_of(&head).into_iter();
    names
        .filter_map(|name| sibling_path(path, &name).ok())
        .collect()
}

/// Folder and name up to the first dot.
fn stem(path: &Path) -> Option<(PathBuf, String)> {
    let name = path.file_name()?.to_str()?;
    let stem = name.split('.').next()?.to_owned();
    Some((path.parent()?.to_owned(), stem))
}

/// Puts slices together to objects, and names those that share a folder.
fn group(slices: Vec<(PathBuf, Slice)>, options: &ReadOptions) -> Vec<Object> {
    let digest = |path: &Path| {
        let mut bytes = Vec::new();
        read_plain_into(&mut bytes, path, &options.limits).ok()?;
        dicom::pixel_digest(&bytes, &options.limits)
    };
    let mut parts = series::group(slices, &digest);
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
        });
    }
    objects
}

/// Says that a file in a folder is no image at all: of no image format, or a DICOM report or plan.
///
/// `no_pixels` is never a loss, whatever the file's name. `unknown_format` is one if the name
/// promises an image. Every other code is a refusal, among them `unsupported` for archives and for
/// images of other formats.
#[must_use]
pub fn is_not_an_image(error: &Error) -> bool {
    matches!(error.code(), Code::UnknownFormat | Code::NoPixels)
}
