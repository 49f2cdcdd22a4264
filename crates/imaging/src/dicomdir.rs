//! DICOMDIR: the files that an index names, none of them outside its folder.
//!
//! # Source
//! DICOM PS3.3 annex F, PS3.10 section 8.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;

use crate::archive::Skipped;
use crate::dicom;
use crate::error::{Error, Result};
use crate::read::{ReadOptions, read_whole};
use crate::reason::Code;

/// Most paths that are followed for one reference, where folders differ in case alone.
const MAX_SPELLINGS: usize = 16;

/// Lists the files that a DICOMDIR refers to; those missing or outside are skipped with a reason.
///
/// # Errors
/// `Io` or `Malformed` if the index itself cannot be read.
pub(crate) fn referenced_files(
    index: &Path,
    skipped: &mut Vec<Skipped>,
    options: &ReadOptions,
) -> Result<Vec<PathBuf>> {
    let bytes = read_whole(index, &options.limits)?;
    let file = dicom::File::open(&bytes, &options.limits)?;
    let set = file.data_set(&options.limits)?;
    // The parent of a bare name is empty, which no system call takes for the current folder.
    let folder = match index.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut listings = Listings::default();
    let mut files = Vec::new();
    for record in set.items(tags::DIRECTORY_RECORD_SEQUENCE)? {
        let Some(name) = record.text(tags::REFERENCED_FILE_ID) else {
            continue;
        };
        match resolve(folder, &name, &mut listings) {
            Ok(path) => files.push(path),
            // The name is the index's own text: it is not repeated in the message.
            Err(error) => skipped.push(Skipped {
                path: index.to_owned(),
                error,
            }),
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// The names of folders, each listed once.
#[derive(Default)]
struct Listings {
    folders: HashMap<PathBuf, HashMap<String, Vec<OsString>>>,
}

impl Listings {
    /// Returns the entries of a folder that may be meant by a component, the likeliest first.
    fn matching(&mut self, folder: &Path, component: &str) -> Vec<OsString> {
        let names = (self.folders)
            .entry(folder.to_owned())
            .or_insert_with(|| by_plain_name(folder));
        let mut found = names
            .get(&plain_name(component))
            .cloned()
            .unwrap_or_default();
        found.sort_by_key(|name| (rank(name, component), name.clone()));
        found
    }
}

/// Lists a folder; one that cannot be listed holds nothing.
fn by_plain_name(folder: &Path) -> HashMap<String, Vec<OsString>> {
    let mut names: HashMap<String, Vec<OsString>> = HashMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let key = plain_name(&name.to_string_lossy());
        names.entry(key).or_default().push(name);
    }
    names
}

/// Strips what copying from a medium changes: case, a version (`;1`, `.;1`), an added `.dcm`.
fn plain_name(name: &str) -> String {
    let name = without_version(name).to_lowercase();
    name.strip_suffix(".dcm").unwrap_or(&name).to_owned()
}

/// Strips the version of ISO 9660, and the dot before it where there is no extension.
fn without_version(name: &str) -> &str {
    match name.rsplit_once(';') {
        Some((stem, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => {
            stem.strip_suffix('.').unwrap_or(stem)
        }
        _ => name,
    }
}

/// Orders entries of one plain name: the exact one, then case, version, and extension changed.
fn rank(name: &OsStr, component: &str) -> u8 {
    let name = name.to_string_lossy();
    if name == component {
        0
    } else if name.eq_ignore_ascii_case(component) {
        1
    } else if without_version(&name).eq_ignore_ascii_case(without_version(component)) {
        2
    } else {
        3
    }
}

/// Joins the components of a file identifier to the folder, as they are spelled on disk.
///
/// Where several entries match, the first file in the order of `rank` is meant.
fn resolve(folder: &Path, name: &str, listings: &mut Listings) -> Result<PathBuf> {
    let mut paths = vec![folder.to_owned()];
    for component in name.split('\\').map(str::trim_end) {
        let is_plain = !component.is_empty()
            && !matches!(component, "." | "..")
            && !component.contains(['/', '\0']);
        if !is_plain {
            return Err(Error::refused(
                "dicomdir",
                Code::Malformed,
                "a reference that leaves the folder of the index",
                "plain names below it",
            ));
        }
        paths = paths
            .iter()
            .flat_map(|path| {
                let names = listings.matching(path, component);
                names.into_iter().map(|name| path.join(name))
            })
            .take(MAX_SPELLINGS)
            .collect();
    }
    let Ok(root) = folder.canonicalize() else {
        return Err(missing());
    };
    let mut refusal = missing();
    for path in paths {
        match path.canonicalize() {
            Ok(file) if !file.starts_with(&root) => {
                let found = "a link out of the folder";
                refusal = Error::malformed("dicomdir", found, "a file below it");
            }
            Ok(file) if file.is_file() => return Ok(path),
            Ok(_) | Err(_) => {}
        }
    }
    Err(refusal)
}

fn missing() -> Error {
    let found = "a reference to a missing file";
    Error::malformed("dicomdir", found, "every file it names")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(folder: &Path, name: &str) -> Option<PathBuf> {
        let path = resolve(folder, name, &mut Listings::default()).ok()?;
        Some(path.strip_prefix(folder).unwrap().to_owned())
    }

    #[test]
    fn references_cannot_leave_the_folder() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("secret"), "x").unwrap();
        let folder = outer.path().join("cd");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("inside"), "x").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(outer.path(), folder.join("out")).unwrap();
        assert!(resolved(&folder, "INSIDE").is_some());
        for name in [
            "..\\secret",
            "/etc/passwd",
            "",
            "a\\..\\..\\b",
            "MISSING",
            "OUT\\SECRET",
            "INSIDE\\INSIDE",
            "INSIDE\\",
        ] {
            assert_eq!(resolved(&folder, name), None, "{name}");
        }
    }

    #[test]
    fn names_are_found_however_the_medium_was_copied() {
        for on_disk in [
            "DICOM/PAT001/IM000000",
            "dicom/pat001/im000000",
            "Dicom/Pat001/Im000000",
            "DICOM/PAT001/IM000000.dcm",
            "DICOM/PAT001/IM000000.DCM",
            "dicom/Pat001/IM000000.;1",
            "DICOM/PAT001/im000000;1",
            "DICOM;1/pat001/IM000000.dcm;1",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(on_disk);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "x").unwrap();
            for name in ["DICOM\\PAT001\\IM000000", "DICOM\\PAT001\\IM000000.;1"] {
                let found = resolved(folder.path(), name);
                assert_eq!(found, Some(on_disk.into()), "{name} for {on_disk}");
            }
        }
    }

    #[test]
    fn of_several_spellings_the_nearest_that_is_a_file_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["A/IM1", "a/im1", "a/im2", "a/IM3.dcm", "a/Im3;1", "B/x"] {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("A/IM2")).unwrap();
        for (name, wanted) in [
            ("A\\IM1", Some("A/IM1")),
            ("A\\IM2", Some("a/im2")),
            ("A\\IM3", Some("a/Im3;1")),
            ("B", None),
        ] {
            assert_eq!(
                resolved(folder.path(), name),
                wanted.map(PathBuf::from),
                "{name}"
            );
        }
    }
}
