//! Finds the objects of an archive: files, and DICOM series spread over files.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dicom;
use crate::dicomdir;
use crate::error::{Error, Result};
use crate::read::{
    Format, ReadOptions, Visit, read_file, read_head, read_whole, sniff, unknown_format, visit_file,
};
use crate::reason::{Code, Reason};
use crate::series::{self, Along, Header, Slice};
use crate::volume::Volume;

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
/// Objects come in the order of their paths. Links to folders are not followed, so a walk ends.
/// Files that hold the voxels of a detached header, and DICOMDIRs, are part of other objects and
/// are neither returned nor skipped.
///
/// # Errors
/// `Io` if `root` itself cannot be opened; everything below it is skipped with its reason.
pub fn find_objects(root: &Path, options: &ReadOptions) -> Result<(Vec<Object>, Vec<Skipped>)> {
    let status = std::fs::metadata(root).map_err(|e| Error::io("opening the path", e))?;
    let mut skipped = Vec::new();
    let files = if status.is_dir() {
        walk(root, &mut skipped)?
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

/// Reads one object and hands its images over one by one, as `visit_file` does.
///
/// # Errors
/// As `read_object`. Nothing was handed over then.
pub fn visit_object(object: &Object, options: &ReadOptions, visit: Visit<'_>) -> Result<()> {
    match object.files.as_slice() {
        [file] => visit_file(file, options, &mut |mut volume| {
            volume.reasons.extend(object.notes.iter().cloned());
            visit(volume)
        }),
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
        Some(format) => Ok(Class::Alone(format)),
        None => Ok(Class::Unknown(unknown_format(&head))),
    }
}

fn no_image() -> Error {
    Error::refused(
        "dicom",
        Code::NoPixels,
        "an object that is no image",
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
    let format = sniff(&head).ok_or_else(|| unknown_format(&head))?;
    Ok(Object::of_file(path.to_owned(), format))
}

/// Lists the regular files below a folder.
fn walk(root: &Path, skipped: &mut Vec<Skipped>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if folder == root => return Err(Error::io("listing the folder", e)),
            Err(e) => {
                skipped.push(Skipped {
                    path: folder,
                    error: Error::io("listing the folder", e),
                });
                continue;
            }
        };
        for entry in entries {
            let kind = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)));
            match kind {
                Ok((path, kind)) if kind.is_dir() => folders.push(path),
                // A link to a file is read; a link to a folder could lead in circles.
                Ok((path, kind)) if kind.is_file() || (kind.is_symlink() && path.is_file()) => {
                    files.push(path);
                }
                Ok(_) => {}
                Err(e) => {
                    let error = Error::io("listing the folder", e);
                    skipped.push(Skipped {
                        path: folder.clone(),
                        error,
                    });
                }
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Drops files that share folder and stem with a header format: they hold its voxels.
fn without_detached_voxels(unknown: Vec<Skipped>, objects: &[Object]) -> Vec<Skipped> {
    let may_be_detached =
        |o: &&Object| matches!(o.format, Format::Nifti | Format::Nrrd | Format::MetaImage);
    let headers: HashSet<(PathBuf, String)> = objects
        .iter()
        .filter(may_be_detached)
        .filter_map(|o| stem(&o.path))
        .collect();
    let belongs = |file: &Skipped| stem(&file.path).is_some_and(|key| headers.contains(&key));
    unknown.into_iter().filter(|file| !belongs(file)).collect()
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
        let bytes = read_whole(path, &options.limits).ok()?;
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
#[must_use]
pub fn is_not_an_image(error: &Error) -> bool {
    matches!(error.code(), Code::UnknownFormat | Code::NoPixels)
}
